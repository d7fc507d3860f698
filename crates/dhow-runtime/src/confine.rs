//! The last steps of a process before it is the program: identity, limits, capabilities, system call filter.
//!
//! [`crate::launch`] and [`crate::exec`] share all of this, so that a process that enters a container is confined like
//! the one that started it.

use crate::caps;
use crate::channel::Channel;
use crate::error::{Failure, LaunchError, OrFail, Stage};
use crate::seccomp::SeccompFilter;
use crate::stdio::{self, Kind};
use crate::user::{Identity, Wanted};
use crate::{program, workdir};
use dhow_oci::runtime::{Process, Rlimit};
use dhow_sys::{caps as sys_caps, mount, process as sys, tty};
use rustix::process::{Resource, Signal};
use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// What a built-in init is called in the container's process list.
const INIT_NAME: &str = "dhow-init";
/// `CAP_SYS_ADMIN` as a bit.
const SYS_ADMIN: u64 = 1 << 21;

/// What a process is going to be, checked by the caller.
#[derive(Debug)]
pub(crate) struct Confinement<'a> {
    process: &'a Process,
    wanted: Wanted<'a>,
    caps: caps::Plan,
    limits: Vec<(Resource, rustix::process::Rlimit)>,
    seccomp: &'a SeccompFilter,
    argv: Vec<CString>,
}

/// Whether the program becomes PID 1 itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Init {
    /// Yes.
    None,
    /// A small init does, with the program as its child.
    BuiltIn,
}

