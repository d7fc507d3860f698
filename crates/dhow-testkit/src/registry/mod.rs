//! Registries for tests: a scripted one that misbehaves on demand, and Debian's.

mod debian;
mod fake;
mod http;

pub use debian::{DebianOptions, DebianRegistry};
pub use fake::{Action, FakeAuth, FakeRegistry, Fault, Recorded, Times};
