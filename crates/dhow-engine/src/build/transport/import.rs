//! Caches of elsewhere: found before a build, fetched from while it goes on.

use super::record::{CONFIG, Contents};
use super::spec::{CacheFrom, From};
use crate::image::Progress;
use crate::image::pull::fetch_described;
use crate::{Engine, EngineError, files};
use dhow_build::CachedStep;
use dhow_oci::image::{Descriptor, Document, Index, MAX_DOCUMENT, Manifest};
use dhow_registry::RegistryError;
use dhow_store::{ExtractOptions, extract_archive};
use dhow_sys::fs::{open_without_links, read_regular};
use dhow_types::{Digest, Reference};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::super::export::layout::REF_NAME;

/// Images of one index that are looked at.
const MAX_IMAGES: usize = 32;
/// Bytes moved at once.
const CHUNK: usize = 256 << 10;
/// Bytes that stay free when a cache mount is unpacked.
const RESERVE: u64 = 64 << 20;

/// A step that a cache knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteStep {
    /// What it did.
    pub step: CachedStep,
    /// Where the cache is.
    pub from: String,
}

/// The caches of a build.
#[derive(Debug, Default)]
pub struct Imports {
    sources: Vec<Source>,
    /// Why some are not among them, one line each.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
struct Source {
    name: String,
    place: Place,
    contents: Contents,
}

#[derive(Debug)]
enum Place {
    Directory(PathBuf),
    Registry(Reference),
}

impl Imports {
    /// Reads what the caches say; no layer is fetched yet. A cache that is not there or cannot be read is a warning: the
    /// first build has none.
    pub fn open(engine: &Engine, list: &[CacheFrom], progress: &dyn Progress) -> Self {
        let mut imports = Self::default();
        for from in list {
            let read = match &from.place {
                From::Directory { path, tag, digest } => directory(path, tag, digest.as_ref()),
                From::Registry(reference) => registry(engine, reference),
            };
            match read {
                Ok(sources) => imports.sources.extend(sources.into_iter().map(|(place, contents)| Source {
                    name: from.to_string(),
                    place,
                    contents,
                })),
                Err(error) => {
                    imports.warnings.push(format!("cache {from} is not used: {}", dhow_types::report(&error)));
                }
            }
        }
        for notice in engine.registry().take_notices() {
            crate::image::pull::say(progress, notice);
        }
        imports
    }

    /// Whether there is no cache.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// A step by its key.
    pub fn lookup(&self, key: &Digest) -> Option<RemoteStep> {
        self.sources.iter().find_map(|source| {
            let step = *source.contents.steps.get(key)?;
            Some(RemoteStep { step, from: source.name.clone() })
        })
    }

    /// Whether a layer could be fetched.
    pub fn knows(&self, layer: &Digest) -> bool {
        self.sources.iter().any(|s| s.contents.layers.contains_key(layer))
    }

    /// Fetches those of these layers that are not here: verified, unpacked and published when this returns.
    pub fn fetch(&self, engine: &Engine, layers: &[Digest], progress: &dyn Progress) -> Result<(), EngineError> {
        let mut missing: Vec<Digest> = Vec::new();
        for layer in layers {
            if !missing.contains(layer) && !engine.store().has_layer(layer)? {
                missing.push(*layer);
            }
        }
        let mut last = None;
        for source in &self.sources {
            let known = |layer: &Digest| Some((source.contents.layers.get(layer)?.clone(), *layer));
            let list: Vec<(Descriptor, Digest)> = missing.iter().filter_map(known).collect();
            if list.is_empty() {
                continue;
            }
            match source.fetch(engine, &list, progress) {
                Ok(()) => missing.retain(|layer| !list.iter().any(|(_, have)| have == layer)),
                // Another cache may have it, in better shape.
                Err(error) => last = Some(error),
            }
        }
        match (missing.first(), last) {
            (None, _) => Ok(()),
            (Some(_), Some(error)) => Err(error),
            (Some(layer), None) => Err(dhow_store::StoreError::NoSuchLayer(*layer).into()),
        }
    }

    /// Ids of the cache mounts that the caches have.
    pub fn mounts(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().flat_map(|s| s.contents.mounts.keys()).map(String::as_str)
    }

