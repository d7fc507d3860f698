//! Reserving host ports.

use super::{RecordedPort, ReservedPort, holder, key};
use crate::bridge::Bridge;
use crate::claims::PortClaim;
use crate::error::{Context, NetworkError};
use crate::nft::{self, Element, Key};
use dhow_types::{ContainerId, PortBinding, PortProtocol};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, sockopt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};

/// Sockets that hold one host port.
struct Sockets {
    v4: OwnedFd,
    v6: Option<OwnedFd>,
    port: u16,
    /// The kernel vouches that nobody else has the port.
    proof: bool,
}

impl Bridge {
    /// Reserves host ports for a container: a bound socket and a claim for each. All or none.
    ///
    /// A range takes its first free port, no port takes one from `net.ipv4.ip_local_port_range`. The caller keeps the
    /// sockets open for as long as the container lives.
    pub fn reserve_ports(
        &self,
        owner: &ContainerId,
        bindings: &[PortBinding],
    ) -> Result<Vec<ReservedPort>, NetworkError> {
        let mut reserved = Vec::with_capacity(bindings.len());
        for binding in bindings {
            match self.reserve(owner, binding) {
                Ok(port) => reserved.push(port),
                Err(error) => {
                    let back: Vec<_> =
                        reserved.iter().map(|p: &ReservedPort| (p.host_ip, p.host_port, p.container)).collect();
                    // The first error is the one to tell; a claim that stays is taken over by the next asker.
                    let _ = self.release_ports(owner, &back);
                    return Err(error);
                }
            }
        }
        Ok(reserved)
    }

    /// Removes the claims of ports that are reserved but not published. Claims of others are left alone.
    pub fn release_ports(&self, owner: &ContainerId, ports: &[RecordedPort]) -> Result<(), NetworkError> {
        let _lock = self.claims.lock()?;
        for key in ports.iter().filter_map(|(ip, port, spec)| key(*ip, *port, spec.protocol)) {
            if self.claims.port(key)?.is_some_and(|claim| claim.owner == *owner) {
                self.claims.remove_port(key)?;
            }
        }
        Ok(())
    }

    fn reserve(&self, owner: &ContainerId, binding: &PortBinding) -> Result<ReservedPort, NetworkError> {
        let PortBinding { host_ip, host_ports, container } = binding;
        let protocol = container.protocol;
        if let Some(host_ip) = host_ip.filter(IpAddr::is_ipv6) {
            return Err(NetworkError::Ipv6 { host_ip });
        }
        let (first, last) = host_ports.unwrap_or((0, 0));
        if first > last || (first == 0 && last != 0) {
            return Err(NetworkError::BadRange { first, last });
        }
        for port in first..=last {
            let wanted = key(*host_ip, port, protocol).ok_or(NetworkError::BadRange { first, last })?;
            let result = bind(wanted, host_ip.is_none()).and_then(|sockets| {
                let key = Key { port: sockets.port, ..wanted };
                if self.claim(key, owner, sockets.proof)? { Ok(sockets) } else { Err(Failure::InUse) }
            });
            match result {
                Ok(Sockets { v4, v6, port, .. }) => {
                    return Ok(ReservedPort {
                        owner: owner.clone(),
                        host_ip: *host_ip,
                        host_port: port,
                        container: *container,
                        socket: v4,
                        socket6: v6,
                    });
                }
                Err(Failure::InUse) if port < last => {}
                Err(Failure::InUse) if first < last => {
                    return Err(NetworkError::RangeInUse { host_ip: *host_ip, first, last, protocol });
                }
                Err(Failure::InUse) => return Err(self.in_use(*host_ip, wanted)?),
                Err(Failure::Errno(Errno::ADDRNOTAVAIL)) if host_ip.is_some() => {
                    return Err(NetworkError::NotLocal {
                        host_ip: host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                    });
                }
                Err(Failure::Errno(e)) => {
                    return Err(NetworkError::Reserve { host_ip: *host_ip, port, protocol, source: e.into() });
                }
                Err(Failure::Other(e)) => return Err(e),
            }
        }
        Err(NetworkError::BadRange { first, last })
    }

