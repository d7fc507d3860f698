//! Deleting what nothing refers to, without ever deleting what somebody is about to refer to.
//!
//! Deletion happens under the exclusive graph lock and works on named candidates, never on "everything unknown". A candidate
//! is deleted when no image, detached image, pin, or living lease has it. `docs/formats/store.md` argues why this is safe.

use super::Record;
use crate::Store;
use crate::disk::{self, TmpDir};
use crate::error::{At, StoreError};
use crate::layer::meta;
use crate::lease::{self, Doom, GraphLock, Object};
use dhow_types::{Categorized, Digest, ErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Smallest blob worth keeping for another attempt, in bytes.
const SALVAGE: u64 = 64 << 10;

/// `pins/<name>.json`.
#[derive(Debug, Serialize, Deserialize)]
struct PinFile {
    version: u32,
    #[serde(with = "dhow_oci::image::digest_list")]
    layers: Vec<Digest>,
    #[serde(with = "dhow_oci::image::digest_list")]
    blobs: Vec<Digest>,
}

impl PinFile {
    fn objects(&self) -> Vec<Object> {
        self.layers.iter().map(|d| Object::Layer(*d)).chain(self.blobs.iter().map(|d| Object::Blob(*d))).collect()
    }
}

/// What a heal removed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Healed {
    /// Staging entries of dead processes.
    pub staging: usize,
    /// Lists of dead processes that were carried out.
    pub lists: usize,
    /// Layers and blobs that nothing referred to.
    pub objects: usize,
    /// Partial downloads that nobody came back to for a week.
    pub partials: usize,
}

/// Trees that were moved out of sight and are removed after the lock is released.
pub(crate) struct Doomed {
    trash: Option<TmpDir>,
    doom: Option<Doom>,
    pub(crate) deleted: Vec<Object>,
}

impl Doomed {
    pub(crate) fn nothing() -> Self {
        Self { trash: None, doom: None, deleted: Vec::new() }
    }

    /// Removes them. What fails here is removed by the next heal.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        if let Some(trash) = self.trash {
            trash.remove()?;
        }
        match self.doom {
            Some(doom) => doom.done(),
            None => Ok(()),
        }
    }
}

impl Store {
    /// Keeps layers from deletion under a name, until [`unpin`](Self::unpin) or a pin of the same name. Not synced: a pin is
    /// for what can be made again, such as a build cache. The name may have letters, digits, `-`, `_` and `.`.
    pub fn pin(&self, name: &str, layers: &[Digest], blobs: &[Digest]) -> Result<(), StoreError> {
        self.writable()?;
        let path = self.pin_path(name)?;
        let file = PinFile { version: 1, layers: layers.to_vec(), blobs: blobs.to_vec() };
        let text = serde_json::to_vec(&file).map_err(|e| StoreError::record(&path, e))?;
        let _graph = self.shared_lock()?;
        let mut tmp = disk::TmpFile::create(&self.layout.tmp(), "pin")?;
        tmp.write_all(&text)?;
        // Contents before name; the name itself may be lost.
        tmp.persist(&path, 0o600, true)?;
        self.leases().referenced(&file.objects());
        Ok(())
    }

    /// Removes a pin; what only it kept is deleted.
    pub fn unpin(&self, name: &str) -> Result<(), StoreError> {
        self.writable()?;
        let path = self.pin_path(name)?;
        let graph = GraphLock::exclusive(&self.layout.graph_lock())?;
        let Some(pin) = self.read_pin(&path)? else { return Ok(()) };
        let candidates = pin.objects();
        let live = self.live_objects(&graph, Some(&path))?;
        let doomed = self.doom(&graph, &candidates, &live, || disk::remove_file(&path).map(drop))?;
        drop(graph);
        doomed.finish()
    }

    /// Names of all pins.
    pub fn pins(&self) -> Result<Vec<String>, StoreError> {
        let names = disk::list(&self.layout.pins())?;
        Ok(names.iter().filter_map(|n| n.strip_suffix(".json")).map(str::to_owned).collect())
    }

