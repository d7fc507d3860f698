//! Which cgroup hierarchies this host has, and where.
//!
//! The well-known places are tried first: `/sys/fs/cgroup` itself for version 2, one directory below it per version 1
//! hierarchy named after its controllers. That costs one small file (`/proc/self/cgroup`) and an open per hierarchy; the
//! mount table, which can be long, is read only when a hierarchy is somewhere else.

use super::{CgroupError, Mode};
use rustix::fs::{CWD, Mode as FileMode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where everybody mounts cgroups (file-hierarchy(7), and systemd before that).
const WELL_KNOWN: &str = "/sys/fs/cgroup";
/// `CGROUP_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP1_MAGIC: u64 = 0x0027_e0eb;
/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// One mounted hierarchy.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// Controllers of a version 1 hierarchy, `name=systemd` for a named one; empty for version 2.
    pub(super) controllers: Vec<String>,
    /// Mount point.
    pub(super) mount: PathBuf,
    root: OwnedFd,
}

impl Hierarchy {
    /// The directory at the mount point.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn open(mount: PathBuf, controllers: Vec<String>, magic: u64) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &mount, flags, FileMode::empty()).ok()?;
        // A tmpfs at the well-known place is not a hierarchy.
        (rustix::fs::fstatfs(&root).ok()?.f_type as u64 == magic).then_some(Self { controllers, mount, root })
    }

    /// The same hierarchy once more.
    #[cfg(test)]
    pub(super) fn again(&self) -> Self {
        let root = self.root.try_clone().unwrap();
        Self { controllers: self.controllers.clone(), mount: self.mount.clone(), root }
    }

    /// A hierarchy played by a plain directory.
    #[cfg(test)]
    pub(super) fn fake(mount: &Path, controllers: &[&str]) -> Self {
        let root = rustix::fs::openat(CWD, mount, OFlags::PATH | OFlags::DIRECTORY, FileMode::empty()).unwrap();
        let controllers = controllers.iter().map(|c| (*c).to_owned()).collect();
        Self { controllers, mount: mount.to_owned(), root }
    }
}

/// All hierarchies.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Version 1 hierarchies.
    pub(super) v1: Vec<Hierarchy>,
    /// The version 2 hierarchy.
    pub(super) v2: Option<Hierarchy>,
    /// Called after a directory was made, to put control files where no kernel does.
    #[cfg(test)]
    pub(super) populate: Option<fn(&Path)>,
}

impl Layout {
    /// This host's, found once per process: nobody remounts cgroups under running programs.
    pub(super) fn host() -> Result<&'static Self, CgroupError> {
        static HOST: OnceLock<Option<Layout>> = OnceLock::new();
        HOST.get_or_init(Self::discover).as_ref().ok_or(CgroupError::NoHierarchy)
    }

    fn discover() -> Option<Self> {
        let well_known = Path::new(WELL_KNOWN);
        if let Some(v2) = Hierarchy::open(well_known.to_owned(), Vec::new(), CGROUP2_MAGIC) {
            return Some(Self { v2: Some(v2), ..Self::default() });
        }
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mut mounts = None;
        let mut layout = Self::default();
        for line in parse_own(&own) {
            let found = match line {
                Line::V2 => Hierarchy::open(well_known.join("unified"), Vec::new(), CGROUP2_MAGIC),
                Line::V1(list) => Hierarchy::open(
                    well_known.join(list.strip_prefix("name=").unwrap_or(list)),
                    list.split(',').map(str::to_owned).collect(),
                    CGROUP1_MAGIC,
                ),
            };
            let found = found.or_else(|| {
                let table =
                    mounts.get_or_insert_with(|| fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
                find_mount(table, line)
            });
            match line {
                Line::V2 => layout.v2 = found,
                Line::V1(_) => layout.v1.extend(found),
            }
        }
        (!layout.v1.is_empty() || layout.v2.is_some()).then_some(layout)
    }

    /// How the host mounts cgroups.
    pub(super) fn mode(&self) -> Mode {
        match (self.v1.is_empty(), self.v2.is_some()) {
            (true, _) => Mode::V2,
            (false, false) => Mode::V1,
            (false, true) => Mode::Hybrid,
        }
    }

    /// Index of the version 1 hierarchy that has a controller.
    pub(super) fn v1_home(&self, controller: &str) -> Option<usize> {
        self.v1.iter().position(|h| h.controllers.iter().any(|c| c == controller))
    }
}

