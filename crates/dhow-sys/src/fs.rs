//! Files below a directory that somebody else controls: an image, a container's root, a build context.
//!
//! Every function takes the directory as a descriptor and lets the kernel resolve the path below it (`openat2(2)` with
//! `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, Linux 5.6): `..` and absolute symbolic links stay inside, links of
//! `/proc/PID/fd` are never followed. No path is joined as a string, so there is no moment between check and use.
//!
//! Files are created with the modes that are passed, less the process's umask.

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// How often a resolution is tried again that a rename or mount elsewhere disturbed (`EAGAIN` of openat2(2)).
const TRIES: usize = 256;

/// Opens a path inside `root` as if that were `/`.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    resolve(root, path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens a path below `root` no component of which is a symbolic link; `ELOOP` when one is.
pub fn open_without_links(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    resolve(root, path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
}

/// Opens a path below `root` that neither leaves it nor crosses into another mount; `EXDEV` when it would.
///
/// Made for a `/proc` whose files must not be hidden by something mounted over them. Ordinary links (`self`) are followed.
pub fn open_on_mount(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve_flags = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    resolve(root, path, flags | OFlags::NOFOLLOW, Mode::empty(), resolve_flags)
}

fn resolve(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve_flags: ResolveFlags,
) -> io::Result<OwnedFd> {
    // An empty path means the root itself.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve_flags) {
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => tries += 1,
            result => return Ok(result?),
        }
    }
}

/// Opens a directory inside `root` (as `O_PATH`), and makes what is missing of it, owned by the caller.
///
/// A dangling symbolic link on the way is an error (`ENOENT`), not an invitation to make its target.
pub fn make_dirs_in_root(root: BorrowedFd<'_>, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_in_root(root, path, flags, Mode::empty()) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
        result => return result,
    }
    let (parent, name) = split_last(path)?;
    let parent = make_dirs_in_root(root, parent, mode)?;
    match rustix::fs::mkdirat(&parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    // The name alone, below the directory just opened: a link put there meanwhile is refused.
    open_without_links(parent.as_fd(), name, flags, Mode::empty())
}

/// Opens a file of any kind inside `root` (as `O_PATH`), and makes an empty regular one, with its directories, if it is
/// missing.
pub fn make_file_in_root(root: BorrowedFd<'_>, path: &Path, mode: Mode, dir_mode: Mode) -> io::Result<OwnedFd> {
    match open_in_root(root, path, OFlags::PATH, Mode::empty()) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
        result => return result,
    }
    let (parent, name) = split_last(path)?;
    let parent = make_dirs_in_root(root, parent, dir_mode)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    match open_without_links(parent.as_fd(), name, flags, mode) {
        Err(e) if e.raw_os_error() != Some(libc::EEXIST) => return Err(e),
        _ => {}
    }
    open_without_links(parent.as_fd(), name, OFlags::PATH, Mode::empty())
}

fn split_last(path: &Path) -> io::Result<(&Path, &Path)> {
    let missing = || io::Error::from_raw_os_error(libc::ENOENT);
    match path.components().next_back() {
        Some(Component::Normal(name)) => Ok((path.parent().ok_or_else(missing)?, Path::new(name))),
        _ => Err(missing()),
    }
}

/// Reads a regular file inside `root`, at most `limit` bytes; `None` when there is no such file.
///
/// Anything but a regular file is refused before it is opened: opening a FIFO would wait, opening a device may act.
/// Errors: `InvalidInput` for other kinds of files, `FileTooLarge` beyond the limit.
pub fn read_regular(root: BorrowedFd<'_>, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let place = match open_in_root(root, path, OFlags::PATH, Mode::empty()) {
        Ok(place) => place,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
        Err(e) => return Err(e),
    };
    let irregular = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    let seen = rustix::fs::fstat(&place)?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
        return Err(irregular());
    }
    // Should the path lead elsewhere by now, O_NONBLOCK keeps a FIFO from stopping us and the comparison finds out.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_in_root(root, path, flags, Mode::empty())?;
    let opened = rustix::fs::fstat(&file)?;
    if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino) {
        return Err(irregular());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(opened.st_size).unwrap_or(0).min(64 * 1024) + 1);
    File::from(file).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// An absolute path without `.`, `..` and double slashes, by text alone; `..` of `/` is `/`.
pub fn clean_absolute(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            name => clean.push(name),
        }
    }
    clean
}

