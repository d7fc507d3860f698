//! `load`: archives of images, hostile and possibly on a pipe.
//!
//! Every regular file of the archive is staged in a numbered file, hashed on the way; names exist only as keys of a map.
//! What the archive's documents call a path is looked up in that map and never touches the file system, so traversal finds
//! nothing, and a symlink (old Docker wrote them for repeated layers) is only another key.

use super::{INDEX, LAYOUT, MANIFEST, ManifestItem};
use crate::Store;
use crate::disk::{self, TmpDir};
use crate::error::{At, StoreError, printable};
use crate::layer::extract::check_space;
use crate::layer::resolve::{clean, split};
use crate::layer::stream::decompressor;
use crate::layer::{self, StagedLayer};
use crate::tar::read::TarReader;
use crate::tar::{Entry, Kind};
use dhow_oci::image::{Compression, Descriptor, DocumentError, ImageConfig, MAX_DOCUMENT, media};
use dhow_types::{Digest, Hasher, Reference};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Most files of an archive. A hundred images of a hundred layers are far below.
const MAX_FILES: usize = 100_000;
/// Most symlinks from one name to a file.
const MAX_LINKS: usize = 8;
/// Bytes between two looks at the free space.
const SPACE_CHECK: u64 = 64 << 20;

/// What happens during a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadEvent {
    /// A layer is about to be unpacked.
    Layer {
        /// Its diff ID.
        diff_id: Digest,
        /// Its size in the archive, in bytes.
        size: u64,
    },
}

/// One loaded name, or an image without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: Digest,
    /// The tag that means it now.
    pub reference: Option<Reference>,
}

impl std::fmt::Display for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reference {
            Some(reference) => write!(f, "Loaded image: {}", reference.familiar()),
            None => write!(f, "Loaded image ID: {}", self.id),
        }
    }
}

/// The files of an archive.
pub(crate) struct Contents {
    dir: TmpDir,
    files: HashMap<Vec<u8>, Staged>,
    links: HashMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone)]
pub(crate) struct Staged {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

/// An image of the archive, checked and ready to be stored.
pub(crate) struct Candidate {
    pub(crate) config: Vec<u8>,
    /// Diff ID, file, compression; lowest first.
    pub(crate) layers: Vec<(Digest, Staged, Compression)>,
    /// The manifest and its media type.
    pub(crate) manifest: Option<(Vec<u8>, String)>,
    pub(crate) tags: Vec<Reference>,
}

impl Store {
    /// Loads images from a `docker save` archive or a tar of an OCI image layout, compressed or not. Durable when it
    /// returns.
    pub fn load(&self, input: impl Read, on: &mut dyn FnMut(LoadEvent)) -> Result<Vec<Loaded>, StoreError> {
        self.writable()?;
        let contents = self.stage_archive(input)?;
        let candidates = if contents.find(LAYOUT).is_some() && contents.find(INDEX).is_some() {
            contents.oci_images()?
        } else if contents.find(MANIFEST).is_some() {
            contents.docker_images()?
        } else {
            return Err(StoreError::archive(b"", "neither manifest.json nor an OCI image layout: no image to load"));
        };
        let mut staged: BTreeMap<Digest, StagedLayer> = BTreeMap::new();
        for candidate in &candidates {
            self.load_layers(candidate, &mut staged, on)?;
        }
        self.publish(staged.into_values().collect())?;
        let mut loaded = Vec::new();
        for candidate in candidates {
            self.load_image(candidate, &mut loaded)?;
        }
        contents.dir.remove()?;
        Ok(loaded)
    }

