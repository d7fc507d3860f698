//! What a cache says: steps by their keys, and which blobs are their layers. `docs/formats/build-cache-transport.md` describes it.
//!
//! A cache is an OCI image manifest whose config is a [`Document`] of this type. Everything in it is somebody else's word:
//! lists are bounded by the size of documents, places in lists are looked up, layers are verified by their diff ID when
//! they come.

use crate::EngineError;
use dhow_build::CachedStep;
use dhow_oci::image::{Descriptor, ImageConfig, Manifest};
use dhow_types::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Media type of the config of a cache.
pub(super) const CONFIG: &str = "application/vnd.dhow.buildcache.v1+json";
/// Key in an image's config of the cache inside it.
pub(super) const INLINE: &str = "dhow.buildcache.v1";
/// Largest blob of a layer or mount that is fetched, in bytes.
const MAX_BLOB: u64 = 64 << 30;

/// The config of a cache.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) version: u32,
    pub(super) steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) mounts: Vec<Mount>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    #[serde(with = "dhow_oci::image::digest_text")]
    pub(super) key: Digest,
    /// Diff ID; absent when the step changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) diff: Option<String>,
    /// Place of the layer's blob in the manifest. An image with a cache inside lists layers by diff ID already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) blob: Option<usize>,
    pub(super) created: String,
}

/// The content of a cache mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mount {
    pub(super) id: String,
    /// Place of its tar in the manifest.
    pub(super) blob: usize,
    /// Permission bits, user and group of the directory itself.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A cache that was read.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) steps: HashMap<Digest, CachedStep>,
    /// Blobs of layers by diff ID.
    pub(super) layers: HashMap<Digest, Descriptor>,
    /// Cache mounts by id, each with its blob.
    pub(super) mounts: HashMap<String, (Mount, Descriptor)>,
}

fn damaged(reason: impl std::fmt::Display) -> EngineError {
    EngineError::Invalid(format!("the cache is damaged: {reason}"))
}

fn fetchable(descriptor: &Descriptor) -> Result<(), EngineError> {
    match descriptor.size {
        0..=MAX_BLOB => Ok(()),
        size => Err(damaged(format!("blob {} has {size} bytes, more than {MAX_BLOB}", descriptor.digest))),
    }
}

impl Step {
    /// Writes down a step; `blob` finds the place of a layer's blob.
    pub(super) fn of(key: &Digest, step: &CachedStep, blob: impl Fn(&Digest) -> Option<usize>) -> Self {
        Self {
            key: *key,
            diff: step.layer.map(|l| l.to_string()),
            blob: step.layer.as_ref().and_then(blob),
            created: step.created.to_string(),
        }
    }

    fn read(&self) -> Result<CachedStep, EngineError> {
        let layer = self.diff.as_ref().map(|text| text.parse()).transpose().map_err(damaged)?;
        let created: Timestamp = self.created.parse().map_err(damaged)?;
        Ok(CachedStep { layer, created })
    }
}

impl Document {
    fn check(self) -> Result<Self, EngineError> {
        if self.version == 1 { Ok(self) } else { Err(damaged(format!("version {}", self.version))) }
    }
}

impl Contents {
    /// Reads a cache.
    pub(super) fn of_cache(manifest: &Manifest, config: &[u8]) -> Result<Self, EngineError> {
        let document: Document = serde_json::from_slice(config).map_err(damaged)?;
        let document = document.check()?;
        let blob = |place: usize| {
            let found = manifest.layers.get(place).ok_or_else(|| damaged(format!("there is no blob {place}")))?;
            fetchable(found)?;
            Ok::<_, EngineError>(found.clone())
        };
        let mut contents = Self::default();
        for step in &document.steps {
            let read = step.read()?;
            if let Some(layer) = read.layer {
                let place = step.blob.ok_or_else(|| damaged(format!("layer {layer} has no blob")))?;
                contents.layers.insert(layer, blob(place)?);
            }
            contents.steps.insert(step.key, read);
        }
        for mount in document.mounts {
            let found = blob(mount.blob)?;
            contents.mounts.insert(mount.id.clone(), (mount, found));
        }
        Ok(contents)
    }

