//! The bridge, its subnet and its rules.

use super::{LAN, World, ask, id, names, tcp};
use crate::{Bridge, forward_blockers};

#[test]
fn root_the_subnet_overlaps_no_route() {
    let world = World::new();
    assert_eq!(world.host.run(|| world.bridge().subnet()).to_string(), "172.17.0.0/16");
    let open = |dir: &std::path::Path| {
        world.host.run(|| Bridge::open(&dir.join("root"), &dir.join("run"), &names()).unwrap().subnet().to_string())
    };
    world.host.shell("ip address add 172.18.77.1/24 dev lan0; ip route add 172.16.0.0/13 via 10.99.0.2");
    // Routes of the bridge itself count for nothing, others' do; and what says "everything" says nothing.
    world.host.shell("ip route add 0.0.0.0/1 via 10.99.0.2; ip route add blackhole 172.24.0.0/14");
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(open(dir.path()), "172.28.0.0/16");
    world.host.shell("ip route add 172.28.9.0/24 via 10.99.0.2");
    assert_eq!(open(dir.path()), "172.28.0.0/16", "kept while addresses may be in use");
    // After a reboot the run directory is gone.
    std::fs::remove_dir_all(dir.path().join("run")).unwrap();
    assert_eq!(open(dir.path()), "172.29.0.0/16");
    std::fs::remove_dir_all(dir.path().join("run")).unwrap();
    assert_eq!(open(dir.path()), "172.29.0.0/16");
    let none = tempfile::tempdir().unwrap();
    world.host.shell("ip route add 172.28.0.0/14 via 10.99.0.2; ip route add blackhole 192.168.0.0/16");
    assert_eq!(open(none.path()), "10.255.0.0/16");
    let none = tempfile::tempdir().unwrap();
    world.host.shell("ip route add blackhole 10.0.0.0/8");
    let error = world.host.run(|| Bridge::open(none.path(), none.path(), &names()).unwrap_err());
    assert!(error.to_string().starts_with("no free subnet"), "{error}");
}

