//! `inspect` documents, field by field in Docker's order.
//!
//! `null` and "absent" are different things to programs that read this: an `Option` without `skip_serializing_if` is
//! null when empty, one with it is absent. [`CONTAINER_SHAPE`] and [`IMAGE_SHAPE`] tell templates what an empty field is.

use crate::template::{Empty, Shape};
use serde::Serialize;
use std::collections::BTreeMap;

/// `{}`
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Nothing {}

/// A list of texts.
pub type Texts = Vec<String>;
/// A sorted map of texts.
pub type TextMap = BTreeMap<String, String>;

/// A container.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct Container {
    pub id: String,
    pub created: String,
    pub path: String,
    pub args: Texts,
    pub state: State,
    pub image: String,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    pub name: String,
    pub restart_count: u64,
    pub driver: String,
    pub platform: String,
    pub mount_label: String,
    pub process_label: String,
    pub app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Texts>,
    pub host_config: HostConfig,
    pub graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<u64>,
    pub mounts: Vec<Mount>,
    pub config: Config,
    pub network_settings: NetworkSettings,
}

/// `.State`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct State {
    pub status: String,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: u32,
    pub exit_code: i64,
    pub error: String,
    pub started_at: String,
    pub finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// `.State.Health`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct Health {
    pub status: String,
    pub failing_streak: u64,
    pub log: Vec<HealthResult>,
}

/// One probe.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct HealthResult {
    pub start: String,
    pub end: String,
    pub exit_code: i64,
    pub output: String,
}

/// `.GraphDriver`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct GraphDriver {
    pub data: Option<TextMap>,
    pub name: String,
}

/// One of `.Mounts`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct Mount {
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub source: String,
    pub destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    pub mode: String,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: String,
}

/// `.Config` of a container.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct Config {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Nothing>>,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Texts,
    pub cmd: Option<Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    pub image: String,
    pub volumes: Option<BTreeMap<String, Nothing>>,
    pub working_dir: String,
    pub entrypoint: Option<Texts>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub network_disabled: bool,
    pub on_build: Option<Texts>,
    pub labels: TextMap,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Texts>,
}

/// A health probe; durations in nanoseconds.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct Healthcheck {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Texts,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// `.HostConfig`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct HostConfig {
    pub binds: Option<Texts>,
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    pub log_config: LogConfig,
    pub network_mode: String,
    pub port_bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
    pub restart_policy: RestartPolicy,
    pub auto_remove: bool,
    pub volume_driver: String,
    pub volumes_from: Option<Texts>,
    pub console_size: [u16; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<TextMap>,
    pub cap_add: Option<Texts>,
    pub cap_drop: Option<Texts>,
    pub cgroupns_mode: String,
    pub dns: Texts,
    pub dns_options: Texts,
    pub dns_search: Texts,
    pub extra_hosts: Option<Texts>,
    pub group_add: Option<Texts>,
    pub ipc_mode: String,
    pub cgroup: String,
    pub links: Option<Texts>,
    pub oom_score_adj: i32,
    pub pid_mode: String,
    pub privileged: bool,
    pub publish_all_ports: bool,
    pub readonly_rootfs: bool,
    pub security_opt: Option<Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_opt: Option<TextMap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<TextMap>,
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    pub userns_mode: String,
    pub shm_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<TextMap>,
    pub runtime: String,
    pub isolation: String,
    pub cpu_shares: u64,
    pub memory: u64,
    pub nano_cpus: u64,
    pub cgroup_parent: String,
    pub blkio_weight: u16,
    pub blkio_weight_device: Option<Vec<Nothing>>,
    pub blkio_device_read_bps: Option<Vec<Nothing>>,
    pub blkio_device_write_bps: Option<Vec<Nothing>>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Option<Vec<Nothing>>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Option<Vec<Nothing>>,
    pub cpu_period: u64,
    pub cpu_quota: i64,
    pub cpu_realtime_period: i64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub devices: Option<Vec<Nothing>>,
    pub device_cgroup_rules: Option<Texts>,
    pub device_requests: Option<Vec<Nothing>>,
    pub memory_reservation: u64,
    pub memory_swap: i64,
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub pids_limit: Option<i64>,
    pub ulimits: Option<Vec<Ulimit>>,
    pub cpu_count: i64,
    pub cpu_percent: i64,
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<HostMount>>,
    pub masked_paths: Option<Texts>,
    pub readonly_paths: Option<Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

/// `.HostConfig.LogConfig`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct LogConfig {
    #[serde(rename = "Type")]
    pub kind: String,
    pub config: TextMap,
}

/// One host side of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct PortBinding {
    pub host_ip: String,
    pub host_port: String,
}

/// `.HostConfig.RestartPolicy`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct RestartPolicy {
    pub name: String,
    pub maximum_retry_count: u32,
}

/// One of `.HostConfig.Ulimits`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct Ulimit {
    pub name: String,
    pub hard: i64,
    pub soft: i64,
}

/// One of `.HostConfig.Mounts`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct HostMount {
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    pub target: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// `.NetworkSettings`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct NetworkSettings {
    pub bridge: String,
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    pub hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: u8,
    pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    pub sandbox_key: String,
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Texts>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Texts>,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    pub mac_address: String,
    pub networks: BTreeMap<String, Endpoint>,
}

/// One of `.NetworkSettings.Networks`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct Endpoint {
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<Nothing>,
    pub links: Option<Texts>,
    pub aliases: Option<Texts>,
    pub mac_address: String,
    pub driver_opts: Option<TextMap>,
    pub gw_priority: i64,
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Texts>,
}

