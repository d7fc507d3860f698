//! Downloads: partial blobs that survive their process and the machine.
//!
//! `ingest/<hex>` holds the bytes so far, `ingest/<hex>.journal` how many of them are known to be on the disk and in which
//! boot that was written. In the same boot everything in the file is there (a killed process loses no written byte); after
//! another boot the file is cut to the journal's length, because a power cut can leave holes that read as zeros. What is
//! there is hashed again before more is added; the digest in the end judges it all.
//!
//! Whoever downloads holds an OFD lock on the partial file. A second process waits for it and then finds the blob complete,
//! or carries on where the first was killed.

use crate::Store;
use crate::disk;
use crate::error::{At, StoreError};
use crate::lease::Object;
use dhow_sys::lock::FileLock;
use dhow_types::{Digest, Hasher};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes between two syncs of a partial file: what a power cut can cost.
const SYNC_EVERY: u64 = 64 << 20;

/// An exclusive, resumable download of one blob. Dropping it keeps what was written.
#[derive(Debug)]
pub struct Ingest {
    store: Store,
    digest: Digest,
    size: u64,
    progress: Arc<Progress>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The blob was here, or came while we waited.
    Complete(File),
    Partial(Box<Partial>),
    Finished,
}

struct Partial {
    lock: FileLock,
    path: PathBuf,
    journal: PathBuf,
    hasher: Hasher,
    written: u64,
    synced: u64,
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partial").field("path", &self.path).field("written", &self.written).finish_non_exhaustive()
    }
}

/// What followers see.
#[derive(Debug)]
struct Progress {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy)]
struct Now {
    written: u64,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Growing,
    Verified,
    Failed,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Now> {
        // The guarded value is two plain numbers; it is whole even if a holder panicked.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, written: Option<u64>, end: Option<End>) {
        let mut now = self.lock();
        now.written = written.unwrap_or(now.written);
        now.end = end.unwrap_or(now.end);
        drop(now);
        self.changed.notify_all();
    }
}

#[derive(Serialize, Deserialize)]
struct Journal {
    version: u32,
    /// `/proc/sys/kernel/random/boot_id` of the boot that wrote it.
    boot: String,
    /// Bytes that were on the disk then.
    durable: u64,
}

impl Store {
    /// Starts or resumes the download of a blob of exactly `size` bytes. Waits while another process downloads the same
    /// one. When the blob is (meanwhile) here, the ingest [is complete](Ingest::is_complete) and needs no bytes.
    pub fn ingest(&self, digest: &Digest, size: u64) -> Result<Ingest, StoreError> {
        self.writable()?;
        loop {
            if let Some(found) = self.has_blob(digest)? {
                if found != size {
                    return Err(StoreError::Size { digest: *digest, expected: size, found });
                }
                let file = self.open_blob(digest)?;
                return Ok(Ingest::new(self, *digest, size, size, End::Verified, State::Complete(file)));
            }
            let path = self.layout.partial(digest);
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .at("open", &path)?;
            let lock = FileLock::acquire(file).at("lock", &path)?;
            // Finished or given up by the one we waited for?
            let held = lock.file().metadata().at("inspect", &path)?;
            match std::fs::symlink_metadata(&path) {
                Ok(now) if now.ino() == held.ino() && now.dev() == held.dev() => {}
                _ => continue,
            }
            if self.has_blob(digest)?.is_some() {
                continue;
            }
            let partial = Partial::resume(lock, path, self.layout.journal(digest), size)?;
            let written = partial.written;
            return Ok(Ingest::new(self, *digest, size, written, End::Growing, State::Partial(Box::new(partial))));
        }
    }

    /// Commits a finished download.
    fn finish_ingest(&self, partial: &mut Partial, digest: &Digest) -> Result<(), StoreError> {
        let file = partial.lock.file();
        rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(0o444)).at("set mode of", &partial.path)?;
        rustix::fs::fdatasync(file).at("sync", &partial.path)?;
        let graph = self.shared_lock()?;
        let object = [Object::Blob(*digest)];
        self.lease_under(&graph, &object)?;
        self.leases().created(&object);
        let to = self.layout.blob(digest);
        std::fs::rename(&partial.path, &to).at("rename into place", &to)?;
        drop(graph);
        disk::remove_file(&partial.journal)?;
        disk::sync_dir(&self.layout.blobs())
    }
}

impl Partial {
    fn resume(lock: FileLock, path: PathBuf, journal: PathBuf, size: u64) -> Result<Self, StoreError> {
        let boot = boot_id();
        let file = lock.file();
        let found = file.metadata().at("inspect", &path)?.len();
        let record: Option<Journal> =
            disk::read_small(&journal, 4096)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let trusted = match record {
            Some(Journal { version: 1, boot: then, .. }) if then == boot && !boot.is_empty() => found,
            Some(Journal { version: 1, durable, .. }) => found.min(durable),
            _ => 0,
        };
        // More than the blob can have is garbage.
        let mut kept = if trusted <= size { trusted } else { 0 };
        if kept < found {
            file.set_len(kept).at("truncate", &path)?;
        }
        let mut reader = file;
        reader.seek(SeekFrom::Start(0)).at("read", &path)?;
        let mut hasher = Hasher::new();
        let n = io::copy(&mut reader.take(kept), &mut hasher).at("read", &path)?;
        if n != kept {
            // Somebody cut the file under us: start over.
            kept = 0;
            hasher = Hasher::new();
            file.set_len(0).at("truncate", &path)?;
        }
        let mut writer = file;
        writer.seek(SeekFrom::Start(kept)).at("read", &path)?;
        note(&journal, kept)?;
        Ok(Self { lock, path, journal, hasher, written: kept, synced: kept })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let mut file = self.lock.file();
        file.write_all(bytes).at("write", &self.path)?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        if self.written - self.synced >= SYNC_EVERY {
            rustix::fs::fdatasync(file).at("sync", &self.path)?;
            self.synced = self.written;
            note(&self.journal, self.synced)?;
        }
        Ok(())
    }

