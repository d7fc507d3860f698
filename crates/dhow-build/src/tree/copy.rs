//! Copying into a root, with the semantics of `COPY`.

use super::clamp::set_time;
use super::{Place, Root, TreeError, io_error, set_owner, set_owner_at};
use crate::context::{Entry, FileStat, Found, Kind, read_xattrs};
use crate::mode::ModeChange;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags, fchmod, fsetxattr, fstat, linkat, mkdirat, mknodat,
    openat, openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What flags of the instruction change.
#[derive(Debug, Clone, Default)]
pub(crate) struct CopySettings {
    /// `--chown`, looked up.
    pub(crate) owner: Option<(u32, u32)>,
    /// `--chmod`
    pub(crate) mode: Option<ModeChange>,
    /// The time, in Unix seconds, that everything gets instead of its own.
    pub(crate) time: Option<i64>,
}

/// Copies one instruction's sources.
pub(crate) struct Copier<'a> {
    pub(crate) root: Root<'a>,
    /// The tree that sources come from.
    pub(crate) source: BorrowedFd<'a>,
    pub(crate) settings: CopySettings,
    /// Set when a file was not what the scan had seen.
    pub(crate) changed: bool,
    /// Where files with several names went, by their identity in the source.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// Mode and times are set when everything below a directory is done.
struct PendingDirectory {
    path: Vec<u8>,
    fd: OwnedFd,
    finish: Option<(u32, (i64, u32))>,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(root: Root<'a>, source: BorrowedFd<'a>, settings: CopySettings) -> Self {
        Self { root, source, settings, changed: false, links: HashMap::new() }
    }

    fn time(&self, entry: &Entry) -> (i64, u32) {
        self.settings.time.map_or(entry.stat.mtime, |seconds| (seconds, 0))
    }

    fn parents_owner(&self) -> (u32, u32) {
        self.settings.owner.unwrap_or((0, 0))
    }

