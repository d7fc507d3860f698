//! Errors of the command line, printed and turned into an exit code in one place.

use crate::command::Command;
use dhow_docker::text::{EXIT_TEMPLATE, EXIT_USAGE, exit_code, terminal_safe_lines};
use dhow_engine::EngineError;
use dhow_types::{Categorized, ErrorKind, report};
use std::io::Write;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum CliError {
    /// A flag is wrong.
    Flag(String),
    /// Too few or too many arguments.
    Arguments(String),
    /// The work failed.
    Failed {
        /// The whole chain in one line.
        message: String,
        /// The way out.
        hint: Option<String>,
        /// Category; exit codes come from it.
        kind: ErrorKind,
    },
    /// A `--format` template of `inspect` is wrong.
    Template(String),
    /// Docker's client says no by itself: exit code 1 for every command.
    Refused {
        /// Docker's words.
        message: &'static str,
        /// The way out.
        hint: &'static str,
    },
}

impl CliError {
    pub(crate) fn flag(message: impl Into<String>) -> Self {
        Self::Flag(message.into())
    }

    /// A failure that has no typed error of its own.
    pub(crate) fn failed(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: None, kind }
    }

    /// A failed system call of the command line's own.
    pub(crate) fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::failed(ErrorKind::Internal, format!("{what}: {error}"))
    }

    /// The same for rustix's errors.
    pub(crate) fn errno(what: impl std::fmt::Display) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |error| Self::io(what)(error.into())
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Failed { message, kind, .. } => Self::Failed { message, hint: Some(hint.into()), kind },
            other => other,
        }
    }
}

fn categorized(error: &dyn Categorized) -> CliError {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        message.push_str(": ");
        message.push_str(&source.to_string());
        next = source.source();
    }
    CliError::Failed { message, hint: error.hint(), kind: error.kind() }
}

macro_rules! from_categorized {
    ($($error:ty),*) => { $(impl From<$error> for CliError {
        fn from(error: $error) -> Self {
            categorized(&error)
        }
    })* };
}

from_categorized!(
    EngineError,
    dhow_monitor::MonitorError,
    dhow_logs::LogError,
    dhow_registry::RegistryError,
    dhow_store::StoreError,
    dhow_runtime::LaunchError
);

impl From<dhow_docker::GrammarError> for CliError {
    fn from(error: dhow_docker::GrammarError) -> Self {
        Self::failed(error.kind(), report(&error))
    }
}

impl From<dhow_types::ReferenceError> for CliError {
    fn from(error: dhow_types::ReferenceError) -> Self {
        Self::failed(ErrorKind::Invalid, report(&error))
    }
}

/// Prints an error of a command and returns the exit code of the process. Nothing else does either.
pub(crate) fn finish(command: &Command, error: CliError) -> i32 {
    let name = command.name;
    let help = format!("Run 'dhow {name} --help' for more information");
    match error {
        CliError::Flag(message) => {
            say(&format!("{message}\n\nUsage:  {}\n\n{help}\n", command.usage_line()));
            EXIT_USAGE
        }
        CliError::Arguments(message) => {
            say(&format!("dhow: {message}\n\nUsage:  {}\n\n{help}\n", command.usage_line()));
            1
        }
        CliError::Template(message) => {
            say(&format!("{message}\n"));
            EXIT_TEMPLATE
        }
        CliError::Refused { message, hint } => {
            say(&format!("{message}\nHint: {hint}\n"));
            1
        }
        CliError::Failed { message, hint, kind } => {
            let hint = hint.map(|h| format!("\nHint: {h}")).unwrap_or_default();
            if command.runs_container {
                say(&format!("dhow: {message}{hint}\n\n{help}\n"));
            } else {
                say(&format!("Error: {message}{hint}\n"));
            }
            match (command.name, kind) {
                // `exec` has the codes of a start failure, and 1 for the rest.
                ("exec", kind) => exit_code(kind, false),
                (_, kind) if command.runs_container => exit_code(kind, true),
                _ => 1,
            }
        }
    }
}

/// Prints an error about one of several objects; the command goes on with the next.
pub(crate) fn complain(error: &CliError) {
    match error {
        CliError::Failed { message, hint, .. } => {
            let hint = hint.as_ref().map(|h| format!("\nHint: {h}")).unwrap_or_default();
            say(&format!("Error: {message}{hint}\n"));
        }
        CliError::Flag(message) | CliError::Arguments(message) | CliError::Template(message) => {
            say(&format!("Error: {message}\n"));
        }
        CliError::Refused { message, hint } => say(&format!("{message}\nHint: {hint}\n")),
    }
}

/// Writes to standard error, made safe for a terminal when it is one. If that fails there is nobody left to tell.
pub(crate) fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = match rustix::termios::isatty(&stderr) {
        true => stderr.write_all(terminal_safe_lines(text).as_bytes()),
        false => stderr.write_all(text.as_bytes()),
    };
}
