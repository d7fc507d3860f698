//! OCI image layouts (image-spec, image-layout.md), as archives and as directories.

use super::blobs::{Blob, Blobs};
use super::image::json;
use crate::EngineError;
use dhow_oci::image::{Descriptor, Document, Index, MAX_DOCUMENT, Manifest, media};
use dhow_store::{ArchiveWriter, Store, StoreError};
use dhow_sys::fs::read_regular;
use dhow_types::Digest;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Annotation: the whole reference (containerd).
pub(super) const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation: the tag (OCI image-spec, annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation: when the image was made.
pub(super) const CREATED: &str = "org.opencontainers.image.created";
const MARK: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

fn index(manifests: Vec<Descriptor>) -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media::OCI_INDEX.to_owned()),
        manifests,
        annotations: Default::default(),
        extra: Default::default(),
    }
}

/// Writes a layout as a tar; `docker` is the content of Docker's `manifest.json`.
pub(super) fn write_archive(
    store: &Store,
    blobs: &Blobs,
    entries: Vec<Descriptor>,
    docker: Option<Vec<u8>>,
    out: impl Write,
) -> Result<(), EngineError> {
    let mut archive = ArchiveWriter::new(out);
    archive.directory("blobs")?;
    archive.directory("blobs/sha256")?;
    for (digest, blob) in &blobs.0 {
        let name = format!("blobs/sha256/{}", digest.hex());
        archive.file(&name, blob.size, &mut |out| blob.write_to(store, digest, out))?;
    }
    let mut document = |name: &str, bytes: &[u8]| {
        let failed = |source| StoreError::Output { what: "the archive", source };
        archive.file(name, bytes.len() as u64, &mut |out| out.write_all(bytes).map_err(failed))
    };
    document("index.json", &json(&index(entries))?)?;
    if let Some(docker) = docker {
        document("manifest.json", &docker)?;
    }
    document("oci-layout", MARK)?;
    archive.finish()?;
    Ok(())
}

