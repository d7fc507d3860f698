//! Reading a tree in canonical order: the one walker for hashing, copying and exporting.
//!
//! Names of a directory are visited in byte order, a directory before its contents. Everything is reached by descriptor,
//! one name at a time without following symlinks; only regular files and directories are ever opened, so a FIFO cannot
//! make the walk hang and a device is not touched. The tree may change meanwhile (a running container's upper directory):
//! an entry that vanishes is left out, a file keeps the length it had when it was looked at.

use super::extract::{OPAQUE, attribute_allowed};
use super::resolve::MAX_DEPTH;
use crate::error::{At, StoreError, printable};
use crate::tar::{Entry, Kind, MAX_PATH};
use dhow_sys::xattr;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Prefix of overlay's own attributes.
const OVERLAY: &[u8] = b"trusted.overlay.";
/// Attributes that mean part of the content is elsewhere: such a tree cannot stand alone.
const INCOMPLETE: [&[u8]; 2] = [b"trusted.overlay.redirect", b"trusted.overlay.metacopy"];

/// Takes a file's bytes: where they belong, the bytes, and whether they are a hole's zeros.
type Sink<'a> = dyn FnMut(u64, &[u8], bool) -> Result<(), StoreError> + 'a;

/// What a tree means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// An overlay layer: character device 0:0 is a whiteout, the opaque mark counts.
    Layer,
    /// A plain tree: everything is what it is.
    Plain,
}

/// One thing found.
pub(crate) struct Node<'a> {
    /// Its name in its directory; empty for the root.
    pub(crate) name: &'a [u8],
    /// As the tar says it. A directory's path has no trailing slash here.
    pub(crate) entry: Entry,
    /// Open for reading, if it is a regular file or directory.
    pub(crate) fd: Option<&'a OwnedFd>,
    /// A whiteout of this name (a layer only); `entry` is then the `.wh.` file.
    pub(crate) whiteout: bool,
    /// A directory with the opaque mark (a layer only).
    pub(crate) opaque: bool,
}

/// Receives what is found.
pub(crate) trait Visitor {
    /// A node, directories before their contents.
    fn node(&mut self, node: &Node<'_>) -> Result<(), StoreError>;

    /// All contents of a directory have been visited.
    fn leave(&mut self, _path: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }
}

/// How to walk.
pub(crate) struct Walk<'a> {
    pub(crate) meaning: Meaning,
    /// Paths to leave out with everything below, relative and cleaned.
    pub(crate) skip: &'a [Vec<u8>],
    /// Latest modification time, seconds since 1970.
    pub(crate) clamp: Option<i64>,
    /// Remove overlay's leftover attributes from the files.
    pub(crate) strip: bool,
}

