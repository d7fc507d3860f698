//! What this host offers: the facts behind `dhow info`.
//!
//! Every feature that dhow uses beyond plain Linux 5.15 has a row that says what it is for and what happens without it
//! ([`FEATURES`], the same table as `docs/kernel-features.md`). Features are tried, not derived from version numbers,
//! wherever trying changes nothing: distributions backport, and sandboxes take away.
//!
//! Deliberately absent: printing, the engine's own state, and any change to the host.

mod facts;
mod features;

pub use facts::{Kernel, Limit, Machine, Security, Storage, storage};
pub use features::{FEATURES, Feature};

use crate::cgroup;

/// Everything that is known about the host.
#[derive(Debug, Clone)]
pub struct HostReport {
    /// The kernel.
    pub kernel: Kernel,
    /// Processors and memory.
    pub machine: Machine,
    /// How cgroups are mounted.
    pub cgroup_mode: cgroup::Mode,
    /// Controllers, each with the version of its hierarchy.
    pub cgroup_controllers: Vec<(String, u8)>,
    /// Security modules and confinement.
    pub security: Security,
    /// Resource limits of this process.
    pub limits: Vec<Limit>,
    /// Each row of [`FEATURES`] with what was found.
    pub features: Vec<Finding>,
}

/// A feature and whether this host has it.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The row.
    pub feature: &'static Feature,
    /// Whether the host has it and this process can use it.
    pub found: bool,
    /// More about it: a version, a value, or why not. May be empty.
    pub detail: String,
}

impl HostReport {
    /// Features that this host lacks.
    pub fn missing(&self) -> impl Iterator<Item = &Finding> {
        self.features.iter().filter(|f| !f.found)
    }

    /// One feature by name.
    pub fn feature(&self, name: &str) -> Option<&Finding> {
        self.features.iter().find(|f| f.feature.name == name)
    }
}

/// Looks at the host. Takes a few milliseconds and changes nothing; a module that the kernel loads on demand may be
/// loaded.
pub fn host() -> HostReport {
    let kernel = facts::kernel();
    let security = facts::security();
    let facts = features::Facts { kernel: &kernel, security: &security, cgroup_mode: cgroup::mode() };
    let features = FEATURES
        .iter()
        .map(|feature| {
            let (found, detail) = feature.look(&facts);
            Finding { feature, found, detail }
        })
        .collect();
    HostReport {
        machine: facts::machine(),
        cgroup_mode: cgroup::mode(),
        cgroup_controllers: cgroup::controllers(),
        limits: facts::limits(),
        features,
        kernel,
        security,
    }
}

#[cfg(test)]
mod tests;
