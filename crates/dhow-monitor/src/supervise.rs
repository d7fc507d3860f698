//! The poll loop of a monitor.

mod clients;
mod input;

use clients::Clients;
use dhow_logs::{LogWriter, Stream};
use dhow_runtime::Launched;
use input::Input;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// Output is read in pieces of this many bytes.
const CHUNK: usize = 64 * 1024;
/// After this much quiet the lifecycle gets its one [`Lifecycle::idle`] call.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit status, 128 + n after signal n.
    pub code: i32,
}

/// What the lifecycle made of an exit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The container is removed: its name is free and it is in no list any more.
    pub removed: bool,
}

/// What the engine does at the turning points of a container's life. Called from the monitor's only thread.
pub trait Lifecycle {
    /// The container has been quiet for a moment for the first time: work that nobody waits for.
    fn idle(&mut self);

    /// The container has exited and its output is in the log. Records it; attached clients learn of it afterwards.
    fn exited(&mut self, exit: Exit) -> Outcome;
}

/// Everything a monitor supervises.
pub struct Supervision<'a> {
    /// The running container.
    pub launched: Launched,
    /// Close the container's input when the first client with input is done.
    pub stdin_once: bool,
    /// Where clients connect.
    pub listener: UnixListener,
    /// The client that started the container, its [`crate::Hello`] already read.
    pub first: Option<(UnixStream, crate::Hello)>,
    /// The log, unless the container has none.
    pub log: Option<LogWriter>,
    /// The engine.
    pub lifecycle: &'a mut dyn Lifecycle,
}

/// Supervises until the container has exited, its output is drained, and attached clients have been told.
pub fn supervise(supervision: Supervision<'_>) -> Outcome {
    Supervisor::new(supervision).run()
}

struct Supervisor<'a> {
    pidfd: OwnedFd,
    outputs: Vec<Output>,
    input: Input,
    listener: UnixListener,
    clients: Clients,
    log: Option<LogWriter>,
    lifecycle: &'a mut dyn Lifecycle,
    idle_done: bool,
    buffer: Vec<u8>,
}

struct Output {
    fd: OwnedFd,
    stderr: bool,
    /// Nothing will come any more.
    ended: bool,
}

/// Which descriptor became ready.
#[derive(Clone, Copy)]
enum Source {
    Exit,
    Listener,
    Input,
    Output(usize),
    Client(usize),
}

impl<'a> Supervisor<'a> {
    fn new(s: Supervision<'a>) -> Self {
        let Launched { pid, pidfd, stdin, stdout, stderr, pty, .. } = s.launched;
        let mut outputs = Vec::new();
        let mut terminal = None;
        if let Some(pty) = pty {
            // One descriptor reads, its duplicate writes: closing the input never closes the output.
            terminal = rustix::io::fcntl_dupfd_cloexec(&pty, 3).ok();
            outputs.push(Output { fd: pty, stderr: false, ended: false });
        }
        outputs.extend(stdout.map(|fd| Output { fd, stderr: false, ended: false }));
        outputs.extend(stderr.map(|fd| Output { fd, stderr: true, ended: false }));
        for output in &outputs {
            set_nonblocking(output.fd.as_fd());
        }
        let _ = s.listener.set_nonblocking(true);
        let mut clients = Clients::new(pid);
        if let Some((stream, hello)) = s.first {
            clients.add_greeted(stream, hello);
        }
        Self {
            pidfd,
            outputs,
            input: Input::new(stdin, terminal, s.stdin_once),
            listener: s.listener,
            clients,
            log: s.log,
            lifecycle: s.lifecycle,
            idle_done: false,
            buffer: Vec::new(),
        }
    }

    fn run(mut self) -> Outcome {
        loop {
            let ready = self.wait();
            if ready.is_empty() && !self.idle_done {
                self.idle_done = true;
                self.buffer = Vec::new();
                self.lifecycle.idle();
            }
            let mut exited = false;
            for source in ready {
                match source {
                    Source::Exit => exited = true,
                    Source::Listener => self.accept(),
                    Source::Input => self.input.flush(),
                    Source::Output(i) => {
                        self.pump(i);
                    }
                    Source::Client(i) => self.clients.ready(i, &mut self.input, self.pidfd.as_fd()),
                }
            }
            if let Some(log) = &mut self.log {
                log.flush();
            }
            self.clients.sweep(&mut self.input);
            if exited {
                return self.finish();
            }
        }
    }

    /// Waits for something to do.
    fn wait(&mut self) -> Vec<Source> {
        let mut sources = vec![Source::Exit, Source::Listener];
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        if let Some(fd) = self.input.wants_write() {
            sources.push(Source::Input);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
        }
        // A client that does not read stops the container's output, as Docker's attach does, rather than filling memory.
        if self.clients.can_take_output() {
            for (i, output) in self.outputs.iter().enumerate().filter(|(_, o)| !o.ended) {
                sources.push(Source::Output(i));
                fds.push(PollFd::new(&output.fd, PollFlags::IN));
            }
        }
        for (i, fd, flags) in self.clients.poll_set(self.input.can_take()) {
            sources.push(Source::Client(i));
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let timeout = if self.idle_done { None } else { Some(&IDLE) };
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::INTR) => Vec::new(),
            Ok(_) => sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(s, _)| s).collect(),
            // Nothing but a programming error makes poll(2) fail otherwise; waiting for the exit alone stays right.
            Err(_) => vec![Source::Exit],
        }
    }

    fn accept(&mut self) {
        if let Ok((stream, _)) = self.listener.accept() {
            self.clients.add(stream);
        }
    }

    /// Moves one piece of output to the log and the clients. Returns whether there may be more.
    fn pump(&mut self, index: usize) -> bool {
        let Some(output) = self.outputs.get_mut(index) else { return false };
        self.buffer.resize(CHUNK, 0);
        match rustix::io::read(&output.fd, &mut self.buffer[..]) {
            Ok(count @ 1..) => {
                let data = &self.buffer[..count];
                let stderr = output.stderr;
                if let Some(log) = &mut self.log {
                    log.write(if stderr { Stream::Stderr } else { Stream::Stdout }, data, dhow_types::Timestamp::now());
                }
                self.clients.output(stderr, data);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            // End of file, or EIO, which is how a terminal says that its last user is gone (pty(7)).
            Ok(_) | Err(_) => {
                output.ended = true;
                false
            }
        }
    }

    /// The first process is gone, and with it every other one of its PID namespace: what the pipes hold is all there is.
    fn finish(mut self) -> Outcome {
        let code = exit_code(self.pidfd.as_fd());
        for index in 0..self.outputs.len() {
            while self.pump(index) {
                self.clients.flush_blocking();
            }
        }
        if let Some(log) = &mut self.log {
            log.finish(dhow_types::Timestamp::now());
        }
        let outcome = self.lifecycle.exited(Exit { code });
        self.clients.farewell(code, outcome.removed);
        outcome
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>) {
    if let Ok(flags) = rustix::fs::fcntl_getfl(fd) {
        let _ = rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK);
    }
}

/// The status in the shape of a shell's `$?`: the exit code, or 128 + n after signal n.
fn exit_code(pidfd: BorrowedFd<'_>) -> i32 {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    loop {
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(|n| 128 + n);
                return status.exit_status().or(signal).unwrap_or(255);
            }
            Err(Errno::INTR) => {}
            // Not our child: a status nobody can know.
            Ok(None) | Err(_) => return 255,
        }
    }
}
