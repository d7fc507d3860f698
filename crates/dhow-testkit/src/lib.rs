//! Fixtures for end-to-end tests: a private engine in a private network, images made of Debian's busybox or of
//! arbitrary (also hostile) bytes, registries, pseudo terminals, and a census of everything that could leak.
//!
//! The fixtures panic with a readable message when something is missing or wrong: nothing is skipped. They hold no
//! test of the engine themselves.

pub mod census;
pub mod dhow;
pub mod git;
pub mod image;
pub mod net;
pub mod process;
pub mod pty;
pub mod registry;
pub mod victim;

pub use census::Census;
pub use dhow::{Dhow, Output};
pub use git::Repositories;
pub use image::{Entry, ImageBuilder, Tar, busybox_image};
pub use net::{Inside, NetNs};
pub use pty::Pty;
pub use victim::Victim;

use std::path::PathBuf;

/// Cargo's target directory, where images are cached.
pub fn target_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return dir.into();
    }
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or_else(|| here.clone(), |root| root.join("target"))
}
