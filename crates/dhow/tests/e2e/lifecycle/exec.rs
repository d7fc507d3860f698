//! `exec`.

use crate::{SOON, dhow};
use dhow_testkit::process::finish;

#[test]
fn output_input_and_exit_code() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sleep", "100"]);
    let out = d.run(&["exec", "c1", "sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (9, "out\n", "err\n"));
    assert_eq!(d.input(&["exec", "-i", "c1", "cat"], b"typed").stdout, "typed");
    assert_eq!(d.input(&["exec", "c1", "cat"], b"typed").stdout, "");
    assert_eq!(d.run(&["exec", "c1", "sh", "-c", "kill -9 $$"]).code, 137);
    let out = d.run(&["exec", "c1", "head", "-c", "10000000", "/dev/zero"]);
    assert_eq!((out.code, out.bytes.len()), (0, 10_000_000));
}

#[test]
fn options() {
    let d = dhow();
    d.background(&["--name", "c1", "-e", "A=container", "-e", "B=kept", "-w", "/etc"], &["sleep", "100"]);
    assert_eq!(d.ok(&["exec", "-e", "A=exec", "c1", "sh", "-c", "echo $A $B; pwd; id -un"]), "exec kept\n/etc\nroot");
    assert_eq!(
        d.ok(&["exec", "-w", "/tmp", "-u", "alice", "c1", "sh", "-c", "pwd; id -un; echo $HOME"]),
        "/tmp\nalice\n/home/alice"
    );
    let file = d.file("vars", "FROM_FILE=1\n");
    assert_eq!(d.ok(&["exec", "--env-file", &file, "c1", "sh", "-c", "echo $FROM_FILE"]), "1");
    assert_eq!(d.ok(&["exec", "-d", "c1", "sh", "-c", "echo done > /made"]), "");
    d.ok(&["exec", "c1", "sh", "-c", "until [ -s /made ]; do sleep 0.01; done"]);
    let caps = d.ok(&["exec", "--privileged", "c1", "grep", "CapEff", "/proc/self/status"]);
    assert!(!caps.contains("a80425fb"), "{caps}");
}

#[test]
fn failures() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sleep", "100"]);
    d.fails(&["exec", "c1", "no-such-program"], 127, &["no-such-program"]);
    d.fails(&["exec", "c1", "/etc/notexec"], 126, &["permission denied"]);
    d.fails(&["exec", "-u", "nosuch", "c1", "true"], 126, &["nosuch"]);
    d.fails(&["exec", "-w", "/no/such", "c1", "true"], 126, &["/no/such"]);
    d.fails(&["exec", "nothing", "true"], 1, &["No such container: nothing"]);
    d.ok(&["create", "--name", "idle", "busybox"]);
    d.fails(&["exec", "idle", "true"], 1, &["is not running"]);
    d.fails(&["exec", "c1"], 1, &["requires at least 2 arguments"]);
}

#[test]
fn it_ends_with_the_container() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sleep", "100"]);
    let child = d.spawn(&["exec", "c1", "sleep", "100"]);
    dhow_testkit::process::wait_for("exec runs", SOON, || {
        d.ok(&["exec", "c1", "sh", "-c", "ps | grep -c 'sleep 100'"]).trim() != "1"
    });
    d.ok(&["kill", "c1"]);
    assert_eq!(finish(child, "exec", b"", SOON).code, 137);
}

#[test]
fn many_in_a_row() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sleep", "100"]);
    for n in 0..40 {
        assert_eq!(d.ok(&["exec", "c1", "echo", &n.to_string()]), n.to_string());
    }
    assert_eq!(
        d.ok(&["exec", "c1", "sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).trim(),
        "4",
        "nothing is left inside: 1, sh, ls, wc"
    );
}
