//! The kernel features that dhow uses, one row each: since when, what for, what happens without.

use super::facts::{Kernel, Security, read};
use crate::caps;
use crate::cgroup::Mode;
use dhow_sys::known::{self, Call};
use dhow_sys::netlink::{Protocol, Socket};
use rustix::mount::{FsOpenFlags, fsconfig_set_flag, fsconfig_set_string, fsopen};
use std::os::fd::OwnedFd;
use std::path::Path;

/// A row of the table.
#[derive(Debug)]
pub struct Feature {
    /// Name, unique.
    pub name: &'static str,
    /// First kernel version that has it; `-` for what is not a matter of the version.
    pub since: &'static str,
    /// What dhow uses it for.
    pub purpose: &'static str,
    /// What happens without it.
    pub without: &'static str,
    look: fn(&Facts<'_>) -> (bool, String),
}

impl Feature {
    pub(super) fn look(&self, facts: &Facts<'_>) -> (bool, String) {
        (self.look)(facts)
    }
}

/// What is known before features are looked for.
pub(super) struct Facts<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) security: &'a Security,
    pub(super) cgroup_mode: Mode,
}

impl Facts<'_> {
    fn at_least(&self, major: u32, minor: u32) -> bool {
        self.kernel.version >= (major, minor)
    }

    fn holds(&self, capability: &str) -> bool {
        caps::number(capability).is_ok_and(|n| self.security.capabilities.contains(n))
    }
}

