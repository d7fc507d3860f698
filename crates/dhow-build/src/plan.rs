//! From a Dockerfile to the stages that have to be built, their bases and what they need of each other.

use crate::backend::{Backend, BaseImage, RemoteRequest, RemoteTree};
use crate::context::Context;
use crate::drive;
use crate::error::BuildError;
use crate::options::{BuildOptions, NamedContext};
use crate::remote::RemoteSource;
use crate::scope::Globals;
use dhow_dockerfile::{Command, Dockerfile, Instruction, Span, Stage, parse_trigger};
use dhow_oci::image::ImageConfig;
use dhow_types::{Digest, Platform, Reference};
use std::collections::HashMap;

/// Most stages of a Dockerfile.
const MAX_STAGES: usize = 1000;

/// Stages to build, each after everything it needs; the last one is the target.
#[derive(Debug)]
pub struct Plan {
    /// Stages in dependency order.
    pub stages: Vec<PlannedStage>,
    /// Steps over all of them, `FROM`s included.
    pub total_steps: usize,
}

/// One stage.
#[derive(Debug)]
pub struct PlannedStage {
    /// Its place in the Dockerfile, from 0.
    pub number: usize,
    /// Its name.
    pub name: Option<String>,
    /// The `FROM` line as written.
    pub original: String,
    /// Lines of the `FROM`.
    pub span: Span,
    /// What it starts from.
    pub base: Base,
    /// Triggers of the base image, then the stage's own instructions.
    pub steps: Vec<PlannedStep>,
    /// Stages that must be there before this one, as numbers in the Dockerfile.
    pub needs: Vec<usize>,
}

/// What a stage starts from.
#[derive(Debug)]
pub enum Base {
    /// Nothing.
    Scratch(Platform),
    /// An earlier stage.
    Stage(usize),
    /// An image.
    Image(Box<BaseImage>),
}

/// One step of a stage.
#[derive(Debug)]
pub struct PlannedStep {
    /// What to do. A trigger has the place of the `FROM`.
    pub instruction: Instruction,
    /// Where a copy takes its files from, if not from the context.
    pub from: Option<CopyFrom>,
    /// The same for each mount of a `RUN`.
    pub mounts: Vec<Option<CopyFrom>>,
}

/// Source of `COPY --from`.
#[derive(Debug)]
pub enum CopyFrom {
    /// Another stage.
    Stage(usize),
    /// An image.
    Image(Box<BaseImage>),
    /// The directory of a named context, by its number.
    Tree(usize),
}

/// The directory of a named context.
pub(crate) struct NamedTree<'a> {
    pub(crate) context: Context,
    /// It is there in the next build, too.
    pub(crate) lasting: bool,
    /// Keeps what was fetched.
    _fetched: Option<Box<dyn RemoteTree + 'a>>,
}

/// Source of a copy, sources of mounts.
type Sources = (Option<CopyFrom>, Vec<Option<CopyFrom>>);

enum State {
    Untouched,
    Open,
    Done,
}

struct Planner<'p, 'a> {
    file: &'p Dockerfile,
    options: &'p BuildOptions,
    globals: &'p Globals,
    backend: &'a dyn Backend,
    states: Vec<State>,
    stages: Vec<PlannedStage>,
    trees: Vec<NamedTree<'a>>,
    /// Numbers of trees by the names of their contexts.
    opened: HashMap<String, usize>,
}

/// Plans a build: only what the target needs, with every base image found.
pub(crate) fn plan<'a>(
    file: &Dockerfile,
    options: &BuildOptions,
    globals: &Globals,
    backend: &'a dyn Backend,
) -> Result<(Plan, Vec<NamedTree<'a>>), BuildError> {
    if file.stages.len() > MAX_STAGES {
        return Err(BuildError::Invalid(format!("the Dockerfile has more than {MAX_STAGES} stages")));
    }
    let target = target(file, options)?;
    let states = file.stages.iter().map(|_| State::Untouched).collect();
    let (trees, opened) = (Vec::new(), HashMap::new());
    let mut planner = Planner { file, options, globals, backend, states, stages: Vec::new(), trees, opened };
    planner.visit(target)?;
    let total_steps = planner.stages.iter().map(|s| s.steps.len() + 1).sum();
    Ok((Plan { stages: planner.stages, total_steps }, planner.trees))
}

fn target(file: &Dockerfile, options: &BuildOptions) -> Result<usize, BuildError> {
    let last = file.stages.len().saturating_sub(1);
    let Some(wanted) = options.target.as_deref().filter(|t| !t.is_empty()) else { return Ok(last) };
    named(file, wanted, file.stages.len())
        .or_else(|| wanted.parse().ok().filter(|n| *n <= last))
        .ok_or_else(|| BuildError::NoTarget(wanted.to_owned()))
}

/// The last stage of this name before stage `end`.
fn named(file: &Dockerfile, name: &str, end: usize) -> Option<usize> {
    let name = name.to_lowercase();
    file.stages.get(..end)?.iter().rposition(|s| s.from.name.as_ref() == Some(&name))
}

