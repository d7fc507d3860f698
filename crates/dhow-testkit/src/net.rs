//! Network namespaces of tests: one per fixture, and more to play other hosts.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

/// A network namespace that lives as long as this value, or longer if a process stays in it.
#[derive(Debug)]
pub struct NetNs {
    file: File,
}

impl NetNs {
    /// A new namespace whose loopback is up.
    pub fn new() -> Self {
        let worker = std::thread::spawn(|| {
            #[expect(deprecated, reason = "the only safe form; a fresh network namespace breaks no invariant of std")]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("unshare(CLONE_NEWNET): run as root");
            let file = File::open("/proc/thread-self/ns/net").expect("/proc is mounted");
            crate::process::must(Command::new("ip").args(["link", "set", "lo", "up"]));
            file
        });
        Self { file: worker.join().expect("the thread that made a network namespace failed") }
    }

    /// The namespace that a process lives in.
    pub fn of(pid: i32) -> Self {
        let path = format!("/proc/{pid}/ns/net");
        Self { file: File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}")) }
    }

    /// Runs `f` on a thread inside the namespace; processes that it starts are in there too.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let outcome = std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(self.file.as_fd(), Some(kind)).expect("setns");
                f()
            });
            worker.join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Inode number of the namespace, as `/proc/PID/ns/net` shows it.
    pub fn inode(&self) -> u64 {
        self.file.metadata().expect("namespace file").ino()
    }

    /// A path that names the namespace for other programs of this machine.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs `ip` in the namespace; it must succeed.
    pub fn ip(&self, args: &[&str]) -> String {
        self.enter(|| crate::process::must(Command::new("ip").args(args)))
    }

    /// A cable between two namespaces, with an address on each end (`10.9.8.1/24`).
    pub fn connect(&self, name: &str, address: &str, other: &Self, other_address: &str) {
        let peer = format!("{name}p");
        self.ip(&["link", "add", name, "type", "veth", "peer", "name", &peer, "netns", &other.path()]);
        self.ip(&["addr", "add", address, "dev", name]);
        self.ip(&["link", "set", name, "up"]);
        other.ip(&["addr", "add", other_address, "dev", &peer]);
        other.ip(&["link", "set", &peer, "up"]);
    }
}

impl Default for NetNs {
    fn default() -> Self {
        Self::new()
    }
}

/// A value that was made inside a namespace, such as a server, and is dropped there too.
#[derive(Debug)]
pub struct Inside<'a, T: Send> {
    net: &'a NetNs,
    value: Option<T>,
}

impl<'a, T: Send> Inside<'a, T> {
    /// Makes the value on a thread inside `net`.
    pub fn new(net: &'a NetNs, make: impl FnOnce() -> T + Send) -> Self {
        Self { net, value: Some(net.enter(make)) }
    }
}

impl<T: Send> std::ops::Deref for Inside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until it is dropped")
    }
}

impl<T: Send> Drop for Inside<'_, T> {
    fn drop(&mut self) {
        let value = self.value.take();
        self.net.enter(|| drop(value));
    }
}
