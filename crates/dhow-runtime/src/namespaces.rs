//! Which namespaces a container gets: new ones, or existing ones by their files.

use crate::error::{Failure, LaunchError, OrFail, Stage};
use crate::maker::ClonePlan;
use dhow_oci::runtime::{Namespace, NamespaceKind};
use dhow_sys::process as sys;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The `CLONE_NEW*` bit of a kind.
pub(crate) const fn flag(kind: NamespaceKind) -> u64 {
    match kind {
        NamespaceKind::User => sys::CLONE_NEWUSER,
        NamespaceKind::Cgroup => sys::CLONE_NEWCGROUP,
        NamespaceKind::Ipc => sys::CLONE_NEWIPC,
        NamespaceKind::Uts => sys::CLONE_NEWUTS,
        NamespaceKind::Network => sys::CLONE_NEWNET,
        NamespaceKind::Pid => sys::CLONE_NEWPID,
        NamespaceKind::Mount => sys::CLONE_NEWNS,
        NamespaceKind::Time => sys::CLONE_NEWTIME,
    }
}

/// The namespaces of a container, with the files of existing ones opened.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Bits of those that clone3(2) makes.
    new: u64,
    /// A new cgroup namespace, made after the cgroups were joined: its root is where its maker is at that moment. This
    /// is so on version 2 too, since the kernel takes the *caller's* cgroup as root even with `CLONE_INTO_CGROUP`.
    new_cgroup: bool,
    /// Existing ones that the new process enters.
    join: Vec<(NamespaceKind, OwnedFd)>,
    /// An existing PID namespace, which the maker enters around clone3(2): setns(2) works for children only.
    join_pid: Option<OwnedFd>,
}

impl Plan {
    /// Reads the specification's list. Every path is opened now, by the caller, on the host.
    pub(crate) fn new(list: &[Namespace]) -> Result<Self, LaunchError> {
        let mut plan = Self { new: 0, new_cgroup: false, join: Vec::new(), join_pid: None };
        let mut seen = 0;
        for Namespace { kind, path } in list {
            let wrong = |what: &str| {
                let what = format!("{what} {} namespace", kind.proc_name());
                LaunchError::from(Failure::new(Stage::Specification, what))
            };
            if seen & flag(*kind) != 0 {
                return Err(wrong("more than one"));
            }
            seen |= flag(*kind);
            match (kind, path) {
                (NamespaceKind::User, _) => return Err(wrong("dhow cannot make or join a")),
                (NamespaceKind::Mount, Some(_)) => return Err(wrong("a container cannot share a")),
                (NamespaceKind::Cgroup, None) => plan.new_cgroup = true,
                (_, None) => plan.new |= flag(*kind),
                (_, Some(path)) => {
                    let file = dhow_sys::mount::open_place(Path::new(path)).and_then(reopen);
                    let file = file.map_err(LaunchError::step(Stage::Namespaces, format!("cannot open {path}")))?;
                    match kind {
                        NamespaceKind::Pid => plan.join_pid = Some(file),
                        _ => plan.join.push((*kind, file)),
                    }
                }
            }
        }
        if plan.new & sys::CLONE_NEWNS == 0 {
            // Without one, the mounts would be made on the host.
            return Err(Failure::new(Stage::Specification, "a container needs a mount namespace of its own").into());
        }
        Ok(plan)
    }

    /// How to clone the new process.
    pub(crate) fn clone_plan(&self) -> ClonePlan<'_> {
        ClonePlan {
            new: self.new,
            pid_namespace: self.join_pid.as_ref().map(AsFd::as_fd),
            is_visible: !self.is_new(NamespaceKind::Pid),
        }
    }

    /// Whether the container has a namespace of this kind that is not the host's.
    pub(crate) fn is_own(&self, kind: NamespaceKind) -> bool {
        self.new & flag(kind) != 0
            || self.join.iter().any(|(k, _)| *k == kind)
            || (kind == NamespaceKind::Cgroup && self.new_cgroup)
    }

    /// Whether the namespace is new, so that its settings are the container's to make.
    pub(crate) fn is_new(&self, kind: NamespaceKind) -> bool {
        self.new & flag(kind) != 0
    }

    /// Enters the existing ones; called by the new process.
    pub(crate) fn enter_existing(&self) -> Result<(), Failure> {
        for (kind, file) in &self.join {
            sys::enter(file.as_fd(), flag(*kind))
                .or_fail(Stage::Namespaces, || format!("cannot join the {} namespace", kind.proc_name()))?;
        }
        Ok(())
    }

    /// Makes the cgroup namespace; called by the new process after it joined its cgroups.
    pub(crate) fn make_cgroup_namespace(&self) -> Result<(), Failure> {
        if self.new_cgroup {
            sys::unshare(sys::CLONE_NEWCGROUP).or_fail(Stage::Namespaces, || "cannot make a cgroup namespace")?;
        }
        Ok(())
    }
}

/// setns(2) wants a descriptor that is open for reading, which a namespace file can be without side effects; other kinds
/// of files are refused before they are opened.
fn reopen(place: OwnedFd) -> std::io::Result<OwnedFd> {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    if !dhow_sys::mount::is_on(place.as_fd(), NSFS_MAGIC)? {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a namespace file"));
    }
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(kinds: &[NamespaceKind]) -> Result<Plan, LaunchError> {
        Plan::new(&kinds.iter().map(|kind| Namespace { kind: *kind, path: None }).collect::<Vec<_>>())
    }

    #[test]
    fn cgroup_namespaces_come_later() {
        let plan = new(&[NamespaceKind::Mount, NamespaceKind::Cgroup, NamespaceKind::Pid]).unwrap();
        assert_eq!(plan.new, sys::CLONE_NEWNS | sys::CLONE_NEWPID);
        assert!(plan.is_own(NamespaceKind::Cgroup) && !plan.is_own(NamespaceKind::Network));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(new(&[NamespaceKind::Pid]).is_err(), "no mount namespace");
        assert!(new(&[NamespaceKind::Mount, NamespaceKind::Mount]).is_err());
        assert!(new(&[NamespaceKind::Mount, NamespaceKind::User]).is_err());
        let file = Namespace { kind: NamespaceKind::Network, path: Some("/proc/self/status".into()) };
        let mount = Namespace { kind: NamespaceKind::Mount, path: None };
        assert!(Plan::new(&[mount.clone(), file]).is_err(), "not a namespace file");
        let file = Namespace { kind: NamespaceKind::Network, path: Some("/proc/self/ns/net".into()) };
        assert!(Plan::new(&[mount, file]).unwrap().is_own(NamespaceKind::Network));
    }
}
