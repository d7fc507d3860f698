//! Keeping what builds remember in bounds.
//!
//! Every build that made something notes how many bytes; when the sum, the free space or the time say so, it looks at the
//! whole cache and removes what was not used for the longest time. A build whose steps all came from the cache does nothing
//! here. `docs/formats/build-cache.md` describes the files and what a killed collection leaves.

mod choose;
mod scan;

use super::request::{CacheEntry, CachePrune};
use crate::{Engine, EngineError, files};
use choose::{choose, total};
use dhow_sys::lock::FileLock;
use dhow_types::Digest;
use rustix::fs::{FlockOperation, flock, statvfs};
use scan::{Entry, Place, Scan};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The cache is looked at this often even if nothing asks for it.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What nobody used for so long goes.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);
/// After so many builds the cache is measured again.
const BUILDS: usize = 500;

/// What the cache may take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    /// Never more than that.
    most: u64,
    /// So much of the disk stays free, as long as there is cache to remove,
    free: u64,
    /// down to this much of it.
    reserved: u64,
}

impl Policy {
    /// BuildKit's proportions: a tenth of the disk, but at least 10 GB; a fifth of the disk stays free, but on a disk that
    /// others have filled a tenth, or 10 GB if that is less, remains for the cache.
    fn of_disk(size: u64) -> Self {
        const TEN: u64 = 10_000_000_000;
        Self { most: TEN.max(size / 10), free: size / 5, reserved: TEN.min(size / 10) }
    }
}

/// Size and free bytes of the file system.
fn space(engine: &Engine) -> Result<(u64, u64), EngineError> {
    let root = engine.paths().root();
    let fs = statvfs(root).map_err(EngineError::errno("look at", root))?;
    Ok((fs.f_blocks.saturating_mul(fs.f_frsize), fs.f_bavail.saturating_mul(fs.f_frsize)))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What is known of the cache's size without looking at it: `cache/size`, a line with the time and the result of the last
/// look, and a line for each build since then.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    looked: u64,
    bytes: u64,
    builds: usize,
}

impl Tally {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut words = lines.next()?.split(' ');
        if words.next()? != "1" {
            return None;
        }
        let mut tally = Self { looked: words.next()?.parse().ok()?, bytes: words.next()?.parse().ok()?, builds: 0 };
        // A torn line is no number.
        for line in lines {
            tally.bytes = tally.bytes.saturating_add(line.parse().unwrap_or(0));
            tally.builds += 1;
        }
        Some(tally)
    }

    fn is_due(&self, policy: &Policy, free: u64, now: u64) -> bool {
        self.bytes > policy.most
            || (free < policy.free && self.bytes > policy.reserved)
            || self.builds > BUILDS
            || now.saturating_sub(self.looked) > DAY.as_secs()
    }
}

fn tally_path(engine: &Engine) -> PathBuf {
    engine.paths().root().join("cache/size")
}

fn write_tally(engine: &Engine, bytes: u64) -> Result<(), EngineError> {
    files::replace(&tally_path(engine), format!("1 {} {bytes}\n", now()).as_bytes())
}

/// To be called by a build that made layers of so many bytes, when it is done. Its own layers are safe: they are leased.
pub(super) fn after_build(engine: &Engine, made: u64) -> Result<(), EngineError> {
    let path = tally_path(engine);
    let fail = || EngineError::state("write", &path);
    let known = fs::read_to_string(&path).ok().as_deref().and_then(Tally::parse);
    let mut tally = match known {
        Some(tally) => tally,
        None => {
            // The first build, or a cache of an earlier version: at the next day's look.
            super::cache::folder(engine, "steps")?;
            write_tally(engine, 0)?;
            Tally { looked: now(), ..Tally::default() }
        }
    };
    let line = format!("{made}\n");
    File::options().append(true).open(&path).and_then(|mut f| f.write_all(line.as_bytes())).map_err(fail())?;
    tally.bytes = tally.bytes.saturating_add(made);
    tally.builds += 1;
    let (size, free) = space(engine)?;
    let policy = Policy::of_disk(size);
    if tally.is_due(&policy, free, now()) { collect(engine, &policy, free) } else { Ok(()) }
}

/// Brings the cache into its bounds, unless somebody else is at it.
fn collect(engine: &Engine, policy: &Policy, free: u64) -> Result<(), EngineError> {
    let Some(_lock) = try_lock(engine)? else { return Ok(()) };
    let scan = scan::scan(engine)?;
    let shown: Vec<CacheEntry> = scan.entries.iter().map(|e| e.shown.clone()).collect();
    let before = now().saturating_sub(UNUSED.as_secs());
    let is_old = |e: &CacheEntry| e.last_used.is_some_and(|t| u64::try_from(t).unwrap_or(0) < before);
    let everything = CachePrune { all: true, ..CachePrune::default() };
    let mut goes: HashSet<usize> = choose(&shown, &everything, free, &is_old).into_iter().collect();
    // A bit less than allowed, so that not every build from now on has to collect.
    let bounds = CachePrune {
        all: true,
        reserved_space: Some(policy.reserved / 10 * 9),
        max_used_space: Some(policy.most / 10 * 9),
        min_free_space: Some(policy.free),
    };
    if total(&shown) > policy.most || free < policy.free {
        goes.extend(choose(&shown, &bounds, free, &|e| !e.shared));
    }
    let mut sum = total(&shown);
    for gone in remove(engine, scan, &goes)? {
        sum = sum.saturating_sub(if gone.shared { 0 } else { gone.size });
    }
    write_tally(engine, sum)
}

