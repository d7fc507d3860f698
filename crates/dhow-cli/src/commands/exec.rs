//! `exec`. The process is a child of this one.

use super::{detach_keys, invalid, take_signals};
use crate::command::Command;
use crate::create_spec::env_files;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::pump::{self, ExecEnd, RawTerminal, check_tty, exec_loop, size};
use dhow_docker::detach::Matcher;
use dhow_docker::grammar;
use dhow_engine::{Engine, EngineError, ExecSpec, Executed};
use dhow_types::{Categorized, ContainerId, ErrorKind};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{Read, Write};

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
    hot: true,
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
    let id = engine.find(name)?;
    if detach {
        return detached(&engine, &id, &spec);
    }
    let executed = start(&engine, &id, &spec)?;
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

fn start(engine: &Engine, id: &ContainerId, spec: &ExecSpec) -> Result<Executed, CliError> {
    match engine.exec(id, spec) {
        // The container was fine, its process could not be made: a start failure, whatever the cause.
        Err(EngineError::Launch(e)) => {
            let (message, hint) = (dhow_types::report(&e), e.hint());
            Err(CliError::Failed { message, hint, kind: ErrorKind::CommandNotExecutable })
        }
        other => Ok(other?),
    }
}

/// Starts the command under a process of its own, which stays until the command ends: a command dies with its maker, so
/// that killing `dhow exec` leaves nothing behind, and this one shall live on.
fn detached(engine: &Engine, id: &ContainerId, spec: &ExecSpec) -> Result<i32, CliError> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(CliError::errno("cannot make a pipe"))?;
    let maker = dhow_sys::process::clone_child(0, None, || {
        let result = rustix::process::setsid()
            .map_err(CliError::errno("cannot leave the terminal"))
            .and_then(|_| start(engine, id, spec))
            .and_then(|executed| leave_caller().map(|()| executed));
        match result {
            Ok(executed) => {
                // The caller waits for this end to close.
                drop(File::from(writer));
                linger(executed);
                0
            }
            Err(error) => {
                // If the caller is gone there is nobody to tell.
                let _ = File::from(writer).write_all(&Verdict::encode(error));
                1
            }
        }
    });
    let maker = maker.map_err(CliError::io("cannot make a process"))?;
    drop(maker);
    let mut verdict = Vec::new();
    File::from(reader).read_to_end(&mut verdict).map_err(CliError::io("cannot hear from the command's maker"))?;
    if verdict.is_empty() { Ok(0) } else { Err(Verdict::decode(&verdict)) }
}

/// Lets go of everything of the caller's: its directory, its terminal or pipes.
fn leave_caller() -> Result<(), CliError> {
    let failed = || CliError::errno("cannot leave the caller's files");
    rustix::process::chdir("/").map_err(failed())?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed())?;
    rustix::stdio::dup2_stdin(&null).map_err(failed())?;
    rustix::stdio::dup2_stdout(&null).map_err(failed())?;
    rustix::stdio::dup2_stderr(&null).map_err(failed())
}

/// Takes the command's output, which goes nowhere, until it ends.
fn linger(executed: Executed) {
    if let Ok(signals) = take_signals(false) {
        // Nobody is left who could be told of a failure; the command ends with this process then.
        let _ = exec_loop(executed.process, false, Matcher::new(Vec::new()), &signals);
    }
}

/// How a maker tells its caller why there is no command: kind, text, hint.
struct Verdict;

impl Verdict {
    const KINDS: [ErrorKind; 4] =
        [ErrorKind::Internal, ErrorKind::CommandNotFound, ErrorKind::CommandNotExecutable, ErrorKind::Conflict];

    fn encode(error: CliError) -> Vec<u8> {
        let CliError::Failed { message, hint, kind } = error else {
            return b"\0the command could not be started\0".to_vec();
        };
        let kind = Self::KINDS.iter().position(|k| *k == kind).unwrap_or(0);
        let mut bytes = vec![kind as u8];
        bytes.extend(message.replace('\0', " ").into_bytes());
        bytes.push(0);
        bytes.extend(hint.unwrap_or_default().into_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> CliError {
        let (kind, text) = bytes.split_first().unwrap_or((&0, b""));
        let text = String::from_utf8_lossy(text);
        let (message, hint) = text.split_once('\0').unwrap_or((&text, ""));
        CliError::Failed {
            message: message.to_owned(),
            hint: Some(hint.to_owned()).filter(|h| !h.is_empty()),
            kind: Self::KINDS.get(usize::from(*kind)).copied().unwrap_or(ErrorKind::Internal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_come_through() {
        let error = CliError::failed(ErrorKind::CommandNotFound, "no such program").with_hint("install it");
        let CliError::Failed { message, hint, kind } = Verdict::decode(&Verdict::encode(error)) else { panic!() };
        assert_eq!((message.as_str(), hint.as_deref()), ("no such program", Some("install it")));
        assert_eq!(kind, ErrorKind::CommandNotFound);
    }
}
