//! What a monitor does to get its container running, step by step, and how each step is undone.

use super::record::{self, NetworkRecord, PublishedRecord, Record};
use crate::{Engine, EngineError, files};
use dhow_logs::{LogWriter, RotateOptions};
use dhow_network::{Lease, NetworkError, ReservedPort};
use dhow_runtime::cgroup::Cgroup;
use dhow_runtime::{LaunchRequest, Launched, Rootfs, StdioPlan};
use dhow_types::{Categorized, ContainerId, ErrorKind, PortBinding, PortSpec};
use std::path::Path;

/// A launched container and what was taken for it.
pub(super) struct Running {
    /// The process.
    pub(super) launched: Launched,
    /// Its log.
    pub(super) log: Option<LogWriter>,
    /// What must be given back.
    pub(super) held: Held,
}

/// What a running container holds of the host's resources.
#[derive(Default)]
pub(super) struct Held {
    cgroup: Option<Cgroup>,
    lease: Option<Lease>,
    ports: Vec<ReservedPort>,
    published: bool,
}

/// Launches a container. On failure everything that was taken has been given back.
pub(super) fn launch(
    engine: &Engine,
    id: &ContainerId,
    record: &Record,
    console_size: Option<(u16, u16)>,
) -> Result<Running, EngineError> {
    let mut held = Held::default();
    let result = steps(engine, id, record, console_size, &mut held);
    match result {
        Ok((launched, log)) => Ok(Running { launched, log, held }),
        Err(e) => {
            held.give_back_early(engine);
            held.give_back_late(engine, id);
            Err(e)
        }
    }
}

/// The order: what can fail without having touched anything comes first; what others can see comes last.
fn steps(
    engine: &Engine,
    id: &ContainerId,
    record: &Record,
    console_size: Option<(u16, u16)>,
    held: &mut Held,
) -> Result<(Launched, Option<LogWriter>), EngineError> {
    let dir = engine.paths.container(id);
    let mut prepared = engine.runtime_spec(record, &dir)?;
    let lower = engine.store().lower_dirs(&record.image.diff_ids)?;
    let log = open_log(record, &dir)?;
    join_bridge(engine, id, record, held)?;
    write_host_files(engine, record, &dir, held.lease.as_ref())?;
    let (cgroup, _warnings) = Cgroup::create(&prepared.spec.linux.cgroups_path, &prepared.spec.linux.resources)
        .map_err(|e| EngineError::StartFailed { code: 128, message: dhow_types::report(&e) })?;
    held.cgroup = Some(cgroup);
    if let (Some((height, width)), true) = (console_size, record.process.tty) {
        prepared.spec.process.console_size = Some(dhow_oci::runtime::ConsoleSize { height, width });
    }
    let launched = run_payload(engine, id, record, &prepared, &lower, held)?;
    Ok((launched, log))
}

fn run_payload(
    engine: &Engine,
    id: &ContainerId,
    record: &Record,
    prepared: &super::spec::Prepared,
    lower: &[std::path::PathBuf],
    held: &mut Held,
) -> Result<Launched, EngineError> {
    let dir = engine.paths.container(id);
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    let size = prepared.spec.process.console_size.unwrap_or_default();
    let stdio = if record.process.tty {
        StdioPlan::Pty { rows: size.height, cols: size.width, stdin: record.process.open_stdin }
    } else {
        StdioPlan::Pipes { stdin: record.process.open_stdin }
    };
    let Held { cgroup, lease, ports, published } = held;
    let cgroup = cgroup.as_ref().ok_or_else(|| EngineError::Invalid("no cgroup was made".to_owned()))?;
    let lease = lease.as_ref();
    let mut attach = |pid: u32| -> Result<(), String> {
        if let Some(lease) = lease {
            let bridge = engine.bridge().map_err(|e| dhow_types::report(&e))?;
            bridge.attach(pid, lease, id).map_err(|e| dhow_types::report(&e))?;
            if !ports.is_empty() {
                bridge.publish(lease, ports).map_err(|e| dhow_types::report(&e))?;
                *published = true;
            }
        }
        Ok(())
    };
    let own_network = record.host.network == "bridge" || record.host.network == "none";
    let inside = || match lease {
        Some(lease) => dhow_network::configure_inside(lease).map_err(|e| dhow_types::report(&e)),
        None => dhow_network::loopback_up().map_err(|e| dhow_types::report(&e)),
    };
    dhow_runtime::launch(LaunchRequest {
        spec: &prepared.spec,
        // A container that dies with its first run never needs its writes to reach the disk (overlayfs, "volatile").
        rootfs: Rootfs::Overlay { lower, upper: &upper, work: &work, volatile: record.host.auto_remove },
        user: &record.process.user,
        group_add: &record.host.group_add,
        seccomp: &prepared.seccomp,
        cgroup,
        stdio,
        init: record.host.init,
        attach: &mut attach,
        inside: if own_network { Some(&inside) } else { None },
    })
    .map_err(start_failed)
}

