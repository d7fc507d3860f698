//! What is known of a layer beside its files: `meta.json` and `source.json`.

use super::extract::Extracted;
use crate::disk;
use crate::error::StoreError;
use dhow_oci::image::Descriptor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// Largest record, in bytes. The list of implied directories of a large layer is the bulk of it.
const LIMIT: u64 = 64 << 20;

/// `meta.json`: written with the layer, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    version: u32,
    /// Bytes of regular files.
    pub(crate) size: u64,
    /// Bytes of the uncompressed tar.
    pub(crate) tar_size: u64,
    /// The canonical tar of the directory is the layer's tar: it can be had from the directory alone.
    pub(crate) canonical: bool,
    /// Modification times later than this (seconds since 1970) are written as this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clamp: Option<i64>,
    /// The layer says what mode and owner the root has.
    pub(crate) root: bool,
    /// Directories that the tar implies but does not list, [escaped](escape).
    implied: Vec<String>,
}

impl Meta {
    pub(crate) fn unpacked(extracted: Extracted, tar_size: u64) -> Self {
        Self {
            version: 1,
            size: extracted.size,
            tar_size,
            canonical: false,
            clamp: None,
            root: extracted.root,
            implied: extracted.implied.iter().map(|p| escape(p)).collect(),
        }
    }

    pub(crate) fn built(size: u64, tar_size: u64, root: bool, clamp: Option<i64>) -> Self {
        Self { version: 1, size, tar_size, canonical: true, clamp, root, implied: Vec::new() }
    }

    /// Implied directories by real path, parents first.
    pub(crate) fn implied(&self) -> Result<BTreeSet<Vec<u8>>, StoreError> {
        let bad = |text: &String| StoreError::record(Path::new("meta.json"), format!("bad path {text:?}"));
        self.implied.iter().map(|text| unescape(text).ok_or_else(|| bad(text))).collect()
    }

    /// Writes the record into the directory of a staged layer. It becomes durable with the layer.
    pub(crate) fn write(&self, layer: &Path) -> Result<(), StoreError> {
        use crate::error::At;
        let path = layer.join("meta.json");
        let text = serde_json::to_vec(self).map_err(|e| StoreError::record(&path, e))?;
        std::fs::write(&path, text).at("write", &path)
    }

    /// Reads the record of a layer; `None` when there is no such layer.
    pub(crate) fn read(layer: &Path) -> Result<Option<Self>, StoreError> {
        let path = layer.join("meta.json");
        let Some(text) = disk::read_small(&path, LIMIT)? else { return Ok(None) };
        let meta: Self = serde_json::from_slice(&text).map_err(|e| StoreError::record(&path, e))?;
        if meta.version != 1 {
            return Err(StoreError::record(&path, format!("version {}", meta.version)));
        }
        Ok(Some(meta))
    }
}

/// `source.json`: a blob that holds the layer's tar, as pulled or as compressed here.
pub(crate) fn read_source(layer: &Path) -> Result<Option<Descriptor>, StoreError> {
    let path = layer.join("source.json");
    let Some(text) = disk::read_small(&path, 64 << 10)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|e| StoreError::record(&path, e))
}

/// Records the source of a layer, durably.
pub(crate) fn write_source(tmp: &Path, layer: &Path, source: &Descriptor) -> Result<(), StoreError> {
    let path = layer.join("source.json");
    let text = serde_json::to_vec(source).map_err(|e| StoreError::record(&path, e))?;
    disk::replace(tmp, &path, &text, 0o600)
}

/// Any bytes as text: printable ASCII as it is, the rest and `%` as `%xx`.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' | 0..=0x1f | 0x7f..=0xff => text.push_str(&format!("%{byte:02x}")),
            plain => text.push(char::from(*plain)),
        }
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn paths_survive(path in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = escape(&path);
            prop_assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)));
            prop_assert_eq!(unescape(&text), Some(path));
        }
    }

    #[test]
    fn damaged_escapes_are_refused() {
        assert_eq!(unescape("a%"), None);
        assert_eq!(unescape("a%4"), None);
        assert_eq!(unescape("a%zz"), None);
    }
}
