//! Finding what `COPY` names, and the content digest of it.

use super::FileStat;
use super::resolve::{Resolved, resolve};
use crate::backend::Backend;
use crate::error::BuildError;
use crate::explain::Listed;
use crate::key::KeyBuilder;
use dhow_dockerfile::{IgnoreList, ParentMatch, glob};
use dhow_types::{Digest, Hasher};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Deepest directory below a source. Each level holds one descriptor open.
const MAX_DEPTH: usize = 256;
/// Longest extended attribute list or value that is read (xattr(7): 64 KiB is the kernel's limit).
const XATTR_LIMIT: usize = 64 << 10;

/// Extended attributes: names and values.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// A tree to copy from.
pub(crate) struct SourceTree<'a> {
    pub(crate) root: BorrowedFd<'a>,
    pub(crate) ignore: &'a IgnoreList,
    /// Owners are kept (stages and images); from a context everything belongs to root.
    pub(crate) keep_owner: bool,
    /// Remembers content digests of unchanged files.
    pub(crate) memory: Option<&'a dyn Backend>,
}

/// One source: a file, or a directory with everything below it.
#[derive(Debug)]
pub(crate) struct Found {
    /// Last name of the source as written, for copies into a directory.
    pub(crate) name: Vec<u8>,
    /// Real path from the tree's root, without a leading slash.
    pub(crate) path: Vec<u8>,
    /// The source itself (with an empty path), then what is below it, parents first.
    pub(crate) entries: Vec<Entry>,
}

/// One object of a tree.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Path below the source.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits with set-id and sticky.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) stat: FileStat,
    pub(crate) links: u64,
}

/// What an object is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// With the digest of its extended attributes, if it has any.
    Directory(Option<Digest>),
    /// With the digest of data and extended attributes.
    File(Digest),
    Symlink(Vec<u8>),
    /// FIFO or device: file type bits and device number.
    Special(FileType, u64),
}

impl Found {
    pub(crate) fn is_directory(&self) -> bool {
        self.entries.first().is_some_and(|e| matches!(e.kind, Kind::Directory(_)))
    }

    /// Drops what patterns match: relative to a directory source, by name for a file. Says whether anything is left.
    pub(crate) fn exclude(&mut self, patterns: &IgnoreList) -> bool {
        if !self.is_directory() {
            return !patterns.excludes(&String::from_utf8_lossy(&self.name));
        }
        self.keep(|path| !patterns.excludes(path));
        true
    }

    /// Keeps the entries that a function wants, and the directories that lead to them.
    fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        // From the end: what is below a directory comes first, and keeps the directory if it stays.
        let mut parents: HashSet<Vec<u8>> = HashSet::from([Vec::new()]);
        let mut kept: Vec<Entry> = Vec::with_capacity(self.entries.len());
        for entry in self.entries.drain(..).rev() {
            if parents.contains(&entry.path) || wanted(&String::from_utf8_lossy(&entry.path)) {
                let parent = entry.path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &entry.path[..at]);
                parents.insert(parent.to_vec());
                kept.push(entry);
            }
        }
        kept.reverse();
        self.entries = kept;
    }

    /// Adds everything that the copy depends on: path, type, mode, owner, size, link target, attributes and data, but no
    /// times.
    pub(crate) fn fingerprint(&self, key: &mut KeyBuilder) {
        key.bytes(&self.name);
        key.number(self.entries.len() as u64);
        self.entries.iter().for_each(|entry| entry.fingerprint(key));
    }

    /// Every object with its path from the tree's root and a digest of what the copy depends on.
    pub(crate) fn list(&self, list: &mut Vec<Listed>) {
        for entry in &self.entries {
            let mut key = KeyBuilder::new("entry");
            entry.fingerprint(&mut key);
            let path = if entry.path.is_empty() { self.path.clone() } else { join(&self.path, &entry.path) };
            list.push((path, key.finish()));
        }
    }
}

