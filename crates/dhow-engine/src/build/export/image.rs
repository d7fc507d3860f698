//! Manifests and indexes over the images of a build.

use super::annotation::{AnnotationTarget, describe, select};
use super::blobs::{Blobs, Encoder};
use super::{Annotation, LayerOptions};
use crate::EngineError;
use dhow_oci::image::{Compression, Descriptor, ImageConfig, Index, MAX_DOCUMENT, Manifest, PlatformDoc, media};
use dhow_store::Store;
use dhow_types::{Digest, Platform};
use serde::Serialize;

/// How an image is put together.
pub(super) struct Look<'a> {
    pub(super) layers: LayerOptions,
    pub(super) oci: bool,
    pub(super) annotations: &'a [Annotation],
}

/// One platform's image, ready to leave.
pub(super) struct Part {
    pub(super) config: Descriptor,
    pub(super) created: Option<String>,
    pub(super) manifest: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// Everything that leaves: blobs, manifests, and an index when there are several platforms.
pub(super) struct Package {
    pub(super) blobs: Blobs,
    pub(super) parts: Vec<Part>,
    /// What a name points to.
    pub(super) top: Descriptor,
}

impl Package {
    /// Whether the top is an index.
    pub(super) fn is_index(&self) -> bool {
        matches!(self.top.media_type.as_str(), media::OCI_INDEX | media::DOCKER_INDEX)
    }
}

/// Puts images together.
pub(super) fn assemble(
    store: &Store,
    encoder: &Encoder<'_>,
    images: &[(Platform, Digest)],
    look: &Look<'_>,
) -> Result<Package, EngineError> {
    let mut blobs = Blobs::default();
    // Docker's documents have no annotations.
    let about = |a: &&Annotation| matches!(a.target, AnnotationTarget::Manifest | AnnotationTarget::Index);
    let oci = look.oci || look.annotations.iter().any(|a| about(&a));
    let mut parts = Vec::new();
    for (platform, id) in images {
        parts.push(part(store, encoder, &mut blobs, (platform, id), look, oci)?);
    }
    let top = match parts.as_slice() {
        [] => return Err(EngineError::Invalid("nothing was built".to_owned())),
        [only] => only.manifest.clone(),
        several => {
            let kind = if oci { media::OCI_INDEX } else { media::DOCKER_INDEX };
            let index = Index {
                schema_version: 2,
                media_type: Some(kind.to_owned()),
                manifests: several.iter().map(|p| p.manifest.clone()).collect(),
                annotations: select(look.annotations, AnnotationTarget::Index, None),
                extra: Default::default(),
            };
            let mut top = blobs.document(kind, json(&index)?);
            describe(&mut top, look.annotations, None);
            top
        }
    };
    Ok(Package { blobs, parts, top })
}

fn part(
    store: &Store,
    encoder: &Encoder<'_>,
    blobs: &mut Blobs,
    (platform, id): (&Platform, &Digest),
    look: &Look<'_>,
    oci: bool,
) -> Result<Part, EngineError> {
    let bytes = store.read_blob(id, MAX_DOCUMENT)?;
    let config = ImageConfig::parse(&bytes)?;
    let mut layers = Vec::new();
    for diff in &config.rootfs.diff_ids {
        let (known, source) = encoder.layer(diff, &look.layers)?;
        blobs.add(&known, source, Some(*diff));
        // One vocabulary in one document, wherever the blob comes from.
        let kind = match (known.layer_compression(), oci) {
            (Some(Compression::None), true) => media::OCI_LAYER,
            (Some(Compression::Zstd), true) => media::OCI_LAYER_ZSTD,
            (_, true) => media::OCI_LAYER_GZIP,
            (Some(Compression::None), false) => media::DOCKER_LAYER,
            (Some(Compression::Zstd), false) => media::DOCKER_LAYER_ZSTD,
            (_, false) => media::DOCKER_LAYER_GZIP,
        };
        layers.push(Descriptor::new(kind, known.digest, known.size));
    }
    let (config_kind, kind) = match oci {
        true => (media::OCI_CONFIG, media::OCI_MANIFEST),
        false => (media::DOCKER_CONFIG, media::DOCKER_MANIFEST),
    };
    let created = config.created.clone();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(kind.to_owned()),
        config: blobs.document(config_kind, bytes),
        layers,
        annotations: select(look.annotations, AnnotationTarget::Manifest, Some(platform)),
        extra: Default::default(),
    };
    let mut descriptor = blobs.document(kind, json(&manifest)?);
    // What the image says: a Dockerfile may have asked for another platform than the command line.
    descriptor.platform = Some(PlatformDoc::from(&config.platform()));
    describe(&mut descriptor, look.annotations, Some(platform));
    let Manifest { config, layers, .. } = manifest;
    Ok(Part { config, created, manifest: descriptor, layers })
}

pub(crate) fn json(value: &impl Serialize) -> Result<Vec<u8>, EngineError> {
    let bytes = serde_json::to_vec(value).map_err(|e| EngineError::Invalid(format!("cannot write a document: {e}")))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        let size = bytes.len();
        return Err(EngineError::Invalid(format!("a document would have {size} bytes, more than {MAX_DOCUMENT}")));
    }
    Ok(bytes)
}
