//! Running the host's `git` so that nothing of a repository, a server or a user's configuration can make it do more than it
//! is asked for.

use super::super::{RemoteError, check_space};
use crate::EngineError;
use dhow_build::drive;
use dhow_build::remote::redacted;
use dhow_store::ScratchDir;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Where fetched commits are kept from being nobody's.
pub(super) const REFS: &str = "refs/dhow";
/// Longest run of one command.
const MAX_TIME: Duration = Duration::from_secs(1800);
/// Largest repository, in bytes.
const MAX_SIZE: u64 = 16 << 30;
/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// Time between two looks at what a command does to the disk.
const LOOK: Duration = Duration::from_millis(500);
/// Longest last words that are shown, in bytes.
const MAX_DETAIL: u64 = 4096;

/// Protocols that talk to another machine. Not `file` (it reads the host), not `ext` (it runs commands).
const PROTOCOLS: &str = "http:https:git:ssh";

/// Variables that point git at other repositories, programs or settings.
const REMOVED: [&str; 22] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_SYSTEM",
    "GIT_DIR",
    "GIT_EXTERNAL_DIFF",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_PROXY_COMMAND",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_TEMPLATE_DIR",
    "GIT_TRACE",
    "GIT_WORK_TREE",
    "SSH_ASKPASS",
];

/// Settings of every command.
const SETTINGS: [&str; 14] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.alternateRefsCommand=",
    "core.askPass=",
    "credential.helper=",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "tar.umask=0022",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "core.sshCommand=ssh -oBatchMode=yes -oConnectTimeout=30",
];

fn hardened() -> Command {
    let mut command = Command::new("git");
    command.stdin(Stdio::null());
    REMOVED.iter().for_each(|name| {
        command.env_remove(name);
    });
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "")
        .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_LITERAL_PATHSPECS", "1")
        .env("LC_ALL", "C");
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command
}

/// `git` for one repository.
pub(super) struct Git<'a> {
    scratch: &'a ScratchDir,
    remote: String,
    /// Value of an `Authorization` header.
    token: Option<String>,
}

impl<'a> Git<'a> {
    pub(super) fn new(scratch: &'a ScratchDir, remote: &str, token: Option<String>) -> Self {
        Self { scratch, remote: remote.to_owned(), token }
    }

    /// The same place for another repository. The token is for the same server only.
    pub(super) fn other(&self, remote: &str) -> Self {
        let token = self.token.clone().filter(|_| server(remote) == server(&self.remote));
        Self::new(self.scratch, remote, token)
    }

    pub(super) fn remote(&self) -> &str {
        &self.remote
    }

    /// The repository as it may be shown.
    pub(super) fn shown(&self) -> String {
        redacted(&self.remote)
    }

    pub(super) fn refused(&self, reason: String) -> RemoteError {
        RemoteError::Refused { remote: self.shown(), reason }
    }

