//! Counting what an engine could leave behind, for one fixture only: other engines on the machine don't disturb.

use crate::dhow::Dhow;
use crate::process;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Everything that is there, one line each, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    lines: BTreeSet<String>,
}

impl Census {
    /// Takes the census of a fixture.
    pub fn take(dhow: &Dhow) -> Self {
        let mut lines = BTreeSet::new();
        let ids = dhow.known_ids();
        processes(dhow, &ids, &mut lines);
        mounts(dhow, &mut lines);
        links(dhow, &mut lines);
        rules(dhow, &mut lines);
        cgroups(&ids, &mut lines);
        files(dhow, &mut lines);
        Self { lines }
    }

    /// What is here and was not in `before`.
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.lines.difference(&before.lines).cloned().collect()
    }

    /// All lines.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Takes the census until nothing is there that was not in `before`; panics with what stays.
    ///
    /// The kernel ends network namespaces and the links in them some milliseconds after their last process.
    pub fn settle(dhow: &Dhow, before: &Self, limit: Duration) {
        let start = Instant::now();
        loop {
            let left = Self::take(dhow).since(before);
            if left.is_empty() {
                return;
            }
            assert!(start.elapsed() < limit, "left behind:\n  {}", left.join("\n  "));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Processes in the fixture's network (monitors, commands), in a cgroup of its containers, or on its file systems.
fn processes(dhow: &Dhow, ids: &BTreeSet<String>, lines: &mut BTreeSet<String>) {
    let own = std::process::id().cast_signed();
    for pid in pids_of(dhow, ids).into_iter().filter(|p| *p != own) {
        let command = process::proc_file(pid, "cmdline").replace('\0', " ");
        lines.insert(format!("process {pid}: {}", command.trim()));
    }
}

/// Ids of those processes.
pub(crate) fn pids_of(dhow: &Dhow, ids: &BTreeSet<String>) -> Vec<i32> {
    let (net, root) = (dhow.net().inode(), format!("{}/", dhow.dir().display()));
    let own = process::namespace(std::process::id().cast_signed(), "mnt");
    process::all()
        .into_iter()
        .filter(|pid| {
            if matches!(process::state(*pid), None | Some('Z' | 'X')) {
                return false;
            }
            let by_net = process::namespace(*pid, "net") == Some(net);
            let by_mount =
                || process::namespace(*pid, "mnt") != own && process::proc_file(*pid, "mountinfo").contains(&root);
            let by_cgroup = || {
                let cgroups = process::proc_file(*pid, "cgroup");
                ids.iter().any(|id| cgroups.contains(id.as_str()))
            };
            by_net || by_cgroup() || by_mount()
        })
        .collect()
}

/// Mounts on the host that name the fixture's directories.
fn mounts(dhow: &Dhow, lines: &mut BTreeSet<String>) {
    let dir = format!("{}/", dhow.dir().display());
    let table = process::proc_file(std::process::id().cast_signed(), "mountinfo");
    lines.extend(table.lines().filter(|l| l.contains(&dir)).map(|l| format!("mount {l}")));
}

/// Network links beside loopback and the bridge itself (the bridge stays while the host is up).
fn links(dhow: &Dhow, lines: &mut BTreeSet<String>) {
    for line in dhow.net().ip(&["-o", "-d", "link"]).lines() {
        let name = line.split(": ").nth(1).unwrap_or("").split('@').next().unwrap_or("");
        let fixture = dhow.cables().iter().any(|c| c == name);
        if name != "lo" && !line.contains(" bridge ") && !fixture || line.contains("bridge_slave") {
            lines.insert(format!("link {name}"));
        }
    }
}

/// Elements of nftables sets and maps, i.e. published ports; and tables that are not ours.
fn rules(dhow: &Dhow, lines: &mut BTreeSet<String>) {
    let json = dhow.net().enter(|| process::must(Command::new("nft").args(["-j", "list", "ruleset"])));
    let value: serde_json::Value = serde_json::from_str(&json).expect("nft prints JSON");
    for object in value["nftables"].as_array().into_iter().flatten() {
        for kind in ["set", "map"] {
            let (name, table) = (&object[kind]["name"], &object[kind]["table"]);
            let per_container =
                !object[kind]["elem"].is_null() && !object[kind]["flags"].to_string().contains("constant");
            for element in object[kind]["elem"].as_array().into_iter().flatten().filter(|_| per_container) {
                lines.insert(format!("nft {table} {name} {element}"));
            }
        }
    }
}

/// Cgroups of the fixture's containers in any hierarchy.
fn cgroups(ids: &BTreeSet<String>, lines: &mut BTreeSet<String>) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    for hierarchy in hierarchies.chain([root.to_path_buf()]) {
        for entry in std::fs::read_dir(hierarchy.join("dhow")).into_iter().flatten().flatten() {
            if ids.contains(entry.file_name().to_string_lossy().as_ref()) {
                lines.insert(format!("cgroup {}", entry.path().display()));
            }
        }
    }
}

/// Staging files, leases, ports, live marks, sockets and records.
fn files(dhow: &Dhow, lines: &mut BTreeSet<String>) {
    let (root, run) = (dhow.root(), dhow.run_root());
    for dir in [root.join("tmp"), root.join("containers"), root.join("names"), run.join("live"), run.join("c")] {
        list(&dir, lines);
    }
    for bridge in std::fs::read_dir(run.join("net")).into_iter().flatten().flatten() {
        for kind in ["ip", "port"] {
            list(&bridge.path().join(kind), lines);
        }
    }
}

fn list(dir: &Path, lines: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    // Names with a leading dot are the engine's own bookkeeping (cursors, locks), not objects.
    let names = entries.filter(|e| !e.file_name().to_string_lossy().starts_with('.'));
    lines.extend(names.map(|e| format!("file {}", e.path().display())));
}
