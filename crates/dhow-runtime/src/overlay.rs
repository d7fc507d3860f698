//! The overlay file system as a container's root.
//!
//! Layers are handed to the kernel by descriptor, so neither the length of their paths nor odd characters in them
//! matter, and 500 of them (the kernel's limit) work. Three ways, the newest first; each falls back to the next where
//! the kernel does not know it:
//!
//! | way | Linux | how |
//! |---|---|---|
//! | [`Method::Descriptors`] | 6.13 | `fsconfig(lowerdir+)` with the descriptors themselves |
//! | [`Method::Names`] | 6.5 | `fsconfig(lowerdir+)` with `N`, the current directory being `/proc/self/fd` |
//! | [`Method::Classic`] | 5.15 | mount(2) with `lowerdir=N:N:…`, the same directory, which a page holds for some 800 |
//!
//! Options are the ones under which a layer directory means what its files say: no renames by redirection, no metadata
//! without data, no index that ties the upper directory to its lower ones.

use dhow_sys::mount::{self, Attributes, Filesystem};
use rustix::fs::{CWD, Mode, OFlags};
use std::ffi::CString;
use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How layers are told to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// By descriptor.
    Descriptors,
    /// One by one, by a name below `/proc/self/fd`.
    Names,
    /// All in one string.
    Classic,
}

/// Directories of an overlay. Trusted host paths.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Read-only directories, topmost first. `/proc/self/fd/N` is the directory of a descriptor, whatever it is called by
    /// now.
    pub lower: &'a [PathBuf],
    /// The writable directory.
    pub upper: &'a Path,
    /// Overlayfs's own directory.
    pub work: &'a Path,
    /// Never sync.
    pub volatile: bool,
}

/// Paths below this stand for descriptors of directories.
const DESCRIPTORS: &str = "/proc/self/fd";
/// How often a directory may be renamed while it is opened.
const RENAMES: usize = 100;

/// Fixed options, each with its value.
const OPTIONS: [(&str, &str); 3] = [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off")];

impl<'a> Overlay<'a> {
    /// Opens the directories.
    pub fn open(&self) -> io::Result<Opened<'a>> {
        Ok(Opened {
            lower: self.lower.iter().map(|path| open(path)).collect::<io::Result<_>>()?,
            upper: open(self.upper)?,
            work: open(self.work)?,
            upper_path: self.upper,
            volatile: self.volatile,
        })
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let opened =
        if path.starts_with(DESCRIPTORS) { open_again(path) } else { open_path(path).map_err(io::Error::from) };
    opened.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn open_path(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a directory that a descriptor names, by the path that it has now. The descriptor was opened in another mount
/// namespace, and overlayfs takes directories of the caller's only (`EINVAL`).
fn open_again(descriptor: &Path) -> io::Result<OwnedFd> {
    let wanted = rustix::fs::stat(descriptor)?;
    for _ in 0..RENAMES {
        let opened = match open_path(&std::fs::read_link(descriptor)?) {
            Ok(opened) => opened,
            // Renamed a moment ago.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(e) => return Err(e.into()),
        };
        let found = rustix::fs::fstat(&opened)?;
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino) {
            return Ok(opened);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the directory has no path in this mount namespace"))
}

/// An overlay with its directories opened.
#[derive(Debug)]
pub struct Opened<'a> {
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
    upper_path: &'a Path,
    volatile: bool,
}

impl Opened<'_> {
    /// The upper directory, which the overlay is going to cover, with whatever is mounted on it.
    pub fn upper(&self) -> BorrowedFd<'_> {
        self.upper.as_fd()
    }

    /// Mounts the overlay over its own upper directory, in the caller's mount namespace, which should be a private one,
    /// and returns a descriptor of its root. May change the current directory.
    pub fn mount(&self) -> io::Result<OwnedFd> {
        let mut first = None;
        for method in [Method::Descriptors, Method::Names, Method::Classic] {
            match self.mount_by(method) {
                // A kernel that does not know a way says so like this, and like this it says that the directories are
                // wrong: then every way fails, and the newest explains it best.
                Err(e)
                    if matches!(
                        mount::errno(&e),
                        Some(libc::EINVAL | libc::EBADF | libc::ENOSYS | libc::EOPNOTSUPP)
                    ) =>
                {
                    first.get_or_insert(e);
                }
                result => return result,
            }
        }
        Err(first.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL)))
    }

    /// [`Opened::mount`] in one given way.
    pub fn mount_by(&self, method: Method) -> io::Result<OwnedFd> {
        match method {
            Method::Descriptors | Method::Names => {
                let root = self.configure(method)?;
                mount::attach(root.as_fd(), self.upper.as_fd())?;
                Ok(root)
            }
            Method::Classic => {
                self.mount_classic()?;
                // By path: the descriptor of the upper directory is still the directory below the new mount.
                open(self.upper_path)
            }
        }
    }

    fn configure(&self, method: Method) -> io::Result<OwnedFd> {
        let overlay = Filesystem::open(c"overlay")?;
        let directory = |key: &str, fd: &OwnedFd| match method {
            Method::Descriptors => overlay.set_fd(key, fd.as_fd()),
            _ => overlay.set(key, &fd.as_raw_fd().to_string()),
        };
        if method == Method::Names {
            rustix::process::chdir(c"/proc/self/fd")?;
        }
        overlay.set("source", "overlay")?;
        for lower in &self.lower {
            directory("lowerdir+", lower)?;
        }
        directory("upperdir", &self.upper)?;
        directory("workdir", &self.work)?;
        for (key, value) in OPTIONS {
            overlay.set(key, value)?;
        }
        if self.volatile {
            overlay.flag("volatile")?;
        }
        overlay.mount(Attributes::NONE)
    }

    fn mount_classic(&self) -> io::Result<()> {
        let mut data = String::from("lowerdir=");
        for (i, fd) in self.lower.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(data, "{}{}", if i == 0 { "" } else { ":" }, fd.as_raw_fd());
        }
        let _ = write!(data, ",upperdir={},workdir={}", self.upper.as_raw_fd(), self.work.as_raw_fd());
        for (key, value) in OPTIONS {
            let _ = write!(data, ",{key}={value}");
        }
        if self.volatile {
            data.push_str(",volatile");
        }
        rustix::process::chdir(c"/proc/self/fd")?;
        let target = CString::new(self.upper.as_raw_fd().to_string())?;
        mount::mount_classic(c"overlay", &target, c"overlay", 0, &CString::new(data)?)
    }
}

/// Removes the mark that a volatile mount left in its work directory, without which the kernel refuses to mount the same
/// directories again. Only for an upper directory whose content need not have survived a crash of the host.
pub fn clear_volatile_mark(work: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(work.join("work/incompat")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
