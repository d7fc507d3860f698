//! System call filters: Docker's default profile, profiles from files, or none.
//!
//! A profile becomes one classic BPF program for all ABIs of the host. On x86 these are three: the native one, i386 (which
//! a 64-bit process reaches by `int 0x80`), and x32. Leaving one out would leave a door open or kill 32-bit programs.
//!
//! **Decisions.**
//! * *Errors.* As in Docker and runc: a call that the profile does not allow fails with EPERM; `clone3`, and numbers that
//!   are newer than the profile or known to no ABI, with ENOSYS, so that programs fall back.
//! * *`int` arguments* are compared in 32 bits, as the kernel takes them. libseccomp compares registers, where
//!   `socket(1 << 32 | 38)` is "more than 40" and would reach `AF_ALG`.
//! * *`socketcall`* (i386) stays open. Its arguments are behind a pointer that a filter cannot follow, so `AF_ALG` is
//!   reachable by it unless an LSM denies the family; but glibc's 32-bit socket functions have no other way, and closing it
//!   broke such programs in Docker, which took it back. `dhow info` says so on hosts without an LSM that helps.
//! * *Flags.* runc's default, `SPEC_ALLOW`: without it kernels before 5.16 turn on the speculative store bypass mitigation
//!   for every filtered process, at a cost that nobody asked for; later kernels do not either way. `TSYNC` is not needed:
//!   the filter is installed by the one thread that executes the program.
//! * *Unknown architectures* kill the process; the kernel of a known host never shows one.
//!
//! Deliberately absent: user notification, and 32-bit ARM.

mod arch;
mod compile;
mod default_profile;
mod interpret;
mod precompiled;
mod profile;
mod rules;
mod syscalls;

pub use arch::Arch;
pub use rules::Action;

use crate::caps::{self, Set};
use default_profile as data;
use dhow_sys::seccomp::{self as sys, Instruction};
use dhow_types::{Categorized, ErrorKind};
use rules::{Condition, Op, Rule, Rules};
use std::borrow::Cow;
use std::io;

/// What can go wrong with a filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The profile is not JSON of the expected form; the text is Docker's.
    #[error("Decoding seccomp profile failed")]
    Decode(#[source] serde_json::Error),
    /// The profile says something that has no meaning or is not supported.
    #[error("invalid seccomp profile: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The profile needs a longer program than the kernel takes.
    #[error("the seccomp profile needs {instructions} instructions, the kernel takes {}", sys::MAX_INSTRUCTIONS)]
    TooLong {
        /// Length of the program.
        instructions: usize,
    },
    /// The kernel refused the program.
    #[error("cannot install the seccomp filter of {instructions} instructions")]
    Install {
        /// Length of the program.
        instructions: usize,
        /// Its answer.
        source: io::Error,
    },
}

impl Categorized for SeccompError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Decode(_) | Self::Invalid { .. } | Self::TooLong { .. } => ErrorKind::Invalid,
            Self::Install { source, .. } => match source.raw_os_error() {
                Some(libc::EACCES) => ErrorKind::Forbidden,
                Some(libc::ENOSYS | libc::EINVAL) => ErrorKind::Unsupported,
                _ => ErrorKind::Internal,
            },
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Install { .. } if self.kind() == ErrorKind::Unsupported => {
                Some("the kernel needs CONFIG_SECCOMP_FILTER; --security-opt seccomp=unconfined runs without".into())
            }
            _ => None,
        }
    }
}

/// A compiled filter, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompFilter {
    program: Cow<'static, [Instruction]>,
    flags: u32,
}

impl SeccompFilter {
    /// Whether there is nothing to install (`seccomp=unconfined`).
    pub fn is_none(&self) -> bool {
        self.program.is_empty()
    }

    /// The program.
    pub fn instructions(&self) -> &[Instruction] {
        &self.program
    }

    /// Installs the filter for the calling thread. Nothing happens for [`none`].
    ///
    /// Needs `no_new_privs`, or `CAP_SYS_ADMIN` in the user namespace. So with `no_new_privs` it comes last before
    /// execve(2); without, *before* capabilities are dropped, and what follows must be allowed by the filter (Docker's
    /// default allows setuid(2), capset(2), prctl(2), close_range(2) and all that a launcher still does).
    pub fn load(&self) -> Result<(), SeccompError> {
        if self.is_none() {
            return Ok(());
        }
        sys::install(&self.program, self.flags)
            .map_err(|source| SeccompError::Install { instructions: self.program.len(), source })
    }

