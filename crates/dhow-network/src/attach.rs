//! Connecting a container: a veth pair between the bridge and the container's network namespace.
//!
//! There is no detaching: the pair dies with the namespace, in the kernel's own time. Deleting it would make the caller
//! wait 13 to 37 ms.

use crate::bridge::Bridge;
use crate::error::{Context, NetworkError};
use crate::lease::Lease;
use crate::net::Ipv4Net;
use crate::netlink::{Connection, NetlinkError};
use crate::route::{self, VethPair};
use dhow_sys::netlink::Protocol;
use dhow_types::ContainerId;
use rustix::io::Errno;
use std::time::Duration;

/// Name of the link inside a container.
const INSIDE: &str = "eth0";

/// Names that the host's end may have, in the order they are tried. The first is taken as a rule; the others are for a
/// container that starts again within the 30 ms in which its last link is still dying.
pub(crate) fn link_names(owner: &ContainerId) -> impl Iterator<Item = String> + use<> {
    let id = owner.as_str().get(..8).unwrap_or_default().to_owned();
    ["", "a", "b", "c", "d", "e"].into_iter().map(move |suffix| format!("veth{id}{suffix}"))
}

impl Bridge {
    /// Connects a container: makes the veth pair, one end on the bridge and up, the other as `eth0` in the network
    /// namespace of `pid`. Called in the host's namespace; the container then calls [`configure_inside`].
    pub fn attach(&self, pid: u32, lease: &Lease, owner: &ContainerId) -> Result<(), NetworkError> {
        let mut connection = Connection::open(Protocol::Route).during("open", "netlink socket")?;
        let link = match self.link(&mut connection)? {
            Some(link) => link,
            None => {
                self.ensure()?;
                self.link(&mut connection)?.ok_or(NetworkError::NoDevice("the bridge"))?
            }
        };
        let mut names = link_names(owner).peekable();
        while let Some(name) = names.next() {
            let pair = VethPair {
                name: &name,
                bridge: link.index,
                mtu: link.mtu,
                peer_pid: pid,
                peer_name: INSIDE,
                peer_mac: lease.mac,
            };
            match route::create_veth(&mut connection, &pair) {
                // The last start's link is still dying: see `link_names`.
                Err(e) if e.is(Errno::EXIST) && names.peek().is_some() => {}
                other => return other.during("create network device", &name),
            }
        }
        Err(NetworkError::NoDevice("a free name"))
    }
}

/// Configures the network namespace of the calling thread for a lease: `lo` up, address on `eth0`, `eth0` up, default
/// route. One message to the kernel.
pub fn configure_inside(lease: &Lease) -> Result<(), NetworkError> {
    let mut connection = Connection::open(Protocol::Route).during("open", "netlink socket")?;
    let index_of = |name| route::index_of(&connection, name).ok_or(NetworkError::NoDevice(name));
    let (lo, eth0) = (index_of("lo")?, index_of(INSIDE)?);
    let subnet = Ipv4Net::containing(lease.address, lease.prefix_len.min(32));
    let subnet = subnet.ok_or(NetworkError::NoDevice(INSIDE))?;
    let mut batch = connection.batch();
    route::push_up(&mut batch, lo);
    route::push_address(&mut batch, eth0, lease.address, subnet);
    route::push_up(&mut batch, eth0);
    route::push_default_route(&mut batch, lease.gateway, eth0);
    connection.transact(batch).during("configure network device", INSIDE)?;
    settle(&mut connection, eth0).during("look up network device", INSIDE)
}

/// Waits until packets flow between the container and the bridge.
///
/// That a link has come up is noticed by the kernel's link watch, in a worker. Only then does the bridge open the port,
/// and only then does a bridge that had no ports itself send anything. What a program sends before is lost, and it sends
/// again after a whole second. From Linux 6.8 a question about a link makes the kernel notice at once; before, a few
/// tries are enough, and more are not worth it.
fn settle(connection: &mut Connection, eth0: u32) -> Result<(), NetlinkError> {
    const TRIES: u32 = 20;
    const PAUSE: Duration = Duration::from_micros(250);
    // The far end is in the host's namespace, which has a number here since this question.
    let Some((host, far)) = route::link_by_index(connection, eth0)?.and_then(|link| link.peer) else { return Ok(()) };
    for _ in 0..TRIES {
        // Not allowed to look there: better an unsure start than none.
        let Ok(port) = route::link_in(connection, host, far) else { break };
        let bridge = port.master.and_then(|bridge| route::link_in(connection, host, bridge).ok());
        if port.operational && bridge.is_none_or(|bridge| bridge.operational) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Brings `lo` up in the network namespace of the calling thread.
pub fn loopback_up() -> Result<(), NetworkError> {
    let mut connection = Connection::open(Protocol::Route).during("open", "netlink socket")?;
    let lo = route::index_of(&connection, "lo").ok_or(NetworkError::NoDevice("lo"))?;
    let mut batch = connection.batch();
    route::push_up(&mut batch, lo);
    connection.transact(batch).during("configure network device", "lo")
}
