//! Descriptors that a process was started with.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Descriptors already taken, a bit each.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Takes ownership of an inherited descriptor, 3 to 63, and marks it close-on-exec. Each can be taken once.
///
/// Call before the process opens anything: a descriptor that is not inherited could be somebody else's by number.
pub fn take(fd: RawFd) -> io::Result<OwnedFd> {
    let bit = match fd {
        3..=63 => 1u64 << fd,
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    if TAKEN.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    // SAFETY: fcntl(2) on a number that may not be open only returns EBADF; no memory is touched.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, as fcntl just said, and by TAKEN nobody else got ownership of it here.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_and_low_descriptors_are_refused() {
        assert!(take(2).is_err());
        assert!(take(63).is_err());
        assert!(take(64).is_err());
    }
}
