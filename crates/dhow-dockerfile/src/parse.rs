//! Statements to typed instructions, and instructions to stages.

mod files;
mod flags;
mod health;
mod mount;

use crate::checks;
use crate::error::{ParseError, Problem, clip};
use crate::instruction::{
    ArgDecl, Command, CommandLine, From, Instruction, KeyValue, Layout, OnBuild, Run, RunNetwork, Span,
};
use crate::lines::{Directives, Statement, Statements};
use crate::suggest::closest;
use crate::words::{fields, json_array, quoted_words, split_first};
use flags::Flags;

/// Every instruction, for suggestions.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// Directives at the top.
    pub directives: Directives,
    /// Instructions before the first `FROM`: `ARG`s.
    pub header: Vec<Instruction>,
    /// The same `ARG`s, one by one.
    pub global_args: Vec<ArgDecl>,
    /// Stages in order; never empty.
    pub stages: Vec<Stage>,
    /// What is legal but probably not meant.
    pub warnings: Vec<Warning>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its `FROM`.
    pub from: From,
    /// Place of the `FROM`.
    pub span: Span,
    /// The `FROM` line as written.
    pub original: String,
    /// How the `FROM` line is written.
    pub layout: Layout,
    /// What follows it.
    pub instructions: Vec<Instruction>,
}

/// A remark about a Dockerfile; names are those of BuildKit's checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Line, counted from 1.
    pub line: u32,
    /// Name of the check.
    pub rule: &'static str,
    /// Text.
    pub message: String,
}

impl Dockerfile {
    /// Parses a Dockerfile.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        match Self::parse_prefix(bytes) {
            (mut file, None) => {
                file.warnings = checks::warnings(&file);
                Ok(file)
            }
            (_, Some(error)) => Err(error),
        }
    }

    /// Parses as far as possible: what stands before the first error, and the error. [`Dockerfile::warnings`] is not
    /// filled; [`checks::check_written`] finds more.
    pub fn parse_prefix(bytes: &[u8]) -> (Self, Option<ParseError>) {
        let mut file = Self {
            directives: Directives { syntax: None, escape: '\\', check: None },
            header: Vec::new(),
            global_args: Vec::new(),
            stages: Vec::new(),
            warnings: Vec::new(),
        };
        let statements = match Statements::parse(bytes) {
            Ok(statements) => statements,
            Err(error) => return (file, Some(error)),
        };
        let escape = statements.directives.escape;
        file.directives = statements.directives;
        for statement in &statements.list {
            let added = instruction(statement, escape).and_then(|i| file.add(i));
            if let Err(problem) = added {
                return (file, Some(statement.error(problem)));
            }
        }
        let error = file.stages.is_empty().then(|| {
            let last = statements.list.last().map_or(0, |s| s.span.end);
            ParseError { line: last, end_line: last, text: String::new(), problem: Problem::NoStages }
        });
        (file, error)
    }

    fn add(&mut self, instruction: Instruction) -> Result<(), Problem> {
        match (instruction.command, self.stages.last_mut()) {
            (Command::From(from), _) => self.stages.push(Stage {
                from,
                span: instruction.span,
                original: instruction.original,
                layout: instruction.layout,
                instructions: Vec::new(),
            }),
            (Command::Arg(args), None) => {
                self.global_args.extend(args.iter().cloned());
                self.header.push(Instruction { command: Command::Arg(args), ..instruction });
            }
            (_, None) => return Err(Problem::BeforeFrom),
            (command, Some(stage)) => stage.instructions.push(Instruction { command, ..instruction }),
        }
        Ok(())
    }
}

/// Parses one `ONBUILD` trigger as the image config stores it.
pub fn parse_trigger(text: &str) -> Result<Instruction, ParseError> {
    let statements = Statements::parse(text.as_bytes())?;
    let [statement] = statements.list.as_slice() else {
        let line = statements.list.get(1).map_or(1, |s| s.span.start);
        let problem = Problem::Trigger("more than one instruction".to_owned());
        return Err(ParseError { line, end_line: line, text: clip(text, 200), problem });
    };
    allowed_trigger(&statement.keyword).map_err(|p| statement.error(p))?;
    instruction(statement, statements.directives.escape).map_err(|p| statement.error(p))
}

