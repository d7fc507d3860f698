//! `run`: create, start, and stay in the foreground.
//!
//! One thread from here to the end: the engine launches processes, and the pump is one poll loop.

use super::create::{check_cidfile, with_image, write_cidfile};
use super::{Session, detach_keys, foreground, invalid, take_signals, warn};
use crate::command::Command;
use crate::create_spec;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use crate::pump::{End, check_tty, size};
use dhow_engine::{AttachRequest, EngineError};
use dhow_types::ContainerSpec;

const FLAGS: &[Flag] = &[
    Flag::switch("detach", 'd', "Run container in background and print container ID"),
    Flag::value("detach-keys", '\0', "string", "Override the key sequence for detaching a container"),
    Flag::switch("sig-proxy", '\0', "Proxy received signals to the process (default true)"),
];

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create and run a new container from an image",
    example: "dhow run --rm -it busybox sh",
    flags: &[FLAGS, create_spec::FLAGS],
    interspersed: false,
    args: (1, None),
    runs_container: true,
    hot: true,
    ..Command::new("run", &["container run"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let config = globals.config()?;
    let mut spec = create_spec::build(m, &config)?;
    let detached = m.on("detach");
    spec.attach = streams(m, &spec, detached)?;
    spec.stdin_once = spec.attach.0;
    if !detached {
        check_tty(spec.attach.0, spec.tty)?;
    }
    spec.console_size = if spec.tty { size() } else { None };
    check_cidfile(&spec)?;
    let detach = detach_keys(m.text("detach-keys"), &config)?;
    let forward = m.switch("sig-proxy").unwrap_or(true);
    let engine = globals.engine()?;
    let request = (!detached).then_some(AttachRequest {
        stdin: spec.attach.0,
        stdout: spec.attach.1,
        stderr: spec.attach.2,
        console_size: spec.console_size,
    });
    let mut signals = None;
    let started = with_image(&engine, m, &spec, &mut |engine| {
        // Taken only now: a pull must end at ctrl-c. From here on a signal is the container's.
        if !detached && signals.is_none() {
            signals = Some(take_signals(forward));
        }
        let result = engine.run(&spec, request, &mut |created| write_cidfile(&spec, created));
        if matches!(result, Err(EngineError::NoSuchImage(_))) {
            signals = None;
        }
        result
    });
    let (created, client) = started?;
    warn(&created.warnings);
    let (Some(client), Some(signals)) = (client, signals) else {
        out::print(&format!("{}\n", created.id))?;
        return Ok(0);
    };
    let signals = signals?;
    let session = Session { client, stdin: spec.attach.0, tty: spec.tty, forward, detach, signals: &signals };
    match foreground(&engine, &created.id, session)? {
        End::Exited(code) => Ok(code),
        _ => Ok(0),
    }
}

/// Which streams the foreground has: (stdin, stdout, stderr).
fn streams(m: &Matches, spec: &ContainerSpec, detached: bool) -> Result<(bool, bool, bool), CliError> {
    let mut out = (false, false, false);
    let mut any = false;
    for name in m.list("attach") {
        any = true;
        match name.to_ascii_lowercase().as_str() {
            "stdin" => out.0 = true,
            "stdout" => out.1 = true,
            "stderr" => out.2 = true,
            _ => {
                return Err(CliError::flag(format!(
                    "invalid argument {name:?} for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"
                )));
            }
        }
    }
    match (detached, any) {
        (true, true) => Err(invalid("Conflicting options: -a and -d")),
        (true, false) => Ok((false, false, false)),
        (false, true) => Ok((out.0 && spec.open_stdin, out.1, out.2)),
        (false, false) => Ok((spec.open_stdin, true, true)),
    }
}
