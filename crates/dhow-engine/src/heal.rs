//! Finishing or undoing what killed processes left.
//!
//! Three things can be left: a container whose live lock is free, staging areas of the store, and (after a reboot)
//! everything that a runtime directory would have told. Healing is idempotent and may itself be killed.

use crate::container::{Guard, Status};
use crate::live::Live;
use crate::{Engine, EngineError, files};
use dhow_runtime::cgroup::Cgroup;
use dhow_types::{ContainerId, Timestamp};
use std::fs::{self, File};
use std::io;
use std::time::{Duration, SystemTime};

/// With many containers alive, background healing happens at most this often.
const INTERVAL: Duration = Duration::from_secs(1);
/// Up to so many is few.
const FEW: usize = 16;

impl Engine {
    /// Heals everything that can be seen. Never stops at a failure; returns the first.
    pub fn heal(&self) -> Result<(), EngineError> {
        let mut first = self.heal_after_boot();
        let mut keep = |result: Result<(), EngineError>| {
            if first.is_ok() {
                first = result;
            }
        };
        for id in self.live_ids()? {
            keep(self.heal_container(&id));
        }
        keep(self.store().heal().map(|_| ()).map_err(Into::into));
        keep(self.heal_network());
        let _ = fs::write(self.paths.run().join("healed"), b"");
        first
    }

    /// Heals when nobody waits: always while little is alive, and otherwise unless somebody did a moment ago, so that the
    /// work of many short containers does not grow with the square of their number.
    pub(crate) fn heal_in_background(&self) -> Result<(), EngineError> {
        let stamp = fs::metadata(self.paths.run().join("healed")).and_then(|m| m.modified());
        let recent = stamp.is_ok_and(|t| SystemTime::now().duration_since(t).is_ok_and(|age| age < INTERVAL));
        if recent && self.live_ids()?.len() > FEW { Ok(()) } else { self.heal() }
    }

    /// Heals one container, unless somebody is responsible for it.
    pub(crate) fn heal_container(&self, id: &ContainerId) -> Result<(), EngineError> {
        let Some(live) = self.take_live(id)? else { return Ok(()) };
        self.settle(id, &live)?;
        live.release()
    }

    /// Brings a container that nobody is responsible for into a state that holds. The caller is responsible now.
    pub(crate) fn settle(&self, id: &ContainerId, _live: &Live) -> Result<(), EngineError> {
        // Killed while creating it: it never was.
        let staging = self.paths.new_container(id);
        if staging.exists() {
            self.release_names_of(id)?;
            files::remove_tree(&staging)?;
        }
        // Killed while removing it: it is no more.
        if self.paths.trashed_container(id).exists() {
            self.kill_leftovers(id);
            self.release_names_of(id)?;
            self.delete_trash(id);
        }
        match self.lock(id) {
            Ok(guard) => self.settle_existing(guard),
            Err(EngineError::NoSuchContainer(_)) => {
                self.kill_leftovers(id);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// A container without a monitor does not run: what is left of it is killed, and the exit recorded as unknown.
    fn settle_existing(&self, mut guard: Guard<'_>) -> Result<(), EngineError> {
        let id = guard.id.clone();
        if !guard.state.status.is_alive() && !self.paths.runtime(&id).exists() {
            return Ok(());
        }
        self.kill_leftovers(&id);
        guard.state.network = None;
        if !guard.state.status.is_alive() {
            return Ok(());
        }
        if guard.record.host.auto_remove {
            self.unlist(&guard)?;
            drop(guard);
            self.delete_trash(&id);
            return Ok(());
        }
        guard.state.status = Status::Exited;
        guard.state.pid = 0;
        guard.state.exit_code = 137;
        guard.state.error = "the container's monitor was killed; the container was ended with it".to_owned();
        guard.state.finished_at = Timestamp::now().to_string();
        guard.save_state()
    }

    /// Kills whatever runs in the container's cgroup and gives back what it held. Failures are met again next time.
    pub(crate) fn kill_leftovers(&self, id: &ContainerId) {
        if let Ok(cgroup) = Cgroup::open(&crate::Paths::cgroup(id)) {
            let _ = cgroup.kill_all();
            let _ = cgroup.remove();
        }
        if let Ok(bridge) = self.bridge() {
            let _ = bridge.forget(id);
        }
        let _ = files::remove_tree(&self.paths.runtime(id));
    }

    /// Restores bridge, rules and published ports if somebody took them away, as far as this engine ever made them.
    fn heal_network(&self) -> Result<(), EngineError> {
        if !self.paths.run().join("net").exists() {
            return Ok(());
        }
        Ok(self.bridge()?.ensure()?)
    }

    /// The first command of a boot looks at every container once: what the last boot left running has ended with it.
    fn heal_after_boot(&self) -> Result<(), EngineError> {
        let marker = self.paths.run().join("boot-id");
        let boot = self.boot_id()?;
        if fs::read_to_string(&marker).is_ok_and(|seen| seen == boot) {
            return Ok(());
        }
        // A runtime directory that survived the reboot tells of processes that are gone.
        if marker.exists() {
            for dir in ["live", "c", "net"] {
                files::remove_tree(&self.paths.run().join(dir))?;
            }
        }
        let dir = self.paths.containers();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return files::replace(&marker, boot.as_bytes());
            }
            Err(e) => return Err(EngineError::state("list", &dir)(e)),
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let id = name.strip_prefix(".new-").or_else(|| name.strip_prefix(".trash-")).unwrap_or(name);
            if let Ok(id) = id.parse::<ContainerId>() {
                // A damaged container must not keep the others from being healed.
                let _ = self.heal_container(&id);
            }
        }
        files::replace(&marker, boot.as_bytes())
    }

    /// Makes a container's record survive a power cut.
    pub(crate) fn sync_container(&self, id: &ContainerId) -> Result<(), EngineError> {
        let dir = self.paths.container(id);
        for path in [dir.join(crate::paths::CONFIG), dir.clone(), self.paths.containers(), self.paths.names()] {
            File::open(&path).and_then(|f| f.sync_all()).map_err(EngineError::state("sync", &path))?;
        }
        Ok(())
    }
}
