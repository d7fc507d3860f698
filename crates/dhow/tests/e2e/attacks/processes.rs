//! Programs in a container that aim at the processes of the engine (CVE-2019-5736, CVE-2016-9962 and their kind).

use super::Range;
use dhow_testkit::{Entry, Tar};

/// Looks at every process it can see, and tries to write to the program behind each that is not its own.
const WATCHER: &str = "while :; do for p in /proc/[0-9]*; do \
    e=$(readlink $p/exe 2>/dev/null) && case $e in */bin/*) ;; *) echo \"saw $e\" >> /seen;; esac; \
    ( printf attack >> $p/exe ) 2>>/errors && case $e in */bin/*) ;; *) echo \"wrote $e\" >> /wrote;; esac; \
    ls -l $p/fd 2>/dev/null | grep -v -E 'pipe:|socket:|/dev/|/proc/|/seen|/errors|total' >> /fds; done; done";

#[test]
fn the_program_cannot_be_overwritten_from_inside() {
    let range = Range::new();
    // Executing this makes the kernel run /proc/self/exe: whatever the engine's process is at that moment.
    let tar = Tar::of([
        Entry::file("bin/evil", 0o755, "#!/proc/self/exe\n"),
        Entry::file("bin/evil2", 0o755, "#!/proc/self/exe info\n"),
    ]);
    assert_eq!(range.load("evil", &tar).code, 0);
    let d = &range.d;
    d.ok(&["run", "-d", "--name", "c1", "evil", "sh", "-c", WATCHER]);
    assert_eq!(d.run(&["exec", "c1", "true"]).code, 0, "baseline");
    let mut ran = String::new();
    for _ in 0..15 {
        for program in ["/bin/evil", "/bin/evil2", "true"] {
            let out = d.run(&["exec", "c1", program]);
            ran += &out.stdout;
            ran += &out.stderr;
        }
        let out = d.run(&["run", "--rm", "--pid", "container:c1", "evil", "/bin/evil"]);
        ran += &out.stderr;
    }
    assert!(!ran.is_empty(), "control: the engine was started from inside, or it refused");
    let errors = d.ok(&["exec", "c1", "sh", "-c", "cat /errors | tail -3"]);
    assert!(!errors.is_empty(), "control: the watcher tried to write");
    d.fails(&["exec", "c1", "cat", "/wrote"], 1, &[]);
    range.unharmed();
}

#[test]
fn build_steps_cannot_overwrite_it_either() {
    let range = Range::new();
    let tar = Tar::of([Entry::file("bin/evil", 0o755, "#!/proc/self/exe\n")]);
    assert_eq!(range.load("evil", &tar).code, 0);
    range.d.file("ctx/Dockerfile", "FROM evil\nRUN for p in /proc/[0-9]* /proc/self; do printf x >> $p/exe; done; /bin/evil; true\nRUN [\"/bin/evil\"]\n");
    let out = range.d.run(&["build", &range.d.path("ctx")]);
    assert!(!(out.stdout + &out.stderr).is_empty(), "control");
    range.unharmed();
}

#[test]
fn no_host_directory_is_reachable_by_descriptors() {
    let range = Range::new();
    let d = &range.d;
    let look =
        "for p in /proc/[0-9]*; do for f in $p/fd/*; do readlink $f; done; cat $p/cwd/etc/hostname; done 2>/dev/null";
    d.background(&["--name", "c1"], &["sh", "-c", &format!("while :; do {look}; done > /links")]);
    for _ in 0..20 {
        d.ok(&["exec", "c1", "true"]);
    }
    let links = d.ok(&["exec", "c1", "cat", "/links"]);
    let host = range.d.dir().to_str().unwrap();
    assert!(!links.is_empty(), "control");
    assert!(!links.contains(host) && !links.contains("/var/lib/dhow"), "{links}");
    range.unharmed();
}

#[test]
fn the_environment_of_the_engine_stays_outside() {
    let range = Range::new();
    let mut run = range.d.command(&["run", "--rm", "busybox", "sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'"]);
    run.env("HOST_TOKEN", "host secret");
    let out = range.d.run_with(&mut run, b"");
    assert!(out.stdout.contains("HOSTNAME="), "control: {out:?}");
    assert!(!out.stdout.contains("host secret") && !out.stdout.contains("DHOW_ROOT"), "{out:?}");
    range.unharmed();
}

#[test]
fn libraries_and_helpers_of_the_image_are_not_run() {
    let range = Range::new();
    let hook = "#!/bin/sh\necho attack > /hooked\n";
    let names = [
        "etc/ld.so.preload",
        "usr/bin/xz",
        "usr/bin/unpigz",
        "usr/bin/nsenter",
        "bin/tar",
        "usr/bin/git",
        "sbin/modprobe",
    ];
    let tar = Tar::of(names.map(|n| Entry::file(n, 0o755, hook)));
    assert_eq!(range.load("hooks", &tar).code, 0);
    let d = &range.d;
    d.ok(&["run", "-d", "--name", "c1", "hooks", "sleep", "100"]);
    d.ok(&["exec", "c1", "true"]);
    d.ok(&["commit", "c1", "x"]);
    d.run(&["export", "-o", &d.path("out.tar"), "c1"]);
    d.fails(&["exec", "c1", "cat", "/hooked"], 1, &["No such file"]);
    range.unharmed();
}

#[test]
fn a_recycled_process_id_is_not_signalled() {
    let range = Range::new();
    let d = &range.d;
    let id = d.background(&["--name", "c1"], &["sleep", "100"]);
    let pid = d.pid("c1");
    d.force_down();
    // A stranger takes the number (ns_last_pid(5)).
    std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok();
    let mut stranger = std::process::Command::new("sleep").arg("100").spawn().unwrap();
    let same = stranger.id().cast_signed() == pid;
    d.run(&["kill", "c1"]);
    d.run(&["stop", "-t", "0", "c1"]);
    d.ok(&["rm", "-f", &id]);
    let alive = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(alive, "the stranger (same number: {same}) was killed");
    range.unharmed();
}