/// Whether a descriptor is a directory.
pub fn is_dir(fd: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Whether a descriptor is the character device with these numbers.
pub fn is_char_device(fd: impl AsFd, major: u32, minor: u32) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory that is removed when dropped.
    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("dhow-sys-fs-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn fd(&self) -> OwnedFd {
            crate::mount::open_place(&self.0).unwrap()
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn links_stay_inside() {
        let outside = Temp::new("outside");
        let root = Temp::new("inside");
        symlink(&outside.0, root.0.join("esc")).unwrap();
        symlink("/real", root.0.join("alias")).unwrap();
        std::fs::create_dir(root.0.join("real")).unwrap();
        let fd = root.fd();
        // The control: plain path joining would have left.
        assert!(root.0.join("esc").canonicalize().unwrap() == outside.0.canonicalize().unwrap());
        make_dirs_in_root(fd.as_fd(), Path::new("/alias/new/deep"), 0o755.into()).unwrap();
        assert!(root.0.join("real/new/deep").is_dir());
        let error = make_dirs_in_root(fd.as_fd(), Path::new("/esc/new"), 0o755.into()).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ELOOP)), "{error}");
        assert_eq!(std::fs::read_dir(&outside.0).unwrap().count(), 0);
        let error = open_without_links(fd.as_fd(), Path::new("/alias"), OFlags::PATH, Mode::empty()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        make_dirs_in_root(fd.as_fd(), Path::new("/../../up"), 0o755.into()).unwrap();
        assert!(root.0.join("up").is_dir());
    }

    #[test]
    fn a_race_against_links_is_not_lost() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let outside = Temp::new("race-outside");
        let root = Temp::new("race");
        std::fs::create_dir(root.0.join("dir")).unwrap();
        symlink(&outside.0, root.0.join("link")).unwrap();
        let (fd, done) = (root.fd(), AtomicBool::new(false));
        let refused = std::thread::scope(|scope| {
            let swapper = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(&fd, "dir", &fd, "link", flags).unwrap();
                }
            });
            let refused = (0..3000)
                .filter(|i| {
                    let path = format!("/dir/{i}/deep");
                    make_file_in_root(fd.as_fd(), Path::new(&path), 0o600.into(), 0o700.into()).is_err()
                })
                .count();
            done.store(true, Ordering::Relaxed);
            swapper.join().unwrap();
            refused
        });
        assert!(refused > 0, "the control: the link was met");
        assert_eq!(std::fs::read_dir(&outside.0).unwrap().count(), 0);
    }

    #[test]
    fn files_are_made_with_their_directories() {
        let root = Temp::new("files");
        let fd = root.fd();
        make_file_in_root(fd.as_fd(), Path::new("/a/b/c"), 0o644.into(), 0o755.into()).unwrap();
        assert!(root.0.join("a/b/c").is_file());
        make_file_in_root(fd.as_fd(), Path::new("a/b/c"), 0o644.into(), 0o755.into()).unwrap();
        symlink("/nowhere", root.0.join("dangling")).unwrap();
        assert!(make_file_in_root(fd.as_fd(), Path::new("/dangling"), 0o644.into(), 0o755.into()).is_err());
        assert!(!root.0.join("nowhere").exists());
    }

    #[test]
    fn only_regular_files_are_read() {
        let root = Temp::new("regular");
        let fd = root.fd();
        let read = |path: &str, limit| read_regular(fd.as_fd(), Path::new(path), limit);
        std::fs::write(root.0.join("f"), "hello").unwrap();
        assert_eq!(read("/f", 5).unwrap().unwrap(), b"hello");
        assert_eq!(read("/f", 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(read("/missing", 5).unwrap().is_none());
        assert!(read("/f/below", 5).unwrap().is_none());
        rustix::fs::mknodat(&fd, "fifo", FileType::Fifo, 0o644.into(), 0).unwrap();
        symlink("/fifo", root.0.join("link")).unwrap();
        for path in ["/fifo", "/link", "/"] {
            assert_eq!(read(path, 5).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn magic_links_are_not_followed() {
        let root = crate::mount::open_place(Path::new("/")).unwrap();
        let error =
            open_in_root(root.as_fd(), Path::new("/proc/self/root/etc"), OFlags::PATH, Mode::empty()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        assert!(std::fs::metadata("/proc/self/root/etc").is_ok(), "the control");
    }

    #[test]
    fn texts_are_cleaned() {
        for (path, clean) in
            [("/", "/"), ("", "/"), ("a//b/", "/a/b"), ("/a/./b/../c", "/a/c"), ("/../../x", "/x"), ("/a/..", "/")]
        {
            assert_eq!(clean_absolute(path), Path::new(clean), "{path}");
        }
    }
}
