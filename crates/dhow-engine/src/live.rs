//! Live locks: who is responsible for a container right now.
//!
//! `live/<id>` below the runtime root exists while a container is being created, runs, or is being removed, and its
//! holder keeps it locked. The kernel frees the lock when the holder dies; a file whose lock is free therefore names a
//! container that was left in the middle of something, and [`Engine::heal`] finishes or undoes that. This is the only
//! thing that healing has to look at, so its cost does not grow with the number of stopped containers.

use crate::{Engine, EngineError, files};
use dhow_sys::lock::{FileLock, is_locked};
use dhow_types::ContainerId;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Responsibility for one container. Dropping it without [`Live::release`] leaves the container to healing.
#[derive(Debug)]
pub(crate) struct Live {
    lock: FileLock,
    path: PathBuf,
}

impl Live {
    /// The locked file, to hand to another process.
    pub(crate) fn file(&self) -> &File {
        self.lock.file()
    }

    /// Everything is in order: nobody needs to look at the container any more.
    pub(crate) fn release(self) -> Result<(), EngineError> {
        // Unlinked while locked: whoever opened it before finds a file without links and tries again.
        files::remove_file(&self.path)
    }
}

impl Engine {
    /// Takes responsibility for a container; `None` if somebody has it.
    pub(crate) fn take_live(&self, id: &ContainerId) -> Result<Option<Live>, EngineError> {
        let path = self.paths.live_lock(id);
        loop {
            let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = match open() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    files::make_dir(&self.paths.live())?;
                    open()
                }
                other => other,
            };
            let file = file.map_err(EngineError::state("open", &path))?;
            let lock = FileLock::try_acquire(file).map_err(EngineError::state("lock", &path))?;
            let Some(lock) = lock else { return Ok(None) };
            let links = lock.file().metadata().map_err(EngineError::state("look at", &path))?.nlink();
            if links > 0 {
                return Ok(Some(Live { lock, path }));
            }
        }
    }

    /// Makes up an id and takes responsibility for it.
    ///
    /// Between the moment the lock's file appears and the moment it is locked, a process that heals may see the file and
    /// take it for one that its holder left. It settles nothing, for nothing of that id exists yet, but the id is then
    /// in its hands: another one is as good.
    pub(crate) fn take_new_live(&self) -> Result<(ContainerId, Live), EngineError> {
        loop {
            let id = crate::container::random_id()?;
            if let Some(live) = self.take_live(&id)? {
                return Ok((id, live));
            }
        }
    }

    /// Takes over responsibility that came by an inherited, locked descriptor.
    pub(crate) fn inherit_live(&self, id: &ContainerId, file: File) -> Live {
        Live { lock: FileLock::from_inherited(file), path: self.paths.live_lock(id) }
    }

    /// Whether somebody is responsible for the container.
    pub(crate) fn is_live(&self, id: &ContainerId) -> bool {
        File::open(self.paths.live_lock(id)).is_ok_and(|f| is_locked(&f).unwrap_or(true))
    }

    /// Ids of all containers that somebody is, or was, responsible for.
    pub(crate) fn live_ids(&self) -> Result<Vec<ContainerId>, EngineError> {
        let dir = self.paths.live();
        match std::fs::read_dir(&dir) {
            Ok(entries) => Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(EngineError::state("list", &dir)(e)),
        }
    }
}
