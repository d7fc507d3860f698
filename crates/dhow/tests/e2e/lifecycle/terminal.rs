//! Terminals: size, keys, detaching.

use crate::{SOON, dhow};

#[test]
fn the_size_is_right_at_the_first_byte() {
    let d = dhow();
    for n in 0..10u16 {
        let (code, text) = d.terminal(&["run", "--rm", "-t", "busybox", "stty", "size"], 30 + n, 100 + n).finish(SOON);
        assert_eq!((code, text.trim()), (0, format!("{} {}", 30 + n, 100 + n).as_str()));
    }
    d.background(&["--name", "c1"], &["sleep", "100"]);
    let (code, text) = d.terminal(&["exec", "-t", "c1", "stty", "size"], 33, 77).finish(SOON);
    assert_eq!((code, text.trim()), (0, "33 77"));
}

#[test]
fn resizing_reaches_the_program() {
    let d = dhow();
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done";
    let mut pty = d.terminal(&["run", "--rm", "-it", "busybox", "sh", "-c", script], 24, 80);
    pty.expect("ready", SOON);
    pty.resize(40, 120);
    pty.expect("40 120", SOON);
    pty.send("\x03");
    assert_eq!(pty.finish(SOON).0, 130);
}

#[test]
fn an_interactive_shell() {
    let d = dhow();
    let mut pty = d.terminal(&["run", "--rm", "-it", "busybox"], 24, 80);
    pty.expect("# ", SOON);
    pty.send("tty; echo $TERM\r");
    let out = pty.expect("xterm", SOON);
    assert!(out.contains("/dev/pts/0"), "{out}");
    pty.send("exit 12\r");
    assert_eq!(pty.finish(SOON).0, 12);
}

#[test]
fn output_is_raw_and_merged() {
    let d = dhow();
    let (_, text) =
        d.terminal(&["run", "--rm", "-t", "busybox", "sh", "-c", "echo a; echo b >&2"], 24, 80).finish(SOON);
    // Without -i this side's terminal stays as it is and adds a carriage return of its own.
    assert_eq!(text.replace("\r\r", "\r"), "a\r\nb\r\n");
    // -t without a terminal on this side still gives the container one.
    let out = d.run(&["run", "--rm", "-t", "busybox", "tty"]);
    assert_eq!(out.stdout, "/dev/pts/0\r\n");
}

#[test]
fn it_needs_a_terminal() {
    let d = dhow();
    let text = d.fails(&["run", "--rm", "-it", "busybox", "true"], 1, &["not a"]);
    assert!(text.to_lowercase().contains("tty") || text.contains("terminal"), "{text}");
}

#[test]
fn detach_keys_leave_the_container_running() {
    let d = dhow();
    let mut pty = d.terminal(&["run", "-it", "--name", "c1", "busybox"], 24, 80);
    pty.expect("# ", SOON);
    pty.send("\x10\x11");
    assert_eq!(pty.finish(SOON).0, 0);
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    let mut pty = d.terminal(&["attach", "c1"], 24, 80);
    pty.send("echo back$((1+1))\r");
    pty.expect("back2", SOON);
    pty.send("\x10\x11");
    let (code, text) = pty.finish(SOON);
    assert_eq!(code, 1, "attach: {text}");
    assert!(text.contains("read escape sequence"), "{text}");
    let mut pty = d.terminal(&["attach", "--detach-keys", "ctrl-a,d", "c1"], 24, 80);
    pty.send("\x01d");
    assert_eq!(pty.finish(SOON).0, 1);
    let mut pty = d.terminal(&["attach", "c1"], 24, 80);
    pty.send("exit 4\r");
    assert_eq!(pty.finish(SOON).0, 4);
    assert_eq!(d.inspect("c1", "{{.State.Status}} {{.State.ExitCode}}"), "exited 4");
}

#[test]
fn a_lost_terminal_does_not_hurt_the_container() {
    let d = dhow();
    let mut pty = d.terminal(&["run", "-it", "--name", "c1", "busybox"], 24, 80);
    pty.expect("# ", SOON);
    drop(pty);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    assert_eq!(d.ok(&["exec", "c1", "echo", "alive"]), "alive");
}

#[test]
fn the_callers_terminal_is_restored() {
    let d = dhow();
    let line = format!(
        "stty -a > before; {} run --rm -it busybox true; stty -a > after; cmp before after && echo same",
        d.binary().display()
    );
    let mut command = d.command(&[]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &line]).current_dir(d.dir());
    for (key, value) in command.env("X", "1").get_envs() {
        shell.env(key, value.unwrap_or_default());
    }
    let pty = dhow_testkit::Pty::spawn(&shell, 24, 80, |c| d.net().enter(|| c.spawn()));
    let (_, text) = pty.finish(SOON);
    assert!(text.contains("same"), "{text}");
}

#[test]
fn exec_on_a_terminal() {
    let d = dhow();
    d.background(&["--name", "c1"], &["sleep", "100"]);
    let mut pty = d.terminal(&["exec", "-it", "c1", "/bin/sh"], 24, 80);
    pty.expect("# ", SOON);
    pty.send("touch test.txt\r");
    pty.expect("# ", SOON);
    pty.send("exit\r");
    assert_eq!(pty.finish(SOON).0, 0);
    assert_eq!(d.ok(&["exec", "c1", "ls", "/test.txt"]), "/test.txt");
}
