//! Containers.

use super::{non_empty, set, time, time_text};
use crate::container::record::{HostRecord, MountRecord, PublishedRecord};
use crate::paths::Paths;
use crate::{Container, Engine, Status};
use dhow_docker::inspect as view;
use dhow_docker::rows::{ANY_V6, ContainerItem, MountItem, PortItem};
use dhow_types::{Digest, Timestamp};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// A container as lists see it. `ancestors` are references and ids that its image has now (needed for the filter of that
/// name alone); `moved` says that the image's name means another image now, so that only the id does not mislead.
pub fn container_item(container: &Container, ancestors: Vec<String>, moved: bool) -> ContainerItem {
    let (record, state) = (&container.record, &container.state);
    let image = if moved { record.image.id.to_string() } else { record.image.name.clone() };
    ContainerItem {
        id: record.id.clone(),
        names: vec![record.name.clone()],
        image,
        image_id: record.image.id.to_string(),
        ancestors,
        command: record.process.argv().join(" "),
        created: time(&record.created).unwrap_or(Timestamp::UNIX_EPOCH),
        state: state.status.name().to_owned(),
        exit_code: state.exit_code.into(),
        started_at: time(&state.started_at),
        finished_at: time(&state.finished_at),
        health: None,
        ports: port_items(container),
        labels: record.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        networks: vec![(network_name(&record.host.network), network_id(&record.host.network))],
        mounts: record.host.mounts.iter().map(mount_item).collect(),
        sizes: None,
        platform: record.image.platform.clone(),
    }
}

fn mount_item(m: &MountRecord) -> MountItem {
    MountItem {
        name: Some(m.name.clone()).filter(|n| !n.is_empty()),
        source: m.source.clone(),
        destination: m.target.clone(),
    }
}

/// Published ports while it runs, and exposed ones that are not published.
fn port_items(container: &Container) -> Vec<PortItem> {
    if !container.is_alive() {
        return Vec::new();
    }
    let published: &[PublishedRecord] = container.state.network.as_ref().map_or(&[], |n| &n.ports);
    let mut out = Vec::new();
    for port in published {
        let Some(spec) = crate::record::parse_port(&port.container) else { continue };
        let item =
            |ip| PortItem { ip: Some(ip), private: spec.port, public: Some(port.host_port), protocol: spec.protocol };
        out.push(item(port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))));
    }
    for text in &container.record.exposed {
        let Some(spec) = crate::record::parse_port(text) else { continue };
        if !out.iter().any(|p| p.private == spec.port && p.protocol == spec.protocol) {
            out.push(PortItem { ip: None, private: spec.port, public: None, protocol: spec.protocol });
        }
    }
    out
}

/// The name under which a mode appears among networks.
fn network_name(mode: &str) -> String {
    match mode {
        "" => "bridge".to_owned(),
        mode if mode.starts_with("container:") => String::new(),
        mode => mode.to_owned(),
    }
}

/// An id for networks that have none of their own: stable, and the same for everybody.
fn network_id(mode: &str) -> String {
    match network_name(mode).as_str() {
        "" => String::new(),
        name => Digest::of(format!("network {name}").as_bytes()).hex(),
    }
}

/// The `inspect` document of a container.
pub fn inspect_container(engine: &Engine, container: &Container) -> view::Container {
    let (record, state) = (&container.record, &container.state);
    let dir = engine.paths().container(&container.id);
    let file = |name: &str| dir.join(name).display().to_string();
    let mut argv = record.process.argv().into_iter();
    let joined = record.host.network.starts_with("container:");
    let host_file = |name: &str| if joined { String::new() } else { file(name) };
    view::Container {
        id: record.id.clone(),
        created: record.created.clone(),
        path: argv.next().unwrap_or_default(),
        args: argv.collect(),
        state: view::State {
            status: state.status.name().to_owned(),
            running: state.status.is_alive(),
            paused: state.status == Status::Paused,
            restarting: false,
            oom_killed: state.oom_killed,
            dead: false,
            pid: state.pid,
            exit_code: state.exit_code.into(),
            error: state.error.clone(),
            started_at: time_text(&state.started_at),
            finished_at: time_text(&state.finished_at),
            health: None,
        },
        image: record.image.id.to_string(),
        resolv_conf_path: host_file("resolv.conf"),
        hostname_path: host_file("hostname"),
        hosts_path: host_file("hosts"),
        log_path: match record.host.log_driver.as_str() {
            "json-file" | "" => file(&format!("{}-json.log", record.id)),
            _ => String::new(),
        },
        name: format!("/{}", record.name),
        driver: "overlay2".to_owned(),
        platform: "linux".to_owned(),
        host_config: host_config(&record.host),
        graph_driver: graph_driver(engine, container),
        mounts: record.host.mounts.iter().map(mount).collect(),
        config: config(container),
        network_settings: network_settings(container),
        ..view::Container::default()
    }
}

