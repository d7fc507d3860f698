//! Layers that a cache keeps: `kept/<diff hex>`, an empty file whose name says everything. So it cannot be torn by a power
//! cut, and needs no synchronisation of its own: what is lost with it can be made again.

use crate::Store;
use crate::disk;
use crate::error::{At, StoreError};
use crate::layer::StagedLayer;
use crate::layer::meta::{self, Meta};
use crate::lease::{self, GraphLock, Object};
use dhow_types::Digest;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

/// A layer that a cache keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptLayer {
    /// Which.
    pub layer: Digest,
    /// Bytes of its files, and of the blob that it can be had from.
    pub size: u64,
    /// An image, a container or a pin has it too.
    pub named: bool,
    /// A living process relies on it.
    pub leased: bool,
}

impl Store {
    /// [`publish`](Self::publish), and keeps the layers until [`unkeep`](Self::unkeep).
    pub fn publish_kept(&self, layers: Vec<StagedLayer>) -> Result<(), StoreError> {
        let kept: Vec<Digest> = layers.iter().map(|l| *l.diff_id()).collect();
        // Before the one synchronisation of the layers, which covers the marks as well.
        self.keep(&kept)?;
        self.publish(layers)?;
        let objects: Vec<Object> = kept.into_iter().map(Object::Layer).collect();
        self.leases().referenced(&objects);
        Ok(())
    }

    /// Keeps layers from deletion until [`unkeep`](Self::unkeep). They may be published afterwards.
    pub fn keep(&self, layers: &[Digest]) -> Result<(), StoreError> {
        self.writable()?;
        if layers.is_empty() {
            return Ok(());
        }
        let objects: Vec<Object> = layers.iter().map(|d| Object::Layer(*d)).collect();
        let graph = self.shared_lock()?;
        // A mark without its layer is garbage to others unless somebody is at work.
        self.lease_under(&graph, &objects)?;
        for layer in layers {
            let path = self.layout.kept(layer);
            let mark = || File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
            match mark() {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    // A store of an earlier version.
                    disk::ensure_dir(&self.layout.kept_layers(), 0o700)?;
                    mark().at("create", &path)?;
                }
                other => drop(other.at("create", &path)?),
            }
        }
        self.leases().referenced(&objects);
        Ok(())
    }

    /// All layers that are kept, and who else has them. Marks without a layer are removed on the way.
    pub fn kept(&self) -> Result<Vec<KeptLayer>, StoreError> {
        let graph = GraphLock::exclusive(&self.layout.graph_lock())?;
        let layers = self.kept_digests()?;
        let named = self.recorded(None)?;
        let leased = self.leased(&graph)?;
        let mut all = Vec::with_capacity(layers.len());
        for layer in layers {
            let object = Object::Layer(layer);
            let dir = self.layout.layer(&layer);
            let Some(meta) = Meta::read(&dir)? else {
                if !leased.contains(&object) && self.layout.read_only.is_empty() {
                    disk::remove_file(&self.layout.kept(&layer))?;
                }
                continue;
            };
            let blob = meta::read_source(&dir)?.and_then(|source| {
                std::fs::symlink_metadata(self.layout.blob(&source.digest)).ok().map(|blob| blob.len())
            });
            let size = meta.size.saturating_add(blob.unwrap_or(0));
            all.push(KeptLayer { layer, size, named: named.contains(&object), leased: leased.contains(&object) });
        }
        Ok(all)
    }

    /// Gives up layers, unless a living process relies on them; what nothing else has is deleted. Returns those that were
    /// given up. Killed in between, it leaves marks that the next call removes and a list that the next heal carries out.
    pub fn unkeep(&self, layers: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.writable()?;
        if layers.is_empty() {
            return Ok(Vec::new());
        }
        let graph = GraphLock::exclusive(&self.layout.graph_lock())?;
        let leased = self.leased(&graph)?;
        let given_up: BTreeSet<Digest> =
            layers.iter().copied().filter(|l| !leased.contains(&Object::Layer(*l))).collect();
        let candidates: Vec<Object> = given_up.iter().map(|l| Object::Layer(*l)).collect();
        let live = self.live_without(&graph, None, &given_up)?;
        let doomed = self.doom(&graph, &candidates, &live, || {
            given_up.iter().try_for_each(|layer| disk::remove_file(&self.layout.kept(layer)).map(drop))
        })?;
        drop(graph);
        doomed.finish()?;
        Ok(given_up.into_iter().collect())
    }

    /// Layers with a mark.
    pub(crate) fn kept_digests(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let names = disk::list(&self.layout.kept_layers())?;
        Ok(names.iter().filter_map(|n| Digest::from_hex(n).ok()).collect())
    }

    fn leased(&self, graph: &GraphLock) -> Result<BTreeSet<Object>, StoreError> {
        let lists = lease::lists(graph, &self.layout.leases())?;
        Ok(lists.into_iter().filter(|l| l.alive && l.is_lease).flat_map(|l| l.objects).collect())
    }
}
