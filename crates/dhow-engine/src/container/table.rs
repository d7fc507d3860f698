//! Finding, listing and locking containers.

use super::record::{Record, State, VERSION};
use super::{Container, Status};
use crate::files;
use crate::paths::{CONFIG, STATE};
use crate::{Engine, EngineError};
use dhow_sys::lock::FileLock;
use dhow_types::ContainerId;
use std::fs::{self, File};
use std::io;

/// A locked container with its records just loaded.
pub(crate) struct Guard<'e> {
    engine: &'e Engine,
    /// Id.
    pub(crate) id: ContainerId,
    /// What it is.
    pub(crate) record: Record,
    /// What it does.
    pub(crate) state: State,
    _lock: FileLock,
}

impl Guard<'_> {
    /// Writes the state back.
    pub(crate) fn save_state(&self) -> Result<(), EngineError> {
        files::write_record(&self.engine.paths.container(&self.id).join(STATE), &self.state)
    }

    /// Writes the record back.
    pub(crate) fn save_record(&self) -> Result<(), EngineError> {
        files::write_record(&self.engine.paths.container(&self.id).join(CONFIG), &self.record)
    }
}

impl Engine {
    /// Finds a container by full id, name, or unique id prefix, in this order.
    pub fn find(&self, text: &str) -> Result<ContainerId, EngineError> {
        let missing = || EngineError::NoSuchContainer(text.to_owned());
        if let Ok(id) = text.parse::<ContainerId>()
            && self.paths.container(&id).exists()
        {
            return Ok(id);
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if name.parse::<dhow_types::ContainerName>().is_ok()
            && let Some(id) = self.name_holder(name)?
            && self.paths.container(&id).exists()
        {
            return Ok(id);
        }
        if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)) {
            return Err(missing());
        }
        let mut found = self.ids()?.into_iter().filter(|id| id.as_str().starts_with(text));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(EngineError::AmbiguousId(text.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    /// Every container's id, in no order.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>, EngineError> {
        let dir = self.paths.containers();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(EngineError::state("list", &dir)(e)),
        };
        Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
    }

    /// A snapshot of one container.
    pub fn container(&self, id: &ContainerId) -> Result<Container, EngineError> {
        let (record, mut state) = self.load_records(id)?;
        if state.status.is_alive() && !self.process_exists(&state) && !self.is_live(id) {
            // Nobody is responsible any more, so nobody writes any more: what is there now is the last word.
            state = self.load_records(id)?.1;
            self.correct(&mut state);
        }
        Ok(Container { id: id.clone(), record, state })
    }

    /// Snapshots of all containers, newest first, and what could not be read.
    pub fn containers(&self) -> Result<(Vec<Container>, Vec<EngineError>), EngineError> {
        let (mut found, mut broken) = (Vec::new(), Vec::new());
        for id in self.ids()? {
            match self.container(&id) {
                Ok(container) => found.push(container),
                // Removed since the directory was read.
                Err(EngineError::NoSuchContainer(_)) => {}
                Err(e) => broken.push(e),
            }
        }
        found.sort_by(|a, b| b.record.created.cmp(&a.record.created).then_with(|| a.id.cmp(&b.id)));
        Ok((found, broken))
    }

    fn load_records(&self, id: &ContainerId) -> Result<(Record, State), EngineError> {
        let dir = self.paths.container(id);
        let missing = || EngineError::NoSuchContainer(id.to_string());
        let config = dir.join(CONFIG);
        let record: Record = match files::read_record(&config)? {
            Some(record) => record,
            None if dir.exists() => {
                return Err(EngineError::Record { path: config, reason: "it is missing".to_owned() });
            }
            None => return Err(missing()),
        };
        if record.version > VERSION {
            let reason = format!("it has version {}, this dhow knows version {VERSION}", record.version);
            return Err(EngineError::Record { path: config, reason });
        }
        let state = files::read_record(&dir.join(STATE))?.unwrap_or_else(State::created);
        Ok((record, state))
    }

    /// Corrects a state that says "running" of a process that is gone. The caller knows that no monitor is alive.
    pub(crate) fn correct(&self, state: &mut State) {
        if state.status.is_alive() && !self.process_exists(state) {
            state.status = Status::Exited;
            state.exit_code = 137;
            state.pid = 0;
            state.network = None;
            state.error = "the container ended together with its monitor, its exit status is not known".to_owned();
        }
    }

    /// Whether the recorded first process is there, and not a later one with its number.
    pub(crate) fn process_exists(&self, state: &State) -> bool {
        state.pid != 0
            && dhow_sys::process::start_time(state.pid).is_ok_and(|t| t == state.pid_start)
            && self.boot_id().is_ok_and(|b| b == state.boot_id)
    }

    /// Locks a container and loads it.
    pub(crate) fn lock(&self, id: &ContainerId) -> Result<Guard<'_>, EngineError> {
        let path = self.paths.container(id).join("lock");
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(EngineError::NoSuchContainer(id.to_string()));
            }
            Err(e) => return Err(EngineError::state("open", &path)(e)),
        };
        let lock = FileLock::acquire(file).map_err(EngineError::state("lock", &path))?;
        // The container may have been removed while we waited.
        let (record, state) = self.load_records(id)?;
        Ok(Guard { engine: self, id: id.clone(), record, state, _lock: lock })
    }
}
