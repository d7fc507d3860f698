//! Signals to the command reach the container.

use crate::{SOON, dhow};
use dhow_testkit::process::{finish, kill};
use rustix::process::Signal;

const LISTEN: &str = "trap 'echo int; exit 4' INT; trap 'echo term; exit 5' TERM; trap 'echo hup; exit 6' HUP; echo ready; while :; do sleep 0.02; done";

#[test]
fn run_forwards_them() {
    let d = dhow();
    for (signal, code) in [(Signal::INT, 4), (Signal::TERM, 5), (Signal::HUP, 6)] {
        let name = format!("c{code}");
        let child = d.spawn(&["run", "--name", &name, "busybox", "sh", "-c", LISTEN]);
        dhow_testkit::process::wait_for("ready", SOON, || d.run(&["logs", &name]).stdout.contains("ready"));
        kill(child.id().cast_signed(), signal);
        assert_eq!(finish(child, "run", b"", SOON).code, code);
    }
}

#[test]
fn sig_proxy_can_be_switched_off() {
    let d = dhow();
    let child = d.spawn(&["run", "--name", "c1", "--sig-proxy=false", "busybox", "sh", "-c", LISTEN]);
    dhow_testkit::process::wait_for("ready", SOON, || d.run(&["logs", "c1"]).stdout.contains("ready"));
    kill(child.id().cast_signed(), Signal::TERM);
    finish(child, "run", b"", SOON);
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
}

#[test]
fn attach_forwards_them() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sh", "-c", LISTEN]);
    d.wait_log("c1", "ready");
    let child = d.spawn(&["attach", "c1"]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    kill(child.id().cast_signed(), Signal::TERM);
    let out = finish(child, "attach", b"", SOON);
    assert_eq!((out.code, out.stdout.as_str()), (5, "term\n"));
}

#[test]
fn exec_forwards_them() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sleep", "100"]);
    let child = d.spawn(&["exec", "c1", "sh", "-c", "trap 'exit 5' TERM; touch /ready; while :; do sleep 0.02; done"]);
    d.ok(&["exec", "c1", "sh", "-c", "until [ -e /ready ]; do sleep 0.01; done; sleep 0.05"]);
    kill(child.id().cast_signed(), Signal::TERM);
    assert_eq!(finish(child, "exec", b"", SOON).code, 5);
}

#[test]
fn a_closed_pipe_ends_the_reader_not_the_container() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sh", "-c", "while :; do echo tick; sleep 0.01; done"]);
    d.wait_log("c1", "tick");
    let mut child = d.spawn(&["logs", "-f", "c1"]);
    drop(child.stdout.take());
    dhow_testkit::process::wait_for("logs ends", SOON, || child.try_wait().unwrap().is_some());
    assert_eq!(d.inspect("c1", "{{.State.Running}}"), "true");
}
