//! Mounts by file descriptor (fsopen(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2)).
//!
//! A mount made here is *detached* until it is moved onto a directory or file that was opened before; so nobody can
//! redirect it by swapping a path. Strings reach the kernel as parameters of a file system only.

use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Attributes of a mount, `MOUNT_ATTR_*` of mount_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(u64);

impl Attributes {
    /// None.
    pub const NONE: Self = Self(0);
    /// `ro`
    pub const READ_ONLY: Self = Self(0x1);
    /// `nosuid`
    pub const NO_SUID: Self = Self(0x2);
    /// `nodev`
    pub const NO_DEV: Self = Self(0x4);
    /// `noexec`
    pub const NO_EXEC: Self = Self(0x8);
    /// `noatime`
    pub const NO_ATIME: Self = Self(0x10);
    /// `strictatime`
    pub const STRICT_ATIME: Self = Self(0x20);
    /// `nodiratime`
    pub const NO_DIR_ATIME: Self = Self(0x80);
    /// The bits that choose one of `relatime` (0), `noatime`, `strictatime`; to change one, clear all.
    pub const ATIME_MASK: Self = Self(0x70);

    /// Both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This without the other's.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of the other's are in this.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Propagation of mount events (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// To and from peers.
    Shared,
    /// From peers only.
    Slave,
    /// None.
    Private,
    /// None, and it cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    const fn flag(self) -> u64 {
        match self {
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Private => libc::MS_PRIVATE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// `struct mount_attr` (mount_setattr(2)), version 0.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `AT_RECURSIVE` of `linux/fcntl.h`; C libraries do not all have it.
const AT_RECURSIVE: libc::c_int = 0x8000;

fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is borrowed, the path is a C string, and `attr` is a `struct mount_attr` of the size passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Adds attributes to a mount, with everything mounted below it when `recursive` (Linux 5.12).
pub fn set_attributes(mount: BorrowedFd<'_>, set: Attributes, recursive: bool) -> io::Result<()> {
    change_attributes(mount, set, Attributes::NONE, recursive)
}

/// Adds and removes attributes of a mount.
pub fn change_attributes(mount: BorrowedFd<'_>, set: Attributes, clear: Attributes, recursive: bool) -> io::Result<()> {
    mount_setattr(mount, recursive, &MountAttr { set: set.0, clear: clear.0, ..MountAttr::default() })
}

/// Sets the propagation of a mount, with everything mounted below it when `recursive`.
pub fn set_propagation(mount: BorrowedFd<'_>, propagation: Propagation, recursive: bool) -> io::Result<()> {
    mount_setattr(mount, recursive, &MountAttr { propagation: propagation.flag(), ..MountAttr::default() })
}

/// Sets the propagation of every mount of the calling process's namespace.
pub fn set_propagation_of_all(propagation: Propagation) -> io::Result<()> {
    // SAFETY: source, type and data are ignored for a change of propagation and may be null; the target is a C string.
    let result = unsafe {
        libc::mount(
            std::ptr::null(),
            c"/".as_ptr(),
            std::ptr::null(),
            propagation.flag() | libc::MS_REC,
            std::ptr::null(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A detached clone of what is mounted at a descriptor's place, with everything below it when `recursive`.
pub fn clone_tree(at: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree_at(at, Path::new(""), recursive)
}

/// A detached clone of the tree at a path, for paths that are trusted as a whole. Symbolic links are followed.
pub fn clone_tree_at(at: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.as_os_str().is_empty());
    Ok(rustix::mount::open_tree(at, path, flags)?)
}

/// Puts a detached mount on top of an opened directory or file.
pub fn attach(mount: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", onto, c"", flags)?)
}

/// A file system being configured (fsopen(2)).
#[derive(Debug)]
pub struct Filesystem {
    context: OwnedFd,
}

impl Filesystem {
    /// Begins to configure a file system of a type.
    pub fn open(kind: &CStr) -> io::Result<Self> {
        Ok(Self { context: rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)? })
    }

    /// Sets a parameter without value.
    pub fn flag(&self, key: &str) -> io::Result<()> {
        rustix::mount::fsconfig_set_flag(self.context.as_fd(), key).map_err(|e| self.explain(e.into()))
    }

    /// Sets a parameter; values of 256 bytes or more are refused by the kernel.
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        rustix::mount::fsconfig_set_string(self.context.as_fd(), key, value).map_err(|e| self.explain(e.into()))
    }

    /// Sets a parameter to an opened file. `O_PATH` descriptors are taken from Linux 6.13 on.
    pub fn set_fd(&self, key: &str, value: BorrowedFd<'_>) -> io::Result<()> {
        rustix::mount::fsconfig_set_fd(self.context.as_fd(), key, value).map_err(|e| self.explain(e.into()))
    }

    /// Makes the file system and a detached mount of it.
    pub fn mount(&self, attributes: Attributes) -> io::Result<OwnedFd> {
        let context = self.context.as_fd();
        rustix::mount::fsconfig_create(context).map_err(|e| self.explain(e.into()))?;
        let attributes = MountAttrFlags::from_bits_retain(attributes.0 as u32);
        rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|e| self.explain(e.into()))
    }

    /// Adds what the kernel wrote into the context's log (one message a read, prefixed by its level) to an error.
    fn explain(&self, error: io::Error) -> io::Error {
        let mut messages = Vec::new();
        let mut buffer = [0; 512];
        while let Ok(n) = rustix::io::read(&self.context, &mut buffer)
            && n > 0
            && messages.len() < 8
        {
            let text = String::from_utf8_lossy(&buffer[..n]);
            messages.push(text.trim_end().get(2..).unwrap_or_default().to_owned());
        }
        match (messages.is_empty(), error.raw_os_error()) {
            (false, Some(_)) => {
                io::Error::new(error.kind(), KernelMessage { message: messages.join("; "), source: error })
            }
            _ => error,
        }
    }
}

/// An error of the mount API with the kernel's own words.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct KernelMessage {
    /// What the kernel wrote.
    pub message: String,
    /// The errno.
    pub source: io::Error,
}

/// The errno of an error, also of one with the kernel's words around it.
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| error.get_ref()?.downcast_ref::<KernelMessage>()?.source.raw_os_error())
}

