//! The engine's nouns.
//!
//! Types here are plain values with validating constructors. They are deliberately **not** serialisable: every border
//! (records on disk, Docker's JSON, OCI documents) has types of its own and an explicit conversion.
//!
//! Deliberately absent: I/O, environment variables, printing, and anything that needs the kernel.

mod container;
mod digest;
mod error;
mod id;
mod platform;
mod reference;
mod signal;

pub use container::{
    BindMount, ContainerSpec, ExtraHost, Healthcheck, IpcMode, LogConfig, MountSpec, NetworkMode, PidMode, PortBinding,
    PortProtocol, PortSpec, Propagation, Resources, RestartPolicy, SeccompChoice, SecurityOptions, TmpfsMount, Ulimit,
    VolumeMount,
};
pub use digest::{Digest, DigestError, Hasher};
pub use error::{Categorized, ErrorKind, report};
pub use id::{ContainerId, ContainerName, IdError, NameError};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
pub use signal::{Signal, SignalError};

/// A point in time, nanosecond resolution, UTC.
pub use jiff::Timestamp;