/// Attaches the place of an instruction to an error.
pub(crate) fn at(span: Span, instruction: &str) -> impl FnOnce(BuildError) -> BuildError {
    let instruction: String = instruction.chars().take(200).collect();
    move |source| match source {
        // The innermost place is the right one.
        BuildError::Line { .. } => source,
        _ => BuildError::Line { line: span.start, end_line: span.end, instruction, source: Box::new(source) },
    }
}

impl Planner<'_, '_> {
    fn visit(&mut self, number: usize) -> Result<(), BuildError> {
        let Some(stage) = self.file.stages.get(number) else { return Ok(()) };
        match self.states.get(number) {
            Some(State::Done) => return Ok(()),
            Some(State::Open) => {
                let name = stage.from.name.clone().unwrap_or_else(|| number.to_string());
                return Err(BuildError::Circular(name));
            }
            _ => self.set(number, State::Open),
        }
        let (base, files) = self.base(number, stage).map_err(at(stage.span, &stage.original))?;
        let mut needs: Vec<usize> = Vec::new();
        if let Base::Stage(other) = base {
            self.visit(other)?;
            needs.push(other);
        }
        let mut instructions = self.triggers(&base, stage)?;
        instructions.extend(stage.instructions.iter().cloned());
        let mut steps = Vec::with_capacity(instructions.len() + 1);
        if let Some(tree) = files {
            // A stage that starts from a directory: the files are copied into an empty one.
            let copy = parse_trigger("COPY / /").map_err(BuildError::Parse)?;
            let instruction = Instruction { span: stage.span, original: stage.original.clone(), ..copy };
            steps.push(PlannedStep { instruction, from: Some(CopyFrom::Tree(tree)), mounts: Vec::new() });
        }
        for instruction in instructions {
            let place = at(instruction.span, &instruction.original);
            let (from, mounts) = self.sources(number, &instruction).map_err(place)?;
            for source in mounts.iter().chain([&from]) {
                if let Some(CopyFrom::Stage(other)) = source {
                    self.visit(*other)?;
                    needs.push(*other);
                }
            }
            steps.push(PlannedStep { instruction, from, mounts });
        }
        needs.sort_unstable();
        needs.dedup();
        self.set(number, State::Done);
        self.stages.push(PlannedStage {
            number,
            name: stage.from.name.clone(),
            original: stage.original.clone(),
            span: stage.span,
            base,
            steps,
            needs,
        });
        Ok(())
    }

    /// What the base of a stage has for whoever builds on it. A stage's own triggers count too, once: they are gone after
    /// that, as an image's are.
    fn triggers(&self, base: &Base, stage: &Stage) -> Result<Vec<Instruction>, BuildError> {
        let texts: Vec<&String> = match base {
            Base::Image(image) => image.config.config.on_build.iter().collect(),
            Base::Stage(number) => {
                let own = self.file.stages.get(*number).into_iter().flat_map(|s| &s.instructions);
                own.filter_map(|i| if let Command::OnBuild(on) = &i.command { Some(&on.trigger) } else { None })
                    .collect()
            }
            _ => Vec::new(),
        };
        let parse = |text: &String| {
            let parsed = parse_trigger(text).map_err(|source| BuildError::Trigger { trigger: text.clone(), source });
            parsed.map(|i| Instruction { span: stage.span, ..i }).map_err(at(stage.span, &stage.original))
        };
        texts.into_iter().map(parse).collect()
    }

    fn set(&mut self, number: usize, state: State) {
        if let Some(slot) = self.states.get_mut(number) {
            *slot = state;
        }
    }

    /// What a stage starts from, and the directory whose files it starts with.
    fn base(&mut self, number: usize, stage: &Stage) -> Result<(Base, Option<usize>), BuildError> {
        let image = self.globals.expand(&stage.from.image)?.text;
        if image.is_empty() {
            return Err(BuildError::BlankBase(stage.from.image.clone()));
        }
        let platform = match &stage.from.platform {
            None => None,
            Some(text) => {
                let text = self.globals.expand(text)?.text;
                let parsed = text.parse::<Platform>().map_err(|e| BuildError::Invalid(e.to_string()))?;
                Some(parsed)
            }
        };
        let platform = platform.or_else(|| self.options.platform.clone());
        let scratch = || Base::Scratch(platform.clone().unwrap_or_else(Platform::host));
        if image.eq_ignore_ascii_case(SCRATCH) {
            return Ok((scratch(), None));
        }
        match self.named_context(&image, platform.as_ref())? {
            None => {}
            Some(Named::Scratch) => return Ok((scratch(), None)),
            Some(Named::From(CopyFrom::Stage(other))) => return Ok((Base::Stage(other), None)),
            Some(Named::From(CopyFrom::Image(image))) => return Ok((Base::Image(image), None)),
            Some(Named::From(CopyFrom::Tree(tree))) => return Ok((scratch(), Some(tree))),
        }
        if let Some(other) = named(self.file, &image, number) {
            return Ok((Base::Stage(other), None));
        }
        let image = self.backend.resolve_image(&image, platform.as_ref(), self.options.pull)?;
        Ok((Base::Image(Box::new(image)), None))
    }

