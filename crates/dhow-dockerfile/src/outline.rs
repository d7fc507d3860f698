//! What a Dockerfile offers: its targets, and the parameters of one of them.

use crate::error::ExpandError;
use crate::inputs::{BaseFacts, Globals, InputError, Inputs, Scope, base_stage, reached, target};
use crate::instruction::{ArgDecl, Command, Instruction, MountKind, RunMount, Span};
use crate::parse::Dockerfile;
use std::collections::{BTreeMap, BTreeSet};

/// A stage as a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, in lower case.
    pub name: Option<String>,
    /// From the comment above its `FROM`: `# NAME description`.
    pub description: Option<String>,
    /// It is built when no target is asked for.
    pub default: bool,
    /// What it starts from, as written.
    pub base: String,
    /// `--platform` as written.
    pub platform: Option<String>,
    /// Lines of its `FROM`.
    pub span: Span,
}

/// Parameters of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// Name of the target.
    pub name: Option<String>,
    /// From the comment above its `FROM`.
    pub description: Option<String>,
    /// Build arguments that it uses, in the order of their lines.
    pub args: Vec<OutlineArg>,
    /// Secrets that it can be given.
    pub secrets: Vec<OutlineMount>,
    /// SSH agents that it can be given.
    pub ssh: Vec<OutlineMount>,
    /// Cache mounts that it uses, by id.
    pub caches: Vec<OutlineMount>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Name.
    pub name: String,
    /// Its value with the inputs of this build.
    pub value: Option<String>,
    /// From the comment above it: `# NAME description`.
    pub description: Option<String>,
    /// Where it is declared.
    pub span: Span,
}

/// A secret, an agent or a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// The `RUN` that mounts it first.
    pub span: Span,
}

/// All stages.
pub fn targets(file: &Dockerfile) -> Vec<Target> {
    let last = file.stages.len().saturating_sub(1);
    let target = |(number, stage): (usize, &crate::parse::Stage)| {
        let name = stage.from.name.clone();
        Target {
            description: name.as_deref().and_then(|n| stage.layout.description(n)).map(str::to_owned),
            name,
            default: number == last,
            base: stage.from.image.clone(),
            platform: stage.from.platform.clone(),
            span: stage.span,
        }
    };
    file.stages.iter().enumerate().map(target).collect()
}

/// The parameters of the target and of all stages that it needs.
pub fn outline(file: &Dockerfile, inputs: &Inputs) -> Result<Outline, InputError> {
    let target = target(file, inputs.target)?;
    let globals = Globals::new(file, inputs, true)?;
    let order = reached(file, &globals, target);
    // Bases stand before what starts from them, so the order of the file is right for variables.
    let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
    for number in order.iter().copied().collect::<BTreeSet<usize>>() {
        let part = Part::of(file, inputs, &globals, number, &parts)?;
        parts.insert(number, part);
    }
    let mut all = Part::default();
    for number in order {
        // What the target says of a name goes before what other stages say of it.
        all.merge(parts.remove(&number).unwrap_or_default());
    }
    let stage = file.stages.get(target);
    let name = stage.and_then(|s| s.from.name.clone());
    let description = stage.zip(name.as_deref()).and_then(|(s, n)| s.layout.description(n)).map(str::to_owned);
    let mut args: Vec<OutlineArg> = all.args.into_values().collect();
    args.sort_by_key(|a| a.span.start);
    let [secrets, ssh, caches] = [all.secrets, all.ssh, all.caches].map(|map| {
        let mut list: Vec<OutlineMount> = map.into_values().collect();
        list.sort_by_key(|m| m.span.start);
        list
    });
    Ok(Outline { name, description, args, secrets, ssh, caches })
}

/// What one stage adds.
#[derive(Default)]
struct Part {
    scope: Scope,
    args: BTreeMap<String, OutlineArg>,
    secrets: BTreeMap<String, OutlineMount>,
    ssh: BTreeMap<String, OutlineMount>,
    caches: BTreeMap<String, OutlineMount>,
}

