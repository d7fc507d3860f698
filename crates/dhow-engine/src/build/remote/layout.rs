//! Images out of OCI image layouts on the host: one image of the layout goes through the store's loader, without names.

use super::RemoteError;
use crate::{Engine, EngineError};
use dhow_oci::image::{Descriptor, Document, Index, MAX_DOCUMENT, Manifest, media};
use dhow_store::{ArchiveWriter, StoreError};
use dhow_types::{Digest, Platform};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Annotation that names an image in a layout (image-spec, annotations.md).
const NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes inside indexes that are followed.
const MAX_DEPTH: usize = 4;

/// A layout and which of its images is wanted.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    path: PathBuf,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Loads `PATH[:TAG][@DIGEST]` and returns the image's id.
pub(in super::super) fn load(engine: &Engine, text: &str, platform: Option<&Platform>) -> Result<Digest, EngineError> {
    let layout = Layout::parse(text)?;
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    let (descriptor, manifest) = layout.find(&wanted)?;
    // Loaded before: nothing is read again.
    let id = manifest.config.digest;
    if engine.store().image(&id).is_ok() {
        return Ok(id);
    }
    let (reader, writer) = io::pipe().map_err(EngineError::state("read", &layout.path))?;
    let (loaded, written) = std::thread::scope(|scope| {
        // Ends before this function does: the process has one thread again when anything is launched.
        let writing = scope.spawn(|| layout.write(&descriptor, &manifest, writer));
        let loaded = engine.store().load(reader, &mut |_| {});
        (loaded, writing.join())
    });
    match (loaded, written) {
        (Ok(list), Ok(Ok(()))) => {
            let first = list.first().map(|l| l.id);
            first.ok_or_else(|| layout.error("it has no image for this platform").into())
        }
        // A loader that stops early closes the pipe: its own error says why.
        (Err(error), Ok(Ok(()) | Err(StoreError::Output { .. }))) => Err(error.into()),
        (_, Ok(Err(error))) => Err(error.into()),
        (_, Err(_)) => Err(layout.error("it could not be read").into()),
    }
}

