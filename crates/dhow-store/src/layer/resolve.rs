//! Finding and making directories inside a root that may be full of hostile symlinks.
//!
//! Every step opens one name relative to a descriptor with `O_NOFOLLOW`; symlinks are read and their targets walked by the
//! same rule, absolute ones from the root; `..` goes back along the descriptors walked so far and stops at the root. The
//! kernel never resolves more than one name, so nothing can lead outside, whoever changes the tree meanwhile. (The kernel's
//! own `openat2(RESOLVE_IN_ROOT)` gives the same answers but neither makes missing directories nor tells the real path,
//! and both are needed here.)
//!
//! Directories stay open in a cache, because archives list files directory by directory.

use crate::error::{At, StoreError};
use crate::tar::MAX_PATH;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

/// Most symlinks that are followed for one path, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Deepest directory, in components: a walk holds a descriptor per level.
pub(crate) const MAX_DEPTH: usize = 400;
/// Most directories in the cache.
const CACHE: usize = 256;

/// An open directory and its real path: relative to the root, without symlinks, `.`, `..` or a leading slash. The root
/// itself is the empty path.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    pub(crate) path: Vec<u8>,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// The real path of an entry of this directory.
    pub(crate) fn child(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path, &b"/"[..], name].concat() }
    }
}

/// What stands in the way of making a directory: told to the owner of the tree.
pub(crate) trait Missing {
    /// `dir/name` is missing (or something that is no directory and may be replaced is there, see
    /// [`replaceable`](Self::replaceable)): make it.
    fn make(&mut self, dir: &Dir, name: &[u8]) -> Result<(), StoreError>;

    /// Whether the non-directory at this real path may be removed to make room for a directory.
    fn replaceable(&self, _path: &[u8]) -> bool {
        false
    }
}

/// Refuses to make anything.
pub(crate) struct MustExist;

impl Missing for MustExist {
    fn make(&mut self, dir: &Dir, name: &[u8]) -> Result<(), StoreError> {
        Err(StoreError::archive(&dir.child(name), "no such directory"))
    }
}

/// See the module.
pub(crate) struct Resolver {
    root: Rc<Dir>,
    cache: HashMap<Vec<u8>, Rc<Dir>>,
}

impl Resolver {
    pub(crate) fn new(root: BorrowedFd<'_>) -> Result<Self, StoreError> {
        let fd = open_dir(root, b".").at("open", Path::new("."))?;
        Ok(Self { root: Rc::new(Dir { fd, path: Vec::new() }), cache: HashMap::new() })
    }

    /// Forgets open directories. Must be called when a directory or symlink was removed or moved.
    pub(crate) fn forget(&mut self) {
        self.cache.clear();
    }

    /// Opens the directory at `path`, resolved in the root.
    pub(crate) fn dir(&mut self, path: &[u8], missing: &mut dyn Missing) -> Result<Rc<Dir>, StoreError> {
        if let Some(dir) = self.cache.get(path) {
            return Ok(Rc::clone(dir));
        }
        let found = self.walk(path, missing)?;
        self.remember(path.to_vec(), &found);
        Ok(found)
    }

    fn remember(&mut self, path: Vec<u8>, dir: &Rc<Dir>) {
        if self.cache.len() >= CACHE {
            self.cache.clear();
        }
        self.cache.insert(path, Rc::clone(dir));
    }

    fn walk(&mut self, path: &[u8], missing: &mut dyn Missing) -> Result<Rc<Dir>, StoreError> {
        let mut chain = vec![Rc::clone(&self.root)];
        // Components that remain, next one last.
        let mut ahead: Vec<Vec<u8>> = path.rsplit(|b| *b == b'/').map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name.is_empty() || name == b"." {
                continue;
            }
            if name == b".." {
                if chain.len() > 1 {
                    chain.pop();
                }
                continue;
            }
            let here = Rc::clone(chain.last().unwrap_or(&self.root));
            match self.step(&here, &name, missing)? {
                Step::Into(dir) => {
                    if dir.path.len() > MAX_PATH || chain.len() > MAX_DEPTH {
                        return Err(StoreError::archive(path, "directories nested too deep"));
                    }
                    chain.push(dir);
                }
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(StoreError::archive(path, "too many levels of symbolic links"));
                    }
                    if target.starts_with(b"/") {
                        chain.truncate(1);
                    }
                    ahead.extend(target.rsplit(|b| *b == b'/').map(<[u8]>::to_vec));
                }
            }
        }
        Ok(Rc::clone(chain.last().unwrap_or(&self.root)))
    }

    fn step(&mut self, here: &Rc<Dir>, name: &[u8], missing: &mut dyn Missing) -> Result<Step, StoreError> {
        let path = here.child(name);
        if let Some(known) = self.cache.get(&path).filter(|d| d.path == path) {
            return Ok(Step::Into(Rc::clone(known)));
        }
        let fail = |e: Errno| StoreError::archive(&path, format!("cannot open the directory: {e}"));
        let fd = match open_dir(here.as_fd(), name) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                missing.make(here, name)?;
                open_dir(here.as_fd(), name).map_err(fail)?
            }
            Err(Errno::NOTDIR | Errno::LOOP) => match rustix::fs::readlinkat(here, name, Vec::new()) {
                Ok(target) => return Ok(Step::Link(target.into_bytes())),
                Err(Errno::INVAL) if missing.replaceable(&path) => {
                    missing.make(here, name)?;
                    open_dir(here.as_fd(), name).map_err(fail)?
                }
                Err(Errno::INVAL) => return Err(StoreError::archive(&path, "not a directory")),
                Err(e) => return Err(fail(e)),
            },
            Err(e) => return Err(fail(e)),
        };
        let dir = Rc::new(Dir { fd, path: path.clone() });
        self.remember(path, &dir);
        Ok(Step::Into(dir))
    }
}

