//! Processes put into a running container.

use crate::basics::STATUS;
use crate::fixture::{Container, finish, kill, read_terminal, wait, waiting};
use crate::tests;
use dhow_runtime::{LaunchError, StdioPlan};
use dhow_sys::process::{self, Exit};
use dhow_types::{Categorized, ErrorKind};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

tests![
    root_exec_is_confined_like_init,
    root_exec_is_a_child_and_leaves_the_caller_alone,
    root_exec_joins_the_cgroups,
    root_exec_exit_codes_and_errors,
    root_exec_terminal,
    root_exec_users,
    root_exec_working_directory,
    root_exec_sees_no_descriptor,
    root_exec_into_what_is_gone,
    root_exec_into_what_is_just_ending,
    root_exec_workdir_swapped_for_a_link,
    root_exec_ends_with_the_container,
    root_exec_terminal_needs_a_real_devpts,
];

fn root_exec_is_confined_like_init() {
    let probe = format!(
        "grep -E '{STATUS}' /proc/self/status; for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup /proc/self/oom_score_adj; ulimit -n; pwd; echo $HOME; echo x > /proc/sys/vm/swappiness; wc -c < /proc/keys"
    );
    for user in ["", "app", "5:6"] {
        let mut container = Container::new(&format!("( {probe} ) 2>&1; echo; cat"));
        container.user = user.into();
        container.spec.process.oom_score_adj = Some(55);
        let (mut launched, stdin) = waiting(&container);
        let output = container.exec_script(&launched, &format!("( {probe} ) 2>&1"));
        drop(stdin);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut File::from(launched.stdout.take().unwrap()), &mut text).unwrap();
        wait(&launched);
        assert_eq!(text.trim_end(), output.stdout.trim_end(), "user {user:?}");
        assert!(output.stdout.contains("Read-only file system"), "{}", output.stdout);
    }
}

fn root_exec_is_a_child_and_leaves_the_caller_alone() {
    let container = Container::new("cat");
    let (launched, _stdin) = waiting(&container);
    let namespaces = || {
        fs::read_dir("/proc/self/ns").unwrap().map(|e| fs::read_link(e.unwrap().path()).unwrap()).collect::<Vec<_>>()
    };
    let state = || {
        (
            namespaces(),
            fs::read_to_string("/proc/self/cgroup").unwrap(),
            rustix::process::dumpable_behavior().unwrap(),
            fs::read_dir("/proc/self/fd").unwrap().count(),
        )
    };
    let before = state();
    let executed = container.exec(&launched, &container.process("exec cat"), StdioPlan::Pipes { stdin: true }).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", executed.pid)).unwrap();
    assert!(status.contains(&format!("\nPPid:\t{}\n", std::process::id())), "{status}");
    assert_eq!(process::start_time(executed.pid).unwrap(), executed.start_time);
    assert_eq!(finish(executed).code, 0);
    assert_eq!(state(), before);
    kill(&launched);
}

fn root_exec_joins_the_cgroups() {
    let container = Container::new("cat");
    let (launched, _stdin) = waiting(&container);
    let mut executed =
        container.exec(&launched, &container.process("exec cat"), StdioPlan::Pipes { stdin: true }).unwrap();
    let pids = container.cgroup().pids().unwrap();
    assert!(pids.contains(&launched.pid) && pids.contains(&executed.pid), "{pids:?}");
    let cgroup = |pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroup(launched.pid), cgroup(executed.pid));
    drop(executed.stdin.take());
    finish(executed);
    kill(&launched);
}

fn root_exec_exit_codes_and_errors() {
    let container = Container::new("cat");
    let (launched, _stdin) = waiting(&container);
    let output = container.exec_script(&launched, "echo out; echo err >&2; exit 9");
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (9, "out\n", "err\n"));
    let error = |args: &[&str]| {
        let mut process = container.process("");
        process.args = args.iter().map(|a| (*a).to_owned()).collect();
        container.exec(&launched, &process, StdioPlan::Pipes { stdin: false }).unwrap_err()
    };
    assert_eq!(error(&["nope"]).kind(), ErrorKind::CommandNotFound);
    assert_eq!(error(&["/etc"]).kind(), ErrorKind::CommandNotExecutable);
    assert_eq!(error(&[]).to_string(), "no command specified");
    let none = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert!(none.unwrap().is_none(), "only the container is left");
    kill(&launched);
}

fn root_exec_terminal() {
    let container = Container::new("cat");
    let (launched, _stdin) = waiting(&container);
    let process = container.process("stty size; tty; echo hi > /dev/tty");
    let executed = container.exec(&launched, &process, StdioPlan::Pty { rows: 7, cols: 9, stdin: true }).unwrap();
    assert_eq!(read_terminal(&executed), "7 9\r\n/dev/pts/0\r\nhi\r\n");
    assert_eq!(wait(&executed), Exit::Code(0));
    kill(&launched);
}

fn root_exec_users() {
    let mut container = Container::new("cat");
    let (launched, _stdin) = waiting(&container);
    for (user, ids) in [("1", "1 0 0"), ("1:2", "1 2 2"), ("app", "1000 1001 1001 20"), ("", "0 0 0")] {
        container.user = user.into();
        let text =
            container.exec_script(&launched, "echo $(id -u) $(id -g) $(id -G); grep CapInh /proc/self/status").stdout;
        assert_eq!(text, format!("{ids}\nCapInh:\t0000000000000000\n"), "{user:?}");
    }
    // The files are read as the container has them now.
    container.user = String::new();
    container.exec_script(&launched, "echo late:x:77:78::/late:/bin/sh >> /etc/passwd");
    container.user = "late".into();
    assert_eq!(container.exec_script(&launched, "id -u; echo $HOME").stdout, "77\n/late\n");
    container.user = "nobody".into();
    let error = container.exec(&launched, &container.process("true"), StdioPlan::Pipes { stdin: false }).unwrap_err();
    assert!(error.to_string().starts_with("unable to find user nobody"));
    // A FIFO is put there meanwhile.
    container.user = String::new();
    container.exec_script(&launched, "rm /etc/passwd; mkfifo /etc/passwd");
    let error = container.exec(&launched, &container.process("true"), StdioPlan::Pipes { stdin: false }).unwrap_err();
    assert!(dhow_types::report(&error).contains("not a regular file"), "{error}");
    kill(&launched);
}

