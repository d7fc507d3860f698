//! Docker's default container as an OCI specification.
//!
//! Beyond Docker's there is one thing: a cgroup namespace on version 1 hosts too, where Docker shares the host's.

use crate::caps;
use dhow_oci::runtime::{
    Capabilities, DeviceRule, Linux, Mount, Namespace, NamespaceKind, Process, Resources, Root, Spec,
};

/// Hidden from a container: kernel memory, keys, timing and power meters of the host.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
];
const MASKED_LAST: &str = "/sys/firmware";

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Devices a container may use (OCI runtime specification, config-linux.md; Docker's list): kind, major, minor, access.
const DEVICES: [(char, Option<u32>, Option<u32>, &str); 11] = [
    // Any node may be made; only these can be opened.
    ('c', None, None, "m"),
    ('b', None, None, "m"),
    ('c', Some(1), Some(3), "rwm"),
    ('c', Some(1), Some(5), "rwm"),
    ('c', Some(1), Some(7), "rwm"),
    ('c', Some(1), Some(8), "rwm"),
    ('c', Some(1), Some(9), "rwm"),
    ('c', Some(5), Some(0), "rwm"),
    ('c', Some(5), Some(1), "rwm"),
    ('c', Some(5), Some(2), "rwm"),
    ('c', Some(136), None, "rwm"),
];

/// Docker's default: namespaces, mounts, masks, device rules, capabilities. Program, environment, host name and the
/// container's own mounts are the caller's.
pub fn default_spec() -> Spec {
    let names: Vec<String> = caps::DEFAULT.iter().map(|n| (*n).to_owned()).collect();
    Spec {
        oci_version: "1.2.0".into(),
        process: Process {
            cwd: "/".into(),
            capabilities: Capabilities {
                bounding: names.clone(),
                effective: names.clone(),
                permitted: names,
                ..Capabilities::default()
            },
            // Not the caller's, which may be protected from the OOM killer.
            oom_score_adj: Some(0),
            ..Process::default()
        },
        root: Root::default(),
        mounts: mounts(),
        linux: Linux {
            namespaces: [
                NamespaceKind::Mount,
                NamespaceKind::Network,
                NamespaceKind::Uts,
                NamespaceKind::Pid,
                NamespaceKind::Ipc,
                NamespaceKind::Cgroup,
            ]
            .into_iter()
            .map(|kind| Namespace { kind, path: None })
            .collect(),
            resources: Resources { devices: device_rules(), ..Resources::default() },
            masked_paths: masked_paths(
                &std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default(),
            ),
            readonly_paths: READ_ONLY.iter().map(|p| (*p).to_owned()).collect(),
            ..Linux::default()
        },
        ..Spec::default()
    }
}

fn mounts() -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, source: &str, options: &str| Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.split(',').map(str::to_owned).collect(),
    };
    vec![
        mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=67108864"),
    ]
}

fn device_rules() -> Vec<DeviceRule> {
    let deny = DeviceRule { allow: false, kind: 'a', major: None, minor: None, access: "rwm".into() };
    let allow = DEVICES.into_iter().map(|(kind, major, minor, access)| DeviceRule {
        allow: true,
        kind,
        major,
        minor,
        access: access.into(),
    });
    std::iter::once(deny).chain(allow).collect()
}

/// The masks, with one per CPU for its thermal events (GHSA-6fw5-f8r9-fgfm). `possible` is the kernel's list of CPUs that
/// can ever be there, `0-7` or `0,2-3`.
fn masked_paths(possible: &str) -> Vec<String> {
    let last = possible.trim().rsplit([',', '-']).next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0).min(8191);
    let fixed = MASKED.iter().map(|p| (*p).to_owned());
    let thermal = (0..=last).map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
    fixed.chain([MASKED_LAST.to_owned()]).chain(thermal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted() {
        assert_eq!(masked_paths("0-3\n").len(), 16);
        assert_eq!(masked_paths("0\n").len(), 13);
        assert_eq!(masked_paths("").len(), 13);
        assert_eq!(masked_paths("0,2-5").len(), 18);
    }

    #[test]
    fn default_capabilities_are_dockers() {
        let spec = default_spec();
        let set = caps::Set::from_names(&spec.process.capabilities.bounding).unwrap();
        assert_eq!(set.0, 0xa804_25fb);
        assert!(spec.process.capabilities.ambient.is_empty() && spec.process.capabilities.inheritable.is_empty());
    }
}