/// Every feature, in the order of `docs/kernel-features.md`.
pub static FEATURES: &[Feature] = &[
    Feature {
        name: "overlay",
        since: "3.18",
        purpose: "the root file system of every container and build step",
        without: "no container starts",
        look: |_| bare(overlay().is_some() || file_systems_have("overlay")),
    },
    Feature {
        name: "overlay lowerdir+",
        since: "6.5",
        purpose: "layers are handed to overlay one by one (from 6.13 by descriptor), whatever their number and the length of their paths",
        without: "all layers go into one mount option of a page, as short names: some 800",
        look: |_| bare(overlay().is_some_and(|fs| fsconfig_set_string(&fs, "lowerdir+", "/").is_ok())),
    },
    Feature {
        name: "overlay volatile",
        since: "5.10",
        purpose: "containers that are removed at exit, and build steps, are not synced to disk",
        without: "unmounting such a root waits for the disk, up to seconds",
        look: |_| bare(overlay().is_some_and(|fs| fsconfig_set_flag(&fs, "volatile").is_ok())),
    },
    Feature {
        name: "overlay userxattr",
        since: "5.11",
        purpose: "nothing yet; planned for overlay in a user namespace (rootless)",
        without: "rootless containers will need another way to layers",
        look: |_| bare(overlay().is_some_and(|fs| fsconfig_set_flag(&fs, "userxattr").is_ok())),
    },
    Feature {
        name: "erofs",
        since: "5.4",
        purpose: "nothing yet; planned as a layer store of one immutable file per layer (file-backed mounts: 6.12)",
        without: "layers are directories, as they are now",
        look: |facts| {
            let detail = if facts.at_least(6, 12) { "file-backed mounts" } else { "by loop device only" };
            with_detail(file_systems_have("erofs"), detail)
        },
    },
    Feature {
        name: "new mount API",
        since: "5.2",
        purpose: "mounts are made and placed by descriptor (fsopen, open_tree, move_mount), never by path",
        without: "no container starts: mounts by path can be led astray by symbolic links",
        look: |_| bare(Call::Fsopen.known()),
    },
    Feature {
        name: "mount_setattr",
        since: "5.12",
        purpose: "recursive read-only and private mounts; the sealed copy of dhow's own program",
        without: "no container starts",
        look: |_| bare(Call::MountSetattr.known()),
    },
    Feature {
        name: "idmapped mounts",
        since: "5.12",
        purpose: "nothing yet; planned for layers shared between containers with different user namespaces (overlay lower directories: 5.19)",
        without: "user namespaces will need a copy of the layers with changed owners",
        look: |facts| {
            let found = Call::MountSetattr.known();
            with_detail(found, if facts.at_least(5, 19) { "also below overlay" } else { "not below overlay" })
        },
    },
    Feature {
        name: "openat2",
        since: "5.6",
        purpose: "every path inside a container or an image is resolved below its root",
        without: "dhow does not run",
        look: |_| bare(Call::Openat2.known()),
    },
    Feature {
        name: "clone3",
        since: "5.3",
        purpose: "a container's first process gets its namespaces, its pidfd and (5.7) its version 2 cgroup at birth",
        without: "no container starts",
        look: |_| bare(Call::Clone3.known()),
    },
    Feature {
        name: "pidfd",
        since: "5.3",
        purpose: "signals and waiting never hit a stranger whose process id was reused (poll: 5.3, waitid: 5.4)",
        without: "dhow does not run",
        look: |_| bare(Call::PidfdOpen.known()),
    },
    Feature {
        name: "close_range",
        since: "5.9",
        purpose: "no descriptor of the host reaches a container",
        without: "no container starts",
        look: |_| bare(Call::CloseRange.known()),
    },
    Feature {
        name: "cgroup.kill",
        since: "5.14",
        purpose: "all processes of a container die at once (version 2 and hybrid)",
        without: "they are frozen and killed one by one",
        look: |facts| match facts.cgroup_mode {
            Mode::V1 => with_detail(false, "no cgroup2 is mounted"),
            _ => bare(facts.at_least(5, 14)),
        },
    },
    Feature {
        name: "cgroup device control",
        since: "4.15",
        purpose: "containers reach only the devices they may (version 1 controller, or an eBPF program on version 2)",
        without: "no container starts, except privileged ones",
        look: |facts| {
            if crate::cgroup::controllers().iter().any(|(name, version)| name == "devices" && *version == 1) {
                return with_detail(true, "version 1 controller");
            }
            let program = [dhow_sys::bpf::move_value(dhow_sys::bpf::R0, 1), dhow_sys::bpf::exit()];
            let loaded = facts.cgroup_mode != Mode::V1 && dhow_sys::bpf::load_device_program(&program).is_ok();
            with_detail(loaded, "eBPF")
        },
    },
    Feature {
        name: "swap limit",
        since: "-",
        purpose: "a memory limit covers swap as well",
        without: "a container may swap without limit; a warning says so (boot with swapaccount=1)",
        look: |facts| match facts.cgroup_mode {
            Mode::V2 => bare(facts.at_least(4, 5) && Path::new("/proc/swaps").exists()),
            _ => bare(Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()),
        },
    },
    Feature {
        name: "seccomp filter",
        since: "3.5",
        purpose: "the default profile takes away system calls that containers do not need",
        without: "containers start only with --security-opt seccomp=unconfined",
        look: |_| bare(dhow_sys::seccomp::action_available(0x7fff_0000).unwrap_or(false)),
    },
    Feature {
        name: "AF_ALG closed to 32-bit programs",
        since: "-",
        purpose: "socketcall of i386 hides its arguments from seccomp, so only a kernel without AF_ALG, or without i386 programs, closes the family to them",
        without: "a 32-bit program in a container reaches the kernel's crypto API (CVE-2026-31431), unless a security module denies it",
        look: |facts| {
            if !cfg!(target_arch = "x86_64") || !Path::new("/proc/sys/abi/vsyscall32").exists() {
                return with_detail(true, "the kernel runs no i386 programs");
            }
            // Opening such a socket would tell, and load the module: just what nobody should do.
            let loaded = read("/proc/net/protocols").is_some_and(|t| t.lines().any(|l| l.starts_with("ALG ")));
            let directory = format!("/lib/modules/{}/kernel/crypto", facts.kernel.release);
            let loadable = ["af_alg.ko", "af_alg.ko.xz", "af_alg.ko.zst", "af_alg.ko.gz"]
                .iter()
                .any(|module| Path::new(&directory).join(module).exists());
            with_detail(!loaded && !loadable, if loaded || loadable { "" } else { "the kernel has no AF_ALG" })
        },
    },
    Feature {
        name: "user namespaces",
        since: "3.8",
        purpose: "nothing yet; planned for rootless containers, and for root in a container that is nobody outside",
        without: "neither can be offered",
        look: |_| {
            let max = read("/proc/sys/user/max_user_namespaces").and_then(|t| t.trim().parse::<u64>().ok());
            let forbidden = read("/proc/sys/kernel/unprivileged_userns_clone").is_some_and(|t| t.trim() == "0");
            let found = namespace("user") && max != Some(0);
            with_detail(found, if forbidden { "for root only" } else { "" })
        },
    },
    Feature {
        name: "cgroup namespaces",
        since: "4.6",
        purpose: "a container sees its own cgroup as the root",
        without: "containers see the host's cgroup paths",
        look: |_| bare(namespace("cgroup")),
    },
    Feature {
        name: "time namespaces",
        since: "5.6",
        purpose: "joining another container's clocks, and clocks of its own for a specification that asks",
        without: "such a specification is refused",
        look: |_| bare(namespace("time")),
    },
    Feature {
        name: "landlock",
        since: "5.13",
        purpose: "nothing yet; planned to confine the helpers that unpack archives",
        without: "helpers are confined by namespaces and capabilities alone",
        look: |_| match known::landlock_version() {
            Some(version) => with_detail(true, &format!("version {version}")),
            None => bare(false),
        },
    },
    Feature {
        name: "AppArmor",
        since: "2.6.36",
        purpose: "the profile asked for with --security-opt apparmor=NAME",
        without: "containers run without; asking for a profile is an error",
        look: |facts| bare(facts.security.apparmor),
    },
    Feature {
        name: "SELinux",
        since: "2.6.0",
        purpose: "nothing yet; planned as a label of its own for each container",
        without: "containers run without labels",
        look: |facts| match facts.security.selinux {
            Some(enforces) => with_detail(true, if enforces { "enforcing" } else { "permissive" }),
            None => bare(false),
        },
    },
    Feature {
        name: "nftables",
        since: "3.13",
        purpose: "published ports and the way out of bridge networks, in a table of dhow's own",
        without: "only --network none, host and container work",
        look: |_| bare(nftables()),
    },
    Feature {
        name: "IPv4 forwarding",
        since: "-",
        purpose: "packets between containers and the world; dhow turns it on with the first bridge network",
        without: "it is off until then",
        look: |_| bare(read("/proc/sys/net/ipv4/ip_forward").is_some_and(|t| t.trim() == "1")),
    },
    Feature {
        name: "CAP_SYS_ADMIN",
        since: "-",
        purpose: "namespaces and mounts",
        without: "only rootless operation",
        look: |facts| bare(facts.holds("CAP_SYS_ADMIN")),
    },
    Feature {
        name: "CAP_SYS_RESOURCE",
        since: "-",
        purpose: "resource limits above dhow's own hard limits, and lower oom_score_adj values",
        without: "limits are capped at dhow's own; a warning says so",
        look: |facts| bare(facts.holds("CAP_SYS_RESOURCE")),
    },
];

