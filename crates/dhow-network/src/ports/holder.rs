//! Finding the process that has a port, for an error text. Slow, best effort, and only on the way to an error.

use crate::error::HolderProcess;
use crate::nft::Key;
use dhow_types::PortProtocol;
use std::fs;
use std::net::Ipv4Addr;

/// The process that has a port open, if it can be found.
pub(super) fn find(key: Key) -> Option<HolderProcess> {
    let files: &[&str] = match key.protocol {
        PortProtocol::Tcp => &["tcp", "tcp6"],
        PortProtocol::Udp => &["udp", "udp6"],
        PortProtocol::Sctp => return None,
    };
    // /proc/net would be the namespace of the process' first thread.
    let inodes: Vec<u64> = files
        .iter()
        .filter_map(|file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).ok())
        .flat_map(|text| text.lines().filter_map(|line| inode_of(line, key)).collect::<Vec<_>>())
        .collect();
    owner_of(&inodes)
}

/// The socket's inode, if the line (proc_pid_net(5), `tcp`) is about the port: bound to a matching address, and for TCP
/// listening.
fn inode_of(line: &str, key: Key) -> Option<u64> {
    /// `TCP_LISTEN`
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().take(10).collect();
    let &[_, local, _, state, _, _, _, _, _, inode] = fields.as_slice() else { return None };
    let (address, port) = local.split_once(':')?;
    if u16::from_str_radix(port, 16).ok()? != key.port || (key.protocol == PortProtocol::Tcp && state != LISTEN) {
        return None;
    }
    // Words in native byte order; all zero is every address.
    let any = address.bytes().all(|b| b == b'0');
    let same = address.len() == 8
        && u32::from_str_radix(address, 16).is_ok_and(|word| Some(Ipv4Addr::from(word.to_ne_bytes())) == key.host);
    if any || same || key.host.is_none() { inode.parse().ok().filter(|&i| i != 0) } else { None }
}

/// The first process that has one of the sockets open.
fn owner_of(inodes: &[u64]) -> Option<HolderProcess> {
    if inodes.is_empty() {
        return None;
    }
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let found = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|link| wanted.iter().any(|w| link.as_os_str() == w.as_str()));
        if found {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = name.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            return Some(HolderProcess { pid, name });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100";
        let key =
            |host: Option<[u8; 4]>, port| Key { host: host.map(Ipv4Addr::from), protocol: PortProtocol::Tcp, port };
        assert_eq!(inode_of(line, key(Some([127, 0, 0, 1]), 8080)), Some(4711));
        assert_eq!(inode_of(line, key(None, 8080)), Some(4711));
        assert_eq!(inode_of(line, key(Some([127, 0, 0, 2]), 8080)), None);
        assert_eq!(inode_of(line, key(None, 8081)), None);
        assert_eq!(inode_of(&line.replace(" 0A ", " 01 "), key(None, 8080)), None);
        let every = line.replace("0100007F", "00000000000000000000000000000000");
        assert_eq!(inode_of(&every, key(Some([10, 0, 0, 1]), 8080)), Some(4711));
        for rubbish in ["", "a", "0: x:y", "0: 0100007F:ZZZZ 0:0 0A 0 0 0 0 0 1"] {
            assert_eq!(inode_of(rubbish, key(None, 1)), None);
        }
    }

    #[test]
    fn this_process_is_found() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = find(Key { host: None, protocol: PortProtocol::Tcp, port }).unwrap();
        assert_eq!(found.pid, std::process::id());
    }
}
