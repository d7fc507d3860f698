//! The cgroups of a container: one directory per hierarchy, whatever versions the host mounts (cgroups(7)).
//!
//! What decides the speed of a start is *how* a process gets in. Writing another process's id to `cgroup.procs` makes the
//! kernel wait for an RCU grace period, some 10 ms. So:
//! * version 1: the new process writes `0` to each `tasks` file itself, over descriptors opened beforehand
//!   ([`Cgroup::join_self`]); it must be single-threaded then;
//! * version 2: it is born inside (`CLONE_INTO_CGROUP` with [`Cgroup::v2_dir`]).
//!
//! Both happen before a new cgroup namespace is made, or the container would see the wrong root. Limits are set before
//! anything joins. A value that this kernel cannot enforce is reported as a warning with Docker's words; device rules
//! that cannot be enforced are an error.
//!
//! Deliberately absent: systemd scopes, and any cgroup this engine did not make.

mod devices;
mod error;
mod layout;
mod limits;
mod path;
mod tasks;
mod usage;

pub use error::CgroupError;
pub use usage::Usage;

use dhow_oci::runtime::Resources;
use dhow_sys::bpf;
use layout::{Hierarchy, Layout};
use limits::{Controller, Knob, Purpose};
use path::CgroupPath;
use rustix::fs::{AtFlags, Dir, FileType, Mode as FileMode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long [`Cgroup::remove`] waits for dying processes. Tests see who is left sooner.
const REMOVE_PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 40 } else { 200 });
/// How deep cgroups that a container made inside its own are followed.
const MAX_NESTING: usize = 16;

/// How the host mounts cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only version 1 hierarchies.
    V1,
    /// Only version 2.
    V2,
    /// Version 1 hierarchies beside a version 2 one.
    Hybrid,
}

impl Mode {
    /// The number that `docker info` shows: controllers live in version 1 hierarchies or in version 2.
    pub const fn version(self) -> &'static str {
        match self {
            Self::V1 | Self::Hybrid => "1",
            Self::V2 => "2",
        }
    }
}

/// How this host mounts cgroups. A host without any counts as version 2; creating a cgroup then fails.
pub fn mode() -> Mode {
    Layout::host().map_or(Mode::V2, Layout::mode)
}

/// Controllers of the host with the version of the hierarchy that has each, in a stable order.
pub fn controllers() -> Vec<(String, u8)> {
    let Ok(layout) = Layout::host() else { return Vec::new() };
    let mut found: Vec<(String, u8)> =
        layout.v1.iter().flat_map(|h| &h.controllers).filter(|c| !c.contains('=')).map(|c| (c.clone(), 1)).collect();
    if let Some(v2) = &layout.v2 {
        found.extend(v2_controllers(v2).into_iter().map(|c| (c, 2)));
    }
    found.sort();
    found
}

/// Removes the cgroups `path` wherever they are, with everything below. Nothing there is success.
pub fn remove(path: &str) -> Result<(), CgroupError> {
    let path = CgroupPath::new(path)?;
    remove_everywhere(Layout::host()?, &path)
}

/// A container's cgroups in every hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    layout: &'static Layout,
    path: CgroupPath,
    /// One per version 1 hierarchy, in the layout's order; `None` where the directory is missing.
    v1: Vec<Option<Node>>,
    v2: Option<OwnedFd>,
}

/// A cgroup in a version 1 hierarchy.
#[derive(Debug)]
struct Node {
    dir: OwnedFd,
    tasks: OwnedFd,
}

impl Cgroup {
    /// Creates the cgroups `path` (`dhow/<id>`, below the root of each hierarchy) and sets the limits.
    ///
    /// Left-overs of a dead container at the same path are replaced; one that has processes is [`CgroupError::Busy`].
    /// Returned with the cgroups are warnings about limits that this host cannot enforce. On failure nothing is left.
    pub fn create(path: &str, r: &Resources) -> Result<(Self, Vec<String>), CgroupError> {
        Self::create_in(Layout::host()?, path, r)
    }

    fn create_in(layout: &'static Layout, path: &str, r: &Resources) -> Result<(Self, Vec<String>), CgroupError> {
        let path = CgroupPath::new(path)?;
        let mut made = Self { layout, path, v1: Vec::with_capacity(layout.v1.len()), v2: None };
        match made.build(r) {
            Ok(warnings) => Ok((made, warnings)),
            Err(CgroupError::Busy { path, pids }) => Err(CgroupError::Busy { path, pids }),
            Err(error) => {
                // The first error is the one to tell.
                let _ = made.remove();
                Err(error)
            }
        }
    }

