//! Container names: `names/<name>` is a symbolic link to the id, and making one is the atomic claim.
//!
//! A claim is *stale* when its container exists no more and nobody is creating it (its live lock is free). Stale claims
//! come from processes that were killed; whoever wants the name takes them over under the names lock.

use crate::{Engine, EngineError, files};
use dhow_sys::lock::{FileLock, is_locked};
use dhow_types::{ContainerId, ContainerName};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;

impl Engine {
    /// The container that has this name, if any.
    pub(crate) fn name_holder(&self, name: &str) -> Result<Option<ContainerId>, EngineError> {
        let path = self.paths.names().join(name);
        match fs::read_link(&path) {
            Ok(target) => Ok(target.to_str().and_then(|t| t.parse().ok())),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(None),
            Err(e) => Err(EngineError::state("read", &path)(e)),
        }
    }

    /// Claims a name for a container whose live lock the caller holds.
    pub(crate) fn claim_name(&self, name: &ContainerName, id: &ContainerId) -> Result<(), EngineError> {
        let path = self.paths.names().join(name.as_str());
        match symlink(id.as_str(), &path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                files::make_dir(&self.paths.names())?;
                return match symlink(id.as_str(), &path) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        Err(EngineError::state("create the name", &path)(e))
                    }
                    Err(_) => self.take_over_name(name, id),
                    Ok(()) => Ok(()),
                };
            }
            Err(e) => return Err(EngineError::state("create the name", &path)(e)),
        }
        self.take_over_name(name, id)
    }

    fn take_over_name(&self, name: &ContainerName, id: &ContainerId) -> Result<(), EngineError> {
        let path = self.paths.names().join(name.as_str());
        let lock_path = self.paths.run().join("names.lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(EngineError::state("open", &lock_path))?;
        let _lock = FileLock::acquire(lock).map_err(EngineError::state("lock", &lock_path))?;
        if let Some(holder) = self.name_holder(name.as_str())?
            && self.holds_names(&holder)
        {
            return Err(EngineError::NameInUse { name: name.to_string(), holder: holder.to_string() });
        }
        let temporary = self.paths.names().join(format!(".{id}"));
        files::remove_file(&temporary)?;
        symlink(id.as_str(), &temporary)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(EngineError::state("take over the name", &path))
    }

    /// Whether a container exists or is being made or unmade.
    fn holds_names(&self, id: &ContainerId) -> bool {
        self.paths.container(id).exists()
            || File::open(self.paths.live_lock(id)).is_ok_and(|f| is_locked(&f).unwrap_or(true))
    }

    /// Frees a name, if it is this container's.
    pub(crate) fn release_name(&self, name: &str, id: &ContainerId) -> Result<(), EngineError> {
        if self.name_holder(name)?.as_ref() == Some(id) {
            files::remove_file(&self.paths.names().join(name))?;
        }
        Ok(())
    }
}