fn graph_driver(engine: &Engine, container: &Container) -> view::GraphDriver {
    let dir = engine.paths().container(&container.id);
    let layers = container.record.image.diff_ids.iter().rev();
    let lower: Vec<String> = layers.map(|d| engine.store().layer_dir(d).display().to_string()).collect();
    let at = |name: &str| dir.join(name).display().to_string();
    let data = [("LowerDir", lower.join(":")), ("UpperDir", at("upper")), ("WorkDir", at("work"))];
    view::GraphDriver {
        data: Some(data.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        name: "overlay2".to_owned(),
    }
}

fn mount(m: &MountRecord) -> view::Mount {
    let volume = m.kind == "volume";
    view::Mount {
        kind: m.kind.clone(),
        name: Some(m.name.clone()).filter(|n| !n.is_empty()),
        source: m.source.clone(),
        destination: m.target.clone(),
        driver: volume.then(|| "local".to_owned()),
        mode: if volume && !m.anonymous { "z".to_owned() } else { String::new() },
        rw: !m.read_only,
        propagation: match m.kind.as_str() {
            "bind" if m.propagation.is_empty() => "rprivate".to_owned(),
            "bind" => m.propagation.clone(),
            _ => String::new(),
        },
    }
}

fn config(container: &Container) -> view::Config {
    let record = &container.record;
    let p = &record.process;
    let health = record.healthcheck.as_ref();
    view::Config {
        hostname: record.hostname.clone(),
        domainname: record.domainname.clone(),
        user: p.user.clone(),
        attach_stdin: p.attach_stdin,
        attach_stdout: p.attach_stdout,
        attach_stderr: p.attach_stderr,
        exposed_ports: set(record.exposed.iter().cloned()),
        tty: p.tty,
        open_stdin: p.open_stdin,
        stdin_once: p.stdin_once,
        env: p.env.clone(),
        cmd: p.cmd.clone(),
        healthcheck: health.map(super::image::health),
        args_escaped: false,
        image: record.image.name.clone(),
        volumes: set(record.volumes.iter().cloned()),
        working_dir: p.workdir.clone(),
        entrypoint: p.entrypoint.clone(),
        network_disabled: false,
        on_build: non_empty(p.on_build.clone()),
        labels: record.labels.clone(),
        stop_signal: record.stop_signal.clone(),
        stop_timeout: record.stop_timeout,
        shell: p.shell.clone(),
    }
}

fn host_config(h: &HostRecord) -> view::HostConfig {
    let r = &h.resources;
    let s = &h.security;
    let unmasked = s.unmasked || s.privileged;
    let defaults = dhow_runtime::default_spec().linux;
    let (restart, retries) = match h.restart.split_once(':') {
        Some((name, count)) => (name.to_owned(), count.parse().unwrap_or(0)),
        None => (h.restart.clone(), 0),
    };
    let (rows, cols) = h.console_size.unwrap_or_default();
    let plain = |names: &[String]| {
        non_empty(names.iter().map(|n| n.strip_prefix("CAP_").map_or(n.clone(), |b| format!("CAP_{b}"))).collect())
    };
    let limit = |n: u64| i64::try_from(n).unwrap_or(-1);
    view::HostConfig {
        binds: non_empty(h.mounts.iter().filter_map(bind).collect()),
        container_id_file: h.cidfile.clone(),
        log_config: view::LogConfig { kind: h.log_driver.clone(), config: h.log_options.clone() },
        network_mode: if h.network.is_empty() { "bridge".to_owned() } else { h.network.clone() },
        port_bindings: port_bindings(h),
        restart_policy: view::RestartPolicy { name: restart, maximum_retry_count: retries },
        auto_remove: h.auto_remove,
        console_size: [rows, cols],
        annotations: Some(h.annotations.clone()).filter(|a| !a.is_empty()),
        cap_add: plain(&s.cap_add),
        cap_drop: plain(&s.cap_drop),
        cgroupns_mode: "private".to_owned(),
        dns: h.dns.iter().map(ToString::to_string).collect(),
        dns_options: h.dns_options.clone(),
        dns_search: h.dns_search.clone(),
        extra_hosts: non_empty(h.extra_hosts.clone()),
        group_add: non_empty(h.group_add.clone()),
        ipc_mode: h.ipc.clone(),
        oom_score_adj: r.oom_score_adj.unwrap_or(0),
        pid_mode: h.pid.clone(),
        privileged: s.privileged,
        publish_all_ports: h.publish_all,
        readonly_rootfs: s.read_only_rootfs,
        security_opt: non_empty(s.as_typed.clone()),
        tmpfs: tmpfs(h),
        uts_mode: if h.uts_host { "host".to_owned() } else { String::new() },
        shm_size: h.shm_size,
        sysctls: Some(h.sysctls.clone()).filter(|s| !s.is_empty()),
        runtime: "dhow".to_owned(),
        cpu_shares: r.cpu_shares.unwrap_or(0),
        memory: r.memory.unwrap_or(0),
        nano_cpus: r.nano_cpus.unwrap_or(0),
        blkio_weight: r.blkio_weight.unwrap_or(0),
        cpu_period: r.cpu_period.unwrap_or(0),
        cpu_quota: r.cpu_quota.unwrap_or(0),
        cpuset_cpus: r.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: r.cpuset_mems.clone().unwrap_or_default(),
        memory_reservation: r.memory_reservation.unwrap_or(0),
        memory_swap: r.memory_swap.or_else(|| r.memory.map(|m| limit(m.saturating_mul(2)))).unwrap_or(0),
        pids_limit: r.pids,
        ulimits: ulimits(&r.ulimits),
        masked_paths: Some(if unmasked { Vec::new() } else { defaults.masked_paths }),
        readonly_paths: Some(if unmasked { Vec::new() } else { defaults.readonly_paths }),
        init: h.init.then_some(true),
        ..view::HostConfig::default()
    }
}

fn ulimits(list: &[(String, u64, u64)]) -> Option<Vec<view::Ulimit>> {
    let limit = |n: u64| i64::try_from(n).unwrap_or(-1);
    let one = |(name, soft, hard): &(String, u64, u64)| view::Ulimit {
        name: name.clone(),
        hard: limit(*hard),
        soft: limit(*soft),
    };
    let list: Vec<_> = list.iter().map(one).collect();
    (!list.is_empty()).then_some(list)
}

/// `SRC:DST[:OPTS]` for binds and named volumes.
fn bind(m: &MountRecord) -> Option<String> {
    let source = match m.kind.as_str() {
        "bind" => &m.source,
        "volume" if !m.anonymous => &m.name,
        _ => return None,
    };
    let mut options: Vec<&str> = Vec::new();
    if m.read_only {
        options.push("ro");
    }
    if !m.propagation.is_empty() && m.propagation != "rprivate" {
        options.push(&m.propagation);
    }
    let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
    Some(format!("{source}:{}{options}", m.target))
}

fn tmpfs(h: &HostRecord) -> Option<view::TextMap> {
    let mounts = h.mounts.iter().filter(|m| m.kind == "tmpfs");
    let map: view::TextMap = mounts.map(|m| (m.target.clone(), m.options.clone())).collect();
    (!map.is_empty()).then_some(map)
}

fn port_bindings(h: &HostRecord) -> BTreeMap<String, Option<Vec<view::PortBinding>>> {
    let mut out: BTreeMap<String, Option<Vec<view::PortBinding>>> = BTreeMap::new();
    for port in &h.ports {
        let binding = view::PortBinding {
            host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: match port.host_ports {
                None => String::new(),
                Some((first, last)) if first == last => first.to_string(),
                Some((first, last)) => format!("{first}-{last}"),
            },
        };
        out.entry(port.container.clone()).or_default().get_or_insert_default().push(binding);
    }
    out
}

fn network_settings(container: &Container) -> view::NetworkSettings {
    let host = &container.record.host;
    let alive = container.is_alive();
    let place = container.state.network.as_ref().filter(|_| alive);
    let mut ports: BTreeMap<String, Option<Vec<view::PortBinding>>> = BTreeMap::new();
    if alive && place.is_some() {
        ports.extend(container.record.exposed.iter().map(|port| (port.clone(), None)));
        for port in place.map(|p| p.ports.as_slice()).unwrap_or_default() {
            let any = port.host_ip.is_none().then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let ip = port.host_ip.or(any).unwrap_or(ANY_V6);
            let binding = view::PortBinding { host_ip: ip.to_string(), host_port: port.host_port.to_string() };
            ports.entry(port.container.clone()).or_default().get_or_insert_default().push(binding);
        }
    }
    let mut out = view::NetworkSettings { ports, ..view::NetworkSettings::default() };
    let name = network_name(&host.network);
    if name.is_empty() {
        return out;
    }
    let mut endpoint = view::Endpoint { network_id: network_id(&host.network), ..view::Endpoint::default() };
    if alive {
        endpoint.endpoint_id = Digest::of(format!("endpoint {}", container.id).as_bytes()).hex();
        out.sandbox_id = Digest::of(format!("sandbox {}", container.id).as_bytes()).hex();
        out.sandbox_key = format!("/proc/{}/ns/net", container.state.pid);
    }
    if let Some(place) = place {
        endpoint.gateway = place.gateway.to_string();
        endpoint.ip_address = place.address.to_string();
        endpoint.ip_prefix_len = place.prefix_len;
        endpoint.mac_address.clone_from(&place.mac);
        out.gateway.clone_from(&endpoint.gateway);
        out.ip_address.clone_from(&endpoint.ip_address);
        out.ip_prefix_len = endpoint.ip_prefix_len;
        out.mac_address.clone_from(&endpoint.mac_address);
        out.endpoint_id.clone_from(&endpoint.endpoint_id);
    }
    out.networks.insert(name, endpoint);
    out
}

impl Engine {
    /// Bytes of a container's writable layer, and of that with its image. Slow: looks at every file.
    pub fn container_sizes(&self, container: &Container) -> (u64, u64) {
        let writable = super::tree_size(&self.paths().container(&container.id).join("upper"));
        let image = self.store().image(&container.record.image.id).map_or(0, |i| i.size);
        (writable, writable + image)
    }

    /// Processes of a running container, in the host's numbering.
    pub fn processes(&self, id: &dhow_types::ContainerId) -> Result<Vec<u32>, crate::EngineError> {
        let wrong =
            |message: String| crate::EngineError::WrongState { message, hint: Some("start it with `dhow start`") };
        if !self.container(id)?.is_alive() {
            return Err(wrong(format!("container {id} is not running")));
        }
        let cgroup = dhow_runtime::cgroup::Cgroup::open(&Paths::cgroup(id));
        let pids = cgroup.and_then(|c| c.pids());
        pids.map_err(|e| crate::EngineError::WrongState { message: dhow_types::report(&e), hint: None })
    }

    /// A container's log. `NotFound` when it has never written one.
    pub fn logs(
        &self,
        id: &dhow_types::ContainerId,
        options: dhow_logs::ReadOptions,
    ) -> Result<dhow_logs::LogReader, crate::EngineError> {
        let path = self.paths().container(id).join(format!("{id}-json.log"));
        Ok(dhow_logs::LogReader::open(&path, options)?)
    }
}