    fn build(&mut self, r: &Resources) -> Result<Vec<String>, CgroupError> {
        for (index, hierarchy) in self.layout.v1.iter().enumerate() {
            let dir = make(self.layout, hierarchy, &self.path)?;
            if self.layout.v1_home("cpuset") == Some(index) {
                fill_cpuset(hierarchy, &self.path)?;
            }
            let tasks = open_tasks(dir.as_fd()).map_err(|e| io(hierarchy, &self.path, "open tasks of", e))?;
            self.v1.push(Some(Node { dir, tasks }));
        }
        let mut warnings = Vec::new();
        if let Some(v2) = &self.layout.v2 {
            warnings = self.make_v2(v2)?;
        }
        warnings.extend(self.set_limits(r, Purpose::Create)?);
        self.set_devices(r)?;
        Ok(warnings)
    }

    fn make_v2(&mut self, v2: &'static Hierarchy) -> Result<Vec<String>, CgroupError> {
        let available = v2_controllers(v2);
        let wanted: Vec<&str> =
            Controller::ALL.iter().map(|c| c.v2_name()).filter(|name| available.iter().any(|a| a == name)).collect();
        // The parents must exist before controllers are handed down to them.
        for ancestor in self.path.ancestors() {
            make_dir(self.layout, v2, ancestor).map(drop).map_err(|e| io(v2, &self.path, "create", e))?;
        }
        let warnings = hand_down(v2, &self.path, &wanted);
        let dir = make(self.layout, v2, &self.path)?;
        self.v2 = Some(dir);
        Ok(warnings)
    }

    /// Opens existing cgroups. Hierarchies that lack the path are passed over; if all do, it is not found.
    pub fn open(path: &str) -> Result<Self, CgroupError> {
        Self::open_in(Layout::host()?, path)
    }

    fn open_in(layout: &'static Layout, path: &str) -> Result<Self, CgroupError> {
        let path = CgroupPath::new(path)?;
        let mut v1 = Vec::with_capacity(layout.v1.len());
        for hierarchy in &layout.v1 {
            v1.push(match open_dir(hierarchy, path.as_str()) {
                Ok(dir) => {
                    let tasks = open_tasks(dir.as_fd()).map_err(|e| io(hierarchy, &path, "open tasks of", e))?;
                    Some(Node { dir, tasks })
                }
                Err(Errno::NOENT) => None,
                Err(e) => return Err(io(hierarchy, &path, "open", e)),
            });
        }
        let v2 = match &layout.v2 {
            None => None,
            Some(v2) => match open_dir(v2, path.as_str()) {
                Ok(dir) => Some(dir),
                Err(Errno::NOENT) => None,
                Err(e) => return Err(io(v2, &path, "open", e)),
            },
        };
        if v2.is_none() && v1.iter().all(Option::is_none) {
            return Err(CgroupError::NotFound { path: path.as_str().to_owned() });
        }
        Ok(Self { layout, path, v1, v2 })
    }

    /// Path below the root of each hierarchy.
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    /// Moves the calling process into the version 1 cgroups. It must be single-threaded: only the calling *thread* moves.
    /// Opens nothing, so it works after the process has entered other namespaces.
    pub fn join_self(&self) -> Result<(), CgroupError> {
        for (node, hierarchy) in self.v1.iter().zip(&self.layout.v1) {
            if let Some(node) = node {
                rustix::io::write(&node.tasks, b"0").map_err(|e| io(hierarchy, &self.path, "join", e))?;
            }
        }
        Ok(())
    }

    /// Moves the calling process into the version 2 cgroup, for the case that it was not born there. Slow (RCU).
    pub fn join_self_v2(&self) -> Result<(), CgroupError> {
        match (&self.v2, &self.layout.v2) {
            (Some(dir), Some(v2)) => {
                layout::write(dir.as_fd(), "cgroup.procs", "0").map_err(|e| io(v2, &self.path, "join", e))
            }
            _ => Ok(()),
        }
    }

