//! What callers ask for and get.

use crate::cgroup::Cgroup;
use crate::seccomp::SeccompFilter;
use dhow_oci::runtime::{Process, Spec};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where a container's root file system comes from. The paths are the host's and trusted; what is below them is not.
#[derive(Debug, Clone, Copy)]
pub enum Rootfs<'a> {
    /// Layers and a writable directory (overlayfs).
    Overlay {
        /// Read-only directories, topmost first; at most 500.
        lower: &'a [PathBuf],
        /// The writable directory.
        upper: &'a Path,
        /// Overlayfs's own directory, on the file system of `upper`.
        work: &'a Path,
        /// Never sync (`volatile`): for containers that are removed when they end. The mark that a volatile mount
        /// leaves behind makes the next mount fail; see [`crate::overlay::clear_volatile_mark`].
        volatile: bool,
    },
    /// An existing directory, with the mounts below it.
    Directory(&'a Path),
}

/// Descriptors 0 to 2 of the process.
#[derive(Debug)]
pub enum StdioPlan {
    /// Pipes for stdout and stderr, and for stdin if asked; `/dev/null` otherwise. The user of the process owns them.
    Pipes {
        /// With a pipe for stdin.
        stdin: bool,
    },
    /// A pseudo terminal of the container's own devpts instance, with its size at the first byte.
    Pty {
        /// Rows; 0 leaves the size at 0x0.
        rows: u16,
        /// Columns.
        cols: u16,
        /// Whether the caller is going to write to it. The process has the terminal as stdin either way.
        stdin: bool,
    },
    /// These. They are given away as they are.
    Fds([OwnedFd; 3]),
}

/// A container to start.
pub struct LaunchRequest<'a> {
    /// Namespaces, mounts, masks, devices, process.
    pub spec: &'a Spec,
    /// The root file system.
    pub rootfs: Rootfs<'a>,
    /// `user[:group]`, names or numbers, looked up in the container's `/etc/passwd` and `/etc/group`. When empty, the
    /// numbers of `spec.process.user` are used if any is not 0, else `root` is looked up as uid 0.
    pub user: &'a str,
    /// Supplementary groups, names or numbers.
    pub group_add: &'a [String],
    /// System call filter.
    pub seccomp: &'a SeccompFilter,
    /// The container's cgroups.
    pub cgroup: &'a Cgroup,
    /// Descriptors 0 to 2.
    pub stdio: StdioPlan,
    /// Run a small init as PID 1 with the program as its child.
    pub init: bool,
    /// Called in the caller with the new process's id, while the process mounts its root: the place to attach networks.
    pub attach: &'a mut dyn FnMut(u32) -> Result<(), String>,
    /// Called in the new process, in its namespaces, after `attach` returned and before the root is changed.
    pub inside: Option<&'a dyn Fn() -> Result<(), String>>,
}

/// A process to start in a running container.
pub struct ExecRequest<'a> {
    /// The container's first process.
    pub init_pid: u32,
    /// Its pidfd.
    pub init_pidfd: BorrowedFd<'a>,
    /// What to run.
    pub process: &'a Process,
    /// As [`LaunchRequest::user`]; numbers of `process.user` when empty.
    pub user: &'a str,
    /// System call filter.
    pub seccomp: &'a SeccompFilter,
    /// The container's cgroups.
    pub cgroup: &'a Cgroup,
    /// Descriptors 0 to 2.
    pub stdio: StdioPlan,
}

/// A started process, a child of the caller, which has to reap it. It is killed when the caller ends.
#[derive(Debug)]
pub struct Launched {
    /// Process id in the caller's PID namespace.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Start time in clock ticks since boot ([`dhow_sys::process::start_time`]).
    pub start_time: u64,
    /// Write end of stdin's pipe.
    pub stdin: Option<OwnedFd>,
    /// Read end of stdout's pipe.
    pub stdout: Option<OwnedFd>,
    /// Read end of stderr's pipe.
    pub stderr: Option<OwnedFd>,
    /// The terminal's master side.
    pub pty: Option<OwnedFd>,
}
