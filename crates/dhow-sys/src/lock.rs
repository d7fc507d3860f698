//! Locks that the kernel releases when their holder dies: open file description locks (fcntl(2), "Open file description
//! locks").
//!
//! An OFD lock belongs to the open file description, so it travels through `fork`, `clone` and descriptor passing, and
//! ends when the last descriptor is closed. Unlike flock(2) it can be *queried* without being taken, which lets `ps`
//! look at a container without ever getting in its way.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A held write lock on a whole file.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Waits for the lock. The file must be open for writing.
    pub fn acquire(file: File) -> io::Result<Self> {
        loop {
            match fcntl_lock(&file, libc::F_OFD_SETLKW, libc::F_WRLCK as libc::c_short) {
                Ok(_) => return Ok(Self { file }),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes the lock if nobody holds it; `None` if somebody does.
    pub fn try_acquire(file: File) -> io::Result<Option<Self>> {
        match fcntl_lock(&file, libc::F_OFD_SETLK, libc::F_WRLCK as libc::c_short) {
            Ok(_) => Ok(Some(Self { file })),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file away; it stays locked until its last descriptor is closed.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Takes over a file that came locked from another process, by inheritance.
    pub fn from_inherited(file: File) -> Self {
        Self { file }
    }
}

impl AsFd for FileLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether another open file description holds a lock on the file. Never takes the lock.
pub fn is_locked(file: &File) -> io::Result<bool> {
    let found = fcntl_lock(file, libc::F_OFD_GETLK, libc::F_WRLCK as libc::c_short)?;
    Ok(found.l_type != libc::F_UNLCK as libc::c_short)
}

fn fcntl_lock(file: &File, command: libc::c_int, kind: libc::c_short) -> io::Result<libc::flock> {
    let mut lock =
        libc::flock { l_type: kind, l_whence: libc::SEEK_SET as libc::c_short, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and `lock` is a valid `struct flock` that the
    // kernel reads and, for F_OFD_GETLK, writes.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(lock) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp() -> (std::path::PathBuf, impl Fn() -> File) {
        let path =
            std::env::temp_dir().join(format!("dhow-lock-{}-{:?}", std::process::id(), std::thread::current().id()));
        let again = path.clone();
        (path, move || File::options().read(true).write(true).create(true).truncate(false).open(&again).unwrap())
    }

    #[test]
    fn one_holder_at_a_time() {
        let (path, open) = temp();
        let held = FileLock::try_acquire(open()).unwrap().unwrap();
        assert!(FileLock::try_acquire(open()).unwrap().is_none());
        assert!(is_locked(&open()).unwrap());
        drop(held);
        assert!(!is_locked(&open()).unwrap());
        assert!(FileLock::try_acquire(open()).unwrap().is_some());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn querying_does_not_take() {
        let (path, open) = temp();
        let watcher = open();
        assert!(!is_locked(&watcher).unwrap());
        assert!(FileLock::try_acquire(open()).unwrap().is_some());
        std::fs::remove_file(path).unwrap();
    }
}