impl Entry {
    fn fingerprint(&self, key: &mut KeyBuilder) {
        key.bytes(&self.path);
        key.number(self.mode.into());
        key.number(self.owner.0.into());
        key.number(self.owner.1.into());
        match &self.kind {
            Kind::Directory(attributes) => {
                key.text("d");
                key.option(attributes.map(|d| d.to_string()).as_deref());
            }
            Kind::File(content) => {
                key.text("f");
                key.number(self.stat.size);
                key.digest(content);
            }
            Kind::Symlink(target) => {
                key.text("l");
                key.bytes(target);
            }
            Kind::Special(file_type, device) => {
                key.text("s");
                key.number(file_type.as_raw_mode().into());
                key.number(*device);
            }
        }
    }
}

fn io_error(path: &[u8], errno: Errno) -> BuildError {
    BuildError::Context { path: String::from_utf8_lossy(path).into_owned(), source: errno.into() }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

impl SourceTree<'_> {
    /// Everything that one source word of `COPY` names, in order of path. A word with wildcards may name nothing.
    pub(crate) fn find(&self, word: &str) -> Result<Vec<Found>, BuildError> {
        let cleaned = clean(word);
        let elements: Vec<&str> = cleaned.split('/').filter(|e| !e.is_empty()).collect();
        let literal = elements.iter().take_while(|e| !glob::has_wildcards(e)).count();
        let base: Vec<u8> =
            elements[..literal].iter().map(|e| glob::unescape(e).into_bytes()).collect::<Vec<_>>().join(&b'/');
        let base_is_all = literal == elements.len();
        let found = match resolve(self.root, &base) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) if base_is_all => return Err(missing(word, false)),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(e) => return Err(io_error(&base, e)),
        };
        if base_is_all {
            let name = base.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
            return match self.collect(&found, name, None)? {
                Some(found) => Ok(vec![found]),
                None => Err(missing(word, true)),
            };
        }
        let mut matched: Vec<Vec<u8>> = Vec::new();
        self.match_below(&found, &elements[literal..], &mut matched)?;
        matched.sort();
        let mut list = Vec::new();
        for path in matched {
            // A matched link is followed like a named one.
            let target = resolve(self.root, &path).map_err(|e| io_error(&path, e))?;
            let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
            list.extend(self.collect(&target, name, None)?);
        }
        Ok(list)
    }

    /// What `COPY --parents` names: everything that matches, with the directories that lead to it from the root or from
    /// `/./` in the word. The pattern may have `**`.
    pub(crate) fn find_with_parents(&self, word: &str) -> Result<Option<Found>, BuildError> {
        let (base, pattern) = word.split_once("/./").unwrap_or(("", word));
        let (base, pattern) = (clean(base), clean(pattern));
        let include = IgnoreList::from_patterns([pattern.as_str()]).map_err(|e| BuildError::Invalid(e.to_string()))?;
        let at = match resolve(self.root, base.as_bytes()) {
            Ok(at) if at.file_type() == FileType::Directory => at,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing(word, false)),
            Err(e) => return Err(io_error(base.as_bytes(), e)),
        };
        let all = pattern.is_empty();
        let found = self.collect(&at, Vec::new(), Some(&include).filter(|_| !all))?;
        let found = found.map(|mut found| {
            if !all {
                found.keep(|path| include.excludes(path));
            }
            found
        });
        match found {
            Some(found) if found.entries.len() > 1 || all => Ok(Some(found)),
            _ if glob::has_wildcards(&pattern) => Ok(None),
            _ => Err(missing(word, false)),
        }
    }

    /// What a path names, with no regard to wildcards.
    pub(crate) fn find_literal(&self, path: &str) -> Result<Vec<Found>, BuildError> {
        let escaped: String =
            path.chars().flat_map(|c| "*?[\\".contains(c).then_some('\\').into_iter().chain([c])).collect();
        self.find(&escaped)
    }

    fn match_below(&self, at: &Resolved, patterns: &[&str], out: &mut Vec<Vec<u8>>) -> Result<(), BuildError> {
        let Some((pattern, rest)) = patterns.split_first() else { return Ok(()) };
        if at.file_type() != FileType::Directory {
            return Ok(());
        }
        let path = at.path();
        let directory = match resolve(self.root, &path) {
            Ok(found) => open_directory(self.root, &found).map_err(|e| io_error(&path, e))?,
            Err(e) => return Err(io_error(&path, e)),
        };
        for name in read_names(&directory).map_err(|e| io_error(&path, e))? {
            let text = String::from_utf8_lossy(&name);
            if !glob::matches(pattern, &text).map_err(|e| BuildError::Invalid(e.to_string()))? {
                continue;
            }
            let full = join(&path, &name);
            if rest.is_empty() {
                if !self.hidden(&full) {
                    out.push(full);
                }
            } else if let Ok(below) = resolve(self.root, &full)
                && below.path() == full
            {
                // Wildcards do not look through links, as Go's walk does not.
                self.match_below(&below, rest, out)?;
            }
        }
        Ok(())
    }

    /// Whether the ignore rules hide a path and everything below it.
    fn hidden(&self, path: &[u8]) -> bool {
        let text = String::from_utf8_lossy(path);
        !path.is_empty() && self.ignore.excludes(&text) && !self.ignore.may_include_below(&text)
    }

    /// The object with everything below it; `None` when the ignore rules hide all of it.
    fn collect(&self, at: &Resolved, name: Vec<u8>, include: Option<&IgnoreList>) -> Result<Option<Found>, BuildError> {
        let path = at.path();
        if self.hidden(&path) {
            return Ok(None);
        }
        let parent = at.parent().unwrap_or(self.root);
        let mut walk =
            Walk { tree: self, base: path.len() + usize::from(!path.is_empty()), entries: Vec::new(), include };
        let mut parents = ParentMatch::default();
        let mut excluded = false;
        for (i, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/').chain([(path.len(), &0)]) {
            if !path.is_empty() {
                (excluded, parents) = self.ignore.excludes_entry(&String::from_utf8_lossy(&path[..i]), &parents);
            }
        }
        walk.visit(parent, at.name(), &path, excluded, &parents, 0)?;
        let entries = walk.entries;
        Ok((!entries.is_empty()).then_some(Found { name, path, entries }))
    }
}