/// A layout in a directory of the user's.
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes what is missing.
    pub(crate) fn create(path: &Path) -> Result<Self, EngineError> {
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(EngineError::state("create the directory", &blobs))?;
        Ok(Self { path: path.to_owned() })
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    /// Writes a blob unless it is there and sound.
    pub(crate) fn put(&self, store: &Store, digest: &Digest, blob: &Blob) -> Result<(), EngineError> {
        let path = self.blob(digest);
        if is_sound(&path, digest, blob.size) {
            return Ok(());
        }
        replace(&path, &mut |out| Ok(blob.write_to(store, digest, out)?))
    }

    /// Lists these in `index.json` in place of entries of the same name. Blobs that only those needed are removed.
    pub(crate) fn list(&self, entries: Vec<Descriptor>) -> Result<(), EngineError> {
        let path = self.path.join("index.json");
        let mut all = self.entries()?;
        let name = |d: &Descriptor| d.annotations.get(REF_NAME).or(d.annotations.get(FULL_NAME)).cloned();
        let names: Vec<Option<String>> = entries.iter().map(name).collect();
        let digests: Vec<Digest> = entries.iter().map(|d| d.digest).collect();
        let old: Vec<Descriptor> = all
            .extract_if(.., |d| {
                let known = name(d);
                (known.is_some() && names.contains(&known)) || (known.is_none() && digests.contains(&d.digest))
            })
            .collect();
        all.extend(entries);
        let bytes = json(&index(all.clone()))?;
        replace(&path, &mut |out| out.write_all(&bytes).map_err(EngineError::state("write", &path)))?;
        let mark = self.path.join("oci-layout");
        if !mark.exists() {
            replace(&mark, &mut |out| out.write_all(MARK).map_err(EngineError::state("write", &mark)))?;
        }
        self.forget(&old, &all);
        Ok(())
    }

    /// What `index.json` lists; nothing when there is none.
    fn entries(&self) -> Result<Vec<Descriptor>, EngineError> {
        let root = File::open(&self.path).map_err(EngineError::state("open", &self.path))?;
        let path = self.path.join("index.json");
        let bytes = read_regular(root.as_fd(), Path::new("index.json"), MAX_DOCUMENT);
        let Some(bytes) = bytes.map_err(EngineError::state("read", &path))? else { return Ok(Vec::new()) };
        match Document::parse(&bytes, None) {
            Ok(Document::Index(index)) => Ok(index.manifests),
            _ => Err(EngineError::Invalid(format!(
                "{} is no image index: remove it, or choose another directory",
                path.display()
            ))),
        }
    }

    /// Removes the blobs of entries that are gone. If any entry that stays cannot be followed, nothing is removed.
    fn forget(&self, old: &[Descriptor], kept: &[Descriptor]) {
        let (mut dead, mut live) = (BTreeSet::new(), BTreeSet::new());
        if !kept.iter().all(|d| self.reach(d, &mut live, 0)) {
            return;
        }
        for descriptor in old {
            self.reach(descriptor, &mut dead, 0);
        }
        for digest in dead.difference(&live) {
            // What stays costs space only.
            let _ = fs::remove_file(self.blob(digest));
        }
    }

    /// Collects what a descriptor leads to; `false` when not all of it is known.
    fn reach(&self, descriptor: &Descriptor, found: &mut BTreeSet<Digest>, depth: usize) -> bool {
        if depth > 4 {
            return false;
        }
        found.insert(descriptor.digest);
        let Ok(bytes) = read_bounded(&self.blob(&descriptor.digest)) else { return false };
        match Document::parse(&bytes, None) {
            Ok(Document::Index(index)) => index.manifests.iter().all(|d| self.reach(d, found, depth + 1)),
            Ok(Document::Manifest(Manifest { config, layers, .. })) => {
                found.insert(config.digest);
                found.extend(layers.iter().map(|l| l.digest));
                true
            }
            Err(_) => false,
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_sound(path: &Path, digest: &Digest, size: u64) -> bool {
    let Ok(meta) = fs::symlink_metadata(path) else { return false };
    if !meta.is_file() || meta.len() != size {
        return false;
    }
    let Ok(mut file) = File::open(path) else { return false };
    let mut hasher = Sum(dhow_types::Hasher::new());
    io::copy(&mut file, &mut hasher).is_ok() && hasher.0.finish() == *digest
}

struct Sum(dhow_types::Hasher);

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a file of the user's: whole or not at all where that is possible. A device, a pipe or a link is written to as it
/// is.
pub(super) fn replace(
    path: &Path,
    fill: &mut dyn FnMut(&mut File) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let plain = match fs::symlink_metadata(path) {
        Ok(meta) => meta.is_file(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => return Err(EngineError::state("write", path)(e)),
    };
    if !plain {
        let mut file = File::create(path).map_err(EngineError::state("write", path))?;
        return fill(&mut file);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = File::create_new(&temporary).map_err(EngineError::state("write", path))?;
    let done = fill(&mut file).and_then(|()| fs::rename(&temporary, path).map_err(EngineError::state("write", path)));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::super::blobs::Source;
    use super::*;

    fn named(digest: Digest, size: u64, name: &str) -> Descriptor {
        let mut descriptor = Descriptor::new(media::OCI_MANIFEST, digest, size);
        descriptor.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        descriptor
    }

    /// Blobs of an image with one layer of this content.
    fn blobs(content: &[u8]) -> (Blobs, Descriptor) {
        let mut blobs = Blobs::default();
        let config = blobs.document(media::OCI_CONFIG, [b"config ", content].concat());
        let layer = Descriptor::new(media::OCI_LAYER, Digest::of(content), content.len() as u64);
        blobs.add(&layer, Source::Bytes(content.to_vec()), None);
        let manifest = Manifest {
            schema_version: 2,
            media_type: None,
            config,
            layers: vec![layer],
            annotations: Default::default(),
            extra: Default::default(),
        };
        let top = blobs.document(media::OCI_MANIFEST, json(&manifest).unwrap());
        (blobs, top)
    }

    #[test]
    fn a_directory_keeps_others_and_forgets_what_was_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("store")).unwrap();
        let out = temp.path().join("out");
        let put = |content: &[u8], name: &str| {
            let directory = Directory::create(&out).unwrap();
            let (blobs, top) = blobs(content);
            blobs.0.iter().for_each(|(digest, blob)| directory.put(&store, digest, blob).unwrap());
            directory.list(vec![named(top.digest, top.size, name)]).unwrap();
        };
        let files = || fs::read_dir(out.join("blobs/sha256")).unwrap().count();
        put(b"one", "a");
        put(b"two", "b");
        assert_eq!(files(), 6);
        // The same again changes nothing; another content replaces the first.
        put(b"two", "b");
        put(b"three", "a");
        assert_eq!(files(), 6);
        assert!(!out.join("blobs/sha256").join(Digest::of(b"one").hex()).exists());
        assert!(out.join("blobs/sha256").join(Digest::of(b"two").hex()).exists());
        let entries = Directory::create(&out).unwrap().entries().unwrap();
        assert_eq!(entries.len(), 2);
        // A damaged blob is written again.
        let blob = out.join("blobs/sha256").join(Digest::of(b"two").hex());
        fs::write(&blob, b"owt").unwrap();
        put(b"two", "b");
        assert_eq!(fs::read(&blob).unwrap(), b"two");
    }

    #[test]
    fn a_foreign_index_is_not_overwritten() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("index.json"), "not an index").unwrap();
        let error = Directory::create(temp.path()).unwrap().list(Vec::new()).unwrap_err();
        assert!(error.to_string().contains("no image index"), "{error}");
        assert_eq!(fs::read(temp.path().join("index.json")).unwrap(), b"not an index");
    }
}
