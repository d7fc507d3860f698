//! The crate's error.

use dhow_types::{Categorized, ErrorKind};

/// Why a text is not what Docker's grammar wants.
#[derive(Debug, thiserror::Error)]
pub enum GrammarError {
    /// The text does not fit; `reason` says where.
    #[error("invalid {what} {text:?}: {reason}")]
    Invalid {
        /// Which grammar, as a noun: `port`, `volume`.
        what: &'static str,
        /// The text, clipped.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The text does not fit, in words that scripts know from Docker.
    #[error("{0}")]
    Worded(String),
    /// A file that the text names cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The path as typed.
        path: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A `--format` template does not parse.
    #[error("template parsing error: {0}")]
    Template(String),
    /// A `--format` template does not fit the data.
    #[error("template: {0}")]
    Render(String),
    /// Docker knows it, dhow does not do it.
    #[error("{0} is not supported yet")]
    Unsupported(String),
}

impl GrammarError {
    pub(crate) fn new(what: &'static str, text: &str, reason: impl Into<String>) -> Self {
        Self::Invalid { what, text: clip(text), reason: reason.into() }
    }
}

/// Bounds a text that goes into an error message.
pub(crate) fn clip(text: &str) -> String {
    let mut out: String = text.chars().take(200).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

impl Categorized for GrammarError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Invalid,
        }
    }
}