/// The start error as the container's record and the command line show it.
pub(crate) fn start_failed(error: dhow_runtime::LaunchError) -> EngineError {
    let code = match error.kind() {
        ErrorKind::CommandNotFound => 127,
        ErrorKind::CommandNotExecutable => 126,
        _ => 128,
    };
    EngineError::StartFailed { code, message: dhow_types::report(&error) }
}

fn open_log(record: &Record, dir: &Path) -> Result<Option<LogWriter>, EngineError> {
    if record.host.log_driver == "none" {
        return Ok(None);
    }
    let options = rotation(&record.host.log_options)?;
    Ok(Some(LogWriter::open(&dir.join(format!("{}-json.log", record.id)), options)?))
}

/// Docker's options of the json-file driver; sizes are decimal.
fn rotation(pairs: &std::collections::BTreeMap<String, String>) -> Result<RotateOptions, EngineError> {
    let mut options = RotateOptions::default();
    for (key, value) in pairs {
        let bad = || EngineError::Invalid(format!("invalid value {value:?} for log option {key}"));
        match key.as_str() {
            "max-size" if value == "-1" => options.max_size = None,
            "max-size" => options.max_size = Some(decimal_size(value).ok_or_else(bad)?),
            "max-file" => options.max_file = value.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?,
            "compress" => options.compress = value.parse().map_err(|_| bad())?,
            _ => return Err(EngineError::Invalid(format!("unknown log opt '{key}' for json-file log driver"))),
        }
    }
    Ok(options)
}

/// `10m` is 10,000,000 bytes (run-semantics, section 18: log sizes have base 1000).
fn decimal_size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches('b').trim_end_matches(['k', 'm', 'g']);
    let factor: u64 = match lower.trim_end_matches('b').strip_prefix(digits)? {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Takes an address and reserves the ports, so that conflicts show before anything is visible.
fn join_bridge(engine: &Engine, id: &ContainerId, record: &Record, held: &mut Held) -> Result<(), EngineError> {
    if record.host.network != "bridge" {
        return Ok(());
    }
    let bridge = engine.bridge()?;
    bridge.ensure()?;
    let bindings = bindings(record);
    if !bindings.is_empty() {
        held.ports = bridge.reserve_ports(id, &bindings).map_err(|e| engine.explain_port(e))?;
    }
    held.lease = Some(bridge.allocate(id)?);
    Ok(())
}

/// Ports asked for, and with `-P` every exposed one that is not among them.
fn bindings(record: &Record) -> Vec<PortBinding> {
    let mut all: Vec<PortBinding> = record.host.ports.iter().filter_map(record::PublishRecord::binding).collect();
    if record.host.publish_all {
        for container in record.exposed.iter().filter_map(|p| record::parse_port(p)) {
            if !all.iter().any(|b| b.container == container) {
                all.push(PortBinding { host_ip: None, host_ports: None, container });
            }
        }
    }
    all
}

/// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of the container, mounted from its directory.
pub(crate) fn write_host_files(
    engine: &Engine,
    record: &Record,
    dir: &Path,
    lease: Option<&Lease>,
) -> Result<(), EngineError> {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(EngineError::state("write", &path))
    };
    if let Some(target) = record.host.network.strip_prefix("container:") {
        // The stack is the other container's, and so are its names.
        let other = engine.paths.container(&engine.find(target)?);
        for name in ["hosts", "hostname", "resolv.conf"] {
            let text = std::fs::read_to_string(other.join(name)).unwrap_or_default();
            write(name, &text)?;
        }
        return Ok(());
    }
    let host_file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    write("hostname", &format!("{}\n", record.hostname))?;
    if record.host.network == "host" {
        write("hosts", &host_file("/etc/hosts"))?;
        return write("resolv.conf", &host_file("/etc/resolv.conf"));
    }
    let gateway = lease.map(|l| l.gateway);
    let extra: Vec<(String, std::net::IpAddr)> = record
        .host
        .extra_hosts
        .iter()
        .filter_map(|line| {
            let (name, address) = line.split_once(':')?;
            let address = if address == "host-gateway" { gateway?.into() } else { address.parse().ok()? };
            Some((name.to_owned(), address))
        })
        .collect();
    let own = dhow_network::files::HostsFile {
        address: lease.map(|l| l.address.into()),
        hostname: &record.hostname,
        domainname: &record.domainname,
        extra: &extra,
        ipv6: true,
    };
    write("hosts", &dhow_network::files::hosts(&own))?;
    write("resolv.conf", &resolver_config(record))
}

