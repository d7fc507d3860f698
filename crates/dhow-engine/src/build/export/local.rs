//! Root file systems as files and as tars.
//!
//! A root is an image's content, and so hostile; the destination is a directory of the user's. What is copied goes by
//! descriptor, one name at a time: no link is followed, neither of the image's nor one that lies in the destination, so
//! nothing is read or written outside of the two. Everything belongs to who runs the program, as with other builders.

use super::spec::Destination;
use crate::{Engine, EngineError};
use dhow_oci::image::{ImageConfig, MAX_DOCUMENT};
use dhow_runtime::Rootfs;
use dhow_store::ArchiveWriter;
use dhow_sys::xattr;
use dhow_types::{Digest, Platform};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, fchmod, fchown, futimens,
    linkat, mkdirat, mknodat, openat, openat2, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories inside each other that are copied.
const MAX_DEPTH: usize = 400;

/// Runs a function on the merged root of an image, in a helper.
fn with_root(
    engine: &Engine,
    id: &Digest,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, EngineError> {
    let store = engine.store();
    let config = ImageConfig::parse(&store.read_blob(id, MAX_DOCUMENT)?)?;
    let lower = store.lower_dirs(&config.rootfs.diff_ids)?;
    let scratch = store.new_upper()?;
    let (upper, work_dir) = (scratch.upper(), scratch.work());
    let rootfs = match lower.is_empty() {
        true => Rootfs::Directory(&upper),
        false => Rootfs::Overlay { lower: &lower, upper: &upper, work: &work_dir, volatile: true },
    };
    Ok(dhow_runtime::with_rootfs(&rootfs, work)?)
}

/// The folder of a platform where there are several.
fn folder(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

/// `type=tar`.
pub(super) fn tar(engine: &Engine, images: &[(Platform, Digest)], split: bool, out: &File) -> Result<(), EngineError> {
    for (platform, id) in images {
        let prefix = if split { format!("{}/", folder(platform)) } else { String::new() };
        with_root(engine, id, |root| {
            let mut archive = ArchiveWriter::new(BufWriter::with_capacity(256 << 10, out));
            let done = if split { archive.directory(prefix.trim_end_matches('/')) } else { Ok(()) };
            done.and_then(|()| archive.tree(&prefix, root)).map_err(|e| dhow_types::report(&e))?;
            archive.into_inner().flush().map_err(|e| format!("cannot write the archive: {e}"))?;
            Ok(Vec::new())
        })?;
    }
    ArchiveWriter::new(out).finish()?;
    Ok(())
}

/// `type=local`. Returns what was left out.
pub(super) fn files(
    engine: &Engine,
    images: &[(Platform, Digest)],
    split: bool,
    dest: &Destination,
) -> Result<Vec<String>, EngineError> {
    let Destination::Path(dest) = dest else {
        return Err(EngineError::Invalid("files cannot go to standard output".to_owned()));
    };
    let mut left_out = Vec::new();
    for (platform, id) in images {
        let path = if split { dest.join(folder(platform)) } else { dest.clone() };
        let target = create(&path)?;
        let reply = with_root(engine, id, |root| copy(root, target.as_fd()).map(|list| list.join("\n").into_bytes()))?;
        left_out.extend(String::from_utf8_lossy(&reply).lines().map(str::to_owned));
    }
    Ok(left_out)
}

fn create(path: &Path) -> Result<File, EngineError> {
    fs::create_dir_all(path).map_err(EngineError::state("create the directory", path))?;
    File::open(path).map_err(EngineError::state("open", path))
}

/// Copies everything below `source` into `target`. Returns remarks on what was not copied.
fn copy(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<Vec<String>, String> {
    let owner = (rustix::process::geteuid(), rustix::process::getegid());
    let mut copier = Copier { target, owner, links: HashMap::new(), remarks: Vec::new() };
    let again = |fd: BorrowedFd<'_>| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(fd, ".", flags, Mode::empty()).map_err(|e| format!("cannot open a root directory: {e}"))
    };
    copier.directory(again(source)?, again(target)?, &mut Vec::new(), 0)?;
    Ok(copier.remarks)
}

struct Copier<'a> {
    target: BorrowedFd<'a>,
    owner: (Uid, Gid),
    /// Files with several names by identity, with the path that the first went to.
    links: HashMap<(u64, u64), Vec<u8>>,
    remarks: Vec<String>,
}

fn fail(operation: &str, path: &[u8]) -> impl Fn(Errno) -> String {
    let text = format!("cannot {operation} {}", String::from_utf8_lossy(path));
    move |e| format!("{text}: {e}")
}

impl Copier<'_> {
    fn directory(&mut self, from: OwnedFd, to: OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("{} is nested too deep", String::from_utf8_lossy(path)));
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(&from).map_err(fail("read", path))? {
            let entry = entry.map_err(fail("read", path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        for name in names {
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(&name);
            self.entry(from.as_fd(), to.as_fd(), &name, path, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), String> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail("look at", path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.enter(from, to, name, path, depth, &stat),
            FileType::RegularFile => self.file(from, to, name, path, &stat),
            FileType::Symlink => {
                let link = readlinkat(from, name, Vec::new()).map_err(fail("read", path))?;
                make_room(to, name, path)?;
                symlinkat(&link, to, name).map_err(fail("create", path))?;
                self.own(to, name, path)?;
                utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW).map_err(fail("set the time of", path))
            }
            FileType::Fifo => {
                make_room(to, name, path)?;
                mknodat(to, name, FileType::Fifo, permissions(&stat), 0).map_err(fail("create", path))?;
                self.own(to, name, path)
            }
            // A device is power over this machine that an image has no business to hand out.
            kind => {
                self.remarks.push(format!("{} was not exported: it is a {kind:?}", String::from_utf8_lossy(path)));
                Ok(())
            }
        }
    }

    fn own(&self, to: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), String> {
        let (uid, gid) = self.owner;
        rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(fail("change the owner of", path))
    }

    /// A directory of the destination stays with what is in it; anything else is replaced.
    fn enter(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        depth: usize,
        stat: &Stat,
    ) -> Result<(), String> {
        let make = || mkdirat(to, name, Mode::RWXU);
        let present = |s: Stat| FileType::from_raw_mode(s.st_mode) == FileType::Directory;
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) if statat(to, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(present) => {}
            Err(Errno::EXIST) => {
                make_room(to, name, path)?;
                make().map_err(fail("create", path))?;
            }
            Err(e) => return Err(fail("create", path)(e)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = openat(from, name, flags, Mode::empty()).map_err(fail("open", path))?;
        let target = openat(to, name, flags, Mode::empty()).map_err(fail("open", path))?;
        let again = target.try_clone().map_err(|e| format!("cannot duplicate a descriptor: {e}"))?;
        self.directory(source, target, path, depth + 1)?;
        fchown(&again, Some(self.owner.0), Some(self.owner.1)).map_err(fail("change the owner of", path))?;
        fchmod(&again, permissions(stat)).map_err(fail("set the mode of", path))?;
        futimens(&again, &times(stat)).map_err(fail("set the time of", path))
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), String> {
        make_room(to, name, path)?;
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 && self.links.get(&identity).is_some_and(|first| self.link(first, to, name)) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut source = File::from(openat(from, name, flags, Mode::empty()).map_err(fail("read", path))?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut target = File::from(openat(to, name, flags, mode).map_err(fail("create", path))?);
        std::io::copy(&mut source, &mut target)
            .map_err(|e| format!("cannot write {}: {e}", String::from_utf8_lossy(path)))?;
        fchown(&target, Some(self.owner.0), Some(self.owner.1)).map_err(fail("change the owner of", path))?;
        fchmod(&target, permissions(stat)).map_err(fail("set the mode of", path))?;
        copy_attributes(&source, &target);
        futimens(&target, &times(stat)).map_err(fail("set the time of", path))?;
        if stat.st_nlink > 1 {
            self.links.insert(identity, path.to_vec());
        }
        Ok(())
    }

    /// Makes another name of a file that was copied before; where that is refused the caller copies it again.
    fn link(&self, first: &[u8], to: BorrowedFd<'_>, name: &[u8]) -> bool {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(self.target, first, flags, Mode::empty(), resolve)
            .is_ok_and(|fd| linkat(fd, "", to, name, AtFlags::EMPTY_PATH).is_ok())
    }
}

/// Set-user-ID and set-group-ID are left out: with another owner they would mean somebody else's rights.
fn permissions(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o1777)
}

fn times(stat: &Stat) -> Timestamps {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

/// Copies the attributes that are the user's; capabilities and labels are rights on this machine.
fn copy_attributes(from: &File, to: &File) {
    for name in xattr::list(from).unwrap_or_default() {
        if name.starts_with(b"user.")
            && !name.starts_with(b"user.overlay.")
            && let Ok(Some(value)) = xattr::get(from, &name)
        {
            // A file system without them loses them.
            let _ = xattr::set(to, &name, &value);
        }
    }
}

/// Removes what is in the way. A directory of the user's is not removed for the sake of a file.
fn make_room(directory: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), String> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => Err(format!(
            "cannot replace {}: the destination has a directory of that name, remove it first",
            String::from_utf8_lossy(path)
        )),
        Err(e) => Err(fail("replace", path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn run(source: &Path, target: &Path) -> Result<Vec<String>, String> {
        let (source, target) = (File::open(source).unwrap(), File::open(target).unwrap());
        copy(source.as_fd(), target.as_fd())
    }

    #[test]
    fn root_merges_and_keeps_what_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir_all(from.join("d/e")).unwrap();
        fs::create_dir_all(to.join("d")).unwrap();
        fs::write(to.join("d/kept"), "kept").unwrap();
        fs::write(to.join("d/new"), "old").unwrap();
        fs::write(from.join("d/new"), "new").unwrap();
        fs::hard_link(from.join("d/new"), from.join("d/again")).unwrap();
        fs::set_permissions(from.join("d/new"), fs::Permissions::from_mode(0o6755)).unwrap();
        std::os::unix::fs::chown(from.join("d/new"), Some(1234), Some(1234)).unwrap();
        fs::set_permissions(from.join("d/new"), fs::Permissions::from_mode(0o6755)).unwrap();
        symlink("/etc/passwd", from.join("d/e/link")).unwrap();
        assert!(run(&from, &to).unwrap().is_empty());
        assert_eq!(fs::read_to_string(to.join("d/new")).unwrap(), "new");
        assert_eq!(fs::read_to_string(to.join("d/kept")).unwrap(), "kept");
        let (a, b) = (fs::metadata(to.join("d/new")).unwrap(), fs::metadata(to.join("d/again")).unwrap());
        assert_eq!((a.ino(), a.uid(), a.mode() & 0o7777), (b.ino(), rustix::process::geteuid().as_raw(), 0o755));
        assert_eq!(fs::read_link(to.join("d/e/link")).unwrap(), Path::new("/etc/passwd"));
        // Again, over itself.
        assert!(run(&from, &to).unwrap().is_empty());
    }

    #[test]
    fn root_links_lead_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to, host) = (temp.path().join("from"), temp.path().join("to"), temp.path().join("host"));
        for dir in [&from, &to, &host] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(host.join("victim"), "untouched").unwrap();
        // An earlier export left links; this one has a directory and a file in their place.
        symlink(&host, to.join("dir")).unwrap();
        symlink(host.join("victim"), to.join("file")).unwrap();
        fs::create_dir(from.join("dir")).unwrap();
        fs::write(from.join("dir/victim"), "mine").unwrap();
        fs::write(from.join("file"), "mine").unwrap();
        // And links of the image are not walked through.
        symlink(&host, from.join("up")).unwrap();
        run(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(host.join("victim")).unwrap(), "untouched");
        assert_eq!(fs::read_to_string(to.join("dir/victim")).unwrap(), "mine");
        assert!(fs::symlink_metadata(to.join("up")).unwrap().is_symlink());
    }

    #[test]
    fn root_devices_stay_behind_and_directories_are_not_removed() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir_all(to.join("x/precious")).unwrap();
        let root = File::open(&from).unwrap();
        mknodat(&root, "null", FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3)).unwrap();
        assert_eq!(run(&from, &to).unwrap().len(), 1);
        assert!(!to.join("null").exists());
        fs::write(from.join("x"), "").unwrap();
        assert!(run(&from, &to).unwrap_err().contains("remove it first"));
        assert!(to.join("x/precious").exists());
    }
}
