//! Writing to `/proc` without going through the container's paths (CVE-2019-16884, CVE-2025-52881).
//!
//! The callers hand in a descriptor of a proc mount that is detached or the host's; what is opened below it must be on
//! that very mount, so nothing mounted over a file can take its place.

use crate::error::{Failure, OrFail, Stage};
use crate::namespaces;
use dhow_oci::runtime::{NamespaceKind, Process};
use dhow_sys::fs as paths;
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Writes a value to a file of a proc mount, in one write(2).
fn write(procfs: BorrowedFd<'_>, path: &str, value: &str) -> std::io::Result<()> {
    let file = paths::open_on_mount(procfs, Path::new(path), OFlags::WRONLY)?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

/// Sets what the process itself has in `/proc/self`: badness for the OOM killer, AppArmor profile at exec.
pub(crate) fn configure_self<'fd>(
    process: &Process,
    procfs: impl FnOnce() -> Result<BorrowedFd<'fd>, Failure>,
) -> Result<(), Failure> {
    let profile = process.apparmor_profile.as_deref().filter(|p| !p.is_empty());
    if process.oom_score_adj.is_none() && profile.is_none() {
        return Ok(());
    }
    let procfs = procfs()?;
    if let Some(adjustment) = process.oom_score_adj {
        write(procfs, "self/oom_score_adj", &adjustment.to_string())
            .or_fail(Stage::Confinement, || format!("cannot set the OOM score adjustment {adjustment}"))?;
    }
    if let Some(profile) = profile {
        let what = || format!("cannot set the AppArmor profile {profile:?}");
        let order = format!("exec {profile}");
        match write(procfs, "self/attr/apparmor/exec", &order) {
            // Before Linux 5.8 there was only the file that all security modules share.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => write(procfs, "self/attr/exec", &order),
            result => result,
        }
        .or_fail(Stage::Confinement, what)?;
    }
    Ok(())
}

/// Kernel parameters, checked: the file below `/proc/sys` and the value.
#[derive(Debug, Default)]
pub(crate) struct Sysctls(Vec<(String, String)>);

/// Parameters of the IPC namespace beside `fs.mqueue.*`, as Docker lists them.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

impl Sysctls {
    /// Checks that every parameter belongs to a namespace of the container, before anything is written.
    pub(crate) fn new(list: &BTreeMap<String, String>, plan: &namespaces::Plan) -> Result<Self, Failure> {
        let mut checked = Vec::with_capacity(list.len());
        for (key, value) in list {
            let wrong = |what: &str| Failure::new(Stage::Sysctl, format!("kernel parameter {key:?}: {what}"));
            let path = path_of(key).ok_or_else(|| wrong("not a name"))?;
            if value.bytes().any(|b| b == b'\n' || b == 0) || value.len() > 4096 {
                return Err(wrong("not a value"));
            }
            let owner = if path.starts_with("net/") {
                NamespaceKind::Network
            } else if path.starts_with("fs/mqueue/") || IPC.contains(&path.as_str()) {
                NamespaceKind::Ipc
            } else if path == "kernel/domainname" || path == "kernel/hostname" {
                NamespaceKind::Uts
            } else {
                return Err(wrong("it belongs to no namespace, so a container cannot have its own"));
            };
            if !plan.is_own(owner) {
                return Err(wrong("the container shares that namespace with the host"));
            }
            checked.push((path, value.clone()));
        }
        Ok(Self(checked))
    }

    /// Writes them.
    pub(crate) fn apply<'fd>(&self, procfs: impl FnOnce() -> Result<BorrowedFd<'fd>, Failure>) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let procfs = procfs()?;
        for (path, value) in &self.0 {
            write(procfs, &format!("sys/{path}"), value)
                .or_fail(Stage::Sysctl, || format!("cannot set the kernel parameter {path}"))?;
        }
        Ok(())
    }
}

/// The file of a parameter, relative to `/proc/sys`. As in sysctl(8), the first of `.` and `/` is the separator and the
/// other one stands for itself (`net.ipv4.conf.eth0/1.forwarding`).
fn path_of(key: &str) -> Option<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    if key.len() > 255 || !key.chars().all(is_name) {
        return None;
    }
    let path: String = match key.find(['.', '/']).map(|i| &key[i..=i]) {
        Some(".") => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    };
    path.split('/').all(|part| !matches!(part, "" | "." | "..")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_oci::runtime::Namespace;

    #[test]
    fn names_become_paths() {
        for (key, path) in [
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            ("net.ipv4.conf.eth0/1.forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("net/ipv4/conf/eth0.1/forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("net..x", None),
            ("../../etc/passwd", None),
            ("net./.x", None),
            ("net.x+y", None),
            ("net.x\ny", None),
            ("", None),
        ] {
            assert_eq!(path_of(key).as_deref(), path, "{key}");
        }
    }

    #[test]
    fn only_the_containers_own() {
        let namespaces = |kinds: &[NamespaceKind]| {
            let list: Vec<_> = kinds.iter().map(|kind| Namespace { kind: *kind, path: None }).collect();
            namespaces::Plan::new(&list).unwrap()
        };
        let check = |key: &str, value: &str, plan: &namespaces::Plan| {
            Sysctls::new(&BTreeMap::from([(key.to_owned(), value.to_owned())]), plan).is_ok()
        };
        let own = namespaces(&[NamespaceKind::Mount, NamespaceKind::Network, NamespaceKind::Ipc]);
        assert!(check("net.ipv4.ip_forward", "1", &own));
        assert!(check("kernel.msgmax", "65536", &own));
        assert!(check("fs.mqueue.msg_max", "10", &own));
        for key in ["kernel.core_pattern", "vm.swappiness", "fs.suid_dumpable", "kernel.hostname", "kernel.sysrq"] {
            assert!(!check(key, "1", &own), "{key}");
        }
        assert!(!check("net.ipv4.ip_forward", "1\nx", &own));
        let shared = namespaces(&[NamespaceKind::Mount]);
        assert!(!check("net.ipv4.ip_forward", "1", &shared));
        assert!(!check("kernel.msgmax", "1", &shared));
    }
}
