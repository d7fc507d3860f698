//! Images and references: the only part of the store that is not content.

pub(crate) mod gc;
pub(crate) mod kept;
pub(crate) mod refs;
pub(crate) mod remove;

use crate::Store;
use crate::disk::{self, TmpDir};
use crate::error::{At, StoreError};
use crate::layer::meta::{self, Meta};
use crate::lease::Object;
use dhow_oci::image::{Descriptor, Document, ImageConfig, MAX_DOCUMENT, Manifest};
use dhow_types::{Digest, Reference, Timestamp};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Largest record of an image, in bytes.
const LIMIT: u64 = 4 << 20;

/// An image as the store knows it.
#[derive(Debug, Clone)]
pub struct ImageRecord {
    /// Digest of the config.
    pub id: Digest,
    /// The config.
    pub config: ImageConfig,
    /// When the image was made, by its config.
    pub created: Option<Timestamp>,
    /// Bytes of the unpacked layers.
    pub size: u64,
    /// The manifest that it came with, if it was pulled, loaded with one, or pushed.
    pub manifest: Option<Descriptor>,
    /// Its tags, sorted.
    pub references: Vec<Reference>,
    /// `repository@digest` of the manifests under which it was pulled or pushed, sorted.
    pub repo_digests: Vec<Reference>,
}

/// `record.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    #[serde(with = "dhow_oci::image::digest_text")]
    pub(crate) id: Digest,
    pub(crate) size: u64,
    #[serde(with = "dhow_oci::image::digest_list")]
    pub(crate) diff_ids: Vec<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<Descriptor>,
    /// The config, the manifest, and what the manifest lists.
    #[serde(with = "dhow_oci::image::digest_list")]
    pub(crate) blobs: Vec<Digest>,
}

impl Record {
    /// Everything that must not be deleted while this record is there.
    pub(crate) fn objects(&self) -> Vec<Object> {
        self.diff_ids.iter().map(|d| Object::Layer(*d)).chain(self.blobs.iter().map(|d| Object::Blob(*d))).collect()
    }

    pub(crate) fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let Some(text) = disk::read_small(path, LIMIT)? else { return Ok(None) };
        let record: Self = serde_json::from_slice(&text).map_err(|e| StoreError::record(path, e))?;
        if record.version != 1 {
            return Err(StoreError::record(path, format!("version {}", record.version)));
        }
        Ok(Some(record))
    }

    fn text(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|e| StoreError::record(path, e))
    }
}

impl Store {
    /// Makes an image of a config whose layers are all published, durably. `manifest` names the blob (already stored) that
    /// the image came with, and its media type. An image that is here gains the manifest if it had none.
    pub fn put_image(&self, config_bytes: &[u8], manifest: Option<(&Digest, &str)>) -> Result<Digest, StoreError> {
        self.writable()?;
        let config = ImageConfig::parse(config_bytes)?;
        let id = Digest::of(config_bytes);
        let diff_ids = config.rootfs.diff_ids.clone();
        let manifest = manifest.map(|(digest, kind)| self.read_manifest(digest, kind, &id, &config)).transpose()?;
        // Nothing that this image needs may go between here and its record.
        let graph = self.shared_lock()?;
        let objects: Vec<Object> = diff_ids.iter().map(|d| Object::Layer(*d)).collect();
        self.lease_under(&graph, &objects)?;
        let mut size = 0u64;
        for diff in &diff_ids {
            let meta = Meta::read(&self.layout.layer(diff))?.ok_or(StoreError::NoSuchLayer(*diff))?;
            size = size.saturating_add(meta.size);
        }
        self.put_blob(config_bytes)?;
        let mut blobs = vec![id];
        if let Some((descriptor, document)) = &manifest {
            blobs.push(descriptor.digest);
            blobs.extend(document.layers.iter().map(|l| l.digest));
        }
        blobs.sort_unstable();
        blobs.dedup();
        let record = Record { version: 1, id, size, diff_ids, manifest: manifest.as_ref().map(|m| m.0.clone()), blobs };
        self.write_image(&record)?;
        self.leases().referenced(&record.objects());
        if let Some((_, document)) = &manifest {
            self.note_sources(&record.diff_ids, document)?;
        }
        Ok(id)
    }