    /// Claims a port whose socket we have; `false` if another container has it.
    fn claim(&self, key: Key, owner: &ContainerId, proof: bool) -> Result<bool, Failure> {
        if self.claims.claim_port(key, owner)? {
            return Ok(true);
        }
        let lock = self.claims.lock()?;
        let stale = self.claims.port(key)?;
        // Every live holder keeps its socket, and we could not have bound ours beside it: this claim's owner is dead.
        // Where the kernel gives no such proof, the claim counts.
        if !proof && stale.as_ref().is_some_and(|claim| claim.owner != *owner) {
            return Ok(false);
        }
        if let Some(target) = stale.and_then(|claim| claim.target) {
            self.with_netfilter(|netfilter| {
                let table = self.table();
                let found = nft::target_of(netfilter, table, key).during("read nftables table", table)?;
                let dead: Vec<Element> = found.map(|_| Element { key, target }).into_iter().collect();
                nft::change(netfilter, table, &dead, &[]).during("change nftables table", table)
            })?;
        }
        self.claims.set_port(key, &PortClaim { owner: owner.clone(), target: None })?;
        drop(lock);
        Ok(true)
    }

    /// The error for a port that is taken, with whoever has it.
    fn in_use(&self, host_ip: Option<IpAddr>, key: Key) -> Result<NetworkError, NetworkError> {
        let overlaps = |other: Key| {
            other.port == key.port
                && other.protocol == key.protocol
                && (other.host.is_none() || key.host.is_none() || other.host == key.host)
        };
        let holder = self.claims.ports()?.into_iter().find(|(k, _)| overlaps(*k)).map(|(_, claim)| claim.owner);
        let process = if holder.is_none() { holder::find(key) } else { None };
        Ok(NetworkError::PortInUse { host_ip, port: key.port, protocol: key.protocol, holder, process })
    }
}

/// Why one port could not be had.
enum Failure {
    InUse,
    Errno(Errno),
    Other(NetworkError),
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        Self::Other(error)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        if errno == Errno::ADDRINUSE { Self::InUse } else { Self::Errno(errno) }
    }
}

/// Binds a port; port 0 finds a free one. `v6`: on `[::]` too, where the host has IPv6.
fn bind(key: Key, v6: bool) -> Result<Sockets, Failure> {
    /// A port that is free for IPv4 and taken for IPv6 is tried again so often.
    const TRIES: u32 = 16;
    let address = key.host.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let mut tries = TRIES;
    loop {
        let v4 = match bind_one(key.protocol, &Address::V4(SocketAddrV4::new(address, key.port))) {
            Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if key.protocol == PortProtocol::Sctp => {
                return placeholder(key);
            }
            other => other?,
        };
        let port = port_of(&v4)?;
        if !v6 {
            return Ok(Sockets { v4, v6: None, port, proof: true });
        }
        tries -= 1;
        match bind_one(key.protocol, &Address::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))) {
            Ok(socket) => return Ok(Sockets { v4, v6: Some(socket), port, proof: true }),
            // No IPv6 in this kernel or namespace.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => return Ok(Sockets { v4, v6: None, port, proof: true }),
            Err(Errno::ADDRINUSE) if key.port == 0 && tries > 0 => {}
            Err(e) => return Err(e.into()),
        }
    }
}

enum Address {
    V4(SocketAddrV4),
    V6(SocketAddrV6),
}

fn socket(protocol: PortProtocol, family: AddressFamily) -> Result<OwnedFd, Errno> {
    let (kind, number): (_, Option<Protocol>) = match protocol {
        PortProtocol::Tcp => (SocketType::STREAM, None),
        PortProtocol::Udp => (SocketType::DGRAM, None),
        PortProtocol::Sctp => (SocketType::STREAM, Some(ipproto::SCTP)),
    };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, number)
}

