//! The foreground of `run`, `start -a` and `attach`: frames to and from the container's monitor.

use super::{ENDING, SIGPIPE, SIGWINCH, is_hangup, read_some, size, write_all};
use crate::error::CliError;
use dhow_docker::detach::Matcher;
use dhow_engine::{Client, Frame};
use dhow_sys::signals::SignalFd;
use dhow_types::ErrorKind;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::stdio::{stderr, stdin, stdout};
use std::os::fd::AsFd;

/// How a foreground ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The container ended with this code.
    Exited(i32),
    /// The caller typed the detach keys.
    Detached,
    /// The monitor closed the connection without a word.
    Lost,
    /// A signal that is not passed on asks this process to end.
    Signal(i32),
}

/// What to pump.
pub(crate) struct Attached<'a> {
    /// Connection.
    pub(crate) client: Client,
    /// Pass standard input on.
    pub(crate) stdin: bool,
    /// The container has a terminal.
    pub(crate) tty: bool,
    /// Pass signals on.
    pub(crate) forward: bool,
    /// Detach keys; they work when the container has a terminal.
    pub(crate) detach: Matcher,
    /// Signals, blocked since before the container started.
    pub(crate) signals: &'a SignalFd,
}

/// No more input is read while this much is waiting to be sent: a container that does not read its input must not keep
/// us from reading its output, or both wait for each other for ever.
const MAX_WAITING: usize = 128 << 10;

struct Loop<'a> {
    attached: Attached<'a>,
    /// Frames not yet sent.
    out: Vec<u8>,
    /// Input has not ended.
    input: bool,
    buffer: Vec<u8>,
}

/// Pumps until the container ends or the caller leaves.
pub(crate) fn attach_loop(attached: Attached<'_>) -> Result<End, CliError> {
    let input = attached.stdin;
    let mut state = Loop { attached, out: Vec::new(), input, buffer: vec![0; 32 << 10] };
    loop {
        // Frames that came together with the first one are in the buffer already.
        if let Some(end) = state.frames()? {
            return Ok(end);
        }
        let (client_ready, signal_ready, input_ready) = state.wait()?;
        if signal_ready && let Some(end) = state.signal()? {
            return Ok(end);
        }
        if input_ready && state.typed()? {
            return Ok(End::Detached);
        }
        state.send_waiting()?;
        if client_ready && !state.attached.client.fill()? {
            return Ok(state.frames()?.unwrap_or(End::Lost));
        }
    }
}

impl Loop<'_> {
    fn wait(&self) -> Result<(bool, bool, bool), CliError> {
        let stdin = stdin();
        let mut wanted = PollFlags::IN;
        if !self.out.is_empty() {
            wanted |= PollFlags::OUT;
        }
        let mut fds =
            vec![PollFd::new(&self.attached.client, wanted), PollFd::new(self.attached.signals, PollFlags::IN)];
        if self.input && self.out.len() < MAX_WAITING {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(CliError::errno("cannot wait for input and output")(e)),
        }
        let came = |at: usize| fds.get(at).map_or(PollFlags::empty(), PollFd::revents);
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        Ok((came(0).intersects(readable), came(1).intersects(readable), came(2).intersects(readable)))
    }

    /// Gives out what has arrived.
    fn frames(&mut self) -> Result<Option<End>, CliError> {
        let failed = || CliError::errno("cannot write the container's output");
        while let Some(frame) = self.attached.client.next_buffered()? {
            match frame {
                Frame::Stdout(bytes) => write_all(stdout(), &bytes).map_err(failed())?,
                Frame::Stderr(bytes) => write_all(stderr(), &bytes).map_err(failed())?,
                Frame::Exited { code, .. } => return Ok(Some(End::Exited(code))),
                Frame::Failed { message, .. } => return Err(CliError::failed(ErrorKind::Internal, message)),
                _ => {}
            }
        }
        Ok(None)
    }

    fn signal(&mut self) -> Result<Option<End>, CliError> {
        while let Some(arrived) = self.attached.signals.read().map_err(CliError::io("cannot read signals"))? {
            let number = arrived.number;
            if number == SIGWINCH {
                if let (true, Some((rows, cols))) = (self.attached.tty, size()) {
                    Frame::Resize { rows, cols }.encode(&mut self.out);
                }
            } else if number == SIGPIPE {
                // Whoever wrote has seen the error.
            } else if self.attached.forward && !is_hangup(arrived) {
                Frame::Signal(number).encode(&mut self.out);
            } else if ENDING.contains(&number) {
                return Ok(Some(End::Signal(number)));
            }
        }
        Ok(None)
    }

    /// Takes input. True when it holds the detach keys.
    fn typed(&mut self) -> Result<bool, CliError> {
        let read = read_some(stdin(), &mut self.buffer).map_err(CliError::errno("cannot read standard input"));
        let Some(n) = read? else {
            let held = self.attached.detach.flush();
            if !held.is_empty() {
                Frame::Stdin(held).encode(&mut self.out);
            }
            // A raw terminal has no end of input but its own end, which is none of the container's business.
            if !self.attached.tty {
                Frame::StdinEof.encode(&mut self.out);
            }
            self.input = false;
            return Ok(false);
        };
        let typed = self.buffer.get(..n).unwrap_or_default();
        if !self.attached.tty {
            if n > 0 {
                Frame::Stdin(typed.to_vec()).encode(&mut self.out);
            }
            return Ok(false);
        }
        let (pass, detached) = self.attached.detach.feed(typed);
        if !pass.is_empty() {
            Frame::Stdin(pass).encode(&mut self.out);
        }
        Ok(detached)
    }

    /// Sends as much as the monitor takes now.
    fn send_waiting(&mut self) -> Result<(), CliError> {
        while !self.out.is_empty() {
            match send(self.attached.client.as_fd(), &self.out, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(n) => {
                    self.out.drain(..n);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // The container has ended; its last frames may still be unread.
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.out.clear();
                    self.input = false;
                }
                Err(e) => return Err(CliError::errno("cannot send to the container's monitor")(e)),
            }
        }
        Ok(())
    }
}
