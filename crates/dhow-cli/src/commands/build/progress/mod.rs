//! Views of a build while it runs: plain lines, a live picture on a terminal, JSON for programs, or nothing.
//!
//! A view is fed events by the builder and progress of pulls by the engine. The process has one thread while it builds, so
//! nothing redraws by itself: events and ticks do.

mod json;
mod plain;
mod quiet;
mod steps;
mod tty;

use super::super::invalid;
use crate::error::CliError;
use crate::flags::Matches;
use crate::globals::variable;
use dhow_engine::{BuildOutput, Progress};
use rustix::stdio::stderr;
use std::sync::Arc;

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Lines, for files and CI.
    Plain,
    /// A picture that redraws itself.
    Tty,
    /// BuildKit's status as JSON lines.
    Json,
    /// Only the image id.
    Quiet,
    /// Nothing at all.
    Nothing,
}

/// A view and who is told of pulls.
pub(super) struct View {
    /// Takes the build's events. Dropping it ends the view.
    pub(super) output: Box<dyn BuildOutput>,
    /// Takes the progress of pulls and pushes.
    pub(super) progress: Arc<dyn Progress + Send + Sync>,
}

impl Mode {
    /// From `--progress`, `--quiet` and the environment.
    pub(super) fn of(m: &Matches) -> Result<Self, CliError> {
        let typed = m.given("progress");
        let auto = || if can_redraw() { Self::Tty } else { Self::Plain };
        if m.on("quiet") {
            return match typed.as_deref() {
                None | Some("auto" | "quiet") => Ok(Self::Quiet),
                Some(other) => Err(invalid(format!("progress={other} and quiet cannot be used together"))),
            };
        }
        match typed.or_else(|| variable("BUILDKIT_PROGRESS")).as_deref() {
            None | Some("auto") => Ok(auto()),
            Some("plain") => Ok(Self::Plain),
            Some("tty") if is_terminal() => Ok(Self::Tty),
            Some("tty") => Err(invalid("--progress tty needs a terminal on standard error")),
            Some("rawjson") => Ok(Self::Json),
            Some("quiet") => Ok(Self::Quiet),
            Some("none") => Ok(Self::Nothing),
            Some(other) => Err(CliError::flag(format!(
                "invalid progress mode {other:?}: one of auto, none, plain, quiet, rawjson, tty"
            ))),
        }
    }

    /// Begins the view on standard error.
    pub(super) fn begin(self) -> View {
        match self {
            Self::Plain => plain::begin(is_terminal()),
            Self::Tty => tty::begin(),
            Self::Json => json::begin(),
            Self::Quiet | Self::Nothing => quiet::begin(is_terminal()),
        }
    }
}

fn is_terminal() -> bool {
    rustix::termios::isatty(stderr())
}

fn can_redraw() -> bool {
    is_terminal() && variable("TERM").is_none_or(|t| t != "dumb")
}
