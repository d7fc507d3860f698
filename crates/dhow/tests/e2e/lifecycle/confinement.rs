//! Docker's default confinement, and what the options change.

use crate::{dhow, lines};

fn status(d: &dhow_testkit::Dhow, options: &[&str], field: &str) -> String {
    let out =
        d.ok(&[&["run", "--rm"], options, &["busybox", "grep", &format!("^{field}:"), "/proc/self/status"]].concat());
    out.split_whitespace().nth(1).unwrap_or("").trim_start_matches('0').to_owned()
}

#[test]
fn capabilities() {
    let d = dhow();
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(status(&d, &[], set), "a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(&d, &[], set), "", "{set}");
    }
    assert_eq!(status(&d, &["-u", "1000"], "CapEff"), "");
    assert_eq!(status(&d, &["-u", "1000"], "CapPrm"), "");
    assert_eq!(status(&d, &["-u", "1000"], "CapBnd"), "a80425fb");
    assert_eq!(status(&d, &["--cap-drop", "ALL"], "CapEff"), "");
    assert_eq!(status(&d, &["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "CapEff"), "1000");
    assert_eq!(status(&d, &["--cap-drop", "all", "--cap-add", "cap_chown"], "CapEff"), "1");
    assert_eq!(status(&d, &["--cap-drop", "CHOWN"], "CapEff"), "a80425fa");
    d.fails(&["run", "--cap-add", "NO_SUCH", "busybox"], 125, &["NO_SUCH"]);
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).unwrap().trim_start_matches('0').to_owned();
    assert_eq!(status(&d, &["--privileged"], "CapEff"), bounding);
}

#[test]
fn seccomp_and_privileges() {
    let d = dhow();
    assert_eq!(status(&d, &[], "Seccomp"), "2");
    assert_eq!(status(&d, &["--security-opt", "seccomp=unconfined"], "Seccomp"), "");
    assert_eq!(status(&d, &["--privileged"], "Seccomp"), "");
    assert_eq!(status(&d, &[], "NoNewPrivs"), "");
    assert_eq!(status(&d, &["--security-opt", "no-new-privileges"], "NoNewPrivs"), "1");
    let out = d.run(&["run", "--rm", "busybox", "unshare", "-U", "true"]);
    assert_ne!(out.code, 0, "a new user namespace is denied");
    let out = d.run(&["run", "--rm", "busybox", "mount", "-t", "tmpfs", "x", "/tmp"]);
    assert_ne!(out.code, 0, "mounting is denied");
    d.ok(&["run", "--rm", "--privileged", "busybox", "mount", "-t", "tmpfs", "x", "/tmp"]);
}

#[test]
fn masked_and_read_only_paths() {
    let d = dhow();
    let script = "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v : | grep . | wc -l";
    assert_eq!(d.ok(&["run", "--rm", "busybox", "sh", "-c", script]), "0\n0");
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/mm/ksm/run",
    ] {
        let out = d.run(&["run", "--rm", "busybox", "sh", "-c", &format!("[ ! -e {path} ] || echo 1 > {path}")]);
        let absent = out.code == 0 && !std::path::Path::new(path).exists();
        assert!(absent || out.stderr.contains("Read-only") || out.stderr.contains("nonexistent"), "{path}: {out:?}");
    }
    let args = ["exec", "c1", "sh", "-c", script];
    d.background(&["--name", "c1"], &["sleep", "100"]);
    assert_eq!(d.ok(&args), "0\n0", "the same for exec");
}

#[test]
fn no_descriptor_leaks_in() {
    let d = dhow();
    let list = "ls /proc/self/fd";
    assert_eq!(
        lines(&d.ok(&["run", "--rm", "busybox", "sh", "-c", list])),
        ["0", "1", "2", "3"],
        "3 is the directory that ls reads"
    );
    let mut command = std::process::Command::new("sh");
    let line = format!("exec 7</etc/passwd 9>/dev/null; exec {} run --rm busybox {list}", d.binary().display());
    command.args(["-c", &line]);
    for (key, value) in d.command(&[]).get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    assert_eq!(lines(&d.run_with(&mut command, b"").stdout), ["0", "1", "2", "3"], "not even the caller's");
    d.background(&["--name", "c1"], &["sleep", "100"]);
    assert_eq!(lines(&d.ok(&["exec", "c1", "sh", "-c", list])), ["0", "1", "2", "3"]);
    let pid = d.pid("c1");
    let init = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert_eq!(init, 3, "the first process has three");
}

#[test]
fn devices() {
    let d = dhow();
    let out = d.run(&["run", "--rm", "busybox", "sh", "-c", "mknod /x b 8 0; mknod /y b 254 0; cat /x || cat /y"]);
    assert!(out.stderr.contains("Operation not permitted"), "{out:?}");
    d.ok(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "head -c 4 /dev/urandom > /dev/null; : > /dev/null; head -c1 /dev/zero >/dev/null",
    ]);
}

#[test]
fn exec_has_the_same_confinement_as_run() {
    let d = dhow();
    d.background(
        &["--name", "c1"],
        &[
            "sh",
            "-c",
            "grep -E '^(Cap|Seccomp|NoNew)' /proc/self/status; ls -l /proc/self/ns | sed s/.*-.//; sleep 100",
        ],
    );
    d.wait_log("c1", "uts:");
    let own = d.ok(&["logs", "c1"]);
    let exec = d.ok(&[
        "exec",
        "c1",
        "sh",
        "-c",
        "grep -E '^(Cap|Seccomp|NoNew)' /proc/self/status; ls -l /proc/self/ns | sed s/.*-.//",
    ]);
    assert_eq!(own, exec);
    let cgroups = |who: &str| d.ok(&["exec", "c1", "cat", &format!("/proc/{who}/cgroup")]);
    assert_eq!(cgroups("1"), cgroups("self"));
}
