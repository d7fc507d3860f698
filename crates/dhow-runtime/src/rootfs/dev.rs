//! `/dev`: device nodes, the links every program expects, the console.
//!
//! Nodes are made only in a tmpfs that the specification mounts on `/dev` and that was made a moment ago, or in the
//! image's own `/dev` when nothing is mounted there; a `/dev` that is bound from the host is left as it is.

use super::{DIR_MODE, Planned, Root};
use crate::error::{Failure, OrFail, Stage};
use dhow_oci::runtime::Device;
use dhow_sys::fs as paths;
use dhow_sys::mount;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Nodes that every container has (OCI runtime specification, config-linux.md, "Default Devices"), 0666.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links that every container has.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

impl Root {
    /// Makes nodes and links.
    pub(super) fn make_devices(&self, extra: &[Device], mounts: &[Planned<'_>]) -> Result<(), Failure> {
        if let Some(dev) = self.open_dev(mounts)? {
            for (name, major, minor) in NODES {
                let mode = Mode::from_raw_mode(0o666);
                make_node(dev.as_fd(), Path::new(name), FileType::CharacterDevice, mode, (major, minor))
                    .or_fail(Stage::Device, || format!("cannot make /dev/{name}"))?;
            }
            for (name, target) in LINKS {
                // Of the host, whose kernel it is: one without kcore has no use for a dangling link.
                if name == "core" && rustix::fs::stat(target).is_err() {
                    continue;
                }
                match rustix::fs::symlinkat(target, &dev, name) {
                    // In a `/dev` of the image it may be there, as whatever the image likes.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e).or_fail(Stage::Device, || format!("cannot make /dev/{name}")),
                }
            }
        }
        extra.iter().try_for_each(|device| self.make_device(device))
    }

    /// The directory to make the usual nodes in.
    fn open_dev(&self, mounts: &[Planned<'_>]) -> Result<Option<OwnedFd>, Failure> {
        let what = || "cannot open /dev; it must be a directory, not a symbolic link";
        if let Some(dev) = &self.dev {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            return paths::open_without_links(dev.as_fd(), Path::new("."), flags, Mode::empty())
                .or_fail(Stage::Device, what)
                .map(Some);
        }
        if mounts.iter().any(|m| m.target == Path::new("/dev")) {
            return Ok(None);
        }
        paths::make_dirs_in_root(self.fd.as_fd(), Path::new("/dev"), DIR_MODE).or_fail(Stage::Device, what)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        paths::open_without_links(self.fd.as_fd(), Path::new("/dev"), flags, Mode::empty())
            .or_fail(Stage::Device, what)
            .map(Some)
    }

    /// Makes a node of the specification.
    fn make_device(&self, device: &Device) -> Result<(), Failure> {
        let what = || format!("cannot make the device {:?}", device.path);
        let kind = match device.kind {
            'c' | 'u' => FileType::CharacterDevice,
            'b' => FileType::BlockDevice,
            'p' => FileType::Fifo,
            other => return Err(Failure::new(Stage::Specification, format!("{}: unknown type {other:?}", what()))),
        };
        if device.path.contains('\0') {
            return Err(Failure::new(Stage::Specification, "a device path with a NUL"));
        }
        let path: PathBuf = paths::clean_absolute(&device.path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Failure::new(Stage::Specification, what()));
        };
        let parent = paths::make_dirs_in_root(self.fd.as_fd(), parent, DIR_MODE).or_fail(Stage::Device, what)?;
        let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
        let made = make_node(parent.as_fd(), Path::new(name), kind, mode, (device.major, device.minor))
            .or_fail(Stage::Device, what)?;
        if made && (device.uid, device.gid) != (0, 0) {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            rustix::fs::chownat(&parent, name, Some(uid), Some(gid), flags).or_fail(Stage::Device, what)?;
        }
        Ok(())
    }
}

/// Makes a node. One that is there already must be the same device; `false` then.
fn make_node(
    dir: BorrowedFd<'_>,
    name: &Path,
    kind: FileType,
    mode: Mode,
    (major, minor): (u32, u32),
) -> std::io::Result<bool> {
    let device = rustix::fs::makedev(major, minor);
    match rustix::fs::mknodat(dir, name, kind, mode, device) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => {
            let there = rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            let same =
                FileType::from_raw_mode(there.st_mode) == kind && (kind == FileType::Fifo || there.st_rdev == device);
            if same { Ok(false) } else { Err(std::io::Error::from_raw_os_error(libc::EEXIST)) }
        }
        Err(e) => Err(e.into()),
    }
}

/// Puts a terminal's peer at `/dev/console` of a root whose devpts instance it is from.
///
/// The name is made as a new, empty file; one that is there is covered only if it is not a link (CVE-2025-52565).
pub(crate) fn add_console(
    root: BorrowedFd<'_>,
    devpts: BorrowedFd<'_>,
    pty: &dhow_sys::tty::Pty,
) -> Result<(), Failure> {
    let what = || "cannot set up /dev/console";
    let source = mount::clone_tree_at(devpts, Path::new(&pty.number.to_string()), false).or_fail(Stage::Stdio, what)?;
    let named = rustix::fs::fstat(&source).or_fail(Stage::Stdio, what)?;
    let peer = rustix::fs::fstat(&pty.peer).or_fail(Stage::Stdio, what)?;
    if (named.st_dev, named.st_ino, named.st_rdev) != (peer.st_dev, peer.st_ino, peer.st_rdev) {
        return Err(Failure::new(Stage::Stdio, "the terminal's name leads to something else"));
    }
    let console = Path::new("/dev/console");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    match paths::open_without_links(root, console, flags, Mode::from_raw_mode(0o600)) {
        Err(e) if e.raw_os_error() != Some(libc::EEXIST) => return Err(e).or_fail(Stage::Stdio, what),
        _ => {}
    }
    let place = paths::open_without_links(root, console, OFlags::PATH, Mode::empty()).or_fail(Stage::Stdio, what)?;
    mount::attach(source.as_fd(), place.as_fd()).or_fail(Stage::Stdio, what)
}
