use super::*;
use proptest::prelude::*;

fn rule(allow: bool, kind: char, major: Option<u32>, minor: Option<u32>, access: &str) -> DeviceRule {
    DeviceRule { allow, kind, major, minor, access: access.to_owned() }
}

fn docker() -> Vec<DeviceRule> {
    vec![
        rule(false, 'a', None, None, "rwm"),
        rule(true, 'c', None, None, "m"),
        rule(true, 'b', None, None, "m"),
        rule(true, 'c', Some(1), Some(3), "rwm"),
        rule(true, 'c', Some(136), None, "rwm"),
        rule(true, 'c', Some(5), Some(0), "rwm"),
    ]
}

/// Runs a program as the kernel would, for the instructions that this module uses.
fn run(program: &[Instruction], kind: char, major: u32, minor: u32, access: u32) -> bool {
    let context = [access << 16 | if kind == 'b' { 1 } else { 2 }, major, minor];
    let mut registers = [0u64; 11];
    let mut pc = 0usize;
    for _ in 0..10_000 {
        let i = program[pc];
        let (dst, src) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
        pc += 1;
        let taken = match i.code {
            bpf::LOAD_WORD => {
                assert_eq!(src, 1, "only the context is loaded from");
                registers[dst] = u64::from(context[i.offset as usize / 4]);
                false
            }
            bpf::MOVE_REGISTER => {
                registers[dst] = registers[src];
                false
            }
            bpf::MOVE_VALUE => {
                registers[dst] = i.immediate as u64;
                false
            }
            bpf::AND => {
                registers[dst] = u64::from(registers[dst] as u32 & i.immediate as u32);
                false
            }
            bpf::SHIFT_RIGHT => {
                registers[dst] = u64::from((registers[dst] as u32) >> i.immediate);
                false
            }
            bpf::JUMP_EQUAL => registers[dst] as u32 == i.immediate as u32,
            bpf::JUMP_NOT_EQUAL => registers[dst] as u32 != i.immediate as u32,
            bpf::EXIT => return registers[0] == 1,
            other => panic!("unknown instruction {other:#x}"),
        };
        if taken {
            pc += usize::try_from(i.offset).expect("only forward jumps");
        }
    }
    panic!("the program does not end");
}

#[test]
fn dockers_rules() {
    let policy = Policy::new(&docker());
    for (kind, major, minor, access, allowed) in [
        ('c', 1, 3, READ | WRITE, true),
        ('c', 1, 1, READ, false),
        ('c', 1, 1, MKNOD, true),
        ('b', 254, 0, MKNOD, true),
        ('b', 254, 0, READ, false),
        ('b', 254, 0, READ | MKNOD, false),
        ('c', 136, 77, ANY_ACCESS, true),
        ('c', 10, 229, READ | WRITE, false),
        ('c', 5, 0, WRITE, true),
    ] {
        assert_eq!(policy.allows(kind, major, minor, access), allowed, "{kind} {major}:{minor} {access}");
        assert_eq!(run(&policy.program(), kind, major, minor, access), allowed, "{kind} {major}:{minor} {access}");
    }
}

#[test]
fn version_1_lines() {
    let lines: Vec<String> = v1_lines(&docker()).iter().map(|(file, line)| format!("{file} {line}")).collect();
    assert_eq!(
        lines,
        [
            "devices.deny a",
            "devices.allow c *:* m",
            "devices.allow b *:* m",
            "devices.allow c 1:3 rwm",
            "devices.allow c 136:* rwm",
            "devices.allow c 5:0 rwm",
        ]
    );
    assert_eq!(
        v1_lines(&[rule(true, 'a', Some(7), None, "r")]),
        [("devices.allow", "c 7:* r".to_owned()), ("devices.allow", "b 7:* r".to_owned())]
    );
}

#[test]
fn rules_for_one_device_add_up() {
    let policy = Policy::new(&[
        rule(false, 'a', None, None, "rwm"),
        rule(true, 'c', Some(1), Some(9), "r"),
        rule(true, 'c', Some(1), Some(9), "w"),
    ]);
    assert!(policy.allows('c', 1, 9, READ | WRITE));
    assert!(!policy.allows('c', 1, 9, MKNOD));
}

#[test]
fn allow_all_needs_no_program() {
    assert!(Policy::new(&[rule(true, 'a', None, None, "rwm")]).allows_all());
    assert!(!Policy::new(&docker()).allows_all());
    let except = Policy::new(&[rule(true, 'a', None, None, ""), rule(false, 'b', Some(8), None, "w")]);
    assert!(!except.allows('b', 8, 1, READ | WRITE));
    assert!(except.allows('b', 8, 1, READ));
}

fn any_rule() -> impl Strategy<Value = DeviceRule> {
    let number = || prop_oneof![Just(None), (0u32..4).prop_map(Some), Just(Some(u32::MAX))];
    (any::<bool>(), prop_oneof![Just('a'), Just('b'), Just('c')], number(), number(), "[rwm]{0,3}")
        .prop_map(|(allow, kind, major, minor, access)| rule(allow, kind, major, minor, &access))
}

proptest! {
    /// The program decides as the version 1 controller does.
    #[test]
    fn program_is_the_policy(rules in prop::collection::vec(any_rule(), 0..12)) {
        let policy = Policy::new(&rules);
        let program = policy.program();
        for kind in ['b', 'c'] {
            for (major, minor) in [(0, 0), (1, 3), (2, 2), (3, 9), (u32::MAX, 1), (9, u32::MAX)] {
                for access in 1..=ANY_ACCESS {
                    prop_assert_eq!(
                        run(&program, kind, major, minor, access),
                        policy.allows(kind, major, minor, access),
                        "{} {}:{} {} of {:?}", kind, major, minor, access, policy
                    );
                }
            }
        }
    }
}
