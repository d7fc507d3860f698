//! The commands, one module each.

pub(crate) mod attach;
pub(crate) mod build;
pub(crate) mod commit;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod history;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod ns;
pub(crate) mod port;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod system;
pub(crate) mod tag;
pub(crate) mod top;
pub(crate) mod version;

use crate::error::{CliError, complain, say};
use crate::out;
use crate::pump::{self, Attached, End, RawTerminal, attach_loop};
use dhow_docker::detach::{self, Matcher};
use dhow_docker::table::{Format, Listing};
use dhow_engine::{Client, Engine};
use dhow_sys::signals::SignalFd;
use dhow_types::{ContainerId, ErrorKind, Timestamp};

/// Does something to each of several objects. What goes wrong with one is said, and the others follow; the exit code is
/// then 1. `work` returns what to print.
fn each(names: &[String], mut work: impl FnMut(&str) -> Result<Option<String>, CliError>) -> Result<i32, CliError> {
    let mut code = 0;
    for name in names {
        match work(name) {
            Ok(None) => {}
            Ok(Some(line)) => out::print(&format!("{line}\n"))?,
            Err(error) => {
                complain(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Nothing to change is success.
fn unless_unchanged(result: Result<(), dhow_engine::EngineError>) -> Result<(), CliError> {
    match result {
        Err(dhow_engine::EngineError::Unchanged(_)) => Ok(()),
        other => Ok(other?),
    }
}

/// Prints a list in the wanted format, `""` being the default.
fn print_list(listing: &Listing, format: Option<&str>) -> Result<(), CliError> {
    let format = Format::parse(format.unwrap_or_default())?;
    out::print(&listing.render(&format)?)
}

/// The detach keys: flag, then settings, then Docker's default.
fn detach_keys(flag: Option<&str>, config: &crate::config_file::ConfigFile) -> Result<Matcher, CliError> {
    let keys = match flag.or_else(|| config.text("detachKeys")) {
        Some("") | None => detach::DEFAULT.to_vec(),
        Some(text) => detach::parse(text)?,
    };
    Ok(Matcher::new(keys))
}

/// A foreground session with a container.
struct Session<'a> {
    client: Client,
    stdin: bool,
    tty: bool,
    forward: bool,
    detach: Matcher,
    signals: &'a SignalFd,
}

/// Pumps a session and tells how it ended. The terminal is as before when this returns.
fn foreground(engine: &Engine, id: &ContainerId, session: Session<'_>) -> Result<End, CliError> {
    let raw = (session.stdin && session.tty).then(RawTerminal::enter).transpose()?;
    let end = attach_loop(Attached {
        client: session.client,
        stdin: session.stdin,
        tty: session.tty,
        forward: session.forward,
        detach: session.detach,
        signals: session.signals,
    });
    drop(raw);
    match end? {
        // The monitor went without a word; the engine knows or finds out what became of the container.
        End::Lost => Ok(End::Exited(i32::try_from(engine.wait(id)?).unwrap_or(125))),
        End::Signal(number) => {
            pump::restore();
            dhow_sys::signals::die_of(number)
        }
        end => Ok(end),
    }
}

fn take_signals(forward: bool) -> Result<SignalFd, CliError> {
    pump::take_signals(forward).map_err(CliError::io("cannot take signals"))
}

pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        say(&format!("WARNING: {warning}\n"));
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// Asks on the terminal; everything but yes is no.
fn confirm(question: &str) -> Result<bool, CliError> {
    out::print(&format!("{question}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(CliError::io("cannot read the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn invalid(message: impl Into<String>) -> CliError {
    CliError::failed(ErrorKind::Invalid, message)
}
