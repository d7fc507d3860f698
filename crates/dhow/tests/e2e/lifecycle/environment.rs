//! Environment, working directory, users, host name, `/etc/hosts`.

use crate::{dhow, lines};

fn env(d: &dhow_testkit::Dhow, options: &[&str]) -> Vec<String> {
    let out = d.ok(&[&["run", "--rm"], options, &["busybox", "env"]].concat());
    let mut all: Vec<String> = out.lines().map(str::to_owned).collect();
    all.sort();
    all
}

#[test]
fn defaults() {
    let d = dhow();
    let all = env(&d, &["--hostname", "box"]);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(all, ["HOME=/root", "HOSTNAME=box", path]);
    let id = d.background(&[], &["sh", "-c", "hostname; sleep 100"]);
    d.wait_log(&id, &id[..12]);
}

#[test]
fn options_and_files() {
    let d = dhow();
    let file = d.file("vars", "# comment\n\nA=from file\nB='quoted'\n  C=indented\nFROM_CLIENT\nABSENT\n");
    let mut command = d.command(&["run", "--rm", "--env-file", &file, "-e", "A=1", "-e", "SECOND", "busybox", "env"]);
    command.env("FROM_CLIENT", "yes").env("SECOND", "two");
    let out = d.run_with(&mut command, b"");
    let has = |line: &str| lines(&out.stdout).contains(&line);
    assert!(
        has("A=1") && has("B='quoted'") && has("C=indented") && has("FROM_CLIENT=yes") && has("SECOND=two"),
        "{out:?}"
    );
    assert!(!out.stdout.contains("ABSENT"), "{out:?}");
    let bad = d.file("bad", "A B=1\n");
    d.fails(&["run", "--env-file", &bad, "busybox"], 125, &["A B"]);
    d.fails(&["run", "--env-file", "/no/such/file", "busybox"], 125, &["/no/such/file"]);
}

#[test]
fn a_name_alone_removes_the_images_variable() {
    let d = dhow();
    d.file("ctx/Dockerfile", "FROM busybox\nENV GONE=1 KEPT=2\n");
    d.ok(&["build", "-q", "-t", "vars", &d.path("ctx")]);
    let out = d.ok(&["run", "--rm", "-e", "GONE", "vars", "env"]);
    assert!(!out.contains("GONE") && out.contains("KEPT=2"), "{out}");
}

#[test]
fn working_directory_is_made() {
    let d = dhow();
    assert_eq!(d.ok(&["run", "--rm", "busybox", "pwd"]), "/");
    let out = d.ok(&["run", "--rm", "-w", "/new/place", "busybox", "sh", "-c", "pwd; stat -c '%a %u' ."]);
    assert_eq!(out, "/new/place\n755 0");
    d.fails(&["run", "--rm", "-w", "/etc/passwd", "busybox", "pwd"], 125, &["/etc/passwd", "not a directory"]);
    d.fails(&["run", "--rm", "-w", "relative", "busybox", "pwd"], 125, &["absolute"]);
}

#[test]
fn users_and_groups_come_from_the_image() {
    let d = dhow();
    let id = |user: &str| {
        d.ok(&["run", "--rm", "-u", user, "busybox", "sh", "-c", "id -u; id -g; echo $(id -G); echo $HOME"])
    };
    assert_eq!(id("alice"), "1000\n1000\n1000 100 2000\n/home/alice");
    assert_eq!(id("1000"), "1000\n1000\n1000 100 2000\n/home/alice");
    assert_eq!(id("alice:www"), "1000\n33\n33\n/home/alice");
    assert_eq!(id("1234"), "1234\n0\n0\n/");
    assert_eq!(id("1234:5678"), "1234\n5678\n5678\n/");
    d.fails(&["run", "--rm", "-u", "nosuch", "busybox"], 125, &["unable to find user nosuch"]);
    d.fails(&["run", "--rm", "-u", "0:nosuch", "busybox"], 125, &["nosuch"]);
    d.fails(&["run", "--rm", "-u", "4294967296", "busybox"], 125, &[]);
    let out = d.ok(&["run", "--rm", "-u", "1234", "--group-add", "www", "--group-add", "4000", "busybox", "id", "-G"]);
    assert_eq!(out, "0 33 4000");
}

#[test]
fn host_name_and_hosts() {
    let d = dhow();
    let out = d.ok(&[
        "run",
        "--rm",
        "-h",
        "box",
        "--domainname",
        "example.org",
        "busybox",
        "cat",
        "/etc/hostname",
        "/etc/hosts",
    ]);
    let all = lines(&out);
    assert_eq!(all[0], "box");
    assert!(all.contains(&"127.0.0.1\tlocalhost"), "{out}");
    assert!(all.iter().any(|l| l.ends_with("\tbox.example.org box")), "{out}");
    let out = d.ok(&[
        "run",
        "--rm",
        "--add-host",
        "db:10.1.2.3",
        "--add-host",
        "gw:host-gateway",
        "busybox",
        "cat",
        "/etc/hosts",
    ]);
    assert!(out.contains("10.1.2.3\tdb"), "{out}");
    assert!(out.lines().any(|l| l.ends_with("\tgw")), "{out}");
    d.fails(&["run", "--add-host", "db:notanip", "busybox"], 125, &["notanip"]);
}

#[test]
fn resolver_options() {
    let d = dhow();
    let args = [
        "run",
        "--rm",
        "--dns",
        "9.9.9.9",
        "--dns-search",
        "corp.example",
        "--dns-option",
        "ndots:2",
        "busybox",
        "cat",
        "/etc/resolv.conf",
    ];
    let out = d.ok(&args);
    assert!(
        out.contains("nameserver 9.9.9.9") && out.contains("search corp.example") && out.contains("options ndots:2"),
        "{out}"
    );
    d.fails(&["run", "--dns", "nine", "busybox"], 125, &["nine"]);
}

#[test]
fn labels() {
    let d = dhow();
    let file = d.file("labels", "x=file\ny\n");
    d.ok(&["create", "--name", "c1", "--label-file", &file, "-l", "x=1", "--label", "z", "busybox"]);
    assert_eq!(d.inspect("c1", "{{json .Config.Labels}}"), r#"{"x":"1","y":"","z":""}"#);
}