/// The classic mount(2), for a target in the current directory or an otherwise trusted path. `data` is limited to a page
/// by the kernel.
pub fn mount_classic(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong, data: &CStr) -> io::Result<()> {
    // SAFETY: all four are C strings that live across the call.
    let result = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the mount at `root` the root of the calling process's mount namespace, and drops the old one with all its
/// mounts. The current directory is the new root afterwards.
pub fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    // Old and new root at the same place: the old one ends on top, where it is taken away (pivot_root(2), NOTES).
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", rustix::mount::UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir(c"/")?)
}

/// Whether a descriptor is on a file system of this magic number (statfs(2)).
pub fn is_on(fd: BorrowedFd<'_>, magic: u64) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type as u64 == magic)
}

/// Opens a path that is trusted as a whole, without reading anything.
pub fn open_place(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_combine() {
        let both = Attributes::READ_ONLY.with(Attributes::NO_EXEC);
        assert!(both.contains(Attributes::READ_ONLY) && both.contains(Attributes::NO_EXEC));
        assert_eq!(both.without(Attributes::READ_ONLY), Attributes::NO_EXEC);
        assert!(Attributes::NONE.is_empty() && !both.is_empty());
    }

    #[test]
    fn root_detached_mounts_keep_their_attributes_and_the_kernel_explains() {
        let tmpfs = Filesystem::open(c"tmpfs").unwrap();
        tmpfs.set("size", "64k").unwrap();
        let mount = tmpfs.mount(Attributes::NO_EXEC).unwrap();
        assert!(is_on(mount.as_fd(), 0x0102_1994).unwrap());
        set_attributes(mount.as_fd(), Attributes::READ_ONLY, false).unwrap();
        let error = rustix::fs::mkdirat(&mount, "x", 0o755.into()).unwrap_err();
        assert_eq!(error, rustix::io::Errno::ROFS);

        let error = Filesystem::open(c"tmpfs").unwrap().set("nonsense", "1").unwrap_err();
        assert_eq!(errno(&error), Some(libc::EINVAL));
        assert!(error.to_string().contains("nonsense"), "{error}");
    }
}