    /// The version 2 directory, for `CLONE_INTO_CGROUP`; `None` on hosts without version 2.
    pub fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// Changes the limits that are set in `r`, leaves the others, and returns warnings about those that this host cannot
    /// enforce. Device rules are not changed.
    pub fn update(&self, r: &Resources) -> Result<Vec<String>, CgroupError> {
        self.set_limits(r, Purpose::Update)
    }

    /// Removes the cgroups with all that the container made below them. Idempotent; waits up to 200 ms while the kernel
    /// still tears processes down, then says which are left. One hierarchy's failure does not keep the others.
    pub fn remove(&self) -> Result<(), CgroupError> {
        remove_everywhere(self.layout, &self.path)
    }

    fn set_limits(&self, r: &Resources, purpose: Purpose) -> Result<Vec<String>, CgroupError> {
        let mut warnings = Vec::new();
        let mut refused = Vec::new();
        let (v1, v2) = (limits::v1(r, purpose), limits::v2(r, purpose));
        for controller in Controller::ALL {
            let v1_dir = self.v1_dir(controller.v1_name());
            let (knobs, dir) = if v1_dir.is_some() { (&v1, v1_dir) } else { (&v2, self.v2_dir()) };
            for knob in knobs.iter().filter(|k| k.controller == controller) {
                match self.turn(knob, dir, purpose)? {
                    Turned::Done => {}
                    Turned::Missing => warnings.push(knob.warning.to_owned()),
                    Turned::Refused => refused.push((knob, dir)),
                }
            }
        }
        // Pairs (memory and swap, period and quota) may only be acceptable in the other order.
        for (knob, dir) in refused {
            if let (Turned::Refused, Some((file, value))) = (self.turn(knob, dir, purpose)?, knob.choices.first()) {
                return Err(CgroupError::BadValue {
                    file: format!("{}/{file}", self.path.as_str()),
                    value: value.clone(),
                    source: Errno::INVAL.into(),
                });
            }
        }
        warnings.dedup();
        Ok(warnings)
    }

    fn turn(&self, knob: &Knob, dir: Option<BorrowedFd<'_>>, purpose: Purpose) -> Result<Turned, CgroupError> {
        let Some(dir) = dir else { return Ok(Turned::Missing) };
        for (file, value) in &knob.choices {
            if *file == "memory.max" && purpose == Purpose::Update && used_beyond(dir, value) {
                // Version 2 would kill processes until the limit holds.
                return Err(CgroupError::LimitBelowUse { limit: value.clone() });
            }
            let path = || format!("{}/{file}", self.path.as_str());
            match layout::write(dir, file, value) {
                Ok(()) => return Ok(Turned::Done),
                Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
                Err(Errno::INVAL) => return Ok(Turned::Refused),
                Err(Errno::BUSY) if file.starts_with("memory.") => {
                    return Err(CgroupError::LimitBelowUse { limit: value.clone() });
                }
                Err(e @ (Errno::RANGE | Errno::NOSPC)) => {
                    return Err(CgroupError::BadValue { file: path(), value: value.clone(), source: e.into() });
                }
                // A processor or node that the parent does not have.
                Err(e @ Errno::ACCESS) if file.starts_with("cpuset.") => {
                    return Err(CgroupError::BadValue { file: path(), value: value.clone(), source: e.into() });
                }
                Err(e) => return Err(CgroupError::Io { action: "write", path: path(), source: e.into() }),
            }
        }
        Ok(Turned::Missing)
    }

    fn set_devices(&self, r: &Resources) -> Result<(), CgroupError> {
        if r.devices.is_empty() {
            return Ok(());
        }
        if let Some(dir) = self.v1_dir("devices") {
            let open = |file| rustix::fs::openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, FileMode::empty());
            let error = |action, file: &str, e: Errno| CgroupError::Io {
                action,
                path: format!("{}/{file}", self.path.as_str()),
                source: e.into(),
            };
            let allow = open("devices.allow").map_err(|e| error("open", "devices.allow", e))?;
            let deny = open("devices.deny").map_err(|e| error("open", "devices.deny", e))?;
            for (file, line) in devices::v1_lines(&r.devices) {
                let fd = if file == "devices.allow" { &allow } else { &deny };
                rustix::io::write(fd, line.as_bytes()).map_err(|e| error("write", file, e))?;
            }
            return Ok(());
        }
        let policy = devices::Policy::new(&r.devices);
        if policy.allows_all() {
            return Ok(());
        }
        let dir = self.v2_dir().ok_or(CgroupError::NoDeviceControl)?;
        let failed =
            |action| move |source| CgroupError::DeviceProgram { action, path: self.path.as_str().to_owned(), source };
        let program = bpf::load_device_program(&policy.program()).map_err(failed("load"))?;
        bpf::attach_device_program(dir, program.as_fd()).map_err(failed("attach"))
    }

    /// The directory in the version 1 hierarchy that has a controller.
    fn v1_dir(&self, controller: &str) -> Option<BorrowedFd<'_>> {
        let node = self.v1.get(self.layout.v1_home(controller)?)?.as_ref()?;
        Some(node.dir.as_fd())
    }
}

