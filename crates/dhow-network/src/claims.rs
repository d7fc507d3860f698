//! Who has which address and which host port: symbolic links in the run directory.
//!
//! A link is made or replaced in one step, needs no parser that a torn write could confuse, and is gone after a reboot,
//! as the kernel's state is. The layout is described in docs/formats/network.md.

use crate::error::{NetworkError, PathContext};
use crate::nft::Key;
use dhow_sys::lock::FileLock;
use dhow_types::{ContainerId, PortProtocol};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// The claims of one bridge.
#[derive(Debug)]
pub(crate) struct Claims {
    dir: PathBuf,
}

/// Who has a host port, and where it leads once it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortClaim {
    /// The container.
    pub owner: ContainerId,
    /// Container address and port; `None` while only reserved.
    pub target: Option<SocketAddrV4>,
}

impl PortClaim {
    fn text(&self) -> String {
        match self.target {
            Some(target) => format!("{}@{target}", self.owner),
            None => self.owner.to_string(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.split_once('@') {
            Some((owner, target)) => Some(Self { owner: owner.parse().ok()?, target: Some(target.parse().ok()?) }),
            None => Some(Self { owner: text.parse().ok()?, target: None }),
        }
    }
}

/// File name of a port claim.
fn port_name(key: Key) -> String {
    format!("{}-{}-{}", key.protocol.name(), key.host.unwrap_or(Ipv4Addr::UNSPECIFIED), key.port)
}

fn parse_port_name(name: &OsStr) -> Option<Key> {
    let mut parts = name.to_str()?.splitn(3, '-');
    let protocol = PortProtocol::from_name(parts.next()?)?;
    let host: Ipv4Addr = parts.next()?.parse().ok()?;
    let port = parts.next()?.parse().ok()?;
    Some(Key { host: Some(host).filter(|h| !h.is_unspecified()), protocol, port })
}

impl Claims {
    /// The claims in a directory that may not exist yet.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Whether the directory is there; it is not after a reboot.
    pub fn exist(&self) -> bool {
        self.ip_dir().is_dir()
    }

    /// Makes the directory. The address directory comes last: it is what [`Claims::exist`] looks at.
    pub fn create(&self) -> Result<(), NetworkError> {
        for dir in [self.port_dir(), self.ip_dir()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).on("create", &dir)?;
        }
        Ok(())
    }

    /// The directory of everything that belongs to this bridge and dies with a reboot.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn ip_dir(&self) -> PathBuf {
        self.dir.join("ip")
    }

    fn port_dir(&self) -> PathBuf {
        self.dir.join("port")
    }

    /// Takes the lock under which rules, map elements and targets of claims change together.
    pub fn lock(&self) -> Result<FileLock, NetworkError> {
        self.lock_file("lock")
    }

    /// Waits for the lock on a file in the directory.
    pub fn lock_file(&self, name: &str) -> Result<FileLock, NetworkError> {
        let path = self.dir.join(name);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).on("open", &path)?;
        FileLock::acquire(file).on("lock", &path)
    }

    /// Claims an address; `false` if it is taken.
    pub fn claim_address(&self, address: Ipv4Addr, owner: &ContainerId) -> Result<bool, NetworkError> {
        create_link(owner.as_str(), &self.ip_dir().join(address.to_string()))
    }

    /// Who has an address.
    pub fn address_owner(&self, address: Ipv4Addr) -> Result<Option<ContainerId>, NetworkError> {
        Ok(read_link(&self.ip_dir().join(address.to_string()))?.and_then(|text| text.parse().ok()))
    }

    /// Gives an address back, if it is the owner's.
    pub fn release_address(&self, address: Ipv4Addr, owner: &ContainerId) -> Result<(), NetworkError> {
        if self.address_owner(address)?.as_ref() == Some(owner) {
            remove(&self.ip_dir().join(address.to_string()))?;
        }
        Ok(())
    }

    /// All addresses and their owners. Reads a directory: for healing.
    pub fn addresses(&self) -> Result<Vec<(Ipv4Addr, ContainerId)>, NetworkError> {
        let mut found = Vec::new();
        for (name, text) in list(&self.ip_dir())? {
            if let (Some(address), Ok(owner)) = (name.to_str().and_then(|n| n.parse().ok()), text.parse()) {
                found.push((address, owner));
            }
        }
        Ok(found)
    }

    /// Claims a port; `false` if it is taken.
    pub fn claim_port(&self, key: Key, owner: &ContainerId) -> Result<bool, NetworkError> {
        create_link(owner.as_str(), &self.port_dir().join(port_name(key)))
    }

    /// Who has a port.
    pub fn port(&self, key: Key) -> Result<Option<PortClaim>, NetworkError> {
        Ok(read_link(&self.port_dir().join(port_name(key)))?.and_then(|text| PortClaim::parse(&text)))
    }

    /// Replaces the claim of a port. The caller holds the lock.
    pub fn set_port(&self, key: Key, claim: &PortClaim) -> Result<(), NetworkError> {
        let path = self.port_dir().join(port_name(key));
        let staged = self.port_dir().join(".new");
        if !create_link(&claim.text(), &staged)? {
            // Left by a holder of the lock that was killed.
            remove(&staged)?;
            create_link(&claim.text(), &staged)?;
        }
        std::fs::rename(&staged, &path).on("replace", &path)
    }

    /// Gives a port back, whoever has it.
    pub fn remove_port(&self, key: Key) -> Result<(), NetworkError> {
        remove(&self.port_dir().join(port_name(key)))
    }

    /// All ports and their claims. Reads a directory: for healing and for errors.
    pub fn ports(&self) -> Result<Vec<(Key, PortClaim)>, NetworkError> {
        let mut found = Vec::new();
        for (name, text) in list(&self.port_dir())? {
            if let (Some(key), Some(claim)) = (parse_port_name(&name), PortClaim::parse(&text)) {
                found.push((key, claim));
            }
        }
        Ok(found)
    }
}

