//! `COPY` and `WORKDIR`, and what `ADD` has in common with `COPY`.

use super::Builder;
use super::add::extract;
use super::metadata::no_nul;
use super::stage::StageState;
use crate::backend::{Backend, CachedStep, Claim};
use crate::context::{Found, SourceTree};
use crate::copyspec;
use crate::drive;
use crate::error::BuildError;
use crate::explain::Listed;
use crate::history::MARK;
use crate::key::KeyBuilder;
use crate::mode::{self, ModeChange};
use crate::plan::CopyFrom;
use crate::recipe::Recipe;
use crate::tree::{Copier, CopySettings, Owner, Root, TreeError, lookup};
use dhow_dockerfile::{Copy, FileSources, IgnoreList, InlineFile};
use dhow_types::{Digest, report};
use std::os::fd::BorrowedFd;

/// A copy with everything expanded and checked.
pub(super) struct Job {
    pub(super) name: &'static str,
    pub(super) words: Vec<String>,
    pub(super) inline: Vec<InlineFile>,
    /// Absolute.
    pub(super) destination: String,
    pub(super) owner: Option<Owner>,
    pub(super) mode: Option<ModeChange>,
    /// Archives of the context are extracted.
    pub(super) unpack: bool,
    /// Patterns of what is left out, relative to each source.
    pub(super) exclude: IgnoreList,
    /// The layer does not depend on what lies below it: links there are not followed, and directories on the way are part
    /// of it.
    link: bool,
    /// Sources keep their directories.
    parents: bool,
    /// The time that everything gets: files of the context, when it stands for a commit.
    pub(super) time: Option<i64>,
    /// `created_by` of the history entry.
    created_by: String,
}

impl Job {
    /// The layers that the copy works on.
    pub(super) fn base<'a>(&self, state: &'a StageState) -> &'a [Digest] {
        if self.link { &[] } else { &state.layers }
    }
}