impl Walk<'_> {
    /// Visits the root (with an empty path) and everything below.
    pub(crate) fn run(&self, root: BorrowedFd<'_>, visitor: &mut dyn Visitor) -> Result<(), StoreError> {
        let top = open_dir(root, b".").map_err(failed(b"", "open"))?;
        let stat = rustix::fs::fstat(&top).map_err(failed(b"", "inspect"))?;
        let mut seen = HashMap::new();
        let (mut entry, opaque) = self.describe(Vec::new(), &stat, Some(&top))?;
        entry.kind = Kind::Directory;
        visitor.node(&Node { name: b"", entry, fd: Some(&top), whiteout: false, opaque })?;
        self.contents(top, visitor, &mut seen)
    }

    fn contents(
        &self,
        top: OwnedFd,
        visitor: &mut dyn Visitor,
        seen: &mut HashMap<(u64, u64), Vec<u8>>,
    ) -> Result<(), StoreError> {
        // A stack of our own: the depth of a hostile tree must not be the depth of our recursion.
        let names = list(top.as_fd()).map_err(failed(b"", "list"))?;
        let mut stack = vec![(top, Vec::<u8>::new(), names)];
        while let Some((dir, path, names)) = stack.last_mut() {
            let Some(name) = names.pop() else {
                visitor.leave(path)?;
                stack.pop();
                continue;
            };
            let child = if path.is_empty() { name.clone() } else { [path.as_slice(), b"/", &name].concat() };
            if self.skip.contains(&child) {
                continue;
            }
            if child.len() > MAX_PATH {
                return Err(StoreError::archive(&child, "path longer than 4095 bytes"));
            }
            if let Some(inside) = self.visit(dir.as_fd(), &name, &child, visitor, seen)? {
                if stack.len() > MAX_DEPTH {
                    return Err(StoreError::archive(&child, "directories nested too deep"));
                }
                let names = list(inside.as_fd()).map_err(failed(&child, "list"))?;
                stack.push((inside, child, names));
            }
        }
        Ok(())
    }

    /// Visits one name; the open directory if it is one.
    fn visit(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        visitor: &mut dyn Visitor,
        seen: &mut HashMap<(u64, u64), Vec<u8>>,
    ) -> Result<Option<OwnedFd>, StoreError> {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(failed(path, "inspect")(e)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.meaning == Meaning::Layer && kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            let entry = whiteout_entry(path);
            return visitor.node(&Node { name, entry, fd: None, whiteout: true, opaque: false }).map(|()| None);
        }
        if kind == FileType::Socket || kind == FileType::Unknown {
            return Ok(None);
        }
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = seen.get(&key) {
                let (mut entry, _) = self.describe(path.to_vec(), &stat, None)?;
                entry.kind = Kind::HardLink;
                entry.link = first.clone();
                entry.size = 0;
                return visitor.node(&Node { name, entry, fd: None, whiteout: false, opaque: false }).map(|()| None);
            }
            seen.insert(key, path.to_vec());
        }
        let fd = match kind {
            FileType::Directory => open_dir(dir, name),
            FileType::RegularFile => open_file(dir, name),
            _ => {
                let (mut entry, _) = self.describe(path.to_vec(), &stat, None)?;
                if kind == FileType::Symlink {
                    let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed(path, "read"))?;
                    entry.link = target.into_bytes();
                }
                visitor.node(&Node { name, entry, fd: None, whiteout: false, opaque: false })?;
                return Ok(None);
            }
        };
        let fd = match fd {
            Ok(fd) => fd,
            // Gone or replaced since we looked: as if it had gone before.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => return Ok(None),
            Err(e) => return Err(failed(path, "open")(e)),
        };
        // Of what was opened, not of what had the name before.
        let stat = rustix::fs::fstat(&fd).map_err(failed(path, "inspect"))?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Ok(None);
        }
        let (entry, opaque) = self.describe(path.to_vec(), &stat, Some(&fd))?;
        visitor.node(&Node { name, entry, fd: Some(&fd), whiteout: false, opaque })?;
        Ok((kind == FileType::Directory).then_some(fd))
    }

    /// Fills in an entry, and whether it is an opaque directory.
    fn describe(&self, path: Vec<u8>, stat: &Stat, fd: Option<&OwnedFd>) -> Result<(Entry, bool), StoreError> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            _ => Kind::File,
        };
        let mut entry = Entry::new(kind, &path);
        entry.mode = stat.st_mode & 0o7777;
        (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
        entry.mtime = (clamped(stat.st_mtime, self.clamp), 0);
        if kind == Kind::File {
            entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        }
        if matches!(kind, Kind::Char | Kind::Block) {
            entry.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        }
        let opaque = match fd {
            Some(fd) => self.attributes(&mut entry, fd)?,
            None => false,
        };
        Ok((entry, opaque))
    }

    fn attributes(&self, entry: &mut Entry, fd: &OwnedFd) -> Result<bool, StoreError> {
        let fail = |path: &[u8]| {
            let path = Path::new(&printable(path)).to_owned();
            move |source| StoreError::Io { op: "read extended attributes of", path, source }
        };
        let mut opaque = false;
        for name in xattr::list(fd).map_err(fail(&entry.path))? {
            if name.starts_with(OVERLAY) {
                if self.meaning == Meaning::Layer {
                    if INCOMPLETE.contains(&name.as_slice()) {
                        let reason =
                            "part of it is in the layer below (redirect or metacopy); it cannot become a layer";
                        return Err(StoreError::archive(&entry.path, reason));
                    }
                    if name == OPAQUE {
                        opaque = xattr::get(fd, &name).map_err(fail(&entry.path))?.as_deref() == Some(b"y");
                    } else if self.strip {
                        xattr::remove(fd, &name).map_err(fail(&entry.path))?;
                    }
                }
            } else if attribute_allowed(&name)
                && let Some(value) = xattr::get(fd, &name).map_err(fail(&entry.path))?
            {
                entry.xattrs.push((name, value));
            }
        }
        entry.xattrs.sort();
        Ok(opaque)
    }
}

