//! Netlink sockets (netlink(7)) set up for synchronous conversations with the kernel.
//!
//! A request is handled inside `send`: when it returns, every answer that is not part of a dump waits in the socket, and
//! each further part of a dump is made by the `recv` that asks for it. So receiving never has to block, and a missing
//! answer is an error at once instead of a hang.
//!
//! What the bytes mean is the caller's business.

use rustix::buffer::spare_capacity;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `NETLINK_ROUTE`: links, addresses, routes, neighbours (rtnetlink(7)).
    Route,
    /// `NETLINK_NETFILTER`: nftables, connection tracking.
    Netfilter,
}

/// A socket connected to the kernel: nobody else can put messages into it.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// Extended acknowledgements are on (errors carry the kernel's own words, and do not repeat the request). For
    /// [`Protocol::Route`], dump requests are checked strictly, so that a filter the kernel does not know is an error
    /// and not a dump of everything (Linux 4.20).
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let wire = match protocol {
            Protocol::Route => None, // NETLINK_ROUTE is 0
            Protocol::Netfilter => Some(NETFILTER),
        };
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, wire)?;
        // Connecting to port 0 makes the kernel refuse unicast messages from other processes (netlink_getsockbyportid).
        rustix::net::connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        enable(fd.as_fd(), libc::NETLINK_EXT_ACK)?;
        enable(fd.as_fd(), libc::NETLINK_CAP_ACK)?;
        if protocol == Protocol::Route {
            enable(fd.as_fd(), libc::NETLINK_GET_STRICT_CHK)?;
        }
        Ok(Self(fd))
    }

    /// Sends one datagram, which may hold several messages.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match rustix::net::send(&self.0, bytes, SendFlags::empty()) {
                Ok(n) if n == bytes.len() => return Ok(()),
                Ok(_) => return Err(io::Error::new(io::ErrorKind::WriteZero, "netlink message sent in part")),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Receives one datagram into `buffer`, replacing its content, up to its capacity. Never waits: `WouldBlock` means
    /// that the kernel has said all it will say. A datagram that does not fit is an error.
    pub fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        loop {
            buffer.clear();
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            match rustix::net::recv(&self.0, spare_capacity(buffer), flags) {
                Ok((stored, length)) if length > stored => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "netlink answer larger than the buffer"));
                }
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn enable(fd: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as `fd` is borrowed, and the kernel reads `length` bytes from `on`,
    // which is exactly that long.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), length) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_no_hang() {
        let socket = Socket::open(Protocol::Route).unwrap();
        let mut buffer = Vec::with_capacity(64);
        assert_eq!(socket.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_truncated_answer_is_an_error() {
        let socket = Socket::open(Protocol::Route).unwrap();
        // RTM_GETLINK of index 1, `lo`, in native byte order.
        let mut request = Vec::new();
        request.extend(32_u32.to_ne_bytes());
        request.extend(18_u16.to_ne_bytes());
        request.extend(1_u16.to_ne_bytes());
        request.extend([0; 8]);
        request.extend([0; 4]);
        request.extend(1_u32.to_ne_bytes());
        request.extend([0; 8]);
        socket.send(&request).unwrap();
        let mut buffer = Vec::with_capacity(64);
        assert_eq!(socket.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::InvalidData);
        socket.send(&request).unwrap();
        let mut buffer = Vec::with_capacity(32 << 10);
        socket.receive(&mut buffer).unwrap();
        assert!(buffer.windows(3).any(|w| w == b"lo\0"));
    }
}
