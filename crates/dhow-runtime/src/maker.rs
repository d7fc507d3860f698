//! The caller's side of making a process: clone it, go along until its program runs, clean up if it never does.

use crate::channel::{Channel, Message};
use crate::confine;
use crate::error::{Failure, LaunchError, OrFail, Stage};
use crate::request::Launched;
use crate::stdio::Ours;
use dhow_sys::process::{self as sys, Child};
use rustix::process::DumpableBehavior;
use std::cell::Cell;
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Checks what is asked of callers; see the crate's documentation.
pub(crate) fn check_caller() -> Result<(), LaunchError> {
    if !single_threaded()? {
        return Err(LaunchError::Threads);
    }
    match sys::exe_is_sealed() {
        Ok(true) => Ok(()),
        Ok(false) => Err(LaunchError::NotSealed),
        Err(e) => Err(LaunchError::step(Stage::Namespaces, "cannot look at /proc/self/exe")(e)),
    }
}

/// Whether the caller has one thread.
pub(crate) fn single_threaded() -> Result<bool, LaunchError> {
    sys::is_single_threaded().map_err(LaunchError::step(Stage::Namespaces, "cannot look at /proc/self/task"))
}

/// How a process is cloned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClonePlan<'a> {
    /// New namespaces, `CLONE_NEW*` bits.
    pub(crate) new: u64,
    /// A PID namespace to be born in: its file, or a pidfd of a process in it.
    pub(crate) pid_namespace: Option<BorrowedFd<'a>>,
    /// Whether other processes can see the new one from its first moment.
    pub(crate) is_visible: bool,
}

impl ClonePlan<'_> {
    /// Clones, and puts everything about the caller back that has to be changed for it.
    fn clone_child(&self, cgroup: Option<BorrowedFd<'_>>, body: impl FnOnce() -> i32) -> Result<Child, LaunchError> {
        let failed = LaunchError::step(Stage::Namespaces, "cannot make a process in new namespaces");
        // The child starts with its maker's memory and with its maker's visibility.
        let hidden = if self.is_visible { Some(Hidden::hide()?) } else { None };
        let Some(namespace) = self.pid_namespace else {
            let child = sys::clone_child(self.new, cgroup, body).map_err(failed);
            drop(hidden);
            return child;
        };
        // setns(2) with a PID namespace is about children only; the caller stays where it is.
        let join = LaunchError::step(Stage::Namespaces, "cannot join the PID namespace");
        let own = std::fs::File::open("/proc/self/ns/pid")
            .map_err(LaunchError::step(Stage::Namespaces, "cannot open the own PID namespace"))?;
        sys::enter(namespace, sys::CLONE_NEWPID).map_err(join)?;
        let child = sys::clone_child(self.new, cgroup, body).map_err(failed);
        let back = sys::enter(own.as_fd(), sys::CLONE_NEWPID);
        match (child, back) {
            (Ok(child), Err(e)) => {
                discard(&child);
                Err(LaunchError::step(Stage::Namespaces, "cannot return to the own PID namespace")(e))
            }
            (child, _) => child,
        }
    }
}

/// The caller, hidden from others (`PR_SET_DUMPABLE`) until this is dropped.
struct Hidden {
    before: DumpableBehavior,
}

impl Hidden {
    fn hide() -> Result<Self, LaunchError> {
        let failed = |e: rustix::io::Errno| LaunchError::step(Stage::Namespaces, "cannot hide the process")(e.into());
        let before = rustix::process::dumpable_behavior().map_err(failed)?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Only the value 2, which nobody can set, is refused; then hidden is what it was.
        let _ = rustix::process::set_dumpable_behavior(self.before);
    }
}

/// A process on its way to its program.
#[derive(Debug)]
pub(crate) struct Maker {
    child: Child,
    channel: Channel,
}

