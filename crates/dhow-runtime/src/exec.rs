//! Starting a process in a running container.
//!
//! The process is born in the container's PID namespace and cgroup as a child of the caller, and enters the other
//! namespaces itself, which also makes the container's root its own. Everything after that is [`crate::launch`]'s code.

use crate::cgroup::Cgroup;
use crate::channel::Channel;
use crate::confine::{self, Confinement, Init};
use crate::error::{Failure, LaunchError, OrFail, Stage};
use crate::launch::join_cgroups;
use crate::maker::{self, ClonePlan, Maker};
use crate::request::{ExecRequest, Launched};
use crate::stdio::{self, Theirs};
use crate::{procfs, rootfs};
use dhow_oci::runtime::Process;
use dhow_sys::process as sys;
use dhow_sys::tty::{DEVPTS_MAGIC, Pty};
use dhow_sys::{fs as paths, mount};
use rustix::fs::{Mode, OFlags};
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// `PROC_SUPER_MAGIC` of `linux/magic.h`.
const PROC_MAGIC: u64 = 0x9fa0;

/// Starts a process in a running container. It is a child of the caller. Returns when its program runs; on an error
/// nothing is left of it.
pub fn exec(request: ExecRequest<'_>) -> Result<Launched, LaunchError> {
    let ExecRequest { init_pid: _, init_pidfd, process, user, seccomp, cgroup, stdio } = request;
    maker::check_caller()?;
    check_alive(init_pidfd, 0)?;
    let confinement = Confinement::new(process, user, &[], seccomp)?;
    let (ours, theirs) = stdio::prepare(stdio)?;
    let inner = Inner { init: init_pidfd, confinement, process, cgroup };
    let plan = ClonePlan { new: 0, pid_namespace: Some(init_pidfd), is_visible: true };
    let launched = Maker::make(&plan, cgroup.v2_dir(), |channel| inner.become_member(theirs, channel))
        .and_then(|maker| maker.accompany(ours, |_| Ok(())));
    launched.map_err(|error| if ended_meanwhile(&error, init_pidfd) { LaunchError::Gone } else { error })
}

/// Whether the reason for an error is that the container ended. That makes any of the steps fail: it kills the process,
/// takes the namespaces away (ESRCH), lets nobody into its PID namespace (ENOMEM, of all numbers).
fn ended_meanwhile(error: &LaunchError, init: BorrowedFd<'_>) -> bool {
    /// For a process that is just ending, whose pidfd does not say so yet.
    const PATIENCE_MS: u32 = 100;
    let errno = match error {
        LaunchError::Step { stage: Stage::Namespaces, source: Some(source), .. } => source.raw_os_error(),
        _ => None,
    };
    let patience = match errno {
        Some(libc::ESRCH) => return true,
        Some(libc::ENOMEM) => PATIENCE_MS,
        _ if matches!(error, LaunchError::Died(_)) => PATIENCE_MS,
        _ => 0,
    };
    check_alive(init, patience).is_err()
}

/// Fails when a process has ended, or ends within so many milliseconds.
fn check_alive(init: BorrowedFd<'_>, patience_ms: u32) -> Result<(), LaunchError> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // A pidfd is readable once its process has ended, also while it waits to be reaped, when signals still reach it.
    let mut fds = [PollFd::new(&init, PollFlags::IN)];
    match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: i64::from(patience_ms) * 1_000_000 })) {
        Ok(0) => Ok(()),
        Ok(_) => Err(LaunchError::Gone),
        Err(e) => Err(LaunchError::step(Stage::Namespaces, "cannot look at the container's process")(e.into())),
    }
}

/// The new process's side.
struct Inner<'a> {
    init: BorrowedFd<'a>,
    confinement: Confinement<'a>,
    process: &'a Process,
    cgroup: &'a Cgroup,
}

impl Inner<'_> {
    /// The steps, in their order.
    fn become_member(self, stdio: Theirs, channel: &mut Channel) -> Result<Infallible, Failure> {
        confine::withdraw()?;
        maker::wait_for_go(channel)?;
        // Before the namespaces: the cgroups' files and a trusted `/proc` are the host's.
        join_cgroups(self.cgroup)?;
        procfs_of_host(self.process)?;
        enter_namespaces(self.init)?;
        let root = mount::open_place(Path::new("/")).or_fail(Stage::Root, || "cannot open the container's root")?;
        let stdio = stdio.complete(channel, || rootfs::open_null(root.as_fd()), || open_pty(root.as_fd()))?;
        drop(root);
        // From here no descriptor of the host is left.
        channel.keep_only(stdio.fds)?;
        self.confinement.become_program(stdio.kind, channel, Init::None)
    }
}

/// What the process has in its own `/proc/self`.
fn procfs_of_host(process: &Process) -> Result<(), Failure> {
    let host: OwnedFd;
    let host = {
        host = mount::open_place(Path::new("/proc")).or_fail(Stage::Confinement, || "cannot open /proc")?;
        host.as_fd()
    };
    procfs::configure_self(process, || match mount::is_on(host, PROC_MAGIC) {
        Ok(true) => Ok(host),
        _ => Err(Failure::new(Stage::Confinement, "/proc is not a proc file system")),
    })
}

/// Enters all namespaces of the container's first process in one call. Root and working directory become its mount
/// namespace's root.
fn enter_namespaces(init: BorrowedFd<'_>) -> Result<(), Failure> {
    let all = sys::CLONE_NEWNS | sys::CLONE_NEWCGROUP | sys::CLONE_NEWUTS | sys::CLONE_NEWIPC | sys::CLONE_NEWNET;
    match sys::enter(init, all | sys::CLONE_NEWTIME) {
        // A kernel without time namespaces.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => sys::enter(init, all),
        result => result,
    }
    .or_fail(Stage::Namespaces, || "cannot enter the container's namespaces")
}

/// A terminal of the devpts instance at the container's `/dev/pts`, which must be one, whatever the container did there.
fn open_pty(root: BorrowedFd<'_>) -> Result<Pty, Failure> {
    let what = || "cannot make a terminal in the container";
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let devpts =
        paths::open_without_links(root, Path::new("/dev/pts"), flags, Mode::empty()).or_fail(Stage::Stdio, what)?;
    if !mount::is_on(devpts.as_fd(), DEVPTS_MAGIC).or_fail(Stage::Stdio, what)? {
        return Err(Failure::new(Stage::Stdio, format!("{}: its /dev/pts is not a devpts file system", what())));
    }
    Pty::open(devpts.as_fd()).or_fail(Stage::Stdio, what)
}
