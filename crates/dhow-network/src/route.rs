//! rtnetlink(7): the links, addresses and routes that this crate reads and makes.
//!
//! Knows messages, not policy. No veth is ever deleted: an explicit delete waits 13 to 37 ms for the kernel, while one that
//! dies with its network namespace costs nobody anything.

use crate::net::Ipv4Net;
use crate::netlink::wire::{self, Batch, Message, attributes, text_of, u32_of};
use crate::netlink::{Connection, Malformed, NetlinkError};
use rustix::io::Errno;
use std::net::Ipv4Addr;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_STP_STATE: u16 = 5;
/// Hairpin mode.
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
/// `RTEXT_FILTER_SKIP_STATS`: halves the answer.
const SKIP_STATS: u32 = 1 << 3;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTN_UNICAST: u8 = 1;
const RTN_MULTICAST: u8 = 5;
const RTN_BROADCAST: u8 = 3;
const RT_TABLE_MAIN: u8 = 254;
/// `RTPROT_BOOT`: set up by a program, not by a routing daemon.
const RTPROT_BOOT: u8 = 3;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;

/// What is known of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Administratively up.
    pub up: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Kind, `bridge`; hardware has none.
    pub kind: Option<String>,
    /// Packets flow, as far as the kernel has noticed (RFC 2863, `ifOperStatus`).
    pub operational: bool,
    /// The other end, if it is in another network namespace: that one's number, and the index there.
    pub peer: Option<(u32, u32)>,
    /// Index of the bridge that the link is a port of.
    pub master: Option<u32>,
}

/// A route or a host address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub net: Ipv4Net,
    /// Index of the link out; blackholes have none.
    pub link: Option<u32>,
}

