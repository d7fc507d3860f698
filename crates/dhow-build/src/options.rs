//! What the caller asks of a build.

use dhow_types::{Platform, Reference};
use std::path::PathBuf;

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
    /// Stages, by name in lower case, of which nothing is taken from the cache.
    pub no_cache_filter: Vec<String>,
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
    /// Files copied from the context bear exactly that time: it stands for a commit, and a checkout's own times differ from
    /// machine to machine.
    pub uniform_times: bool,
    /// `--add-host`: (name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// `--build-context`: names that stand for other sources in `FROM`, `COPY --from` and `RUN --mount=from=`.
    pub contexts: Vec<(String, NamedContext)>,
    /// `--allow`: what the Dockerfile may ask for.
    pub entitlements: Entitlements,
    /// Limits of commands.
    pub limits: RunLimits,
    /// What tells this build's Dockerfile and context from others': builds of the same are compared with each other.
    pub identity: Vec<u8>,
    /// Every step that is not taken from the cache says why.
    pub explain: bool,
}

/// What a name of `--build-context` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of the host.
    Directory(PathBuf),
    /// `docker-image://REFERENCE`.
    Image(String),
    /// `oci-layout://PATH[:TAG][@DIGEST]`, without the scheme.
    Layout(String),
    /// An archive or a repository behind a URL, as typed.
    Remote(String),
    /// `target:STAGE` of the same Dockerfile.
    Stage(String),
}

/// What the caller lets commands do (BuildKit's entitlements).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`: `RUN --network=host`.
    pub host_network: bool,
    /// `security.insecure`: `RUN --security=insecure`.
    pub insecure: bool,
}

/// Limits of each command of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// `--shm-size` in bytes; Docker's 64 MiB when absent.
    pub shm_size: Option<u64>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--memory` in bytes.
    pub memory: Option<u64>,
    /// `--memory-swap` in bytes; -1 is unlimited.
    pub memory_swap: Option<i64>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpu-period` in microseconds.
    pub cpu_period: Option<u64>,
    /// `--cpu-quota` in microseconds.
    pub cpu_quota: Option<i64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
}
