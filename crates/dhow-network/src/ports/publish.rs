//! Publishing: the map elements that carry the traffic of reserved ports.

use super::{RecordedPort, ReservedPort, conntrack, key};
use crate::bridge::Bridge;
use crate::claims::PortClaim;
use crate::error::{Context, NetworkError};
use crate::lease::Lease;
use crate::netlink::Connection;
use crate::nft::{self, Element, Key};
use crate::route;
use dhow_sys::netlink::Protocol;
use dhow_types::{ContainerId, PortProtocol, PortSpec};
use rustix::io::Errno;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

impl Bridge {
    /// Makes reserved ports reachable: all in one step.
    pub fn publish(&self, lease: &Lease, ports: &[ReservedPort]) -> Result<(), NetworkError> {
        if ports.is_empty() {
            return Ok(());
        }
        self.check_address(lease.address)?;
        {
            let _lock = self.claims.lock()?;
            self.allow_loopback()?;
            let mut elements = Vec::with_capacity(ports.len());
            for port in ports {
                let Some(key) = key(port.host_ip, port.host_port, port.container.protocol) else { continue };
                let target = SocketAddrV4::new(lease.address, port.container.port);
                // The claim comes first: rules that are made anew take their elements from the claims.
                self.claims.set_port(key, &PortClaim { owner: port.owner.clone(), target: Some(target) })?;
                elements.push(Element { key, target });
            }
            self.add(&elements)?;
        }
        let udp = ports.iter().filter(|p| p.container.protocol == PortProtocol::Udp);
        let keys: Vec<Key> = udp.filter_map(|p| key(p.host_ip, p.host_port, PortProtocol::Udp)).collect();
        if keys.is_empty() { Ok(()) } else { forget_local_flows(&keys) }
    }

    /// Adds elements, whatever was there before. The caller holds the lock, and has made the claims.
    fn add(&self, elements: &[Element]) -> Result<(), NetworkError> {
        let table = self.table();
        let there = self.with_netfilter(|netfilter| {
            match nft::change(netfilter, table, &[], elements) {
                // A port still leads to where it led before its holder died.
                Err(e) if e.is(Errno::EXIST) || e.is(Errno::BUSY) => {}
                // Somebody flushed the rules after `ensure`.
                Err(e) if e.is(Errno::NOENT) => return Ok(false),
                other => return other.map(|()| true).during("change nftables table", table),
            }
            let present = nft::elements(netfilter, table).during("read nftables table", table)?.unwrap_or_default();
            let moved = |p: &Element| elements.iter().any(|e| e.key == p.key && e.target != p.target);
            let stale: Vec<Element> = present.into_iter().filter(moved).collect();
            nft::change(netfilter, table, &stale, elements).during("change nftables table", table)?;
            Ok(true)
        })?;
        // New rules take their elements from the claims.
        if there { Ok(()) } else { self.install_rules() }
    }

    /// Takes a container's ports back: map elements and claims. Ports that lead elsewhere by now are left alone, ports
    /// that are gone already are fine.
    ///
    /// The kernel destroys the elements later, and whoever closes a netfilter socket meanwhile waits for it, 8 to 11 ms.
    /// This process closes its own with the [`Bridge`].
    pub fn unpublish(&self, address: Ipv4Addr, ports: &[RecordedPort]) -> Result<(), NetworkError> {
        if ports.is_empty() {
            return Ok(());
        }
        let lock = self.claims.lock()?;
        let table = self.table();
        let tenant = self.claims.address_owner(address)?;
        let keys: Vec<Key> = ports.iter().filter_map(|(ip, port, spec)| key(*ip, *port, spec.protocol)).collect();
        let elements = self.with_netfilter(|netfilter| {
            let mut elements = Vec::new();
            for &key in &keys {
                let target = nft::target_of(netfilter, table, key).during("read nftables table", table)?;
                elements.extend(target.filter(|t| *t.ip() == address).map(|target| Element { key, target }));
            }
            nft::change(netfilter, table, &elements, &[]).during("change nftables table", table)?;
            Ok(elements)
        })?;
        // Elements first: a claim that outlives its element is found and forgotten later, the reverse is not.
        let ours = |claim: &PortClaim| match claim.target {
            Some(target) => *target.ip() == address,
            None => tenant.as_ref() == Some(&claim.owner),
        };
        for &key in &keys {
            if self.claims.port(key)?.is_some_and(|claim| ours(&claim)) {
                self.claims.remove_port(key)?;
            }
        }
        drop(lock);
        for element in elements.iter().filter(|e| e.key.protocol == PortProtocol::Udp) {
            conntrack::forget(element.key, |flow| flow.answerer == address).during("forget flows of", address)?;
        }
        Ok(())
    }