fn clamped(seconds: i64, clamp: Option<i64>) -> i64 {
    clamp.map_or(seconds, |limit| seconds.min(limit))
}

/// The `.wh.` file that stands for a whiteout. Its attributes say nothing, so they are all zero: overlay uses one inode for
/// many whiteouts, whose time is that of any of them.
fn whiteout_entry(path: &[u8]) -> Entry {
    let (parent, name) = super::resolve::split(path);
    let mut full = parent.to_vec();
    if !parent.is_empty() {
        full.push(b'/');
    }
    full.extend_from_slice(super::extract::WHITEOUT);
    full.extend_from_slice(name);
    Entry::new(Kind::File, &full)
}

fn failed(path: &[u8], op: &'static str) -> impl FnOnce(Errno) -> StoreError {
    let path = Path::new(&printable(path)).to_owned();
    move |e| StoreError::Io { op, path, source: e.into() }
}

fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    // Non-blocking, in case it became a FIFO since we looked.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Names in a directory in descending order, so that the next one can be popped.
fn list(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32 << 10];
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Reads exactly `size` bytes of a file, in pieces: what is missing at the end reads as zeros, what came later is left out.
/// Holes are not read.
pub(crate) fn content(fd: &OwnedFd, size: u64, buffer: &mut [u8], sink: &mut Sink<'_>) -> Result<(), StoreError> {
    let at = Path::new("a file of the tree");
    let mut position = 0u64;
    let mut data_until = 0u64;
    while position < size {
        if position >= data_until {
            let (start, end) = next_data(fd, position, size).at("read", at)?;
            zeros(position, start, sink)?;
            (position, data_until) = (start, end);
            continue;
        }
        let wanted = usize::try_from(data_until - position).map_or(buffer.len(), |n| n.min(buffer.len()));
        let n = match rustix::io::pread(fd, buffer.get_mut(..wanted).unwrap_or_default(), position) {
            Ok(n) => n,
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e).at("read", at),
        };
        if n == 0 {
            return zeros(position, size, sink);
        }
        sink(position, buffer.get(..n).unwrap_or_default(), false)?;
        position += n as u64;
    }
    Ok(())
}

/// The next stretch of data from `position` on, cut to `size`.
fn next_data(fd: &OwnedFd, position: u64, size: u64) -> rustix::io::Result<(u64, u64)> {
    use rustix::fs::SeekFrom;
    // Small files have no holes worth looking for.
    if size <= 64 << 10 {
        return Ok((position, size));
    }
    match rustix::fs::seek(fd, SeekFrom::Data(position)) {
        Ok(start) => {
            let end = rustix::fs::seek(fd, SeekFrom::Hole(start)).unwrap_or(size);
            Ok((start.min(size), end.min(size).max(start.min(size))))
        }
        // Nothing but a hole up to the end.
        Err(Errno::NXIO) => Ok((size, size)),
        // Not supported: all of it is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((position, size)),
        Err(e) => Err(e),
    }
}

fn zeros(from: u64, to: u64, sink: &mut Sink<'_>) -> Result<(), StoreError> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut position = from;
    while position < to {
        let n = (to - position).min(ZEROS.len() as u64);
        sink(position, ZEROS.get(..n as usize).unwrap_or_default(), true)?;
        position += n;
    }
    Ok(())
}
