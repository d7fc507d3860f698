//! Version 2 code against a directory that plays kernel, and everything else against this host's real hierarchies.

use super::*;
use dhow_oci::runtime::{Cpu, DeviceRule, Memory, Pids};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Control files of a new version 2 cgroup, as far as a plain directory can play them.
fn play_v2(dir: &Path) {
    for (file, text) in [
        ("cgroup.controllers", "cpuset cpu io memory pids"),
        ("cgroup.subtree_control", ""),
        ("cgroup.procs", ""),
        ("cgroup.events", "populated 0\nfrozen 0\n"),
        ("cgroup.freeze", ""),
        ("memory.max", ""),
        ("memory.current", "5000000\n"),
        ("memory.swap.max", ""),
        ("memory.events", "low 0\noom 1\noom_kill 1\n"),
        ("memory.stat", "anon 1\ninactive_file 4096\n"),
        ("cpu.max", ""),
        ("cpu.weight", ""),
        ("cpu.stat", "usage_usec 7\nuser_usec 5\nsystem_usec 2\n"),
        ("pids.max", ""),
        ("pids.current", "3\n"),
        ("io.stat", "254:0 rbytes=1 wbytes=2\n"),
    ] {
        std::fs::write(dir.join(file), text).unwrap();
    }
}

/// A version 2 host in a temporary directory.
fn fake_v2(root: &Path) -> &'static Layout {
    play_v2(root);
    let v2 = Some(Hierarchy::fake(root, &[]));
    Box::leak(Box::new(Layout { v1: Vec::new(), v2, populate: Some(play_v2) }))
}

fn limited() -> Resources {
    Resources {
        memory: Memory { limit: Some(64 << 20), ..Memory::default() },
        cpu: Cpu { shares: Some(1024), quota: Some(50_000), ..Cpu::default() },
        pids: Some(Pids { limit: 9 }),
        ..Resources::default()
    }
}

#[test]
fn version_2_limits_and_parents() {
    let root = tempfile::tempdir().unwrap();
    let layout = fake_v2(root.path());
    let (cgroup, warnings) = Cgroup::create_in(layout, "dhow/one", &limited()).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let read = |file: &str| std::fs::read_to_string(root.path().join("dhow/one").join(file)).unwrap();
    assert_eq!(read("memory.max"), "67108864");
    assert_eq!(read("memory.swap.max"), "67108864");
    assert_eq!(read("cpu.max"), "50000 100000");
    assert_eq!(read("cpu.weight"), "100");
    assert_eq!(read("pids.max"), "9");
    // The last write of each file is what a plain directory keeps; it shows that controllers were enabled on the way.
    for parent in [".", "dhow"] {
        let enabled = std::fs::read_to_string(root.path().join(parent).join("cgroup.subtree_control")).unwrap();
        assert!(enabled.starts_with('+'), "{enabled:?}");
    }
    assert!(cgroup.v2_dir().is_some());
    cgroup.join_self().unwrap();
    assert!(cgroup.oom_killed());
    let usage = cgroup.usage();
    assert_eq!((usage.memory, usage.inactive_file, usage.cpu_ns), (Some(5_000_000), Some(4096), Some(7000)));
    assert_eq!((usage.pids, usage.io_read, usage.io_written), (Some(3), Some(1), Some(2)));
    assert!(Cgroup::open_in(layout, "dhow/one").is_ok());
    assert!(matches!(Cgroup::open_in(layout, "dhow/two"), Err(CgroupError::NotFound { .. })));
}

#[test]
fn version_2_lowering_memory_below_use_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (cgroup, _) = Cgroup::create_in(fake_v2(root.path()), "dhow/one", &Resources::default()).unwrap();
    let update = Resources { memory: Memory { limit: Some(4_000_000), ..Memory::default() }, ..Resources::default() };
    assert!(matches!(cgroup.update(&update), Err(CgroupError::LimitBelowUse { .. })));
    let enough = Resources { memory: Memory { limit: Some(8_000_000), ..Memory::default() }, ..Resources::default() };
    assert_eq!(cgroup.update(&enough).unwrap(), Vec::<String>::new());
}

