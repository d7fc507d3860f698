//! Commands that cannot be started: Docker's words, Docker's exit codes, nothing left.

use crate::fixture::{Container, Output};
use crate::tests;
use dhow_runtime::LaunchError;
use dhow_types::{Categorized, ErrorKind};
use std::fs;
use std::os::unix::fs::PermissionsExt;

tests![
    root_missing_commands,
    root_commands_that_cannot_be_executed,
    root_scripts,
    root_the_user_decides_what_is_executable,
    root_specifications_that_make_no_sense,
    root_failed_starts_leave_nothing,
    root_working_directories,
    root_a_filter_that_forbids_everything_is_noticed,
];

fn failed(args: &[&str]) -> (ErrorKind, String) {
    let error = Container::with_args(args).error();
    (error.kind(), dhow_types::report(&error))
}

fn root_missing_commands() {
    let not_found = |text: &str| (ErrorKind::CommandNotFound, text.to_owned());
    assert_eq!(failed(&["nope"]), not_found("exec: \"nope\": executable file not found in $PATH"));
    assert_eq!(failed(&["/nope"]), not_found("exec: \"/nope\": stat /nope: no such file or directory"));
    assert_eq!(failed(&["./nope"]), not_found("exec: \"./nope\": stat ./nope: no such file or directory"));
    assert_eq!(failed(&[""]), not_found("exec: \"\": executable file not found in $PATH"));
}

fn root_commands_that_cannot_be_executed() {
    let not_executable = |text: &str| (ErrorKind::CommandNotExecutable, text.to_owned());
    assert_eq!(failed(&["/etc/passwd"]), not_executable("exec: \"/etc/passwd\": permission denied"));
    assert_eq!(failed(&["/etc"]), not_executable("exec: \"/etc\": is a directory"));
    let container = Container::with_args(&["/bin/text"]);
    container.write("bin/text", "no program");
    fs::set_permissions(container.image("bin/text"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(container.error_text(), "exec: \"/bin/text\": exec format error");
    let mut container = Container::with_args(&["/noexec/x"]);
    container.mount("tmpfs", "tmpfs", "/noexec", "noexec");
    assert!(container.error_text().contains("no such file"));
}

fn root_scripts() {
    let script = |text: &str| {
        let container = Container::with_args(&["/bin/script", "arg"]);
        container.write("bin/script", text);
        fs::set_permissions(container.image("bin/script"), fs::Permissions::from_mode(0o755)).unwrap();
        container
    };
    assert_eq!(script("#!/bin/sh\necho $1").stdout(), "arg\n");
    let error = script("#!/nope\n").error();
    assert_eq!(error.kind(), ErrorKind::CommandNotFound);
    assert_eq!(error.to_string(), "exec: \"/bin/script\": no such file or directory");
}

fn root_the_user_decides_what_is_executable() {
    let mut container = Container::with_args(&["/bin/mine"]);
    container.write("bin/mine", "#!/bin/sh\necho ran");
    fs::set_permissions(container.image("bin/mine"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(container.stdout(), "ran\n", "the control: root may");
    let mut other = Container::with_args(&["/bin/mine"]);
    other.lower = container.lower.clone();
    other.user = "app".into();
    assert_eq!(other.error().kind(), ErrorKind::CommandNotExecutable);
    container.user = "app".into();
}

fn root_specifications_that_make_no_sense() {
    assert_eq!(failed(&[]), (ErrorKind::Invalid, "no command specified".into()));
    let mut container = Container::new("true");
    container.spec.process.capabilities.bounding.push("CAP_NOPE".into());
    assert_eq!(container.error().kind(), ErrorKind::Invalid);
    for (kind, destination) in [("tmpfs", "/"), ("tmpfs", "/x/.."), ("", "/x"), ("nonsense", "/x"), ("tmpfs", "/a\0b")]
    {
        let mut container = Container::new("true");
        container.mount(kind, "", destination, "rw");
        assert_eq!(container.error().kind(), ErrorKind::Invalid, "{kind} {destination:?}");
    }
    let mut container = Container::new("true");
    container.spec.linux.sysctl.insert("kernel.core_pattern".into(), "|/evil".into());
    assert_eq!(container.error().kind(), ErrorKind::Invalid);
    let mut container = Container::new("true");
    container.spec.process.args.push("a\0b".into());
    assert_eq!(container.error().kind(), ErrorKind::Invalid);
}

fn root_failed_starts_leave_nothing() {
    let container = Container::with_args(&["/nope"]);
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    container.error();
    assert_eq!(fs::read_dir("/proc/self/fd").unwrap().count(), before, "descriptors");
    // No child is left, not even a zombie.
    let none = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert_eq!(none.unwrap_err(), rustix::io::Errno::CHILD);
    assert!(container.cgroup().pids().unwrap().is_empty());
}

fn root_working_directories() {
    let run = |cwd: &str| {
        let mut container = Container::new("pwd");
        container.spec.process.cwd = cwd.into();
        container.try_run().map(|Output { stdout, .. }| stdout)
    };
    assert_eq!(run("").unwrap(), "/\n");
    assert_eq!(run("/home/app/..//app").unwrap(), "/home/app\n");
    assert_eq!(run("/new/deep").unwrap(), "/new/deep\n");
    let is_refused = |cwd: &str| matches!(run(cwd), Err(LaunchError::Step { stage: dhow_runtime::Stage::Workdir, .. }));
    assert!(is_refused("relative") && is_refused("/etc/passwd") && is_refused("/etc/passwd/x") && is_refused("/a\0b"));
    let mut container = Container::new("stat -c '%a %u' /new");
    container.spec.process.cwd = "/new".into();
    container.user = "app".into();
    assert_eq!(container.stdout(), "755 0\n", "root's, like Docker");
}

fn root_a_filter_that_forbids_everything_is_noticed() {
    let profile = r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[]}"#;
    let mut container = Container::new("true");
    container.seccomp = dhow_runtime::seccomp::from_profile(profile, &dhow_runtime::caps::DEFAULT).unwrap();
    container.spec.process.no_new_privileges = true;
    // The program never ran, which its exit says.
    assert_eq!(container.run().code, 128 + libc::SIGSYS);
}