/// Binds one socket so that every later bind of the port fails, and earlier connections of it do not matter.
fn bind_one(protocol: PortProtocol, address: &Address) -> Result<OwnedFd, Errno> {
    let family = if matches!(address, Address::V4(_)) { AddressFamily::INET } else { AddressFamily::INET6 };
    let prepare = || {
        let socket = socket(protocol, family)?;
        if family == AddressFamily::INET6 {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if protocol == PortProtocol::Udp {
            // Nobody reads what arrives here when there are no rules; keep as little of it as the kernel allows.
            sockopt::set_socket_recv_buffer_size(&socket, 0)?;
        }
        Ok::<_, Errno>(socket)
    };
    let bind = |socket: &OwnedFd| match address {
        Address::V4(a) => rustix::net::bind(socket, a),
        Address::V6(a) => rustix::net::bind(socket, a),
    };
    let plain = prepare()?;
    match bind(&plain) {
        Err(Errno::ADDRINUSE) if protocol == PortProtocol::Tcp => {}
        other => return other.map(|()| plain),
    }
    // A connection in TIME_WAIT refuses a plain bind for a minute after a server on this port has ended. With
    // SO_REUSEADDR it does not; but then others with SO_REUSEADDR could bind beside us, since we do not listen. So
    // listen for a moment, which only works if nobody else does, and turn the option off again: what stays is a bound
    // socket that excludes everybody (inet_csk_get_port).
    let socket = prepare()?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket)?;
    rustix::net::listen(&socket, 0)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    match rustix::net::shutdown(&socket, rustix::net::Shutdown::Both) {
        Ok(()) | Err(Errno::NOTCONN) => Ok(socket),
        Err(e) => Err(e),
    }
}

fn port_of(socket: &OwnedFd) -> Result<u16, Errno> {
    let address = rustix::net::getsockname(socket.as_fd())?;
    SocketAddrV4::try_from(address).map(|a| a.port())
}

/// For protocols whose sockets the kernel lacks: nobody on this host can take the port, so the claim alone decides.
fn placeholder(key: Key) -> Result<Sockets, Failure> {
    let socket = socket(PortProtocol::Udp, AddressFamily::INET)?;
    // An ephemeral number: any that the kernel finds free for UDP.
    let port = if key.port == 0 {
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        port_of(&socket)?
    } else {
        key.port
    };
    Ok(Sockets { v4: socket, v6: None, port, proof: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn tcp(port: u16) -> Key {
        Key { host: Some(Ipv4Addr::LOCALHOST), protocol: PortProtocol::Tcp, port }
    }

    fn held(result: Result<Sockets, Failure>) -> Sockets {
        match result {
            Ok(sockets) => sockets,
            Err(Failure::InUse) => panic!("in use"),
            Err(Failure::Errno(e)) => panic!("{e}"),
            Err(Failure::Other(e)) => panic!("{e}"),
        }
    }

    #[test]
    fn a_reservation_excludes_servers_and_refuses_connections() {
        let sockets = held(bind(tcp(0), false));
        let address = (Ipv4Addr::LOCALHOST, sockets.port);
        // std sets SO_REUSEADDR, as nearly every server does.
        assert_eq!(TcpListener::bind(address).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        assert!(matches!(bind(tcp(sockets.port), false), Err(Failure::InUse)));
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        drop(sockets);
        TcpListener::bind(address).unwrap();
    }

    #[test]
    fn old_connections_do_not_matter() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        // The server closes first, so the server's end stays in TIME_WAIT.
        let server = listener.accept().unwrap().0;
        drop((server, listener));
        drop(client);
        let sockets = held(bind(tcp(address.port()), false));
        assert_eq!(sockets.port, address.port());
        assert_eq!(TcpListener::bind(address).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        assert!(matches!(bind(tcp(address.port()), false), Err(Failure::InUse)));
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_listening_server_is_not_displaced() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(matches!(bind(tcp(port), false), Err(Failure::InUse)));
        assert!(matches!(bind(Key { host: None, ..tcp(port) }, true), Err(Failure::InUse)));
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }

    #[test]
    fn every_address_is_both_families() {
        let sockets = held(bind(Key { host: None, ..tcp(0) }, true));
        if sockets.v6.is_some() {
            assert!(TcpListener::bind((Ipv6Addr::LOCALHOST, sockets.port)).is_err());
        }
        let udp = held(bind(Key { host: None, protocol: PortProtocol::Udp, port: 0 }, true));
        assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, udp.port)).is_err());
    }

    #[test]
    fn sctp_without_the_kernel_has_no_proof() {
        let sockets = held(bind(Key { host: None, protocol: PortProtocol::Sctp, port: 0 }, true));
        assert_ne!(sockets.port, 0);
    }
}
