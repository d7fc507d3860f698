//! Layers: tar streams in, overlay lower directories out.
//!
//! A layer is a directory named by its diff ID and independent of what lies below it. This module is the narrow interface
//! to layer storage; another backend (one immutable file-system image per layer) would replace what is behind it.

pub(crate) mod compress;
pub(crate) mod encode;
pub(crate) mod extract;
pub(crate) mod gzip;
pub(crate) mod implied;
pub(crate) mod meta;
pub(crate) mod resolve;
pub(crate) mod stream;
pub(crate) mod upper;
pub(crate) mod walk;

use crate::Store;
use crate::disk::{self, TmpDir};
use crate::error::{At, StoreError};
use crate::lease::Object;
use dhow_oci::image::{Compression, Descriptor};
use dhow_types::Digest;
use extract::{Extracted, Policy};
use meta::Meta;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Free space that unpacking leaves, in bytes, where the file system is large enough for such a rule.
const RESERVE: u64 = 64 << 20;

/// A layer that is unpacked and verified but not visible yet. Dropping it removes it.
#[derive(Debug)]
pub struct StagedLayer {
    tmp: TmpDir,
    diff: Digest,
    meta: Meta,
}

impl StagedLayer {
    /// Digest of the layer's uncompressed tar.
    pub fn diff_id(&self) -> &Digest {
        &self.diff
    }

    /// Bytes of regular files.
    pub fn size(&self) -> u64 {
        self.meta.size
    }

    /// The layer's directory while it is staged; usable as an overlay lower directory.
    pub fn dir(&self) -> PathBuf {
        self.tmp.path().join("fs")
    }

    /// Records the blob that this layer came from.
    pub(crate) fn set_source(&self, source: &Descriptor) -> Result<(), StoreError> {
        let path = self.tmp.path().join("source.json");
        let text = serde_json::to_vec(source).map_err(|e| StoreError::record(&path, e))?;
        std::fs::write(&path, text).at("write", &path)
    }

    fn new(tmp: TmpDir, diff: Digest, meta: Meta) -> Result<Self, StoreError> {
        meta.write(tmp.path())?;
        Ok(Self { tmp, diff, meta })
    }
}

/// An overlay's upper and work directory on the store's file system. Removed on drop unless it became a layer.
#[derive(Debug)]
pub struct ScratchDir {
    tmp: TmpDir,
}

impl ScratchDir {
    /// The directory that holds both.
    pub fn path(&self) -> &Path {
        self.tmp.path()
    }

    /// Upper directory.
    pub fn upper(&self) -> PathBuf {
        self.tmp.path().join("upper")
    }

    /// Work directory.
    pub fn work(&self) -> PathBuf {
        self.tmp.path().join("work")
    }

    /// Removes it now, and says if that fails.
    pub fn remove(self) -> Result<(), StoreError> {
        self.tmp.remove()
    }
}

impl Store {
    /// Whether a layer is unpacked here. A layer that was found stays as long as this store is open.
    pub fn has_layer(&self, diff: &Digest) -> Result<bool, StoreError> {
        let dir = self.layout.layer(diff);
        if !exists(&dir)? {
            return Ok(false);
        }
        self.lease(&[Object::Layer(*diff)])?;
        // It may have been deleted before the lease; not after.
        exists(&dir)
    }

    /// Where a layer is or would be.
    pub fn layer_dir(&self, diff: &Digest) -> PathBuf {
        self.layout.layer(diff).join("fs")
    }

    /// Unpacks a layer while it streams in and verifies that the uncompressed bytes are those of `expect`. The reader is
    /// used on the calling thread; files are made on another.
    pub fn unpack(&self, reader: impl Read, c: Compression, expect: &Digest) -> Result<StagedLayer, StoreError> {
        let (tmp, extracted, found, tar_size) = self.unpack_stream(reader, c, &format!("layer {}", expect.short()))?;
        if found != *expect {
            return Err(StoreError::Mismatch { what: "layer", expected: *expect, found });
        }
        StagedLayer::new(tmp, found, Meta::unpacked(extracted, tar_size))
    }

