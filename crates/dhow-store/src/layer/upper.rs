//! Trees to tars: an overlay's upper directory becomes a layer, a layer its tar again, a root file system an export.
//!
//! The canonical tar of a layer is a function of its files: names sorted byte by byte, a directory before its contents with
//! the opaque whiteout right behind it, whole seconds, no names of users, hard links by first occurrence. A layer is hashed
//! as that stream; the stream itself is written only when somebody asks for it.

use super::extract::OPAQUE_WHITEOUT;
use super::implied::RootAttributes;
use super::meta::{self, Meta};
use super::walk::{Meaning, Node, Visitor, Walk, content};
use super::{ScratchDir, StagedLayer, resolve};
use crate::Store;
use crate::disk::{self, TmpDir};
use crate::error::{At, StoreError, printable};
use crate::tar::write::TarWriter;
use crate::tar::{Entry, Kind};
use dhow_oci::image::Compression;
use dhow_sys::xattr;
use dhow_types::{Digest, Hasher};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Size of the buffer for file contents, in bytes.
const BUFFER: usize = 256 << 10;

/// How an upper directory becomes a layer.
#[derive(Debug, Default, Clone)]
pub struct StageOptions<'a> {
    /// Copy, leaving the upper directory alone (its container runs). Otherwise it is moved.
    pub copy: bool,
    /// Paths to leave out, with everything below.
    pub skip: &'a [&'a Path],
    /// Later modification times are written as this, seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub clamp: Option<i64>,
    /// How the root looked before; if it still does it is not part of the layer. The default is 0755, root.
    pub root: Option<RootAttributes>,
}

impl Store {
    /// Turns an overlay's upper directory into a layer.
    pub fn stage_upper(&self, upper: &Path, copy: bool) -> Result<StagedLayer, StoreError> {
        self.stage_upper_with(upper, &StageOptions { copy, ..StageOptions::default() })
    }

    /// The same, leaving out some paths.
    pub fn stage_upper_filtered(&self, upper: &Path, copy: bool, skip: &[&Path]) -> Result<StagedLayer, StoreError> {
        self.stage_upper_with(upper, &StageOptions { copy, skip, ..StageOptions::default() })
    }

    /// The same with a scratch directory, which is used up.
    pub fn stage_scratch(&self, scratch: ScratchDir, options: &StageOptions<'_>) -> Result<StagedLayer, StoreError> {
        self.stage_upper_with(&scratch.upper(), &StageOptions { copy: false, ..options.clone() })
    }

    /// The same with all options.
    pub fn stage_upper_with(&self, upper: &Path, options: &StageOptions<'_>) -> Result<StagedLayer, StoreError> {
        self.writable()?;
        let skip: Vec<Vec<u8>> = options.skip.iter().map(|p| resolve::clean(p.as_os_str().as_bytes()).path).collect();
        let tmp = TmpDir::create(&self.layout.tmp(), "layer")?;
        let fs = tmp.path().join("fs");
        let walk = Walk { meaning: Meaning::Layer, skip: &skip, clamp: options.clamp, strip: !options.copy };
        let baseline = options.root.clone().unwrap_or_default();
        let source;
        let mut copier = None;
        if options.copy {
            source = disk::open_dir(upper)?;
            disk::ensure_dir(&fs, 0o700)?;
            copier = Some(Copier::new(&fs)?);
        } else {
            std::fs::rename(upper, &fs).at("move", upper)?;
            source = disk::open_dir(&fs)?;
            for path in &skip {
                remove_beneath(&source, path)?;
            }
        }
        let mut out = Tarring::new(Hasher::new(), baseline, copier);
        walk.run(source.as_fd(), &mut out)?;
        let (hasher, tar_size, size, root) = out.finish().map_err(output)?;
        StagedLayer::new(tmp, hasher.finish(), Meta::built(size, tar_size, root, options.clamp))
    }

    /// Writes the tar of a layer: from the blob that it was pulled as, or from its files. The bytes are verified; when this
    /// fails with `Mismatch` they have been written but are wrong.
    pub fn write_layer_tar(&self, diff: &Digest, out: impl Write) -> Result<(), StoreError> {
        let layer = self.layout.layer(diff);
        let meta = Meta::read(&layer)?.ok_or(StoreError::NoSuchLayer(*diff))?;
        let mut out = Hashing { out, hasher: Hasher::new() };
        match self.layer_source(&layer, &meta)? {
            Some((file, compression)) => {
                let what = format!("layer {}", diff.short());
                let mut reader = super::stream::decoder(file, compression).map_err(StoreError::input(&what))?;
                let mut buffer = vec![0u8; BUFFER];
                loop {
                    let n = super::stream::fill(&mut reader, &mut buffer).map_err(StoreError::input(&what))?;
                    out.write_all(buffer.get(..n).unwrap_or_default()).map_err(output)?;
                    if n < buffer.len() {
                        break;
                    }
                }
            }
            None => {
                let root = disk::open_dir(&layer.join("fs"))?;
                canonical(root.as_fd(), &meta, &mut out)?;
            }
        }
        out.flush().map_err(output)?;
        let found = out.hasher.finish();
        if found == *diff { Ok(()) } else { Err(StoreError::Mismatch { what: "layer", expected: *diff, found }) }
    }

