//! `save`: an OCI image layout that Docker's `manifest.json` describes as well.
//!
//! Pulled images keep their manifest and blobs, byte for byte. Others get a manifest with uncompressed layers, whose blobs
//! are the canonical tars, made while they are written. The archive is a function of the images.

use super::{BLOBS, FULL_NAME, INDEX, LAYOUT, MANIFEST, ManifestItem, REF_NAME};
use crate::Store;
use crate::error::StoreError;
use crate::image::ImageRecord;
use crate::tar::write::TarWriter;
use crate::tar::{Entry, Kind};
use dhow_oci::image::{Compression, Descriptor, Document, Index, MAX_DOCUMENT, Manifest, PlatformDoc, media};
use dhow_types::{Digest, Reference};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// Where the bytes of a blob of the archive come from.
enum Source {
    Bytes(Vec<u8>),
    Blob(u64),
    /// The tar of the layer with this diff ID (which is its digest), and its length.
    Layer(u64),
}

impl Source {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(size) | Self::Layer(size) => *size,
        }
    }
}

#[derive(Default)]
struct Plan {
    blobs: BTreeMap<Digest, Source>,
    manifests: Vec<Descriptor>,
    items: Vec<ManifestItem>,
}

impl Store {
    /// Writes images as an archive that `load` here and elsewhere understands. Names are references or ids; an image named
    /// by id carries no tag.
    pub fn save(&self, names: &[String], out: impl Write) -> Result<(), StoreError> {
        let mut plan = Plan::default();
        let mut images: Vec<(ImageRecord, Vec<Reference>)> = Vec::new();
        for name in names {
            let (id, reference) = self.find(name)?;
            let tag = reference.filter(|r| r.tag().is_some());
            match images.iter_mut().find(|(image, _)| image.id == id) {
                Some((_, tags)) => tags.extend(tag.filter(|t| !tags.contains(t))),
                None => images.push((self.image(&id)?, tag.into_iter().collect())),
            }
        }
        for (image, tags) in &images {
            self.plan_image(image, tags, &mut plan)?;
        }
        self.write_archive(plan, out)
    }

    fn plan_image(&self, image: &ImageRecord, tags: &[Reference], plan: &mut Plan) -> Result<(), StoreError> {
        let config = self.read_blob(&image.id, MAX_DOCUMENT)?;
        let kept = image.manifest.as_ref().map(|m| self.kept_manifest(image, m)).transpose()?.flatten();
        let (bytes, kind, manifest, layers) = match kept {
            Some(kept) => kept,
            None => self.plain_manifest(image, config.len() as u64)?,
        };
        let paths: Vec<String> = manifest.layers.iter().map(|l| format!("{BLOBS}{}", l.digest.hex())).collect();
        for (descriptor, source) in manifest.layers.iter().zip(layers) {
            plan.blobs.insert(descriptor.digest, source);
        }
        let mut descriptor = Descriptor::new(&kind, Digest::of(&bytes), bytes.len() as u64);
        descriptor.platform = Some(PlatformDoc::from(&image.config.platform()));
        plan.blobs.insert(image.id, Source::Bytes(config));
        plan.blobs.insert(descriptor.digest, Source::Bytes(bytes));
        for tag in tags {
            let mut named = descriptor.clone();
            named.annotations.insert(FULL_NAME.to_owned(), tag.to_string());
            named.annotations.insert(REF_NAME.to_owned(), tag.tag().unwrap_or_default().to_owned());
            plan.manifests.push(named);
        }
        if tags.is_empty() {
            plan.manifests.push(descriptor);
        }
        let repo_tags = (!tags.is_empty()).then(|| tags.iter().map(Reference::familiar).collect());
        plan.items.push(ManifestItem { config: format!("{BLOBS}{}", image.id.hex()), repo_tags, layers: paths });
        Ok(())
    }

