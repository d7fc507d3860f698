//! Reserving, publishing and taking back.

use super::{HOST, LAN, World, ask, id, recorded, tcp};
use crate::NetworkError;
use dhow_types::{Categorized, ContainerId, PortBinding, PortProtocol, PortSpec};
use std::net::{IpAddr, Ipv4Addr, TcpListener};

fn elements(world: &World) -> usize {
    world.host.shell("nft list table inet dhow").matches(" : 172.17.0.").count()
}

#[test]
fn root_a_taken_port_names_its_holder() {
    let world = World::new();
    let bridge = world.host.run(|| world.bridge());
    let reserve = |n: u8, binding: PortBinding| world.host.run(|| bridge.reserve_ports(&id(n), &[binding]));
    let first = reserve(1, tcp(None, 8080, 80)).unwrap();
    assert_eq!((first[0].host_port, first[0].host_ip), (8080, None));
    let holder = |result: Result<_, NetworkError>| match result {
        Err(NetworkError::PortInUse { holder, .. }) => holder,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not in use"),
    };
    for clash in [None, Some([127, 0, 0, 1]), Some([0, 0, 0, 0]), Some(HOST.octets())] {
        assert_eq!(holder(reserve(2, tcp(clash, 8080, 81))), Some(id(1)), "{clash:?}");
    }
    let narrow = reserve(3, tcp(Some([127, 0, 0, 1]), 9090, 80)).unwrap();
    assert_eq!(holder(reserve(2, tcp(None, 9090, 81))), Some(id(3)));
    let beside = reserve(4, tcp(Some(HOST.octets()), 9090, 80)).unwrap();
    // Another protocol is another port.
    let mut udp = tcp(None, 8080, 53);
    udp.container.protocol = PortProtocol::Udp;
    let udp = reserve(2, udp).unwrap();
    // All or none: what came before the clash is given back.
    assert!(world.host.run(|| bridge.reserve_ports(&id(5), &[tcp(None, 8090, 80), tcp(None, 8080, 80)])).is_err());
    assert_eq!(holder(reserve(6, tcp(None, 8080, 80))), Some(id(1)));
    let again = reserve(6, tcp(None, 8090, 80)).unwrap();
    drop((first, narrow, beside, udp, again));
}

