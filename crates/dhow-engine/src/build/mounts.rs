//! `RUN --mount` as mounts of the container.

use crate::{Engine, EngineError, files};
use dhow_build::{MountSource, Mounted, drive};
use dhow_dockerfile::CacheSharing;
use dhow_oci::runtime::Mount;
use dhow_store::ScratchDir;
use dhow_sys::lock::FileLock;
use dhow_types::Digest;
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown};
use std::collections::HashMap;
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
    /// Adds a mount. `scratches` are directories that the builder has filled, `spare` is one for a cache that is in use.
    pub(super) async fn add(
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
                let directory = self.cache(engine, id, *sharing, spare).await?;
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
    async fn cache(
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
        let path = all.join(format!("{name}.lock"));
        let fail = || EngineError::state("lock", &path);
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
        loop {
            if let Some(lock) = FileLock::try_acquire(open().map_err(fail())?).map_err(fail())? {
                self.locks.push(lock);
                return Ok(directory);
            }
            if sharing == CacheSharing::Private {
                // Somebody has it: this command gets an empty one, which ends with it.
                return Ok(spare.join(format!("cache-{}", self.list.len())));
            }
            // It may be another stage of this build that has it, so this must not stop the thread.
            drive::sleep(AGAIN).await;
        }
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
