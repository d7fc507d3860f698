//! Caches that travel between machines: `--cache-to` and `--cache-from`.
//!
//! Keys of steps are digests of what a step depends on, so what one machine remembers is true on every other. A cache is
//! an OCI artifact ([`record`]): the steps, and the blobs of their layers. Importing adds the steps to what this machine
//! remembers; a layer is fetched when a build needs it.

mod export;
mod import;
mod record;
mod spec;

pub use export::{UsedStep, inline};
pub use import::{Imports, RemoteStep};
pub use spec::{CacheFrom, CacheTo};

#[cfg(test)]
mod tests;
