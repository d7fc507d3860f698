//! Addresses: who gets which.
//!
//! A pointer walks through the subnet, so an address comes again only after all others: the kernel takes some 30 ms to
//! forget the last holder's link, and neighbours remember its MAC address for a minute. Nothing is scanned.

use crate::bridge::Bridge;
use crate::error::{NetworkError, PathContext};
use dhow_types::ContainerId;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;

/// An address of a container, from [`Bridge::allocate`] until [`Bridge::release`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The container's address.
    pub address: Ipv4Addr,
    /// Prefix length of the subnet in bits.
    pub prefix_len: u8,
    /// Default gateway.
    pub gateway: Ipv4Addr,
    /// MAC address of `eth0`, random and locally administered.
    pub mac: [u8; 6],
    /// Name of the bridge.
    pub bridge: String,
}

impl Lease {
    /// The MAC address as `02:42:ac:11:00:02`.
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

impl Bridge {
    /// Leases the next free address to a container.
    pub fn allocate(&self, owner: &ContainerId) -> Result<Lease, NetworkError> {
        /// The network's own address and the gateway come before the first.
        const FIRST: u32 = 2;
        let subnet = self.subnet();
        let size = 1_u64 << (32 - u32::from(subnet.prefix_len()));
        // The last address is the broadcast address.
        let count = u32::try_from(size - u64::from(FIRST) - 1).unwrap_or(u32::MAX);
        let lock = self.claims.lock_file("next")?;
        let path = self.claims.dir().join("next");
        let mut text = [0; 16];
        let length = lock.file().read_at(&mut text, 0).on("read", &path)?;
        // Rubbish means "from the start": claims are what counts.
        let text = std::str::from_utf8(text.get(..length).unwrap_or_default()).unwrap_or_default();
        let next = text.trim().parse().ok().and_then(|a| subnet.offset(a)).filter(|&o| o >= FIRST);
        let start = next.unwrap_or(FIRST) - FIRST;
        for step in 0..count {
            let offset = FIRST + (start + step) % count;
            let Some(address) = subnet.nth(offset) else { continue };
            if self.claims.claim_address(address, owner)? {
                let after = subnet.nth(FIRST + (offset - FIRST + 1) % count).unwrap_or(address);
                // One write of fixed length: never half of it.
                lock.file().write_all_at(format!("{after:<15}\n").as_bytes(), 0).on("write", &path)?;
                return Ok(self.lease(address, random_mac()));
            }
        }
        Err(NetworkError::SubnetFull { subnet })
    }

    /// Puts together the lease of an address that was allocated before.
    pub fn lease(&self, address: Ipv4Addr, mac: [u8; 6]) -> Lease {
        Lease {
            address,
            prefix_len: self.subnet().prefix_len(),
            gateway: self.gateway(),
            mac,
            bridge: self.name().to_owned(),
        }
    }

    /// Gives an address back. Does nothing if it is not the owner's (any more).
    pub fn release(&self, owner: &ContainerId, address: Ipv4Addr) -> Result<(), NetworkError> {
        self.claims.release_address(address, owner)
    }

    /// The addresses a container holds. Reads a whole directory: for healing.
    pub fn leases_of(&self, owner: &ContainerId) -> Result<Vec<Ipv4Addr>, NetworkError> {
        let all = self.claims.addresses()?;
        Ok(all.into_iter().filter(|(_, o)| o == owner).map(|(address, _)| address).collect())
    }

    /// Every container that holds an address or a port, in no order. Reads whole directories: for healing.
    pub fn owners(&self) -> Result<Vec<ContainerId>, NetworkError> {
        let mut owners: Vec<_> = self.claims.addresses()?.into_iter().map(|(_, owner)| owner).collect();
        owners.extend(self.claims.ports()?.into_iter().map(|(_, claim)| claim.owner));
        owners.sort();
        owners.dedup();
        Ok(owners)
    }
}

fn random_mac() -> [u8; 6] {
    let mut mac = [0; 6];
    // Without randomness the address' uniqueness would be lost; getrandom(2) does not fail for so few bytes once the
    // system is up.
    let mut have = 0;
    while have < mac.len() {
        let rest = mac.get_mut(have..).unwrap_or_default();
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) if n > 0 => have += n,
            Err(rustix::io::Errno::INTR) => {}
            _ => break,
        }
    }
    // Locally administered, unicast (IEEE 802).
    mac[0] = mac[0] & 0xfc | 0x02;
    mac
}
