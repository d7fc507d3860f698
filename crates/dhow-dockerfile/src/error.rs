//! Why a Dockerfile or a word is refused, in Docker's wording where Docker has one.

use dhow_types::{Categorized, ErrorKind};

/// A Dockerfile does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dockerfile parse error on line {line}: {problem}")]
pub struct ParseError {
    /// First line of the statement, counted from 1.
    pub line: u32,
    /// Last line of the statement.
    pub end_line: u32,
    /// The statement's text, cut to a readable length.
    pub text: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No instruction at all.
    #[error("file with no instructions (it is empty, or has comments only)")]
    Empty,
    /// Instructions, but no `FROM`.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// An instruction other than `ARG` before the first `FROM`.
    #[error("no build stage in current context")]
    BeforeFrom,
    /// Not UTF-8.
    #[error("the line is not valid UTF-8")]
    Encoding,
    /// The first word is no instruction.
    #[error("unknown instruction: {name}{}", did_you_mean(.suggestion))]
    UnknownInstruction {
        /// As written.
        name: String,
        /// The closest instruction, if one is close.
        suggestion: Option<String>,
    },
    /// A flag that the instruction does not have.
    #[error("unknown flag: --{name}{}", did_you_mean(.suggestion))]
    UnknownFlag {
        /// Without dashes.
        name: String,
        /// The closest flag, with dashes.
        suggestion: Option<String>,
    },
    /// A flag given twice.
    #[error("duplicate flag specified: --{0}")]
    DuplicateFlag(String),
    /// A flag without its value.
    #[error("missing a value on flag: --{0}")]
    FlagValue(String),
    /// A boolean flag with another value.
    #[error("expecting boolean value for flag --{flag}, not: {value}")]
    FlagBool {
        /// Flag.
        flag: String,
        /// As written.
        value: String,
    },
    /// A flag value outside the allowed set.
    #[error("invalid value {value:?} for flag --{flag}: expected {expected}")]
    FlagChoice {
        /// Flag.
        flag: String,
        /// As written.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A field of `--mount` that does not fit.
    #[error("invalid field {field:?} in --mount: {reason}")]
    Mount {
        /// As written.
        field: String,
        /// What would be right.
        reason: &'static str,
    },
    /// A key that `--mount` does not have.
    #[error("unexpected key {key:?} in --mount{}", did_you_mean(.suggestion))]
    MountKey {
        /// In lower case.
        key: String,
        /// The closest key.
        suggestion: Option<String>,
    },
    /// `# escape=` with something else than a backslash or a backtick.
    #[error("invalid escape token '{0}' does not match ` or \\")]
    EscapeToken(String),
    /// `# syntax=` with a frontend other than Docker's.
    #[error("the Dockerfile frontend {0:?} cannot be run")]
    Frontend(String),
    /// A variable where none is expanded.
    #[error(
        "variable expansion is not supported for {0}, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    FromVariable(&'static str),
    /// The same directive twice.
    #[error("only one {0} parser directive can be used")]
    DuplicateDirective(String),
    /// A here-document without its last line.
    #[error("unterminated heredoc (no line with {0:?} alone follows)")]
    UnterminatedHeredoc(String),
    /// A here-document where none can stand.
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    /// A JSON array with something else than strings.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    JsonStrings,
    /// `SHELL` without a JSON array.
    #[error("{instruction} requires the arguments to be in JSON form")]
    NotJson {
        /// Instruction.
        instruction: &'static str,
    },
    /// Too few arguments.
    #[error("{0} requires at least one argument")]
    NoArgument(&'static str),
    /// Another number of arguments than one.
    #[error("{0} requires exactly one argument")]
    OneArgument(&'static str),
    /// `COPY` or `ADD` with one path.
    #[error("{0} requires at least two arguments, but only one was provided. Destination could not be determined")]
    NoDestination(&'static str),
    /// `FROM` with another number of words.
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    /// A stage name outside the grammar.
    #[error("invalid name for build stage: {0:?}, name can't start with a number or contain symbols")]
    StageName(String),
    /// `ENV KEY` without a value.
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    /// A word without `=` among `KEY=VALUE` words.
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NoEquals(String),
    /// `=value`.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// An instruction that cannot be a trigger.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    Trigger(String),
    /// A trigger of a trigger.
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    TriggerChain,
    /// `VOLUME ""`.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// `HEALTHCHECK NONE x`.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthNone,
    /// `HEALTHCHECK CMD` alone.
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthCommand,
    /// Neither `CMD` nor `NONE`.
    #[error("Unknown type {0:?} in HEALTHCHECK (try CMD)")]
    HealthType(String),
    /// A duration that does not parse.
    #[error("invalid duration {value:?} for flag --{flag}: expected a number with a unit, for instance 30s or 1m30s")]
    Duration {
        /// Flag.
        flag: String,
        /// As written.
        value: String,
    },
    /// A duration below one millisecond.
    #[error("Interval {0:?} cannot be less than 1ms")]
    DurationTooShort(String),
    /// A number that does not parse or is negative.
    #[error("invalid number {value:?} for flag --{flag}")]
    Number {
        /// Flag.
        flag: String,
        /// As written.
        value: String,
    },
}

fn did_you_mean(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |s| format!(" (did you mean {s}?)"))
}

impl Categorized for ParseError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match &self.problem {
            Problem::BeforeFrom | Problem::NoStages => {
                Some("start the Dockerfile with FROM; only ARG and comments may stand before it".to_owned())
            }
            Problem::Frontend(_) => Some(
                "dhow has one frontend, which stands in for docker/dockerfile:1; remove the line, or name that image"
                    .to_owned(),
            ),
            Problem::NotJson { .. } => Some("write [\"executable\", \"parameter\"] with double quotes".to_owned()),
            _ => None,
        }
    }
}

/// A word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {problem}")]
pub struct ExpandError {
    /// The word, cut to a readable length.
    pub word: String,
    /// What is wrong.
    pub problem: ExpandProblem,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandProblem {
    /// A quote is open at the end.
    #[error("unexpected end of statement while looking for matching {0}-quote")]
    Quote(&'static str),
    /// `${name` without its end.
    #[error("syntax error: missing '}}'")]
    Brace,
    /// `${name/pattern` without the second slash.
    #[error("syntax error: missing '/' in ${{}}")]
    Slash,
    /// `${}`, `${:x}`, `${{`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// A modifier that does not exist.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// `${name?message}` with `name` unset, or `${name:?message}` with it empty.
    #[error("{name}: {message}")]
    Required {
        /// Variable.
        name: String,
        /// As written, or a default.
        message: String,
    },
    /// A pattern that does not parse.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape")]
    Pattern {
        /// As written.
        pattern: String,
    },
    /// The result would be unreasonably long (a chain of `ENV a=$a$a` doubles at every step).
    #[error("the expanded text is longer than {0} bytes")]
    TooLong(usize),
    /// `${a:-${b:-…}}` nested unreasonably deep.
    #[error("substitutions are nested more than {0} deep")]
    TooDeep(usize),
}

impl Categorized for ExpandError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The first `max` characters of a text, for messages.
pub(crate) fn clip(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