fn bare(found: bool) -> (bool, String) {
    (found, String::new())
}

fn with_detail(found: bool, detail: &str) -> (bool, String) {
    (found, detail.to_owned())
}

/// An overlay file system in the making; thrown away with its descriptor.
fn overlay() -> Option<OwnedFd> {
    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).ok()
}

fn file_systems_have(name: &str) -> bool {
    read("/proc/filesystems").is_some_and(|t| t.lines().any(|l| l.split_whitespace().last() == Some(name)))
}

fn namespace(name: &str) -> bool {
    Path::new("/proc/self/ns").join(name).exists()
}

/// Asks nf_tables for its generation number (`NFT_MSG_GETGEN`), which changes nothing.
fn nftables() -> bool {
    const GETGEN: u16 = (10 << 8) | 16;
    const NEWGEN: u16 = (10 << 8) | 15;
    const REQUEST: u16 = 1;
    let mut message = Vec::with_capacity(20);
    message.extend(20u32.to_ne_bytes());
    message.extend(GETGEN.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // struct nfgenmsg: any family, version 0, resource 0.
    message.extend([0; 4]);
    let ask = || -> std::io::Result<bool> {
        let socket = Socket::open(Protocol::Netfilter)?;
        socket.send(&message)?;
        let mut answer = Vec::with_capacity(4096);
        socket.receive(&mut answer)?;
        Ok(answer.get(4..6) == Some(NEWGEN.to_ne_bytes().as_slice()))
    };
    ask().unwrap_or(false)
}
