//! Images: names, listing, `rmi`, archives.

use crate::{dhow, empty, lines};
use dhow_testkit::image::{ImageBuilder, Kind, busybox_layer};
use dhow_testkit::{Entry, Tar};
use serde_json::json;

fn id(d: &dhow_testkit::Dhow, name: &str) -> String {
    d.inspect(name, "{{.Id}}")
}

#[test]
fn load_says_what_it_loaded() {
    let d = empty();
    let archive = dhow_testkit::busybox_image();
    assert_eq!(d.ok(&["load", "-i", archive.to_str().unwrap()]), "Loaded image: busybox:latest");
    let out = d.input(&["load"], &std::fs::read(&archive).unwrap());
    assert_eq!((out.code, out.stdout.trim()), (0, "Loaded image: busybox:latest"), "the same by standard input");
    d.fails(&["load", "-i", "/no/such/file"], 1, &["/no/such/file"]);
}

#[test]
fn every_form_of_archive_gives_the_same_image() {
    let layer = Tar::of([Entry::file("f", 0o644, "content\n")]);
    let image = || ImageBuilder::new("x:1").layer(&layer);
    let mut ids = Vec::new();
    for bytes in [
        image().archive(),
        image().archive_without(&["manifest.json"]),
        image().archive_without(&["index.json", "oci-layout"]),
        image().old_archive(),
        dhow_testkit::image::gzip(&image().archive()),
    ] {
        let d = empty();
        let out = d.input(&["load", "-q"], &bytes);
        assert_eq!(out.code, 0, "{out:?}");
        ids.push(id(&d, "x:1"));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn tag_and_list() {
    let d = dhow();
    d.ok(&["tag", "busybox", "other/name:v1"]);
    d.ok(&["tag", "busybox:latest", "localhost:5000/name"]);
    let out = d.ok(&["images"]);
    let all = lines(&out);
    assert_eq!(
        all[0].split("  ").map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>(),
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    );
    let names: Vec<_> = all[1..].iter().map(|l| l.split_whitespace().take(2).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(names.len(), 3, "{out}");
    for name in ["busybox:latest", "other/name:v1", "localhost:5000/name:latest"] {
        assert!(names.contains(&name.to_owned()), "{out}");
    }
    assert_eq!(d.ok(&["images", "-q", "busybox"]).len(), 12);
    assert_eq!(d.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}", "other/*"]), "other/name:v1");
    assert_eq!(d.ok(&["images", "--filter", "reference=busy*", "--format", "{{.Repository}}"]), "busybox");
    assert_eq!(id(&d, "other/name:v1"), id(&d, "docker.io/library/busybox"));
    assert_eq!(id(&d, &id(&d, "busybox")[7..19]), id(&d, "busybox"), "a short id names it too");
    d.fails(&["tag", "nothing", "x"], 1, &["No such image: nothing"]);
    d.fails(&["tag", "busybox", "Upper"], 1, &["invalid reference format"]);
}

#[test]
fn rmi_untags_then_deletes() {
    let d = dhow();
    d.ok(&["tag", "busybox", "two"]);
    let all = id(&d, "busybox");
    assert_eq!(d.ok(&["rmi", "two"]), "Untagged: two:latest");
    let out = d.ok(&["rmi", "busybox"]);
    assert_eq!(lines(&out)[0], "Untagged: busybox:latest");
    assert!(lines(&out).contains(&format!("Deleted: {all}").as_str()), "{out}");
    assert_eq!(d.ok(&["images", "-aq"]), "");
    d.fails(&["rmi", "busybox"], 1, &["No such image: busybox"]);
    assert_eq!(d.run(&["rmi", "-f", "busybox"]).code, 0);
    let left = std::fs::read_dir(d.root().join("layers")).into_iter().flatten().count();
    assert_eq!(left, 0, "the layers' bytes are given back");
}

#[test]
fn rmi_refuses_what_is_used() {
    let d = dhow();
    let all = id(&d, "busybox");
    let short = &all[7..19];
    d.background(&["--name", "c1"], &["sleep", "100"]);
    d.fails(&["rmi", short], 1, &["cannot be forced", "running container"]);
    d.fails(&["rmi", "busybox"], 1, &["conflict", "must be forced"]);
    d.fails(&["rmi", "-f", short], 1, &["cannot be forced"]);
    d.ok(&["stop", "-t", "0", "c1"]);
    d.fails(&["rmi", short], 1, &["must be forced", "stopped container"]);
    d.ok(&["tag", "busybox", "two"]);
    d.ok(&["rmi", "busybox"]);
    d.ok(&["rm", "c1"]);
    d.ok(&["tag", "two", "three"]);
    d.fails(&["rmi", short], 1, &["must be forced", "multiple repositories"]);
    d.ok(&["rmi", "-f", short]);
    assert_eq!(d.ok(&["images", "-q"]), "");
}

#[test]
fn save_and_load_keep_the_image() {
    let d = dhow();
    d.ok(&["tag", "busybox", "two:v2"]);
    let before = id(&d, "busybox");
    let file = d.path("saved.tar");
    d.ok(&["save", "-o", &file, "busybox", "two:v2"]);
    let names: Vec<String> = tar_names(&std::fs::read(&file).unwrap());
    for name in ["oci-layout", "index.json", "manifest.json"] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
    let piped = d.run(&["save", "busybox", "two:v2"]);
    assert_eq!(tar_names(&piped.bytes).len(), names.len());
    d.ok(&["rmi", "-f", "busybox", "two:v2"]);
    let out = d.ok(&["load", "-i", &file]);
    assert!(out.contains("Loaded image: busybox:latest") && out.contains("Loaded image: two:v2"), "{out}");
    assert_eq!(id(&d, "busybox"), before);
    assert_eq!(d.ok(&["run", "--rm", "two:v2", "echo", "works"]), "works");
    d.fails(&["save", "-o", &file, "nothing"], 1, &["nothing"]);
}

fn tar_names(bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at + 512 <= bytes.len() && bytes[at] != 0 {
        let text = |from: usize, len: usize| {
            String::from_utf8_lossy(&bytes[at + from..at + from + len]).trim_matches(['\0', ' ']).to_owned()
        };
        names.push(text(0, 100));
        at += 512 + usize::from_str_radix(&text(124, 12), 8).unwrap_or(0).next_multiple_of(512);
    }
    names
}

#[test]
fn export_and_import() {
    let d = dhow();
    d.ok(&["run", "--name", "c1", "busybox", "sh", "-c", "echo made > /made; rm /etc/notexec"]);
    let file = d.path("root.tar");
    d.ok(&["export", "-o", &file, "c1"]);
    let names = tar_names(&std::fs::read(&file).unwrap());
    let has = |name: &str| names.iter().any(|n| n.trim_start_matches("./").trim_end_matches('/') == name);
    assert!(has("made") && has("bin/busybox") && !has("etc/notexec") && !has("etc/.wh.notexec"), "{names:?}");
    let imported =
        d.ok(&["import", "-c", "CMD [\"cat\", \"/made\"]", "-c", "ENV A=1", "-m", "from a tree", &file, "flat:1"]);
    assert!(imported.starts_with("sha256:"), "{imported}");
    assert_eq!(d.ok(&["run", "--rm", "flat:1"]), "made");
    assert_eq!(
        d.ok(&["run", "--rm", "flat:1", "sh", "-c", "echo $A; stat -c %a /tmp; ls -l /bin/ls | wc -l"]),
        "1\n1777\n1"
    );
    assert_eq!(lines(&d.ok(&["history", "-q", "flat:1"])).len(), 1);
    let out = d.input(&["import", "-", "piped"], &std::fs::read(&file).unwrap());
    assert!(out.code == 0 && out.stdout.starts_with("sha256:"), "{out:?}");
    d.fails(&["export", "nothing"], 1, &["No such container: nothing"]);
}

#[test]
fn history_shows_every_entry() {
    let d = dhow();
    d.file("ctx/Dockerfile", "FROM busybox\nENV A=1\nRUN echo x > /x\nCMD [\"true\"]\n");
    d.ok(&["build", "-q", "-t", "h", &d.path("ctx")]);
    let out = d.ok(&["history", "h"]);
    let all = lines(&out);
    assert_eq!(
        all[0].split("  ").map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>(),
        ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    );
    assert_eq!(all.len(), 5, "{out}");
    assert!(all[1].contains("CMD") && all[2].contains("echo x") && all[3].contains("ENV A=1"), "newest first: {out}");
    assert!(all[1].contains("0B") && all[3].contains("0B") && !all[2].contains(" 0B"), "{out}");
    assert_eq!(d.ok(&["history", "--format", "{{.Size}}", "h"]).lines().next(), Some("0B"));
    assert!(d.ok(&["history", "--no-trunc", "h"]).contains(&id(&d, "h")));
    d.fails(&["history", "nothing"], 1, &["No such image: nothing"]);
}

#[test]
fn layers_with_everything_a_tar_can_hold() {
    let long = "long/".to_owned() + &"n".repeat(200);
    let base = Tar::of([
        Entry::dir("d/", 0o750).owned(5, 6),
        Entry::file("d/gone", 0o644, "x"),
        Entry::file("d/kept", 0o4755, "setuid").owned(7, 8),
        Entry::link("hard", "d/kept").mode(0o4755).owned(7, 8),
        Entry::symlink("sym", "/d/kept"),
        Entry::dir("opaque/", 0o755),
        Entry::file("opaque/old", 0o644, "x"),
        Entry::fifo("pipe"),
        Entry::device(Kind::Character, "null", 1, 3),
        Entry::file(&long, 0o644, "long"),
        Entry::file("caps", 0o755, "x").pax(
            "SCHILY.xattr.security.capability",
            b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        ),
    ]);
    let top = Tar::of([
        Entry::file("d/.wh.gone", 0o644, ""),
        Entry::file("opaque/.wh..wh..opq", 0o644, ""),
        Entry::file("opaque/new", 0o644, "x"),
        // A parent that this layer does not list keeps the lower layer's mode and owner.
        Entry::file("d/added", 0o600, "y"),
    ]);
    let d = empty();
    let image = ImageBuilder::new("tree").layer(&busybox_layer()).layer(&base).plain_layer(&top);
    assert_eq!(d.input(&["load", "-q"], &image.archive()).code, 0);
    let script = format!(
        "ls /d; stat -c '%a %u %g' /d /d/kept; stat -c %h /hard; readlink /sym; ls /opaque; stat -c %F /pipe; stat -c '%F %t %T' /null; cat /{long}"
    );
    let out = d.ok(&["run", "--rm", "tree", "sh", "-c", &script]);
    assert_eq!(
        lines(&out),
        ["added", "kept", "750 5 6", "4755 7 8", "2", "/d/kept", "new", "fifo", "character special file 1 3", "long"]
    );
}

#[test]
fn many_layers() {
    let d = empty();
    let mut image = ImageBuilder::new("deep").layer(&busybox_layer());
    for n in 0..126 {
        image = image.plain_layer(&Tar::of([Entry::file(&format!("layer{n}"), 0o644, n.to_string())]));
    }
    assert_eq!(d.input(&["load", "-q"], &image.archive()).code, 0);
    assert_eq!(d.ok(&["run", "--rm", "deep", "sh", "-c", "ls -d /layer* | wc -l"]), "126");
}

#[test]
fn inspect_an_image() {
    let d = empty();
    let image =
        ImageBuilder::new("x").layer(&busybox_layer()).set("Labels", json!({ "a": "b" })).set("User", json!("alice"));
    assert_eq!(d.input(&["load", "-q"], &image.archive()).code, 0);
    let all: serde_json::Value = serde_json::from_str(&d.ok(&["image", "inspect", "x"])).unwrap();
    assert_eq!(all[0]["RepoTags"], json!(["x:latest"]));
    assert_eq!(all[0]["Config"]["Labels"]["a"], "b");
    assert_eq!(all[0]["Config"]["User"], "alice");
    assert_eq!(all[0]["RootFS"]["Type"], "layers");
    assert_eq!(all[0]["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    assert_eq!((all[0]["Os"].as_str(), all[0]["Architecture"].as_str()), (Some("linux"), Some("amd64")));
    d.fails(&["image", "inspect", "nothing"], 1, &["No such image: nothing"]);
}
