//! Published ports: reserved by a socket, recorded by a claim, served by an element of a kernel map.
//!
//! The three answer different questions. The socket keeps every other process of the host off the port, and proves after
//! a crash that its holder is dead. The claim tells people which container has it. The map element carries the traffic:
//! no process does.

mod conntrack;
mod holder;
mod publish;
mod reserve;

pub(crate) use conntrack::read_flow;

use crate::nft::Key;
use dhow_types::{ContainerId, PortProtocol, PortSpec};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

/// A host port held for a container. The holder keeps it until the container ends; [`crate::Bridge::unpublish`] or
/// [`crate::Bridge::release_ports`] then removes the claim.
#[derive(Debug)]
pub struct ReservedPort {
    /// The container.
    pub owner: ContainerId,
    /// Host address; `None` is every address.
    pub host_ip: Option<IpAddr>,
    /// Host port.
    pub host_port: u16,
    /// Container port.
    pub container: PortSpec,
    /// The socket that holds the port. It is bound and does not listen, so that without the rules a connection is refused
    /// instead of left hanging. Where the kernel lacks SCTP it is a placeholder.
    pub socket: OwnedFd,
    /// The same for `[::]`, when every address was asked for and the host has IPv6.
    pub socket6: Option<OwnedFd>,
}

/// A published port as a container's record has it: host address (`None` is every address), host port, container port.
pub type RecordedPort = (Option<IpAddr>, u16, PortSpec);

/// The key of a host address and port; `None` for IPv6 addresses.
fn key(host_ip: Option<IpAddr>, port: u16, protocol: PortProtocol) -> Option<Key> {
    let host = match host_ip {
        None => None,
        Some(IpAddr::V4(ip)) => Some(ip).filter(|ip| *ip != Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V6(_)) => return None,
    };
    Some(Key { host, protocol, port })
}
