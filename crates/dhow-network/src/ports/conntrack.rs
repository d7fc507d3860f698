//! Forgetting UDP flows that a change of published ports leaves on the wrong track.
//!
//! The kernel decides where a flow goes by its first packet and remembers. A client that keeps sending to a port, from
//! before it was published or from the time of another container, would never reach the new one. (TCP clients open a new
//! connection, which is a new decision.)

use crate::netlink::wire::{self, Message, attributes};
use crate::netlink::{Connection, Malformed, NetlinkError};
use crate::nft::Key;
use dhow_sys::netlink::Protocol;
use rustix::io::Errno;
use std::net::Ipv4Addr;

/// `NFNL_SUBSYS_CTNETLINK`
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const AF_INET: u8 = 2;
/// `struct nfgenmsg`
const FAMILY: [u8; 4] = [AF_INET, 0, 0, 0];
const UDP: u8 = 17;

/// A remembered flow, as far as needed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Destination that the client sent to.
    pub destination: Ipv4Addr,
    /// Port that the client sent to.
    pub port: u16,
    /// Who answers.
    pub answerer: Ipv4Addr,
    /// `CTA_TUPLE_ORIG`, `CTA_ID` and `CTA_ZONE` as they came, to name the flow in a request.
    name: Vec<(u16, Vec<u8>)>,
}

/// Forgets the UDP flows to a host port for which `stale` says so.
pub(super) fn forget(key: Key, stale: impl Fn(&Flow) -> bool) -> Result<(), NetlinkError> {
    let mut connection = Connection::open(Protocol::Netfilter)?;
    let flows = connection.dump(
        |batch| {
            batch.message(GET, wire::DUMP, &FAMILY, |m| {
                m.nest(CTA_TUPLE_ORIG, |m| {
                    m.nest(2, |m| {
                        m.put(1, &[UDP]); // CTA_PROTO_NUM
                        m.put(3, &key.port.to_be_bytes()); // CTA_PROTO_DST_PORT
                    });
                });
                // The kernel compares (Linux 5.8); a host may remember a million flows.
                m.nest(CTA_FILTER, |m| m.put_u32(1, 1 << 3 | 1 << 5)); // ORIG_FLAGS: PROTO_NUM, PROTO_DST_PORT
            });
        },
        read_flow,
    );
    let flows = match flows {
        Ok(flows) => flows,
        // No connection tracking loaded: nothing is remembered.
        Err(e) if e.is(Errno::OPNOTSUPP) || e.is(Errno::INVAL) => return Ok(()),
        Err(e) => return Err(e),
    };
    let matches = |flow: &Flow| flow.port == key.port && key.host.is_none_or(|h| h == flow.destination) && stale(flow);
    for flow in flows.iter().filter(|f| matches(f)) {
        let mut batch = connection.batch();
        batch.message(DELETE, 0, &FAMILY, |m| flow.name.iter().for_each(|(kind, value)| m.put(*kind, value)));
        match connection.transact(batch) {
            Err(e) if !e.is(Errno::NOENT) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Reads an `IPCTNL_MSG_CT_NEW`; `None` if it is no IPv4 UDP flow.
pub(crate) fn read_flow(message: &Message<'_>) -> Result<Option<Flow>, Malformed> {
    let [family, ..]: [u8; 4] = message.fixed()?;
    if message.kind != NEW || family != AF_INET {
        return Ok(None);
    }
    let mut name = Vec::new();
    let (mut original, mut reply) = (None, None);
    for attribute in message.attributes(FAMILY.len()) {
        let (kind, value) = attribute?;
        match kind {
            CTA_TUPLE_ORIG => original = read_tuple(value)?,
            CTA_TUPLE_REPLY => reply = read_tuple(value)?,
            CTA_ID | CTA_ZONE => {}
            _ => continue,
        }
        if kind != CTA_TUPLE_REPLY {
            // Attributes that are nests say so.
            let nested = if kind == CTA_TUPLE_ORIG { 1 << 15 } else { 0 };
            name.push((kind | nested, value.to_vec()));
        }
    }
    Ok(match (original, reply) {
        (Some(o), Some(r)) if o.protocol == UDP => {
            Some(Flow { destination: o.destination, port: o.port, answerer: r.source, name })
        }
        _ => None,
    })
}

struct Tuple {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    port: u16,
}

fn read_tuple(nest: &[u8]) -> Result<Option<Tuple>, Malformed> {
    let (mut source, mut destination, mut protocol, mut port) = (None, None, None, None);
    for attribute in attributes(nest) {
        let (part, value) = attribute?;
        for inner in attributes(value) {
            let (kind, value) = inner?;
            let address = || value.first_chunk::<4>().map(|b| Ipv4Addr::from(*b));
            match (part, kind) {
                (1, 1) => source = address(),      // CTA_IP_V4_SRC
                (1, 2) => destination = address(), // CTA_IP_V4_DST
                (2, 1) => protocol = value.first().copied(),
                (2, 3) => port = value.first_chunk::<2>().map(|b| u16::from_be_bytes(*b)),
                _ => {}
            }
        }
    }
    Ok(match (source, destination, protocol, port) {
        (Some(source), Some(destination), Some(protocol), Some(port)) => {
            Some(Tuple { source, destination, protocol, port })
        }
        _ => None,
    })
}
