//! Networks: addresses, published ports, shared and absent stacks.

use crate::{SOON, dhow, empty, lines};
use dhow_testkit::process::wait_for;
use dhow_testkit::{Dhow, NetNs};
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};

const ADDRESS: &str = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";

/// A container that answers every connection on its port 80 with its own name.
fn server(d: &Dhow, name: &str, options: &[&str]) -> String {
    let script = format!("while :; do echo {name} | nc -l -p 80 >/dev/null; done");
    d.ok(&[&["run", "-d", "--name", name], options, &["busybox", "sh", "-c", &script]].concat())
}

/// What a connection from `from` to this address reads.
fn ask(from: &NetNs, address: &str) -> Option<String> {
    from.enter(|| {
        let address: std::net::SocketAddr = address.parse().unwrap();
        let mut stream = TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(2))).ok()?;
        stream.shutdown(std::net::Shutdown::Write).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    })
}

fn answers(from: &NetNs, address: &str, expected: &str) {
    wait_for(&format!("{address} answers {expected}"), SOON, || ask(from, address).as_deref() == Some(expected));
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let d = dhow();
    let other = d.other_host();
    server(&d, "web", &["-p", "8080:80"]);
    answers(d.net(), "127.0.0.1:8080", "web");
    answers(d.net(), "10.77.0.1:8080", "web");
    answers(&other, "10.77.0.1:8080", "web");
    let direct = format!("{}:80", d.inspect("web", ADDRESS));
    answers(d.net(), &direct, "web");
    let out = d.ok(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8 9; do nc 10.77.0.1 8080 </dev/null && break; sleep 0.1; done",
    ]);
    assert_eq!(out, "web", "from another container by the host's address");
    assert_eq!(d.ok(&["port", "web"]).lines().next(), Some("80/tcp -> 0.0.0.0:8080"));
    let own = d.ok(&["exec", "web", "sh", "-c", "nc 10.77.0.1 8080 </dev/null || true"]);
    assert!(own.is_empty() || own == "web", "hairpin: the server serves one at a time");
}

#[test]
fn a_port_on_one_address_is_only_there() {
    let d = dhow();
    let other = d.other_host();
    server(&d, "web", &["-p", "127.0.0.1:8080:80"]);
    answers(d.net(), "127.0.0.1:8080", "web");
    assert_eq!(ask(&other, "10.77.0.1:8080"), None, "not from another host");
    assert_eq!(ask(d.net(), "10.77.0.1:8080"), None, "not on another address");
    // Somebody on the same cable routes to our loopback by hand: the kernel must not let that in.
    other.ip(&["route", "add", "127.0.0.2/32", "via", "10.77.0.1"]);
    assert_eq!(ask(&other, "127.0.0.2:8080"), None);
}

#[test]
fn ports_are_free_again_after_stop() {
    let d = dhow();
    server(&d, "web", &["-p", "8080:80"]);
    answers(d.net(), "127.0.0.1:8080", "web");
    d.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(ask(d.net(), "127.0.0.1:8080"), None);
    server(&d, "next", &["-p", "8080:80"]);
    answers(d.net(), "127.0.0.1:8080", "next");
    d.fails(&["start", "web"], 1, &["8080", "next"]);
    d.ok(&["rm", "-f", "next"]);
    d.ok(&["start", "web"]);
    answers(d.net(), "127.0.0.1:8080", "web");
}

#[test]
fn chosen_ports_and_all_ports() {
    let d = dhow();
    server(&d, "one", &["-p", "80"]);
    let port = d.ok(&["port", "one", "80"]);
    let number = port.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    answers(d.net(), &format!("127.0.0.1:{number}"), "one");
    server(&d, "all", &["-P", "--expose", "80"]);
    let number = d.ok(&["port", "all", "80/tcp"]).lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    answers(d.net(), &format!("127.0.0.1:{number}"), "all");
    server(&d, "range", &["-p", "9000-9005:80"]);
    answers(d.net(), "127.0.0.1:9000", "range");
}

