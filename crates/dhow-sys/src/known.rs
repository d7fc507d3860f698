//! Whether the kernel knows a system call: each is asked with arguments that cannot do anything.
//!
//! A version number says what upstream had; distributions backport, and seccomp filters take away.

use std::io;

/// A system call that programs probe for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// clone3(2), Linux 5.3.
    Clone3,
    /// mount_setattr(2), Linux 5.12.
    MountSetattr,
    /// openat2(2), Linux 5.6.
    Openat2,
    /// close_range(2), Linux 5.9.
    CloseRange,
    /// fsopen(2) and its family, Linux 5.2.
    Fsopen,
    /// pidfd_open(2), Linux 5.3.
    PidfdOpen,
}

impl Call {
    /// Whether the kernel knows the call and lets this process make it.
    pub fn known(self) -> bool {
        let null = std::ptr::null::<libc::c_void>();
        // SAFETY: every call gets a null pointer, a size of zero, a bad descriptor or an unknown flag, and fails before
        // it reads or changes anything: EINVAL, EFAULT, EBADF. Only ENOSYS or EPERM of a filter mean "not here".
        let result = unsafe {
            match self {
                Self::Clone3 => libc::syscall(libc::SYS_clone3, null, 0usize),
                Self::MountSetattr => libc::syscall(libc::SYS_mount_setattr, -1, null, !0u32, null, 0usize),
                Self::Openat2 => libc::syscall(libc::SYS_openat2, -1, null, null, 0usize),
                // The first number is above the last.
                Self::CloseRange => libc::syscall(libc::SYS_close_range, 1u32, 0u32, 0u32),
                Self::Fsopen => libc::syscall(libc::SYS_fsopen, null, !0u32),
                Self::PidfdOpen => libc::syscall(libc::SYS_pidfd_open, -1, !0u32),
            }
        };
        debug_assert_eq!(result, -1, "{self:?} did something");
        let error = io::Error::last_os_error().raw_os_error();
        match self {
            // fsopen checks the right first: EPERM without it says nothing about the kernel.
            Self::Fsopen => error != Some(libc::ENOSYS),
            _ => !matches!(error, Some(libc::ENOSYS | libc::EPERM)),
        }
    }
}

/// The version of Landlock's interface, landlock_create_ruleset(2); `None` where it is not built in or not enabled.
pub fn landlock_version() -> Option<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with the version flag the call takes a null pointer and a size of zero, and makes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0usize, VERSION) };
    u32::try_from(result).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_oldest_kernel_supported_are_known() {
        for call in [Call::Clone3, Call::MountSetattr, Call::Openat2, Call::CloseRange, Call::Fsopen, Call::PidfdOpen] {
            assert!(call.known(), "{call:?}");
        }
    }

    #[test]
    fn landlock_has_a_small_version() {
        assert!(landlock_version().is_none_or(|v| (1..100).contains(&v)));
    }
}
