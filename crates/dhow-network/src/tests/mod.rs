//! Tests against the kernel, each in network namespaces of its own. Names that start with `root_` need root.

mod bridge;
mod costs;
mod leases;
mod ports;
mod traffic;

use crate::net::Ipv4Net;
use crate::netlink::Connection;
use crate::route::{self, VethPair};
use crate::{Bridge, BridgeNames, Lease, NetworkError, ReservedPort, configure_inside, loopback_up};
use dhow_sys::netlink::Protocol;
use dhow_types::{ContainerId, PortBinding, PortProtocol, PortSpec};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

const CLONE_NEWNET: u64 = 0x4000_0000;
/// Long enough for any answer on one machine, short enough for a dropped packet.
const PATIENCE: Duration = Duration::from_millis(400);

/// A network namespace, held by a thread that does nothing else. Gone when dropped.
struct Namespace {
    tid: u32,
    end: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Namespace {
    fn new() -> Self {
        let (end, until) = mpsc::channel::<()>();
        let (ready, wait) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            dhow_sys::process::unshare(CLONE_NEWNET).expect("a new network namespace (needs root)");
            loopback_up().unwrap();
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            ready.send(u32::try_from(tid).unwrap()).unwrap();
            let _ = until.recv();
        });
        let tid = wait.recv().expect("a network namespace (needs root)");
        Self { tid, end: Some(end), thread: Some(thread) }
    }

    /// Runs a closure in the namespace; its panic is the caller's.
    fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let tid = self.tid;
        let result = std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    enter(tid);
                    f()
                })
                .join()
        });
        match result {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a program in the namespace and returns what it prints.
    fn shell(&self, script: &str) -> String {
        let (text, good) = self.try_shell(script);
        assert!(good, "{script}: {text}");
        text
    }

    fn try_shell(&self, script: &str) -> (String, bool) {
        self.run(|| {
            let output = Command::new("sh").arg("-c").arg(format!("exec 2>&1; {script}")).output().unwrap();
            (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Moves the calling thread to the network namespace of another thread of this process.
fn enter(tid: u32) {
    let file = std::fs::File::open(format!("/proc/self/task/{tid}/ns/net")).unwrap();
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind).unwrap();
}

fn id(n: u8) -> ContainerId {
    ContainerId::from_random([n; 32])
}

fn names() -> BridgeNames {
    BridgeNames { bridge: "dhow0".to_owned(), table: "dhow".to_owned() }
}

/// A host with a bridge, connected to one other host.
struct World {
    dir: tempfile::TempDir,
    host: Namespace,
    lan: Namespace,
}

/// The host's address in the other host's network.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The other host.
const LAN: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), host: Namespace::new(), lan: Namespace::new() };
        let peer_pid = world.lan.tid;
        world.host.run(|| {
            let mut connection = Connection::open(Protocol::Route).unwrap();
            let pair = VethPair {
                name: "lan0",
                bridge: 0,
                mtu: 1500,
                peer_pid,
                peer_name: "eth0",
                peer_mac: [2, 0, 0, 0, 0, 9],
            };
            route::create_veth(&mut connection, &pair).unwrap();
            set_address("lan0", HOST);
        });
        world.lan.run(|| set_address("eth0", LAN));
        // Asked for, the kernel notices that both ends are up: see `attach::settle`.
        for (namespace, link) in [(&world.lan, "eth0"), (&world.host, "lan0")] {
            let mut connection = namespace.run(|| Connection::open(Protocol::Route).unwrap());
            assert!(route::link_by_name(&mut connection, link).unwrap().is_some_and(|l| l.operational));
        }
        world.host.run(|| world.bridge().ensure().unwrap());
        world
    }

    fn bridge(&self) -> Bridge {
        Bridge::open(&self.dir.path().join("root"), &self.dir.path().join("run"), &names()).unwrap()
    }

    /// A container on the bridge.
    fn container(&self, n: u8) -> Container {
        let namespace = Namespace::new();
        let tid = namespace.tid;
        let lease = self.host.run(|| {
            let bridge = self.bridge();
            let lease = bridge.allocate(&id(n)).unwrap();
            bridge.attach(tid, &lease, &id(n)).unwrap();
            lease
        });
        namespace.run(|| configure_inside(&lease).unwrap());
        Container { namespace, lease, id: id(n) }
    }

    /// Reserves and publishes.
    fn publish(&self, container: &Container, bindings: &[PortBinding]) -> Vec<ReservedPort> {
        self.host.run(|| {
            let bridge = self.bridge();
            let ports = loop {
                match bridge.reserve_ports(&container.id, bindings) {
                    // A program that another test is starting has, for a moment, our descriptors of a port given back.
                    Err(NetworkError::PortInUse { holder: None, process: None, .. }) => std::thread::yield_now(),
                    other => break other.unwrap(),
                }
            };
            bridge.publish(&container.lease, &ports).unwrap();
            ports
        })
    }
}

fn set_address(link: &str, address: Ipv4Addr) {
    let mut connection = Connection::open(Protocol::Route).unwrap();
    let index = route::index_of(&connection, link).unwrap();
    let mut batch = connection.batch();
    route::push_address(&mut batch, index, address, Ipv4Net::containing(address, 24).unwrap());
    route::push_up(&mut batch, index);
    connection.transact(batch).unwrap();
}

struct Container {
    namespace: Namespace,
    lease: Lease,
    id: ContainerId,
}

impl Container {
    /// Starts a TCP server that tells everyone who connects from where they seem to come.
    fn serve(&self, port: u16) -> Server {
        Server::start(&self.namespace, port)
    }
}

/// A TCP server in a namespace.
struct Server {
    address: SocketAddr,
    tid: u32,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(namespace: &Namespace, port: u16) -> Self {
        let tid = namespace.tid;
        let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip();
                if peer.is_loopback() {
                    return;
                }
                let _ = stream.write_all(peer.to_string().as_bytes());
            }
        });
        Self { address, tid, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A connection from the namespace's own loopback tells the server to end.
        let (tid, address) = (self.tid, self.address);
        let told = std::thread::spawn(move || {
            enter(tid);
            TcpStream::connect_timeout(&address, PATIENCE).is_ok()
        });
        if told.join().unwrap_or(false)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Connects from a namespace; `Some` is the address that the server saw.
fn ask(from: &Namespace, to: Ipv4Addr, port: u16) -> Option<Ipv4Addr> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&(to, port).into(), PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.parse().ok()
    })
}

fn tcp(host_ip: Option<[u8; 4]>, port: u16, container: u16) -> PortBinding {
    PortBinding {
        host_ip: host_ip.map(|ip| IpAddr::V4(ip.into())),
        host_ports: Some((port, port)),
        container: PortSpec { port: container, protocol: PortProtocol::Tcp },
    }
}

/// A published port as a record has it.
fn recorded(ports: &[ReservedPort]) -> Vec<(Option<IpAddr>, u16, PortSpec)> {
    ports.iter().map(|p| (p.host_ip, p.host_port, p.container)).collect()
}

fn udp_socket(namespace: &Namespace, port: u16) -> UdpSocket {
    namespace.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(80))).unwrap();
        socket
    })
}
