//! Turning archive entries into files: the one extractor for layers, `ADD`, and imported trees.
//!
//! The archive is hostile. Names are cleaned by their text and then resolved inside the root one component at a time
//! ([`resolve`](super::resolve)); the last component is never followed. Nothing is opened that was not created by this very
//! call, so FIFOs and devices are made but never opened.
//!
//! Deliberately absent: fsync (durability is one `syncfs` at publication) and any look at what a file contains.

use super::resolve::{self, Dir, Missing, Resolver};
use crate::error::{At, StoreError, printable};
use crate::tar::read::TarReader;
use crate::tar::{Entry, Kind, MAX_PATH};
use crate::writeback::Writeback;
use dhow_sys::xattr;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// The overlay file system's mark on a directory that hides everything below (Documentation/filesystems/overlayfs.rst).
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// Prefix of a whiteout in a layer tar (OCI image-spec, layer.md, "Whiteouts").
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Prefix of names reserved for aufs.
const RESERVED: &[u8] = b".wh..wh.";
/// The opaque whiteout.
pub(crate) const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";

/// Bytes written between two looks at the free space.
const SPACE_CHECK: u64 = 64 << 20;
/// Bytes of memory that the attributes of directories and the like may take.
const MEMORY: usize = 256 << 20;

/// How entries become files.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// `.wh.` names are whiteouts of lower layers.
    pub whiteouts: bool,
    /// Names that climb above the top are an error; otherwise they stop there.
    pub refuse_dotdot: bool,
    /// Everything belongs to this user and group instead of the archive's.
    pub owner: Option<(u32, u32)>,
    /// The directory inside the root that names are relative to, cleaned.
    pub base: Vec<u8>,
    /// Bytes that stay free in the file system.
    pub reserve: u64,
    /// Told of what was written, if it has to be durable soon.
    pub writeback: Option<Arc<Writeback>>,
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Extracted {
    /// Sum of the sizes of regular files, in bytes.
    pub size: u64,
    /// Directories that had to exist but have no entry, by real path.
    pub implied: BTreeSet<Vec<u8>>,
    /// Whether the archive has an entry for the root.
    pub root: bool,
}

/// Extracts a whole archive below `root` and reads its input to the end.
pub(crate) fn extract(
    root: BorrowedFd<'_>,
    policy: &Policy,
    input: impl BufRead,
    what: &str,
) -> Result<Extracted, StoreError> {
    let mut reader = TarReader::new(input, what);
    let mut extractor = Extractor::new(root, policy)?;
    while let Some(entry) = reader.next()? {
        extractor.entry(&entry, &mut reader)?;
    }
    reader.drain()?;
    extractor.finish()
}

/// Ownership, mode and times of a directory, set when nothing more is put into it.
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

struct Extractor<'a> {
    policy: &'a Policy,
    resolver: Resolver,
    tree: Tree,
    out: Extracted,
    root: OwnedFd,
    /// Owner of what this process creates; `None` when it cannot be relied on.
    default_owner: Option<(u32, u32)>,
    umask: u32,
    unchecked: u64,
    memory: usize,
}

/// What is known of the tree beyond the file system itself; all by real path.
#[derive(Default)]
struct Tree {
    directories: BTreeMap<Vec<u8>, Attributes>,
    implied: BTreeSet<Vec<u8>>,
    whiteouts: HashSet<Vec<u8>>,
}

impl Tree {
    /// Forgets a directory and everything below.
    fn purge(&mut self, path: &[u8]) {
        let below = |p: &[u8]| p.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
        self.directories.retain(|p, _| !below(p));
        self.implied.retain(|p| !below(p));
        self.whiteouts.retain(|p| !below(p));
    }
}

impl Missing for Tree {
    fn make(&mut self, dir: &Dir, name: &[u8]) -> Result<(), StoreError> {
        let path = dir.child(name);
        let hidden = self.whiteouts.remove(&path);
        if hidden {
            rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(refuse(&path, "replace"))?;
        }
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)).map_err(refuse(&path, "create"))?;
        if hidden {
            // The layer removes what was below and puts a directory of its own there.
            mark_opaque(dir, name, &path)?;
        }
        self.implied.insert(path);
        Ok(())
    }

    fn replaceable(&self, path: &[u8]) -> bool {
        self.whiteouts.contains(path)
    }
}

