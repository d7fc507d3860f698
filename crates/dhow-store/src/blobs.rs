//! Complete blobs: verified, durable, read-only.

use crate::Store;
use crate::disk::{self, TmpFile};
use crate::error::{At, StoreError};
use crate::lease::Object;
use dhow_types::{Digest, Hasher};
use std::fs::File;
use std::io::{self, Read};

impl Store {
    /// Size of a blob in bytes, `None` when it is not here. A blob that was found stays as long as this store is open.
    pub fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.layout.blob(digest);
        let size = |path| match std::fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        };
        if size(&path).at("inspect", &path)?.is_none() {
            return Ok(None);
        }
        self.lease(&[Object::Blob(*digest)])?;
        // It may have been deleted before the lease; not after.
        size(&path).at("inspect", &path)
    }

    /// Reads a blob of at most `limit` bytes and verifies it.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.layout.blob(digest);
        let bytes = disk::read_small(&path, limit)?.ok_or(StoreError::NoSuchBlob(*digest))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(StoreError::Mismatch { what: "blob", expected: *digest, found });
        }
        Ok(bytes)
    }

    /// Opens a blob for streaming. The reader verifies it, or sends it to somebody who does.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.layout.blob(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(StoreError::NoSuchBlob(*digest)),
            Err(e) => Err(e).at("open", &path),
        }
    }

    /// Stores bytes as a blob, durably. A damaged blob of that digest is replaced.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.reuse_blob(&digest)? {
            return Ok(digest);
        }
        let mut file = TmpFile::create(&self.layout.tmp(), "blob")?;
        file.write_all(bytes)?;
        self.commit_blob(file, &digest, true)?;
        Ok(digest)
    }

    /// Whether the blob is here and sound; if so it is leased.
    fn reuse_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        if self.has_blob(digest)?.is_none() {
            return Ok(false);
        }
        Ok(hash_file(self.open_blob(digest)?).at("read", &self.layout.blob(digest))? == *digest)
    }

    /// Moves a staged and verified file to its place.
    pub(crate) fn commit_blob(&self, file: TmpFile, digest: &Digest, sync: bool) -> Result<(), StoreError> {
        self.writable()?;
        let graph = self.shared_lock()?;
        let object = [Object::Blob(*digest)];
        self.lease_under(&graph, &object)?;
        self.leases().created(&object);
        file.persist(&self.layout.blob(digest), 0o444, sync)?;
        drop(graph);
        if sync {
            disk::sync_dir(&self.layout.blobs())?;
        }
        Ok(())
    }
}

/// Digest of the rest of a stream.
pub(crate) fn hash_file(mut reader: impl Read) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0u8; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
