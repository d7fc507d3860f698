//! Carrying out a plan.

mod add;
mod change;
mod copy;
mod finish;
mod metadata;
mod mounts;
mod run;
mod stage;

pub use change::apply_change;

use crate::backend::{Backend, CachedStep, Claim};
use crate::check;
use crate::context::Context;
use crate::drive::{self, Pending};
use crate::error::BuildError;
use crate::explain::{Explainer, Listed, Place};
use crate::options::BuildOptions;
use crate::output::{BuildEvent, BuildOutput};
use crate::plan::{self, Base, CopyFrom, NamedTree, PlannedStage, at};
use crate::recipe::Recipe;
use crate::scope::{EPOCH_ARG, Globals};
use dhow_dockerfile::{Command, Dockerfile};
use dhow_types::{Digest, Timestamp};
use stage::StageState;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

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
    /// Directories of named contexts, by number.
    named: Vec<NamedTree<'a>>,
    options: &'a BuildOptions,
    globals: Globals,
    output: RefCell<&'a mut dyn BuildOutput>,
    /// Finished stages by number.
    finished: RefCell<HashMap<usize, StageState>>,
    total: usize,
    all_cached: Cell<bool>,
    explainer: Explainer<'a>,
    /// How many more stages may do something at the same time.
    slots: Cell<usize>,
}

/// How often the output is told that time passes.
const TICK: Duration = Duration::from_millis(100);
/// Most stages that work at the same time: each has processes and open files of its own.
const PARALLEL: usize = 32;

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
    let options = &with_epoch(options)?;
    let last = file.stages.last().and_then(|s| s.from.name.as_deref());
    let globals = Globals::new(file.directives.escape, &file.global_args, last, options)?;
    warn_unused(&file, &globals, output);
    let (plan, named) = plan::plan(&file, options, &globals, backend)?;
    check::report(&file, options, &plan, context.map(Context::ignore), output)?;
    let builder = Builder {
        backend,
        context,
        named,
        options,
        globals,
        output: RefCell::new(output),
        finished: RefCell::default(),
        total: plan.total_steps,
        all_cached: Cell::new(true),
        explainer: Explainer::new(backend, &options.identity, options),
        slots: Cell::new(PARALLEL),
    };
    let mut stages: Vec<Pending<'_, Result<(), BuildError>>> = Vec::with_capacity(plan.stages.len());
    let mut first = 1;
    for stage in &plan.stages {
        stages.push(Box::pin(builder.stage(stage, first)));
        first += stage.steps.len() + 1;
    }
    let mut tick = || {
        builder.output.borrow_mut().tick();
        backend.tick();
    };
    drive::block_on_with_tick(drive::all(stages), TICK, &mut tick)?;
    // A plan ends with its target.
    let target = plan.stages.last().and_then(|t| builder.finished.borrow_mut().remove(&t.number));
    let image = builder.finish(target.ok_or(BuildError::NoTarget(String::new()))?)?;
    builder.explainer.finish();
    builder.event(&BuildEvent::Done { image });
    Ok(Built { image, all_cached: builder.all_cached.get() })
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

fn stage_name(planned: &PlannedStage) -> String {
    planned.name.clone().unwrap_or_else(|| planned.number.to_string())
}

/// What there is of a step.
enum Found<'a> {
    /// Its result.
    Step(CachedStep),
    /// The claim to do it.
    Nothing(Box<dyn Claim + 'a>),
}

/// Whether a stage may work; dropping it lets another one.
struct Slot<'a>(&'a Cell<usize>);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        drive::again();
    }
}

