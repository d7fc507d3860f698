//! Doors for fuzz targets: the readers of what the kernel answers.

use crate::netlink::wire::{attributes, messages};
use crate::{nft, ports, route};

/// Reads a datagram with every reader there is. Must not panic, whatever the bytes.
pub fn netlink_reply(datagram: &[u8]) {
    for message in messages(datagram).flatten() {
        let _ = message.outcome();
        for (_, value) in message.attributes(0).flatten() {
            attributes(value).for_each(drop);
        }
        let _ = (route::read_link(&message), route::read_address(&message), route::read_route(&message));
        nft::read_all(&message);
        let _ = ports::read_flow(&message);
    }
}

#[cfg(test)]
mod tests {
    use crate::netlink::wire::Batch;
    use proptest::prelude::*;

    /// Message kinds that have a reader: links, addresses, routes; flows; chains, rules, elements; errors, ends of dumps.
    const KINDS: [u16; 9] = [16, 20, 24, 0x100, 0xa03, 0xa06, 0xa0c, 2, 3];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_answer_is_no_panic(
            which in 0..KINDS.len(),
            flags: u16,
            fixed in proptest::collection::vec(prop_oneof![Just(1_u8), Just(2), any::<u8>()], 0..24),
            attributes in proptest::collection::vec((0_u16..50, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            cut: prop::sample::Index,
        ) {
            let mut batch = Batch::new(1);
            batch.message(KINDS[which], flags, &fixed, |m| attributes.iter().for_each(|(kind, value)| m.put(*kind, value)));
            super::netlink_reply(batch.bytes());
            super::netlink_reply(&batch.bytes()[..cut.index(batch.bytes().len())]);
        }
    }
}
