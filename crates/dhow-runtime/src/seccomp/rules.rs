//! What a profile comes down to for one host and one set of capabilities: rules by name, and their verdict.

use super::arch::Arch;
use super::syscalls::Row;

/// What happens to a call: a `SECCOMP_RET_*` value with its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Action(pub u32);

impl Action {
    /// Let it happen.
    pub const ALLOW: Self = Self(0x7fff_0000);
    /// Let it happen and log it.
    pub const LOG: Self = Self(0x7ffc_0000);
    /// SIGSYS.
    pub const TRAP: Self = Self(0x0003_0000);
    /// Kill the calling thread.
    pub const KILL_THREAD: Self = Self(0);
    /// Kill the process.
    pub const KILL_PROCESS: Self = Self(0x8000_0000);
    /// Fail with EPERM.
    pub const EPERM: Self = Self::errno(libc::EPERM as u16);
    /// Fail with ENOSYS.
    pub const ENOSYS: Self = Self::errno(libc::ENOSYS as u16);

    /// Fail with an error number.
    pub const fn errno(number: u16) -> Self {
        Self(0x0005_0000 | number as u32)
    }

    /// Ask the tracer.
    pub const fn trace(data: u16) -> Self {
        Self(0x7ff0_0000 | data as u32)
    }

    /// Whether it makes the call fail with an error number.
    pub(super) const fn is_errno(self) -> bool {
        self.0 & 0xffff_0000 == 0x0005_0000
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    /// `argument & mask == value`
    MaskedEq(u64),
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) index: u8,
    pub(super) op: Op,
    pub(super) value: u64,
    /// The kernel looks at the low half only, so nothing else may decide: a 64-bit comparison would let
    /// `socket(1 << 32 | AF_ALG)` pass as "more than 40".
    pub(super) narrow: bool,
}

impl Condition {
    /// Whether the arguments fulfil the condition: what the compiled instructions must agree with.
    #[cfg(test)]
    pub(super) fn holds(&self, args: &[u64; 6]) -> bool {
        let width = if self.narrow { u64::from(u32::MAX) } else { u64::MAX };
        let argument = args.get(usize::from(self.index)).copied().unwrap_or(0) & width;
        let value = self.value & width;
        match self.op {
            Op::Ne => argument != value,
            Op::Lt => argument < value,
            Op::Le => argument <= value,
            Op::Eq => argument == value,
            Op::Ge => argument >= value,
            Op::Gt => argument > value,
            Op::MaskedEq(mask) => argument & mask & width == value & mask,
        }
    }
}

/// What a profile says about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) call: &'static Row,
    /// All must hold.
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// A profile for one host and one set of capabilities.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) arches: Vec<Arch>,
    pub(super) default: Action,
    /// In order: the first that matches decides.
    pub(super) rules: Vec<Rule>,
}

/// What happens to one call number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Decision {
    Plain(Action),
    /// The first alternative whose conditions all hold decides, else the action at the end.
    ByArguments(Vec<(Vec<Condition>, Action)>, Action),
}

/// Arguments that the kernel takes as `int` although registers are 64 bits wide.
fn is_int(name: &str, index: u8) -> bool {
    match name {
        "socket" | "socketpair" => index <= 2,
        "personality" | "clone" | "prctl" | "unshare" => index == 0,
        "ioctl" | "fcntl" | "setns" | "bpf" | "keyctl" => index <= 1,
        "setsockopt" | "getsockopt" => index <= 2,
        _ => false,
    }
}

impl Rules {
    /// The decision for every call number that one of the ABIs knows or a rule names, by number as `seccomp_data.nr`
    /// shows it, in ascending order.
    ///
    /// Numbers above the highest that the profile names did not exist for its author. They fail with ENOSYS, so that
    /// programs fall back to older calls, and so do numbers that no ABI knows; but only if the default is another error,
    /// since a profile that allows, logs or kills the unknown means it.
    pub(super) fn table(&self, arch: Arch) -> Vec<(u32, Decision)> {
        let mut named: Vec<(u32, &Rule)> =
            self.rules.iter().filter_map(|rule| Some((arch.number_of(rule.call)?, rule))).collect();
        // Stable: rules for one call stay in their order.
        named.sort_by_key(|(number, _)| *number);
        let highest = named.last().map_or(0, |(number, _)| *number);
        let mut numbers: Vec<u32> = arch.calls().map(|(number, _)| number).collect();
        numbers.sort_unstable();
        let mut rest = named.as_slice();
        numbers
            .into_iter()
            .map(|number| {
                let here = rest.iter().take_while(|(n, _)| *n == number).count();
                let (rules, after) = rest.split_at(here);
                rest = after;
                let decision = match rules {
                    [] if number > highest => Decision::Plain(self.unknown()),
                    [] => Decision::Plain(self.default),
                    rules => self.decide(arch, rules.iter().map(|(_, rule)| *rule)),
                };
                (number, decision)
            })
            .collect()
    }

    /// What happens to numbers that nobody knows.
    pub(super) fn unknown(&self) -> Action {
        if self.default.is_errno() { Action::ENOSYS } else { self.default }
    }

    fn decide<'a>(&self, arch: Arch, rules: impl Iterator<Item = &'a Rule>) -> Decision {
        let mut alternatives = Vec::new();
        for rule in rules {
            if rule.conditions.is_empty() {
                // Nothing behind it is reached, and alternatives that say the same are no alternatives.
                if alternatives.iter().all(|(_, action)| *action == rule.action) {
                    return Decision::Plain(rule.action);
                }
                return Decision::ByArguments(alternatives, rule.action);
            }
            let mut conditions = rule.conditions.clone();
            for c in &mut conditions {
                c.narrow = arch.narrow() || is_int(rule.call.0, c.index);
            }
            alternatives.push((conditions, rule.action));
        }
        Decision::ByArguments(alternatives, self.default)
    }
}
