//! Rules about what a Dockerfile means with the inputs of a build.

use super::rules::{self, Rule};
use super::{Linter, written};
use crate::error::{ExpandError, clip};
use crate::expand::Expansion;
use crate::inputs::{BaseFacts, Globals, InputError, Inputs, Scope, base_stage};
use crate::instruction::{ArgDecl, Command, CommandLine, FileSources, Instruction, KeyValue, RunMount, Span};
use crate::parse::{Dockerfile, Stage};
use crate::suggest::nearest;
use dhow_types::{Platform, Reference};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Names that the builder reads itself and that are in no environment.
const NOT_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Base images must have names even when no build argument is given.
pub(super) fn check_defaults(file: &Dockerfile, defaults: &Globals, linter: &mut Linter) {
    for stage in &file.stages {
        let Ok(image) = defaults.expand(&stage.from.image) else { return };
        // A name without variables is an error of its own.
        let variable = !(image.used.is_empty() && image.unset.is_empty());
        if variable && image.text.parse::<Reference>().is_err() {
            let name = clip(&stage.from.image, 100);
            let message = format!("Default value for ARG {name} results in empty or invalid base image name");
            linter.report(rules::INVALID_DEFAULT_ARG_IN_FROM, None, stage.span, message);
        }
    }
}

/// Variables and platforms of all `FROM` lines.
pub(super) fn check_from_lines(file: &Dockerfile, globals: &Globals, linter: &mut Linter) -> Result<(), InputError> {
    for stage in &file.stages {
        let image = globals.expand(&stage.from.image).map_err(InputError::at(stage.span))?;
        undeclared(stage, globals, &image, linter);
        if image.text.is_empty() {
            let message = format!("base name ({}) should not be blank", clip(&stage.from.image, 100));
            return Err(InputError { span: Some(stage.span), message });
        }
        let Some(text) = &stage.from.platform else { continue };
        let platform = globals.expand(text).map_err(InputError::at(stage.span))?;
        undeclared(stage, globals, &platform, linter);
        let parsed = platform.text.parse::<Platform>();
        let layout = Some(&stage.layout);
        let target = globals.values.get("TARGETPLATFORM");
        if platform.used == ["TARGETPLATFORM"] && platform.unset.is_empty() && target == Some(&platform.text) {
            let text = clip(text, 60);
            let message =
                format!("Setting platform to predefined {text} in FROM is redundant as this is the default behavior");
            linter.report(rules::REDUNDANT_TARGET_PLATFORM, layout, stage.span, message);
        }
        if let Ok(parsed) = &parsed
            && platform.used.is_empty()
            && platform.unset.is_empty()
        {
            // A stage that is named after its platform means it.
            let name = stage.from.name.as_deref().unwrap_or_default();
            if !name.contains(&parsed.os) && !name.contains(&parsed.architecture) {
                let message = format!("FROM --platform flag should not use constant value {:?}", platform.text);
                linter.report(rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED, layout, stage.span, message);
            }
        }
        parsed.map_err(|e| InputError { span: Some(stage.span), message: e.to_string() })?;
    }
    Ok(())
}

fn undeclared(stage: &Stage, globals: &Globals, expansion: &Expansion, linter: &mut Linter) {
    let names: BTreeSet<&String> = expansion.unset.iter().filter(|n| !globals.args.contains_key(*n)).collect();
    for name in names {
        // A suggestion costs something.
        if !linter.wants(rules::UNDEFINED_ARG_IN_FROM, Some(&stage.layout)) {
            return;
        }
        let known = globals.values.keys().chain(globals.args.keys()).map(String::as_str);
        let suggestion = nearest(name, known).map(|s| format!(" (did you mean {s}?)")).unwrap_or_default();
        let message = format!("FROM argument '{}' is not declared{suggestion}", clip(name, 100));
        linter.report(rules::UNDEFINED_ARG_IN_FROM, Some(&stage.layout), stage.span, message);
    }
}

/// What a stage has become so far.
#[derive(Clone, Default)]
struct State {
    scope: Scope,
    workdir: bool,
    shell: bool,
}