impl Builder<'_> {
    pub(super) async fn copy(
        &self,
        state: &mut StageState,
        copy: &Copy,
        from: Option<&CopyFrom>,
    ) -> Result<(), BuildError> {
        let mut job = self.job(state, "COPY", &copy.files)?;
        // What other stages made has times of its own.
        job.time = job.time.filter(|_| from.is_none());
        if copy.parents {
            job.parents = true;
            job.created_by = job.created_by.replacen("COPY", "COPY --parents", 1);
        }
        match from {
            None => self.copy_context(state, &job, None).await,
            Some(CopyFrom::Tree(number)) => self.copy_context(state, &job, Some(*number)).await,
            Some(CopyFrom::Image(image)) => {
                let layers = image.config.rootfs.diff_ids.clone();
                self.copy_layers(state, &job, &layers).await
            }
            Some(CopyFrom::Stage(number)) => {
                let layers = self.layers_of(*number)?;
                self.copy_layers(state, &job, &layers).await
            }
        }
    }

    pub(super) fn job(&self, state: &StageState, name: &'static str, files: &FileSources) -> Result<Job, BuildError> {
        let mut exclude = Vec::new();
        for pattern in &files.exclude {
            exclude.push(self.expand(state, pattern)?);
        }
        let mut words = Vec::new();
        for word in &files.paths {
            let word = self.expand(state, word)?;
            no_nul(&word)?;
            words.push(word);
        }
        let mut inline = files.inline.clone();
        for file in &mut inline {
            if file.expand {
                file.content = state.scope.expand_body(state.env(), &file.content)?;
            }
            if file.name.contains('/') || matches!(file.name.as_str(), "" | "." | "..") {
                return Err(BuildError::Invalid(format!("invalid heredoc file name {:?}", file.name)));
            }
        }
        let written = self.expand(state, &files.destination)?;
        no_nul(&written)?;
        let expanded = |text: &Option<String>| text.as_ref().map(|t| self.expand(state, t)).transpose();
        let (chown, chmod) = (expanded(&files.chown)?, expanded(&files.chmod)?);
        let (chown, chmod) = (chown.filter(|t| !t.is_empty()), chmod.filter(|t| !t.is_empty()));
        let owner = chown.as_deref().map(Owner::parse).transpose().map_err(invalid)?;
        let created_by = created_by(name, chown.as_deref(), chmod.as_deref(), &words, &inline, &written);
        Ok(Job {
            name,
            words,
            inline,
            destination: copyspec::destination(state.workdir(), &written),
            owner,
            mode: chmod.as_deref().map(mode::parse).transpose()?,
            unpack: false,
            parents: false,
            exclude: IgnoreList::from_patterns(exclude.iter().map(String::as_str))
                .map_err(|e| BuildError::Invalid(format!("{name} --exclude: {e}")))?,
            // With a mode to set, the layer is made in place (as BuildKit does it).
            link: files.link && chmod.is_none(),
            time: self.options.source_date_epoch.filter(|_| self.options.uniform_times),
            created_by,
        })
    }

    /// Everything but the copied content.
    pub(super) fn copy_recipe(&self, kind: &str, state: &StageState, job: &Job) -> Recipe {
        let mut recipe = Recipe::new(kind);
        recipe.parent(job.base(state));
        recipe.part("destination", job.destination.clone());
        recipe.option("owner", job.owner.as_ref().map(|o| format!("{o:?}")));
        recipe.option("mode", job.mode.as_ref().map(|m| format!("{m:?}")));
        recipe.part("options", format!("unpack={} parents={}", job.unpack, job.parents));
        recipe.option("time", job.time.map(|t| t.to_string()));
        for file in &job.inline {
            recipe.content(&format!("here-document {}", file.name), file.content.as_bytes());
        }
        recipe.option("SOURCE_DATE_EPOCH", self.options.source_date_epoch.map(|e| e.to_string()));
        recipe
    }

    /// Copies from the context, or from one of the named ones.
    pub(super) async fn copy_context(
        &self,
        state: &mut StageState,
        job: &Job,
        named: Option<usize>,
    ) -> Result<(), BuildError> {
        let mut recipe = self.copy_recipe("copy", state, job);
        let Some(tree) = self.tree(named) else {
            if let Some(word) = job.words.first() {
                return Err(BuildError::NoContext(word.clone()));
            }
            return self.copy_inline(state, job, recipe).await;
        };
        let found = find_all(&tree, job, &job.words)?;
        recipe.files(&fingerprint(&found));
        let key = recipe.key();
        let Some(_claim) = self.take(state, job, &recipe).await? else { return Ok(()) };
        self.miss(state, recipe, Some(listing(&found)));
        let backend = self.backend;
        let root = tree.root;
        let edited = backend
            .edit(job.base(state), self.options.source_date_epoch, &mut |target| {
                copy_all(backend, Root(target), root, job, &found).map(reply).map_err(|e| report(&e))
            })
            .await?;
        let changed = edited.reply.first() == Some(&1);
        self.keep(state, job, &key, edited.layer, changed)
    }

    /// The context, or one of the named ones.
    pub(super) fn tree(&self, named: Option<usize>) -> Option<SourceTree<'_>> {
        let (context, lasting) = match named {
            None => (self.context?, true),
            Some(number) => self.named.get(number).map(|t| (&t.context, t.lasting))?,
        };
        let memory = lasting.then_some(self.backend);
        Some(SourceTree { root: context.root(), ignore: context.ignore(), keep_owner: false, memory })
    }

    /// Takes a copy from the cache, if it is there.
    fn take_cached(&self, state: &mut StageState, job: &Job, recipe: &Recipe) -> Result<bool, BuildError> {
        let Some(hit) = self.cached(state, &recipe.key())? else { return Ok(false) };
        self.taken(state, job, recipe, &hit);
        Ok(true)
    }

    /// Takes a copy from the cache, or else the claim to do it.
    pub(super) async fn take(
        &self,
        state: &mut StageState,
        job: &Job,
        recipe: &Recipe,
    ) -> Result<Option<Box<dyn Claim + '_>>, BuildError> {
        match self.cached_or_claimed(state, &recipe.key()).await? {
            super::Found::Nothing(claim) => Ok(Some(claim)),
            super::Found::Step(hit) => {
                self.taken(state, job, recipe, &hit);
                Ok(None)
            }
        }
    }

    fn taken(&self, state: &mut StageState, job: &Job, recipe: &Recipe, hit: &CachedStep) {
        self.hit(state, recipe.clone());
        state.add_layer(job.created_by.clone(), hit.layer, hit.created);
    }

    async fn copy_inline(&self, state: &mut StageState, job: &Job, recipe: Recipe) -> Result<(), BuildError> {
        let Some(_claim) = self.take(state, job, &recipe).await? else { return Ok(()) };
        let key = recipe.key();
        self.miss(state, recipe, None);
        let backend = self.backend;
        let edited = backend
            .edit(job.base(state), self.options.source_date_epoch, &mut |target| {
                copy_all(backend, Root(target), target, job, &[]).map(reply).map_err(|e| report(&e))
            })
            .await?;
        self.keep(state, job, &key, edited.layer, false)
    }

    /// `COPY --from`: known by the source's layers, or by the content of what is copied.
    async fn copy_layers(&self, state: &mut StageState, job: &Job, layers: &[Digest]) -> Result<(), BuildError> {
        let mut by_layers = self.copy_recipe("copy layers", state, job);
        let mut source = KeyBuilder::new("source");
        source.digests(layers);
        source.list(&job.words);
        source.text(&format!("{:?}", job.exclude));
        by_layers.files(&source.finish());
        let remembered = if state.no_cache { None } else { self.backend.cache_get(&by_layers.key())? };
        if remembered.is_some() && self.take_cached(state, job, &by_layers)? {
            return Ok(());
        }
        let backend = self.backend;
        let nothing = IgnoreList::default();
        let content = backend
            .view(layers, &mut |source| {
                let tree = SourceTree { root: source, ignore: &nothing, keep_owner: true, memory: None };
                let found = find_all(&tree, job, &job.words).map_err(|e| report(&e))?;
                Ok(fingerprint(&found).as_bytes().to_vec())
            })
            .await?;
        let mut by_content = self.copy_recipe("copy", state, job);
        by_content.part("content", Digest::of(&content).to_string());
        let Some(_claim) = self.take(state, job, &by_content).await? else {
            let hit = self.backend.cache_get(&by_content.key())?;
            return hit.map_or(Ok(()), |hit| self.store(state, &by_layers.key(), &hit));
        };
        let (by_layers, key) = (by_layers.key(), by_content.key());
        self.miss(state, by_content, None);
        let edited = backend
            .edit(job.base(state), self.options.source_date_epoch, &mut |target| {
                let target = Root(target);
                // In the helper, which has nothing else to wait for.
                drive::block_on(backend.view(layers, &mut |source| {
                    let tree = SourceTree { root: source, ignore: &nothing, keep_owner: true, memory: None };
                    let found = find_all(&tree, job, &job.words).map_err(|e| report(&e))?;
                    copy_all(backend, target, source, job, &found).map(reply).map_err(|e| report(&e))
                }))
                .map_err(|e| report(&e))
            })
            .await?;
        let done = CachedStep { layer: edited.layer, created: self.stamp() };
        self.store(state, &by_layers, &done)?;
        self.store(state, &key, &done)?;
        state.add_layer(job.created_by.clone(), done.layer, done.created);
        Ok(())
    }

    pub(super) fn keep(
        &self,
        state: &mut StageState,
        job: &Job,
        key: &Digest,
        layer: Option<Digest>,
        changed: bool,
    ) -> Result<(), BuildError> {
        let done = CachedStep { layer, created: self.stamp() };
        if changed {
            self.warn(0, "files of the build context changed while they were copied; this step is not cached");
        } else {
            self.store(state, key, &done)?;
        }
        state.add_layer(job.created_by.clone(), done.layer, done.created);
        Ok(())
    }

    pub(super) async fn workdir(&self, state: &mut StageState, path: &str) -> Result<(), BuildError> {
        let path = self.expand(state, path)?;
        no_nul(&path)?;
        let full = copyspec::absolute(state.workdir(), &path);
        state.config.config.working_dir.clone_from(&full);
        let created_by = format!("WORKDIR {full}");
        if full == "/" {
            state.note(created_by);
            return Ok(());
        }
        let user = state.config.config.user.clone();
        let mut recipe = Recipe::new("workdir");
        recipe.parent(&state.layers);
        recipe.part("path", full.clone());
        recipe.part("user", user.clone());
        recipe.option("SOURCE_DATE_EPOCH", self.options.source_date_epoch.map(|e| e.to_string()));
        let key = recipe.key();
        let _claim = match self.cached_or_claimed(state, &key).await? {
            super::Found::Nothing(claim) => claim,
            super::Found::Step(hit) => {
                self.hit(state, recipe);
                state.add_layer(created_by, hit.layer, hit.created);
                return Ok(());
            }
        };
        self.miss(state, recipe, None);
        let owner = (!user.is_empty()).then(|| Owner::parse(&user)).transpose().map_err(invalid)?;
        let backend = self.backend;
        let edited = backend
            .edit(&state.layers, self.options.source_date_epoch, &mut |target| {
                let root = Root(target);
                make_workdir(root, &full, owner.as_ref()).map(|()| Vec::new()).map_err(|e| report(&e))
            })
            .await?;
        let done = CachedStep { layer: edited.layer, created: self.stamp() };
        self.store(state, &key, &done)?;
        state.add_layer(created_by, done.layer, done.created);
        Ok(())
    }
}