fn mark_opaque(dir: &Dir, name: &[u8], path: &[u8]) -> Result<(), StoreError> {
    let fd = open_readable(dir.as_fd(), name).map_err(refuse(path, "open"))?;
    xattr::set(&fd, OPAQUE, b"y").map_err(|e| attribute_error(path, OPAQUE, 1, e))
}

fn open_readable(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Wraps an error of creating an entry. The disk being full is an error of the system, everything else of the archive.
fn refuse(path: &[u8], op: &'static str) -> impl FnOnce(Errno) -> StoreError {
    let path = path.to_vec();
    move |e| match e {
        Errno::NAMETOOLONG | Errno::INVAL | Errno::NOTDIR | Errno::LOOP | Errno::MLINK => {
            StoreError::archive(&path, format!("cannot {op} it: {e}"))
        }
        e => StoreError::Io { op, path: Path::new(&printable(&path)).to_owned(), source: e.into() },
    }
}

fn attribute_error(path: &[u8], name: &[u8], size: usize, e: std::io::Error) -> StoreError {
    // ext4 answers ENOSPC to an attribute that does not fit beside the inode; the disk is not full then.
    let too_large = matches!(e.raw_os_error(), Some(n) if [Errno::NOSPC, Errno::TOOBIG, Errno::RANGE].contains(&Errno::from_raw_os_error(n)));
    if too_large && size > 1024 {
        let reason = format!("the file system cannot hold its attribute {} of {size} bytes", printable(name));
        return StoreError::archive(path, reason);
    }
    StoreError::Io { op: "set an extended attribute of", path: Path::new(&printable(path)).to_owned(), source: e }
}

/// Attributes that a layer may set. `trusted.*` steers the overlay file system and other kernel parts, `user.overlay.*` an
/// unprivileged overlay, `security.selinux` and the rest belong to the host.
pub(crate) fn attribute_allowed(name: &[u8]) -> bool {
    (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && name.len() > 5)
        || name == b"security.capability"
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
}

impl<'a> Extractor<'a> {
    fn new(root: BorrowedFd<'_>, policy: &'a Policy) -> Result<Self, StoreError> {
        let here = Path::new(".");
        let root = open_readable(root, b".").at("open", here)?;
        let stat = rustix::fs::fstat(&root).at("inspect", here)?;
        let mine = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        // A set-group-ID directory or a grpid mount gives new files another group. In a tree of strangers, always set it.
        let inherits = stat.st_mode & 0o2000 != 0 || stat.st_gid != mine.1 || !policy.whiteouts;
        Ok(Self {
            policy,
            resolver: Resolver::new(root.as_fd())?,
            tree: Tree::default(),
            out: Extracted::default(),
            root,
            default_owner: (!inherits).then_some(mine),
            umask: umask(),
            unchecked: 0,
            memory: 0,
        })
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<(), StoreError> {
        let cleaned = resolve::clean(&entry.path);
        if cleaned.escapes && self.policy.refuse_dotdot {
            return Err(StoreError::archive(&entry.path, "name leads outside"));
        }
        if cleaned.path.is_empty() {
            // Anything but a directory at the root is ignored, as in other engines.
            if entry.kind == Kind::Directory {
                self.out.root = true;
                let base = self.policy.base.clone();
                let real = self.resolver.dir(&base, &mut self.tree)?.path.clone();
                self.set_later(real, entry)?;
            }
            return Ok(());
        }
        let path = self.inside(&cleaned.path);
        let (parent, name) = resolve::split(&path);
        if name.len() > 255 {
            return Err(StoreError::archive(&entry.path, "file name longer than 255 bytes"));
        }
        if path.len() > MAX_PATH {
            return Err(StoreError::archive(&entry.path, "name longer than 4095 bytes"));
        }
        let dir = self.resolver.dir(parent, &mut self.tree)?;
        if self.policy.whiteouts && name.starts_with(WHITEOUT) {
            return self.whiteout(&dir, name, entry);
        }
        match entry.kind {
            Kind::File => self.file(&dir, name, entry, reader),
            Kind::Directory => self.directory(&dir, name, entry),
            Kind::HardLink => self.hard_link(&dir, name, entry),
            Kind::Symlink => {
                self.create(&dir, name, |d, n| rustix::fs::symlinkat(entry.link.as_slice(), d, n))?;
                self.own_by_name(&dir, name, entry, false)
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                let mode = Mode::from_raw_mode(entry.mode & 0o777);
                self.create(&dir, name, |d, n| rustix::fs::mknodat(d, n, kind, mode, device))?;
                self.own_by_name(&dir, name, entry, true)
            }
        }
    }

    /// A cleaned name as a path in the root.
    fn inside(&self, cleaned: &[u8]) -> Vec<u8> {
        if self.policy.base.is_empty() { cleaned.to_vec() } else { [&self.policy.base, &b"/"[..], cleaned].concat() }
    }

    fn owner(&self, entry: &Entry) -> (u32, u32) {
        self.policy.owner.unwrap_or((entry.uid, entry.gid))
    }

    /// Runs `make` and, where the name is taken, once more after removing what is there.
    fn create<T>(
        &mut self,
        dir: &Dir,
        name: &[u8],
        mut make: impl FnMut(&Dir, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T, StoreError> {
        match make(dir, name) {
            Err(Errno::EXIST) => {
                self.remove(dir, name)?;
                make(dir, name).map_err(refuse(&dir.child(name), "create"))
            }
            other => other.map_err(refuse(&dir.child(name), "create")),
        }
    }

    /// Removes whatever has the name: the last entry of a name wins.
    fn remove(&mut self, dir: &Dir, name: &[u8]) -> Result<(), StoreError> {
        let path = dir.child(name);
        let kind = kind_of(dir, name).map_err(refuse(&path, "inspect"))?;
        match kind {
            None => return Ok(()),
            Some(FileType::Directory) => {
                let fd = open_readable(dir.as_fd(), name).map_err(refuse(&path, "open"))?;
                crate::disk::empty_dir(fd.as_fd()).at("replace", Path::new(&printable(&path)))?;
                rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(refuse(&path, "replace"))?;
                self.tree.purge(&path);
                self.resolver.forget();
            }
            Some(other) => {
                rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(refuse(&path, "replace"))?;
                self.tree.whiteouts.remove(&path);
                if other == FileType::Symlink {
                    self.resolver.forget();
                }
            }
        }
        Ok(())
    }

    fn directory(&mut self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<(), StoreError> {
        let path = dir.child(name);
        let mode = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdirat(dir, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let merges = kind_of(dir, name).map_err(refuse(&path, "inspect"))? == Some(FileType::Directory);
                if !merges {
                    let hidden = self.tree.whiteouts.contains(&path);
                    self.remove(dir, name)?;
                    rustix::fs::mkdirat(dir, name, mode).map_err(refuse(&path, "create"))?;
                    if hidden {
                        mark_opaque(dir, name, &path)?;
                    }
                }
            }
            Err(e) => return Err(refuse(&path, "create")(e)),
        }
        self.tree.implied.remove(&path);
        self.set_later(path, entry)
    }

    fn set_later(&mut self, path: Vec<u8>, entry: &Entry) -> Result<(), StoreError> {
        self.charge(path.len() + 160 + entry.xattrs.iter().map(|(n, v)| n.len() + v.len() + 64).sum::<usize>())?;
        let (uid, gid) = self.owner(entry);
        let (mode, mtime, xattrs) = (entry.mode, entry.mtime, entry.xattrs.clone());
        self.tree.directories.insert(path, Attributes { mode, uid, gid, mtime, xattrs });
        Ok(())
    }

    /// Counts memory that grows with the number of entries.
    fn charge(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.memory += bytes;
        if self.memory > MEMORY {
            return Err(StoreError::archive(&[], "too many directories"));
        }
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        dir: &Dir,
        name: &[u8],
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), StoreError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let fd = self.create(dir, name, |d, n| rustix::fs::openat(d, n, flags, mode))?;
        self.out.size = self.out.size.saturating_add(entry.size);
        match &entry.sparse {
            None => self.plain_data(&fd, entry, reader)?,
            Some(map) => self.sparse_data(&fd, entry, map, reader)?,
        }
        let fail = refuse(&entry.path, "set attributes of");
        let owner = self.owner(entry);
        let result = (|| {
            // Order matters: chown clears set-user-ID and capabilities, writing does too.
            if self.default_owner != Some(owner) {
                rustix::fs::fchown(&fd, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
            }
            if entry.mode & (0o7000 | self.umask) != 0 {
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode))?;
            }
            Ok(())
        })();
        result.map_err(fail)?;
        set_attributes(&fd, &entry.path, &entry.xattrs)?;
        rustix::fs::futimens(&fd, &times(entry.mtime)).map_err(refuse(&entry.path, "set times of"))
    }

    fn plain_data<R: BufRead>(
        &mut self,
        fd: &OwnedFd,
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), StoreError> {
        loop {
            let chunk = reader.chunk()?;
            if chunk.is_empty() {
                return Ok(());
            }
            let n = write(fd, chunk, &entry.path)?;
            reader.consume(n);
            self.wrote(n as u64)?;
        }
    }

    fn sparse_data<R: BufRead>(
        &mut self,
        fd: &OwnedFd,
        entry: &Entry,
        map: &[(u64, u64)],
        reader: &mut TarReader<R>,
    ) -> Result<(), StoreError> {
        let fail = |e: Errno| refuse(&entry.path, "write")(e);
        for (offset, length) in map {
            rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(*offset)).map_err(fail)?;
            let mut left = *length;
            while left > 0 {
                let chunk = reader.chunk()?;
                let usable = usize::try_from(left).map_or(chunk.len(), |l| l.min(chunk.len()));
                let n = write(fd, chunk.get(..usable).unwrap_or_default(), &entry.path)?;
                if n == 0 {
                    return Err(StoreError::archive(&entry.path, "sparse data ends early"));
                }
                reader.consume(n);
                self.wrote(n as u64)?;
                left -= n as u64;
            }
        }
        rustix::fs::ftruncate(fd, entry.size).map_err(fail)
    }

    /// Looks at the free space now and then, so that a bomb stops before the host has none left.
    fn wrote(&mut self, n: u64) -> Result<(), StoreError> {
        self.unchecked += n;
        if let Some(writeback) = &self.policy.writeback {
            writeback.wrote(n);
        }
        if self.unchecked >= SPACE_CHECK {
            self.unchecked = 0;
            check_space(self.root.as_fd(), self.policy.reserve)?;
        }
        Ok(())
    }

    fn hard_link(&mut self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<(), StoreError> {
        let target = self.inside(&resolve::clean(&entry.link).path);
        let (target_parent, target_name) = resolve::split(&target);
        let path = dir.child(name);
        let from = self.resolver.dir(target_parent, &mut super::resolve::MustExist)?;
        if from.child(target_name) == path {
            return Ok(());
        }
        let missing = || {
            StoreError::archive(
                &entry.path,
                format!("hard link to {:?}, which is not in the archive", printable(&entry.link)),
            )
        };
        match kind_of(&from, target_name).map_err(refuse(&path, "inspect"))? {
            None => return Err(missing()),
            Some(FileType::Directory) => return Err(StoreError::archive(&entry.path, "hard link to a directory")),
            Some(_) if self.tree.whiteouts.contains(&from.child(target_name)) => return Err(missing()),
            Some(_) => {}
        }
        self.create(dir, name, |d, n| rustix::fs::linkat(&*from, target_name, d, n, AtFlags::empty()))
    }

    /// `.wh.` names. They hide things of lower layers only, wherever they stand in the archive.
    fn whiteout(&mut self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<(), StoreError> {
        if name == OPAQUE_WHITEOUT {
            let fd = open_readable(dir.as_fd(), b".").map_err(refuse(&dir.path, "open"))?;
            return xattr::set(&fd, OPAQUE, b"y").map_err(|e| attribute_error(&dir.path, OPAQUE, 1, e));
        }
        if name.starts_with(RESERVED) {
            return Ok(());
        }
        let hidden = name.strip_prefix(WHITEOUT).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(StoreError::archive(&entry.path, "whiteout of a directory by itself"));
        }
        let path = dir.child(hidden);
        match kind_of(dir, hidden).map_err(refuse(&path, "inspect"))? {
            None => {
                let mode = Mode::empty();
                rustix::fs::mknodat(dir, hidden, FileType::CharacterDevice, mode, 0)
                    .map_err(refuse(&path, "create the whiteout of"))?;
                self.charge(path.len() + 64)?;
                self.tree.whiteouts.insert(path);
                Ok(())
            }
            // The layer removes what was below and has something of its own there.
            Some(FileType::Directory) => mark_opaque(dir, hidden, &path),
            Some(_) => Ok(()),
        }
    }

    /// Owner, mode and time of something that cannot be opened.
    fn own_by_name(&mut self, dir: &Dir, name: &[u8], entry: &Entry, mode: bool) -> Result<(), StoreError> {
        let owner = self.owner(entry);
        let result = (|| {
            if self.default_owner != Some(owner) {
                let (uid, gid) = (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)));
                rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            if mode && entry.mode & (0o7000 | self.umask) != 0 {
                // Just made, and no symlink.
                rustix::fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
            }
            rustix::fs::utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        })();
        result.map_err(refuse(&entry.path, "set attributes of"))
    }

    /// Sets what was put off: attributes of directories, deepest first so that unreadable ones do not get in the way.
    fn finish(mut self) -> Result<Extracted, StoreError> {
        for path in &self.tree.implied {
            if !self.tree.directories.contains_key(path) {
                let dir = self.resolver.dir(path, &mut super::resolve::MustExist)?;
                let fd = open_readable(dir.as_fd(), b".").map_err(refuse(path, "open"))?;
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(refuse(path, "set mode of"))?;
                if let Some((uid, gid)) = self.policy.owner {
                    rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                        .map_err(refuse(path, "set owner of"))?;
                }
            }
        }
        for (path, a) in std::mem::take(&mut self.tree.directories).iter().rev() {
            let dir = self.resolver.dir(path, &mut super::resolve::MustExist)?;
            let fd = open_readable(dir.as_fd(), b".").map_err(refuse(path, "open"))?;
            let result = (|| {
                if self.default_owner != Some((a.uid, a.gid)) {
                    rustix::fs::fchown(&fd, Some(Uid::from_raw(a.uid)), Some(Gid::from_raw(a.gid)))?;
                }
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(a.mode))
            })();
            result.map_err(refuse(path, "set attributes of"))?;
            set_attributes(&fd, path, &a.xattrs)?;
            rustix::fs::futimens(&fd, &times(a.mtime)).map_err(refuse(path, "set times of"))?;
        }
        self.out.implied = self.tree.implied;
        Ok(self.out)
    }
}

