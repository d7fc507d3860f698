//! What the caller asks of a build.

use dhow_types::{Platform, Reference};

/// Options of a build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Names of the result.
    pub tags: Vec<Reference>,
    /// `--build-arg`, values resolved.
    pub build_args: Vec<(String, String)>,
    /// `--label`, set after the Dockerfile's.
    pub labels: Vec<(String, String)>,
    /// Nothing is taken from the cache.
    pub no_cache: bool,
    /// Base images are pulled even when they are there.
    pub pull: bool,
    /// Stage to build, by name or index; the last one when absent.
    pub target: Option<String>,
    /// `--network` of `RUN`: empty or `default` is the engine's default.
    pub network: String,
    /// `--platform`; the host's when absent.
    pub platform: Option<Platform>,
    /// `SOURCE_DATE_EPOCH`: Unix seconds that no timestamp of the result exceeds.
    pub source_date_epoch: Option<i64>,
    /// `--add-host`: (name, address).
    pub extra_hosts: Vec<(String, String)>,
}
