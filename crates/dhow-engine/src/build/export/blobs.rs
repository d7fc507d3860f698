//! Blobs that are about to leave: where their bytes are, and layers in the compression that is asked for.

use crate::EngineError;
use dhow_oci::image::{Compression, Descriptor, media};
use dhow_store::{Encoding, ScratchDir, Store, StoreError};
use dhow_types::Digest;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// Bytes moved at once.
const CHUNK: usize = 256 << 10;

/// How layers are to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerOptions {
    pub(crate) encoding: Encoding,
    /// Layers that came as blobs of another compression are converted too.
    pub(crate) force: bool,
    /// The compression was asked for by name.
    pub(crate) chosen: bool,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self { encoding: Encoding { compression: Compression::Gzip, level: None }, force: false, chosen: false }
    }
}

impl LayerOptions {
    /// Whether anything differs from what a push does by itself.
    pub(super) fn is_special(&self) -> bool {
        self.encoding != Self::default().encoding || self.force
    }
}

/// Where the bytes of a blob are.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Here.
    Bytes(Vec<u8>),
    /// In the store, as a blob.
    Stored,
    /// In a file that lasts as long as the [`Encoder`] that made it.
    File(PathBuf),
}

/// One blob.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) size: u64,
    pub(crate) source: Source,
    /// The layer that it is.
    pub(crate) diff: Option<Digest>,
}

/// Blobs by digest.
#[derive(Debug, Default)]
pub(crate) struct Blobs(pub(crate) BTreeMap<Digest, Blob>);

impl Blobs {
    /// Adds a document and describes it.
    pub(crate) fn document(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        self.0.insert(digest, Blob { size, source: Source::Bytes(bytes), diff: None });
        Descriptor::new(media_type, digest, size)
    }

    /// Adds a file that is described elsewhere.
    pub(crate) fn add(&mut self, descriptor: &Descriptor, source: Source, diff: Option<Digest>) {
        self.0.insert(descriptor.digest, Blob { size: descriptor.size, source, diff });
    }
}

impl Blob {
    /// Opens it for reading.
    pub(crate) fn open(&self, store: &Store, digest: &Digest) -> Result<Box<dyn Read>, EngineError> {
        Ok(match &self.source {
            Source::Bytes(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Source::Stored => Box::new(store.open_blob(digest)?),
            Source::File(path) => Box::new(File::open(path).map_err(EngineError::state("open", path))?),
        })
    }

    /// Writes it somewhere, verified.
    pub(crate) fn write_to(&self, store: &Store, digest: &Digest, out: &mut dyn Write) -> Result<(), StoreError> {
        let mut reader = self.open(store, digest).map_err(|e| StoreError::Refused(dhow_types::report(&e)))?;
        let mut hasher = dhow_types::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(StoreError::Input { what: format!("blob {digest}"), source }),
            };
            let bytes = buffer.get(..n).unwrap_or_default();
            hasher.update(bytes);
            out.write_all(bytes).map_err(|source| StoreError::Output { what: "a blob", source })?;
        }
        let found = hasher.finish();
        if found == *digest { Ok(()) } else { Err(StoreError::Mismatch { what: "blob", expected: *digest, found }) }
    }
}

/// Makes blobs of layers. What it makes beyond what the store keeps is gone when it is.
pub(crate) struct Encoder<'a> {
    store: &'a Store,
    scratch: RefCell<Option<ScratchDir>>,
    made: RefCell<Vec<(Digest, Encoding, Descriptor, PathBuf)>>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store, scratch: RefCell::default(), made: RefCell::default() }
    }

    /// A path for a file of this encoder's.
    pub(crate) fn file(&self) -> Result<(PathBuf, File), EngineError> {
        let mut scratch = self.scratch.borrow_mut();
        if scratch.is_none() {
            *scratch = Some(self.store.new_upper()?);
        }
        let directory = scratch.as_ref().map(ScratchDir::path).unwrap_or(self.store.root());
        // Names are never used again: two encoders do not share a directory.
        for number in 0..u32::MAX {
            let path = directory.join(format!("blob-{number}"));
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((path, file)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(EngineError::state("create", &path)(e)),
            }
        }
        Err(EngineError::Invalid("too many layers".to_owned()))
    }

    /// The blob of a layer, and where it is.
    ///
    /// Layers that came as blobs (of base images) stay as they are unless `force` says otherwise; what was made here gets
    /// the compression that is wanted. So the result does not depend on what was pushed before.
    pub(crate) fn layer(&self, diff: &Digest, options: &LayerOptions) -> Result<(Descriptor, Source), EngineError> {
        if !self.store.has_layer(diff)? {
            return Err(StoreError::NoSuchLayer(*diff).into());
        }
        let wanted = options.encoding;
        if let Some(known) = self.store.layer_blob(diff)?
            && !self.store.layer_is_own(diff)?
            && (known.layer_compression() == Some(wanted.compression)
                || (!options.force && known.layer_compression() != Some(Compression::None)))
        {
            return Ok((known, Source::Stored));
        }
        if wanted == LayerOptions::default().encoding && !options.force {
            return Ok((self.store.compressed_layer(diff)?, Source::Stored));
        }
        if let Some((_, _, made, path)) = self.made.borrow().iter().find(|(d, e, ..)| d == diff && *e == wanted) {
            return Ok((made.clone(), Source::File(path.clone())));
        }
        let (path, file) = self.file()?;
        let (digest, size) = self.store.encode_layer(diff, wanted, file)?;
        let kind = match wanted.compression {
            Compression::None => media::OCI_LAYER,
            Compression::Gzip => media::OCI_LAYER_GZIP,
            Compression::Zstd => media::OCI_LAYER_ZSTD,
        };
        let descriptor = Descriptor::new(kind, digest, size);
        self.made.borrow_mut().push((*diff, wanted, descriptor.clone(), path.clone()));
        Ok((descriptor, Source::File(path)))
    }
}
