//! Signals, freezing, waiting and renaming.

use super::record::Status;
use super::start::not_running;
use super::{Container, Record};
use crate::{Engine, EngineError};
use dhow_monitor::{Client, Frame, Hello};
use dhow_runtime::cgroup::Cgroup;
use dhow_types::{ContainerId, ContainerName, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Docker's default for `stop`.
const STOP_SECONDS: i64 = 10;
/// How long SIGKILL may take.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops a container: its stop signal, then SIGKILL after `timeout` seconds (-1: never).
    ///
    /// A first process that neither handles nor waits for the signal would never see it (pid_namespaces(7)), so nothing
    /// is waited for then: SIGKILL comes at once.
    pub fn stop(&self, id: &ContainerId, signal: Option<Signal>, timeout: Option<i64>) -> Result<(), EngineError> {
        let container = self.container(id)?;
        if !container.is_alive() {
            return Err(EngineError::Unchanged(format!("container {} is not running", id.short())));
        }
        self.mark_stopped(id);
        let signal = signal.or_else(|| container.record.stop_signal.as_deref()?.parse().ok()).unwrap_or(Signal::TERM);
        let seconds = timeout.or(container.record.stop_timeout).unwrap_or(STOP_SECONDS);
        let mut exit = self.watch_exit(id)?;
        let process = self.open_process(&container)?;
        let deaf = signal != Signal::KILL && is_deaf(&container, signal);
        if !deaf {
            send_signal(&process, signal)?;
        }
        if container.state.status == Status::Paused {
            self.thaw(id)?;
        }
        let wait = match seconds {
            _ if deaf => Some(Duration::ZERO),
            s if s < 0 => None,
            s => Some(Duration::from_secs(s.unsigned_abs())),
        };
        if !exit.wait(wait)? {
            send_signal(&process, Signal::KILL)?;
            if !exit.wait(Some(KILL_PATIENCE))? {
                return Err(EngineError::WrongState {
                    message: format!("container {} does not die of SIGKILL", id.short()),
                    hint: Some("a process of it hangs in the kernel; look at its state in /proc"),
                });
            }
        }
        self.after_exit(id, &exit)
    }

    /// Sends a signal. SIGKILL waits for the exit.
    pub fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), EngineError> {
        let container = self.container(id)?;
        if !container.is_alive() {
            return Err(EngineError::WrongState {
                message: format!("cannot kill container: {}: container {id} is not running", container.record.name),
                hint: None,
            });
        }
        if signal != Signal::KILL {
            return send_signal(&self.open_process(&container)?, signal);
        }
        self.mark_stopped(id);
        let mut exit = self.watch_exit(id)?;
        send_signal(&self.open_process(&container)?, signal)?;
        if container.state.status == Status::Paused {
            self.thaw(id)?;
        }
        exit.wait(Some(KILL_PATIENCE))?;
        self.after_exit(id, &exit)
    }

    /// Stops and starts.
    pub fn restart(&self, id: &ContainerId, signal: Option<Signal>, timeout: Option<i64>) -> Result<(), EngineError> {
        match self.stop(id, signal, timeout) {
            Ok(()) | Err(EngineError::Unchanged(_)) => {}
            Err(e) => return Err(e),
        }
        self.start(id, None).map(|_| ())
    }

    /// Waits until a container does not run, and returns its exit status.
    pub fn wait(&self, id: &ContainerId) -> Result<i64, EngineError> {
        let container = self.container(id)?;
        if !container.is_alive() {
            return Ok(container.state.exit_code.into());
        }
        let mut exit = self.watch_exit(id)?;
        exit.wait(None)?;
        match exit.code {
            Some(code) => Ok(code.into()),
            None => Ok(self.container(id)?.state.exit_code.into()),
        }
    }

    /// Freezes all processes of a container.
    pub fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let mut guard = self.lock(id)?;
        match guard.state.status {
            Status::Running if self.process_exists(&guard.state) => {}
            Status::Paused => {
                return Err(EngineError::WrongState {
                    message: format!("Container {id} is already paused"),
                    hint: None,
                });
            }
            _ => return Err(not_running(id)),
        }
        self.cgroup(id)?.freeze().map_err(cgroup_error)?;
        guard.state.status = Status::Paused;
        guard.save_state()
    }

    /// Thaws a frozen container.
    pub fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        if self.container(id)?.state.status != Status::Paused {
            return Err(EngineError::WrongState { message: format!("Container {id} is not paused"), hint: None });
        }
        self.thaw(id)
    }

    pub(super) fn thaw(&self, id: &ContainerId) -> Result<(), EngineError> {
        let mut guard = self.lock(id)?;
        self.cgroup(id)?.thaw().map_err(cgroup_error)?;
        if guard.state.status == Status::Paused {
            guard.state.status = Status::Running;
            guard.save_state()?;
        }
        Ok(())
    }

    /// Gives a container another name.
    pub fn rename(&self, id: &ContainerId, name: &ContainerName) -> Result<(), EngineError> {
        let mut guard = self.lock(id)?;
        if guard.record.name == name.as_str() {
            return Err(EngineError::Invalid("Renaming a container with the same name as its current name".to_owned()));
        }
        self.claim_name(name, id)?;
        let old = std::mem::replace(&mut guard.record.name, name.to_string());
        guard.save_record()?;
        self.release_name(&old, id)
    }

    pub(super) fn cgroup(&self, id: &ContainerId) -> Result<Cgroup, EngineError> {
        Cgroup::open(&crate::paths::Paths::cgroup(id)).map_err(cgroup_error)
    }

    /// Notes that somebody wanted the end. A full disk must not keep a container from being stopped.
    fn mark_stopped(&self, id: &ContainerId) {
        if let Ok(mut guard) = self.lock(id) {
            guard.state.manually_stopped = true;
            let _ = guard.save_state();
        }
    }

    /// A handle on the container's first process that cannot mean a later process with its number.
    pub(super) fn open_process(&self, container: &Container) -> Result<OwnedFd, EngineError> {
        let gone = || not_running(&container.id);
        let pid = rustix::process::Pid::from_raw(container.state.pid.cast_signed()).ok_or_else(gone)?;
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(|_| gone())?;
        // The descriptor holds the number; if the process behind it is ours now, it stays ours.
        if self.process_exists(&container.state) { Ok(fd) } else { Err(gone()) }
    }

    /// A connection that will tell of the exit. Made before the signal, so that the exit cannot be missed.
    fn watch_exit(&self, id: &ContainerId) -> Result<ExitWatch, EngineError> {
        let client = match self.connect(id) {
            Ok(mut client) => {
                client.send(&Frame::Hello(Hello::default()))?;
                Some(client)
            }
            // No monitor: it was killed, or is just ending.
            Err(_) => None,
        };
        Ok(ExitWatch { client, code: None })
    }

    /// If the monitor ended without a word, settles what it left.
    fn after_exit(&self, id: &ContainerId, exit: &ExitWatch) -> Result<(), EngineError> {
        if exit.code.is_none() { self.heal_container(id) } else { Ok(()) }
    }
}

