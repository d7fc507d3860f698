//! Images whose files and settings aim at the engine that reads them (CVE-2024-21626, -2019-19921, -2026-41579, C01, C05 …).

use super::Range;
use dhow_testkit::image::{ImageBuilder, busybox_layer};
use dhow_testkit::{Entry, Tar};
use serde_json::json;

#[test]
fn working_directories_in_proc() {
    let range = Range::new();
    let d = &range.d;
    assert_eq!(d.ok(&["run", "--rm", "-w", "/tmp", "busybox", "pwd"]), "/tmp", "baseline");
    let read =
        format!("cat ./{0}/secret ../../../..{1}/secret 2>/dev/null; pwd", range.victim.text(), range.victim.text());
    d.background(&["--name", "c1"], &["sleep", "100"]);
    for n in 3..20 {
        let place = format!("/proc/self/fd/{n}");
        let out = d.run(&["run", "--rm", "-w", &place, "busybox", "sh", "-c", &read]);
        assert!(out.code != 0 && !out.stdout.contains("host secret"), "run {n}: {out:?}");
        let out = d.run(&["exec", "-w", &place, "c1", "sh", "-c", &read]);
        assert!(out.code != 0 && !out.stdout.contains("host secret"), "exec {n}: {out:?}");
    }
    d.file(
        "ctx/Dockerfile",
        format!("FROM busybox\nWORKDIR /proc/self/fd/7\nRUN {read}; cat ../../..{}/secret\n", range.victim.text()),
    );
    let out = d.run(&["build", "-t", "x", &d.path("ctx")]);
    assert!(!format!("{}{}", out.stdout, out.stderr).contains("host secret"), "{out:?}");
    range.unharmed();
}

#[test]
fn a_descriptor_that_the_caller_left_open() {
    let range = Range::new();
    let line = format!(
        "exec 17</; exec {} run --rm -w /proc/self/fd/17 busybox cat .{}/secret",
        range.d.binary().display(),
        range.victim.text()
    );
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &line]);
    for (key, value) in range.d.command(&[]).get_envs() {
        shell.env(key, value.unwrap_or_default());
    }
    let out = range.d.run_with(&mut shell, b"");
    assert!(out.code != 0 && !out.stdout.contains("host secret"), "{out:?}");
    assert!(!out.stderr.is_empty(), "control: the engine refused it");
    range.unharmed();
}

#[test]
fn a_working_directory_swapped_for_a_link() {
    let range = Range::new();
    let d = &range.d;
    d.background(&["--name", "c1"], &["sh", "-c", "mkdir /w; sleep 100"]);
    d.ok(&["exec", "c1", "sh", "-c", "until [ -d /w ]; do sleep 0.01; done"]);
    assert_eq!(d.ok(&["exec", "-w", "/w", "c1", "pwd"]), "/w", "baseline");
    for n in 3..16 {
        d.ok(&["exec", "c1", "sh", "-c", &format!("rm -rf /w; ln -s /proc/self/fd/{n} /w")]);
        let out = d.run(&["exec", "-w", "/w", "c1", "cat", &format!(".{}/secret", range.victim.text())]);
        assert!(out.code != 0 && !out.stdout.contains("host secret"), "{n}: {out:?}");
    }
    range.unharmed();
}

/// Runs an image with a hostile root; whatever happens, the host stays as it is. Returns what was printed.
#[track_caller]
fn run_with(range: &Range, entries: Vec<Entry>, options: &[&str], command: &[&str]) -> dhow_testkit::Output {
    let out = range.load("hostile", &Tar::of(entries));
    assert_eq!(out.code, 0, "control: the image is there: {out:?}");
    let out = range.d.run(&[&["run", "--rm"], options, &["hostile"], command].concat());
    assert!(!out.stdout.contains("host secret") && !out.stderr.contains("host secret"), "{out:?}");
    assert!(out.code == 0 || !out.stderr.is_empty(), "control: it ran, or it was refused with a reason: {out:?}");
    range.unharmed();
    out
}

#[test]
fn mount_points_that_are_links() {
    for place in ["proc", "dev", "sys", "dev/shm", "dev/pts", "sys/fs/cgroup", "etc/mtab"] {
        let range = Range::new();
        for aim in [range.victim.text().to_owned(), range.climbing(), "/proc/self/root".to_owned()] {
            run_with(&range, vec![Entry::symlink(place, &aim)], &[], &["ls", "-la", "/"]);
        }
    }
}

#[test]
fn targets_of_mounts_through_links() {
    let range = Range::new();
    range.d.file("data/f", "bound");
    let bind = format!("{}:/esc/new/place", range.d.path("data"));
    assert_eq!(range.d.ok(&["run", "--rm", "-v", &bind, "busybox", "cat", "/esc/new/place/f"]), "bound", "baseline");
    for aim in [range.victim.text().to_owned(), range.climbing()] {
        let link = || vec![Entry::symlink("esc", &aim)];
        run_with(&range, link(), &["-v", &bind], &["true"]);
        run_with(&range, link(), &["--tmpfs", "/esc/tmp"], &["true"]);
        run_with(&range, link(), &["-w", "/esc/work"], &["true"]);
        run_with(&range, link(), &["-v", "/esc/volume"], &["true"]);
        run_with(&range, link(), &["--device", "/dev/null:/esc/null"], &["true"]);
    }
    assert!(!range.victim.path().join("work").exists());
}

