//! The monitor role: `dhow monitor ROOT RUN ID`, with the first client on descriptor 3 and the live lock on 4.

use super::launch::{self, Held};
use super::record::Status;
use crate::live::Live;
use crate::paths::SOCKET;
use crate::{Engine, EngineError, files};
use dhow_monitor::{Exit, Frame, Hello, Lifecycle, Outcome, Supervision, supervise};
use dhow_types::{Categorized, ContainerId, ErrorKind, Timestamp};
use rustix::process::{Signal, kill_process};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Runs a monitor to its end. `args` are what follows `dhow monitor`.
///
/// # Errors
/// A text when the role was called by anybody but the engine.
pub fn monitor_main(args: &[String]) -> Result<(), String> {
    let [root, run, id] = args else {
        return Err("the monitor role is started by the engine only".to_owned());
    };
    let id: ContainerId = id.parse().map_err(|e: dhow_types::IdError| e.to_string())?;
    let inherit = |fd| dhow_sys::inherit::take(fd).map_err(|e| format!("descriptor {fd} is missing: {e}"));
    let (client, live) = (inherit(3)?, inherit(4)?);
    let engine = Engine::for_monitor(Path::new(root), Path::new(run)).map_err(|e| dhow_types::report(&e))?;
    let live = engine.inherit_live(&id, File::from(live));
    run_monitor(&engine, &id, client, live);
    Ok(())
}

fn run_monitor(engine: &Engine, id: &ContainerId, client: OwnedFd, live: Live) {
    let mut client = UnixStream::from(client);
    match start(engine, id, &mut client) {
        Ok((supervision, mut life)) => {
            let started = Started { engine, id, life: &mut life };
            started.supervise(supervision, client);
            finish(engine, id, life, live);
        }
        Err(error) => {
            let removed = record_failure(engine, id, &error);
            let (code, message) = failure(&error);
            if !removed {
                let _ = live.release();
            }
            send(&mut client, &Frame::Failed { code, message });
        }
    }
}

/// What is supervised, before a lifecycle is there.
struct Parts {
    running: dhow_runtime::Launched,
    log: Option<dhow_logs::LogWriter>,
    listener: UnixListener,
    hello: Hello,
    stdin_once: bool,
}

/// What the lifecycle needs to know.
struct Life {
    held: Held,
    removed: bool,
}

fn start(engine: &Engine, id: &ContainerId, client: &mut UnixStream) -> Result<(Parts, Life), EngineError> {
    let (hello, size) = greeting(client)?;
    let mut guard = engine.lock(id)?;
    let listener = listen(engine, id)?;
    let launch::Running { launched, log, held } = launch::launch(engine, id, &guard.record, size)?;
    guard.state.status = Status::Running;
    guard.state.pid = launched.pid;
    guard.state.pid_start = launched.start_time;
    guard.state.boot_id = engine.boot_id()?.to_owned();
    guard.state.exit_code = 0;
    guard.state.error.clear();
    guard.state.oom_killed = false;
    guard.state.manually_stopped = false;
    guard.state.started_at = Timestamp::now().to_string();
    guard.state.finished_at.clear();
    guard.state.network = held.network();
    if let Err(e) = guard.save_state() {
        // A container that no list shows as running must not run.
        if let Some(pid) = rustix::process::Pid::from_raw(launched.pid.cast_signed()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let mut held = held;
        held.give_back_early(engine);
        held.give_back_late(engine, id);
        return Err(e);
    }
    let stdin_once = guard.record.process.stdin_once;
    Ok((Parts { running: launched, log, listener, hello, stdin_once }, Life { held, removed: false }))
}

struct Started<'a> {
    engine: &'a Engine,
    id: &'a ContainerId,
    life: &'a mut Life,
}

impl Started<'_> {
    fn supervise(mut self, parts: Parts, client: UnixStream) {
        supervise(Supervision {
            launched: parts.running,
            stdin_once: parts.stdin_once,
            listener: parts.listener,
            first: Some((client, parts.hello)),
            log: parts.log,
            lifecycle: &mut self,
        });
    }
}

impl Lifecycle for Started<'_> {
    fn idle(&mut self) {
        // Healing after other commands that were killed, and the one fsync that makes a long-lived container's record
        // survive a power cut: both while nobody waits.
        let _ = self.engine.sync_container(self.id);
        let _ = self.engine.heal_in_background();
    }

    fn exited(&mut self, exit: Exit) -> Outcome {
        self.life.held.give_back_early(self.engine);
        let recorded = record_exit(self.engine, self.id, exit, self.life.held.oom_killed());
        self.life.removed = matches!(recorded, Ok(true));
        Outcome { removed: self.life.removed }
    }
}

