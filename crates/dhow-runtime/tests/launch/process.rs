//! User, limits, environment, the built-in init.

use crate::fixture::{Container, read_line, read_terminal, wait, waiting};
use crate::tests;
use dhow_oci::runtime::Rlimit;
use dhow_runtime::StdioPlan;
use dhow_sys::process::{self, Exit};
use std::fs::{self, File};
use std::os::fd::AsFd;

tests![
    root_users_are_looked_up_inside,
    root_unknown_users_fail,
    root_home_is_the_users,
    root_limits_and_umask,
    root_oom_score_is_set,
    root_ambient_capabilities_reach_a_user,
    root_init_reaps_and_passes_on_exit_codes,
    root_init_forwards_signals,
    root_init_with_a_terminal,
    root_init_hides_the_callers_arguments,
    root_init_cannot_be_written_to,
    root_only_sealed_programs_start_containers,
];

fn id(user: &str) -> String {
    let mut container = Container::new("id -u; id -g; id -G");
    container.user = user.into();
    container.stdout().replace('\n', " ").trim().to_owned()
}

fn root_users_are_looked_up_inside() {
    assert_eq!(id(""), "0 0 0");
    assert_eq!(id("app"), "1000 1001 1001 20");
    assert_eq!(id("1000"), "1000 1001 1001 20");
    assert_eq!(id("app:extra"), "1000 20 20");
    assert_eq!(id("55"), "55 0 0");
    assert_eq!(id("55:66"), "55 66 66");
    let mut container = Container::new("id -G");
    container.group_add = vec!["extra".into(), "77".into()];
    assert_eq!(container.stdout(), "0 20 77\n");
    // Without any file the numbers still work.
    let container = Container::new("id -u; echo $HOME");
    fs::remove_dir_all(container.image("etc")).unwrap();
    assert_eq!(container.stdout(), "0\n/\n");
}

fn root_unknown_users_fail() {
    let mut container = Container::new("true");
    container.user = "nobody".into();
    assert_eq!(container.error_text(), "unable to find user nobody: no matching entries in passwd file");
    container.user = "root:nogroup".into();
    assert_eq!(container.error_text(), "unable to find group nogroup: no matching entries in group file");
    for user in ["4294967295", "4294967296", "0:4294967295", "-1"] {
        container.user = user.into();
        assert!(container.error_text().contains("must be in range"), "{user}");
    }
}

fn root_home_is_the_users() {
    let mut container = Container::new("echo $HOME");
    assert_eq!(container.stdout(), "/root\n");
    let mut user = Container::new("echo $HOME");
    user.user = "app".into();
    assert_eq!(user.stdout(), "/home/app\n");
    container.spec.process.env.push("HOME=/x".into());
    let mut again = Container::new("echo $HOME");
    again.spec.process.env = container.spec.process.env.clone();
    assert_eq!(again.stdout(), "/x\n");
}

fn root_limits_and_umask() {
    let mut container = Container::new("ulimit -Sn; ulimit -Hn; umask; touch /tmp/x; stat -c %a /tmp/x");
    container.spec.process.rlimits = vec![Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 100, hard: 200 }];
    assert_eq!(container.stdout(), "100\n200\n0022\n644\n");
    let mut container = Container::new("umask");
    container.spec.process.user.umask = Some(0o77);
    assert_eq!(container.stdout(), "0077\n");
}

fn root_oom_score_is_set() {
    let mut container = Container::new("cat /proc/self/oom_score_adj");
    container.spec.process.oom_score_adj = Some(321);
    assert_eq!(container.stdout(), "321\n");
}

fn root_ambient_capabilities_reach_a_user() {
    let mut container = Container::new("grep Cap /proc/self/status | cut -f2");
    container.user = "app".into();
    let cap = vec!["CAP_NET_BIND_SERVICE".to_owned()];
    container.spec.process.capabilities.ambient = cap.clone();
    container.spec.process.capabilities.inheritable = cap;
    let bit = "0000000000000400";
    assert_eq!(container.stdout(), format!("{bit}\n{bit}\n{bit}\n00000000a80425fb\n{bit}\n"));
}