struct ExitWatch {
    client: Option<Client>,
    code: Option<i32>,
}

impl ExitWatch {
    /// Waits for the exit, at most so long; `false` when it did not come.
    fn wait(&mut self, limit: Option<Duration>) -> Result<bool, EngineError> {
        let Some(client) = &mut self.client else { return Ok(true) };
        let begin = Instant::now();
        loop {
            while let Some(frame) = client.next_buffered()? {
                if let Frame::Exited { code, .. } = frame {
                    self.code = Some(code);
                    return Ok(true);
                }
            }
            let timeout = match limit {
                None => None,
                Some(limit) => {
                    let left = limit.saturating_sub(begin.elapsed());
                    Timespec::try_from(left).ok()
                }
            };
            let mut fds = [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    if !client.fill()? {
                        return Ok(true);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(EngineError::errno("wait for", Path::new("the container's monitor"))(e)),
            }
        }
    }
}

fn send_signal(process: &OwnedFd, signal: Signal) -> Result<(), EngineError> {
    match dhow_sys::process::signal(process.as_fd(), signal.number()) {
        // Already gone: what the signal was for has happened.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
        other => other.map_err(EngineError::state("send a signal to", Path::new("the container's process"))),
    }
}

fn cgroup_error(error: dhow_runtime::cgroup::CgroupError) -> EngineError {
    EngineError::WrongState { message: dhow_types::report(&error), hint: None }
}

/// Whether the first process would never notice the signal: it has a PID namespace of its own, where signals without a
/// handler have no effect on it (pid_namespaces(7)), and it has neither a handler nor a thread that waits for signals.
fn is_deaf(container: &Container, signal: Signal) -> bool {
    let Record { host, .. } = &container.record;
    // The built-in init listens always.
    if !host.pid.is_empty() || host.init {
        return false;
    }
    // Whatever cannot be read may hear.
    let tasks = format!("/proc/{}/task", container.state.pid);
    let Ok(tasks) = std::fs::read_dir(tasks) else { return false };
    tasks.flatten().all(|task| {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name));
        let (Ok(status), Ok(call)) = (read("status"), read("syscall")) else { return false };
        !waits_for_signals(&call) && hears(&status, signal) == Some(false)
    })
}

/// Whether a thread's `/proc/PID/task/TID/syscall` says that it is in rt_sigtimedwait(2), which takes the signals that
/// it waits for out of the blocked ones as long as it waits.
fn waits_for_signals(call: &str) -> bool {
    call.split(' ').next().and_then(|n| n.parse().ok()) == Some(dhow_sys::process::RT_SIGTIMEDWAIT)
}

/// Reads `SigCgt` and `SigBlk` of a thread's `status`.
fn hears(status: &str, signal: Signal) -> Option<bool> {
    let mask = |field: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(field))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let bit = 1u64 << (signal.number() - 1);
    Some((mask("SigCgt:")? | mask("SigBlk:")?) & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_and_waiters_hear() {
        let status = |cgt: &str, blk: &str| format!("Name:\tx\nSigBlk:\t{blk}\nSigIgn:\t0\nSigCgt:\t{cgt}\n");
        let none = "0000000000000000";
        assert_eq!(hears(&status(none, none), Signal::TERM), Some(false));
        assert_eq!(hears(&status("0000000000004000", none), Signal::TERM), Some(true));
        assert_eq!(hears(&status(none, "0000000000004000"), Signal::TERM), Some(true));
        assert_eq!(hears("", Signal::TERM), None);
        assert!(waits_for_signals(&format!("{} 0x7ffc 0x0", dhow_sys::process::RT_SIGTIMEDWAIT)));
        assert!(!waits_for_signals("running\n"));
    }
}