impl Builder<'_> {
    /// Carries out a stage, as soon as what it starts from is there. `first` is the number of its first step.
    async fn stage(&self, planned: &PlannedStage, first: usize) -> Result<(), BuildError> {
        if let Base::Stage(base) = planned.base {
            self.stage_is_done(base).await;
        }
        let mut state = self
            .step(planned, first, &planned.original, async {
                self.begin_stage(planned).map_err(at(planned.span, &planned.original))
            })
            .await?;
        for (number, step) in (first + 1..).zip(&planned.steps) {
            let instruction = &step.instruction;
            for source in step.mounts.iter().chain([&step.from]) {
                if let Some(CopyFrom::Stage(other)) = source {
                    self.stage_is_done(*other).await;
                }
            }
            state.step = number;
            state.place =
                Place { stage: stage_name(planned), index: number - first, text: instruction.original.clone() };
            let work = async {
                self.instruction(&mut state, step).await.map_err(at(instruction.span, &instruction.original))?;
                Ok(state)
            };
            state = self.step(planned, number, &instruction.original, work).await?;
        }
        self.finished.borrow_mut().insert(planned.number, state);
        drive::again();
        Ok(())
    }

    /// Does one step and tells of it.
    async fn step(
        &self,
        planned: &PlannedStage,
        step: usize,
        text: &str,
        work: impl Future<Output = Result<StageState, BuildError>>,
    ) -> Result<StageState, BuildError> {
        drive::until(|| self.slots.get() > 0).await;
        self.slots.set(self.slots.get() - 1);
        let _slot = Slot(&self.slots);
        let stage = planned.name.as_deref();
        self.event(&BuildEvent::StepStarted { step, total: self.total, stage, text });
        let begun = Instant::now();
        let result = work.await;
        match &result {
            Ok(state) => self.event(&BuildEvent::StepDone { step, duration: begun.elapsed(), layer: state.made }),
            Err(_) => self.event(&BuildEvent::StepFailed { step }),
        }
        result
    }

    async fn stage_is_done(&self, number: usize) {
        drive::until(|| self.finished.borrow().contains_key(&number)).await;
    }

    /// The layers of a finished stage.
    fn layers_of(&self, number: usize) -> Result<Vec<Digest>, BuildError> {
        let finished = self.finished.borrow();
        finished.get(&number).map(|s| s.layers.clone()).ok_or_else(|| BuildError::NoStage(number.to_string()))
    }

    fn event(&self, event: &BuildEvent<'_>) {
        self.output.borrow_mut().event(event);
    }

    fn warn(&self, line: u32, text: &str) {
        self.event(&BuildEvent::Warning { line, text });
    }

    /// A step's result came from the cache.
    fn hit(&self, state: &StageState, recipe: Recipe) {
        self.explainer.hit(&state.place, recipe);
    }

    /// A step has to be done; `files` lists those that it copies.
    fn miss(&self, state: &StageState, recipe: Recipe, files: Option<Vec<Listed>>) {
        let reason = self.explainer.miss(&state.place, state.step, recipe, files);
        if self.options.explain {
            let text = if state.no_cache { "the cache is not used" } else { &reason };
            self.event(&BuildEvent::Note { step: state.step, text });
        }
    }

    /// Keeps what a step did for later builds.
    fn store(&self, state: &StageState, key: &Digest, step: &CachedStep) -> Result<(), BuildError> {
        self.backend.describe(key, &state.place.text, state.layers.last());
        Ok(self.backend.cache_put(key, step)?)
    }

    /// The result of a step that was done before, if its layer is still there.
    fn cached(&self, state: &StageState, key: &Digest) -> Result<Option<CachedStep>, BuildError> {
        if state.no_cache {
            self.all_cached.set(false);
            return Ok(None);
        }
        let hit = self.usable(key)?;
        if hit.is_some() {
            self.event(&BuildEvent::Cached { step: state.step });
        }
        Ok(hit)
    }

    fn usable(&self, key: &Digest) -> Result<Option<CachedStep>, BuildError> {
        let Some(step) = self.backend.cache_get(key)? else { return Ok(None) };
        match step.layer {
            Some(layer) if !self.backend.has_layer(&layer)? => Ok(None),
            _ => Ok(Some(step)),
        }
    }

    /// [`cached`](Self::cached), or else the claim to do the step: identical steps of builds that run at the same time are
    /// done once. To be kept until the step is stored. Nobody may wait for something of another build while he has one.
    async fn cached_or_claimed(&self, state: &StageState, key: &Digest) -> Result<Found<'_>, BuildError> {
        if let Some(hit) = self.cached(state, key)? {
            return Ok(Found::Step(hit));
        }
        if state.no_cache {
            return Ok(Found::Nothing(Box::new(())));
        }
        let mut claim = self.backend.claim(*key);
        let claim = match poll_fn(|context| Poll::Ready(claim.as_mut().poll(context))).await {
            Poll::Ready(claim) => claim?,
            Poll::Pending => {
                self.event(&BuildEvent::Note {
                    step: state.step,
                    text: "the same is being done elsewhere; waiting for it",
                });
                claim.await?
            }
        };
        match self.usable(key)? {
            Some(step) => {
                self.event(&BuildEvent::Cached { step: state.step });
                Ok(Found::Step(step))
            }
            None => {
                self.all_cached.set(false);
                Ok(Found::Nothing(claim))
            }
        }
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
