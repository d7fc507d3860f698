//! The engine's snapshots in Docker's words: what `ps`, `images`, `history` and `inspect` show, for the command line and
//! for the API.

mod container;
mod image;

pub use container::{container_item, inspect_container};
pub use image::{history_items, image_items, inspect_image};

use dhow_docker::inspect::{Nothing, Texts};
use dhow_types::Timestamp;
use std::collections::BTreeMap;

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
