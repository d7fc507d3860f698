//! Descriptors 0 to 2.

use crate::channel::Channel;
use crate::error::{Failure, LaunchError, OrFail, Stage};
use crate::request::StdioPlan;
use dhow_sys::tty::{self, Pty};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The caller's ends of pipes.
#[derive(Debug, Default)]
pub(crate) struct Ours {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// The process's ends, as far as they are known before its root is there.
#[derive(Debug)]
pub(crate) enum Theirs {
    /// Pipes; stdin may be missing.
    Pipes(Option<OwnedFd>, OwnedFd, OwnedFd),
    /// A terminal of this size: rows, columns.
    Terminal(u16, u16),
    /// As given.
    Given([OwnedFd; 3]),
}

/// Makes the pipes.
pub(crate) fn prepare(plan: StdioPlan) -> Result<(Ours, Theirs), LaunchError> {
    let failed = LaunchError::step(Stage::Stdio, "cannot make pipes");
    match plan {
        StdioPlan::Pipes { stdin } => pipes(stdin).map_err(failed),
        StdioPlan::Pty { rows, cols, stdin: _ } => Ok((Ours::default(), Theirs::Terminal(rows, cols))),
        StdioPlan::Fds(fds) => Ok((Ours::default(), Theirs::Given(fds))),
    }
}

fn pipes(with_stdin: bool) -> io::Result<(Ours, Theirs)> {
    let (stdin, their_stdin) = match with_stdin {
        true => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (Some(write), Some(read))
        }
        false => (None, None),
    };
    let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let ours = Ours { stdin, stdout: Some(stdout), stderr: Some(stderr) };
    Ok((ours, Theirs::Pipes(their_stdin, their_stdout, their_stderr)))
}

/// Descriptors 0 to 2, complete.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) fds: [OwnedFd; 3],
    pub(crate) kind: Kind,
}

/// What they are, for what has to be done when the user is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pipes of ours: stdin may be the null device.
    Pipes {
        stdin: bool,
    },
    Terminal,
    Given,
}

impl Theirs {
    /// Completes them: `null` opens the null device, `open_pty` makes a terminal, whose master side is sent to the
    /// caller.
    pub(crate) fn complete(
        self,
        channel: &Channel,
        null: impl FnOnce() -> Result<OwnedFd, Failure>,
        open_pty: impl FnOnce() -> Result<Pty, Failure>,
    ) -> Result<Ready, Failure> {
        match self {
            Self::Given(fds) => Ok(Ready { fds, kind: Kind::Given }),
            Self::Pipes(stdin, stdout, stderr) => {
                let kind = Kind::Pipes { stdin: stdin.is_some() };
                let stdin = match stdin {
                    Some(stdin) => stdin,
                    None => null()?,
                };
                Ok(Ready { fds: [stdin, stdout, stderr], kind })
            }
            Self::Terminal(rows, columns) => {
                let what = || "cannot set up the terminal";
                let pty = open_pty()?;
                if (rows, columns) != (0, 0) {
                    tty::set_size(pty.master.as_fd(), rows, columns).or_fail(Stage::Stdio, what)?;
                }
                channel.send_terminal(pty.master.as_fd()).or_fail(Stage::Stdio, what)?;
                let copy = || pty.peer.try_clone().or_fail(Stage::Stdio, what);
                Ok(Ready { fds: [copy()?, copy()?, copy()?], kind: Kind::Terminal })
            }
        }
    }
}

/// Makes the user of the process the owner of its pipes or terminal, so that `/dev/stdout` can be opened again by a
/// user who is not root. The group of a terminal stays `tty`'s. Works on descriptors 0 to 2 themselves.
pub(crate) fn give_to(kind: Kind, uid: u32) -> Result<(), Failure> {
    if uid == 0 {
        return Ok(());
    }
    let uid = Some(rustix::fs::Uid::from_raw(uid));
    let give = |fd| rustix::fs::fchown(fd, uid, None).or_fail(Stage::Stdio, || "cannot give stdio to the user");
    let (stdin, stdout, stderr) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    match kind {
        Kind::Given => Ok(()),
        // One terminal behind all three.
        Kind::Terminal => give(stdin),
        Kind::Pipes { stdin: with_stdin } => {
            if with_stdin {
                give(stdin)?;
            }
            give(stdout)?;
            give(stderr)
        }
    }
}
