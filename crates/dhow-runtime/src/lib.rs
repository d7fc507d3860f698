//! Launching and entering containers.
//!
//! [`launch`] turns an OCI specification and a root file system into a running process: namespaces, cgroups, mounts,
//! masks, identity, capabilities, system call filter, program. [`exec`] puts another process into a running container, by
//! the same confinement code. [`with_rootfs`] lets a function see a container's root without a container.
//!
//! Everything happens in this process and one clone of it. Mounts live in the container's mount namespace alone, so the
//! host's mount table never changes and no crash can leave a mount behind.
//!
//! Deliberately absent: images, records, logs, networks (a caller's closures attach and configure them), waiting for
//! the process that was started, and any state on disk.
//!
//! # Callers
//!
//! Must have one thread ([`LaunchError::Threads`]) and must have been started from a read-only clone of their binary
//! ([`dhow_sys::process::reexec_sealed`] or [`spawn_sealed`](dhow_sys::process::spawn_sealed);
//! [`LaunchError::NotSealed`]): until its execve(2), and for ever with `init`, a container's process *is* the caller's
//! program, and `/proc/PID/exe` leads to its file.

pub mod caps;
pub mod cgroup;
pub mod nsview;
pub mod overlay;
pub mod probe;
pub mod seccomp;

mod channel;
mod confine;
mod default_spec;
mod error;
mod exec;
mod helper;
mod launch;
mod maker;
mod namespaces;
mod procfs;
mod program;
mod request;
mod rootfs;
mod stdio;
mod user;
mod workdir;

pub use default_spec::default_spec;
pub use error::{LaunchError, Stage};
pub use exec::exec;
pub use helper::{Helper, with_rootfs};
pub use launch::launch;
pub use request::{ExecRequest, LaunchRequest, Launched, Rootfs, StdioPlan};
