//! Pushing: a local image becomes a registry's.
//!
//! A pulled image goes out under the manifest it came with, so it keeps its digest wherever it goes, provided that each of
//! its blobs is here, or there already, or can be taken over from another repository there. Otherwise, and for images that
//! were built here, a manifest is made of the layers' compressed blobs; that is deterministic, so pushing twice gives the
//! same digest.

use super::pull::{PARALLEL, Ticker, say};
use super::{Progress, ProgressEvent, Pushed};
use crate::EngineError;
use dhow_oci::image::{Compression, Descriptor, Document, MAX_DOCUMENT, Manifest, media};
use dhow_registry::Client;
use dhow_store::{ImageRecord, Store};
use dhow_types::{Categorized, Digest, ErrorKind, Reference};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Other repositories that are asked to lend a blob.
pub(crate) const MAX_LENDERS: usize = 4;

/// Pushes what `reference` (tag `latest` by default) names.
pub(crate) fn push(
    store: &Store,
    client: &Client,
    reference: &Reference,
    progress: &dyn Progress,
) -> Result<Pushed, EngineError> {
    if reference.digest().is_some() {
        return Err(EngineError::Invalid("cannot push a digest reference".to_owned()));
    }
    let reference = &reference.clone().with_default_tag();
    say(progress, format!("The push refers to repository [{}]", reference.repository()));
    let image = store.resolve(&reference.familiar()).map_err(|e| match e.kind() {
        ErrorKind::NotFound => EngineError::NotTagged(reference.familiar()),
        _ => e.into(),
    })?;
    let job = Job { store, client, reference, progress, lenders: lenders(store, reference)? };
    let layers = plan(&job, &image)?;
    for layer in &layers {
        job.event(&layer.diff_id, "Preparing", 0, 0);
    }
    let original = original_manifest(store, &image, layers.len())?;
    let (bytes, media_type) = match original {
        Some((bytes, media_type, manifest)) if job.can_send_all(&manifest)? => {
            job.send_layers(&layers, Some(&manifest.layers))?;
            (bytes, media_type)
        }
        _ => {
            let sent = job.send_layers(&layers, None)?;
            (new_manifest(store, &image.id, sent)?, media::OCI_MANIFEST.to_owned())
        }
    };
    job.send_config(&image.id, &bytes)?;
    let digest = client.push_manifest(reference, &media_type, &bytes)?;
    // From now on this image has a manifest of its own, and is known to be there.
    store.put_blob(&bytes)?;
    let config = store.read_blob(&image.id, MAX_DOCUMENT)?;
    store.put_image(&config, Some((&digest, &media_type)))?;
    store.add_repo_digest(&reference.with_digest(digest), &image.id)?;
    let size = bytes.len() as u64;
    let tag = reference.tag().unwrap_or("latest");
    say(progress, format!("{tag}: digest: {digest} size: {size}"));
    Ok(Pushed { digest, size })
}

/// The layers, each content once, lowest first.
fn plan(job: &Job<'_>, image: &ImageRecord) -> Result<Vec<Layer>, EngineError> {
    let mut layers: Vec<Layer> = Vec::new();
    for diff_id in &image.config.rootfs.diff_ids {
        if !job.store.has_layer(diff_id)? {
            return Err(dhow_store::StoreError::NoSuchLayer(*diff_id).into());
        }
        layers.push(Layer { diff_id: *diff_id, index: layers.len() });
    }
    Ok(layers)
}

#[derive(Debug, Clone, Copy)]
struct Layer {
    diff_id: Digest,
    /// Place in the manifest.
    index: usize,
}

/// The manifest that the image came with, if it is still here and sound.
fn original_manifest(
    store: &Store,
    image: &ImageRecord,
    layers: usize,
) -> Result<Option<(Vec<u8>, String, Manifest)>, EngineError> {
    let Some(descriptor) = &image.manifest else { return Ok(None) };
    if store.has_blob(&descriptor.digest)?.is_none() {
        return Ok(None);
    }
    let bytes = store.read_blob(&descriptor.digest, MAX_DOCUMENT)?;
    match Document::parse(&bytes, None) {
        Ok(Document::Manifest(manifest)) if manifest.layers.len() == layers && manifest.config.digest == image.id => {
            Ok(Some((bytes, descriptor.media_type.clone(), manifest)))
        }
        _ => Ok(None),
    }
}

/// A manifest for the layers as they were sent.
fn new_manifest(store: &Store, config: &Digest, layers: Vec<Descriptor>) -> Result<Vec<u8>, EngineError> {
    let size = store.has_blob(config)?.ok_or(dhow_store::StoreError::NoSuchBlob(*config))?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.to_owned()),
        config: Descriptor::new(media::OCI_CONFIG, *config, size),
        layers: layers
            .into_iter()
            .map(|layer| {
                // One vocabulary in one document, wherever the blob comes from.
                let kind = match layer.layer_compression() {
                    Some(Compression::None) => media::OCI_LAYER,
                    Some(Compression::Zstd) => media::OCI_LAYER_ZSTD,
                    _ => media::OCI_LAYER_GZIP,
                };
                Descriptor::new(kind, layer.digest, layer.size)
            })
            .collect(),
        annotations: Default::default(),
        extra: Default::default(),
    };
    serde_json::to_vec(&manifest).map_err(|e| EngineError::Invalid(format!("cannot write the manifest: {e}")))
}

/// Other repositories of the same registry that local images came from or went to, and what they should have.
pub(crate) struct Lender {
    pub(crate) path: String,
    pub(crate) diff_ids: Vec<Digest>,
}

