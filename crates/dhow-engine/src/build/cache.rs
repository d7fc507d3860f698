//! What builds remember: results of steps, and contents of unchanged files. Losing any of it costs time only, so nothing
//! here is synchronised, and a record that does not read is no record.
//!
//! ```text
//! ROOT/cache/steps/<2 hex>/<62 hex>   one line, and a byte for each use
//! ROOT/cache/files/<device>-<inode>   of a context directory: header, then one fixed-size record per file
//! ROOT/cache/mounts/<hash of id>      contents of cache mounts; .use, .lock beside them
//! ```
//! See `docs/formats/build-cache.md`. How all this is kept in bounds is in [`super::manage`].

use crate::{Engine, EngineError, files};
use dhow_build::{CachedStep, FileStat};
use dhow_types::{Digest, Timestamp};
use rustix::fs::FlockOperation;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// A use within this time after the last one is not written down.
const SELDOM: Duration = Duration::from_secs(3600);
/// Most bytes of an instruction that are remembered.
const TEXT: usize = 1000;
/// Bytes in which the line of a record fits.
const LINE: usize = 2048;

/// Results of steps.
pub(super) struct StepCache {
    dir: PathBuf,
    /// Written when the layers they name are published.
    fresh: RefCell<HashMap<Digest, CachedStep>>,
    /// What steps are: the instruction, and the layer below.
    about: RefCell<HashMap<Digest, (String, Option<Digest>)>>,
}

/// A step as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepRecord {
    pub(super) step: CachedStep,
    /// The topmost layer below it.
    pub(super) below: Option<Digest>,
    /// The instruction.
    pub(super) text: String,
}

impl StepCache {
    pub(super) fn new(engine: &Engine) -> Self {
        let dir = engine.paths().root().join("cache/steps");
        Self { dir, fresh: RefCell::default(), about: RefCell::default() }
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
        let path = self.path(key);
        let mut file = File::open(&path).ok()?;
        let record = read_step(&mut file)?;
        note_use(&file, &path);
        Some(record.step)
    }

    pub(super) fn put(&self, key: &Digest, step: &CachedStep) {
        self.fresh.borrow_mut().insert(*key, *step);
    }

    /// Says what a step is that is about to be put.
    pub(super) fn describe(&self, key: &Digest, text: &str, below: Option<&Digest>) {
        self.about.borrow_mut().insert(*key, (text.to_owned(), below.copied()));
    }

