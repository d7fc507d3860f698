use super::*;
use crate::key::KeyBuilder;
use std::fs;
use std::os::unix::fs::symlink;

struct Fixture {
    outer: tempfile::TempDir,
    context: Context,
}

fn fixture(ignore: &str) -> Fixture {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("ctx");
    fs::create_dir_all(dir.join("src/deep")).unwrap();
    fs::write(outer.path().join("secret"), "outside").unwrap();
    fs::write(dir.join("a.txt"), "a").unwrap();
    fs::write(dir.join("b.txt"), "b").unwrap();
    fs::write(dir.join("src/main.c"), "main").unwrap();
    fs::write(dir.join("src/deep/x.md"), "x").unwrap();
    symlink("../secret", dir.join("up")).unwrap();
    symlink(outer.path().join("secret"), dir.join("abs")).unwrap();
    symlink("src", dir.join("link")).unwrap();
    symlink("/src/main.c", dir.join("anchored")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    let mut context = Context::open(&dir).unwrap();
    context.set_ignore(ignore.as_bytes()).unwrap();
    Fixture { outer, context }
}

fn find(f: &Fixture, word: &str) -> Result<Vec<String>, String> {
    let tree = SourceTree { root: f.context.root(), ignore: f.context.ignore(), keep_owner: false, memory: None };
    let show = |found: &Found| {
        found
            .entries
            .iter()
            .map(|e| {
                let path = [found.path.as_slice(), b":", e.path.as_slice()].concat();
                String::from_utf8(path).unwrap()
            })
            .collect::<Vec<_>>()
    };
    tree.find(word).map(|l| l.iter().flat_map(show).collect()).map_err(|e| e.to_string())
}

#[test]
fn sources() {
    let f = fixture("");
    assert_eq!(find(&f, "a.txt").unwrap(), ["a.txt:"]);
    assert_eq!(find(&f, "/a.txt").unwrap(), ["a.txt:"]);
    assert_eq!(find(&f, "../../a.txt").unwrap(), ["a.txt:"]);
    assert_eq!(find(&f, "src/").unwrap(), ["src:", "src:deep", "src:deep/x.md", "src:main.c"]);
    assert_eq!(find(&f, "link").unwrap(), find(&f, "src").unwrap());
    assert_eq!(find(&f, "anchored").unwrap(), ["src/main.c:"]);
    assert_eq!(find(&f, "*.txt").unwrap(), ["a.txt:", "b.txt:"]);
    assert_eq!(find(&f, "s*/*.c").unwrap(), ["src/main.c:"]);
    assert_eq!(find(&f, "*.none").unwrap(), Vec::<String>::new());
    assert!(find(&f, ".").unwrap().contains(&":src/main.c".to_owned()));
    let e = find(&f, "nope").unwrap_err();
    assert_eq!(e, "failed to compute cache key: failed to calculate checksum of \"/nope\": not found");
    assert!(find(&f, "loop").is_err());
}

#[test]
fn links_never_lead_out() {
    let f = fixture("");
    for word in ["up", "abs", "../secret", "src/../../secret", "u*"] {
        assert!(find(&f, word).is_err(), "{word} left the context");
    }
    // Control: the same file is found when it is inside.
    fs::write(f.outer.path().join("ctx/secret"), "inside").unwrap();
    assert_eq!(find(&f, "up").unwrap(), ["secret:"]);
    // Inside a copied directory the link itself is kept.
    assert!(find(&f, ".").unwrap().contains(&":up".to_owned()));
}

#[test]
fn ignore_rules_apply_to_real_paths() {
    let f = fixture("src\n!src/deep\n*.txt\n");
    assert_eq!(find(&f, "src").unwrap(), ["src:", "src:deep", "src:deep/x.md"]);
    let hidden = "failed to compute cache key: failed to calculate checksum of \"/a.txt\": not found (it is excluded by .dockerignore)";
    assert_eq!(find(&f, "a.txt").unwrap_err(), hidden);
    assert!(find(&f, "anchored").is_err());
    assert_eq!(find(&f, "*.txt").unwrap(), Vec::<String>::new());
    assert!(!find(&f, ".").unwrap().contains(&":src/main.c".to_owned()));
}

#[test]
fn the_fingerprint_ignores_times_only() {
    let f = fixture("");
    let tree = SourceTree { root: f.context.root(), ignore: f.context.ignore(), keep_owner: false, memory: None };
    let print = || {
        let mut key = KeyBuilder::new("t");
        tree.find("src").unwrap().iter().for_each(|found| found.fingerprint(&mut key));
        key.finish()
    };
    let first = print();
    let file = f.outer.path().join("ctx/src/main.c");
    fs::File::open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(print(), first);
    fs::write(&file, "niam").unwrap();
    let second = print();
    assert_ne!(second, first);
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_ne!(print(), second);
}

#[test]
fn dockerfiles_and_ignore_files_are_read_inside() {
    let mut f = fixture("");
    let dir = f.outer.path().join("ctx");
    symlink("../secret", dir.join("Dockerfile")).unwrap();
    assert_eq!(f.context.read_dockerfile("Dockerfile").unwrap(), None);
    fs::write(dir.join("D"), "FROM x").unwrap();
    fs::write(dir.join("D.dockerignore"), "a.txt").unwrap();
    fs::write(dir.join(".dockerignore"), "b.txt").unwrap();
    assert_eq!(f.context.read_dockerfile("D").unwrap().as_deref(), Some(&b"FROM x"[..]));
    f.context.load_ignore(Some("D")).unwrap();
    assert!(f.context.ignore().excludes("a.txt") && !f.context.ignore().excludes("b.txt"));
    f.context.load_ignore(None).unwrap();
    assert!(!f.context.ignore().excludes("a.txt") && f.context.ignore().excludes("b.txt"));
    assert!(f.context.read_dockerfile("src").is_err());
}