    fn discard(&self) {
        // Errors leave garbage that the next attempt or heal removes.
        let _ = disk::remove_file(&self.path);
        let _ = disk::remove_file(&self.journal);
    }
}

impl Ingest {
    fn new(store: &Store, digest: Digest, size: u64, written: u64, end: End, state: State) -> Self {
        let now = Mutex::new(Now { written, end });
        Self {
            store: store.clone(),
            digest,
            size,
            progress: Arc::new(Progress { now, changed: Condvar::new() }),
            state,
        }
    }

    /// The blob is here already; no byte is needed.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete(_))
    }

    /// The digest that is downloaded.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes that are here: where the download has to go on.
    pub fn offset(&self) -> u64 {
        match &self.state {
            State::Partial(partial) => partial.written,
            State::Complete(_) | State::Finished => self.size,
        }
    }

    /// Starts from the first byte, for servers that cannot resume. Followers keep what they have read; if the bytes turn
    /// out different, verification fails.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        if let State::Partial(partial) = &mut self.state {
            let mut file = partial.lock.file();
            file.seek(SeekFrom::Start(0)).at("truncate", &partial.path)?;
            // Not truncated: followers may be reading, and the bytes are about to be the same.
            (partial.written, partial.synced, partial.hasher) = (0, 0, Hasher::new());
            note(&partial.journal, 0)?;
        }
        Ok(())
    }

    /// Adds bytes. More than the blob can have is refused and ends the download.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let State::Partial(partial) = &mut self.state else { return Ok(()) };
        if partial.written.saturating_add(bytes.len() as u64) > self.size {
            let error =
                StoreError::Size { digest: self.digest, expected: self.size, found: self.size.saturating_add(1) };
            partial.discard();
            self.progress.set(None, Some(End::Failed));
            return Err(error);
        }
        partial.write(bytes)?;
        self.store.writeback.wrote(bytes.len() as u64);
        let reached = partial.written;
        let seen = self.progress.lock().written;
        self.progress.set(Some(seen.max(reached)), None);
        Ok(())
    }

    /// Verifies size and digest and makes the blob visible, durably. A wrong digest deletes what was downloaded; a short
    /// download is kept for the next attempt.
    pub fn finish(&mut self) -> Result<(), StoreError> {
        let result = self.verify_and_commit();
        match &result {
            Ok(()) => {
                self.progress.set(Some(self.size), Some(End::Verified));
                if !self.is_complete() {
                    self.state = State::Finished;
                }
            }
            Err(_) => self.progress.set(None, Some(End::Failed)),
        }
        result
    }

    fn verify_and_commit(&mut self) -> Result<(), StoreError> {
        let State::Partial(partial) = &mut self.state else { return Ok(()) };
        if partial.written != self.size {
            return Err(StoreError::Size { digest: self.digest, expected: self.size, found: partial.written });
        }
        let found = partial.hasher.clone().finish();
        if found != self.digest {
            partial.discard();
            return Err(StoreError::Mismatch { what: "blob", expected: self.digest, found });
        }
        // After a restart the file may be longer than what was written last.
        partial.lock.file().set_len(self.size).at("truncate", &partial.path)?;
        self.store.finish_ingest(partial, &self.digest)
    }

    /// A reader of the growing file, for another thread. It ends only when the whole blob has been verified, and fails when
    /// the download does.
    pub fn follow(&self) -> Result<Follower, StoreError> {
        let file = match &self.state {
            State::Complete(file) => file.try_clone().at("duplicate descriptor of", Path::new("blob"))?,
            State::Partial(partial) => partial.lock.file().try_clone().at("duplicate descriptor of", &partial.path)?,
            State::Finished => return Err(StoreError::Interrupted(self.digest)),
        };
        Ok(Follower { file, position: 0, digest: self.digest, progress: Arc::clone(&self.progress) })
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.progress.lock().end == End::Growing {
            self.progress.set(None, Some(End::Failed));
        }
    }
}

/// See [`Ingest::follow`].
#[derive(Debug)]
pub struct Follower {
    file: File,
    position: u64,
    digest: Digest,
    progress: Arc<Progress>,
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut now = self.progress.lock();
        let available = loop {
            match now.end {
                End::Failed => return Err(StoreError::Interrupted(self.digest).into_io()),
                _ if now.written > self.position => break now.written - self.position,
                End::Verified => return Ok(0),
                End::Growing => {
                    now = self.progress.changed.wait(now).unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        drop(now);
        let n = usize::try_from(available).map_or(buffer.len(), |a| a.min(buffer.len()));
        let n = self.file.read_at(buffer.get_mut(..n).unwrap_or_default(), self.position)?;
        if n == 0 {
            return Err(StoreError::Interrupted(self.digest).into_io());
        }
        self.position += n as u64;
        Ok(n)
    }
}

/// Writes the journal of a partial download. A torn one means a download from the start, nothing worse, so no sync.
pub(crate) fn note(journal: &Path, durable: u64) -> Result<(), StoreError> {
    let record = Journal { version: 1, boot: boot_id(), durable };
    let text = serde_json::to_vec(&record).map_err(|e| StoreError::record(journal, e))?;
    std::fs::write(journal, text).at("write", journal)
}

/// Identifies this boot. An unknown one equals no other.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |s| s.trim().to_owned())
}
