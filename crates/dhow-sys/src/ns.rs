//! Namespaces by file (namespaces(7), ioctl_ns(2)): what kind one is, who owns it, where it hangs.
//!
//! Entering and making namespaces is in [`crate::process`].

use std::ffi::c_ulong;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const NS_GET_USERNS: c_ulong = 0xb701;
const NS_GET_PARENT: c_ulong = 0xb702;
const NS_GET_NSTYPE: c_ulong = 0xb703;
const NS_GET_OWNER_UID: c_ulong = 0xb704;

/// The `CLONE_NEW*` flag of a namespace file (Linux 4.11). `ENOTTY` for any other file.
pub fn kind(file: BorrowedFd<'_>) -> io::Result<u64> {
    // A terminal, say, may know a request of the same number.
    if !crate::mount::is_on(file, NSFS_MAGIC)? {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    // SAFETY: NS_GET_NSTYPE takes no argument and writes nothing.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as u32 as u64) }
}

/// `NSFS_MAGIC` of `linux/magic.h`.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The user namespace that owns a namespace. `EPERM` if it is outside the caller's own.
pub fn owner(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(file, NS_GET_USERNS)
}

/// The parent of a user or pid namespace. `EPERM` if it is outside the caller's own, `EINVAL` for other kinds.
pub fn parent(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(file, NS_GET_PARENT)
}

fn related(file: BorrowedFd<'_>, request: c_ulong) -> io::Result<OwnedFd> {
    kind(file)?;
    // SAFETY: both requests take no argument and return a new descriptor.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// The user, as numbered in the caller's user namespace, who made a user namespace. `EINVAL` for other kinds.
pub fn owner_uid(file: BorrowedFd<'_>) -> io::Result<u32> {
    kind(file)?;
    let mut uid: libc::uid_t = 0;
    // SAFETY: NS_GET_OWNER_UID writes one uid_t through the pointer, which is valid during the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(uid) }
}

/// Ignores the signals that a terminal's keys send, for a process that only waits for its child: the child gets them too.
pub fn ignore_terminal_signals() {
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is a valid disposition for these signals and no handler code is involved.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn kinds_of_own_namespaces() {
        for (name, flag) in [
            ("net", process::CLONE_NEWNET),
            ("mnt", process::CLONE_NEWNS),
            ("user", process::CLONE_NEWUSER),
            ("cgroup", process::CLONE_NEWCGROUP),
        ] {
            let file = File::open(format!("/proc/self/ns/{name}")).unwrap();
            assert_eq!(kind(file.as_fd()).unwrap(), flag, "{name}");
        }
        let other = File::open("/proc/self/status").unwrap();
        assert_eq!(kind(other.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn owners() {
        use std::os::unix::fs::MetadataExt;
        let net = File::open("/proc/self/ns/net").unwrap();
        let user = File::open("/proc/self/ns/user").unwrap();
        let found = File::from(owner(net.as_fd()).unwrap());
        assert_eq!(found.metadata().unwrap().ino(), user.metadata().unwrap().ino());
        assert!(owner_uid(user.as_fd()).is_ok());
        assert_eq!(parent(net.as_fd()).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
