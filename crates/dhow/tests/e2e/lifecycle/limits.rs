//! Memory, CPU, processes, resource limits.

use crate::dhow;

#[test]
fn out_of_memory_is_reported() {
    let d = dhow();
    let out = d.run(&["run", "--name", "fat", "--memory", "16m", "busybox", "tail", "/dev/zero"]);
    assert_eq!(out.code, 137, "{out:?}");
    assert_eq!(d.inspect("fat", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    d.fails(&["run", "--memory", "1m", "busybox"], 125, &["6MB"]);
}

#[test]
fn a_fork_bomb_is_stopped() {
    let d = dhow();
    let script = "i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done; echo made it";
    let out = d.run(&["run", "--rm", "--pids-limit", "8", "busybox", "sh", "-c", script]);
    assert!(!out.stdout.contains("made it") && out.stderr.contains("fork"), "{out:?}");
}

#[test]
fn cpu_limit_is_in_the_cgroup() {
    let d = dhow();
    let script = "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us";
    let out = d.ok(&["run", "--rm", "--cpus", "0.5", "busybox", "sh", "-c", script]);
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["50000", "100000"]);
    d.fails(&["run", "--cpus", "10000", "busybox"], 125, &["CPU"]);
}

#[test]
fn cgroups_are_read_only_inside() {
    let d = dhow();
    let script =
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/made 2>/dev/null && echo $d; done; ls /sys/fs/cgroup";
    let out = d.ok(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert!(!out.contains("/sys/fs/cgroup") && !out.contains("made") && !out.is_empty(), "{out}");
}

#[test]
fn resource_limits() {
    let d = dhow();
    let out = d.ok(&[
        "run",
        "--rm",
        "--ulimit",
        "nofile=123:456",
        "--ulimit",
        "core=0",
        "busybox",
        "sh",
        "-c",
        "ulimit -Sn; ulimit -Hn; ulimit -c",
    ]);
    assert_eq!(out, "123\n456\n0");
    d.fails(&["run", "--ulimit", "nofile=9:1", "busybox"], 125, &["nofile"]);
    d.fails(&["run", "--ulimit", "nosuch=1", "busybox"], 125, &["nosuch"]);
}

#[test]
fn kernel_parameters() {
    let d = dhow();
    let out =
        d.ok(&["run", "--rm", "--sysctl", "net.ipv4.ip_forward=1", "busybox", "cat", "/proc/sys/net/ipv4/ip_forward"]);
    assert_eq!(out, "1");
    d.fails(&["run", "--rm", "--sysctl", "kernel.core_pattern=x", "busybox"], 125, &["kernel.core_pattern"]);
}
