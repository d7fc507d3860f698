//! The stack of lower directories of an image, with fix-ups for implied parent directories.
//!
//! A tar may list `a/b/c` without `a/b`. Unpacked alone, such a layer has an `a/b` of its own making (0755, root), and
//! overlay would show that one's mode and owner instead of the lower layer's. So right above such a layer comes a fix-up
//! layer that holds only those directories, with the attributes of the topmost layer below that has them. It depends on
//! everything below, so it is keyed by the chain ID.
//!
//! `chains/<chain>/lower` keeps the answer for a whole stack; a start reads that one small file.

use super::extract::{OPAQUE, attribute_allowed};
use super::meta::Meta;
use super::{exists, resolve};
use crate::Store;
use crate::disk::{self, TmpDir};
use crate::error::{At, StoreError, printable};
use dhow_oci::image::chain_id;
use dhow_sys::xattr;
use dhow_types::Digest;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Most lower directories of one mount (`OVL_MAX_STACK`).
const MAX_STACK: usize = 500;
/// Largest `lower` file, in bytes.
const LIMIT: u64 = 64 << 10;

/// A real path and what the directory there has to look like.
type Attributed = (Vec<u8>, RootAttributes);

/// What the root directory of an image looks like; an upper directory has to start like this, because overlay shows the
/// upper directory's own attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootAttributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes that layers may have, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Default for RootAttributes {
    fn default() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, xattrs: Vec::new() }
    }
}

impl RootAttributes {
    /// Of a directory.
    pub(crate) fn of(dir: BorrowedFd<'_>) -> std::io::Result<Self> {
        let stat = rustix::fs::fstat(dir)?;
        let mut xattrs = Vec::new();
        for name in xattr::list(dir)? {
            if attribute_allowed(&name)
                && let Some(value) = xattr::get(dir, &name)?
            {
                xattrs.push((name, value));
            }
        }
        xattrs.sort();
        Ok(Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, xattrs })
    }

    /// Of a directory by path.
    #[cfg(test)]
    pub(crate) fn of_path(path: &Path) -> Self {
        Self::of(disk::open_dir(path).unwrap().as_fd()).unwrap()
    }

    fn apply(&self, dir: &OwnedFd) -> std::io::Result<()> {
        rustix::fs::fchown(dir, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        rustix::fs::fchmod(dir, Mode::from_raw_mode(self.mode))?;
        for (name, value) in &self.xattrs {
            xattr::set(dir, name, value)?;
        }
        Ok(())
    }
}

impl Store {
    /// Overlay lower directories of a stack of layers (lowest first in the argument, as in an image config), topmost first
    /// in the result. The paths are short: `ROOT/l/<22 or 23 characters>`.
    pub fn lower_dirs(&self, diff_ids: &[Digest]) -> Result<Vec<PathBuf>, StoreError> {
        let Some(chain) = chain_id(diff_ids) else { return Ok(Vec::new()) };
        let links = self.layout.links();
        let names = match self.read_lower(&chain)? {
            Some(names) => names,
            None => {
                // Nothing may vanish while the answer is worked out and written down.
                let _graph = self.shared_lock()?;
                self.make_lower(diff_ids)?
            }
        };
        // The same layer twice: the upper one covers all of the lower one, and overlayfs refuses a directory that is there
        // twice (ELOOP).
        let mut seen = BTreeSet::new();
        Ok(names.iter().filter(|name| seen.insert(name.as_str())).map(|name| links.join(name)).collect())
    }

    /// How the root directory of a stack of layers looks: as the topmost layer says that says anything.
    pub fn root_attributes(&self, diff_ids: &[Digest]) -> Result<RootAttributes, StoreError> {
        for diff in diff_ids.iter().rev() {
            let layer = self.layout.layer(diff);
            let meta = Meta::read(&layer)?.ok_or(StoreError::NoSuchLayer(*diff))?;
            if meta.root {
                let fs = layer.join("fs");
                return RootAttributes::of(disk::open_dir(&fs)?.as_fd()).at("inspect", &fs);
            }
        }
        Ok(RootAttributes::default())
    }

    /// Gives an empty upper directory the look of an image's root.
    pub fn prepare_upper(&self, upper: &Path, diff_ids: &[Digest]) -> Result<RootAttributes, StoreError> {
        let attributes = self.root_attributes(diff_ids)?;
        attributes.apply(&disk::open_dir(upper)?).at("set attributes of", upper)?;
        Ok(attributes)
    }

