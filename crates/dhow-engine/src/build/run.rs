//! `RUN`: a container with Docker's default confinement, started, watched and cleaned up within one call.
//!
//! It has an id and a live lock like every container, but no record: when this process is killed, healing finds the lock
//! free and ends what is left of it.

use super::layers::{Staged, Workspace};
use super::mounts::Mounts;
use crate::container::record::{HostRecord, ProcessRecord, Record, ResourceRecord, SecurityRecord};
use crate::container::{self, Prepared};
use crate::live::Live;
use crate::{Engine, EngineError};
use dhow_build::{RunStep, drive};
use dhow_dockerfile::RunNetwork;
use dhow_network::Lease;
use dhow_oci::runtime::Spec;
use dhow_runtime::cgroup::Cgroup;
use dhow_runtime::{LaunchRequest, Launched, Rootfs, StdioPlan};
use dhow_store::ScratchDir;
use dhow_types::ContainerId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::slice;

/// What a running command holds of the host's resources.
struct Held<'a> {
    engine: &'a Engine,
    id: ContainerId,
    live: Option<Live>,
    lease: Option<Lease>,
    cgroup: Option<Cgroup>,
}

impl Drop for Held<'_> {
    /// Never stops at a failure: what is left behind here is met by healing, which the live lock leads to.
    fn drop(&mut self) {
        let mut clean = true;
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.kill_all();
            clean &= cgroup.remove().is_ok();
        }
        if let Some(lease) = self.lease.take() {
            let released = self.engine.bridge().map(|b| b.release(&self.id, lease.address).is_ok());
            clean &= released.unwrap_or(false);
        }
        if let (true, Some(live)) = (clean, self.live.take()) {
            let _ = live.release();
        }
    }
}

/// Runs a command on a workspace's merged root and returns its exit code.
pub(super) async fn run(
    engine: &Engine,
    staged: &Staged,
    workspace: &Workspace,
    step: &RunStep,
    scratches: &HashMap<usize, ScratchDir>,
    output: &mut dyn FnMut(bool, &[u8]),
) -> Result<i64, EngineError> {
    // Before anything is taken: a cache may have to be waited for.
    let mut mounts = Mounts::default();
    mounts.lock(engine, &step.mounts).await?;
    for mounted in &step.mounts {
        mounts.add(engine, mounted, scratches, workspace.scratch.path())?;
    }
    let dir = workspace.scratch.path();
    let (id, live) = engine.take_new_live()?;
    let mut held = Held { engine, id: id.clone(), live: Some(live), lease: None, cgroup: None };
    let record = record(engine, step, &id)?;
    if record.host.network == "bridge" {
        let bridge = engine.bridge()?;
        bridge.ensure()?;
        held.lease = Some(bridge.allocate(&id)?);
    }
    container::write_host_files(engine, &record, dir, held.lease.as_ref())?;
    let mut prepared = engine.runtime_spec(&record, dir)?;
    // Exactly what the Dockerfile says, so that a result doesn't depend on the engine.
    prepared.spec.process.env.clone_from(&step.env);
    prepared.spec.mounts.extend(mounts.list.iter().cloned());
    files(step, dir, &mut prepared.spec)?;
    let (cgroup, _warnings) = Cgroup::create(&prepared.spec.linux.cgroups_path, &prepared.spec.linux.resources)
        .map_err(|e| EngineError::StartFailed { code: 128, message: dhow_types::report(&e) })?;
    held.cgroup = Some(cgroup);
    // At last, since nothing is waited for from here until the root is mounted.
    let lower = staged.lower(engine, workspace)?;
    let launched = launch(engine, (workspace, &lower), &record, &prepared, &held)?;
    let process = Rc::new(launched.pidfd);
    pump(launched.stdout, launched.stderr, output).await?;
    drive::readable(slice::from_ref(&process)).await;
    let exit = dhow_sys::process::wait(process.as_fd())
        .map_err(EngineError::state("wait for the command in", &workspace.scratch.upper()))?;
    Ok(exit.shell_code().into())
}

/// The command as a container that has no image and is on no list, so that it is confined like every other.
fn record(engine: &Engine, step: &RunStep, id: &ContainerId) -> Result<Record, EngineError> {
    let limits = &step.limits;
    if limits.cgroup_parent.is_some() {
        return Err(EngineError::Unsupported { feature: "build --cgroup-parent".to_owned() });
    }
    let resources = ResourceRecord {
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        cpu_shares: limits.cpu_shares,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        ulimits: limits.ulimits.clone(),
        ..ResourceRecord::default()
    };
    let host = HostRecord {
        network: network(engine, step)?,
        extra_hosts: step.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect(),
        resources,
        security: SecurityRecord { privileged: step.insecure, ..SecurityRecord::default() },
        shm_size: limits.shm_size.unwrap_or(container::DEFAULT_SHM),
        ..HostRecord::default()
    };
    let process = ProcessRecord {
        cmd: Some(step.argv.clone()),
        workdir: step.cwd.clone(),
        user: step.user.clone(),
        ..ProcessRecord::default()
    };
    Ok(Record::unlisted(id, &step.hostname, process, host))
}

