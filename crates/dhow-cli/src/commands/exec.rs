//! `exec`. The process is a child of this one.

use super::{detach_keys, invalid, take_signals};
use crate::command::Command;
use crate::create_spec::env_files;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::pump::{self, ExecEnd, RawTerminal, check_tty, exec_loop, size};
use dhow_docker::grammar;
use dhow_engine::{EngineError, ExecSpec};
use dhow_types::{Categorized, ErrorKind};

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    example: "dhow exec -it web /bin/sh",
    flags: &[&[
        Flag::switch("detach", 'd', "Detached mode: run command in the background"),
        Flag::value("detach-keys", '\0', "string", "Override the key sequence for detaching a container"),
        Flag::list("env", 'e', "Set environment variables"),
        Flag::list("env-file", '\0', "Read in a file of environment variables"),
        Flag::switch("interactive", 'i', "Keep STDIN open even if not attached"),
        Flag::switch("privileged", '\0', "Give extended privileges to the command"),
        Flag::switch("tty", 't', "Allocate a pseudo-TTY"),
        Flag::value("user", 'u', "string", "Username or UID (format: <name|uid>[:<group|gid>])"),
        Flag::value("workdir", 'w', "string", "Working directory inside the container"),
    ]],
    interspersed: false,
    args: (2, None),
    sealed: true,
    ..Command::new("exec", &["container exec"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let (tty, detach) = (m.on("tty"), m.on("detach"));
    let stdin = m.on("interactive") && !detach;
    if !detach {
        check_tty(stdin, tty)?;
    }
    let mut args = m.args.iter();
    let name = args.next().map_or("", String::as_str);
    let lookup = |name: &str| std::env::var(name).ok();
    let mut env = env_files(m)?;
    env.extend(
        m.each("env", |text| grammar::env_flag(text).map(|e| e.resolve(&lookup).unwrap_or_else(|| text.to_owned())))?,
    );
    let spec = ExecSpec {
        command: args.cloned().collect(),
        env,
        user: m.given("user"),
        workdir: m.given("workdir"),
        tty,
        stdin,
        privileged: m.on("privileged"),
        console_size: if tty { size() } else { None },
        detach,
    };
    let keys = if tty {
        detach_keys(m.text("detach-keys"), &globals.config()?)?
    } else {
        detach_keys(None, &Default::default())?
    };
    let engine = globals.engine()?;
    let executed = match engine.exec(&engine.find(name)?, &spec) {
        // The container was fine, its process could not be made: a start failure, whatever the cause.
        Err(EngineError::Launch(e)) => {
            let (message, hint) = (dhow_types::report(&e), e.hint());
            return Err(CliError::Failed { message, hint, kind: ErrorKind::CommandNotExecutable });
        }
        other => other?,
    };
    if detach {
        return Ok(0);
    }
    // After the start: the child must not inherit a mask.
    let signals = take_signals(true)?;
    let raw = (stdin && tty).then(RawTerminal::enter).transpose()?;
    let end = exec_loop(executed.process, stdin, keys, &signals);
    drop(raw);
    match end? {
        ExecEnd::Exited(code) => Ok(code),
        ExecEnd::Detached => Err(invalid("read escape sequence")),
        ExecEnd::Signal(number) => {
            pump::restore();
            dhow_sys::signals::die_of(number)
        }
    }
}
