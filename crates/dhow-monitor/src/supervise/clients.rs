//! Attached clients: bounded buffers both ways, and none of them can hurt the container or another client.

use super::input::Input;
use crate::protocol::{Frame, Hello, encode_output};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A client with this many unsent bytes holds the container's output back.
const HOLD: usize = 256 * 1024;
/// How long a client that does not read can delay the end of the monitor.
const FAREWELL_SECONDS: i64 = 5;

/// All attached clients.
pub(super) struct Clients {
    pid: u32,
    list: Vec<Attached>,
}

struct Attached {
    stream: UnixStream,
    hello: Option<Hello>,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    /// Its input has ended, by frame or by closing.
    input_done: bool,
    gone: bool,
}

impl Clients {
    /// No clients; `pid` is what they are told.
    pub(super) fn new(pid: u32) -> Self {
        Self { pid, list: Vec::new() }
    }

    /// A connection whose first frame is still to come.
    pub(super) fn add(&mut self, stream: UnixStream) {
        self.list.push(Attached {
            stream,
            hello: None,
            inbound: Vec::new(),
            outbound: Vec::new(),
            input_done: false,
            gone: false,
        });
    }

    /// A connection whose greeting was read before.
    pub(super) fn add_greeted(&mut self, stream: UnixStream, hello: Hello) {
        self.add(stream);
        if let Some(client) = self.list.last_mut() {
            client.greet(hello, self.pid);
        }
    }

    /// Whether every client can take more output.
    pub(super) fn can_take_output(&self) -> bool {
        self.list.iter().all(|c| c.outbound.len() < HOLD)
    }

    /// What to poll for each client. `input` says whether the container's input takes more.
    pub(super) fn poll_set(&self, input: bool) -> impl Iterator<Item = (usize, BorrowedFd<'_>, PollFlags)> {
        self.list.iter().enumerate().map(move |(i, c)| {
            let mut flags = PollFlags::empty();
            // A client that only gives input waits while the container does not read it.
            if input || !c.hello.is_some_and(|h| h.stdin) || c.input_done {
                flags |= PollFlags::IN;
            }
            if !c.outbound.is_empty() {
                flags |= PollFlags::OUT;
            }
            (i, c.stream.as_fd(), flags)
        })
    }

    /// Reads and obeys frames, and sends what waits.
    pub(super) fn ready(&mut self, index: usize, input: &mut Input, pidfd: BorrowedFd<'_>) {
        let pid = self.pid;
        if let Some(client) = self.list.get_mut(index) {
            client.receive();
            client.obey(input, pidfd, pid);
            client.flush();
        }
    }

    /// Sends a piece of output to everyone who wants it.
    pub(super) fn output(&mut self, stderr: bool, data: &[u8]) {
        for client in &mut self.list {
            if client.hello.is_some_and(|h| if stderr { h.stderr } else { h.stdout }) {
                encode_output(&mut client.outbound, stderr, data);
                client.flush();
            }
        }
    }

    /// Forgets clients that have gone.
    pub(super) fn sweep(&mut self, input: &mut Input) {
        for client in self.list.iter_mut().filter(|c| c.gone) {
            client.end_input(input);
        }
        self.list.retain(|c| !c.gone);
    }

    /// While draining the last output: waits until nobody holds more than the limit, or gives up on who does.
    pub(super) fn flush_blocking(&mut self) {
        for client in self.list.iter_mut().filter(|c| c.outbound.len() >= HOLD) {
            client.flush_until_empty();
        }
    }

    /// Tells everyone the end, and sees it sent.
    pub(super) fn farewell(&mut self, code: i32, removed: bool) {
        for client in &mut self.list {
            Frame::Exited { code, removed }.encode(&mut client.outbound);
            client.flush_until_empty();
        }
        self.list.clear();
    }
}

impl Attached {
    fn greet(&mut self, hello: Hello, pid: u32) {
        self.hello = Some(hello);
        Frame::Started { pid }.encode(&mut self.outbound);
        self.flush();
    }

    fn receive(&mut self) {
        let mut chunk = [0u8; 16 * 1024];
        match recv(&self.stream, &mut chunk[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => self.gone = true,
            Ok((initialized, _)) => self.inbound.extend_from_slice(&chunk[..initialized]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.gone = true,
        }
    }

    fn obey(&mut self, input: &mut Input, pidfd: BorrowedFd<'_>, pid: u32) {
        let mut used = 0;
        loop {
            match Frame::decode(&self.inbound[used..]) {
                Ok(Some((frame, length))) => {
                    used += length;
                    self.obey_frame(frame, input, pidfd, pid);
                }
                Ok(None) => break,
                // A client that talks nonsense is disconnected; the container does not notice.
                Err(_) => {
                    self.gone = true;
                    break;
                }
            }
        }
        self.inbound.drain(..used);
        if self.inbound.is_empty() {
            self.inbound = Vec::new();
        }
    }

    fn obey_frame(&mut self, frame: Frame, input: &mut Input, pidfd: BorrowedFd<'_>, pid: u32) {
        match (frame, self.hello) {
            (Frame::Hello(hello), None) => self.greet(hello, pid),
            (Frame::Stdin(data), Some(h)) if h.stdin && !self.input_done => input.push(&data),
            (Frame::StdinEof, Some(h)) if h.stdin => self.end_input(input),
            (Frame::Resize { rows, cols }, Some(_)) => {
                if let Some(terminal) = input.terminal() {
                    let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
                    let _ = rustix::termios::tcsetwinsize(terminal, size);
                }
            }
            (Frame::Signal(number), Some(_)) => {
                if let Some(signal) = dhow_types::Signal::from_number(number) {
                    let _ = dhow_sys::process::signal(pidfd, signal.number());
                }
            }
            _ => self.gone = true,
        }
    }

    fn end_input(&mut self, input: &mut Input) {
        if self.hello.is_some_and(|h| h.stdin) && !self.input_done {
            self.input_done = true;
            input.client_done();
        }
    }

    /// Sends what fits now.
    fn flush(&mut self) {
        while !self.outbound.is_empty() && !self.gone {
            match send(&self.stream, &self.outbound, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.outbound.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.gone = true;
                    self.outbound = Vec::new();
                }
            }
        }
        // Idle monitors shall be small.
        if self.outbound.capacity() > 4096 && self.outbound.is_empty() {
            self.outbound = Vec::new();
        }
    }

    fn flush_until_empty(&mut self) {
        let patience = Timespec { tv_sec: FAREWELL_SECONDS, tv_nsec: 0 };
        loop {
            self.flush();
            if self.outbound.is_empty() || self.gone {
                return;
            }
            let mut fds = [PollFd::new(&self.stream, PollFlags::OUT)];
            if !matches!(poll(&mut fds, Some(&patience)), Ok(1) | Err(Errno::INTR)) {
                self.gone = true;
            }
        }
    }
}
