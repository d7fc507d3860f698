//! What a container finds mounted, hidden, read-only.

use crate::fixture::{Container, read_line, wait, waiting};
use crate::tests;
use dhow_oci::runtime::{Device, NamespaceKind};
use dhow_sys::mount;
use dhow_sys::process::{self, Exit};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

tests![
    root_default_mounts_are_dockers,
    root_devices_and_links,
    root_masks_hide,
    root_read_only_paths,
    root_cgroups_are_visible_and_read_only,
    root_binds_of_directories_and_files,
    root_read_only_binds,
    root_bind_targets_are_made,
    root_bind_propagation,
    root_mounts_travel_only_when_asked,
    root_tmpfs_takes_options,
    root_read_only_root,
    root_unprivileged_masks_nothing,
    root_file_over_directory_fails,
    root_devices_of_the_specification,
];

fn root_default_mounts_are_dockers() {
    let text = Container::new("cut -d' ' -f2-4 /proc/mounts").stdout();
    for line in [
        "/ overlay rw,relatime,lowerdir",
        "/proc proc rw,nosuid,nodev,noexec,relatime",
        "/dev tmpfs rw,nosuid,size=65536k,mode=755",
        "/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
        "/sys sysfs ro,nosuid,nodev,noexec,relatime",
        "/sys/fs/cgroup ",
        "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
        "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k",
        "/proc/sys proc ro,nosuid,nodev,noexec,relatime",
        "/proc/keys tmpfs ro,nosuid,",
        "/sys/firmware tmpfs ro,nosuid,",
    ] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}\n{text}");
    }
    assert!(text.lines().any(|l| l.starts_with("/dev/shm") && !l.contains("mode=")), "1777 is the default\n{text}");
}

fn root_devices_and_links() {
    let text = Container::new("cd /dev; stat -c '%n %F %a %u %t:%T' null zero full random urandom tty; for l in fd stdin stdout stderr ptmx; do readlink $l; done; stat -c %a . shm mqueue").stdout();
    let expect = "null character special file 666 0 1:3\nzero character special file 666 0 1:5\n\
        full character special file 666 0 1:7\nrandom character special file 666 0 1:8\n\
        urandom character special file 666 0 1:9\ntty character special file 666 0 5:0\n\
        /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n755\n1777\n1777\n";
    assert_eq!(text, expect);
    let core = Container::new("readlink /dev/core").run();
    assert_eq!(core.code == 0, fs::metadata("/proc/kcore").is_ok(), "only where the kernel has one");
    assert_eq!(
        Container::new("echo x > /dev/null; head -c 3 /dev/zero 2>/dev/null | wc -c; echo x > /dev/full").run().code,
        1
    );
}

fn root_masks_hide() {
    let script = "wc -c < /proc/interrupts; wc -c < /proc/keys; wc -c < /proc/timer_list; ls /sys/firmware | wc -l; ls -d /proc/[a-z]* | wc -l";
    let text = Container::new(script).stdout();
    assert_eq!(text.lines().take(4).collect::<Vec<_>>(), ["0"; 4], "{text}");
    // The control: the host has something to hide.
    assert!(
        !fs::read("/proc/interrupts").unwrap().is_empty() && fs::read_dir("/sys/firmware").unwrap().next().is_some()
    );
    // The container's root can neither see behind a mask nor change it.
    let output =
        Container::new("chmod 0 /proc/keys || chown 1 /proc/keys || touch /sys/firmware/x || echo x > /proc/keys")
            .run();
    assert_eq!(output.code, 0, "writing to the null device works: {output:?}");
    assert_eq!(output.stderr.matches("Read-only file system").count(), 3, "{}", output.stderr);
}

fn root_read_only_paths() {
    for path in ["/proc/sys/kernel/core_pattern", "/proc/irq/default_smp_affinity", "/proc/sys/vm/swappiness"] {
        let output = Container::new(&format!("echo x > {path}")).run();
        assert!(output.stderr.contains("Read-only file system"), "{path}: {}", output.stderr);
    }
}

fn root_cgroups_are_visible_and_read_only() {
    let text = Container::new(
        "ls /sys/fs/cgroup; for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x; done 2>&1 | grep -v Read-only",
    )
    .run()
    .stdout;
    assert!(!text.contains("mkdir"), "{text}");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    for line in own.lines().filter(|l| !l.contains("::")) {
        let controllers = line.split(':').nth(1).unwrap();
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        assert!(text.lines().any(|l| l == name), "{name} of {text}");
    }
    // Without a namespace of its own it still sees its own part only, at the same places.
    let mut container =
        Container::new("cat /sys/fs/cgroup/pids/cgroup.procs; ls -d /sys/fs/cgroup/pids/*/ 2>/dev/null | wc -l");
    container.spec.linux.namespaces.retain(|n| n.kind != NamespaceKind::Cgroup);
    if fs::metadata("/sys/fs/cgroup/pids").is_ok() {
        let text = container.stdout();
        assert!(text.starts_with("1\n") && text.ends_with("\n0\n"), "{text}");
    }
}

