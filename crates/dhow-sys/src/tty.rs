//! Terminals: pseudo terminals of a given devpts instance, window sizes, raw mode (pty(7), ioctl_tty(2)).

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `DEVPTS_SUPER_MAGIC` of `linux/magic.h`.
pub const DEVPTS_MAGIC: u64 = 0x1cd1;

/// A pseudo terminal.
#[derive(Debug)]
pub struct Pty {
    /// The side of the terminal emulator.
    pub master: OwnedFd,
    /// The side of the programs.
    pub peer: OwnedFd,
    /// Its number: the name below the devpts instance.
    pub number: u32,
}

impl Pty {
    /// Makes a pair from the `ptmx` of a devpts instance, without touching a path: the peer comes from the kernel by
    /// `TIOCGPTPEER` (Linux 4.13), so that nothing put in the place of its name is opened (CVE-2025-52565).
    ///
    /// `devpts` is the directory of the instance.
    pub fn open(devpts: BorrowedFd<'_>) -> io::Result<Self> {
        if !crate::mount::is_on(devpts, DEVPTS_MAGIC)? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a devpts file system"));
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let master = rustix::fs::openat(devpts, c"ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        let number = rustix::fs::minor(rustix::fs::fstat(&peer)?.st_rdev);
        Ok(Self { master, peer, number })
    }
}

/// Sets the size of a terminal, in characters.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// The size of a terminal: rows, columns.
pub fn size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok((size.ws_row, size.ws_col))
}

/// Whether a descriptor is a terminal.
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    rustix::termios::isatty(fd)
}

/// Makes a terminal the controlling one of the calling session leader, which must have none.
pub fn make_controlling(terminal: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

/// A terminal in raw mode until this is dropped.
#[derive(Debug)]
pub struct RawMode<'fd> {
    terminal: BorrowedFd<'fd>,
    before: Termios,
}

impl<'fd> RawMode<'fd> {
    /// Switches to raw mode: every byte is passed on as typed, none is echoed, none makes a signal.
    ///
    /// Output keeps its translation of newlines, as Docker's client does: what other programs print meanwhile stays
    /// readable.
    pub fn enter(terminal: BorrowedFd<'fd>) -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes = before.output_modes;
        rustix::termios::tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = rustix::termios::tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// The settings of a terminal, for restoring them from another place than a destructor.
pub fn settings(terminal: BorrowedFd<'_>) -> io::Result<Termios> {
    Ok(rustix::termios::tcgetattr(terminal)?)
}

/// Restores settings.
pub fn restore(terminal: impl AsFd, settings: &Termios) -> io::Result<()> {
    Ok(rustix::termios::tcsetattr(terminal, OptionalActions::Now, settings)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Pty {
        Pty::open(crate::mount::open_place(std::path::Path::new("/dev/pts")).unwrap().as_fd()).unwrap()
    }

    #[test]
    fn root_pair_has_a_size_and_a_raw_mode() {
        let pty = host();
        set_size(pty.master.as_fd(), 33, 101).unwrap();
        assert_eq!(size(pty.peer.as_fd()).unwrap(), (33, 101));
        assert!(is_terminal(pty.peer.as_fd()));
        let echo = |t: &Pty| settings(t.peer.as_fd()).unwrap().local_modes.contains(rustix::termios::LocalModes::ECHO);
        assert!(echo(&pty));
        let raw = RawMode::enter(pty.peer.as_fd()).unwrap();
        assert!(!echo(&pty));
        drop(raw);
        assert!(echo(&pty));
    }

    #[test]
    fn other_directories_are_refused() {
        let tmp = crate::mount::open_place(&std::env::temp_dir()).unwrap();
        assert!(Pty::open(tmp.as_fd()).is_err());
    }
}