fn lock_file(engine: &Engine) -> Result<(File, PathBuf), EngineError> {
    super::cache::folder(engine, "steps")?;
    let path = engine.paths().root().join("cache/lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    Ok((open.map_err(EngineError::state("open", &path))?, path))
}

fn try_lock(engine: &Engine) -> Result<Option<FileLock>, EngineError> {
    let (file, path) = lock_file(engine)?;
    FileLock::try_acquire(file).map_err(EngineError::state("lock", &path))
}

/// Removes entries by number and returns those that are gone: what came into use meanwhile stays. First the layers, then
/// the records: a death in between leaves records whose layers are gone, which are no use and are removed the next time.
fn remove(engine: &Engine, scan: Scan, goes: &HashSet<usize>) -> Result<Vec<CacheEntry>, EngineError> {
    let going = |n: usize| goes.contains(&n);
    let mut layers = scan.orphans;
    for (_, entry) in scan.entries.iter().enumerate().filter(|(n, _)| going(*n)) {
        if let Place::Step { layer: Some(layer), .. } = &entry.place {
            layers.push(*layer);
        }
    }
    let unkept: HashSet<Digest> = engine.store().unkeep(&layers)?.into_iter().collect();
    scan.useless.iter().try_for_each(|path| files::remove_file(path))?;
    let trash = super::cache::folder(engine, "trash")?;
    let mut removed = Vec::new();
    for (_, Entry { shown, place }) in scan.entries.into_iter().enumerate().filter(|(n, _)| going(*n)) {
        let gone = match place {
            Place::Step { layer, records } => {
                let free = layer.is_none_or(|l| unkept.contains(&l));
                if free {
                    records.iter().try_for_each(|path| files::remove_file(path))?;
                }
                free
            }
            Place::Mount(path) => remove_mount(&path, &trash)?,
            Place::Tree(path) => throw(&path, &trash)?,
            Place::File(path) => files::remove_file(&path).map(|()| true)?,
            Place::Files(path) => throw(&path, &trash)?,
        };
        if gone {
            removed.push(shown);
        }
    }
    // Also what a killed collection left there.
    files::remove_tree(&trash)?;
    Ok(removed)
}

/// Moves a tree out of the way, in one step; the trash is emptied at the end.
fn throw(path: &Path, trash: &Path) -> Result<bool, EngineError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Names are unique in their folders, and the number of the process keeps those of a killed collection apart.
    let to = trash.join(format!("{}-{name}", std::process::id()));
    let _ = files::remove_tree(&to);
    match fs::rename(path, &to) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(EngineError::state("move away", path)(e)),
    }
}

/// Removes a cache mount unless a command has it. Whoever wants it next makes it anew.
fn remove_mount(path: &Path, trash: &Path) -> Result<bool, EngineError> {
    let beside = |kind: &str| path.with_extension(kind);
    let mark = beside("use");
    let open = File::options().read(true).append(true).create(true).mode(0o600).open(&mark);
    let file = open.map_err(EngineError::state("open", &mark))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    let gone = throw(path, trash)?;
    // Nobody has the lock, for only who has the mark takes it. The mark at last.
    files::remove_file(&beside("lock"))?;
    files::remove_file(&mark)?;
    Ok(gone)
}

impl Engine {
    /// What builds remember.
    pub fn build_cache(&self) -> Result<Vec<CacheEntry>, EngineError> {
        if !self.paths.root().join("cache").exists() {
            return Ok(Vec::new());
        }
        Ok(scan::scan(self)?.entries.into_iter().map(|e| e.shown).collect())
    }

    /// Removes what builds remember, as far as `select` takes it and no build uses it, and returns what was removed. Bytes
    /// of entries that are shared are not freed.
    pub fn prune_build_cache(
        &self,
        options: &CachePrune,
        select: &dyn Fn(&CacheEntry) -> bool,
    ) -> Result<Vec<CacheEntry>, EngineError> {
        self.drop_old_pins()?;
        if !self.paths.root().join("cache").exists() {
            return Ok(Vec::new());
        }
        let (file, path) = lock_file(self)?;
        let _lock = FileLock::acquire(file).map_err(EngineError::state("lock", &path))?;
        // What killed builds left would count as in use or not at all.
        self.store().heal()?;
        let scan = scan::scan(self)?;
        let shown: Vec<CacheEntry> = scan.entries.iter().map(|e| e.shown.clone()).collect();
        let (_, free) = space(self)?;
        let goes: HashSet<usize> = choose(&shown, options, free, select).into_iter().collect();
        let removed = remove(self, scan, &goes)?;
        let left = removed.iter().filter(|e| !e.shared).fold(total(&shown), |sum, e| sum.saturating_sub(e.size));
        write_tally(self, left)?;
        super::claims::Claims::new(self).sweep();
        Ok(removed)
    }

    /// Earlier versions pinned the layers of their caches.
    fn drop_old_pins(&self) -> Result<(), EngineError> {
        let is_old = |name: &String| {
            name.strip_prefix("build-")
                .is_some_and(|rest| rest.len() == 64 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        self.store().pins()?.iter().filter(|n| is_old(n)).try_for_each(|name| Ok(self.store().unpin(name)?))
    }
}

#[cfg(test)]
mod tests;
