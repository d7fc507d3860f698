//! What `dhow info` tells: the engine's counts and what the host can do.

use crate::{Engine, EngineError, Status};
use dhow_runtime::probe::{self, HostReport, Storage};

/// Counts and host report.
#[derive(Debug, Clone)]
pub struct Info {
    /// Containers in all.
    pub containers: usize,
    /// Of these running.
    pub running: usize,
    /// Of these frozen.
    pub paused: usize,
    /// Of these neither.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// The host.
    pub host: HostReport,
    /// The file system of the persistent root.
    pub storage: Option<Storage>,
    /// Tables of other programs that drop forwarded packets, and so keep containers from the network.
    pub forward_blockers: Vec<String>,
    /// Records that cannot be read.
    pub damaged: Vec<String>,
}

impl Engine {
    /// Looks at the engine and the host.
    pub fn info(&self) -> Result<Info, EngineError> {
        let (containers, damaged) = self.containers()?;
        let count = |status| containers.iter().filter(|c| c.state.status == status).count();
        let (running, paused) = (count(Status::Running), count(Status::Paused));
        Ok(Info {
            containers: containers.len(),
            running,
            paused,
            stopped: containers.len() - running - paused,
            images: self.store().images()?.len(),
            host: probe::host(),
            storage: probe::storage(self.paths.root()).ok(),
            forward_blockers: dhow_network::forward_blockers(),
            damaged: damaged.iter().map(|e| dhow_types::report(e)).collect(),
        })
    }
}
