//! Changing a root file system by file descriptor.
//!
//! The code here runs inside the helper that [`crate::Backend::edit`] provides. Every path is resolved by the kernel
//! inside the root (`openat2` with `RESOLVE_IN_ROOT`), and every change is made relative to a directory that was opened
//! that way, so that no link in an image can lead out of it.

mod clamp;
mod copy;
mod users;

pub use clamp::clamp;
pub(crate) use copy::{Copier, CopySettings};
pub(crate) use users::{Owner, lookup};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chownat, fchmod, fchown, mkdirat, openat2,
    readlinkat, statat,
};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// As many links as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A change of a root file system failed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The system refused.
    #[error("cannot {operation} {path:?}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Path in the root, or name.
        path: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A directory shall go where a file is. The wording is BuildKit's.
    #[error("cannot copy to non-directory: {0}")]
    NotDirectory(String),
    /// A file shall go where a directory is. The wording is BuildKit's.
    #[error("cannot replace to directory {0} with file")]
    IsDirectory(String),
    /// Several files shall go to one name. The wording is Docker's.
    #[error("When using {0} with more than one source file, the destination must be a directory and end with a /")]
    SeveralSources(&'static str),
    /// A user or group is not known to the image.
    #[error("unable to find {kind} {name:?}: no matching entries in {file}")]
    NoSuchName {
        /// `user` or `group`.
        kind: &'static str,
        /// As written.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// A number that is no id.
    #[error("invalid user or group {0:?}")]
    BadOwner(String),
    /// `/etc/passwd` or `/etc/group` is no regular file, or far too large.
    #[error("{0} of the image is not a regular file of reasonable size")]
    BadAccounts(&'static str),
}

pub(crate) fn io_error(operation: &'static str, path: &[u8], errno: Errno) -> TreeError {
    TreeError::Io { operation, path: String::from_utf8_lossy(path).into_owned(), source: errno.into() }
}

/// A root directory that paths cannot leave.
#[derive(Clone, Copy)]
pub(crate) struct Root<'a>(pub(crate) BorrowedFd<'a>);

/// A place in a root: an open directory and a name in it that is no link.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: OwnedFd,
    pub(crate) name: Vec<u8>,
    /// What is there now.
    pub(crate) stat: Option<Stat>,
    /// The path that led here, links resolved as far as this code did it.
    pub(crate) path: Vec<u8>,
}

impl Place {
    pub(crate) fn is_directory(&self) -> bool {
        self.stat.as_ref().is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
    }
}

impl Root<'_> {
    /// Opens a path inside the root.
    pub(crate) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: a rename or mount elsewhere raced with the resolution (openat2(2)).
        for _ in 0..64 {
            match openat2(self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens a directory inside the root.
    pub(crate) fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens a directory, making it and its missing parents (0755) with this owner. A dangling link is made to lead
    /// somewhere by making its target, inside the root.
    pub(crate) fn make_directories(&self, path: &[u8], owner: (u32, u32)) -> Result<OwnedFd, TreeError> {
        self.make_at_depth(path, owner, 0)
    }

    fn make_at_depth(&self, path: &[u8], owner: (u32, u32), links: usize) -> Result<OwnedFd, TreeError> {
        let fail = |e| io_error("create directory", path, e);
        match self.directory(path) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(fail),
        }
        if links > MAX_LINKS {
            return Err(fail(Errno::LOOP));
        }
        let (parent_path, name) = split(path);
        let parent = self.make_at_depth(parent_path, owner, links + 1)?;
        if name.is_empty() || name == b".." {
            return self.directory(path).map_err(fail);
        }
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let made = Root(parent.as_fd()).directory(name).map_err(fail)?;
                // The umask of whoever started us does not belong into an image.
                fchmod(&made, Mode::from_raw_mode(0o755)).map_err(fail)?;
                set_owner(made.as_fd(), owner).map_err(fail)?;
                Ok(made)
            }
            Err(Errno::EXIST) => match readlinkat(&parent, name, Vec::new()) {
                Ok(target) => self.make_at_depth(&follow(parent_path, target.as_bytes()), owner, links + 1),
                Err(_) => self.directory(path).map_err(fail),
            },
            Err(e) => Err(fail(e)),
        }
    }

    /// Finds the place of a path whose parents exist; a link at the end is followed, even a dangling one.
    pub(crate) fn locate(&self, path: &[u8]) -> Result<Place, TreeError> {
        let mut path = path.to_vec();
        for _ in 0..MAX_LINKS {
            let fail = |e| io_error("open", &path, e);
            let (parent, name) = split(&path);
            if name.is_empty() || name == b".." {
                // The root, or a path that ends by going up: an existing directory.
                let directory = self.directory(&path).map_err(fail)?;
                let stat = rustix::fs::fstat(&directory).map_err(fail)?;
                return Ok(Place { directory, name: b".".to_vec(), stat: Some(stat), path });
            }
            let directory = self.directory(parent).map_err(fail)?;
            let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(e) => return Err(fail(e)),
            };
            if stat.as_ref().is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Symlink) {
                let target = readlinkat(&directory, name, Vec::new()).map_err(fail)?;
                path = follow(parent, target.as_bytes());
                continue;
            }
            let name = name.to_vec();
            return Ok(Place { directory, name, stat, path });
        }
        Err(io_error("open", &path, Errno::LOOP))
    }
}

/// The directory part and the last element of a path, trailing slashes and dots dropped.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let mut end = path.len();
    loop {
        let trimmed = &path[..end];
        if trimmed.last() == Some(&b'/') {
            end -= 1;
        } else if trimmed == b"." {
            return (b"", b"");
        } else if trimmed.ends_with(b"/.") {
            end -= 1;
        } else {
            break;
        }
    }
    let path = &path[..end];
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn follow(parent: &[u8], target: &[u8]) -> Vec<u8> {
    if target.first() == Some(&b'/') { target.to_vec() } else { [parent, b"/", target].concat() }
}

fn ids(owner: (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
}

pub(crate) fn set_owner(fd: BorrowedFd<'_>, owner: (u32, u32)) -> Result<(), Errno> {
    let (uid, gid) = ids(owner);
    fchown(fd, uid, gid)
}

pub(crate) fn set_owner_at(directory: BorrowedFd<'_>, name: &[u8], owner: (u32, u32)) -> Result<(), Errno> {
    let (uid, gid) = ids(owner);
    chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests;
