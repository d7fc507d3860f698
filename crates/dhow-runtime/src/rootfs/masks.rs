//! Hidden and read-only paths.
//!
//! What hides a path comes from one small tmpfs that only this process ever held: an empty directory, and a device node
//! made as 1:3 and looked at again. Nothing named `/dev/null` inside or outside the container is involved, so nothing
//! can be put in its place (CVE-2025-31133). A path that exists is hidden, or the start fails.

use super::Root;
use crate::error::{Failure, OrFail, Stage};
use dhow_sys::fs as paths;
use dhow_sys::mount::{self, Attributes, Filesystem};
use rustix::fs::{FileType, Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The tmpfs that masks are cloned from.
#[derive(Debug)]
pub(super) struct Store {
    tmpfs: OwnedFd,
}

/// Opens what a path of the container leads to, without acting on it; `None` when there is nothing.
fn open_existing(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>, Failure> {
    match paths::open_in_root(root, Path::new(path), OFlags::PATH, Mode::empty()) {
        Ok(place) => Ok(Some(place)),
        // This kernel has no such file, or the image no such directory.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e).or_fail(Stage::Mask, || format!("cannot open {path:?} to protect it")),
    }
}

impl Store {
    pub(super) fn new() -> Result<Self, Failure> {
        let tmpfs = Self::make().or_fail(Stage::Mask, || "cannot make the file system for masks")?;
        let null = paths::open_without_links(tmpfs.as_fd(), Path::new("null"), OFlags::PATH, Mode::empty());
        match null.and_then(|null| paths::is_char_device(null, 1, 3)) {
            Ok(true) => Ok(Self { tmpfs }),
            Ok(false) => Err(Failure::new(Stage::Mask, "the mask is not the null device")),
            Err(e) => Err(e).or_fail(Stage::Mask, || "cannot look at the mask"),
        }
    }

    fn make() -> std::io::Result<OwnedFd> {
        let tmpfs = Filesystem::open(c"tmpfs")?;
        tmpfs.set("source", "tmpfs")?;
        tmpfs.set("size", "4k")?;
        let tmpfs = tmpfs.mount(Attributes::NO_SUID.with(Attributes::NO_EXEC))?;
        rustix::fs::mkdirat(&tmpfs, c"empty", Mode::from_raw_mode(0o755))?;
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(&tmpfs, c"null", FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)?;
        // Clones inherit it: not even the container's root can change mode or owner of the node.
        mount::set_attributes(tmpfs.as_fd(), Attributes::READ_ONLY, false)?;
        Ok(tmpfs)
    }

    /// Mounts the tmpfs where the root is going to cover it: the kernel clones only what is mounted somewhere.
    pub(super) fn attach(&self, place: BorrowedFd<'_>) -> Result<(), Failure> {
        mount::attach(self.tmpfs.as_fd(), place).or_fail(Stage::Mask, || "cannot mount the file system for masks")
    }

    fn clone_of(&self, name: &str) -> std::io::Result<OwnedFd> {
        mount::clone_tree_at(self.tmpfs.as_fd(), Path::new(name), false)
    }

    /// Opens the null device, for a process whose container has none.
    pub(super) fn open_null(&self) -> std::io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        paths::open_without_links(self.tmpfs.as_fd(), Path::new("null"), flags, Mode::empty())
    }
}

impl Root {
    /// Makes paths read-only, with everything mounted below them.
    pub(super) fn make_read_only(&self, list: &[String]) -> Result<(), Failure> {
        for path in list {
            let Some(place) = open_existing(self.fd.as_fd(), path)? else { continue };
            let what = || format!("cannot make {path:?} read-only");
            let clone = mount::clone_tree(place.as_fd(), true).or_fail(Stage::Mask, what)?;
            mount::set_attributes(clone.as_fd(), Attributes::READ_ONLY, true).or_fail(Stage::Mask, what)?;
            mount::attach(clone.as_fd(), place.as_fd()).or_fail(Stage::Mask, what)?;
        }
        Ok(())
    }

    /// Hides paths: directories behind an empty one, everything else behind the null device.
    pub(super) fn hide(&self, list: &[String]) -> Result<(), Failure> {
        for path in list {
            let Some(place) = open_existing(self.fd.as_fd(), path)? else { continue };
            let what = || format!("cannot hide {path:?}");
            let Some(store) = &self.masks else { return Err(Failure::new(Stage::Mask, what())) };
            let is_dir = paths::is_dir(&place).or_fail(Stage::Mask, what)?;
            let mask = store.clone_of(if is_dir { "empty" } else { "null" }).or_fail(Stage::Mask, what)?;
            mount::attach(mask.as_fd(), place.as_fd()).or_fail(Stage::Mask, what)?;
        }
        Ok(())
    }
}

/// A null device for a process below a root: the container's own if it is one, else one that never had a name in it.
pub(crate) fn open_null(root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let open = |flags| paths::open_in_root(root, Path::new("/dev/null"), flags | OFlags::NOFOLLOW, Mode::empty());
    let is_null = |fd: &OwnedFd| paths::is_char_device(fd, 1, 3).unwrap_or(false);
    // Opening a device acts, so its kind is looked at first, and once more for who may have swapped it.
    if open(OFlags::PATH).is_ok_and(|place| is_null(&place))
        && let Ok(opened) = open(OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK)
        && is_null(&opened)
        && rustix::fs::fcntl_setfl(&opened, OFlags::empty()).is_ok()
    {
        return Ok(opened);
    }
    Store::new()?.open_null().or_fail(Stage::Stdio, || "cannot open the null device")
}
