//! `RUN --mount` as mounts of the container.

use crate::{Engine, EngineError, files};
use dhow_build::{MountSource, Mounted, drive};
use dhow_dockerfile::CacheSharing;
use dhow_oci::runtime::Mount;
use dhow_store::ScratchDir;
use dhow_sys::lock::FileLock;
use dhow_types::Digest;
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a command looks whether a cache that it waits for is free.
const AGAIN: Duration = Duration::from_millis(10);

/// Mounts, and the locks of caches that nobody else may use meanwhile.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) list: Vec<Mount>,
    locks: Vec<FileLock>,
    /// Marks of caches in use, which keep them from being removed.
    uses: Vec<File>,
}

impl Mounts {
    /// Adds a mount; [`Mounts::lock`] comes before. `scratches` are directories that the builder has filled, `spare` is one for a cache that is in use.
    pub(super) fn add(
        &mut self,
        engine: &Engine,
        mounted: &Mounted,
        scratches: &HashMap<usize, ScratchDir>,
        spare: &Path,
    ) -> Result<(), EngineError> {
        let mount = match &mounted.source {
            MountSource::Scratch { id, name } => {
                let missing = || EngineError::Invalid(format!("nothing was made to mount on {}", mounted.target));
                let scratch = scratches.get(id).ok_or_else(missing)?;
                bind(&scratch.upper().join(name), &mounted.target, mounted.read_only)
            }
            MountSource::Cache { id, sharing, mode, owner } => {
                let directory = self.cache(engine, id, *sharing, spare)?;
                if let Some(fresh) = make(&directory)? {
                    let fail = || EngineError::errno("set attributes of", &directory);
                    fchown(&fresh, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).map_err(fail())?;
                    fchmod(&fresh, Mode::from_raw_mode(mode & 0o7777)).map_err(fail())?;
                }
                bind(&directory, &mounted.target, mounted.read_only)
            }
            MountSource::Memory(size) => {
                let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
                options.extend(size.map(|s| format!("size={s}")));
                Mount {
                    destination: mounted.target.clone(),
                    kind: "tmpfs".to_owned(),
                    source: "tmpfs".to_owned(),
                    options,
                }
            }
        };
        self.list.push(mount);
        Ok(())
    }

    /// Directory of a cache. Its name is hashed, so that no id can lead anywhere.
    fn cache(
        &mut self,
        engine: &Engine,
        id: &str,
        sharing: CacheSharing,
        spare: &Path,
    ) -> Result<PathBuf, EngineError> {
        let all = super::cache::folder(engine, "mounts")?;
        let name = Digest::of(id.as_bytes()).hex();
        let directory = all.join(&name);
        // Before the lock, which may be removed with an unused cache.
        self.uses.push(super::cache::use_mount(&all, &name, id)?);
        if sharing == CacheSharing::Shared {
            return Ok(directory);
        }
        if sharing == CacheSharing::Locked || self.try_lock(&all, &name)? {
            return Ok(directory);
        }
        // Somebody has it: this command gets an empty one, which ends with it.
        Ok(spare.join(format!("cache-{}", self.list.len())))
    }

    /// Waits for every cache that nobody else may use meanwhile, in the order of their names: so two commands that want the
    /// same ones never wait for each other.
    pub(super) async fn lock(&mut self, engine: &Engine, mounted: &[Mounted]) -> Result<(), EngineError> {
        let locked = mounted.iter().filter_map(|m| match &m.source {
            MountSource::Cache { id, sharing: CacheSharing::Locked, .. } => Some((Digest::of(id.as_bytes()).hex(), id)),
            _ => None,
        });
        let names: BTreeMap<String, &String> = locked.collect();
        if names.is_empty() {
            return Ok(());
        }
        let all = super::cache::folder(engine, "mounts")?;
        for (name, id) in names {
            // Before the lock, which may be removed with an unused cache.
            self.uses.push(super::cache::use_mount(&all, &name, id)?);
            while !self.try_lock(&all, &name)? {
                // It may be another stage of this build that has it, so this must not stop the thread.
                drive::sleep(AGAIN).await;
            }
        }
        Ok(())
    }

    fn try_lock(&mut self, all: &Path, name: &str) -> Result<bool, EngineError> {
        let path = all.join(format!("{name}.lock"));
        let fail = || EngineError::state("lock", &path);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail())?;
        let lock = FileLock::try_acquire(file).map_err(fail())?;
        let is_ours = lock.is_some();
        self.locks.extend(lock);
        Ok(is_ours)
    }
}

/// Opens a directory that was not there before; `None` if it was.
fn make(path: &Path) -> Result<Option<rustix::fd::OwnedFd>, EngineError> {
    if path.is_dir() {
        return Ok(None);
    }
    files::make_dir(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(Some).map_err(EngineError::errno("open", path))
}

/// A bind mount.
pub(super) fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    let access = if read_only { "ro" } else { "rw" };
    Mount {
        destination: target.to_owned(),
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        options: ["rbind", "rprivate", access].map(str::to_owned).to_vec(),
    }
}