fn root_binds_of_directories_and_files() {
    let mut container = Container::new("cat /data/f /etc/one; echo new > /data/new; mount | grep -c /data");
    let host = container.host("dir");
    fs::create_dir_all(&host).unwrap();
    fs::write(host.join("f"), "from host\n").unwrap();
    container.mount("bind", host.to_str().unwrap(), "/data", "rbind");
    container.mount("bind", host.join("f").to_str().unwrap(), "/etc/one", "bind");
    assert_eq!(container.run().stdout, "from host\nfrom host\n1\n");
    assert_eq!(fs::read_to_string(host.join("new")).unwrap(), "new\n");
    assert_eq!(fs::metadata(container.upper("data")).unwrap().mode() & 0o777, 0o755);
    let mut container = Container::new("true");
    container.mount("bind", "/nonexistent/x", "/data", "rbind");
    let text = container.error_text();
    assert_eq!(text, "cannot bind \"/nonexistent/x\": No such file or directory (os error 2)");
}

fn root_read_only_binds() {
    // A source with a mount below it, which is made where only this test sees it.
    for (options, refusals) in [("rbind,rro", 2), ("rbind,ro", 1), ("rbind", 0), ("bind,ro", 2)] {
        let child = process::clone_child(process::CLONE_NEWNS, None, || {
            mount::set_propagation_of_all(mount::Propagation::Private).unwrap();
            let mut container = Container::new("echo x > /data/x; echo x > /data/sub/x");
            let host = container.host("d");
            fs::create_dir_all(host.join("sub")).unwrap();
            let tmpfs = mount::Filesystem::open(c"tmpfs").unwrap().mount(mount::Attributes::NONE).unwrap();
            mount::attach(tmpfs.as_fd(), mount::open_place(&host.join("sub")).unwrap().as_fd()).unwrap();
            container.mount("bind", host.to_str().unwrap(), "/data", options);
            let output = container.run();
            assert_eq!(output.stderr.matches("Read-only file system").count(), refusals, "{options}: {output:?}");
            // So that the directory can be removed.
            rustix::mount::unmount(host.join("sub"), rustix::mount::UnmountFlags::DETACH).unwrap();
            0
        })
        .unwrap();
        assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), Exit::Code(0), "{options}");
    }
}

fn root_bind_targets_are_made() {
    let mut container = Container::new("ls -d /a/b/c /a/b/file /run/real/sock; stat -c '%a %u %s' /a/b/file");
    fs::create_dir_all(container.image("run")).unwrap();
    fs::create_dir_all(container.image("var")).unwrap();
    std::os::unix::fs::symlink("/run", container.image("var/run")).unwrap();
    let host = container.host("d");
    fs::create_dir_all(&host).unwrap();
    fs::write(host.join("f"), "12345").unwrap();
    container.mount("bind", host.to_str().unwrap(), "/a/b/c", "rbind");
    container.mount("bind", host.join("f").to_str().unwrap(), "a//b/./x/../file", "bind");
    // Links are followed inside the root, as for sockets in /var/run.
    container.mount("bind", host.join("f").to_str().unwrap(), "/var/run/real/sock", "bind");
    assert_eq!(container.stdout(), "/a/b/c\n/a/b/file\n/run/real/sock\n644 0 5\n");
}

fn root_bind_propagation() {
    // "shared" in mountinfo is the optional field `shared:N`; private has none.
    for (options, field) in [("rbind", ""), ("rbind,rshared", "shared:"), ("rbind,rslave", "")] {
        let mut container = Container::new("grep ' /data ' /proc/self/mountinfo | cut -d' ' -f7");
        let host = container.host("d");
        fs::create_dir_all(&host).unwrap();
        container.mount("bind", host.to_str().unwrap(), "/data", options);
        let text = container.stdout();
        assert!(text.starts_with(if field.is_empty() { "-" } else { field }), "{options}: {text}");
    }
}

