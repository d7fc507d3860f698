//! Bad input: a clear text, Docker's exit code, nothing lost.

use crate::{dhow, empty};
use dhow_testkit::Dhow;
use std::process::Command;

#[test]
fn commands_and_flags() {
    let d = empty();
    d.fails(&["frobnicate"], 1, &["frobnicate"]);
    d.fails(&["ps", "--no-such-flag"], 125, &["unknown flag: --no-such-flag"]);
    d.fails(&["inspect"], 1, &["requires at least 1 argument"]);
    d.fails(&["tag", "one"], 1, &["requires"]);
    assert!(d.ok(&["--version"]).contains("dhow"));
    assert!(d.ok(&["run", "--help"]).contains("--publish"));
    assert!(d.ok(&["--help"]).contains("run"));
    assert!(d.ok(&["info"]).to_lowercase().contains("cgroup"));
    assert!(d.ok(&["version"]).contains("Version"));
}

#[test]
fn several_objects_one_missing() {
    let d = dhow();
    d.background(&["--name", "aa"], &["sleep", "100"]);
    let out = d.run(&["stop", "-t", "0", "nothing", "aa"]);
    assert_eq!((out.code, out.stdout.as_str()), (1, "aa\n"), "the other is stopped: {out:?}");
    assert!(out.stderr.contains("No such container: nothing"), "{out:?}");
}

#[test]
fn errors_of_run_have_dockers_form() {
    let d = dhow();
    let text = d.fails(&["run", "busybox", "no-such-program"], 127, &[]);
    assert!(text.starts_with("docker: Error response from daemon: ") || text.starts_with("dhow: "), "{text}");
    assert!(text.contains("run --help"), "{text}");
}

#[test]
fn archives_that_are_none() {
    let d = dhow();
    for (name, bytes) in [("empty", Vec::new()), ("text", b"not a tar".repeat(200)), ("zeros", vec![0; 10240])] {
        let out = d.input(&["load"], &bytes);
        assert_ne!(out.code, 0, "{name}: {out:?}");
        assert!(!out.stderr.is_empty(), "{name}");
    }
    let good = std::fs::read(dhow_testkit::busybox_image()).unwrap();
    let out = d.input(&["load"], &good[..good.len() / 2]);
    assert_ne!(out.code, 0, "cut in half: {out:?}");
    assert_eq!(d.ok(&["images", "-aq"]).lines().count(), 1, "the image that was there is there");
    assert_eq!(d.ok(&["run", "--rm", "busybox", "echo", "works"]), "works");
}

/// A small file system for the engine's root; unmounted when dropped.
struct SmallDisk {
    path: String,
}

impl SmallDisk {
    fn new(d: &Dhow, size: &str) -> Self {
        let path = d.path("root");
        std::fs::create_dir_all(&path).unwrap();
        dhow_testkit::process::must(Command::new("mount").args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size}"),
            "small",
            &path,
        ]));
        Self { path }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").args(["-l", &self.path]).status().ok();
    }
}

#[test]
fn a_full_disk() {
    let d = empty();
    let disk = SmallDisk::new(&d, "12m");
    let archive = dhow_testkit::busybox_image();
    d.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
    d.background(&["--name", "c1"], &["sleep", "100"]);
    let big = dhow_testkit::ImageBuilder::new("big")
        .plain_layer(&dhow_testkit::Tar::of([dhow_testkit::Entry::file("big", 0o644, vec![7; 16 << 20])]))
        .archive();
    let out = d.input(&["load"], &big);
    assert_ne!(out.code, 0);
    assert!(out.stderr.contains("No space left on device"), "{out:?}");
    assert_eq!(d.ok(&["images", "-aq"]).lines().count(), 1);
    std::fs::write(format!("{}/ballast", disk.path), vec![1; 32 << 20]).ok();
    // With not a byte free these still work.
    assert_eq!(d.ok(&["ps", "-q"]).lines().count(), 1);
    d.ok(&["images"]);
    d.ok(&["stop", "-t", "0", "c1"]);
    d.ok(&["rm", "c1"]);
    let out = d.run(&["run", "--rm", "busybox", "true"]);
    assert!(out.code == 0 || out.stderr.contains("No space left on device"), "{out:?}");
    std::fs::remove_file(format!("{}/ballast", disk.path)).unwrap();
    assert_eq!(d.ok(&["run", "--rm", "busybox", "echo", "works again"]), "works again");
    d.remove_all();
}

#[test]
fn help_for_every_command() {
    let d = empty();
    for command in [
        "attach", "build", "commit", "create", "exec", "export", "history", "images", "import", "info", "inspect",
        "kill", "load", "login", "logout", "logs", "pause", "port", "ps", "pull", "push", "rename", "restart", "rm",
        "rmi", "run", "save", "start", "stop", "tag", "unpause", "version", "wait", "ns",
    ] {
        let text = d.ok(&[command, "--help"]);
        assert!(text.contains("Usage"), "{command}: {text}");
    }
}
