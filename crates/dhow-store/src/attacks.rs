//! Hostile layers and archives. Each case has a baseline (the honest form works), a control (the attack reached the
//! extractor: something of it is inside the layer, or the refusal names it), and a neighbour that must stay as it was.
//! The names t01 … t22 are those of `docs/formats/store.md`, "Hostile layers".

use crate::tar::{Entry, Kind};
use crate::testing::{Tar, Temp};
use crate::{ExtractOptions, StoreError, extract_archive};
use dhow_oci::image::Compression;
use dhow_sys::xattr;
use dhow_types::{Categorized, Digest, ErrorKind};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A store and, outside of it, a tree that must not change.
struct Range {
    t: Temp,
    victim: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Range {
    fn new() -> Self {
        let t = Temp::new();
        let victim = t.outside().join("victim");
        std::fs::create_dir_all(victim.join("dir")).unwrap();
        std::fs::write(victim.join("file"), "precious").unwrap();
        std::fs::write(victim.join("dir/inner"), "precious").unwrap();
        let before = census(&victim);
        Self { t, victim, before }
    }

    fn victim(&self, name: &str) -> String {
        self.victim.join(name).to_str().unwrap().to_owned()
    }

    /// Unpacks as a layer and publishes. The neighbour is checked whatever happens.
    #[track_caller]
    fn unpack(&self, tar: &[u8]) -> Result<PathBuf, StoreError> {
        let diff = Digest::of(tar);
        let staged = self.t.store.unpack(tar, Compression::None, &diff);
        self.unharmed();
        self.t.store.publish(vec![staged?]).unwrap();
        Ok(self.t.store.layer_dir(&diff))
    }

    #[track_caller]
    fn refused(&self, tar: &[u8], why: &str) {
        let error = self.unpack(tar).expect_err("was accepted");
        assert!(error.to_string().contains(why), "{error} does not say {why:?}");
        let tmp = self.t.root().join("tmp");
        assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0, "something was left");
    }

    /// Extracts as `ADD` does, below `dst`.
    #[track_caller]
    fn add(&self, root: &Path, dst: &str, tar: &[u8]) -> Result<(), StoreError> {
        let fd = std::fs::File::open(root).unwrap();
        let result = extract_archive(fd.as_fd(), Path::new(dst), tar, &ExtractOptions::default());
        self.unharmed();
        result
    }

