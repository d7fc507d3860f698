//! What `inspect` says, and that it is what the kernel says.

use crate::dhow;
use dhow_testkit::process::namespace;

#[test]
fn the_reported_process_is_the_containers() {
    let d = dhow();
    let id = d.background(&["--name", "c1"], &["sleep", "100"]);
    let pid = d.pid("c1");
    assert_eq!(dhow_testkit::process::proc_file(pid, "cmdline"), "sleep\x00100\x00");
    let own = std::process::id().cast_signed();
    for kind in ["mnt", "net", "pid", "ipc", "uts"] {
        assert_ne!(namespace(pid, kind), namespace(own, kind), "{kind} is the container's own");
    }
    assert_eq!(namespace(pid, "user"), namespace(own, "user"));
    assert_eq!(d.ok(&["exec", "c1", "cat", "/proc/1/cmdline"]), "sleep\x00100\x00");
    assert_eq!(d.inspect(&id, "{{.State.Status}}"), "running");
}

#[test]
fn namespaces_are_shown_and_entered() {
    let d = dhow();
    let id = d.background(&[], &["sleep", "100"]);
    let pid = d.pid(&id);
    let shown = d.ok(&["ns", "show", &id]);
    for kind in ["mnt", "net", "pid", "ipc", "uts", "user", "cgroup"] {
        let inode = namespace(pid, kind).unwrap().to_string();
        assert!(shown.contains(&inode), "{kind} {inode} is in:\n{shown}");
    }
    let all = d.ok(&["ns", "ls"]);
    assert!(
        all.contains(&namespace(pid, "net").unwrap().to_string())
            && all.contains(d.inspect(&id, "{{.Name}}").trim_start_matches('/')),
        "{all}"
    );
    let net = format!("/proc/{pid}/ns/net");
    let inside = d.ok(&["ns", "enter", &net, "--", "readlink", "/proc/self/ns/net"]);
    assert_eq!(inside, format!("net:[{}]", namespace(pid, "net").unwrap()));
    let uts = format!("/proc/{pid}/ns/uts");
    assert_eq!(d.ok(&["ns", "enter", &net, &uts, "--", "hostname"]), id[..12]);
    assert_eq!(d.run(&["ns", "enter", &net, "--", "sh", "-c", "exit 3"]).code, 3);
    d.fails(&["ns", "enter", "/etc/passwd", "--", "true"], 1, &["/etc/passwd"]);
    d.fails(&["ns", "enter", "/no/such", "--", "true"], 1, &["/no/such"]);
}

#[test]
fn inspect_has_dockers_shape() {
    let d = dhow();
    let args = [
        "run",
        "-d",
        "--name",
        "c1",
        "-e",
        "A=1",
        "-p",
        "8080:80",
        "-v",
        "/tmp:/x:ro",
        "--label",
        "k=v",
        "-w",
        "/tmp",
        "busybox",
        "sleep",
        "100",
    ];
    let id = d.ok(&args);
    let all: serde_json::Value = serde_json::from_str(&d.ok(&["inspect", "c1"])).unwrap();
    let c = &all[0];
    assert_eq!(c["Id"], id.as_str());
    assert_eq!(c["Name"], "/c1");
    assert_eq!((c["Path"].as_str(), &c["Args"]), (Some("sleep"), &serde_json::json!(["100"])));
    assert_eq!(c["State"]["Status"], "running");
    assert_eq!(c["State"]["OOMKilled"], false);
    assert_eq!(c["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(c["RestartCount"], 0);
    assert_eq!(c["Config"]["Image"], "busybox");
    assert_eq!(c["Config"]["Cmd"], serde_json::json!(["sleep", "100"]));
    assert_eq!(c["Config"]["WorkingDir"], "/tmp");
    assert_eq!(c["Config"]["Labels"]["k"], "v");
    assert!(c["Config"]["Env"].as_array().unwrap().contains(&"A=1".into()));
    assert_eq!(c["HostConfig"]["Binds"], serde_json::json!(["/tmp:/x:ro"]));
    assert_eq!(c["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
    assert_eq!(c["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!(c["Mounts"][0]["Destination"], "/x");
    assert_eq!(c["Mounts"][0]["RW"], false);
    assert_eq!(c["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"], "8080");
    let network = &c["NetworkSettings"]["Networks"]["bridge"];
    assert!(network["IPAddress"].as_str().unwrap().parse::<std::net::Ipv4Addr>().is_ok());
    assert!(network["Gateway"].as_str().unwrap().parse::<std::net::Ipv4Addr>().is_ok());
    assert!(c["Image"].as_str().unwrap().starts_with("sha256:"));
    assert!(c["LogPath"].as_str().unwrap().ends_with("-json.log"));
    assert!(std::path::Path::new(c["LogPath"].as_str().unwrap()).is_file());
}

#[test]
fn inspect_errors() {
    let d = dhow();
    let out = d.run(&["inspect", "nothing"]);
    assert_eq!((out.code, out.stdout.trim()), (1, "[]"));
    assert!(out.stderr.to_lowercase().contains("no such object: nothing"), "{out:?}");
    d.ok(&["create", "--name", "c1", "busybox"]);
    assert_eq!(d.run(&["inspect", "--format", "{{.Nope", "c1"]).code, 64);
    assert_ne!(d.run(&["inspect", "--format", "{{.Nope}}", "c1"]).code, 0);
    let both = d.run(&["inspect", "--format", "{{.Name}}", "c1", "nothing"]);
    assert_eq!((both.code, both.stdout.lines().next()), (1, Some("/c1")));
    assert_eq!(d.ok(&["inspect", "--type", "image", "--format", "{{index .RepoTags 0}}", "busybox"]), "busybox:latest");
}
