//! Dockerfile and `.dockerignore` syntax: bytes to typed instructions.
//!
//! The stages are kept apart, and each can be tested alone:
//! bytes → logical lines with their here-documents ([`Statement`]) → typed [`Instruction`]s → [`Stage`]s ([`Dockerfile`]).
//! Beside them stand the two small languages that the builder applies later: word expansion ([`Expander`]) and the
//! patterns of `.dockerignore` ([`IgnoreList`]) and of `COPY` ([`glob`]).
//!
//! On top of a parsed file stand build checks ([`checks`]) and descriptions ([`outline`], [`targets`]).
//!
//! Deliberately absent: I/O of any kind, the meaning of an instruction for an image, and defaults that depend on a
//! platform. A flag that BuildKit knows is always parsed; whether it can be carried out is the builder's business.

pub mod checks;
mod directive;
mod duration;
mod error;
mod expand;
pub mod glob;
mod heredoc;
mod ignore;
mod inputs;
mod instruction;
mod lines;
mod outline;
mod parse;
mod pattern;
mod suggest;
mod words;

pub use directive::check_syntax;
pub use duration::parse_duration;
pub use error::{ExpandError, ExpandProblem, ParseError, Problem};
pub use expand::{Expander, Expansion};
pub use glob::BadPattern;
pub use heredoc::{Heredoc, strip_leading_tabs};
pub use ignore::{IgnoreError, IgnoreList, ParentMatch};
pub use inputs::{BaseFacts, InputError, Inputs, automatic_args};
pub use instruction::{
    Add, ArgDecl, CacheSharing, Command, CommandLine, Copy, FileSources, From, HealthProbe, InlineFile, Instruction,
    KeyValue, Layout, MountKind, OnBuild, Run, RunMount, RunNetwork, Span,
};
pub use lines::{Directives, Statement, Statements};
pub use outline::{Outline, OutlineArg, OutlineMount, Target, outline, targets};
pub use parse::{Dockerfile, Stage, Warning, parse_trigger};
pub use suggest::closest;
