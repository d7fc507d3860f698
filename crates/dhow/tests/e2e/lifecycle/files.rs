//! Mounts, read-only roots, tmpfs.

use crate::dhow;
use std::path::Path;

#[test]
fn bind_mounts() {
    let d = dhow();
    let host = d.file("data/seen", "from the host\n");
    let dir = d.path("data");
    let out = d.ok(&[
        "run",
        "--rm",
        "-v",
        &format!("{dir}:/data"),
        "busybox",
        "sh",
        "-c",
        "cat /data/seen; echo new > /data/made",
    ]);
    assert_eq!(out, "from the host");
    assert_eq!(std::fs::read_to_string(d.path("data/made")).unwrap(), "new\n");
    let one = d.ok(&["run", "--rm", "-v", &format!("{host}:/etc/one:ro"), "busybox", "cat", "/etc/one"]);
    assert_eq!(one, "from the host");
    let out = d.run(&["run", "--rm", "-v", &format!("{dir}:/data:ro"), "busybox", "touch", "/data/x"]);
    assert!(out.code == 1 && out.stderr.contains("Read-only file system"), "{out:?}");
    let args = ["run", "--rm", "--mount", &format!("type=bind,src={dir},dst=/m,readonly"), "busybox", "cat", "/m/seen"];
    assert_eq!(d.ok(&args), "from the host");
}

#[test]
fn missing_sources() {
    let d = dhow();
    let missing = d.path("made/by/v");
    d.ok(&["run", "--rm", "-v", &format!("{missing}:/data"), "busybox", "true"]);
    assert!(Path::new(&missing).is_dir());
    let other = d.path("not/made");
    d.fails(&["run", "--mount", &format!("type=bind,src={other},dst=/d"), "busybox"], 125, &["does not exist", &other]);
    assert!(!Path::new(&other).exists());
}

#[test]
fn relative_sources_are_below_the_clients_directory() {
    let d = dhow();
    d.file("here/f", "x");
    assert_eq!(d.ok(&["run", "--rm", "-v", "./here:/data", "busybox", "ls", "/data"]), "f");
}

#[test]
fn bad_mounts_are_refused() {
    let d = dhow();
    d.fails(&["run", "-v", "/a:/b:wrong", "busybox"], 125, &["wrong"]);
    d.fails(&["run", "-v", "/a:relative", "busybox"], 125, &["relative"]);
    d.fails(&["run", "-v", "/tmp:/", "busybox"], 125, &["/"]);
    d.fails(&["run", "-v", "/tmp:/x", "-v", "/var:/x", "busybox"], 125, &["Duplicate mount point"]);
    d.fails(&["run", "--mount", "type=bind,dst=/x", "busybox"], 125, &["source"]);
    d.fails(&["run", "--mount", "type=nonsense,dst=/x", "busybox"], 125, &["nonsense"]);
}

#[test]
fn read_only_root() {
    let d = dhow();
    let out = d.run(&["run", "--rm", "--read-only", "busybox", "touch", "/x"]);
    assert!(out.code == 1 && out.stderr.contains("Read-only file system"), "{out:?}");
    d.ok(&["run", "--rm", "--read-only", "busybox", "touch", "/dev/shm/x"]);
    d.ok(&["run", "--rm", "--read-only", "--tmpfs", "/tmp", "busybox", "touch", "/tmp/x"]);
}

#[test]
fn tmpfs_options() {
    let d = dhow();
    let out = d.ok(&[
        "run",
        "--rm",
        "--tmpfs",
        "/t:size=1m,mode=700",
        "busybox",
        "sh",
        "-c",
        "stat -c %a /t; grep ' /t ' /proc/mounts",
    ]);
    assert!(
        out.starts_with("700\n") && out.contains("size=1024k") && out.contains("nosuid") && out.contains("noexec"),
        "{out}"
    );
    let out = d.ok(&[
        "run",
        "--rm",
        "--mount",
        "type=tmpfs,dst=/t,tmpfs-size=65536,tmpfs-mode=1770",
        "busybox",
        "stat",
        "-c",
        "%a",
        "/t",
    ]);
    assert_eq!(out, "1770");
}

#[test]
fn shm_size() {
    let d = dhow();
    let size = |options: &[&str]| {
        d.ok(&[&["run", "--rm"], options, &["busybox", "sh", "-c", "df -k /dev/shm | tail -1 | awk '{print $2}'"]]
            .concat())
    };
    assert_eq!(size(&[]), "65536");
    assert_eq!(size(&["--shm-size", "8m"]), "8192");
}

#[test]
fn changes_stay_in_the_container() {
    let d = dhow();
    let id = d.background(&[], &["sh", "-c", "echo mine > /etc/mine; rm /etc/notexec; sleep 100"]);
    d.ok(&["exec", &id, "sh", "-c", "until [ ! -e /etc/notexec ]; do sleep 0.01; done; cat /etc/mine"]);
    assert_eq!(d.ok(&["run", "--rm", "busybox", "ls", "/etc/notexec"]), "/etc/notexec");
    d.ok(&["stop", "-t", "0", &id]);
    d.ok(&["start", &id]);
    assert_eq!(d.ok(&["exec", &id, "cat", "/etc/mine"]), "mine");
}

#[test]
fn the_hosts_mount_table_does_not_grow() {
    let d = dhow();
    let table = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let before = table();
    let id = d.background(&["-v", "/tmp:/x"], &["sleep", "100"]);
    assert_eq!(table(), before);
    d.ok(&["exec", &id, "true"]);
    d.ok(&["commit", &id, "x"]);
    assert_eq!(table(), before);
}

#[test]
fn standard_files_are_there() {
    let d = dhow();
    let script = "ls -d /.dockerenv /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx /dev/fd /dev/stdin /dev/shm /dev/mqueue /proc/self /sys/kernel /etc/mtab; readlink /etc/mtab; cat /proc/sys/kernel/hostname >/dev/null";
    let out = d.ok(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert!(out.ends_with("proc/mounts"), "{out}");
}
