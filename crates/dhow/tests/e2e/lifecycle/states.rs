//! `create`, `start`, `stop`, `restart`, `pause`, `rename`, `wait`, `kill`, `rm`.

use crate::{SOON, dhow};
use dhow_testkit::process::finish;

#[test]
fn create_and_start() {
    let d = dhow();
    let id = d.ok(&["create", "--name", "c1", "busybox", "sh", "-c", "echo hello; exit 3"]);
    assert_eq!(id.len(), 64);
    assert_eq!(d.inspect("c1", "{{.State.Status}} {{.State.Pid}}"), "created 0");
    assert_eq!(d.ok(&["start", "c1"]), "c1");
    d.wait_status("c1", "exited");
    assert_eq!(d.inspect("c1", "{{.State.ExitCode}}"), "3");
    let again = d.run(&["start", "-a", "c1"]);
    assert_eq!((again.code, again.stdout.as_str()), (3, "hello\n"));
    assert_eq!(d.ok(&["logs", "c1"]), "hello\nhello");
    d.fails(&["start", "nothing"], 1, &["No such container: nothing"]);
}

#[test]
fn stop_sends_the_signal_and_waits() {
    let d = dhow();
    let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    d.background(&["--name", "c1"], &["sh", "-c", script]);
    d.wait_log("c1", "ready");
    assert_eq!(d.ok(&["stop", "-t", "30", "c1"]), "c1");
    assert_eq!(d.inspect("c1", "{{.State.Status}} {{.State.ExitCode}}"), "exited 5");
    assert!(d.ok(&["logs", "c1"]).contains("bye"));
    assert_eq!(d.ok(&["stop", "c1"]), "c1", "stopping a stopped container is no error");
}

#[test]
fn stop_kills_what_does_not_listen() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]);
    d.wait_log("c1", "ready");
    d.ok(&["stop", "-t", "1", "c1"]);
    assert_eq!(d.inspect("c1", "{{.State.ExitCode}}"), "137");
}

#[test]
fn the_stop_signal_is_the_containers_then_the_images() {
    let d = dhow();
    let script = "trap 'exit 4' INT; trap 'exit 5' TERM; trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done";
    d.background(&["--name", "c1", "--stop-signal", "SIGINT"], &["sh", "-c", script]);
    d.wait_log("c1", "ready");
    d.ok(&["stop", "c1"]);
    assert_eq!(d.inspect("c1", "{{.State.ExitCode}}"), "4");
    d.file("ctx/Dockerfile", "FROM busybox\nSTOPSIGNAL SIGUSR1\n");
    d.ok(&["build", "-q", "-t", "sig", &d.path("ctx")]);
    d.ok(&["run", "-d", "--name", "i1", "sig", "sh", "-c", script]);
    d.wait_log("i1", "ready");
    d.ok(&["stop", "i1"]);
    assert_eq!(d.inspect("i1", "{{.State.ExitCode}}"), "6");
    d.fails(&["run", "--stop-signal", "NOPE", "busybox"], 125, &["NOPE"]);
}

#[test]
fn restart_gives_a_new_process_in_the_same_container() {
    let d = dhow();
    let id = d.background(&[], &["sh", "-c", "echo start >> /runs; sleep 100"]);
    d.ok(&["exec", &id, "sh", "-c", "until [ -e /runs ]; do sleep 0.01; done"]);
    let first = d.pid(&id);
    assert_eq!(d.ok(&["restart", "-t", "0", &id]), id);
    assert_ne!(d.pid(&id), first);
    let runs = d.ok(&["exec", &id, "sh", "-c", "until [ $(wc -l < /runs) = 2 ]; do sleep 0.01; done; cat /runs"]);
    assert_eq!(runs, "start\nstart");
}