fn missing(word: &str, ignored: bool) -> BuildError {
    let path = format!("/{}", clean(word));
    BuildError::SourceNotFound { path, ignored }
}

/// The word as a path from the tree's root: no leading slash, no `..` that leads out.
fn clean(word: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in word.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn open_directory(root: BorrowedFd<'_>, found: &Resolved) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(found.parent().unwrap_or(root), found.name(), flags, Mode::empty())
}

/// Names in a directory, sorted by bytes.
fn read_names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

struct Walk<'w, 'a> {
    tree: &'w SourceTree<'a>,
    /// Length of the prefix that paths lose.
    base: usize,
    /// Only what these match is looked at closely.
    include: Option<&'w IgnoreList>,
    entries: Vec<Entry>,
}

impl Walk<'_, '_> {
    fn visit(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        excluded: bool,
        matched: &ParentMatch,
        depth: usize,
    ) -> Result<(), BuildError> {
        let fail = |e| io_error(path, e);
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::Directory {
            return self.directory(parent, name, path, excluded, matched, depth);
        }
        let unwanted = |include: &IgnoreList| {
            let below = path.get(self.base..).unwrap_or_default();
            !include.excludes(&String::from_utf8_lossy(below))
        };
        if excluded || self.include.is_some_and(unwanted) {
            return Ok(());
        }
        let (kind, stat) = match file_type {
            FileType::RegularFile => self.file(parent, name, path, stat)?,
            FileType::Symlink => {
                (Kind::Symlink(readlinkat(parent, name, Vec::new()).map_err(fail)?.into_bytes()), stat)
            }
            // A socket means nothing without the program behind it.
            FileType::Socket => return Ok(()),
            special => (Kind::Special(special, stat.st_rdev), stat),
        };
        self.push(path, kind, &stat);
        Ok(())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        excluded: bool,
        matched: &ParentMatch,
        depth: usize,
    ) -> Result<(), BuildError> {
        let fail = |e| io_error(path, e);
        if depth > MAX_DEPTH {
            let path = String::from_utf8_lossy(path).chars().take(100).collect();
            return Err(BuildError::TooDeep { path, limit: MAX_DEPTH });
        }
        let text = String::from_utf8_lossy(path);
        if excluded && !path.is_empty() && !self.tree.ignore.may_include_below(&text) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty()).map_err(fail)?;
        let stat = fstat(&fd).map_err(fail)?;
        let attributes = read_xattrs(fd.as_fd()).map_err(fail)?;
        let at = self.entries.len();
        self.push(path, Kind::Directory(attributes_digest(&attributes)), &stat);
        for name in read_names(&fd).map_err(fail)? {
            let below = join(path, &name);
            let (hidden, matched) = self.tree.ignore.excludes_entry(&String::from_utf8_lossy(&below), matched);
            self.visit(fd.as_fd(), &name, &below, hidden, &matched, depth + 1)?;
        }
        if excluded && !path.is_empty() && self.entries.len() == at + 1 {
            // Nothing below an excluded directory was included again.
            self.entries.truncate(at);
        }
        Ok(())
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: rustix::fs::Stat,
    ) -> Result<(Kind, rustix::fs::Stat), BuildError> {
        let identity = FileStat::of(&stat);
        if let Some(content) = self.tree.memory.and_then(|m| m.known_content(&identity)) {
            return Ok((Kind::File(content), stat));
        }
        let fail = |e| io_error(path, e);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(openat(parent, name, flags, Mode::empty()).map_err(fail)?);
        let stat = fstat(&file).map_err(fail)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(fail(Errno::AGAIN));
        }
        let content = content_digest(&mut file)
            .map_err(|source| BuildError::Context { path: String::from_utf8_lossy(path).into_owned(), source })?;
        // Remembered only if nothing happened to the file while it was read.
        let (before, after) = (FileStat::of(&stat), FileStat::of(&fstat(&file).map_err(fail)?));
        if let Some(memory) = self.tree.memory
            && before == after
        {
            memory.remember_content(&before, &content);
        }
        Ok((Kind::File(content), stat))
    }

    fn push(&mut self, path: &[u8], kind: Kind, stat: &rustix::fs::Stat) {
        let owner = if self.tree.keep_owner { (stat.st_uid, stat.st_gid) } else { (0, 0) };
        // The permissions of a link mean nothing.
        let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { stat.st_mode & 0o7777 };
        #[allow(clippy::unnecessary_cast)]
        let links = stat.st_nlink as u64;
        self.entries.push(Entry {
            path: path.get(self.base..).unwrap_or_default().to_vec(),
            kind,
            mode,
            owner,
            stat: FileStat::of(stat),
            links,
        });
    }
}

