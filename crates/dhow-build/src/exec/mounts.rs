//! `RUN --mount`: what a command sees beside its root.

use super::Builder;
use super::metadata::no_nul;
use super::stage::StageState;
use crate::backend::{MountSource, Mounted, RunFile, RunStep};
use crate::context::{Found, SourceTree};
use crate::copyspec;
use crate::error::BuildError;
use crate::key::KeyBuilder;
use crate::plan::{CopyFrom, PlannedStep};
use crate::recipe::Recipe;
use crate::scope::set_env;
use crate::tree::{Copier, CopySettings, Root};
use dhow_dockerfile::{IgnoreList, MountKind, Run, RunMount};
use dhow_types::{Digest, report};
use std::os::fd::AsFd;

/// Where secrets are found unless a target says otherwise.
const SECRETS: &str = "/run/secrets";
/// Name of what is mounted in its scratch directory.
const NAME: &str = "mounted";

/// A mount with everything expanded and found, but nothing made yet.
pub(super) struct Wanted<'a> {
    mount: &'a RunMount,
    target: String,
    content: Content,
    mode: Option<u32>,
    owner: (u32, u32),
}

enum Content {
    /// Files of the context or of a named one.
    Context(Option<usize>, Vec<Found>),
    /// A path in the root of these layers, with the digest of what is there.
    Layers(Vec<Digest>, String, Vec<u8>),
    Cache(String),
    Memory(Option<u64>),
    Secret {
        /// Variable that gets it.
        variable: Option<String>,
        /// Whether there is a file.
        file: bool,
        secret: Vec<u8>,
    },
    /// An optional secret that nobody gave.
    Nothing,
}

impl Wanted<'_> {
    /// Adds what a result depends on: files that are seen, but neither caches nor secrets.
    pub(super) fn describe(&self, recipe: &mut Recipe) {
        let Self { mount, target, mode, owner, .. } = self;
        recipe.part("mount", format!("{target} {:?} {} {mode:?} {owner:?}", mount.kind, mount.read_only));
        let content = format!("content mounted on {target}");
        match &self.content {
            Content::Context(_, found) => {
                let mut key = KeyBuilder::new("mounted");
                found.iter().for_each(|f| f.fingerprint(&mut key));
                recipe.part(&content, key.finish().to_string());
            }
            Content::Layers(_, _, digest) => recipe.content(&content, digest),
            _ => {}
        }
    }
}

