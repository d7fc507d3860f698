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
