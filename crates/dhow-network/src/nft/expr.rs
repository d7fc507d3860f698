//! Expressions of nf_tables rules, encoded (linux/netfilter/nf_tables.h).
//!
//! Only what this crate's rules use. Numbers are in network byte order; register contents are as they lie in a packet,
//! or in native order for what the kernel computes (marks, states, address types).

use crate::netlink::wire::Attributes;

/// `NFT_REG_1`, 16 bytes; it is `NFT_REG32_00` to `NFT_REG32_03`, seen as one.
const REG_1: u32 = 1;
/// `NFT_REG32_01`: bytes 4 to 7 of `REG_1`.
const REG32_01: u32 = 9;
/// `NFT_REG32_02`: bytes 8 to 11 of `REG_1`.
const REG32_02: u32 = 10;
/// `NFT_REG_VERDICT`
const REG_VERDICT: u32 = 0;

/// `NFTA_LIST_ELEM`
const LIST_ELEMENT: u16 = 1;
/// `NFTA_DATA_VALUE`
pub(super) const DATA_VALUE: u16 = 1;
/// `NFPROTO_IPV4`, and the family of a table of IPv4 alone.
pub(super) const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// Offset of the source address in an IPv4 header.
const IPV4_SOURCE: u32 = 12;
/// Offset of the destination address in an IPv4 header.
const IPV4_DESTINATION: u32 = 16;
/// Offset of the destination port: the same in TCP, UDP and SCTP.
const PORT_DESTINATION: u32 = 2;

/// Whether a comparison must hold or fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// `==`
    Equal,
    /// `!=`
    Different,
}

/// Which interface name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    /// `iifname`
    In,
    /// `oifname`
    Out,
}

/// Writes the expressions of one rule.
pub(super) struct Expressions<'a, 'b>(pub &'a mut Attributes<'b>);