    /// Unpacks whatever layer the stream is.
    pub(crate) fn unpack_stream(
        &self,
        reader: impl Read,
        compression: Compression,
        what: &str,
    ) -> Result<(TmpDir, Extracted, Digest, u64), StoreError> {
        self.writable()?;
        let tmp = TmpDir::create(&self.layout.tmp(), "layer")?;
        let fs = tmp.path().join("fs");
        disk::ensure_dir(&fs, 0o755)?;
        let root = disk::open_dir(&fs)?;
        rustix::fs::fchmod(&root, rustix::fs::Mode::from_raw_mode(0o755)).at("set mode of", &fs)?;
        let policy = self.layer_policy()?;
        let (extracted, digest, length) =
            stream::pump(reader, compression, what, |blocks| extract::extract(root.as_fd(), &policy, blocks, what))?;
        Ok((tmp, extracted, digest, length))
    }

    /// How layers are unpacked.
    pub(crate) fn layer_policy(&self) -> Result<Policy, StoreError> {
        self.writeback.begin(&self.layout.root)?;
        Ok(Policy {
            whiteouts: true,
            refuse_dotdot: false,
            owner: None,
            base: Vec::new(),
            reserve: self.reserve()?,
            writeback: Some(std::sync::Arc::clone(&self.writeback)),
        })
    }

    /// Bytes to keep free: a twentieth of a small file system, 64 MiB of any other.
    pub(crate) fn reserve(&self) -> Result<u64, StoreError> {
        let fs = rustix::fs::statvfs(&self.layout.root).at("inspect", &self.layout.root)?;
        Ok(RESERVE.min(fs.f_blocks.saturating_mul(fs.f_frsize) / 20))
    }

    /// Makes layers visible, all durable when this returns. Layers that somebody else published meanwhile are fine; this
    /// copy is dropped then.
    pub fn publish(&self, layers: Vec<StagedLayer>) -> Result<(), StoreError> {
        self.writable()?;
        if layers.is_empty() {
            return Ok(());
        }
        let objects: Vec<Object> = layers.iter().map(|l| Object::Layer(l.diff)).collect();
        // On disk before the layers are, so that a power cut cannot leave a layer that nothing knows.
        self.lease(&objects)?;
        self.leases().created(&objects);
        for layer in &layers {
            self.link(&self.layout.layer_link(&layer.diff), &format!("../layers/{}/fs", layer.diff.hex()))?;
        }
        self.writeback.finish(&self.layout.root)?;
        let graph = self.shared_lock()?;
        for layer in layers {
            layer.tmp.publish(&self.layout.layer(&layer.diff))?;
        }
        drop(graph);
        disk::sync_dir(&self.layout.layers())
    }

    /// Makes a short link unless it exists.
    pub(crate) fn link(&self, link: &Path, target: &str) -> Result<(), StoreError> {
        match std::os::unix::fs::symlink(target, link) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e).at("create link", link),
        }
    }

    /// An empty upper and work directory.
    pub fn new_upper(&self) -> Result<ScratchDir, StoreError> {
        self.writable()?;
        let tmp = TmpDir::create(&self.layout.tmp(), "upper")?;
        let scratch = ScratchDir { tmp };
        for (dir, mode) in [(scratch.upper(), 0o755), (scratch.work(), 0o700)] {
            disk::ensure_dir(&dir, mode)?;
            rustix::fs::chmod(&dir, rustix::fs::Mode::from_raw_mode(mode)).at("set mode of", &dir)?;
        }
        Ok(scratch)
    }
}

/// Whether something has that path.
pub(crate) fn exists(path: &Path) -> Result<bool, StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).at("inspect", path),
    }
}
