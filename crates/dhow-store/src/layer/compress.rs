//! Compressed blobs of layers, for pushing.

use super::gzip::GzipWriter;
use super::meta::{self, Meta};
use crate::Store;
use crate::disk::TmpFile;
use crate::error::{At, StoreError};
use crate::lease::{GraphLock, Object};
use dhow_oci::image::{Compression, Descriptor, media};
use dhow_types::{Digest, Hasher};
use std::io::{self, Write};
use std::path::Path;

impl Store {
    /// A compressed blob of a layer: the one that it was pulled as, the one made by an earlier call, or one made now. The
    /// same layer gives the same bytes on every machine.
    pub fn compressed_layer(&self, diff: &Digest) -> Result<Descriptor, StoreError> {
        let layer = self.layout.layer(diff);
        Meta::read(&layer)?.ok_or(StoreError::NoSuchLayer(*diff))?;
        if let Some(known) = meta::read_source(&layer)? {
            let plain = known.layer_compression() == Some(Compression::None);
            if !plain && self.has_blob(&known.digest)? == Some(known.size) {
                return Ok(known);
            }
        }
        self.writable()?;
        let file = TmpFile::create(&self.layout.tmp(), "gzip")?;
        let path = file.path().to_owned();
        let counting = Counting { out: file.file(), hasher: Hasher::new(), written: 0 };
        let mut writer = GzipWriter::new(counting).at("compress into", &path)?;
        self.write_layer_tar(diff, &mut writer).map_err(|e| match e {
            StoreError::Output { source, .. } => StoreError::Io { op: "write", path: path.clone(), source },
            e => e,
        })?;
        let done = writer.finish().at("write", &path)?;
        let (digest, size) = (done.hasher.finish(), done.written);
        self.commit_blob(file, &digest, true)?;
        let descriptor = Descriptor::new(media::OCI_LAYER_GZIP, digest, size);
        self.replace_source(&layer, &descriptor)?;
        Ok(descriptor)
    }

    /// Records a new source of a layer and deletes the old one if nothing else needs it.
    fn replace_source(&self, layer: &Path, new: &Descriptor) -> Result<(), StoreError> {
        let graph = GraphLock::exclusive(&self.layout.graph_lock())?;
        let old = meta::read_source(layer)?.filter(|old| old.digest != new.digest);
        meta::write_source(&self.layout.tmp(), layer, new)?;
        self.leases().referenced(&[Object::Blob(new.digest)]);
        let Some(old) = old else { return Ok(()) };
        let live = self.live_objects(&graph, None)?;
        self.doom(&graph, &[Object::Blob(old.digest)], &live, || Ok(()))?.finish()
    }
}

struct Counting<'a> {
    out: &'a std::fs::File,
    hasher: Hasher,
    written: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..n).unwrap_or_default());
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
