//! What the builder needs from its surroundings. The engine implements it over the store and the runtime; tests
//! implement it in memory.

use crate::context::FileStat;
use crate::drive::Pending;
use crate::options::RunLimits;
use crate::remote::RemoteSource;
use dhow_dockerfile::{CacheSharing, RunNetwork};
use dhow_oci::image::ImageConfig;
use dhow_types::{Categorized, Digest, ErrorKind, Platform, Timestamp};
use std::fmt;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// An error of the surroundings. It shows as the error it wraps.
#[derive(Debug)]
pub struct BackendError {
    kind: ErrorKind,
    hint: Option<String>,
    inner: Box<dyn std::error::Error + Send + Sync>,
}

impl BackendError {
    /// Wraps a typed error.
    pub fn new(error: impl Categorized + Send + Sync + 'static) -> Self {
        Self { kind: error.kind(), hint: error.hint(), inner: Box::new(error) }
    }

    /// An error that has only a text.
    pub fn text(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, hint: None, inner: message.into().into() }
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl std::error::Error for BackendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source()
    }
}

impl Categorized for BackendError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// A base image.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Its id.
    pub id: Digest,
    /// Its config.
    pub config: ImageConfig,
}

/// What a step did, as the cache remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedStep {
    /// The layer it made; `None` when it changed nothing.
    pub layer: Option<Digest>,
    /// When.
    pub created: Timestamp,
}

/// Work on a root directory, done in a helper: the bytes come back, an error discards the changes.
pub type Work<'a> = dyn FnMut(BorrowedFd<'_>) -> Result<Vec<u8>, String> + 'a;

/// The outcome of [`Backend::edit`].
#[derive(Debug, Clone)]
pub struct Edited {
    /// The layer with the changes; `None` when nothing changed.
    pub layer: Option<Digest>,
    /// What the work returned.
    pub reply: Vec<u8>,
}

/// A command to run in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// `KEY=VALUE`, complete.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Host name.
    pub hostname: String,
    /// Network: the instruction's word.
    pub network: RunNetwork,
    /// Network of the build when the instruction says `default`: `bridge`, `host`, `none`, or as the caller typed it.
    pub build_network: String,
    /// Read-only files mounted for this command only.
    pub files: Vec<RunFile>,
    /// Mounts that the instruction asks for, in order.
    pub mounts: Vec<Mounted>,
    /// Additional `/etc/hosts` lines: (name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// Without confinement: `RUN --security=insecure`.
    pub insecure: bool,
    /// Limits.
    pub limits: RunLimits,
}

/// A file that only one command sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFile {
    /// Absolute path in the container.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Content.
    pub content: Vec<u8>,
}

/// Something that only one command sees at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Absolute path in the container.
    pub target: String,
    /// Writes are refused. Writes to a scratch directory are lost in any case.
    pub read_only: bool,
    /// What is there.
    pub source: MountSource,
}

/// What a command sees at a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// Something in a directory made by [`Backend::scratch`].
    Scratch {
        /// Which.
        id: usize,
        /// A name in it.
        name: &'static str,
    },
    /// A directory that outlives the build.
    Cache {
        /// Its name.
        id: String,
        /// Who else may use it meanwhile.
        sharing: CacheSharing,
        /// Permission bits when it is made.
        mode: u32,
        /// User and group when it is made.
        owner: (u32, u32),
    },
    /// Memory, with a size in bytes.
    Memory(Option<u64>),
}

/// The outcome of [`Backend::run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOutcome {
    /// Exit code; 128 + n for a signal.
    pub exit_code: i64,
    /// The layer with the changes; `None` when nothing changed or the command failed.
    pub layer: Option<Digest>,
}

/// Something to fetch.
#[derive(Debug, Clone)]
pub struct RemoteRequest {
    /// From where.
    pub source: RemoteSource,
    /// `ADD --checksum`: the digest of a file, the commit of a repository.
    pub checksum: Option<String>,
    /// `ADD --keep-git-dir`.
    pub keep_git_dir: Option<bool>,
}

/// Name of a fetched file in the directory that [`RemoteTree::open`] returns (BuildKit's).
pub const REMOTE_FILE: &str = "context";

/// Something that is behind a URL: what it is is known, its content is fetched when it is needed.
pub trait RemoteTree {
    /// What the content depends on: a digest, or a commit with the options of the request. A key for caches.
    fn identity(&self) -> String;

    /// For a file, its name; a repository has none.
    fn file_name(&self) -> Option<String>;

    /// The directory with the content: [`REMOTE_FILE`], or the files of a repository. It lasts as long as this object.
    fn open(&self) -> Pending<'_, Result<OwnedFd, BackendError>>;
}

/// A step that this build does and nobody else meanwhile; see [`Backend::claim`]. Dropping it lets others do the step,
/// unless it was put into the cache.
pub trait Claim {}