fn root_mounts_travel_only_when_asked() {
    // (options, a mount made inside is seen outside, one made outside is seen inside)
    for (options, outwards, inwards) in
        [("rbind", false, false), ("rbind,rslave", false, true), ("rbind,rshared", true, true)]
    {
        // In a mount namespace of the test's own, which plays the host.
        let child = process::clone_child(process::CLONE_NEWNS, None, || {
            mount::set_propagation_of_all(mount::Propagation::Private).unwrap();
            let script =
                "mount -t tmpfs made-inside /data/in && echo ready; cat; grep -c made-outside /proc/mounts; true";
            let mut container = Container::new(script);
            let host = container.host("d");
            fs::create_dir_all(&host).unwrap();
            let put = |name: &str, source: &str| {
                let tmpfs = mount::Filesystem::open(c"tmpfs").unwrap();
                tmpfs.set("source", source).unwrap();
                let tmpfs = tmpfs.mount(mount::Attributes::NONE).unwrap();
                mount::attach(tmpfs.as_fd(), mount::open_place(&host.join(name)).unwrap().as_fd()).unwrap();
                tmpfs
            };
            let shared = put("", "the-source");
            mount::set_propagation(shared.as_fd(), mount::Propagation::Shared, false).unwrap();
            fs::create_dir(host.join("in")).unwrap();
            fs::create_dir(host.join("out")).unwrap();
            container.mount("bind", host.to_str().unwrap(), "/data", options);
            allow_mounting(&mut container);
            let (mut launched, stdin) = waiting(&container);
            let mut stdout = std::fs::File::from(launched.stdout.take().unwrap());
            assert_eq!(read_line(&mut stdout), "ready");
            let table = fs::read_to_string("/proc/self/mounts").unwrap();
            assert_eq!(table.contains("made-inside"), outwards, "{options}");
            put("out", "made-outside");
            drop(stdin);
            assert_eq!(read_line(&mut stdout), if inwards { "1" } else { "0" }, "{options}");
            drop(stdout);
            wait(&launched);
            rustix::mount::unmount(&host, rustix::mount::UnmountFlags::DETACH).unwrap();
            0
        })
        .unwrap();
        assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), Exit::Code(0), "{options}");
    }
}

fn allow_mounting(container: &mut Container) {
    let capabilities = &mut container.spec.process.capabilities;
    for set in [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted] {
        set.push("CAP_SYS_ADMIN".into());
    }
    container.seccomp = dhow_runtime::seccomp::none();
}

fn root_tmpfs_takes_options() {
    let mut container = Container::new(
        "stat -c '%a %u %g' /scratch; grep ' /scratch ' /proc/mounts; cp /bin/busybox /scratch/x 2>&1; touch /scratch/ok; /scratch/ok 2>&1",
    );
    container.mount("tmpfs", "tmpfs", "/scratch", "noexec,nosuid,nodev,size=64k,mode=700,uid=5,gid=6");
    let text = container.run().stdout;
    assert!(
        text.starts_with("700 5 6\ntmpfs /scratch tmpfs rw,nosuid,nodev,noexec,relatime,size=64k,mode=700,uid=5,gid=6"),
        "{text}"
    );
    assert!(text.contains("Permission denied"), "{text}");
    let mut container = Container::new("true");
    container.mount("tmpfs", "tmpfs", "/scratch", "nonsense=1");
    let text = container.error_text();
    assert!(text.contains("/scratch") && text.contains("nonsense"), "{text}");
}

fn root_read_only_root() {
    let mut container = Container::new("echo x > /x; echo x > /dev/shm/x && echo x > /vol/x && echo fine; pwd");
    container.spec.root.readonly = true;
    container.spec.process.cwd = "/made/for/me".into();
    container.mount("tmpfs", "tmpfs", "/vol", "rw");
    let output = container.run();
    assert_eq!(output.stdout, "fine\n/made/for/me\n");
    assert!(output.stderr.contains("/x: Read-only file system"), "{}", output.stderr);
}

fn root_unprivileged_masks_nothing() {
    // As a privileged container has it: no masks, no read-only paths, a writable /sys.
    let mut container = Container::new(
        "head -c 4 /proc/timer_list | wc -c; test -w /proc/sys/kernel && grep -c ' /proc/' /proc/mounts",
    );
    container.spec.linux.masked_paths.clear();
    container.spec.linux.readonly_paths.clear();
    let output = container.run();
    assert_eq!((output.code, output.stdout.lines().last()), (1, Some("0")), "{output:?}");
}

fn root_file_over_directory_fails() {
    use dhow_types::{Categorized, ErrorKind};
    let mut container = Container::new("true");
    let host = container.host("d");
    fs::create_dir_all(&host).unwrap();
    fs::write(host.join("f"), "x").unwrap();
    container.mount("bind", host.join("f").to_str().unwrap(), "/etc", "bind");
    let error = container.error();
    assert_eq!(error.kind(), ErrorKind::CommandNotFound, "Docker's exit code is 127");
    assert!(error.to_string().contains("one is a directory"), "{error}");
}

fn root_devices_of_the_specification() {
    let mut container = Container::new("stat -c '%F %a %u:%g %t:%T' /dev/net/tun /dev/mine");
    let device = |kind, path: &str, major, minor| Device {
        kind,
        path: path.into(),
        major,
        minor,
        file_mode: Some(0o640),
        uid: 3,
        gid: 4,
    };
    container.spec.linux.devices =
        vec![device('c', "/dev/net/tun", 10, 200), device('b', "/dev/mine", 7, 0), device('c', "/dev/null", 1, 3)];
    assert_eq!(container.stdout(), "character special file 640 3:4 a:c8\nblock special file 640 3:4 7:0\n");
    container.spec.linux.devices = vec![device('c', "/dev/null", 1, 5)];
    let mut other = Container::new("true");
    other.spec.linux.devices = container.spec.linux.devices.clone();
    assert!(other.error_text().contains("/dev/null"), "another device under the same name");
}
