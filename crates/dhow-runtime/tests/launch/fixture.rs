//! A tiny image and a container of it.

use dhow_oci::runtime::{Mount, Process, Spec};
use dhow_runtime::cgroup::Cgroup;
use dhow_runtime::overlay::clear_volatile_mark;
use dhow_runtime::seccomp::{self, SeccompFilter};
use dhow_runtime::{
    ExecRequest, LaunchError, LaunchRequest, Launched, Rootfs, StdioPlan, caps, default_spec, exec, launch,
};
use dhow_sys::process::{self, Exit};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const APPLETS: &[&str] = &[
    "awk", "cat", "chmod", "chown", "cut", "date", "dd", "echo", "env", "false", "find", "grep", "hostname", "id",
    "ifconfig", "kill", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "nc", "ps", "pwd", "readlink", "rm", "seq",
    "sh", "sleep", "sort", "stat", "stty", "test", "touch", "tr", "true", "tty", "umask", "uname", "uniq", "unlink",
    "wc", "xargs",
];

/// What a process printed and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A container in the making: change the public fields, then run it.
pub struct Container {
    dir: tempfile::TempDir,
    pub spec: Spec,
    pub user: String,
    pub group_add: Vec<String>,
    pub init: bool,
    pub seccomp: SeccompFilter,
    /// Leave the mark of an earlier start.
    pub keep_mark: bool,
    pub lower: Vec<PathBuf>,
    pub inside: Option<fn() -> Result<(), String>>,
    pub attach: fn(u32) -> Result<(), String>,
    cgroup: Cgroup,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Container {
    /// With Docker's defaults, running a shell script.
    pub fn new(script: &str) -> Self {
        Self::with_args(&["/bin/sh", "-c", script])
    }

    pub fn with_args(args: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("dhow-launch-").tempdir().unwrap();
        for name in ["base", "upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let base = dir.path().join("base");
        make_image(&base);
        let mut spec = default_spec();
        spec.process.args = args.iter().map(|a| (*a).to_owned()).collect();
        spec.process.env = vec!["PATH=/usr/bin:/bin".into()];
        spec.hostname = "box".into();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = format!("dhow-test-{}/{number}", std::process::id());
        let (cgroup, _warnings) = Cgroup::create(&path, &spec.linux.resources).unwrap();
        Self {
            dir,
            spec,
            user: String::new(),
            group_add: Vec::new(),
            init: false,
            seccomp: seccomp::docker_default(&caps::DEFAULT),
            keep_mark: false,
            lower: vec![base],
            inside: None,
            attach: |_| Ok(()),
            cgroup,
        }
    }

    /// A path in the image.
    pub fn image(&self, path: &str) -> PathBuf {
        self.dir.path().join("base").join(path.trim_start_matches('/'))
    }

    /// A path of the writable layer.
    pub fn upper(&self, path: &str) -> PathBuf {
        self.dir.path().join("upper").join(path.trim_start_matches('/'))
    }

    /// A path on the host, outside the image, removed with the container.
    pub fn host(&self, path: &str) -> PathBuf {
        self.dir.path().join("host").join(path)
    }

    /// Writes a file of the image.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.image(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn mount(&mut self, kind: &str, source: &str, destination: &str, options: &str) {
        self.spec.mounts.push(Mount {
            destination: destination.into(),
            kind: kind.into(),
            source: source.into(),
            options: options.split(',').map(str::to_owned).collect(),
        });
    }

    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    pub fn launch(&self, stdio: StdioPlan) -> Result<Launched, LaunchError> {
        let (upper, work) = (self.dir.path().join("upper"), self.dir.path().join("work"));
        let mut attach = self.attach;
        if !self.keep_mark {
            clear_volatile_mark(&work).unwrap();
        }
        launch(LaunchRequest {
            spec: &self.spec,
            rootfs: Rootfs::Overlay { lower: &self.lower, upper: &upper, work: &work, volatile: true },
            user: &self.user,
            group_add: &self.group_add,
            seccomp: &self.seccomp,
            cgroup: &self.cgroup,
            stdio,
            init: self.init,
            attach: &mut attach,
            inside: self.inside.as_ref().map(|f| f as &dyn Fn() -> Result<(), String>),
        })
    }

    /// Runs to the end.
    pub fn run(&self) -> Output {
        self.try_run().unwrap_or_else(|e| panic!("{}", dhow_types::report(&e)))
    }

    pub fn try_run(&self) -> Result<Output, LaunchError> {
        self.launch(StdioPlan::Pipes { stdin: false }).map(finish)
    }

    /// Runs a script that must succeed, and returns what it printed.
    pub fn stdout(&self) -> String {
        let output = self.run();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "stdout: {}", output.stdout);
        output.stdout
    }

