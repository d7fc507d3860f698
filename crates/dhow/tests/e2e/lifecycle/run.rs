//! `run`: output, input, exit codes, files of ids.

use crate::dhow;

#[test]
fn output_and_exit_code_are_the_programs() {
    let d = dhow();
    let out = d.run(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (7, "out\n", "err\n"));
}

#[test]
fn default_command_of_the_image_runs() {
    let d = dhow();
    let out = d.input(&["run", "--rm", "-i", "busybox"], b"echo from a shell\n");
    assert_eq!((out.code, out.stdout.as_str()), (0, "from a shell\n"));
}

#[test]
fn command_not_found_is_127() {
    let d = dhow();
    d.fails(&["run", "--rm", "busybox", "no-such-program"], 127, &["no-such-program", "executable file not found"]);
    d.fails(&["run", "--rm", "busybox", "/no/such/program"], 127, &["no such file or directory"]);
}

#[test]
fn not_executable_is_126() {
    let d = dhow();
    d.fails(&["run", "--rm", "busybox", "/etc/notexec"], 126, &["permission denied"]);
    d.fails(&["run", "--rm", "busybox", "/etc"], 126, &["/etc"]);
}

#[test]
fn a_failed_start_leaves_a_created_container() {
    let d = dhow();
    d.fails(&["run", "--name", "bad", "busybox", "no-such-program"], 127, &[]);
    assert_eq!(d.inspect("bad", "{{.State.Status}} {{.State.ExitCode}}"), "created 127");
    assert!(d.inspect("bad", "{{.State.Error}}").contains("no-such-program"));
}

#[test]
fn usage_errors_are_125() {
    let d = dhow();
    d.fails(&["run", "--no-such-flag", "busybox"], 125, &["unknown flag: --no-such-flag"]);
    d.fails(&["run"], 1, &["requires at least 1 argument"]);
    d.fails(&["run", "-d", "-a", "stdout", "busybox"], 125, &["conflicting"]);
    d.fails(&["run", "--memory", "lots", "busybox"], 125, &["lots"]);
    d.fails(&["run", "-p", "80:99999", "busybox"], 125, &["99999"]);
}

#[test]
fn detached_prints_the_id() {
    let d = dhow();
    let id = d.background(&[], &["sleep", "100"]);
    assert!(id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    assert_eq!(d.inspect(&id[..12], "{{.Id}}"), id);
    assert_eq!(d.inspect(&id, "{{.State.Running}}"), "true");
}

#[test]
fn standard_input_reaches_the_program_only_with_i() {
    let d = dhow();
    assert_eq!(d.input(&["run", "--rm", "-i", "busybox", "cat"], b"hello").stdout, "hello");
    assert_eq!(d.input(&["run", "--rm", "busybox", "cat"], b"hello").stdout, "");
}

#[test]
fn a_megabyte_through_cat_comes_back_whole() {
    let d = dhow();
    let data: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    let out = d.input(&["run", "--rm", "-i", "busybox", "cat"], &data);
    assert_eq!(out.code, 0);
    assert!(out.bytes == data, "{} of {} bytes came back", out.bytes.len(), data.len());
}

#[test]
fn a_burst_before_the_exit_is_complete() {
    let d = dhow();
    for _ in 0..5 {
        let out = d.run(&["run", "--rm", "busybox", "sh", "-c", "head -c 10000000 /dev/zero"]);
        assert_eq!((out.code, out.bytes.len()), (0, 10_000_000));
    }
}

#[test]
fn rm_removes_and_keeps_nothing() {
    let d = dhow();
    d.ok(&["run", "--rm", "busybox", "true"]);
    assert_eq!(d.ok(&["ps", "-aq"]), "");
    let id = d.background(&["--rm"], &["sleep", "0.3"]);
    d.run(&["wait", &id]);
    dhow_testkit::process::wait_for("the container is gone", crate::SOON, || d.ok(&["ps", "-aq"]).is_empty());
}

#[test]
fn names() {
    let d = dhow();
    d.background(&["--name", "web"], &["sleep", "100"]);
    assert_eq!(d.inspect("web", "{{.Name}}"), "/web");
    let text = d.fails(&["run", "--name", "web", "busybox", "true"], 125, &["conflict", "/web", "already in use"]);
    assert!(text.contains(&d.inspect("web", "{{.Id}}")[..12]), "the holder is named: {text}");
    d.fails(&["run", "--name", "a/b", "busybox"], 125, &["invalid container name"]);
    d.ok(&["rm", "-f", "web"]);
    d.ok(&["run", "--rm", "--name", "web", "busybox", "true"]);
    let id = d.background(&[], &["true"]);
    let name = d.inspect(&id, "{{.Name}}");
    assert!(name.starts_with('/') && name.contains('_'), "{name}");
}

#[test]
fn cidfile() {
    let d = dhow();
    let file = d.path("cid");
    let id = d.ok(&["run", "-d", "--cidfile", &file, "busybox", "true"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), id);
    d.fails(&["run", "--cidfile", &file, "busybox", "true"], 125, &["file"]);
    let other = d.path("cid2");
    d.fails(&["run", "--cidfile", &other, "--pull", "never", "no-such-image", "true"], 125, &[]);
    assert!(!std::path::Path::new(&other).exists(), "the file of a container that was not created is gone");
}

#[test]
fn entrypoint_and_command_merge_as_in_docker() {
    let d = dhow();
    assert_eq!(d.ok(&["run", "--rm", "--entrypoint", "echo", "busybox", "a", "b"]), "a b");
    d.file("ctx/Dockerfile", "FROM busybox\nENTRYPOINT [\"echo\", \"e\"]\nCMD [\"c\"]\n");
    d.ok(&["build", "-q", "-t", "ep", &d.path("ctx")]);
    assert_eq!(d.ok(&["run", "--rm", "ep"]), "e c");
    assert_eq!(d.ok(&["run", "--rm", "ep", "x"]), "e x");
    assert_eq!(d.ok(&["run", "--rm", "--entrypoint", "printf", "ep", "p"]), "p");
    assert_eq!(d.ok(&["run", "--rm", "--entrypoint", "", "ep", "echo", "cleared"]), "cleared");
    // A new entry point drops the image's CMD.
    assert_eq!(d.ok(&["run", "--rm", "--entrypoint", "echo", "ep"]), "");
}

#[test]
fn init_reaps_and_forwards() {
    let d = dhow();
    let script =
        "sh -c 'sleep 0.1 & exit' ; sleep 0.5; grep -l zombie /proc/[0-9]*/status | wc -l; cat /proc/1/cmdline";
    let out = d.ok(&["run", "--rm", "--init", "busybox", "sh", "-c", script]);
    assert!(out.starts_with("0\n"), "no zombie is left: {out}");
    assert!(out.contains("init"), "process 1 is the init: {out}");
    assert_eq!(d.run(&["run", "--rm", "--init", "busybox", "sh", "-c", "exit 9"]).code, 9);
    let id = d.background(&["--init"], &["sleep", "100"]);
    d.ok(&["stop", "-t", "30", &id]);
    assert_eq!(d.inspect(&id, "{{.State.ExitCode}}"), "143");
}

#[test]
fn several_at_the_same_time() {
    let d = dhow();
    let children: Vec<_> = (0..12).map(|n| d.spawn(&["run", "--rm", "busybox", "echo", &n.to_string()])).collect();
    for (n, child) in children.into_iter().enumerate() {
        let out = dhow_testkit::process::finish(child, "run", b"", crate::SOON * 3);
        assert_eq!((out.code, out.stdout.trim()), (0, n.to_string().as_str()), "{}", out.stderr);
    }
}
