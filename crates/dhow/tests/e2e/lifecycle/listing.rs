//! `ps`, and `commit`.

use crate::{dhow, lines};

#[test]
fn the_table() {
    let d = dhow();
    d.ok(&["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sleep", "100"]);
    d.ok(&["create", "--name", "idle", "busybox", "sh", "-c", "a very long command line it is"]);
    let out = d.ok(&["ps"]);
    let all = lines(&out);
    let header: Vec<&str> = all[0].split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    assert_eq!(header, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    assert_eq!(all.len(), 2);
    assert!(
        all[1].contains("\"sleep 100\"")
            && all[1].contains("Up ")
            && all[1].contains("0.0.0.0:8080->80/tcp")
            && all[1].ends_with("web"),
        "{out}"
    );
    let out = d.ok(&["ps", "-a"]);
    assert!(
        lines(&out)[1].contains("Created") && lines(&out)[1].contains('…'),
        "newest first, long commands cut: {out}"
    );
    assert_eq!(d.ok(&["ps", "-a", "--format", "{{.Names}}"]), "idle\nweb");
    assert_eq!(d.ok(&["ps", "-l", "--format", "{{.Names}}"]), "idle");
    assert_eq!(d.ok(&["ps", "-n", "1", "--format", "{{.Names}} {{.State}}"]), "idle created");
    assert_eq!(d.ok(&["ps", "-q"]).len(), 12);
    assert_eq!(d.ok(&["ps", "-q", "--no-trunc"]).len(), 64);
    assert_eq!(d.ok(&["container", "ls", "--format", "table {{.Names}}\t{{.Image}}"]).lines().count(), 2);
    let json: serde_json::Value = serde_json::from_str(&d.ok(&["ps", "--format", "json"])).unwrap();
    assert_eq!((json["Names"].as_str(), json["State"].as_str()), (Some("web"), Some("running")));
}

#[test]
fn filters() {
    let d = dhow();
    d.ok(&["run", "-d", "--name", "web1", "--label", "tier=front", "busybox", "sleep", "100"]);
    d.ok(&["create", "--name", "made", "busybox"]);
    assert_eq!(d.run(&["run", "--name", "job", "--label", "tier=back", "busybox", "sh", "-c", "exit 3"]).code, 3);
    let names = |filter: &str| d.ok(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]);
    assert_eq!(names("name=web"), "web1");
    assert_eq!(names("label=tier=front"), "web1");
    assert_eq!(names("label=tier"), "job\nweb1");
    assert_eq!(names("status=running"), "web1");
    assert_eq!(names("status=created"), "made");
    assert_eq!(names("exited=3"), "job");
    assert_eq!(names("ancestor=busybox").lines().count(), 3);
    d.fails(&["ps", "--filter", "nosuch=1"], 1, &["nosuch"]);
}

#[test]
fn status_texts() {
    let d = dhow();
    d.run(&["run", "--name", "c1", "busybox", "sh", "-c", "exit 3"]);
    let status = d.ok(&["ps", "-a", "--format", "{{.Status}}"]);
    assert!(status.starts_with("Exited (3) ") && status.ends_with(" ago"), "{status}");
}

#[test]
fn a_damaged_record_hides_no_other() {
    let d = dhow();
    let bad = d.ok(&["create", "--name", "bad", "busybox"]);
    d.ok(&["create", "--name", "good", "busybox"]);
    let dir = d.root().join("containers").join(&bad);
    let config = std::fs::read(dir.join("config.json")).unwrap();
    std::fs::write(dir.join("config.json"), b"{ broken").unwrap();
    let out = d.run(&["ps", "-a", "--format", "{{.Names}}"]);
    assert!(out.stdout.lines().any(|l| l == "good"), "{out:?}");
    std::fs::write(dir.join("config.json"), config).unwrap();
    assert_eq!(lines(&d.ok(&["ps", "-a", "--format", "{{.Names}}"])), ["good", "bad"]);
}

#[test]
fn commit_keeps_files_and_config() {
    let d = dhow();
    d.file("data/host", "host");
    let bind = format!("{}:/bound", d.path("data"));
    d.background(
        &["--name", "c1", "-v", &bind, "-e", "A=1", "-w", "/tmp"],
        &["sh", "-c", "echo new > /new; rm /etc/notexec; touch /ready; sleep 100"],
    );
    d.ok(&["exec", "c1", "sh", "-c", "until [ -e /ready ]; do sleep 0.01; done"]);
    let id =
        d.ok(&["commit", "-a", "Me", "-m", "why", "-c", "ENV B=2", "-c", "CMD [\"cat\", \"/new\"]", "c1", "snap:v1"]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    assert_eq!(d.ok(&["run", "--rm", "snap:v1"]), "new");
    assert_eq!(
        d.ok(&[
            "run",
            "--rm",
            "snap:v1",
            "sh",
            "-c",
            "echo $A$B; pwd; ls /bound; ls /etc/notexec 2>&1 | grep -c 'No such'"
        ]),
        "12\n/tmp\n1"
    );
    assert_eq!(d.ok(&["inspect", "-f", "{{.Author}}|{{.Comment}}", "snap:v1"]), "Me|why");
    assert_eq!(d.ok(&["images", "-q", "--no-trunc", "snap:v1"]), id);
    d.fails(&["commit", "nothing"], 1, &["No such container: nothing"]);
    d.fails(&["commit", "c1", "Bad Name"], 1, &["invalid reference"]);
    d.fails(&["commit", "-c", "RUN x", "c1"], 1, &["RUN"]);
    // Commit of a commit: layers add up.
    d.ok(&["run", "--name", "c2", "snap:v1", "sh", "-c", "echo two > /two"]);
    d.ok(&["commit", "c2", "snap:v2"]);
    assert_eq!(d.ok(&["run", "--rm", "snap:v2", "cat", "/new", "/two"]), "new\ntwo");
}
