//! Content-addressed blobs, unpacked layers, images and references.
//!
//! # Format on disk, version 1
//!
//! ```text
//! ROOT/                          0711, everything below 0700
//!   store.json                   format, version, feature names (compatible / read_only / incompatible)
//!   graph.lock                   flock: shared by who adds references, exclusive for who deletes
//!   blobs/sha256/<hex>           complete, verified, durable blobs; 0444
//!   ingest/<hex>, <hex>.journal  partial downloads
//!   layers/<diff hex>/fs/        an unpacked layer, an overlay lower directory
//!                     meta.json  sizes, implied directories, how its tar can be had again
//!                     source.json  descriptor of a blob that is this layer, if one is known
//!   l/<22 characters>            short symlinks to layers/<hex>/fs and chains/<hex>/fs
//!   chains/<chain hex>/lower     overlay lower directories of a stack of layers, topmost first, one link name per line
//!                      fs/       fix-up of the topmost layer's implied directories, where one is needed
//!   images/<id hex>/record.json  an image: its layers, manifest, blobs
//!                   names/<hash> hints: which references may point here
//!   detached/<id hex>.json       a removed image that a container still uses
//!   refs/<hash>.json             a reference (tag or repository digest) and its image; <hash> is that of its text
//!   pins/<name>.json             layers and blobs kept by others
//!   kept/<diff hex>              empty: a layer that the build cache keeps
//!   leases/lease-*, doom-*       objects in use, objects being deleted; locked by a living process
//!   tmp/                         staging; what nobody has locked is garbage
//! ```
//!
//! `docs/formats/store.md` describes every file, the order of writes, the locks and their order.
//!
//! # Rules
//!
//! * What is visible is complete, verified and durable. Everything is made in `tmp/` and renamed.
//! * A process may die at any instruction. What it leaves is unlocked, and [`Store::heal`] removes it.
//! * Content is hostile. No name from an image or archive becomes part of a path of the store.
//!
//! # What this crate does not do
//!
//! It does not talk to registries, mount anything, run programs, print, or know containers other than by
//! [`ImageUse`] that the caller reports.

mod archive;
mod blobs;
mod disk;
mod error;
mod image;
mod ingest;
mod layer;
mod layout;
mod lease;
mod tar;
mod writeback;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod roundtrip;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use archive::extract::{ExtractOptions, extract_archive};
pub use archive::load::{LoadEvent, Loaded};
pub use archive::write::ArchiveWriter;
pub use error::StoreError;
pub use image::ImageRecord;
pub use image::gc::Healed;
pub use image::kept::KeptLayer;
pub use image::remove::{ImageUse, Removal};
pub use ingest::{Follower, Ingest};
pub use layer::encode::{Encoding, encode_tree};
pub use layer::implied::RootAttributes;
pub use layer::stream::decompressor;
pub use layer::upper::{StageOptions, write_tree_tar};
pub use layer::{ScratchDir, StagedLayer};
pub use lease::GraphLock;

use layout::Layout;
use lease::{Lease, Object};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use writeback::Writeback;

/// A store. Cheap to open and to clone; safe to use from many threads and processes at once.
///
/// Layers and blobs that one `Store` (with its clones) found or made are not deleted by anybody while it lives, even when
/// no image refers to them. When the last clone is dropped, what it made and nothing refers to is removed. So a server opens
/// a store per operation, not one for good.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Arc<Layout>,
    holder: Arc<Holder>,
    writeback: Arc<Writeback>,
}

/// The lease of a store and its clones.
#[derive(Debug)]
struct Holder {
    layout: Arc<Layout>,
    lease: Mutex<Lease>,
}

impl Store {
    /// Opens the store below `root`, making it if it is missing. One small file is read; nothing is scanned.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Ok(Self::without_lease(Arc::new(Layout::open(root)?)))
    }

    fn without_lease(layout: Arc<Layout>) -> Self {
        let holder = Arc::new(Holder { layout: Arc::clone(&layout), lease: Mutex::default() });
        Self { layout, holder, writeback: Arc::default() }
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.layout.root
    }

    /// Keeps every deletion out while the guard lives. For callers that look something up and then make a record of their
    /// own that refers to it (a container and its image). Hold it briefly; it never waits for another holder of this kind.
    pub fn hold(&self) -> Result<GraphLock, StoreError> {
        self.shared_lock()
    }

    /// Fails if the store has features that this code must not write under.
    fn writable(&self) -> Result<(), StoreError> {
        if self.layout.read_only.is_empty() {
            return Ok(());
        }
        Err(StoreError::Format { root: self.layout.root.clone(), features: self.layout.read_only.clone() })
    }

    fn shared_lock(&self) -> Result<GraphLock, StoreError> {
        GraphLock::shared(&self.layout.graph_lock())
    }

    fn leases(&self) -> MutexGuard<'_, Lease> {
        self.holder.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Protects objects from deletion while this store is open.
    fn lease(&self, objects: &[Object]) -> Result<(), StoreError> {
        if !self.layout.read_only.is_empty() {
            return Ok(());
        }
        let graph = self.shared_lock()?;
        self.lease_under(&graph, objects)
    }

    fn lease_under(&self, graph: &GraphLock, objects: &[Object]) -> Result<(), StoreError> {
        self.leases().add(graph, &self.layout.leases(), objects)
    }
}

#[cfg(test)]
impl Store {
    /// As if every operation so far had been done by a process that has ended well.
    fn end_lease_for_test(&self) {
        self.leases().end().unwrap();
    }

    /// Drops the locks without any cleaning up, as SIGKILL does.
    fn die_for_test(self) {
        self.leases().unlock();
        std::mem::forget(self);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // A failure leaves an unlocked list, which the next heal works off.
        let _ = self.release();
    }
}
