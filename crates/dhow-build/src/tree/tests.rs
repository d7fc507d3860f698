use super::*;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};

fn owner_of(text: &str, passwd: &str, group: &str) -> Result<(u32, u32), String> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
    fs::write(dir.path().join("etc/group"), group).unwrap();
    let fd = File::open(dir.path()).unwrap();
    let owner = Owner::parse(text).map_err(|e| e.to_string())?;
    lookup(Root(fd.as_fd()), &owner).map_err(|e| e.to_string())
}

#[test]
fn owners() {
    let passwd = "root:x:0:0::/:\nbroken\napp:x:10:20:App:/home/app:/bin/sh\n";
    let group = "root:x:0:\nstaff:x:50:app\n";
    let find = |t| owner_of(t, passwd, group);
    assert_eq!(find("app"), Ok((10, 20)));
    assert_eq!(find("app:staff"), Ok((10, 50)));
    assert_eq!(find("7"), Ok((7, 7)));
    assert_eq!(find("7:staff"), Ok((7, 50)));
    assert_eq!(find("app:9"), Ok((10, 9)));
    for bad in ["nobody", "app:nogroup", "", ":", "a:b:c", "4294967295", "99999999999", "app:", "../x"] {
        assert!(find(bad).is_err(), "{bad}");
    }
}

#[test]
fn odd_account_files_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    let fd = File::open(dir.path()).unwrap();
    let owner = Owner::parse("app").unwrap();
    let path = dir.path().join("etc/passwd");
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert!(matches!(lookup(Root(fd.as_fd()), &owner), Err(TreeError::BadAccounts(_))));
    fs::remove_file(&path).unwrap();
    // The host's own file is out of reach, whatever the link says.
    symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(lookup(Root(fd.as_fd()), &owner), Err(TreeError::NoSuchName { .. })));
    fs::remove_file(&path).unwrap();
    let huge = File::create(&path).unwrap();
    huge.set_len(1 << 30).unwrap();
    assert!(matches!(lookup(Root(fd.as_fd()), &owner), Err(TreeError::BadAccounts(_))));
}

#[test]
fn paths_split() {
    let show = |p: &'static str| {
        let (a, b) = split(p.as_bytes());
        (std::str::from_utf8(a).unwrap(), std::str::from_utf8(b).unwrap())
    };
    assert_eq!(show("/a/b"), ("/a", "b"));
    assert_eq!(show("/a/b//"), ("/a", "b"));
    assert_eq!(show("/a/./"), ("", "a"));
    assert_eq!(show("a"), ("", "a"));
    assert_eq!(show("/"), ("", ""));
    assert_eq!(show("."), ("", ""));
    assert_eq!(show("a/.."), ("a", ".."));
}

#[test]
fn directories_are_made_through_dangling_links() {
    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let dir = tempfile::tempdir().unwrap();
    let fd = File::open(dir.path()).unwrap();
    let root = Root(fd.as_fd());
    symlink("/target/deep", dir.path().join("link")).unwrap();
    symlink("self", dir.path().join("self")).unwrap();
    root.make_directories(b"/link/x", me).unwrap();
    assert!(dir.path().join("target/deep/x").is_dir());
    assert!(root.make_directories(b"/self/x", me).is_err());
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(root.make_directories(b"/file/x", me).is_err());
    let place = root.locate(b"/link").unwrap();
    assert!(place.is_directory());
    assert!(root.locate(b"/self").is_err());
}

#[test]
fn clamping_moves_late_times_only() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/new"), "").unwrap();
    let old = File::create(dir.path().join("old")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5)).unwrap();
    symlink("nowhere", dir.path().join("link")).unwrap();
    let fd = File::open(dir.path()).unwrap();
    clamp(fd.as_fd(), 1000).unwrap();
    let time = |name: &str| fs::symlink_metadata(dir.path().join(name)).unwrap().mtime();
    assert_eq!((time("d"), time("d/new"), time("old"), time("link")), (1000, 1000, 5, 1000));
}
