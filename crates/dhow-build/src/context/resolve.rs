//! Path resolution inside a tree, links followed by hand.

use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// As many links as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Names and descriptors (`O_PATH`) from below the root to the object.
    steps: Vec<(Vec<u8>, OwnedFd)>,
    /// Of the object.
    pub(crate) stat: rustix::fs::Stat,
}

impl Resolved {
    /// The real path from the root, without a leading slash; empty for the root itself.
    pub(crate) fn path(&self) -> Vec<u8> {
        self.steps.iter().map(|(name, _)| name.as_slice()).collect::<Vec<_>>().join(&b'/')
    }

    /// The last name of the real path.
    pub(crate) fn name(&self) -> &[u8] {
        self.steps.last().map_or(b".", |(name, _)| name)
    }

    /// The directory that holds the object; `None` when that is the root.
    pub(crate) fn parent(&self) -> Option<BorrowedFd<'_>> {
        let above = self.steps.len().checked_sub(2)?;
        self.steps.get(above).map(|(_, fd)| fd.as_fd())
    }

    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Follows a path, links included, without ever leaving the root: absolute links start at the root again, and `..` stops
/// there.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> Result<Resolved, Errno> {
    let mut pending: VecDeque<Vec<u8>> = elements(path).map(<[u8]>::to_vec).collect();
    let mut steps: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        if name == b".." {
            steps.pop();
            continue;
        }
        let at = steps.last().map_or(root, |(_, fd)| fd.as_fd());
        let fd = openat(at, &*name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let found = fstat(&fd)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            steps.push((name, fd));
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        let target = readlinkat(&fd, "", Vec::new())?.into_bytes();
        if target.first() == Some(&b'/') {
            steps.clear();
        }
        for element in elements(&target).collect::<Vec<_>>().into_iter().rev() {
            pending.push_front(element.to_vec());
        }
    }
    let stat = match steps.last() {
        Some((_, fd)) => fstat(fd)?,
        None => fstat(root)?,
    };
    Ok(Resolved { steps, stat })
}

fn elements(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|e| !e.is_empty() && *e != b".")
}
