//! Layers during a build: some are in the store, some are only staged.
//!
//! Steps build on each other at once, but nothing is made durable until the end: one synchronisation for the whole build.
//! Only when another build waits for a step of this one, all that was made so far is published before.

use super::stubs;
use crate::{Engine, EngineError};
use dhow_store::{RootAttributes, ScratchDir, StageOptions, StagedLayer};
use dhow_sys::xattr;
use dhow_types::Digest;
use rustix::fd::OwnedFd;
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fstat};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Layers made by this build that are not published yet.
#[derive(Default)]
pub(super) struct Staged {
    layers: RefCell<HashMap<Digest, Layer>>,
    /// In the order of their making.
    order: RefCell<Vec<Digest>>,
}

struct Layer {
    staged: StagedLayer,
    root: RootAttributes,
}

/// A directory to work in, on top of some layers.
pub(super) struct Workspace {
    pub(super) scratch: ScratchDir,
    /// What lies below, lowest first. Where it is changes when layers are published; see [`Staged::lower`].
    layers: Vec<Digest>,
    /// How the root looks before the work.
    root: RootAttributes,
}

fn open(path: &Path) -> Result<OwnedFd, EngineError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(EngineError::errno("open", path))
}

/// Digest of a layer without any entry: two blocks of zeros.
fn empty_layer() -> Digest {
    Digest::of(&[0; 1024])
}

impl Staged {
    /// Whether a layer can be used, staged or stored.
    pub(super) fn has(&self, engine: &Engine, layer: &Digest) -> Result<bool, EngineError> {
        Ok(self.layers.borrow().contains_key(layer) || engine.store().has_layer(layer)?)
    }

    /// An empty upper directory on top of a stack of layers, lowest first. What lies on top of a staged layer was built
    /// here or by an earlier build, so it names all of its parent directories and needs no fix-ups.
    pub(super) fn workspace(&self, engine: &Engine, layers: &[Digest]) -> Result<Workspace, EngineError> {
        let scratch = engine.store().new_upper()?;
        let upper = scratch.upper();
        let staged = self.layers.borrow();
        let root = match layers.iter().rev().find_map(|l| staged.get(l)) {
            None => engine.store().prepare_upper(&upper, layers)?,
            Some(Layer { root, .. }) => {
                apply(root, &upper)?;
                root.clone()
            }
        };
        Ok(Workspace { scratch, layers: layers.to_vec(), root })
    }

    /// The overlay lower directories of a workspace, topmost first. They hold until layers are published, which can happen
    /// whenever the caller waits for something.
    pub(super) fn lower(&self, engine: &Engine, workspace: &Workspace) -> Result<Vec<PathBuf>, EngineError> {
        let layers = workspace.layers.as_slice();
        let staged = self.layers.borrow();
        let stored = layers.iter().take_while(|l| !staged.contains_key(l)).count();
        let (below, above) = layers.split_at(stored);
        let mut lower: Vec<PathBuf> = above
            .iter()
            .rev()
            .map(|l| staged.get(l).map_or_else(|| engine.store().layer_dir(l), |layer| layer.staged.dir()))
            .collect();
        lower.extend(engine.store().lower_dirs(below)?);
        // The same layer twice: the upper one covers all of the lower one, and overlayfs refuses it.
        let mut seen = HashSet::new();
        lower.retain(|path| seen.insert(path.clone()));
        Ok(lower)
    }

    /// Turns a workspace into a staged layer; `None` when nothing changed. `mounted` are paths that something was mounted
    /// on during the work.
    pub(super) fn keep(
        &self,
        engine: &Engine,
        workspace: Workspace,
        clamp: Option<i64>,
        mounted: &[&str],
    ) -> Result<Option<Digest>, EngineError> {
        let upper = workspace.scratch.upper();
        stubs::remove(&upper, &|| self.lower(engine, &workspace), mounted)?;
        let directory = open(&upper)?;
        if let Some(epoch) = clamp {
            // On disk too, so that later steps see the times that the image will have.
            dhow_build::tree::clamp(directory.as_fd(), epoch)
                .map_err(|e| EngineError::Invalid(dhow_types::report(&e)))?;
        }
        let stat = fstat(&directory).map_err(EngineError::errno("look at", &upper))?;
        let mut root = workspace.root.clone();
        (root.mode, root.uid, root.gid) = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
        let options = StageOptions { clamp, root: Some(workspace.root), ..StageOptions::default() };
        let staged = engine.store().stage_scratch(workspace.scratch, &options)?;
        let diff = *staged.diff_id();
        if diff == empty_layer() {
            return Ok(None);
        }
        if !self.has(engine, &diff)? {
            self.order.borrow_mut().push(diff);
            self.layers.borrow_mut().insert(diff, Layer { staged, root });
        }
        Ok(Some(diff))
    }

    /// Layers made by this build, in order, published or not.
    pub(super) fn made(&self) -> Vec<Digest> {
        self.order.borrow().clone()
    }

    /// Publishes everything that is not, durably, and keeps it for later builds. Work on top of these layers goes on.
    pub(super) fn publish(&self, engine: &Engine) -> Result<(), EngineError> {
        let mut layers = self.layers.take();
        let order = self.order.borrow();
        let list: Vec<StagedLayer> = order.iter().filter_map(|d| layers.remove(d)).map(|layer| layer.staged).collect();
        Ok(engine.store().publish_kept(list)?)
    }
}

/// Gives a directory the look of a root.
fn apply(root: &RootAttributes, path: &Path) -> Result<(), EngineError> {
    let directory = open(path)?;
    let fail = || EngineError::errno("set attributes of", path);
    fchown(&directory, Some(Uid::from_raw(root.uid)), Some(Gid::from_raw(root.gid))).map_err(fail())?;
    fchmod(&directory, Mode::from_raw_mode(root.mode)).map_err(fail())?;
    for (name, value) in &root.xattrs {
        xattr::set(directory.as_fd(), name, value).map_err(EngineError::state("set attributes of", path))?;
    }
    Ok(())
}
