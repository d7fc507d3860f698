//! What a container shall be: the one noun that all front ends translate to.

use crate::{ContainerName, Reference, Signal};
use std::net::IpAddr;
use std::path::PathBuf;

/// Everything a caller may ask of a new container. Unset fields take the image's value or the engine's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerSpec {
    /// Image as typed: a reference, an id or an id prefix.
    pub image: String,
    /// Name; the engine invents one when absent.
    pub name: Option<ContainerName>,
    /// Entry point; `Some(vec![])` clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments; empty means the image's `Cmd` unless `entrypoint` is given.
    pub command: Vec<String>,
    /// Environment additions: `KEY=VALUE`, or `KEY` alone to remove an image's variable.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// Host name inside the container.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Labels, in the order given.
    pub labels: Vec<(String, String)>,
    /// Allocate a pseudo terminal.
    pub tty: bool,
    /// Keep standard input open.
    pub open_stdin: bool,
    /// Close the container's standard input when the first attached client ends its own.
    pub stdin_once: bool,
    /// Which streams the creating client attaches: (stdin, stdout, stderr). Recorded for `inspect`.
    pub attach: (bool, bool, bool),
    /// Remove the container when it exits.
    pub auto_remove: bool,
    /// Network.
    pub network: NetworkMode,
    /// Published ports.
    pub ports: Vec<PortBinding>,
    /// Publish every exposed port on an ephemeral host port.
    pub publish_all: bool,
    /// Ports exposed beside the image's.
    pub expose: Vec<PortSpec>,
    /// Mounts, in the order given.
    pub mounts: Vec<MountSpec>,
    /// Extra `/etc/hosts` lines.
    pub extra_hosts: Vec<ExtraHost>,
    /// Name servers in place of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains in place of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options in place of the host's.
    pub dns_options: Vec<String>,
    /// Limits.
    pub resources: Resources,
    /// Confinement.
    pub security: SecurityOptions,
    /// Run a small init as PID 1 that reaps zombies and forwards signals.
    pub init: bool,
    /// Signal that `stop` sends; the image's or SIGTERM when absent.
    pub stop_signal: Option<Signal>,
    /// Seconds that `stop` waits before SIGKILL; `Some(-1)` waits for ever.
    pub stop_timeout: Option<i64>,
    /// What happens after exit.
    pub restart: RestartPolicy,
    /// Health probe; `None` takes the image's.
    pub healthcheck: Option<Healthcheck>,
    /// Log driver and options.
    pub log: LogConfig,
    /// IPC namespace.
    pub ipc: IpcMode,
    /// PID namespace.
    pub pid: PidMode,
    /// Share the host's UTS namespace.
    pub uts_host: bool,
    /// Supplementary groups, names or numbers.
    pub group_add: Vec<String>,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Size of `/dev/shm` in bytes; 64 MiB when absent.
    pub shm_size: Option<u64>,
    /// Platform asked for, as typed.
    pub platform: Option<String>,
    /// Free-form annotations.
    pub annotations: Vec<(String, String)>,
    /// Console size (rows, columns) at the first byte, when `tty`.
    pub console_size: Option<(u16, u16)>,
    /// File the client wrote the id to, recorded for `inspect`.
    pub cidfile: Option<PathBuf>,
}

/// Which network stack a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// The default bridge.
    #[default]
    Bridge,
    /// The host's own stack.
    Host,
    /// A stack with `lo` alone.
    None,
    /// The stack of another container, by id or name.
    Container(String),
    /// A user-defined network, by name or id.
    Named(String),
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl PortProtocol {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// By lower-case name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|p| p.name() == name)
    }
}

/// A container port, `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortSpec {
    /// Port number inside the container, 1 to 65535.
    pub port: u16,
    /// Protocol.
    pub protocol: PortProtocol,
}

impl std::fmt::Display for PortSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol.name())
    }
}

/// A container port published on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortBinding {
    /// Host address; `None` is every address.
    pub host_ip: Option<IpAddr>,
    /// Host ports to choose from, inclusive; `None` is an ephemeral port.
    pub host_ports: Option<(u16, u16)>,
    /// Container port.
    pub container: PortSpec,
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSpec {
    /// A host path.
    Bind(BindMount),
    /// A named or anonymous volume.
    Volume(VolumeMount),
    /// Memory.
    Tmpfs(TmpfsMount),
}

/// Mount propagation (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// `rprivate`, Docker's default.
    #[default]
    RPrivate,
    /// `private`
    Private,
    /// `rshared`
    RShared,
    /// `shared`
    Shared,
    /// `rslave`
    RSlave,
    /// `slave`
    Slave,
}

