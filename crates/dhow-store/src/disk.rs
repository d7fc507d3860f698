//! Files and directories of the store itself: atomic replacement, durable directories, removal of whole trees, and
//! staging entries that belong to a live process.
//!
//! Paths here are made of digests, random numbers and fixed words only; nothing from an image ever becomes part of one.

use crate::error::{At, StoreError};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RawDir};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Makes a directory unless it exists.
pub(crate) fn ensure_dir(path: &Path, mode: u32) -> Result<(), StoreError> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e).at("create directory", path),
    }
}

/// Asks ext4 to put each child of a directory into a block group of its own (`EXT4_TOPDIR_FL`, chattr(1) `+T`), as it does
/// for the root directory. Layers that unpack side by side then do not fight for the inode bitmap of one group, and what was
/// just deleted is not in the way (ext4 does not reuse an inode for a minute or more and scans past all of them): measured,
/// half the system time of a pull. Only a hint; other file systems do not know it.
pub(crate) fn spread_children(path: &Path) {
    let Ok(dir) = open_dir(path) else { return };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&dir) {
        let _ = rustix::fs::ioctl_setflags(&dir, flags | rustix::fs::IFlags::TOPDIR);
    }
}

/// Opens a directory for use as a base of `*at` calls.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, StoreError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open", path)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    rustix::fs::fsync(open_dir(path)?).at("sync", path)
}

/// Reads a file of bounded size; `None` when it does not exist.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    use std::io::Read;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at("open", path),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > limit {
        return Err(StoreError::record(path, format!("larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// Removes a file if it is there. Whether it was.
pub(crate) fn remove_file(path: &Path) -> Result<bool, StoreError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).at("remove", path),
    }
}

/// Names in a directory, sorted; none when the directory does not exist.
pub(crate) fn list(path: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).at("list", path),
    };
    let mut names = Vec::new();
    for entry in entries {
        // The store writes ASCII names only; others are not ours.
        if let Ok(name) = entry.at("list", path)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Sixteen random hexadecimal digits.
pub(crate) fn random_name() -> Result<String, StoreError> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .at("read random numbers for", Path::new("tmp"))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// A staging directory below `tmp/`, locked by flock(2) for as long as this value lives, removed on drop unless kept.
///
/// A lock on a directory cannot be an OFD lock (those need a descriptor open for writing), flock is the one that works.
#[derive(Debug)]
pub(crate) struct TmpDir {
    path: PathBuf,
    // Holds the lock.
    dir: OwnedFd,
    keep: bool,
}

impl TmpDir {
    /// Makes and locks a new directory.
    pub(crate) fn create(tmp: &Path, kind: &str) -> Result<Self, StoreError> {
        loop {
            let path = tmp.join(format!("{kind}-{}", random_name()?));
            std::fs::DirBuilder::new().mode(0o700).create(&path).at("create directory", &path)?;
            // Another process that heals may have seen the directory before it was locked. It then holds the lock, or has
            // removed the directory already; either way take another name.
            match Self::adopt(&path)? {
                Some(dir) => return Ok(dir),
                None => continue,
            }
        }
    }

    /// Locks an existing directory; `None` when it is locked or gone.
    pub(crate) fn adopt(path: &Path) -> Result<Option<Self>, StoreError> {
        let dir = match rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e).at("open", path),
        };
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(e).at("lock", path),
        }
        // Moved or removed between open and lock?
        let held = rustix::fs::fstat(&dir).at("inspect", path)?;
        match rustix::fs::lstat(path) {
            Ok(now) if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino) => {
                Ok(Some(Self { path: path.to_owned(), dir, keep: false }))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).at("inspect", path),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Moves the directory to its final place, atomically, never over something. `false` (and removal of this copy) when
    /// the place is taken.
    pub(crate) fn publish(mut self, to: &Path) -> Result<bool, StoreError> {
        match rename_noreplace(&self.path, to) {
            Ok(()) => {
                self.keep = true;
                Ok(true)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => Ok(false),
            Err(e) => Err(e).at("rename into place", to),
        }
    }

    /// Removes the directory now and reports failure.
    pub(crate) fn remove(mut self) -> Result<(), StoreError> {
        self.keep = true;
        remove_tree(&self.path)
    }
}

impl Drop for TmpDir {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is removed by the next heal.
            let _ = remove_tree(&self.path);
        }
    }
}

/// Removes a staging entry unless a living process has it locked. Whether it did.
pub(crate) fn remove_if_dead(path: &Path) -> Result<bool, StoreError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(false),
        // A symlink, or something odd that nobody of ours made.
        Err(Errno::LOOP) => return remove_file(path),
        Err(e) => return Err(e).at("open", path),
    };
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(e) => return Err(e).at("lock", path),
    }
    // Published or replaced between open and lock?
    let held = rustix::fs::fstat(&fd).at("inspect", path)?;
    match rustix::fs::lstat(path) {
        Ok(now) if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino) => {}
        _ => return Ok(false),
    }
    remove_tree(path)?;
    Ok(true)
}