/// For surroundings without other builds.
impl Claim for () {}

/// The builder's surroundings. The futures of several stages are driven at once.
pub trait Backend {
    /// Finds an image by reference or id, pulling it when it is not there or when `pull` asks for it. `platform` is given
    /// when the Dockerfile or the caller names one.
    fn resolve_image(
        &self,
        reference: &str,
        platform: Option<&Platform>,
        pull: bool,
    ) -> Result<BaseImage, BackendError>;

    /// A remembered step.
    fn cache_get(&self, key: &Digest) -> Result<Option<CachedStep>, BackendError>;

    /// Remembers a step. It may be lost; it must never name a layer that is not there to a later [`Backend::has_layer`].
    fn cache_put(&self, key: &Digest, step: &CachedStep) -> Result<(), BackendError>;

    /// Says what a step is that is about to be put: its instruction, and the topmost layer below it.
    fn describe(&self, _key: &Digest, _text: &str, _below: Option<&Digest>) {}

    /// Takes on a step that is not in the cache, waiting while another build is doing the same. After that the cache must
    /// be asked again.
    fn claim(&self, _key: Digest) -> Pending<'_, Result<Box<dyn Claim + '_>, BackendError>> {
        Box::pin(async { Ok(Box::new(()) as Box<dyn Claim>) })
    }

    /// Called now and then while there is nothing to do, for what other builds may ask of this one.
    fn tick(&self) {}

    /// Whether a layer can be used.
    fn has_layer(&self, layer: &Digest) -> Result<bool, BackendError>;

    /// Runs `work` on the merged root of some layers (lowest first) and keeps its changes as a layer. Changes are stamped
    /// not later than `clamp` (Unix seconds) if it is given.
    fn edit<'a>(
        &'a self,
        layers: &'a [Digest],
        clamp: Option<i64>,
        work: &'a mut Work<'a>,
    ) -> Pending<'a, Result<Edited, BackendError>>;

    /// Runs `work` on the merged root of some layers, read only. May be called from within the work of an edit.
    fn view<'a>(&'a self, layers: &'a [Digest], work: &'a mut Work<'a>) -> Pending<'a, Result<Vec<u8>, BackendError>>;

    /// Makes an empty directory that lasts until the [`Backend::run`] which mounts it is over. Returns its number and the
    /// directory, to be filled before.
    fn scratch(&self) -> Result<(usize, OwnedFd), BackendError>;

    /// Runs a command on the merged root and keeps its changes as a layer when it succeeds. `output` gets what the
    /// command writes; `true` is standard error.
    fn run<'a>(
        &'a self,
        layers: &'a [Digest],
        step: &'a RunStep,
        clamp: Option<i64>,
        output: &'a mut dyn FnMut(bool, &[u8]),
    ) -> Pending<'a, Result<RunOutcome, BackendError>>;

    /// Whether a file is a tar archive, possibly compressed. The file's position may change.
    fn is_archive(&self, file: &File) -> bool;

    /// Extracts an archive below `root`/`destination`, confined to the root. `owner` overrides the archive's owners.
    fn extract_archive(
        &self,
        root: BorrowedFd<'_>,
        destination: &Path,
        file: &File,
        owner: Option<(u32, u32)>,
    ) -> Result<(), BackendError>;

    /// The content digest remembered for a file that has not changed since.
    fn known_content(&self, _stat: &FileStat) -> Option<Digest> {
        None
    }

    /// Remembers the content digest of a file.
    fn remember_content(&self, _stat: &FileStat, _content: &Digest) {}

    /// What was remembered under a name. See [`crate::BuildOptions::explain`].
    fn recall(&self, _name: &Digest) -> Option<Vec<u8>> {
        None
    }

    /// Remembers something for later builds; it may be lost.
    fn remember(&self, _name: &Digest, _bytes: Vec<u8>) {}

    /// Finds out what is behind a URL or in a repository.
    fn remote<'a>(&'a self, request: RemoteRequest) -> Pending<'a, Result<Box<dyn RemoteTree + 'a>, BackendError>> {
        let text = format!("{} cannot be fetched here", request.source);
        Box::pin(async move { Err(BackendError::text(ErrorKind::Unsupported, text)) })
    }

    /// Loads an image from an OCI image layout: `PATH[:TAG][@DIGEST]`.
    fn load_layout(&self, layout: &str, _platform: Option<&Platform>) -> Result<BaseImage, BackendError> {
        Err(BackendError::text(ErrorKind::Unsupported, format!("the image layout {layout} cannot be read here")))
    }

    /// A secret that the caller gave, by id.
    fn secret(&self, _id: &str) -> Option<Vec<u8>> {
        None
    }

    /// Stores the finished image durably and returns its id. Its config may be completed before.
    fn put_image(&self, config: &[u8]) -> Result<Digest, BackendError>;

    /// The current time.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
