//! What can go wrong in the store.

use dhow_oci::image::DocumentError;
use dhow_types::{Categorized, Digest, ErrorKind, ReferenceError};
use std::io;
use std::path::{Path, PathBuf};

/// An error of the store. Every variant names the object; `Display` never repeats the source.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused an operation on a path of the store.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Reading what was handed in (a download, an archive on standard input) failed.
    #[error("cannot read {what}")]
    Input {
        /// What was read.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Writing to what was handed in failed.
    #[error("cannot write {what}")]
    Output {
        /// What was written.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A compressed stream is damaged, truncated, followed by garbage, or asks for too much memory.
    #[error("{what} is not a valid {format} stream")]
    Compression {
        /// What was read.
        what: String,
        /// `gzip`, `zstd`, …
        format: &'static str,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// An archive is malformed or asks for something that is refused.
    #[error("invalid archive: {reason}{}", at_entry(entry))]
    Archive {
        /// Name of the entry, empty when the fault is in the structure.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes are not what their digest says.
    #[error("{what} is corrupt: expected digest {expected}, got {found}")]
    Mismatch {
        /// What was verified.
        what: &'static str,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// More or fewer bytes than the descriptor says.
    #[error("blob {digest} has the wrong size: expected {expected} bytes, got {found}")]
    Size {
        /// Which blob.
        digest: Digest,
        /// As described.
        expected: u64,
        /// As received; one more than expected when the stream was cut off there.
        found: u64,
    },
    /// A record on disk is not what the store writes.
    #[error("damaged record {}: {reason}", path.display())]
    Record {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A document of an image is refused.
    #[error("invalid image")]
    Document(#[from] DocumentError),
    /// The image config needs a layer that is not unpacked here.
    #[error("layer {0} is not in the store")]
    NoSuchLayer(Digest),
    /// The blob is not here.
    #[error("blob {0} is not in the store")]
    NoSuchBlob(Digest),
    /// No image has that name or id. The wording is Docker's.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// Several images have ids that begin so.
    #[error("image id prefix {0:?} is ambiguous")]
    AmbiguousId(String),
    /// Not an image reference.
    #[error("invalid image name")]
    Reference(#[from] ReferenceError),
    /// A tag was needed.
    #[error("{0} is not a tag: it has a digest")]
    NotATag(String),
    /// The image is in use. The wording is Docker's.
    #[error("conflict: unable to delete {target} ({}) - {reason}", if *forceable { "must be forced" } else { "cannot be forced" })]
    InUse {
        /// Short id or name.
        target: String,
        /// Whether `--force` would do it.
        forceable: bool,
        /// Who uses it.
        reason: String,
    },
    /// The store was written by a newer dhow.
    #[error("the store in {} uses features that this dhow does not know: {}", root.display(), features.join(", "))]
    Format {
        /// Root of the store.
        root: PathBuf,
        /// Names of the unknown features.
        features: Vec<String>,
    },
    /// The download that a reader followed ended before the blob was complete.
    #[error("the download of {0} ended early")]
    Interrupted(Digest),
    /// The caller's own function refused.
    #[error("{0}")]
    Refused(String),
    /// Free space would fall below the reserve.
    #[error("no space left in {}: {needed} needed", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// For what.
        needed: &'static str,
    },
}

fn at_entry(entry: &str) -> String {
    if entry.is_empty() { String::new() } else { format!(" (entry {entry:?})") }
}

impl StoreError {
    /// The operating system's error, if this is one.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. }
            | Self::Input { source, .. }
            | Self::Output { source, .. }
            | Self::Compression { source, .. } => Some(source),
            _ => None,
        }
    }

    pub(crate) fn archive(entry: &[u8], reason: impl Into<String>) -> Self {
        Self::Archive { entry: printable(entry), reason: reason.into() }
    }

    pub(crate) fn record(path: &Path, reason: impl ToString) -> Self {
        Self::Record { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn input(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.downcast::<Carried>() {
            Ok(Carried(inner)) => inner,
            Err(source) => Self::Input { what, source },
        }
    }

    /// Wraps the error so that it survives a trip through an `io::Read` or `io::Write`; [`StoreError::input`] unwraps it.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(Carried(self))
    }
}

/// A store error inside an `io::Error`.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Carried(StoreError);

/// Attacker-chosen bytes as text for a message: escaped and clipped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const MAX: usize = 160;
    let clipped = bytes.get(..MAX).unwrap_or(bytes);
    let mut text = String::from_utf8_lossy(clipped).into_owned();
    if bytes.len() > MAX {
        text.push('…');
    }
    text
}

fn is_full(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(error.raw_os_error(), Some(e) if [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE].contains(&Errno::from_raw_os_error(e)))
}

impl Categorized for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            _ if self.io().is_some_and(is_full) => ErrorKind::Exhausted,
            Self::NoSpace { .. } => ErrorKind::Exhausted,
            Self::Io { .. } | Self::Output { .. } => ErrorKind::Internal,
            Self::Input { .. } | Self::Interrupted(_) => ErrorKind::Unavailable,
            Self::Compression { .. }
            | Self::Archive { .. }
            | Self::Mismatch { .. }
            | Self::Size { .. }
            | Self::Record { .. }
            | Self::Document(_) => ErrorKind::Corrupt,
            Self::NoSuchLayer(_) | Self::NoSuchBlob(_) | Self::NoSuchImage(_) => ErrorKind::NotFound,
            Self::AmbiguousId(_) | Self::Reference(_) | Self::NotATag(_) | Self::Refused(_) => ErrorKind::Invalid,
            Self::InUse { .. } => ErrorKind::Conflict,
            Self::Format { .. } => ErrorKind::Unsupported,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            _ if self.kind() == ErrorKind::Exhausted => {
                Some("free some space, for instance with \"dhow rmi\" on images that are no longer needed".to_owned())
            }
            Self::Format { .. } => Some("use the newer dhow, or another --root".to_owned()),
            Self::AmbiguousId(_) => Some("give more digits of the id".to_owned()),
            _ => None,
        }
    }
}

/// Attaches operation and path to a system error.
pub(crate) trait At<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { op, path: path.to_owned(), source })
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|e| StoreError::Io { op, path: path.to_owned(), source: e.into() })
    }
}