impl Expressions<'_, '_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.0.nest(LIST_ELEMENT, |m| {
            m.put_text(1, name); // NFTA_EXPR_NAME
            m.nest(2, fill); // NFTA_EXPR_DATA
        });
        self
    }

    fn meta(&mut self, key: u32, register: u32) -> &mut Self {
        self.expression("meta", |m| {
            m.put_be32(2, key); // NFTA_META_KEY
            m.put_be32(1, register); // NFTA_META_DREG
        })
    }

    fn payload(&mut self, register: u32, base: u32, offset: u32, length: u32) -> &mut Self {
        self.expression("payload", |m| {
            m.put_be32(1, register); // NFTA_PAYLOAD_DREG
            m.put_be32(2, base); // NFTA_PAYLOAD_BASE
            m.put_be32(3, offset); // NFTA_PAYLOAD_OFFSET
            m.put_be32(4, length); // NFTA_PAYLOAD_LEN
        })
    }

    fn compare(&mut self, is: Is, value: &[u8]) -> &mut Self {
        self.expression("cmp", |m| {
            m.put_be32(1, REG_1); // NFTA_CMP_SREG
            m.put_be32(2, u32::from(is == Is::Different)); // NFTA_CMP_OP: NFT_CMP_EQ, NFT_CMP_NEQ
            m.nest(3, |m| m.put(DATA_VALUE, value)); // NFTA_CMP_DATA
        })
    }

    fn mask(&mut self, mask: &[u8; 4]) -> &mut Self {
        self.expression("bitwise", |m| {
            m.put_be32(1, REG_1); // NFTA_BITWISE_SREG
            m.put_be32(2, REG_1); // NFTA_BITWISE_DREG
            m.put_be32(3, 4); // NFTA_BITWISE_LEN
            m.nest(4, |m| m.put(DATA_VALUE, mask)); // NFTA_BITWISE_MASK
            m.nest(5, |m| m.put(DATA_VALUE, &[0; 4])); // NFTA_BITWISE_XOR
        })
    }

    /// `meta nfproto ipv4`
    pub(super) fn ipv4(&mut self) -> &mut Self {
        const NFT_META_NFPROTO: u32 = 15;
        self.meta(NFT_META_NFPROTO, REG_1).compare(Is::Equal, &[NFPROTO_IPV4])
    }

    /// `meta nfproto ipv6`
    pub(super) fn ipv6(&mut self) -> &mut Self {
        const NFT_META_NFPROTO: u32 = 15;
        self.meta(NFT_META_NFPROTO, REG_1).compare(Is::Equal, &[NFPROTO_IPV6])
    }

    /// `iifname == "name"` and its like. Names, not indices: a bridge that is deleted and made again keeps its rules.
    pub(super) fn interface(&mut self, side: Side, is: Is, name: &str) -> &mut Self {
        let key = match side {
            Side::In => 6,  // NFT_META_IIFNAME
            Side::Out => 7, // NFT_META_OIFNAME
        };
        let mut padded = [0; 16]; // IFNAMSIZ
        for (to, from) in padded.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        self.meta(key, REG_1).compare(is, &padded)
    }

    fn address(&mut self, offset: u32, is: Is, net: crate::Ipv4Net) -> &mut Self {
        self.payload(REG_1, 1, offset, 4).mask(&net.netmask().octets()).compare(is, &net.address().octets())
    }

    /// `ip saddr == net`
    pub(super) fn source(&mut self, is: Is, net: crate::Ipv4Net) -> &mut Self {
        self.address(IPV4_SOURCE, is, net)
    }

    /// `ip daddr == net`
    pub(super) fn destination(&mut self, is: Is, net: crate::Ipv4Net) -> &mut Self {
        self.address(IPV4_DESTINATION, is, net)
    }

    /// `fib daddr type local`: the destination is an address of this host.
    pub(super) fn destination_is_local(&mut self) -> &mut Self {
        const RTN_LOCAL: u32 = 2;
        self.expression("fib", |m| {
            m.put_be32(1, REG_1); // NFTA_FIB_DREG
            m.put_be32(2, 3); // NFTA_FIB_RESULT: NFT_FIB_RESULT_ADDRTYPE
            m.put_be32(3, 2); // NFTA_FIB_FLAGS: NFTA_FIB_F_DADDR
        })
        .compare(Is::Equal, &RTN_LOCAL.to_ne_bytes())
    }

    fn tracking(&mut self, key: u32, bits: u32) -> &mut Self {
        self.expression("ct", |m| {
            m.put_be32(1, REG_1); // NFTA_CT_DREG
            m.put_be32(2, key); // NFTA_CT_KEY
        })
        .mask(&bits.to_ne_bytes())
        .compare(Is::Different, &[0; 4])
    }

    /// `ct state established,related`
    pub(super) fn known_connection(&mut self) -> &mut Self {
        const NFT_CT_STATE: u32 = 0;
        const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
        self.tracking(NFT_CT_STATE, ESTABLISHED_OR_RELATED)
    }

    /// `ct status dnat`: the destination was rewritten, so the connection came for a published port.
    pub(super) fn published_connection(&mut self) -> &mut Self {
        const NFT_CT_STATUS: u32 = 2;
        const IPS_DST_NAT: u32 = 1 << 5;
        self.tracking(NFT_CT_STATUS, IPS_DST_NAT)
    }

    fn dnat_by(&mut self, map: &str) -> &mut Self {
        self.expression("lookup", |m| {
            m.put_text(1, map); // NFTA_LOOKUP_SET
            m.put_be32(2, REG_1); // NFTA_LOOKUP_SREG
            m.put_be32(3, REG_1); // NFTA_LOOKUP_DREG
        })
        .expression("nat", |m| {
            m.put_be32(1, 1); // NFTA_NAT_TYPE: NFT_NAT_DNAT
            m.put_be32(2, u32::from(NFPROTO_IPV4)); // NFTA_NAT_FAMILY
            m.put_be32(3, REG_1); // NFTA_NAT_REG_ADDR_MIN
            m.put_be32(5, REG32_01); // NFTA_NAT_REG_PROTO_MIN
        })
    }

    /// `dnat ip to ip daddr . meta l4proto . th dport map @map`
    pub(super) fn dnat_by_address(&mut self, map: &str) -> &mut Self {
        const NFT_META_L4PROTO: u32 = 16;
        self.payload(REG_1, 1, IPV4_DESTINATION, 4)
            .meta(NFT_META_L4PROTO, REG32_01)
            .payload(REG32_02, 2, PORT_DESTINATION, 2)
            .dnat_by(map)
    }

    /// `dnat ip to meta l4proto . th dport map @map`
    pub(super) fn dnat_by_port(&mut self, map: &str) -> &mut Self {
        const NFT_META_L4PROTO: u32 = 16;
        self.meta(NFT_META_L4PROTO, REG_1).payload(REG32_01, 2, PORT_DESTINATION, 2).dnat_by(map)
    }

    /// `masquerade`
    pub(super) fn masquerade(&mut self) {
        self.expression("masq", |_| {});
    }

    fn verdict(&mut self, code: u32) {
        self.expression("immediate", |m| {
            m.put_be32(1, REG_VERDICT); // NFTA_IMMEDIATE_DREG
            m.nest(2, |m| m.nest(2, |m| m.put_be32(1, code))); // NFTA_IMMEDIATE_DATA, DATA_VERDICT, VERDICT_CODE
        });
    }

    /// `accept`: for this chain; other tables' chains of the same hook still see the packet.
    pub(super) fn accept(&mut self) {
        self.verdict(1);
    }

    /// `drop`
    pub(super) fn drop(&mut self) {
        self.verdict(0);
    }
}
