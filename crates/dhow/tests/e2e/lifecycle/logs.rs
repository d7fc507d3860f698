//! `logs` and `attach`.

use crate::{SOON, dhow, lines};
use dhow_testkit::process::finish;
use std::io::{Read as _, Write as _};

#[test]
fn streams_stay_apart() {
    let d = dhow();
    let id = d.background(&[], &["sh", "-c", "echo out; echo err >&2"]);
    d.ok(&["wait", &id]);
    let out = d.run(&["logs", &id]);
    assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (0, "out\n", "err\n"));
}

#[test]
fn tail_timestamps_and_times() {
    let d = dhow();
    let id = d.background(
        &[],
        &["sh", "-c", "for i in 1 2 3 4; do echo line $i; done; sleep 0.1; echo line 5; sleep 0.1; printf partial"],
    );
    d.ok(&["wait", &id]);
    assert_eq!(d.ok(&["logs", "--tail", "2", &id]), "line 5\npartial");
    assert_eq!(d.ok(&["logs", "-n", "0", &id]), "");
    assert_eq!(lines(&d.ok(&["logs", "--tail", "all", &id])).len(), 6);
    let stamped = d.ok(&["logs", "-t", "--tail", "2", &id]);
    let (time, text) = stamped.lines().next().unwrap().split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.len() == 30 && text == "line 5", "{stamped}");
    assert_eq!(d.ok(&["logs", "--since", "2100-01-01", &id]), "");
    assert_eq!(lines(&d.ok(&["logs", "--since", "10m", &id])).len(), 6);
    assert_eq!(d.ok(&["logs", "--until", "10m", &id]), "");
    assert!(d.ok(&["logs", "--since", time, &id]).starts_with("line 5"));
    d.fails(&["logs", "nothing"], 1, &["No such container: nothing"]);
}

#[test]
fn follow_ends_with_the_container() {
    let d = dhow();
    let id = d.background(&[], &["sh", "-c", "echo first; read x; echo last"]);
    let child = d.spawn(&["logs", "-f", &id]);
    let out = finish(child, "logs -f", b"", SOON);
    assert_eq!((out.code, out.stdout.as_str()), (0, "first\nlast\n"), "stdin is empty, so the program ended");
    let id = d.background(&[], &["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.05; done"]);
    let out = finish(d.spawn(&["logs", "--follow", &id]), "logs -f", b"", SOON);
    assert_eq!(lines(&out.stdout), ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

#[test]
fn long_lines_come_back_whole() {
    let d = dhow();
    let id = d.background(&[], &["sh", "-c", "head -c 50000 /dev/zero | tr '\\0' x; echo; echo end"]);
    d.ok(&["wait", &id]);
    let out = d.ok(&["logs", &id]);
    assert_eq!(lines(&out).iter().map(|l| l.len()).collect::<Vec<_>>(), [50000, 3]);
    let log = std::fs::read_to_string(d.inspect(&id, "{{.LogPath}}")).unwrap();
    for record in log.lines() {
        let record: serde_json::Value = serde_json::from_str(record).unwrap();
        assert!(
            record["log"].as_str().unwrap().len() <= 16384 && record["stream"] == "stdout",
            "Docker's json-file format"
        );
    }
}

#[test]
fn a_torn_record_is_skipped() {
    let d = dhow();
    let id = d.background(&[], &["echo", "before"]);
    d.ok(&["wait", &id]);
    let path = d.inspect(&id, "{{.LogPath}}");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"log\":\"torn\n\0\0\0\0");
    std::fs::write(&path, bytes).unwrap();
    d.ok(&["start", &id]);
    d.ok(&["wait", &id]);
    assert_eq!(d.ok(&["logs", &id]).matches("before").count(), 2);
}

#[test]
fn rotation() {
    let d = dhow();
    let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=2"];
    let id = d.background(&options, &["sh", "-c", "for i in $(seq 2000); do echo line $i; done"]);
    d.ok(&["wait", &id]);
    let path = std::path::PathBuf::from(d.inspect(&id, "{{.LogPath}}"));
    let total: u64 = std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().contains("-json.log"))
        .map(|e| e.metadata().unwrap().len())
        .sum();
    assert!(total <= 45_000, "{total}");
    assert!(d.ok(&["logs", &id]).ends_with("line 2000"));
    d.fails(&["run", "--log-opt", "max-size=x", "busybox"], 125, &["size"]);
    d.fails(&["run", "--log-driver", "nosuch", "busybox"], 125, &["nosuch"]);
}

#[test]
fn driver_none_keeps_nothing() {
    let d = dhow();
    let out = d.run(&["run", "--name", "c1", "--log-driver", "none", "busybox", "echo", "seen"]);
    assert_eq!(out.stdout, "seen\n");
    d.fails(&["logs", "c1"], 1, &["does not support reading"]);
}

#[test]
fn attach_shows_what_comes() {
    let d = dhow();
    d.ok(&["run", "-d", "-i", "--name", "c1", "busybox", "sh", "-c", "while read x; do echo got $x; done; exit 6"]);
    let mut client = d.spawn(&["attach", "c1"]);
    client.stdin.take().unwrap().write_all(b"one\ntwo\n").unwrap();
    let mut out = [0; 16];
    client.stdout.take().unwrap().read_exact(&mut out).unwrap();
    assert_eq!(&out, b"got one\ngot two\n");
    // The input was closed, but with -d -i a container's input outlives the clients (StdinOnce is false).
    assert_eq!(d.inspect("c1", "{{.State.Running}}"), "true");
    client.kill().unwrap();
    client.wait().unwrap();
    d.ok(&["stop", "-t", "0", "c1"]);
    d.fails(&["attach", "c1"], 1, &["stopped container"]);
    d.fails(&["attach", "nothing"], 1, &["No such container: nothing"]);
}