fn allowed_trigger(keyword: &str) -> Result<(), Problem> {
    match keyword.to_ascii_uppercase().as_str() {
        "ONBUILD" => Err(Problem::TriggerChain),
        name @ ("FROM" | "MAINTAINER") => Err(Problem::Trigger(name.to_owned())),
        _ => Ok(()),
    }
}

fn instruction(s: &Statement, escape: char) -> Result<Instruction, Problem> {
    let command = match s.keyword.to_ascii_uppercase().as_str() {
        "ADD" => Command::Add(files::add(s)?),
        "ARG" => Command::Arg(args(s, escape)?),
        "CMD" => Command::Cmd(no_flags(s, command_line)?),
        "COPY" => Command::Copy(files::copy(s)?),
        "ENTRYPOINT" => Command::Entrypoint(no_flags(s, command_line)?),
        "ENV" => Command::Env(key_values(s, "ENV", escape)?),
        "EXPOSE" => Command::Expose(no_flags(s, |s| some(fields(&s.args), "EXPOSE"))?),
        "FROM" => Command::From(from(s)?),
        "HEALTHCHECK" => Command::Healthcheck(health::healthcheck(s)?),
        "LABEL" => Command::Label(key_values(s, "LABEL", escape)?),
        "MAINTAINER" => Command::Maintainer(one(s, "MAINTAINER")?),
        "ONBUILD" => Command::OnBuild(on_build(s, escape)?),
        "RUN" => Command::Run(run(s)?),
        "SHELL" => Command::Shell(no_flags(s, shell)?),
        "STOPSIGNAL" => Command::StopSignal(one(s, "STOPSIGNAL")?),
        "USER" => Command::User(one(s, "USER")?),
        "VOLUME" => Command::Volume(no_flags(s, volumes)?),
        "WORKDIR" => Command::Workdir(one(s, "WORKDIR")?),
        _ => {
            let suggestion = closest(&s.keyword, NAMES).map(str::to_owned);
            return Err(Problem::UnknownInstruction { name: clip(&s.keyword, 60), suggestion });
        }
    };
    Ok(Instruction { span: s.span, original: s.original.trim().to_owned(), command, layout: s.layout.clone() })
}

/// Parses an instruction that has no flags.
fn no_flags<T>(s: &Statement, parse: impl FnOnce(&Statement) -> Result<T, Problem>) -> Result<T, Problem> {
    Flags::new(s).finish()?;
    parse(s)
}

fn some<T>(list: Vec<T>, name: &'static str) -> Result<Vec<T>, Problem> {
    if list.is_empty() { Err(Problem::NoArgument(name)) } else { Ok(list) }
}

fn one(s: &Statement, name: &'static str) -> Result<String, Problem> {
    Flags::new(s).finish()?;
    if s.args.is_empty() { Err(Problem::OneArgument(name)) } else { Ok(s.args.clone()) }
}

fn command_line(s: &Statement) -> Result<CommandLine, Problem> {
    Ok(match json_array(&s.args)? {
        Some(argv) => CommandLine::Exec(argv),
        None => CommandLine::Shell(s.args.clone()),
    })
}

fn shell(s: &Statement) -> Result<Vec<String>, Problem> {
    match json_array(&s.args)? {
        Some(argv) => some(argv, "SHELL"),
        None if s.args.is_empty() => Err(Problem::NoArgument("SHELL")),
        None => Err(Problem::NotJson { instruction: "SHELL" }),
    }
}

fn volumes(s: &Statement) -> Result<Vec<String>, Problem> {
    let list = match json_array(&s.args)? {
        Some(list) => list,
        None => fields(&s.args),
    };
    let list: Vec<String> = list.iter().map(|v| v.trim().to_owned()).collect();
    if list.iter().any(String::is_empty) {
        return Err(Problem::EmptyVolume);
    }
    some(list, "VOLUME")
}