/// What became of a knob.
enum Turned {
    Done,
    Missing,
    Refused,
}

fn used_beyond(dir: BorrowedFd<'_>, limit: &str) -> bool {
    let used = layout::read(dir, "memory.current").ok().and_then(|t| t.trim().parse::<u64>().ok());
    matches!((used, limit.parse::<u64>()), (Some(used), Ok(limit)) if used > limit)
}

fn io(hierarchy: &Hierarchy, path: &CgroupPath, action: &'static str, e: Errno) -> CgroupError {
    CgroupError::Io { action, path: hierarchy.mount.join(path.as_str()).display().to_string(), source: e.into() }
}

fn open_dir(hierarchy: &Hierarchy, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(hierarchy.root(), path, flags, FileMode::empty())
}

fn open_tasks(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, "tasks", OFlags::WRONLY | OFlags::CLOEXEC, FileMode::empty())
}

/// mkdir; `false` if it was there.
#[cfg_attr(not(test), expect(unused_variables, reason = "only tests play kernel after a mkdir"))]
fn make_dir(layout: &Layout, hierarchy: &Hierarchy, path: &str) -> Result<bool, Errno> {
    match rustix::fs::mkdirat(hierarchy.root(), path, FileMode::from_raw_mode(0o755)) {
        Ok(()) => {
            #[cfg(test)]
            if let Some(populate) = layout.populate {
                populate(&hierarchy.mount.join(path));
            }
            Ok(true)
        }
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A fresh directory in one hierarchy: parents are made, an old one of the same name is replaced.
fn make(layout: &Layout, hierarchy: &Hierarchy, path: &CgroupPath) -> Result<OwnedFd, CgroupError> {
    let failed = |e| io(hierarchy, path, "create", e);
    let fresh = match make_dir(layout, hierarchy, path.as_str()) {
        Err(Errno::NOENT) => {
            for ancestor in path.ancestors() {
                make_dir(layout, hierarchy, ancestor).map_err(failed)?;
            }
            make_dir(layout, hierarchy, path.as_str())
        }
        other => other,
    };
    if !fresh.map_err(failed)? {
        // A dead container's: its counters and limits must not become ours.
        remove_tree(hierarchy, path.as_str(), Instant::now() + REMOVE_PATIENCE)?;
        make_dir(layout, hierarchy, path.as_str()).map_err(failed)?;
    }
    open_dir(hierarchy, path.as_str()).map_err(|e| io(hierarchy, path, "open", e))
}

/// Gives a new version 1 cpuset its parent's CPUs and memory nodes, without which nothing could join it.
///
/// A parent with `cgroup.clone_children` has done so already; parents that this engine makes get the flag.
fn fill_cpuset(hierarchy: &Hierarchy, path: &CgroupPath) -> Result<(), CgroupError> {
    let root = hierarchy.root();
    let empty = |dir: &str| layout::read(root, &format!("{dir}/cpuset.cpus")).map(|t| t.trim().is_empty());
    let failed = |e| io(hierarchy, path, "copy the parent's cpuset to", e);
    if !empty(path.as_str()).map_err(failed)? {
        return Ok(());
    }
    let mut parent = ".";
    for dir in path.ancestors().chain([path.as_str()]) {
        if empty(dir).map_err(failed)? {
            // Whoever sees CPUs may rely on the nodes, so they are written last.
            for file in ["cpuset.mems", "cpuset.cpus"] {
                let value = layout::read(root, &format!("{parent}/{file}")).map_err(failed)?;
                layout::write(root, &format!("{dir}/{file}"), value.trim()).map_err(failed)?;
            }
            layout::write(root, &format!("{dir}/cgroup.clone_children"), "1").map_err(failed)?;
        }
        parent = dir;
    }
    Ok(())
}

fn v2_controllers(v2: &Hierarchy) -> Vec<String> {
    let text = layout::read(v2.root(), "cgroup.controllers").unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Enables controllers in every ancestor's `cgroup.subtree_control`, from the root down. What cannot be enabled is
/// reported; the limits that need it then warn one by one.
fn hand_down(v2: &Hierarchy, path: &CgroupPath, wanted: &[&str]) -> Vec<String> {
    let enabled = |dir: &str| layout::read(v2.root(), &format!("{dir}/cgroup.subtree_control")).unwrap_or_default();
    let missing = |text: &str| -> Vec<&str> {
        wanted.iter().copied().filter(|w| !text.split_whitespace().any(|e| e == *w)).collect()
    };
    // The innermost parent having them means that all have.
    if missing(&enabled(path.ancestors().last().unwrap_or("."))).is_empty() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    for dir in std::iter::once(".").chain(path.ancestors()) {
        for controller in missing(&enabled(dir)) {
            // One at a time: a write with one bad name changes nothing.
            let written = layout::write(v2.root(), &format!("{dir}/cgroup.subtree_control"), &format!("+{controller}"));
            if let Err(e) = written {
                let place = v2.mount.join(dir.trim_start_matches('.'));
                let warning = format!(
                    "cannot enable the {controller} controller below {}: {}",
                    place.display(),
                    std::io::Error::from(e)
                );
                // Deeper levels fail for the same reason.
                if !warnings.iter().any(|w: &String| w.contains(&format!("the {controller} controller"))) {
                    warnings.push(warning);
                }
            }
        }
    }
    warnings
}

fn remove_everywhere(layout: &Layout, path: &CgroupPath) -> Result<(), CgroupError> {
    let deadline = Instant::now() + REMOVE_PATIENCE;
    let mut outcome = Ok(());
    for hierarchy in layout.v1.iter().chain(&layout.v2) {
        // Teardown goes on; the first failure is told.
        outcome = outcome.and(remove_tree(hierarchy, path.as_str(), deadline));
    }
    outcome
}

/// Removes a cgroup and its descendants from one hierarchy.
fn remove_tree(hierarchy: &Hierarchy, path: &str, deadline: Instant) -> Result<(), CgroupError> {
    let failed = |path: &str, e: Errno| CgroupError::Io {
        action: "remove",
        path: hierarchy.mount.join(path).display().to_string(),
        source: e.into(),
    };
    let remove = |path: &str| match rustix::fs::unlinkat(hierarchy.root(), path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
        Err(e) => Err(failed(path, e)),
    };
    let mut pause = Duration::from_millis(1);
    while !remove(path)? {
        let mut pids = tasks::pids_below(hierarchy.root(), path);
        if pids.is_empty() {
            // Only cgroups that the container made keep it. Those of living processes are left alone.
            let mut below = Vec::new();
            descendants(hierarchy.root(), path, &mut below);
            // Children come after their parents in the list.
            for child in below.iter().rev() {
                remove(child)?;
            }
            if remove(path)? {
                break;
            }
        }
        if Instant::now() >= deadline {
            pids.sort_unstable();
            return Err(CgroupError::Busy { path: hierarchy.mount.join(path).display().to_string(), pids });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(16));
    }
    Ok(())
}

/// Directories below a cgroup, parents before children, without the cgroup itself. Bounded: a container may have made
/// any number of them.
fn descendants(root: BorrowedFd<'_>, path: &str, found: &mut Vec<String>) {
    const MAX: usize = 65_536;
    let mut level = vec![path.to_owned()];
    for _ in 0..MAX_NESTING {
        let mut next = Vec::new();
        for dir in &level {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(fd) = rustix::fs::openat(root, dir.as_str(), flags, FileMode::empty()) else { continue };
            let Ok(entries) = Dir::read_from(&fd) else { continue };
            for entry in entries.flatten() {
                let Ok(name) = entry.file_name().to_str() else { continue };
                if entry.file_type() == FileType::Directory && name != "." && name != ".." {
                    next.push(format!("{dir}/{name}"));
                }
            }
            if found.len() + next.len() > MAX {
                break;
            }
        }
        if next.is_empty() {
            return;
        }
        found.extend(next.iter().cloned());
        level = next;
    }
}

#[cfg(test)]
mod tests;
