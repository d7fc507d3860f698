//! A build's cache to elsewhere.

use super::super::cache::folder;
use super::super::export::blobs::{Blobs, Encoder, Source};
use super::super::export::image::json;
use super::super::export::layout::{Directory, REF_NAME};
use super::super::export::push::Upload;
use super::record::{CONFIG, Document, INLINE, Mount, Step};
use super::spec::{CacheTo, To};
use crate::image::Progress;
use crate::{Engine, EngineError};
use dhow_build::CachedStep;
use dhow_oci::image::{Compression, Descriptor, ImageConfig, MAX_DOCUMENT, Manifest, media};
use dhow_store::{Encoding, encode_tree};
use dhow_sys::lock::FileLock;
use dhow_types::Digest;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;

/// A step of the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedStep {
    /// Its key.
    pub key: Digest,
    /// What it did.
    pub step: CachedStep,
    /// Whether the final image is built on it.
    pub in_final: bool,
}

/// Puts the cache of an image into its config: the steps that it consists of. The layers are the image's own.
pub fn inline(config: &[u8], steps: &[UsedStep]) -> Result<Vec<u8>, EngineError> {
    let mut config = ImageConfig::parse(config)?;
    let own =
        |step: &&UsedStep| step.in_final && step.step.layer.is_none_or(|layer| config.rootfs.diff_ids.contains(&layer));
    let steps: BTreeMap<Digest, Step> =
        steps.iter().filter(own).map(|s| (s.key, Step::of(&s.key, &s.step, |_| None))).collect();
    let document = Document { version: 1, steps: steps.into_values().collect(), mounts: Vec::new() };
    let value = serde_json::to_value(&document)
        .map_err(|e| EngineError::Invalid(format!("cannot write the cache into the image: {e}")))?;
    config.extra.insert(INLINE.to_owned(), value);
    let bytes = json(&config)?;
    debug_assert!(bytes.len() as u64 <= MAX_DOCUMENT);
    Ok(bytes)
}

impl Engine {
    /// Writes the steps of a build, with their layers, where another build can find them. `mounts` are ids of the cache
    /// mounts that were used. Returns remarks.
    pub fn export_cache(
        &self,
        to: &CacheTo,
        steps: &[UsedStep],
        mounts: &[String],
        progress: &dyn Progress,
    ) -> Result<Vec<String>, EngineError> {
        let mut remarks = Vec::new();
        if to.is_inline() {
            return Ok(remarks);
        }
        match self.try_export_cache(to, steps, mounts, progress, &mut remarks) {
            Err(error) if to.ignore_error => {
                remarks.push(format!("the cache was not exported: {}", dhow_types::report(&error)));
            }
            other => other?,
        }
        Ok(remarks)
    }

    fn try_export_cache(
        &self,
        to: &CacheTo,
        steps: &[UsedStep],
        mounts: &[String],
        progress: &dyn Progress,
        remarks: &mut Vec<String>,
    ) -> Result<(), EngineError> {
        let encoder = Encoder::new(self.store());
        let mut cache = Cache::default();
        // Sorted, so that the same cache has the same digest.
        let wanted: BTreeMap<Digest, &UsedStep> =
            steps.iter().filter(|s| to.all || s.in_final).map(|s| (s.key, s)).collect();
        for (key, used) in wanted {
            if let Some(layer) = &used.step.layer
                && !cache.places.contains_key(layer)
            {
                let (descriptor, source) = encoder.layer(layer, &to.layers)?;
                cache.blobs.add(&descriptor, source, Some(*layer));
                cache.places.insert(*layer, cache.layers.len());
                cache.layers.push(Descriptor::new(&descriptor.media_type, descriptor.digest, descriptor.size));
            }
            cache.document.steps.push(Step::of(&key, &used.step, |layer| cache.places.get(layer).copied()));
        }
        if to.mounts {
            let mut ids: Vec<&String> = mounts.iter().collect();
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                if let Err(error) = self.add_mount(&encoder, &mut cache, id, to.layers.encoding) {
                    // Something may be writing there: the cache is worth having without it.
                    remarks.push(format!("cache mount {id} was not exported: {}", dhow_types::report(&error)));
                }
            }
        }
        self.send_cache(to, cache, progress)
    }

    /// Adds the content of a cache mount, unless a command uses it at this moment.
    fn add_mount(
        &self,
        encoder: &Encoder<'_>,
        cache: &mut Cache,
        id: &str,
        encoding: Encoding,
    ) -> Result<(), EngineError> {
        use std::os::unix::fs::MetadataExt;
        let all = folder(self, "mounts")?;
        let name = Digest::of(id.as_bytes()).hex();
        let directory = all.join(&name);
        if !directory.is_dir() {
            return Ok(());
        }
        let lock = all.join(format!("{name}.lock"));
        let fail = || EngineError::state("lock", &lock);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&lock).map_err(fail())?;
        let Some(_held) = FileLock::try_acquire(file).map_err(fail())? else {
            return Err(EngineError::Invalid("it is in use".to_owned()));
        };
        let root = File::open(&directory).map_err(EngineError::state("open", &directory))?;
        let meta = root.metadata().map_err(EngineError::state("look at", &directory))?;
        let (path, out) = encoder.file()?;
        let (digest, size) = encode_tree(root.as_fd(), encoding, out)?;
        let kind = match encoding.compression {
            Compression::None => media::OCI_LAYER,
            Compression::Gzip => media::OCI_LAYER_GZIP,
            Compression::Zstd => media::OCI_LAYER_ZSTD,
        };
        let descriptor = Descriptor::new(kind, digest, size);
        let blob = cache.layers.len();
        cache.blobs.add(&descriptor, Source::File(path), None);
        cache.layers.push(descriptor);
        let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        cache.document.mounts.push(Mount { id: id.to_owned(), blob, mode, uid, gid });
        Ok(())
    }

    fn send_cache(&self, to: &CacheTo, cache: Cache, progress: &dyn Progress) -> Result<(), EngineError> {
        let Cache { mut blobs, layers, mut document, .. } = cache;
        document.version = 1;
        let config = blobs.document(CONFIG, json(&document)?);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::OCI_MANIFEST.to_owned()),
            config,
            layers,
            annotations: Default::default(),
            extra: Default::default(),
        };
        let mut top = blobs.document(media::OCI_MANIFEST, json(&manifest)?);
        match &to.place {
            To::Inline => Ok(()),
            To::Registry(reference) => {
                let upload = Upload::new(self.store(), self.registry(), reference, progress)?;
                upload.blobs(&blobs, &[top.digest])?;
                upload.document(&blobs, &top, reference.tag())
            }
            To::Directory { path, tag } => {
                let directory = Directory::create(path)?;
                for (digest, blob) in &blobs.0 {
                    directory.put(self.store(), digest, blob)?;
                }
                top.annotations.insert(REF_NAME.to_owned(), tag.clone());
                directory.list(vec![top])
            }
        }
    }
}

/// A cache in the making.
#[derive(Default)]
struct Cache {
    blobs: Blobs,
    layers: Vec<Descriptor>,
    /// Where a layer's blob is in the list.
    places: BTreeMap<Digest, usize>,
    document: Document,
}
