//! Transport-neutral error categories.
//!
//! Every crate has its own typed error. What a front end needs from any of them is the category, from which exit codes
//! and HTTP statuses are assigned in one place each, and an optional way out.

use std::error::Error;
use std::fmt::Write;

/// What went wrong, independent of who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named object does not exist (HTTP 404).
    NotFound,
    /// The object exists already, is in use, or is in the wrong state (HTTP 409).
    Conflict,
    /// The request itself is wrong: bad flag, name, document or Dockerfile (HTTP 400).
    Invalid,
    /// Credentials are missing or wrong (HTTP 401).
    Unauthorized,
    /// Allowed to nobody, or not to this caller (HTTP 403).
    Forbidden,
    /// A peer or a resource cannot be reached now; trying again may help (HTTP 503).
    Unavailable,
    /// Known to Docker, not done by dhow (HTTP 501).
    Unsupported,
    /// The disk, a quota or a limit is exhausted (HTTP 507 in spirit, 500 on Docker's wire).
    Exhausted,
    /// Data on disk or from a peer is not what its digest or format says (HTTP 500).
    Corrupt,
    /// Nothing to change: the object is already as asked (HTTP 304).
    Unchanged,
    /// A start failed because the command was not found (exit code 127).
    CommandNotFound,
    /// A start failed because the command cannot be executed (exit code 126).
    CommandNotExecutable,
    /// Everything else: the kernel or the file system refused (HTTP 500).
    Internal,
}

/// An error with a category and, where one is known, a way out.
///
/// `Display` of an implementor never repeats its source; [`report`] prints the chain once.
pub trait Categorized: Error {
    /// The category.
    fn kind(&self) -> ErrorKind;

    /// What the user can do about it, as a sentence without the final period.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Renders an error and its sources as `outer: inner: innermost`.
pub fn report(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {source}");
        next = source.source();
    }
    text
}