/// Goes through the instructions of the wanted stages with their variables.
pub(super) fn check_instructions(
    file: &Dockerfile,
    inputs: &Inputs,
    globals: &Globals,
    wanted: &[bool],
    linter: &mut Linter,
) -> Result<(), InputError> {
    let mut finished: Vec<Option<Rc<State>>> = Vec::with_capacity(file.stages.len());
    for (number, stage) in file.stages.iter().enumerate() {
        if wanted.get(number) != Some(&true) {
            finished.push(None);
            continue;
        }
        let parent = base_stage(file, globals, number, stage).and_then(|b| finished.get(b)?.clone());
        let state = match parent {
            Some(parent) => State::clone(&parent),
            None => {
                let image = globals.expand(&stage.from.image).map_err(InputError::at(stage.span))?.text;
                let known = if image == "scratch" { None } else { (inputs.base)(number, &image) };
                let BaseFacts { env, has_shell } = known.unwrap_or_default();
                State { scope: Scope::of_base(&env), workdir: false, shell: has_shell }
            }
        };
        let escape = file.directives.escape;
        let mut walk = Walk { inputs, globals, escape, state, last: BTreeMap::new(), linter };
        for instruction in &stage.instructions {
            walk.instruction(instruction).map_err(InputError::at(instruction.span))?;
        }
        finished.push(Some(Rc::new(walk.state)));
    }
    Ok(())
}

struct Walk<'a, 'b> {
    inputs: &'a Inputs<'b>,
    globals: &'a Globals<'b>,
    escape: char,
    state: State,
    /// Where an instruction of which only the last counts stood last.
    last: BTreeMap<&'static str, Span>,
    linter: &'a mut Linter,
}

impl Walk<'_, '_> {
    fn report(&mut self, rule: &'static Rule, at: &Instruction, message: String) {
        self.linter.report(rule, Some(&at.layout), at.span, message);
    }

    fn instruction(&mut self, i: &Instruction) -> Result<(), ExpandError> {
        let mut undefined = BTreeSet::new();
        match &i.command {
            Command::Arg(args) => self.arg(i, args, &mut undefined)?,
            Command::Env(pairs) => self.env(i, pairs, &mut undefined)?,
            Command::Label(pairs) => {
                written::legacy(i, self.linter);
                for pair in pairs {
                    self.words([pair.key.as_str(), &pair.value], &mut undefined)?;
                }
            }
            Command::Copy(copy) => self.files(i, &copy.files, copy.from.is_none(), &mut undefined)?,
            Command::Add(add) => {
                self.words(add.checksum.as_deref(), &mut undefined)?;
                self.files(i, &add.files, true, &mut undefined)?;
            }
            Command::Run(run) => {
                for mount in &run.mounts {
                    self.words(mount_words(mount), &mut undefined)?;
                }
            }
            Command::Expose(words) => self.expose(i, words, &mut undefined)?,
            Command::Volume(words) => self.words(words.iter().map(String::as_str), &mut undefined)?,
            Command::User(word) | Command::StopSignal(word) => self.words([word.as_str()], &mut undefined)?,
            Command::Workdir(path) => self.workdir(i, path, &mut undefined)?,
            Command::Cmd(line) | Command::Entrypoint(line) => {
                self.once(i);
                if matches!(line, CommandLine::Shell(_)) && !self.state.shell {
                    let name = i.keyword();
                    let message = format!(
                        "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
                    );
                    self.report(rules::JSON_ARGS_RECOMMENDED, i, message);
                }
            }
            Command::Healthcheck(_) => self.once(i),
            Command::Shell(_) => self.state.shell = true,
            Command::From(_) | Command::OnBuild(_) | Command::Maintainer(_) => {}
        }
        self.undefined(i, undefined);
        Ok(())
    }

    /// Expands a word and notes what is not defined.
    fn expand(&self, word: &str, undefined: &mut BTreeSet<String>) -> Result<Expansion, ExpandError> {
        let expansion = self.state.scope.expand(self.escape, word)?;
        undefined.extend(expansion.undefined.iter().cloned());
        Ok(expansion)
    }