/// The pair that connects a container.
pub struct VethPair<'a> {
    /// Name of the host's end.
    pub name: &'a str,
    /// Index of the bridge it becomes a port of; 0 is none.
    pub bridge: u32,
    /// MTU of both ends.
    pub mtu: u32,
    /// Process in whose network namespace the other end appears.
    pub peer_pid: u32,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// MAC address of the other end.
    pub peer_mac: [u8; 6],
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Looks a link up.
pub fn link_by_name(connection: &mut Connection, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut batch = connection.batch();
    batch.message(RTM_GETLINK, 0, &ifinfo(0, 0, 0), |m| {
        m.put_text(IFLA_IFNAME, name);
        m.put_u32(IFLA_EXT_MASK, SKIP_STATS);
    });
    match connection.get(batch, read_link) {
        Ok(link) => Ok(Some(link)),
        Err(e) if e.is(Errno::NODEV) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Looks a link up by its index; `None` if it is gone.
pub fn link_by_index(connection: &mut Connection, index: u32) -> Result<Option<Link>, NetlinkError> {
    let mut batch = connection.batch();
    batch.message(RTM_GETLINK, 0, &ifinfo(index, 0, 0), |m| m.put_u32(IFLA_EXT_MASK, SKIP_STATS));
    match connection.get(batch, read_link) {
        Ok(link) => Ok(Some(link)),
        Err(e) if e.is(Errno::NODEV) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads an `RTM_NEWLINK`.
pub fn read_link(message: &Message<'_>) -> Result<Link, Malformed> {
    if message.kind != RTM_NEWLINK {
        return Err(Malformed("not a link"));
    }
    let header: [u8; 16] = message.fixed()?;
    let mut link = Link {
        index: u32_of(header.get(4..).unwrap_or_default())?,
        up: u32_of(header.get(8..).unwrap_or_default())? & IFF_UP != 0,
        mtu: 0,
        kind: None,
        operational: false,
        peer: None,
        master: None,
    };
    let (mut other, mut namespace) = (None, None);
    for attribute in message.attributes(header.len()) {
        match attribute? {
            (IFLA_MTU, value) => link.mtu = u32_of(value)?,
            // IF_OPER_UP, or IF_OPER_UNKNOWN for links that do not say
            (IFLA_OPERSTATE, value) => link.operational = matches!(value.first(), Some(6 | 0)),
            (IFLA_MASTER, value) => link.master = Some(u32_of(value)?),
            (IFLA_LINK, value) => other = Some(u32_of(value)?),
            (IFLA_LINK_NETNSID, value) => namespace = Some(u32_of(value)?),
            (IFLA_LINKINFO, nest) => {
                for inner in attributes(nest) {
                    if let (IFLA_INFO_KIND, value) = inner? {
                        link.kind = Some(text_of(value));
                    }
                }
            }
            _ => {}
        }
    }
    link.peer = namespace.zip(other);
    Ok(link)
}

/// Looks up a link in another network namespace, by that one's number and the link's index there.
pub fn link_in(connection: &mut Connection, namespace: u32, index: u32) -> Result<Link, NetlinkError> {
    let mut batch = connection.batch();
    batch.message(RTM_GETLINK, 0, &ifinfo(index, 0, 0), |m| {
        m.put_u32(IFLA_TARGET_NETNSID, namespace);
        m.put_u32(IFLA_EXT_MASK, SKIP_STATS);
    });
    connection.get(batch, read_link)
}

/// Creates a bridge that is up, with spanning tree off (ports forward at once).
pub fn create_bridge(connection: &mut Connection, name: &str, mac: [u8; 6], mtu: u32) -> Result<(), NetlinkError> {
    let mut batch = connection.batch();
    batch.message(RTM_NEWLINK, wire::CREATE | wire::EXCLUSIVE, &ifinfo(0, IFF_UP, IFF_UP), |m| {
        m.put_text(IFLA_IFNAME, name);
        // Set by hand, the address stays: left alone, a bridge takes the lowest of its ports', which come and go.
        m.put(IFLA_ADDRESS, &mac);
        m.put_u32(IFLA_MTU, mtu);
        m.nest(IFLA_LINKINFO, |m| {
            m.put(IFLA_INFO_KIND, b"bridge");
            m.nest(IFLA_INFO_DATA, |m| m.put_u32(IFLA_BR_STP_STATE, 0));
        });
    });
    connection.transact(batch)
}

/// Deletes a link. Waits for the kernel, some 10 ms.
pub fn delete_link(connection: &mut Connection, index: u32) -> Result<(), NetlinkError> {
    let mut batch = connection.batch();
    batch.message(RTM_DELLINK, 0, &ifinfo(index, 0, 0), |_| {});
    connection.transact(batch)
}

/// Makes a veth pair: one end a port of the bridge and up, the other in a process's network namespace. One message makes
/// both, so that there is no moment with half of it.
pub fn create_veth(connection: &mut Connection, pair: &VethPair<'_>) -> Result<(), NetlinkError> {
    let mut batch = connection.batch();
    batch.message(RTM_NEWLINK, wire::CREATE | wire::EXCLUSIVE, &ifinfo(0, IFF_UP, IFF_UP), |m| {
        m.put_text(IFLA_IFNAME, pair.name);
        m.put_u32(IFLA_MTU, pair.mtu);
        m.put_u32(IFLA_MASTER, pair.bridge);
        m.nest(IFLA_LINKINFO, |m| {
            m.put(IFLA_INFO_KIND, b"veth");
            m.nest(IFLA_INFO_DATA, |m| {
                m.nest_after(VETH_INFO_PEER, &ifinfo(0, 0, 0), |m| {
                    m.put_text(IFLA_IFNAME, pair.peer_name);
                    m.put(IFLA_ADDRESS, &pair.peer_mac);
                    m.put_u32(IFLA_MTU, pair.mtu);
                    m.put_u32(IFLA_NET_NS_PID, pair.peer_pid);
                });
            });
        });
    });
    if pair.bridge != 0 {
        push_hairpin(&mut batch, pair.name);
    }
    connection.transact(batch)
}

/// Adds "let the bridge send frames back through the port they came from". Where br_netfilter is on, as Docker and
/// Kubernetes set it, destinations are rewritten before the bridge decides, and a container that asks for its own
/// published port would be told nothing without this.
pub fn push_hairpin(batch: &mut Batch, name: &str) {
    batch.message(RTM_NEWLINK, 0, &ifinfo(0, 0, 0), |m| {
        m.put_text(IFLA_IFNAME, name);
        m.nest(IFLA_LINKINFO, |m| {
            m.put(IFLA_INFO_SLAVE_KIND, b"bridge");
            m.nest(IFLA_INFO_SLAVE_DATA, |m| m.put(IFLA_BRPORT_MODE, &[1]));
        });
    });
}

/// Adds "bring the link up".
pub fn push_up(batch: &mut Batch, index: u32) {
    batch.message(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP, IFF_UP), |_| {});
}

/// Adds "make the link a port of the bridge, and bring it up".
pub fn push_master(batch: &mut Batch, index: u32, bridge: u32) {
    batch.message(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP, IFF_UP), |m| m.put_u32(IFLA_MASTER, bridge));
}

/// Adds "give the link this address", which it may have already.
pub fn push_address(batch: &mut Batch, index: u32, address: Ipv4Addr, net: Ipv4Net) {
    let mut header = [0; 8];
    header[0] = AF_INET;
    header[1] = net.prefix_len();
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.message(RTM_NEWADDR, wire::CREATE | wire::REPLACE, &header, |m| {
        m.put(IFA_LOCAL, &address.octets());
        m.put(IFA_ADDRESS, &address.octets());
        if net.prefix_len() < 31 {
            m.put(IFA_BROADCAST, &net.last().octets());
        }
    });
}

/// Adds a default route.
pub fn push_default_route(batch: &mut Batch, gateway: Ipv4Addr, link: u32) {
    let header = [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
    batch.message(RTM_NEWROUTE, wire::CREATE | wire::REPLACE, &header, |m| {
        m.put(RTA_GATEWAY, &gateway.octets());
        m.put_u32(RTA_OIF, link);
    });
}

/// The IPv4 addresses of a link.
pub fn addresses(connection: &mut Connection, index: u32) -> Result<Vec<(Ipv4Addr, u8)>, NetlinkError> {
    let mut header = [0; 8];
    header[0] = AF_INET;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    connection.dump(|batch| batch.message(RTM_GETADDR, wire::DUMP, &header, |_| {}), read_address)
}

/// Every IPv4 address of the host.
pub fn all_addresses(connection: &mut Connection) -> Result<Vec<Ipv4Addr>, NetlinkError> {
    Ok(addresses(connection, 0)?.into_iter().map(|(address, _)| address).collect())
}

/// Reads an `RTM_NEWADDR`.
pub fn read_address(message: &Message<'_>) -> Result<Option<(Ipv4Addr, u8)>, Malformed> {
    let [family, prefix_len, ..]: [u8; 8] = message.fixed()?;
    if message.kind != RTM_NEWADDR || family != AF_INET {
        return Ok(None);
    }
    for attribute in message.attributes(8) {
        if let (IFA_LOCAL, value) = attribute? {
            return Ok(Some((ipv4_of(value)?, prefix_len)));
        }
    }
    Ok(None)
}

/// All IPv4 routes of all tables, host addresses among them; multicast and broadcast left out.
pub fn routes(connection: &mut Connection) -> Result<Vec<Route>, NetlinkError> {
    let mut header = [0; 12];
    header[0] = AF_INET;
    connection.dump(|batch| batch.message(RTM_GETROUTE, wire::DUMP, &header, |_| {}), read_route)
}

/// Reads an `RTM_NEWROUTE`.
pub fn read_route(message: &Message<'_>) -> Result<Option<Route>, Malformed> {
    let [family, prefix_len, _, _, _, _, _, kind, ..]: [u8; 12] = message.fixed()?;
    if message.kind != RTM_NEWROUTE || family != AF_INET || matches!(kind, RTN_MULTICAST | RTN_BROADCAST) {
        return Ok(None);
    }
    let mut address = Ipv4Addr::UNSPECIFIED;
    let mut link = None;
    for attribute in message.attributes(12) {
        match attribute? {
            (RTA_DST, value) => address = ipv4_of(value)?,
            (RTA_OIF, value) => link = Some(u32_of(value)?),
            _ => {}
        }
    }
    let net = Ipv4Net::containing(address, prefix_len).ok_or(Malformed("prefix length"))?;
    Ok(Some(Route { net, link }))
}

fn ipv4_of(value: &[u8]) -> Result<Ipv4Addr, Malformed> {
    value.first_chunk::<4>().map(|b| Ipv4Addr::from(*b)).ok_or(Malformed("short address"))
}

/// The index of a link, by ioctl: a tenth of the cost of asking by message.
pub fn index_of(connection: &Connection, name: &str) -> Option<u32> {
    rustix::net::netdevice::name_to_index(connection.socket(), name).ok()
}