    /// Reads the cache inside an image; `None` when there is none.
    pub(super) fn of_image(manifest: &Manifest, config: &[u8]) -> Result<Option<Self>, EngineError> {
        let config = ImageConfig::parse(config)?;
        let Some(inside) = config.extra.get(INLINE) else { return Ok(None) };
        config.check_layers(manifest)?;
        let document: Document = serde_json::from_value(inside.clone()).map_err(damaged)?;
        let document = document.check()?;
        let mut contents = Self::default();
        for step in &document.steps {
            let read = step.read()?;
            if let Some(layer) = read.layer {
                let place = config.rootfs.diff_ids.iter().position(|d| *d == layer);
                // The step of another image would be of no use without its layer.
                let Some(found) = place.and_then(|p| manifest.layers.get(p)) else { continue };
                fetchable(found)?;
                contents.layers.insert(layer, found.clone());
            }
            contents.steps.insert(step.key, read);
        }
        Ok(Some(contents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_oci::image::media;
    use serde_json::json;

    fn manifest(layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: None,
            config: Descriptor::new(CONFIG, Digest::of(b"c"), 1),
            layers,
            annotations: Default::default(),
            extra: Default::default(),
        }
    }

    #[test]
    fn caches_round_trip() {
        let (key, layer) = (Digest::of(b"k"), Digest::of(b"l"));
        let created: Timestamp = "2024-01-02T03:04:05Z".parse().unwrap();
        let steps = vec![
            Step::of(&key, &CachedStep { layer: Some(layer), created }, |_| Some(0)),
            Step::of(&layer, &CachedStep { layer: None, created }, |_| None),
        ];
        let document = Document { version: 1, steps, mounts: Vec::new() };
        let blob = Descriptor::new(media::OCI_LAYER_GZIP, Digest::of(b"b"), 7);
        let bytes = serde_json::to_vec(&document).unwrap();
        let read = Contents::of_cache(&manifest(vec![blob.clone()]), &bytes).unwrap();
        assert_eq!(read.steps[&key], CachedStep { layer: Some(layer), created });
        assert_eq!(read.steps[&layer].layer, None);
        assert_eq!(read.layers[&layer], blob);
        // The blob that it names is not there.
        assert!(Contents::of_cache(&manifest(Vec::new()), &bytes).is_err());
    }

    #[test]
    fn hostile_caches_are_refused() {
        let digest = Digest::of(b"x").to_string();
        let blob = |size| Descriptor::new(media::OCI_LAYER, Digest::of(b"b"), size);
        let step = |step: serde_json::Value| json!({"version": 1, "steps": [step]});
        let time = "2024-01-02T03:04:05Z";
        let good = step(json!({"key": digest, "diff": digest, "blob": 0, "created": time}));
        let read = |value: &serde_json::Value, size| {
            Contents::of_cache(&manifest(vec![blob(size)]), &serde_json::to_vec(value).unwrap())
        };
        assert!(read(&good, 7).is_ok());
        assert!(read(&good, u64::MAX).is_err());
        for bad in [
            json!({"version": 2, "steps": []}),
            json!([]),
            step(json!({"key": "sha256:..", "created": time})),
            step(json!({"key": digest, "created": "yesterday"})),
            step(json!({"key": digest, "diff": "../../etc", "blob": 0, "created": time})),
            step(json!({"key": digest, "diff": digest, "blob": 9, "created": time})),
            step(json!({"key": digest, "diff": digest, "created": time})),
            step(json!({"key": digest, "diff": digest, "blob": -1, "created": time})),
            json!({"version": 1, "steps": [], "mounts": [{"id": "x", "blob": 1, "mode": 0, "uid": 0, "gid": 0}]}),
        ] {
            assert!(read(&bad, 7).is_err(), "{bad}");
        }
    }
}
