//! Publishing: the map elements that carry the traffic of reserved ports.

use super::{ReservedPort, conntrack, key};
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
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// Published ports of one container, as its record has them: host address, host port, container port.
type Ports = [(Option<IpAddr>, u16, PortSpec)];

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
        let mut netfilter = nft::connect().during("open", "netfilter socket")?;
        match nft::change(&mut netfilter, table, &[], elements) {
            // Somebody flushed the rules after `ensure`.
            Err(e) if e.is(Errno::NOENT) => return self.install_rules(),
            // A port still leads to where it led before its holder died.
            Err(e) if e.is(Errno::EXIST) || e.is(Errno::BUSY) => {}
            other => return other.during("change nftables table", table),
        }
        let present = nft::elements(&mut netfilter, table).during("read nftables table", table)?.unwrap_or_default();
        let stale: Vec<Element> =
            present.into_iter().filter(|p| elements.iter().any(|e| e.key == p.key && e.target != p.target)).collect();
        nft::change(&mut netfilter, table, &stale, elements).during("change nftables table", table)
    }

    /// Takes a container's ports back: map elements and claims. Ports that lead elsewhere by now are left alone, ports
    /// that are gone already are fine.
    ///
    /// Waits 8 to 11 ms for the kernel when the last descriptor of the netlink socket is closed: for the process that
    /// looks after the container, after it has told everybody that the container is gone.
    pub fn unpublish(&self, address: Ipv4Addr, ports: &Ports) -> Result<(), NetworkError> {
        if ports.is_empty() {
            return Ok(());
        }
        // Declared before the lock, so that the wait at its end does not make others wait too.
        let mut netfilter = nft::connect().during("open", "netfilter socket")?;
        let lock = self.claims.lock()?;
        let tenant = self.claims.address_owner(address)?;
        let mut elements = Vec::new();
        for (host_ip, port, spec) in ports {
            let Some(key) = key(*host_ip, *port, spec.protocol) else { continue };
            let target =
                nft::target_of(&mut netfilter, self.table(), key).during("read nftables table", self.table())?;
            if let Some(target) = target.filter(|t| *t.ip() == address) {
                elements.push(Element { key, target });
            }
            let ours = |claim: &PortClaim| match claim.target {
                Some(target) => *target.ip() == address,
                None => tenant.as_ref() == Some(&claim.owner),
            };
            if self.claims.port(key)?.is_some_and(|claim| ours(&claim)) {
                self.claims.remove_port(key)?;
            }
        }
        nft::change(&mut netfilter, self.table(), &elements, &[]).during("change nftables table", self.table())?;
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
    pub fn sync_published(
        &self,
        live: &[(Ipv4Addr, Vec<(Option<IpAddr>, u16, PortSpec)>)],
    ) -> Result<(), NetworkError> {
        self.ensure()?;
        let mut netfilter = nft::connect().during("open", "netfilter socket")?;
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
        for claimed in self.claimed_elements()? {
            if !wanted.iter().any(|w| w.key == claimed.key) {
                wanted.push(claimed);
            }
        }
        let table = self.table();
        let present = nft::elements(&mut netfilter, table).during("read nftables table", table)?.unwrap_or_default();
        let stray: Vec<Element> = present.iter().filter(|p| !wanted.contains(p)).copied().collect();
        let missing: Vec<Element> = wanted.into_iter().filter(|w| !present.contains(w)).collect();
        if !missing.is_empty() {
            self.allow_loopback()?;
        }
        nft::change(&mut netfilter, table, &stray, &missing).during("change nftables table", table)
    }

    /// Takes back everything a dead container holds: elements, port claims, addresses. Reads whole directories: for
    /// healing.
    pub fn forget(&self, owner: &ContainerId) -> Result<(), NetworkError> {
        let ports = self.claims.ports()?.into_iter().filter(|(_, claim)| claim.owner == *owner);
        let mut addresses = self.leases_of(owner)?;
        let mut reserved = Vec::new();
        let mut published: Vec<(Ipv4Addr, (Option<IpAddr>, u16, PortSpec))> = Vec::new();
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