/// `renameat2(RENAME_NOREPLACE)`.
pub(crate) fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, rustix::fs::RenameFlags::NOREPLACE)
        .map_err(io::Error::from)
}

/// A staging file below `tmp/`, locked while this value lives, removed on drop unless persisted.
#[derive(Debug)]
pub(crate) struct TmpFile {
    path: PathBuf,
    file: File,
    keep: bool,
}

impl TmpFile {
    pub(crate) fn create(tmp: &Path, kind: &str) -> Result<Self, StoreError> {
        loop {
            let path = tmp.join(format!("{kind}-{}", random_name()?));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .at("create", &path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if file.metadata().at("inspect", &path)?.nlink() > 0 => {
                    return Ok(Self { path, file, keep: false });
                }
                // A process that heals was faster.
                Ok(()) | Err(Errno::WOULDBLOCK) => continue,
                Err(e) => return Err(e).at("lock", &path),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).at("write", &self.path)
    }

    /// Becomes another name of an existing file instead of the empty one that it was.
    pub(crate) fn replace_with_link(&mut self, other: &Path) -> Result<(), StoreError> {
        let file = OpenOptions::new().read(true).write(true).open(other).at("open", other)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).at("lock", other)?;
        std::fs::remove_file(&self.path).at("remove", &self.path)?;
        std::fs::hard_link(other, &self.path).at("link", &self.path)?;
        self.file = file;
        Ok(())
    }

    /// Moves the file to its final place. Replaces what is there. Durable only after [`sync_dir`] of the parent.
    pub(crate) fn persist(mut self, to: &Path, mode: u32, sync: bool) -> Result<File, StoreError> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode)).at("set mode of", &self.path)?;
        if sync {
            rustix::fs::fdatasync(&self.file).at("sync", &self.path)?;
        }
        std::fs::rename(&self.path, to).at("rename into place", to)?;
        self.keep = true;
        self.file.try_clone().at("duplicate descriptor of", to)
    }
}

impl Drop for TmpFile {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Replaces a small file atomically and durably.
pub(crate) fn replace(tmp: &Path, to: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let mut file = TmpFile::create(tmp, "record")?;
    file.write_all(bytes)?;
    file.persist(to, mode, true)?;
    sync_dir(parent(to))
}

/// The directory of a path of the store.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Deepest level of directories that stays on the descriptor stack while a tree is removed.
const REMOVE_DEPTH: usize = 48;

/// Removes a whole tree of any depth with a bounded number of descriptors and without recursion; what is not there is
/// fine. Symlinks are removed, never followed.
pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return remove_file(path).map(drop),
        // An unprivileged owner may have made it unreadable.
        Err(Errno::ACCESS) => {
            rustix::fs::chmod(path, Mode::RWXU).at("set mode of", path)?;
            rustix::fs::open(path, flags, Mode::empty()).at("open", path)?
        }
        Err(e) => return Err(e).at("open", path),
    };
    empty_dir(top.as_fd()).at("remove", path)?;
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e).at("remove", path),
    }
}

/// One directory on the way down.
struct Frame {
    fd: OwnedFd,
    name: Vec<u8>,
    pending: Vec<Vec<u8>>,
}

/// Removes everything in a directory.
pub(crate) fn empty_dir(top: BorrowedFd<'_>) -> io::Result<()> {
    let mut stack: Vec<Frame> = Vec::new();
    let mut pending = remove_files(top)?;
    let mut lifted = 0u64;
    loop {
        let depth = stack.len();
        let (here, names) = match stack.last_mut() {
            Some(frame) => (frame.fd.as_fd(), &mut frame.pending),
            None => (top, &mut pending),
        };
        match names.pop() {
            Some(name) if depth >= REMOVE_DEPTH => {
                // Too deep for the stack: lift the subtree to the top, where a later turn finds it.
                lifted += 1;
                let unique = format!(".dhow-deep-{}-{lifted}", std::process::id());
                rustix::fs::renameat(here, name.as_slice(), top, unique.as_str())?;
            }
            Some(name) => {
                let fd = open_for_removal(here, &name)?;
                let pending = remove_files(fd.as_fd())?;
                stack.push(Frame { fd, name, pending });
            }
            None => {
                *names = remove_files(here)?;
                if !names.is_empty() {
                    continue;
                }
                let Some(Frame { name, .. }) = stack.pop() else { return Ok(()) };
                let above = stack.last().map_or(top, |frame| frame.fd.as_fd());
                rustix::fs::unlinkat(above, name.as_slice(), AtFlags::REMOVEDIR)?;
            }
        }
    }
}

fn open_for_removal(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        // An unprivileged owner may have made it unreadable.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Removes the non-directories of a directory; the names of its subdirectories.
fn remove_files(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 16 << 10];
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut subdirectories = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if entry.file_type() == rustix::fs::FileType::Directory {
            subdirectories.push(name.to_vec());
            continue;
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // A file system that does not tell types.
            Err(Errno::ISDIR) => subdirectories.push(name.to_vec()),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(subdirectories)
}