    fn read_lower(&self, chain: &Digest) -> Result<Option<Vec<String>>, StoreError> {
        let path = self.layout.chain(chain).join("lower");
        let Some(text) = disk::read_small(&path, LIMIT)? else { return Ok(None) };
        let text = String::from_utf8(text).map_err(|e| StoreError::record(&path, e))?;
        let name_ok = |n: &str| n.len() >= 22 && n.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
        if !text.ends_with('\n') || !text.lines().all(name_ok) {
            return Err(StoreError::record(&path, "bad link name"));
        }
        Ok(Some(text.lines().map(str::to_owned).collect()))
    }

    /// Works out the lower directories of a stack and writes them down.
    fn make_lower(&self, diff_ids: &[Digest]) -> Result<Vec<String>, StoreError> {
        let link_name = |path: PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut below: Vec<String> = Vec::new();
        let mut made = false;
        for (i, diff) in diff_ids.iter().enumerate() {
            let layer = self.layout.layer(diff);
            let meta = Meta::read(&layer)?.ok_or(StoreError::NoSuchLayer(*diff))?;
            let link = self.layout.layer_link(diff);
            self.link(&link, &format!("../layers/{}/fs", diff.hex()))?;
            let stack = diff_ids.get(..=i).unwrap_or_default();
            let lowers: Vec<PathBuf> = below.iter().rev().map(|name| self.layout.links().join(name)).collect();
            below.push(link_name(link));
            made = false;
            let implied = meta.implied()?;
            if implied.is_empty() || lowers.is_empty() {
                continue;
            }
            let Some(chain) = chain_id(stack) else { continue };
            if let Some(known) = self.read_lower(&chain)? {
                below = known.into_iter().rev().collect();
                made = true;
                continue;
            }
            let wanted = fixups(&layer.join("fs"), &implied, &lowers)?;
            if !wanted.is_empty() {
                let fixup = self.layout.chain_link(&chain);
                below.push(link_name(fixup.clone()));
                self.write_chain(&chain, &below, Some((&layer.join("fs"), &wanted)))?;
                self.link(&fixup, &format!("../chains/{}/fs", chain.hex()))?;
                made = true;
            }
        }
        if below.len() > MAX_STACK {
            return Err(StoreError::Refused(format!("an image of {} layers cannot be mounted", diff_ids.len())));
        }
        if !made && let Some(chain) = chain_id(diff_ids) {
            self.write_chain(&chain, &below, None)?;
        }
        below.reverse();
        Ok(below)
    }

    /// Writes `chains/<chain>`, atomically. Nothing in it is unique, so it is not synced: after a power cut it is made again.
    fn write_chain(
        &self,
        chain: &Digest,
        below: &[String],
        fixup: Option<(&Path, &[Attributed])>,
    ) -> Result<(), StoreError> {
        let target = self.layout.chain(chain);
        if exists(&target.join("lower"))? {
            return Ok(());
        }
        let tmp = TmpDir::create(&self.layout.tmp(), "chain")?;
        if let Some((_, directories)) = fixup {
            let fs = tmp.path().join("fs");
            disk::ensure_dir(&fs, 0o755)?;
            write_fixup(&disk::open_dir(&fs)?, directories)?;
        }
        let text: String = below.iter().rev().map(|name| format!("{name}\n")).collect();
        let lower = tmp.path().join("lower");
        std::fs::write(&lower, text).at("write", &lower)?;
        // An empty or torn record after a power cut would be taken at its word.
        rustix::fs::fdatasync(disk_file(&lower)?).at("sync", &lower)?;
        if !tmp.publish(&target)? && !exists(&target.join("lower"))? {
            return Err(StoreError::record(&target, "directory without \"lower\""));
        }
        Ok(())
    }
}

fn disk_file(path: &Path) -> Result<std::fs::File, StoreError> {
    std::fs::File::open(path).at("open", path)
}