fn set_attributes(fd: &OwnedFd, path: &[u8], xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), StoreError> {
    for (name, value) in xattrs {
        if !attribute_allowed(name) {
            continue;
        }
        if name.len() > xattr::NAME_MAX || value.len() > xattr::VALUE_MAX || name.contains(&0) {
            return Err(StoreError::archive(path, "extended attribute out of range"));
        }
        match xattr::set(fd, name, value) {
            Ok(()) => {}
            // Not every file system has them all; the file is still usable.
            Err(e) if e.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {}
            Err(e) => return Err(attribute_error(path, name, value.len(), e)),
        }
    }
    Ok(())
}

fn write(fd: &OwnedFd, bytes: &[u8], path: &[u8]) -> Result<usize, StoreError> {
    loop {
        match rustix::io::write(fd, bytes) {
            Err(Errno::INTR) => {}
            Ok(n) => return Ok(n),
            Err(e) => return Err(refuse(path, "write")(e)),
        }
    }
}

fn kind_of(dir: &Dir, name: &[u8]) -> rustix::io::Result<Option<FileType>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Access and modification time; the kernel clamps what a file system cannot hold (since Linux 5.4).
fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Fails when fewer than `reserve` bytes are free.
pub(crate) fn check_space(fd: BorrowedFd<'_>, reserve: u64) -> Result<(), StoreError> {
    let here = Path::new("the store's file system");
    let fs = rustix::fs::fstatvfs(fd).at("inspect", here)?;
    if fs.f_bavail.saturating_mul(fs.f_frsize) < reserve {
        return Err(StoreError::NoSpace { path: here.to_owned(), needed: "more than the reserve" });
    }
    Ok(())
}

/// This process's umask, without changing it (proc_pid_status(5), since Linux 4.7). All bits when unknown.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}
