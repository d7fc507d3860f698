//! The foreground: bytes between the caller's terminal and a container, one poll loop, no threads.

mod attach;
mod exec;
mod terminal;

pub(crate) use attach::{Attached, End, attach_loop};
pub(crate) use exec::{ExecEnd, exec_loop};
pub(crate) use terminal::{RawTerminal, check_tty, restore, size};

use dhow_sys::signals::{Arrived, SignalFd};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// Signals that end a program unless it handles them, or that programs use among themselves: passed on to the container.
/// Not among them: SIGCHLD, SIGPIPE and SIGURG, which concern this process, SIGWINCH, which becomes a size, the
/// stops of job control, and faults.
const FORWARDED: [i32; 12] = [1, 2, 3, 10, 12, 14, 15, 16, 18, 24, 29, 30];
const SIGHUP: i32 = 1;
/// The size of the terminal has changed.
const SIGWINCH: i32 = 28;
/// Stops at the keyboard, passed on only while they would not stop this process's own job.
const SIGTSTP: i32 = 20;

/// Comes with writing to a process that has closed its input, which is no reason to end.
const SIGPIPE: i32 = 13;

/// The terminal is gone. That ends this process and is none of the container's business, unlike a SIGHUP that somebody
/// sends on purpose.
fn is_hangup(arrived: Arrived) -> bool {
    arrived.from_kernel && arrived.number == SIGHUP
}

/// Takes the signals of a foreground command from here on.
pub(crate) fn take_signals(forward: bool) -> std::io::Result<SignalFd> {
    let mut signals = vec![SIGWINCH, SIGPIPE];
    if forward {
        signals.extend(FORWARDED);
        signals.push(SIGTSTP);
        // Real-time signals, beginning with the first that the C library leaves to programs.
        signals.extend(34..=64);
    }
    SignalFd::new(&signals)
}

/// What stops a foreground command that passes no signals on; the terminal is restored first.
pub(crate) const ENDING: [i32; 4] = [1, 2, 3, 15];

/// Reads once. `Ok(None)` is the end of the stream; an empty buffer means nothing is there now.
fn read_some(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    match rustix::io::read(fd, buffer) {
        Ok(0) => Ok(None),
        Ok(n) => Ok(Some(n)),
        Err(Errno::INTR | Errno::AGAIN) => Ok(Some(0)),
        // The other side of a pseudo terminal is closed.
        Err(Errno::IO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes everything, waiting where the descriptor is non-blocking (it may be shared with others who set that).
fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    use rustix::event::{PollFd, PollFlags, poll};
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Nobody reads any more: end as any program in a pipeline does.
            Err(Errno::PIPE) => {
                restore();
                dhow_sys::signals::die_of(SIGPIPE)
            }
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
                match poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(e) => return Err(e),
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