/// A line of `/proc/PID/cgroup` (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    V1(&'a str),
    V2,
}

fn parse_own(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers) = (parts.next()?, parts.next()?);
        // A list is compared with mount options and joined to a path; anything odd is not a list.
        match controllers {
            "" if id == "0" => Some(Line::V2),
            "" => None,
            list if list.contains('/') => None,
            list => Some(Line::V1(list)),
        }
    })
}

/// Finds a hierarchy in `/proc/self/mountinfo` (proc(5)).
fn find_mount(table: &str, wanted: Line<'_>) -> Option<Hierarchy> {
    table.lines().find_map(|line| {
        let (mount, kind, options) = parse_mount(line)?;
        match (wanted, kind) {
            (Line::V2, "cgroup2") => Hierarchy::open(mount, Vec::new(), CGROUP2_MAGIC),
            (Line::V1(list), "cgroup") if list.split(',').all(|c| options.split(',').any(|o| o == c)) => {
                Hierarchy::open(mount, list.split(',').map(str::to_owned).collect(), CGROUP1_MAGIC)
            }
            _ => None,
        }
    })
}

/// Mount point, type and super block options of a mountinfo line.
fn parse_mount(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (head, tail) = line.split_once(" - ")?;
    let mount = unescape(head.split(' ').nth(4)?);
    let mut tail = tail.split(' ');
    let kind = tail.next()?;
    let options = tail.nth(1)?;
    Some((mount.into(), kind, options))
}

/// Undoes the octal escapes of spaces, tabs, newlines and backslashes.
fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                out.push(byte as char);
                rest = &after[3..];
            }
            _ => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Opens a file of a cgroup for reading and returns its text, which the kernel keeps short (a page, or a list of pids).
pub(super) fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, Errno> {
    use std::io::Read;
    /// More than two million pids; nothing else comes near.
    const LIMIT: u64 = 16 << 20;
    let fd = rustix::fs::openat(root, path, OFlags::RDONLY | OFlags::CLOEXEC, FileMode::empty())?;
    let mut text = String::new();
    match fs::File::from(fd).take(LIMIT).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(e) => Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
    }
}

/// Writes a value to a file of a cgroup in one write(2). Never creates the file.
pub(super) fn write(root: BorrowedFd<'_>, path: &str, value: &str) -> Result<(), Errno> {
    let fd = rustix::fs::openat(root, path, OFlags::WRONLY | OFlags::CLOEXEC, FileMode::empty())?;
    rustix::io::write(&fd, value.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cgroup_file() {
        let text = "9:name=systemd:/\n4:cpu,cpuacct:/a:b\n1:x/y:/\n0::/\nbad\n";
        assert_eq!(parse_own(text).collect::<Vec<_>>(), [Line::V1("name=systemd"), Line::V1("cpu,cpuacct"), Line::V2]);
    }

    #[test]
    fn mountinfo_lines() {
        let line = r"36 31 0:33 / /sys/fs/odd\040name rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(parse_mount(line), Some(("/sys/fs/odd name".into(), "cgroup", "rw,cpu,cpuacct")));
        assert_eq!(parse_mount("nonsense"), None);
        assert_eq!(unescape(r"a\134b\q\9"), r"a\b\q\9");
    }

    #[test]
    fn this_host_has_cgroups() {
        let layout = Layout::host().unwrap();
        let mode = layout.mode();
        assert_eq!(mode == Mode::V2, layout.v1.is_empty());
        for h in &layout.v1 {
            assert_eq!(layout.v1_home(&h.controllers[0]).map(|i| &layout.v1[i].mount), Some(&h.mount));
        }
    }
}