/// `/etc/resolv.conf` from the host's. A host whose file names only systemd-resolved's stub on loopback keeps the real
/// servers in another one.
fn resolver_config(record: &Record) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut text = read("/etc/resolv.conf");
    if dhow_network::files::uses_resolved_stub(&text) {
        text = read("/run/systemd/resolve/resolv.conf");
    }
    let host = &record.host;
    dhow_network::files::resolv_conf(&text, &host.dns, &host.dns_search, &host.dns_options)
}

impl Engine {
    /// Names the container that holds a port, since an id says little.
    fn explain_port(&self, error: NetworkError) -> EngineError {
        let NetworkError::PortInUse { port, holder, process, .. } = &error else { return error.into() };
        let name = holder.as_ref().and_then(|id| Some(self.container(id).ok()?.record.name));
        let by = match (name, holder, process) {
            (Some(name), ..) => format!("port {port} is held by container {name}; stop it or publish another port"),
            (None, Some(id), _) => format!("port {port} is held by container {}", id.short()),
            (None, None, Some(process)) => format!("port {port} is held by {process}"),
            (None, None, None) => format!("port {port} is held by a process of the host"),
        };
        EngineError::PortInUse { message: format!("{error}: {by}") }
    }
}

impl Held {
    /// The container's place in the network, for its state.
    pub(super) fn network(&self) -> Option<NetworkRecord> {
        let lease = self.lease.as_ref()?;
        Some(NetworkRecord {
            address: lease.address,
            prefix_len: lease.prefix_len,
            gateway: lease.gateway,
            mac: lease.mac.map(|b| format!("{b:02x}")).join(":"),
            ports: self
                .ports
                .iter()
                .map(|p| PublishedRecord {
                    host_ip: p.host_ip,
                    host_port: p.host_port,
                    container: p.container.to_string(),
                })
                .collect(),
        })
    }

    /// Whether the kernel killed something in the container for lack of memory.
    pub(super) fn oom_killed(&self) -> bool {
        self.cgroup.as_ref().is_some_and(Cgroup::oom_killed)
    }

    /// Gives back what the next container may want at once: published ports.
    pub(super) fn give_back_early(&mut self, engine: &Engine) {
        if let (Some(owner), Ok(bridge)) = (self.ports.first().map(|p| p.owner.clone()), engine.bridge()) {
            let ports: Vec<(Option<std::net::IpAddr>, u16, PortSpec)> =
                self.ports.iter().map(|p| (p.host_ip, p.host_port, p.container)).collect();
            let _ = match &self.lease {
                Some(lease) if self.published => bridge.unpublish(lease.address, &ports),
                _ => bridge.release_ports(&owner, &ports),
            };
            self.published = false;
        }
        self.ports.clear();
    }

    /// Gives back the rest; nobody waits for it. Never stops at a failure: healing will meet what is left.
    pub(super) fn give_back_late(&mut self, engine: &Engine, id: &ContainerId) {
        if let Some(lease) = self.lease.take()
            && let Ok(bridge) = engine.bridge()
        {
            let _ = bridge.release(id, lease.address);
        }
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.kill_all();
            let _ = cgroup.remove();
        }
        let _ = files::remove_tree(&engine.paths.runtime(id));
    }
}
