//! `start`.

use super::{Session, detach_keys, each, foreground, invalid, take_signals, unless_unchanged};
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::pump::{End, check_tty, size};
use dhow_engine::AttachRequest;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    example: "dhow start web",
    flags: &[&[
        Flag::switch("attach", 'a', "Attach STDOUT/STDERR and forward signals"),
        Flag::value("checkpoint", '\0', "string", "").missing(),
        Flag::value("checkpoint-dir", '\0', "string", "").missing(),
        Flag::value("detach-keys", '\0', "string", "Override the key sequence for detaching a container"),
        Flag::switch("interactive", 'i', "Attach container's STDIN"),
    ]],
    args: (1, None),
    hot: true,
    ..Command::new("start", &["container start"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    if !m.on("attach") && !m.on("interactive") {
        return each(&m.args, |name| {
            unless_unchanged(engine.start(&engine.find(name)?, None).map(|_| ()))?;
            Ok(Some(name.to_owned()))
        });
    }
    let [name] = m.args.as_slice() else {
        return Err(invalid("you cannot start and attach multiple containers at once"));
    };
    let id = engine.find(name)?;
    let container = engine.container(&id)?;
    let tty = container.record.process.tty;
    let stdin = m.on("interactive") && container.record.process.open_stdin;
    check_tty(stdin, tty)?;
    let detach = detach_keys(m.text("detach-keys"), &globals.config()?)?;
    let forward = !tty;
    let signals = take_signals(forward)?;
    let request = AttachRequest { stdin, stdout: true, stderr: true, console_size: if tty { size() } else { None } };
    let client = match engine.start(&id, Some(request)) {
        Ok(Some(client)) => client,
        Ok(None) => return Ok(0),
        // It runs already: attach to it, as Docker does.
        Err(dhow_engine::EngineError::Unchanged(_)) => engine.attach(&id, request)?,
        Err(e) => return Err(e.into()),
    };
    match foreground(&engine, &id, Session { client, stdin, tty, forward, detach, signals: &signals })? {
        End::Exited(code) => Ok(code),
        _ => Ok(0),
    }
}
