//! Signals as readable descriptors (signalfd(2)), for poll loops without handlers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Which.
    pub number: i32,
    /// From the kernel (a key at the terminal, the end of the terminal), not by kill(2) from a process.
    pub from_kernel: bool,
}

/// A set of signals that is blocked and read from a descriptor instead, until this is dropped. Signals that came and were
/// not read are forgotten then.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
    before: u64,
}

impl SignalFd {
    /// Blocks the signals with these numbers (1 to 64) in this thread and makes the descriptor. Use it in processes with
    /// one thread: others would still take the signals.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let mask = signals.iter().filter(|n| (1..=64).contains(*n)).fold(0_u64, |mask, n| mask | 1 << (n - 1));
        let before = change_mask(libc::SIG_BLOCK, mask)?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: `mask` outlives the call and has the eight bytes that are passed as its size.
        let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8, flags) };
        if fd == -1 {
            let error = io::Error::last_os_error();
            change_mask(libc::SIG_SETMASK, before)?;
            return Err(error);
        }
        // SAFETY: the kernel returned a new descriptor that nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd as i32) }, before })
    }

    /// The next signal that came; `None` when none is waiting.
    pub fn read(&self) -> io::Result<Option<Arrived>> {
        // `struct signalfd_siginfo` has 128 bytes, the first four being the number, the third four its code.
        let mut info = [0_u8; 128];
        // SAFETY: the buffer is as long as the length says.
        let n = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), info.len()) };
        if n == -1 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        let [a, b, c, d, _, _, _, _, e, f, g, h, ..] = info;
        let (number, code) = (i32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]));
        Ok(Some(Arrived { number, from_kernel: code > 0 }))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SignalFd {
    fn drop(&mut self) {
        // What is waiting would take its default action as soon as it is unblocked: end the process, most often.
        while matches!(self.read(), Ok(Some(_))) {}
        // Restoring a mask that was valid before cannot fail.
        let _ = change_mask(libc::SIG_SETMASK, self.before);
    }
}

/// Lets a broken pipe end the process quietly, as other programs do; Rust's runtime ignores SIGPIPE at start.
pub fn default_sigpipe() {
    // The kernel's `struct sigaction` of any architecture fits, and all zero means SIG_DFL without flags.
    let default = [0_u64; 8];
    // SAFETY: `default` is larger than the kernel's structure and outlives the call.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, libc::SIGPIPE, &raw const default, std::ptr::null::<u64>(), 8);
    }
}

/// Ends the process by a signal's default action, so that the parent sees what ended it.
pub fn die_of(signal: i32) -> ! {
    crate::process::reset_signals();
    // SAFETY: a system call without pointers on this process.
    unsafe { libc::kill(libc::getpid(), signal) };
    // A signal whose default action is not to end the process.
    crate::process::exit_now(128 + signal)
}

fn change_mask(how: libc::c_int, mask: u64) -> io::Result<u64> {
    let mut before = 0_u64;
    // SAFETY: both pointers are to eight bytes that outlive the call, the size that is passed.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask, &raw mut before, 8) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(before) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read() {
        let fd = SignalFd::new(&[libc::SIGUSR1]).unwrap();
        assert_eq!(fd.read().unwrap(), None);
        // SAFETY: sends a signal that is blocked in this thread to this thread.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), libc::SIGUSR1) };
        assert_eq!(fd.read().unwrap(), Some(Arrived { number: libc::SIGUSR1, from_kernel: false }));
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), libc::SIGUSR1) };
        drop(fd);
        assert_eq!(change_mask(libc::SIG_BLOCK, 0).unwrap() & (1 << (libc::SIGUSR1 - 1)), 0);
    }
}