impl Maker {
    /// Clones a process that runs `body` and reports what goes wrong in it.
    pub(crate) fn make(
        plan: &ClonePlan<'_>,
        cgroup: Option<BorrowedFd<'_>>,
        body: impl FnOnce(&mut Channel) -> Result<Infallible, Failure>,
    ) -> Result<Self, LaunchError> {
        let (ours, theirs) = Channel::pair().map_err(LaunchError::step(Stage::Stdio, "cannot make a socket pair"))?;
        // Our side is taken out in both processes, each of which has its own copy of this memory: here to use it, there
        // to close it, without which the child would wait for ever when its maker dies.
        let ours = Cell::new(Some(ours));
        let mut theirs = theirs;
        let child = plan.clone_child(cgroup, || {
            drop(ours.take());
            let result = body(&mut theirs);
            let code = confine::report(&theirs, result);
            // Destructors would close descriptors by numbers that mean something else by now.
            sys::exit_now(code)
        })?;
        drop(theirs);
        let Some(channel) = ours.take() else {
            discard(&child);
            return Err(Failure::new(Stage::Stdio, "the channel is gone").into());
        };
        Ok(Self { child, channel })
    }

    /// Does `meanwhile` while the process prepares itself, lets it go on, and waits until its program runs.
    pub(crate) fn accompany(
        self,
        stdio: Ours,
        meanwhile: impl FnOnce(u32) -> Result<(), String>,
    ) -> Result<Launched, LaunchError> {
        match self.follow(meanwhile) {
            Ok((start_time, pty)) => Ok(Launched {
                pid: self.child.pid,
                pidfd: self.child.pidfd,
                start_time,
                stdin: stdio.stdin,
                stdout: stdio.stdout,
                stderr: stdio.stderr,
                pty,
            }),
            Err(error) => {
                let exit = discard(&self.child);
                Err(match (error, exit) {
                    (Trouble::Silence, Some(exit)) => LaunchError::Died(exit),
                    (Trouble::Silence, None) => LaunchError::Died(sys::Exit::Code(1)),
                    (Trouble::Known(error), _) => error,
                    // A process that failed meanwhile has no network to attach: its own words are the cause.
                    (Trouble::Meanwhile(failure), _) => self.last_words().unwrap_or(failure).into(),
                })
            }
        }
    }

    /// What a dead process said of its failure.
    fn last_words(&self) -> Option<Failure> {
        loop {
            match self.channel.receive().ok()? {
                Message::Failed(failure) => return Some(failure),
                Message::End => return None,
                Message::Terminal(_) | Message::Ready => {}
            }
        }
    }

    fn follow(&self, meanwhile: impl FnOnce(u32) -> Result<(), String>) -> Result<(u64, Option<OwnedFd>), Trouble> {
        meanwhile(self.child.pid).map_err(|what| Trouble::Meanwhile(Failure::new(Stage::Network, what)))?;
        // If it is dead already, its last words are what counts.
        let _ = self.channel.send_go();
        let start_time = sys::start_time(self.child.pid)
            .map_err(LaunchError::step(Stage::Namespaces, "cannot read the start time of the process"))?;
        let mut pty = None;
        let mut is_ready = false;
        loop {
            let message =
                self.channel.receive().map_err(LaunchError::step(Stage::Program, "cannot hear from the process"))?;
            match message {
                Message::Terminal(master) => pty = Some(master),
                Message::Failed(failure) => return Err(failure.into()),
                Message::Ready => is_ready = true,
                Message::End if is_ready => return Ok((start_time, pty)),
                Message::End => return Err(Trouble::Silence),
            }
        }
    }
}

/// Why a process never became its program.
enum Trouble {
    Known(LaunchError),
    /// What the caller did meanwhile failed.
    Meanwhile(Failure),
    /// It ended without a word.
    Silence,
}

impl From<LaunchError> for Trouble {
    fn from(error: LaunchError) -> Self {
        Self::Known(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Known(failure.into())
    }
}

/// Ends and reaps a process. Both can fail only if somebody else reaped it.
pub(crate) fn discard(child: &Child) -> Option<sys::Exit> {
    let silent = sys::try_wait(child.pidfd.as_fd()).ok().flatten();
    if silent.is_some() {
        return silent;
    }
    let _ = sys::signal(child.pidfd.as_fd(), libc::SIGKILL);
    sys::wait(child.pidfd.as_fd()).ok()
}

/// The process's side of [`Maker::accompany`]: waits until `meanwhile` is done.
pub(crate) fn wait_for_go(channel: &Channel) -> Result<(), Failure> {
    match channel.wait_go().or_fail(Stage::Network, || "cannot hear from the caller")? {
        true => Ok(()),
        // Nobody is left to tell.
        false => sys::exit_now(1),
    }
}
