//! The rules of a bridge: fixed chains, and two maps that hold the published ports.
//!
//! The number of rules does not grow with containers or ports; a packet costs one hash look-up.

use super::expr::{Expressions, Is, Side};
use crate::Ipv4Net;
use crate::netlink::wire::Batch;
use std::net::Ipv4Addr;

/// Map of ports published on one host address.
pub(super) const BOUND: &str = "bound";
/// Map of ports published on every host address.
pub(super) const ANY: &str = "any";

/// `127.0.0.0/8`
const LOOPBACK: Option<Ipv4Net> = Ipv4Net::containing(Ipv4Addr::new(127, 0, 0, 0), 8);

/// A base chain.
pub(super) struct Chain {
    /// Name.
    pub name: &'static str,
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// Hook number (`NF_INET_*`).
    pub hook: u32,
    /// Priority; lower comes first.
    pub priority: i32,
}

/// The base chains.
pub(super) const CHAINS: [Chain; 5] = [
    // Before connection tracking (-200) and address translation.
    Chain { name: "guard", kind: "filter", hook: 0, priority: -300 },
    Chain { name: "prerouting", kind: "nat", hook: 0, priority: -100 },
    Chain { name: "output", kind: "nat", hook: 3, priority: -100 },
    Chain { name: "postrouting", kind: "nat", hook: 4, priority: 100 },
    Chain { name: "forward", kind: "filter", hook: 2, priority: 0 },
];

/// One rule: where it stands, what it is for, and its expressions.
pub(super) struct Rule {
    /// Chain.
    pub chain: &'static str,
    /// Purpose, shown by `nft list` as a comment.
    pub purpose: &'static str,
    /// Encoded expressions: the value of `NFTA_RULE_EXPRESSIONS`.
    pub expressions: Vec<u8>,
}

/// What the rules depend on.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    /// Table name.
    pub table: String,
    /// Bridge name.
    pub bridge: String,
    /// Subnet of the bridge.
    pub subnet: Ipv4Net,
}

/// All rules, in order. A comment in nft's own language stands above each.
pub(super) fn rules(p: &Parameters) -> Vec<Rule> {
    let (bridge, subnet) = (p.bridge.as_str(), p.subnet);
    let Some(loopback) = LOOPBACK else { unreachable!("8 is a prefix length") };
    let mut rules = Vec::with_capacity(14);
    let mut rule = |chain, purpose, fill: &dyn Fn(&mut Expressions<'_, '_>)| {
        rules.push(Rule { chain, purpose, expressions: encode(fill) });
    };

    // iifname != "lo" ip daddr 127.0.0.0/8 drop
    // Destinations are rewritten before the kernel's own check for such packets, so a neighbour could reach a port
    // published on 127.0.0.1, and, where route_localnet is on, any service of the host's loopback (CVE-2020-8558).
    rule("guard", "loopback addresses stay inside", &|e| {
        e.interface(Side::In, Is::Different, "lo").ipv4().destination(Is::Equal, loopback).drop();
    });
    // iifname "dhow0" ip saddr != 172.17.0.0/16 drop
    rule("guard", "no foreign source addresses", &|e| {
        e.interface(Side::In, Is::Equal, bridge).ipv4().source(Is::Different, subnet).drop();
    });
    // iifname "dhow0" meta nfproto ipv6 drop
    // The bridge has no IPv6 network; what comes is router advertisements and worse (CVE-2020-13401).
    rule("guard", "no IPv6", &|e| e.interface(Side::In, Is::Equal, bridge).ipv6().drop());

    for (chain, by_address, by_port) in [
        ("prerouting", "published on one address", "published on all addresses"),
        ("output", "the same for the host itself", "the same for the host itself"),
    ] {
        // meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @bound
        rule(chain, by_address, &|e| {
            e.ipv4().dnat_by_address(BOUND);
        });
        // meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @any
        rule(chain, by_port, &|e| {
            e.ipv4().destination_is_local().dnat_by_port(ANY);
        });
    }

    // oifname != "dhow0" ip saddr 172.17.0.0/16 masquerade
    rule("postrouting", "containers to the outside", &|e| {
        e.interface(Side::Out, Is::Different, bridge).ipv4().source(Is::Equal, subnet).masquerade();
    });
    // oifname "dhow0" ip saddr 127.0.0.0/8 masquerade
    // A container cannot answer 127.0.0.1.
    rule("postrouting", "host loopback to a container", &|e| {
        e.interface(Side::Out, Is::Equal, bridge).ipv4().source(Is::Equal, loopback).masquerade();
    });
    // oifname "dhow0" ip saddr 172.17.0.0/16 ct status dnat masquerade
    // Between neighbours the answer would go straight back, from an address the asker never spoke to.
    rule("postrouting", "containers to a published port", &|e| {
        e.interface(Side::Out, Is::Equal, bridge).ipv4().source(Is::Equal, subnet).published_connection().masquerade();
    });

    // ct state established,related accept
    rule("forward", "answers", &|e| e.known_connection().accept());
    // iifname "dhow0" accept
    rule("forward", "containers to the outside", &|e| e.interface(Side::In, Is::Equal, bridge).accept());
    // oifname "dhow0" ct status dnat accept
    rule("forward", "published ports", &|e| {
        e.interface(Side::Out, Is::Equal, bridge).published_connection().accept();
    });
    // oifname "dhow0" drop
    rule("forward", "nothing else reaches a container", &|e| e.interface(Side::Out, Is::Equal, bridge).drop());
    rules
}

/// Encodes expressions without a message around them.
fn encode(fill: &dyn Fn(&mut Expressions<'_, '_>)) -> Vec<u8> {
    let mut scratch = Batch::new(0);
    scratch.message(0, 0, &[], |m| fill(&mut Expressions(m)));
    scratch.bytes().get(16..).unwrap_or_default().to_vec()
}

/// The comments that the rules carry, by which [`super::intact`] knows them again: the purpose, and a digest of all rules
/// that changes when they do.
pub(super) fn comments(rules: &[Rule]) -> Vec<String> {
    // FNV-1a: tells versions of the rules apart, and is no defence.
    let mut digest = 0x811c_9dc5_u32;
    for rule in rules {
        for byte in rule.chain.bytes().chain(rule.expressions.iter().copied()) {
            digest = (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
    rules.iter().map(|r| format!("{} [{digest:08x}]", r.purpose)).collect()
}
