//! Writing to the disk early, so that making an operation durable at its end does not mean waiting for all of it.
//!
//! The kernel starts to write dirty pages when they fill a tenth of the memory, or after half a minute. A pull is over by
//! then and would wait for everything in its one `syncfs`. So while layers unpack, a thread syncs the file system each time
//! that a good piece has been written; the disk works while the processors inflate. The last `syncfs`, the one that counts,
//! finds little left. An error that an early one met fails the last one too: the kernel reports it once.

use crate::error::{At, StoreError};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

/// Bytes after which the disk gets something to do.
const PIECE: u64 = 256 << 20;

/// See the module. One per open store.
#[derive(Debug, Default)]
pub(crate) struct Writeback {
    /// The root of the store, opened before anything is written, so that errors since then are reported to it.
    root: OnceLock<Arc<OwnedFd>>,
    unsynced: AtomicU64,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    thread: Option<JoinHandle<rustix::io::Result<()>>>,
    failed: Option<rustix::io::Errno>,
}

impl Running {
    /// Notes how the last thread ended.
    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => self.failed = Some(e),
                Err(_) => self.failed = Some(rustix::io::Errno::IO),
            }
        }
    }
}

impl Writeback {
    /// To be called before anything is written that [`finish`](Self::finish) has to make durable.
    pub(crate) fn begin(&self, root: &Path) -> Result<(), StoreError> {
        if self.root.get().is_none() {
            let fd = Arc::new(crate::disk::open_dir(root)?);
            // Another thread may have been faster; either descriptor will do.
            let _ = self.root.set(fd);
        }
        Ok(())
    }

    /// Counts bytes that were written, and now and then lets a thread sync them.
    pub(crate) fn wrote(&self, bytes: u64) {
        if self.unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes < PIECE {
            return;
        }
        let Some(root) = self.root.get() else { return };
        // Somebody else is at it: the next piece will do.
        let Ok(mut running) = self.running.try_lock() else { return };
        if running.thread.as_ref().is_some_and(|t| !t.is_finished()) {
            return;
        }
        running.join();
        self.unsynced.store(0, Ordering::Relaxed);
        let root = Arc::clone(root);
        let spawned =
            std::thread::Builder::new().name("writeback".to_owned()).spawn(move || rustix::fs::syncfs(&*root));
        // Without a thread the end just takes longer.
        running.thread = spawned.ok();
    }

    /// Makes everything that was written durable, and tells if any of it was lost. No thread is left when it returns.
    pub(crate) fn finish(&self, root: &Path) -> Result<(), StoreError> {
        self.begin(root)?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.join();
        self.unsynced.store(0, Ordering::Relaxed);
        let result = match (running.failed, self.root.get()) {
            (Some(e), _) => Err(e),
            (None, Some(fd)) => rustix::fs::syncfs(&**fd),
            (None, None) => Ok(()),
        };
        result.at("sync file system of", root)
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        self.running.get_mut().unwrap_or_else(PoisonError::into_inner).join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_failure_is_not_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        let writeback = Writeback::default();
        // Baseline.
        writeback.begin(temp.path()).unwrap();
        writeback.wrote(PIECE);
        writeback.finish(temp.path()).unwrap();
        let failing = std::thread::spawn(|| Err(rustix::io::Errno::IO));
        writeback.running.lock().unwrap().thread = Some(failing);
        for _ in 0..2 {
            let error = writeback.finish(temp.path()).unwrap_err();
            assert!(dhow_types::report(&error).contains("sync file system"), "{error}");
        }
    }
}
