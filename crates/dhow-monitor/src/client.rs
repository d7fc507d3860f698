//! The client's end of an attach connection.

use crate::{Frame, MonitorError};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection to a monitor.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` already handed out.
    used: usize,
    ended: bool,
}

impl Client {
    /// Takes over a connected socket, usually one end of a socketpair(2) whose other end the monitor inherited.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { stream: UnixStream::from(fd), buffer: Vec::new(), used: 0, ended: false }
    }

    /// Connects to the socket `name` in the directory `dir`. The path goes through the directory's descriptor, because
    /// a socket address holds 107 bytes only (unix(7)) and roots may be long.
    pub fn connect(dir: BorrowedFd<'_>, name: &str, shown: &Path) -> Result<Self, MonitorError> {
        let short = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        let stream =
            UnixStream::connect(short).map_err(|source| MonitorError::Connect { path: shown.to_owned(), source })?;
        Ok(Self::from_fd(stream.into()))
    }

    /// Sends a frame. An ended monitor is not an error here: its last frames may still be unread.
    pub fn send(&mut self, frame: &Frame) -> Result<(), MonitorError> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            // NOSIGNAL: a command that lets SIGPIPE kill it must not die of a monitor that has just ended.
            match send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(e) => return Err(MonitorError::Io { operation: "sending", source: e.into() }),
            }
        }
        Ok(())
    }

    /// Reads what is there into the buffer, once; blocks if nothing is. Call when poll(2) says readable.
    /// Returns `false` when the monitor has closed the connection.
    pub fn fill(&mut self) -> Result<bool, MonitorError> {
        if self.ended {
            return Ok(false);
        }
        self.buffer.drain(..self.used);
        self.used = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + 64 * 1024, 0);
        let read = loop {
            match self.stream.read(&mut self.buffer[before..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = match read {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(source) => {
                self.buffer.truncate(before);
                return Err(MonitorError::Io { operation: "receiving", source });
            }
        };
        self.buffer.truncate(before + count);
        self.ended = count == 0;
        Ok(!self.ended)
    }

    /// The next frame of the buffer, without reading.
    pub fn next_buffered(&mut self) -> Result<Option<Frame>, MonitorError> {
        match Frame::decode(&self.buffer[self.used..]).map_err(MonitorError::Protocol)? {
            Some((frame, used)) => {
                self.used += used;
                Ok(Some(frame))
            }
            None => Ok(None),
        }
    }

    /// The next frame, waiting for it; `None` when the monitor has closed the connection.
    pub fn recv(&mut self) -> Result<Option<Frame>, MonitorError> {
        loop {
            if let Some(frame) = self.next_buffered()? {
                return Ok(Some(frame));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
