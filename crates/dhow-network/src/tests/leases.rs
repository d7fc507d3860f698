//! Addresses. No rights needed: nothing in the kernel is changed.

use super::{id, names};
use crate::{Bridge, NetworkError};
use std::collections::HashSet;
use std::path::Path;

fn bridge_with(dir: &Path, subnet: &str) -> Bridge {
    let networks = dir.join("root/networks");
    std::fs::create_dir_all(&networks).unwrap();
    std::fs::write(networks.join("bridge.json"), format!(r#"{{"version":1,"subnet":"{subnet}"}}"#)).unwrap();
    // Not the first call since the boot: the record is taken as it is.
    std::fs::create_dir_all(dir.join("run/net/dhow0/ip")).unwrap();
    std::fs::create_dir_all(dir.join("run/net/dhow0/port")).unwrap();
    Bridge::open(&dir.join("root"), &dir.join("run"), &names()).unwrap()
}

#[test]
fn addresses_do_not_come_back_soon() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = bridge_with(dir.path(), "172.30.0.0/28");
    let lease = bridge.allocate(&id(1)).unwrap();
    assert_eq!(lease.address.octets(), [172, 30, 0, 2]);
    assert_eq!((lease.prefix_len, lease.gateway.octets(), lease.bridge.as_str()), (28, [172, 30, 0, 1], "dhow0"));
    assert_eq!(lease.mac[0] & 3, 2, "locally administered, unicast");
    bridge.release(&id(1), lease.address).unwrap();
    bridge.release(&id(1), lease.address).unwrap();
    let seen: Vec<u8> = (0..13)
        .map(|_| {
            let lease = bridge.allocate(&id(2)).unwrap();
            bridge.release(&id(2), lease.address).unwrap();
            lease.address.octets()[3]
        })
        .collect();
    assert_eq!(seen, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 2], "neither .0, .1 nor .15");
}

#[test]
fn a_full_subnet_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = bridge_with(dir.path(), "10.7.0.0/29");
    for n in 0..5 {
        bridge.allocate(&id(n)).unwrap();
    }
    let error = bridge.allocate(&id(9)).unwrap_err();
    assert!(matches!(error, NetworkError::SubnetFull { .. }));
    assert_eq!(error.to_string(), "no free address in 10.7.0.0/29");
    let given = bridge.leases_of(&id(3)).unwrap();
    assert_eq!(given.len(), 1);
    // Only the owner gives an address back.
    bridge.release(&id(4), given[0]).unwrap();
    assert!(bridge.allocate(&id(9)).is_err());
    bridge.release(&id(3), given[0]).unwrap();
    assert_eq!(bridge.allocate(&id(9)).unwrap().address, given[0]);
    assert_eq!(bridge.owners().unwrap().len(), 5);
}

#[test]
fn a_damaged_pointer_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = bridge_with(dir.path(), "172.30.0.0/16");
    bridge.allocate(&id(1)).unwrap();
    for rubbish in [&b"\xff\xff"[..], b"", b"1.2.3.4", b"172.30.0.0", b"172.30.255.255 and more than fits"] {
        std::fs::write(dir.path().join("run/net/dhow0/next"), rubbish).unwrap();
        let address = bridge.allocate(&id(2)).unwrap().address;
        assert!(bridge.subnet().contains(address) && address.octets() != [172, 30, 255, 255], "{address}");
    }
}

#[test]
fn many_at_once_get_one_each() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = bridge_with(dir.path(), "172.30.0.0/16");
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let bridge = &bridge;
                scope.spawn(move || (0..25).map(|_| bridge.allocate(&id(n)).unwrap().address).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 200);
    assert_eq!(bridge.leases_of(&id(3)).unwrap().len(), 25);
}

#[test]
fn records_of_the_future_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    bridge_with(dir.path(), "172.30.0.0/16");
    std::fs::write(dir.path().join("root/networks/bridge.json"), r#"{"version":9,"subnet":"x"}"#).unwrap();
    let error = Bridge::open(&dir.path().join("root"), &dir.path().join("run"), &names()).unwrap_err();
    assert!(error.to_string().contains("version 9"), "{error}");
}