    /// The manifest that an image came with, if everything that it lists can be had.
    #[allow(clippy::type_complexity)]
    fn kept_manifest(
        &self,
        image: &ImageRecord,
        descriptor: &Descriptor,
    ) -> Result<Option<(Vec<u8>, String, Manifest, Vec<Source>)>, StoreError> {
        let bytes = match self.read_blob(&descriptor.digest, MAX_DOCUMENT) {
            Ok(bytes) => bytes,
            Err(StoreError::NoSuchBlob(_)) => return Ok(None),
            Err(e) => return Err(e),
        };
        let Document::Manifest(manifest) = Document::parse(&bytes, Some(&descriptor.media_type))? else {
            return Ok(None);
        };
        let mut sources = Vec::new();
        for (layer, diff) in manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
            let source = match self.has_blob(&layer.digest)? {
                Some(size) if size == layer.size => Source::Blob(size),
                _ if layer.layer_compression() == Some(Compression::None) && layer.digest == *diff => {
                    Source::Layer(self.layer_tar_size(diff)?)
                }
                _ => return Ok(None),
            };
            sources.push(source);
        }
        Ok(Some((bytes, descriptor.media_type.clone(), manifest, sources)))
    }

    /// A manifest of uncompressed layers.
    fn plain_manifest(
        &self,
        image: &ImageRecord,
        config_size: u64,
    ) -> Result<(Vec<u8>, String, Manifest, Vec<Source>), StoreError> {
        let mut layers = Vec::new();
        let mut sources = Vec::new();
        for diff in &image.config.rootfs.diff_ids {
            // Keeps it while we write.
            if !self.has_layer(diff)? {
                return Err(StoreError::NoSuchLayer(*diff));
            }
            let size = self.layer_tar_size(diff)?;
            layers.push(Descriptor::new(media::OCI_LAYER, *diff, size));
            sources.push(Source::Layer(size));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::OCI_MANIFEST.to_owned()),
            config: Descriptor::new(media::OCI_CONFIG, image.id, config_size),
            layers,
            annotations: BTreeMap::new(),
            extra: serde_json::Map::new(),
        };
        Ok((json(&manifest)?, media::OCI_MANIFEST.to_owned(), manifest, sources))
    }

    fn write_archive(&self, plan: Plan, out: impl Write) -> Result<(), StoreError> {
        let mut tar = TarWriter::new(out);
        for dir in ["blobs/", BLOBS] {
            let mut entry = Entry::new(Kind::Directory, dir.as_bytes());
            entry.mode = 0o755;
            tar.entry(&entry).map_err(output)?;
        }
        for (digest, source) in &plan.blobs {
            let size = source.size();
            tar.entry(&file(&format!("{BLOBS}{}", digest.hex()), size)).map_err(output)?;
            let written = match source {
                Source::Bytes(bytes) => {
                    tar.data(bytes).map_err(output)?;
                    size
                }
                Source::Blob(_) => copy(self.open_blob(digest)?, &mut tar)?,
                Source::Layer(_) => {
                    let mut data = Data { tar: &mut tar, written: 0 };
                    self.write_layer_tar(digest, &mut data)?;
                    data.written
                }
            };
            if written != size {
                return Err(StoreError::Size { digest: *digest, expected: size, found: written });
            }
            tar.end_data(size).map_err(output)?;
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(media::OCI_INDEX.to_owned()),
            manifests: plan.manifests,
            annotations: BTreeMap::new(),
            extra: serde_json::Map::new(),
        };
        let documents = [
            (INDEX, json(&index)?),
            (MANIFEST, json(&plan.items)?),
            (LAYOUT, br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ];
        for (name, bytes) in documents {
            tar.file(&file(name, bytes.len() as u64), &bytes).map_err(output)?;
        }
        tar.finish().map_err(output)?;
        Ok(())
    }
}

fn file(name: &str, size: u64) -> Entry {
    let mut entry = Entry::new(Kind::File, name.as_bytes());
    entry.mode = 0o644;
    entry.size = size;
    entry
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError::Refused(format!("cannot write a document: {e}")))
}

fn output(source: io::Error) -> StoreError {
    StoreError::Output { what: "the archive", source }
}

/// The data of the current entry as a writer.
struct Data<'a, W: Write> {
    tar: &'a mut TarWriter<W>,
    written: u64,
}

impl<W: Write> Write for Data<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tar.data(bytes)?;
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn copy<W: Write>(mut from: impl Read, tar: &mut TarWriter<W>) -> Result<u64, StoreError> {
    let mut buffer = vec![0u8; 256 << 10];
    let mut written = 0u64;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(written),
            Ok(n) => {
                tar.data(buffer.get(..n).unwrap_or_default()).map_err(output)?;
                written += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(StoreError::input("blob")(e)),
        }
    }
}
