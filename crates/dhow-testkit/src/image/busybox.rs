//! An image made of Debian's `busybox-static`: one program, a link for each applet, users and groups.

use super::builder::ImageBuilder;
use super::entry::{Entry, Tar};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                      daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                      www:x:33:33:www:/var/www:/bin/false\n\
                      alice:x:1000:1000:Alice:/home/alice:/bin/sh\n\
                      nobody:x:65534:65534:nobody:/home:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww:x:33:\nusers:x:100:alice\nalice:x:1000:\nsecret:x:2000:alice\n\
                     nogroup:x:65534:\n";

/// The busybox program of this machine.
fn program() -> (PathBuf, Vec<u8>) {
    let path = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|p| p.is_file());
    let path = path.expect("busybox is missing: run `cargo xtask setup --for test`");
    let bytes = std::fs::read(&path).expect("busybox is readable");
    (path, bytes)
}

/// Entries of the root file system.
pub fn busybox_layer() -> Vec<u8> {
    let (path, bytes) = program();
    let list = Command::new(&path).arg("--list").output().expect("busybox starts");
    let mut tar = Tar::new();
    for (dir, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("home/alice/", 0o755),
        ("proc/", 0o555),
        ("root/", 0o700),
        ("sys/", 0o555),
        ("tmp/", 0o1777),
        ("usr/", 0o755),
        ("usr/bin/", 0o755),
        ("usr/sbin/", 0o755),
        ("sbin/", 0o755),
        ("var/", 0o755),
        ("var/www/", 0o755),
    ] {
        let owner = if dir == "home/alice/" { 1000 } else { 0 };
        tar.push(&Entry::dir(dir, mode).owned(owner, owner));
    }
    tar.push(&Entry::file("bin/busybox", 0o755, bytes));
    let mut applets: Vec<&str> = std::str::from_utf8(&list.stdout).unwrap_or("").lines().collect();
    applets.sort_unstable();
    for applet in applets.into_iter().filter(|a| *a != "busybox" && !a.is_empty()) {
        tar.push(&Entry::link(&format!("bin/{applet}"), "bin/busybox").mode(0o755));
    }
    tar.push(&Entry::symlink("usr/bin/env", "/bin/env"));
    tar.push(&Entry::file("etc/passwd", 0o644, PASSWD));
    tar.push(&Entry::file("etc/group", 0o644, GROUP));
    tar.push(&Entry::file("etc/notexec", 0o644, "#!/bin/sh\n"));
    tar.finish()
}

/// An archive for `load` with the image `busybox:latest`; made once, kept in Cargo's target directory.
pub fn busybox_image() -> PathBuf {
    static READY: OnceLock<PathBuf> = OnceLock::new();
    READY.get_or_init(make).clone()
}

fn make() -> PathBuf {
    let layer = busybox_layer();
    let dir = crate::target_dir().join("testkit");
    let path = dir.join(format!("busybox-{}.tar", &super::sha256_hex(&layer)[..16]));
    if !path.is_file() {
        std::fs::create_dir_all(&dir).expect("target directory is writable");
        let archive = ImageBuilder::new("busybox").layer(&layer).archive();
        // Several test processes may do this at once: each writes its own file, the last rename wins.
        let temporary = dir.join(format!(".busybox-{}", std::process::id()));
        std::fs::write(&temporary, archive).expect("target directory is writable");
        std::fs::rename(&temporary, &path).expect("target directory is writable");
    }
    path
}