impl Builder<'_> {
    /// Finds what the mounts of a command need.
    pub(super) async fn mounts<'r>(
        &self,
        state: &StageState,
        run: &'r Run,
        planned: &PlannedStep,
    ) -> Result<Vec<Wanted<'r>>, BuildError> {
        let mut list = Vec::with_capacity(run.mounts.len());
        for (mount, from) in run.mounts.iter().zip(&planned.mounts) {
            list.push(self.wanted(state, mount, from.as_ref()).await?);
        }
        Ok(list)
    }

    async fn wanted<'r>(
        &self,
        state: &StageState,
        mount: &'r RunMount,
        from: Option<&CopyFrom>,
    ) -> Result<Wanted<'r>, BuildError> {
        let text = |value: &Option<String>| -> Result<Option<String>, BuildError> {
            let Some(value) = value else { return Ok(None) };
            let value = self.expand(state, value)?;
            no_nul(&value)?;
            Ok(Some(value).filter(|v| !v.is_empty()))
        };
        let (target, source, id) = (text(&mount.target)?, text(&mount.source)?, text(&mount.id)?);
        let (size, env) = (text(&mount.size)?, text(&mount.env)?);
        let number = |value: Option<String>, radix| -> Result<Option<u32>, BuildError> {
            let bad = |v: &str| BuildError::Invalid(format!("invalid number {v:?} in --mount"));
            value.map(|v| u32::from_str_radix(&v, radix).map_err(|_| bad(&v))).transpose()
        };
        let mode = number(text(&mount.mode)?, 8)?;
        let owner = (number(text(&mount.uid)?, 10)?.unwrap_or(0), number(text(&mount.gid)?, 10)?.unwrap_or(0));
        let place = |path: &str| copyspec::absolute(state.workdir(), path);
        let (target, content) = match mount.kind {
            MountKind::Bind => {
                let word = source.unwrap_or_else(|| "/".to_owned());
                (place(&target.unwrap_or_default()), self.files(from, word).await?)
            }
            MountKind::Cache => {
                if from.is_some() || source.is_some() {
                    return Err(BuildError::Unsupported("RUN --mount=type=cache with from or source".to_owned()));
                }
                let target = place(&target.unwrap_or_default());
                (target.clone(), Content::Cache(id.unwrap_or(target)))
            }
            MountKind::Tmpfs => (place(&target.unwrap_or_default()), Content::Memory(bytes(size)?)),
            MountKind::Secret => self.secret(mount, target.map(|t| place(&t)), id.or(source), env)?,
            MountKind::Ssh => return Err(BuildError::Unsupported("RUN --mount=type=ssh".to_owned())),
        };
        if target == "/" {
            return Err(BuildError::Invalid("invalid mount target \"/\"".to_owned()));
        }
        Ok(Wanted { mount, target, content, mode, owner })
    }

    async fn files(&self, from: Option<&CopyFrom>, word: String) -> Result<Content, BuildError> {
        let layers = match from {
            None | Some(CopyFrom::Tree(_)) => {
                let named = if let Some(CopyFrom::Tree(number)) = from { Some(*number) } else { None };
                let tree = self.tree(named).ok_or_else(|| BuildError::NoContext(word.clone()))?;
                return Ok(Content::Context(named, tree.find_literal(&word)?));
            }
            Some(CopyFrom::Image(image)) => image.config.rootfs.diff_ids.clone(),
            Some(CopyFrom::Stage(number)) => self.layers_of(*number)?,
        };
        let nothing = IgnoreList::default();
        let backend = self.backend;
        let digest = backend
            .view(&layers, &mut |source| {
                let tree = SourceTree { root: source, ignore: &nothing, keep_owner: true, memory: None };
                let mut key = KeyBuilder::new("mounted");
                tree.find_literal(&word).map_err(|e| report(&e))?.iter().for_each(|f| f.fingerprint(&mut key));
                Ok(key.finish().as_bytes().to_vec())
            })
            .await?;
        Ok(Content::Layers(layers, word, digest))
    }

    fn secret(
        &self,
        mount: &RunMount,
        target: Option<String>,
        id: Option<String>,
        env: Option<String>,
    ) -> Result<(String, Content), BuildError> {
        let last = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
        let id = id.or_else(|| target.as_ref().map(last)).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| BuildError::Invalid("a secret needs an id or a target".to_owned()))?;
        let target_given = target.is_some();
        let target = target.unwrap_or_else(|| copyspec::absolute(SECRETS, &id));
        match self.backend.secret(&id) {
            Some(secret) => {
                // With a variable and no target there is no file.
                let file = target_given || env.is_none();
                Ok((target, Content::Secret { variable: env, file, secret }))
            }
            None if mount.required => Err(BuildError::Invalid(format!("secret {id}: not found"))),
            None => Ok((target, Content::Nothing)),
        }
    }

    /// Makes what the mounts show and adds it to the step.
    pub(super) async fn provide(&self, mounts: Vec<Wanted<'_>>, step: &mut RunStep) -> Result<(), BuildError> {
        for wanted in mounts {
            let Wanted { mount, target, content, mode, owner } = wanted;
            let read_only = mount.read_only;
            let source = match content {
                Content::Nothing => continue,
                Content::Context(named, found) => {
                    let tree = self.tree(named).ok_or_else(|| BuildError::NoContext(target.clone()))?;
                    let (id, directory) = self.backend.scratch()?;
                    let mut copier = Copier::new(Root(directory.as_fd()), tree.root, CopySettings::default());
                    found.iter().try_for_each(|f| copier.copy(f, NAME)).map_err(|e| BuildError::Invalid(report(&e)))?;
                    MountSource::Scratch { id, name: NAME }
                }
                Content::Layers(layers, word, _) => {
                    MountSource::Scratch { id: self.copy_of(&layers, &word).await?, name: NAME }
                }
                Content::Cache(id) => {
                    MountSource::Cache { id, sharing: mount.sharing, mode: mode.unwrap_or(0o755), owner }
                }
                Content::Memory(size) => MountSource::Memory(size),
                Content::Secret { variable, file, secret } => {
                    if let Some(name) = variable {
                        let value = String::from_utf8_lossy(&secret);
                        no_nul(&value)?;
                        set_env(&mut step.env, &name, &value);
                    }
                    if file {
                        let mode = mode.unwrap_or(0o400);
                        step.files.push(RunFile { path: target, mode, owner, content: secret });
                    }
                    continue;
                }
            };
            step.mounts.push(Mounted { target, read_only, source });
        }
        Ok(())
    }

    async fn copy_of(&self, layers: &[Digest], word: &str) -> Result<usize, BuildError> {
        let nothing = IgnoreList::default();
        let (id, directory) = self.backend.scratch()?;
        self.backend
            .view(layers, &mut |source| {
                let tree = SourceTree { root: source, ignore: &nothing, keep_owner: true, memory: None };
                let found = tree.find_literal(word).map_err(|e| report(&e))?;
                let mut copier = Copier::new(Root(directory.as_fd()), source, CopySettings::default());
                found.iter().try_for_each(|f| copier.copy(f, NAME)).map_err(|e| report(&e))?;
                Ok(Vec::new())
            })
            .await?;
        Ok(id)
    }
}

/// `64m` and the like: powers of 1024.
fn bytes(text: Option<String>) -> Result<Option<u64>, BuildError> {
    let Some(text) = text else { return Ok(None) };
    let lower = text.to_ascii_lowercase();
    let body = lower.trim_end_matches("ib").trim_end_matches('b');
    let digits = body.trim_end_matches(['k', 'm', 'g', 't']);
    let shift = match body.strip_prefix(digits) {
        Some("") => 0,
        Some("k") => 10,
        Some("m") => 20,
        Some("g") => 30,
        Some("t") => 40,
        _ => u32::MAX,
    };
    let number: Option<u64> = digits.parse().ok();
    let size = number.and_then(|n| n.checked_mul(1_u64.checked_shl(shift)?));
    size.map(Some).ok_or_else(|| BuildError::Invalid(format!("invalid size {text:?} in --mount")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let size = |t: &str| bytes(Some(t.to_owned())).ok().flatten();
        assert_eq!(
            (size("100"), size("64m"), size("1GiB"), size("2kb")),
            (Some(100), Some(64 << 20), Some(1 << 30), Some(2048))
        );
        assert_eq!((size(""), size("x"), size("1mm"), size("99999999999t")), (None, None, None, None));
    }
}