/// The digest of what is copied.
pub(super) fn fingerprint(found: &[Found]) -> Digest {
    let mut key = KeyBuilder::new("found");
    found.iter().for_each(|f| f.fingerprint(&mut key));
    key.finish()
}

/// What is copied, file by file.
pub(super) fn listing(found: &[Found]) -> Vec<Listed> {
    let mut list = Vec::new();
    found.iter().for_each(|f| f.list(&mut list));
    list
}

fn make_workdir(root: Root<'_>, path: &str, owner: Option<&Owner>) -> Result<(), TreeError> {
    if root.directory(path.as_bytes()).is_ok() {
        return Ok(());
    }
    let owner = owner.map_or(Ok((0, 0)), |o| lookup(root, o))?;
    root.make_directories(path.as_bytes(), owner).map(|_| ())
}

fn invalid(error: TreeError) -> BuildError {
    BuildError::Invalid(report(&error))
}

fn created_by(
    name: &str,
    chown: Option<&str>,
    chmod: Option<&str>,
    words: &[String],
    inline: &[InlineFile],
    destination: &str,
) -> String {
    let mut text = name.to_owned();
    chown.iter().for_each(|c| text.push_str(&format!(" --chown={c}")));
    chmod.iter().for_each(|c| text.push_str(&format!(" --chmod={c}")));
    words.iter().for_each(|w| text.push_str(&format!(" {w}")));
    inline.iter().for_each(|f| text.push_str(&format!(" <<{}", f.name)));
    format!("{text} {destination}{MARK}")
}

