//! What is on disk about a container: `config.json` (what it is) and `state.json` (what it does). The format is described
//! in `docs/formats/containers.md`.
//!
//! The record is the merge of what the caller asked for with the image's config, made once at creation, so that a later
//! change of the image cannot change the container.

use dhow_oci::image::{HealthConfig, digest_list, digest_text};
use dhow_types::{
    ContainerId, ContainerSpec, Digest, IpcMode, NetworkMode, PidMode, PortBinding, PortProtocol, PortSpec,
    RestartPolicy,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Version that this dhow writes. A record with a higher one is refused.
pub const VERSION: u32 = 1;

/// A container: everything that does not change while it runs, but for its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// Id.
    pub id: String,
    /// Name, without slash.
    pub name: String,
    /// RFC 3339 time of creation.
    pub created: String,
    /// Image.
    pub image: ImageUse,
    /// Process.
    pub process: ProcessRecord,
    /// Host name.
    pub hostname: String,
    /// NIS domain name.
    #[serde(default)]
    pub domainname: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Exposed ports, `80/tcp`.
    #[serde(default)]
    pub exposed: Vec<String>,
    /// Paths that the image declares as volumes.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Stop signal as written.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Seconds before SIGKILL.
    #[serde(default)]
    pub stop_timeout: Option<i64>,
    /// Health probe.
    #[serde(default)]
    pub healthcheck: Option<HealthConfig>,
    /// Everything about the host's side.
    pub host: HostRecord,
}

impl Record {
    /// A container without image and name, on no list: a command of a build.
    pub(crate) fn unlisted(id: &ContainerId, hostname: &str, process: ProcessRecord, host: HostRecord) -> Self {
        let nothing =
            ImageUse { name: String::new(), id: Digest::of(b""), diff_ids: Vec::new(), platform: String::new() };
        Self {
            version: VERSION,
            id: id.to_string(),
            name: String::new(),
            created: String::new(),
            image: nothing,
            process,
            hostname: hostname.to_owned(),
            domainname: String::new(),
            labels: BTreeMap::new(),
            exposed: Vec::new(),
            volumes: Vec::new(),
            stop_signal: None,
            stop_timeout: None,
            healthcheck: None,
            host,
        }
    }
}

/// The image of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageUse {
    /// As typed.
    pub name: String,
    /// Image id.
    #[serde(with = "digest_text")]
    pub id: Digest,
    /// Its layers, lowest first.
    #[serde(with = "digest_list")]
    pub diff_ids: Vec<Digest>,
    /// Its platform.
    pub platform: String,
}

/// The container's process, merged from request and image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessRecord {
    /// Entry point; `None` when there is none.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments.
    pub cmd: Option<Vec<String>>,
    /// Environment.
    pub env: Vec<String>,
    /// Working directory, as the image or the caller wrote it.
    pub workdir: String,
    /// `user[:group]`.
    pub user: String,
    /// With a terminal.
    pub tty: bool,
    /// Standard input stays open.
    pub open_stdin: bool,
    /// Standard input ends with the first client.
    pub stdin_once: bool,
    /// Streams that the creating client attached.
    pub attach_stdin: bool,
    /// Streams that the creating client attached.
    pub attach_stdout: bool,
    /// Streams that the creating client attached.
    pub attach_stderr: bool,
    /// Image's ONBUILD triggers, carried for `inspect` and `commit`.
    pub on_build: Vec<String>,
    /// Image's shell, carried for `commit`.
    pub shell: Option<Vec<String>>,
}

impl ProcessRecord {
    /// The whole command line.
    pub fn argv(&self) -> Vec<String> {
        let parts = [&self.entrypoint, &self.cmd];
        parts.into_iter().flatten().flatten().cloned().collect()
    }
}

/// The host's side of a container (Docker's HostConfig).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostRecord {
    /// Remove on exit.
    pub auto_remove: bool,
    /// Network mode in Docker's words: `bridge`, `host`, `none`, `container:ID`.
    pub network: String,
    /// Published ports.
    pub ports: Vec<PublishRecord>,
    /// Publish all exposed ports.
    pub publish_all: bool,
    /// Mounts.
    pub mounts: Vec<MountRecord>,
    /// Extra hosts, `name:address`; the address may be `host-gateway`.
    pub extra_hosts: Vec<String>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// Limits.
    pub resources: ResourceRecord,
    /// Confinement.
    pub security: SecurityRecord,
    /// Built-in init as PID 1.
    pub init: bool,
    /// Restart policy in Docker's words: `no`, `always`, `unless-stopped`, `on-failure:N`.
    pub restart: String,
    /// Log driver.
    pub log_driver: String,
    /// Log options.
    pub log_options: BTreeMap<String, String>,
    /// IPC mode in Docker's words.
    pub ipc: String,
    /// PID mode in Docker's words.
    pub pid: String,
    /// Host's UTS namespace.
    pub uts_host: bool,
    /// Supplementary groups.
    pub group_add: Vec<String>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Rows and columns at creation.
    pub console_size: Option<(u16, u16)>,
    /// File the id was written to.
    pub cidfile: String,
}