    /// The error of a start that must fail.
    pub fn error(&self) -> LaunchError {
        match self.try_run() {
            Ok(output) => panic!("started: {output:?}"),
            Err(error) => error,
        }
    }

    /// [`Container::error`] with its causes.
    pub fn error_text(&self) -> String {
        dhow_types::report(&self.error())
    }

    /// A process like the container's own.
    pub fn process(&self, script: &str) -> Process {
        let args = vec!["/bin/sh".into(), "-c".into(), script.into()];
        Process { args, ..self.spec.process.clone() }
    }

    pub fn exec(&self, init: &Launched, process: &Process, stdio: StdioPlan) -> Result<Launched, LaunchError> {
        exec(ExecRequest {
            init_pid: init.pid,
            init_pidfd: init.pidfd.as_fd(),
            process,
            user: &self.user,
            seccomp: &self.seccomp,
            cgroup: &self.cgroup,
            stdio,
        })
    }

    /// Runs a script inside a running container.
    pub fn exec_script(&self, init: &Launched, script: &str) -> Output {
        finish(self.exec(init, &self.process(script), StdioPlan::Pipes { stdin: false }).unwrap())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.cgroup.kill_all();
        }
        let removed = self.cgroup.remove();
        if !std::thread::panicking() {
            removed.unwrap();
        }
        // The parent of all test cgroups goes with the last of them.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(format!("dhow-test-{}", std::process::id())));
        }
    }
}

fn make_image(base: &Path) {
    for name in ["bin", "etc", "root", "tmp", "home", "home/app"] {
        fs::create_dir(base.join(name)).unwrap();
    }
    // One inode for all images: a hard link where that works.
    let busybox = base.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox).expect("busybox-static is needed");
    for applet in APPLETS {
        symlink("busybox", base.join("bin").join(applet)).unwrap();
    }
    fs::write(base.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n").unwrap();
    fs::write(base.join("etc/group"), "root:x:0:\napp:x:1001:\nextra:x:20:app\n").unwrap();
}

/// Reads both streams to the end and reaps.
pub fn finish(mut launched: Launched) -> Output {
    drop(launched.stdin.take());
    let read = |fd: Option<std::os::fd::OwnedFd>| {
        let mut text = Vec::new();
        if let Some(fd) = fd {
            File::from(fd).read_to_end(&mut text).unwrap();
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let (stdout, stderr) = (read(launched.stdout.take()), read(launched.stderr.take()));
    Output { code: wait(&launched).shell_code(), stdout, stderr }
}

pub fn wait(launched: &Launched) -> Exit {
    process::wait(launched.pidfd.as_fd()).unwrap()
}

pub fn kill(launched: &Launched) {
    process::signal(launched.pidfd.as_fd(), libc::SIGKILL).unwrap();
    assert_eq!(wait(launched), Exit::Signal(libc::SIGKILL));
}

/// Reads a terminal until its other side is closed everywhere.
pub fn read_terminal(launched: &Launched) -> String {
    let mut master = File::from(launched.pty.as_ref().unwrap().try_clone().unwrap());
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match master.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => text.extend(&buffer[..n]),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => break,
            Err(e) => panic!("{e}"),
        }
    }
    String::from_utf8(text).unwrap()
}

/// A container that waits for the end of its stdin, and that end.
pub fn waiting(container: &Container) -> (Launched, File) {
    let mut launched = container.launch(StdioPlan::Pipes { stdin: true }).unwrap();
    let stdin = File::from(launched.stdin.take().unwrap());
    (launched, stdin)
}

/// Waits for one line of output.
pub fn read_line(from: &mut File) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while from.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// A tree whose content, modes and times must not change.
pub fn snapshot(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    fn walk(path: &Path, out: &mut Vec<String>) {
        let m = fs::symlink_metadata(path).unwrap();
        let content = if m.is_file() { fs::read(path).unwrap() } else { Vec::new() };
        out.push(format!(
            "{} {:o} {} {} {} {:?}",
            path.display(),
            m.mode(),
            m.ino(),
            m.nlink(),
            m.mtime_nsec(),
            content
        ));
        if m.is_dir() {
            let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
            entries.sort();
            entries.iter().for_each(|e| walk(e, out));
        }
    }
    let mut out = Vec::new();
    walk(root, &mut out);
    out
}

/// Writes all to a descriptor.
pub fn write(to: &mut File, text: &str) {
    to.write_all(text.as_bytes()).unwrap();
}