    /// Sources of a copy and of the mounts of a command.
    fn sources(&mut self, number: usize, instruction: &Instruction) -> Result<Sources, BuildError> {
        match &instruction.command {
            Command::Copy(copy) => Ok((self.source(number, copy.from.as_deref())?, Vec::new())),
            Command::Run(run) => {
                let mounts = run.mounts.iter().map(|m| self.source(number, m.from.as_deref()));
                Ok((None, mounts.collect::<Result<_, _>>()?))
            }
            _ => Ok((None, Vec::new())),
        }
    }

    fn source(&mut self, number: usize, from: Option<&str>) -> Result<Option<CopyFrom>, BuildError> {
        let Some(from) = from.filter(|f| !f.is_empty()) else { return Ok(None) };
        let platform = self.options.platform.clone();
        match self.named_context(from, platform.as_ref())? {
            None => {}
            Some(Named::From(source)) => return Ok(Some(source)),
            Some(Named::Scratch) => {
                let config = ImageConfig::scratch(&platform.unwrap_or_else(Platform::host));
                let nothing = BaseImage { id: Digest::of(SCRATCH.as_bytes()), config };
                return Ok(Some(CopyFrom::Image(Box::new(nothing))));
            }
        }
        if let Some(stage) = named(self.file, from, self.file.stages.len()) {
            return Ok(Some(CopyFrom::Stage(stage)));
        }
        if from.bytes().all(|b| b.is_ascii_digit()) {
            let earlier = from.parse().ok().filter(|n: &usize| *n < number);
            return earlier.map(|n| Some(CopyFrom::Stage(n))).ok_or_else(|| BuildError::NoStage(from.to_owned()));
        }
        let image = self.backend.resolve_image(from, platform.as_ref(), self.options.pull)?;
        Ok(Some(CopyFrom::Image(Box::new(image))))
    }

    /// What the caller put in the place of a name: before stages and images of that name.
    fn named_context(&mut self, name: &str, platform: Option<&Platform>) -> Result<Option<Named>, BuildError> {
        let key = context_name(name);
        let contexts = &self.options.contexts;
        let Some((_, context)) = contexts.iter().rev().find(|(n, _)| context_name(n) == key) else { return Ok(None) };
        if let Some(number) = self.opened.get(&key) {
            return Ok(Some(Named::From(CopyFrom::Tree(*number))));
        }
        let unusable =
            |e: &dyn std::fmt::Display| BuildError::Invalid(format!("unable to use the build context {key}: {e}"));
        let tree = match context {
            NamedContext::Image(image) if image == SCRATCH => return Ok(Some(Named::Scratch)),
            NamedContext::Image(image) => {
                let image = self.backend.resolve_image(image, platform, self.options.pull)?;
                return Ok(Some(Named::From(CopyFrom::Image(Box::new(image)))));
            }
            NamedContext::Layout(layout) => {
                let image = self.backend.load_layout(layout, platform)?;
                return Ok(Some(Named::From(CopyFrom::Image(Box::new(image)))));
            }
            NamedContext::Stage(stage) => {
                let number = named(self.file, stage, self.file.stages.len());
                let number = number.ok_or_else(|| BuildError::NoTarget(stage.clone()))?;
                return Ok(Some(Named::From(CopyFrom::Stage(number))));
            }
            NamedContext::Directory(path) => {
                let fail = |e: &std::io::Error| unusable(&format!("{}: {e}", path.display()));
                let mut context = Context::open(path).map_err(|e| fail(&e))?;
                context.load_ignore(None)?;
                NamedTree { context, lasting: true, _fetched: None }
            }
            NamedContext::Remote(text) => {
                let source = RemoteSource::parse(text, true).map_err(|e| unusable(&e))?;
                let source = source.ok_or_else(|| unusable(&"neither a directory nor a URL"))?;
                let request = RemoteRequest { source, checksum: None, keep_git_dir: None };
                fetch(self.backend, request)?
            }
        };
        let number = self.trees.len();
        self.trees.push(tree);
        self.opened.insert(key, number);
        Ok(Some(Named::From(CopyFrom::Tree(number))))
    }
}

/// What a name of `--build-context` means.
enum Named {
    Scratch,
    From(CopyFrom),
}

/// The image that is none.
const SCRATCH: &str = "scratch";

/// A name as BuildKit compares it: `alpine`, `alpine:latest` and `docker.io/library/alpine` are the same.
fn context_name(name: &str) -> String {
    match name.parse::<Reference>() {
        Ok(reference) => {
            let familiar = reference.with_default_tag().familiar();
            familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
        }
        Err(_) => name.to_lowercase(),
    }
}

/// Fetches the files of a named context. Its ignore file, if it has one, means nothing.
fn fetch<'a>(backend: &'a dyn Backend, request: RemoteRequest) -> Result<NamedTree<'a>, BuildError> {
    let fetched = drive::block_on(backend.remote(request))?;
    let context = Context::from_directory(drive::block_on(fetched.open())?);
    Ok(NamedTree { context, lasting: false, _fetched: Some(fetched) })
}