fn root_exec_working_directory() {
    let container = Container::new("cat");
    let (launched, _stdin) = waiting(&container);
    let run = |cwd: &str| {
        let mut process = container.process("pwd");
        process.cwd = cwd.into();
        container.exec(&launched, &process, StdioPlan::Pipes { stdin: false }).map(finish)
    };
    assert_eq!(run("/home/app").unwrap().stdout, "/home/app\n");
    let error = run("/missing").unwrap_err();
    assert!(error.to_string().contains("/missing"), "not made, like Docker: {error}");
    let leak = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for n in 3..32 {
        assert!(run(&format!("/proc/self/fd/{n}")).is_err(), "{n}");
    }
    drop(leak);
    kill(&launched);
}

fn root_exec_sees_no_descriptor() {
    let leak = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let container = Container::new("cat");
    let (launched, _stdin) = waiting(&container);
    let text = container
        .exec_script(&launched, "for f in /proc/$$/fd/*; do echo ${f##*/} $(readlink $f | cut -d: -f1); done")
        .stdout;
    assert!(text.starts_with("0 /dev/null\n1 pipe\n2 pipe\n"), "{text}");
    assert!(!text.lines().any(|l| l.ends_with(" /")), "{text}");
    drop(leak);
    kill(&launched);
}

fn root_exec_into_what_is_gone() {
    let container = Container::new("true");
    let launched = container.launch(StdioPlan::Pipes { stdin: false }).unwrap();
    let pidfd = launched.pidfd.try_clone().unwrap();
    // A zombie first, then nothing.
    for _ in 0..2 {
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        let error =
            container.exec(&launched, &container.process("true"), StdioPlan::Pipes { stdin: false }).unwrap_err();
        assert!(matches!(error, LaunchError::Gone), "{error}");
        let _ = process::try_wait(launched.pidfd.as_fd());
    }
}

fn root_exec_into_what_is_just_ending() {
    for _ in 0..20 {
        let container = Container::new("cat");
        let (launched, _stdin) = waiting(&container);
        process::signal(launched.pidfd.as_fd(), libc::SIGKILL).unwrap();
        match container.exec(&launched, &container.process("true"), StdioPlan::Pipes { stdin: false }) {
            Err(LaunchError::Gone) => {}
            Err(error) => panic!("{}", dhow_types::report(&error)),
            // It was quicker than its container's end.
            Ok(executed) => drop(finish(executed)),
        }
        wait(&launched);
    }
}

fn root_exec_workdir_swapped_for_a_link() {
    let container = Container::new("cat");
    let (launched, _stdin) = waiting(&container);
    fs::create_dir_all(container.host("victim")).unwrap();
    // From the container's side, as an attacker in there would; the working directory is gone by the time of exec.
    container.exec_script(&launched, "mkdir /work");
    let mut process = container.process("pwd");
    process.cwd = "/work".into();
    let run = || container.exec(&launched, &process, StdioPlan::Pipes { stdin: false }).map(finish);
    assert_eq!(run().unwrap().stdout, "/work\n", "the control");
    for target in ["/proc/self/fd/3", "/proc/1/root", "/proc/self/cwd", "/nowhere"] {
        container.exec_script(&launched, &format!("rm -r /work; ln -s {target} /work || busybox ln -s {target} /work"));
        let link = fs::read_link(format!("/proc/{}/root/work", launched.pid)).unwrap();
        assert_eq!(link.to_str(), Some(target), "the control: the link is there");
        assert!(run().is_err(), "{target}");
    }
    kill(&launched);
}

fn root_exec_ends_with_the_container() {
    let container = Container::new("cat");
    let (launched, _stdin) = waiting(&container);
    let mut executed =
        container.exec(&launched, &container.process("exec cat"), StdioPlan::Pipes { stdin: true }).unwrap();
    let _held = executed.stdin.take();
    process::signal(launched.pidfd.as_fd(), libc::SIGKILL).unwrap();
    // In this order: the kernel ends a PID namespace's first process only when all others were reaped, and this one is
    // ours to reap.
    assert_eq!(wait(&executed), Exit::Signal(libc::SIGKILL));
    assert_eq!(wait(&launched), Exit::Signal(libc::SIGKILL));
}

fn root_exec_terminal_needs_a_real_devpts() {
    let mut container = Container::new("cat");
    container.spec.mounts.retain(|m| !m.destination.starts_with("/dev/pts"));
    fs::create_dir_all(container.image("real")).unwrap();
    symlink("/real", container.image("x")).unwrap();
    let (launched, _stdin) = waiting(&container);
    container.exec_script(&launched, "mkdir /dev/pts; mknod /dev/pts/ptmx c 5 2");
    let stdio = StdioPlan::Pty { rows: 1, cols: 1, stdin: false };
    let error = container.exec(&launched, &container.process("true"), stdio).unwrap_err();
    assert!(error.to_string().contains("not a devpts file system"), "{error}");
    kill(&launched);
}