    /// The place for a source: `destination` itself, or a name in it when it is a directory.
    fn target(&self, destination: &str, name: &[u8], source_is_directory: bool) -> Result<Place, TreeError> {
        let path = destination.as_bytes();
        if destination.ends_with('/') {
            self.root.make_directories(path, self.parents_owner())?;
        } else {
            let parent = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &path[..at]);
            self.root.make_directories(parent, self.parents_owner())?;
        }
        let place = self.root.locate(path)?;
        if !source_is_directory && place.is_directory() {
            return self.root_child(&place, name);
        }
        Ok(place)
    }

    /// A name in a directory, not followed if it is a link: what is copied replaces the link.
    fn root_child(&self, place: &Place, name: &[u8]) -> Result<Place, TreeError> {
        let path = [place.path.as_slice(), b"/", name].concat();
        let fail = |e| io_error("open", &path, e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&place.directory, &*place.name, flags, Mode::empty()).map_err(fail)?;
        let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(fail(e)),
        };
        Ok(Place { directory, name: name.to_vec(), stat, path })
    }

    /// Whether a destination is a directory already, or written as one.
    pub(crate) fn is_directory(&self, destination: &str) -> bool {
        destination.ends_with('/') || self.root.directory(destination.as_bytes()).is_ok()
    }

    /// Copies a source to the destination, which is absolute.
    pub(crate) fn copy(&mut self, found: &Found, destination: &str) -> Result<(), TreeError> {
        if found.is_directory() {
            return self.copy_directory(found, destination);
        }
        let Some(entry) = found.entries.first() else { return Ok(()) };
        let place = self.target(destination, &found.name, false)?;
        self.place_entry(place.directory.as_fd(), &place.name, &place.path, &found.path, entry)
    }

    fn copy_directory(&mut self, found: &Found, destination: &str) -> Result<(), TreeError> {
        let place = self.target(destination, &found.name, true)?;
        let path = place.path.clone();
        if place.stat.is_some() && !place.is_directory() {
            return Err(TreeError::NotDirectory(destination.to_owned()));
        }
        // The destination itself is made like a missing parent: the source's own mode goes to what is in it only.
        let fd = self.root.make_directories(&path, self.parents_owner())?;
        let mut open = vec![PendingDirectory { path: Vec::new(), fd, finish: None }];
        for entry in found.entries.iter().skip(1) {
            let (parent, name) = match entry.path.iter().rposition(|b| *b == b'/') {
                Some(at) => (&entry.path[..at], &entry.path[at + 1..]),
                None => (&b""[..], entry.path.as_slice()),
            };
            while open.last().is_some_and(|d| d.path != parent) {
                self.close(&mut open)?;
            }
            let Some(top) = open.last() else { break };
            let target = [path.as_slice(), b"/", &entry.path].concat();
            if let Kind::Directory(_) = entry.kind {
                let fd = enter_directory(top.fd.as_fd(), name, &target)?;
                self.attributes(fd.as_fd(), &found.path, entry, &target)?;
                let owner = self.settings.owner.unwrap_or(entry.owner);
                set_owner(fd.as_fd(), owner).map_err(|e| io_error("change the owner of", &target, e))?;
                let finish = Some((self.mode(entry), self.time(entry)));
                open.push(PendingDirectory { path: entry.path.clone(), fd, finish });
            } else {
                self.place_entry(top.fd.as_fd(), name, &target, &found.path, entry)?;
            }
        }
        while !open.is_empty() {
            self.close(&mut open)?;
        }
        Ok(())
    }

    fn close(&self, open: &mut Vec<PendingDirectory>) -> Result<(), TreeError> {
        let Some(done) = open.pop() else { return Ok(()) };
        let Some((mode, time)) = done.finish else { return Ok(()) };
        let fail = |e| io_error("set the mode of", &done.path, e);
        fchmod(&done.fd, Mode::from_raw_mode(mode)).map_err(fail)?;
        set_time(done.fd.as_fd(), b".", time).map_err(fail)
    }

    fn mode(&self, entry: &Entry) -> u32 {
        let directory = matches!(entry.kind, Kind::Directory(_));
        self.settings.mode.as_ref().map_or(entry.mode, |m| m.apply(entry.mode, directory))
    }

    fn place_entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        target: &[u8],
        base: &[u8],
        entry: &Entry,
    ) -> Result<(), TreeError> {
        make_room(directory, name, target)?;
        let owner = self.settings.owner.unwrap_or(entry.owner);
        let fail = |operation| move |e| io_error(operation, target, e);
        match &entry.kind {
            Kind::File(_) => return self.file(directory, name, target, base, entry, owner),
            Kind::Symlink(link) => symlinkat(link.as_slice(), directory, name).map_err(fail("create link"))?,
            Kind::Special(file_type, device) => {
                let mode = Mode::from_raw_mode(self.mode(entry));
                mknodat(directory, name, *file_type, mode, *device).map_err(fail("create device"))?;
            }
            Kind::Directory(_) => {}
        }
        set_owner_at(directory, name, owner).map_err(fail("change the owner of"))?;
        if let Kind::Special(..) = entry.kind {
            let mode = Mode::from_raw_mode(self.mode(entry));
            rustix::fs::chmodat(directory, name, mode, AtFlags::empty()).map_err(fail("set the mode of"))?;
        }
        set_time(directory, name, self.time(entry)).map_err(fail("set the time of"))
    }

    fn file(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        target: &[u8],
        base: &[u8],
        entry: &Entry,
        owner: (u32, u32),
    ) -> Result<(), TreeError> {
        let identity = (entry.stat.dev, entry.stat.ino);
        if entry.links > 1
            && let Some(earlier) = self.links.get(&identity)
            && self.link(earlier, directory, name)
        {
            return Ok(());
        }
        let source = self.open_source(base, entry)?;
        let fail = |operation| move |e| io_error(operation, target, e);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut out = File::from(openat(directory, name, flags, Mode::from_raw_mode(0o600)).map_err(fail("create"))?);
        let mut input = File::from(source);
        // In the kernel where it can (copy_file_range), through a buffer where it cannot.
        std::io::copy(&mut input, &mut out).map_err(|source| TreeError::Io {
            operation: "write",
            path: String::from_utf8_lossy(target).into_owned(),
            source,
        })?;
        set_owner(out.as_fd(), owner).map_err(fail("change the owner of"))?;
        fchmod(&out, Mode::from_raw_mode(self.mode(entry))).map_err(fail("set the mode of"))?;
        copy_attributes(input.as_fd(), out.as_fd()).map_err(fail("set extended attributes of"))?;
        set_time(directory, name, self.time(entry)).map_err(fail("set the time of"))?;
        if entry.links > 1 {
            self.links.insert(identity, target.to_vec());
        }
        Ok(())
    }

    /// Makes another name of a file that was copied before. Where the system refuses, the caller copies again.
    fn link(&self, earlier: &[u8], directory: BorrowedFd<'_>, name: &[u8]) -> bool {
        let Ok(fd) = self.root.open(earlier, OFlags::PATH | OFlags::NOFOLLOW) else { return false };
        linkat(fd, "", directory, name, AtFlags::EMPTY_PATH).is_ok()
    }

    /// Opens a file of the source tree again; notes when it is not the one that was scanned.
    fn open_source(&mut self, base: &[u8], entry: &Entry) -> Result<OwnedFd, TreeError> {
        let path = source_path(base, entry);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let fail = |e| io_error("read", &path, e);
        let fd = openat2(self.source, &*path, flags, Mode::empty(), resolve).map_err(fail)?;
        let stat = fstat(&fd).map_err(fail)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(fail(Errno::AGAIN));
        }
        self.changed |= FileStat::of(&stat) != entry.stat;
        Ok(fd)
    }

    fn attributes(&self, fd: BorrowedFd<'_>, base: &[u8], entry: &Entry, target: &[u8]) -> Result<(), TreeError> {
        let Kind::Directory(Some(_)) = entry.kind else { return Ok(()) };
        let path = source_path(base, entry);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let source =
            openat2(self.source, &*path, flags, Mode::empty(), resolve).map_err(|e| io_error("read", &path, e))?;
        copy_attributes(source.as_fd(), fd).map_err(|e| io_error("set extended attributes of", target, e))
    }

    /// Writes a file given in the Dockerfile itself.
    pub(crate) fn write(&mut self, name: &str, content: &[u8], destination: &str) -> Result<(), TreeError> {
        let place = self.target(destination, name.as_bytes(), false)?;
        let fail = |operation| {
            let path = place.path.clone();
            move |e| io_error(operation, &path, e)
        };
        make_room(place.directory.as_fd(), &place.name, &place.path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&place.directory, &*place.name, flags, Mode::from_raw_mode(0o600)).map_err(fail("create"))?;
        let mut file = File::from(fd);
        file.write_all(content).map_err(|source| TreeError::Io {
            operation: "write",
            path: String::from_utf8_lossy(&place.path).into_owned(),
            source,
        })?;
        set_owner(file.as_fd(), self.parents_owner()).map_err(fail("change the owner of"))?;
        let mode = self.settings.mode.as_ref().map_or(0o644, |m| m.apply(0o644, false));
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(fail("set the mode of"))
    }
}

fn source_path(base: &[u8], entry: &Entry) -> Vec<u8> {
    match (base.is_empty(), entry.path.is_empty()) {
        (_, true) => base.to_vec(),
        (true, false) => entry.path.clone(),
        (false, false) => [base, b"/", &entry.path].concat(),
    }
}

/// Removes what is in the way of a file; a directory is not removed.
fn make_room(directory: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> Result<(), TreeError> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => Err(TreeError::IsDirectory(String::from_utf8_lossy(target).into_owned())),
        Err(e) => Err(io_error("replace", target, e)),
    }
}

/// Opens a directory in a directory, making it if it is missing; a link counts as something else.
fn enter_directory(parent: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> Result<OwnedFd, TreeError> {
    let fail = |e| io_error("create directory", target, e);
    match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(fail(e)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => Err(TreeError::NotDirectory(String::from_utf8_lossy(target).into_owned())),
        other => other.map_err(fail),
    }
}

fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    for (name, value) in read_xattrs(from)? {
        match fsetxattr(to, &*name, &value, XattrFlags::empty()) {
            // A file system without them loses them, as in every other builder.
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
