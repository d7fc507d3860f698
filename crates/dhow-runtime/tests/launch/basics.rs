//! A container starts, runs in namespaces of its own, confined like Docker's, and ends.

use crate::fixture::{Container, finish, kill, read_line, read_terminal, wait, waiting, write};
use crate::tests;
use dhow_oci::runtime::{Namespace, NamespaceKind};
use dhow_runtime::StdioPlan;
use dhow_sys::process::{self, Exit};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;

tests![
    root_exit_codes,
    root_streams_are_apart,
    root_stdin_is_piped,
    root_without_stdin_there_is_null,
    root_given_descriptors_are_used,
    root_confinement_is_dockers,
    root_namespaces_are_own,
    root_time_namespace_when_asked,
    root_network_of_another_container,
    root_processes_of_another_container,
    root_namespaces_of_the_host,
    root_no_descriptor_leaks,
    root_terminal_has_its_size_at_the_first_byte,
    root_terminal_is_the_controlling_one,
    root_users_can_open_their_streams,
    root_host_is_named,
    root_network_closures_are_called_in_order,
    root_host_mounts_do_not_change,
    root_start_time_and_pid_are_of_the_program,
    root_cgroups_are_joined,
    root_container_ends_with_its_maker,
    root_a_maker_killed_at_any_moment_leaves_nothing,
];

fn root_exit_codes() {
    for code in [0, 1, 7, 255] {
        assert_eq!(Container::new(&format!("exit {code}")).run().code, code);
    }
    let container = Container::new("cat");
    let (launched, _stdin) = waiting(&container);
    process::signal(launched.pidfd.as_fd(), libc::SIGKILL).unwrap();
    assert_eq!(wait(&launched), Exit::Signal(libc::SIGKILL));
}

fn root_streams_are_apart() {
    let output = Container::new("echo out; echo err >&2; exit 3").run();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (3, "out\n", "err\n"));
}

fn root_stdin_is_piped() {
    let container = Container::new("cat; echo end");
    let mut launched = container.launch(StdioPlan::Pipes { stdin: true }).unwrap();
    write(&mut File::from(launched.stdin.take().unwrap()), "hello\n");
    assert_eq!(finish(launched).stdout, "hello\nend\n");
}

fn root_without_stdin_there_is_null() {
    let text = Container::new("readlink /proc/self/fd/0; cat; echo end").stdout();
    assert_eq!(text, "/dev/null\nend\n");
}

fn root_given_descriptors_are_used() {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let null = || std::os::fd::OwnedFd::from(File::open("/dev/null").unwrap());
    let container = Container::new("echo hi >&2; echo lost 2>/dev/null; true");
    let launched = container.launch(StdioPlan::Fds([null(), null(), write])).unwrap();
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(wait(&launched), Exit::Code(0));
    assert!(text.starts_with("hi\n"), "{text}");
}

/// Lines of `/proc/self/status` that say what a process may do.
pub const STATUS: &str = "^(Uid|Gid|Groups|Sig(Blk|Ign)|Cap|NoNewPrivs|Seccomp:|Umask)";

/// What [`STATUS`] shows for a process that Docker started.
fn status(ids: (u32, u32), groups: &str, effective: &str, no_new_privileges: u8) -> String {
    let none = "0000000000000000";
    let four = |id: u32| format!("{id}\t{id}\t{id}\t{id}");
    format!(
        "Umask:\t0022\nUid:\t{}\nGid:\t{}\nGroups:\t{groups} \nSigBlk:\t{none}\nSigIgn:\t{none}\nCapInh:\t{none}\n\
        CapPrm:\t{effective}\nCapEff:\t{effective}\nCapBnd:\t00000000a80425fb\nCapAmb:\t{none}\n\
        NoNewPrivs:\t{no_new_privileges}\nSeccomp:\t2\n",
        four(ids.0),
        four(ids.1)
    )
}

