//! Plain facts: numbers and names that are read, not tried.

use rustix::process::Resource;
use std::fs;
use std::io;
use std::path::Path;

/// The kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Release, `6.18.44`.
    pub release: String,
    /// Major and minor version.
    pub version: (u32, u32),
    /// Machine, `x86_64`.
    pub machine: String,
    /// Host name.
    pub node: String,
    /// `PRETTY_NAME` of `/etc/os-release`; empty if there is none.
    pub system: String,
}

/// Processors and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors that this process may use.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// Swap in bytes.
    pub swap: u64,
}

/// Security modules and confinement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// Active security modules; empty where securityfs is not mounted.
    pub modules: Vec<String>,
    /// AppArmor is enabled.
    pub apparmor: bool,
    /// SELinux: `Some(true)` enforces, `Some(false)` only reports, `None` is off.
    pub selinux: Option<bool>,
    /// Effective capabilities of this process.
    pub capabilities: crate::caps::Set,
}

/// A resource limit (getrlimit(2)). `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Docker's name, `nofile`.
    pub name: &'static str,
    /// Soft limit.
    pub soft: Option<u64>,
    /// Hard limit.
    pub hard: Option<u64>,
}

/// The file system below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Its type, `extfs`, `xfs`, `btrfs`, … as `docker info` and stat(1) call it, or its magic number in hexadecimal.
    pub kind: String,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that an unprivileged user could still write.
    pub free: u64,
    /// Inodes; 0 where the file system makes them on demand.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
    /// Whether overlay can keep its upper directories here. Not on overlay itself, nor on network file systems.
    pub overlay_upper: bool,
}

pub(super) fn kernel() -> Kernel {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    Kernel {
        version: crate::seccomp::parse_release(&release),
        release,
        machine: uname.machine().to_string_lossy().into_owned(),
        node: uname.nodename().to_string_lossy().into_owned(),
        system: read("/etc/os-release").as_deref().and_then(pretty_name).unwrap_or_default(),
    }
}

/// The value of `PRETTY_NAME` (os-release(5)).
fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?.trim();
    Some(value.trim_matches(['"', '\'']).to_owned())
}

pub(super) fn machine() -> Machine {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory: info.totalram.saturating_mul(unit),
        swap: info.totalswap.saturating_mul(unit),
    }
}

pub(super) fn security() -> Security {
    let modules = read("/sys/kernel/security/lsm").unwrap_or_default();
    Security {
        modules: modules.trim().split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect(),
        apparmor: read("/sys/module/apparmor/parameters/enabled").is_some_and(|t| t.trim() == "Y"),
        selinux: read("/sys/fs/selinux/enforce").map(|t| t.trim() == "1"),
        capabilities: dhow_sys::caps::get().map(|s| crate::caps::Set(s.effective)).unwrap_or_default(),
    }
}

pub(super) fn limits() -> Vec<Limit> {
    [
        ("core", Resource::Core),
        ("cpu", Resource::Cpu),
        ("data", Resource::Data),
        ("fsize", Resource::Fsize),
        ("locks", Resource::Locks),
        ("memlock", Resource::Memlock),
        ("msgqueue", Resource::Msgqueue),
        ("nice", Resource::Nice),
        ("nofile", Resource::Nofile),
        ("nproc", Resource::Nproc),
        ("rss", Resource::Rss),
        ("rtprio", Resource::Rtprio),
        ("rttime", Resource::Rttime),
        ("sigpending", Resource::Sigpending),
        ("stack", Resource::Stack),
    ]
    .into_iter()
    .map(|(name, resource)| {
        let limit = rustix::process::getrlimit(resource);
        Limit { name, soft: limit.current, hard: limit.maximum }
    })
    .collect()
}

/// Looks at the file system below a path.
pub fn storage(path: &Path) -> io::Result<Storage> {
    let magic = rustix::fs::statfs(path)?.f_type as u64;
    let space = rustix::fs::statvfs(path)?;
    let (kind, overlay_upper) = file_system(magic);
    Ok(Storage {
        kind: kind.map_or_else(|| format!("{magic:#x}"), str::to_owned),
        size: space.f_blocks.saturating_mul(space.f_frsize),
        free: space.f_bavail.saturating_mul(space.f_frsize),
        inodes: space.f_files,
        inodes_free: space.f_favail,
        overlay_upper,
    })
}

/// Name of a file system by `linux/magic.h`, and whether overlay takes it for upper directories.
fn file_system(magic: u64) -> (Option<&'static str>, bool) {
    match magic {
        0xef53 => (Some("extfs"), true),
        0x5846_5342 => (Some("xfs"), true),
        0x9123_683e => (Some("btrfs"), true),
        0x0102_1994 => (Some("tmpfs"), true),
        0xf2f5_2010 => (Some("f2fs"), true),
        0xca45_1a4e => (Some("bcachefs"), true),
        0x2fc1_2fc1 => (Some("zfs"), true),
        0x794c_7630 => (Some("overlayfs"), false),
        0x6969 => (Some("nfs"), false),
        0xff53_4d42 | 0xfe53_4d42 => (Some("cifs"), false),
        0x6573_5546 => (Some("fuse"), false),
        0x0102_1997 => (Some("v9fs"), false),
        0x00c3_6400 => (Some("ceph"), false),
        0xf15f => (Some("ecryptfs"), false),
        // Unknown ones are tried, not refused.
        _ => (None, true),
    }
}

/// The text of a small file of the kernel.
pub(super) fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_systems() {
        assert_eq!(pretty_name("ID=x\nPRETTY_NAME=\"Some Linux 12\"\n").as_deref(), Some("Some Linux 12"));
        assert_eq!(pretty_name("ID=x\n"), None);
    }

    #[test]
    fn storage_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(dir.path()).unwrap();
        assert!(storage.size >= storage.free && storage.size > 0);
        assert!(!storage.kind.is_empty());
        assert!(super::storage(&dir.path().join("missing")).is_err());
    }
}