    /// Bytes of a layer's regular files: what Docker shows as its size.
    pub fn layer_size(&self, diff: &Digest) -> Result<u64, StoreError> {
        Ok(Meta::read(&self.layout.layer(diff))?.ok_or(StoreError::NoSuchLayer(*diff))?.size)
    }

    /// Bytes of a layer's uncompressed tar.
    pub fn layer_tar_size(&self, diff: &Digest) -> Result<u64, StoreError> {
        Ok(Meta::read(&self.layout.layer(diff))?.ok_or(StoreError::NoSuchLayer(*diff))?.tar_size)
    }

    /// The blob to read a layer's tar from, unless its files are as good.
    fn layer_source(&self, layer: &Path, meta: &Meta) -> Result<Option<(std::fs::File, Compression)>, StoreError> {
        if meta.canonical {
            return Ok(None);
        }
        let Some(source) = meta::read_source(layer)? else { return Ok(None) };
        match (self.open_blob(&source.digest), source.layer_compression()) {
            (Ok(file), Some(compression)) => Ok(Some((file, compression))),
            (Err(StoreError::NoSuchBlob(_)), _) | (_, None) => Ok(None),
            (Err(e), _) => Err(e),
        }
    }

    /// Whether the canonical tar of a staged layer is the tar that it came from; if so no copy of that tar is needed.
    pub(crate) fn probe_canonical(&self, staged: &mut StagedLayer) -> Result<bool, StoreError> {
        if !staged.meta.implied()?.is_empty() {
            return Ok(false);
        }
        let root = disk::open_dir(&staged.dir())?;
        let mut out = Hashing { out: io::sink(), hasher: Hasher::new() };
        canonical(root.as_fd(), &staged.meta, &mut out)?;
        staged.meta.canonical = out.hasher.finish() == staged.diff;
        if staged.meta.canonical {
            staged.meta.write(staged.tmp.path())?;
        }
        Ok(staged.meta.canonical)
    }
}

/// Writes the canonical tar of a layer's directory.
fn canonical(root: BorrowedFd<'_>, meta: &Meta, out: &mut dyn Write) -> Result<(), StoreError> {
    let walk = Walk { meaning: Meaning::Layer, skip: &[], clamp: meta.clamp, strip: false };
    let mut tarring = Tarring::new(out, RootAttributes::default(), None);
    tarring.root = Root::Known(meta.root);
    walk.run(root, &mut tarring)?;
    tarring.finish().map_err(output)?;
    Ok(())
}

/// Writes a merged root file system as a tar: canonical order, hard links, extended attributes, holes as zeros. Device 0:0
/// and overlay's marks mean nothing here.
pub fn write_tree_tar(root: BorrowedFd<'_>, out: impl Write) -> Result<(), StoreError> {
    let walk = Walk { meaning: Meaning::Plain, skip: &[], clamp: None, strip: false };
    let mut tarring = Tarring::new(out, RootAttributes::default(), None);
    tarring.root = Root::Known(false);
    walk.run(root, &mut tarring)?;
    tarring.finish().map_err(output)?;
    Ok(())
}

fn output(source: io::Error) -> StoreError {
    StoreError::Output { what: "the archive", source }
}

/// A writer that hashes what passes.
struct Hashing<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether the root gets an entry.
enum Root {
    /// If it looks different from this.
    Unless(RootAttributes),
    Known(bool),
}

/// Writes a tar of what it visits, and copies it if asked to.
struct Tarring<W: Write> {
    tar: TarWriter<W>,
    root: Root,
    root_written: bool,
    size: u64,
    buffer: Vec<u8>,
    copier: Option<Copier>,
}

impl<W: Write> Tarring<W> {
    fn new(out: W, baseline: RootAttributes, copier: Option<Copier>) -> Self {
        Self {
            tar: TarWriter::new(out),
            root: Root::Unless(baseline),
            root_written: false,
            size: 0,
            buffer: vec![0u8; BUFFER],
            copier,
        }
    }

