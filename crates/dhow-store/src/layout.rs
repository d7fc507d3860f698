//! Where things are, and which version of the format a store has.

use crate::disk;
use crate::error::StoreError;
use dhow_types::Digest;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the format as a whole. Raised only when a store of the old version must be converted.
const VERSION: u32 = 1;
/// Features that this code knows, by class.
const KNOWN: &[&str] = &[];
/// Largest version file, in bytes.
const LIMIT: u64 = 64 << 10;

/// The version file, `store.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: String,
    version: u32,
    #[serde(default)]
    features: Features,
}

/// Feature names by what an unknown one means.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Features {
    /// May be ignored.
    compatible: Vec<String>,
    /// The store may be read but not changed.
    read_only: Vec<String>,
    /// The store must not be touched.
    incompatible: Vec<String>,
}

/// Paths of a store.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    /// Unknown read-only features: the store must not be changed.
    pub(crate) read_only: Vec<String>,
}

/// Subdirectories that are made when a store is.
const SUBDIRECTORIES: &[&str] = &[
    "blobs",
    "blobs/sha256",
    "layers",
    "l",
    "chains",
    "images",
    "detached",
    "refs",
    "pins",
    "kept",
    "leases",
    "ingest",
    "tmp",
];

impl Layout {
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        // Overlay gets these paths, perhaps from a process in another directory.
        let root = &std::path::absolute(root).map_err(|source| StoreError::Io {
            op: "find",
            path: root.to_owned(),
            source,
        })?;
        let file = root.join("store.json");
        let text = match disk::read_small(&file, LIMIT)? {
            Some(text) => text,
            None => Self::create(root, &file)?,
        };
        let format: Format = serde_json::from_slice(&text).map_err(|e| StoreError::record(&file, e))?;
        if format.format != "dhow-store" {
            return Err(StoreError::record(&file, format!("format {:?} instead of \"dhow-store\"", format.format)));
        }
        let unknown =
            |names: Vec<String>| names.into_iter().filter(|n| !KNOWN.contains(&n.as_str())).collect::<Vec<_>>();
        let mut refused = unknown(format.features.incompatible);
        if format.version != VERSION {
            refused.push(format!("version {}", format.version));
        }
        if !refused.is_empty() {
            return Err(StoreError::Format { root: root.to_owned(), features: refused });
        }
        Ok(Self { root: root.to_owned(), read_only: unknown(format.features.read_only) })
    }

    /// Makes what is missing. Several processes may do so at once; the version file comes last.
    fn create(root: &Path, file: &Path) -> Result<Vec<u8>, StoreError> {
        if !root.is_dir() {
            if let Some(above) = root.parent() {
                std::fs::create_dir_all(above).map_err(|source| StoreError::Io {
                    op: "create directory",
                    path: above.to_owned(),
                    source,
                })?;
            }
            // Users may pass through to what is theirs (a container's files are not listed here), but not look around.
            disk::ensure_dir(root, 0o711)?;
        }
        for name in SUBDIRECTORIES {
            disk::ensure_dir(&root.join(name), 0o700)?;
        }
        disk::spread_children(&root.join("tmp"));
        let format = Format { format: "dhow-store".to_owned(), version: VERSION, features: Features::default() };
        let mut text = serde_json::to_vec_pretty(&format).map_err(|e| StoreError::record(file, e))?;
        text.push(b'\n');
        disk::replace(&root.join("tmp"), file, &text, 0o644)?;
        disk::sync_dir(disk::parent(root))?;
        Ok(text)
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.ingest().join(digest.hex())
    }

    pub(crate) fn journal(&self, digest: &Digest) -> PathBuf {
        self.ingest().join(format!("{}.journal", digest.hex()))
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer(&self, diff: &Digest) -> PathBuf {
        self.layers().join(diff.hex())
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("l")
    }

    pub(crate) fn chains(&self) -> PathBuf {
        self.root.join("chains")
    }

    pub(crate) fn chain(&self, chain: &Digest) -> PathBuf {
        self.chains().join(chain.hex())
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn image(&self, id: &Digest) -> PathBuf {
        self.images().join(id.hex())
    }

    pub(crate) fn detached(&self) -> PathBuf {
        self.root.join("detached")
    }

    pub(crate) fn refs(&self) -> PathBuf {
        self.root.join("refs")
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    pub(crate) fn kept_layers(&self) -> PathBuf {
        self.root.join("kept")
    }

    /// The mark of a layer that a cache keeps.
    pub(crate) fn kept(&self, diff: &Digest) -> PathBuf {
        self.kept_layers().join(diff.hex())
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn graph_lock(&self) -> PathBuf {
        self.root.join("graph.lock")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The short link to a layer's directory: 130 bits in 22 characters, so that 128 of them fit into one page of mount
    /// options, and nobody can make two layers collide.
    pub(crate) fn layer_link(&self, diff: &Digest) -> PathBuf {
        self.links().join(short(diff))
    }

    /// The short link to a chain's fix-up directory.
    pub(crate) fn chain_link(&self, chain: &Digest) -> PathBuf {
        self.links().join(format!("c{}", short(chain)))
    }
}

/// 132 bits of a digest in 22 characters of the URL-safe base 64 alphabet.
fn short(digest: &Digest) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(22);
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in digest.as_bytes().iter().take(17) {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 6 && text.len() < 22 {
            count -= 6;
            text.push(char::from(ALPHABET[(bits >> count) as usize & 63]));
        }
        bits &= (1 << count) - 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_short_and_differ() {
        let (a, b) = (short(&Digest::of(b"a")), short(&Digest::of(b"b")));
        assert_eq!(a.len(), 22);
        assert!(a != b && a.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        assert_eq!(short(&Digest::from_sha256([0xff; 32])), "_".repeat(22));
    }

    #[test]
    fn unknown_features() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("deep/store");
        // Baseline.
        assert!(Layout::open(&root).unwrap().read_only.is_empty());
        let file = root.join("store.json");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write(r#"{"format":"dhow-store","version":1,"features":{"compatible":["nice"]},"more":1}"#);
        assert!(Layout::open(&root).unwrap().read_only.is_empty());
        write(r#"{"format":"dhow-store","version":1,"features":{"read_only":["erofs"]}}"#);
        assert_eq!(Layout::open(&root).unwrap().read_only, ["erofs"]);
        for bad in [
            r#"{"format":"dhow-store","version":1,"features":{"incompatible":["verity"]}}"#,
            r#"{"format":"dhow-store","version":2}"#,
        ] {
            write(bad);
            assert!(matches!(Layout::open(&root), Err(StoreError::Format { .. })));
        }
        for bad in [r#"{"format":"other","version":1}"#, "", "{"] {
            write(bad);
            assert!(matches!(Layout::open(&root), Err(StoreError::Record { .. })));
        }
    }
}
