//! Where the engine's state lives. See `docs/formats/containers.md`.

use dhow_types::ContainerId;
use std::path::{Path, PathBuf};

/// The persistent and the runtime root and what lies below them.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
    run: PathBuf,
}

impl Paths {
    /// Paths below a persistent root (survives reboots) and a runtime root (does not).
    pub fn new(root: &Path, run: &Path) -> Self {
        Self { root: root.to_owned(), run: run.to_owned() }
    }

    /// Persistent root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Runtime root.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// All containers.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// One container.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(id.as_str())
    }

    /// A container that is being created; not in any list.
    pub fn new_container(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(format!(".new-{id}"))
    }

    /// A container that is being deleted; not in any list.
    pub fn trashed_container(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(format!(".trash-{id}"))
    }

    /// All names: symbolic links to ids.
    pub fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Volumes.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// One locked file for each container somebody is responsible for.
    pub fn live(&self) -> PathBuf {
        self.run.join("live")
    }

    /// That file of one container.
    pub fn live_lock(&self, id: &ContainerId) -> PathBuf {
        self.run.join("live").join(id.as_str())
    }

    /// Runtime directory of one container: the monitor's socket.
    pub fn runtime(&self, id: &ContainerId) -> PathBuf {
        self.run.join("c").join(id.as_str())
    }

    /// Path of the container's cgroup below every hierarchy's root.
    pub fn cgroup(id: &ContainerId) -> String {
        format!("dhow/{id}")
    }
}

/// Name of the monitor's socket in the runtime directory.
pub const SOCKET: &str = "sock";
/// Container record.
pub const CONFIG: &str = "config.json";
/// Container state.
pub const STATE: &str = "state.json";
