//! The choice of the bridge's subnet, and the record of it.
//!
//! Chosen once, so that addresses in people's firewalls and notes stay true; looked at again after a reboot, when no
//! container holds an address, because a network that overlaps a route of the host cuts the host off from it.

use crate::error::{Context, NetworkError, PathContext};
use crate::net::Ipv4Net;
use crate::netlink::Connection;
use crate::route;
use dhow_sys::lock::FileLock;
use dhow_sys::netlink::Protocol;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Version of the record that this program writes and reads.
const VERSION: u32 = 1;
/// Longest record that is read, in bytes.
const MAX_RECORD: u64 = 64 << 10;
/// Routes shorter than this say "everything" (VPNs split the default route in two or more) and overlap nothing in
/// particular.
const SHORTEST_ROUTE: u8 = 8;

/// `ROOT/networks/bridge.json`. Unknown fields are ignored; a newer version is refused.
#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    version: u32,
    subnet: String,
}

/// Reads the record; `None` if there is none yet.
pub(crate) fn load(root: &Path) -> Result<Option<Ipv4Net>, NetworkError> {
    let path = root.join("networks/bridge.json");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).on("open", &path),
    };
    let mut text = Vec::new();
    file.take(MAX_RECORD).read_to_end(&mut text).on("read", &path)?;
    parse(&text).map(Some).map_err(|reason| NetworkError::Record { path, reason })
}

fn parse(text: &[u8]) -> Result<Ipv4Net, String> {
    let record: Record = serde_json::from_slice(text).map_err(|e| format!("not a network record: {e}"))?;
    if record.version != VERSION {
        return Err(format!("version {} of the record is newer than this program", record.version));
    }
    let net: Ipv4Net = record.subnet.parse().map_err(|e| format!("{e}"))?;
    // A gateway, one container, and the two ends.
    if !(8..=29).contains(&net.prefix_len()) {
        return Err(format!("{net} cannot be used: the prefix must be 8 to 29 bits long"));
    }
    Ok(net)
}

/// Reads or chooses the subnet, and runs `then` before anybody else may choose.
///
/// `recheck`: no container is running, so a recorded subnet that overlaps a route may be replaced.
pub(crate) fn choose(
    root: &Path,
    bridge: &str,
    recheck: bool,
    then: impl FnOnce() -> Result<(), NetworkError>,
) -> Result<Ipv4Net, NetworkError> {
    let dir = root.join("networks");
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).on("create", &dir)?;
    let lock_path = dir.join("lock");
    let lock =
        File::options().read(true).write(true).create(true).truncate(false).open(&lock_path).on("open", &lock_path)?;
    let _lock = FileLock::acquire(lock).on("lock", &lock_path)?;
    let recorded = load(root)?;
    let net = match recorded {
        Some(net) if !recheck => net,
        recorded => {
            let taken = host_networks(bridge)?;
            let free = |net: &Ipv4Net| !taken.iter().any(|t| t.overlaps(*net));
            match recorded.filter(free).or_else(|| candidates().find(free)).or(recorded) {
                Some(net) => net,
                None => return Err(NetworkError::NoSubnet),
            }
        }
    };
    if recorded != Some(net) {
        store(&dir, net)?;
    }
    then()?;
    Ok(net)
}

/// What could be taken, best first: Docker's own, its pools, then smaller parts of the private ranges.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let b = (17..=31).map(|n| (Ipv4Addr::new(172, n, 0, 0), 16));
    let c = (0..=240).step_by(16).map(|n| (Ipv4Addr::new(192, 168, n, 0), 20));
    let a = (0..=255).rev().map(|n| (Ipv4Addr::new(10, n, 0, 0), 16));
    b.chain(c).chain(a).filter_map(|(address, length)| Ipv4Net::containing(address, length))
}

/// Every network that the host has a route to or an address in, the bridge's own left out.
fn host_networks(bridge: &str) -> Result<Vec<Ipv4Net>, NetworkError> {
    let mut connection = Connection::open(Protocol::Route).during("read", "the host's routes")?;
    let own = route::index_of(&connection, bridge);
    let routes = route::routes(&mut connection).during("read", "the host's routes")?;
    Ok(routes
        .into_iter()
        .filter(|r| r.net.prefix_len() >= SHORTEST_ROUTE && (own.is_none() || r.link != own))
        .map(|r| r.net)
        .collect())
}

fn store(dir: &Path, net: Ipv4Net) -> Result<(), NetworkError> {
    let (path, staged) = (dir.join("bridge.json"), dir.join("bridge.json.new"));
    let record = Record { version: VERSION, subnet: net.to_string() };
    let mut text = serde_json::to_vec(&record).map_err(io::Error::from).on("write", &staged)?;
    text.push(b'\n');
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&staged).on("create", &staged)?;
    file.write_all(&text).and_then(|()| file.sync_all()).on("write", &staged)?;
    std::fs::rename(&staged, &path).on("replace", &path)?;
    File::open(dir).and_then(|d| d.sync_all()).on("sync", dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        assert_eq!(parse(br#"{"version":1,"subnet":"172.17.0.0/16","x":1}"#).unwrap().to_string(), "172.17.0.0/16");
        for bad in [
            "",
            "{",
            r#"{"version":2,"subnet":"172.17.0.0/16"}"#,
            r#"{"version":1,"subnet":"172.17.0.1/16"}"#,
            r#"{"version":1,"subnet":"172.17.0.0/30"}"#,
            r#"{"version":1,"subnet":"0.0.0.0/0"}"#,
            r#"{"version":1}"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_order_of_candidates() {
        let all: Vec<_> = candidates().map(|n| n.to_string()).collect();
        assert_eq!(all[0], "172.17.0.0/16");
        assert_eq!(all[15], "192.168.0.0/20");
        assert_eq!(all[16], "192.168.16.0/20");
        assert_eq!(all.len(), 15 + 16 + 256);
        let nets: Vec<_> = candidates().collect();
        for (i, a) in nets.iter().enumerate() {
            assert!(nets[i + 1..].iter().all(|b| !a.overlaps(*b)));
        }
    }
}
