//! `RUN`: a container with Docker's default confinement, started, watched and cleaned up within one call.
//!
//! It has an id and a live lock like every container, but no record: when this process is killed, healing finds the lock
//! free and ends what is left of it.

use super::layers::Workspace;
use super::mounts::Mounts;
use crate::live::Live;
use crate::{Engine, EngineError, Paths};
use dhow_build::{RunStep, drive};
use dhow_dockerfile::RunNetwork;
use dhow_network::Lease;
use dhow_oci::runtime::{Mount, Namespace, NamespaceKind, Spec};
use dhow_runtime::cgroup::Cgroup;
use dhow_runtime::seccomp;
use dhow_runtime::{LaunchRequest, Launched, Rootfs, StdioPlan};
use dhow_store::ScratchDir;
use dhow_types::{Categorized, ContainerId, ErrorKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::slice;

/// Where a command's network stack comes from.
enum Stack {
    Bridge,
    Host,
    Empty,
    /// Path of a namespace file.
    Joined(String),
}

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
    workspace: &Workspace,
    step: &RunStep,
    scratches: &HashMap<usize, ScratchDir>,
    output: &mut dyn FnMut(bool, &[u8]),
) -> Result<i64, EngineError> {
    // Before anything is taken: a cache may have to be waited for.
    let mut mounts = Mounts::default();
    for mounted in &step.mounts {
        mounts.add(engine, mounted, scratches, workspace.scratch.path()).await?;
    }
    let stack = stack(engine, step)?;
    let (id, live) = engine.take_new_live()?;
    let mut held = Held { engine, id: id.clone(), live: Some(live), lease: None, cgroup: None };
    if let Stack::Bridge = stack {
        let bridge = engine.bridge()?;
        bridge.ensure()?;
        held.lease = Some(bridge.allocate(&id)?);
    }
    write_host_files(workspace, step, held.lease.as_ref(), matches!(stack, Stack::Host))?;
    let spec = spec(workspace, step, &mounts, &stack, &id)?;
    let (cgroup, _warnings) = Cgroup::create(&spec.linux.cgroups_path, &spec.linux.resources)
        .map_err(|e| EngineError::StartFailed { code: 128, message: dhow_types::report(&e) })?;
    held.cgroup = Some(cgroup);
    let launched = launch(engine, workspace, step, &spec, &stack, &held)?;
    let process = Rc::new(launched.pidfd);
    pump(launched.stdout, launched.stderr, output).await?;
    drive::readable(slice::from_ref(&process)).await;
    let exit = dhow_sys::process::wait(process.as_fd())
        .map_err(EngineError::state("wait for the command in", &workspace.scratch.upper()))?;
    Ok(exit.shell_code().into())
}

fn stack(engine: &Engine, step: &RunStep) -> Result<Stack, EngineError> {
    match step.network {
        RunNetwork::None => return Ok(Stack::Empty),
        RunNetwork::Host => return Ok(Stack::Host),
        RunNetwork::Default => {}
    }
    match step.build_network.as_str() {
        "" | "default" | "bridge" => Ok(Stack::Bridge),
        "host" => Ok(Stack::Host),
        "none" => Ok(Stack::Empty),
        other => match other.strip_prefix("container:") {
            Some(target) => {
                let container = engine.container(&engine.find(target)?)?;
                if !container.is_alive() {
                    return Err(EngineError::WrongState {
                        message: format!("cannot join network of a non running container: {target}"),
                        hint: Some("start that container first"),
                    });
                }
                Ok(Stack::Joined(format!("/proc/{}/ns/net", container.state.pid)))
            }
            None => Err(EngineError::Unsupported { feature: format!("build --network {other}") }),
        },
    }
}

/// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, mounted from beside the upper directory.
fn write_host_files(
    workspace: &Workspace,
    step: &RunStep,
    lease: Option<&Lease>,
    host: bool,
) -> Result<(), EngineError> {
    let dir = workspace.scratch.path();
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(EngineError::state("write", &path))
    };
    let of_host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let gateway = lease.map(|l| IpAddr::from(l.gateway));
    let extra: Vec<(String, IpAddr)> = step
        .extra_hosts
        .iter()
        .filter_map(|(name, address)| {
            let address = if address == "host-gateway" { gateway? } else { address.parse().ok()? };
            Some((name.clone(), address))
        })
        .collect();
    write("hostname", &format!("{}\n", step.hostname))?;
    if host {
        write("hosts", &of_host("/etc/hosts"))?;
        return write("resolv.conf", &of_host("/etc/resolv.conf"));
    }
    let hosts = dhow_network::files::HostsFile {
        address: lease.map(|l| l.address.into()),
        hostname: &step.hostname,
        domainname: "",
        extra: &extra,
        ipv6: true,
    };
    write("hosts", &dhow_network::files::hosts(&hosts))?;
    write("resolv.conf", &dhow_network::files::resolv_conf(&of_host("/etc/resolv.conf"), &[], &[], &[]))
}

