//! Instructions that change the config only.

use super::stage::StageState;
use crate::error::BuildError;
use crate::scope::{Globals, set_env};
use crate::{history, ports};
use dhow_dockerfile::{ArgDecl, Command, CommandLine, HealthProbe, KeyValue};
use dhow_oci::image::{Empty, HealthConfig};
use dhow_types::Signal;

/// Applies metadata instructions; needs nothing but variables.
pub(super) struct Metadata<'a> {
    pub(super) globals: &'a Globals,
    /// Remarks with their lines.
    pub(super) warnings: Vec<(u32, String)>,
}

impl Metadata<'_> {
    pub(super) fn apply(&mut self, state: &mut StageState, command: &Command, line: u32) -> Result<(), BuildError> {
        match command {
            Command::Env(pairs) => self.env(state, pairs),
            Command::Label(pairs) => self.label(state, pairs),
            Command::Arg(args) => self.arg(state, args),
            Command::Cmd(command) => {
                let argv = with_shell(state, command);
                state.note(format!("CMD {}", history::quoted_list(&argv)));
                state.config.config.cmd = Some(argv);
                state.config.config.args_escaped = true;
                state.cmd_set = true;
                Ok(())
            }
            Command::Entrypoint(command) => {
                let argv = with_shell(state, command);
                state.note(format!("ENTRYPOINT {}", history::quoted_list(&argv)));
                state.config.config.entrypoint = (!argv.is_empty()).then_some(argv);
                // A command that came with the base was meant for the base's entry point.
                if !state.cmd_set {
                    state.config.config.cmd = None;
                }
                Ok(())
            }
            Command::Expose(words) => self.expose(state, words),
            Command::Volume(paths) => self.volume(state, paths),
            Command::User(user) => self.user(state, user, line),
            Command::StopSignal(signal) => {
                let signal = self.expand(state, signal)?;
                signal.parse::<Signal>().map_err(|e| BuildError::Invalid(e.to_string()))?;
                state.note(format!("STOPSIGNAL {signal}"));
                state.config.config.stop_signal = signal;
                Ok(())
            }
            Command::Healthcheck(probe) => {
                let health = health_config(probe.as_ref());
                state.note(history::healthcheck(&health));
                state.config.config.healthcheck = Some(health);
                Ok(())
            }
            Command::Shell(shell) => {
                state.note(format!("SHELL {}", history::plain_list(shell)));
                state.config.config.shell = Some(shell.clone());
                Ok(())
            }
            Command::Maintainer(author) => {
                state.note(format!("MAINTAINER {author}"));
                state.config.author = Some(author.clone());
                Ok(())
            }
            Command::OnBuild(on) => {
                state.config.config.on_build.push(on.trigger.clone());
                Ok(())
            }
            other => Err(BuildError::Unsupported(other.name().to_owned())),
        }
    }

    /// Expands a word and notes variables that are not set.
    fn expand(&mut self, state: &StageState, text: &str) -> Result<String, BuildError> {
        let expansion = state.scope.expand(self.globals, state.env(), text)?;
        Ok(expansion.text)
    }

    fn env(&mut self, state: &mut StageState, pairs: &[KeyValue]) -> Result<(), BuildError> {
        let pairs = self.pairs(state, pairs)?;
        for (key, value) in &pairs {
            if key.is_empty() {
                return Err(BuildError::Invalid("ENV names can not be blank".to_owned()));
            }
            no_nul(value)?;
            set_env(&mut state.config.config.env, key, value);
        }
        state.note(format!("ENV {}", joined(&pairs)));
        Ok(())
    }

    fn label(&mut self, state: &mut StageState, pairs: &[KeyValue]) -> Result<(), BuildError> {
        let pairs = self.pairs(state, pairs)?;
        state.note(format!("LABEL {}", joined(&pairs)));
        state.config.config.labels.extend(pairs);
        Ok(())
    }

    /// Expands keys and values against the variables before the instruction: `ENV a=1 b=$a` uses the old `a`.
    fn pairs(&mut self, state: &StageState, pairs: &[KeyValue]) -> Result<Vec<(String, String)>, BuildError> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let key = self.expand(state, &pair.key)?;
            let value = self.expand(state, &pair.value)?;
            no_nul(&key)?;
            expanded.push((key, value));
        }
        Ok(expanded)
    }

    fn arg(&mut self, state: &mut StageState, args: &[ArgDecl]) -> Result<(), BuildError> {
        let mut shown = Vec::new();
        for arg in args {
            let name = self.expand(state, &arg.name)?;
            let arg = ArgDecl { name, default: arg.default.clone() };
            let env = state.config.config.env.clone();
            let value = state.scope.declare(self.globals, &env, &arg)?;
            shown.push(match value {
                Some(value) => {
                    no_nul(&value)?;
                    format!("{}={value}", arg.name)
                }
                None => arg.name,
            });
        }
        state.note(format!("ARG {}", shown.join(" ")));
        Ok(())
    }

    fn expose(&mut self, state: &mut StageState, words: &[String]) -> Result<(), BuildError> {
        let mut sorted = words.to_vec();
        sorted.sort();
        let mut list = Vec::new();
        for word in &sorted {
            let expansion = state.scope.expand(self.globals, state.env(), word)?;
            for port in &expansion.words {
                list.extend(ports::expand(port)?);
            }
        }
        state.note(format!("EXPOSE {}", history::plain_list(&list)));
        state.config.config.exposed_ports.extend(list.into_iter().map(|p| (p, Empty {})));
        Ok(())
    }

    fn volume(&mut self, state: &mut StageState, paths: &[String]) -> Result<(), BuildError> {
        let mut list = Vec::new();
        for path in paths {
            let path = self.expand(state, path)?;
            if path.is_empty() {
                return Err(BuildError::Invalid("VOLUME specified can not be an empty string".to_owned()));
            }
            no_nul(&path)?;
            list.push(path);
        }
        state.note(format!("VOLUME {}", history::plain_list(&list)));
        state.config.config.volumes.extend(list.into_iter().map(|p| (p, Empty {})));
        Ok(())
    }

    fn user(&mut self, state: &mut StageState, user: &str, line: u32) -> Result<(), BuildError> {
        let user = self.expand(state, user)?;
        no_nul(&user)?;
        if user.matches(':').count() > 1 || user.contains('\n') {
            return Err(BuildError::Invalid(format!("invalid USER {user:?}: expected user[:group], names or numbers")));
        }
        if user.is_empty() {
            self.warnings.push((line, format!("USER is empty and means root (line {line})")));
        }
        state.note(format!("USER {user}"));
        state.config.config.user = user;
        Ok(())
    }
}

/// Programs and the kernel end a text at a NUL, so one in the middle would mean different things to different readers.
pub(super) fn no_nul(text: &str) -> Result<(), BuildError> {
    if text.contains('\0') { Err(BuildError::Invalid("the text has a NUL character".to_owned())) } else { Ok(()) }
}

fn joined(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
}

/// The shell form gets the shell in front.
pub(super) fn with_shell(state: &StageState, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(argv) => argv.clone(),
        CommandLine::Shell(text) => {
            let mut argv = state.shell();
            argv.push(text.clone());
            argv
        }
    }
}

fn health_config(probe: Option<&HealthProbe>) -> HealthConfig {
    let Some(probe) = probe else {
        return HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() };
    };
    let test = match &probe.command {
        CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        CommandLine::Exec(argv) => std::iter::once("CMD".to_owned()).chain(argv.iter().cloned()).collect(),
    };
    HealthConfig {
        test,
        interval: probe.interval,
        timeout: probe.timeout,
        start_period: probe.start_period,
        start_interval: probe.start_interval,
        retries: probe.retries,
    }
}
