use super::*;
use std::fs;
use std::os::fd::AsFd;

fn kinds(ids: &[NsId]) -> Vec<NamespaceKind> {
    ids.iter().map(|n| n.kind).collect()
}

#[test]
fn own_namespaces() {
    let own = of(std::process::id()).unwrap();
    assert_eq!(own, host().unwrap());
    assert_eq!(kinds(&own), NamespaceKind::ALL);
    for id in &own {
        let link = fs::read_link(format!("/proc/self/ns/{}", id.kind.proc_name())).unwrap();
        assert_eq!(link.to_str().unwrap(), id.to_string());
        let file = fs::File::open(format!("/proc/self/ns/{}", id.kind.proc_name())).unwrap();
        assert_eq!(kind_of(file.as_fd()).unwrap(), id.kind);
    }
}

#[test]
fn processes_that_are_not_there() {
    assert!(matches!(of(u32::MAX), Err(NsError::NoProcess { .. })));
    let error = of(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn who_owns_the_own_namespaces() {
    let user = host().unwrap().into_iter().find(|n| n.kind == NamespaceKind::User).unwrap();
    let net = owner(std::process::id(), NamespaceKind::Network).unwrap();
    assert_eq!((net.user, net.parent, net.uid), (Some(user), None, None));
    assert!(owner(std::process::id(), NamespaceKind::User).unwrap().uid.is_some());
}

#[test]
fn files_that_cannot_be_entered() {
    let none: [String; 0] = [];
    for (paths, text) in [
        (vec!["/proc/self/ns/nothing"], "cannot open /proc/self/ns/nothing"),
        (vec!["/proc/self/status"], "/proc/self/status is not a namespace"),
        (vec!["/dev/null"], "/dev/null is not a namespace"),
        (vec!["/"], "/ is not a namespace"),
        (
            vec!["/proc/self/ns/net", "/proc/self/ns/net"],
            "two net namespaces are given, /proc/self/ns/net being the second",
        ),
    ] {
        assert_eq!(enter(&paths, &none, &none).unwrap_err().to_string(), text);
    }
}

/// A process that holds new namespaces until its input closes.
struct Holder(std::process::Child);

impl Holder {
    fn new(flags: &str) -> Self {
        use std::io::BufRead;
        let mut child = std::process::Command::new("unshare")
            .args([flags, "/bin/sh", "-c", "echo ready; read x"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self(child)
    }

    fn file(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn root_namespaces_of_another_process_differ() {
    let holder = Holder::new("-nu");
    let (own, other) = (host().unwrap(), of(holder.0.id()).unwrap());
    let differ: Vec<NamespaceKind> = own.iter().zip(&other).filter(|(a, b)| a != b).map(|(a, _)| a.kind).collect();
    assert_eq!(differ, [NamespaceKind::Network, NamespaceKind::Uts]);
}

/// `enter` replaces the process: it runs in a copy of this test program that runs one test.
fn enter_elsewhere(paths: &[String], argv: &[&str]) -> std::process::Output {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nsview::tests::entering_process", "--nocapture", "--test-threads=1"])
        .env("DHOW_TEST_ENTER", paths.join("\n"))
        .env("DHOW_TEST_ARGV", argv.join("\n"))
        .output()
        .unwrap()
}

/// Does nothing unless [`enter_elsewhere`] asks. A thread of the harness can enter network namespaces; what needs a
/// process with one thread is tested in `tests/launch`.
#[test]
fn entering_process() {
    let (Ok(paths), Ok(argv)) = (std::env::var("DHOW_TEST_ENTER"), std::env::var("DHOW_TEST_ARGV")) else { return };
    let paths: Vec<&str> = paths.lines().collect();
    let argv: Vec<String> = argv.lines().map(str::to_owned).collect();
    let code = match enter(&paths, &argv, &["PATH=/usr/bin:/bin".to_owned(), "X=y".to_owned()]) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{}", dhow_types::report(&e));
            match e.kind() {
                ErrorKind::CommandNotFound => 127,
                ErrorKind::CommandNotExecutable => 126,
                _ => 125,
            }
        }
    };
    std::process::exit(code);
}

/// What the program printed; the harness's own lines come before it.
fn last_lines(output: &std::process::Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.split("entering_process ... ")
        .last()
        .unwrap_or_default()
        .trim_start_matches("running 1 test\n")
        .trim()
        .to_owned()
}

#[test]
fn root_entering_a_network_namespace() {
    let holder = Holder::new("-n");
    let expected = of(holder.0.id()).unwrap().into_iter().find(|n| n.kind == NamespaceKind::Network).unwrap();
    let output = enter_elsewhere(&[holder.file("net")], &["readlink", "/proc/self/ns/net"]);
    assert!(last_lines(&output).ends_with(&expected.to_string()), "{output:?}");
    assert!(output.status.success());
}

#[test]
fn root_programs_that_cannot_run() {
    let holder = Holder::new("-n");
    for (program, code, text) in [
        ("no-such-program", 127, r#"exec: "no-such-program": executable file not found in $PATH"#),
        ("/etc/passwd", 126, r#"exec: "/etc/passwd": permission denied"#),
        ("/etc", 126, r#"exec: "/etc": is a directory"#),
    ] {
        let output = enter_elsewhere(&[holder.file("net")], &[program]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(text), "{output:?}");
    }
}