fn spec(
    workspace: &Workspace,
    step: &RunStep,
    mounts: &Mounts,
    stack: &Stack,
    id: &ContainerId,
) -> Result<Spec, EngineError> {
    let mut spec = dhow_runtime::default_spec();
    spec.process.args.clone_from(&step.argv);
    spec.process.env.clone_from(&step.env);
    spec.process.cwd.clone_from(&step.cwd);
    spec.hostname.clone_from(&step.hostname);
    spec.linux.cgroups_path = Paths::cgroup(id);
    match stack {
        Stack::Bridge | Stack::Empty => {
            // As in every container with a stack of its own: low ports and ping need no capability.
            let defaults =
                [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
            spec.linux.sysctl.extend(defaults.map(|(k, v)| (k.to_owned(), v.to_owned())));
        }
        Stack::Host => spec.linux.namespaces.retain(|n| n.kind != NamespaceKind::Network),
        Stack::Joined(path) => {
            spec.linux.namespaces.retain(|n| n.kind != NamespaceKind::Network);
            spec.linux.namespaces.push(Namespace { kind: NamespaceKind::Network, path: Some(path.clone()) });
        }
    }
    let dir = workspace.scratch.path();
    for (file, target) in [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")]
    {
        spec.mounts.push(bind(&dir.join(file), target, "rw"));
    }
    spec.mounts.extend(mounts.list.iter().cloned());
    for (number, file) in step.files.iter().enumerate() {
        let path = dir.join(format!("file-{number}"));
        write_private(&path, &file.content)?;
        std::os::unix::fs::chown(&path, Some(file.owner.0), Some(file.owner.1))
            .map_err(EngineError::state("set owner of", &path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode))
            .map_err(EngineError::state("set mode of", &path))?;
        spec.mounts.push(bind(&path, &file.path, "ro"));
    }
    Ok(spec)
}

/// Writes a file that nobody else can read meanwhile: it may be a secret.
fn write_private(path: &Path, content: &[u8]) -> Result<(), EngineError> {
    let open = File::options().write(true).create_new(true).mode(0o600).open(path);
    open.and_then(|mut f| f.write_all(content)).map_err(EngineError::state("write", path))
}

fn bind(source: &Path, target: &str, access: &str) -> Mount {
    Mount {
        destination: target.to_owned(),
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        options: ["rbind", "rprivate", access].map(str::to_owned).to_vec(),
    }
}

fn launch(
    engine: &Engine,
    workspace: &Workspace,
    step: &RunStep,
    spec: &Spec,
    stack: &Stack,
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
    let own_stack = matches!(stack, Stack::Bridge | Stack::Empty);
    let caps = dhow_runtime::caps::resolve::<&str, &str>(&[], &[], false)
        .map_err(|e| EngineError::Invalid(dhow_types::report(&e)))?;
    let missing = || EngineError::Invalid("no cgroup was made".to_owned());
    dhow_runtime::launch(LaunchRequest {
        spec,
        rootfs: if workspace.lower.is_empty() {
            Rootfs::Directory(&upper)
        } else {
            // A killed build is built again, so nothing needs to reach the disk before its end.
            Rootfs::Overlay { lower: &workspace.lower, upper: &upper, work: &work, volatile: true }
        },
        user: &step.user,
        group_add: &[],
        seccomp: &seccomp::docker_default(&caps),
        cgroup: held.cgroup.as_ref().ok_or_else(missing)?,
        stdio: StdioPlan::Pipes { stdin: false },
        init: false,
        attach: &mut attach,
        inside: if own_stack { Some(&inside) } else { None },
    })
    .map_err(|error| {
        let code = match error.kind() {
            ErrorKind::CommandNotFound => 127,
            ErrorKind::CommandNotExecutable => 126,
            _ => 128,
        };
        EngineError::StartFailed { code, message: dhow_types::report(&error) }
    })
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