    /// Fills a cache mount that is not here yet. `false` when no cache has it.
    pub fn restore_mount(&self, engine: &Engine, id: &str, directory: &Path) -> Result<bool, EngineError> {
        if directory.exists() {
            return Ok(false);
        }
        let found = self.sources.iter().find_map(|s| Some((s, s.contents.mounts.get(id)?)));
        let Some((source, (mount, descriptor))) = found else { return Ok(false) };
        let blob = source.blob(engine, descriptor)?;
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory.with_file_name(format!(".{name}.{}", std::process::id()));
        files::remove_tree(&temporary)?;
        let fill = || -> Result<(), EngineError> {
            files::make_dir(&temporary)?;
            let root = File::open(&temporary).map_err(EngineError::state("open", &temporary))?;
            let options = ExtractOptions { reserve: RESERVE, ..ExtractOptions::default() };
            extract_archive(root.as_fd(), Path::new(""), &blob, &options)?;
            let fail = || EngineError::errno("set attributes of", directory);
            fchown(&root, Some(Uid::from_raw(mount.uid)), Some(Gid::from_raw(mount.gid))).map_err(fail())?;
            fchmod(&root, Mode::from_raw_mode(mount.mode & 0o1777)).map_err(fail())?;
            match std::fs::rename(&temporary, directory) {
                // Somebody else's build made it meanwhile; theirs is as good.
                Err(e) if directory.is_dir() && e.kind() != std::io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(EngineError::state("rename into place", directory)),
            }
        };
        let filled = fill();
        files::remove_tree(&temporary)?;
        filled.map(|()| true)
    }
}

impl Source {
    fn fetch(
        &self,
        engine: &Engine,
        list: &[(Descriptor, Digest)],
        progress: &dyn Progress,
    ) -> Result<(), EngineError> {
        let store = engine.store();
        match &self.place {
            Place::Registry(reference) => fetch_described(store, engine.registry(), reference, list, progress)?,
            Place::Directory(_) => {
                let mut staged = Vec::new();
                for (descriptor, diff) in list {
                    let kind = descriptor.layer_compression().ok_or_else(|| {
                        EngineError::Invalid(format!("the cache's layer {} is no layer", descriptor.digest))
                    })?;
                    staged.push(store.unpack(self.blob(engine, descriptor)?, kind, diff)?);
                }
                store.publish(staged)?;
            }
        }
        for (descriptor, diff) in list {
            // A directory without a blob would not give the same tar again, should its files be other than ours.
            store.note_layer_blob(diff, descriptor)?;
        }
        Ok(())
    }

