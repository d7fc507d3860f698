//! Removing a container: one rename takes it out of every list, the rest is garbage that a dead lock gives away.

use super::Guard;
use crate::live::Live;
use crate::{Engine, EngineError, files};
use dhow_types::{Categorized, ContainerId, ErrorKind, Signal};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// How to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill a running container first.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// How long a command waits for a monitor to finish its last work.
const PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Removes a container.
    pub fn remove(&self, id: &ContainerId, options: RemoveOptions) -> Result<(), EngineError> {
        match self.container(id) {
            Ok(container) if container.is_alive() => {
                if !options.force {
                    return Err(EngineError::WrongState {
                        message: format!(
                            "cannot remove container \"/{}\": container is {}: stop the container before removing or force remove",
                            container.record.name,
                            container.state.status.name()
                        ),
                        hint: Some("stop it with `dhow stop`, or remove it with `dhow rm -f`"),
                    });
                }
                match self.kill(id, Signal::KILL) {
                    // It may have ended by itself, or been removed by `--rm`.
                    Err(EngineError::WrongState { .. } | EngineError::NoSuchContainer(_)) | Ok(()) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(_) => {}
            // A damaged record must not make a container immortal.
            Err(EngineError::Record { .. }) if options.force => return self.remove_damaged(id),
            Err(e) => return Err(e),
        }
        let live = self.wait_live(id)?;
        let result = self.remove_settled(id, &live, options);
        live.release()?;
        result
    }

    fn remove_settled(&self, id: &ContainerId, live: &Live, options: RemoveOptions) -> Result<(), EngineError> {
        match self.settle(id, live) {
            // A full disk takes no new state, and this one is about to go anyway.
            Err(e) if e.kind() != ErrorKind::Exhausted => return Err(e),
            _ => {}
        }
        let guard = match self.lock(id) {
            Ok(guard) => guard,
            // Removed by its own `--rm` while we waited.
            Err(EngineError::NoSuchContainer(_)) => return Ok(()),
            Err(e) => return Err(e),
        };
        if options.volumes || guard.record.host.auto_remove {
            self.remove_anonymous_volumes(&guard.record);
        }
        self.unlist(&guard)?;
        drop(guard);
        self.delete_trash(id);
        Ok(())
    }

    fn remove_damaged(&self, id: &ContainerId) -> Result<(), EngineError> {
        let live = self.wait_live(id)?;
        let (from, to) = (self.paths.container(id), self.paths.trashed_container(id));
        fs::rename(&from, &to).map_err(EngineError::state("remove", &from))?;
        self.release_names_of(id)?;
        self.kill_leftovers(id);
        self.delete_trash(id);
        live.release()
    }

    /// Takes a container out of every list. The caller has its live lock.
    pub(crate) fn unlist(&self, guard: &Guard<'_>) -> Result<(), EngineError> {
        let (from, to) = (self.paths.container(&guard.id), self.paths.trashed_container(&guard.id));
        fs::rename(&from, &to).map_err(EngineError::state("remove", &from))?;
        if guard.record.host.auto_remove {
            self.remove_anonymous_volumes(&guard.record);
        }
        self.release_name(&guard.record.name, &guard.id)
    }

    /// Deletes what [`Engine::unlist`] left, and the image if it was removed by force and this was its last container.
    /// What cannot be deleted now is met by healing.
    pub(crate) fn delete_trash(&self, id: &ContainerId) {
        let _ = files::remove_tree(&self.paths.trashed_container(id));
        let _ = self.store().sweep_unused(&|image| self.image_uses(image));
    }

    /// Takes responsibility, waiting for a monitor that is about to finish.
    pub(super) fn wait_live(&self, id: &ContainerId) -> Result<Live, EngineError> {
        let begin = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(live) = self.take_live(id)? {
                return Ok(live);
            }
            if begin.elapsed() > PATIENCE {
                return Err(EngineError::WrongState {
                    message: format!("container {} is being started or removed by another process", id.short()),
                    hint: Some("try again in a moment"),
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Frees every name that points to a container whose record is unreadable. Slow: looks at all names.
    pub(crate) fn release_names_of(&self, id: &ContainerId) -> Result<(), EngineError> {
        let dir = self.paths.names();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(EngineError::state("list", &dir)(e)),
        };
        for entry in entries.flatten() {
            if fs::read_link(entry.path()).is_ok_and(|t| t.as_os_str() == id.as_str()) {
                files::remove_file(&entry.path())?;
            }
        }
        Ok(())
    }
}