/// The implied directories of a layer whose attributes must change, with those attributes, and the directories above them.
/// Parents first. Empty when overlay shows the right thing without help.
fn fixups(layer: &Path, implied: &BTreeSet<Vec<u8>>, lowers: &[PathBuf]) -> Result<Vec<Attributed>, StoreError> {
    let own = disk::open_dir(layer)?;
    let lowers = lowers.iter().map(|p| disk::open_dir(p)).collect::<Result<Vec<_>, _>>()?;
    let mut wanted: Vec<Attributed> = Vec::new();
    let mut all: BTreeSet<Vec<u8>> = BTreeSet::new();
    let fail = |path: &[u8]| {
        let path = PathBuf::from(printable(path));
        move |source| StoreError::Io { op: "inspect", path, source }
    };
    let open = |dir: &OwnedFd, path: &[u8]| -> Result<OwnedFd, StoreError> {
        open_beneath(dir.as_fd(), path)?
            .ok_or_else(|| StoreError::record(layer, format!("{} is missing", printable(path))))
    };
    for path in implied {
        let here = open(&own, path)?;
        let mine = RootAttributes::of(here.as_fd()).map_err(fail(path))?;
        let hides = hides_lower(own.as_fd(), path)?;
        let theirs = if hides { None } else { topmost(&lowers, path)? };
        if theirs.is_some_and(|theirs| theirs != mine) {
            let mut prefix = path.as_slice();
            while !prefix.is_empty() {
                all.insert(prefix.to_vec());
                prefix = resolve::split(prefix).0;
            }
        }
    }
    for path in all {
        let theirs =
            if implied.contains(&path) && !hides_lower(own.as_fd(), &path)? { topmost(&lowers, &path)? } else { None };
        let attributes = match theirs {
            Some(attributes) => attributes,
            // Listed by the layer itself: it knows best.
            None => RootAttributes::of(open(&own, &path)?.as_fd()).map_err(fail(&path))?,
        };
        wanted.push((path, attributes));
    }
    Ok(wanted)
}

/// Whether a directory of a layer, or one above it, is opaque: nothing below shows through then.
fn hides_lower(layer: BorrowedFd<'_>, path: &[u8]) -> Result<bool, StoreError> {
    let mut end = 0;
    loop {
        end = path
            .get(end + 1..)
            .and_then(|rest| rest.iter().position(|b| *b == b'/'))
            .map_or(path.len(), |i| end + 1 + i);
        let prefix = path.get(..end).unwrap_or(path);
        if let Some(dir) = open_beneath(layer, prefix)?
            && is_opaque(&dir)?
        {
            return Ok(true);
        }
        if end >= path.len() {
            return Ok(false);
        }
    }
}

fn is_opaque(dir: &OwnedFd) -> Result<bool, StoreError> {
    let value = xattr::get(dir, OPAQUE).at("inspect", Path::new("a layer's directory"))?;
    Ok(value.as_deref() == Some(b"y"))
}

/// Attributes of the directory at `path` as overlay would show it with these lower directories, topmost first.
fn topmost(lowers: &[OwnedFd], path: &[u8]) -> Result<Option<RootAttributes>, StoreError> {
    for lower in lowers {
        match look(lower, path)? {
            Look::Directory(attributes) => return Ok(Some(attributes)),
            Look::Absent => {}
            Look::Hidden => return Ok(None),
        }
    }
    Ok(None)
}

enum Look {
    Directory(RootAttributes),
    /// Not in this layer; a lower one may have it.
    Absent,
    /// Not in this layer, and lower ones do not show through: whiteout, opaque directory, or something else of that name.
    Hidden,
}

fn look(lower: &OwnedFd, path: &[u8]) -> Result<Look, StoreError> {
    let at = Path::new("a layer's directory");
    let mut here: Option<OwnedFd> = None;
    let mut opaque = false;
    for name in path.split(|b| *b == b'/') {
        let dir = here.as_ref().unwrap_or(lower);
        let stat: Stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(if opaque { Look::Hidden } else { Look::Absent }),
            Err(e) => return Err(e).at("inspect", at),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(Look::Hidden);
        }
        let next = open_one(dir.as_fd(), name).at("open", at)?;
        opaque |= is_opaque(&next)?;
        here = Some(next);
    }
    match here {
        Some(dir) => Ok(Look::Directory(RootAttributes::of(dir.as_fd()).at("inspect", at)?)),
        None => Ok(Look::Absent),
    }
}

fn open_one(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Opens a real path component by component; `None` when it is not a directory of this layer.
fn open_beneath(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>, StoreError> {
    let at = Path::new("a layer's directory");
    let mut here = open_one(dir, b".").at("open", at)?;
    for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
        here = match open_one(here.as_fd(), name) {
            Ok(next) => next,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(e) => return Err(e).at("open", at),
        };
    }
    Ok(Some(here))
}

fn write_fixup(root: &OwnedFd, directories: &[Attributed]) -> Result<(), StoreError> {
    let at = Path::new("a fix-up layer");
    for (path, _) in directories {
        let (parent, name) = resolve::split(path);
        let dir = open_beneath(root.as_fd(), parent)?.ok_or_else(|| StoreError::record(at, "parent is missing"))?;
        rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700)).at("create directory in", at)?;
    }
    // Children first, so that a directory without permissions does not get in the way.
    for (path, attributes) in directories.iter().rev() {
        let dir = open_beneath(root.as_fd(), path)?.ok_or_else(|| StoreError::record(at, "directory is missing"))?;
        attributes.apply(&dir).at("set attributes in", at)?;
    }
    Ok(())
}