#[test]
fn root_a_process_that_has_the_port_is_named() {
    let world = World::new();
    let bridge = world.host.run(|| world.bridge());
    let _listener = world.host.run(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let error = world.host.run(|| bridge.reserve_ports(&id(1), &[tcp(None, 8080, 80)]).unwrap_err());
    assert!(error.to_string().ends_with("address already in use"), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains(&format!("process {}", std::process::id())), "{hint}");
}

#[test]
fn root_ranges_and_free_ports() {
    let world = World::new();
    let bridge = world.host.run(|| world.bridge());
    let _taken = world.host.run(|| TcpListener::bind("0.0.0.0:7000").unwrap());
    let range = PortBinding { host_ports: Some((7000, 7002)), ..tcp(None, 0, 80) };
    let reserve =
        |binding: &PortBinding| world.host.run(|| bridge.reserve_ports(&id(1), std::slice::from_ref(binding)));
    let a = reserve(&range).unwrap();
    let b = reserve(&range).unwrap();
    assert_eq!((a[0].host_port, b[0].host_port), (7001, 7002));
    let error = reserve(&range).unwrap_err();
    assert_eq!(error.to_string(), "no free port in 7000-7002/tcp on 0.0.0.0");
    let free = PortBinding { host_ports: None, ..range.clone() };
    world.host.shell("sysctl -qw net.ipv4.ip_local_port_range='40000 40100'");
    let c = reserve(&free).unwrap();
    assert!((40000..=40100).contains(&c[0].host_port));
    assert!(c[0].socket6.is_some());
    for (first, last) in [(5, 4), (0, 3)] {
        let bad = PortBinding { host_ports: Some((first, last)), ..range.clone() };
        assert!(matches!(reserve(&bad), Err(NetworkError::BadRange { .. })));
    }
    let elsewhere = tcp(Some([192, 0, 2, 1]), 8000, 80);
    assert!(matches!(reserve(&elsewhere), Err(NetworkError::NotLocal { .. })));
    let v6 = PortBinding { host_ip: Some("::1".parse().unwrap()), ..range };
    assert!(matches!(reserve(&v6), Err(NetworkError::Ipv6 { .. })));
}

#[test]
fn root_ports_are_taken_back() {
    let world = World::new();
    let web = world.container(1);
    let _server = web.serve(80);
    let ports = world.publish(&web, &[tcp(None, 8080, 80), tcp(Some([127, 0, 0, 1]), 8081, 80)]);
    assert_eq!(elements(&world), 2);
    let list = recorded(&ports);
    let take_back = || world.host.run(|| world.bridge().unpublish(web.lease.address, &list).unwrap());
    take_back();
    assert_eq!(elements(&world), 0);
    assert_eq!(ask(&world.lan, HOST, 8080), None);
    take_back();
    drop(ports);
    // What another container has by now stays.
    let other = world.container(2);
    let _other_server = other.serve(80);
    let _others = world.publish(&other, &[tcp(None, 8080, 80)]);
    take_back();
    assert_eq!(elements(&world), 1);
    assert_eq!(ask(&world.lan, HOST, 8080), Some(LAN));
    let error = world.host.run(|| world.bridge().reserve_ports(&id(3), &[tcp(None, 8080, 80)]).unwrap_err());
    assert!(matches!(error, NetworkError::PortInUse { holder: Some(h), .. } if h == other.id));
    // With the rules flushed there is nothing to delete, and no error.
    world.host.shell("nft flush ruleset");
    take_back();
}

/// A holder that was killed leaves claim and element behind; its socket is gone.
#[test]
fn root_a_dead_holder_is_no_obstacle() {
    let world = World::new();
    let dead = world.container(1);
    drop(world.publish(&dead, &[tcp(None, 8080, 80)]));
    let web = world.container(2);
    let _server = web.serve(80);
    let _ports = world.publish(&web, &[tcp(None, 8080, 80)]);
    assert_eq!(elements(&world), 1);
    assert_eq!(ask(&world.lan, HOST, 8080), Some(LAN));
    // The clean-up of the dead one comes late and changes nothing.
    let spec = PortSpec { port: 80, protocol: PortProtocol::Tcp };
    world.host.run(|| world.bridge().unpublish(dead.lease.address, &[(None, 8080, spec)]).unwrap());
    assert_eq!(ask(&world.lan, HOST, 8080), Some(LAN));
}

#[test]
fn root_forgetting_the_dead() {
    let world = World::new();
    let dead = world.container(1);
    let live = world.container(2);
    let _server = live.serve(80);
    drop(world.publish(&dead, &[tcp(None, 8080, 80), tcp(Some([127, 0, 0, 1]), 8081, 81)]));
    let reserved = world.host.run(|| world.bridge().reserve_ports(&dead.id, &[tcp(None, 8082, 80)]).unwrap());
    drop(reserved);
    let _ports = world.publish(&live, &[tcp(None, 9090, 80)]);
    let bridge = world.host.run(|| world.bridge());
    let mut owners: Vec<ContainerId> = vec![dead.id.clone(), live.id.clone()];
    owners.sort();
    assert_eq!(bridge.owners().unwrap(), owners);
    for _ in 0..2 {
        world.host.run(|| bridge.forget(&dead.id).unwrap());
        assert_eq!(bridge.owners().unwrap(), std::slice::from_ref(&live.id));
        assert_eq!(elements(&world), 1);
    }
    assert_eq!(ask(&world.lan, HOST, 9090), Some(LAN));
}

#[test]
fn root_sync_restores_and_sweeps() {
    let world = World::new();
    let web = world.container(1);
    let _server = web.serve(80);
    let ports = world.publish(&web, &[tcp(None, 8080, 80), tcp(Some([127, 0, 0, 1]), 8081, 80)]);
    let live = [(web.lease.address, recorded(&ports))];
    let listing = || world.host.shell("nft list table inet dhow");
    let before = listing();
    let sync = || world.host.run(|| world.bridge().sync_published(&live).unwrap());
    for damage in [
        "flush ruleset",
        "flush map inet dhow any",
        "delete element inet dhow bound { 127.0.0.1 . tcp . 8081 }",
        "add element inet dhow any { tcp . 1 : 172.17.9.9 . 1 }",
        "add element inet dhow any { sctp . 1 : 172.17.9.9 . 1 }",
    ] {
        world.host.shell(&format!("nft '{damage}'"));
        sync();
        assert_eq!(listing(), before, "{damage}");
    }
    // An element that leads elsewhere is put right.
    world.host.shell(
        "nft 'delete element inet dhow any { tcp . 8080 }; add element inet dhow any { tcp . 8080 : 172.17.9.9 . 1 }'",
    );
    sync();
    assert_eq!(listing(), before);
    // A start in progress, which the caller does not know of yet, is not disturbed.
    world.host.run(|| world.bridge().sync_published(&[]).unwrap());
    assert_eq!(listing(), before);
    let foreign = [(Ipv4Addr::new(8, 8, 8, 8), Vec::from([(None::<IpAddr>, 1, live[0].1[0].2)]))];
    assert!(world.host.run(|| world.bridge().sync_published(&foreign)).is_err());
}

#[test]
fn root_a_flush_before_publish_heals() {
    let world = World::new();
    let web = world.container(1);
    let _server = web.serve(80);
    world.host.shell("nft flush ruleset");
    let _ports = world.publish(&web, &[tcp(None, 8080, 80)]);
    assert_eq!(ask(&world.lan, HOST, 8080), Some(LAN));
}

#[test]
fn root_hundreds_of_ports() {
    let world = World::new();
    let web = world.container(1);
    let _server = web.serve(80);
    let bindings: Vec<PortBinding> = (0..700).map(|n| tcp(None, 10000 + n, 80)).collect();
    let ports = world.publish(&web, &bindings);
    assert_eq!(elements(&world), 700);
    assert_eq!(ask(&world.lan, HOST, 10699), Some(LAN));
    world.host.shell("nft flush ruleset");
    world.host.run(|| world.bridge().ensure().unwrap());
    assert_eq!(elements(&world), 700);
    world.host.run(|| world.bridge().unpublish(web.lease.address, &recorded(&ports)).unwrap());
    assert_eq!(elements(&world), 0);
}

/// Starts that get in each other's way: every one is served, and nothing is left of them.
#[test]
fn root_many_starts_at_once() {
    const STARTS: u8 = 24;
    let world = World::new();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let world = &world;
            scope.spawn(move || {
                for n in (0..STARTS).filter(|n| n % 4 == worker) {
                    world.host.run(|| world.bridge().ensure().unwrap());
                    let web = world.container(n);
                    let _server = web.serve(80);
                    let binding = PortBinding { host_ports: None, ..tcp(None, 0, 80) };
                    let ports = world.publish(&web, &[binding.clone(), binding]);
                    for port in &ports {
                        assert_eq!(ask(&world.lan, HOST, port.host_port), Some(LAN), "container {n}");
                    }
                    world.host.run(|| {
                        let bridge = world.bridge();
                        bridge.unpublish(web.lease.address, &recorded(&ports)).unwrap();
                        bridge.release(&web.id, web.lease.address).unwrap();
                    });
                }
            });
        }
    });
    assert_eq!(elements(&world), 0);
    assert_eq!(world.host.run(|| world.bridge().owners().unwrap()), Vec::<ContainerId>::new());
}