    /// The output, bytes written, bytes of regular files, whether the root has an entry.
    fn finish(self) -> io::Result<(W, u64, u64, bool)> {
        let (out, tar_size) = self.tar.finish()?;
        Ok((out, tar_size, self.size, self.root_written))
    }

    fn wants_root(&self, entry: &Entry) -> bool {
        match &self.root {
            Root::Known(wanted) => *wanted,
            Root::Unless(b) => (entry.mode, entry.uid, entry.gid) != (b.mode, b.uid, b.gid) || entry.xattrs != b.xattrs,
        }
    }

    fn file(&mut self, node: &Node<'_>, fd: &OwnedFd) -> Result<(), StoreError> {
        let size = node.entry.size;
        self.size = self.size.saturating_add(size);
        let copy = self.copier.as_mut().map(|c| c.file(node, fd)).transpose()?;
        // What is hashed is what is kept: a cloned file is read from the clone, a copied one while it is copied.
        let (source, target) = match &copy {
            None => (fd, None),
            Some(Copied { to, cloned: true }) => (to, None),
            Some(Copied { to, cloned: false }) => (fd, Some(to)),
        };
        let tar = &mut self.tar;
        content(source, size, &mut self.buffer, &mut |position, bytes, hole| {
            if let (Some(target), false) = (target, hole) {
                write_at(target, bytes, position)?;
            }
            tar.data(bytes).map_err(output)
        })?;
        self.tar.end_data(size).map_err(output)?;
        if let (Some(copier), Some(copy)) = (&self.copier, &copy) {
            copier.finish_file(node, copy)?;
        }
        Ok(())
    }
}

impl<W: Write> Visitor for Tarring<W> {
    fn node(&mut self, node: &Node<'_>) -> Result<(), StoreError> {
        let mut entry = node.entry.clone();
        if entry.kind == Kind::Directory {
            if entry.path.is_empty() {
                if self.wants_root(&entry) {
                    self.root_written = true;
                    entry.path = b"./".to_vec();
                    self.tar.entry(&entry).map_err(output)?;
                }
            } else {
                entry.path.push(b'/');
                self.tar.entry(&entry).map_err(output)?;
            }
            if node.opaque {
                let mut mark = Entry::new(Kind::File, &[&node.entry.path, &b"/"[..], OPAQUE_WHITEOUT].concat());
                if node.entry.path.is_empty() {
                    mark.path = OPAQUE_WHITEOUT.to_vec();
                }
                mark.mtime = entry.mtime;
                self.tar.entry(&mark).map_err(output)?;
            }
            return self.copier.as_mut().map_or(Ok(()), |c| c.directory(node));
        }
        self.tar.entry(&entry).map_err(output)?;
        match node.fd {
            Some(fd) => self.file(node, fd),
            None => self.copier.as_mut().map_or(Ok(()), |c| c.other(node)),
        }
    }

    fn leave(&mut self, _path: &[u8]) -> Result<(), StoreError> {
        self.copier.as_mut().map_or(Ok(()), Copier::leave)
    }
}

/// Rebuilds the visited tree elsewhere.
struct Copier {
    /// Open directories from the root down, with what is set when they are left.
    stack: Vec<(OwnedFd, Entry)>,
    root: OwnedFd,
}

struct Copied {
    to: OwnedFd,
    cloned: bool,
}

