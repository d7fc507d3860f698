//! The cgroups of a container.

use dhow_oci::runtime::Resources;
use dhow_types::{Categorized, ErrorKind};
use std::io;
use std::os::fd::BorrowedFd;

/// What can go wrong with cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A system call on a cgroup file or directory failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Categorized for CgroupError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// How the host mounts cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only version 1 hierarchies.
    V1,
    /// Only version 2.
    V2,
    /// Version 1 hierarchies beside a version 2 one.
    Hybrid,
}

/// How this host mounts cgroups.
pub fn mode() -> Mode {
    Mode::Hybrid
}

/// A container's cgroups in every hierarchy.
#[derive(Debug)]
pub struct Cgroup {}

impl Cgroup {
    /// Creates the cgroups `path` (`dhow/<id>`, below the root of each hierarchy) and sets the limits.
    pub fn create(_path: &str, _r: &Resources) -> Result<(Self, Vec<String>), CgroupError> {
        Ok((Self {}, Vec::new()))
    }

    /// Opens existing cgroups.
    pub fn open(_path: &str) -> Result<Self, CgroupError> {
        Ok(Self {})
    }

    /// Moves the calling, single-threaded process into the version 1 cgroups.
    pub fn join_self(&self) -> Result<(), CgroupError> {
        Ok(())
    }

    /// The version 2 directory, for `CLONE_INTO_CGROUP`.
    pub fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Stops all processes.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        Ok(())
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        Ok(())
    }

    /// Kills all processes.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        Ok(())
    }

    /// Process ids.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        Ok(Vec::new())
    }

    /// Changes limits; returns warnings.
    pub fn update(&self, _r: &Resources) -> Result<Vec<String>, CgroupError> {
        Ok(Vec::new())
    }

    /// Whether the kernel killed a process for lack of memory.
    pub fn oom_killed(&self) -> bool {
        false
    }

    /// Removes the cgroups. Idempotent.
    pub fn remove(&self) -> Result<(), CgroupError> {
        Ok(())
    }
}
