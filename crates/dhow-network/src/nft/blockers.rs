//! Finding what stands in the way: chains of other tables that drop forwarded packets.
//!
//! Only reads. What to do about it is for the host's owner to decide.

use super::expr::NFPROTO_IPV4;
use super::{GET_RULE, INET, NEW_CHAIN, NEW_RULE, connect, kind};
use crate::netlink::wire::{self, Message, attributes, be32_of, text_of};
use crate::netlink::{Connection, Malformed, NetlinkError};
use rustix::io::Errno;

const GET_CHAIN: u16 = kind(4);
/// `NF_DROP`
const DROP: u32 = 0;

/// A base chain at the forward hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForwardChain {
    family: u8,
    table: String,
    name: String,
    drops: bool,
}

/// Chains of other tables that drop forwarded packets unless they are told otherwise, as "table ip filter, chain FORWARD".
///
/// A drop anywhere wins over an accept in our table, so containers then have no way out and published ports none in. The
/// usual ones are Docker's policy on the `FORWARD` chain and the last rule of firewalld's; the way out is a rule there
/// that accepts the bridge. Tables of the old iptables (not iptables-nft) cannot be read this way.
pub fn forward_blockers() -> Vec<String> {
    match find() {
        Ok(found) => found,
        // Without nf_tables there is nothing that could block in it.
        Err(e) if e.is(Errno::OPNOTSUPP) || e.is(Errno::NOENT) => Vec::new(),
        Err(e) => vec![format!("unknown: the tables of this host cannot be read ({e})")],
    }
}

fn find() -> Result<Vec<String>, NetlinkError> {
    let mut connection = connect()?;
    let chains = connection.dump(|batch| batch.message(GET_CHAIN, wire::DUMP, &[0; 4], |_| {}), read_forward_chain)?;
    let mut found = Vec::new();
    for chain in chains {
        if chain.drops || last_rule_refuses(&mut connection, &chain)? {
            let family = if chain.family == INET { "inet" } else { "ip" };
            found.push(format!("table {family} {}, chain {}", chain.table, chain.name));
        }
    }
    Ok(found)
}

fn last_rule_refuses(connection: &mut Connection, chain: &ForwardChain) -> Result<bool, NetlinkError> {
    let rules = connection.dump(
        |batch| {
            batch.message(GET_RULE, wire::DUMP, &[chain.family, 0, 0, 0], |m| {
                m.put_text(1, &chain.table); // NFTA_RULE_TABLE
                m.put_text(2, &chain.name); // NFTA_RULE_CHAIN
            });
        },
        |message| Ok(Some(ends_in_refusal(message)?)),
    );
    match rules {
        Ok(rules) => Ok(rules.last() == Some(&true)),
        // Gone in the meantime.
        Err(e) if e.is(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads an `NFT_MSG_NEWCHAIN`; `None` if it is no base chain at the forward hook that sees IPv4.
pub(crate) fn read_forward_chain(message: &Message<'_>) -> Result<Option<ForwardChain>, Malformed> {
    /// `NF_INET_FORWARD`
    const FORWARD: u32 = 2;
    let [family, ..]: [u8; 4] = message.fixed()?;
    if message.kind != NEW_CHAIN || !matches!(family, INET | NFPROTO_IPV4) {
        return Ok(None);
    }
    let mut chain = ForwardChain { family, table: String::new(), name: String::new(), drops: false };
    let mut hook = None;
    for attribute in message.attributes(4) {
        match attribute? {
            (1, value) => chain.table = text_of(value), // NFTA_CHAIN_TABLE
            (3, value) => chain.name = text_of(value),  // NFTA_CHAIN_NAME
            (4, nest) => hook = find_in(nest, 1)?.map(be32_of).transpose()?, // NFTA_CHAIN_HOOK, HOOK_HOOKNUM
            (5, value) => chain.drops = be32_of(value)? == DROP, // NFTA_CHAIN_POLICY
            _ => {}
        }
    }
    Ok((hook == Some(FORWARD)).then_some(chain))
}

/// Reads an `NFT_MSG_NEWRULE`: whether the rule drops or rejects whatever comes.
pub(crate) fn ends_in_refusal(message: &Message<'_>) -> Result<bool, Malformed> {
    if message.kind != NEW_RULE {
        return Ok(false);
    }
    for attribute in message.attributes(4) {
        let (4, list) = attribute? else { continue }; // NFTA_RULE_EXPRESSIONS
        for expression in attributes(list) {
            let expression = expression?.1;
            let name = find_in(expression, 1)?.map(text_of).unwrap_or_default(); // NFTA_EXPR_NAME
            let data = find_in(expression, 2)?.unwrap_or_default(); // NFTA_EXPR_DATA
            match name.as_str() {
                "counter" | "log" => {}
                "reject" => return Ok(true),
                "immediate" => {
                    // NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE
                    let verdict = find_in(find_in(data, 2)?.unwrap_or_default(), 2)?.unwrap_or_default();
                    return Ok(find_in(verdict, 1)?.map(be32_of).transpose()? == Some(DROP));
                }
                // iptables-nft keeps iptables' own target: NFTA_TARGET_NAME
                "target" => return Ok(find_in(data, 1)?.map(text_of).as_deref() == Some("REJECT")),
                // A condition, or something that is no verdict.
                _ => return Ok(false),
            }
        }
    }
    Ok(false)
}

fn find_in(nest: &[u8], wanted: u16) -> Result<Option<&[u8]>, Malformed> {
    for attribute in attributes(nest) {
        let (kind, value) = attribute?;
        if kind == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}