impl Propagation {
    /// The word used in mount options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RPrivate => "rprivate",
            Self::Private => "private",
            Self::RShared => "rshared",
            Self::Shared => "shared",
            Self::RSlave => "rslave",
            Self::Slave => "slave",
        }
    }
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// Read-only, with all submounts.
    pub read_only: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Create a missing source as a directory (`-v` does, `--mount` does not).
    pub create_source: bool,
}

/// A volume mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// Volume name; `None` is an anonymous volume.
    pub name: Option<String>,
    /// Absolute path in the container.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// Do not copy the image's content into an empty volume.
    pub no_copy: bool,
}

/// A tmpfs mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TmpfsMount {
    /// Absolute path in the container.
    pub target: String,
    /// Options as typed, comma separated; they follow and override `noexec,nosuid,nodev`.
    pub options: String,
}

/// `/etc/hosts` line from `--add-host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    /// Host name.
    pub name: String,
    /// Address, or `None` for `host-gateway`.
    pub address: Option<IpAddr>,
}

/// cgroup limits. `None` is "not limited".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// Memory limit in bytes.
    pub memory: Option<u64>,
    /// Memory plus swap in bytes; `Some(-1)` is unlimited swap.
    pub memory_swap: Option<i64>,
    /// Soft limit in bytes.
    pub memory_reservation: Option<u64>,
    /// CPUs in units of 10⁻⁹ CPU.
    pub nano_cpus: Option<u64>,
    /// Relative CPU weight, 2 to 262144, 1024 being normal.
    pub cpu_shares: Option<u64>,
    /// CFS period in microseconds.
    pub cpu_period: Option<u64>,
    /// CFS quota in microseconds.
    pub cpu_quota: Option<i64>,
    /// CPUs that may be used, `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used.
    pub cpuset_mems: Option<String>,
    /// Number of processes and threads.
    pub pids: Option<i64>,
    /// Relative block I/O weight, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Resource limits (setrlimit(2)).
    pub ulimits: Vec<Ulimit>,
    /// `/proc/PID/oom_score_adj` of the container.
    pub oom_score_adj: Option<i32>,
}

/// One `--ulimit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Docker's name, `nofile`.
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// Confinement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// All capabilities, all devices, no seccomp, no masks.
    pub privileged: bool,
    /// Capabilities to add, upper case with `CAP_`; `ALL` is allowed.
    pub cap_add: Vec<String>,
    /// Capabilities to drop, upper case with `CAP_`; `ALL` is allowed.
    pub cap_drop: Vec<String>,
    /// Root file system read-only.
    pub read_only_rootfs: bool,
    /// `no_new_privs` (prctl(2)).
    pub no_new_privileges: bool,
    /// System call filter.
    pub seccomp: SeccompChoice,
    /// Leave `/proc` and `/sys` paths unmasked and writable (`systempaths=unconfined`).
    pub unmasked: bool,
    /// AppArmor profile, as typed.
    pub apparmor: Option<String>,
    /// The `--security-opt` texts, for `inspect`.
    pub as_typed: Vec<String>,
}

/// Which system call filter a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SeccompChoice {
    /// Docker's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON format.
    Profile(String),
}

/// What happens after exit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    No,
    /// Always.
    Always,
    /// Always, but not after `stop`.
    UnlessStopped,
    /// After a non-zero exit, at most so many times (0 is unlimited).
    OnFailure(u32),
}

/// A health probe (Docker's `HEALTHCHECK`). Durations in nanoseconds; 0 is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// Between probes.
    pub interval: i64,
    /// Of one probe.
    pub timeout: i64,
    /// Grace after start.
    pub start_period: i64,
    /// Between probes during the grace.
    pub start_interval: i64,
    /// Consecutive failures before `unhealthy`.
    pub retries: i64,
}

/// Log driver and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// Driver; `None` is `json-file`.
    pub driver: Option<String>,
    /// Options, in the order given.
    pub options: Vec<(String, String)>,
}

/// IPC namespace of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum IpcMode {
    /// Own, not joinable.
    #[default]
    Private,
    /// Own, joinable.
    Shareable,
    /// The host's.
    Host,
    /// Another container's.
    Container(String),
}

/// PID namespace of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PidMode {
    /// Own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's.
    Container(String),
}

impl ContainerSpec {
    /// The image as a reference, when it is one and not an id.
    pub fn image_reference(&self) -> Option<Reference> {
        self.image.parse::<Reference>().ok().map(Reference::with_default_tag)
    }
}
