//! The compiled tree against a linear reading of the rules, the golden table, and the kernel.

use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const X86: [Arch; 3] = [Arch::X86_64, Arch::X86, Arch::X32];

fn default_caps() -> Set {
    caps::DEFAULT_SET
}

/// The verdicts of rules read from the first to the last. Only the look-up by number is indexed.
struct Naive<'a> {
    rules: &'a Rules,
    arch: Arch,
    by_number: HashMap<u32, Vec<&'a Rule>>,
    known: HashSet<u32>,
    highest: u32,
}

impl<'a> Naive<'a> {
    fn new(rules: &'a Rules, arch: Arch) -> Self {
        let mut by_number: HashMap<u32, Vec<&Rule>> = HashMap::new();
        for rule in &rules.rules {
            if let Some(number) = arch.number(rule.call.0) {
                by_number.entry(number).or_default().push(rule);
            }
        }
        let highest = by_number.keys().copied().max().unwrap_or(0);
        Self { rules, arch, by_number, known: arch.calls().map(|(n, _)| n).collect(), highest }
    }

    fn verdict(&self, number: u32, args: &[u64; 6]) -> Action {
        for rule in self.by_number.get(&number).into_iter().flatten() {
            let ints = match rule.call.0 {
                "socket" | "socketpair" | "setsockopt" | "getsockopt" => 3,
                "ioctl" | "fcntl" | "setns" | "bpf" | "keyctl" => 2,
                "personality" | "clone" | "prctl" | "unshare" => 1,
                _ => 0,
            };
            let holds = |c: &Condition| {
                let narrow = matches!(self.arch, Arch::X86 | Arch::X32) || c.index < ints;
                Condition { narrow, ..*c }.holds(args)
            };
            if rule.conditions.iter().all(holds) {
                return rule.action;
            }
        }
        let default = self.rules.default;
        let is_errno = default.0 & 0xffff_0000 == 0x0005_0000;
        let unheard_of = !self.known.contains(&number) || number > self.highest;
        let named = self.by_number.contains_key(&number);
        if is_errno && unheard_of && !named { Action::ENOSYS } else { default }
    }
}

/// Arguments that hit and miss every condition of the default profile.
fn samples() -> Vec<[u64; 6]> {
    let mut samples = Vec::new();
    for value in [
        0,
        1,
        2,
        8,
        16,
        37,
        38,
        39,
        40,
        41,
        0x2_0000,
        0x2_0008,
        0x1_0000_0026,
        0x1_0000_0028,
        0x1_0000_0000,
        0xffff_ffff,
        0x1000_0000,
        0x0120_0011,
        0x7e02_0000,
        0x8000_0000,
        u64::MAX,
        1 << 63,
    ] {
        samples.push([value; 6]);
        samples.push([value, 0, 0, 0, 0, 0]);
        samples.push([0, value, 0, 0, 0, 0]);
    }
    samples
}

/// Every number that an ABI could mean, and the borders.
fn numbers(arch: Arch) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..600).chain([1023, 0x3fff_ffff]).collect();
    if arch == Arch::X32 {
        numbers = (0x4000_0000..0x4000_0258).chain([0x4000_ffff, 0x7fff_ffff, 0x8000_0000, u32::MAX]).collect();
    }
    numbers
}

#[track_caller]
fn check_against_naive(rules: &Rules, samples: &[[u64; 6]]) {
    let program = compile::compile(rules);
    for arch in &rules.arches {
        let naive = Naive::new(rules, *arch);
        for number in numbers(*arch) {
            // Calls without conditions look the same with any arguments.
            let conditional = naive.by_number.get(&number).is_some_and(|r| r.iter().any(|r| !r.conditions.is_empty()));
            for args in if conditional { samples } else { &samples[..3] } {
                let found = interpret::run(&program, arch.audit(), number, args);
                assert_eq!(found, Some(naive.verdict(number, args)), "{arch:?} {number} {args:x?}");
            }
        }
    }
}