impl Layout {
    fn parse(text: &str) -> Result<Self, EngineError> {
        let (rest, digest) = match text.rsplit_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(RemoteError::from)?)),
            None => (text, None),
        };
        let tagged = rest.rsplit_once(':').filter(|(path, tag)| !path.is_empty() && !tag.contains('/'));
        let (path, tag) = tagged.map_or((rest, None), |(path, tag)| (path, Some(tag.to_owned())));
        Ok(Self { path: PathBuf::from(path), tag: tag.filter(|t| !t.is_empty()), digest })
    }

    fn error(&self, reason: impl Into<String>) -> RemoteError {
        RemoteError::Layout { path: self.path.display().to_string(), reason: reason.into() }
    }

    fn open(&self, name: &str) -> Result<File, EngineError> {
        let path = self.path.join(name);
        let fail = |e: &io::Error| self.error(format!("{name}: {e}"));
        // A FIFO must not hold us up.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = File::options().read(true).custom_flags(flags).open(path).map_err(|e| fail(&e))?;
        if !file.metadata().map_err(|e| fail(&e))?.is_file() {
            return Err(self.error(format!("{name} is no file")).into());
        }
        Ok(file)
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, EngineError> {
        let mut bytes = Vec::new();
        let file = self.open(name)?;
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(|e| self.error(format!("{name}: {e}")))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(self.error(format!("{name} is larger than {MAX_DOCUMENT} bytes")).into());
        }
        Ok(bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Document, EngineError> {
        let bytes = self.document(&blob_name(&descriptor.digest))?;
        if Digest::of(&bytes) != descriptor.digest {
            return Err(self.error(format!("{} is not what its digest says", descriptor.digest)).into());
        }
        Ok(Document::parse(&bytes, Some(&descriptor.media_type).filter(|t| !t.is_empty()).map(String::as_str))?)
    }

    /// The manifest that is wanted.
    fn find(&self, platform: &Platform) -> Result<(Descriptor, Manifest), EngineError> {
        let index = match Document::parse(&self.document("index.json")?, Some(media::OCI_INDEX))? {
            Document::Index(index) => index,
            Document::Manifest(_) => return Err(self.error("index.json is no index").into()),
        };
        let mut descriptor = self.entry(&index, platform)?;
        for _ in 0..MAX_DEPTH {
            match self.blob(&descriptor)? {
                Document::Manifest(manifest) => return Ok((descriptor, manifest)),
                Document::Index(index) => {
                    let next = index.choose(platform);
                    descriptor = next.ok_or_else(|| self.error(format!("it has no image for {platform}")))?.clone();
                }
            }
        }
        Err(self.error("its indexes are nested too deep").into())
    }

    fn entry(&self, index: &Index, platform: &Platform) -> Result<Descriptor, EngineError> {
        let name = |d: &Descriptor| d.annotations.get(NAME).cloned();
        let named = |wanted: &str| {
            // Some tools write the whole reference, others the tag alone.
            index.manifests.iter().find(|d| {
                name(d).is_some_and(|n| n == wanted || n.strip_suffix(wanted).is_some_and(|head| head.ends_with(':')))
            })
        };
        let found = match (&self.digest, &self.tag) {
            (Some(digest), _) => {
                let listed = index.manifests.iter().find(|d| d.digest == *digest).cloned();
                // What is nested in an index is not listed, but can be asked for.
                return Ok(listed.unwrap_or_else(|| Descriptor::new("", *digest, 0)));
            }
            (None, Some(tag)) => named(tag),
            (None, None) => match index.manifests.as_slice() {
                [only] => Some(only),
                _ => named("latest").or_else(|| index.choose(platform)),
            },
        };
        let missing = || self.error(format!("it has no image {:?}", self.tag.as_deref().unwrap_or("latest")));
        Ok(found.ok_or_else(missing)?.clone())
    }

    /// Writes a layout of this one image.
    fn write(&self, descriptor: &Descriptor, manifest: &Manifest, out: impl Write) -> Result<(), StoreError> {
        let size = |digest: &Digest| -> Result<(File, u64), StoreError> {
            let fail = |source| StoreError::Input { what: blob_name(digest), source };
            let file = self.open(&blob_name(digest)).map_err(|e| fail(io::Error::other(dhow_types::report(&e))))?;
            let size = file.metadata().map_err(fail)?.len();
            Ok((file, size))
        };
        let (_, manifest_size) = size(&descriptor.digest)?;
        let media_type = manifest.media_type.as_deref().unwrap_or(media::OCI_MANIFEST);
        let index = Index {
            schema_version: 2,
            media_type: Some(media::OCI_INDEX.to_owned()),
            manifests: vec![Descriptor::new(media_type, descriptor.digest, manifest_size)],
            annotations: BTreeMap::new(),
            extra: serde_json::Map::new(),
        };
        let output = |source| StoreError::Output { what: "the archive", source };
        let index = serde_json::to_vec(&index).map_err(|e| output(e.into()))?;
        let mut archive = ArchiveWriter::new(out);
        let mut bytes = |name: &str, bytes: &[u8]| {
            archive.file(name, bytes.len() as u64, &mut |out| out.write_all(bytes).map_err(output))
        };
        bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        bytes("index.json", &index)?;
        let blobs = [descriptor.digest, manifest.config.digest].into_iter();
        let blobs: BTreeSet<Digest> = blobs.chain(manifest.layers.iter().map(|l| l.digest)).collect();
        for digest in blobs {
            let (mut file, size) = size(&digest)?;
            archive.file(&blob_name(&digest), size, &mut |out| {
                io::copy(&mut (&mut file).take(size), out).map(drop).map_err(output)
            })?;
        }
        archive.finish()?.flush().map_err(output)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_tags_and_digests() {
        let parse = |text: &str| Layout::parse(text).unwrap();
        let digest = Digest::of(b"");
        let layout = |path: &str, tag: Option<&str>, digest| Layout {
            path: PathBuf::from(path),
            tag: tag.map(str::to_owned),
            digest,
        };
        assert_eq!(parse("/a/b"), layout("/a/b", None, None));
        assert_eq!(parse("/a/b:v1"), layout("/a/b", Some("v1"), None));
        assert_eq!(parse("/a:x/b"), layout("/a:x/b", None, None));
        assert_eq!(parse(&format!("./b:v1@{digest}")), layout("./b", Some("v1"), Some(digest)));
        assert!(Layout::parse("/a@sha256:zz").is_err());
    }
}