impl Copier {
    fn new(root: &Path) -> Result<Self, StoreError> {
        Ok(Self { stack: Vec::new(), root: disk::open_dir(root)? })
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root.as_fd(), |(fd, _)| fd.as_fd())
    }

    fn directory(&mut self, node: &Node<'_>) -> Result<(), StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let result = if node.name.is_empty() {
            rustix::fs::openat(&self.root, ".", flags, Mode::empty())
        } else {
            rustix::fs::mkdirat(self.here(), node.name, Mode::RWXU)
                .and_then(|()| rustix::fs::openat(self.here(), node.name, flags, Mode::empty()))
        };
        let fd = result.map_err(copying(node))?;
        if node.opaque {
            xattr::set(&fd, super::extract::OPAQUE, b"y").map_err(copying_io(node))?;
        }
        self.stack.push((fd, node.entry.clone()));
        Ok(())
    }

    fn leave(&mut self) -> Result<(), StoreError> {
        if let Some((fd, entry)) = self.stack.pop() {
            apply(&fd, &entry)?;
        }
        Ok(())
    }

    fn file(&mut self, node: &Node<'_>, from: &OwnedFd) -> Result<Copied, StoreError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(self.here(), node.name, flags, Mode::RUSR | Mode::WUSR).map_err(copying(node))?;
        let cloned = rustix::fs::ioctl_ficlone(&to, from).is_ok();
        Ok(Copied { to, cloned })
    }

    fn finish_file(&self, node: &Node<'_>, copy: &Copied) -> Result<(), StoreError> {
        rustix::fs::ftruncate(&copy.to, node.entry.size).map_err(copying(node))?;
        apply(&copy.to, &node.entry)
    }

    /// Links, devices, FIFOs and whiteouts.
    fn other(&mut self, node: &Node<'_>) -> Result<(), StoreError> {
        let (here, entry) = (self.here(), &node.entry);
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let make = |kind, device| rustix::fs::mknodat(here, node.name, kind, mode, device);
        let result = match entry.kind {
            _ if node.whiteout => return make(FileType::CharacterDevice, 0).map_err(copying(node)),
            Kind::HardLink => return self.hard_link(node),
            Kind::Symlink => rustix::fs::symlinkat(entry.link.as_slice(), here, node.name),
            Kind::Char => make(FileType::CharacterDevice, rustix::fs::makedev(entry.device.0, entry.device.1)),
            Kind::Block => make(FileType::BlockDevice, rustix::fs::makedev(entry.device.0, entry.device.1)),
            _ => make(FileType::Fifo, 0),
        };
        let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        result
            .and_then(|()| rustix::fs::chownat(here, node.name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))
            .and_then(|()| match entry.kind {
                Kind::Symlink => Ok(()),
                // Just made, and no symlink.
                _ => rustix::fs::chmodat(here, node.name, Mode::from_raw_mode(entry.mode), AtFlags::empty()),
            })
            .and_then(|()| rustix::fs::utimensat(here, node.name, &times(entry), AtFlags::SYMLINK_NOFOLLOW))
            .map_err(copying(node))
    }

    fn hard_link(&self, node: &Node<'_>) -> Result<(), StoreError> {
        let (parent, name) = resolve::split(&node.entry.link);
        let mut from = rustix::io::fcntl_dupfd_cloexec(&self.root, 0).map_err(copying(node))?;
        for part in parent.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            from = rustix::fs::openat(&from, part, flags, Mode::empty()).map_err(copying(node))?;
        }
        rustix::fs::linkat(&from, name, self.here(), node.name, AtFlags::empty()).map_err(copying(node))
    }
}

fn apply(fd: &OwnedFd, entry: &Entry) -> Result<(), StoreError> {
    let path = || Path::new(&printable(&entry.path)).to_owned();
    let result = (|| {
        rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))?;
        for (name, value) in &entry.xattrs {
            xattr::set(fd, name, value)?;
        }
        rustix::fs::futimens(fd, &times(entry)).map_err(io::Error::from)
    })();
    result.map_err(|source| StoreError::Io { op: "copy the attributes of", path: path(), source })
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn copying(node: &Node<'_>) -> impl FnOnce(rustix::io::Errno) -> StoreError {
    let wrap = copying_io(node);
    move |e| wrap(e.into())
}

fn copying_io(node: &Node<'_>) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = PathBuf::from(printable(&node.entry.path));
    move |source| StoreError::Io { op: "copy", path, source }
}

fn write_at(fd: &OwnedFd, mut bytes: &[u8], mut position: u64) -> Result<(), StoreError> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, position) {
            Ok(n) => {
                bytes = bytes.get(n..).unwrap_or_default();
                position += n as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).at("write", Path::new("a copied file")),
        }
    }
    Ok(())
}

/// Removes a path of the tree, if it is there; no symlink on the way is followed.
fn remove_beneath(root: &OwnedFd, path: &[u8]) -> Result<(), StoreError> {
    use rustix::io::Errno;
    let at = || PathBuf::from(printable(path));
    let (parent, name) = resolve::split(path);
    if name.is_empty() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(root, ".", flags, Mode::empty()).at("open", &at())?;
    for part in parent.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
        dir = match rustix::fs::openat(&dir, part, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(e) => return Err(e).at("open", &at()),
        };
    }
    match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            let inside = rustix::fs::openat(&dir, name, flags, Mode::empty()).at("open", &at())?;
            disk::empty_dir(inside.as_fd()).at("remove", &at())?;
            rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR).at("remove", &at())
        }
        Err(e) => Err(e).at("remove", &at()),
    }
}

/// The tar of a layer, in memory.
#[cfg(test)]
pub(crate) fn tar_of(store: &Store, diff: &Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.write_layer_tar(diff, &mut bytes).unwrap();
    bytes
}
