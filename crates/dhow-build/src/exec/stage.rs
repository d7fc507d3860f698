//! The state of a stage, and which code handles which instruction.

use super::Builder;
use super::metadata::Metadata;
use crate::error::BuildError;
use crate::explain::Place;
use crate::history;
use crate::plan::{Base, PlannedStage, PlannedStep};
use crate::scope::{DEFAULT_PATH, Scope, set_env};
use dhow_dockerfile::Command;
use dhow_oci::image::{History, ImageConfig};
use dhow_types::{Digest, Timestamp};

/// What a stage has become so far.
#[derive(Debug, Clone)]
pub(super) struct StageState {
    /// Diff IDs, lowest first.
    pub(super) layers: Vec<Digest>,
    /// The image's config; its `rootfs` is filled in at the end.
    pub(super) config: ImageConfig,
    /// `ARG`s in scope.
    pub(super) scope: Scope,
    /// Number of the step that is being done.
    pub(super) step: usize,
    /// Where it stands.
    pub(super) place: Place,
    /// The layer that this step made.
    pub(super) made: Option<Digest>,
    /// Nothing is taken from the cache.
    pub(super) no_cache: bool,
    /// `CMD` stood in this stage.
    pub(super) cmd_set: bool,
    /// History entries of this build and their time, `None` when it is that of the image.
    pub(super) own_history: Vec<(History, Option<Timestamp>)>,
}

impl StageState {
    /// A history entry without a layer.
    pub(super) fn note(&mut self, created_by: String) {
        self.made = None;
        self.own_history.push((entry(created_by, true), None));
    }

    /// A step that may have made a layer.
    pub(super) fn add_layer(&mut self, created_by: String, layer: Option<Digest>, created: Timestamp) {
        self.layers.extend(layer);
        self.made = layer;
        self.own_history.push((entry(created_by, layer.is_none()), Some(created)));
    }

    pub(super) fn env(&self) -> &[String] {
        &self.config.config.env
    }

    pub(super) fn workdir(&self) -> &str {
        let dir = self.config.config.working_dir.as_str();
        if dir.is_empty() { "/" } else { dir }
    }

    pub(super) fn shell(&self) -> Vec<String> {
        let shell = self.config.config.shell.clone().filter(|s| !s.is_empty());
        shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
    }
}

fn entry(created_by: String, empty_layer: bool) -> History {
    History {
        created_by: Some(created_by),
        comment: Some(history::COMMENT.to_owned()),
        empty_layer,
        ..History::default()
    }
}

impl Builder<'_> {
    pub(super) fn begin_stage(&self, planned: &PlannedStage) -> Result<StageState, BuildError> {
        let mut state = match &planned.base {
            Base::Stage(number) => {
                let base = self.finished.borrow().get(number).cloned();
                let base = base.ok_or_else(|| BuildError::NoStage(number.to_string()))?;
                let mut state = StageState { cmd_set: false, made: None, ..base };
                state.config.config.on_build.clear();
                state
            }
            Base::Scratch(platform) => {
                let mut config = ImageConfig::scratch(platform);
                config.config.working_dir = "/".to_owned();
                StageState::new(config)
            }
            Base::Image(image) => {
                let mut config = image.config.clone();
                // What the base says about its own making is not true of this image.
                config.extra.retain(|key, _| key.starts_with("os."));
                config.config.extra.clear();
                config.config.on_build.clear();
                config.created = None;
                if let Some(platform) = &self.options.platform {
                    config.os.clone_from(&platform.os);
                    config.architecture.clone_from(&platform.architecture);
                    config.variant.clone_from(&platform.variant);
                }
                StageState::new(config)
            }
        };
        if !state.env().iter().any(|e| e.starts_with("PATH=")) {
            set_env(&mut state.config.config.env, "PATH", DEFAULT_PATH);
        }
        let filtered = planned.name.as_ref().is_some_and(|n| self.options.no_cache_filter.contains(n));
        // What lies on a stage that was made anew may still be the same as before.
        state.no_cache = self.options.no_cache || filtered;
        Ok(state)
    }

    pub(super) async fn instruction(&self, state: &mut StageState, step: &PlannedStep) -> Result<(), BuildError> {
        let line = step.instruction.span.start;
        match &step.instruction.command {
            Command::Run(run) => self.run(state, run, step).await,
            Command::Copy(copy) => self.copy(state, copy, step.from.as_ref()).await,
            Command::Add(add) => self.add(state, add).await,
            Command::Workdir(path) => self.workdir(state, path).await,
            Command::From(_) => Err(BuildError::Invalid("FROM cannot stand inside a stage".to_owned())),
            other => {
                let mut metadata = Metadata { globals: &self.globals, warnings: Vec::new() };
                let result = metadata.apply(state, other, line);
                for (line, text) in metadata.warnings {
                    self.warn(line, &text);
                }
                result
            }
        }
    }

    /// Expands a word.
    pub(super) fn expand(&self, state: &StageState, text: &str) -> Result<String, BuildError> {
        Ok(state.scope.expand(&self.globals, state.env(), text)?.text)
    }
}

impl StageState {
    pub(super) fn new(config: ImageConfig) -> Self {
        let layers = config.rootfs.diff_ids.clone();
        Self {
            layers,
            config,
            scope: Scope::default(),
            step: 0,
            place: Place::default(),
            made: None,
            no_cache: false,
            cmd_set: false,
            own_history: Vec::new(),
        }
    }
}