impl Part {
    fn of(
        file: &Dockerfile,
        inputs: &Inputs,
        globals: &Globals,
        number: usize,
        before: &BTreeMap<usize, Part>,
    ) -> Result<Self, InputError> {
        let Some(stage) = file.stages.get(number) else { return Ok(Self::default()) };
        let parent = base_stage(file, globals, number, stage).and_then(|b| before.get(&b));
        let image = globals.expand(&stage.from.image).map_err(InputError::at(stage.span))?;
        let scope = match parent {
            Some(parent) => parent.scope.clone(),
            None => {
                let BaseFacts { env, .. } = (inputs.base)(number, &image.text).unwrap_or_default();
                Scope::of_base(&env)
            }
        };
        let mut part = Self { scope, ..Self::default() };
        let platform = stage.from.platform.as_deref().unwrap_or_default();
        let platform = globals.expand(platform).map_err(InputError::at(stage.span))?;
        part.globals(globals, image.used.into_iter().chain(platform.used).chain(image.unset).chain(platform.unset));
        for instruction in &stage.instructions {
            part.instruction(file.directives.escape, globals, instruction).map_err(InputError::at(instruction.span))?;
        }
        Ok(part)
    }

    /// Adds global arguments, and those that their defaults use.
    fn globals(&mut self, globals: &Globals, names: impl IntoIterator<Item = String>) {
        let mut pending: Vec<String> = names.into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = pending.pop() {
            let Some(arg) = globals.args.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
            pending.extend(arg.uses.iter().cloned());
            let (value, description) = (arg.value.clone(), arg.description.clone());
            self.args.entry(name.clone()).or_insert(OutlineArg { name, value, description, span: arg.span });
        }
    }

    fn instruction(&mut self, escape: char, globals: &Globals, i: &Instruction) -> Result<(), ExpandError> {
        match &i.command {
            Command::Arg(args) => args.iter().try_for_each(|arg| self.arg(escape, globals, i, arg)),
            Command::Env(pairs) => {
                let expand = |text: &str| self.scope.expand(escape, text).map(|e| e.text);
                let set = pairs.iter().map(|p| Ok((expand(&p.key)?, expand(&p.value)?)));
                let set: Vec<(String, String)> = set.collect::<Result<_, ExpandError>>()?;
                set.into_iter().for_each(|(key, value)| self.scope.set_env(key, value));
                Ok(())
            }
            Command::Run(run) => run.mounts.iter().try_for_each(|mount| self.mount(escape, i.span, mount)),
            _ => Ok(()),
        }
    }

    fn arg(&mut self, escape: char, globals: &Globals, i: &Instruction, arg: &ArgDecl) -> Result<(), ExpandError> {
        let given = globals.given(&arg.name);
        let value = match (given, &arg.default) {
            (Some(given), _) => Some(given.to_owned()),
            (None, Some(default)) => Some(self.scope.expand(escape, default)?.text),
            (None, None) => globals.values.get(&arg.name).cloned(),
        };
        self.scope.set_arg(arg.name.clone(), value.clone());
        if given.is_none() && arg.default.is_none() && value.is_some() {
            // The value is that of the global argument, or of an automatic one, which is no parameter.
            self.globals(globals, [arg.name.clone()]);
            return Ok(());
        }
        let description = i.layout.description(&arg.name).map(str::to_owned);
        self.args.insert(arg.name.clone(), OutlineArg { name: arg.name.clone(), value, description, span: i.span });
        Ok(())
    }

    fn mount(&mut self, escape: char, span: Span, mount: &RunMount) -> Result<(), ExpandError> {
        let text = |value: &Option<String>| -> Result<Option<String>, ExpandError> {
            let Some(value) = value else { return Ok(None) };
            Ok(Some(self.scope.expand(escape, value)?.text).filter(|v| !v.is_empty()))
        };
        let (id, source, target) = (text(&mount.id)?, text(&mount.source)?, text(&mount.target)?);
        let (list, id) = match mount.kind {
            MountKind::Secret => {
                let of_target = || target.map(|t| t.rsplit('/').next().unwrap_or_default().to_owned());
                (&mut self.secrets, source.or(id).or_else(of_target).unwrap_or_default())
            }
            MountKind::Ssh => (&mut self.ssh, id.unwrap_or_else(|| "default".to_owned())),
            MountKind::Cache => (&mut self.caches, id.or(target).unwrap_or_default()),
            MountKind::Bind | MountKind::Tmpfs => return Ok(()),
        };
        list.entry(id.clone()).or_insert(OutlineMount { id, required: mount.required, span });
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        fn add<T>(mine: &mut BTreeMap<String, T>, theirs: BTreeMap<String, T>) {
            for (name, item) in theirs {
                mine.entry(name).or_insert(item);
            }
        }
        add(&mut self.args, other.args);
        add(&mut self.secrets, other.secrets);
        add(&mut self.ssh, other.ssh);
        add(&mut self.caches, other.caches);
    }
}

#[cfg(test)]
mod tests;
