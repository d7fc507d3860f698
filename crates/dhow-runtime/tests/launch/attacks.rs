//! Hostile images and requests. Each attack has a control that shows that it would have worked, or that it reached the
//! code that stops it; the host's tree is compared before and after.

use crate::fixture::{Container, snapshot};
use crate::tests;
use rustix::fs::{FileType, Mode, OFlags};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

tests![
    root_linked_proc_sys_and_dev_are_refused,
    root_linked_mount_targets_stay_inside,
    root_dotdot_mount_targets_stay_inside,
    root_dev_volume_cannot_fool_masks,
    root_dev_volume_is_left_alone,
    root_console_link_is_not_followed,
    root_passwd_that_is_no_file_is_refused,
    root_large_passwd_is_refused,
    root_linked_passwd_stays_inside,
    root_workdir_cannot_use_descriptors,
    root_workdir_cannot_escape,
    root_program_cannot_use_descriptors,
    root_volume_cannot_shadow_proc_files,
    root_no_device_of_the_host_can_be_opened,
    root_binary_cannot_be_overwritten,
];

/// A container and a directory of the host that must stay as it is.
fn with_victim(script: &str) -> (Container, PathBuf, Vec<String>) {
    let container = Container::new(script);
    let victim = container.host("victim");
    fs::create_dir_all(victim.join("sub")).unwrap();
    fs::write(victim.join("ptmx"), "precious").unwrap();
    fs::write(victim.join("null"), "precious").unwrap();
    let before = snapshot(&victim);
    (container, victim, before)
}

/// Replaces a path of the image by a link.
fn plant(container: &Container, path: &str, target: impl AsRef<std::path::Path>) {
    let place = container.image(path);
    let _ = fs::remove_dir_all(&place);
    let _ = fs::remove_file(&place);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    symlink(target, place).unwrap();
}

fn root_linked_proc_sys_and_dev_are_refused() {
    for path in ["proc", "sys", "dev"] {
        let (container, victim, before) = with_victim("true");
        plant(&container, path, &victim);
        assert!(container.image(path).join("sub").exists(), "the control: the link leads out");
        let text = container.error_text();
        assert!(text.contains(&format!("\"/{path}\" is a symbolic link")), "{text}");
        assert_eq!(snapshot(&victim), before);
        // Inside the image it is refused too: masks and read-only paths are about the real place.
        let (container, ..) = with_victim("true");
        fs::create_dir(container.image("elsewhere")).unwrap();
        plant(&container, path, "/elsewhere");
        assert!(container.error_text().contains("is a symbolic link"));
    }
    Container::new("true").stdout();
}

fn root_linked_mount_targets_stay_inside() {
    let (mut container, victim, before) = with_victim("ls /data");
    plant(&container, "data", &victim);
    container.mount("tmpfs", "tmpfs", "/data/sub", "rw");
    let text = container.error_text();
    assert!(text.contains("/data/sub"), "{text}");
    assert_eq!(snapshot(&victim), before);
    // The same path inside the image works, and is the image's.
    let inside = container.image(victim.to_str().unwrap());
    fs::create_dir_all(&inside).unwrap();
    assert_eq!(container.stdout(), "sub\n");
    assert_eq!(snapshot(&victim), before);
    // A file to bind onto must not be made outside (CVE-2024-45310).
    let (mut container, victim, before) = with_victim("true");
    plant(&container, "data", victim.join("made"));
    container.mount("bind", "/etc/hostname", "/data", "bind");
    container.mount("bind", "/etc/hostname", "/data/file", "bind");
    container.error();
    assert_eq!(snapshot(&victim), before);
}

fn root_dotdot_mount_targets_stay_inside() {
    let (mut container, victim, before) = with_victim("ls -d /tmp/*/; true");
    let escape = format!("/../../../../../../..{}", victim.display());
    container.mount("tmpfs", "tmpfs", &escape, "rw");
    container.run();
    assert_eq!(snapshot(&victim), before);
    assert!(container.upper(victim.to_str().unwrap()).is_dir(), "the control: it was made inside");
}

