//! Who may delete what, and when: the lock on the graph of references, and leases on what is not referenced yet.
//!
//! See `docs/formats/store.md`, "Deletion".

use crate::disk;
use crate::error::{At, StoreError};
use dhow_types::Digest;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A held lock on the reference graph, released on drop or death.
#[derive(Debug)]
pub struct GraphLock {
    // Holds the lock.
    _file: File,
}

impl GraphLock {
    /// For those who add references or rely on something that they found: as many at a time as like. Waits for a deletion.
    pub(crate) fn shared(path: &Path) -> Result<Self, StoreError> {
        Self::wait(path, FlockOperation::LockShared)
    }

    /// For those who delete. Waits for everybody.
    pub(crate) fn exclusive(path: &Path) -> Result<Self, StoreError> {
        Self::wait(path, FlockOperation::LockExclusive)
    }

    /// [`exclusive`](Self::exclusive) without waiting.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>, StoreError> {
        let file = open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e).at("lock", path),
        }
    }

    fn wait(path: &Path, operation: FlockOperation) -> Result<Self, StoreError> {
        let file = open(path)?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e).at("lock", path),
            }
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).at("open", path)
}

/// Something that can be deleted when nothing refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    /// An unpacked layer, by diff ID.
    Layer(Digest),
    /// A blob.
    Blob(Digest),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(d) => write!(f, "layer {d}"),
            Self::Blob(d) => write!(f, "blob {d}"),
        }
    }
}

impl Object {
    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ')? {
            ("layer", digest) => digest.parse().ok().map(Self::Layer),
            ("blob", digest) => digest.parse().ok().map(Self::Blob),
            _ => None,
        }
    }
}

/// A list of objects in a file that its process holds locked.
#[derive(Debug)]
struct ListFile {
    path: PathBuf,
    file: File,
}

impl ListFile {
    fn create(dir: &Path, kind: &str) -> Result<Self, StoreError> {
        loop {
            let path = dir.join(format!("{kind}-{}", disk::random_name()?));
            let file = OpenOptions::new()
                .append(true)
                .read(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .at("create", &path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if file.metadata().at("inspect", &path)?.nlink() > 0 => return Ok(Self { path, file }),
                // A process that heals was faster.
                Ok(()) | Err(Errno::WOULDBLOCK) => continue,
                Err(e) => return Err(e).at("lock", &path),
            }
        }
    }

    fn append<'a>(&mut self, objects: impl Iterator<Item = &'a Object>) -> Result<(), StoreError> {
        let text: String = objects.map(|o| format!("{o}\n")).collect();
        self.file.write_all(text.as_bytes()).at("write", &self.path)
    }
}

/// What this process needs although nothing refers to it yet. Lives as long as the [`Store`](crate::Store).
#[derive(Debug, Default)]
pub(crate) struct Lease {
    file: Option<ListFile>,
    held: BTreeSet<Object>,
    /// Made by this process and referenced by nothing that it knows of.
    fresh: BTreeSet<Object>,
}

impl Lease {
    /// Adds objects. The caller holds the graph lock, shared; so a deletion sees either the lease or the object gone.
    pub(crate) fn add(&mut self, _lock: &GraphLock, dir: &Path, objects: &[Object]) -> Result<(), StoreError> {
        let new: Vec<&Object> = objects.iter().filter(|o| !self.held.contains(o)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(ListFile::create(dir, "lease")?),
        };
        file.append(new.iter().copied())?;
        self.held.extend(objects);
        Ok(())
    }

    /// Notes that this process brought objects into being.
    pub(crate) fn created(&mut self, objects: &[Object]) {
        self.fresh.extend(objects);
    }

    /// Notes that something durable refers to objects now.
    pub(crate) fn referenced(&mut self, objects: &[Object]) {
        for object in objects {
            self.fresh.remove(object);
        }
    }

    /// What would be left behind if this process ended now.
    pub(crate) fn leftovers(&self) -> Vec<Object> {
        self.fresh.iter().copied().collect()
    }

    /// Lets deletion see this lease as nobody's, without removing the list: what it names is up for deletion, and if that is
    /// cut short the next heal goes on.
    pub(crate) fn unlock(&mut self) {
        if let Some(list) = &self.file {
            // Cannot fail on a descriptor that holds the lock; if it does, less is deleted.
            let _ = rustix::fs::flock(&list.file, FlockOperation::Unlock);
        }
    }

    /// Ends the lease: removes its file. To be called when nothing is left over.
    pub(crate) fn end(&mut self) -> Result<(), StoreError> {
        if let Some(file) = self.file.take() {
            disk::remove_file(&file.path)?;
        }
        self.held.clear();
        self.fresh.clear();
        Ok(())
    }
}

/// The list of what a deletion is about to delete. Found without a living owner it is carried out by the next heal.
#[derive(Debug)]
pub(crate) struct Doom(ListFile);

impl Doom {
    /// Writes the list, durably.
    pub(crate) fn declare(dir: &Path, objects: &[Object]) -> Result<Self, StoreError> {
        let mut list = ListFile::create(dir, "doom")?;
        let written = list
            .append(objects.iter())
            .and_then(|()| list.file.sync_data().at("sync", &list.path))
            .and_then(|()| disk::sync_dir(dir));
        if written.is_err() {
            let _ = disk::remove_file(&list.path);
        }
        written.map(|()| Self(list))
    }

    /// The deletion is done and durable.
    pub(crate) fn done(self) -> Result<(), StoreError> {
        disk::remove_file(&self.0.path).map(drop)
    }
}

/// A list on disk, as others see it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) objects: Vec<Object>,
    /// Its process lives.
    pub(crate) alive: bool,
    pub(crate) is_lease: bool,
}

/// Reads all lists. The caller holds the graph lock, exclusively, so no living list grows meanwhile.
pub(crate) fn lists(_lock: &GraphLock, dir: &Path) -> Result<Vec<Found>, StoreError> {
    let mut all = Vec::new();
    for name in disk::list(dir)? {
        let path = dir.join(&name);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).at("open", &path),
        };
        // Only asked: the lock goes with `file`. Two heals cannot meet, because both hold the graph lock.
        let alive = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => false,
            Err(Errno::WOULDBLOCK) => true,
            Err(e) => return Err(e).at("lock", &path),
        };
        let mut text = String::new();
        file.read_to_string(&mut text).at("read", &path)?;
        // A torn last line names nothing that was used: the line is complete before its object is.
        let objects = text.lines().filter_map(Object::parse).collect();
        all.push(Found { path, objects, alive, is_lease: name.starts_with("lease-") });
    }
    Ok(all)
}

/// Whether a list exists whose process is gone. Cheap, takes no lock that anybody waits for.
pub(crate) fn any_dead(dir: &Path) -> Result<bool, StoreError> {
    for name in disk::list(dir)? {
        let Ok(file) = File::open(dir.join(&name)) else { continue };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}