/// A published port as asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishRecord {
    /// Host address; every one when absent.
    pub host_ip: Option<IpAddr>,
    /// Host ports to choose from, inclusive; ephemeral when absent.
    pub host_ports: Option<(u16, u16)>,
    /// Container port, `80/tcp`.
    pub container: String,
}

impl PublishRecord {
    /// As the noun.
    pub fn binding(&self) -> Option<PortBinding> {
        let container = parse_port(&self.container)?;
        Some(PortBinding { host_ip: self.host_ip, host_ports: self.host_ports, container })
    }
}

impl From<&PortBinding> for PublishRecord {
    fn from(b: &PortBinding) -> Self {
        Self { host_ip: b.host_ip, host_ports: b.host_ports, container: b.container.to_string() }
    }
}

/// Reads `80/tcp`; `tcp` is implied.
pub fn parse_port(text: &str) -> Option<PortSpec> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some(PortSpec { port: port.parse().ok()?, protocol: PortProtocol::from_name(protocol)? })
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountRecord {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: String,
    /// Host path; empty for tmpfs.
    pub source: String,
    /// Volume name; empty for others.
    #[serde(default)]
    pub name: String,
    /// Path in the container.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// Propagation in mount(8)'s words.
    #[serde(default)]
    pub propagation: String,
    /// tmpfs options.
    #[serde(default)]
    pub options: String,
    /// An anonymous volume: removed with the container.
    #[serde(default)]
    pub anonymous: bool,
}

/// Limits as asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceRecord {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes, -1 unlimited.
    pub memory_swap: Option<i64>,
    /// Bytes.
    pub memory_reservation: Option<u64>,
    /// 10⁻⁹ CPUs.
    pub nano_cpus: Option<u64>,
    /// Weight.
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds.
    pub cpu_quota: Option<i64>,
    /// CPU list.
    pub cpuset_cpus: Option<String>,
    /// Node list.
    pub cpuset_mems: Option<String>,
    /// Tasks.
    pub pids: Option<i64>,
    /// Weight.
    pub blkio_weight: Option<u16>,
    /// `(name, soft, hard)`.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Score.
    pub oom_score_adj: Option<i32>,
}

/// Confinement as asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityRecord {
    /// Everything allowed.
    pub privileged: bool,
    /// Added capabilities.
    pub cap_add: Vec<String>,
    /// Dropped capabilities.
    pub cap_drop: Vec<String>,
    /// Read-only root.
    pub read_only_rootfs: bool,
    /// no_new_privs.
    pub no_new_privileges: bool,
    /// `default`, `unconfined`, or the profile's JSON.
    pub seccomp: String,
    /// No masked paths.
    pub unmasked: bool,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// As typed.
    pub as_typed: Vec<String>,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started, or its start failed.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Exited,
}

impl Status {
    /// Docker's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
        }
    }

    /// Whether there is a process.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// The mutable part of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// What it does.
    pub status: Status,
    /// First process in the host's numbering; 0 when there is none.
    pub pid: u32,
    /// Its start in clock ticks since boot: tells it from a later process with its number.
    pub pid_start: u64,
    /// The boot that `pid` belongs to.
    pub boot_id: String,
    /// Exit status of the last run.
    pub exit_code: i32,
    /// Why the last start failed.
    pub error: String,
    /// The last run was ended by the kernel for lack of memory.
    pub oom_killed: bool,
    /// RFC 3339, empty before the first start.
    pub started_at: String,
    /// RFC 3339, empty before the first exit.
    pub finished_at: String,
    /// Somebody asked it to stop.
    #[serde(default)]
    pub manually_stopped: bool,
    /// Its place in the network, while it runs.
    #[serde(default)]
    pub network: Option<NetworkRecord>,
}