fn from(s: &Statement) -> Result<From, Problem> {
    let mut flags = Flags::new(s);
    let platform = flags.text("platform")?;
    flags.finish()?;
    let words = fields(&s.args);
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, as_word, name] if as_word.eq_ignore_ascii_case("as") => (image, Some(stage_name(name)?)),
        _ => return Err(Problem::FromArguments),
    };
    Ok(From { image: image.clone(), platform, name })
}

fn stage_name(name: &str) -> Result<String, Problem> {
    let lower = name.to_lowercase();
    let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
    if valid { Ok(lower) } else { Err(Problem::StageName(clip(name, 60))) }
}

fn run(s: &Statement) -> Result<Run, Problem> {
    let mut flags = Flags::new(s);
    let mounts = flags.list("mount")?.iter().map(|m| mount::mount(m)).collect::<Result<_, _>>()?;
    let devices = flags.list("device")?;
    let security = flags.text("security")?;
    if let Some(value) = security.as_ref().filter(|v| !matches!(v.as_str(), "sandbox" | "insecure")) {
        let flag = "security".to_owned();
        return Err(Problem::FlagChoice { flag, value: clip(value, 60), expected: "sandbox or insecure" });
    }
    let network = match flags.text("network")? {
        None => RunNetwork::Default,
        Some(value) => match value.as_str() {
            "default" => RunNetwork::Default,
            "none" => RunNetwork::None,
            "host" => RunNetwork::Host,
            _ => {
                let flag = "network".to_owned();
                return Err(Problem::FlagChoice { flag, value: clip(&value, 60), expected: "default, none or host" });
            }
        },
    };
    flags.finish()?;
    let command = command_line(s)?;
    match &command {
        CommandLine::Shell(text) if text.is_empty() => return Err(Problem::NoArgument("RUN")),
        CommandLine::Exec(argv) if argv.is_empty() => return Err(Problem::NoArgument("RUN")),
        _ => {}
    }
    Ok(Run { command, heredocs: s.heredocs.clone(), network, mounts, security, devices })
}

fn key_values(s: &Statement, name: &'static str, escape: char) -> Result<Vec<KeyValue>, Problem> {
    Flags::new(s).finish()?;
    let words = some(quoted_words(&s.args, escape), name)?;
    if words.first().is_some_and(|w| !w.contains('=')) {
        // The old form: one key, and everything after it is the value.
        let (key, value) = split_first(&s.args);
        if value.is_empty() {
            return Err(Problem::TwoArguments(name));
        }
        return Ok(vec![KeyValue { key: key.to_owned(), value: value.to_owned(), legacy: true }]);
    }
    let pair = |word: &String| {
        let (key, value) = word.split_once('=').ok_or_else(|| Problem::NoEquals(clip(word, 100)))?;
        if key.is_empty() {
            return Err(Problem::BlankName(name));
        }
        Ok(KeyValue { key: key.to_owned(), value: value.to_owned(), legacy: false })
    };
    words.iter().map(pair).collect()
}

fn args(s: &Statement, escape: char) -> Result<Vec<ArgDecl>, Problem> {
    Flags::new(s).finish()?;
    let words = some(quoted_words(&s.args, escape), "ARG")?;
    let declaration = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(Problem::BlankName("ARG")),
        Some((name, default)) => Ok(ArgDecl { name: name.to_owned(), default: Some(default.to_owned()) }),
        None => Ok(ArgDecl { name: word.clone(), default: None }),
    };
    words.iter().map(declaration).collect()
}

fn on_build(s: &Statement, escape: char) -> Result<OnBuild, Problem> {
    // Flags right after ONBUILD belong to nothing.
    Flags::new(s).finish()?;
    if s.args.is_empty() {
        return Err(Problem::NoArgument("ONBUILD"));
    }
    let inner = Statement { heredocs: s.heredocs.clone(), ..Statement::split(&s.args, escape, s.span) };
    allowed_trigger(&inner.keyword)?;
    instruction(&inner, escape)?;
    let mut trigger = s.args.clone();
    for doc in &s.heredocs {
        trigger.push('\n');
        trigger.push_str(&doc.content);
        trigger.push_str(&doc.name);
    }
    Ok(OnBuild { trigger })
}

#[cfg(test)]
mod tests;