fn root_confinement_is_dockers() {
    let args = ["grep", "-E", STATUS, "/proc/self/status"];
    assert_eq!(Container::with_args(&args).stdout(), status((0, 0), "0", "00000000a80425fb", 0));
    let mut container = Container::with_args(&args);
    container.user = "app".into();
    assert_eq!(container.stdout(), status((1000, 1001), "20 1001", "0000000000000000", 0));
    for user in ["", "app"] {
        let mut container = Container::with_args(&args);
        container.user = user.into();
        container.spec.process.no_new_privileges = true;
        let expect = match user {
            "" => status((0, 0), "0", "00000000a80425fb", 1),
            _ => status((1000, 1001), "20 1001", "0000000000000000", 1),
        };
        assert_eq!(container.stdout(), expect);
    }
}

fn root_namespaces_are_own() {
    let text = Container::new("for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done").stdout();
    for link in text.lines() {
        let kind = link.split(':').next().unwrap();
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_eq!(link == host.to_str().unwrap(), kind == "user", "{link}");
    }
    assert_eq!(Container::new("echo $$; ps | wc -l; ls /sys/class/net").stdout(), "1\n4\nlo\n");
}

fn root_time_namespace_when_asked() {
    let mut container = Container::new("readlink /proc/self/ns/time; cat; true");
    let host = fs::read_link("/proc/self/ns/time").expect("this kernel has time namespaces");
    assert_eq!(container.run().stdout, format!("{}\n", host.display()), "the control");
    container.spec.linux.namespaces.push(Namespace { kind: NamespaceKind::Time, path: None });
    let (mut launched, _stdin) = waiting(&container);
    let mut stdout = File::from(launched.stdout.take().unwrap());
    let own = read_line(&mut stdout);
    assert_ne!(own, host.to_str().unwrap());
    assert_eq!(container.exec_script(&launched, "readlink /proc/self/ns/time").stdout.trim(), own);
    kill(&launched);
}

/// Lets a container share a namespace of a process.
fn share(container: &mut Container, kind: NamespaceKind, pid: u32) {
    container.spec.linux.namespaces.retain(|n| n.kind != kind);
    let path = Some(format!("/proc/{pid}/ns/{}", kind.proc_name()));
    container.spec.linux.namespaces.push(Namespace { kind, path });
}

fn root_network_of_another_container() {
    let first = Container::new("cat; true");
    let (launched, _stdin) = waiting(&first);
    let link = |pid: u32, name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    for (kind, name) in [
        (NamespaceKind::Network, "net"),
        (NamespaceKind::Ipc, "ipc"),
        (NamespaceKind::Uts, "uts"),
        (NamespaceKind::Cgroup, "cgroup"),
    ] {
        let mut second = Container::new(&format!("readlink /proc/self/ns/{name}; ls /sys/class/net; hostname"));
        share(&mut second, kind, launched.pid);
        assert_eq!(second.stdout(), format!("{}\nlo\nbox\n", link(launched.pid, name).display()));
    }
    let mut second = Container::new("true");
    share(&mut second, NamespaceKind::Network, launched.pid);
    second.spec.linux.namespaces.last_mut().unwrap().path = Some("/proc/self/status".into());
    assert!(second.error_text().contains("not a namespace file"));
    kill(&launched);
}

fn root_processes_of_another_container() {
    let first = Container::new("cat; true");
    let (launched, _stdin) = waiting(&first);
    let mut second = Container::new("test $$ != 1 && ps | grep -c '[c]at; true'; exec cat");
    share(&mut second, NamespaceKind::Pid, launched.pid);
    let own = || fs::read_link("/proc/self/ns/pid_for_children").unwrap();
    let before = (own(), rustix::process::dumpable_behavior().unwrap());
    let (mut other, stdin) = waiting(&second);
    assert_eq!((own(), rustix::process::dumpable_behavior().unwrap()), before, "the caller is where it was");
    let mut stdout = File::from(other.stdout.take().unwrap());
    assert_eq!(read_line(&mut stdout), "1");
    drop(stdin);
    assert_eq!(wait(&other), Exit::Code(0));
    kill(&launched);
}

