//! From a container's record to the OCI runtime specification.

use super::record::{MountRecord, Record, ResourceRecord};
use crate::{Engine, EngineError};
use dhow_oci::runtime::{
    BlockIo, Capabilities, ConsoleSize, Cpu, DeviceRule, Memory, Mount, Namespace, NamespaceKind, Pids, Resources,
    Rlimit, Spec,
};
use dhow_runtime::seccomp::{self, SeccompFilter};
use std::path::Path;

/// What a launch needs beside the specification.
pub(crate) struct Prepared {
    /// The specification.
    pub(crate) spec: Spec,
    /// The system call filter.
    pub(crate) seccomp: SeccompFilter,
}

impl Engine {
    /// Builds the specification of a container. `dir` is its directory, for the files that are mounted from there.
    pub(crate) fn runtime_spec(&self, record: &Record, dir: &Path) -> Result<Prepared, EngineError> {
        let mut spec = dhow_runtime::default_spec();
        let caps = capabilities(record)?;
        process(&mut spec, record, &caps);
        self.choose_namespaces(&mut spec, record)?;
        spec.hostname.clone_from(&record.hostname);
        spec.domainname.clone_from(&record.domainname);
        if record.host.uts_host {
            spec.hostname.clear();
            spec.domainname.clear();
        }
        spec.root.readonly = record.host.security.read_only_rootfs;
        set_shm_size(&mut spec, record.host.shm_size);
        for (file, target) in
            [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")]
        {
            spec.mounts.push(Mount {
                destination: target.to_owned(),
                kind: "bind".to_owned(),
                source: dir.join(file).display().to_string(),
                options: options(&["rbind", "rprivate", if spec.root.readonly { "ro" } else { "rw" }]),
            });
        }
        let mut mounts: Vec<&MountRecord> = record.host.mounts.iter().collect();
        // Parents before what is mounted inside them.
        mounts.sort_by_key(|m| m.target.matches('/').count());
        spec.mounts.extend(mounts.into_iter().map(mount));
        let device_rules = std::mem::take(&mut spec.linux.resources.devices);
        spec.linux.resources = resources(&record.host.resources, device_rules);
        spec.linux.cgroups_path = crate::paths::Paths::cgroup(
            &record.container_id().map_err(|e| EngineError::Record { path: dir.to_owned(), reason: e.to_string() })?,
        );
        sysctls(&mut spec, record);
        if record.host.security.unmasked || record.host.security.privileged {
            spec.linux.masked_paths.clear();
            spec.linux.readonly_paths.clear();
        }
        if record.host.security.privileged {
            privileged(&mut spec);
        }
        Ok(Prepared { spec, seccomp: filter(record, &caps)? })
    }

    fn choose_namespaces(&self, spec: &mut Spec, record: &Record) -> Result<(), EngineError> {
        use NamespaceKind::{Ipc, Network, Pid, Uts};
        for (kind, word) in [(Network, &record.host.network), (Pid, &record.host.pid), (Ipc, &record.host.ipc)] {
            if word == "host" {
                spec.linux.namespaces.retain(|n| n.kind != kind);
            } else if let Some(target) = word.strip_prefix("container:") {
                let path = Some(self.namespace_of(target, kind)?);
                spec.linux.namespaces.retain(|n| n.kind != kind);
                spec.linux.namespaces.push(Namespace { kind, path });
            }
        }
        if record.host.uts_host {
            spec.linux.namespaces.retain(|n| n.kind != Uts);
        }
        Ok(())
    }

    fn namespace_of(&self, id: &str, kind: NamespaceKind) -> Result<String, EngineError> {
        let target = self.container(&self.find(id)?)?;
        if !target.is_alive() {
            return Err(EngineError::WrongState {
                message: format!("cannot join the {} namespace of a non running container: {id}", kind.proc_name()),
                hint: Some("start that container first"),
            });
        }
        Ok(format!("/proc/{}/ns/{}", target.state.pid, kind.proc_name()))
    }
}

/// The capabilities of a container.
pub(super) fn capabilities(record: &Record) -> Result<Vec<&'static str>, EngineError> {
    let security = &record.host.security;
    dhow_runtime::caps::resolve(&security.cap_add, &security.cap_drop, security.privileged)
        .map_err(|e| EngineError::Invalid(dhow_types::report(&e)))
}

