//! Netlink: the wire format and synchronous conversations with the kernel.
//!
//! Written here because a container start needs some twenty message kinds, sent in batches from a single-threaded process:
//! the general crates bring an async runtime and one round trip per change.

pub mod wire;

use dhow_sys::netlink::{Protocol, Socket};
use std::io;
pub use wire::Malformed;
use wire::{Batch, DONE, DUMP_INTERRUPTED, ERROR, Message, messages};

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused a message; `text` are its own words.
    #[error("{}", refusal(.error, .text.as_deref()))]
    Refused {
        /// Error number.
        error: rustix::io::Errno,
        /// Extended acknowledgement.
        text: Option<String>,
    },
    /// The answer cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The table changed under each of several attempts to read it.
    #[error("the kernel's tables kept changing while they were read")]
    Unstable,
    /// More was answered than any sane host has.
    #[error("netlink answer of more than {0} bytes")]
    TooLong(usize),
}

fn refusal(error: &rustix::io::Errno, text: Option<&str>) -> String {
    let plain = io::Error::from(*error).to_string();
    // "File exists (os error 17)": the number helps nobody.
    let plain = plain.split(" (os error").next().unwrap_or(&plain).to_owned();
    match text {
        Some(text) => format!("{text} ({plain})"),
        None => plain,
    }
}

impl NetlinkError {
    /// Whether the kernel refused with this error.
    pub fn is(&self, errno: rustix::io::Errno) -> bool {
        matches!(self, Self::Refused { error, .. } if *error == errno)
    }
}

/// Largest dump that is read, in bytes. A host with 100,000 routes stays below.
const MAX_DUMP: usize = 64 << 20;
/// Dump datagrams are at most 32 KiB (`netlink_dump`).
const BUFFER: usize = 32 << 10;

/// A socket, its buffer and its message numbers.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Connection {
    /// Opens a conversation in the network namespace of the calling thread.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let socket = Socket::open(protocol).map_err(NetlinkError::Socket)?;
        Ok(Self { socket, buffer: Vec::new(), sequence: 1 })
    }

    /// Drops what is left of a conversation, and the buffer, so that the connection can be kept at little cost.
    pub fn rest(&mut self) {
        self.buffer.clear();
        self.buffer.reserve(BUFFER);
        while self.socket.receive(&mut self.buffer).is_ok() {}
        self.buffer = Vec::new();
    }

    /// A batch to be filled for this conversation.
    pub fn batch(&self) -> Batch {
        Batch::new(self.sequence)
    }

    /// The descriptor, for ioctls.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Sends a batch and waits until its last message is done. The first refusal is the error; what rtnetlink did before
    /// it stays done, nfnetlink batches are all or nothing.
    pub fn transact(&mut self, mut batch: Batch) -> Result<(), NetlinkError> {
        if batch.awaited().is_none() {
            batch.acknowledge_last();
        }
        let Some(last) = batch.awaited() else {
            return Ok(()); // nothing to do
        };
        self.send(&batch)?;
        let mut first_error = None;
        loop {
            match self.socket.receive(&mut self.buffer) {
                Ok(()) => {}
                // An aborted nfnetlink batch answers with its errors and nothing else.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(first_error.unwrap_or(NetlinkError::Malformed(Malformed("no acknowledgement"))));
                }
                Err(e) => return Err(first_error.unwrap_or(NetlinkError::Socket(e))),
            }
            let mut done = false;
            for message in messages(&self.buffer) {
                let message = message?;
                if message.kind != ERROR {
                    continue;
                }
                done |= message.sequence == last;
                if let Some(error) = refused(&message)? {
                    first_error.get_or_insert(error);
                }
            }
            if done {
                return first_error.map_or(Ok(()), Err);
            }
        }
    }

    /// Sends a request with one answer.
    pub fn get<T>(
        &mut self,
        batch: Batch,
        read: impl Fn(&Message<'_>) -> Result<T, Malformed>,
    ) -> Result<T, NetlinkError> {
        self.send(&batch)?;
        self.socket.receive(&mut self.buffer).map_err(NetlinkError::Socket)?;
        let message = messages(&self.buffer).next().ok_or(Malformed("empty answer"))??;
        if message.kind == ERROR {
            return Err(refused(&message)?.unwrap_or(NetlinkError::Malformed(Malformed("acknowledgement"))));
        }
        Ok(read(&message)?)
    }

    /// Reads a whole table; `read` picks what is wanted. A table that changes meanwhile is read again.
    pub fn dump<T>(
        &mut self,
        request: impl Fn(&mut Batch),
        read: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..8 {
            let mut batch = self.batch();
            request(&mut batch);
            self.send(&batch)?;
            if let Some(found) = self.collect(&read)? {
                return Ok(found);
            }
        }
        Err(NetlinkError::Unstable)
    }

    /// `None` if the dump was disturbed.
    fn collect<T>(
        &mut self,
        read: &impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let mut found = Vec::new();
        let mut total = 0;
        let mut steady = true;
        loop {
            self.socket.receive(&mut self.buffer).map_err(NetlinkError::Socket)?;
            total += self.buffer.len();
            if total > MAX_DUMP {
                return Err(NetlinkError::TooLong(MAX_DUMP));
            }
            for message in messages(&self.buffer) {
                let message = message?;
                steady &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    DONE => match refused(&message)? {
                        Some(e) if !e.is(rustix::io::Errno::INTR) => return Err(e),
                        ended => return Ok((steady && ended.is_none()).then_some(found)),
                    },
                    ERROR => match refused(&message)? {
                        // nf_tables ends a dump that overlaps a change with EINTR.
                        Some(e) if e.is(rustix::io::Errno::INTR) => return Ok(None),
                        Some(e) => return Err(e),
                        None => {}
                    },
                    _ => found.extend(read(&message)?),
                }
            }
        }
    }

    fn send(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        self.sequence = batch.next_sequence();
        // Capacity only: pages are touched as far as answers reach.
        self.buffer.clear();
        self.buffer.reserve(BUFFER);
        self.socket.send(batch.bytes()).map_err(NetlinkError::Socket)
    }
}

fn refused(message: &Message<'_>) -> Result<Option<NetlinkError>, Malformed> {
    // The end of a dump carries its outcome like an error does; old kernels leave it out.
    if message.kind == DONE && message.payload.is_empty() {
        return Ok(None);
    }
    let (code, text) = message.outcome()?;
    if code == 0 {
        return Ok(None);
    }
    Ok(Some(NetlinkError::Refused { error: rustix::io::Errno::from_raw_os_error(code), text }))
}