impl State {
    /// A container that was never started.
    pub fn created() -> Self {
        Self {
            version: VERSION,
            status: Status::Created,
            pid: 0,
            pid_start: 0,
            boot_id: String::new(),
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: String::new(),
            finished_at: String::new(),
            manually_stopped: false,
            network: None,
        }
    }
}

/// A running container's place on the bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Address.
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix.
    pub prefix_len: u8,
    /// Gateway.
    pub gateway: Ipv4Addr,
    /// MAC address, colon separated.
    pub mac: String,
    /// Published ports as they came to be.
    pub ports: Vec<PublishedRecord>,
}

/// A published port as it came to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedRecord {
    /// Host address; every one when absent.
    pub host_ip: Option<IpAddr>,
    /// Host port.
    pub host_port: u16,
    /// Container port, `80/tcp`.
    pub container: String,
}

/// `bridge`, `host`, `none` or `container:ID`.
pub(crate) fn network_word(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::Bridge => "bridge".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Named(name) => name.clone(),
    }
}

/// Docker's word for a PID mode; empty for an own namespace.
pub(crate) fn pid_word(mode: &PidMode) -> String {
    match mode {
        PidMode::Private => String::new(),
        PidMode::Host => "host".to_owned(),
        PidMode::Container(id) => format!("container:{id}"),
    }
}

/// Docker's word for an IPC mode.
pub(crate) fn ipc_word(mode: &IpcMode) -> String {
    match mode {
        IpcMode::Private => "private".to_owned(),
        IpcMode::Shareable => "shareable".to_owned(),
        IpcMode::Host => "host".to_owned(),
        IpcMode::Container(id) => format!("container:{id}"),
    }
}

/// Docker's word for a restart policy.
pub(crate) fn restart_word(policy: RestartPolicy) -> String {
    match policy {
        RestartPolicy::No => "no".to_owned(),
        RestartPolicy::Always => "always".to_owned(),
        RestartPolicy::UnlessStopped => "unless-stopped".to_owned(),
        RestartPolicy::OnFailure(0) => "on-failure".to_owned(),
        RestartPolicy::OnFailure(n) => format!("on-failure:{n}"),
    }
}

impl From<&dhow_types::Resources> for ResourceRecord {
    fn from(r: &dhow_types::Resources) -> Self {
        Self {
            memory: r.memory,
            memory_swap: r.memory_swap,
            memory_reservation: r.memory_reservation,
            nano_cpus: r.nano_cpus,
            cpu_shares: r.cpu_shares,
            cpu_period: r.cpu_period,
            cpu_quota: r.cpu_quota,
            cpuset_cpus: r.cpuset_cpus.clone(),
            cpuset_mems: r.cpuset_mems.clone(),
            pids: r.pids,
            blkio_weight: r.blkio_weight,
            ulimits: r.ulimits.iter().map(|u| (u.name.clone(), u.soft, u.hard)).collect(),
            oom_score_adj: r.oom_score_adj,
        }
    }
}

impl From<&dhow_types::SecurityOptions> for SecurityRecord {
    fn from(s: &dhow_types::SecurityOptions) -> Self {
        use dhow_types::SeccompChoice;
        Self {
            privileged: s.privileged,
            cap_add: s.cap_add.clone(),
            cap_drop: s.cap_drop.clone(),
            read_only_rootfs: s.read_only_rootfs,
            no_new_privileges: s.no_new_privileges,
            seccomp: match &s.seccomp {
                SeccompChoice::Default => "default".to_owned(),
                SeccompChoice::Unconfined => "unconfined".to_owned(),
                SeccompChoice::Profile(json) => json.clone(),
            },
            unmasked: s.unmasked,
            apparmor: s.apparmor.clone(),
            as_typed: s.as_typed.clone(),
        }
    }
}

impl Record {
    /// The id as the noun.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn container_id(&self) -> Result<ContainerId, dhow_types::IdError> {
        self.id.parse()
    }

    /// Whether the spec asks for something this dhow does not do.
    pub(crate) fn unsupported(spec: &ContainerSpec) -> Option<String> {
        if spec.restart != RestartPolicy::No {
            return Some("--restart".to_owned());
        }
        if let Some(driver) = spec.log.driver.as_deref().filter(|d| !matches!(*d, "json-file" | "none")) {
            return Some(format!("log driver {driver:?}"));
        }
        if let NetworkMode::Named(name) = &spec.network {
            return Some(format!("network {name:?} (user-defined networks)"));
        }
        None
    }
}
