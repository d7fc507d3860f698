//! Layers that want to write outside (CVE-2018-15664, CVE-2021-32760, CVE-2026-17106 and their kind).

use super::Range;
use dhow_testkit::image::Kind;
use dhow_testkit::{Entry, Tar};

/// Loads a layer of `entries` followed by a marker. Either the load fails and says why, or the marker is in the image:
/// both show that the engine has read past the hostile entries. The host must be unharmed in any case.
#[track_caller]
fn attack(what: &str, entries: impl Fn(&Range) -> Vec<Entry>) {
    let range = Range::new();
    let baseline = Tar::of([Entry::file("marker", 0o644, "seen")]);
    assert_eq!(range.load("good", &baseline).code, 0, "baseline");
    assert_eq!(range.d.ok(&["run", "--rm", "good", "cat", "/marker"]), "seen", "baseline");
    let mut all = entries(&range);
    all.push(Entry::file("marker", 0o644, "seen"));
    let out = range.load("bad", &Tar::of(all));
    if out.code == 0 {
        assert_eq!(range.d.ok(&["run", "--rm", "bad", "cat", "/marker"]), "seen", "control: {what}");
    } else {
        assert!(out.stderr.len() > 10, "control: {what}: {out:?}");
        assert_eq!(range.d.run(&["image", "inspect", "bad"]).code, 1, "{what}: nothing half-made is visible");
    }
    range.unharmed();
}

#[test]
fn names_that_climb() {
    attack("../", |r| vec![Entry::file(&format!("{}/made", r.climbing()), 0o644, "attack")]);
    attack("../ overwrite", |r| vec![Entry::file(&format!("{}/secret", r.climbing()), 0o644, "attack")]);
    attack("a/../../", |r| vec![Entry::file(&format!("a/{}/secret", r.climbing()), 0o644, "attack")]);
    attack("absolute", |r| vec![Entry::file(&format!("{}/secret", r.victim.text()), 0o644, "attack")]);
    attack("a directory", |r| vec![Entry::dir(&format!("{}/dir", r.climbing()), 0o777).owned(1, 1)]);
}

#[test]
fn writing_through_symbolic_links() {
    for relative in [false, true] {
        let aim = |r: &Range| if relative { r.climbing() } else { r.victim.text().to_owned() };
        attack("a link, then a file through it", |r| {
            vec![
                Entry::symlink("esc", &aim(r)),
                Entry::file("esc/secret", 0o644, "attack"),
                Entry::file("esc/made", 0o644, "attack"),
            ]
        });
        attack("a link, then the same name as a file", |r| {
            vec![Entry::symlink("f", &format!("{}/secret", aim(r))), Entry::file("f", 0o644, "attack")]
        });
        attack("a link, then the same name as a directory", |r| {
            vec![
                Entry::symlink("d", &aim(r)),
                Entry::dir("d/", 0o777).owned(1, 1).modified(1),
                Entry::file("d/secret", 0o644, "attack"),
            ]
        });
        attack("a chain of links", |r| {
            vec![
                Entry::symlink("one", "two/three"),
                Entry::symlink("two", &aim(r)),
                Entry::file("one/x", 0o644, "a"),
                Entry::file("two/secret", 0o644, "a"),
            ]
        });
    }
}

#[test]
fn links_in_a_lower_layer() {
    let range = Range::new();
    let lower = Tar::of([Entry::symlink("esc", range.victim.text()), Entry::symlink("up", &range.climbing())]);
    let upper = Tar::of([
        Entry::file("esc/secret", 0o644, "attack"),
        Entry::file("up/made", 0o644, "attack"),
        Entry::file("esc/.wh.secret", 0o644, ""),
        Entry::file("marker", 0o644, "seen"),
    ]);
    let image =
        dhow_testkit::ImageBuilder::new("two").layer(&dhow_testkit::image::busybox_layer()).layer(&lower).layer(&upper);
    let out = range.d.input(&["load", "-q"], &image.archive());
    if out.code == 0 {
        assert_eq!(range.d.ok(&["run", "--rm", "two", "cat", "/marker"]), "seen");
    }
    range.unharmed();
}

#[test]
fn hard_links_to_the_host() {
    attack("absolute", |r| {
        vec![Entry::link("hard", &format!("{}/secret", r.victim.text())), Entry::file("hard", 0o644, "attack")]
    });
    attack("climbing", |r| {
        vec![Entry::link("hard", &format!("{}/secret", r.climbing())), Entry::file("hard", 0o644, "attack")]
    });
    attack("through a link", |r| {
        vec![
            Entry::symlink("esc", r.victim.text()),
            Entry::link("hard", "esc/secret"),
            Entry::file("hard", 0o644, "attack"),
        ]
    });
    // Links inside the image still work, absolute ones too.
    let range = Range::new();
    let tar = Tar::of([
        Entry::file("a", 0o644, "x"),
        Entry::link("b", "a"),
        Entry::link("c1", "/a"),
        Entry::symlink("s", "/a"),
    ]);
    assert_eq!(range.load("links", &tar).code, 0);
    assert_eq!(range.d.ok(&["run", "--rm", "links", "sh", "-c", "cat /a /b /c1 /s; stat -c %h /a"]), "xxxx3");
}

#[test]
fn whiteouts_that_delete_elsewhere() {
    attack("of ..", |_| vec![Entry::file("d/.wh...", 0o644, ""), Entry::file(".wh..", 0o644, "")]);
    attack("of a climbing name", |r| vec![Entry::file(&format!("{}/.wh.secret", r.climbing()), 0o644, "")]);
    attack("through a link", |r| {
        vec![Entry::symlink("esc", r.victim.text()), Entry::file("esc/.wh.secret", 0o644, "")]
    });
    attack("opaque through a link", |r| {
        vec![Entry::symlink("esc", r.victim.text()), Entry::file("esc/.wh..wh..opq", 0o644, "")]
    });
}