#[test]
fn root_ensure_makes_what_the_design_says() {
    let world = World::new();
    let link = world.host.shell("ip -d -4 address show dhow0");
    for text in ["172.17.0.1/16 brd 172.17.255.255", "02:42:ac:11:00:01", "stp_state 0", "UP"] {
        assert!(link.contains(text), "{text}: {link}");
    }
    assert_eq!(world.host.shell("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
    assert_eq!(world.host.shell("cat /proc/sys/net/ipv4/conf/dhow0/route_localnet").trim(), "0", "nothing published");
    assert_eq!(world.host.shell("cat /proc/sys/net/ipv6/conf/dhow0/disable_ipv6").trim(), "1");
    let listing = world.host.shell("nft list table inet dhow");
    let rules: Vec<String> = listing
        .lines()
        .map(|l| l.split(" comment ").next().unwrap().trim().to_owned())
        .filter(|l| !l.is_empty())
        .collect();
    assert_eq!(rules.join("\n"), EXPECTED.lines().map(str::trim).collect::<Vec<_>>().join("\n"));
}

const EXPECTED: &str = r#"table inet dhow {
map bound {
type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
}
map any {
type inet_proto . inet_service : ipv4_addr . inet_service
}
chain guard {
type filter hook prerouting priority raw; policy accept;
iifname != "lo" ip daddr 127.0.0.0/8 drop
iifname "dhow0" ip saddr != 172.17.0.0/16 drop
iifname "dhow0" meta nfproto ipv6 drop
}
chain prerouting {
type nat hook prerouting priority dstnat; policy accept;
dnat ip to ip daddr . meta l4proto . th dport map @bound
meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @any
}
chain output {
type nat hook output priority -100; policy accept;
dnat ip to ip daddr . meta l4proto . th dport map @bound
meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @any
}
chain postrouting {
type nat hook postrouting priority srcnat; policy accept;
oifname != "dhow0" ip saddr 172.17.0.0/16 masquerade
oifname "dhow0" ip saddr 127.0.0.0/8 masquerade
oifname "dhow0" ip saddr 172.17.0.0/16 ct status dnat masquerade
}
chain forward {
type filter hook forward priority filter; policy accept;
ct state established,related accept
iifname "dhow0" accept
oifname "dhow0" ct status dnat accept
oifname "dhow0" drop
}
}"#;

#[test]
fn root_rules_come_back() {
    let world = World::new();
    let web = world.container(1);
    let _server = web.serve(80);
    let _ports = world.publish(&web, &[tcp(None, 8080, 80), tcp(Some([127, 0, 0, 1]), 8081, 80)]);
    let before = world.host.shell("nft list table inet dhow");
    for damage in [
        "flush ruleset",
        "flush table inet dhow",
        "flush chain inet dhow guard",
        "add rule inet dhow forward accept",
        "insert rule inet dhow guard accept",
        "delete table inet dhow; add table inet dhow",
    ] {
        world.host.shell(&format!("nft '{damage}'"));
        assert_ne!(world.host.shell("nft list ruleset"), before, "{damage}");
        world.host.run(|| world.bridge().ensure().unwrap());
        assert_eq!(world.host.shell("nft list ruleset"), before, "{damage}");
    }
    assert_eq!(ask(&world.lan, super::HOST, 8080), Some(LAN));
}

#[test]
fn root_other_tables_are_left_alone() {
    let world = World::new();
    world.host.shell("nft 'add table ip mine; add chain ip mine c { type filter hook input priority 0; }'");
    let before = world.host.shell("nft list table ip mine");
    world.host.shell("nft delete table inet dhow");
    world.host.run(|| world.bridge().ensure().unwrap());
    assert_eq!(world.host.shell("nft list table ip mine"), before);
}

#[test]
fn root_a_deleted_bridge_is_made_again() {
    let world = World::new();
    let web = world.container(1);
    let _server = web.serve(80);
    let _ports = world.publish(&web, &[tcp(None, 8080, 80)]);
    for damage in [
        "ip link delete dhow0",
        "ip link set dhow0 down",
        "ip address flush dev dhow0",
        "sysctl -qw net.ipv4.ip_forward=0",
    ] {
        world.host.shell(damage);
        assert_eq!(ask(&world.lan, super::HOST, 8080), None, "{damage}");
        world.host.run(|| world.bridge().ensure().unwrap());
        assert_eq!(ask(&world.lan, super::HOST, 8080), Some(LAN), "{damage}");
        assert!(ask(&world.host, std::net::Ipv4Addr::LOCALHOST, 8080).is_some(), "{damage}");
    }
}

#[test]
fn root_a_link_that_is_no_bridge_is_told() {
    let world = World::new();
    world.host.shell("ip link delete dhow0; ip link add dhow0 type veth peer name x");
    let error = world.host.run(|| world.bridge().ensure().unwrap_err());
    assert_eq!(error.to_string(), "network device dhow0 exists and is not a bridge, but veth");
}

#[test]
fn root_blockers_are_named() {
    let world = World::new();
    assert_eq!(world.host.run(forward_blockers), Vec::<String>::new());
    world.host.shell(
        "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
    );
    world.host.shell("nft 'add chain ip filter INPUT { type filter hook input priority 0; policy drop; }'");
    assert_eq!(world.host.run(forward_blockers), ["table ip filter, chain FORWARD"]);
    world.host.shell("nft 'flush ruleset; add table inet firewalld'");
    world.host.shell("nft 'add chain inet firewalld f { type filter hook forward priority 10; }'");
    let rule = |text: &str| world.host.shell(&format!("nft 'add rule inet firewalld f {text}'"));
    for harmless in ["accept", "iifname x drop", "counter", "ct state invalid reject"] {
        rule(harmless);
        assert_eq!(world.host.run(forward_blockers), Vec::<String>::new(), "{harmless}");
    }
    for refusal in ["counter drop", "reject with icmpx admin-prohibited", "drop"] {
        rule(refusal);
        assert_eq!(world.host.run(forward_blockers), ["table inet firewalld, chain f"], "{refusal}");
        rule("accept");
    }
}

#[test]
fn root_a_container_starts_again_at_once() {
    let world = World::new();
    // The last start's link is still dying when the next one wants its name.
    for _ in 0..4 {
        let web = world.container(1);
        let gateway = web.lease.gateway;
        let server = super::Server::start(&world.host, 9000);
        assert_eq!(ask(&web.namespace, gateway, 9000), Some(web.lease.address));
        drop((server, web));
        world.host.run(|| {
            let bridge = world.bridge();
            for address in bridge.leases_of(&id(1)).unwrap() {
                bridge.release(&id(1), address).unwrap();
            }
        });
    }
}

#[test]
fn root_many_ensure_at_once() {
    let world = World::new();
    world.host.shell("nft flush ruleset; ip link delete dhow0");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| world.host.run(|| world.bridge().ensure().unwrap()));
        }
    });
    let listing = world.host.shell("nft list ruleset");
    assert_eq!(listing.matches("table ").count(), 1);
    assert_eq!(listing.matches("masquerade").count(), 3);
}

#[test]
fn root_a_bridge_that_is_given_up() {
    let world = World::new();
    let dismantle = || world.host.run(|| world.bridge().dismantle());
    let web = world.container(1);
    assert_eq!(dismantle().unwrap_err().to_string(), "bridge dhow0 is in use by 1 container(s)");
    world.host.run(|| world.bridge().release(&web.id, web.lease.address).unwrap());
    for _ in 0..2 {
        dismantle().unwrap();
        assert_eq!(world.host.shell("nft list ruleset"), "");
        assert!(!world.host.try_shell("ip link show dhow0").1);
    }
    world.host.run(|| world.bridge().ensure().unwrap());
    assert!(world.host.shell("nft list ruleset").contains("table inet dhow"));
}