    fn stage_archive(&self, input: impl Read) -> Result<Contents, StoreError> {
        let dir = TmpDir::create(&self.layout.tmp(), "load")?;
        let reserve = self.reserve()?;
        let stream = BufReader::with_capacity(256 << 10, decompressor(input)?);
        let mut reader = TarReader::new(stream, "image archive");
        let mut contents = Contents { dir, files: HashMap::new(), links: HashMap::new() };
        let mut unchecked = 0;
        while let Some(entry) = reader.next()? {
            let cleaned = clean(&entry.path);
            if cleaned.escapes {
                return Err(StoreError::archive(&entry.path, "name leads outside"));
            }
            if contents.files.len() + contents.links.len() >= MAX_FILES {
                return Err(StoreError::archive(&entry.path, "too many files for an image archive"));
            }
            match entry.kind {
                Kind::Directory => {}
                Kind::File if entry.sparse.is_none() => {
                    let path = contents.dir.path().join(contents.files.len().to_string());
                    let staged = stage_file(&mut reader, path, &mut unchecked, reserve, &contents.dir)?;
                    contents.links.remove(&cleaned.path);
                    contents.files.insert(cleaned.path, staged);
                }
                Kind::Symlink | Kind::HardLink => {
                    let target = link_target(&cleaned.path, &entry)?;
                    contents.files.remove(&cleaned.path);
                    contents.links.insert(cleaned.path, target);
                }
                _ => return Err(StoreError::archive(&entry.path, "not a plain file: no part of an image archive")),
            }
        }
        Ok(contents)
    }

    /// Unpacks the layers of a candidate that are not here, and keeps the blobs that are needed to have their tars again.
    fn load_layers(
        &self,
        candidate: &Candidate,
        staged: &mut BTreeMap<Digest, StagedLayer>,
        on: &mut dyn FnMut(LoadEvent),
    ) -> Result<(), StoreError> {
        for (diff, file, compression) in &candidate.layers {
            if !staged.contains_key(diff) && !self.has_layer(diff)? {
                on(LoadEvent::Layer { diff_id: *diff, size: file.size });
                let reader = File::open(&file.path).at("open", &file.path)?;
                let mut layer = self.unpack(reader, *compression, diff)?;
                let kind = match compression {
                    Compression::None if self.probe_canonical(&mut layer)? => None,
                    Compression::None => Some(media::OCI_LAYER),
                    Compression::Gzip => Some(media::OCI_LAYER_GZIP),
                    Compression::Zstd => Some(media::OCI_LAYER_ZSTD),
                };
                if let Some(kind) = kind {
                    self.keep_blob(file)?;
                    layer.set_source(&Descriptor::new(kind, file.digest, file.size))?;
                }
                staged.insert(*diff, layer);
            }
            // The manifest needs its blobs, whoever unpacked the layer.
            if candidate.manifest.is_some() && *compression != Compression::None {
                self.keep_blob(file)?;
            }
        }
        Ok(())
    }

    fn keep_blob(&self, file: &Staged) -> Result<(), StoreError> {
        if self.has_blob(&file.digest)?.is_some() {
            return Ok(());
        }
        // A second name, because several images may need it; unnamed again when the staging directory goes.
        let mut tmp = disk::TmpFile::create(&self.layout.tmp(), "blob")?;
        tmp.replace_with_link(&file.path)?;
        self.commit_blob(tmp, &file.digest, true)
    }

    fn load_image(&self, candidate: Candidate, loaded: &mut Vec<Loaded>) -> Result<(), StoreError> {
        let plain = candidate.layers.iter().any(|(_, _, compression)| *compression == Compression::None);
        // A manifest of uncompressed layers is made again when it is needed.
        let manifest = match candidate.manifest {
            Some((bytes, kind)) if !plain => Some((self.put_blob(&bytes)?, kind)),
            _ => None,
        };
        let id = self.put_image(&candidate.config, manifest.as_ref().map(|(d, kind)| (d, kind.as_str())))?;
        for tag in &candidate.tags {
            self.set_ref(tag, &id)?;
            loaded.push(Loaded { id, reference: Some(tag.clone()) });
        }
        if candidate.tags.is_empty() {
            loaded.push(Loaded { id, reference: None });
        }
        Ok(())
    }
}

fn stage_file<R: std::io::BufRead>(
    reader: &mut TarReader<R>,
    path: PathBuf,
    unchecked: &mut u64,
    reserve: u64,
    dir: &TmpDir,
) -> Result<Staged, StoreError> {
    let mut file = File::create_new(&path).at("create", &path)?;
    let mut hasher = Hasher::new();
    let mut size = 0u64;
    loop {
        let chunk = reader.chunk()?;
        if chunk.is_empty() {
            return Ok(Staged { path, size, digest: hasher.finish() });
        }
        file.write_all(chunk).at("write", &path)?;
        hasher.update(chunk);
        let n = chunk.len();
        reader.consume(n);
        size += n as u64;
        *unchecked += n as u64;
        if *unchecked >= SPACE_CHECK {
            *unchecked = 0;
            check_space(dir.fd(), reserve)?;
        }
    }
}

/// The key that a link leads to.
fn link_target(path: &[u8], entry: &Entry) -> Result<Vec<u8>, StoreError> {
    let outside =
        || StoreError::archive(&entry.path, format!("link to {:?} outside the archive", printable(&entry.link)));
    if entry.link.starts_with(b"/") {
        return Err(outside());
    }
    let from = if entry.kind == Kind::Symlink { split(path).0 } else { &[][..] };
    let target = clean(&[from, &b"/"[..], &entry.link].concat());
    if target.escapes { Err(outside()) } else { Ok(target.path) }
}

impl Contents {
    /// The file of a name, through links of the archive.
    pub(crate) fn find(&self, name: &str) -> Option<&Staged> {
        let mut key = name.as_bytes().to_vec();
        for _ in 0..MAX_LINKS {
            if let Some(file) = self.files.get(&key) {
                return Some(file);
            }
            key = self.links.get(&key)?.clone();
        }
        None
    }

