//! What builds remember: results of steps, and contents of unchanged files. Losing any of it costs time only, so nothing
//! here is synchronised, and a record that does not read is no record.
//!
//! ```text
//! ROOT/cache/steps/<2 hex>/<62 hex>   one line: "1 LAYER|- SECONDS.NANOSECONDS"
//! ROOT/cache/files/<device>-<inode>   of a context directory: header, then one fixed-size record per file
//! ROOT/cache/mounts/<hash of id>      contents of cache mounts
//! ```

use crate::{Engine, EngineError, files};
use dhow_build::{CachedStep, FileStat};
use dhow_types::{Digest, Timestamp};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// A folder of the cache. Only root can look into it: what commands leave in cache mounts is nobody else's business.
pub(super) fn folder(engine: &Engine, name: &str) -> Result<PathBuf, EngineError> {
    let all = engine.paths().root().join("cache");
    let one = all.join(name);
    if !one.is_dir() {
        files::make_dir(&all)?;
        files::make_dir(&one)?;
    }
    Ok(one)
}

/// Results of steps.
pub(super) struct StepCache {
    dir: PathBuf,
    /// Written when the layers they name are published.
    fresh: RefCell<HashMap<Digest, CachedStep>>,
}

impl StepCache {
    pub(super) fn new(engine: &Engine) -> Self {
        Self { dir: engine.paths().root().join("cache/steps"), fresh: RefCell::default() }
    }

    fn path(&self, key: &Digest) -> PathBuf {
        let hex = key.hex();
        let (folder, name) = hex.split_at(2);
        self.dir.join(folder).join(name)
    }

    pub(super) fn get(&self, key: &Digest) -> Option<CachedStep> {
        if let Some(step) = self.fresh.borrow().get(key) {
            return Some(*step);
        }
        decode(&std::fs::read_to_string(self.path(key)).ok()?)
    }

    pub(super) fn put(&self, key: &Digest, step: &CachedStep) {
        self.fresh.borrow_mut().insert(*key, *step);
    }

