//! The kernel interface: the only crate with `unsafe` code.
//!
//! Thin, typed wrappers around Linux system calls that rustix does not have, or has in another shape. No policy: nothing
//! here knows what a container is. Each `unsafe` block names the invariant that it relies on.

pub mod bpf;
pub mod caps;
pub mod fs;
pub mod inherit;
pub mod known;
pub mod lock;
pub mod mount;
pub mod netlink;
pub mod ns;
pub mod process;
pub mod seccomp;
pub mod signals;
pub mod tty;
pub mod xattr;
