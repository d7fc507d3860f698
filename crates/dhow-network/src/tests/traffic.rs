//! Who reaches whom.

use super::{HOST, LAN, Server, World, ask, recorded, tcp, udp_socket};
use dhow_types::{PortBinding, PortProtocol, PortSpec};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn root_a_container_reaches_out() {
    let world = World::new();
    let app = world.container(1);
    let _lan = Server::start(&world.lan, 7000);
    let _host = Server::start(&world.host, 7001);
    // Off the host the host's address is seen, on it the container's.
    assert_eq!(ask(&app.namespace, LAN, 7000), Some(HOST));
    assert_eq!(ask(&app.namespace, app.lease.gateway, 7001), Some(app.lease.address));
    assert_eq!(ask(&app.namespace, HOST, 7001), Some(app.lease.address));
    // And a neighbour.
    let other = world.container(2);
    let _other = other.serve(80);
    assert_eq!(ask(&app.namespace, other.lease.address, 80), Some(app.lease.address));
}

#[test]
fn root_a_published_port_is_reached_from_everywhere() {
    let world = World::new();
    let web = world.container(1);
    let other = world.container(2);
    let _server = web.serve(80);
    let _ports = world.publish(&web, &[tcp(None, 8080, 80)]);
    let gateway = web.lease.gateway;
    // The host, by loopback, gateway and another address.
    assert_eq!(ask(&world.host, LOCALHOST, 8080), Some(gateway));
    assert_eq!(ask(&world.host, Ipv4Addr::new(127, 0, 0, 5), 8080), Some(gateway));
    assert_eq!(ask(&world.host, gateway, 8080), Some(gateway));
    assert_eq!(ask(&world.host, HOST, 8080), Some(HOST));
    // Another host is seen as itself.
    assert_eq!(ask(&world.lan, HOST, 8080), Some(LAN));
    // Another container, and the container itself.
    assert_eq!(ask(&other.namespace, gateway, 8080), Some(gateway));
    assert_eq!(ask(&other.namespace, HOST, 8080), Some(gateway));
    assert_eq!(ask(&web.namespace, gateway, 8080), Some(gateway));
    assert_eq!(ask(&web.namespace, HOST, 8080), Some(gateway));
    // With bridged frames shown to the rules (br_netfilter) or not.
    for shown in ["0", "1"] {
        world.host.try_shell(&format!("sysctl -qw net.bridge.bridge-nf-call-iptables={shown}"));
        assert_eq!(ask(&other.namespace, gateway, 8080), Some(gateway), "{shown}");
        assert_eq!(ask(&web.namespace, gateway, 8080), Some(gateway), "{shown}");
        assert_eq!(ask(&other.namespace, web.lease.address, 80), Some(other.lease.address), "{shown}");
    }
    // And nothing else.
    assert_eq!(ask(&world.host, LOCALHOST, 80), None);
    assert_eq!(ask(&world.lan, HOST, 80), None);
}

#[test]
fn root_what_is_not_published_is_not_reached() {
    let world = World::new();
    let web = world.container(1);
    let _server = web.serve(80);
    let _ports = world.publish(&web, &[tcp(None, 8080, 80)]);
    // The neighbour that knows the way gets no further; the host does, as a host must.
    world.lan.shell("ip route add 172.17.0.0/16 via 10.99.0.1");
    assert_eq!(ask(&world.lan, web.lease.address, 80), None);
    assert_eq!(ask(&world.lan, web.lease.address, 8080), None);
    assert_eq!(ask(&world.lan, HOST, 8080), Some(LAN));
    assert_eq!(ask(&world.host, web.lease.address, 80), Some(web.lease.gateway));
}

#[test]
fn root_a_bound_port_listens_on_its_address_alone() {
    let world = World::new();
    let web = world.container(1);
    let other = world.container(2);
    let _server = web.serve(80);
    let _ports = world.publish(&web, &[tcp(Some([127, 0, 0, 1]), 8081, 80), tcp(Some(HOST.octets()), 8082, 80)]);
    assert_eq!(ask(&world.host, LOCALHOST, 8081), Some(web.lease.gateway));
    for from in [&world.lan, &other.namespace, &world.host] {
        assert_eq!(ask(from, HOST, 8081), None);
        assert_eq!(ask(from, web.lease.gateway, 8081), None);
    }
    assert_eq!(ask(&world.lan, HOST, 8082), Some(LAN));
    assert_eq!(ask(&other.namespace, HOST, 8082), Some(web.lease.gateway));
    assert_eq!(ask(&world.host, LOCALHOST, 8082), None);
}