    fn words<'w>(
        &self,
        words: impl IntoIterator<Item = &'w str>,
        undefined: &mut BTreeSet<String>,
    ) -> Result<(), ExpandError> {
        words.into_iter().try_for_each(|w| self.expand(w, undefined).map(|_| ()))
    }

    fn undefined(&mut self, i: &Instruction, names: BTreeSet<String>) {
        for name in names {
            let scope = &self.state.scope;
            if name.is_empty() || scope.declares(&name) || NOT_IN_ENV.contains(&name.as_str()) {
                continue;
            }
            if !self.linter.wants(rules::UNDEFINED_VAR, Some(&i.layout)) {
                return;
            }
            let suggestion =
                nearest(&name, scope.names()).map(|s| format!(" (did you mean ${s}?)")).unwrap_or_default();
            let message = format!("Usage of undefined variable '${}'{suggestion}", clip(&name, 100));
            self.report(rules::UNDEFINED_VAR, i, message);
        }
    }

    fn arg(&mut self, i: &Instruction, args: &[ArgDecl], undefined: &mut BTreeSet<String>) -> Result<(), ExpandError> {
        for arg in args {
            self.secret(i, "ARG", &arg.name);
            let value = match (self.globals.given(&arg.name), &arg.default) {
                (Some(given), _) => Some(given.to_owned()),
                (None, Some(default)) => Some(self.expand(default, undefined)?.text),
                (None, None) => self.globals.values.get(&arg.name).cloned(),
            };
            self.state.scope.set_arg(arg.name.clone(), value);
        }
        Ok(())
    }

    fn env(
        &mut self,
        i: &Instruction,
        pairs: &[KeyValue],
        undefined: &mut BTreeSet<String>,
    ) -> Result<(), ExpandError> {
        written::legacy(i, self.linter);
        let mut set = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let (key, value) = (self.expand(&pair.key, undefined)?.text, self.expand(&pair.value, undefined)?.text);
            self.secret(i, "ENV", &key);
            set.push((key, value));
        }
        // Only now: all of the line sees the variables before it.
        set.into_iter().for_each(|(key, value)| self.state.scope.set_env(key, value));
        Ok(())
    }

    fn secret(&mut self, i: &Instruction, instruction: &str, name: &str) {
        if looks_secret(name) {
            let name = clip(name, 100);
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
            self.report(rules::SECRETS_USED_IN_ARG_OR_ENV, i, message);
        }
    }

    fn files(
        &mut self,
        i: &Instruction,
        files: &FileSources,
        of_context: bool,
        undefined: &mut BTreeSet<String>,
    ) -> Result<(), ExpandError> {
        let flags = files.chown.iter().chain(&files.chmod);
        self.words(flags.chain([&files.destination]).map(String::as_str), undefined)?;
        for file in files.inline.iter().filter(|f| f.expand) {
            undefined.extend(self.state.scope.expand_body(&file.content)?.undefined);
        }
        for path in &files.paths {
            let path = self.expand(path, undefined)?.text;
            if of_context {
                self.ignored(i, &path);
            }
        }
        Ok(())
    }

    /// Whether a source can only be missing. Lists with exceptions say too little about a path alone.
    fn ignored(&mut self, i: &Instruction, path: &str) {
        let add = matches!(i.command, Command::Add(_));
        let Some(list) = self.inputs.ignore.filter(|l| !l.has_exceptions()) else { return };
        if add && is_remote(path) {
            return;
        }
        let path = crate::ignore::clean(path);
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        let excluded = if path == "." { list.excludes_everything() } else { list.excludes(path) };
        if excluded {
            let verb = if add { "Add" } else { "Copy" };
            let path = clip(path, 100);
            let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
            self.report(rules::COPY_IGNORED_FILE, i, message);
        }
    }

    fn expose(
        &mut self,
        i: &Instruction,
        words: &[String],
        undefined: &mut BTreeSet<String>,
    ) -> Result<(), ExpandError> {
        for word in words {
            for port in self.expand(word, undefined)?.words {
                let shown = clip(&port, 100);
                if port.rsplit_once('/').is_some_and(|(_, proto)| proto.to_ascii_lowercase() != proto) {
                    let message = format!("Defined protocol '{shown}' in EXPOSE instruction should be lowercase");
                    self.report(rules::EXPOSE_PROTO_CASING, i, message);
                }
                if port.rsplit_once(':').is_some_and(|(before, _)| !before.trim_matches(':').is_empty()) {
                    let message = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{shown}'"
                    );
                    self.report(rules::EXPOSE_INVALID_FORMAT, i, message);
                }
            }
        }
        Ok(())
    }

    fn workdir(&mut self, i: &Instruction, path: &str, undefined: &mut BTreeSet<String>) -> Result<(), ExpandError> {
        let path = self.expand(path, undefined)?.text;
        if !self.state.workdir && !path.starts_with('/') {
            let path = clip(&path, 100);
            let message = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            self.report(rules::WORKDIR_RELATIVE_PATH, i, message);
        }
        self.state.workdir = true;
        Ok(())
    }

    /// Of several, only the last counts; the one before it is reported.
    fn once(&mut self, i: &Instruction) {
        if let Some(before) = self.last.insert(i.command.name(), i.span) {
            let name = i.keyword();
            let message = format!(
                "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
            );
            self.linter.report(rules::MULTIPLE_INSTRUCTIONS_DISALLOWED, Some(&i.layout), before, message);
        }
    }
}

fn mount_words(mount: &RunMount) -> impl Iterator<Item = &str> {
    let fields =
        [&mount.target, &mount.source, &mount.id, &mount.mode, &mount.uid, &mount.gid, &mount.size, &mount.env];
    fields.into_iter().filter_map(|f| f.as_deref())
}

/// Whether a name has a word like `password` in it, as `_` divides it, and none that makes it harmless.
fn looks_secret(name: &str) -> bool {
    let has = |list: &[&str]| name.split('_').any(|word| list.iter().any(|w| w.eq_ignore_ascii_case(word)));
    has(&["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"])
        && !has(&["public", "file", "version"])
}

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|p| source.starts_with(p))
}
