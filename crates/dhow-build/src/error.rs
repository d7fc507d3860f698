//! Why a build fails.

use crate::backend::BackendError;
use dhow_dockerfile::{ExpandError, ParseError};
use dhow_types::{Categorized, ErrorKind};
use std::io;

/// A build failed. Where a line of the Dockerfile is known, [`BuildError::Line`] carries it.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile does not parse.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// An instruction failed.
    #[error("Dockerfile line {line} ({})", .instruction.split_whitespace().next().unwrap_or_default())]
    Line {
        /// First line of the instruction.
        line: u32,
        /// Last line.
        end_line: u32,
        /// The instruction, shortened.
        instruction: String,
        /// Why.
        #[source]
        source: Box<BuildError>,
    },
    /// A command ended badly. The wording is Docker's.
    #[error("The command '{command}' returned a non-zero code: {exit_code}")]
    Command {
        /// The command as one text.
        command: String,
        /// Its exit code.
        exit_code: i64,
    },
    /// A word does not expand.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// The surroundings failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Known to BuildKit, not done by dhow.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A command wants what only whoever starts the build can allow. The wording is BuildKit's.
    #[error("{0} is not allowed")]
    NotEntitled(&'static str),
    /// An argument of an instruction is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The wanted stage does not exist.
    #[error("target stage {0:?} could not be found")]
    NoTarget(String),
    /// `COPY --from=N` with a number that is no earlier stage.
    #[error("invalid from flag value {0}: it is no earlier stage")]
    NoStage(String),
    /// Stages need each other.
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    /// `FROM` whose image expands to nothing.
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// A trigger of the base image does not parse.
    #[error("ONBUILD trigger {trigger:?} of the base image")]
    Trigger {
        /// As the image has it.
        trigger: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// A source of `COPY` or `ADD` does not exist. The wording is Docker's.
    #[error("failed to compute cache key: failed to calculate checksum of {path:?}: not found{}", ignored_note(*.ignored))]
    SourceNotFound {
        /// As written.
        path: String,
        /// An ignore pattern hides it.
        ignored: bool,
    },
    /// There is no context, but a file of it is asked for.
    #[error("{0:?} cannot be copied: the build has no context (the Dockerfile came from standard input)")]
    NoContext(String),
    /// Reading the context failed.
    #[error("cannot read {path:?} of the build context")]
    Context {
        /// Relative path.
        path: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A directory tree deeper than any sane context.
    #[error("{path:?}: directories are nested more than {limit} deep")]
    TooDeep {
        /// Relative path, shortened.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// The image config does not serialise.
    #[error("cannot write the image config")]
    Config(#[source] serde_json::Error),
}

fn ignored_note(ignored: bool) -> &'static str {
    if ignored { " (it is excluded by .dockerignore)" } else { "" }
}

impl Categorized for BuildError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Line { source, .. } => source.kind(),
            Self::Backend(e) => e.kind(),
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::NotEntitled(_) => ErrorKind::Forbidden,
            Self::SourceNotFound { .. } => ErrorKind::NotFound,
            Self::Context { .. } | Self::Config(_) => ErrorKind::Internal,
            _ => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Line { source, .. } => source.hint(),
            Self::Backend(e) => e.hint(),
            Self::Parse(e) => e.hint(),
            Self::NotEntitled(what) => {
                Some(format!("start the build with --allow {what} if the Dockerfile may use it"))
            }
            Self::SourceNotFound { ignored: false, .. } => {
                Some("paths of COPY and ADD are relative to the build context".to_owned())
            }
            Self::SourceNotFound { ignored: true, .. } => {
                Some("add a line that starts with ! to the ignore file to include it again".to_owned())
            }
            _ => None,
        }
    }
}

impl BuildError {
    /// The exit code of the command that ended the build, if that was the reason.
    pub fn exit_code(&self) -> Option<i64> {
        match self {
            Self::Line { source, .. } => source.exit_code(),
            Self::Command { exit_code, .. } => Some(*exit_code),
            _ => None,
        }
    }
}