enum Step {
    Into(Rc<Dir>),
    Link(Vec<u8>),
}

fn open_dir(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(at, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Cleans a name by its text alone, as every engine does first: no empty, `.` or `..` components, no leading or trailing
/// slash; `..` at the top stays at the top. `escapes` tells whether it tried to go further.
pub(crate) fn clean(name: &[u8]) -> Cleaned {
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut escapes = false;
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => escapes |= parts.pop().is_none(),
            part => parts.push(part),
        }
    }
    Cleaned { path: parts.join(&b'/'), escapes }
}

/// See [`clean`].
pub(crate) struct Cleaned {
    pub(crate) path: Vec<u8>,
    pub(crate) escapes: bool,
}

/// Splits a cleaned path into directory and last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(i) => (path.get(..i).unwrap_or_default(), path.get(i + 1..).unwrap_or_default()),
        None => (&[], path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning() {
        let check = |name: &str, path: &str, escapes: bool| {
            let c = clean(name.as_bytes());
            assert_eq!((c.path.as_slice(), c.escapes), (path.as_bytes(), escapes), "{name}");
        };
        check("", "", false);
        check("/", "", false);
        check("./", "", false);
        check("a//b/./c/", "a/b/c", false);
        check("/abs/x", "abs/x", false);
        check("a/../b", "b", false);
        check("../x", "x", true);
        check("a/../../x", "x", true);
        check("..", "", true);
        check("...", "...", false);
    }

    struct Make(Vec<Vec<u8>>);

    impl Missing for Make {
        fn make(&mut self, dir: &Dir, name: &[u8]) -> Result<(), StoreError> {
            self.0.push(dir.child(name));
            rustix::fs::mkdirat(dir, name, Mode::RWXU).at("make", Path::new("x"))
        }
    }

    #[test]
    fn symlinks_stay_inside_and_real_paths_are_known() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        let root = temp.path().join("root");
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::create_dir_all(root.join("real")).unwrap();
        for (target, link) in [
            ("/real", "abs"),
            ("real", "rel"),
            ("../../outside", "up"),
            ("loop", "loop"),
            ("/gone/deep", "dangling"),
            ("abs/../rel/..", "winding"),
        ] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        std::os::unix::fs::symlink(&outside, root.join("host")).unwrap();
        let fd = std::fs::File::open(&root).unwrap();
        let mut resolver = Resolver::new(fd.as_fd()).unwrap();
        let mut make = Make(Vec::new());
        let mut real = |path: &str| resolver.dir(path.as_bytes(), &mut make).map(|d| d.path.clone());
        assert_eq!(real("abs").unwrap(), b"real");
        assert_eq!(real("rel/x/y").unwrap(), b"real/x/y");
        assert_eq!(real("up").unwrap(), b"outside");
        assert_eq!(real("dangling/z").unwrap(), b"gone/deep/z");
        assert_eq!(real("winding").unwrap(), b"");
        assert!(real("loop/x").is_err());
        let host = real("host").unwrap();
        assert!(host.ends_with(b"/outside") && !host.starts_with(b"/"));
        // The root got them all, the neighbour nothing.
        assert!(root.join("outside").is_dir() && root.join("gone/deep/z").is_dir());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(make.0.contains(&b"real/x".to_vec()));
    }

    #[test]
    fn files_are_not_directories_and_depth_is_bounded() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("file"), b"").unwrap();
        let fd = std::fs::File::open(temp.path()).unwrap();
        let mut resolver = Resolver::new(fd.as_fd()).unwrap();
        assert!(resolver.dir(b"file/x", &mut Make(Vec::new())).is_err());
        assert!(resolver.dir(b"none", &mut MustExist).is_err());
        let deep = "d/".repeat(MAX_DEPTH + 10);
        assert!(resolver.dir(deep.as_bytes(), &mut Make(Vec::new())).is_err());
        drop(resolver);
        crate::disk::remove_tree(temp.path()).unwrap();
    }
}
