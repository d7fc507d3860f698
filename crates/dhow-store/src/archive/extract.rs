//! Archives into an existing tree, as `ADD` does.

use crate::error::StoreError;
use crate::layer::extract::{Policy, extract};
use crate::layer::resolve::clean;
use crate::layer::stream::decompressor;
use std::io::{BufReader, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How [`extract_archive`] works.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// Everything belongs to this user and group; otherwise to those that the archive says.
    pub owner: Option<(u32, u32)>,
    /// The bytes are a tar already; otherwise gzip, bzip2, xz and zstd are recognised and decoded.
    pub plain: bool,
    /// Bytes that stay free in the file system.
    pub reserve: u64,
}

/// Extracts an archive below `dst`, a path inside `root`. Directories on the way are made, symlinks are resolved inside
/// `root`, names that climb out of `dst` are refused, `.wh.` names are ordinary. Works on this thread alone.
pub fn extract_archive(
    root: BorrowedFd<'_>,
    dst: &Path,
    reader: impl Read,
    options: &ExtractOptions,
) -> Result<(), StoreError> {
    let policy = Policy {
        whiteouts: false,
        refuse_dotdot: true,
        owner: options.owner,
        base: clean(dst.as_os_str().as_bytes()).path,
        reserve: options.reserve,
        writeback: None,
    };
    let decoded: Box<dyn Read + '_> = if options.plain { Box::new(reader) } else { decompressor(reader)? };
    extract(root, &policy, BufReader::with_capacity(256 << 10, decoded), "the archive").map(drop)
}