    /// Reads a manifest blob and checks that it is one for this config.
    fn read_manifest(
        &self,
        digest: &Digest,
        media_type: &str,
        id: &Digest,
        config: &ImageConfig,
    ) -> Result<(Descriptor, Manifest), StoreError> {
        let bytes = self.read_blob(digest, MAX_DOCUMENT)?;
        let Document::Manifest(manifest) = Document::parse(&bytes, Some(media_type))? else {
            return Err(StoreError::Refused(format!("{digest} is an image index, not a manifest")));
        };
        if manifest.config.digest != *id {
            return Err(StoreError::Mismatch { what: "image config", expected: manifest.config.digest, found: *id });
        }
        config.check_layers(&manifest)?;
        Ok((Descriptor::new(media_type, *digest, bytes.len() as u64), manifest))
    }

    /// Remembers which blobs are which layers, so that a push need not compress what was pulled.
    fn note_sources(&self, diff_ids: &[Digest], manifest: &Manifest) -> Result<(), StoreError> {
        for (diff, descriptor) in diff_ids.iter().zip(&manifest.layers) {
            let layer = self.layout.layer(diff);
            let known = meta::read_source(&layer)?.is_some_and(|d| self.layout.blob(&d.digest).exists());
            if !known && self.layout.blob(&descriptor.digest).exists() {
                let plain = Descriptor::new(&descriptor.media_type, descriptor.digest, descriptor.size);
                meta::write_source(&self.layout.tmp(), &layer, &plain)?;
            }
        }
        Ok(())
    }

    fn write_image(&self, record: &Record) -> Result<(), StoreError> {
        let dir = self.layout.image(&record.id);
        let file = dir.join("record.json");
        if let Some(old) = Record::read(&file)? {
            let mut new = old.clone();
            if let (None, Some(manifest)) = (&old.manifest, &record.manifest) {
                new.manifest = Some(manifest.clone());
            }
            new.blobs.extend(&record.blobs);
            new.blobs.sort_unstable();
            new.blobs.dedup();
            if new.blobs == old.blobs && new.manifest == old.manifest {
                return Ok(());
            }
            return disk::replace(&self.layout.tmp(), &file, &new.text(&file)?, 0o600);
        }
        let tmp = TmpDir::create(&self.layout.tmp(), "image")?;
        let staged = tmp.path().join("record.json");
        disk::ensure_dir(&tmp.path().join("names"), 0o700)?;
        std::fs::write(&staged, record.text(&file)?).at("write", &staged)?;
        rustix::fs::fdatasync(std::fs::File::open(&staged).at("open", &staged)?).at("sync", &staged)?;
        rustix::fs::fsync(tmp.fd()).at("sync", tmp.path())?;
        if !tmp.publish(&dir)? {
            // Somebody else made the image meanwhile; add what we know.
            return match Record::read(&file)? {
                Some(_) => self.write_image(record),
                None => Err(StoreError::record(&dir, "directory without \"record.json\"")),
            };
        }
        disk::remove_file(&self.layout.detached().join(format!("{}.json", record.id.hex())))?;
        disk::sync_dir(&self.layout.images())
    }

    pub(crate) fn record(&self, id: &Digest) -> Result<Option<Record>, StoreError> {
        Record::read(&self.layout.image(id).join("record.json"))
    }

    /// An image by its id.
    pub fn image(&self, id: &Digest) -> Result<ImageRecord, StoreError> {
        let record = self.record(id)?.ok_or_else(|| StoreError::NoSuchImage(id.to_string()))?;
        self.complete(record)
    }

    /// Adds config and references to a record.
    fn complete(&self, record: Record) -> Result<ImageRecord, StoreError> {
        let config = ImageConfig::parse(&self.read_blob(&record.id, MAX_DOCUMENT)?)?;
        let (repo_digests, references) = self.names_of(&record.id)?.into_iter().partition(|r| r.digest().is_some());
        Ok(ImageRecord {
            id: record.id,
            created: config.created.as_deref().and_then(|text| text.parse().ok()),
            config,
            size: record.size,
            manifest: record.manifest,
            references,
            repo_digests,
        })
    }

    /// All images, newest first. A damaged record is left out, so that one bad file does not hide the others; use
    /// [`damaged_images`](Self::damaged_images) to tell the user.
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        let mut images: Vec<ImageRecord> = self.image_ids()?.iter().filter_map(|id| self.image(id).ok()).collect();
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    /// Images whose record or config cannot be read, with the reason.
    pub fn damaged_images(&self) -> Result<Vec<(Digest, StoreError)>, StoreError> {
        let failure = |id: &Digest| self.image(id).err().filter(|e| !matches!(e, StoreError::NoSuchImage(_)));
        Ok(self.image_ids()?.into_iter().filter_map(|id| Some((id, failure(&id)?))).collect())
    }

    /// Ids of all images.
    pub fn image_ids(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(disk::list(&self.layout.images())?.iter().filter_map(|name| Digest::from_hex(name).ok()).collect())
    }
}