    /// Writes what is new, and keeps the layers that it names. They must be published.
    pub(super) fn flush(&self, engine: &Engine) -> Result<(), EngineError> {
        let mut fresh = self.fresh.take();
        // What another machine remembers may name layers that nobody fetched.
        fresh.retain(|_, step| step.layer.is_none_or(|l| engine.store().layer_dir(&l).exists()));
        if fresh.is_empty() {
            return Ok(());
        }
        // Most are kept since they were published; not those that were here before.
        let layers: Vec<Digest> = fresh.values().filter_map(|s| s.layer).collect();
        engine.store().keep(&layers)?;
        folder(engine, "steps")?;
        let about = self.about.borrow();
        for (key, step) in fresh {
            let path = self.path(&key);
            let (text, below) = about.get(&key).map_or(("", None), |(text, below)| (text.as_str(), *below));
            let below = below.filter(|b| Some(*b) != step.layer);
            let line = encode(&StepRecord { step, below, text: text.to_owned() });
            if files::replace(&path, line.as_bytes()).is_err() {
                path.parent().map_or(Ok(()), files::make_dir)?;
                files::replace(&path, line.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// Notes that something was used, seldom: the time of a file is that of its last use, and each use is a byte behind its
/// first line. It may fail, for then only an order is lost.
pub(super) fn note_use(file: &File, path: &Path) {
    let last = file.metadata().and_then(|m| m.modified());
    if last.is_ok_and(|last| last.elapsed().is_ok_and(|age| age > SELDOM)) {
        let _ = File::options().append(true).open(path).and_then(|mut f| f.write_all(b"."));
    }
}

/// The record in a file.
pub(super) fn read_step(file: &mut File) -> Option<StepRecord> {
    let mut buffer = [0_u8; LINE];
    let n = file.read(&mut buffer).ok()?;
    let (line, _) = std::str::from_utf8(buffer.get(..n)?).ok()?.split_once('\n')?;
    decode(line)
}

/// Bytes of a record without its uses.
pub(super) fn line_length(record: &StepRecord) -> u64 {
    encode(record).len() as u64
}

fn encode(record: &StepRecord) -> String {
    let name = |layer: Option<Digest>| layer.map_or_else(|| "-".to_owned(), |l| l.hex());
    let mut text: String = record.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.truncate((0..=TEXT.min(text.len())).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0));
    format!("2 {} {} {} {text}\n", name(record.step.layer), record.step.created, name(record.below))
}

fn decode(line: &str) -> Option<StepRecord> {
    let mut words = line.splitn(5, ' ');
    let version = words.next()?;
    let layer = |word: &str| match word {
        "-" => Some(None),
        hex => Digest::from_hex(hex).ok().map(Some),
    };
    let step = CachedStep { layer: layer(words.next()?)?, created: words.next()?.parse().ok()? };
    match version {
        // Written by earlier versions.
        "1" => words.next().is_none().then_some(StepRecord { step, below: None, text: String::new() }),
        "2" => Some(StepRecord { step, below: layer(words.next()?)?, text: words.next()?.to_owned() }),
        _ => None,
    }
}

/// Says that the directory of a cache mount is in use, for as long as what is returned is kept. `id` is its name.
pub(super) fn use_mount(all: &Path, hash: &str, id: &str) -> Result<File, EngineError> {
    let path = all.join(format!("{hash}.use"));
    let fail = || EngineError::state("lock", &path);
    loop {
        let mut file = File::options().read(true).append(true).create(true).mode(0o600).open(&path).map_err(fail())?;
        rustix::fs::flock(&file, FlockOperation::LockShared).map_err(EngineError::errno("lock", &path))?;
        let metadata = file.metadata().map_err(fail())?;
        if metadata.nlink() == 0 {
            // It was removed with its mount, just now.
            continue;
        }
        if metadata.len() == 0 {
            let text: String = id.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT / 4).collect();
            file.write_all(format!("{text}\n").as_bytes()).map_err(fail())?;
        } else {
            note_use(&file, &path);
        }
        return Ok(file);
    }
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
        let known = known.get_or_insert_with(|| self.load().unwrap_or_default());
        let key = (stat.dev, stat.ino);
        let found = known.get(&key).filter(|r| r.stat == *stat)?;
        self.used.borrow_mut().insert(key);
        Some(found.content)
    }

    fn load(&self) -> Option<HashMap<(u64, u64), Remembered>> {
        let mut file = File::open(&self.path).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        // A byte more than whole records is the mark of a use.
        note_use(&file, &self.path);
        Some(read(&bytes))
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
            let record = StepRecord { step, below: layer, text: "RUN a b".to_owned() };
            assert_eq!(decode(encode(&record).trim_end()), Some(record.clone()));
            let old = encode(&record).replacen('2', "1", 1);
            let old = old.split(' ').take(3).collect::<Vec<_>>().join(" ");
            assert_eq!(decode(&old), Some(StepRecord { step, below: None, text: String::new() }));
            let long = StepRecord { text: "ö\n".repeat(2000), ..record };
            let line = encode(&long);
            assert!(line.len() < LINE && line.matches('\n').count() == 1, "{}", line.len());
        }
        for bad in
            ["", "1 - x", "3 - 2024-01-01T00:00:00Z - x", "1 zz 2024-01-01T00:00:00Z", "2 - 2024-01-01T00:00:00Z -"]
        {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn uses_are_noted_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let old = std::time::SystemTime::now() - 2 * SELDOM;
        std::fs::write(&path, "line\n").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        note_use(&file, &path);
        assert_eq!(std::fs::read(&path).unwrap(), b"line\n");
        file.set_modified(old).unwrap();
        note_use(&file, &path);
        note_use(&file, &path);
        assert_eq!(std::fs::read(&path).unwrap(), b"line\n.");
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
