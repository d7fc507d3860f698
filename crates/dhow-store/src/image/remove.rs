//! `rmi`: Docker's rules for untagging and deleting.

use super::gc::Doomed;
use crate::Store;
use crate::disk::{self, TmpDir};
use crate::error::{At, StoreError};
use crate::lease::{GraphLock, Object};
use dhow_oci::image::chain_id;
use dhow_types::{Digest, Reference};
use std::collections::BTreeSet;

/// A container that was made from an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// Short id of the container.
    pub container: String,
    /// Its name.
    pub name: String,
    /// Whether it runs (or is paused).
    pub running: bool,
}

/// One line of `rmi` output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// A reference is gone.
    Untagged(String),
    /// An image, or a layer of it (by chain ID), is gone.
    Deleted(Digest),
}

impl std::fmt::Display for Removal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Untagged(name) => write!(f, "Untagged: {name}"),
            Self::Deleted(digest) => write!(f, "Deleted: {digest}"),
        }
    }
}

/// What stands against deleting an image, as asked for.
struct Checks<'a> {
    id: Digest,
    uses: &'a [ImageUse],
}

impl Checks<'_> {
    fn running(&self) -> Result<(), StoreError> {
        match self.uses.iter().find(|u| u.running) {
            None => Ok(()),
            Some(u) => Err(self.conflict(false, format!("image is being used by running container {}", u.container))),
        }
    }

    fn stopped(&self) -> Result<(), StoreError> {
        match self.uses.iter().find(|u| !u.running) {
            None => Ok(()),
            Some(u) => Err(self.conflict(true, format!("image is being used by stopped container {}", u.container))),
        }
    }

    fn conflict(&self, forceable: bool, reason: String) -> StoreError {
        StoreError::InUse { target: self.id.short(), forceable, reason }
    }
}

/// Tags, or digests of one repository only: Docker then treats them as one reference.
fn is_single(names: &[Reference]) -> bool {
    let tags = names.iter().filter(|r| r.tag().is_some()).count();
    let repositories: BTreeSet<String> = names.iter().map(Reference::repository).collect();
    tags <= 1 && repositories.len() <= 1
}

impl Store {
    /// Removes a reference or an image, as `docker rmi` does. `used_by` tells which containers were made from an image; it
    /// is called under the exclusive graph lock and must not wait for anything that another process may hold while it waits
    /// for this store.
    pub fn remove(
        &self,
        text: &str,
        force: bool,
        used_by: &dyn Fn(&Digest) -> Vec<ImageUse>,
    ) -> Result<Vec<Removal>, StoreError> {
        self.writable()?;
        let graph = GraphLock::exclusive(&self.layout.graph_lock())?;
        let (id, named) = self.find(text)?;
        let uses = used_by(&id);
        let checks = Checks { id, uses: &uses };
        let mut out = Vec::new();
        let names = self.names_of(&id)?;
        let untagged = match &named {
            Some(reference) => {
                if !force
                    && is_single(&names)
                    && let Some(user) = uses.first()
                {
                    let reason = format!("container {} is using its referenced image {}", user.container, id.short());
                    return Err(StoreError::InUse { target: text.to_owned(), forceable: true, reason });
                }
                self.untag(reference, &id, &mut out)?;
                if reference.digest().is_none() {
                    self.untag_digests(reference, &id, &mut out)?;
                }
                if !self.names_of(&id)?.is_empty() {
                    return Ok(out);
                }
                true
            }
            None => {
                checks.running()?;
                if !force {
                    if !is_single(&names) {
                        return Err(checks.conflict(true, "image is referenced in multiple repositories".to_owned()));
                    }
                    checks.stopped()?;
                }
                false
            }
        };
        let blocked = checks.running().and_then(|()| if force { Ok(()) } else { checks.stopped() });
        match blocked {
            // The name is gone, which was the request; the image stays as long as it is used.
            Err(_) if untagged => return Ok(out),
            other => other?,
        }
        for reference in self.names_of(&id)? {
            self.untag(&reference, &id, &mut out)?;
        }
        let doomed = self.delete_image(&graph, &id, !uses.is_empty(), &mut out)?;
        let swept = self.sweep_detached(&graph, used_by)?;
        drop(graph);
        doomed.finish()?;
        swept.finish()?;
        Ok(out)
    }

