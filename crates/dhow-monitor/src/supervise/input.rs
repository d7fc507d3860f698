//! The way into the container: a pipe or a terminal that never blocks the monitor.

use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes that may wait for the container to read. A client is not read from while more are waiting.
const LIMIT: usize = 64 * 1024;

/// Standard input of the container.
pub(super) struct Input {
    fd: Option<OwnedFd>,
    terminal: bool,
    waiting: Vec<u8>,
    /// Close when everything waiting is written.
    closing: bool,
    close_with_client: bool,
}

impl Input {
    /// `pipe` or `terminal`, whichever the container has.
    pub(super) fn new(pipe: Option<OwnedFd>, terminal: Option<OwnedFd>, close_with_client: bool) -> Self {
        let is_terminal = terminal.is_some();
        let fd = pipe.or(terminal);
        if let Some(fd) = &fd {
            super::set_nonblocking(fd.as_fd());
        }
        Self { fd, terminal: is_terminal, waiting: Vec::new(), closing: false, close_with_client }
    }

    /// The terminal, for its size.
    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| self.terminal).map(AsFd::as_fd)
    }

    /// Whether more bytes are welcome.
    pub(super) fn can_take(&self) -> bool {
        self.waiting.len() < LIMIT
    }

    /// The descriptor to wait on when bytes are waiting.
    pub(super) fn wants_write(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| !self.waiting.is_empty()).map(AsFd::as_fd)
    }

    /// Takes bytes and writes what fits now.
    pub(super) fn push(&mut self, data: &[u8]) {
        if self.fd.is_some() && !self.closing {
            self.waiting.extend_from_slice(data);
            self.flush();
        }
    }

    /// A client with input is done: with `stdin_once` the container's input ends too. A terminal has no end of input.
    pub(super) fn client_done(&mut self) {
        if self.close_with_client && !self.terminal {
            self.closing = true;
            self.flush();
        }
    }

    /// Writes what fits now.
    pub(super) fn flush(&mut self) {
        while let (Some(fd), false) = (&self.fd, self.waiting.is_empty()) {
            match rustix::io::write(fd, &self.waiting) {
                Ok(count) => {
                    self.waiting.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads any more.
                Err(_) => {
                    self.waiting.clear();
                    self.fd = None;
                }
            }
        }
        if self.closing && self.waiting.is_empty() {
            self.fd = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_full_pipe_never_blocks_and_nothing_is_lost() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut input = Input::new(Some(write), None, true);
        let data: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        input.push(&data);
        assert!(!input.can_take() && input.wants_write().is_some());
        input.client_done();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            std::fs::File::from(read).read_to_end(&mut all).map(|_| all)
        });
        while input.fd.is_some() {
            input.flush();
        }
        assert_eq!(reader.join().unwrap().unwrap(), data);
    }

    #[test]
    fn input_stays_open_without_stdin_once() {
        let (_read, write) = rustix::pipe::pipe().unwrap();
        let mut input = Input::new(Some(write), None, false);
        input.client_done();
        assert!(input.fd.is_some());
    }
}
