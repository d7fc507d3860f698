//! Roots: overlays of many layers by every method, directories, roots without a container.

use crate::fixture::{Container, kill, waiting};
use crate::tests;
use dhow_runtime::overlay::{Method, Overlay, clear_volatile_mark};
use dhow_runtime::{Rootfs, with_rootfs};
use dhow_sys::process::{self, Exit};
use dhow_sys::{fs as paths, mount};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

tests![
    root_many_layers_run,
    root_many_layers_by_every_method,
    root_changes_land_in_the_upper_directory,
    root_volatile_needs_its_mark_cleared,
    root_running_overlay_is_refused_nothing,
    root_helper_sees_and_changes_a_root,
    root_helper_reports,
    root_helper_leaves_no_mount,
    root_directory_as_root,
    root_image_without_layers,
];

/// Directories, each with a file of its own and one that all have; topmost first.
fn layers(dir: &Path, count: usize) -> Vec<PathBuf> {
    (0..count)
        .map(|i| {
            let layer = dir.join(format!("a-rather-long-name-of-a-layer-directory-as-digests-make-them-{i:04}/fs"));
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(format!("only-{i}")), i.to_string()).unwrap();
            fs::write(layer.join("all"), i.to_string()).unwrap();
            layer
        })
        .collect()
}

fn root_many_layers_run() {
    let mut container = Container::new("cat /all; ls -d /only-* | wc -l");
    let mut lower = layers(&container.host("layers"), 130);
    lower.append(&mut container.lower);
    container.lower = lower;
    assert_eq!(container.stdout(), "0130\n");
}

fn read(root: BorrowedFd<'_>, path: &str) -> String {
    let bytes = paths::read_regular(root, Path::new(path), 1000).unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

fn root_many_layers_by_every_method() {
    let dir = tempfile::tempdir().unwrap();
    let lower = layers(dir.path(), 200);
    for (n, method) in [Method::Descriptors, Method::Names, Method::Classic].into_iter().enumerate() {
        let (upper, work) = (dir.path().join(format!("upper{n}")), dir.path().join(format!("work{n}")));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let child = process::clone_child(process::CLONE_NEWNS, None, || {
            mount::set_propagation_of_all(mount::Propagation::Private).unwrap();
            let overlay = Overlay { lower: &lower, upper: &upper, work: &work, volatile: true }.open().unwrap();
            let root = overlay.mount_by(method).unwrap();
            assert_eq!(read(root.as_fd(), "/all"), "0");
            assert_eq!(read(root.as_fd(), "/only-199"), "199");
            let flags = OFlags::CREATE | OFlags::WRONLY;
            paths::open_in_root(root.as_fd(), Path::new("/made"), flags, Mode::from_raw_mode(0o600)).unwrap();
            let options = fs::read_to_string("/proc/self/mounts").unwrap();
            let line = options.lines().find(|l| l.starts_with("overlay ")).unwrap();
            assert!(line.contains("volatile") && !line.contains("redirect_dir=on"), "{line}");
            0
        })
        .unwrap();
        assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), Exit::Code(0), "{method:?}");
        assert!(upper.join("made").exists(), "{method:?}");
    }
}

fn root_changes_land_in_the_upper_directory() {
    let container = Container::new("echo new > /etc/new; rm /etc/group; mv /bin/nc /bin/other; chmod 700 /home");
    container.stdout();
    assert_eq!(fs::read_to_string(container.upper("etc/new")).unwrap(), "new\n");
    let whiteout = fs::symlink_metadata(container.upper("etc/group")).unwrap();
    assert_eq!((whiteout.mode() & libc::S_IFMT, whiteout.rdev()), (libc::S_IFCHR, 0));
    assert_eq!(fs::metadata(container.upper("home")).unwrap().mode() & 0o7777, 0o700);
    assert!(container.image("etc/group").exists(), "the layer is as it was");
    // What the mounts needed is there, and nothing in it.
    assert!(fs::read_dir(container.upper("dev")).unwrap().next().is_none());
}