    /// Deletes removed images that no container uses any more. The engine calls this after it removed a container. Costs one
    /// directory listing when there is none.
    pub fn sweep_unused(&self, used_by: &dyn Fn(&Digest) -> Vec<ImageUse>) -> Result<(), StoreError> {
        if !self.layout.read_only.is_empty() || disk::list(&self.layout.detached())?.is_empty() {
            return Ok(());
        }
        let graph = GraphLock::exclusive(&self.layout.graph_lock())?;
        let doomed = self.sweep_detached(&graph, used_by)?;
        drop(graph);
        doomed.finish()
    }

    fn untag(&self, reference: &Reference, id: &Digest, out: &mut Vec<Removal>) -> Result<(), StoreError> {
        self.unpoint(reference, id)?;
        out.push(Removal::Untagged(reference.familiar()));
        Ok(())
    }

    /// With the last tag of a repository go its digests.
    fn untag_digests(&self, tag: &Reference, id: &Digest, out: &mut Vec<Removal>) -> Result<(), StoreError> {
        let same: Vec<Reference> =
            self.names_of(id)?.into_iter().filter(|r| r.repository() == tag.repository()).collect();
        if same.iter().all(|r| r.digest().is_some()) {
            for reference in &same {
                self.untag(reference, id, out)?;
            }
        }
        Ok(())
    }

    fn delete_image(
        &self,
        graph: &GraphLock,
        id: &Digest,
        used: bool,
        out: &mut Vec<Removal>,
    ) -> Result<Doomed, StoreError> {
        let dir = self.layout.image(id);
        let file = dir.join("record.json");
        let record = self.record(id)?.ok_or_else(|| StoreError::NoSuchImage(id.to_string()))?;
        out.push(Removal::Deleted(*id));
        let trash = TmpDir::create(&self.layout.tmp(), "trash")?;
        let unlink = || {
            std::fs::rename(&dir, trash.path().join("image")).at("move away", &dir)?;
            disk::sync_dir(&self.layout.images())
        };
        if used {
            // A stopped container needs the layers still.
            let keep = self.layout.detached().join(format!("{}.json", id.hex()));
            let text = serde_json::to_vec(&record).map_err(|e| StoreError::record(&keep, e))?;
            disk::replace(&self.layout.tmp(), &keep, &text, 0o600)?;
            unlink()?;
            return Ok(Doomed::nothing());
        }
        let live = self.live_objects(graph, Some(&file))?;
        let doomed = self.doom(graph, &record.objects(), &live, unlink)?;
        // Docker names layers by chain ID, topmost first.
        for (i, diff) in record.diff_ids.iter().enumerate().rev() {
            if doomed.deleted.contains(&Object::Layer(*diff)) {
                out.extend(chain_id(record.diff_ids.get(..=i).unwrap_or_default()).map(Removal::Deleted));
            }
        }
        Ok(doomed)
    }

    fn sweep_detached(
        &self,
        graph: &GraphLock,
        used_by: &dyn Fn(&Digest) -> Vec<ImageUse>,
    ) -> Result<Doomed, StoreError> {
        let mut candidates = Vec::new();
        let mut files = Vec::new();
        for name in disk::list(&self.layout.detached())? {
            let path = self.layout.detached().join(&name);
            if let Some(record) = super::Record::read(&path)?
                && used_by(&record.id).is_empty()
            {
                candidates.extend(record.objects());
                files.push(path);
            }
        }
        if files.is_empty() {
            return Ok(Doomed::nothing());
        }
        // Records first out of the live set, then gone, then their objects.
        let doom = crate::lease::Doom::declare(&self.layout.leases(), &candidates)?;
        for file in &files {
            disk::remove_file(file)?;
        }
        disk::sync_dir(&self.layout.detached())?;
        let live = self.live_objects(graph, None)?;
        let doomed = self.doom(graph, &candidates, &live, || Ok(()))?;
        doom.done()?;
        Ok(doomed)
    }
}
