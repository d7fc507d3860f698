//! Running one more command in a running container.

use super::record::Status;
use super::spec;
use super::start::not_running;
use crate::{Engine, EngineError};
use dhow_oci::runtime::{ConsoleSize, Process};
use dhow_runtime::{ExecRequest, Launched, StdioPlan};
use dhow_types::{Categorized, ContainerId, ErrorKind};
use std::os::fd::AsFd;

/// The command to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Command line.
    pub command: Vec<String>,
    /// Additions to the container's environment, as for a new container.
    pub env: Vec<String>,
    /// `user[:group]`; the container's when absent.
    pub user: Option<String>,
    /// Working directory; the container's when absent.
    pub workdir: Option<String>,
    /// With a terminal.
    pub tty: bool,
    /// Give input.
    pub stdin: bool,
    /// All capabilities.
    pub privileged: bool,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// Do not take output: it goes to `/dev/null`.
    pub detach: bool,
}

/// A started command: a child of the caller.
pub struct Executed {
    /// The process and its streams.
    pub process: Launched,
}

impl Engine {
    /// Starts a command in a running container. The caller pumps its streams and waits for it.
    pub fn exec(&self, id: &ContainerId, exec: &ExecSpec) -> Result<Executed, EngineError> {
        let container = self.container(id)?;
        match container.state.status {
            Status::Running => {}
            Status::Paused => {
                return Err(EngineError::WrongState {
                    message: format!(
                        "Container {} is paused, unpause the container before exec",
                        container.record.name
                    ),
                    hint: None,
                });
            }
            _ => return Err(not_running(id)),
        }
        let init = self.open_process(&container)?;
        let record = &container.record;
        let caps = if exec.privileged {
            dhow_runtime::caps::resolve::<&str, &str>(&[], &[], true)
                .map_err(|e| EngineError::Invalid(dhow_types::report(&e)))?
        } else {
            spec::capabilities(record)?
        };
        let seccomp = if exec.privileged { dhow_runtime::seccomp::none() } else { spec::filter(record, &caps)? };
        let mut env = spec::environment(record);
        if exec.tty && !env.iter().any(|e| e.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        let process = Process {
            terminal: exec.tty,
            console_size: exec.console_size.map(|(height, width)| ConsoleSize { height, width }),
            args: exec.command.clone(),
            env: super::create::merge_env(&env, &exec.env),
            cwd: exec
                .workdir
                .clone()
                .or_else(|| Some(record.process.workdir.clone()).filter(|w| !w.is_empty()))
                .unwrap_or_else(|| "/".to_owned()),
            capabilities: spec::sets(&caps),
            no_new_privileges: record.host.security.no_new_privileges,
            oom_score_adj: record.host.resources.oom_score_adj,
            ..Process::default()
        };
        let stdio = if exec.tty {
            let (rows, cols) = exec.console_size.unwrap_or_default();
            StdioPlan::Pty { rows, cols, stdin: exec.stdin }
        } else {
            StdioPlan::Pipes { stdin: exec.stdin }
        };
        let cgroup = self.cgroup(id)?;
        let process = dhow_runtime::exec(ExecRequest {
            init_pid: container.state.pid,
            init_pidfd: init.as_fd(),
            process: &process,
            user: exec.user.as_deref().unwrap_or(&record.process.user),
            seccomp: &seccomp,
            cgroup: &cgroup,
            stdio,
        })
        .map_err(|e| match e.kind() {
            ErrorKind::CommandNotFound => EngineError::StartFailed { code: 127, message: dhow_types::report(&e) },
            ErrorKind::CommandNotExecutable => EngineError::StartFailed { code: 126, message: dhow_types::report(&e) },
            _ => e.into(),
        })?;
        Ok(Executed { process })
    }
}