pub(crate) fn lenders(store: &Store, to: &Reference) -> Result<Vec<Lender>, EngineError> {
    let mut lenders: Vec<Lender> = Vec::new();
    for image in store.images()? {
        for reference in &image.repo_digests {
            if reference.domain() == to.domain() && reference.path() != to.path() {
                let diff_ids = image.config.rootfs.diff_ids.clone();
                lenders.push(Lender { path: reference.path().to_owned(), diff_ids });
            }
        }
    }
    Ok(lenders)
}

struct Job<'a> {
    store: &'a Store,
    client: &'a Client,
    reference: &'a Reference,
    progress: &'a dyn Progress,
    lenders: Vec<Lender>,
}

impl Job<'_> {
    fn event(&self, id: &Digest, status: &'static str, current: u64, total: u64) {
        self.progress.event(&ProgressEvent::Layer { id: id.short(), status, current, total });
    }

    /// Whether every blob of a manifest can get there without being made anew. A blob that is neither here nor there may
    /// still be lent; taking it over at once is the only way to know.
    fn can_send_all(&self, manifest: &Manifest) -> Result<bool, EngineError> {
        for layer in &manifest.layers {
            let here = self.store.has_blob(&layer.digest)?.is_some();
            if !here && !self.client.has_blob(self.reference, &layer.digest)? && !self.borrow_any(&layer.digest)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn borrow_any(&self, digest: &Digest) -> Result<bool, EngineError> {
        let mut asked: Vec<&str> = Vec::new();
        for lender in &self.lenders {
            if asked.len() < MAX_LENDERS && !asked.contains(&lender.path.as_str()) {
                asked.push(&lender.path);
                if self.client.mount_blob(self.reference, &lender.path, digest)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Sends layers, several at once. `as_given` names their blobs; without it blobs are found or made. Returns the
    /// descriptors in order.
    fn send_layers(&self, layers: &[Layer], as_given: Option<&[Descriptor]>) -> Result<Vec<Descriptor>, EngineError> {
        // The same content twice is sent once, unless the manifest has it in two forms.
        let blob = |layer: &Layer| as_given.and_then(|all| all.get(layer.index)).map_or(layer.diff_id, |d| d.digest);
        let mut unique: Vec<Layer> = Vec::new();
        for layer in layers {
            if !unique.iter().any(|l| blob(l) == blob(layer)) {
                unique.push(*layer);
            }
        }
        for layer in unique.iter().skip(PARALLEL) {
            self.event(&layer.diff_id, "Waiting", 0, 0);
        }
        let queue: Mutex<VecDeque<Layer>> = Mutex::new(unique.iter().copied().collect());
        let sent: Mutex<Vec<(Digest, Descriptor)>> = Mutex::default();
        let failure: Mutex<Option<EngineError>> = Mutex::default();
        thread::scope(|scope| {
            for _ in 0..unique.len().min(PARALLEL) {
                scope.spawn(|| {
                    loop {
                        if failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                            return;
                        }
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(layer) = next else { return };
                        let given = as_given.and_then(|all| all.get(layer.index));
                        match self.send_layer(&layer, given) {
                            Ok(done) => {
                                sent.lock().unwrap_or_else(PoisonError::into_inner).push((blob(&layer), done));
                            }
                            Err(error) => {
                                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
        let find = |layer: &Layer| sent.iter().find(|(key, _)| *key == blob(layer)).map(|(_, d)| d.clone());
        Ok(layers.iter().filter_map(find).collect())
    }

    fn send_layer(&self, layer: &Layer, given: Option<&Descriptor>) -> Result<Descriptor, EngineError> {
        let descriptor = match given {
            Some(given) => given.clone(),
            None => self.store.compressed_layer(&layer.diff_id)?,
        };
        let id = &layer.diff_id;
        if self.client.has_blob(self.reference, &descriptor.digest)? {
            self.event(id, "Layer already exists", 0, 0);
            return Ok(descriptor);
        }
        let lending = self.lenders.iter().filter(|l| l.diff_ids.contains(id));
        for lender in lending.take(MAX_LENDERS) {
            if self.client.mount_blob(self.reference, &lender.path, &descriptor.digest)? {
                self.event(id, "Mounted from", 0, 0);
                return Ok(descriptor);
            }
        }
        let ticker = RefCell::new(Ticker::named(self.progress, id.short(), "Pushing", descriptor.size));
        ticker.borrow_mut().at(0);
        let mut open = || -> io::Result<Box<dyn Read>> {
            let file = self.store.open_blob(&descriptor.digest).map_err(io::Error::other)?;
            Ok(Box::new(file))
        };
        self.client.push_blob(self.reference, &descriptor, &mut open, &|sent| ticker.borrow_mut().at(sent))?;
        self.event(id, "Pushed", descriptor.size, descriptor.size);
        Ok(descriptor)
    }

    /// Sends the config under the descriptor that the manifest has for it.
    fn send_config(&self, id: &Digest, manifest: &[u8]) -> Result<(), EngineError> {
        let Document::Manifest(manifest) = Document::parse(manifest, None)? else { return Ok(()) };
        if self.client.has_blob(self.reference, id)? {
            return Ok(());
        }
        let bytes = self.store.read_blob(id, MAX_DOCUMENT)?;
        let mut open = || -> io::Result<Box<dyn Read>> { Ok(Box::new(io::Cursor::new(bytes.clone()))) };
        Ok(self.client.push_blob(self.reference, &manifest.config, &mut open, &|_| ())?)
    }
}