pub(super) fn find_all(tree: &SourceTree<'_>, job: &Job, words: &[String]) -> Result<Vec<Found>, BuildError> {
    let mut all = Vec::new();
    for word in words {
        if job.parents {
            all.extend(tree.find_with_parents(word)?);
        } else {
            all.extend(tree.find(word)?);
        }
    }
    if !job.exclude.is_empty() {
        all.retain_mut(|found| found.exclude(&job.exclude));
    }
    Ok(all)
}

pub(super) fn reply(changed: bool) -> Vec<u8> {
    vec![u8::from(changed)]
}

/// Runs in the helper: puts everything in place. Says whether a file changed since it was scanned.
fn copy_all(
    backend: &dyn Backend,
    root: Root<'_>,
    source: BorrowedFd<'_>,
    job: &Job,
    found: &[Found],
) -> Result<bool, TreeError> {
    let owner = job.owner.as_ref().map(|o| lookup(root, o)).transpose()?;
    let settings = CopySettings { owner, mode: job.mode.clone(), time: job.time };
    let mut copier = Copier::new(root, source, settings);
    let files = found.iter().filter(|f| !f.is_directory()).count() + job.inline.len();
    if files > 1 && !copier.is_directory(&job.destination) {
        return Err(TreeError::SeveralSources(job.name));
    }
    for one in found {
        if job.unpack && !one.is_directory() && extract(backend, root, source, one, job, owner)? {
            continue;
        }
        copier.copy(one, &job.destination)?;
    }
    for file in &job.inline {
        copier.write(&file.name, file.content.as_bytes(), &job.destination)?;
    }
    Ok(copier.changed)
}