/// Fields of a container that JSON may lack.
pub const CONTAINER_SHAPE: &Shape = &[
    ("", "ExecIDs", Empty::List),
    ("", "SizeRw", Empty::Nothing),
    ("", "SizeRootFs", Empty::Nothing),
    ("State", "Health", Empty::Nothing),
    ("GraphDriver", "Data", Empty::Map),
    ("Config", "ExposedPorts", Empty::Map),
    ("Config", "Cmd", Empty::List),
    ("Config", "Healthcheck", Empty::Nothing),
    ("Config", "Volumes", Empty::Map),
    ("Config", "Entrypoint", Empty::List),
    ("Config", "OnBuild", Empty::List),
    ("Config", "StopSignal", Empty::Text),
    ("Config", "StopTimeout", Empty::Nothing),
    ("Config", "Shell", Empty::List),
    ("HostConfig", "Binds", Empty::List),
    ("HostConfig", "VolumesFrom", Empty::List),
    ("HostConfig", "Annotations", Empty::Map),
    ("HostConfig", "CapAdd", Empty::List),
    ("HostConfig", "CapDrop", Empty::List),
    ("HostConfig", "ExtraHosts", Empty::List),
    ("HostConfig", "GroupAdd", Empty::List),
    ("HostConfig", "Links", Empty::List),
    ("HostConfig", "SecurityOpt", Empty::List),
    ("HostConfig", "StorageOpt", Empty::Map),
    ("HostConfig", "Tmpfs", Empty::Map),
    ("HostConfig", "Sysctls", Empty::Map),
    ("HostConfig", "BlkioWeightDevice", Empty::List),
    ("HostConfig", "BlkioDeviceReadBps", Empty::List),
    ("HostConfig", "BlkioDeviceWriteBps", Empty::List),
    ("HostConfig", "BlkioDeviceReadIOps", Empty::List),
    ("HostConfig", "BlkioDeviceWriteIOps", Empty::List),
    ("HostConfig", "Devices", Empty::List),
    ("HostConfig", "DeviceCgroupRules", Empty::List),
    ("HostConfig", "DeviceRequests", Empty::List),
    ("HostConfig", "Ulimits", Empty::List),
    ("HostConfig", "Mounts", Empty::List),
    ("HostConfig", "MaskedPaths", Empty::List),
    ("HostConfig", "ReadonlyPaths", Empty::List),
    ("HostConfig", "Init", Empty::Nothing),
    ("Mounts", "Name", Empty::Text),
    ("Mounts", "Driver", Empty::Text),
];

/// An image.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct Image {
    pub id: String,
    pub repo_tags: Texts,
    pub repo_digests: Texts,
    pub parent: String,
    pub comment: String,
    pub created: String,
    pub docker_version: String,
    pub author: String,
    pub config: Option<ImageConfig>,
    pub architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    pub os: String,
    pub size: u64,
    pub graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
}

/// `.Config` of an image.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct ImageConfig {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Nothing>>,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Option<Texts>,
    pub cmd: Option<Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    pub image: String,
    pub volumes: Option<BTreeMap<String, Nothing>>,
    pub working_dir: String,
    pub entrypoint: Option<Texts>,
    pub on_build: Option<Texts>,
    pub labels: Option<TextMap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Texts>,
}

/// `.RootFS`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct RootFs {
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Texts,
}

/// `.Metadata`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct Metadata {
    pub last_tag_time: String,
}

/// `.Descriptor`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are Docker's")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
}

/// Fields of an image that JSON may lack.
pub const IMAGE_SHAPE: &Shape = &[
    ("", "Config", Empty::Nothing),
    ("", "Variant", Empty::Text),
    ("", "Descriptor", Empty::Nothing),
    ("GraphDriver", "Data", Empty::Map),
    ("RootFS", "Layers", Empty::List),
    ("Config", "ExposedPorts", Empty::Map),
    ("Config", "Env", Empty::List),
    ("Config", "Cmd", Empty::List),
    ("Config", "Healthcheck", Empty::Nothing),
    ("Config", "Volumes", Empty::Map),
    ("Config", "Entrypoint", Empty::List),
    ("Config", "OnBuild", Empty::List),
    ("Config", "Labels", Empty::Map),
    ("Config", "StopSignal", Empty::Text),
    ("Config", "Shell", Empty::List),
];

/// The JSON text of `inspect`: an array, indented by four spaces, with a final line end.
pub fn pretty(documents: &[serde_json::Value]) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    match documents.serialize(&mut serializer) {
        Ok(()) => {
            out.push(b'\n');
            String::from_utf8_lossy(&out).into_owned()
        }
        Err(_) => "[]\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_nulls() {
        let json = serde_json::to_value(Container::default()).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.first(), Some(&"Id"));
        assert_eq!(keys.last(), Some(&"NetworkSettings"));
        assert!(json["ExecIDs"].is_null() && json["HostConfig"]["Binds"].is_null());
        assert!(json["HostConfig"]["Dns"].is_array());
        assert!(!json.as_object().unwrap().contains_key("SizeRw"));
        for key in ["OOMKilled", "StartedAt"] {
            assert!(json["State"].as_object().unwrap().contains_key(key), "{key}");
        }
        for key in ["IPAddress", "SandboxID", "GlobalIPv6PrefixLen", "LinkLocalIPv6Address"] {
            assert!(json["NetworkSettings"].as_object().unwrap().contains_key(key), "{key}");
        }
    }

    #[test]
    fn indented_by_four() {
        assert_eq!(pretty(&[]), "[]\n");
        assert_eq!(pretty(&[serde_json::json!({"A": 1})]), "[\n    {\n        \"A\": 1\n    }\n]\n");
    }
}
