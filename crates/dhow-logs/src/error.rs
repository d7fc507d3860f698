//! The crate's error.

use dhow_types::{Categorized, ErrorKind};
use std::path::PathBuf;

/// Why a log cannot be opened or read. Writing never fails.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The kernel refused.
    #[error("cannot {operation} log file {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
}

impl LogError {
    pub(crate) fn io(operation: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

impl Categorized for LogError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
                _ => ErrorKind::Internal,
            },
        }
    }
}