    /// Brings the map elements in line with the containers that live: adds what is missing, deletes what leads nowhere.
    ///
    /// An element that a claim stands behind is left alone even if `live` does not name it, since its container may be
    /// starting at this moment; [`Bridge::forget`] is for the claims of the dead.
    pub fn sync_published(&self, live: &[(Ipv4Addr, Vec<RecordedPort>)]) -> Result<(), NetworkError> {
        self.ensure()?;
        let _lock = self.claims.lock()?;
        let mut wanted = Vec::new();
        for (address, ports) in live {
            self.check_address(*address)?;
            for (host_ip, port, spec) in ports {
                if let Some(key) = key(*host_ip, *port, spec.protocol) {
                    wanted.push(Element { key, target: SocketAddrV4::new(*address, spec.port) });
                }
            }
        }
        let named: HashSet<Key> = wanted.iter().map(|w| w.key).collect();
        wanted.extend(self.claimed_elements()?.into_iter().filter(|c| !named.contains(&c.key)));
        if !wanted.is_empty() {
            self.allow_loopback()?;
        }
        let table = self.table();
        self.with_netfilter(|netfilter| {
            let present = nft::elements(netfilter, table).during("read nftables table", table)?.unwrap_or_default();
            let present: HashSet<Element> = present.into_iter().collect();
            let wanted: HashSet<Element> = wanted.into_iter().collect();
            let stray: Vec<Element> = present.difference(&wanted).copied().collect();
            let missing: Vec<Element> = wanted.difference(&present).copied().collect();
            nft::change(netfilter, table, &stray, &missing).during("change nftables table", table)
        })
    }

    /// Takes back everything a dead container holds: elements, port claims, addresses. Reads whole directories: for
    /// healing.
    pub fn forget(&self, owner: &ContainerId) -> Result<(), NetworkError> {
        let ports = self.claims.ports()?.into_iter().filter(|(_, claim)| claim.owner == *owner);
        let mut addresses = self.leases_of(owner)?;
        let mut reserved = Vec::new();
        let mut published: Vec<(Ipv4Addr, RecordedPort)> = Vec::new();
        for (key, claim) in ports {
            let host = key.host.map(IpAddr::V4);
            let port = claim.target.map_or(0, |t| t.port());
            let entry = (host, key.port, PortSpec { port, protocol: key.protocol });
            match claim.target {
                Some(target) => published.push((*target.ip(), entry)),
                None => reserved.push(entry),
            }
        }
        addresses.extend(published.iter().map(|(address, _)| *address));
        addresses.sort();
        addresses.dedup();
        let mut first_error = self.release_ports(owner, &reserved).err();
        for address in addresses {
            let ports: Vec<_> = published.iter().filter(|(a, _)| *a == address).map(|(_, entry)| *entry).collect();
            for result in [self.unpublish(address, &ports), self.release(owner, address)] {
                first_error = first_error.or(result.err());
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn check_address(&self, address: Ipv4Addr) -> Result<(), NetworkError> {
        let subnet = self.subnet();
        if subnet.contains(address) { Ok(()) } else { Err(NetworkError::ForeignAddress { address, subnet }) }
    }
}

/// Forgets the UDP flows that end at this host itself, from before the ports were published. Flows that pass through to
/// the same port of other hosts are not ours.
fn forget_local_flows(keys: &[Key]) -> Result<(), NetworkError> {
    let mut connection = Connection::open(Protocol::Route).during("open", "netlink socket")?;
    let local = route::all_addresses(&mut connection).during("read", "the host's addresses")?;
    for key in keys {
        conntrack::forget(*key, |flow| {
            flow.answerer == flow.destination && (flow.destination.is_loopback() || local.contains(&flow.destination))
        })
        .during("forget flows to port", key.port)?;
    }
    Ok(())
}