#[test]
fn default_tree_is_the_list() {
    let with = |names: &[&str]| Set(default_caps().0 | Set::from_names(names).unwrap().0);
    for held in [
        default_caps(),
        Set(0),
        caps::ALL,
        with(&["SYS_ADMIN"]),
        with(&["SYS_PTRACE", "SYS_NICE", "BPF"]),
        with(&["SYSLOG", "SYS_TIME", "SYS_MODULE"]),
    ] {
        let samples = samples();
        check_against_naive(&default_rules(held, &X86), &samples);
        check_against_naive(&default_rules(held, &[Arch::Aarch64]), &samples);
    }
}

#[test]
fn default_program_is_short_and_complete() {
    let program = compile::compile(&default_rules(default_caps(), &X86));
    assert!(program.len() <= 350, "{} instructions", program.len());
    let conditional = ["clone", "personality", "socket"];
    let reachable = Arch::X86_64
        .calls()
        .filter(|(number, name)| {
            conditional.contains(name)
                || interpret::run(&program, Arch::X86_64.audit(), *number, &[0; 6]) == Some(Action::ALLOW)
        })
        .count();
    assert_eq!(reachable, 309, "Docker 29's count for its default capabilities");
    assert_eq!(interpret::run(&program, 0xc000_00b7, 0, &[0; 6]), Some(Action::KILL_PROCESS));
}

#[test]
fn int_arguments_cannot_hide_in_the_upper_half() {
    let filter = default_for(default_caps());
    let ask = |arch: Arch, name, first| filter.verdict(arch, arch.number(name).unwrap(), &[first, 0, 0, 0, 0, 0]);
    for arch in X86 {
        for high in [0, 1 << 32, 7 << 60] {
            assert_eq!(ask(arch, "socket", high | 38), Action::EPERM, "AF_ALG");
            assert_eq!(ask(arch, "socket", high | 40), Action::EPERM, "AF_VSOCK");
            assert_eq!(ask(arch, "socket", high | 2), Action::ALLOW, "AF_INET");
            assert_eq!(ask(arch, "socket", high | 39), Action::ALLOW, "AF_NFC");
            assert_eq!(ask(arch, "socket", high | 44), Action::ALLOW, "AF_XDP");
            assert_eq!(ask(arch, "clone", high | 0x1000_0011), Action::EPERM, "CLONE_NEWUSER");
            assert_eq!(ask(arch, "clone", high | 0x3d_0f00), Action::ALLOW, "a thread");
        }
        assert_eq!(ask(arch, "clone3", 0), Action::ENOSYS);
        assert_eq!(ask(arch, "personality", 8), Action::ALLOW);
        assert_eq!(ask(arch, "personality", 0x4_0000), Action::EPERM, "ADDR_NO_RANDOMIZE");
        assert_eq!(ask(arch, "unshare", 0), Action::EPERM);
        assert_eq!(ask(arch, "io_uring_setup", 0), Action::EPERM);
    }
    assert_eq!(ask(Arch::X86, "socketcall", 1), Action::ALLOW);
    assert_eq!(filter.verdict(Arch::X86_64, 9999, &[0; 6]), Action::ENOSYS);
    assert_eq!(filter.verdict(Arch::X86_64, 390, &[0; 6]), Action::ENOSYS);
}

/// `allow`, `EPERM`, `ENOSYS`, or `args` where the arguments decide.
fn word(program: &[Instruction], arch: Arch, name: &str) -> &'static str {
    let Some(number) = arch.number(name) else { return "-" };
    let verdicts: Vec<Action> =
        samples().iter().map(|args| interpret::run(program, arch.audit(), number, args).unwrap()).collect();
    match verdicts[0] {
        _ if verdicts.iter().any(|v| *v != verdicts[0]) => "args",
        Action::ALLOW => "allow",
        Action::EPERM => "EPERM",
        Action::ENOSYS => "ENOSYS",
        other => panic!("{name}: {other:?}"),
    }
}

