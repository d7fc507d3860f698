//! The nftables table of a bridge, by nfnetlink.
//!
//! One table of our own, made and changed by atomic batches. Nothing here looks into another table, except
//! [`forward_blockers`], which only reads. `nft` the program is not needed, and would cost 6 to 18 ms a call.

mod blockers;
mod expr;
mod rules;

use crate::netlink::wire::{self, Attributes, Batch, Message, attributes, text_of};
use crate::netlink::{Connection, Malformed, NetlinkError};
pub use blockers::forward_blockers;
use dhow_sys::netlink::Protocol;
use dhow_types::PortProtocol;
use expr::DATA_VALUE;
pub(crate) use rules::Parameters;
use rules::{ANY, BOUND, CHAINS, comments, rules};
use rustix::io::Errno;
use std::net::{Ipv4Addr, SocketAddrV4};

/// `NFNL_SUBSYS_NFTABLES`
const SUBSYSTEM: u16 = 10;
const fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}
const NEW_TABLE: u16 = kind(0);
const DELETE_TABLE: u16 = kind(2);
const NEW_CHAIN: u16 = kind(3);
const NEW_RULE: u16 = kind(6);
const GET_RULE: u16 = kind(7);
const NEW_SET: u16 = kind(9);
const NEW_ELEMENT: u16 = kind(12);
const GET_ELEMENT: u16 = kind(13);
const DELETE_ELEMENT: u16 = kind(14);
/// `NFNL_MSG_BATCH_BEGIN`
const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`
const BATCH_END: u16 = 0x11;

/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
const INET: u8 = 1;
/// `struct nfgenmsg`: family, version 0, no resource.
const FAMILY: [u8; 4] = [INET, 0, 0, 0];

/// Elements in one message; its list attribute must stay below 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 512;

/// A published port as the kernel's maps know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Host address; `None` is every address.
    pub host: Option<Ipv4Addr>,
    /// Protocol.
    pub protocol: PortProtocol,
    /// Host port.
    pub port: u16,
}

/// A map element: where a published port leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Element {
    /// The published port.
    pub key: Key,
    /// Container address and port.
    pub target: SocketAddrV4,
}

const fn protocol_number(protocol: PortProtocol) -> u8 {
    match protocol {
        PortProtocol::Tcp => 6,
        PortProtocol::Udp => 17,
        PortProtocol::Sctp => 132,
    }
}

impl Key {
    fn map(self) -> &'static str {
        if self.host.is_some() { BOUND } else { ANY }
    }

    /// Each part of a concatenation is padded to four bytes.
    fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12);
        if let Some(host) = self.host {
            bytes.extend(host.octets());
        }
        bytes.extend([protocol_number(self.protocol), 0, 0, 0]);
        bytes.extend(self.port.to_be_bytes());
        bytes.extend([0, 0]);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (host, rest) = match bytes.len() {
            12 => (Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?)), bytes.get(4..)?),
            8 => (None, bytes),
            _ => return None,
        };
        let &[protocol, _, _, _, high, low, _, _] = rest.first_chunk::<8>()?;
        let protocol = [PortProtocol::Tcp, PortProtocol::Udp, PortProtocol::Sctp]
            .into_iter()
            .find(|p| protocol_number(*p) == protocol)?;
        Some(Self { host, protocol, port: u16::from_be_bytes([high, low]) })
    }
}

impl Element {
    fn target_bytes(self) -> [u8; 8] {
        let [a, b, c, d] = self.target.ip().octets();
        let [high, low] = self.target.port().to_be_bytes();
        [a, b, c, d, high, low, 0, 0]
    }
}

/// An atomic batch: all of it happens, or nothing.
struct Transaction {
    batch: Batch,
}

impl Transaction {
    fn new(connection: &Connection) -> Self {
        let mut batch = connection.batch();
        batch.message(BATCH_BEGIN, 0, &[0, 0, 0, SUBSYSTEM as u8], |_| {});
        Self { batch }
    }

    fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.batch.message(kind, flags, &FAMILY, fill);
    }

    fn elements(&mut self, kind: u16, table: &str, elements: &[Element]) {
        for map in [BOUND, ANY] {
            let of_map: Vec<_> = elements.iter().filter(|e| e.key.map() == map).collect();
            for chunk in of_map.chunks(ELEMENTS_PER_MESSAGE) {
                let flags = if kind == NEW_ELEMENT { wire::CREATE } else { 0 };
                self.message(kind, flags, |m| {
                    m.put_text(1, table); // NFTA_SET_ELEM_LIST_TABLE
                    m.put_text(2, map); // NFTA_SET_ELEM_LIST_SET
                    m.nest(3, |m| {
                        for element in chunk {
                            put_element(m, element, kind == NEW_ELEMENT);
                        }
                    });
                });
            }
        }
    }

    fn commit(mut self, connection: &mut Connection) -> Result<(), NetlinkError> {
        self.batch.acknowledge_last();
        self.batch.message(BATCH_END, 0, &[0, 0, 0, SUBSYSTEM as u8], |_| {});
        connection.transact(self.batch)
    }
}

fn put_element(m: &mut Attributes<'_>, element: &Element, with_target: bool) {
    m.nest(1, |m| {
        m.nest(1, |m| m.put(DATA_VALUE, &element.key.bytes())); // NFTA_SET_ELEM_KEY
        if with_target {
            m.nest(2, |m| m.put(DATA_VALUE, &element.target_bytes())); // NFTA_SET_ELEM_DATA
        }
    });
}

/// Opens a conversation with nf_tables.
pub(crate) fn connect() -> Result<Connection, NetlinkError> {
    Connection::open(Protocol::Netfilter)
}

/// Whether the table holds exactly our rules. Maps are not looked at.
pub(crate) fn intact(connection: &mut Connection, parameters: &Parameters) -> Result<bool, NetlinkError> {
    let rules = rules(parameters);
    let found = connection.dump(
        |batch| batch.message(GET_RULE, wire::DUMP, &FAMILY, |m| m.put_text(1, &parameters.table)),
        |message| Ok(read_rule(message)?.filter(|r| r.table == parameters.table)),
    );
    let found = match found {
        Ok(found) => found,
        Err(e) if e.is(Errno::NOENT) => return Ok(false),
        Err(e) => return Err(e),
    };
    let comments = comments(&rules);
    // Chains come in the order they were made, but nothing promises that: compare chain by chain.
    let same = |chain: &str| {
        let expected = rules.iter().zip(&comments).filter(|(r, _)| r.chain == chain).map(|(_, c)| Some(c.as_str()));
        expected.eq(found.iter().filter(|r| r.chain == chain).map(|r| r.comment.as_deref()))
    };
    Ok(found.len() == rules.len() && CHAINS.iter().all(|c| same(c.name)))
}

/// Makes the table anew with these elements, in one step: no packet sees a half of it.
pub(crate) fn install(
    connection: &mut Connection,
    parameters: &Parameters,
    elements: &[Element],
) -> Result<(), NetlinkError> {
    let table = parameters.table.as_str();
    let mut transaction = Transaction::new(connection);
    // add table; delete table; add table: deletes it whether it was there or not.
    for kind in [NEW_TABLE, DELETE_TABLE, NEW_TABLE] {
        transaction.message(kind, if kind == NEW_TABLE { wire::CREATE } else { 0 }, |m| m.put_text(1, table));
    }
    // type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    // type inet_proto . inet_service : ipv4_addr . inet_service
    for (id, map, key_type, key_length) in [(1, BOUND, 7 << 12 | 12 << 6 | 13, 12), (2, ANY, 12 << 6 | 13, 8)] {
        transaction.message(NEW_SET, wire::CREATE, |m| {
            m.put_text(1, table); // NFTA_SET_TABLE
            m.put_text(2, map); // NFTA_SET_NAME
            m.put_be32(3, 8); // NFTA_SET_FLAGS: NFT_SET_MAP
            m.put_be32(4, key_type); // NFTA_SET_KEY_TYPE, for `nft list` alone
            m.put_be32(5, key_length); // NFTA_SET_KEY_LEN
            m.put_be32(6, 7 << 6 | 13); // NFTA_SET_DATA_TYPE, for `nft list` alone
            m.put_be32(7, 8); // NFTA_SET_DATA_LEN
            m.put_be32(10, id); // NFTA_SET_ID
        });
    }
    for chain in &CHAINS {
        transaction.message(NEW_CHAIN, wire::CREATE, |m| {
            m.put_text(1, table); // NFTA_CHAIN_TABLE
            m.put_text(3, chain.name); // NFTA_CHAIN_NAME
            m.nest(4, |m| {
                m.put_be32(1, chain.hook); // NFTA_HOOK_HOOKNUM
                m.put(2, &chain.priority.to_be_bytes()); // NFTA_HOOK_PRIORITY
            });
            m.put_be32(5, 1); // NFTA_CHAIN_POLICY: NF_ACCEPT
            m.put_text(7, chain.kind); // NFTA_CHAIN_TYPE
        });
    }
    let rules = rules(parameters);
    for (rule, comment) in rules.iter().zip(comments(&rules)) {
        transaction.message(NEW_RULE, wire::CREATE | wire::APPEND, |m| {
            m.put_text(1, table); // NFTA_RULE_TABLE
            m.put_text(2, rule.chain); // NFTA_RULE_CHAIN
            m.put_nested_bytes(4, &rule.expressions); // NFTA_RULE_EXPRESSIONS
            m.put(7, &comment_bytes(&comment)); // NFTA_RULE_USERDATA
        });
    }
    transaction.elements(NEW_ELEMENT, table, elements);
    transaction.commit(connection)
}

/// Deletes the table, whether it is there or not.
pub(crate) fn remove(connection: &mut Connection, table: &str) -> Result<(), NetlinkError> {
    let mut transaction = Transaction::new(connection);
    transaction.message(NEW_TABLE, wire::CREATE, |m| m.put_text(1, table));
    transaction.message(DELETE_TABLE, 0, |m| m.put_text(1, table));
    transaction.commit(connection)
}

/// libnftnl's user data: type 0 (comment), length, text with its zero byte.
fn comment_bytes(comment: &str) -> Vec<u8> {
    let text: Vec<u8> = comment.bytes().take(120).chain([0]).collect();
    [[0, text.len() as u8].as_slice(), &text].concat()
}

/// Adds and deletes elements in one step. Both lists may be empty.
///
/// After a delete, closing any netfilter socket of this network namespace waits until the kernel's deferred work is done.
pub(crate) fn change(
    connection: &mut Connection,
    table: &str,
    delete: &[Element],
    add: &[Element],
) -> Result<(), NetlinkError> {
    if delete.is_empty() && add.is_empty() {
        return Ok(());
    }
    let mut transaction = Transaction::new(connection);
    transaction.elements(DELETE_ELEMENT, table, delete);
    transaction.elements(NEW_ELEMENT, table, add);
    transaction.commit(connection)
}

/// Reads both maps; `None` if there is no table.
pub(crate) fn elements(connection: &mut Connection, table: &str) -> Result<Option<Vec<Element>>, NetlinkError> {
    let mut all = Vec::new();
    for map in [BOUND, ANY] {
        let found = connection.dump(
            |batch| {
                batch.message(GET_ELEMENT, wire::DUMP, &FAMILY, |m| {
                    m.put_text(1, table);
                    m.put_text(2, map);
                });
            },
            |message| read_elements(message).map(Some),
        );
        match found {
            Ok(found) => all.extend(found.into_iter().flatten()),
            Err(e) if e.is(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Ok(Some(all))
}

/// Where one published port leads now.
pub(crate) fn target_of(
    connection: &mut Connection,
    table: &str,
    key: Key,
) -> Result<Option<SocketAddrV4>, NetlinkError> {
    let mut batch = connection.batch();
    let wanted = Element { key, target: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0) };
    batch.message(GET_ELEMENT, 0, &FAMILY, |m| {
        m.put_text(1, table);
        m.put_text(2, key.map());
        m.nest(3, |m| put_element(m, &wanted, false));
    });
    match connection.get(batch, read_elements) {
        Ok(found) => Ok(found.into_iter().find(|e| e.key == key).map(|e| e.target)),
        Err(e) if e.is(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads an `NFT_MSG_NEWSETELEM`; elements that this crate cannot have made are left out.
pub(crate) fn read_elements(message: &Message<'_>) -> Result<Vec<Element>, Malformed> {
    let mut elements = Vec::new();
    if message.kind != NEW_ELEMENT {
        return Ok(elements);
    }
    for attribute in message.attributes(FAMILY.len()) {
        let (3, list) = attribute? else { continue };
        for element in attributes(list) {
            let (mut key, mut target) = (None, None);
            for part in attributes(element?.1) {
                match part? {
                    (1, nest) => key = data_value(nest)?.and_then(Key::read),
                    (2, nest) => target = data_value(nest)?.and_then(read_target),
                    _ => {}
                }
            }
            if let (Some(key), Some(target)) = (key, target) {
                elements.push(Element { key, target });
            }
        }
    }
    Ok(elements)
}

fn data_value(nest: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    for attribute in attributes(nest) {
        if let (DATA_VALUE, value) = attribute? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn read_target(bytes: &[u8]) -> Option<SocketAddrV4> {
    let &[a, b, c, d, high, low, ..] = bytes.first_chunk::<8>()?;
    Some(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
}

/// A rule as found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FoundRule {
    table: String,
    chain: String,
    comment: Option<String>,
}

/// Reads an `NFT_MSG_NEWRULE`.
pub(crate) fn read_rule(message: &Message<'_>) -> Result<Option<FoundRule>, Malformed> {
    if message.kind != NEW_RULE {
        return Ok(None);
    }
    let mut rule = FoundRule { table: String::new(), chain: String::new(), comment: None };
    for attribute in message.attributes(FAMILY.len()) {
        match attribute? {
            (1, value) => rule.table = text_of(value),
            (2, value) => rule.chain = text_of(value),
            (7, [0, length, text @ ..]) => {
                rule.comment = text.get(..usize::from(*length)).map(text_of);
            }
            _ => {}
        }
    }
    Ok(Some(rule))
}

/// Reads a message with every reader of this module: for fuzzing.
pub(crate) fn read_all(message: &Message<'_>) {
    let _ = (read_elements(message), read_rule(message));
    let _ = (blockers::read_forward_chain(message), blockers::ends_in_refusal(message));
}

#[cfg(test)]
mod tests;
