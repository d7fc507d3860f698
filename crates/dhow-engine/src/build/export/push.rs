//! Blobs and manifests to a registry.

use super::blobs::{Blob, Blobs};
use crate::EngineError;
use crate::image::pull::{PARALLEL, Ticker};
use crate::image::push::{Lender, MAX_LENDERS, lenders};
use crate::image::{Progress, ProgressEvent};
use dhow_oci::image::Descriptor;
use dhow_registry::Client;
use dhow_store::Store;
use dhow_types::{Digest, Reference};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Sends blobs to a repository, several at once. Manifests are not among them: see [`Upload::document`].
pub(crate) struct Upload<'a> {
    store: &'a Store,
    client: &'a Client,
    /// Its repository is what counts.
    to: &'a Reference,
    progress: &'a dyn Progress,
    lenders: Vec<Lender>,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        store: &'a Store,
        client: &'a Client,
        to: &'a Reference,
        progress: &'a dyn Progress,
    ) -> Result<Self, EngineError> {
        Ok(Self { store, client, to, progress, lenders: lenders(store, to)? })
    }

    /// Sends those that are not documents of their own, unless the registry has them. All threads have ended when this
    /// returns.
    pub(crate) fn blobs(&self, blobs: &Blobs, documents: &[Digest]) -> Result<(), EngineError> {
        let list: Vec<(&Digest, &Blob)> = blobs.0.iter().filter(|(digest, _)| !documents.contains(digest)).collect();
        let queue: Mutex<VecDeque<(&Digest, &Blob)>> = Mutex::new(list.iter().copied().collect());
        let failure: Mutex<Option<EngineError>> = Mutex::default();
        let work = || {
            loop {
                if failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                    return;
                }
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((digest, blob)) = next else { return };
                if let Err(error) = self.blob(digest, blob) {
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..list.len().min(PARALLEL)).map(|_| scope.spawn(work)).collect();
            // The end of a scope waits for what the threads do; only joining waits for the threads.
            let results: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
            if let Some(panic) = results.into_iter().find_map(Result::err) {
                std::panic::resume_unwind(panic);
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn event(&self, digest: &Digest, status: &'static str, current: u64, total: u64) {
        self.progress.event(&ProgressEvent::Layer { id: digest.short(), status, current, total });
    }

    fn blob(&self, digest: &Digest, blob: &Blob) -> Result<(), EngineError> {
        let shown = blob.diff.as_ref().unwrap_or(digest);
        if self.client.has_blob(self.to, digest)? {
            self.event(shown, "Layer already exists", 0, 0);
            return Ok(());
        }
        if let Some(diff) = &blob.diff {
            for lender in self.lenders.iter().filter(|l| l.diff_ids.contains(diff)).take(MAX_LENDERS) {
                if self.client.mount_blob(self.to, &lender.path, digest)? {
                    self.event(shown, "Mounted from", 0, 0);
                    return Ok(());
                }
            }
        }
        let ticker = RefCell::new(Ticker::named(self.progress, shown.short(), "Pushing", blob.size));
        ticker.borrow_mut().at(0);
        let mut open = || -> io::Result<Box<dyn Read>> { blob.open(self.store, digest).map_err(io::Error::other) };
        let descriptor = Descriptor::new("application/octet-stream", *digest, blob.size);
        self.client.push_blob(self.to, &descriptor, &mut open, &|sent| ticker.borrow_mut().at(sent))?;
        self.event(shown, "Pushed", blob.size, blob.size);
        Ok(())
    }

    /// Sends a manifest or index under a tag, or under its digest.
    pub(crate) fn document(&self, blobs: &Blobs, what: &Descriptor, tag: Option<&str>) -> Result<(), EngineError> {
        let missing = || EngineError::Invalid(format!("document {} was not made", what.digest));
        let blob = blobs.0.get(&what.digest).ok_or_else(missing)?;
        let mut bytes = Vec::new();
        blob.write_to(self.store, &what.digest, &mut bytes)?;
        let to = match tag {
            Some(tag) => self.to.with_tag(tag).map_err(|e| EngineError::Invalid(e.to_string()))?,
            None => self.to.with_digest(what.digest),
        };
        self.client.push_manifest(&to, &what.media_type, &bytes)?;
        Ok(())
    }
}
