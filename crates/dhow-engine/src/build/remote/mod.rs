//! What builds fetch: files by HTTP, repositories by the host's `git`, images out of OCI layouts.
//!
//! Everything that comes from elsewhere is hostile: sizes and times are bounded, nothing of it is executed, and it lies in
//! staging directories of the store, which vanish with their owner and are cleaned up after one that was killed.

mod git;
mod http;
mod layout;
#[cfg(test)]
mod tests;

pub use git::git_commit_time;
pub(super) use git::{Checkout, GitTree};
pub(super) use http::HttpTree;
pub(super) use layout::load as load_layout;

use crate::{Engine, EngineError};
use dhow_build::remote::{GitSource, RemoteSource};
use dhow_build::{RemoteRequest, RemoteTree};
use dhow_registry::DownloadError;
use dhow_types::{Categorized, Digest, DigestError, ErrorKind};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Bytes that stay free in the file system.
const RESERVE: u64 = 256 << 20;

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// A file.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The content is not what was asked for. The wording is BuildKit's.
    #[error("digest mismatch {found}: {expected}")]
    Digest {
        /// What came.
        found: Digest,
        /// What was asked for.
        expected: Digest,
    },
    /// `--checksum` of a file is no digest that can be checked.
    #[error("invalid checksum")]
    Checksum(#[from] DigestError),
    /// The text is neither a URL nor a repository.
    #[error("{0}")]
    Source(String),
    /// There is no `git`.
    #[error("git repositories are fetched by the program git, which is not installed")]
    NoGit,
    /// `git` failed.
    #[error("git {operation} of {remote} failed: {detail}")]
    Git {
        /// Its command.
        operation: &'static str,
        /// The repository, without credentials.
        remote: String,
        /// Its last words.
        detail: String,
    },
    /// `git` took too long.
    #[error("git {operation} of {remote} was ended after {} s", .limit.as_secs())]
    GitTime {
        /// Its command.
        operation: &'static str,
        /// The repository.
        remote: String,
        /// The limit.
        limit: Duration,
    },
    /// A repository grows beyond all bounds.
    #[error("{remote} is larger than {limit} bytes")]
    TooLarge {
        /// The repository.
        remote: String,
        /// The limit.
        limit: u64,
    },
    /// No such branch, tag or commit. The beginning of the wording is BuildKit's.
    #[error("repository does not contain ref {reference:?}: {remote}")]
    NoReference {
        /// As asked for.
        reference: String,
        /// The repository.
        remote: String,
    },
    /// The commit is not the one that was asked for. The wording is BuildKit's.
    #[error("expected checksum to match {expected}, got {found}")]
    Commit {
        /// As asked for.
        expected: String,
        /// What the reference is.
        found: String,
    },
    /// No such directory in the repository.
    #[error("{remote} has no directory {subdir:?}")]
    NoDirectory {
        /// As asked for.
        subdir: String,
        /// The repository.
        remote: String,
    },
    /// The repository has something that no repository should have.
    #[error("{remote} is refused: {reason}")]
    Refused {
        /// The repository.
        remote: String,
        /// What it has.
        reason: String,
    },
    /// An OCI layout is not one, or has no such image.
    #[error("image layout {path}: {reason}")]
    Layout {
        /// Where.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl Categorized for RemoteError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Download(e) => e.kind(),
            Self::Digest { .. } | Self::Commit { .. } => ErrorKind::Corrupt,
            Self::Checksum(_) | Self::Source(_) => ErrorKind::Invalid,
            Self::NoGit => ErrorKind::Unsupported,
            Self::Git { .. } | Self::GitTime { .. } => ErrorKind::Unavailable,
            Self::TooLarge { .. } => ErrorKind::Exhausted,
            Self::NoReference { .. } | Self::NoDirectory { .. } | Self::Layout { .. } => ErrorKind::NotFound,
            Self::Refused { .. } => ErrorKind::Forbidden,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Download(e) => e.hint(),
            Self::NoGit => Some("install the package git".to_owned()),
            Self::Git { detail, .. } if detail.contains("could not read Username") => {
                Some("give a token as the secret GIT_AUTH_TOKEN, or use ssh if the repository is private".to_owned())
            }
            Self::Digest { .. } | Self::Commit { .. } => {
                Some("the source changed: look at it, and write down the new checksum if it is good".to_owned())
            }
            _ => None,
        }
    }
}

/// Where secrets come from.
pub(super) type Secrets<'a> = dyn Fn(&str) -> Option<Vec<u8>> + 'a;

/// Finds out what a request means now.
pub(super) async fn find<'a>(
    engine: &'a Engine,
    request: RemoteRequest,
    secrets: &Secrets<'_>,
) -> Result<Box<dyn RemoteTree + 'a>, EngineError> {
    match request.source {
        RemoteSource::Http(url) => {
            let checksum = request.checksum.as_deref().map(str::parse::<Digest>).transpose();
            let checksum = checksum.map_err(RemoteError::from)?;
            Ok(Box::new(HttpTree::find(engine, &url, checksum, secrets)?))
        }
        RemoteSource::Git(source) => {
            let source = GitSource {
                keep_git_dir: request.keep_git_dir.or(source.keep_git_dir),
                checksum: request.checksum.or(source.checksum),
                ..source
            };
            Ok(Box::new(GitTree::find(engine, source, secrets).await?))
        }
    }
}

/// A secret as one line of text.
fn text_secret(secrets: &Secrets<'_>, id: &str) -> Option<String> {
    let text = String::from_utf8(secrets(id)?).ok()?;
    let line = text.trim_end_matches(['\r', '\n']);
    (!line.is_empty() && !line.chars().any(char::is_control)).then(|| line.to_owned())
}

/// `host[:port]` of a URL, without user and password.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// Fails when the file system of a path is nearly full: what is fetched must not take the last bytes of a host.
fn check_space(path: &Path) -> Result<(), EngineError> {
    let fs = rustix::fs::statvfs(path).map_err(EngineError::errno("inspect", path))?;
    if fs.f_bavail.saturating_mul(fs.f_frsize) < RESERVE.min(fs.f_blocks.saturating_mul(fs.f_frsize) / 20) {
        return Err(EngineError::state("fill", path)(io::ErrorKind::StorageFull.into()));
    }
    Ok(())
}