    /// A blob, in the store and verified.
    fn blob(&self, engine: &Engine, descriptor: &Descriptor) -> Result<File, EngineError> {
        let store = engine.store();
        let mut ingest = store.ingest(&descriptor.digest, descriptor.size)?;
        if !ingest.is_complete() {
            let mut reader: Box<dyn Read> = match &self.place {
                Place::Registry(reference) => {
                    Box::new(engine.registry().blob(reference, descriptor, ingest.offset())?)
                }
                Place::Directory(path) => Box::new(open_blob(path, descriptor, ingest.offset())?),
            };
            let mut buffer = vec![0; CHUNK];
            loop {
                let n = match &self.place {
                    Place::Registry(_) => {
                        reader.read(&mut buffer).map_err(|e| RegistryError::from_read(e, "the registry's answer"))?
                    }
                    Place::Directory(path) => reader.read(&mut buffer).map_err(EngineError::state("read", path))?,
                };
                if n == 0 {
                    break;
                }
                ingest.write(buffer.get(..n).unwrap_or_default())?;
            }
            ingest.finish()?;
        }
        Ok(store.open_blob(&descriptor.digest)?)
    }
}

/// Opens a blob of a directory: a regular file of the right size, reached without links.
fn open_blob(root: &Path, descriptor: &Descriptor, offset: u64) -> Result<impl Read, EngineError> {
    use std::io::{Seek, SeekFrom};
    let name = Path::new("blobs/sha256").join(descriptor.digest.hex());
    let path = root.join(&name);
    let directory = File::open(root).map_err(EngineError::state("open", root))?;
    // A FIFO would make a plain open wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open_without_links(directory.as_fd(), &name, flags, Mode::empty());
    let mut file = File::from(file.map_err(EngineError::state("open", &path))?);
    let stat = fstat(&file).map_err(EngineError::errno("look at", &path))?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size != descriptor.size {
        return Err(EngineError::Invalid(format!("{} is not the file that the cache describes", path.display())));
    }
    file.seek(SeekFrom::Start(offset)).map_err(EngineError::state("read", &path))?;
    Ok(file.take(descriptor.size.saturating_sub(offset)))
}

/// Reads a document of a directory and verifies it.
fn read_document(root: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError> {
    if descriptor.size > MAX_DOCUMENT {
        return Err(EngineError::Invalid(format!("document {} is larger than {MAX_DOCUMENT}", descriptor.digest)));
    }
    let mut bytes = Vec::new();
    let mut reader = open_blob(root, descriptor, 0)?;
    reader.read_to_end(&mut bytes).map_err(EngineError::state("read", root))?;
    let found = Digest::of(&bytes);
    if found != descriptor.digest {
        let expected = descriptor.digest;
        return Err(dhow_store::StoreError::Mismatch { what: "document of the cache", expected, found }.into());
    }
    Ok(bytes)
}

/// The cache in a directory.
fn directory(path: &Path, tag: &str, digest: Option<&Digest>) -> Result<Vec<(Place, Contents)>, EngineError> {
    let path = std::path::absolute(path).map_err(EngineError::state("find", path))?;
    let root = File::open(&path).map_err(EngineError::state("open", &path))?;
    let bytes = read_regular(root.as_fd(), Path::new("index.json"), MAX_DOCUMENT);
    let bytes = bytes.map_err(EngineError::state("read", &path.join("index.json")))?;
    let none = || EngineError::Invalid(format!("there is no cache in {}", path.display()));
    let Document::Index(index) = Document::parse(&bytes.ok_or_else(none)?, None)? else { return Err(none()) };
    let wanted = |d: &&Descriptor| match digest {
        Some(digest) => d.digest == *digest,
        None => d.annotations.get(REF_NAME).is_some_and(|name| name == tag),
    };
    let top = index.manifests.iter().find(wanted).ok_or_else(|| {
        let what = digest.map_or_else(|| format!("named {tag:?}"), |d| format!("with digest {d}"));
        EngineError::Invalid(format!("{} has no cache {what}", path.display()))
    })?;
    let mut found = Vec::new();
    let read = |descriptor: &Descriptor| read_document(&path, descriptor);
    follow(top, read(top)?, &read, &mut |contents| found.push((Place::Directory(path.clone()), contents)))?;
    Ok(found)
}

/// The cache that a registry has, or those inside an image.
fn registry(engine: &Engine, reference: &Reference) -> Result<Vec<(Place, Contents)>, EngineError> {
    let client = engine.registry();
    let fetched = client.resolve(reference)?;
    let size = fetched.bytes.len() as u64;
    let kind = Some(fetched.media_type).filter(|t| t.starts_with("application/vnd.")).unwrap_or_default();
    let top = Descriptor::new(&kind, fetched.digest, size);
    let mut found = Vec::new();
    let read = |descriptor: &Descriptor| match Kind::of(descriptor) {
        Kind::Config => Ok(client.document(reference, descriptor)?),
        Kind::Manifest => Ok(client.manifest(reference, descriptor)?),
    };
    follow(&top, fetched.bytes, &read, &mut |contents| {
        found.push((Place::Registry(reference.clone()), contents));
    })?;
    Ok(found)
}

/// Manifests and blobs have different addresses in a registry.
enum Kind {
    Manifest,
    Config,
}

impl Kind {
    fn of(descriptor: &Descriptor) -> Self {
        use dhow_oci::image::media;
        match descriptor.media_type.as_str() {
            media::OCI_INDEX | media::OCI_MANIFEST | media::DOCKER_INDEX | media::DOCKER_MANIFEST => Self::Manifest,
            _ => Self::Config,
        }
    }
}

/// Goes from a document to the caches that it is or has.
fn follow(
    top: &Descriptor,
    bytes: Vec<u8>,
    read: &dyn Fn(&Descriptor) -> Result<Vec<u8>, EngineError>,
    take: &mut dyn FnMut(Contents),
) -> Result<(), EngineError> {
    let claim = Some(top.media_type.as_str()).filter(|t| !t.is_empty());
    match Document::parse(&bytes, claim)? {
        Document::Manifest(manifest) => {
            if let Some(contents) = contents(&manifest, read)? {
                take(contents);
            }
        }
        Document::Index(Index { manifests, .. }) => {
            let mut seen = HashSet::new();
            for descriptor in manifests.iter().filter(|d| matches!(Kind::of(d), Kind::Manifest)).take(MAX_IMAGES) {
                // An index inside an index is not looked into.
                if seen.insert(descriptor.digest)
                    && let Ok(Document::Manifest(manifest)) = Document::parse(&read(descriptor)?, None)
                    && let Some(contents) = contents(&manifest, read)?
                {
                    take(contents);
                }
            }
        }
    }
    Ok(())
}

fn contents(
    manifest: &Manifest,
    read: &dyn Fn(&Descriptor) -> Result<Vec<u8>, EngineError>,
) -> Result<Option<Contents>, EngineError> {
    use dhow_oci::image::media;
    match manifest.config.media_type.as_str() {
        CONFIG => Ok(Some(Contents::of_cache(manifest, &read(&manifest.config)?)?)),
        media::OCI_CONFIG | media::DOCKER_CONFIG => Contents::of_image(manifest, &read(&manifest.config)?),
        other => Err(EngineError::Invalid(format!("{other:?} is neither a build cache nor an image"))),
    }
}
