//! The image builder: from parsed Dockerfile instructions to layers and an image config.
//!
//! ```text
//! Dockerfile ──plan──▶ stages with dependencies ──exec──▶ steps ──▶ Backend (layers, runs, cache, images)
//! ```
//! [`build`] plans first ([`plan`]: which stages the target needs, their base images, their `ONBUILD` triggers), then
//! carries the stages out in dependency order. A stage's state is its list of layers, its config and its variables;
//! nothing else flows between stages, so stages without a path between them run at the same time: each is a future, and
//! [`drive`] drives them in one thread.
//!
//! Everything that touches an image store, a container or the network stands behind [`Backend`], which the caller
//! implements. What this crate does itself: reading the context by file descriptor ([`context`]), and changing a root
//! file system by file descriptor inside a helper that the backend provides ([`tree`]).
//!
//! Deliberately absent: printing, environment variables, processes, threads.

mod backend;
mod check;
pub mod context;
mod copyspec;
pub mod drive;
mod error;
mod exec;
mod explain;
mod history;
mod key;
mod mode;
mod options;
mod output;
pub mod plan;
mod ports;
mod recipe;
pub mod remote;
mod scope;
pub mod tree;

pub use backend::{
    Backend, BackendError, BaseImage, CachedStep, Claim, Edited, MountSource, Mounted, REMOTE_FILE, RemoteRequest,
    RemoteTree, RunFile, RunOutcome, RunStep, Work,
};
pub use context::{Context, FileStat};
pub use drive::Pending;
pub use error::BuildError;
pub use exec::{Built, apply_change, build};
pub use options::{BuildOptions, Entitlements, NamedContext, RunLimits};
pub use output::{BuildEvent, BuildOutput};