    #[track_caller]
    fn unharmed(&self) {
        assert_eq!(census(&self.victim), self.before, "the neighbour changed");
        let around: Vec<_> = std::fs::read_dir(self.t.outside()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(
            around.iter().all(|n| n == "victim" || n == "root" || n == "tree"),
            "something new beside it: {around:?}"
        );
    }
}

fn census(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut queue = vec![root.to_owned()];
    while let Some(path) = queue.pop() {
        let m = path.symlink_metadata().unwrap();
        let content = if m.is_file() { std::fs::read_to_string(&path).unwrap() } else { String::new() };
        if m.is_dir() {
            queue.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        let line =
            format!("{:o} {} {} {} {} {} {content}", m.mode(), m.ino(), m.nlink(), m.uid(), m.mtime(), m.mtime_nsec());
        all.insert(path, line);
    }
    all
}

fn text(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn t01_to_t05_names_and_symlinks_stay_inside() {
    let r = Range::new();
    let victim = r.victim("");
    // Baseline.
    let fs = r.unpack(&Tar::new().dir("a", 0o755).file("a/f", b"1").finish()).unwrap();
    assert_eq!(text(fs.join("a/f")), "1");
    // T01: a symlink, then a file through it. Control: the file is inside, where the link's text leads.
    let fs = r.unpack(&Tar::new().symlink("esc", &victim).file("esc/file", b"evil").finish()).unwrap();
    assert_eq!(text(fs.join(victim.trim_start_matches('/')).join("file")), "evil");
    // T02: across two layers the link of one is not even seen by the other.
    let fs = r.unpack(&Tar::new().file("esc/file", b"evil").finish()).unwrap();
    assert!(fs.join("esc").symlink_metadata().unwrap().is_dir());
    // T03, T04: names that climb stop at the top.
    let fs = r.unpack(&Tar::new().file("../../victim/file", b"evil").finish()).unwrap();
    assert_eq!(text(fs.join("victim/file")), "evil");
    let fs = r.unpack(&Tar::new().file(&r.victim("file"), b"evil").finish()).unwrap();
    assert_eq!(text(fs.join(r.victim("file").trim_start_matches('/'))), "evil");
    // T05: a relative symlink upwards.
    let up = "../".repeat(20) + victim.trim_start_matches('/');
    let fs = r.unpack(&Tar::new().symlink("d/esc", &up).file("d/esc/file", b"evil").finish()).unwrap();
    assert_eq!(text(fs.join(victim.trim_start_matches('/')).join("file")), "evil");
    // The last component is replaced, never followed.
    let fs = r.unpack(&Tar::new().symlink("l", &r.victim("file")).file("l", b"evil").finish()).unwrap();
    assert_eq!(text(fs.join("l")), "evil");
}

#[test]
fn t06_to_t08_hard_links_stay_inside() {
    let r = Range::new();
    // Baseline.
    let fs = r.unpack(&Tar::new().file("a", b"1").hardlink("b", "a").hardlink("c", "/a").finish()).unwrap();
    assert_eq!(fs.join("a").metadata().unwrap().nlink(), 3);
    // Nothing of that name is inside, so there is nothing to link to; then the overwrite hits the layer's own file.
    for target in [r.victim("file"), "../".repeat(20) + r.victim("file").trim_start_matches('/')] {
        r.refused(&Tar::new().hardlink("h", &target).file("h", b"evil").finish(), "no such directory");
    }
    r.refused(&Tar::new().hardlink("h", "nothing").finish(), "not in the archive");
    // Through a symlinked directory; control: with the same path inside, the link leads there.
    let outside = r.victim("dir");
    r.refused(&Tar::new().symlink("esc", &outside).hardlink("h", "esc/inner").finish(), "no such directory");
    let inside = outside.trim_start_matches('/');
    let tar = Tar::new().file(&format!("{inside}/inner"), b"mine").symlink("esc", &outside).hardlink("h", "esc/inner");
    assert_eq!(text(r.unpack(&tar.finish()).unwrap().join("h")), "mine");
    r.refused(&Tar::new().dir("d", 0o755).hardlink("h", "d").finish(), "hard link to a directory");
    // A link to itself neither fails nor deletes.
    assert_eq!(text(r.unpack(&Tar::new().file("a", b"1").hardlink("a", "a").finish()).unwrap().join("a")), "1");
}

#[test]
fn t09_to_t12_whiteouts() {
    let r = Range::new();
    let victim = r.victim("");
    // Baseline: a whiteout of overlay's kind.
    let fs = r.unpack(&Tar::new().file("d/.wh.gone", b"").finish()).unwrap();
    let node = fs.join("d/gone").symlink_metadata().unwrap();
    assert!(node.file_type().is_char_device() && node.rdev() == 0);
    // T09: through a symlink. Control: it is inside.
    let fs = r.unpack(&Tar::new().symlink("esc", &victim).file("esc/.wh.file", b"").finish()).unwrap();
    assert!(
        fs.join(victim.trim_start_matches('/')).join("file").symlink_metadata().unwrap().file_type().is_char_device()
    );
    // T10: with `..`.
    let fs = r.unpack(&Tar::new().file("../../victim/.wh.file", b"").finish()).unwrap();
    assert!(fs.join("victim/file").symlink_metadata().unwrap().file_type().is_char_device());
    // T12: of the directory itself, of its parent, of nothing.
    for name in [".wh..", ".wh...", "d/.wh..", "d/.wh...", ".wh.", "../.wh.."] {
        r.refused(&Tar::new().dir("d", 0o755).file(name, b"").finish(), "whiteout of a directory by itself");
    }
    // Reserved names are nobody's.
    let fs = r.unpack(&Tar::new().file(".wh..wh.plnk", b"x").dir(".wh..wh.aufs", 0o755).finish()).unwrap();
    assert_eq!(std::fs::read_dir(fs).unwrap().count(), 0);
    // A directory that is called so is only a name.
    let fs = r.unpack(&Tar::new().file(".wh.d/f", b"x").finish()).unwrap();
    assert_eq!(text(fs.join(".wh.d/f")), "x");
}

#[test]
fn whiteouts_do_not_touch_their_own_layer() {
    let r = Range::new();
    for tar in [
        Tar::new().file("f", b"new").file(".wh.f", b"").finish(),
        Tar::new().file(".wh.f", b"").file("f", b"new").finish(),
    ] {
        assert_eq!(text(r.unpack(&tar).unwrap().join("f")), "new");
    }
}

#[test]
fn root_opaque_directories() {
    let r = Range::new();
    let opaque = |path: PathBuf| {
        let fd = std::fs::File::open(path).unwrap();
        xattr::get(&fd, b"trusted.overlay.opaque").unwrap().as_deref() == Some(b"y")
    };
    // Baseline, whatever the order.
    for tar in [
        Tar::new().dir("d", 0o755).file("d/.wh..wh..opq", b"").file("d/f", b"x").finish(),
        Tar::new().file("d/f", b"x").file("d/.wh..wh..opq", b"").finish(),
        // Removed below and made anew: the same.
        Tar::new().file(".wh.d", b"").dir("d", 0o755).file("d/f", b"x").finish(),
        Tar::new().file(".wh.d", b"").file("d/f", b"x").finish(),
        Tar::new().file("d/f", b"x").file(".wh.d", b"").finish(),
    ] {
        let fs = r.unpack(&tar).unwrap();
        assert!(opaque(fs.join("d")) && !opaque(fs.clone()));
        assert_eq!(text(fs.join("d/f")), "x");
    }
    // T11: through a symlink to a neighbour.
    let victim = r.victim("dir");
    let fs = r.unpack(&Tar::new().symlink("esc", &victim).file("esc/.wh..wh..opq", b"").finish()).unwrap();
    assert!(opaque(fs.join(victim.trim_start_matches('/'))));
    assert!(!opaque(r.victim.join("dir")));
}

#[test]
fn t13_t14_modes_and_times_through_links() {
    let r = Range::new();
    let dir = Tar::entry(Kind::Directory, "esc", 0o4777);
    let fs = r.unpack(&Tar::new().symlink("esc", &r.victim("dir")).put(&dir).finish()).unwrap();
    // Control: the directory took the link's place.
    assert_eq!(fs.join("esc").symlink_metadata().unwrap().mode() & 0o7777, 0o4777);
    let fs = r.unpack(&Tar::new().symlink("esc", &r.victim("file")).hardlink("h", "esc").finish()).unwrap();
    assert!(fs.join("h").is_symlink());
}

#[test]
fn t15_loops_and_lengths() {
    let r = Range::new();
    r.refused(&Tar::new().symlink("a", "b").symlink("b", "a").file("a/f", b"x").finish(), "too many levels");
    let chain = |n: usize| {
        let links =
            (0..n).fold(Tar::new().dir("l0", 0o755), |tar, i| tar.symlink(&format!("l{}", i + 1), &format!("l{i}")));
        links.file(&format!("l{n}/f"), b"x").finish()
    };
    // Baseline and attack: forty links are followed, more are not.
    assert_eq!(text(r.unpack(&chain(40)).unwrap().join("l0/f")), "x");
    r.refused(&chain(41), "too many levels");
    r.refused(&Tar::new().file(&"n".repeat(64 << 10), b"x").finish(), "longer than");
    r.refused(&Tar::new().file(&"n".repeat(256), b"x").finish(), "longer than 255");
    r.refused(&Tar::new().file(&"d/".repeat(3000), b"x").finish(), "longer than 4095");
    r.refused(&Tar::new().file(&format!("{}f", "d/".repeat(1000)), b"x").finish(), "too deep");
    // Deeper with each link, past any single name's length.
    let deep = "d/".repeat(350);
    let tar = Tar::new().file(&format!("{deep}f"), b"x").symlink("s", &deep).file(&format!("s/{deep}f"), b"x");
    r.refused(&tar.finish(), "too deep");
    r.unpack(&Tar::new().file(&format!("{deep}f"), b"x").finish()).unwrap();
}

/// The cases of containerd's `TestBreakouts`, with its verdicts. Where it applies to an existing tree, that tree is an
/// earlier part of the same archive here.
#[test]
fn t16_breakouts() {
    let r = Range::new();
    let etc = || Tar::new().dir("etc", 0o755);
    let passwd = || etc().file("/etc/passwd", b"inside");
    let unbroken = |tar: Tar, via: &str| {
        let fs = r.unpack(&tar.file(via, b"unbroken").finish()).unwrap();
        assert_eq!(text(fs.join("etc/unbroken")), "unbroken");
    };
    unbroken(etc().symlink("localetc", "/etc"), "/localetc/unbroken");
    unbroken(etc().dir("dummy", 0o755).symlink("localetc", "/dummy/../etc"), "/localetc/unbroken");
    unbroken(
        etc().dir("dummy", 0o755).symlink("/dummy/etc", "/etc").symlink("localetc", "/dummy/etc"),
        "/dummy/etc/unbroken",
    );
    unbroken(
        etc().dir("dummy", 0o755).symlink("/dummy/etc", "/etc").symlink("localetc", "./dummy/etc"),
        "/dummy/etc/unbroken",
    );
    let emptied = etc().file("etc/emptied", b"notempty").symlink("localetc", "/etc").file("/localetc/emptied", b"");
    assert_eq!(text(r.unpack(&emptied.finish()).unwrap().join("etc/emptied")), "");

    let same = |tar: Tar, link: &str| {
        let fs = r.unpack(&tar.finish()).unwrap();
        let ino = |p: &str| fs.join(p).metadata().unwrap().ino();
        assert_eq!(ino(link), ino("etc/passwd"), "{link}");
    };
    let breakouts = || passwd().dir("breakouts", 0o755).dir("downandout", 0o755);
    same(
        breakouts().symlink("breakouts/d1", "../../etc").hardlink("breakouts/mypasswd", "/breakouts/d1/passwd"),
        "breakouts/mypasswd",
    );
    same(
        breakouts()
            .symlink("breakouts/d1", "../downandout/../../etc")
            .hardlink("breakouts/mypasswd", "/breakouts/d1/passwd"),
        "breakouts/mypasswd",
    );
    for target in ["/etc", "../../../../../../../etc"] {
        same(passwd().symlink("localetc", target).hardlink("localpasswd", "/localetc/passwd"), "localpasswd");
    }
    same(
        passwd()
            .dir("upandout", 0o755)
            .symlink("localetc", "upandout/../../../etc")
            .hardlink("localpasswd", "/localetc/passwd"),
        "localpasswd",
    );
    for target in ["../../../../../etc/passwd", "/etc/passwd"] {
        same(passwd().hardlink("localpasswd", target), "localpasswd");
    }
    same(passwd().symlink("..", "/etc/").hardlink("localpasswd", "/etc/passwd"), "localpasswd");
    same(passwd().symlink("", "/etc/").hardlink("localpasswd", "/etc/passwd"), "localpasswd");
    same(
        passwd().symlink("localetc/sub/..", "/etc/").hardlink("/localetc/localpasswd", "/etc/passwd"),
        "etc/localpasswd",
    );
    same(passwd().dir("localetc/", 0o770).hardlink("/localetc/localpasswd", "/etc/passwd"), "localetc/localpasswd");
    for target in ["/etc", "../../etc"] {
        let tar = passwd().dir("localetc", 0o755).symlink("localetc", target);
        same(tar.hardlink("/localetc/localpasswd", "/etc/passwd"), "etc/localpasswd");
    }
    let over = passwd().symlink("localetc", "/etc").dir("/localetc/", 0o755);
    same(over.hardlink("/localetc/localpasswd", "/etc/passwd"), "localetc/localpasswd");
    let tar = passwd().symlink("localetc", "etc").hardlink("/localetc/localpasswd", "/etc/passwd");
    let fs = r.unpack(&tar.dir("/localetc/", 0o755).file("/localetc/localpasswd", b"different").finish()).unwrap();
    assert_eq!(
        (text(fs.join("etc/passwd")), text(fs.join("localetc/localpasswd"))),
        ("inside".into(), "different".into())
    );
    for (target, link) in [("/etc/passwd", "localpasswd"), ("../../../../../etc/passwd", "/passwdlink")] {
        let fs = r.unpack(&passwd().symlink(link, target).hardlink("dup", link).finish()).unwrap();
        assert_eq!(fs.join("dup").read_link().unwrap(), Path::new(target));
    }
    // Chmod through a hard link to a symlink to the host.
    let link = r.victim("file");
    let fs = r.unpack(&Tar::new().symlink("outside", &link).hardlink("sketchy", "outside").finish()).unwrap();
    assert!(fs.join("sketchy").is_symlink());
    // The whiteout cases: the layer records them, the merge below is overlay's.
    let hidden = |tar: Tar, path: &str| {
        let fs = r.unpack(&tar.finish()).unwrap();
        assert!(fs.join(path).symlink_metadata().unwrap().file_type().is_char_device(), "{path}");
    };
    hidden(Tar::new().file(".wh.localetc", b""), "localetc");
    hidden(etc().symlink("localetc", "/etc").file("localetc/.wh.whitedout", b""), "etc/whitedout");
    hidden(etc().symlink("localetc", "/dne").file("localetc/.wh.etc", b""), "dne/etc");
    hidden(Tar::new().file("dne/../.wh.etc", b""), "etc");
}

#[test]
fn t17_add_is_confined_and_links_inside_still_work() {
    let r = Range::new();
    let tree = r.t.outside().join("tree");
    std::fs::create_dir_all(tree.join("app")).unwrap();
    std::fs::create_dir_all(tree.join("real")).unwrap();
    std::os::unix::fs::symlink(r.victim(""), tree.join("host")).unwrap();
    std::os::unix::fs::symlink("/real", tree.join("inner")).unwrap();
    // Baseline, and absolute links that stay inside.
    let tar = Tar::new().file("f", b"1").symlink("abs", "/real").file("abs/g", b"2").hardlink("h", "f").finish();
    r.add(&tree, "/app", &tar).unwrap();
    assert_eq!((text(tree.join("app/h")), text(tree.join("real/g"))), ("1".into(), "2".into()));
    r.add(&tree, "inner/new/dir", &Tar::new().file("f", b"3").finish()).unwrap();
    assert_eq!(text(tree.join("real/new/dir/f")), "3");
    // Whiteouts mean nothing here.
    r.add(&tree, "/app", &Tar::new().file(".wh.f", b"").finish()).unwrap();
    assert!(tree.join("app/.wh.f").is_file() && tree.join("app/f").is_file());
    // Attacks.
    for name in ["../f", "a/../../f", "../app2/f"] {
        let error = r.add(&tree, "/app", &Tar::new().file(name, b"evil").finish()).unwrap_err();
        assert!(error.to_string().contains("leads outside"), "{error}");
    }
    r.add(&tree, "/host", &Tar::new().file("file", b"evil").finish()).unwrap();
    r.add(&tree, "/", &Tar::new().file("host/file", b"evil").finish()).unwrap();
    assert_eq!(text(tree.join(r.victim("file").trim_start_matches('/'))), "evil", "control: it went inside");
    // T24: a sibling whose name begins the same.
    r.add(&tree, "/dir", &Tar::new().file("f", b"1").finish()).unwrap();
    assert!(r.add(&tree, "/dir", &Tar::new().file("../dir2/f", b"evil").finish()).is_err());
    assert!(!tree.join("dir2").exists());
}

#[test]
fn t18_overlay_attributes_are_dropped() {
    let r = Range::new();
    let tar = Tar::new()
        .file_with("f", b"x", 0o644, |e| {
            for name in [
                "user.good",
                "user.overlay.opaque",
                "trusted.overlay.opaque",
                "trusted.overlay.redirect",
                "trusted.other",
                "security.selinux",
                "security.ima",
                "user.",
            ] {
                e.xattrs.push((name.as_bytes().to_vec(), b"y".to_vec()));
            }
        })
        .finish();
    let fs = r.unpack(&tar).unwrap();
    let fd = std::fs::File::open(fs.join("f")).unwrap();
    assert_eq!(xattr::list(&fd).unwrap(), [b"user.good".to_vec()], "control: the harmless one is there");
    let large = |size: usize| {
        let value = vec![b'v'; size];
        Tar::new().file_with("f", b"x", 0o644, |e| e.xattrs.push((b"user.large".to_vec(), value))).finish()
    };
    r.unpack(&large(1000)).unwrap();
    r.refused(&large(70_000), "out of range");
    // More than ext4 can hold is no full disk.
    if let Err(error) = r.unpack(&large(60_000)) {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn t19_the_last_entry_of_a_name_wins() {
    let r = Range::new();
    let fs = |tar: Tar| r.unpack(&tar.finish()).unwrap();
    assert_eq!(text(fs(Tar::new().file("f", b"1").file("f", b"22")).join("f")), "22");
    assert_eq!(text(fs(Tar::new().file("d/x/y", b"1").file("d", b"file")).join("d")), "file");
    assert!(fs(Tar::new().file("f", b"1").dir("f", 0o711)).join("f").is_dir());
    let merged = fs(Tar::new().dir("d", 0o700).file("d/f", b"1").dir("d", 0o711));
    assert_eq!(text(merged.join("d/f")), "1");
    assert_eq!(merged.join("d").metadata().unwrap().mode() & 0o777, 0o711);
    // A directory that made way and came back is a new one: no attributes of the old.
    let again = fs(Tar::new().dir("d", 0o700).symlink("d", "/x").file("d", b"").file("e", b"").dir("d", 0o750));
    assert_eq!(again.join("d").metadata().unwrap().mode() & 0o777, 0o750);
    // Through a link that is replaced while directories are cached.
    let moved = fs(Tar::new()
        .dir("a", 0o755)
        .dir("b", 0o755)
        .symlink("l", "a")
        .file("l/1", b"")
        .symlink("l", "b")
        .file("l/2", b""));
    assert!(moved.join("a/1").exists() && moved.join("b/2").exists() && !moved.join("a/2").exists());
    let swapped = fs(Tar::new().file("a/b/1", b"").symlink("a/b", "/c").dir("c", 0o755).file("a/b/2", b""));
    assert!(swapped.join("c/2").exists());
    // Non-directories in place of the root are ignored.
    assert_eq!(std::fs::read_dir(fs(Tar::new().file("./", b"x").symlink("/", "x"))).unwrap().count(), 0);
}

#[test]
fn t19_odd_names_and_times() {
    let r = Range::new();
    let mut entry = Tar::entry(Kind::File, "", 0o644);
    entry.path = b"caf\xe9".to_vec();
    entry.mtime = (-62_135_596_800, 0);
    let mut far = Tar::entry(Kind::File, "far", 0o644);
    far.mtime = (i64::MAX, 0);
    let fs = r.unpack(&Tar::new().put(&entry).put(&far).finish()).unwrap();
    use std::os::unix::ffi::OsStrExt;
    assert!(fs.join(std::ffi::OsStr::from_bytes(b"caf\xe9")).is_file());
    assert!(fs.join("far").is_file());
}

#[test]
fn t20_bombs_stop_at_the_reserve() {
    let r = Range::new();
    // A file that claims an exabyte of holes costs nothing and is bounded by the file system's own limit.
    let mut sparse = vec![0u8; 512];
    sparse[..4].copy_from_slice(b"huge");
    sparse[100..107].copy_from_slice(b"0000644");
    let ids = [rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()];
    sparse[108..115].copy_from_slice(format!("{:07o}", ids[0]).as_bytes());
    sparse[116..123].copy_from_slice(format!("{:07o}", ids[1]).as_bytes());
    sparse[124..135].copy_from_slice(b"00000000000");
    sparse[136..147].copy_from_slice(b"00000000000");
    sparse[156] = b'S';
    sparse[257..265].copy_from_slice(b"ustar  \0");
    sparse[483] = 0x80;
    sparse[487..495].copy_from_slice(&(1u64 << 60).to_be_bytes());
    sparse[148..156].fill(b' ');
    let sum: u32 = sparse.iter().map(|b| u32::from(*b)).sum();
    sparse[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    match r.unpack(&sparse) {
        Ok(fs) => assert!(fs.join("huge").metadata().unwrap().blocks() < 100),
        Err(error) => assert!(error.to_string().contains("huge"), "{error}"),
    }
}

#[test]
fn root_t22_devices_fifos_and_set_uid() {
    let r = Range::new();
    let special = |kind, path: &str, device, mode| {
        let mut e = Tar::entry(kind, path, mode);
        e.device = device;
        (e.uid, e.gid) = (7, 8);
        e
    };
    let tar = Tar::new()
        .put(&special(Kind::Block, "disk", (8, 0), 0o660))
        .put(&special(Kind::Char, "null", (1, 3), 0o666))
        .put(&special(Kind::Fifo, "fifo", (0, 0), 0o622))
        .file_with("su", b"x", 0o6755, |e| {
            (e.uid, e.gid) = (5, 6);
            // cap_net_raw=ep
            let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
            e.xattrs.push((b"security.capability".to_vec(), capability.to_vec()));
        })
        .finish();
    // It does not hang on the FIFO.
    let fs = r.unpack(&tar).unwrap();
    let meta = |name: &str| fs.join(name).symlink_metadata().unwrap();
    assert!(meta("disk").file_type().is_block_device() && meta("disk").rdev() == rustix::fs::makedev(8, 0));
    assert!(meta("null").file_type().is_char_device() && meta("fifo").file_type().is_fifo());
    assert_eq!((meta("fifo").mode() & 0o7777, meta("null").uid(), meta("null").gid()), (0o622, 7, 8));
    assert_eq!((meta("su").mode() & 0o7777, meta("su").uid(), meta("su").gid()), (0o6755, 5, 6));
    let fd = std::fs::File::open(fs.join("su")).unwrap();
    assert!(xattr::get(&fd, b"security.capability").unwrap().is_some(), "kept although chown and write clear it");
    // Nobody else gets near them.
    for dir in ["layers", "tmp", "blobs"] {
        assert_eq!(r.t.root().join(dir).metadata().unwrap().mode() & 0o7777, 0o700);
    }
}

#[test]
fn root_owners_are_those_of_the_archive_or_the_option() {
    let r = Range::new();
    let own = |e: &mut Entry| (e.uid, e.gid) = (1000, 100);
    let mut dir = Tar::entry(Kind::Directory, "d", 0o2775);
    own(&mut dir);
    let tar = Tar::new().put(&dir).file_with("d/f", b"x", 0o640, own).finish();
    let fs = r.unpack(&tar).unwrap();
    let owner = |p: PathBuf| (p.metadata().unwrap().uid(), p.metadata().unwrap().gid());
    assert_eq!((owner(fs.join("d")), owner(fs.join("d/f"))), ((1000, 100), (1000, 100)));
    assert_eq!(fs.join("d").metadata().unwrap().mode() & 0o7777, 0o2775);
    let tree = r.t.outside().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let fd = std::fs::File::open(&tree).unwrap();
    let options = ExtractOptions { owner: Some((3, 4)), ..ExtractOptions::default() };
    extract_archive(fd.as_fd(), Path::new("x"), tar.as_slice(), &options).unwrap();
    assert_eq!((owner(tree.join("x/d/f")), owner(tree.join("x"))), ((3, 4), (3, 4)));
    // Into a set-group-ID directory the archive's group wins.
    rustix::fs::chmod(&tree, rustix::fs::Mode::from_raw_mode(0o2755)).unwrap();
    rustix::fs::chown(&tree, None, Some(rustix::fs::Gid::from_raw(55))).unwrap();
    extract_archive(fd.as_fd(), Path::new(""), tar.as_slice(), &ExtractOptions::default()).unwrap();
    assert_eq!(owner(tree.join("d/f")), (1000, 100));
}
