//! The verbs: what a container engine does, without any user interface.
//!
//! There is no daemon. Every command opens the [`Engine`] on the same directories, does its work under locks that the
//! kernel releases when their holder dies, and leaves. Whatever a killed process left in the middle is finished or
//! undone by [`Engine::heal`], which looks only at live locks and at staging areas.
//!
//! Deliberately absent: printing, environment variables, command-line or API text.

mod build;
mod container;
mod error;
mod files;
mod heal;
mod image;
mod info;
mod live;
mod namespaces;
mod paths;
pub mod view;

pub use build::{
    Annotation, AnnotationTarget, BuildContext, BuildEvent, BuildOptions, BuildOutput, BuildRequest, BuildSpec,
    CacheEntry, CacheFrom, CacheKind, CachePrune, CacheTo, DockerfileSource, Entitlements, ExportSpec, Exported,
    Exports, Imports, MAX_SECRET, NamedContext, RemoteError, RemoteStep, RunLimits, SecretReader, SecretSource,
    SecretSpec, SshSpec, UsedStep, git_commit_time,
};
pub use container::{
    AttachRequest, CommitSpec, Container, Created, ExecSpec, Executed, Record, RemoveOptions, State, Status,
    monitor_main, record,
};
pub use dhow_monitor::{Client, Frame};
pub use error::EngineError;
pub use image::{Progress, ProgressEvent, Pulled, Pushed};
pub use info::Info;
pub use namespaces::{NamespaceRow, NamespaceTable, NamespaceUse};
pub use paths::Paths;

use dhow_network::{Bridge, BridgeNames};
use dhow_registry::{Client as RegistryClient, Credentials, RegistryConfig};
use dhow_store::Store;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Where the engine's state is, and how it talks to registries.
pub struct EngineConfig {
    /// Persistent root, `/var/lib/dhow`.
    pub root: PathBuf,
    /// Runtime root, `/run/dhow`.
    pub run_root: PathBuf,
    /// Registries.
    pub registry: RegistryConfig,
    /// Credentials.
    pub credentials: Arc<dyn Credentials + Send + Sync>,
}

/// An open engine. Opening is cheap; parts are opened when first needed.
pub struct Engine {
    pub(crate) paths: Paths,
    store: Store,
    registry: RegistryClient,
    bridge: OnceCell<Bridge>,
    boot_id: OnceLock<String>,
}

/// The default runtime root; others get network names of their own.
pub const DEFAULT_RUN_ROOT: &str = "/run/dhow";

impl Engine {
    /// Opens the engine, making its directories if they do not exist.
    pub fn open(config: EngineConfig) -> Result<Self, EngineError> {
        files::make_dir(&config.run_root)?;
        Ok(Self {
            store: Store::open(&config.root)?,
            registry: RegistryClient::new(config.registry, config.credentials),
            paths: Paths::new(&config.root, &config.run_root),
            bridge: OnceCell::new(),
            boot_id: OnceLock::new(),
        })
    }

    /// Opens the engine in a monitor, which never talks to a registry.
    pub(crate) fn for_monitor(root: &Path, run: &Path) -> Result<Self, EngineError> {
        Self::open(EngineConfig {
            root: root.to_owned(),
            run_root: run.to_owned(),
            registry: RegistryConfig::default(),
            credentials: Arc::new(dhow_registry::NoCredentials),
        })
    }

    /// Where things are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The content store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The registry client.
    pub fn registry(&self) -> &RegistryClient {
        &self.registry
    }

    /// The default bridge.
    pub(crate) fn bridge(&self) -> Result<&Bridge, EngineError> {
        if let Some(bridge) = self.bridge.get() {
            return Ok(bridge);
        }
        let bridge = Bridge::open(self.paths.root(), self.paths.run(), &self.bridge_names())?;
        Ok(self.bridge.get_or_init(|| bridge))
    }

    /// Bridge and table are shared by everything in a network namespace, so engines on other roots use other names.
    fn bridge_names(&self) -> BridgeNames {
        let run = self.paths.run();
        if run == Path::new(DEFAULT_RUN_ROOT) {
            return BridgeNames { bridge: "dhow0".to_owned(), table: "dhow".to_owned() };
        }
        let hash = dhow_types::Digest::of(run.as_os_str().as_encoded_bytes()).hex();
        let short = hash.get(..8).unwrap_or_default();
        BridgeNames { bridge: format!("dhow-{short}"), table: format!("dhow-{short}") }
    }

    /// The running boot's id (random(4), `/proc/sys/kernel/random/boot_id`).
    pub(crate) fn boot_id(&self) -> Result<&str, EngineError> {
        if let Some(id) = self.boot_id.get() {
            return Ok(id);
        }
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let id = dhow_sys::process::boot_id().map_err(EngineError::state("read", path))?;
        Ok(self.boot_id.get_or_init(|| id))
    }
}
