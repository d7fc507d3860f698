//! `/sys/fs/cgroup` inside the container.
//!
//! On version 2 it is the one hierarchy. On version 1 and hybrid hosts it is a tmpfs with every hierarchy the host has,
//! and Docker's links from single controllers to hierarchies of several (`cpu -> cpu,cpuacct`).
//!
//! In a cgroup namespace of its own the container sees its cgroup as the root of each hierarchy. Without one it must
//! not see the others': then its own directory is bound over the root of the hierarchy.

use super::options::Options;
use crate::error::{Failure, OrFail, Stage};
use dhow_sys::fs as paths;
use dhow_sys::mount::{self, Attributes, Filesystem};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A line of `/proc/self/cgroup` (cgroups(7)).
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    /// `cpu,cpuacct`, `name=systemd`, or empty for version 2.
    controllers: &'a str,
    path: &'a str,
}

fn parse(text: &str) -> Vec<Line<'_>> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            (!controllers.contains('/')).then_some(Line { controllers, path })
        })
        .collect()
}

/// `/proc/self/cgroup`, in one read(2) as a rule: each walks all hierarchies.
fn read_own() -> std::io::Result<String> {
    use std::io::Read;
    let mut text = Vec::with_capacity(4096);
    std::fs::File::open("/proc/self/cgroup")?.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Mounts the hierarchies at a directory.
pub(super) fn mount(target: BorrowedFd<'_>, options: &Options) -> Result<(), Failure> {
    // Of the host's `/proc`, before the root is changed; it shows paths as our cgroup namespace has them.
    let text = read_own().or_fail(Stage::Mount, || "cannot read /proc/self/cgroup")?;
    let lines = parse(&text);
    if lines.iter().all(|l| l.controllers.is_empty()) {
        let what = || "cannot mount cgroup2";
        let cgroup = Filesystem::open(c"cgroup2").or_fail(Stage::Mount, what)?;
        cgroup.set("source", "cgroup").or_fail(Stage::Mount, what)?;
        let cgroup = cgroup.mount(options.attributes()).or_fail(Stage::Mount, what)?;
        return mount::attach(cgroup.as_fd(), target).or_fail(Stage::Mount, what);
    }
    let what = || "cannot mount a tmpfs for cgroups";
    let tmpfs = Filesystem::open(c"tmpfs").or_fail(Stage::Mount, what)?;
    tmpfs.set("source", "tmpfs").or_fail(Stage::Mount, what)?;
    tmpfs.set("mode", "755").or_fail(Stage::Mount, what)?;
    let attributes = options.attributes();
    let tmpfs = tmpfs.mount(attributes.without(Attributes::READ_ONLY)).or_fail(Stage::Mount, what)?;
    mount::attach(tmpfs.as_fd(), target).or_fail(Stage::Mount, what)?;
    for line in &lines {
        add_hierarchy(&tmpfs, line, attributes)?;
    }
    if attributes.contains(Attributes::READ_ONLY) {
        mount::set_attributes(tmpfs.as_fd(), Attributes::READ_ONLY, false).or_fail(Stage::Mount, what)?;
    }
    Ok(())
}

fn add_hierarchy(tmpfs: &OwnedFd, line: &Line<'_>, attributes: Attributes) -> Result<(), Failure> {
    let name = match line.controllers {
        "" => "unified",
        list => list.strip_prefix("name=").unwrap_or(list),
    };
    let what = || format!("cannot mount the cgroup hierarchy {name:?}");
    rustix::fs::mkdirat(tmpfs, name, Mode::from_raw_mode(0o755)).or_fail(Stage::Mount, what)?;
    match mount_hierarchy(tmpfs, name, line.controllers, attributes) {
        Ok(()) => {}
        // A host may know version 2 without mounting it and without letting anybody.
        Err(_) if line.controllers.is_empty() => {
            return rustix::fs::unlinkat(tmpfs, name, rustix::fs::AtFlags::REMOVEDIR).or_fail(Stage::Mount, what);
        }
        Err(e) => return Err(e).or_fail(Stage::Mount, what),
    }
    // A path that leaves the root means somebody else's namespace, whose root is all there is to see.
    if line.path != "/" && !line.path.starts_with("/..") {
        show_own_only(tmpfs, name, line.path).or_fail(Stage::Mount, what)?;
    }
    if line.controllers.contains(',') {
        for controller in line.controllers.split(',') {
            match rustix::fs::symlinkat(name, tmpfs, controller) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e).or_fail(Stage::Mount, what),
            }
        }
    }
    Ok(())
}

/// mount(2) with a target in the current directory: a third of the calls that a detached mount takes, and the directory
/// is one that nobody else can reach.
fn mount_hierarchy(tmpfs: &OwnedFd, name: &str, controllers: &str, attributes: Attributes) -> std::io::Result<()> {
    rustix::process::fchdir(tmpfs)?;
    let mut flags = 0;
    for (attribute, flag) in [
        (Attributes::READ_ONLY, libc::MS_RDONLY),
        (Attributes::NO_SUID, libc::MS_NOSUID),
        (Attributes::NO_DEV, libc::MS_NODEV),
        (Attributes::NO_EXEC, libc::MS_NOEXEC),
    ] {
        flags |= if attributes.contains(attribute) { flag } else { 0 };
    }
    let (kind, data) = match controllers {
        "" => (c"cgroup2", String::new()),
        // A hierarchy that is only named has no controller, and the kernel wants to be told so.
        named if named.starts_with("name=") => (c"cgroup", format!("none,{named}")),
        list => (c"cgroup", list.to_owned()),
    };
    mount::mount_classic(c"cgroup", &CString::new(name)?, kind, flags, &CString::new(data)?)
}

/// Binds a directory of a hierarchy over its root.
fn show_own_only(tmpfs: &OwnedFd, name: &str, path: &str) -> std::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let hierarchy = paths::open_without_links(tmpfs.as_fd(), Path::new(name), flags, Mode::empty())?;
    let own = paths::open_without_links(hierarchy.as_fd(), Path::new(path), flags, Mode::empty())?;
    let own = mount::clone_tree(own.as_fd(), false)?;
    mount::attach(own.as_fd(), hierarchy.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "9:name=systemd:/\n3:cpu,cpuacct:/dhow/a:b\nodd\n5:x/y:/\n0::/x\n";
        let line = |controllers, path| Line { controllers, path };
        assert_eq!(parse(text), [line("name=systemd", "/"), line("cpu,cpuacct", "/dhow/a:b"), line("", "/x")]);
    }
}