fn root_dev_volume_cannot_fool_masks() {
    // A volume on /dev whose null is a file of the attacker's (CVE-2025-31133).
    let (mut container, victim, before) = with_victim("wc -c < /proc/keys; wc -c < /dev/null");
    container.spec.mounts.retain(|m| !m.destination.starts_with("/dev"));
    container.mount("bind", victim.to_str().unwrap(), "/dev", "rbind");
    assert_eq!(container.stdout(), "0\n8\n", "hidden, and the control: null is the attacker's file");
    assert_eq!(snapshot(&victim), before);
    let (mut container, victim, _) = with_victim("wc -c < /proc/keys");
    fs::remove_file(victim.join("null")).unwrap();
    container.spec.mounts.retain(|m| !m.destination.starts_with("/dev"));
    container.mount("bind", victim.to_str().unwrap(), "/dev", "rbind");
    assert_eq!(container.stdout(), "0\n", "a mask is never skipped");
}

fn root_dev_volume_is_left_alone() {
    // CVE-2026-41579: nothing is made or replaced in a /dev that is the host's.
    let (mut container, victim, before) = with_victim("ls /dev | wc -l");
    container.spec.mounts.retain(|m| !m.destination.starts_with("/dev"));
    container.mount("bind", victim.to_str().unwrap(), "/dev", "rbind");
    assert_eq!(container.stdout(), "3\n");
    assert_eq!(snapshot(&victim), before);
}

fn root_console_link_is_not_followed() {
    use dhow_runtime::StdioPlan;
    let (mut container, victim, before) = with_victim("true");
    // A /dev of the image: nothing is mounted there.
    container.spec.mounts.retain(|m| !m.destination.starts_with("/dev"));
    plant(&container, "dev/console", "/etc/passwd");
    let error = container.launch(StdioPlan::Pty { rows: 1, cols: 1, stdin: false }).unwrap_err();
    assert!(error.to_string().contains("/dev/console"), "{error}");
    assert!(fs::read_to_string(container.image("etc/passwd")).unwrap().starts_with("root:"));
    assert!(!container.upper("etc/passwd").exists(), "not even touched");
    assert_eq!(snapshot(&victim), before);
}

fn root_passwd_that_is_no_file_is_refused() {
    for file in ["etc/passwd", "etc/group"] {
        let container = Container::new("true");
        fs::remove_file(container.image(file)).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, container.image(file), FileType::Fifo, Mode::from_raw_mode(0o644), 0)
            .unwrap();
        let text = container.error_text();
        assert!(text.contains("not a regular file"), "{text}");
        let container = Container::new("true");
        plant(&container, file, "/dev/zero");
        assert!(container.error_text().contains("not a regular file"));
        let container = Container::new("true");
        plant(&container, file, "/proc/self/fd/0");
        assert!(container.error_text().contains("symbolic links"), "magic links are not followed");
    }
}

fn root_large_passwd_is_refused() {
    let container = Container::new("true");
    fs::File::create(container.image("etc/passwd")).unwrap().set_len(1 << 30).unwrap();
    let text = container.error_text();
    assert!(text.contains("larger than"), "{text}");
}

fn root_linked_passwd_stays_inside() {
    let (mut container, victim, _) = with_victim("id -u");
    fs::write(victim.join("passwd"), "evil:x:0:0::/:/bin/sh\n").unwrap();
    plant(&container, "etc/passwd", victim.join("passwd"));
    container.user = "evil".into();
    assert!(fs::read_to_string(container.image("etc/passwd")).is_ok(), "the control");
    assert!(container.error_text().starts_with("unable to find user evil"));
    // A relative link inside the image is an ordinary thing.
    let mut container = Container::new("id -u");
    fs::rename(container.image("etc/passwd"), container.image("etc/real")).unwrap();
    plant(&container, "etc/passwd", "real");
    container.user = "app".into();
    assert_eq!(container.stdout(), "1000\n");
}

/// A descriptor on the host's root that would be inherited.
fn leaked() -> std::os::fd::OwnedFd {
    let fd = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    assert!(rustix::io::fcntl_getfd(&fd).unwrap().is_empty());
    fd
}