#[test]
fn files_that_the_engine_writes() {
    for place in ["etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv"] {
        let range = Range::new();
        for aim in [format!("{}/secret", range.victim.text()), format!("{}/secret", range.climbing())] {
            run_with(&range, vec![Entry::symlink(place, &aim)], &[], &["cat", &format!("/{place}")]);
        }
        let dir = Entry::symlink("etc", range.victim.text());
        run_with(&range, vec![dir], &[], &["true"]);
    }
}

#[test]
fn users_from_the_hosts_files() {
    let range = Range::new();
    std::fs::write(range.d.path("passwd"), "mallory:x:0:0::/:/bin/sh\n").unwrap();
    let own = Entry::file("etc/passwd", 0o644, "mallory:x:4242:0::/:/bin/sh\n");
    assert_eq!(run_with(&range, vec![own], &["-u", "mallory"], &["id", "-u"]).stdout, "4242\n", "baseline");
    for aim in [range.d.path("passwd"), format!("{}{}", "../".repeat(24), range.d.path("passwd"))] {
        let out = run_with(&range, vec![Entry::symlink("etc/passwd", &aim)], &["-u", "mallory"], &["id", "-u"]);
        assert_eq!(out.code, 125, "{out:?}");
    }
}

#[test]
fn user_files_that_block_or_never_end() {
    let range = Range::new();
    for entry in [
        || Entry::fifo("etc/passwd"),
        || Entry::fifo("etc/group"),
        || Entry::symlink("etc/passwd", "/dev/zero"),
        || Entry::symlink("etc/group", "/proc/kmsg"),
        || Entry::dir("etc/passwd", 0o755),
    ] {
        // The fixture's limit of time is the check that nothing blocks.
        run_with(&range, vec![entry()], &[], &["true"]);
        run_with(&range, vec![entry()], &["-u", "alice"], &["true"]);
        run_with(&range, vec![entry()], &["-u", "1000"], &["true"]);
    }
}

#[test]
fn numbers_are_never_names() {
    let range = Range::new();
    let passwd = || {
        Entry::file("etc/passwd", 0o644, "root:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n")
    };
    for user in ["4294967296", "4294967295", "-1"] {
        let out = run_with(&range, vec![passwd()], &["-u", user], &["id", "-u"]);
        assert_ne!(out.code, 0, "{user}: {out:?}");
    }
}

#[test]
fn settings_in_the_config() {
    let range = Range::new();
    let image = |key: &str, value: serde_json::Value| {
        ImageBuilder::new("set").layer(&busybox_layer()).set(key, value).archive()
    };
    let run = |bytes: &[u8]| {
        let loaded = range.d.input(&["load", "-q"], bytes);
        if loaded.code == 0 { range.d.run(&["run", "--rm", "set", "true"]) } else { loaded }
    };
    assert_eq!(run(&image("WorkingDir", json!("/w"))).code, 0, "baseline");
    let climb = range.climbing();
    for (key, value) in [
        ("WorkingDir", json!(format!("/{climb}/made"))),
        ("WorkingDir", json!("/proc/self/fd/8")),
        ("Volumes", json!({ format!("/{climb}/volume"): {} })),
        ("Volumes", json!({ "/../../etc": {} })),
        ("User", json!("0:../../x")),
        ("Env", json!(["A=1\nB=2", "NO_EQUALS", "=x", "LD_PRELOAD=/x"])),
        ("StopSignal", json!("-9")),
        ("Labels", json!({ "io.containerd.restart.status": "running" })),
        ("ExposedPorts", json!({ "99999/tcp": {} })),
        ("Entrypoint", json!(["\0"])),
    ] {
        let out = run(&image(key, value.clone()));
        assert!(out.code == 0 || !out.stderr.is_empty(), "control: {key} {value}: {out:?}");
        range.unharmed();
    }
    assert!(!range.d.root().parent().unwrap().join("volume").exists());
}

#[test]
fn building_through_links() {
    let range = Range::new();
    let link = Tar::of([Entry::symlink("esc", range.victim.text()), Entry::symlink("up", &range.climbing())]);
    assert_eq!(range.load("linked", &link).code, 0);
    range.d.file("ctx/f", "attack");
    std::os::unix::fs::symlink(format!("{}/secret", range.victim.text()), range.d.path("ctx/out")).unwrap();
    for step in [
        "COPY f /esc/secret",
        "COPY f /up/made",
        "WORKDIR /esc/made",
        "ADD f /esc/",
        "RUN rm -rf /esc/* /up/*",
        "COPY out /x\nRUN cat /x",
    ] {
        range.d.file("ctx/Dockerfile", format!("FROM linked\nRUN echo baseline\n{step}\n"));
        let out = range.d.run(&["build", "--no-cache", "-t", "x", &range.d.path("ctx")]);
        let text = out.stdout + &out.stderr;
        assert!(text.contains("baseline"), "control: {step}: {text}");
        assert!(!text.contains("host secret"), "{step}: {text}");
        range.unharmed();
    }
    std::fs::remove_file(range.d.path("ctx/Dockerfile")).unwrap();
    std::os::unix::fs::symlink(format!("{}/secret", range.victim.text()), range.d.path("ctx/Dockerfile")).unwrap();
    let out = range.d.run(&["build", &range.d.path("ctx")]);
    assert!(
        out.code != 0 && !(out.stdout + &out.stderr).contains("host secret"),
        "a Dockerfile outside of the context"
    );
    range.unharmed();
}