/// The network in the words of a container's record.
fn network(engine: &Engine, step: &RunStep) -> Result<String, EngineError> {
    match step.network {
        RunNetwork::None => return Ok("none".to_owned()),
        RunNetwork::Host => return Ok("host".to_owned()),
        RunNetwork::Default => {}
    }
    match step.build_network.as_str() {
        "" | "default" | "bridge" => Ok("bridge".to_owned()),
        "host" | "none" => Ok(step.build_network.clone()),
        other => match other.strip_prefix("container:") {
            Some(target) => Ok(format!("container:{}", engine.find(target)?)),
            None => Err(EngineError::Unsupported { feature: format!("build --network {other}") }),
        },
    }
}

/// Files that only this command sees.
fn files(step: &RunStep, dir: &Path, spec: &mut Spec) -> Result<(), EngineError> {
    for (number, file) in step.files.iter().enumerate() {
        let path = dir.join(format!("file-{number}"));
        write_private(&path, &file.content)?;
        std::os::unix::fs::chown(&path, Some(file.owner.0), Some(file.owner.1))
            .map_err(EngineError::state("set owner of", &path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode))
            .map_err(EngineError::state("set mode of", &path))?;
        spec.mounts.push(super::mounts::bind(&path, &file.path, true));
    }
    Ok(())
}

/// Writes a file that nobody else can read meanwhile: it may be a secret.
fn write_private(path: &Path, content: &[u8]) -> Result<(), EngineError> {
    let open = File::options().write(true).create_new(true).mode(0o600).open(path);
    open.and_then(|mut f| f.write_all(content)).map_err(EngineError::state("write", path))
}

fn launch(
    engine: &Engine,
    (workspace, lower): (&Workspace, &[PathBuf]),
    record: &Record,
    prepared: &Prepared,
    held: &Held<'_>,
) -> Result<Launched, EngineError> {
    let (upper, work) = (workspace.scratch.upper(), workspace.scratch.work());
    let lease = held.lease.as_ref();
    let mut attach = |pid: u32| -> Result<(), String> {
        let Some(lease) = lease else { return Ok(()) };
        let bridge = engine.bridge().map_err(|e| dhow_types::report(&e))?;
        bridge.attach(pid, lease, &held.id).map_err(|e| dhow_types::report(&e))
    };
    let inside = || match lease {
        Some(lease) => dhow_network::configure_inside(lease).map_err(|e| dhow_types::report(&e)),
        None => dhow_network::loopback_up().map_err(|e| dhow_types::report(&e)),
    };
    let own_network = record.host.network == "bridge" || record.host.network == "none";
    let missing = || EngineError::Invalid("no cgroup was made".to_owned());
    dhow_runtime::launch(LaunchRequest {
        spec: &prepared.spec,
        rootfs: if lower.is_empty() {
            Rootfs::Directory(&upper)
        } else {
            // A killed build is built again, so nothing needs to reach the disk before its end.
            Rootfs::Overlay { lower, upper: &upper, work: &work, volatile: true }
        },
        user: &record.process.user,
        group_add: &[],
        seccomp: &prepared.seccomp,
        cgroup: held.cgroup.as_ref().ok_or_else(missing)?,
        stdio: StdioPlan::Pipes { stdin: false },
        init: false,
        attach: &mut attach,
        inside: if own_network { Some(&inside) } else { None },
    })
    .map_err(container::start_failed)
}

/// Hands on what the command writes until nobody can write any more: its PID namespace ends with it.
async fn pump(
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    output: &mut dyn FnMut(bool, &[u8]),
) -> Result<(), EngineError> {
    let mut open: Vec<Rc<OwnedFd>> = Vec::new();
    let [stdout, stderr] = [stdout, stderr].map(|fd| fd.map(Rc::new));
    open.extend(stdout);
    open.extend(stderr.clone());
    let mut buffer = vec![0_u8; 64 << 10];
    let name = Path::new("the command's output");
    while !open.is_empty() {
        drive::readable(&open).await;
        let mut fds: Vec<PollFd<'_>> = open.iter().map(|fd| PollFd::new(&**fd, PollFlags::IN)).collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(EngineError::errno("wait for", name)(e)),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ended = Vec::new();
        for (fd, _) in open.iter().zip(&ready).filter(|(_, ready)| **ready) {
            let is_stderr = stderr.as_ref().is_some_and(|e| Rc::ptr_eq(e, fd));
            match rustix::io::read(&**fd, &mut buffer[..]) {
                Ok(0) => ended.push(fd.clone()),
                Ok(n) => output(is_stderr, buffer.get(..n).unwrap_or_default()),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => return Err(EngineError::errno("read", name)(e)),
            }
        }
        open.retain(|fd| !ended.iter().any(|e| Rc::ptr_eq(e, fd)));
    }
    Ok(())
}