fn update() -> bool {
    std::env::var_os("DHOW_UPDATE_GOLDEN").is_some()
}

#[track_caller]
fn golden(path: &Path, text: &str) {
    if update() {
        std::fs::write(path, text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert!(expected == text, "{} is out of step; DHOW_UPDATE_GOLDEN=1 rewrites it", path.display());
}

#[test]
fn golden_table() {
    let mut text = "# What Docker's default profile answers for the default capabilities, and with all capabilities.\n\
                    # `args`: the arguments decide. `-`: the ABI has no such call.\n\
                    # call\tx86_64\ti386\tx32\tarm64\tx86_64 with all\n"
        .to_owned();
    let program = compile::compile(&default_rules(default_caps(), &X86));
    let arm = compile::compile(&default_rules(default_caps(), &[Arch::Aarch64]));
    let all = compile::compile(&default_rules(caps::ALL, &X86));
    for (name, _) in syscalls::TABLE {
        let [x86_64, i386, x32] = X86.map(|arch| word(&program, arch, name));
        let arm64 = word(&arm, Arch::Aarch64, name);
        let with_all = word(&all, Arch::X86_64, name);
        writeln!(text, "{name}\t{x86_64}\t{i386}\t{x32}\t{arm64}\t{with_all}").unwrap();
    }
    golden(&manifest("tests/golden/seccomp-default.tsv"), &text);
}

fn manifest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The constant program as Rust source.
#[test]
#[cfg(target_arch = "x86_64")]
fn precompiled_is_current() {
    let relevant = relevant(default_caps());
    let program = compile::compile(&default_rules(default_caps(), &X86));
    if update() {
        let path = manifest("src/seccomp/precompiled.rs");
        let old = std::fs::read_to_string(&path).unwrap();
        let head = &old[..old.find("/// Of the default capabilities").unwrap()];
        let mut text = format!(
            "{head}/// Of the default capabilities, those that open a group.\n\
             const RELEVANT: Set = Set({:#x});\n\n\
             const fn op(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {{\n    Instruction {{ code, jt, jf, k }}\n}}\n\n\
             #[rustfmt::skip]\nstatic PROGRAM: [Instruction; {}] = [\n",
            relevant.0,
            program.len()
        );
        for four in program.chunks(4) {
            let ops: Vec<String> =
                four.iter().map(|i| format!("op({:#04x}, {}, {}, {:#x}),", i.code, i.jt, i.jf, i.k)).collect();
            writeln!(text, "    {}", ops.join(" ")).unwrap();
        }
        text.push_str("];\n");
        std::fs::write(path, text).unwrap();
        return;
    }
    let constant = precompiled::find(relevant).unwrap();
    assert!(constant == program, "the constant program is out of step; DHOW_UPDATE_GOLDEN=1 rewrites it");
    // Docker's 14, and the eleven without MKNOD, NET_RAW and AUDIT_WRITE, share it.
    assert!(matches!(docker_default(&caps::DEFAULT).program, Cow::Borrowed(_)));
    assert!(matches!(default_for(Set(0x8004_05fb)).program, Cow::Borrowed(_)));
    assert!(matches!(default_for(Set(0)).program, Cow::Owned(_)));
}

const SMALL: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 22,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}
    ],
    "syscalls": [
        {"names": ["read", "write", "not_a_call"], "action": "SCMP_ACT_ALLOW"},
        {"name": "openat", "action": "SCMP_ACT_TRAP", "args": null},
        {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
         "args": [{"index": 1, "value": 21522, "op": "SCMP_CMP_EQ"}]},
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["umount2"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["statx"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
        {"names": ["getpid"], "action": "SCMP_ACT_LOG", "includes": {"arches": ["amd64", "arm64"]}},
        {"names": ["getppid"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
        {"names": ["close"], "action": "SCMP_ACT_KILL", "includes": {}, "excludes": {}, "comment": "x"},
        {"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 1, "op": "SCMP_CMP_EQ"}]}
    ]
}"#;

#[test]
fn profile_from_a_file() {
    let filter = from_profile(SMALL, &["CAP_CHOWN"]).unwrap();
    let native = Arch::host()[0];
    let ask = |name, args: [u64; 6]| filter.verdict(native, native.number(name).unwrap(), &args);
    let zero = [0; 6];
    assert_eq!(ask("read", zero), Action::ALLOW);
    assert_eq!(ask("openat", zero), Action::TRAP);
    assert_eq!(ask("mount", zero), Action::errno(22));
    assert_eq!(ask("umount2", zero), Action::ALLOW);
    assert_eq!(ask("ptrace", zero), Action::ALLOW);
    assert_eq!(ask("statx", zero), Action::ENOSYS, "newer than all that this host's part of the profile names");
    assert_eq!(ask("getpid", zero), Action::LOG);
    assert_eq!(ask("getppid", zero), Action::errno(22));
    assert_eq!(ask("close", zero), Action::KILL_THREAD);
    assert_eq!(ask("ioctl", [0, 21522, 0, 0, 0, 0]), Action::errno(1), "TIOCSTI");
    assert_eq!(ask("ioctl", [0, 21522 | 1 << 32, 0, 0, 0, 0]), Action::errno(1), "TIOCSTI, CVE-2019-10063");
    assert_eq!(ask("ioctl", zero), Action::ALLOW);
    for (whence, expect) in [(0, Action::ALLOW), (1, Action::ALLOW), (2, Action::errno(22))] {
        assert_eq!(ask("lseek", [0, 0, whence, 0, 0, 0]), expect);
    }
    let with = from_profile(SMALL, &["CAP_SYS_ADMIN"]).unwrap();
    assert_eq!(with.verdict(native, native.number("mount").unwrap(), &zero), Action::ALLOW);
    assert_eq!(with.verdict(native, native.number("umount2").unwrap(), &zero), Action::errno(22));
    if native == Arch::X86_64 {
        assert_eq!(filter.verdict(Arch::X86, 3, &zero), Action::ALLOW);
        assert_eq!(filter.verdict(Arch::X32, 0x4000_0000, &zero), Action::KILL_PROCESS, "not in the profile");
    }
}

#[test]
fn profiles_that_are_refused() {
    let none: [&str; 0] = [];
    for (json, expect) in [
        ("", "Decoding seccomp profile failed"),
        ("[]", "Decoding seccomp profile failed"),
        (r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#, r#"invalid seccomp profile: invalid action "SCMP_ACT_MAYBE""#),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}"#,
            "invalid seccomp profile: SCMP_ACT_NOTIFY is not supported",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "read", "names": ["read"], "action": "SCMP_ACT_ALLOW"}]}"#,
            "invalid seccomp profile: both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
            "invalid seccomp profile: invalid argument index 6: a call has six arguments",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL",
                "includes": {"minKernel": "new"}}]}"#,
            r#"invalid seccomp profile: invalid kernel version: "new""#,
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}"#,
            r#"invalid seccomp profile: unsupported flag "SECCOMP_FILTER_FLAG_X""#,
        ),
        (
            r#"{"syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL"}]}"#,
            "invalid seccomp profile: defaultAction is missing",
        ),
    ] {
        assert_eq!(from_profile(json, &none).unwrap_err().to_string(), expect, "{json}");
    }
    let deep = "[".repeat(100_000);
    assert!(from_profile(&deep, &none).is_err());
    assert!(from_profile("{}", &none).unwrap().is_none());
}