    /// What the filter answers to a call; `number` as [`Arch::number`] gives it.
    pub fn verdict(&self, arch: Arch, number: u32, args: &[u64; 6]) -> Action {
        if self.is_none() {
            return Action::ALLOW;
        }
        // The kernel takes only programs that end in a verdict.
        interpret::run(&self.program, arch.audit(), number, args).unwrap_or(Action::KILL_PROCESS)
    }
}

/// No filter.
pub const fn none() -> SeccompFilter {
    SeccompFilter { program: Cow::Borrowed(&[]), flags: 0 }
}

/// Docker's default profile for a container that has these capabilities (names with `CAP_`) in its bounding set.
///
/// Free for the usual sets, whose program is a constant; made in a fraction of a millisecond for others. On a host whose
/// calls are not known here, the filter lets nothing through.
pub fn docker_default<S: AsRef<str>>(caps: &[S]) -> SeccompFilter {
    // A name that is unknown opens no group.
    let held = caps.iter().filter_map(|name| caps::number(name.as_ref()).ok()).fold(0, |set, n| set | 1 << n);
    default_for(Set(held))
}

fn default_for(held: Set) -> SeccompFilter {
    let program = match precompiled::find(relevant(held)) {
        Some(program) => Cow::Borrowed(program),
        None => Cow::Owned(compile::compile(&default_rules(held, Arch::host()))),
    };
    SeccompFilter { program, flags: sys::FLAG_SPEC_ALLOW }
}

/// A profile in Docker's JSON format for a container with these capabilities in its bounding set.
pub fn from_profile<S: AsRef<str>>(json: &str, caps: &[S]) -> Result<SeccompFilter, SeccompError> {
    let held = caps.iter().filter_map(|name| caps::number(name.as_ref()).ok()).fold(0, |set, n| set | 1 << n);
    let resolved = profile::resolve(json, Set(held), kernel_version())?;
    let Some(rules) = resolved.rules else { return Ok(none()) };
    let program = compile::compile(&rules);
    if program.len() > sys::MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong { instructions: program.len() });
    }
    Ok(SeccompFilter { program: Cow::Owned(program), flags: resolved.flags.unwrap_or(sys::FLAG_SPEC_ALLOW) })
}

/// Major and minor version of the running kernel; 0.0 if its release cannot be read.
fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    parse_release(&uname.release().to_string_lossy())
}

pub(crate) fn parse_release(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The capabilities that open a group of the default profile, as far as they are held.
fn relevant(held: Set) -> Set {
    let groups = data::WITH_CAPABILITY.iter().filter_map(|(name, _)| caps::number(name).ok());
    Set(groups.fold(0, |mask, n| mask | 1 << n) & held.0)
}

fn default_rules(held: Set, arches: &[Arch]) -> Rules {
    let mut rules = Vec::with_capacity(512);
    let mut add = |name: &str, conditions: Vec<Condition>, action: Action| {
        // Names of ABIs that the table does not have say nothing here.
        rules.extend(syscalls::find(name).map(|call| Rule { call, conditions, action }));
    };
    let first = |op, value| vec![Condition { index: 0, op, value, narrow: false }];
    for name in data::ALWAYS {
        add(name, Vec::new(), Action::ALLOW);
    }
    if arches.contains(&Arch::Aarch64) {
        for name in data::ARM64 {
            add(name, Vec::new(), Action::ALLOW);
        }
    }
    for (capability, calls) in data::WITH_CAPABILITY {
        if caps::number(capability).is_ok_and(|n| held.contains(n)) {
            for name in *calls {
                add(name, Vec::new(), Action::ALLOW);
            }
        }
    }
    if !caps::number("CAP_SYS_ADMIN").is_ok_and(|n| held.contains(n)) {
        add("clone", first(Op::MaskedEq(data::NAMESPACE_FLAGS), 0), Action::ALLOW);
        add("clone3", Vec::new(), Action::ENOSYS);
    }
    let [low, high] = data::CLOSED_FAMILIES;
    add("socket", first(Op::Lt, low), Action::ALLOW);
    for family in low + 1..high {
        add("socket", first(Op::Eq, family), Action::ALLOW);
    }
    add("socket", first(Op::Gt, high), Action::ALLOW);
    for value in data::PERSONALITIES {
        add("personality", first(Op::Eq, value), Action::ALLOW);
    }
    Rules { arches: arches.to_vec(), default: Action::EPERM, rules }
}

#[cfg(test)]
mod tests;
