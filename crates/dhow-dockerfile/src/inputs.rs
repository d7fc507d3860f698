//! What a build brings along beside its Dockerfile, and what follows from the two: global variables, the target, the stages
//! it needs. Checks and descriptions share it; the builder has its own, with images behind it.

use crate::error::ExpandError;
use crate::expand::{Expander, Expansion};
use crate::ignore::IgnoreList;
use crate::instruction::{Command, Instruction, Span};
use crate::parse::{Dockerfile, Stage};
use dhow_types::{Categorized, ErrorKind, Platform};
use std::collections::{BTreeMap, BTreeSet};

/// Most stages that are looked at; the builder refuses more, too.
const MAX_STAGES: usize = 1000;
/// Most bytes of variables that a scope keeps, and the global arguments.
const MAX_VARIABLES: usize = 256 << 10;
/// `PATH` where the base says nothing of it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a caller knows beside the Dockerfile.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// `--build-arg`, values resolved.
    pub build_args: &'a [(String, String)],
    /// `--target`: name or index; the last stage when absent.
    pub target: Option<&'a str>,
    /// `--platform`; the host's when absent.
    pub platform: Option<&'a Platform>,
    /// `.dockerignore` of the context, when there is one.
    pub ignore: Option<&'a IgnoreList>,
    /// What is known of the image that a stage (by number, from 0) starts from. `None`: nothing is known.
    pub base: &'a dyn Fn(usize, &str) -> Option<BaseFacts>,
}

/// What checks want to know of a base image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseFacts {
    /// `NAME=VALUE` entries of its config.
    pub env: Vec<String>,
    /// Its config has a `Shell`.
    pub has_shell: bool,
}

/// A Dockerfile that parses cannot be used with these inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    /// Where, if a statement is at fault.
    pub span: Option<Span>,
    /// What is wrong.
    pub message: String,
}

impl Categorized for InputError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl InputError {
    pub(crate) fn at(span: Span) -> impl Fn(ExpandError) -> Self {
        move |e| Self { span: Some(span), message: e.to_string() }
    }
}

/// An `ARG` before the first `FROM`.
#[derive(Debug, Clone)]
pub(crate) struct GlobalArg {
    pub(crate) value: Option<String>,
    /// Other global arguments that its default uses.
    pub(crate) uses: BTreeSet<String>,
    pub(crate) span: Span,
    pub(crate) description: Option<String>,
}

/// Variables of `FROM` lines.
pub(crate) struct Globals<'a> {
    escape: char,
    given: &'a [(String, String)],
    /// Every name with a value: automatic platform arguments and `ARG`s.
    pub(crate) values: BTreeMap<String, String>,
    /// The `ARG`s alone.
    pub(crate) args: BTreeMap<String, GlobalArg>,
}

impl<'a> Globals<'a> {
    /// With the build arguments, or, if `given` is false, as if there were none.
    pub(crate) fn new(file: &Dockerfile, inputs: &Inputs<'a>, given: bool) -> Result<Self, InputError> {
        let mut globals = Self {
            escape: file.directives.escape,
            given: if given { inputs.build_args } else { &[] },
            values: automatic(file, inputs),
            args: BTreeMap::new(),
        };
        let mut size = 0_usize;
        for instruction in &file.header {
            let Command::Arg(list) = &instruction.command else { continue };
            for arg in list {
                let (value, mut uses) = match (globals.given(&arg.name), &arg.default) {
                    (Some(value), _) => (Some(value.to_owned()), BTreeSet::new()),
                    (None, None) => (None, BTreeSet::new()),
                    (None, Some(default)) => {
                        let expansion = globals.expand(default).map_err(InputError::at(instruction.span))?;
                        (Some(expansion.text), expansion.used.into_iter().collect())
                    }
                };
                // `ARG a=${a}x` uses whatever the first one used.
                if uses.remove(&arg.name)
                    && let Some(old) = globals.args.get(&arg.name)
                {
                    uses.extend(old.uses.iter().cloned());
                }
                size = size.saturating_add(value.as_ref().map_or(0, String::len));
                if size > MAX_VARIABLES {
                    let message = format!("the global arguments are longer than {MAX_VARIABLES} bytes");
                    return Err(InputError { span: Some(instruction.span), message });
                }
                if let Some(value) = &value {
                    globals.values.insert(arg.name.clone(), value.clone());
                }
                let description = instruction.layout.description(&arg.name).map(str::to_owned);
                globals.args.insert(arg.name.clone(), GlobalArg { value, uses, span: instruction.span, description });
            }
        }
        Ok(globals)
    }

    /// A build argument as the caller gave it.
    pub(crate) fn given(&self, name: &str) -> Option<&'a str> {
        self.given.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Expands a word of `FROM`.
    pub(crate) fn expand(&self, text: &str) -> Result<Expansion, ExpandError> {
        let lookup = |name: &str| self.values.get(name).cloned();
        Expander::new(self.escape, &lookup).expand(text)
    }
}

/// The automatic arguments of a build: where it builds, what for, and which stage. `last` is the name of the last stage.
pub fn automatic_args(target: &Platform, stage: Option<&str>, last: Option<&str>) -> Vec<(String, String)> {
    let mut values = Vec::new();
    for (prefix, platform) in [("TARGET", target), ("BUILD", &Platform::host())] {
        let fields = [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone().unwrap_or_default()),
            ("OSVERSION", String::new()),
        ];
        values.extend(fields.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
    }
    let stage = stage.filter(|t| !t.is_empty()).or(last).unwrap_or("default");
    values.push(("TARGETSTAGE".to_owned(), stage.to_owned()));
    values
}