#[test]
fn version_2_missing_files_are_warned_about() {
    let root = tempfile::tempdir().unwrap();
    let layout = fake_v2(root.path());
    let mut r = limited();
    r.block_io.weight = Some(500);
    r.cpu.cpus = Some("0".into());
    let (_, warnings) = Cgroup::create_in(layout, "dhow/one", &r).unwrap();
    assert_eq!(
        warnings,
        [
            "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
        ]
    );
}

#[test]
fn version_2_freezing_waits_for_the_event() {
    let root = tempfile::tempdir().unwrap();
    let (cgroup, _) = Cgroup::create_in(fake_v2(root.path()), "dhow/one", &Resources::default()).unwrap();
    assert!(!cgroup.frozen().unwrap());
    std::fs::write(root.path().join("dhow/one/cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
    cgroup.freeze().unwrap();
    assert_eq!(std::fs::read_to_string(root.path().join("dhow/one/cgroup.freeze")).unwrap(), "1");
    cgroup.thaw().unwrap();
    assert_eq!(std::fs::read_to_string(root.path().join("dhow/one/cgroup.freeze")).unwrap(), "0");
}

#[test]
fn devices_without_any_control_fail() {
    let root = tempfile::tempdir().unwrap();
    let v1 = vec![Hierarchy::fake(root.path(), &["pids"])];
    fn play(dir: &Path) {
        std::fs::write(dir.join("tasks"), "").unwrap();
    }
    let layout = Box::leak(Box::new(Layout { v1, v2: None, populate: Some(play) }));
    let deny = DeviceRule { allow: false, kind: 'a', major: None, minor: None, access: "rwm".into() };
    let r = Resources { devices: vec![deny], ..Resources::default() };
    assert!(matches!(Cgroup::create_in(layout, "dhow/one", &r), Err(CgroupError::NoDeviceControl)));
}

#[test]
fn hostile_paths_reach_no_hierarchy() {
    for path in ["..", "../../victim", "a/../b", "a\0b", "a\nb", "", "/"] {
        assert!(matches!(Cgroup::create(path, &Resources::default()), Err(CgroupError::InvalidPath { .. })));
        assert!(matches!(Cgroup::open(path), Err(CgroupError::InvalidPath { .. })));
        assert!(matches!(remove(path), Err(CgroupError::InvalidPath { .. })));
    }
}

/// A parent of our own, gone with all below it when dropped.
struct Parent(String);

impl Parent {
    fn new(name: &str) -> Self {
        Self(format!("dhow-test-{}-{name}", std::process::id()))
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        if let Ok(cgroup) = Cgroup::open(&self.0) {
            let _ = cgroup.kill_all();
        }
        remove(&self.0).unwrap();
    }
}

/// A process that waits for a line on its standard input. It is moved from outside here, which is slow but lets a test
/// harness with threads do it.
fn sleeper(cgroup: &Cgroup, script: &str) -> Child {
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("read line; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    for (node, hierarchy) in cgroup.v1.iter().zip(&cgroup.layout.v1) {
        rustix::io::write(&node.as_ref().unwrap().tasks, pid.as_bytes())
            .unwrap_or_else(|e| panic!("{}: {e}", hierarchy.mount.display()));
    }
    if let Some(dir) = cgroup.v2_dir() {
        layout::write(dir, "cgroup.procs", &pid).unwrap();
    }
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    child
}

fn read_real(cgroup: &Cgroup, controller: &str, file: &str) -> String {
    layout::read(cgroup.v1_dir(controller).or(cgroup.v2_dir()).unwrap(), file).unwrap().trim().to_owned()
}

#[test]
fn root_limits_are_set_and_changed() {
    let parent = Parent::new("limits");
    let (cgroup, warnings) = Cgroup::create(&parent.path("a"), &limited()).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    if mode() == Mode::V2 {
        assert_eq!(read_real(&cgroup, "memory", "memory.max"), (64 << 20).to_string());
        assert_eq!(read_real(&cgroup, "cpu", "cpu.max"), "50000 100000");
    } else {
        assert_eq!(read_real(&cgroup, "memory", "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(read_real(&cgroup, "memory", "memory.memsw.limit_in_bytes"), (128 << 20).to_string());
        assert_eq!(read_real(&cgroup, "cpu", "cpu.cfs_quota_us"), "50000");
        assert!(!read_real(&cgroup, "cpuset", "cpuset.cpus").is_empty());
    }
    assert_eq!(read_real(&cgroup, "pids", "pids.max"), "9");
    // Raising both over the old sum needs the other order.
    let raise = Resources {
        memory: Memory { limit: Some(512 << 20), swap: Some(600 << 20), reservation: Some(100 << 20) },
        pids: Some(Pids { limit: -1 }),
        ..Resources::default()
    };
    assert_eq!(cgroup.update(&raise).unwrap(), Vec::<String>::new());
    assert_eq!(read_real(&cgroup, "pids", "pids.max"), "max");
    assert_eq!(cgroup.usage().memory_limit, Some(512 << 20));
    if mode() != Mode::V2 {
        // Memory alone over memory plus swap is the user's mistake.
        let alone = Resources { memory: Memory { limit: Some(1 << 30), ..Memory::default() }, ..Resources::default() };
        assert!(matches!(cgroup.update(&alone), Err(CgroupError::BadValue { .. })));
    }
    let cpus = Resources { cpu: Cpu { cpus: Some("4000".into()), ..Cpu::default() }, ..Resources::default() };
    assert!(matches!(cgroup.update(&cpus), Err(CgroupError::BadValue { .. })));
    cgroup.remove().unwrap();
    cgroup.remove().unwrap();
    assert!(matches!(Cgroup::open(&parent.path("a")), Err(CgroupError::NotFound { .. })));
}

#[test]
fn root_freeze_kill_remove() {
    let parent = Parent::new("kill");
    let (cgroup, _) = Cgroup::create(&parent.path("a"), &Resources::default()).unwrap();
    let mut child = sleeper(&cgroup, "sleep 1000 & sleep 1000 & echo ready; wait");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(cgroup.pids().unwrap().len(), 3);
    assert!(cgroup.pids().unwrap().contains(&child.id()));

    cgroup.freeze().unwrap();
    assert!(cgroup.frozen().unwrap());
    match Cgroup::create(&parent.path("a"), &Resources::default()) {
        Err(CgroupError::Busy { pids, .. }) => assert_eq!(pids.len(), 3),
        other => panic!("{other:?}"),
    }
    assert_eq!(cgroup.pids().unwrap().len(), 3, "a refused create leaves the running one alone");
    assert!(matches!(cgroup.remove(), Err(CgroupError::Busy { .. })));

    // Killing works on a frozen container.
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    let reopened = Cgroup::open(&parent.path("a"));
    cgroup.kill_all().unwrap();
    assert!(!reaper.join().unwrap().success());
    drop(reopened);
    cgroup.remove().unwrap();
}

/// Part of this host's hierarchies, as if it had no others.
fn part(want_v1: bool, want_v2: bool) -> &'static Layout {
    let host = Layout::host().unwrap();
    let v1: Vec<Hierarchy> = if want_v1 { host.v1.iter().map(Hierarchy::again).collect() } else { Vec::new() };
    let v2 = if want_v2 { host.v2.as_ref().map(Hierarchy::again) } else { None };
    Box::leak(Box::new(Layout { v1, v2, populate: None }))
}

/// A process that forks children faster than they can be counted, until it is killed.
#[track_caller]
fn check_kill(layout: &'static Layout, name: &str) {
    let parent = Parent::new(name);
    let r = Resources { pids: Some(Pids { limit: 40 }), ..Resources::default() };
    let (cgroup, _) = Cgroup::create_in(layout, &parent.path("a"), &r).unwrap();
    let mut child = sleeper(&cgroup, "echo ready; while :; do /bin/true & done");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    cgroup.freeze().unwrap();
    assert!(cgroup.frozen().unwrap());
    cgroup.kill_all().unwrap();
    assert!(!reaper.join().unwrap().success());
    assert_eq!(cgroup.pids().unwrap(), Vec::<u32>::new());
    cgroup.remove().unwrap();
}

#[test]
fn root_killing_by_version_1_alone() {
    let layout = part(true, false);
    if layout.v1.is_empty() {
        // A version 2 host has no such case.
        return;
    }
    assert_eq!(layout.mode(), Mode::V1);
    check_kill(layout, "kill1");
}

#[test]
fn root_killing_by_version_2_alone() {
    let layout = part(false, true);
    if layout.v2.is_none() {
        // A version 1 host has no such case.
        return;
    }
    assert_eq!(layout.mode(), Mode::V2);
    check_kill(layout, "kill2");
}

#[test]
fn root_version_2_alone_binds_devices_and_warns_about_limits() {
    let layout = part(false, true);
    let Some(v2) = &layout.v2 else { return };
    let parent = Parent::new("v2");
    let deny = DeviceRule { allow: false, kind: 'a', major: None, minor: None, access: "rwm".into() };
    let null = DeviceRule { allow: true, kind: 'c', major: Some(1), minor: Some(3), access: "rw".into() };
    let r = Resources { devices: vec![deny, null], ..limited() };
    let (cgroup, warnings) = Cgroup::create_in(layout, &parent.path("a"), &r).unwrap();
    assert_eq!(bpf::count_device_programs(cgroup.v2_dir().unwrap()).unwrap(), 1);
    check_devices(&cgroup);
    // On a hybrid host the controllers are elsewhere; each limit that is lost is told.
    let has = |name: &str| v2_controllers(v2).iter().any(|c| c == name);
    assert_eq!(warnings.iter().any(|w| w.contains("PIDs limit discarded")), !has("pids"));
    assert_eq!(warnings.iter().any(|w| w.contains("memory limit")), !has("memory"));
    assert!(cgroup.usage().cpu_ns.is_some(), "counted without a controller");
}

#[test]
fn root_nested_cgroups_and_left_overs_go() {
    let parent = Parent::new("nested");
    let (cgroup, _) = Cgroup::create(&parent.path("a"), &limited()).unwrap();
    for hierarchy in cgroup.layout.v1.iter().chain(&cgroup.layout.v2) {
        std::fs::create_dir_all(hierarchy.mount.join(parent.path("a/b/c"))).unwrap();
        std::fs::create_dir(hierarchy.mount.join(parent.path("a/d"))).unwrap();
    }
    // The same id again: a fresh cgroup without the old limits.
    let (again, _) = Cgroup::create(&parent.path("a"), &Resources::default()).unwrap();
    assert_eq!(read_real(&again, "pids", "pids.max"), "max");
    for hierarchy in cgroup.layout.v1.iter().chain(&cgroup.layout.v2) {
        assert!(!hierarchy.mount.join(parent.path("a/b")).exists());
    }
    again.remove().unwrap();
}

#[test]
fn root_device_rules_bind() {
    let parent = Parent::new("devices");
    let rule =
        |allow, kind, major, minor, access: &str| DeviceRule { allow, kind, major, minor, access: access.into() };
    let devices = vec![
        rule(false, 'a', None, None, "rwm"),
        rule(true, 'c', None, None, "m"),
        rule(true, 'c', Some(1), Some(3), "rw"),
    ];
    let r = Resources { devices, ..Resources::default() };
    let (cgroup, _) = Cgroup::create(&parent.path("a"), &r).unwrap();
    check_devices(&cgroup);

    // The same by program, which a hybrid host can attach as well.
    if cgroup.v1_dir("devices").is_some() && cgroup.v2_dir().is_some() {
        let (other, _) = Cgroup::create(&parent.path("b"), &Resources::default()).unwrap();
        let program = bpf::load_device_program(&devices::Policy::new(&r.devices).program()).unwrap();
        bpf::attach_device_program(other.v2_dir().unwrap(), program.as_fd()).unwrap();
        assert_eq!(bpf::count_device_programs(other.v2_dir().unwrap()).unwrap(), 1);
        check_devices(&other);
    }
}

/// `null` opens, `zero` does not.
fn check_devices(cgroup: &Cgroup) {
    let mut child =
        sleeper(cgroup, "(: </dev/null) 2>/dev/null && echo null; (: </dev/zero) 2>/dev/null && echo zero; echo end");
    let mut text = String::new();
    child.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    assert_eq!(text, "null\nend\n");
}

#[test]
fn root_memory_that_runs_out_is_noticed() {
    let parent = Parent::new("oom");
    let memory = Memory { limit: Some(8 << 20), swap: Some(8 << 20), reservation: None };
    let (cgroup, _) = Cgroup::create(&parent.path("a"), &Resources { memory, ..Resources::default() }).unwrap();
    assert!(!cgroup.oom_killed());
    let mut child = sleeper(&cgroup, "exec head -c 64000000 /dev/zero | tail -c 64000000 >/dev/null");
    child.wait().unwrap();
    assert!(cgroup.oom_killed());
    assert!(cgroup.usage().oom_kills.unwrap() > 0);
}
