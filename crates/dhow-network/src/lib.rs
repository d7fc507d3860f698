//! Container networking: the default bridge, addresses, published ports and the nftables table.
//!
//! Everything is done by netlink from the calling thread: no helper program, no daemon, no async runtime. State lies in
//! three places that are read when it is needed: the record of the subnet (`ROOT/networks`), claims of addresses and ports
//! (`RUN/net`), and the kernel. Design: docs/design/0003-network.md; files: docs/formats/network.md.
//!
//! Deliberately absent: knowledge of containers beyond their id; other programs' tables, chains and policies, which are
//! never changed; deleting a container's links.

mod attach;
mod bridge;
mod claims;
mod error;
pub mod files;
#[doc(hidden)]
pub mod fuzzing;
mod lease;
mod net;
mod netlink;
mod nft;
mod ports;
mod route;
mod subnet;
mod sysctl;
#[cfg(test)]
mod tests;

pub use attach::{configure_inside, loopback_up};
pub use bridge::{Bridge, BridgeNames};
pub use error::{HolderProcess, NetworkError};
pub use lease::Lease;
pub use net::{Ipv4Net, NetError};
pub use netlink::{Malformed, NetlinkError};
pub use nft::forward_blockers;
pub use ports::{RecordedPort, ReservedPort};
