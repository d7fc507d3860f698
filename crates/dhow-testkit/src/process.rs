//! Running programs with a limit of time, and looking at the ones that run.

use std::io::{Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 + N for a death by signal N, as shells say it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Standard output as bytes.
    pub bytes: Vec<u8>,
}

/// Runs a command that must succeed and returns what it printed.
pub fn must(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Feeds `input`, reads both outputs to their ends and waits. Panics when that takes longer than `limit`.
pub fn finish(mut child: Child, what: &str, input: &[u8], limit: Duration) -> Output {
    let start = Instant::now();
    let stdin = child.stdin.take();
    let input = input.to_vec();
    // Writing can block until the program reads, so it has a thread; a program that ends early breaks the pipe.
    std::thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = loop {
        match child.try_wait().expect("wait for a child") {
            Some(status) => break status,
            None if start.elapsed() > limit => {
                child.kill().ok();
                child.wait().ok();
                let seen = [stdout.take_now(), stderr.take_now()].concat();
                panic!("{what}: not finished after {limit:?}; so far:\n{}", String::from_utf8_lossy(&seen));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let (bytes, stderr) = (stdout.take(what, "stdout"), stderr.take(what, "stderr"));
    let code = status.code().unwrap_or_else(|| {
        use std::os::unix::process::ExitStatusExt as _;
        128 + status.signal().unwrap_or(0)
    });
    Output {
        code,
        stdout: String::from_utf8_lossy(&bytes).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        bytes,
    }
}

/// A stream that is read by a thread.
struct Collected {
    receiver: std::sync::mpsc::Receiver<Vec<u8>>,
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Collected {
    let (sender, receiver) = std::sync::mpsc::channel();
    if let Some(mut stream) = stream {
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
    }
    Collected { receiver }
}

impl Collected {
    /// Everything up to the end of the stream. After its program has ended nobody else may hold the stream open:
    /// `x=$(dhow run -d …)` in a script would hang.
    fn take(self, what: &str, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            match self.receiver.recv_timeout(Duration::from_secs(20)) {
                Ok(bytes) => out.extend(bytes),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return out,
                Err(_) => panic!("{what}: ended, but some process still holds its {name}"),
            }
        }
    }

    fn take_now(&self) -> Vec<u8> {
        self.receiver.try_iter().flatten().collect()
    }
}

/// Waits until `condition` holds; panics with `what` after `limit`.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ids of all processes.
pub fn all() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// A file of `/proc/PID`, lossily as text; empty when the process is gone.
pub fn proc_file(pid: i32, name: &str) -> String {
    std::fs::read(format!("/proc/{pid}/{name}")).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}

/// Inode of a namespace of a process, e.g. `net`.
pub fn namespace(pid: i32, kind: &str) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    link.to_str()?.split(['[', ']']).nth(1)?.parse().ok()
}

/// State letter of a process (proc_pid_stat(5)), `None` when it is gone.
pub fn state(pid: i32) -> Option<char> {
    proc_file(pid, "stat").rsplit(')').next()?.trim().chars().next()
}

/// Sends a signal by number.
pub fn kill(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        rustix::process::kill_process(pid, signal).ok();
    }
}
