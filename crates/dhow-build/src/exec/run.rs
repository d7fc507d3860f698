//! `RUN`.

use super::metadata::{no_nul, with_shell};
use super::mounts::Wanted;
use super::stage::StageState;
use super::{Builder, Found};
use crate::backend::{CachedStep, RunFile, RunStep};
use crate::error::BuildError;
use crate::history;
use crate::output::BuildEvent;
use crate::plan::PlannedStep;
use crate::recipe::Recipe;
use crate::scope::{HOSTNAME_ARG, set_env};
use dhow_dockerfile::{CommandLine, Heredoc, Run, RunNetwork};
use dhow_types::Digest;

/// Host name of every command unless the caller gives one; a fixed one keeps results the same.
const HOSTNAME: &str = "buildkitsandbox";
/// Where a script given as a here-document is found.
const SCRIPTS: &str = "/dev/pipes";

impl Builder<'_> {
    pub(super) async fn run(&self, state: &mut StageState, run: &Run, planned: &PlannedStep) -> Result<(), BuildError> {
        let insecure = self.is_insecure(run)?;
        let host_allowed = self.options.entitlements.host_network || self.options.network == "host";
        if run.network == RunNetwork::Host && !host_allowed {
            // Whoever starts the build decides, not whoever wrote the Dockerfile (BuildKit: entitlement network.host).
            return Err(BuildError::NotEntitled("network.host"));
        }
        let (command, files) = command(run);
        let argv = with_shell(state, &command);
        argv.iter().try_for_each(|a| no_nul(a))?;
        let mut step = RunStep {
            argv,
            env: environment(state),
            cwd: state.workdir().to_owned(),
            user: state.config.config.user.clone(),
            hostname: self.globals.given(HOSTNAME_ARG).unwrap_or(HOSTNAME).to_owned(),
            network: run.network,
            build_network: self.options.network.clone(),
            files,
            mounts: Vec::new(),
            extra_hosts: self.options.extra_hosts.clone(),
            insecure,
            limits: self.options.limits.clone(),
        };
        let mounts = self.mounts(state, run, planned).await?;
        let recipe = self.run_recipe(&state.layers, &step, &mounts);
        let key = recipe.key();
        let created_by = history::run(&state.scope.declared(state.env()), &step.argv);
        let _claim = match self.cached_or_claimed(state, &key).await? {
            Found::Nothing(claim) => claim,
            Found::Step(hit) => {
                self.hit(state, recipe);
                state.add_layer(created_by, hit.layer, hit.created);
                return Ok(());
            }
        };
        self.miss(state, recipe, None);
        // Proxies reach the command but are no part of what it is.
        for (name, value) in self.globals.proxies() {
            // In both spellings: some programs read one, some the other.
            for name in [name.to_lowercase(), name.to_uppercase()] {
                if !step.env.iter().any(|e| e.split_once('=').is_some_and(|(n, _)| n == name)) {
                    set_env(&mut step.env, &name, value);
                }
            }
        }
        self.provide(mounts, &mut step).await?;
        let number = state.step;
        let mut forward = |stderr: bool, bytes: &[u8]| self.event(&BuildEvent::Output { step: number, stderr, bytes });
        let outcome = self.backend.run(&state.layers, &step, self.options.source_date_epoch, &mut forward).await?;
        if outcome.exit_code != 0 {
            let command = step.argv.join(" ");
            return Err(BuildError::Command { command, exit_code: outcome.exit_code });
        }
        let done = CachedStep { layer: outcome.layer, created: self.stamp() };
        self.store(state, &key, &done)?;
        state.add_layer(created_by, done.layer, done.created);
        Ok(())
    }

    /// Whether a command asks to run without confinement, and may.
    fn is_insecure(&self, run: &Run) -> Result<bool, BuildError> {
        if let Some(device) = run.devices.first() {
            return Err(BuildError::Unsupported(format!("RUN --device={device}")));
        }
        match run.security.as_deref() {
            None | Some("sandbox") => Ok(false),
            Some("insecure") if self.options.entitlements.insecure => Ok(true),
            Some("insecure") => Err(BuildError::NotEntitled("security.insecure")),
            Some(other) => {
                Err(BuildError::Invalid(format!("unknown RUN --security={other}; expected sandbox or insecure")))
            }
        }
    }

    fn run_recipe(&self, layers: &[Digest], step: &RunStep, mounts: &[Wanted<'_>]) -> Recipe {
        let mut recipe = Recipe::new("run");
        recipe.parent(layers);
        recipe.part("command", history::quoted_list(&step.argv));
        recipe.pairs("env", &step.env);
        recipe.part("working directory", step.cwd.clone());
        recipe.part("user", step.user.clone());
        recipe.part("host name", step.hostname.clone());
        let network = match step.network {
            RunNetwork::Default => "default",
            RunNetwork::None => "none",
            RunNetwork::Host => "host",
        };
        recipe.part("network", network);
        recipe.part("network of the build", step.build_network.clone());
        recipe.option("security", step.insecure.then_some("insecure"));
        for file in &step.files {
            recipe.part("script", format!("{} {:o}", file.path, file.mode));
            recipe.content("script's content", &file.content);
        }
        mounts.iter().for_each(|m| m.describe(&mut recipe));
        // Names but not addresses: they differ between machines and days.
        step.extra_hosts.iter().for_each(|(name, _)| recipe.part("host", name.clone()));
        recipe.option("SOURCE_DATE_EPOCH", self.options.source_date_epoch.map(|e| e.to_string()));
        recipe
    }
}

/// `ARG`s and `ENV`s as the command sees them.
fn environment(state: &StageState) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    for (name, value) in state.scope.effective(state.env()) {
        set_env(&mut env, &name, &value);
    }
    for (name, value) in state.env().iter().filter_map(|e| e.split_once('=')) {
        set_env(&mut env, name, value);
    }
    env
}

/// The command with its here-documents: a lone one is the script itself, with `#!` it is a file to execute, and in all
/// other cases the shell gets them as written.
fn command(run: &Run) -> (CommandLine, Vec<RunFile>) {
    let (CommandLine::Shell(text), [first, ..]) = (&run.command, run.heredocs.as_slice()) else {
        return (run.command.clone(), Vec::new());
    };
    if Heredoc::parse(text).is_none() {
        let mut whole = text.clone();
        for doc in &run.heredocs {
            whole.push('\n');
            whole.push_str(&doc.content);
            whole.push_str(&doc.name);
        }
        return (CommandLine::Shell(whole), Vec::new());
    }
    let body = first.text();
    let plain_name = !first.name.is_empty() && !first.name.contains('/') && first.name != "..";
    if !body.starts_with("#!") || !plain_name {
        return (CommandLine::Shell(body), Vec::new());
    }
    let path = format!("{SCRIPTS}/{}", first.name);
    let file = RunFile { path: path.clone(), mode: 0o755, owner: (0, 0), content: body.into_bytes() };
    (CommandLine::Shell(path), vec![file])
}