/// CVE-2020-8558, CVE-2025-54388: a neighbour sends to 127.0.0.1.
#[test]
fn root_loopback_is_not_for_neighbours() {
    let world = World::new();
    let web = world.container(1);
    let mallory = world.container(2);
    let _server = web.serve(80);
    let _host_service = Server::start(&world.host, 6379);
    let _ports = world.publish(&web, &[tcp(Some([127, 0, 0, 1]), 8081, 80)]);
    let aim = |gateway: Ipv4Addr| {
        format!(
            "ip address flush dev lo; sysctl -qw net.ipv4.conf.eth0.route_localnet=1; \
             ip route add 127.0.0.0/8 via {gateway} dev eth0"
        )
    };
    world.lan.shell(&aim(HOST));
    mallory.namespace.shell(&aim(mallory.lease.gateway));
    for from in [&world.lan, &mallory.namespace] {
        assert_eq!(ask(from, LOCALHOST, 8081), None);
        assert_eq!(ask(from, LOCALHOST, 6379), None);
    }
    // The attack is real: it is the guard that stops it.
    world.host.shell("nft flush chain inet dhow guard");
    assert_eq!(ask(&world.lan, LOCALHOST, 8081), Some(LAN));
    assert_eq!(ask(&mallory.namespace, LOCALHOST, 6379), Some(mallory.lease.address));
    world.host.run(|| world.bridge().ensure().unwrap());
    for from in [&world.lan, &mallory.namespace] {
        assert_eq!(ask(from, LOCALHOST, 8081), None);
        assert_eq!(ask(from, LOCALHOST, 6379), None);
    }
}

#[test]
fn root_a_container_speaks_for_itself_alone() {
    let world = World::new();
    let app = world.container(1);
    let probe = udp_socket(&world.lan, 5000);
    let send = |source: &str| {
        app.namespace.run(|| {
            let socket = UdpSocket::bind(source).unwrap();
            socket.send_to(b"x", (LAN, 5000)).unwrap();
        });
        let mut buffer = [0; 8];
        probe.recv_from(&mut buffer).ok().map(|(_, from)| from.ip())
    };
    assert_eq!(send("0.0.0.0:0"), Some(IpAddr::V4(HOST)));
    app.namespace.shell("ip address add 10.99.0.77/32 dev eth0");
    assert_eq!(send("10.99.0.77:0"), None);
}

#[test]
fn root_ipv6_from_containers_ends_at_the_bridge() {
    let world = World::new();
    let app = world.container(1);
    // The host has no address for it, and takes none of its router's advice.
    let addresses = world.host.shell("ip -6 address show dev dhow0");
    assert_eq!(addresses, "");
    app.namespace.shell("ip -6 address add fd00::2/64 dev eth0 nodad");
    world.host.shell("sysctl -qw net.ipv6.conf.dhow0.disable_ipv6=0; ip -6 address add fd00::1/64 dev dhow0 nodad");
    let (text, reached) = app.namespace.try_shell("ping -c 1 -W 1 fd00::1");
    assert!(!reached, "{text}");
}

fn udp(port: u16, container: u16) -> PortBinding {
    PortBinding {
        host_ip: None,
        host_ports: Some((port, port)),
        container: PortSpec { port: container, protocol: PortProtocol::Udp },
    }
}

/// A flow that was there before the port, or outlives its container, follows the port.
#[test]
fn root_udp_flows_follow_the_published_port() {
    let world = World::new();
    let client = udp_socket(&world.lan, 4000);
    let asked = |from: &UdpSocket| {
        from.send_to(b"?", (HOST, 5353)).unwrap();
        let mut buffer = [0; 16];
        from.recv_from(&mut buffer).ok().map(|(n, who)| (String::from_utf8_lossy(&buffer[..n]).into_owned(), who.ip()))
    };
    assert_eq!(asked(&client), None);
    for round in 1..=2 {
        let container = world.container(round);
        let server = udp_socket(&container.namespace, 53);
        let ports = world.publish(&container, &[udp(5353, 53)]);
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 16];
                if let Ok((_, client)) = server.recv_from(&mut buffer) {
                    server.send_to(format!("{round} {}", client.ip()).as_bytes(), client).unwrap();
                }
            });
            asked(&client)
        });
        // From the address the client sent to, and knowing the client's own.
        assert_eq!(answer, Some((format!("{round} {LAN}"), IpAddr::V4(HOST))));
        world.host.run(|| world.bridge().unpublish(container.lease.address, &recorded(&ports)).unwrap());
    }
    assert_eq!(asked(&client), None);
}

/// A program that sends at once must not wait a second for its second try.
#[test]
fn root_the_first_packet_arrives() {
    let world = World::new();
    let server = udp_socket(&world.host, 5001);
    for n in 0..20 {
        // Alone on the bridge, or beside the last one.
        let namespace = super::Namespace::new();
        let tid = namespace.tid;
        let lease = world.host.run(|| {
            let bridge = world.bridge();
            let lease = bridge.allocate(&super::id(n)).unwrap();
            bridge.attach(tid, &lease, &super::id(n)).unwrap();
            lease
        });
        namespace.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            crate::configure_inside(&lease).unwrap();
            socket.send_to(b"first", (lease.gateway, 5001)).unwrap();
        });
        let mut buffer = [0; 8];
        let got = server.recv_from(&mut buffer).map(|(_, from)| from.ip());
        assert_eq!(got.ok(), Some(IpAddr::V4(lease.address)), "container {n}");
    }
}
