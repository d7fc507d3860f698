//! The engine's snapshots in Docker's words: what `ps`, `images`, `history` and `inspect` show, for the command line and
//! for the API.

mod container;
mod image;

pub use container::{container_item, inspect_container};
pub use image::{history_items, image_items, inspect_image};

use dhow_docker::inspect::{Nothing, Texts};
use dhow_types::Timestamp;
use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// An RFC 3339 time of a record; `None` when it is empty.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// A time as documents show it; Docker's zero time when there is none.
fn time_text(text: &str) -> String {
    if text.is_empty() { dhow_docker::time::ZERO.to_owned() } else { text.to_owned() }
}

/// Docker says null where a list was never given.
fn non_empty(list: Vec<String>) -> Option<Texts> {
    (!list.is_empty()).then_some(list)
}

/// A set, as Docker writes it: an object with empty objects.
fn set(keys: impl IntoIterator<Item = String>) -> Option<BTreeMap<String, Nothing>> {
    let set: BTreeMap<String, Nothing> = keys.into_iter().map(|k| (k, Nothing {})).collect();
    (!set.is_empty()).then_some(set)
}

/// Bytes of the regular files below a directory, each inode once. What vanishes meanwhile has no size any more.
fn tree_size(top: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut total = 0;
    let mut todo = vec![top.to_owned()];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            } else if meta.is_file() && seen.insert(meta.ino()) {
                total += meta.len();
            }
        }
    }
    total
}