#[test]
fn a_profile_that_is_too_long_for_the_kernel() {
    let args: Vec<String> = (0..3000)
        .map(|v| {
            format!(
                r#"{{"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": {},
                    "args": [{{"index": 1, "value": {v}, "op": "SCMP_CMP_EQ"}}]}}"#,
                v % 4000
            )
        })
        .collect();
    let json = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}]}}"#, args.join(","));
    let none: [&str; 0] = [];
    assert!(matches!(from_profile(&json, &none), Err(SeccompError::TooLong { .. })));
}

#[test]
fn releases() {
    for (text, version) in [("6.18.44-x", (6, 18)), ("5.15.0", (5, 15)), ("7", (7, 0)), ("x", (0, 0)), ("", (0, 0))] {
        assert_eq!(parse_release(text), version, "{text}");
    }
}

/// Runs in a thread of its own, which keeps the filter.
fn filtered(held: Set, calls: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        default_for(held).load().unwrap();
        calls();
    })
    .join()
    .unwrap();
}

#[test]
fn the_kernel_takes_the_default_filter() {
    filtered(default_caps(), || {
        use rustix::net::{AddressFamily, SocketType, socket};
        assert_eq!(dhow_sys::seccomp::mode().unwrap(), 2);
        let alg = socket(AddressFamily::from_raw(38), SocketType::SEQPACKET, None);
        assert_eq!(alg.unwrap_err(), rustix::io::Errno::PERM);
        let vsock = socket(AddressFamily::from_raw(40), SocketType::STREAM, None);
        assert_eq!(vsock.unwrap_err(), rustix::io::Errno::PERM);
        socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        std::fs::read("/proc/self/status").unwrap();
        std::thread::spawn(|| ()).join().unwrap();
        let status = std::process::Command::new("/bin/true").status().unwrap();
        assert!(status.success());
    });
    filtered(caps::ALL, || assert!(std::process::Command::new("/bin/true").status().unwrap().success()));
    filtered(Set(0), || assert!(std::process::Command::new("/bin/true").status().unwrap().success()));
}