/// The same by name; a build argument of the same name wins.
fn automatic(file: &Dockerfile, inputs: &Inputs) -> BTreeMap<String, String> {
    let target = inputs.platform.cloned().unwrap_or_else(Platform::host);
    let last = file.stages.last().and_then(|s| s.from.name.as_deref());
    let mut values: BTreeMap<_, _> = automatic_args(&target, inputs.target, last).into_iter().collect();
    for (name, value) in inputs.build_args {
        if let Some(slot) = values.get_mut(name) {
            slot.clone_from(value);
        }
    }
    values
}

/// The number of the target stage.
pub(crate) fn target(file: &Dockerfile, wanted: Option<&str>) -> Result<usize, InputError> {
    let last = file.stages.len().saturating_sub(1);
    if file.stages.len() > MAX_STAGES {
        return Err(InputError { span: None, message: format!("the Dockerfile has more than {MAX_STAGES} stages") });
    }
    let Some(wanted) = wanted.filter(|t| !t.is_empty()) else { return Ok(last) };
    let number = || wanted.parse().ok().filter(|n| *n <= last);
    named(file, wanted, file.stages.len()).or_else(number).ok_or_else(|| InputError {
        span: None,
        message: format!("target stage {:?} could not be found", wanted.chars().take(100).collect::<String>()),
    })
}

/// The last stage of this name before stage `end`.
pub(crate) fn named(file: &Dockerfile, name: &str, end: usize) -> Option<usize> {
    let name = name.to_lowercase();
    file.stages.get(..end)?.iter().rposition(|s| s.from.name.as_ref() == Some(&name))
}

/// The stage that another starts from.
pub(crate) fn base_stage(file: &Dockerfile, globals: &Globals, number: usize, stage: &Stage) -> Option<usize> {
    named(file, &globals.expand(&stage.from.image).ok()?.text, number)
}

/// Stages that a stage needs: its base, then the sources of its copies and mounts.
pub(crate) fn needs(file: &Dockerfile, globals: &Globals, number: usize, stage: &Stage) -> Vec<usize> {
    let mut list: Vec<usize> = base_stage(file, globals, number, stage).into_iter().collect();
    let by_index = |from: &str| from.parse().ok().filter(|n: &usize| *n < number);
    for from in stage.instructions.iter().flat_map(sources) {
        list.extend(named(file, from, file.stages.len()).or_else(|| by_index(from)));
    }
    list
}

fn sources(instruction: &Instruction) -> Vec<&str> {
    match &instruction.command {
        Command::Copy(copy) => copy.from.as_deref().into_iter().collect(),
        Command::Run(run) => run.mounts.iter().filter_map(|m| m.from.as_deref()).collect(),
        _ => Vec::new(),
    }
}

/// The target and all it needs, in the order in which they are reached.
pub(crate) fn reached(file: &Dockerfile, globals: &Globals, target: usize) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    let mut pending = vec![target];
    while let Some(number) = pending.pop() {
        let Some(stage) = file.stages.get(number).filter(|_| seen.insert(number)) else { continue };
        order.push(number);
        pending.extend(needs(file, globals, number, stage).into_iter().rev());
    }
    order
}

/// Variables of a stage as far as they can be known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    env: BTreeMap<String, String>,
    /// Declared arguments; `None` is unset.
    args: BTreeMap<String, Option<String>>,
    /// Bytes of names and values that were ever set.
    size: usize,
}

impl Scope {
    /// The variables of a base image.
    pub(crate) fn of_base(env: &[String]) -> Self {
        let mut scope = Self::default();
        scope.set_env("PATH".to_owned(), DEFAULT_PATH.to_owned());
        for (name, value) in env.iter().filter_map(|e| e.split_once('=')) {
            scope.set_env(name.to_owned(), value.to_owned());
        }
        scope
    }

    /// `ENV`.
    pub(crate) fn set_env(&mut self, name: String, value: String) {
        let value = self.bounded(&name, value);
        self.env.insert(name, value);
    }

    /// `ARG`.
    pub(crate) fn set_arg(&mut self, name: String, value: Option<String>) {
        let value = value.map(|v| self.bounded(&name, v));
        self.args.insert(name, value);
    }

    /// Whether an argument is declared.
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.args.contains_key(name)
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.env.keys().chain(self.args.keys()).map(String::as_str)
    }

    /// Variables that double line by line end as empty ones: that they exist still counts.
    fn bounded(&mut self, name: &str, value: String) -> String {
        self.size = self.size.saturating_add(name.len() + value.len());
        if self.size > MAX_VARIABLES { String::new() } else { value }
    }

    fn lookup(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned().or_else(|| self.args.get(name)?.clone())
    }

    /// Expands a word.
    pub(crate) fn expand(&self, escape: char, text: &str) -> Result<Expansion, ExpandError> {
        let lookup = |name: &str| self.lookup(name);
        Expander::new(escape, &lookup).expand(text)
    }

    /// Expands the body of a here-document.
    pub(crate) fn expand_body(&self, text: &str) -> Result<Expansion, ExpandError> {
        let lookup = |name: &str| self.lookup(name);
        Expander::new('\\', &lookup).plain_quotes().expand(text)
    }
}