    /// A directory beside the repository's.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.scratch.work().join(name)
    }

    pub(super) fn command(&self, git_dir: Option<&Path>, words: &[&str]) -> Command {
        let mut command = hardened();
        // No repository is searched for above the staging directory.
        command.current_dir(self.scratch.work()).env("GIT_CEILING_DIRECTORIES", self.scratch.path());
        if let Some(git_dir) = git_dir {
            command.env("GIT_DIR", git_dir);
        }
        if let Some(token) = &self.token {
            // By the environment, which only the same user can read, unlike arguments.
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", format!("http.{}/.extraHeader", server(&self.remote)))
                .env("GIT_CONFIG_VALUE_0", format!("Authorization: {token}"));
        }
        command.args(words);
        command
    }

    /// Starts a command whose output is read while it runs.
    pub(super) fn start(&self, mut command: Command) -> Result<Running<'_, 'a>, EngineError> {
        let errors = self.file("errors")?;
        let child = command.stdout(Stdio::piped()).stderr(errors).spawn().map_err(spawn_error)?;
        Ok(Running { git: self, child: Guard(child) })
    }

    fn file(&self, name: &str) -> Result<File, EngineError> {
        let path = self.place(name);
        File::create(&path).map_err(EngineError::state("create", &path))
    }

    /// Runs a command to its end, within bounds of time and disk.
    pub(super) async fn run(&self, operation: &'static str, mut command: Command) -> Result<Reply, EngineError> {
        let (output, errors) = (self.file("output")?, self.file("errors")?);
        let child = command.stdout(output).stderr(errors).spawn().map_err(spawn_error)?;
        let mut child = Guard(child);
        let begun = Instant::now();
        let mut looked = begun;
        let mut pause = Duration::from_millis(1);
        let status = loop {
            let path = self.scratch.work();
            if let Some(status) = child.0.try_wait().map_err(EngineError::state("wait for git in", &path))? {
                break status;
            }
            if begun.elapsed() > MAX_TIME {
                return Err(RemoteError::GitTime { operation, remote: self.shown(), limit: MAX_TIME }.into());
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                check_space(&path)?;
                if size_of(&path, 0) > MAX_SIZE {
                    return Err(RemoteError::TooLarge { remote: self.shown(), limit: MAX_SIZE }.into());
                }
            }
            drive::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        let output = self.place("output");
        let mut text = Vec::new();
        let file = File::open(&output).map_err(EngineError::state("open", &output))?;
        file.take(MAX_ANSWER).read_to_end(&mut text).map_err(EngineError::state("read", &output))?;
        self.reply(operation, status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn reply(&self, operation: &'static str, success: bool, output: String) -> Result<Reply, EngineError> {
        let detail = if success { String::new() } else { self.last_words()? };
        Ok(Reply { success, output, detail, operation, remote: self.shown() })
    }

    /// What git said last, in one line, without credentials.
    fn last_words(&self) -> Result<String, EngineError> {
        let path = self.place("errors");
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(EngineError::state("open", &path))?;
        file.take(MAX_DETAIL).read_to_end(&mut bytes).map_err(EngineError::state("read", &path))?;
        let text = String::from_utf8_lossy(&bytes).replace(&self.remote, &self.shown());
        let hidden = self.token.as_ref().map_or(text.clone(), |token| text.replace(token.as_str(), "…"));
        let lines: Vec<&str> = hidden.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let telling = lines.iter().find(|l| ["fatal:", "error:", "ERR"].iter().any(|p| l.starts_with(p)));
        let line = telling.or(lines.last()).copied().unwrap_or("it said nothing");
        Ok(line.chars().filter(|c| !c.is_control()).take(300).collect())
    }
}

/// Ends a command that is given up.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command whose output is being read.
pub(super) struct Running<'g, 'a> {
    git: &'g Git<'a>,
    child: Guard,
}

impl Running<'_, '_> {
    pub(super) fn output(&mut self) -> Option<ChildStdout> {
        self.child.0.stdout.take()
    }

    /// Waits for its end; its output has been read.
    pub(super) fn end(mut self, operation: &'static str) -> Result<Reply, EngineError> {
        let path = self.git.scratch.work();
        let status = self.child.0.wait().map_err(EngineError::state("wait for git in", &path))?;
        self.git.reply(operation, status.success(), String::new())
    }
}

/// How a command ended.
pub(super) struct Reply {
    pub(super) success: bool,
    pub(super) output: String,
    /// Its last words if it failed.
    pub(super) detail: String,
    operation: &'static str,
    remote: String,
}

impl Reply {
    /// The output of a command that must not fail.
    pub(super) fn checked(self) -> Result<String, EngineError> {
        let Self { success, output, detail, operation, remote } = self;
        if success { Ok(output) } else { Err(RemoteError::Git { operation, remote, detail }.into()) }
    }
}

fn spawn_error(error: io::Error) -> EngineError {
    match error.kind() {
        io::ErrorKind::NotFound => RemoteError::NoGit.into(),
        _ => EngineError::state("run", Path::new("git"))(error),
    }
}

/// `scheme://host[:port]` without user and password.
fn server(url: &str) -> String {
    let scheme = url.split_once("://").map_or("ssh", |(scheme, _)| scheme);
    format!("{scheme}://{}", super::super::authority(url))
}

/// Bytes of the files below a directory, roughly: enough to see a repository grow.
fn size_of(directory: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let mut total = 0_u64;
    for entry in entries.filter_map(Result::ok) {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() && depth < 4 {
            total = total.saturating_add(size_of(&entry.path(), depth + 1));
        } else {
            total = total.saturating_add(meta.len());
        }
    }
    total
}

/// The commit object at `HEAD` of the repository that a directory of the host is in. Git itself refuses repositories of
/// other users there (CVE-2022-24765), for its configuration could name programs.
pub(super) fn head_commit(directory: &Path) -> Option<String> {
    let mut command = hardened();
    command.env("GIT_ALLOW_PROTOCOL", "").current_dir(directory).args(["cat-file", "commit", "HEAD"]);
    let mut child = Guard(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?);
    let mut text = Vec::new();
    child.0.stdout.take()?.take(1 << 20).read_to_end(&mut text).ok()?;
    child.0.wait().ok()?.success().then(|| String::from_utf8_lossy(&text).into_owned())
}

/// RFC 4648.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let at = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * place)) as usize & 63).copied().unwrap_or(b'=');
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_what_it_should_be() {
        for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn servers() {
        assert_eq!(server("https://u:p@h:8/x.git"), "https://h:8");
        assert_eq!(server("git@h:x"), "ssh://h:x");
    }
}
