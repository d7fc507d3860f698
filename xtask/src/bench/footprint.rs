//! Memory of an engine's helpers while containers idle, and the size of its programs.

use super::engines::{Engines, Kind};
use super::timing;
use crate::sh::{self, Result};
use dhow_testkit::process;
use std::collections::BTreeSet;

/// Kilobytes of proportional memory per container, over ten idle ones, without the containers' own processes.
pub fn memory_per_container(engines: &Engines, kind: Kind) -> Result<f64> {
    const COUNT: usize = 10;
    // Helpers live in our process and network namespaces; containers have their own, other programs another network.
    let own = ["pid", "net"].map(|kind| (kind, process::namespace(std::process::id().cast_signed(), kind)));
    let before: BTreeSet<i32> = process::all().into_iter().collect();
    let names: Vec<String> = (0..COUNT).map(|n| format!("idle{n}")).collect();
    for name in &names {
        timing::quiet(engines.run(kind).args(["-d", "--name", name, "busybox", "sleep", "1000"]))?;
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let helpers: Vec<i32> = process::all()
        .into_iter()
        .filter(|pid| !before.contains(pid) && own.iter().all(|(kind, inode)| process::namespace(*pid, kind) == *inode))
        .collect();
    let total: u64 = helpers.iter().map(|pid| proportional(*pid)).sum();
    let mut remove = engines.command(kind);
    remove.args(["rm", "-f"]);
    if kind == Kind::Podman {
        remove.args(["-t", "0"]);
    }
    timing::quiet(remove.args(&names))?;
    Ok(total as f64 / COUNT as f64)
}

/// `Pss` of a process in kB (proc_pid_smaps(5)); 0 for a kernel thread.
fn proportional(pid: i32) -> u64 {
    let rollup = process::proc_file(pid, "smaps_rollup");
    let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Kilobytes of the programs that must be installed for the engine to run containers.
pub fn program_size(engines: &Engines, kind: Kind) -> f64 {
    let dhow = engines.command(Kind::Dhow).get_program().to_string_lossy().into_owned();
    let programs: Vec<&str> = match kind {
        Kind::Dhow => vec![&dhow],
        Kind::Docker => {
            vec!["docker", "dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker-proxy", "docker-init"]
        }
        Kind::Podman => vec!["podman", "conmon", "crun", "/usr/lib/podman/netavark", "/usr/lib/podman/aardvark-dns"],
    };
    let files = programs.iter().filter_map(|p| if p.starts_with('/') { Some(p.into()) } else { sh::find(p) });
    files.filter_map(|file| std::fs::metadata(file).ok()).map(|m| m.len() as f64 / 1000.0).sum()
}
