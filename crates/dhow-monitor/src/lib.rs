//! The supervisor process of one container.
//!
//! A monitor holds the container's standard streams, writes its log, serves attached clients, and notices its exit. It
//! is small and single-threaded: one poll loop, buffers that are bounded and allocated when first needed. What an exit
//! *means* (records, addresses, removal) is the engine's business and comes in through [`Lifecycle`].
//!
//! Deliberately absent: records, image knowledge, networking.

mod client;
mod error;
pub mod protocol;
mod supervise;

pub use client::Client;
pub use error::MonitorError;
pub use protocol::{Frame, Hello};
pub use supervise::{Exit, Lifecycle, Outcome, Supervision, supervise};
