//! Containers: records, and the verbs on them.
//!
//! State is read in two ways. A [`Container`] is a *snapshot*: it takes no lock, so `ps` and `inspect` never wait. A
//! [`Guard`] holds the container's lock and has just loaded both records; only through it can they be changed.
//!
//! Lock order: live lock, then container lock, then names lock, then network locks.

pub mod commit;
pub mod create;
mod devices;
pub mod exec;
mod launch;
mod monitor;
mod names;
pub mod record;
mod remove;
mod spec;
mod start;
mod stop;
mod table;
mod volumes;

pub use commit::CommitSpec;
pub use create::Created;
pub(crate) use create::{DEFAULT_SHM, random_id};
pub use exec::{ExecSpec, Executed};
pub(crate) use launch::{start_failed, write_host_files};
pub use monitor::monitor_main;
pub use record::{Record, State, Status};
pub use remove::RemoveOptions;
pub(crate) use spec::Prepared;
pub use start::AttachRequest;
pub(crate) use table::Guard;

use dhow_types::ContainerId;

/// A container as it was at one moment.
#[derive(Debug, Clone)]
pub struct Container {
    /// Id.
    pub id: ContainerId,
    /// What it is.
    pub record: Record,
    /// What it does; corrected for a monitor or a boot that is gone.
    pub state: State,
}

impl Container {
    /// Whether there is a process.
    pub fn is_alive(&self) -> bool {
        self.state.status.is_alive()
    }
}