#[test]
fn none_is_nothing() {
    none().load().unwrap();
    assert!(none().is_none());
    assert_eq!(none().verdict(Arch::X86_64, 0, &[0; 6]), Action::ALLOW);
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let value = || prop_oneof![0u64..4, Just(38), (0u64..3).prop_map(|v| v << 32 | 1), any::<u64>()];
    let op = prop_oneof![
        Just(Op::Ne),
        Just(Op::Lt),
        Just(Op::Le),
        Just(Op::Eq),
        Just(Op::Ge),
        Just(Op::Gt),
        value().prop_map(Op::MaskedEq),
    ];
    (0u8..6, op, value()).prop_map(|(index, op, value)| Condition { index, op, value, narrow: false })
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::ALLOW),
        Just(Action::EPERM),
        Just(Action::ENOSYS),
        Just(Action::LOG),
        Just(Action::KILL_PROCESS),
        (0u16..50).prop_map(Action::errno),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let name = prop_oneof![
        prop::sample::select(vec!["socket", "ioctl", "clone", "lseek", "read"]),
        (0..syscalls::TABLE.len()).prop_map(|at| syscalls::TABLE[at].0),
    ];
    (name, prop::collection::vec(any_condition(), 0..3), any_action()).prop_map(|(name, conditions, action)| Rule {
        call: syscalls::find(name).unwrap(),
        conditions,
        action,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any rules: the tree gives the verdicts of the list, and jumps stay within the program.
    #[test]
    fn tree_is_the_list(
        rules in prop::collection::vec(any_rule(), 0..200),
        default in any_action(),
        extra in prop::collection::vec(any::<[u64; 6]>(), 3..6),
    ) {
        let rules = Rules { arches: X86.to_vec(), default, rules };
        let mut samples = extra;
        samples.extend(self::samples());
        check_against_naive(&rules, &samples);
    }

    #[test]
    fn no_profile_text_panics(text in ".{0,200}") {
        let none: [&str; 0] = [];
        let _ = from_profile(&text, &none);
    }
}