#[test]
fn pause_freezes() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sh", "-c", "while :; do echo tick; sleep 0.02; done"]);
    d.wait_log("c1", "tick");
    assert_eq!(d.ok(&["pause", "c1"]), "c1");
    assert_eq!(d.inspect("c1", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"), "paused true true");
    assert!(d.ok(&["ps", "--format", "{{.Status}}"]).ends_with("(Paused)"));
    let count = || d.ok(&["logs", "c1"]).lines().count();
    let before = count();
    std::thread::sleep(std::time::Duration::from_millis(80));
    assert_eq!(count(), before, "nothing is printed while paused");
    d.fails(&["exec", "c1", "true"], 1, &["paused"]);
    d.fails(&["pause", "c1"], 1, &["already paused"]);
    d.ok(&["unpause", "c1"]);
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    d.fails(&["unpause", "c1"], 1, &["not paused"]);
    d.ok(&["pause", "c1"]);
    d.ok(&["stop", "-t", "1", "c1"]);
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "exited", "stop reaches a paused container");
}

#[test]
fn rename() {
    let d = dhow();
    d.background(&["--name", "old"], &["sleep", "100"]);
    d.ok(&["create", "--name", "other", "busybox"]);
    d.ok(&["rename", "old", "new"]);
    assert_eq!(d.inspect("new", "{{.Name}} {{.State.Status}}"), "/new running");
    d.fails(&["inspect", "old"], 1, &["No such"]);
    d.fails(&["rename", "new", "other"], 1, &["other", "in use"]);
    d.fails(&["rename", "nothing", "x"], 1, &["No such container: nothing"]);
    d.ok(&["create", "--name", "old", "busybox"]);
}

#[test]
fn wait_prints_the_code() {
    let d = dhow();
    let id = d.background(&[], &["sh", "-c", "sleep 0.2; exit 11"]);
    assert_eq!(d.ok(&["wait", &id]), "11");
    assert_eq!(d.ok(&["wait", &id, &id]), "11\n11");
    d.fails(&["wait", "nothing"], 1, &["No such container: nothing"]);
}

#[test]
fn kill_sends_any_signal() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sh", "-c", "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.02; done"]);
    d.wait_log("c1", "ready");
    assert_eq!(d.ok(&["kill", "-s", "USR1", "c1"]), "c1");
    d.wait_log("c1", "usr1");
    assert_eq!(d.inspect("c1", "{{.State.Running}}"), "true");
    d.fails(&["kill", "-s", "NOPE", "c1"], 1, &["NOPE"]);
    d.ok(&["kill", "c1"]);
    assert_eq!(d.ok(&["wait", "c1"]), "137");
    d.fails(&["kill", "c1"], 1, &["not running"]);
}

#[test]
fn remove() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sleep", "100"]);
    d.fails(&["rm", "c1"], 1, &["running"]);
    assert_eq!(d.ok(&["rm", "-f", "c1"]), "c1");
    d.fails(&["rm", "c1"], 1, &["No such container: c1"]);
    assert_eq!(d.run(&["rm", "-f", "c1"]).code, 0, "with -f a missing container is no failure");
    d.ok(&["create", "--name", "aa", "busybox"]);
    d.ok(&["create", "--name", "bb", "busybox"]);
    let out = d.run(&["rm", "aa", "nothing", "bb"]);
    assert_eq!((out.code, out.stdout.as_str()), (1, "aa\nbb\n"), "the others are removed");
}

#[test]
fn a_container_outlives_its_command() {
    let d = dhow();
    let mut child = d.spawn(&[
        "run",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "echo ready; trap 'exit 3' USR1; while :; do sleep 0.02; done",
    ]);
    dhow_testkit::process::wait_for("the container exists", SOON, || d.run(&["logs", "c1"]).stdout.contains("ready"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    d.ok(&["kill", "-s", "USR1", "c1"]);
    assert_eq!(d.ok(&["wait", "c1"]), "3");
}

#[test]
fn wait_and_attached_run_agree_on_a_killed_container() {
    let d = dhow();
    let child = d.spawn(&["run", "--name", "c1", "busybox", "sleep", "100"]);
    dhow_testkit::process::wait_for("running", SOON, || {
        d.run(&["inspect", "-f", "{{.State.Status}}", "c1"]).stdout.trim() == "running"
    });
    d.ok(&["kill", "c1"]);
    assert_eq!(finish(child, "run", b"", SOON).code, 137);
    assert_eq!(d.ok(&["wait", "c1"]), "137");
}
