//! `SOURCE_DATE_EPOCH`: no time stamp later than a given one.

use super::{TreeError, io_error};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, openat, statat, utimensat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

const MAX_DEPTH: usize = 4096;

/// Sets every modification time below `directory` that is later than `epoch` (Unix seconds) to it.
pub fn clamp(directory: BorrowedFd<'_>, epoch: i64) -> Result<(), TreeError> {
    below(directory, epoch, 0)
}

fn below(directory: BorrowedFd<'_>, epoch: i64, depth: usize) -> Result<(), TreeError> {
    let fail = |name: &[u8], e| io_error("set the time of", name, e);
    if depth > MAX_DEPTH {
        return Err(fail(b".", Errno::NAMETOOLONG));
    }
    let names: Vec<_> = Dir::read_from(directory)
        .and_then(|d| d.map(|e| e.map(|e| e.file_name().to_bytes().to_vec())).collect())
        .map_err(|e| fail(b".", e))?;
    let mut names: Vec<Vec<u8>> = names;
    names.retain(|n| n != b"." && n != b"..");
    for name in names {
        let stat = statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| fail(&name, e))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = openat(directory, &*name, flags, Mode::empty()).map_err(|e| fail(&name, e))?;
            below(child.as_fd(), epoch, depth + 1)?;
        }
        #[allow(clippy::unnecessary_cast)]
        let late = (stat.st_mtime as i64, stat.st_mtime_nsec as i64) > (epoch, 0);
        if late {
            set_time(directory, &name, (epoch, 0)).map_err(|e| fail(&name, e))?;
        }
    }
    Ok(())
}

/// Sets the modification time of a name, not following links; the access time is set to the same.
pub(crate) fn set_time(directory: BorrowedFd<'_>, name: &[u8], time: (i64, u32)) -> Result<(), Errno> {
    let time = Timespec { tv_sec: time.0, tv_nsec: time.1.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}
