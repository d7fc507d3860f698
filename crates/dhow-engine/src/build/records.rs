//! Records of earlier builds, for explanations: small files by name that may be lost at any time.

use crate::{Engine, EngineError, files};
use dhow_types::Digest;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

/// Largest record that is read: a list of a million files.
const MAX: u64 = 256 << 20;

/// `cache/explain/<name>`.
pub(super) struct Records {
    dir: PathBuf,
    fresh: RefCell<HashMap<Digest, Vec<u8>>>,
}

impl Records {
    pub(super) fn new(engine: &Engine) -> Self {
        Self { dir: engine.paths().root().join("cache/explain"), fresh: RefCell::default() }
    }

    /// A record, if it is there.
    pub(super) fn get(&self, name: &Digest) -> Option<Vec<u8>> {
        if let Some(bytes) = self.fresh.borrow().get(name) {
            return Some(bytes.clone());
        }
        let path = self.dir.join(name.hex());
        let size = std::fs::metadata(&path).ok()?.len();
        if size > MAX { None } else { std::fs::read(path).ok() }
    }

    /// Remembers a record; it is written by [`Records::flush`].
    pub(super) fn put(&self, name: &Digest, bytes: Vec<u8>) {
        self.fresh.borrow_mut().insert(*name, bytes);
    }

    /// Writes what is new.
    pub(super) fn flush(&self, engine: &Engine) -> Result<(), EngineError> {
        let fresh = self.fresh.take();
        if fresh.is_empty() {
            return Ok(());
        }
        let dir = super::cache::folder(engine, "explain")?;
        for (name, bytes) in fresh {
            files::replace(&dir.join(name.hex()), &bytes)?;
        }
        Ok(())
    }
}