fn root_init_reaps_and_passes_on_exit_codes() {
    let mut container = Container::new("exit 42");
    container.init = true;
    assert_eq!(container.run().code, 42);
    let mut container = Container::new("kill -9 $$");
    container.init = true;
    assert_eq!(container.run().code, 137);
    // An orphan that ends becomes the init's: nothing stays a zombie.
    let mut container = Container::new(
        "echo $$; cat /proc/1/comm; (true & ) ; (sleep 0.02 &) ; sleep 0.06; grep -l 'State:.Z' /proc/[0-9]*/status | wc -l",
    );
    container.init = true;
    assert_eq!(container.stdout(), "2\ndhow-init\n0\n");
    // The control: a program that does not care for children is left with the zombie.
    let container =
        Container::new("(sleep 0.02 &) ; exec sh -c 'sleep 0.06; grep -l State:.Z /proc/[0-9]*/status | wc -l'");
    drop(container.stdout());
    // The same confinement for the init as for the program.
    let mut container = Container::new(
        "for p in 1 2; do grep -E '^(Uid|Cap|NoNew|Seccomp:)' /proc/$p/status; done | sort | uniq -c | awk '{print $1}' | sort -u",
    );
    container.init = true;
    container.user = "app".into();
    assert_eq!(container.stdout(), "2\n");
}

fn root_init_forwards_signals() {
    let mut container = Container::new("trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done");
    container.init = true;
    let (mut launched, _stdin) = waiting(&container);
    let mut stdout = File::from(launched.stdout.take().unwrap());
    assert_eq!(read_line(&mut stdout), "ready");
    process::signal(launched.pidfd.as_fd(), libc::SIGTERM).unwrap();
    assert_eq!(wait(&launched), Exit::Code(5));
}

fn root_init_with_a_terminal() {
    let mut container = Container::new("echo $$; tty; echo hi > /dev/tty; exit 4");
    container.init = true;
    let launched = container.launch(StdioPlan::Pty { rows: 1, cols: 1, stdin: true }).unwrap();
    assert_eq!(read_terminal(&launched), "2\r\n/dev/pts/0\r\nhi\r\n");
    assert_eq!(wait(&launched), Exit::Code(4));
}

fn root_init_hides_the_callers_arguments() {
    let mut container = Container::new("cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/1/environ | wc -c");
    container.init = true;
    let output = container.run();
    assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["dhow-init", "0"], "{output:?}");
    assert!(!fs::read("/proc/self/cmdline").unwrap().starts_with(b"dhow-init"), "the caller keeps its own");
}

fn root_init_cannot_be_written_to() {
    // With CAP_SYS_PTRACE, which lets it see the link at all.
    let mut container = Container::new("readlink /proc/1/exe; echo x > /proc/1/exe");
    container.init = true;
    for set in [
        &mut container.spec.process.capabilities.bounding,
        &mut container.spec.process.capabilities.effective,
        &mut container.spec.process.capabilities.permitted,
    ] {
        set.push("CAP_SYS_PTRACE".into());
    }
    let output = container.run();
    assert!(!output.stdout.trim().is_empty(), "the control: it found the file");
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
    let mut container = Container::new("readlink /proc/1/exe");
    container.init = true;
    assert_eq!(container.run().stdout, "", "and without it, it does not even see it");
}

fn root_only_sealed_programs_start_containers() {
    // A thread is refused; the test above all others is that this program is sealed.
    let container = Container::new("true");
    let waiting = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| waiting.wait());
        let error = container.error();
        waiting.wait();
        assert!(matches!(error, dhow_runtime::LaunchError::Threads), "{error}");
    });
    // The thread is gone, but the kernel may still be taking it down.
    while !process::is_single_threaded().unwrap() {
        std::thread::yield_now();
    }
    assert!(process::exe_is_sealed().unwrap());
    container.stdout();
}