#[test]
fn udp() {
    let d = dhow();
    d.background(&["--name", "c1", "-p", "5353:53/udp"], &["sleep", "100"]);
    let inside = NetNs::of(d.pid("c1"));
    let server = inside.enter(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    server.set_read_timeout(Some(SOON)).unwrap();
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((n, from)) = server.recv_from(&mut buffer) {
            server.send_to(&buffer[..n], from).unwrap();
            if &buffer[..n] == b"end" {
                break;
            }
        }
    });
    let other = d.other_host();
    let ask = |from: &NetNs, address: &str, text: &[u8]| {
        from.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
            socket.send_to(text, address).unwrap();
            let mut buffer = [0; 64];
            socket.recv(&mut buffer).is_ok_and(|n| &buffer[..n] == text)
        })
    };
    assert!(ask(d.net(), "127.0.0.1:5353", b"from loopback"));
    assert!(ask(d.net(), "10.77.0.1:5353", b"from the host"));
    assert!(ask(&other, "10.77.0.1:5353", b"from outside"));
    assert!(ask(&other, "10.77.0.1:5353", b"end"));
    echo.join().unwrap();
}

#[test]
fn rules_come_back_after_a_flush() {
    let d = dhow();
    server(&d, "web", &["-p", "8080:80"]);
    answers(d.net(), "127.0.0.1:8080", "web");
    d.net().enter(|| dhow_testkit::process::must(std::process::Command::new("nft").args(["flush", "ruleset"])));
    d.ok(&["run", "--rm", "busybox", "true"]);
    answers(d.net(), "127.0.0.1:8080", "web");
    let other = d.other_host();
    answers(&other, "10.77.0.1:8080", "web");
}

#[test]
fn other_tables_are_not_touched() {
    let d = dhow();
    let nft =
        |args: &[&str]| d.net().enter(|| dhow_testkit::process::must(std::process::Command::new("nft").args(args)));
    nft(&["add", "table", "inet", "mine"]);
    nft(&["add", "chain", "inet", "mine", "c1", "{ type filter hook input priority 0; policy accept; }"]);
    let before = nft(&["list", "table", "inet", "mine"]);
    server(&d, "web", &["-p", "8080:80"]);
    d.ok(&["rm", "-f", "web"]);
    assert_eq!(nft(&["list", "table", "inet", "mine"]), before);
    let tables = nft(&["list", "tables"]);
    assert_eq!(tables.lines().count(), 2, "mine and one of ours:\n{tables}");
}

#[test]
fn containers_reach_each_other_and_the_outside() {
    let d = dhow();
    let other = d.other_host();
    server(&d, "web", &[]);
    let address = d.inspect("web", ADDRESS);
    let ask_it = format!("for i in 1 2 3 4 5 6 7 8 9; do nc {address} 80 </dev/null && break; sleep 0.1; done");
    assert_eq!(d.ok(&["run", "--rm", "busybox", "sh", "-c", &ask_it]), "web");
    // NAT: the other host has no route to the containers and answers to our host's address.
    let listener = other.enter(|| std::net::TcpListener::bind("10.77.0.2:7000").unwrap());
    let peer = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.write_all(b"outside\n").unwrap();
        peer.ip().to_string()
    });
    assert_eq!(d.ok(&["run", "--rm", "busybox", "sh", "-c", "nc 10.77.0.2 7000 </dev/null"]), "outside");
    assert_eq!(peer.join().unwrap(), "10.77.0.1");
}

#[test]
fn addresses_are_unique_and_gateways_reachable() {
    let d = dhow();
    let ids: Vec<String> = (0..8).map(|_| d.background(&[], &["sleep", "100"])).collect();
    let mut all: Vec<String> = ids.iter().map(|id| d.inspect(id, ADDRESS)).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8, "{all:?}");
    let gateway = d.inspect(&ids[0], "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}");
    d.ok(&["exec", &ids[0], "ping", "-c", "1", "-W", "2", &gateway]);
    d.ok(&["exec", &ids[0], "ping", "-c", "1", "-W", "2", &all[7]]);
    let route = d.ok(&["exec", &ids[0], "ip", "route"]);
    assert!(route.contains(&format!("default via {gateway} dev eth0")), "{route}");
}

