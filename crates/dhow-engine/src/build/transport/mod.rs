//! Caches that travel between machines: `--cache-to` and `--cache-from`.
//!
//! Keys of steps are digests of what a step depends on, so what one machine remembers is true on every other. A cache is
//! an OCI artifact ([`record`]): the steps, and the blobs of their layers. Importing adds the steps to what this machine
//! remembers; a layer is fetched when a build needs it.

mod export;
mod import;
mod record;
mod session;
mod spec;

pub use export::{UsedStep, inline};
pub use import::{Imports, RemoteStep};
pub(super) use session::Session;
pub use spec::{CacheFrom, CacheTo};

use crate::{Engine, EngineError};
use dhow_types::Digest;
use std::path::PathBuf;

/// Directory of a cache mount. Its name is hashed, so that no id can lead anywhere.
fn mount_directory(engine: &Engine, id: &str) -> Result<PathBuf, EngineError> {
    Ok(super::cache::folder(engine, "mounts")?.join(Digest::of(id.as_bytes()).hex()))
}

#[cfg(test)]
mod tests;