    /// The file that a document of the archive names.
    pub(crate) fn named(&self, name: &str) -> Result<&Staged, StoreError> {
        let bytes = name.as_bytes();
        let cleaned = clean(bytes);
        if cleaned.escapes || bytes.starts_with(b"/") || bytes.contains(&0) {
            return Err(StoreError::archive(bytes, "path leads outside the archive"));
        }
        let key = String::from_utf8_lossy(&cleaned.path).into_owned();
        self.find(&key).ok_or_else(|| StoreError::archive(bytes, "not in the archive"))
    }

    /// A small document.
    pub(crate) fn document(&self, file: &Staged) -> Result<Vec<u8>, StoreError> {
        if file.size > MAX_DOCUMENT {
            return Err(StoreError::archive(b"", "document larger than 4 MiB"));
        }
        std::fs::read(&file.path).at("read", &file.path)
    }

    /// Images that `manifest.json` lists.
    fn docker_images(&self) -> Result<Vec<Candidate>, StoreError> {
        let mut images = Vec::new();
        for item in self.manifest_items()? {
            let config = self.document(self.named(&item.config)?)?;
            let parsed = ImageConfig::parse(&config)?;
            let diff_ids = &parsed.rootfs.diff_ids;
            if diff_ids.len() != item.layers.len() {
                let (diff_ids, layers) = (diff_ids.len(), item.layers.len());
                return Err(DocumentError::LayerCount { diff_ids, layers }.into());
            }
            let mut layers = Vec::new();
            for (diff, name) in diff_ids.iter().zip(&item.layers) {
                let file = self.named(name)?;
                layers.push((*diff, file.clone(), sniff(&file.path)?));
            }
            let tags = parse_tags(item.repo_tags.as_deref().unwrap_or_default())?;
            images.push(Candidate { config, layers, manifest: None, tags });
        }
        Ok(images)
    }

    pub(crate) fn manifest_items(&self) -> Result<Vec<ManifestItem>, StoreError> {
        let text = self.document(self.named(MANIFEST)?)?;
        let json = |source| DocumentError::Json { what: "manifest.json", source };
        Ok(serde_json::from_slice(&text).map_err(json)?)
    }
}

pub(crate) fn parse_tags(texts: &[String]) -> Result<Vec<Reference>, StoreError> {
    let mut tags = Vec::new();
    for text in texts {
        let tag = text.parse::<Reference>()?.with_default_tag();
        if tag.digest().is_some() {
            return Err(StoreError::NotATag(text.clone()));
        }
        tags.push(tag);
    }
    Ok(tags)
}

/// How a layer file is compressed, by its first bytes: old archives do not say.
fn sniff(path: &Path) -> Result<Compression, StoreError> {
    let mut head = [0u8; 6];
    let mut file = File::open(path).at("open", path)?;
    let n = layer::stream::fill(&mut file, &mut head).at("read", path)?;
    layer::stream::layer_compression(head.get(..n).unwrap_or_default())
        .ok_or_else(|| StoreError::archive(b"", "layer compressed with bzip2 or xz, which no image format allows"))
}