#[test]
fn the_subnet_avoids_the_hosts_routes() {
    let d = empty();
    d.net().ip(&["link", "add", "lan", "type", "bridge"]);
    d.net().ip(&["addr", "add", "172.17.5.5/16", "dev", "lan"]);
    d.net().ip(&["link", "set", "lan", "up"]);
    d.ok(&["load", "-q", "-i", dhow_testkit::busybox_image().to_str().unwrap()]);
    let id = d.background(&[], &["sleep", "100"]);
    let address = d.inspect(&id, ADDRESS);
    assert!(!address.starts_with("172.17."), "{address}");
    d.ok(&["rm", "-f", &id]);
    d.net().ip(&["link", "del", "lan"]);
}

#[test]
fn shared_with_another_container() {
    let d = dhow();
    server(&d, "web", &["-h", "webhost"]);
    let address = d.inspect("web", ADDRESS);
    let out = d.ok(&["run", "--rm", "--net", "container:web", "busybox", "ifconfig"]);
    assert!(out.contains("eth0") && out.contains(&address), "{out}");
    assert_eq!(d.ok(&["run", "--rm", "--net", "container:web", "busybox", "hostname"]), "webhost");
    let loopback = "for i in 1 2 3 4 5 6 7 8 9; do nc 127.0.0.1 80 </dev/null && break; sleep 0.1; done";
    assert_eq!(d.ok(&["run", "--rm", "--network", "container:web", "busybox", "sh", "-c", loopback]), "web");
    d.fails(&["run", "--net", "container:web", "-p", "1:1", "busybox"], 125, &["conflicting options"]);
    d.fails(&["run", "--net", "container:web", "-h", "x", "busybox"], 125, &["conflicting options"]);
    d.fails(&["run", "--net", "container:nothing", "busybox"], 125, &["No such container: nothing"]);
    d.ok(&["stop", "-t", "0", "web"]);
    d.fails(&["run", "--net", "container:web", "busybox"], 125, &["non running container"]);
}

#[test]
fn the_hosts_own() {
    let d = dhow();
    d.net().ip(&["link", "add", "marker0", "type", "bridge"]);
    let out = d.ok(&["run", "--rm", "--net", "host", "busybox", "ifconfig", "-a"]);
    assert!(out.contains("marker0"), "{out}");
    let inode = d.ok(&["run", "--rm", "--net=host", "busybox", "readlink", "/proc/self/ns/net"]);
    assert_eq!(inode, format!("net:[{}]", d.net().inode()));
    d.net().ip(&["link", "del", "marker0"]);
}

#[test]
fn none_has_loopback_alone() {
    let d = dhow();
    let out = d.ok(&["run", "--rm", "--net", "none", "busybox", "ifconfig", "-a"]);
    assert_eq!(out.lines().filter(|l| l.contains("Link encap")).count(), 1, "{out}");
    assert!(lines(&out)[0].starts_with("lo ") && out.contains("UP LOOPBACK RUNNING"), "{out}");
    d.ok(&["run", "--rm", "--network", "none", "busybox", "ping", "-c1", "-W1", "127.0.0.1"]);
}

#[test]
fn a_port_in_use_is_named() {
    let d = dhow();
    server(&d, "web", &["-p", "8080:80"]);
    let text = d.fails(&["run", "--name", "second", "-p", "8080:80", "busybox", "true"], 125, &["8080", "web"]);
    assert!(text.contains("port is already allocated") || text.contains("held by"), "{text}");
    assert_eq!(d.inspect("second", "{{.State.Status}}"), "created");
    let listener = d.net().enter(|| std::net::TcpListener::bind("0.0.0.0:8081").unwrap());
    d.fails(&["run", "-p", "8081:80", "busybox", "true"], 125, &["8081", "in use"]);
    drop(listener);
    d.ok(&["run", "--rm", "-p", "8081:80", "busybox", "true"]);
}

#[test]
fn unknown_networks() {
    let d = dhow();
    d.fails(&["run", "--network", "nosuch", "busybox"], 125, &["network", "nosuch"]);
}
