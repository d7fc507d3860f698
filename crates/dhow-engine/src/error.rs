//! The engine's errors, in Docker's words where Docker has some.

use dhow_types::{Categorized, ErrorKind};
use std::io;
use std::path::{Path, PathBuf};

/// Anything a verb can fail with.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A file system operation on the engine's own state failed.
    #[error("cannot {operation} {path}")]
    State {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A record on disk cannot be read.
    #[error("the record {path} is damaged: {reason}")]
    Record {
        /// Which record.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No such container.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// The image is not in the local store.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// No object of any kind has this name.
    #[error("No such object: {0}")]
    NoSuchObject(String),
    /// An id prefix fits several containers.
    #[error("multiple IDs found with provided prefix: {0}")]
    AmbiguousId(String),
    /// The name is taken.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// Name.
        name: String,
        /// Container that has it.
        holder: String,
    },
    /// The container is in the wrong state for the verb.
    #[error("{message}")]
    WrongState {
        /// Docker's words.
        message: String,
        /// The way out.
        hint: Option<&'static str>,
    },
    /// The object is already as asked.
    #[error("{0}")]
    Unchanged(String),
    /// A request that cannot be meant.
    #[error("{0}")]
    Invalid(String),
    /// Allowed to nobody.
    #[error("{0}")]
    Forbidden(String),
    /// Known to Docker, not done by dhow.
    #[error("{feature} is not supported yet")]
    Unsupported {
        /// What was asked for.
        feature: String,
    },
    /// A published port is taken.
    #[error("{message}")]
    PortInUse {
        /// Which port, and by whom.
        message: String,
    },
    /// The container could not be started.
    #[error("{message}")]
    StartFailed {
        /// 125, 126, 127 or 128, as the container's recorded exit code.
        code: u8,
        /// The launch error in one line.
        message: String,
    },
    /// The monitor ended without saying what became of the container.
    #[error("the monitor of container {0} ended unexpectedly")]
    MonitorDied(String),
    /// Content store.
    #[error(transparent)]
    Store(#[from] dhow_store::StoreError),
    /// Registry.
    #[error(transparent)]
    Registry(#[from] dhow_registry::RegistryError),
    /// Network.
    #[error(transparent)]
    Network(#[from] dhow_network::NetworkError),
    /// Launching or entering a container.
    #[error(transparent)]
    Launch(#[from] dhow_runtime::LaunchError),
    /// Looking at namespaces.
    #[error(transparent)]
    Namespaces(#[from] dhow_runtime::nsview::NsError),
    /// Logs.
    #[error(transparent)]
    Log(#[from] dhow_logs::LogError),
    /// The attach connection.
    #[error(transparent)]
    Monitor(#[from] dhow_monitor::MonitorError),
    /// An image document.
    #[error(transparent)]
    Document(#[from] dhow_oci::image::DocumentError),
    /// The builder.
    #[error(transparent)]
    Build(#[from] dhow_build::BuildError),
    /// `--verify` found another image.
    #[error("the build gave {built} instead of {wanted}: {how}")]
    Differs {
        /// Id of the image that was built.
        built: dhow_types::Digest,
        /// What was expected.
        wanted: dhow_types::Digest,
        /// Where they part.
        how: String,
    },
    /// Something that a build fetches.
    #[error(transparent)]
    Remote(#[from] crate::build::RemoteError),
    /// An image is not offered for the platform that is wanted.
    #[error("no matching manifest for {wanted} in the manifest list entries: the image is offered for {offered}")]
    NoMatchingPlatform {
        /// The platform.
        wanted: String,
        /// What there is, separated by commas.
        offered: String,
    },
    /// A push of a name that no local image has.
    #[error("An image does not exist locally with the tag: {0}")]
    NotTagged(String),
}

impl EngineError {
    /// Wraps an I/O error of the engine's own state.
    pub(crate) fn state(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::State { operation, path, source }
    }

    /// The same for rustix's error type.
    pub(crate) fn errno(operation: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_owned();
        move |e| Self::State { operation, path, source: e.into() }
    }
}

impl Categorized for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::State { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
                io::ErrorKind::PermissionDenied => ErrorKind::Forbidden,
                _ => ErrorKind::Internal,
            },
            Self::Record { .. } => ErrorKind::Corrupt,
            Self::NoSuchContainer(_) | Self::NoSuchImage(_) | Self::NoSuchObject(_) => ErrorKind::NotFound,
            Self::NameInUse { .. } | Self::WrongState { .. } | Self::PortInUse { .. } => ErrorKind::Conflict,
            Self::Unchanged(_) => ErrorKind::Unchanged,
            Self::AmbiguousId(_) | Self::Invalid(_) => ErrorKind::Invalid,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::StartFailed { code: 127, .. } => ErrorKind::CommandNotFound,
            Self::StartFailed { code: 126, .. } => ErrorKind::CommandNotExecutable,
            Self::StartFailed { .. } | Self::MonitorDied(_) => ErrorKind::Internal,
            Self::Store(e) => e.kind(),
            Self::Registry(e) => e.kind(),
            Self::Network(e) => e.kind(),
            Self::Launch(e) => e.kind(),
            Self::Namespaces(e) => e.kind(),
            Self::Log(e) => e.kind(),
            Self::Monitor(e) => e.kind(),
            Self::Document(_) => ErrorKind::Corrupt,
            Self::Build(e) => e.kind(),
            Self::Remote(e) => e.kind(),
            Self::Differs { .. } => ErrorKind::Conflict,
            Self::NoMatchingPlatform { .. } | Self::NotTagged(_) => ErrorKind::NotFound,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::State { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some("run dhow as root".to_owned()),
                io::ErrorKind::StorageFull => Some("free space with `dhow rm` and `dhow rmi`".to_owned()),
                _ => None,
            },
            Self::Record { .. } => Some("remove the container with `dhow rm -f`".to_owned()),
            Self::WrongState { hint, .. } => hint.map(str::to_owned),
            Self::Store(e) => e.hint(),
            Self::Registry(e) => e.hint(),
            Self::Network(e) => e.hint(),
            Self::Launch(e) => e.hint(),
            Self::Build(e) => e.hint(),
            Self::Remote(e) => e.hint(),
            Self::NotTagged(_) => Some("give the image that name with: dhow tag IMAGE NAME".to_owned()),
            _ => None,
        }
    }
}
