//! Extended attributes by descriptor (xattr(7)).
//!
//! The `f*xattr` calls refuse `O_PATH` descriptors, which are the only kind that can be had of a symlink or that is safe
//! to have of a device or FIFO. For those the calls go through `/proc/self/fd/N`, a magic link that leads to exactly the
//! object the descriptor names, whatever happens to its path. (`setxattrat` and friends came with Linux 6.13 only.)

use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Largest value the kernel stores or returns (`XATTR_SIZE_MAX`), in bytes.
pub const VALUE_MAX: usize = 65536;
/// Longest name (`XATTR_NAME_MAX`), in bytes.
pub const NAME_MAX: usize = 255;
/// Longest list of names that is returned (`XATTR_LIST_MAX`), in bytes.
const LIST_MAX: usize = 65536;

/// The names of all attributes that the caller may see, in the kernel's order. Empty on file systems without attributes.
pub fn list(fd: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let fd = fd.as_fd();
    // Nearly every file has none: one call with a small buffer settles it.
    let mut small = [0u8; 256];
    let names = match list_into(fd, &mut small) {
        Ok(n) => split(small.get(..n).unwrap_or_default()),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; LIST_MAX];
            let n = list_into(fd, &mut large)?;
            split(large.get(..n).unwrap_or_default())
        }
        Err(Errno::OPNOTSUPP) => Vec::new(),
        Err(e) => return Err(e.into()),
    };
    Ok(names)
}

/// The value of an attribute, or `None` when the object does not have it.
pub fn get(fd: impl AsFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let fd = fd.as_fd();
    let mut small = [0u8; 256];
    match get_into(fd, name, &mut small) {
        Ok(n) => Ok(Some(small.get(..n).unwrap_or_default().to_vec())),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; VALUE_MAX];
            match get_into(fd, name, &mut large) {
                Ok(n) => {
                    large.truncate(n);
                    Ok(Some(large))
                }
                Err(Errno::NODATA) => Ok(None),
                Err(e) => Err(e.into()),
            }
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Sets an attribute, replacing a value that is there.
pub fn set(fd: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd();
    let flags = rustix::fs::XattrFlags::empty();
    match rustix::fs::fsetxattr(fd, name, value, flags) {
        Err(Errno::BADF) => Ok(rustix::fs::setxattr(magic_link(fd), name, value, flags)?),
        other => Ok(other?),
    }
}

/// Removes an attribute. Whether it was there.
pub fn remove(fd: impl AsFd, name: &[u8]) -> io::Result<bool> {
    let fd = fd.as_fd();
    let result = match rustix::fs::fremovexattr(fd, name) {
        Err(Errno::BADF) => rustix::fs::removexattr(magic_link(fd), name),
        other => other,
    };
    match result {
        Ok(()) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn list_into(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    match rustix::fs::flistxattr(fd, &mut *buffer) {
        Err(Errno::BADF) => rustix::fs::listxattr(magic_link(fd), buffer),
        other => other,
    }
}

fn get_into(fd: BorrowedFd<'_>, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
    match rustix::fs::fgetxattr(fd, name, &mut *buffer) {
        Err(Errno::BADF) => rustix::fs::getxattr(magic_link(fd), name, buffer),
        other => other,
    }
}

fn magic_link(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn split(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    struct Temp(std::path::PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("dhow-xattr-{}-{name}", std::process::id()));
            std::fs::write(&path, b"").unwrap();
            Self(path)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn round_trip_on_plain_and_path_descriptors() {
        let temp = Temp::new("round");
        for flags in [OFlags::RDONLY, OFlags::PATH | OFlags::NOFOLLOW] {
            let fd = rustix::fs::open(&temp.0, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
            assert_eq!(get(&fd, b"user.a").unwrap(), None);
            let long = vec![7u8; 1000];
            set(&fd, b"user.a", b"1").unwrap();
            set(&fd, b"user.b", &long).unwrap();
            assert_eq!(get(&fd, b"user.a").unwrap().as_deref(), Some(&b"1"[..]));
            assert_eq!(get(&fd, b"user.b").unwrap(), Some(long));
            let mut names = list(&fd).unwrap();
            names.sort();
            assert_eq!(names, [b"user.a".to_vec(), b"user.b".to_vec()]);
            assert!(remove(&fd, b"user.a").unwrap());
            assert!(!remove(&fd, b"user.a").unwrap());
            assert!(remove(&fd, b"user.b").unwrap());
        }
    }

    #[test]
    fn many_names_are_listed() {
        let temp = Temp::new("many");
        let fd = rustix::fs::open(&temp.0, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for i in 0..40 {
            set(&fd, format!("user.attribute-{i}").as_bytes(), b"").unwrap();
        }
        assert_eq!(list(&fd).unwrap().len(), 40);
    }

    #[test]
    fn a_dangling_symlink_is_not_followed() {
        let temp = Temp::new("link");
        std::fs::remove_file(&temp.0).unwrap();
        std::os::unix::fs::symlink("/nonexistent/dhow", &temp.0).unwrap();
        let fd = rustix::fs::open(&temp.0, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert_eq!(get(&fd, b"user.a").unwrap(), None);
        assert!(set(&fd, b"user.a", b"").is_err(), "the kernel keeps user attributes off symlinks");
    }
}