fn content_digest(file: &mut File) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let data = hasher.finish();
    Ok(match attributes_digest(&read_xattrs(file.as_fd())?) {
        None => data,
        Some(attributes) => {
            let mut key = KeyBuilder::new("content");
            key.digest(&data);
            key.digest(&attributes);
            key.finish()
        }
    })
}

fn attributes_digest(attributes: &[(Vec<u8>, Vec<u8>)]) -> Option<Digest> {
    if attributes.is_empty() {
        return None;
    }
    let mut key = KeyBuilder::new("attributes");
    for (name, value) in attributes {
        key.bytes(name);
        key.bytes(value);
    }
    Some(key.finish())
}

/// Extended attributes that belong to the content, sorted. Those that belong to the host's file system or security
/// modules are left out.
pub(crate) fn read_xattrs(fd: BorrowedFd<'_>) -> Result<Attributes, Errno> {
    let mut small = [0_u8; 512];
    let mut large = Vec::new();
    let list = match rustix::fs::flistxattr(fd, &mut small[..]) {
        Ok(len) => small.get(..len).unwrap_or_default(),
        Err(Errno::RANGE) => {
            large.resize(XATTR_LIMIT, 0);
            let len = rustix::fs::flistxattr(fd, &mut large[..])?;
            large.get(..len).unwrap_or_default()
        }
        Err(Errno::NOTSUP | Errno::PERM) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut attributes = Vec::new();
    for name in list.split(|b| *b == 0).filter(|n| belongs_to_content(n)) {
        let mut value = vec![0; XATTR_LIMIT];
        match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                attributes.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    attributes.sort();
    Ok(attributes)
}

fn belongs_to_content(name: &[u8]) -> bool {
    let kept = [&b"user."[..], b"security.capability", b"system.posix_acl_"];
    kept.iter().any(|k| name.starts_with(k)) && !name.starts_with(b"user.overlay.")
}
