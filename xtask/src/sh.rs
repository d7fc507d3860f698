//! Running programs and reading files with errors that name them. No shell is involved anywhere.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Why a task stopped: one sentence for a person.
#[derive(Debug)]
pub struct Failure(String);

/// Outcome of a step.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Adds what was being done to an error.
pub trait Context<T> {
    /// `what: error`.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Failure(format!("{what}: {e}")))
    }
}

/// The workspace's root directory.
pub fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs this task.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // These describe xtask itself and would leak into the build scripts of what is built.
    for (key, _) in std::env::vars_os().filter(|(k, _)| k.to_string_lossy().starts_with("CARGO_PKG_")) {
        command.env_remove(key);
    }
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
    command
}

/// A tool of the tool chain (`rustc`, `rustup`), run in the workspace so that its tool chain is the one asked.
pub fn cargo_tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// A command as a person would type it.
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .map(|word| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word.into_owned()
            } else {
                format!("'{}'", word.replace('\'', "'\\''"))
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command with this terminal's streams; fails unless it succeeds.
pub fn run(command: &mut Command) -> Result {
    let status = command.status().context(format_args!("cannot run {}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("{} failed: {status}", shown(command)))) }
}

/// Runs a command in silence; on failure its output is part of the error.
pub fn quiet(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output().context(format_args!("cannot run {}", shown(command)))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    Err(Failure(format!("{} failed: {}\n{}", shown(command), output.status, String::from_utf8_lossy(&text).trim_end())))
}

/// Standard output of a command that must succeed.
pub fn read(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&quiet(command)?.stdout).trim_end().to_owned())
}

/// Where a program is, by `PATH` and the system directories.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Reads a text file.
pub fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).context(path.display())
}

/// Writes a file when its content changes, making its directory.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result {
    if std::fs::read(path).is_ok_and(|old| old == content.as_ref()) {
        return Ok(());
    }
    make_dir(path.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(path, content).context(path.display())
}

/// Makes a directory and its parents.
pub fn make_dir(path: &Path) -> Result {
    std::fs::create_dir_all(path).context(path.display())
}

/// Removes a file or a whole directory if it is there.
pub fn remove(path: &Path) -> Result {
    let outcome =
        if path.is_dir() && !path.is_symlink() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match outcome {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(path.display()),
        _ => Ok(()),
    }
}

/// Options and positional words of a task: `--name value` for those in `valued`, flags for those in `flags`.
pub struct Args {
    values: Vec<(String, String)>,
    flags: Vec<String>,
    /// Words that are no options.
    pub words: Vec<String>,
}

impl Args {
    /// Parses; an unknown option is an error.
    pub fn parse(args: &[String], valued: &[&str], flags: &[&str]) -> Result<Self> {
        let mut out = Self { values: Vec::new(), flags: Vec::new(), words: Vec::new() };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (arg.as_str(), None),
            };
            if valued.contains(&name) {
                let value = inline.or_else(|| rest.next().cloned());
                out.values.push((name.to_owned(), value.ok_or_else(|| Failure(format!("{name} needs a value")))?));
            } else if flags.contains(&name) {
                out.flags.push(name.to_owned());
            } else if name.starts_with('-') {
                return Err(Failure(format!("unknown option {name}")));
            } else {
                out.words.push(arg.clone());
            }
        }
        Ok(out)
    }

    /// Value of an option.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether a flag was given.
    pub fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|f| f == name)
    }
}
