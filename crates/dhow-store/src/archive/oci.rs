//! OCI image layouts (image-spec, image-layout.md) inside an archive.

use super::load::{Candidate, Contents, Staged, parse_tags};
use super::{BLOBS, FULL_NAME, INDEX, MANIFEST, REF_NAME};
use crate::error::StoreError;
use dhow_oci::image::{Descriptor, Document, DocumentError, ImageConfig, Manifest, media};
use dhow_types::{Digest, Platform, Reference};

/// Deepest nesting of indexes.
const MAX_DEPTH: usize = 4;
/// Most images in one archive.
const MAX_IMAGES: usize = 1000;

impl Contents {
    /// The images of an OCI layout: each manifest of the index, and of each nested index the one for this platform.
    pub(crate) fn oci_images(&self) -> Result<Vec<Candidate>, StoreError> {
        let text = self.document(self.named(INDEX)?)?;
        let Document::Index(index) = Document::parse(&text, None)? else {
            return Err(StoreError::archive(INDEX.as_bytes(), "not an image index"));
        };
        if index.manifests.len() > MAX_IMAGES {
            return Err(StoreError::archive(INDEX.as_bytes(), "too many images"));
        }
        let mut images: Vec<(Digest, Candidate)> = Vec::new();
        for descriptor in &index.manifests {
            let tags = self.names(descriptor)?;
            let Some(manifest) = self.choose(descriptor, 0)? else { continue };
            match images.iter_mut().find(|(digest, _)| *digest == manifest.digest) {
                Some((_, known)) => known.tags.extend(tags),
                None => images.push((manifest.digest, self.candidate(&manifest, tags)?)),
            }
        }
        for (_, image) in &mut images {
            self.add_docker_tags(image)?;
            image.tags.sort_unstable();
            image.tags.dedup();
        }
        if images.is_empty() {
            return Err(StoreError::archive(INDEX.as_bytes(), "no image for this platform"));
        }
        Ok(images.into_iter().map(|(_, image)| image).collect())
    }

    /// Names by annotation. A bare tag names no repository and is ignored.
    fn names(&self, descriptor: &Descriptor) -> Result<Vec<Reference>, StoreError> {
        if let Some(name) = descriptor.annotations.get(FULL_NAME) {
            return parse_tags(std::slice::from_ref(name));
        }
        let qualified = descriptor.annotations.get(REF_NAME).filter(|n| n.contains([':', '/']));
        Ok(qualified
            .and_then(|n| n.parse::<Reference>().ok())
            .filter(|r| r.tag().is_some() && r.digest().is_none())
            .into_iter()
            .collect())
    }

    /// Names that Docker's list has for the same config.
    fn add_docker_tags(&self, image: &mut Candidate) -> Result<(), StoreError> {
        if self.find(MANIFEST).is_none() {
            return Ok(());
        }
        let id = Digest::of(&image.config);
        for item in self.manifest_items()? {
            if self.named(&item.config)?.digest == id {
                image.tags.extend(parse_tags(item.repo_tags.as_deref().unwrap_or_default())?);
            }
        }
        Ok(())
    }

    /// Follows indexes to a manifest. `None` for what is no image for us: another platform, an attestation.
    fn choose(&self, descriptor: &Descriptor, depth: usize) -> Result<Option<Descriptor>, StoreError> {
        if depth > MAX_DEPTH {
            return Err(StoreError::archive(INDEX.as_bytes(), "indexes nested too deep"));
        }
        let is_index = matches!(descriptor.media_type.as_str(), media::OCI_INDEX | media::DOCKER_INDEX);
        if !is_index {
            let known = matches!(descriptor.media_type.as_str(), media::OCI_MANIFEST | media::DOCKER_MANIFEST);
            let unknown_platform = descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown");
            return Ok((known && !unknown_platform).then(|| descriptor.clone()));
        }
        let text = self.document(self.blob(descriptor)?)?;
        let Document::Index(index) = Document::parse(&text, Some(&descriptor.media_type))? else {
            return Err(DocumentError::Ambiguous.into());
        };
        match index.choose(&Platform::host()) {
            Some(chosen) => self.choose(chosen, depth + 1),
            None => Ok(None),
        }
    }

    /// A blob of the layout, with the size and digest that its descriptor says.
    fn blob(&self, descriptor: &Descriptor) -> Result<&Staged, StoreError> {
        let digest = descriptor.digest;
        let file = self.named(&format!("{BLOBS}{}", digest.hex()))?;
        if file.digest != digest {
            return Err(StoreError::Mismatch { what: "blob", expected: digest, found: file.digest });
        }
        if file.size != descriptor.size {
            return Err(StoreError::Size { digest, expected: descriptor.size, found: file.size });
        }
        Ok(file)
    }

    fn candidate(&self, descriptor: &Descriptor, tags: Vec<Reference>) -> Result<Candidate, StoreError> {
        let bytes = self.document(self.blob(descriptor)?)?;
        let Document::Manifest(manifest) = Document::parse(&bytes, Some(&descriptor.media_type))? else {
            return Err(DocumentError::Ambiguous.into());
        };
        let config = self.document(self.blob(&manifest.config)?)?;
        let parsed = ImageConfig::parse(&config)?;
        parsed.check_layers(&manifest)?;
        let layers = self.layers(&manifest, &parsed)?;
        Ok(Candidate { config, layers, manifest: Some((bytes, descriptor.media_type.clone())), tags })
    }

    #[allow(clippy::type_complexity)]
    fn layers(
        &self,
        manifest: &Manifest,
        config: &ImageConfig,
    ) -> Result<Vec<(Digest, Staged, dhow_oci::image::Compression)>, StoreError> {
        let mut layers = Vec::new();
        for (descriptor, diff) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let compression = descriptor
                .layer_compression()
                .ok_or_else(|| DocumentError::Unsupported(format!("layer of type {:?}", descriptor.media_type)))?;
            layers.push((*diff, self.blob(descriptor)?.clone(), compression));
        }
        Ok(layers)
    }
}