impl<'a> Confinement<'a> {
    /// Reads the specification.
    pub(crate) fn new(
        process: &'a Process,
        user: &'a str,
        group_add: &'a [String],
        seccomp: &'a SeccompFilter,
    ) -> Result<Self, LaunchError> {
        let wrong = |what: String| LaunchError::from(Failure::new(Stage::Specification, what));
        if process.args.is_empty() {
            return Err(wrong("no command specified".into()));
        }
        let strings = |list: &[String], what: &str| {
            list.iter()
                .map(|s| CString::new(s.as_str()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| wrong(format!("{what} with a NUL")))
        };
        strings(&process.env, "an environment variable")?;
        Ok(Self {
            process,
            wanted: Wanted { text: user, group_add, numbers: &process.user },
            caps: caps::Plan::new(&process.capabilities).map_err(|e| wrong(e.to_string()))?,
            limits: process.rlimits.iter().map(limit).collect::<Result<_, _>>().map_err(wrong)?,
            seccomp,
            argv: strings(&process.args, "an argument")?,
        })
    }

    /// Becomes the program. The root must be the container's, descriptors 0 to 2 final, and the channel the only other
    /// one.
    pub(crate) fn become_program(&self, stdio: Kind, channel: &Channel, init: Init) -> Result<Infallible, Failure> {
        let root = mount::open_place(Path::new("/")).or_fail(Stage::Root, || "cannot open the root")?;
        let identity = self.wanted.resolve_in(root.as_fd())?;
        stdio::give_to(stdio, identity.uid)?;
        // With all rights: a limit may have to be raised, and Docker too enters directories that only root may.
        self.set_limits()?;
        workdir::enter(root.as_fd(), &self.process.cwd)?;
        drop(root);
        self.change_identity(&identity)?;
        // As the user, whose rights decide what is executable.
        let program = program::find(&self.process.args[0], &self.process.env)?;
        let env = program::with_home(&self.process.env, identity.home.as_deref());
        let env: Vec<CString> = env.into_iter().filter_map(|e| CString::new(e).ok()).collect();
        sys::reset_signals();
        let terminal = stdio == Kind::Terminal;
        let execute = || -> Result<Infallible, Failure> {
            lead_session(terminal)?;
            die_with_maker(channel)?;
            self.lock(&identity, Some(channel))?;
            let error = sys::execve(&program, &self.argv, &env);
            Err(program::explain(&self.process.args[0], &error, false))
        };
        match init {
            Init::None => execute(),
            Init::BuiltIn => {
                let child = sys::clone_child(0, None, || report(channel, execute()));
                let child = child.or_fail(Stage::Program, || "cannot start a process below init")?;
                die_with_maker(channel)?;
                self.lock(&identity, None)?;
                be_init(child.pid)
            }
        }
    }

    fn set_limits(&self) -> Result<(), Failure> {
        for (resource, limit) in &self.limits {
            rustix::process::setrlimit(*resource, *limit)
                .or_fail(Stage::Confinement, || format!("cannot set the resource limit {resource:?}"))?;
        }
        let umask = self.process.user.umask.unwrap_or(0o022) & 0o777;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        Ok(())
    }

    /// Changes groups, group and user, keeping the permitted capabilities for the steps after it. The bounding set goes
    /// first, since it needs a right that the user may not have.
    fn change_identity(&self, identity: &Identity) -> Result<(), Failure> {
        let what = || format!("cannot become user {} and group {}", identity.uid, identity.gid);
        self.caps.limit_bounding().map_err(from_caps)?;
        self.caps.keep().map_err(from_caps)?;
        let groups: Vec<_> = identity.groups.iter().map(|g| rustix::process::Gid::from_raw(*g)).collect();
        rustix::thread::set_thread_groups(&groups).or_fail(Stage::Confinement, what)?;
        let gid = rustix::process::Gid::from_raw(identity.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).or_fail(Stage::Confinement, what)?;
        let uid = rustix::process::Uid::from_raw(identity.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).or_fail(Stage::Confinement, what)?;
        let sets = self.sets(identity);
        let extra = if self.needs_admin() { SYS_ADMIN } else { 0 };
        sys_caps::set(sys_caps::Sets { permitted: sets.permitted | extra, ..sets })
            .and_then(|()| sys_caps::clear_ambient())
            .and_then(|()| sys_caps::raise_ambient(self.caps.ambient.0))
            .and_then(|()| sys_caps::set_keep(false))
            .or_fail(Stage::Confinement, || "cannot set the capabilities")
    }

    /// The final sets. A user other than root has none but ambient ones, as execve(2) would leave it.
    fn sets(&self, identity: &Identity) -> sys_caps::Sets {
        let inheritable = self.caps.inheritable.0;
        match identity.uid {
            0 => sys_caps::Sets { effective: self.caps.effective.0, permitted: self.caps.permitted.0, inheritable },
            _ => sys_caps::Sets { effective: self.caps.ambient.0, permitted: self.caps.ambient.0, inheritable },
        }
    }

    /// Without no_new_privs the kernel loads a filter only for `CAP_SYS_ADMIN` (seccomp(2)).
    fn needs_admin(&self) -> bool {
        !self.seccomp.is_none() && !self.process.no_new_privileges
    }

    /// Gives up what is left and loads the filter, as late as the kernel allows: with no_new_privs nothing but execve(2)
    /// comes after the filter, without it one capset(2). *Ready* is announced before the filter, which may forbid it.
    fn lock(&self, identity: &Identity, announce: Option<&Channel>) -> Result<(), Failure> {
        let what = || "cannot set the capabilities";
        let sets = self.sets(identity);
        if self.process.no_new_privileges {
            rustix::thread::set_no_new_privs(true).or_fail(Stage::Confinement, || "cannot set no_new_privs")?;
        }
        if self.needs_admin() {
            let with_admin = sets.permitted | SYS_ADMIN;
            sys_caps::set(sys_caps::Sets {
                effective: sets.effective | SYS_ADMIN,
                permitted: with_admin,
                inheritable: sets.inheritable,
            })
            .or_fail(Stage::Confinement, what)?;
        } else {
            sys_caps::set(sets).or_fail(Stage::Confinement, what)?;
        }
        if let Some(channel) = announce {
            channel.send_ready().or_fail(Stage::Program, || "cannot reach the caller")?;
        }
        self.seccomp.load().map_err(|e| Failure {
            stage: Stage::Confinement,
            what: e.to_string(),
            errno: std::error::Error::source(&e).and_then(|s| s.downcast_ref::<io::Error>()?.raw_os_error()),
        })?;
        if self.needs_admin() {
            sys_caps::set(sets).or_fail(Stage::Confinement, what)?;
        }
        Ok(())
    }
}

fn from_caps(error: caps::CapsError) -> Failure {
    let errno = std::error::Error::source(&error).and_then(|s| s.downcast_ref::<io::Error>()?.raw_os_error());
    Failure { stage: Stage::Confinement, what: error.to_string(), errno }
}

/// What every new process does first. Until its execve(2) it is a copy of the caller's memory, so nobody inside a
/// container may look into it (CVE-2016-9962); it must not use the caller's keys; and modes are to be as they are
/// written.
pub(crate) fn withdraw() -> Result<(), Failure> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .or_fail(Stage::Confinement, || "cannot hide the process")?;
    sys::new_session_keyring().or_fail(Stage::Confinement, || "cannot make a session keyring")?;
    rustix::process::umask(rustix::fs::Mode::empty());
    Ok(())
}

