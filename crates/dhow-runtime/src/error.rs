//! Why a process could not be started.
//!
//! Most failures happen in the new process, which can only send bytes: it builds a [`Failure`], and the caller's side
//! turns that into a [`LaunchError`].

use dhow_sys::process::Exit;
use dhow_types::{Categorized, ErrorKind};
use std::fmt;
use std::io;

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Reading the specification.
    Specification,
    /// Making or joining namespaces.
    Namespaces,
    /// Joining cgroups.
    Cgroup,
    /// Mounting the root file system.
    Root,
    /// Mounting below it.
    Mount,
    /// Making device nodes.
    Device,
    /// Hiding paths or making them read-only.
    Mask,
    /// Terminal, pipes.
    Stdio,
    /// The caller's closures.
    Network,
    /// Kernel parameters.
    Sysctl,
    /// Looking up user and groups.
    User,
    /// The working directory.
    Workdir,
    /// Resource limits, capabilities, identity, system call filter.
    Confinement,
    /// There is no such program.
    ProgramNotFound,
    /// The program cannot be executed.
    ProgramNotExecutable,
    /// Anything else about the program.
    Program,
}

impl Stage {
    const ALL: [Self; 16] = [
        Self::Specification,
        Self::Namespaces,
        Self::Cgroup,
        Self::Root,
        Self::Mount,
        Self::Device,
        Self::Mask,
        Self::Stdio,
        Self::Network,
        Self::Sysctl,
        Self::User,
        Self::Workdir,
        Self::Confinement,
        Self::ProgramNotFound,
        Self::ProgramNotExecutable,
        Self::Program,
    ];

    /// By number, as sent by the new process.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as u8 == number)
    }
}

/// A failure in the new process: plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    /// What failed, as a sentence without the errno's text.
    pub(crate) what: String,
    pub(crate) errno: Option<i32>,
}

impl Failure {
    /// A failure that no system call reported.
    pub(crate) fn new(stage: Stage, what: impl Into<String>) -> Self {
        Self { stage, what: what.into(), errno: None }
    }
}

/// Adds stage and sentence to an error of the kernel.
pub(crate) trait OrFail<T> {
    fn or_fail<S: Into<String>>(self, stage: Stage, what: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T> OrFail<T> for io::Result<T> {
    fn or_fail<S: Into<String>>(self, stage: Stage, what: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|e| {
            let errno = dhow_sys::mount::errno(&e);
            let mut what = what().into();
            // An error that is more than its number has words of its own.
            if e.raw_os_error().is_none() {
                what = format!("{what}: {e}");
            }
            Failure { stage, what, errno }
        })
    }
}

impl<T> OrFail<T> for rustix::io::Result<T> {
    fn or_fail<S: Into<String>>(self, stage: Stage, what: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(io::Error::from).or_fail(stage, what)
    }
}

/// Why a process could not be started. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program does not exist (exit code 127). The text is Docker's.
    #[error("{message}")]
    CommandNotFound {
        /// `exec: "x": executable file not found in $PATH` and the like.
        message: String,
    },
    /// The program exists and cannot be executed (exit code 126). The text is Docker's.
    #[error("{message}")]
    NotExecutable {
        /// `exec: "x": permission denied` and the like.
        message: String,
    },
    /// A step failed.
    #[error("{what}")]
    Step {
        /// Which.
        stage: Stage,
        /// What was tried, or what is wrong.
        what: String,
        /// The kernel's answer, if it was the kernel's.
        source: Option<io::Error>,
    },
    /// The new process ended before it became the program, without saying why.
    #[error("the new process ended before its program ran ({})", Ended(*.0))]
    Died(Exit),
    /// The caller has threads.
    #[error("a process with several threads cannot start containers")]
    Threads,
    /// The caller's binary could be written to from a container.
    #[error("this program was not started from a read-only clone of its file")]
    NotSealed,
    /// The container to enter is not running.
    #[error("the container is not running")]
    Gone,
}

struct Ended(Exit);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl LaunchError {
    /// A failure on the caller's side.
    pub(crate) fn step(stage: Stage, what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Step { stage, what, source: Some(source) }
    }
}

impl From<Failure> for LaunchError {
    fn from(failure: Failure) -> Self {
        let source = failure.errno.map(io::Error::from_raw_os_error);
        match failure.stage {
            Stage::ProgramNotFound => Self::CommandNotFound { message: failure.what },
            Stage::ProgramNotExecutable => Self::NotExecutable { message: failure.what },
            stage => Self::Step { stage, what: failure.what, source },
        }
    }
}

impl Categorized for LaunchError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::CommandNotFound { .. } => ErrorKind::CommandNotFound,
            Self::NotExecutable { .. } => ErrorKind::CommandNotExecutable,
            Self::Step { stage, source, .. } => {
                let errno = source.as_ref().and_then(dhow_sys::mount::errno);
                match (stage, errno) {
                    (_, Some(libc::ENOSPC | libc::EDQUOT | libc::ENOMEM | libc::EMFILE | libc::ENFILE)) => {
                        ErrorKind::Exhausted
                    }
                    // A file bound over a directory or the reverse: Docker counts ENOTDIR as "not found", 127.
                    (Stage::Mount, Some(libc::ENOTDIR)) => ErrorKind::CommandNotFound,
                    (Stage::Specification | Stage::User | Stage::Workdir | Stage::Mount | Stage::Sysctl, _) => {
                        ErrorKind::Invalid
                    }
                    _ => ErrorKind::Internal,
                }
            }
            Self::Gone => ErrorKind::Conflict,
            Self::Died(_) | Self::Threads | Self::NotSealed => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_survive_the_way() {
        for stage in Stage::ALL {
            assert_eq!(Stage::from_number(stage as u8), Some(stage));
        }
        assert_eq!(Stage::from_number(200), None);
    }

    #[test]
    fn display_leaves_the_cause_to_the_source() {
        let failed: io::Result<()> = Err(io::Error::from_raw_os_error(libc::EPERM));
        let error = LaunchError::from(failed.or_fail(Stage::Mount, || "cannot mount /x").unwrap_err());
        assert_eq!(error.to_string(), "cannot mount /x");
        assert!(dhow_types::report(&error).starts_with("cannot mount /x: Operation not permitted"));
    }
}
