//! The foreground of `exec`: the process is a child, its streams are pipes or a pseudo terminal.

use super::{ENDING, SIGPIPE, SIGWINCH, is_hangup, read_some, size, write_all};
use crate::error::CliError;
use dhow_docker::detach::Matcher;
use dhow_runtime::Launched;
use dhow_sys::process::{self, Exit};
use dhow_sys::signals::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How the foreground of an exec ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecEnd {
    /// Exit code.
    Exited(i32),
    /// The caller typed the detach keys.
    Detached,
    /// A signal that cannot be passed on asks this process to end.
    Signal(i32),
}

/// How long output is waited for after the process has ended, in nanoseconds: a terminal's last bytes come through a
/// kernel worker.
const LAST_OUTPUT: i64 = 50_000_000;

struct Loop<'a> {
    pidfd: OwnedFd,
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
    pty: Option<OwnedFd>,
    /// Typed and not yet taken.
    waiting: Vec<u8>,
    input: bool,
    detach: Matcher,
    signals: &'a SignalFd,
    buffer: Vec<u8>,
}

/// Pumps until the process ends or the caller leaves.
pub(crate) fn exec_loop(
    launched: Launched,
    give_input: bool,
    detach: Matcher,
    signals: &SignalFd,
) -> Result<ExecEnd, CliError> {
    let tty = launched.pty.is_some();
    let mut state = Loop {
        pidfd: launched.pidfd,
        stdin: launched.stdin,
        outputs: [launched.stdout, launched.stderr],
        pty: launched.pty,
        waiting: Vec::new(),
        input: give_input,
        detach,
        signals,
        buffer: vec![0; 32 << 10],
    };
    state.set_nonblocking()?;
    loop {
        let ready = state.wait(None)?;
        if ready.signal
            && let Some(end) = state.signal(tty)?
        {
            return Ok(end);
        }
        if ready.input && state.typed(tty)? {
            return Ok(ExecEnd::Detached);
        }
        state.give()?;
        state.output(&ready)?;
        if let Some(exit) = process::try_wait(state.pidfd.as_fd()).map_err(CliError::io("cannot wait"))? {
            state.last_output()?;
            return Ok(ExecEnd::Exited(match exit {
                Exit::Code(code) => code,
                signal => signal.shell_code(),
            }));
        }
    }
}

#[derive(Default)]
struct Ready {
    signal: bool,
    input: bool,
    outputs: [bool; 2],
    pty: bool,
}

