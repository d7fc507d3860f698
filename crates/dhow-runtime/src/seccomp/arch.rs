//! System call ABIs: what a filter sees in `seccomp_data.arch` and `seccomp_data.nr`.

use super::syscalls::{self, X};

/// Marks an x32 call in `seccomp_data.nr` (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// An ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86; a 64-bit process reaches it too, by `int 0x80`.
    X86,
    /// 64-bit x86 with 32-bit pointers: x86_64's `AUDIT_ARCH` with a bit in the number.
    X32,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// All ABIs known here. 32-bit ARM is not: on an arm64 host its calls are those of an unknown architecture.
    pub const ALL: [Self; 4] = [Self::X86_64, Self::X86, Self::X32, Self::Aarch64];

    /// The ABIs of Docker's `archMap` for this host, its own first. Empty on hosts whose calls are not known here.
    pub const fn host() -> &'static [Self] {
        if cfg!(target_arch = "x86_64") {
            &[Self::X86_64, Self::X86, Self::X32]
        } else if cfg!(target_arch = "aarch64") {
            &[Self::Aarch64]
        } else {
            &[]
        }
    }

    /// `AUDIT_ARCH_*` of `linux/audit.h`.
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The name in profiles.
    pub const fn profile_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
        }
    }

    const fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
        }
    }

    /// The number of a call as `seccomp_data.nr` shows it, if this ABI has it.
    pub fn number(self, name: &str) -> Option<u32> {
        self.number_of(syscalls::find(name)?)
    }

    pub(super) fn number_of(self, row: &syscalls::Row) -> Option<u32> {
        let number = row.1[self.column()];
        let bit = if matches!(self, Self::X32) { X32_BIT } else { 0 };
        (number != X).then(|| u32::from(number) | bit)
    }

    /// Every call of the ABI: number and name, by name.
    pub fn calls(self) -> impl Iterator<Item = (u32, &'static str)> {
        syscalls::TABLE.iter().filter_map(move |row| Some((self.number_of(row)?, row.0)))
    }

    /// Whether arguments are 32 bits wide.
    pub(super) const fn narrow(self) -> bool {
        matches!(self, Self::X86 | Self::X32)
    }
}

/// The name that Go and Docker's profiles have for this host's architecture.
pub(super) const fn go_name() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        std::env::consts::ARCH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_numbers_are_unique() {
        assert!(syscalls::TABLE.windows(2).all(|w| w[0].0 < w[1].0));
        for (arch, count) in Arch::ALL.into_iter().zip([382, 459, 371, 325]) {
            let mut numbers: Vec<u32> = arch.calls().map(|(n, _)| n).collect();
            assert_eq!(numbers.len(), count, "{arch:?}");
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count, "{arch:?}");
        }
    }

    #[test]
    fn well_known_numbers() {
        for (name, expect) in [
            ("read", [Some(0), Some(3), Some(X32_BIT), Some(63)]),
            ("clone3", [Some(435), Some(435), Some(X32_BIT | 435), Some(435)]),
            ("socketcall", [None, Some(102), None, None]),
            ("mseal", [Some(462), Some(462), Some(X32_BIT | 462), Some(462)]),
            ("rt_sigaction", [Some(13), Some(174), Some(X32_BIT | 512), Some(134)]),
            ("removexattrat", [Some(466), Some(466), Some(X32_BIT | 466), Some(466)]),
        ] {
            assert_eq!(Arch::ALL.map(|a| a.number(name)), expect, "{name}");
        }
        assert_eq!(Arch::X86_64.number("nonsense"), None);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_are_those_this_program_was_built_with() {
        for (name, number) in [
            ("openat2", libc::SYS_openat2),
            ("execve", libc::SYS_execve),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
            ("fchmodat2", libc::SYS_fchmodat2),
            ("bpf", libc::SYS_bpf),
        ] {
            assert_eq!(Arch::X86_64.number(name).map(i64::from), Some(number), "{name}");
        }
    }
}
