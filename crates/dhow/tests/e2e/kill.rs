//! Processes that die at any moment, and many at once: nothing is lost, nothing is left after the next command.

use crate::{SOON, dhow};
use dhow_testkit::process::{finish, kill};
use dhow_testkit::registry::DebianRegistry;
use dhow_testkit::{Census, Dhow, Inside};
use rustix::process::Signal;
use std::process::Child;
use std::time::{Duration, Instant};

/// A small generator (splitmix64): the same seed gives the same test.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// The engine's own processes: the program or its re-executed self, not what runs in containers.
fn own_processes(d: &Dhow) -> Vec<i32> {
    let net = d.net().inode();
    let test = std::process::id().cast_signed();
    let in_host = |pid: &i32| dhow_testkit::process::namespace(*pid, "net") == Some(net) && *pid != test;
    d.processes()
        .into_iter()
        .filter(in_host)
        .filter(|p| !dhow_testkit::process::proc_file(*p, "comm").starts_with("docker-reg"))
        .collect()
}

/// Starts a command and kills, at a random moment, it alone or it and every other process of the engine.
fn interrupted(d: &Dhow, random: &mut Random, args: &[&str], span: u64) {
    let mut child: Child = d.spawn(args);
    std::thread::sleep(Duration::from_micros(random.below(span)));
    if random.below(2) == 0 {
        for pid in own_processes(d) {
            kill(pid, Signal::KILL);
        }
    }
    child.kill().ok();
    child.wait().ok();
    d.learn_ids();
}

/// After any kill: the engine answers, the image is whole, every container can be removed at once, nothing else is left.
fn heals(d: &Dhow, before: &Census, round: &str) {
    let ids = d.ok(&["ps", "-aq", "--no-trunc"]);
    let ids: Vec<&str> = ids.lines().collect();
    if !ids.is_empty() {
        let states = d.ok(&["ps", "-a", "--format", "{{.State}}"]);
        let known = ["created", "running", "exited"];
        assert!(states.lines().all(|s| known.contains(&s)), "{round}: {states}");
        d.ok(&[&["rm", "-f"], ids.as_slice()].concat());
    }
    assert_eq!(d.ok(&["run", "--rm", "busybox", "echo", "alive"]), "alive", "{round}");
    Census::settle(d, before, SOON);
}

#[test]
fn fifty_random_kills() {
    let d = dhow();
    let registry = Inside::new(d.net(), DebianRegistry::start);
    let remote = format!("{}/box", registry.localhost());
    d.ok(&["tag", "busybox", &remote]);
    d.ok(&["push", "-q", &remote]);
    d.ok(&["rmi", &remote]);
    d.file("ctx/Dockerfile", "FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\nRUN echo 3 > /3\n");
    let context = d.path("ctx");
    d.ok(&["run", "--rm", "busybox", "true"]);
    let before = Census::take(&d);
    let mut random = Random(20_240_229);
    for round in 0..50 {
        let what = round % 5;
        match what {
            0 => interrupted(&d, &mut random, &["run", "--rm", "-p", "8080:80", "busybox", "true"], 20_000),
            1 => {
                d.background(&["--name", "target"], &["sleep", "100"]);
                interrupted(&d, &mut random, &["exec", "target", "true"], 10_000);
            }
            2 => {
                d.background(&["--name", "target"], &["sleep", "100"]);
                interrupted(&d, &mut random, &["rm", "-f", "target"], 20_000);
            }
            3 => interrupted(&d, &mut random, &["pull", "-q", &remote], 100_000),
            _ => interrupted(&d, &mut random, &["build", "--no-cache", "-q", "-t", "built", &context], 150_000),
        }
        heals(&d, &before, &format!("round {round}, kind {what}"));
        if what == 3 {
            d.ok(&["pull", "-q", &remote]);
            assert_eq!(d.ok(&["run", "--rm", &remote, "echo", "whole"]), "whole");
            d.ok(&["rmi", &remote]);
        }
        if what == 4 {
            d.ok(&["build", "-q", "-t", "built", &context]);
            assert_eq!(d.ok(&["run", "--rm", "built", "cat", "/1", "/2", "/3"]), "1\n2\n3");
        }
    }
}

#[test]
fn a_killed_monitor_is_noticed() {
    let d = dhow();
    d.background(&["--name", "c1", "-p", "8080:80"], &["sleep", "100"]);
    for pid in own_processes(&d) {
        kill(pid, Signal::KILL);
    }
    let status = d.inspect("c1", "{{.State.Status}}");
    assert!(status == "exited" || status == "running", "{status}");
    d.ok(&["rm", "-f", "c1"]);
    d.ok(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    d.assert_clean();
}

#[test]
fn a_stopped_monitor_blocks_nobody_else() {
    let d = dhow();
    let id = d.background(&["--name", "stuck"], &["sleep", "100"]);
    let stuck = own_processes(&d);
    for pid in &stuck {
        kill(*pid, Signal::STOP);
    }
    let start = Instant::now();
    assert!(d.ok(&["ps", "-q", "--no-trunc"]).contains(&id));
    d.ok(&["run", "--rm", "busybox", "true"]);
    d.ok(&["inspect", "stuck"]);
    d.ok(&["info"]);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for pid in &stuck {
        kill(*pid, Signal::CONT);
    }
    d.ok(&["rm", "-f", "stuck"]);
}

#[test]
fn two_hundred_at_once() {
    let d = dhow();
    d.ok(&["run", "--rm", "busybox", "true"]);
    let children: Vec<Child> = (0..200).map(|_| d.spawn(&["run", "--rm", "busybox", "echo", "one of many"])).collect();
    for (n, child) in children.into_iter().enumerate() {
        let out = finish(child, "run", b"", Duration::from_secs(120));
        assert_eq!((out.code, out.stdout.as_str()), (0, "one of many\n"), "{n}: {}", out.stderr);
    }
    assert_eq!(d.ok(&["ps", "-aq"]), "");
    d.assert_clean();
}

#[test]
fn one_name_many_takers() {
    let d = dhow();
    let children: Vec<Child> = (0..16).map(|_| d.spawn(&["create", "--name", "only", "busybox"])).collect();
    let codes: Vec<i32> = children.into_iter().map(|c| finish(c, "create", b"", SOON).code).collect();
    assert_eq!(codes.iter().filter(|c| **c == 0).count(), 1, "{codes:?}");
    assert_eq!(d.ok(&["ps", "-aq"]).lines().count(), 1);
}

#[test]
fn one_port_many_takers() {
    let d = dhow();
    let children: Vec<Child> =
        (0..8).map(|_| d.spawn(&["run", "-d", "-p", "8080:80", "busybox", "sleep", "100"])).collect();
    let codes: Vec<i32> = children.into_iter().map(|c| finish(c, "run", b"", SOON).code).collect();
    assert_eq!(codes.iter().filter(|c| **c == 0).count(), 1, "{codes:?}");
    assert_eq!(d.ok(&["ps", "-q"]).lines().count(), 1);
}

#[test]
fn a_wiped_run_directory_is_a_reboot() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sleep", "100"]);
    d.force_down();
    std::fs::remove_dir_all(d.run_root()).unwrap();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "exited");
    d.ok(&["start", "c1"]);
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
}
