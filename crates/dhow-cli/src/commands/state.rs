//! `stop`, `kill`, `restart`, `pause`, `unpause`, `wait`, `rename`.

use super::{each, unless_unchanged};
use crate::command::Command;
use crate::create_spec::signal;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use dhow_types::{ErrorKind, NameError, Signal};

const STOP_FLAGS: &[Flag] = &[
    Flag::value("signal", 's', "string", "Signal to send to the container"),
    Flag::value("timeout", 't', "int", "Seconds to wait before killing the container"),
    Flag::value("time", '\0', "int", "").alias_of("timeout"),
];

pub(crate) static STOP: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop one or more running containers",
    example: "dhow stop -t 30 web",
    flags: &[STOP_FLAGS],
    args: (1, None),
    ..Command::new("stop", &["container stop"], |globals, m| {
        let (engine, signal, timeout) = (globals.engine()?, signal(m, "signal")?, m.number("timeout")?);
        each(&m.args, |name| {
            unless_unchanged(engine.stop(&engine.find(name)?, signal, timeout))?;
            Ok(Some(name.to_owned()))
        })
    })
};

pub(crate) static RESTART: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Restart one or more containers",
    example: "dhow restart web",
    flags: &[STOP_FLAGS],
    args: (1, None),
    ..Command::new("restart", &["container restart"], |globals, m| {
        let (engine, signal, timeout) = (globals.engine()?, signal(m, "signal")?, m.number("timeout")?);
        each(&m.args, |name| {
            engine.restart(&engine.find(name)?, signal, timeout)?;
            Ok(Some(name.to_owned()))
        })
    })
};

pub(crate) static KILL: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Kill one or more running containers",
    example: "dhow kill -s HUP web",
    flags: &[&[Flag::value("signal", 's', "string", "Signal to send to the container")]],
    args: (1, None),
    ..Command::new("kill", &["container kill"], |globals, m| {
        let (engine, signal) = (globals.engine()?, signal(m, "signal")?.unwrap_or(Signal::KILL));
        each(&m.args, |name| {
            engine.kill(&engine.find(name)?, signal)?;
            Ok(Some(name.to_owned()))
        })
    })
};

pub(crate) static PAUSE: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Pause all processes within one or more containers",
    example: "dhow pause web",
    args: (1, None),
    ..Command::new("pause", &["container pause"], |globals, m| {
        let engine = globals.engine()?;
        each(&m.args, |name| {
            engine.pause(&engine.find(name)?)?;
            Ok(Some(name.to_owned()))
        })
    })
};

pub(crate) static UNPAUSE: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Unpause all processes within one or more containers",
    example: "dhow unpause web",
    args: (1, None),
    ..Command::new("unpause", &["container unpause"], |globals, m| {
        let engine = globals.engine()?;
        each(&m.args, |name| {
            engine.unpause(&engine.find(name)?)?;
            Ok(Some(name.to_owned()))
        })
    })
};

pub(crate) static WAIT: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Block until one or more containers stop, then print their exit codes",
    example: "dhow wait web",
    args: (1, None),
    hot: true,
    ..Command::new("wait", &["container wait"], |globals, m| {
        let engine = globals.engine()?;
        each(&m.args, |name| Ok(Some(engine.wait(&engine.find(name)?)?.to_string())))
    })
};

pub(crate) static RENAME: Command = Command {
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    example: "dhow rename web web-old",
    args: (2, Some(2)),
    ..Command::new("rename", &["container rename"], rename)
};

fn rename(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let [old, new] = m.args.as_slice() else { return Ok(1) };
    let engine = globals.engine()?;
    let id = engine.find(old)?;
    let name = new.parse().map_err(|e: NameError| CliError::failed(ErrorKind::Invalid, e.to_string()))?;
    engine.rename(&id, &name)?;
    Ok(0)
}
