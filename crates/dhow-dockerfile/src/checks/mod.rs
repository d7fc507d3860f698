//! Build checks: what is legal in a Dockerfile but probably not meant, under the names that Docker documents.
//!
//! ```text
//! parsed file ──written──▶ rules about how it is written ──stages──▶ rules about what it means with these inputs
//! ```
//! `# check=` at the top chooses the rules for the file, a comment `# check=skip=NAME` right above an instruction for that
//! instruction alone, and build argument [`CHECK_ARG`] replaces the directive.

mod options;
mod rules;
mod stages;
#[cfg(test)]
mod tests;
mod written;

pub use options::{CHECK_ARG, CheckOptions, CheckOptionsError};
pub use rules::{RULES, Rule};

use crate::inputs::{Globals, InputError, Inputs, reached, target};
use crate::instruction::{Layout, Span};
use crate::parse::{Dockerfile, Warning};

/// Something that a rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// What was found.
    pub message: String,
    /// Where.
    pub span: Span,
}

impl Finding {
    /// One line, as a build reports it.
    pub fn text(&self) -> String {
        format!("{}: {} (line {})", self.rule.name, self.message, self.span.start)
    }
}

/// The outcome of all checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// In the order of their lines.
    pub findings: Vec<Finding>,
    /// Why the checks ended early: the build will fail for the same reason.
    pub error: Option<InputError>,
    /// The Dockerfile wants findings to be errors.
    pub strict: bool,
}

impl Checked {
    /// The error of a build whose Dockerfile wants findings to be errors.
    pub fn violation(&self) -> Option<String> {
        if !self.strict || self.findings.is_empty() {
            return None;
        }
        let mut names: Vec<&str> = self.findings.iter().map(|f| f.rule.name).collect();
        names.sort_unstable();
        names.dedup();
        Some(format!("lint violation found for rules: {}", names.join(", ")))
    }
}

/// Which stages are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stages {
    /// Those that the target needs.
    Needed,
    /// Every one.
    All,
}

/// Most findings that are kept: a hostile file must not make a report of any length.
const MAX_FINDINGS: usize = 1000;

/// Collects findings that the options let through.
struct Linter {
    options: CheckOptions,
    findings: Vec<Finding>,
}

impl Linter {
    fn new(file: &Dockerfile, build_args: &[(String, String)]) -> Result<Self, CheckOptionsError> {
        let given = build_args.iter().rev().find(|(name, _)| name == CHECK_ARG).map(|(_, value)| value.as_str());
        let text = given.or(file.directives.check.as_deref()).unwrap_or_default();
        Ok(Self { options: CheckOptions::parse(text)?, findings: Vec::new() })
    }

    /// Whether a finding would be kept; `layout` is that of the instruction whose comment may have a say.
    fn wants(&self, rule: &Rule, layout: Option<&Layout>) -> bool {
        let named = || {
            let local = || layout.and_then(|l| CheckOptions::of_comments(&l.comments));
            self.options.names(rule) || local().is_some_and(|o| o.names(rule))
        };
        self.findings.len() < MAX_FINDINGS && named() == rule.experimental
    }

    /// Reports.
    fn report(&mut self, rule: &'static Rule, layout: Option<&Layout>, span: Span, message: String) {
        if self.wants(rule, layout) {
            self.findings.push(Finding { rule, message, span });
        }
    }

    fn finish(mut self, error: Option<InputError>) -> Checked {
        self.findings.sort_by_key(|f| f.span.start);
        Checked { findings: self.findings, error, strict: self.options.error }
    }
}

/// Checks a Dockerfile with the inputs of a build.
pub fn check(file: &Dockerfile, inputs: &Inputs, which: Stages) -> Result<Checked, CheckOptionsError> {
    let mut linter = Linter::new(file, inputs.build_args)?;
    written::check(file, &mut linter);
    let outcome = with_inputs(file, inputs, which, &mut linter);
    Ok(linter.finish(outcome.err()))
}

fn with_inputs(file: &Dockerfile, inputs: &Inputs, which: Stages, linter: &mut Linter) -> Result<(), InputError> {
    let target = target(file, inputs.target)?;
    // Defaults that do not expand are an error of the build, if they are used there.
    if let Ok(defaults) = Globals::new(file, inputs, false) {
        stages::check_defaults(file, &defaults, linter);
    }
    let globals = Globals::new(file, inputs, true)?;
    stages::check_from_lines(file, &globals, linter)?;
    let mut wanted = vec![which == Stages::All; file.stages.len()];
    for number in reached(file, &globals, target) {
        wanted[number] = true;
    }
    stages::check_instructions(file, inputs, &globals, &wanted, linter)
}

/// The rules that need no more than what was parsed, for a file that has an error further down.
pub fn check_written(file: &Dockerfile, build_args: &[(String, String)]) -> Result<Checked, CheckOptionsError> {
    let mut linter = Linter::new(file, build_args)?;
    written::check(file, &mut linter);
    Ok(linter.finish(None))
}

/// What a parsed file says about itself without any inputs.
pub(crate) fn warnings(file: &Dockerfile) -> Vec<Warning> {
    let Ok(mut linter) = Linter::new(file, &[]) else { return Vec::new() };
    written::check(file, &mut linter);
    file.stages.iter().flat_map(|s| &s.instructions).for_each(|i| written::legacy(i, &mut linter));
    let warning = |f: Finding| Warning { line: f.span.start, rule: f.rule.name, message: f.message };
    linter.finish(None).findings.into_iter().map(warning).collect()
}
