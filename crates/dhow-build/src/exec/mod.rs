//! Carrying out a plan.

mod change;
mod copy;
mod finish;
mod metadata;
mod mounts;
mod run;
mod stage;

pub use change::apply_change;

use crate::backend::{Backend, CachedStep};
use crate::context::Context;
use crate::error::BuildError;
use crate::options::BuildOptions;
use crate::output::{BuildEvent, BuildOutput};
use crate::plan::{self, PlannedStage, at};
use crate::scope::{EPOCH_ARG, Globals};
use dhow_dockerfile::{Command, Dockerfile};
use dhow_types::{Digest, Timestamp};
use stage::StageState;
use std::collections::HashMap;
use std::time::Instant;

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Id of the image.
    pub image: Digest,
    /// Whether every step came from the cache.
    pub all_cached: bool,
}

/// What all steps of a build share.
struct Builder<'a> {
    backend: &'a dyn Backend,
    context: Option<&'a Context>,
    options: &'a BuildOptions,
    globals: Globals,
    output: &'a mut dyn BuildOutput,
    /// Finished stages by number.
    finished: HashMap<usize, StageState>,
    step: usize,
    total: usize,
    all_cached: bool,
}

/// Builds the target stage of a Dockerfile and stores the image.
pub fn build(
    source: &[u8],
    context: Option<&Context>,
    options: &BuildOptions,
    backend: &dyn Backend,
    output: &mut dyn BuildOutput,
) -> Result<Built, BuildError> {
    let result = try_build(source, context, options, backend, output);
    if let Err(error) = &result
        && let Some(excerpt) = excerpt(source, error)
    {
        output.event(&BuildEvent::Failed { excerpt: &excerpt });
    }
    result
}

fn try_build(
    source: &[u8],
    context: Option<&Context>,
    options: &BuildOptions,
    backend: &dyn Backend,
    output: &mut dyn BuildOutput,
) -> Result<Built, BuildError> {
    let file = Dockerfile::parse(source)?;
    for warning in &file.warnings {
        let text = format!("{}: {} (line {})", warning.rule, warning.message, warning.line);
        output.event(&BuildEvent::Warning { line: warning.line, text: &text });
    }
    let options = &with_epoch(options)?;
    let globals = Globals::new(file.directives.escape, &file.global_args, options)?;
    warn_unused(&file, &globals, output);
    let plan = plan::plan(&file, options, &globals, backend)?;
    let mut builder = Builder {
        backend,
        context,
        options,
        globals,
        output,
        finished: HashMap::new(),
        step: 0,
        total: plan.total_steps,
        all_cached: true,
    };
    let mut target = None;
    for stage in &plan.stages {
        builder.stage(stage)?;
        target = Some(stage.number);
    }
    // A plan ends with its target.
    let state = target.and_then(|t| builder.finished.remove(&t)).ok_or(BuildError::NoTarget(String::new()))?;
    let image = builder.finish(state)?;
    builder.output.event(&BuildEvent::Done { image });
    Ok(Built { image, all_cached: builder.all_cached })
}

/// `--build-arg SOURCE_DATE_EPOCH=N` is as good as the option.
fn with_epoch(options: &BuildOptions) -> Result<BuildOptions, BuildError> {
    let mut options = options.clone();
    let given = options.build_args.iter().rev().find(|(name, _)| name == EPOCH_ARG);
    if let (None, Some((_, value))) = (options.source_date_epoch, given) {
        let bad = |_| BuildError::Invalid(format!("invalid {EPOCH_ARG} {value:?}: expected seconds since 1970"));
        options.source_date_epoch = Some(value.parse().map_err(bad)?);
    }
    Ok(options)
}

fn warn_unused(file: &Dockerfile, globals: &Globals, output: &mut dyn BuildOutput) {
    let in_stages = file.stages.iter().flat_map(|s| &s.instructions).filter_map(|i| match &i.command {
        Command::Arg(args) => Some(args),
        _ => None,
    });
    let declared: Vec<&str> = file.global_args.iter().chain(in_stages.flatten()).map(|a| a.name.as_str()).collect();
    let unused = globals.unused(&declared);
    if !unused.is_empty() {
        let text = format!("One or more build-args [{}] were not consumed", unused.join(" "));
        output.event(&BuildEvent::Warning { line: 0, text: &text });
    }
}

impl Builder<'_> {
    fn stage(&mut self, planned: &PlannedStage) -> Result<(), BuildError> {
        let name = planned.name.as_deref();
        self.start(name, &planned.original);
        let begun = Instant::now();
        let mut state = self.begin_stage(planned).map_err(at(planned.span, &planned.original))?;
        self.done(begun, None);
        for step in &planned.steps {
            let instruction = &step.instruction;
            self.start(name, &instruction.original);
            let begun = Instant::now();
            let before = state.layers.len();
            self.instruction(&mut state, step).map_err(at(instruction.span, &instruction.original))?;
            let made = if state.layers.len() > before { state.layers.last().copied() } else { None };
            self.done(begun, made);
        }
        self.finished.insert(planned.number, state);
        Ok(())
    }

    fn start(&mut self, stage: Option<&str>, text: &str) {
        self.step += 1;
        let (index, total) = (self.step, self.total);
        self.output.event(&BuildEvent::StepStarted { index, total, stage, text });
    }

    fn done(&mut self, begun: Instant, layer: Option<Digest>) {
        self.output.event(&BuildEvent::StepDone { duration: begun.elapsed(), layer });
    }

    fn warn(&mut self, line: u32, text: &str) {
        self.output.event(&BuildEvent::Warning { line, text });
    }

    /// The result of a step that was done before, if its layer is still there.
    fn cached(&mut self, key: &Digest) -> Result<Option<CachedStep>, BuildError> {
        if self.options.no_cache {
            self.all_cached = false;
            return Ok(None);
        }
        let hit = match self.backend.cache_get(key)? {
            Some(step) => match step.layer {
                Some(layer) if !self.backend.has_layer(&layer)? => None,
                _ => Some(step),
            },
            None => None,
        };
        match hit {
            Some(_) => self.output.event(&BuildEvent::Cached),
            None => self.all_cached = false,
        }
        Ok(hit)
    }

    /// The time that the result shall bear: now, but not later than `SOURCE_DATE_EPOCH`.
    fn stamp(&self) -> Timestamp {
        let fixed = self.options.source_date_epoch.and_then(|s| Timestamp::from_second(s).ok());
        fixed.unwrap_or_else(|| self.backend.now())
    }
}

/// The lines of the Dockerfile around a failing instruction, as BuildKit shows them.
fn excerpt(source: &[u8], error: &BuildError) -> Option<String> {
    const AROUND: u32 = 2;
    let (first, last) = match error {
        BuildError::Line { line, end_line, .. } => (*line, *end_line),
        BuildError::Parse(e) if e.line > 0 => (e.line, e.end_line.max(e.line)),
        _ => return None,
    };
    let text = String::from_utf8_lossy(source);
    let rule = "--------------------";
    let mut out = format!("Dockerfile:{first}\n{rule}\n");
    for (number, line) in (1_u32..).zip(text.lines()) {
        if number + AROUND < first || number > last.saturating_add(AROUND) {
            continue;
        }
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line: String = line.chars().take(200).collect();
        out.push_str(format!("{number:>4} | {mark} {line}").trim_end());
        out.push('\n');
    }
    out.push_str(rule);
    Some(out)
}

#[cfg(test)]
mod tests;
