//! Starts a container of a directory again and again and tells how long it took: `launch DIR ROUNDS PAUSE_MS COMMAND…`.

use dhow_runtime::cgroup::Cgroup;
use dhow_runtime::{LaunchRequest, Rootfs, StdioPlan, default_spec, launch, seccomp};
use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

fn main() {
    if !dhow_sys::process::exe_is_sealed().unwrap() {
        panic!("{}", dhow_sys::process::reexec_sealed());
    }
    let args: Vec<String> = std::env::args().collect();
    let (base, rounds, pause) = (&args[1], args[2].parse::<u32>().unwrap(), args[3].parse().unwrap());
    let mut spec = default_spec();
    spec.process.args = args[4..].to_vec();
    spec.process.env = vec!["PATH=/bin".into()];
    spec.linux.sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    spec.linux.sysctl.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    let filter = seccomp::docker_default(&spec.process.capabilities.bounding);
    let dir = std::env::temp_dir().join(format!("dhow-example-{}", std::process::id()));
    let mut times = Vec::new();
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(pause));
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::create_dir(&work).unwrap();
        let start = Instant::now();
        let (cgroup, _) =
            Cgroup::create(&format!("dhow-example/{}", std::process::id()), &spec.linux.resources).unwrap();
        let made = start.elapsed();
        let launched = launch(LaunchRequest {
            spec: &spec,
            rootfs: Rootfs::Overlay { lower: &[base.into()], upper: &upper, work: &work, volatile: true },
            user: "",
            group_add: &[],
            seccomp: &filter,
            cgroup: &cgroup,
            stdio: StdioPlan::Pipes { stdin: false },
            init: false,
            attach: &mut |_| Ok(()),
            inside: None,
        })
        .unwrap_or_else(|e| panic!("{}", dhow_types::report(&e)));
        let started = start.elapsed();
        let mut text = Vec::new();
        std::fs::File::from(launched.stdout.unwrap()).read_to_end(&mut text).unwrap();
        dhow_sys::process::wait(launched.pidfd.as_fd()).unwrap();
        let ended = start.elapsed();
        cgroup.remove().unwrap();
        times.push((made, started, ended, start.elapsed()));
        std::fs::remove_dir_all(&dir).unwrap();
    }
    times.sort_by_key(|t| t.2);
    let (made, started, ended, removed) = times[times.len() / 2];
    println!("median: cgroups made {made:?}, started {started:?}, ended {ended:?}, removed {removed:?}");
}
