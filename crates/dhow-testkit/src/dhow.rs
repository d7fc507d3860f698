//! One private engine: its own root, run directory, client configuration and network.

use crate::census::{self, Census};
use crate::net::NetNs;
use crate::process;
pub use crate::process::Output;
use crate::pty::Pty;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Longest time that any command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A private engine. Dropping it removes all containers and asserts that nothing is left behind.
#[derive(Debug)]
pub struct Dhow {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
    binary: PathBuf,
    net: NetNs,
    ids: Mutex<BTreeSet<String>>,
    watch: Mutex<Option<Watch>>,
    cables: Mutex<Vec<String>>,
    before: Census,
}

impl Dhow {
    /// An engine without images. The binary is `DHOW_BIN`, else a static release build, else `fallback`.
    pub fn new(fallback: Option<&str>) -> Self {
        let binary = binary(fallback);
        let dir = tempfile::Builder::new().prefix("dhow").tempdir().expect("a temporary directory");
        let path = dir.path().canonicalize().expect("temporary directory");
        for sub in ["home", "config"] {
            std::fs::create_dir(path.join(sub)).expect("temporary directory is writable");
        }
        let mut engine = Self {
            dir: Some(dir),
            path,
            binary,
            net: NetNs::new(),
            ids: Mutex::default(),
            watch: Mutex::default(),
            cables: Mutex::default(),
            before: Census::default(),
        };
        engine.before = Census::take(&engine);
        engine
    }

    /// An engine with the image `busybox:latest`.
    pub fn with_busybox(fallback: Option<&str>) -> Self {
        let engine = Self::new(fallback);
        let archive = crate::image::busybox_image();
        engine.ok(&["load", "-q", "-i", archive.to_str().expect("UTF-8 path")]);
        engine
    }

    /// Directory that holds everything of this fixture.
    pub fn dir(&self) -> &Path {
        &self.path
    }

    /// A path in the fixture's directory, as text.
    pub fn path(&self, name: &str) -> String {
        self.path.join(name).to_str().expect("UTF-8 path").to_owned()
    }