fn root_workdir_cannot_use_descriptors() {
    let leak = leaked();
    assert!(fs::metadata(format!("/proc/self/fd/{}/etc", leak.as_raw_fd())).is_ok(), "the control");
    for n in (0..32).chain([leak.as_raw_fd()]) {
        for suffix in ["", "/", "/../../..", "/etc"] {
            let mut container = Container::new("pwd; ls /proc/self/cwd");
            container.spec.process.cwd = format!("/proc/self/fd/{n}{suffix}");
            match container.try_run() {
                // `..` is taken away from the text first, like Docker does.
                Ok(output) => assert!(suffix.contains("..") && output.stdout.starts_with("/proc\n"), "{output:?}"),
                Err(error) => {
                    assert!(!suffix.contains("..") && error.to_string().contains("working directory"), "{error}")
                }
            }
            // One of each is enough for most numbers.
            if n > 8 && n != leak.as_raw_fd() {
                break;
            }
        }
    }
    for cwd in ["/proc/self/cwd", "/proc/1/root", "/proc/self/exe", "/link"] {
        let mut container = Container::new("pwd");
        plant(&container, "link", format!("/proc/self/fd/{}", leak.as_raw_fd()));
        container.spec.process.cwd = cwd.into();
        assert!(container.error_text().contains("working directory"), "{cwd}");
    }
}

fn root_workdir_cannot_escape() {
    let (mut container, victim, before) = with_victim("pwd");
    plant(&container, "esc", &victim);
    container.spec.process.cwd = "/esc/new".into();
    assert!(container.image("esc/sub").exists(), "the control");
    assert!(container.error_text().contains("working directory"));
    assert_eq!(snapshot(&victim), before);
}

fn root_program_cannot_use_descriptors() {
    let leak = leaked();
    assert!(fs::metadata(format!("/proc/self/fd/{}/bin/busybox", leak.as_raw_fd())).is_ok(), "the control");
    for n in (3..24).chain([leak.as_raw_fd()]) {
        let container = Container::with_args(&[&format!("/proc/self/fd/{n}/bin/busybox"), "true"]);
        let text = container.error_text();
        assert!(
            text.contains("no such file") || text.contains("not a directory") || text.contains("permission denied"),
            "{text}"
        );
    }
}

fn root_volume_cannot_shadow_proc_files() {
    // CVE-2019-16884, CVE-2025-52881: what the engine writes must not land in a file that is mounted over the target.
    let mut container =
        Container::new("cat /proc/self/oom_score_adj /proc/1/oom_score_adj; cat /proc/sys/net/ipv4/ip_forward");
    let trap = container.host("trap");
    fs::create_dir_all(&trap).unwrap();
    fs::write(trap.join("f"), "untouched").unwrap();
    let file = trap.join("f").to_str().unwrap().to_owned();
    container.mount("bind", &file, "/proc/sys/net/ipv4/ip_forward", "bind");
    container.spec.linux.sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
    container.spec.process.oom_score_adj = Some(77);
    assert_eq!(container.stdout(), "77\n77\nuntouched", "the control: the trap is in place");
    assert_eq!(fs::read_to_string(trap.join("f")).unwrap(), "untouched");
}

fn root_no_device_of_the_host_can_be_opened() {
    let script = "mknod /tmp/d b 254 0 && dd if=/tmp/d of=/dev/null count=1; mknod /tmp/m c 1 1 && dd if=/tmp/m of=/dev/null count=1; mknod /tmp/z c 1 5 && dd if=/tmp/z of=/dev/null count=1";
    let output = Container::new(script).run();
    assert_eq!(output.stderr.matches("Operation not permitted").count(), 2, "{}", output.stderr);
    assert!(output.stderr.contains("1+0 records in"), "the control: an allowed one can be read\n{}", output.stderr);
}

fn root_binary_cannot_be_overwritten() {
    // CVE-2019-5736, seen from a process that shares the engine's program: an init with a program that may look at it.
    let mut container =
        Container::new("f=/proc/1/exe; ls -L $f && (: > $f || dd if=/dev/zero of=$f conv=notrunc count=1)");
    container.init = true;
    for set in [
        &mut container.spec.process.capabilities.bounding,
        &mut container.spec.process.capabilities.effective,
        &mut container.spec.process.capabilities.permitted,
    ] {
        set.push("CAP_SYS_PTRACE".into());
    }
    let own = std::env::args().next().unwrap();
    let before = fs::metadata(&own).unwrap();
    let output = container.run();
    assert!(output.stdout.contains("/proc/1/exe"), "the control: it got at the file: {output:?}");
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
    let after = fs::metadata(&own).unwrap();
    assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
}