/// The system call filter of a container.
pub(super) fn filter(record: &Record, caps: &[&'static str]) -> Result<SeccompFilter, EngineError> {
    let security = &record.host.security;
    if security.privileged {
        return Ok(seccomp::none());
    }
    match security.seccomp.as_str() {
        "default" | "" => Ok(seccomp::docker_default(caps)),
        "unconfined" => Ok(seccomp::none()),
        json => seccomp::from_profile(json, caps).map_err(|e| EngineError::Invalid(dhow_types::report(&e))),
    }
}

fn process(spec: &mut Spec, record: &Record, caps: &[&'static str]) {
    let p = &record.process;
    spec.process.terminal = p.tty;
    spec.process.console_size = record.host.console_size.map(|(height, width)| ConsoleSize { height, width });
    spec.process.args = p.argv();
    spec.process.env = environment(record);
    spec.process.cwd = if p.workdir.is_empty() { "/".to_owned() } else { p.workdir.clone() };
    spec.process.capabilities = sets(caps);
    spec.process.no_new_privileges = record.host.security.no_new_privileges;
    spec.process.oom_score_adj = record.host.resources.oom_score_adj;
    spec.process.rlimits = record
        .host
        .resources
        .ulimits
        .iter()
        .map(|(name, soft, hard)| Rlimit {
            kind: format!("RLIMIT_{}", name.to_ascii_uppercase()),
            soft: *soft,
            hard: *hard,
        })
        .collect();
}

/// Bounding, effective and permitted; inheritable and ambient stay empty (CVE-2022-24769).
pub(super) fn sets(caps: &[&'static str]) -> Capabilities {
    let names: Vec<String> = caps.iter().map(|c| (*c).to_owned()).collect();
    Capabilities { bounding: names.clone(), effective: names.clone(), permitted: names, ..Capabilities::default() }
}

/// The environment of the container's processes: host name and terminal first, then the record's, which wins.
pub(super) fn environment(record: &Record) -> Vec<String> {
    let mut base = vec![format!("HOSTNAME={}", record.hostname)];
    if record.process.tty {
        base.push("TERM=xterm".to_owned());
    }
    let own = |name: &str| record.process.env.iter().any(|e| e.split_once('=').is_some_and(|(k, _)| k == name));
    base.retain(|item| !own(item.split_once('=').map_or(item, |(k, _)| k)));
    // Docker shows PATH first.
    let mut env: Vec<String> = Vec::with_capacity(record.process.env.len() + 2);
    let (path, rest): (Vec<&String>, Vec<&String>) = record.process.env.iter().partition(|e| e.starts_with("PATH="));
    env.extend(path.into_iter().cloned());
    env.append(&mut base);
    env.extend(rest.into_iter().cloned());
    env
}

fn options(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn mount(m: &MountRecord) -> Mount {
    // `rro`: what is mounted below a read-only bind is read-only too.
    let access = if m.read_only { "rro" } else { "rw" };
    match m.kind.as_str() {
        "tmpfs" => {
            let mut words = options(&["nosuid", "nodev", "noexec"]);
            words.extend(m.options.split(',').filter(|o| !o.is_empty()).map(str::to_owned));
            Mount {
                destination: m.target.clone(),
                kind: "tmpfs".to_owned(),
                source: "tmpfs".to_owned(),
                options: words,
            }
        }
        _ => Mount {
            destination: m.target.clone(),
            kind: "bind".to_owned(),
            source: m.source.clone(),
            options: options(&[
                "rbind",
                if m.propagation.is_empty() { "rprivate" } else { m.propagation.as_str() },
                access,
            ]),
        },
    }
}

fn set_shm_size(spec: &mut Spec, bytes: u64) {
    if let Some(shm) = spec.mounts.iter_mut().find(|m| m.destination == "/dev/shm") {
        shm.options.retain(|o| !o.starts_with("size="));
        shm.options.push(format!("size={bytes}"));
    }
}

fn sysctls(spec: &mut Spec, record: &Record) {
    if record.host.network == "bridge" || record.host.network == "none" {
        let defaults = [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
        spec.linux.sysctl.extend(defaults.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
    spec.linux.sysctl.extend(record.host.sysctls.clone());
}

fn privileged(spec: &mut Spec) {
    spec.linux.resources.devices =
        vec![DeviceRule { allow: true, kind: 'a', major: None, minor: None, access: "rwm".to_owned() }];
    for mount in &mut spec.mounts {
        if mount.kind == "sysfs" || mount.kind == "cgroup" || mount.destination == "/sys/fs/cgroup" {
            mount.options.retain(|o| o != "ro");
        }
    }
    spec.linux.devices.extend(super::devices::host_devices());
}

/// Converts limits; Docker's defaults for swap are the runtime's business.
pub(super) fn resources(r: &ResourceRecord, devices: Vec<DeviceRule>) -> Resources {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (quota, period) = match r.nano_cpus {
        Some(nano) => (Some(signed(nano / 10_000)), Some(100_000)),
        None => (r.cpu_quota, r.cpu_period),
    };
    Resources {
        devices,
        memory: Memory {
            limit: r.memory.map(signed),
            reservation: r.memory_reservation.map(signed),
            swap: r.memory_swap.or_else(|| r.memory.map(|m| signed(m.saturating_mul(2)))),
        },
        cpu: Cpu { shares: r.cpu_shares, quota, period, cpus: r.cpuset_cpus.clone(), mems: r.cpuset_mems.clone() },
        pids: r.pids.map(|limit| Pids { limit }),
        block_io: BlockIo { weight: r.blkio_weight },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_a_quota() {
        let r = ResourceRecord { nano_cpus: Some(1_500_000_000), memory: Some(64 << 20), ..ResourceRecord::default() };
        let out = resources(&r, Vec::new());
        assert_eq!((out.cpu.quota, out.cpu.period), (Some(150_000), Some(100_000)));
        assert_eq!((out.memory.limit, out.memory.swap), (Some(64 << 20), Some(128 << 20)));
    }
}
