//! The tar format (POSIX.1-2017 pax; GNU tar's `tar.h`), as far as layers use it.
//!
//! A codec of our own, because layers need what the `tar` crate does not give: extended headers of bounded size (it reads
//! them whole, however large they claim to be), all three PAX sparse formats, links and directories that claim a size read
//! the way Go's `archive/tar` reads them (so that one archive has one meaning for every engine), entry data without a copy,
//! and output that is byte for byte a function of the tree.
//!
//! Nothing here touches a file system.

pub(crate) mod pax;
pub(crate) mod read;
pub(crate) mod write;

#[cfg(test)]
mod tests;

/// Size of a header and granularity of data, in bytes.
pub(crate) const BLOCK: usize = 512;

/// Longest name, link target, or real path that is accepted, in bytes: what the kernel accepts (`PATH_MAX`).
pub(crate) const MAX_PATH: usize = 4095;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Regular file.
    File,
    /// Hard link to an earlier entry.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Directory.
    Directory,
    /// FIFO.
    Fifo,
}

/// The meaning of one entry: header, PAX records and GNU extensions together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub kind: Kind,
    /// As written, never empty of meaning checks: not cleaned, without NUL, at most [`MAX_PATH`] bytes.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits with set-uid, set-gid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Length of the file that results, in bytes.
    pub size: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// `SCHILY.xattr.` records, in the order of their names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For a sparse file: offset and length of the pieces that are in the archive, ascending.
    pub sparse: Option<Vec<(u64, u64)>>,
}

impl Entry {
    pub(crate) fn new(kind: Kind, path: &[u8]) -> Self {
        Self {
            kind,
            path: path.to_vec(),
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}