/// Gives a process that is going to be an init another command line than the caller's, which is nobody's business in the
/// container.
pub(crate) fn forget_arguments() -> Result<(), Failure> {
    sys::set_command_line(INIT_NAME).or_fail(Stage::Confinement, || "cannot change the command line")
}

/// A session of its own, with the terminal as controlling one: a new one each time, so that nothing can be pushed into
/// the caller's (TIOCSTI).
fn lead_session(terminal: bool) -> Result<(), Failure> {
    rustix::process::setsid().or_fail(Stage::Stdio, || "cannot lead a session")?;
    if terminal {
        tty::make_controlling(rustix::stdio::stdin()).or_fail(Stage::Stdio, || "cannot control the terminal")?;
    }
    Ok(())
}

/// Ends with the maker. After the change of user, which makes the kernel forget it; and the maker may be gone already.
fn die_with_maker(channel: &Channel) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .or_fail(Stage::Confinement, || "cannot tie the process to its maker")?;
    if channel.maker_is_gone() {
        sys::exit_now(1);
    }
    Ok(())
}

/// Tells the caller why there will be no program.
pub(crate) fn report(channel: &Channel, result: Result<Infallible, Failure>) -> i32 {
    match result {
        Ok(never) => match never {},
        Err(failure) => {
            channel.send_failure(&failure);
            1
        }
    }
}

/// Is PID 1 until the program ends. Keeps no descriptor, so that pipes end when the program's processes close them.
fn be_init(child: u32) -> Result<Infallible, Failure> {
    // Cosmetic: what `ps -o comm` shows.
    let _ = rustix::thread::set_name(c"dhow-init");
    sys::close_from(0).or_fail(Stage::Program, || "cannot close descriptors")?;
    let code = sys::act_as_init(child).map_or(1, sys::Exit::shell_code);
    sys::exit_now(code)
}

/// A resource limit of the specification (setrlimit(2)).
fn limit(rlimit: &Rlimit) -> Result<(Resource, rustix::process::Rlimit), String> {
    let resource = match rlimit.kind.strip_prefix("RLIMIT_").unwrap_or(&rlimit.kind) {
        "CPU" => Resource::Cpu,
        "FSIZE" => Resource::Fsize,
        "DATA" => Resource::Data,
        "STACK" => Resource::Stack,
        "CORE" => Resource::Core,
        "RSS" => Resource::Rss,
        "NPROC" => Resource::Nproc,
        "NOFILE" => Resource::Nofile,
        "MEMLOCK" => Resource::Memlock,
        "AS" => Resource::As,
        "LOCKS" => Resource::Locks,
        "SIGPENDING" => Resource::Sigpending,
        "MSGQUEUE" => Resource::Msgqueue,
        "NICE" => Resource::Nice,
        "RTPRIO" => Resource::Rtprio,
        "RTTIME" => Resource::Rttime,
        _ => return Err(format!("unknown resource limit {:?}", rlimit.kind)),
    };
    if rlimit.soft > rlimit.hard {
        return Err(format!("{}: the soft limit is above the hard one", rlimit.kind));
    }
    let value = |n: u64| (n != u64::MAX).then_some(n);
    Ok((resource, rustix::process::Rlimit { current: value(rlimit.soft), maximum: value(rlimit.hard) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let rlimit = |kind: &str, soft, hard| limit(&Rlimit { kind: kind.into(), soft, hard });
        let (resource, value) = rlimit("RLIMIT_NOFILE", 1024, u64::MAX).unwrap();
        assert_eq!((resource, value.current, value.maximum), (Resource::Nofile, Some(1024), None));
        assert!(rlimit("RLIMIT_X", 1, 2).is_err());
        assert!(rlimit("RLIMIT_NOFILE", 2, 1).is_err());
    }
}