impl Loop<'_> {
    fn set_nonblocking(&self) -> Result<(), CliError> {
        let [out, err] = &self.outputs;
        for fd in [&self.stdin, out, err, &self.pty].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true).map_err(CliError::errno("cannot prepare the streams"))?;
        }
        Ok(())
    }

    fn wait(&self, timeout: Option<Timespec>) -> Result<Ready, CliError> {
        let own_input = stdin();
        let mut fds: Vec<PollFd<'_>> =
            vec![PollFd::new(self.signals, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
        let mut place = [None; 4];
        let [out, err] = &self.outputs;
        for (slot, fd) in [out, err].into_iter().enumerate() {
            if let Some(fd) = fd {
                place[slot] = Some(fds.len());
                fds.push(PollFd::new(fd, PollFlags::IN));
            }
        }
        if let Some(pty) = &self.pty {
            place[2] = Some(fds.len());
            let wanted = if self.waiting.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            fds.push(PollFd::new(pty, wanted));
        }
        if let Some(stdin) = self.stdin.as_ref().filter(|_| !self.waiting.is_empty()) {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        if self.input && self.waiting.is_empty() {
            place[3] = Some(fds.len());
            fds.push(PollFd::new(&own_input, PollFlags::IN));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(CliError::errno("cannot wait for input and output")(e)),
        }
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let came = |at: Option<usize>| at.and_then(|i| fds.get(i)).is_some_and(|f| f.revents().intersects(readable));
        Ok(Ready {
            signal: came(Some(0)),
            input: came(place[3]),
            outputs: [came(place[0]), came(place[1])],
            pty: came(place[2]),
        })
    }

    fn signal(&mut self, tty: bool) -> Result<Option<ExecEnd>, CliError> {
        while let Some(arrived) = self.signals.read().map_err(CliError::io("cannot read signals"))? {
            let number = arrived.number;
            if number == SIGWINCH {
                if let (true, Some(pty), Some((rows, cols))) = (tty, &self.pty, size()) {
                    // The process may be gone already.
                    let _ = dhow_sys::tty::set_size(pty.as_fd(), rows, cols);
                }
                continue;
            }
            if number == SIGPIPE {
                continue;
            }
            if is_hangup(arrived) {
                return Ok(Some(ExecEnd::Signal(number)));
            }
            match process::signal(self.pidfd.as_fd(), number) {
                Ok(()) => {}
                Err(_) if ENDING.contains(&number) => return Ok(Some(ExecEnd::Signal(number))),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    fn typed(&mut self, tty: bool) -> Result<bool, CliError> {
        let read = read_some(stdin(), &mut self.buffer).map_err(CliError::errno("cannot read standard input"));
        let Some(n) = read? else {
            self.input = false;
            self.waiting.extend(self.detach.flush());
            return Ok(false);
        };
        let typed = self.buffer.get(..n).unwrap_or_default();
        if !tty {
            self.waiting.extend_from_slice(typed);
            return Ok(false);
        }
        let (pass, detached) = self.detach.feed(typed);
        self.waiting.extend(pass);
        Ok(detached)
    }

    /// Gives the process what was typed, as far as it takes it.
    fn give(&mut self) -> Result<(), CliError> {
        while !self.waiting.is_empty() {
            let Some(target) = self.pty.as_ref().or(self.stdin.as_ref()) else {
                self.waiting.clear();
                return Ok(());
            };
            match rustix::io::write(target, &self.waiting) {
                Ok(n) => {
                    self.waiting.drain(..n);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // It has closed its input.
                Err(Errno::PIPE | Errno::IO) => {
                    self.waiting.clear();
                    self.input = false;
                    self.stdin = None;
                }
                Err(e) => return Err(CliError::errno("cannot write to the process's input")(e)),
            }
        }
        if !self.input {
            self.stdin = None;
        }
        Ok(())
    }

    fn output(&mut self, ready: &Ready) -> Result<(), CliError> {
        let targets = [stdout(), stderr()];
        for ((fd, is_ready), target) in self.outputs.iter_mut().zip(ready.outputs).zip(targets) {
            if is_ready {
                copy(fd, target, &mut self.buffer)?;
            }
        }
        if ready.pty {
            copy(&mut self.pty, stdout(), &mut self.buffer)?;
        }
        Ok(())
    }

    /// What the process had written before it ended. Processes that it left behind may hold the streams open; their
    /// output is nobody's any more.
    fn last_output(&mut self) -> Result<(), CliError> {
        self.input = false;
        self.waiting.clear();
        loop {
            let patience = if self.pty.is_some() { LAST_OUTPUT } else { 0 };
            let ready = self.poll_outputs(Timespec { tv_sec: 0, tv_nsec: patience })?;
            if !ready.pty && ready.outputs == [false, false] {
                return Ok(());
            }
            self.output(&ready)?;
        }
    }

    fn poll_outputs(&self, timeout: Timespec) -> Result<Ready, CliError> {
        let [out, err] = &self.outputs;
        let open: Vec<(usize, &OwnedFd)> =
            [out, err, &self.pty].into_iter().enumerate().filter_map(|(i, fd)| Some((i, fd.as_ref()?))).collect();
        if open.is_empty() {
            return Ok(Ready::default());
        }
        let mut fds: Vec<PollFd<'_>> = open.iter().map(|(_, fd)| PollFd::new(*fd, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(CliError::errno("cannot wait for output")(e)),
        }
        let mut ready = Ready::default();
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        for ((slot, _), fd) in open.iter().zip(&fds) {
            let came = fd.revents().intersects(readable);
            match slot {
                2 => ready.pty = came,
                slot => ready.outputs[*slot] = came,
            }
        }
        Ok(ready)
    }
}

/// Copies what is there; closes the source at its end.
fn copy(source: &mut Option<OwnedFd>, target: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(), CliError> {
    let Some(fd) = source else { return Ok(()) };
    match read_some(fd.as_fd(), buffer).map_err(CliError::errno("cannot read the process's output"))? {
        None => *source = None,
        Some(n) => {
            let bytes = buffer.get(..n).unwrap_or_default();
            write_all(target, bytes).map_err(CliError::errno("cannot write the process's output"))?;
        }
    }
    Ok(())
}
