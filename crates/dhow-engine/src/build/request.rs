//! What is asked of a build beside its instructions: where results go, where caches are, what commands may see.

use dhow_types::{Digest, Platform};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use dhow_build::{Entitlements, NamedContext, RunLimits};

/// Requests that surround a build.
#[derive(Default)]
pub struct BuildRequest {
    /// `--output`, as typed; `--push` is `type=registry`. Empty: the image goes into the store.
    pub outputs: Vec<String>,
    /// Standard output, for outputs that go there.
    pub stdout: Option<std::fs::File>,
    /// `--cache-from`, as typed.
    pub cache_from: Vec<String>,
    /// `--cache-to`, as typed.
    pub cache_to: Vec<String>,
    /// `--secret`.
    pub secrets: Vec<SecretSpec>,
    /// Reads a secret when a command asks for it.
    pub secret_reader: Option<Arc<dyn SecretReader>>,
    /// `--ssh`.
    pub ssh: Vec<SshSpec>,
    /// `--metadata-file`: where to write what came out, as JSON.
    pub metadata_file: Option<PathBuf>,
    /// `--annotation`, as typed.
    pub annotations: Vec<String>,
    /// `--platform`, in order, each once. Several make an index. Empty: the host's.
    pub platforms: Vec<Platform>,
    /// `--verify`: the image id that must come out.
    pub verify: Option<Digest>,
}

/// A secret that commands may mount. Nothing of it is in results or cache keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    /// Name in `RUN --mount=type=secret,id=`.
    pub id: String,
    /// Where its value is.
    pub source: SecretSource,
}

/// Where the value of a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file of the host.
    File(PathBuf),
    /// In a variable of the caller's environment.
    Env(String),
}

/// Reads secrets. The caller does it: nothing below the front ends reads the environment.
pub trait SecretReader {
    /// The value, at most [`MAX_SECRET`] bytes.
    fn read(&self, secret: &SecretSpec) -> io::Result<Vec<u8>>;
}

/// Most bytes of a secret (BuildKit's limit).
pub const MAX_SECRET: u64 = 500 << 10;

/// Keys that commands may use by `RUN --mount=type=ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSpec {
    /// Name in `RUN --mount=type=ssh,id=`; `default` is what a mount without an id asks for.
    pub id: String,
    /// An agent's socket, or files with keys; never empty.
    pub paths: Vec<PathBuf>,
}

/// Something that builds remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Its name: what `--filter id=` takes.
    pub id: String,
    /// Entries that it is built on.
    pub parents: Vec<String>,
    /// What it is.
    pub kind: CacheKind,
    /// The instruction that made it, or what it holds.
    pub description: String,
    /// A build uses it at this moment.
    pub in_use: bool,
    /// Its bytes belong to an image or container as well, so that removing it frees nothing.
    pub shared: bool,
    /// Bytes on the disk.
    pub size: u64,
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub last_used: Option<i64>,
    /// How many builds used it.
    pub uses: u64,
}

/// Kinds of what builds remember, with BuildKit's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// `regular`: the result of a step.
    Step,
    /// `exec.cachemount`: a directory of `RUN --mount=type=cache`.
    Mount,
    /// `source.local`: what is known of files of a context.
    Context,
    /// `source.git.checkout`.
    Git,
    /// `source.http`.
    Http,
}

impl CacheKind {
    /// BuildKit's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "regular",
            Self::Mount => "exec.cachemount",
            Self::Context => "source.local",
            Self::Git => "source.git.checkout",
            Self::Http => "source.http",
        }
    }
}

/// What to remove of what builds remember. Without limits everything that is selected goes; with limits the least recently
/// used goes until they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachePrune {
    /// Entries that others are built on, too.
    pub all: bool,
    /// Bytes that are always kept.
    pub reserved_space: Option<u64>,
    /// Bytes that may stay at most.
    pub max_used_space: Option<u64>,
    /// Bytes that shall be free on the file system in the end.
    pub min_free_space: Option<u64>,
}
