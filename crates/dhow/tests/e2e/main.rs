//! End-to-end tests of the program, as root, each in a network and an engine of its own.
//!
//! They are written against Docker's documented behaviour. `cargo xtask test --only e2e [FILTER]` runs them one process
//! each; under plain `cargo test` they work too.

mod attacks;
mod build;
mod build_cache;
mod build_export;
mod build_progress;
mod build_remote;
mod building;
mod dockerfiles;
mod errors;
mod images;
mod kill;
mod lifecycle;
mod network;
mod registry;

use dhow_testkit::Dhow;
use std::time::Duration;

/// Longest wait for something that takes milliseconds.
const SOON: Duration = Duration::from_secs(10);

/// A fresh engine with `busybox:latest`.
fn dhow() -> Dhow {
    Dhow::with_busybox(Some(env!("CARGO_BIN_EXE_dhow")))
}

/// A fresh engine without images.
fn empty() -> Dhow {
    Dhow::new(Some(env!("CARGO_BIN_EXE_dhow")))
}

/// Lines of a text without trailing blanks.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).collect()
}
