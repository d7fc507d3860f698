//! Typed instructions.

use crate::heredoc::Heredoc;
use crate::words::split_first;

/// Lines of the Dockerfile, counted from 1, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First line.
    pub start: u32,
    /// Last line.
    pub end: u32,
}

/// How a statement is written: what checks and descriptions look at beside its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// The comments right above, without their marks; an empty line or an empty comment separates.
    pub comments: Vec<String>,
    /// Last line of the statement proper, here-documents excluded, when an empty line stood inside its continuation.
    pub gap: Option<u32>,
}

impl Layout {
    /// What a comment above says about a stage or an argument: `# NAME description`.
    pub fn description(&self, name: &str) -> Option<&str> {
        self.comments.iter().find_map(|c| c.strip_prefix(name)?.strip_prefix(' '))
    }
}

/// One instruction with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Where it stands.
    pub span: Span,
    /// The logical line as written, continuation lines joined, without here-document bodies.
    pub original: String,
    /// What it says.
    pub command: Command,
    /// How it is written.
    pub layout: Layout,
}

impl Instruction {
    /// The first word as written.
    pub fn keyword(&self) -> &str {
        split_first(&self.original).0
    }
}

/// What an instruction says. Texts are not yet expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Starts a stage.
    From(From),
    /// Runs a command and keeps the changes.
    Run(Run),
    /// Default command.
    Cmd(CommandLine),
    /// Labels.
    Label(Vec<KeyValue>),
    /// Documents ports.
    Expose(Vec<String>),
    /// Environment.
    Env(Vec<KeyValue>),
    /// Copies from the context, an archive, a URL or a git repository.
    Add(Add),
    /// Copies from the context, a stage or an image.
    Copy(Copy),
    /// Entry point.
    Entrypoint(CommandLine),
    /// Declares volumes.
    Volume(Vec<String>),
    /// User of what follows.
    User(String),
    /// Working directory of what follows.
    Workdir(String),
    /// Build-time variables.
    Arg(Vec<ArgDecl>),
    /// A trigger for child builds.
    OnBuild(OnBuild),
    /// Signal of `stop`.
    StopSignal(String),
    /// Health probe; `None` is `HEALTHCHECK NONE`.
    Healthcheck(Option<HealthProbe>),
    /// Shell of the shell form.
    Shell(Vec<String>),
    /// Author (deprecated).
    Maintainer(String),
}

impl Command {
    /// The instruction's name in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::From(_) => "FROM",
            Self::Run(_) => "RUN",
            Self::Cmd(_) => "CMD",
            Self::Label(_) => "LABEL",
            Self::Expose(_) => "EXPOSE",
            Self::Env(_) => "ENV",
            Self::Add(_) => "ADD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Volume(_) => "VOLUME",
            Self::User(_) => "USER",
            Self::Workdir(_) => "WORKDIR",
            Self::Arg(_) => "ARG",
            Self::OnBuild(_) => "ONBUILD",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Shell(_) => "SHELL",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for the shell.
    Shell(String),
    /// JSON array: no shell.
    Exec(Vec<String>),
}

/// `FROM [--platform=P] IMAGE [AS NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Image, earlier stage or `scratch`, unexpanded.
    pub image: String,
    /// Platform, unexpanded.
    pub platform: Option<String>,
    /// Stage name in lower case.
    pub name: Option<String>,
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Here-documents in order.
    pub heredocs: Vec<Heredoc>,
    /// `--network`
    pub network: RunNetwork,
    /// `--mount`s in order.
    pub mounts: Vec<RunMount>,
    /// `--security`
    pub security: Option<String>,
    /// `--device` values as written.
    pub devices: Vec<String>,
}

/// One `--mount`. Values are not yet expanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunMount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where, relative to the working directory. Present for bind, cache and tmpfs.
    pub target: Option<String>,
    /// Path in what `from` names, or in the context.
    pub source: Option<String>,
    /// Stage, image or named context. Never expanded.
    pub from: Option<String>,
    /// Name of a cache, secret or agent.
    pub id: Option<String>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Who else may use the cache meanwhile.
    pub sharing: CacheSharing,
    /// Permission bits, octal.
    pub mode: Option<String>,
    /// Owner.
    pub uid: Option<String>,
    /// Group.
    pub gid: Option<String>,
    /// Size of a tmpfs.
    pub size: Option<String>,
    /// Whether a missing secret is an error.
    pub required: bool,
    /// Variable that gets the secret.
    pub env: Option<String>,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that outlives builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file with something secret.
    Secret,
    /// An agent's socket.
    Ssh,
}

/// Who else may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheSharing {
    /// Anybody.
    #[default]
    Shared,
    /// Nobody: others get another directory.
    Private,
    /// Nobody: others wait.
    Locked,
}

/// Network of a `RUN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunNetwork {
    /// What the build was started with.
    #[default]
    Default,
    /// No network.
    None,
    /// The host's.
    Host,
}

/// `KEY=VALUE` of `ENV` and `LABEL`, unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Written in the old form `KEY VALUE`.
    pub legacy: bool,
}

/// One name of `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDecl {
    /// Name.
    pub name: String,
    /// Default, unexpanded.
    pub default: Option<String>,
}

/// Sources and destination of `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileSources {
    /// Paths, wildcards or (for `ADD`) URLs, unexpanded.
    pub paths: Vec<String>,
    /// Files given as here-documents.
    pub inline: Vec<InlineFile>,
    /// Destination, unexpanded.
    pub destination: String,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
}

/// A file written as a here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// File name.
    pub name: String,
    /// Content.
    pub content: String,
    /// Whether variables in the content expand.
    pub expand: bool,
}

/// `COPY`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// What and where.
    pub files: FileSources,
    /// `--from`: stage name, stage index, image or named context. Never expanded.
    pub from: Option<String>,
    /// `--parents`
    pub parents: bool,
}

/// `ADD`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Add {
    /// What and where.
    pub files: FileSources,
    /// `--checksum`
    pub checksum: Option<String>,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
    /// `--unpack`
    pub unpack: Option<bool>,
}

/// `ONBUILD`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnBuild {
    /// The trigger as the image config stores it, here-documents included.
    pub trigger: String,
}

/// `HEALTHCHECK CMD`; durations in nanoseconds, 0 means the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthProbe {
    /// The probe.
    pub command: CommandLine,
    /// `--interval`
    pub interval: i64,
    /// `--timeout`
    pub timeout: i64,
    /// `--start-period`
    pub start_period: i64,
    /// `--start-interval`
    pub start_interval: i64,
    /// `--retries`
    pub retries: i64,
}