fn root_namespaces_of_the_host() {
    let mut container = Container::new("for n in net pid ipc uts cgroup; do readlink /proc/self/ns/$n; done; hostname");
    container.spec.linux.namespaces.retain(|n| n.kind == NamespaceKind::Mount);
    container.spec.hostname = "must-not-be-set".into();
    let mut expect = String::new();
    for name in ["net", "pid", "ipc", "uts", "cgroup"] {
        expect += &format!("{}\n", fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display());
    }
    expect += &format!("{}\n", rustix::system::uname().nodename().to_str().unwrap());
    assert_eq!(container.stdout(), expect);
}

fn root_no_descriptor_leaks() {
    // One that an incautious caller leaves open across execve(2).
    let leak = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    assert!(rustix::io::fcntl_getfd(&leak).unwrap().is_empty(), "the control: it would be inherited");
    // `echo` with a glob of the shell: the shell itself opens the directory for that, as 3.
    let text =
        Container::new("ls -l /proc/1/fd | wc -l; for f in /proc/1/fd/*; do readlink $f | cut -d: -f1; done").stdout();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[1..4], ["/dev/null", "pipe", "pipe"], "{text}");
    assert!(lines.len() <= 5, "{text}");
}

fn root_terminal_has_its_size_at_the_first_byte() {
    let container = Container::new("stty size; tty; ls -l /dev/console | cut -c1; echo hi > /dev/console");
    let launched = container.launch(StdioPlan::Pty { rows: 33, cols: 101, stdin: true }).unwrap();
    let text = read_terminal(&launched);
    assert_eq!(wait(&launched), Exit::Code(0), "{text}");
    assert_eq!(text, "33 101\r\n/dev/pts/0\r\nc\r\nhi\r\n");
    assert!(launched.stdin.is_none() && launched.stdout.is_none());
}

fn root_terminal_is_the_controlling_one() {
    // /dev/tty is the controlling terminal; the interrupt character becomes a signal.
    let container = Container::new("trap 'echo got; exit 9' INT; echo ready > /dev/tty; while :; do sleep 0.05; done");
    let launched = container.launch(StdioPlan::Pty { rows: 24, cols: 80, stdin: true }).unwrap();
    let mut master = File::from(launched.pty.as_ref().unwrap().try_clone().unwrap());
    assert_eq!(read_line(&mut master), "ready\r");
    write(&mut master, "\x03");
    assert_eq!(wait(&launched), Exit::Code(9));
}

fn root_users_can_open_their_streams() {
    let mut container = Container::new("echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin");
    container.user = "app".into();
    let mut launched = container.launch(StdioPlan::Pipes { stdin: true }).unwrap();
    write(&mut File::from(launched.stdin.take().unwrap()), "in\n");
    let output = finish(launched);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "out\nin\n", "err\n"));

    let mut container = Container::new("tty; echo hi > $(tty); stat -c %u:%g $(tty)");
    container.user = "app".into();
    let launched = container.launch(StdioPlan::Pty { rows: 0, cols: 0, stdin: false }).unwrap();
    assert_eq!(read_terminal(&launched), "/dev/pts/0\r\nhi\r\n1000:5\r\n");
    wait(&launched);
}

