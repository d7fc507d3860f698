//! Trees that files are copied from: the build context, or the root of a stage or image.
//!
//! A tree is read by file descriptor only. Symbolic links are followed by this code, one path element at a time, so that
//! they resolve inside the tree whatever they say, and so that the real path is known to the ignore rules.

mod resolve;
mod scan;

pub(crate) use scan::{Entry, Found, Kind, SourceTree, read_xattrs};

use crate::error::BuildError;
use dhow_dockerfile::IgnoreList;
use resolve::Resolved;
use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Largest ignore file, in bytes.
const MAX_IGNORE: u64 = 1 << 20;
/// Largest Dockerfile, in bytes.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// What identifies an unchanged file without reading it (stat(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileStat {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Last change of the data: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Last change of the inode. Nobody can set it back, so an unchanged value means unchanged data.
    pub ctime: (i64, u32),
}

impl FileStat {
    // The width of the fields differs between architectures.
    #[allow(clippy::unnecessary_cast)]
    pub(crate) fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        }
    }
}

/// A directory with its ignore rules.
#[derive(Debug)]
pub struct Context {
    root: OwnedFd,
    ignore: IgnoreList,
}

impl Context {
    /// Opens a directory as context, without ignore rules yet.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok(Self { root, ignore: IgnoreList::default() })
    }

    /// Takes an open directory as context, without ignore rules yet.
    pub fn from_directory(root: OwnedFd) -> Self {
        Self { root, ignore: IgnoreList::default() }
    }

    /// The directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The ignore rules.
    pub fn ignore(&self) -> &IgnoreList {
        &self.ignore
    }

    /// Sets the ignore rules from an ignore file's bytes.
    pub fn set_ignore(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        self.ignore = IgnoreList::parse(bytes).map_err(|e| BuildError::Invalid(e.to_string()))?;
        Ok(())
    }

    /// Reads the ignore rules of the context: `DOCKERFILE.dockerignore` if there is one (when the Dockerfile lies in the
    /// context), otherwise `.dockerignore`.
    pub fn load_ignore(&mut self, dockerfile: Option<&str>) -> Result<(), BuildError> {
        let own = match dockerfile {
            Some(name) => self.read(&format!("{name}.dockerignore"), MAX_IGNORE)?,
            None => None,
        };
        let bytes = match own {
            Some(bytes) => Some(bytes),
            None => self.read(".dockerignore", MAX_IGNORE)?,
        };
        bytes.map_or(Ok(()), |b| self.set_ignore(&b))
    }

    /// Reads a Dockerfile of the context; `None` when it does not exist.
    pub fn read_dockerfile(&self, name: &str) -> Result<Option<Vec<u8>>, BuildError> {
        self.read(name, MAX_DOCKERFILE)
    }

    /// Reads a regular file; links resolve inside the context.
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, BuildError> {
        let fail = |e: io::Error| BuildError::Context { path: path.to_owned(), source: e };
        let found = match resolve::resolve(self.root(), path.as_bytes()) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(fail(e.into())),
        };
        let file = open_regular(self.root(), &found).map_err(fail)?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > limit {
            return Err(BuildError::Invalid(format!("{path} is larger than {limit} bytes")));
        }
        Ok(Some(bytes))
    }
}

fn open_regular(root: BorrowedFd<'_>, found: &Resolved) -> io::Result<File> {
    if found.file_type() != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // Never blocks: a FIFO put in place of the file meanwhile opens without a writer and fails the check below.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let parent = found.parent().unwrap_or(root);
    let file = File::from(openat(parent, found.name(), flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
