//! Device access: one list of rules, two ways to enforce it.
//!
//! Version 1 takes the rules one by one in `devices.deny` and `devices.allow`. Version 2 has no files; a program of type
//! `BPF_PROG_TYPE_CGROUP_DEVICE` decides each open and mknod. So that both give the same verdicts, the program is made
//! from the state that the version 1 controller would be in (kernel `security/device_cgroup.c`): a default, and
//! exceptions to it.

use dhow_oci::runtime::DeviceRule;
use dhow_sys::bpf::{self, Instruction};

/// `BPF_DEVCG_ACC_MKNOD`
const MKNOD: u32 = 1;
/// `BPF_DEVCG_ACC_READ`
const READ: u32 = 2;
/// `BPF_DEVCG_ACC_WRITE`
const WRITE: u32 = 4;
const ANY_ACCESS: u32 = MKNOD | READ | WRITE;

/// A device number pattern with access bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    /// `b` or `c`.
    kind: char,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// What the rules add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// Verdict where no exception matches. A new cgroup starts out like its parent; this engine's parents allow all.
    allow: bool,
    exceptions: Vec<Exception>,
}

impl Policy {
    /// Applies the rules in order.
    pub(super) fn new(rules: &[DeviceRule]) -> Self {
        let mut policy = Self { allow: true, exceptions: Vec::new() };
        for rule in rules {
            policy.apply(rule);
        }
        policy
    }

    /// Whether nothing is denied.
    pub(super) fn allows_all(&self) -> bool {
        self.allow && self.exceptions.is_empty()
    }

    fn apply(&mut self, rule: &DeviceRule) {
        let kinds: &[char] = match rule.kind {
            'c' | 'u' => &['c'],
            'b' => &['b'],
            _ if rule.major.is_none() && rule.minor.is_none() && access_bits(&rule.access) == ANY_ACCESS => {
                *self = Self { allow: rule.allow, exceptions: Vec::new() };
                return;
            }
            // The version 1 controller cannot say "all kinds" with numbers; both kinds mean the same.
            _ => &['c', 'b'],
        };
        for kind in kinds {
            let wanted =
                Exception { kind: *kind, major: rule.major, minor: rule.minor, access: access_bits(&rule.access) };
            let known = self
                .exceptions
                .iter_mut()
                .find(|e| (e.kind, e.major, e.minor) == (wanted.kind, wanted.major, wanted.minor));
            match (known, rule.allow == self.allow) {
                // Back to the default for exactly this pattern, as the kernel does it.
                (Some(known), true) => known.access &= !wanted.access,
                (None, true) => {}
                (Some(known), false) => known.access |= wanted.access,
                (None, false) => self.exceptions.push(wanted),
            }
        }
        self.exceptions.retain(|e| e.access != 0);
    }

    /// The verdict for one access; what the program computes, and the kernel for version 1.
    #[cfg(test)]
    fn allows(&self, kind: char, major: u32, minor: u32, access: u32) -> bool {
        let hit = self.exceptions.iter().any(|e| {
            let numbers = e.kind == kind && e.major.is_none_or(|m| m == major) && e.minor.is_none_or(|m| m == minor);
            // An exception to "deny" must cover the whole access; one to "allow" denies any part of it.
            numbers && if self.allow { access & e.access != 0 } else { access & !e.access == 0 }
        });
        hit != self.allow
    }

    /// The device program: r0 = 1 allows, 0 denies.
    pub(super) fn program(&self) -> Vec<Instruction> {
        use bpf::{R0, R1, R2, R3, R4, R5};
        // struct bpf_cgroup_dev_ctx { u32 access_type /* access << 16 | type */, major, minor }
        let mut program = vec![
            bpf::load_word(R2, R1, 0),
            bpf::move_register(R3, R2),
            bpf::and(R2, 0xffff),
            bpf::shift_right(R3, 16),
            bpf::load_word(R4, R1, 4),
            bpf::load_word(R5, R1, 8),
        ];
        let verdict = |allow: bool| [bpf::move_value(R0, i32::from(allow)), bpf::exit()];
        for e in &self.exceptions {
            let mut tests = Vec::new();
            // BPF_DEVCG_DEV_BLOCK is 1, BPF_DEVCG_DEV_CHAR 2.
            tests.push(Step::UnlessEqual(R2, if e.kind == 'b' { 1 } else { 2 }));
            if let Some(major) = e.major {
                tests.push(Step::UnlessEqual(R4, major));
            }
            if let Some(minor) = e.minor {
                tests.push(Step::UnlessEqual(R5, minor));
            }
            if self.allow {
                if e.access != ANY_ACCESS {
                    tests.push(Step::Do(bpf::move_register(R1, R3)));
                    tests.push(Step::Do(bpf::and(R1, e.access as i32)));
                    tests.push(Step::IfZero(R1));
                }
            } else if e.access != ANY_ACCESS {
                tests.push(Step::Do(bpf::move_register(R1, R3)));
                tests.push(Step::Do(bpf::and(R1, (ANY_ACCESS & !e.access) as i32)));
                tests.push(Step::UnlessEqual(R1, 0));
            }
            let length = tests.len() + 2;
            for (at, step) in tests.into_iter().enumerate() {
                // Jumps count from the next instruction to the one behind this exception's verdict.
                let skip = (length - at - 1) as i16;
                program.push(match step {
                    Step::Do(instruction) => instruction,
                    Step::UnlessEqual(register, value) => bpf::jump_if_not_equal(register, value as i32, skip),
                    Step::IfZero(register) => bpf::jump_if_equal(register, 0, skip),
                });
            }
            program.extend(verdict(!self.allow));
        }
        program.extend(verdict(self.allow));
        program
    }
}

enum Step {
    Do(Instruction),
    UnlessEqual(u8, u32),
    IfZero(u8),
}

/// The lines for a version 1 devices controller: file and value.
pub(super) fn v1_lines(rules: &[DeviceRule]) -> Vec<(&'static str, String)> {
    let mut lines = Vec::with_capacity(rules.len());
    for rule in rules {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        let access: String = [('r', READ), ('w', WRITE), ('m', MKNOD)]
            .iter()
            .filter(|(_, bit)| access_bits(&rule.access) & bit != 0)
            .map(|(letter, _)| *letter)
            .collect();
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let line = |kind: char| format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor));
        match rule.kind {
            'c' | 'u' => lines.push((file, line('c'))),
            'b' => lines.push((file, line('b'))),
            // `a` takes no numbers: the kernel would ignore them.
            _ if rule.major.is_none() && rule.minor.is_none() && access == "rwm" => lines.push((file, "a".to_owned())),
            _ => lines.extend([(file, line('c')), (file, line('b'))]),
        }
    }
    lines
}

/// `rwm` as bits; empty means all, as in the specification.
fn access_bits(access: &str) -> u32 {
    let bits = access.chars().fold(0, |bits, letter| {
        bits | match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => 0,
        }
    });
    if bits == 0 { ANY_ACCESS } else { bits }
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