fn root_host_is_named() {
    let mut container =
        Container::new("hostname; cat /proc/sys/kernel/domainname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    container.spec.domainname = "example".into();
    container.spec.linux.sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    container.spec.linux.sysctl.insert("kernel.msgmax".into(), "8000".into());
    let before = rustix::system::uname().nodename().to_owned();
    assert_eq!(container.stdout(), "box\nexample\n0\n");
    assert_eq!(rustix::system::uname().nodename(), before.as_c_str());
}

fn root_network_closures_are_called_in_order() {
    let mut container = Container::new("true");
    container.attach = |pid| {
        let own = fs::read_link("/proc/self/ns/net").map_err(|e| e.to_string())?;
        let theirs = fs::read_link(format!("/proc/{pid}/ns/net")).map_err(|e| e.to_string())?;
        if own == theirs { Err("the same network".into()) } else { Ok(()) }
    };
    container.inside = Some(|| Err(format!("inside {}", rustix::process::getpid().as_raw_nonzero())));
    assert_eq!(container.error_text(), "inside 1");
    container.attach = |_| Err("not attached".into());
    assert_eq!(container.error_text(), "not attached");
}

fn root_host_mounts_do_not_change() {
    let table = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = table();
    let container = Container::new("cat");
    let (launched, stdin) = waiting(&container);
    assert_eq!(table(), before, "while it runs");
    drop(stdin);
    wait(&launched);
    Container::new("true").stdout();
    assert_eq!(table(), before);
    let inside = Container::new("cat /proc/mounts").stdout();
    assert!(inside.starts_with("overlay / overlay "), "the control: it has mounts of its own\n{inside}");
}

fn root_start_time_and_pid_are_of_the_program() {
    let container = Container::new("cat; true");
    let (launched, _stdin) = waiting(&container);
    assert_eq!(process::start_time(launched.pid).unwrap(), launched.start_time);
    let line = fs::read_to_string(format!("/proc/{}/cmdline", launched.pid)).unwrap();
    assert!(line.starts_with("/bin/sh\0-c\0cat"), "{line:?}");
    kill(&launched);
}

fn root_cgroups_are_joined() {
    let container = Container::new(
        "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/cgroup.procs || cat /sys/fs/cgroup/cgroup.procs; cat",
    );
    let (mut launched, stdin) = waiting(&container);
    let inside = launched.stdout.take().unwrap();
    let pids = container.cgroup().pids().unwrap();
    assert!(pids.contains(&launched.pid), "{pids:?}");
    drop(stdin);
    wait(&launched);
    let mut text = String::new();
    File::from(inside).read_to_string(&mut text).unwrap();
    // Its own cgroup is the root of what it sees.
    assert!(text.lines().filter(|l| l.contains(':')).all(|l| l.ends_with(":/")), "{text}");
    assert!(text.lines().any(|l| l == "1"), "{text}");
}

fn root_container_ends_with_its_maker() {
    let container = Container::new("cat");
    let (read, write_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    // A maker between us and the container that tells its pid and dies.
    let maker = process::clone_child(0, None, || {
        let launched = container.launch(StdioPlan::Pipes { stdin: true }).unwrap();
        write(&mut File::from(write_end.try_clone().unwrap()), &launched.pid.to_string());
        // Wait to be killed.
        rustix::event::pause();
        0
    })
    .unwrap();
    let mut buffer = [0; 20];
    let n = File::from(read).read(&mut buffer).unwrap();
    let pid: u32 = std::str::from_utf8(&buffer[..n]).unwrap().parse().unwrap();
    let pidfd = process::pidfd(pid).unwrap();
    process::signal(maker.pidfd.as_fd(), libc::SIGKILL).unwrap();
    process::wait(maker.pidfd.as_fd()).unwrap();
    // Readable once it has ended.
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1);
}

fn root_a_maker_killed_at_any_moment_leaves_nothing() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    for step in 0..24_u64 {
        let container = Container::new("cat");
        let maker = process::clone_child(0, None, || {
            let launched = container.launch(StdioPlan::Pipes { stdin: true });
            rustix::event::pause();
            drop(launched);
            0
        })
        .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(step * 400));
        process::signal(maker.pidfd.as_fd(), libc::SIGKILL).unwrap();
        process::wait(maker.pidfd.as_fd()).unwrap();
        // What it made is going down by itself.
        let tries = 2000;
        let gone = (0..tries).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            container.cgroup().pids().unwrap().is_empty()
        });
        assert!(gone, "killed after {step} steps");
    }
    assert_eq!(mounts(), before);
}
