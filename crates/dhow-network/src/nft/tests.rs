//! Unit tests of the encodings; what the kernel makes of them is tested in tests/root.

use super::*;
use crate::Ipv4Net;
use crate::netlink::wire::messages;
use proptest::prelude::*;

fn parameters(bridge: &str, subnet: &str) -> Parameters {
    Parameters { table: "dhow".to_owned(), bridge: bridge.to_owned(), subnet: subnet.parse::<Ipv4Net>().unwrap() }
}

#[test]
fn comments_change_with_the_rules() {
    let of = |b, s| comments(&rules(&parameters(b, s)));
    assert_eq!(of("dhow0", "172.17.0.0/16"), of("dhow0", "172.17.0.0/16"));
    assert_ne!(of("dhow0", "172.17.0.0/16"), of("dhow1", "172.17.0.0/16"));
    assert_ne!(of("dhow0", "172.17.0.0/16"), of("dhow0", "172.18.0.0/16"));
    for comment in of("dhow0", "172.17.0.0/16") {
        assert!(comment_bytes(&comment).len() <= 128, "{comment}: nft cuts comments at 128 bytes");
    }
}

#[test]
fn every_rule_has_a_chain() {
    for rule in rules(&parameters("dhow0", "172.17.0.0/16")) {
        assert!(CHAINS.iter().any(|c| c.name == rule.chain), "{}", rule.chain);
    }
}

fn keys() -> impl Strategy<Value = Key> {
    (proptest::option::of(1_u32..), 0_usize..3, any::<u16>()).prop_map(|(host, which, port)| Key {
        host: host.map(Ipv4Addr::from_bits),
        protocol: [PortProtocol::Tcp, PortProtocol::Udp, PortProtocol::Sctp][which],
        port,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn elements_round_trip(
        sent in proptest::collection::vec((keys(), any::<u32>(), any::<u16>()), 0..1200),
    ) {
        let sent: Vec<Element> = sent
            .into_iter()
            .map(|(key, ip, port)| Element { key, target: SocketAddrV4::new(Ipv4Addr::from_bits(ip), port) })
            .collect();
        let mut transaction = Transaction { batch: Batch::new(1) };
        transaction.elements(NEW_ELEMENT, "dhow", &sent);
        let read: Vec<Element> = messages(transaction.batch.bytes())
            .flat_map(|m| read_elements(&m.unwrap()).unwrap())
            .collect();
        // One map after the other, each in order.
        let (bound, any): (Vec<_>, Vec<_>) = sent.into_iter().partition(|e| e.key.host.is_some());
        prop_assert_eq!(read, [bound, any].concat());
    }

    #[test]
    fn any_answer_is_no_panic(kind in 0_u16..20, payload in proptest::collection::vec(any::<u8>(), 0..120)) {
        let message = Message { kind: super::kind(kind), flags: 0, sequence: 0, payload: &payload };
        read_all(&message);
    }
}
