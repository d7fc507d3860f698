//! The OCI runtime specification (runtime-spec 1.2, config.md and config-linux.md), as far as dhow's runtime obeys it.
//!
//! Field names are the specification's, so a `config.json` of another tool reads into [`Spec`].

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A container's configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Version of the specification.
    pub oci_version: String,
    /// The process to start.
    pub process: Process,
    /// The root file system.
    pub root: Root,
    /// Host name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// NIS domain name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Linux part.
    pub linux: Linux,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The root file system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Path, for bundles. Containers of the engine name layers beside the spec.
    pub path: String,
    /// Mounted read-only.
    pub readonly: bool,
}

/// A process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// With a pseudo terminal.
    pub terminal: bool,
    /// Size of the terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Identity.
    pub user: User,
    /// Command line.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// prctl(PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// AppArmor profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor_profile: Option<String>,
}

/// Terminal size in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Identity of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Mode creation mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// The five capability sets, names with `CAP_`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Bounding.
    pub bounding: Vec<String>,
    /// Effective.
    pub effective: Vec<String>,
    /// Inheritable.
    pub inheritable: Vec<String>,
    /// Permitted.
    pub permitted: Vec<String>,
    /// Ambient.
    pub ambient: Vec<String>,
}

/// One setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and the like.
    #[serde(rename = "type")]
    pub kind: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Absolute path in the container.
    pub destination: String,
    /// File system type; `bind` or empty for binds.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Options as mount(8) writes them.
    pub options: Vec<String>,
}

/// Linux part of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// Namespaces: new ones, or ones to join by path. A kind that is not listed is shared with the host.
    pub namespaces: Vec<Namespace>,
    /// Device nodes beside the default ones.
    pub devices: Vec<Device>,
    /// Path below the cgroup root.
    pub cgroups_path: String,
    /// Limits.
    pub resources: Resources,
    /// Hidden paths.
    pub masked_paths: Vec<String>,
    /// Read-only paths.
    pub readonly_paths: Vec<String>,
    /// Kernel parameters.
    pub sysctl: BTreeMap<String, String>,
    /// Propagation of the root mount.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rootfs_propagation: String,
}

/// A namespace kind (namespaces(7)), in the specification's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// `CLONE_NEWUSER`
    User,
    /// `CLONE_NEWCGROUP`
    Cgroup,
    /// `CLONE_NEWIPC`
    Ipc,
    /// `CLONE_NEWUTS`
    Uts,
    /// `CLONE_NEWNET`
    Network,
    /// `CLONE_NEWPID`
    Pid,
    /// `CLONE_NEWNS`
    Mount,
    /// `CLONE_NEWTIME`
    Time,
}

impl NamespaceKind {
    /// All kinds, in the order of `/proc/PID/ns`'s names.
    pub const ALL: [Self; 8] =
        [Self::Cgroup, Self::Ipc, Self::Mount, Self::Network, Self::Pid, Self::Time, Self::User, Self::Uts];

    /// The file name below `/proc/PID/ns`.
    pub const fn proc_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Network => "net",
            Self::Pid => "pid",
            Self::Mount => "mnt",
            Self::Time => "time",
        }
    }
}

/// A namespace to create or to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Kind.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// File of an existing namespace; a new one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `c`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: char,
    /// Absolute path in the container.
    pub path: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Owner.
    #[serde(default)]
    pub uid: u32,
    /// Group.
    #[serde(default)]
    pub gid: u32,
}

/// cgroup limits (config-linux.md, "Control groups").
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Device access rules, in order; the first usually denies everything.
    pub devices: Vec<DeviceRule>,
    /// Memory.
    pub memory: Memory,
    /// CPU.
    pub cpu: Cpu,
    /// Number of tasks.
    pub pids: Option<Pids>,
    /// Block I/O.
    #[serde(rename = "blockIO")]
    pub block_io: BlockIo,
}

/// A device access rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `a`, `c` or `b`.
    #[serde(rename = "type", default = "all_devices")]
    pub kind: char,
    /// Major number; every one when absent.
    #[serde(default)]
    pub major: Option<u32>,
    /// Minor number; every one when absent.
    #[serde(default)]
    pub minor: Option<u32>,
    /// Some of `rwm`.
    #[serde(default)]
    pub access: String,
}

fn all_devices() -> char {
    'a'
}

/// Memory limits in bytes; -1 is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Hard limit.
    pub limit: Option<i64>,
    /// Soft limit.
    pub reservation: Option<i64>,
    /// Memory plus swap.
    pub swap: Option<i64>,
}

/// CPU limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Relative weight, v1 scale.
    pub shares: Option<u64>,
    /// Microseconds per period.
    pub quota: Option<i64>,
    /// Period in microseconds.
    pub period: Option<u64>,
    /// CPU list.
    pub cpus: Option<String>,
    /// Memory node list.
    pub mems: Option<String>,
}

/// Task limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// Limit; 0 or less is unlimited.
    pub limit: i64,
}

/// Block I/O limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIo {
    /// Relative weight, 10 to 1000.
    pub weight: Option<u16>,
}