#[test]
fn modes_and_times_through_links() {
    attack("mode", |r| {
        vec![Entry::symlink("esc", &format!("{}/secret", r.victim.text())), Entry::file("esc", 0o777, "").modified(1)]
    });
    attack("attributes", |r| {
        vec![
            Entry::symlink("esc", &format!("{}/secret", r.victim.text()))
                .pax("SCHILY.xattr.user.attack", b"1")
                .owned(9, 9),
        ]
    });
}

#[test]
fn overlay_attributes_are_not_taken() {
    let range = Range::new();
    let tar = Tar::of([
        Entry::dir("etc/", 0o755).pax("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        Entry::dir("r/", 0o755).pax("SCHILY.xattr.trusted.overlay.redirect", b"/root"),
        Entry::file("marker", 0o644, "seen"),
    ]);
    let out = range.load("attrs", &tar);
    assert_eq!(out.code, 0, "{out:?}");
    assert_eq!(range.d.ok(&["run", "--rm", "attrs", "cat", "/marker"]), "seen");
    assert!(
        range.d.ok(&["run", "--rm", "attrs", "cat", "/etc/passwd"]).contains("root"),
        "the lower /etc is still seen"
    );
    range.unharmed();
}

#[test]
fn devices_are_of_no_use_on_the_host() {
    let range = Range::new();
    let tar = Tar::of([
        Entry::device(Kind::Character, "null", 1, 3),
        Entry::device(Kind::Block, "disk", 254, 0),
        Entry::fifo("pipe"),
        Entry::file("setuid", 0o4755, "#!/bin/sh\n"),
    ]);
    assert_eq!(range.load("devices", &tar).code, 0);
    let out = range.d.run(&["run", "--rm", "devices", "sh", "-c", "stat -c %F /null /disk /pipe; head -c1 /disk"]);
    assert!(out.stdout.contains("block special file") && out.stderr.contains("Operation not permitted"), "{out:?}");
    use std::os::unix::fs::PermissionsExt as _;
    for dir in ["blobs", "layers", "containers"] {
        let mode = std::fs::metadata(range.d.root().join(dir)).unwrap().permissions().mode() & 0o077;
        assert_eq!(mode & 0o066, 0, "{dir} is closed to other users");
    }
    range.unharmed();
}

#[test]
fn names_and_sizes_beyond_reason() {
    attack("a name of 64 KiB", |_| vec![Entry::file(&"n".repeat(65536), 0o644, "")]);
    attack("a deep path", |_| vec![Entry::file(&"d/".repeat(3000), 0o644, "")]);
    attack("a loop of links", |_| {
        vec![Entry::symlink("a", "b"), Entry::symlink("b", "a"), Entry::file("a/x", 0o644, "")]
    });
    attack("a size of 2^62", |_| vec![Entry::file("big", 0o644, "x").claiming(1 << 62)]);
    attack("a NUL in a pax path", |_| vec![Entry::file("f", 0o644, "").pax("path", b"a\0b")]);
    attack("a pax path that climbs", |r| {
        vec![Entry::file("f", 0o644, "attack").pax("path", format!("{}/secret", r.climbing()))]
    });
    attack("a pax link that climbs", |r| {
        vec![
            Entry::link("f", "x").pax("linkpath", format!("{}/secret", r.climbing())),
            Entry::file("f", 0o644, "attack"),
        ]
    });
}

#[test]
fn an_archive_to_load_that_climbs() {
    let range = Range::new();
    let image = dhow_testkit::ImageBuilder::new("x").layer(&dhow_testkit::image::busybox_layer());
    assert_eq!(range.d.input(&["load", "-q"], &image.archive()).code, 0, "baseline");
    let manifest = serde_json::json!([{ "Config": format!("{}/secret", range.climbing()), "RepoTags": ["bad:1"], "Layers": ["../../secret"] }]);
    let tar = Tar::of([
        Entry::file(&format!("{}/made", range.climbing()), 0o644, "attack"),
        Entry::symlink("layer.tar", &format!("{}/secret", range.victim.text())),
        Entry::file("manifest.json", 0o644, manifest.to_string()),
    ]);
    let out = range.d.input(&["load"], &tar);
    assert!(out.code != 0 && !out.stderr.contains("host secret"), "{out:?}");
    range.unharmed();
}

#[test]
fn archives_in_a_build() {
    let range = Range::new();
    let hostile = Tar::of([
        Entry::symlink("esc", range.victim.text()),
        Entry::file("esc/secret", 0o644, "attack"),
        Entry::file(&format!("{}/made", range.climbing()), 0o644, "attack"),
        Entry::file("marker", 0o644, "seen"),
    ]);
    range.d.file("ctx/x.tar", hostile);
    range.d.file("ctx/good.tar", Tar::of([Entry::file("marker", 0o644, "seen")]));
    range.d.file("ctx/Dockerfile", "FROM busybox\nADD good.tar /in/\n");
    range.d.ok(&["build", "-q", "-t", "good", &range.d.path("ctx")]);
    assert_eq!(range.d.ok(&["run", "--rm", "good", "cat", "/in/marker"]), "seen", "baseline");
    range.d.file("ctx/Dockerfile", "FROM busybox\nADD x.tar /in/\n");
    let out = range.d.run(&["build", "-q", "-t", "bad", &range.d.path("ctx")]);
    if out.code == 0 {
        assert_eq!(range.d.ok(&["run", "--rm", "bad", "cat", "/in/marker"]), "seen");
    } else {
        assert!(out.stderr.contains("x.tar") || out.stderr.len() > 10, "{out:?}");
    }
    range.unharmed();
}