/// Writes the exit down, and with `--rm` takes the container out of every list. Returns whether it did.
fn record_exit(engine: &Engine, id: &ContainerId, exit: Exit, oom_killed: bool) -> Result<bool, EngineError> {
    let mut guard = engine.lock(id)?;
    if guard.record.host.auto_remove {
        engine.unlist(&guard)?;
        return Ok(true);
    }
    guard.state.status = Status::Exited;
    guard.state.pid = 0;
    guard.state.exit_code = exit.code;
    guard.state.oom_killed = oom_killed;
    guard.state.finished_at = Timestamp::now().to_string();
    guard.state.network = None;
    guard.save_state()?;
    Ok(false)
}

/// Everything that nobody waits for.
fn finish(engine: &Engine, id: &ContainerId, mut life: Life, live: Live) {
    life.held.give_back_late(engine, id);
    if life.removed {
        engine.delete_trash(id);
    }
    let _ = live.release();
    // What a killed command left may have been held by its dying children when the last command looked.
    let _ = engine.heal_in_background();
}

fn record_failure(engine: &Engine, id: &ContainerId, error: &EngineError) -> bool {
    let _ = files::remove_tree(&engine.paths.runtime(id));
    let Ok(mut guard) = engine.lock(id) else { return false };
    if guard.record.host.auto_remove {
        if engine.unlist(&guard).is_ok() {
            drop(guard);
            engine.delete_trash(id);
            let _ = files::remove_file(&engine.paths.live_lock(id));
            return true;
        }
        return false;
    }
    let (code, message) = failure(error);
    // Docker: the state stays "created" with the start's exit code (run-semantics, section 1).
    guard.state.exit_code = i32::from(code);
    guard.state.error = message;
    guard.state.pid = 0;
    let _ = guard.save_state();
    false
}

/// Exit code and text of a failed start.
fn failure(error: &EngineError) -> (u8, String) {
    let code = match error {
        EngineError::StartFailed { code, .. } => *code,
        _ if error.kind() == ErrorKind::Internal => 128,
        _ => 125,
    };
    (code, dhow_types::report(error))
}

/// The two frames that the starting client wrote before this process existed.
fn greeting(client: &mut UnixStream) -> Result<(Hello, Option<(u16, u16)>), EngineError> {
    let mut buffer = Vec::new();
    let mut hello = None;
    loop {
        while let Some((frame, used)) =
            Frame::decode(&buffer).map_err(|e| EngineError::Monitor(dhow_monitor::MonitorError::Protocol(e)))?
        {
            buffer.drain(..used);
            match (frame, hello) {
                (Frame::Hello(h), None) => hello = Some(h),
                (Frame::Resize { rows, cols }, Some(h)) => {
                    return Ok((h, Some((rows, cols)).filter(|s| *s != (0, 0))));
                }
                _ => return Err(dhow_monitor::MonitorError::Protocol("unexpected greeting".to_owned()).into()),
            }
        }
        // Not a byte more than the two frames: what follows is for the supervisor.
        let missing = if hello.is_none() { 6 } else { 9 };
        let mut chunk = [0u8; 9];
        let part = chunk.get_mut(..missing - buffer.len().min(missing)).unwrap_or_default();
        match client.read(part) {
            Ok(0) => return Err(dhow_monitor::MonitorError::Protocol("the client is gone".to_owned()).into()),
            Ok(count) => buffer.extend_from_slice(part.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(dhow_monitor::MonitorError::Io { operation: "reading the greeting", source }.into());
            }
        }
    }
}

/// The attach socket. Bound through the directory's descriptor, because a socket address holds 107 bytes only.
fn listen(engine: &Engine, id: &ContainerId) -> Result<UnixListener, EngineError> {
    let dir = engine.paths.runtime(id);
    files::make_dir(&dir)?;
    let opened = File::open(&dir).map_err(EngineError::state("open", &dir))?;
    files::remove_file(&dir.join(SOCKET))?;
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()))
        .map_err(EngineError::state("listen on", &dir.join(SOCKET)))
}

fn send(client: &mut UnixStream, frame: &Frame) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    let _ = client.write_all(&bytes);
}
