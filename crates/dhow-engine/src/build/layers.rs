//! Layers during a build: some are in the store, some are only staged.
//!
//! Steps build on each other at once, but nothing is made durable until the end: one synchronisation for the whole build.

use crate::{Engine, EngineError};
use dhow_store::{RootAttributes, ScratchDir, StageOptions, StagedLayer};
use dhow_sys::xattr;
use dhow_types::Digest;
use rustix::fd::OwnedFd;
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fstat};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{Metadata, symlink_metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files that are mounted into every command. Where an image lacks them, mounting leaves empty ones behind, which are no
/// change of the command's.
const MOUNT_POINTS: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];
/// Directories that are mounted over in every command.
const MOUNTED: [&str; 3] = ["dev", "proc", "sys"];

/// Layers made by this build that are not published yet.
#[derive(Default)]
pub(super) struct Staged {
    layers: RefCell<HashMap<Digest, (StagedLayer, RootAttributes)>>,
    /// In the order of their making.
    order: RefCell<Vec<Digest>>,
}

/// A directory to work in, on top of some layers.
pub(super) struct Workspace {
    pub(super) scratch: ScratchDir,
    /// Overlay lower directories, topmost first.
    pub(super) lower: Vec<PathBuf>,
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
        let stored = layers.iter().take_while(|l| !staged.contains_key(l)).count();
        let (below, above) = layers.split_at(stored);
        let mut lower: Vec<PathBuf> = above
            .iter()
            .rev()
            .map(|l| staged.get(l).map_or_else(|| engine.store().layer_dir(l), |(layer, _)| layer.dir()))
            .collect();
        lower.extend(engine.store().lower_dirs(below)?);
        let last_staged = above.iter().rev().find_map(|l| staged.get(l));
        let root = match last_staged {
            None => engine.store().prepare_upper(&upper, layers)?,
            Some((_, root)) => {
                apply(root, &upper)?;
                root.clone()
            }
        };
        Ok(Workspace { scratch, lower, root })
    }

    /// Turns a workspace into a staged layer; `None` when nothing changed.
    pub(super) fn keep(
        &self,
        engine: &Engine,
        workspace: Workspace,
        clamp: Option<i64>,
    ) -> Result<Option<Digest>, EngineError> {
        let upper = workspace.scratch.upper();
        remove_mount_points(&upper, &workspace.lower)?;
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
            self.layers.borrow_mut().insert(diff, (staged, root));
        }
        Ok(Some(diff))
    }

    /// Layers made by this build, in order, published or not.
    pub(super) fn made(&self) -> Vec<Digest> {
        self.order.borrow().clone()
    }

    /// Publishes everything that is not, durably.
    pub(super) fn publish(&self, engine: &Engine) -> Result<(), EngineError> {
        let mut layers = self.layers.take();
        let order = self.order.borrow();
        let list: Vec<StagedLayer> = order.iter().filter_map(|d| layers.remove(d)).map(|(layer, _)| layer).collect();
        Ok(engine.store().publish(list)?)
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

/// Takes out what mounting left in an upper directory. `upper` and `lower` are ours, but what is in them is not: only
/// single names below directories that are no links are touched.
fn remove_mount_points(upper: &Path, lower: &[PathBuf]) -> Result<(), EngineError> {
    let is_directory = |path: &Path| symlink_metadata(path).ok().filter(Metadata::is_dir);
    for name in MOUNTED {
        let path = upper.join(name);
        if is_directory(&path).is_some() && in_lower(lower, name).is_none() {
            // Only if it is empty; it may also be a directory that the command has filled by other ways.
            let _ = std::fs::remove_dir(&path);
        }
    }
    let etc = upper.join("etc");
    if is_directory(&etc).is_none() {
        return Ok(());
    }
    let mut removed = false;
    for name in MOUNT_POINTS {
        let path = upper.join(name);
        let stub = symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == 0);
        if stub && in_lower(lower, name).is_none() {
            std::fs::remove_file(&path).map_err(EngineError::state("remove", &path))?;
            removed = true;
        }
    }
    // The directory came with the stubs unless the command changed its mode or owner.
    let look = |m: &Metadata| (m.mode(), m.uid(), m.gid());
    let unchanged = match (is_directory(&etc), in_lower(lower, "etc")) {
        (Some(now), Some(before)) => look(&now) == look(&before),
        (Some(_), None) => true,
        (None, _) => false,
    };
    if removed && unchanged {
        let _ = std::fs::remove_dir(&etc);
    }
    Ok(())
}

/// What the topmost layer that has a name says about it.
fn in_lower(lower: &[PathBuf], name: &str) -> Option<Metadata> {
    lower.iter().find_map(|dir| symlink_metadata(dir.join(name)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn stubs_go_and_changes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("u"), dir.path().join("l"));
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::create_dir_all(upper.join("dev")).unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        remove_mount_points(&upper, &[lower.clone()]).unwrap();
        assert_eq!(fs::read_dir(&upper).unwrap().count(), 0);

        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::write(upper.join("etc/hostname"), "kept: not empty").unwrap();
        fs::write(upper.join("etc/passwd"), "").unwrap();
        remove_mount_points(&upper, &[lower.clone()]).unwrap();
        assert!(!upper.join("etc/hosts").exists());
        assert!(upper.join("etc/hostname").exists() && upper.join("etc/passwd").exists());

        fs::remove_dir_all(upper.join("etc")).unwrap();
        fs::create_dir(upper.join("etc")).unwrap();
        fs::set_permissions(upper.join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        remove_mount_points(&upper, &[lower]).unwrap();
        assert!(upper.join("etc").exists(), "a changed mode is a change");
    }
}
