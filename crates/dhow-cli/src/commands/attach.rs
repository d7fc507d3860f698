//! `attach`.

use super::{Session, detach_keys, foreground, invalid, take_signals};
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::pump::{End, check_tty, size};
use dhow_engine::{AttachRequest, Status};

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Attach local standard input, output, and error streams to a running container",
    example: "dhow attach web",
    flags: &[&[
        Flag::value("detach-keys", '\0', "string", "Override the key sequence for detaching a container"),
        Flag::switch("no-stdin", '\0', "Do not attach STDIN"),
        Flag::switch("sig-proxy", '\0', "Proxy all received signals to the process (default true)"),
    ]],
    args: (1, Some(1)),
    hot: true,
    ..Command::new("attach", &["container attach"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    let id = engine.find(m.args.first().map_or("", String::as_str))?;
    let container = engine.container(&id)?;
    match container.state.status {
        Status::Running => {}
        Status::Paused => return Err(invalid("You cannot attach to a paused container, unpause it first")),
        _ => return Err(invalid("You cannot attach to a stopped container, start it first")),
    }
    let tty = container.record.process.tty;
    let stdin = !m.on("no-stdin") && container.record.process.open_stdin;
    check_tty(stdin, tty)?;
    let detach = detach_keys(m.text("detach-keys"), &globals.config()?)?;
    let forward = m.switch("sig-proxy").unwrap_or(true) && !tty;
    let signals = take_signals(forward)?;
    let console_size = if tty { size() } else { None };
    let client = engine.attach(&id, AttachRequest { stdin, stdout: true, stderr: true, console_size })?;
    match foreground(&engine, &id, Session { client, stdin, tty, forward, detach, signals: &signals })? {
        End::Exited(code) => Ok(code),
        _ => Err(invalid("read escape sequence")),
    }
}