    /// Writes what is new.
    pub(super) fn flush(&self, engine: &Engine) -> Result<(), EngineError> {
        let fresh = self.fresh.take();
        if !fresh.is_empty() {
            folder(engine, "steps")?;
        }
        for (key, step) in fresh {
            let path = self.path(&key);
            let text = encode(&step);
            if files::replace(&path, text.as_bytes()).is_err() {
                path.parent().map_or(Ok(()), files::make_dir)?;
                files::replace(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }
}

fn encode(step: &CachedStep) -> String {
    let layer = step.layer.map_or_else(|| "-".to_owned(), |l| l.hex());
    format!("1 {layer} {}\n", step.created)
}

fn decode(text: &str) -> Option<CachedStep> {
    let mut words = text.strip_suffix('\n')?.split(' ');
    if words.next()? != "1" {
        return None;
    }
    let layer = match words.next()? {
        "-" => None,
        hex => Some(Digest::from_hex(hex).ok()?),
    };
    let created: Timestamp = words.next()?.parse().ok()?;
    words.next().is_none().then_some(CachedStep { layer, created })
}

/// Contents of a context's files by their stat.
pub(super) struct ContentMemory {
    path: PathBuf,
    known: RefCell<Option<HashMap<(u64, u64), Remembered>>>,
    used: RefCell<HashSet<(u64, u64)>>,
    changed: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remembered {
    stat: FileStat,
    content: Digest,
}

const HEADER: &[u8; 16] = b"dhow contents 1\n";
const RECORD: usize = 8 * 5 + 4 * 2 + 32;
/// A file changed this recently may change again without its time changing: the clock of time stamps ticks every few
/// milliseconds.
const SETTLED: i64 = 100_000_000;
/// More records than this, and those that the last build did not use are dropped.
const MANY: usize = 200_000;

impl ContentMemory {
    /// The memory of the context directory with this identity.
    pub(super) fn new(engine: &Engine, device: u64, inode: u64) -> Self {
        let path = engine.paths().root().join("cache/files").join(format!("{device:x}-{inode:x}"));
        Self { path, known: RefCell::default(), used: RefCell::default(), changed: Cell::new(false) }
    }

    pub(super) fn get(&self, stat: &FileStat) -> Option<Digest> {
        let mut known = self.known.borrow_mut();
        let known = known.get_or_insert_with(|| std::fs::read(&self.path).map(|b| read(&b)).unwrap_or_default());
        let key = (stat.dev, stat.ino);
        let found = known.get(&key).filter(|r| r.stat == *stat)?;
        self.used.borrow_mut().insert(key);
        Some(found.content)
    }

    pub(super) fn put(&self, stat: &FileStat, content: &Digest) {
        let now = Timestamp::now().as_nanosecond();
        let changed = i128::from(stat.ctime.0) * 1_000_000_000 + i128::from(stat.ctime.1);
        if now - changed < i128::from(SETTLED) {
            return;
        }
        let key = (stat.dev, stat.ino);
        let record = Remembered { stat: *stat, content: *content };
        self.known.borrow_mut().get_or_insert_default().insert(key, record);
        self.used.borrow_mut().insert(key);
        self.changed.set(true);
    }

    /// Writes what is new.
    pub(super) fn flush(&self, engine: &Engine) -> Result<(), EngineError> {
        let Some(mut known) = self.known.take().filter(|_| self.changed.get()) else { return Ok(()) };
        if known.len() > MANY {
            let used = self.used.borrow();
            known.retain(|key, _| used.contains(key));
        }
        folder(engine, "files")?;
        files::replace(&self.path, &write(&known))
    }
}

fn write(known: &HashMap<(u64, u64), Remembered>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER.len() + known.len() * RECORD);
    bytes.extend(HEADER);
    for Remembered { stat, content } in known.values() {
        for number in [stat.dev, stat.ino, stat.size] {
            bytes.extend(number.to_le_bytes());
        }
        for (seconds, nanoseconds) in [stat.mtime, stat.ctime] {
            bytes.extend(seconds.to_le_bytes());
            bytes.extend(nanoseconds.to_le_bytes());
        }
        bytes.extend(content.as_bytes());
    }
    bytes
}

fn read(bytes: &[u8]) -> HashMap<(u64, u64), Remembered> {
    let records = bytes.strip_prefix(HEADER).unwrap_or_default();
    let list = records.chunks_exact(RECORD).filter_map(read_record);
    list.map(|r| ((r.stat.dev, r.stat.ino), r)).collect()
}

fn read_record(bytes: &[u8]) -> Option<Remembered> {
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let i64_at = |at: usize| Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let stat = FileStat {
        dev: u64_at(0)?,
        ino: u64_at(8)?,
        size: u64_at(16)?,
        mtime: (i64_at(24)?, u32_at(32)?),
        ctime: (i64_at(36)?, u32_at(44)?),
    };
    let content = Digest::from_sha256(bytes.get(48..80)?.try_into().ok()?);
    Some(Remembered { stat, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_round_trip() {
        let created = Timestamp::from_second(1_700_000_000).unwrap();
        for layer in [None, Some(Digest::of(b"x"))] {
            let step = CachedStep { layer, created };
            assert_eq!(decode(&encode(&step)), Some(step));
        }
        for bad in
            ["", "1 - x\n", "2 - 2024-01-01T00:00:00Z\n", "1 zz 2024-01-01T00:00:00Z\n", "1 - 2024-01-01T00:00:00Z"]
        {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn contents_round_trip() {
        let stat = FileStat { dev: 1, ino: 2, size: 3, mtime: (-4, 5), ctime: (6, 7) };
        let known = HashMap::from([((1, 2), Remembered { stat, content: Digest::of(b"c") })]);
        let bytes = write(&known);
        assert_eq!(bytes.len(), HEADER.len() + RECORD);
        assert_eq!(read(&bytes), known);
        assert!(read(&bytes[..bytes.len() - 1]).is_empty());
        assert!(read(b"garbage").is_empty());
    }
}
