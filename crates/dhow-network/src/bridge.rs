//! The default bridge: opening it, and bringing the kernel's side of it into being.
//!
//! Holds no state of its own between calls: the record says which subnet, the kernel says what is there.

use crate::claims::Claims;
use crate::error::{Context, NetworkError};
use crate::net::Ipv4Net;
use crate::netlink::Connection;
use crate::nft::{self, Element, Parameters};
use crate::{route, subnet, sysctl};
use dhow_sys::netlink::Protocol;
use rustix::io::Errno;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Names that the bridge goes by in the kernel. Another run root gets other names, so that two installations on one host
/// do not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeNames {
    /// Link, at most 15 characters.
    pub bridge: String,
    /// nftables table (family `inet`).
    pub table: String,
}

/// The bridge network.
#[derive(Debug)]
pub struct Bridge {
    pub(crate) parameters: Parameters,
    pub(crate) claims: Claims,
    gateway: Ipv4Addr,
    /// Kept open: closing a netfilter socket waits until the kernel has destroyed what anybody deleted a moment ago,
    /// 8 to 11 ms. The process that keeps it pays at its own end, when nobody waits for it.
    netfilter: Mutex<Option<Connection>>,
}

/// What [`Bridge::ensure`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    rules: bool,
    link: bool,
    forwarding: bool,
}

impl Condition {
    const GOOD: Self = Self { rules: true, link: true, forwarding: true };
}

impl Bridge {
    /// Reads the record of the bridge, or chooses a subnet that overlaps no route of the host and records it.
    ///
    /// Touches no kernel state. On the first call after a boot a recorded subnet that has come to overlap a route is
    /// replaced.
    pub fn open(root: &Path, run_root: &Path, names: &BridgeNames) -> Result<Self, NetworkError> {
        check_name(&names.bridge, 15)?; // IFNAMSIZ
        check_name(&names.table, 64)?;
        let claims = Claims::at(run_root.join("net").join(&names.bridge));
        let fresh = !claims.exist();
        let net = match subnet::load(root)? {
            Some(net) if !fresh => net,
            _ => subnet::choose(root, &names.bridge, fresh, || claims.create())?,
        };
        let gateway = net.nth(1).ok_or(NetworkError::NoSubnet)?;
        let parameters = Parameters { table: names.table.clone(), bridge: names.bridge.clone(), subnet: net };
        Ok(Self { parameters, claims, gateway, netfilter: Mutex::new(None) })
    }

    /// The subnet.
    pub fn subnet(&self) -> Ipv4Net {
        self.parameters.subnet
    }

    /// The host's address in the subnet: the containers' gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The name of the link.
    pub fn name(&self) -> &str {
        &self.parameters.bridge
    }

    /// Makes the bridge, its address, forwarding and the rules, as far as they are missing. Published ports that a flush
    /// of the rules took away come back.
    ///
    /// When all is there this costs three small questions to the kernel.
    pub fn ensure(&self) -> Result<(), NetworkError> {
        if self.condition()? == Condition::GOOD {
            return Ok(());
        }
        let _lock = self.claims.lock()?;
        // Another process may have done it while this one waited for the lock.
        let condition = self.condition()?;
        // Rules first: there is no moment with a bridge that is not guarded.
        if !condition.rules {
            self.install_rules()?;
        }
        if !condition.link {
            self.make_link()?;
        }
        if !condition.forwarding {
            // For the whole host, because answers to containers come in through any interface. 1 is left alone, and so
            // are the policies of other tables: a host that was a router stays the same router.
            sysctl::write("ipv4/ip_forward", "1")?;
        }
        Ok(())
    }

    fn condition(&self) -> Result<Condition, NetworkError> {
        let rules = self.with_netfilter(|netfilter| {
            nft::intact(netfilter, &self.parameters).during("read nftables table", self.table())
        })?;
        Ok(Condition { rules, link: self.link_is_good()?, forwarding: sysctl::read("ipv4/ip_forward")?.trim() != "0" })
    }

    fn link_is_good(&self) -> Result<bool, NetworkError> {
        let mut connection = Connection::open(Protocol::Route).during("open", "netlink socket")?;
        let Some(link) = self.link(&mut connection)? else { return Ok(false) };
        let addresses = route::addresses(&mut connection, link.index).during("read addresses of", self.name())?;
        Ok(link.up && addresses.contains(&(self.gateway, self.subnet().prefix_len())))
    }

    /// The bridge's link, if it is there.
    pub(crate) fn link(&self, connection: &mut Connection) -> Result<Option<route::Link>, NetworkError> {
        let link = route::link_by_name(connection, self.name()).during("look up network device", self.name())?;
        if let Some(kind) = link.as_ref().map(|l| &l.kind).filter(|k| k.as_deref() != Some("bridge")) {
            let kind = kind.clone().unwrap_or_else(|| "hardware".to_owned());
            return Err(NetworkError::NotABridge { name: self.name().to_owned(), kind });
        }
        Ok(link)
    }

    pub(crate) fn table(&self) -> &str {
        &self.parameters.table
    }

    /// Makes the table with every port that is claimed as published. The caller holds the lock.
    pub(crate) fn install_rules(&self) -> Result<(), NetworkError> {
        let elements: Vec<Element> = self.claimed_elements()?;
        self.with_netfilter(|netfilter| {
            nft::install(netfilter, &self.parameters, &elements).during("create nftables table", self.table())
        })
    }

    /// Lends the connection to nf_tables. Not to be nested: the inner call would open and close one of its own.
    pub(crate) fn with_netfilter<T>(
        &self,
        f: impl FnOnce(&mut Connection) -> Result<T, NetworkError>,
    ) -> Result<T, NetworkError> {
        // A panic between these lines leaves no connection, never a broken one.
        let kept = self.netfilter.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut connection = match kept {
            Some(connection) => connection,
            None => nft::connect().during("open", "netfilter socket")?,
        };
        let result = f(&mut connection);
        connection.rest();
        *self.netfilter.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        result
    }