    /// Writes a file in the fixture's directory and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path.join(name);
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("temporary directory is writable");
        std::fs::write(&path, content).expect("temporary directory is writable");
        path.to_str().expect("UTF-8 path").to_owned()
    }

    /// `DHOW_ROOT`.
    pub fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    /// `DHOW_RUN`.
    pub fn run_root(&self) -> PathBuf {
        self.path.join("run")
    }

    /// The program under test.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The network namespace that plays the host.
    pub fn net(&self) -> &NetNs {
        &self.net
    }

    /// A second host, reachable by a cable: the engine's host is `10.77.0.1`, the other one `10.77.0.2`.
    pub fn other_host(&self) -> NetNs {
        let other = NetNs::new();
        self.net.connect("cable0", "10.77.0.1/24", &other, "10.77.0.2/24");
        self.cables.lock().expect("not poisoned").push("cable0".to_owned());
        other
    }

    pub(crate) fn cables(&self) -> Vec<String> {
        self.cables.lock().expect("not poisoned").clone()
    }

    /// A command of this engine, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).current_dir(&self.path).env_clear();
        for (key, value) in [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("LC_ALL", "C.UTF-8"),
            ("TERM", "xterm"),
        ] {
            command.env(key, value);
        }
        command.env("HOME", self.path.join("home")).env("DOCKER_CONFIG", self.path.join("config"));
        command.env("DHOW_ROOT", self.root()).env("DHOW_RUN", self.run_root());
        command
    }

    /// Starts a command in the engine's network with pipes on all three streams.
    pub fn start(&self, command: &mut Command) -> Child {
        self.learn_ids();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.net.enter(|| command.spawn()).unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"))
    }

    /// Starts a command of the engine.
    pub fn spawn(&self, args: &[&str]) -> Child {
        self.start(&mut self.command(args))
    }

    /// Starts a command of the engine on a terminal of this size.
    pub fn terminal(&self, args: &[&str], rows: u16, cols: u16) -> Pty {
        Pty::spawn(&self.command(args), rows, cols, |command| self.net.enter(|| command.spawn()))
    }

    /// Runs a command to its end with this standard input.
    pub fn run_with(&self, command: &mut Command, input: &[u8]) -> Output {
        let what = format!("{command:?}");
        let output = process::finish(self.start(command), &what, input, LIMIT);
        self.learn_ids();
        output
    }

    /// Runs a command of the engine to its end; standard input is empty.
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with(&mut self.command(args), b"")
    }

    /// The same with standard input.
    pub fn input(&self, args: &[&str], input: &[u8]) -> Output {
        self.run_with(&mut self.command(args), input)
    }

    /// Runs a command that must succeed; returns its standard output without the last newline.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, 0, "dhow {}\nstdout: {}\nstderr: {}", args.join(" "), output.stdout, output.stderr);
        output.stdout.strip_suffix('\n').unwrap_or(&output.stdout).to_owned()
    }

    /// Runs a command that must end with `code` and mention each of `words` on standard error; returns that text.
    #[track_caller]
    pub fn fails(&self, args: &[&str], code: i32, words: &[&str]) -> String {
        let output = self.run(args);
        let shown = || format!("dhow {}\nstdout: {}\nstderr: {}", args.join(" "), output.stdout, output.stderr);
        assert_eq!(output.code, code, "{}", shown());
        for word in words {
            assert!(output.stderr.to_lowercase().contains(&word.to_lowercase()), "'{word}' is not in: {}", shown());
        }
        output.stderr
    }

    /// `inspect --format` of one object.
    #[track_caller]
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(&["inspect", "--format", template, name])
    }

    /// Starts `busybox COMMAND` in the background with these options; returns the id.
    #[track_caller]
    pub fn background(&self, options: &[&str], command: &[&str]) -> String {
        self.ok(&[&["run", "-d"], options, &["busybox"], command].concat())
    }

    /// Host process id of a container's first process.
    #[track_caller]
    pub fn pid(&self, container: &str) -> i32 {
        self.inspect(container, "{{.State.Pid}}").parse().expect("a number")
    }

    /// Waits until a container is in a state such as `exited`.
    #[track_caller]
    pub fn wait_status(&self, container: &str, status: &str) {
        process::wait_for(&format!("{container} is {status}"), Duration::from_secs(10), || {
            self.inspect(container, "{{.State.Status}}") == status
        });
    }

    /// Waits until the log of a container contains `text`.
    #[track_caller]
    pub fn wait_log(&self, container: &str, text: &str) {
        process::wait_for(&format!("'{text}' in the log of {container}"), Duration::from_secs(10), || {
            let output = self.run(&["logs", container]);
            output.stdout.contains(text) || output.stderr.contains(text)
        });
    }

    /// Remembers the ids of containers that exist or existed, so that the census finds what they leave later.
    pub fn learn_ids(&self) {
        let mut ids = self.ids.lock().expect("not poisoned");
        let mut watch = self.watch.lock().expect("not poisoned");
        if watch.is_none() {
            *watch = Watch::new(&self.root().join("containers"));
        }
        if let Some(watch) = watch.as_ref() {
            ids.extend(watch.names().filter(|n| n.len() == 64));
        }
        for dir in [self.root().join("containers"), self.run_root().join("live"), self.run_root().join("c")] {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            ids.extend(entries.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.len() == 64));
        }
    }

    /// Ids of all containers that this engine is known to have had.
    pub fn known_ids(&self) -> BTreeSet<String> {
        self.learn_ids();
        self.ids.lock().expect("not poisoned").clone()
    }

    /// Ids of the processes that belong to this engine: commands, monitors, containers.
    pub fn processes(&self) -> Vec<i32> {
        census::pids_of(self, &self.known_ids())
    }

    /// Removes every container by the engine itself.
    pub fn remove_all(&self) {
        let ids = self.ok(&["ps", "-aq", "--no-trunc"]);
        let ids: Vec<&str> = ids.lines().collect();
        if !ids.is_empty() {
            self.ok(&[&["rm", "-f", "-v"], ids.as_slice()].concat());
        }
    }

    /// Asserts that nothing is left beside what was there when the fixture was made.
    #[track_caller]
    pub fn assert_clean(&self) {
        Census::settle(self, &self.before, Duration::from_secs(5));
    }

    /// Ends everything by force; for tests that failed or left the engine broken on purpose.
    pub fn force_down(&self) {
        for _ in 0..50 {
            let alive = self.processes();
            let alive: Vec<i32> = alive.into_iter().filter(|p| *p != std::process::id().cast_signed()).collect();
            if alive.is_empty() {
                break;
            }
            alive.iter().for_each(|pid| process::kill(*pid, Signal::KILL));
            std::thread::sleep(Duration::from_millis(20));
        }
        for id in self.known_ids() {
            for entry in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
                std::fs::remove_dir(entry.path().join("dhow").join(&id)).ok();
            }
            std::fs::remove_dir(Path::new("/sys/fs/cgroup/dhow").join(&id)).ok();
        }
    }
}

impl Drop for Dhow {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if !failed && self.root().exists() {
            let check = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.remove_all();
                self.assert_clean();
            }));
            if let Err(panic) = check {
                self.force_down();
                std::panic::resume_unwind(panic);
            }
        }
        self.force_down();
        // A tree that dhow made immutable or mounted over would be a finding in itself; say so, but keep the first panic.
        if let Some(Err(error)) = self.dir.take().map(tempfile::TempDir::close)
            && !failed
        {
            panic!("the fixture's directory cannot be removed: {error}");
        }
    }
}

/// Names that appeared in a directory, even if they are gone again (inotify(7)).
#[derive(Debug)]
struct Watch {
    events: std::os::fd::OwnedFd,
}

impl Watch {
    fn new(dir: &Path) -> Option<Self> {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
        add_watch(&events, dir, WatchFlags::CREATE | WatchFlags::MOVED_TO).ok()?;
        Some(Self { events })
    }

    fn names(&self) -> impl Iterator<Item = String> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1 << 14];
        let mut reader = rustix::fs::inotify::Reader::new(&self.events, &mut buffer);
        let mut names = Vec::new();
        // Ends with EAGAIN when there are no more events.
        while let Ok(event) = reader.next() {
            names.extend(event.file_name().map(|n| n.to_string_lossy().into_owned()));
        }
        names.into_iter()
    }
}

fn binary(fallback: Option<&str>) -> PathBuf {
    if let Some(path) = std::env::var_os("DHOW_BIN") {
        return path.into();
    }
    let target = crate::target_dir();
    let built = ["x86_64-unknown-linux-musl/release/dhow", "x86_64-unknown-linux-gnu/release/dhow"];
    let candidates = fallback.map(PathBuf::from).into_iter().chain(built.map(|b| target.join(b)));
    candidates.into_iter().find(|p| p.is_file()).expect("no dhow binary: run `cargo xtask build` or set DHOW_BIN")
}
