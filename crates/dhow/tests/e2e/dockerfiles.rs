//! A corpus of Dockerfiles: what the good ones make, and how the bad ones are refused.
//!
//! `dockerfiles/good/NAME` and `dockerfiles/bad/NAME` are contexts. Beside the Dockerfile there may be `options` (options of
//! the build, one a line; `@CONTEXT@` is the context's directory) and there is `expected`, which is not part of the context:
//!
//! * good: fields of the config, history, and the entries of the layers. `UPDATE_EXPECTED=1` writes the file; read the
//!   result before you commit it.
//! * bad: `exit CODE`, then texts that standard error must contain, one a line. A line `not TEXT` must not be there.
//!
//! A test of each group builds the directories whose names begin with the group's name.

use crate::dhow;
use dhow_testkit::Dhow;
use dhow_testkit::image::{SavedImage, layer_listing};
use serde_json::Value;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Groups of good cases.
const GOOD: &[&str] = &["add", "copy", "ignore", "metadata", "onbuild", "run", "stage", "syntax", "variable"];

/// Groups of bad cases.
const BAD: &[&str] = &["add", "context", "copy", "flag", "onbuild", "run", "stage", "syntax", "value", "variable"];

fn corpus(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/dockerfiles").join(kind)
}

/// Names of the cases, in order.
fn names(kind: &str) -> Vec<String> {
    let entries = std::fs::read_dir(corpus(kind)).expect("the corpus is there");
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn group(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}

/// Copies a case into the fixture and builds it as the image `x`.
fn build(d: &Dhow, kind: &str, name: &str) -> dhow_testkit::Output {
    let (source, context) = (corpus(kind).join(name), d.path(name));
    copy(&source, Path::new(&context));
    let options = std::fs::read_to_string(source.join("options")).unwrap_or_default();
    let options: Vec<String> = options.lines().map(|l| l.replace("@CONTEXT@", &context)).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    d.run(&[&["build", "-t", "x"], options.as_slice(), &[context.as_str()]].concat())
}

/// Plain modes, whatever the umask of the checkout was; links stay links.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if entry.file_name() == "expected" || entry.file_name() == "options" {
            continue;
        }
        let mode = if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path()).unwrap(), &target).unwrap();
            continue;
        } else if kind.is_dir() {
            copy(&entry.path(), &target);
            0o755
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
            if entry.metadata().unwrap().permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 }
        };
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What is expected of an image, as text.
fn described(image: &SavedImage) -> String {
    let mut out = String::new();
    let fields = image.config["config"].as_object().expect("an object");
    let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    let empty = |v: &Value| v.is_null() || *v == "" || *v == Value::Array(Vec::new());
    for (key, value) in fields.into_iter().filter(|(_, v)| !empty(v)) {
        writeln!(out, "{key} {value}").unwrap();
    }
    for entry in image.config["history"].as_array().into_iter().flatten() {
        let text = entry["created_by"].as_str().unwrap_or("");
        // The entry of the base image says nothing about the build.
        if !text.contains("ADD layer in /") {
            let mark = if entry["empty_layer"] == true { "" } else { " (layer)" };
            writeln!(out, "history{mark} {}", text.escape_debug()).unwrap();
        }
    }
    for layer in &image.layers {
        let lines = layer_listing(layer).expect("a tar");
        if !lines.iter().any(|l| l.contains(" bin/busybox ")) || lines.len() < 100 {
            writeln!(out, "layer").unwrap();
            lines.iter().for_each(|line| writeln!(out, "  {line}").unwrap());
        }
    }
    out
}

#[track_caller]
fn good(wanted: &str) {
    let d = dhow();
    let mut wrong = String::new();
    for name in names("good").iter().filter(|n| group(n) == wanted) {
        let out = build(&d, "good", name);
        if out.code != 0 {
            writeln!(wrong, "── {name}: exit {}\n{}{}", out.code, out.stdout, out.stderr).unwrap();
            continue;
        }
        let archive = d.path("saved.tar");
        d.ok(&["save", "-o", &archive, "x"]);
        let found = described(&SavedImage::read(Path::new(&archive)).expect("an archive"));
        let path = corpus("good").join(name).join("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if found != expected {
            writeln!(wrong, "── {name}: expected\n{expected}── but it is\n{found}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[track_caller]
fn bad(wanted: &str) {
    let d = dhow();
    let mut wrong = String::new();
    for name in names("bad").iter().filter(|n| group(n) == wanted) {
        let out = build(&d, "bad", name);
        let text = std::fs::read_to_string(corpus("bad").join(name).join("expected")).expect("an expectation");
        let (code, lines) = text.split_once('\n').expect("a first line");
        let mut missing: Vec<&str> = lines
            .lines()
            .filter(|line| match line.strip_prefix("not ") {
                Some(text) => out.stderr.contains(text),
                None => !out.stderr.contains(line),
            })
            .collect();
        if code != format!("exit {}", out.code) {
            missing.push(code);
        }
        if !missing.is_empty() {
            let missing = missing.join("\n   ");
            writeln!(wrong, "── {name}: exit {}\n{}── misses\n   {missing}", out.code, out.stderr).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(d.run(&["inspect", "x"]).code != 0, "a refused Dockerfile made an image");
}

#[test]
fn every_case_is_in_a_group() {
    for (kind, groups) in [("good", GOOD), ("bad", BAD)] {
        let names = names(kind);
        assert!(names.len() >= 30, "{} {kind} cases", names.len());
        for name in &names {
            assert!(groups.contains(&group(name)), "{kind}/{name} is in no group");
        }
        for wanted in groups {
            assert!(names.iter().any(|n| group(n) == *wanted), "group {wanted} is empty");
        }
    }
}

macro_rules! groups {
    ($($test:ident $kind:ident $group:literal,)*) => {
        $(#[test]
        fn $test() {
            $kind($group);
        })*

        #[test]
        fn every_group_has_a_test() {
            let tested = |kind: &str| -> Vec<&str> {
                [$((stringify!($kind), $group)),*].iter().filter(|(k, _)| *k == kind).map(|(_, g)| *g).collect()
            };
            assert_eq!(tested("good"), GOOD);
            assert_eq!(tested("bad"), BAD);
        }
    };
}

groups! {
    good_add good "add",
    good_copy good "copy",
    good_ignore good "ignore",
    good_metadata good "metadata",
    good_onbuild good "onbuild",
    good_run good "run",
    good_stage good "stage",
    good_syntax good "syntax",
    good_variable good "variable",
    bad_add bad "add",
    bad_context bad "context",
    bad_copy bad "copy",
    bad_flag bad "flag",
    bad_onbuild bad "onbuild",
    bad_run bad "run",
    bad_stage bad "stage",
    bad_syntax bad "syntax",
    bad_value bad "value",
    bad_variable bad "variable",
}