fn root_volatile_needs_its_mark_cleared() {
    let mut container = Container::new("cat /mark || echo first > /mark");
    container.keep_mark = true;
    assert_eq!(container.run().stdout, "");
    let error = container.error_text();
    assert!(error.starts_with("cannot mount the overlay"), "{error}");
    let work = container.upper("../work").canonicalize().unwrap();
    clear_volatile_mark(&work).unwrap();
    clear_volatile_mark(&work).unwrap();
    assert_eq!(container.run().stdout, "first\n");
}

fn root_running_overlay_is_refused_nothing() {
    // The layer directories are shared by two containers at once.
    let first = Container::new("cat");
    let (launched, _stdin) = waiting(&first);
    let mut second = Container::new("ls /bin | wc -l");
    second.lower = first.lower.clone();
    second.stdout();
    kill(&launched);
}

fn with_paths<T>(f: impl FnOnce(&Rootfs<'_>) -> T) -> (T, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let lower = layers(dir.path(), 2);
    let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let result = f(&Rootfs::Overlay { lower: &lower, upper: &upper, work: &work, volatile: true });
    (result, dir)
}

fn root_helper_sees_and_changes_a_root() {
    let (bytes, dir) = with_paths(|rootfs| {
        with_rootfs(rootfs, |root| {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            paths::open_in_root(root, Path::new("/made"), flags, Mode::from_raw_mode(0o600))
                .map_err(|e| e.to_string())?;
            Ok(format!("{} {}", read(root, "all"), read(root, "/only-1")).into_bytes())
        })
        .unwrap()
    });
    assert_eq!(bytes, b"0 1");
    assert!(dir.path().join("upper/made").exists());
}

fn root_helper_reports() {
    with_paths(|rootfs| {
        assert_eq!(with_rootfs(rootfs, |_| Err("no".into())).unwrap_err().to_string(), "no");
    });
    with_paths(|rootfs| {
        let error = with_rootfs(rootfs, |_| process::exit_now(3)).unwrap_err();
        assert!(matches!(error, dhow_runtime::LaunchError::Died(Exit::Code(3))), "{error}");
    });
    with_paths(|rootfs| {
        let big = with_rootfs(rootfs, |_| Ok(vec![7; 5 << 20])).unwrap();
        assert_eq!(big.len(), 5 << 20);
    });
    let nowhere = Path::new("/nonexistent");
    let error = with_rootfs(&Rootfs::Directory(nowhere), |_| Ok(Vec::new())).unwrap_err();
    assert!(dhow_types::report(&error).contains("No such file"), "{error}");
}

fn root_helper_leaves_no_mount() {
    let table = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = table();
    let (inside, _dir) =
        with_paths(|rootfs| with_rootfs(rootfs, |_| Ok(fs::read("/proc/self/mountinfo").unwrap())).unwrap());
    assert!(String::from_utf8(inside).unwrap().contains(" overlay "), "the control");
    assert_eq!(table(), before);
}

fn root_directory_as_root() {
    use dhow_runtime::{LaunchRequest, StdioPlan, launch};
    let container = Container::new("echo from /; touch /made; mount | head -1");
    let base = container.image("");
    let launched = launch(LaunchRequest {
        spec: &container.spec,
        rootfs: Rootfs::Directory(&base),
        user: "",
        group_add: &[],
        seccomp: &container.seccomp,
        cgroup: container.cgroup(),
        stdio: StdioPlan::Pipes { stdin: false },
        init: false,
        attach: &mut |_| Ok(()),
        inside: None,
    })
    .unwrap();
    let output = crate::fixture::finish(launched);
    assert!(output.stdout.starts_with("from /\n"), "{output:?}");
    assert!(container.image("made").exists());
}

fn root_image_without_layers() {
    let mut container = Container::new("true");
    container.lower.clear();
    // Nothing is in there to run.
    assert!(matches!(container.error(), dhow_runtime::LaunchError::CommandNotFound { .. }));
    fs::create_dir(container.upper("bin")).unwrap();
    fs::copy("/bin/busybox", container.upper("bin/sh")).unwrap();
    assert_eq!(container.stdout(), "");
}
