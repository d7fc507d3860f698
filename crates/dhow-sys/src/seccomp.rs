//! seccomp(2): installing a classic BPF filter and asking what the kernel offers.
//!
//! Deliberately absent: what a filter should say. Programs are built and checked by the runtime.

use std::ffi::{c_int, c_uint, c_ulong};
use std::io;

/// One classic BPF instruction: `struct sock_filter` of `linux/filter.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `BPF_MAXINSNS`: the kernel takes no longer program.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `SECCOMP_FILTER_FLAG_LOG`: log actions other than allow (4.14).
pub const FLAG_LOG: c_uint = 2;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: do not turn on the speculative store bypass mitigation (4.17).
pub const FLAG_SPEC_ALLOW: c_uint = 4;

const SET_MODE_FILTER: c_uint = 1;
const GET_ACTION_AVAIL: c_uint = 2;

/// Installs a filter for the calling thread and everything it executes.
///
/// Needs `CAP_SYS_ADMIN` in the caller's user namespace or `no_new_privs`. EACCES means neither; EINVAL a malformed
/// program or an unknown flag.
pub fn install(program: &[Instruction], flags: c_uint) -> io::Result<()> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let header =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: `Instruction` has the layout of `struct sock_filter` (repr(C), the same fields), the kernel copies `len`
    // of them from `filter` during the call and never writes to them, and `program` outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER as c_ulong, c_ulong::from(flags), &header) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the kernel knows a return action (`SECCOMP_GET_ACTION_AVAIL`, 4.14).
pub fn action_available(action: u32) -> io::Result<bool> {
    // SAFETY: the kernel reads one u32 through the pointer, which is valid during the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, c_ulong::from(GET_ACTION_AVAIL), 0 as c_ulong, &action) };
    if result == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        e => Err(e),
    }
}

/// The calling thread's seccomp mode: 0 none, 1 strict, 2 filter (`PR_GET_SECCOMP`).
pub fn mode() -> io::Result<c_int> {
    // SAFETY: PR_GET_SECCOMP takes no pointers.
    let result = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
    if result >= 0 { Ok(result) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_is_a_sock_filter() {
        assert_eq!(size_of::<Instruction>(), size_of::<libc::sock_filter>());
        assert_eq!(align_of::<Instruction>(), align_of::<libc::sock_filter>());
    }

    #[test]
    fn actions_of_old_are_available() {
        assert!(action_available(0x7fff_0000).unwrap(), "SECCOMP_RET_ALLOW");
        assert!(!action_available(0x1234_0000).unwrap());
    }

    #[test]
    fn a_filter_binds_the_thread_that_installs_it() {
        std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            let allow = Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 };
            install(&[allow], FLAG_SPEC_ALLOW).unwrap();
            assert_eq!(mode().unwrap(), 2);
        })
        .join()
        .unwrap();
        assert_eq!(install(&[], 0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
