//! What can go wrong with cgroups.

use dhow_types::{Categorized, ErrorKind};
use std::io;

/// What can go wrong with cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The path is not one this engine would make.
    #[error("invalid cgroup path {path:?}: {reason}")]
    InvalidPath {
        /// As given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No hierarchy has such a cgroup.
    #[error("no cgroup {path}")]
    NotFound {
        /// Path below the hierarchies' roots.
        path: String,
    },
    /// No cgroup file system is mounted.
    #[error("no cgroup file system is mounted")]
    NoHierarchy,
    /// A cgroup cannot be made anew or removed: it has processes.
    #[error("cgroup {path} is in use by {}", list(.pids))]
    Busy {
        /// Absolute path of the directory.
        path: String,
        /// Processes in it.
        pids: Vec<u32>,
    },
    /// Processes did not stop in time.
    #[error("cgroup {path} did not freeze within {waited_ms} ms")]
    NotFrozen {
        /// Path below the hierarchies' roots.
        path: String,
        /// Time waited, in milliseconds.
        waited_ms: u64,
    },
    /// Killed processes did not go away in time.
    #[error("in cgroup {path} SIGKILL is outlived by {}", list(.pids))]
    StillRunning {
        /// Path below the hierarchies' roots.
        path: String,
        /// The processes.
        pids: Vec<u32>,
    },
    /// The memory limit is lower than what is in use.
    #[error("memory limit {limit} is below the memory in use")]
    LimitBelowUse {
        /// The limit asked for, in bytes.
        limit: String,
    },
    /// The kernel does not take this value.
    #[error("the kernel refuses {value:?} for {file}")]
    BadValue {
        /// Absolute path of the control file.
        file: String,
        /// The value.
        value: String,
        /// Its answer.
        source: io::Error,
    },
    /// Device access can be limited neither by a version 1 controller nor by eBPF. Never passed over: the container
    /// would reach the host's disks.
    #[error("device access cannot be limited: no devices controller and no cgroup2 to attach a program to")]
    NoDeviceControl,
    /// The device program was refused.
    #[error("cannot {action} the device access program of cgroup {path}")]
    DeviceProgram {
        /// `load` or `attach`.
        action: &'static str,
        /// Path below the hierarchies' roots.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
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

fn list(pids: &[u32]) -> String {
    if pids.is_empty() {
        return "processes that cannot be seen from here".to_owned();
    }
    let mut text: Vec<String> = pids.iter().take(8).map(u32::to_string).collect();
    if pids.len() > 8 {
        text.push(format!("and {} more", pids.len() - 8));
    }
    format!("{} {}", if pids.len() == 1 { "process" } else { "processes" }, text.join(", "))
}

impl Categorized for CgroupError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidPath { .. } | Self::BadValue { .. } => ErrorKind::Invalid,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Busy { .. } | Self::LimitBelowUse { .. } => ErrorKind::Conflict,
            Self::NotFrozen { .. } | Self::StillRunning { .. } => ErrorKind::Unavailable,
            Self::NoHierarchy | Self::NoDeviceControl => ErrorKind::Unsupported,
            Self::DeviceProgram { source, .. } | Self::Io { source, .. } => match source.raw_os_error() {
                Some(libc::EACCES | libc::EPERM | libc::EROFS) => ErrorKind::Forbidden,
                Some(libc::ENOSPC | libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => ErrorKind::Exhausted,
                _ => ErrorKind::Internal,
            },
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::LimitBelowUse { .. } => "choose a higher limit, or stop the container first",
            Self::NoDeviceControl | Self::DeviceProgram { .. } => {
                "mount cgroup2 on a kernel with CONFIG_CGROUP_BPF, or a version 1 devices hierarchy"
            }
            Self::NoHierarchy => "mount cgroup2 at /sys/fs/cgroup",
            Self::BadValue { file, .. } if file.contains("cpuset") => {
                "the CPUs and memory nodes must exist on this host and be allowed in the parent cgroup"
            }
            Self::BadValue { file, .. } if file.contains("memory") => {
                "memory and memory plus swap must be raised together when the first would exceed the second"
            }
            Self::Io { action: "join", source, .. } if source.raw_os_error() == Some(libc::EINVAL) => {
                "a process with a real-time scheduling policy cannot join a cpu cgroup; start dhow with the normal policy"
            }
            Self::Io { source, .. } if matches!(source.raw_os_error(), Some(libc::EACCES | libc::EROFS)) => {
                "cgroups can be made by root, or below a subtree delegated to the user"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