    pub(crate) fn claimed_elements(&self) -> Result<Vec<Element>, NetworkError> {
        let ports = self.claims.ports()?;
        Ok(ports.into_iter().filter_map(|(key, claim)| Some(Element { key, target: claim.target? })).collect())
    }

    /// Makes the link, or completes what is there. The caller holds the lock.
    fn make_link(&self) -> Result<(), NetworkError> {
        let name = self.name();
        let mut connection = Connection::open(Protocol::Route).during("open", "netlink socket")?;
        let existing = self.link(&mut connection)?;
        let index = match &existing {
            Some(link) => link.index,
            None => {
                let mtu = uplink_mtu(&mut connection);
                let [a, b, c, d] = self.gateway.octets();
                match route::create_bridge(&mut connection, name, [0x02, 0x42, a, b, c, d], mtu) {
                    Err(e) if !e.is(Errno::EXIST) => return Err(e).during("create bridge", name),
                    _ => {}
                }
                self.link(&mut connection)?.map(|l| l.index).ok_or(NetworkError::NoDevice("the bridge"))?
            }
        };
        // The host needs no IPv6 address in a network that has no IPv6, and takes no router's word from it (N04).
        for (key, value) in [("accept_ra", "0"), ("disable_ipv6", "1")] {
            sysctl::write_if_present(&format!("ipv6/conf/{name}/{key}"), value)?;
        }
        let mut batch = connection.batch();
        route::push_address(&mut batch, index, self.gateway, self.subnet());
        route::push_up(&mut batch, index);
        connection.transact(batch).during("set up bridge", name)?;
        if existing.is_none() {
            self.reconnect(&mut connection, index)?;
        }
        // Asked for, the kernel notices at once that the link is up: see `attach::settle`.
        route::link_by_index(&mut connection, index).during("look up network device", name)?;
        Ok(())
    }

    /// Takes the bridge and its rules out of the kernel: for an uninstallation, or a run root that is given up. Refuses
    /// while a container holds an address or a port. The records stay, and the next [`Bridge::ensure`] makes it all anew.
    pub fn dismantle(&self) -> Result<(), NetworkError> {
        let _lock = self.claims.lock()?;
        let containers = self.owners()?.len();
        if containers > 0 {
            return Err(NetworkError::InUse { name: self.name().to_owned(), containers });
        }
        let mut connection = Connection::open(Protocol::Route).during("open", "netlink socket")?;
        // The link first: there is no moment with a bridge that is not guarded.
        if let Some(link) = self.link(&mut connection)? {
            route::delete_link(&mut connection, link.index).during("delete bridge", self.name())?;
        }
        self.with_netfilter(|netfilter| {
            nft::remove(netfilter, self.table()).during("delete nftables table", self.table())
        })
    }

    /// Puts running containers back on a bridge that was deleted under them.
    fn reconnect(&self, connection: &mut Connection, bridge: u32) -> Result<(), NetworkError> {
        for (_, owner) in self.claims.addresses()? {
            for name in crate::attach::link_names(&owner) {
                let link = route::link_by_name(connection, &name).during("look up network device", &name)?;
                if let Some(link) = link.filter(|l| l.kind.as_deref() == Some("veth")) {
                    let mut batch = connection.batch();
                    route::push_master(&mut batch, link.index, bridge);
                    route::push_hairpin(&mut batch, &name);
                    connection.transact(batch).during("reconnect network device", &name)?;
                    route::link_by_index(connection, link.index).during("look up network device", &name)?;
                }
            }
        }
        if self.claims.ports()?.iter().any(|(_, claim)| claim.target.is_some()) {
            self.allow_loopback()?;
        }
        Ok(())
    }

    /// Lets the host's loopback addresses be a source on this bridge, which a connection to a port published on 127.0.0.1
    /// needs. Turned on by the first published port and not before; the `guard` chain keeps the other direction shut.
    pub(crate) fn allow_loopback(&self) -> Result<(), NetworkError> {
        let key = format!("ipv4/conf/{}/route_localnet", self.name());
        if sysctl::read(&key)?.trim() != "1" {
            sysctl::write(&key, "1")?;
        }
        Ok(())
    }
}

/// MTU of the link that the default route takes, at most 1500: a larger one inside would lose packets in silence.
fn uplink_mtu(connection: &mut Connection) -> u32 {
    const ETHERNET: u32 = 1500;
    /// What every IPv4 host must take (RFC 791).
    const SMALLEST: u32 = 576;
    let default = route::routes(connection).unwrap_or_default().into_iter().filter(|r| r.net.prefix_len() == 0);
    let links: Vec<u32> = default.filter_map(|r| r.link).collect();
    let mtus = links.into_iter().filter_map(|l| route::link_by_index(connection, l).ok().flatten()).map(|l| l.mtu);
    mtus.min().unwrap_or(ETHERNET).clamp(SMALLEST, ETHERNET)
}

fn check_name(name: &str, longest: usize) -> Result<(), NetworkError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > longest || name.starts_with('-') || !name.bytes().all(good) {
        return Err(NetworkError::BadName(name.chars().take(80).collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_place() {
        for bad in ["", "-a", "a/b", "..", "a b", "a.b", "sixteen-letters-", "a\n", "a\""] {
            assert!(check_name(bad, 15).is_err(), "{bad:?}");
        }
        for good in ["dhow0", "dhow-1a2b3c4d", "d_1"] {
            assert!(check_name(good, 15).is_ok(), "{good:?}");
        }
    }
}
