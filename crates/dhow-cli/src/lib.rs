//! The docker-compatible command line.
//!
//! Arguments are read in two stages: what was typed (`flags`), then what it means (each command). A command asks the
//! engine and prints; decisions are the engine's. Errors are printed and turned into an exit code in one place
//! (`error::finish`).
//!
//! Deliberately absent: decisions about containers, anything that an API server would need too.

mod command;
mod commands;
mod config_file;
mod create_spec;
mod credentials;
mod dispatch;
mod error;
mod flags;
mod globals;
mod out;
mod progress;
mod pump;
mod registries;

pub use dispatch::{main, role_failed};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, when the build knew it.
pub fn build() -> &'static str {
    option_env!("DHOW_BUILD").unwrap_or("dev")
}

#[cfg(test)]
mod compat_tests;
#[cfg(test)]
mod text_tests;
