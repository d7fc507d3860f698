//! A layer's tar in the compression that somebody asks for, written to where they say.
//!
//! [`Store::compressed_layer`] makes the blob that pushes use and keeps it. What is here keeps nothing.

use super::gzip::GzipWriter;
use super::meta::{self, Meta};
use super::upper::write_tree_tar;
use crate::Store;
use crate::error::StoreError;
use dhow_oci::image::{Compression, Descriptor};
use dhow_types::{Digest, Hasher};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

/// How a layer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// Compression.
    pub compression: Compression,
    /// Its level: 0 to 9 for gzip, 0 (the default level) to 22 for zstd.
    pub level: Option<u32>,
}

impl Store {
    /// Writes a layer's tar, compressed as asked. Returns the digest and the number of the bytes written; both depend on
    /// the layer and the encoding alone.
    pub fn encode_layer(&self, diff: &Digest, how: Encoding, out: impl Write) -> Result<(Digest, u64), StoreError> {
        encode(how, out, &mut |writer| self.write_layer_tar(diff, writer))
    }

    /// The blob that a layer came as or was last pushed as, if it is here; it stays as long as this store is open.
    pub fn layer_blob(&self, diff: &Digest) -> Result<Option<Descriptor>, StoreError> {
        let Some(known) = meta::read_source(&self.layout.layer(diff))? else { return Ok(None) };
        Ok((self.has_blob(&known.digest)? == Some(known.size)).then_some(known))
    }

    /// Whether a layer was made here, so that its files alone give its tar; otherwise it came as a blob.
    pub fn layer_is_own(&self, diff: &Digest) -> Result<bool, StoreError> {
        Ok(Meta::read(&self.layout.layer(diff))?.ok_or(StoreError::NoSuchLayer(*diff))?.canonical)
    }

    /// Remembers, durably, that a blob that is here is this layer. Without that a layer that came as a blob cannot be sent
    /// on, because its files need not give the same tar.
    pub fn note_layer_blob(&self, diff: &Digest, blob: &Descriptor) -> Result<(), StoreError> {
        self.writable()?;
        let layer = self.layout.layer(diff);
        if self.layer_blob(diff)?.is_some() {
            return Ok(());
        }
        let _graph = self.shared_lock()?;
        let plain = Descriptor::new(&blob.media_type, blob.digest, blob.size);
        meta::write_source(&self.layout.tmp(), &layer, &plain)?;
        self.leases().referenced(&[crate::lease::Object::Blob(blob.digest)]);
        Ok(())
    }
}

/// Writes everything below a directory as a tar, compressed as asked. Returns the digest and the number of the bytes
/// written.
pub fn encode_tree(root: BorrowedFd<'_>, how: Encoding, out: impl Write) -> Result<(Digest, u64), StoreError> {
    encode(how, out, &mut |writer| write_tree_tar(root, writer))
}

fn encode(
    how: Encoding,
    out: impl Write,
    fill: &mut dyn FnMut(&mut dyn Write) -> Result<(), StoreError>,
) -> Result<(Digest, u64), StoreError> {
    let mut counting = Counting { out, hasher: Hasher::new(), written: 0 };
    let failed = |source| StoreError::Output { what: "the layer", source };
    match how.compression {
        Compression::None => fill(&mut counting)?,
        Compression::Gzip => {
            let mut writer = GzipWriter::with_level(&mut counting, how.level).map_err(failed)?;
            fill(&mut writer)?;
            writer.finish().map_err(failed)?;
        }
        Compression::Zstd => {
            let level = how.level.map_or(0, |l| i32::try_from(l.min(22)).unwrap_or(0));
            let mut writer = zstd::stream::write::Encoder::new(&mut counting, level).map_err(failed)?;
            fill(&mut writer)?;
            writer.finish().map_err(failed)?;
        }
    }
    counting.flush().map_err(failed)?;
    Ok((counting.hasher.finish(), counting.written))
}

struct Counting<W> {
    out: W,
    hasher: Hasher,
    written: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..n).unwrap_or_default());
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::stream::decoder;
    use std::io::Read;

    #[test]
    fn every_encoding_gives_the_tar_again() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("store")).unwrap();
        let upper = temp.path().join("upper");
        std::fs::create_dir(&upper).unwrap();
        std::fs::write(upper.join("file"), vec![b'x'; 3 << 20]).unwrap();
        let staged = store.stage_upper(&upper, true).unwrap();
        let diff = *staged.diff_id();
        store.publish(vec![staged]).unwrap();
        assert!(store.layer_is_own(&diff).unwrap());
        let all = [
            (Compression::None, None),
            (Compression::Gzip, None),
            (Compression::Gzip, Some(0)),
            (Compression::Gzip, Some(9)),
            (Compression::Zstd, None),
            (Compression::Zstd, Some(19)),
        ];
        for (compression, level) in all {
            let mut bytes = Vec::new();
            let (digest, size) = store.encode_layer(&diff, Encoding { compression, level }, &mut bytes).unwrap();
            assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
            let mut tar = Vec::new();
            decoder(bytes.as_slice(), compression).unwrap().read_to_end(&mut tar).unwrap();
            assert_eq!(Digest::of(&tar), diff, "{compression:?} {level:?}");
        }
        // The default level is the one that pushes use.
        let pushed = store.compressed_layer(&diff).unwrap();
        let gzip = Encoding { compression: Compression::Gzip, level: None };
        assert_eq!(store.encode_layer(&diff, gzip, io::sink()).unwrap(), (pushed.digest, pushed.size));
        assert_eq!(store.layer_blob(&diff).unwrap().unwrap().digest, pushed.digest);
    }
}