fn create_link(text: &str, path: &Path) -> Result<bool, NetworkError> {
    match symlink(text, path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e).on("create", path),
    }
}

fn read_link(path: &Path) -> Result<Option<String>, NetworkError> {
    match std::fs::read_link(path) {
        Ok(text) => Ok(text.into_os_string().into_string().ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).on("read", path),
    }
}

fn remove(path: &Path) -> Result<(), NetworkError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).on("remove", path),
        _ => Ok(()),
    }
}

/// Names and texts of all links; one that vanishes meanwhile is left out.
fn list(dir: &Path) -> Result<Vec<(std::ffi::OsString, String)>, NetworkError> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(e).on("read", dir),
    };
    for entry in entries {
        let entry = entry.on("read", dir)?;
        if let Some(text) = read_link(&entry.path())? {
            found.push((entry.file_name(), text));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claims() -> (tempfile::TempDir, Claims) {
        let dir = tempfile::tempdir().unwrap();
        let claims = Claims::at(dir.path().join("net/dhow0"));
        assert!(!claims.exist());
        claims.create().unwrap();
        assert!(claims.exist());
        (dir, claims)
    }

    fn id(n: u8) -> ContainerId {
        ContainerId::from_random([n; 32])
    }

    #[test]
    fn an_address_has_one_owner() {
        let (_dir, claims) = claims();
        let address = Ipv4Addr::new(172, 17, 0, 2);
        assert!(claims.claim_address(address, &id(1)).unwrap());
        assert!(!claims.claim_address(address, &id(2)).unwrap());
        claims.release_address(address, &id(2)).unwrap();
        assert_eq!(claims.address_owner(address).unwrap(), Some(id(1)));
        assert_eq!(claims.addresses().unwrap(), [(address, id(1))]);
        claims.release_address(address, &id(1)).unwrap();
        claims.release_address(address, &id(1)).unwrap();
        assert_eq!(claims.address_owner(address).unwrap(), None);
    }

    #[test]
    fn a_port_claim_is_replaced_in_one_step() {
        let (_dir, claims) = claims();
        let key = Key { host: None, protocol: PortProtocol::Tcp, port: 8080 };
        assert!(claims.claim_port(key, &id(1)).unwrap());
        assert!(!claims.claim_port(key, &id(2)).unwrap());
        let claim = PortClaim { owner: id(2), target: Some("172.17.0.2:80".parse().unwrap()) };
        // What a killed predecessor leaves behind is no obstacle, and no claim.
        symlink("rubbish", claims.port_dir().join(".new")).unwrap();
        assert_eq!(claims.ports().unwrap().len(), 1);
        claims.set_port(key, &claim).unwrap();
        assert_eq!(claims.port(key).unwrap(), Some(claim.clone()));
        assert_eq!(claims.ports().unwrap(), [(key, claim)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn names_round_trip(host in proptest::option::of(1_u32..), port: u16, which in 0_usize..3) {
            let protocol = [PortProtocol::Tcp, PortProtocol::Udp, PortProtocol::Sctp][which];
            let key = Key { host: host.map(Ipv4Addr::from_bits), protocol, port };
            prop_assert_eq!(parse_port_name(OsStr::new(&port_name(key))), Some(key));
        }

        #[test]
        fn any_text_is_no_panic(text: String) {
            let _ = (PortClaim::parse(&text), parse_port_name(OsStr::new(&text)));
        }
    }
}