    fn pin_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let ok = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        if name.is_empty() || name.len() > 200 || !name.bytes().all(ok) || name.starts_with('.') {
            return Err(StoreError::Refused(format!("invalid pin name {name:?}")));
        }
        Ok(self.layout.pins().join(format!("{name}.json")))
    }

    fn read_pin(&self, path: &std::path::Path) -> Result<Option<PinFile>, StoreError> {
        let Some(text) = disk::read_small(path, 16 << 20)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|e| StoreError::record(path, e))
    }

    /// Everything that must stay. A record that cannot be read makes this fail: better to delete nothing than something
    /// that a damaged record may need. `except` is a file about to be removed.
    pub(crate) fn live_objects(
        &self,
        graph: &GraphLock,
        except: Option<&std::path::Path>,
    ) -> Result<BTreeSet<Object>, StoreError> {
        self.live_without(graph, except, &BTreeSet::new())
    }

    /// [`live_objects`](Self::live_objects) if the cache gives up some layers.
    pub(crate) fn live_without(
        &self,
        graph: &GraphLock,
        except: Option<&std::path::Path>,
        given_up: &BTreeSet<Digest>,
    ) -> Result<BTreeSet<Object>, StoreError> {
        let mut live = self.recorded(except)?;
        live.extend(self.kept_digests()?.difference(given_up).map(|d| Object::Layer(*d)));
        for list in lease::lists(graph, &self.layout.leases())? {
            if list.alive && list.is_lease {
                live.extend(list.objects);
            }
        }
        // A layer that stays keeps the blob that it can be had from.
        let layers: Vec<Digest> =
            live.iter().filter_map(|o| if let Object::Layer(d) = o { Some(*d) } else { None }).collect();
        for diff in layers {
            if let Some(source) = meta::read_source(&self.layout.layer(&diff))? {
                live.insert(Object::Blob(source.digest));
            }
        }
        Ok(live)
    }

    /// What images, detached images and pins name.
    pub(crate) fn recorded(&self, except: Option<&std::path::Path>) -> Result<BTreeSet<Object>, StoreError> {
        let mut named = BTreeSet::new();
        let mut records = Vec::new();
        for id in self.image_ids()? {
            records.push(self.layout.image(&id).join("record.json"));
        }
        for name in disk::list(&self.layout.detached())? {
            records.push(self.layout.detached().join(name));
        }
        for path in records.iter().filter(|p| Some(p.as_path()) != except) {
            if let Some(record) = Record::read(path)? {
                named.extend(record.objects());
            }
        }
        for name in disk::list(&self.layout.pins())? {
            let path = self.layout.pins().join(name);
            if Some(path.as_path()) != except
                && let Some(pin) = self.read_pin(&path)?
            {
                named.extend(pin.objects());
            }
        }
        Ok(named)
    }

    /// Deletes those candidates that are not live, after `unlink` has removed the record that named them. Durable in this
    /// order: list of the doomed, record gone, objects gone.
    pub(crate) fn doom(
        &self,
        _graph: &GraphLock,
        candidates: &[Object],
        live: &BTreeSet<Object>,
        unlink: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<Doomed, StoreError> {
        let mut dead: BTreeSet<Object> = candidates.iter().filter(|o| !live.contains(o)).copied().collect();
        // With a layer goes the blob that only it needed.
        for object in dead.clone() {
            if let Object::Layer(diff) = object
                && let Some(source) = meta::read_source(&self.layout.layer(&diff))?
                && !live.contains(&Object::Blob(source.digest))
            {
                dead.insert(Object::Blob(source.digest));
            }
        }
        let dead: Vec<Object> = dead.into_iter().collect();
        let doom = match dead.is_empty() {
            true => None,
            // Removing must work when nothing is left to write with. Then a death in between leaves what it would have listed.
            false => match Doom::declare(&self.layout.leases(), &dead) {
                Err(e) if e.kind() == ErrorKind::Exhausted => None,
                other => Some(other?),
            },
        };
        unlink()?;
        let mut doomed = self.sweep(&dead)?;
        doomed.doom = doom;
        Ok(doomed)
    }

    /// Moves objects out of sight. The caller holds the graph lock exclusively and has checked that they are not live.
    fn sweep(&self, dead: &[Object]) -> Result<Doomed, StoreError> {
        let mut out = Doomed::nothing();
        let layers: BTreeSet<Digest> =
            dead.iter().filter_map(|o| if let Object::Layer(d) = o { Some(*d) } else { None }).collect();
        if !layers.is_empty() {
            let trash = TmpDir::create(&self.layout.tmp(), "trash")?;
            self.sweep_chains(&layers, &trash)?;
            for diff in &layers {
                disk::remove_file(&self.layout.layer_link(diff))?;
                let to = trash.path().join(diff.hex());
                if self.move_away(&self.layout.layer(diff), &to)? {
                    out.deleted.push(Object::Layer(*diff));
                }
            }
            disk::sync_dir(&self.layout.layers())?;
            out.trash = Some(trash);
        }
        let mut blobs = false;
        for object in dead {
            if let Object::Blob(digest) = object
                && disk::remove_file(&self.layout.blob(digest))?
            {
                blobs = true;
                out.deleted.push(*object);
            }
        }
        if blobs {
            disk::sync_dir(&self.layout.blobs())?;
        }
        Ok(out)
    }

    /// Turns complete blobs of an operation that came to nothing back into downloads, so that the next attempt need not fetch
    /// them again. Downloads have their own end: [`heal`](Self::heal) after a week, or
    /// [`discard_partials`](Self::discard_partials).
    fn salvage(&self, candidates: &[Object], live: &BTreeSet<Object>) -> Result<(), StoreError> {
        for object in candidates.iter().filter(|o| !live.contains(o)) {
            let Object::Blob(digest) = object else { continue };
            let blob = self.layout.blob(digest);
            let Ok(meta) = std::fs::symlink_metadata(&blob) else { continue };
            if meta.len() < SALVAGE {
                continue;
            }
            let partial = self.layout.partial(digest);
            if disk::rename_noreplace(&blob, &partial).is_ok() {
                rustix::fs::chmod(&partial, rustix::fs::Mode::from_raw_mode(0o600)).at("set mode of", &partial)?;
                // Blobs are durable, so the whole length is.
                crate::ingest::note(&self.layout.journal(digest), meta.len())?;
            }
        }
        Ok(())
    }

    /// Removes the recorded stacks that contain one of these layers.
    fn sweep_chains(&self, layers: &BTreeSet<Digest>, trash: &TmpDir) -> Result<(), StoreError> {
        let name = |path: PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
        let links: BTreeSet<String> = layers.iter().filter_map(|d| name(self.layout.layer_link(d))).collect();
        for chain in disk::list(&self.layout.chains())? {
            let Ok(digest) = Digest::from_hex(&chain) else { continue };
            let dir = self.layout.chain(&digest);
            let lower = disk::read_small(&dir.join("lower"), 64 << 10)?.unwrap_or_default();
            let uses = String::from_utf8_lossy(&lower).lines().any(|l| links.contains(l));
            if uses || lower.is_empty() {
                self.move_away(&dir, &trash.path().join(format!("chain-{chain}")))?;
                disk::remove_file(&self.layout.chain_link(&digest))?;
            }
        }
        Ok(())
    }

    fn move_away(&self, from: &std::path::Path, to: &std::path::Path) -> Result<bool, StoreError> {
        match std::fs::rename(from, to) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e).at("move away", from),
        }
    }

    /// Removes what dead processes left: staging, and layers and blobs that nothing refers to. Three short directory
    /// listings when there is nothing.
    pub fn heal(&self) -> Result<Healed, StoreError> {
        let mut healed = Healed::default();
        if !self.layout.read_only.is_empty() {
            return Ok(healed);
        }
        healed.staging = self.heal_staging()?;
        healed.partials = self.heal_partials()?;
        if lease::any_dead(&self.layout.leases())? {
            let graph = GraphLock::exclusive(&self.layout.graph_lock())?;
            let dead: Vec<_> =
                lease::lists(&graph, &self.layout.leases())?.into_iter().filter(|list| !list.alive).collect();
            let live = self.live_objects(&graph, None)?;
            let candidates: Vec<Object> = dead.iter().flat_map(|list| list.objects.iter().copied()).collect();
            self.salvage(
                &dead.iter().filter(|l| l.is_lease).flat_map(|l| l.objects.clone()).collect::<Vec<_>>(),
                &live,
            )?;
            let doomed = self.doom(&graph, &candidates, &live, || Ok(()))?;
            healed.objects = doomed.deleted.len();
            for list in dead {
                disk::remove_file(&list.path)?;
                healed.lists += 1;
            }
            drop(graph);
            doomed.finish()?;
        }
        Ok(healed)
    }

    fn heal_staging(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        for name in disk::list(&self.layout.tmp())? {
            let path = self.layout.tmp().join(&name);
            if disk::remove_if_dead(&path)? {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Removes partial downloads untouched for a week. Only a cache goes if the clock is wrong.
    fn heal_partials(&self) -> Result<usize, StoreError> {
        const WEEK: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);
        let mut removed = 0;
        for name in disk::list(&self.layout.ingest())? {
            let path = self.layout.ingest().join(&name);
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            let age = meta.modified().ok().and_then(|t| t.elapsed().ok()).unwrap_or_default();
            if age < WEEK {
                continue;
            }
            if name.ends_with(".journal") {
                removed += usize::from(disk::remove_file(&path)?);
                continue;
            }
            let Ok(file) = std::fs::OpenOptions::new().read(true).write(true).open(&path) else { continue };
            if let Some(_lock) = dhow_sys::lock::FileLock::try_acquire(file).at("lock", &path)? {
                removed += usize::from(disk::remove_file(&path)?);
            }
        }
        Ok(removed)
    }

    /// Removes all partial downloads that nobody is working on. Returns the bytes they took.
    pub fn discard_partials(&self) -> Result<u64, StoreError> {
        let mut freed = 0;
        for name in disk::list(&self.layout.ingest())? {
            let path = self.layout.ingest().join(&name);
            if name.ends_with(".journal") {
                continue;
            }
            let Ok(file) = std::fs::OpenOptions::new().read(true).write(true).open(&path) else { continue };
            if let Some(lock) = dhow_sys::lock::FileLock::try_acquire(file).at("lock", &path)? {
                freed += lock.file().metadata().at("inspect", &path)?.len();
                disk::remove_file(&path)?;
                disk::remove_file(&self.layout.ingest().join(format!("{name}.journal")))?;
            }
        }
        Ok(freed)
    }
}

impl crate::Holder {
    /// Ends the lease of a store. What it made and nothing refers to is deleted, unless that would have to wait.
    pub(crate) fn release(&mut self) -> Result<(), StoreError> {
        let lease = self.lease.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let leftovers = lease.leftovers();
        if leftovers.is_empty() {
            return lease.end();
        }
        let Some(graph) = GraphLock::try_exclusive(&self.layout.graph_lock())? else {
            // The unlocked list makes the next heal do it.
            return Ok(());
        };
        lease.unlock();
        let layout = std::sync::Arc::clone(&self.layout);
        let store = Store::without_lease(layout);
        let live = store.live_objects(&graph, None)?;
        store.salvage(&leftovers, &live)?;
        let doomed = store.doom(&graph, &leftovers, &live, || Ok(()))?;
        lease.end()?;
        drop(graph);
        doomed.finish()
    }
}
