//! A pseudo terminal with a program on it, for everything that only happens on a terminal.

use rustix::pty::OpenptFlags;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A program on its own terminal, of which it is the session leader.
#[derive(Debug)]
pub struct Pty {
    master: File,
    child: Child,
    /// Everything read so far.
    pub seen: String,
}

impl Pty {
    /// Starts `command` (already configured) on a terminal of this size. `start` spawns it, e.g. inside a namespace.
    pub fn spawn(
        command: &Command,
        rows: u16,
        cols: u16,
        start: impl FnOnce(&mut Command) -> std::io::Result<Child>,
    ) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).expect("openpt");
        rustix::pty::grantpt(&master).and_then(|()| rustix::pty::unlockpt(&master)).expect("unlockpt");
        let name = rustix::pty::ptsname(&master, Vec::new()).expect("ptsname");
        let path = OsStr::from_bytes(name.as_bytes());
        let terminal = || OpenOptions::new().read(true).write(true).open(path).expect("open the terminal");
        let master = File::from(master);
        let slave = terminal();
        set_size(&slave, rows, cols);
        // A test that was started in the background inherits that the keyboard's signals are ignored; at a terminal they are
        // not. setsid(1) makes the terminal the controlling one and then becomes the program.
        let mut whole = Command::new("env");
        whole.args(["--default-signal=INT,QUIT", "setsid"]);
        whole.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => whole.env(key, value),
                None => whole.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            whole.current_dir(dir);
        }
        whole.stdin(slave).stdout(terminal()).stderr(terminal());
        let child = start(&mut whole).unwrap_or_else(|e| panic!("cannot start {whole:?}: {e}"));
        Self { master, child, seen: String::new() }
    }

    /// Process id of the program.
    pub fn id(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Types text; `\r` is the return key.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Changes the size of the terminal; the kernel sends SIGWINCH.
    pub fn resize(&self, rows: u16, cols: u16) {
        set_size(&self.master, rows, cols);
    }

    /// Reads until `text` has appeared since the last call; returns what came up to it.
    pub fn expect(&mut self, text: &str, limit: Duration) -> String {
        let start = Instant::now();
        let mut fresh = String::new();
        while !fresh.contains(text) {
            let more = self.read_some(limit.saturating_sub(start.elapsed()));
            let more = more.unwrap_or_else(|| panic!("'{text}' did not appear within {limit:?}; got:\n{}", self.seen));
            fresh.push_str(&more);
        }
        fresh
    }

    /// Some output, or `None` at the end of it or of the time.
    fn read_some(&mut self, limit: Duration) -> Option<String> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)).ok()? == 0 {
            return None;
        }
        let mut buffer = [0; 4096];
        // When the last program on the terminal ends, reading gives EIO.
        let count = self.master.read(&mut buffer).ok().filter(|c| *c > 0)?;
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        self.seen.push_str(&text);
        Some(text)
    }

    /// Reads to the end, waits and returns the exit code and everything that was shown.
    pub fn finish(mut self, limit: Duration) -> (i32, String) {
        let start = Instant::now();
        let status = loop {
            // Nothing to read for a moment is no end; the end is when the program has been waited for.
            self.read_some(Duration::from_millis(20));
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                break status;
            }
            if start.elapsed() > limit {
                self.child.kill().ok();
                self.child.wait().ok();
                panic!("the program on the terminal did not end within {limit:?}; it showed:\n{}", self.seen);
            }
        };
        while self.read_some(Duration::from_millis(50)).is_some() {}
        use std::os::unix::process::ExitStatusExt as _;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        (code, std::mem::take(&mut self.seen))
    }
}

fn set_size(terminal: &File, rows: u16, cols: u16) {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).expect("set the size of the terminal");
}
