//! Entering namespaces by file, in a process with one thread.

use crate::tests;
use dhow_oci::runtime::NamespaceKind;
use dhow_runtime::nsview;
use dhow_sys::process::{self, Exit};
use dhow_types::{Categorized, ErrorKind};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

tests![everything_at_once, the_order_is_no_matter, a_signal_is_the_exit_code, no_program, the_user_namespace_one_is_in];

/// A process with all namespaces of its own, until it is dropped.
struct Holder(Child, u32);

impl Holder {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["-Urnmuipf", "/bin/sh", "-c", "echo ready; read x"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
        let inner = children.trim().parse().unwrap();
        Self(child, inner)
    }

    fn files(&self, kinds: &[&str]) -> Vec<String> {
        kinds.iter().map(|kind| format!("/proc/{}/ns/{kind}", self.1)).collect()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Enters in a child, which the program replaces or which reports the error's category. Returns what was printed.
fn enter(files: &[String], argv: &[&str]) -> (Exit, String) {
    let argv: Vec<String> = argv.iter().map(|a| (*a).to_owned()).collect();
    let env = ["PATH=/usr/bin:/bin".to_owned(), "GREETING=hello".to_owned()];
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let child = process::clone_child(0, None, || {
        rustix::stdio::dup2_stdout(&writer).unwrap();
        match nsview::enter(files, &argv, &env) {
            Ok(code) => code,
            Err(e) => match e.kind() {
                ErrorKind::CommandNotFound => 127,
                ErrorKind::CommandNotExecutable => 126,
                kind => {
                    eprintln!("{kind:?}: {}", dhow_types::report(&e));
                    125
                }
            },
        }
    })
    .unwrap();
    drop(writer);
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).unwrap();
    (process::wait(child.pidfd.as_fd()).unwrap(), text)
}

fn everything_at_once() {
    let holder = Holder::new();
    let files = holder.files(&["mnt", "net", "pid", "user", "uts", "ipc"]);
    let (exit, text) = enter(&files, &["sh", "-c", "id -u; echo $GREETING; ls /sys/class/net >/dev/null; exit 7"]);
    assert_eq!((exit, text.as_str()), (Exit::Code(7), "0\nhello\n"));
    let net = nsview::of(holder.1).unwrap().into_iter().find(|n| n.kind == NamespaceKind::Network).unwrap();
    let (exit, text) = enter(&holder.files(&["net"]), &["readlink", "/proc/self/ns/net"]);
    assert_eq!((exit, text.trim()), (Exit::Code(0), net.to_string().as_str()));
}

fn the_order_is_no_matter() {
    let holder = Holder::new();
    let net = nsview::of(holder.1).unwrap().into_iter().find(|n| n.kind == NamespaceKind::Network).unwrap();
    for kinds in [["user", "net"], ["net", "user"]] {
        let (exit, text) = enter(&holder.files(&kinds), &["sh", "-c", "id -u; readlink /proc/self/ns/net"]);
        assert_eq!((exit, text), (Exit::Code(0), format!("0\n{net}\n")));
    }
}

fn a_signal_is_the_exit_code() {
    let holder = Holder::new();
    // Through a pid namespace the program is a child of the one that entered.
    let (exit, _) = enter(&holder.files(&["pid", "user"]), &["sh", "-c", "kill -9 $$"]);
    assert_eq!(exit, Exit::Code(137));
    // Without one it is the process itself.
    let (exit, _) = enter(&holder.files(&["net"]), &["sh", "-c", "kill -9 $$"]);
    assert_eq!(exit, Exit::Signal(9));
}

fn no_program() {
    let holder = Holder::new();
    for kinds in [["net", "uts"], ["pid", "uts"]] {
        assert_eq!(enter(&holder.files(&kinds), &["no-such-program"]).0, Exit::Code(127));
        assert_eq!(enter(&holder.files(&kinds), &["/etc/passwd"]).0, Exit::Code(126));
        assert_eq!(enter(&holder.files(&kinds), &[]).0, Exit::Code(127));
    }
}

fn the_user_namespace_one_is_in() {
    let (exit, text) = enter(&["/proc/self/ns/user".to_owned()], &["id", "-u"]);
    assert_eq!((exit, text.as_str()), (Exit::Code(0), "0\n"));
}
