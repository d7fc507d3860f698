//! What the cache has.

use super::super::cache::{self, StepRecord};
use super::super::request::{CacheEntry, CacheKind};
use crate::{Engine, EngineError};
use dhow_store::KeptLayer;
use dhow_types::Digest;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, openat, statat};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Digits of an entry's name.
const ID: usize = 25;
/// Directories below each other that are counted. Removing takes more.
const DEPTH: usize = 512;

/// An entry and where it is.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) shown: CacheEntry,
    pub(super) place: Place,
}

/// Where something is.
#[derive(Debug)]
pub(super) enum Place {
    /// A layer that is kept, if there is one, and the records that name it.
    Step { layer: Option<Digest>, records: Vec<PathBuf> },
    /// The directory of a cache mount.
    Mount(PathBuf),
    /// A directory that anybody can do without at any time.
    Tree(PathBuf),
    /// A file like that.
    File(PathBuf),
    /// The files of a directory.
    Files(PathBuf),
}

/// Everything in the cache.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) entries: Vec<Entry>,
    /// Records that say nothing: they cannot be read, or their layers are gone.
    pub(super) useless: Vec<PathBuf>,
    /// Layers that are kept for nothing.
    pub(super) orphans: Vec<Digest>,
}

/// Name of an entry.
pub(super) fn id(text: &str) -> String {
    text.chars().take(ID).collect()
}

fn seconds(metadata: &Metadata) -> i64 {
    metadata.mtime()
}

/// An entry that is a file or directory.
fn plain(name: &str, kind: CacheKind, description: String, size: u64, metadata: &Metadata) -> CacheEntry {
    let created = metadata.created().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    let created = created.and_then(|t| i64::try_from(t.as_secs()).ok());
    CacheEntry {
        id: id(name),
        parents: Vec::new(),
        kind,
        description,
        in_use: false,
        shared: false,
        size,
        created: created.unwrap_or(seconds(metadata)),
        last_used: Some(seconds(metadata)),
        uses: 1,
    }
}

/// Paths and names in a directory; nothing when it is not there.
fn list(dir: &Path) -> Result<Vec<(PathBuf, String)>, EngineError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(EngineError::state("list", dir)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(EngineError::state("list", dir))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((entry.path(), name));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Looks at everything. What goes meanwhile is left out.
pub(super) fn scan(engine: &Engine) -> Result<Scan, EngineError> {
    let all = engine.paths().root().join("cache");
    let mut scan = Scan::default();
    steps(engine, &all.join("steps"), &mut scan)?;
    mounts(&all.join("mounts"), &mut scan)?;
    for (path, name) in list(&all.join("files"))? {
        if name.starts_with('.') {
            leftover(&path, &mut scan);
        } else if let Ok(metadata) = fs::symlink_metadata(&path) {
            let text = format!("contents of files of the context {name}");
            let shown = plain(&name, CacheKind::Context, text, metadata.blocks() * 512, &metadata);
            scan.entries.push(Entry { shown, place: Place::File(path) });
        }
    }
    explanations(&all.join("explain"), &mut scan)?;
    for (path, name) in list(&all.join("http"))? {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let shown = plain(&name, CacheKind::Http, "files behind a URL".to_owned(), tree_size(&path), &metadata);
        scan.entries.push(Entry { shown, place: Place::Tree(path) });
    }
    Ok(scan)
}

/// The temporary file of a writer that was killed, unless it is at work.
fn leftover(path: &Path, scan: &mut Scan) {
    let age = fs::symlink_metadata(path).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
    if age.is_some_and(|a| a > super::DAY) {
        scan.useless.push(path.to_owned());
    }
}

/// Records of earlier builds, as one entry.
fn explanations(dir: &Path, scan: &mut Scan) -> Result<(), EngineError> {
    let mut one: Option<CacheEntry> = None;
    for (path, name) in list(dir)? {
        if name.starts_with('.') {
            leftover(&path, scan);
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.modified().ok().and_then(|t| t.elapsed().ok()).is_some_and(|age| age > super::UNUSED) {
            scan.useless.push(path);
            continue;
        }
        let text = "what earlier builds were made of".to_owned();
        let next = plain("explain", CacheKind::Context, text, metadata.blocks() * 512, &metadata);
        one = Some(match one {
            None => next,
            Some(sum) => CacheEntry {
                size: sum.size + next.size,
                created: sum.created.min(next.created),
                last_used: sum.last_used.max(next.last_used),
                uses: sum.uses + 1,
                ..sum
            },
        });
    }
    scan.entries.extend(one.map(|shown| Entry { shown, place: Place::Files(dir.to_owned()) }));
    Ok(())
}

fn steps(engine: &Engine, dir: &Path, scan: &mut Scan) -> Result<(), EngineError> {
    // Before the records: a layer whose record is not written yet is still leased by who makes it.
    let kept = engine.store().kept()?;
    let mut left: HashMap<Digest, KeptLayer> = kept.iter().map(|k| (k.layer, *k)).collect();
    let kept: HashMap<Digest, KeptLayer> = left.clone();
    let mut by_layer: HashMap<Digest, usize> = HashMap::new();
    for (folder, prefix) in list(dir)? {
        for (path, name) in list(&folder)? {
            if name.starts_with('.') {
                leftover(&path, scan);
                continue;
            }
            let Ok(mut file) = File::open(&path) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let Some(record) = cache::read_step(&mut file) else {
                scan.useless.push(path);
                continue;
            };
            let Some(layer) = record.step.layer else {
                let shown = step(&record, &format!("{prefix}{name}"), &metadata, None);
                scan.entries.push(Entry { shown, place: Place::Step { layer: None, records: vec![path] } });
                continue;
            };
            left.remove(&layer);
            let known = by_layer.get(&layer).and_then(|n| scan.entries.get_mut(*n));
            if let Some(Entry { shown, place: Place::Step { records, .. } }) = known {
                merge(shown, step(&record, &layer.hex(), &metadata, kept.get(&layer)));
                records.push(path);
                continue;
            }
            // A layer that is not kept may be that of an image.
            let size = || engine.store().layer_size(&layer).ok();
            let held = kept
                .get(&layer)
                .copied()
                .or_else(|| size().map(|size| KeptLayer { layer, size, named: true, leased: false }));
            let Some(held) = held else {
                scan.useless.push(path);
                continue;
            };
            by_layer.insert(layer, scan.entries.len());
            let shown = step(&record, &layer.hex(), &metadata, Some(&held));
            scan.entries.push(Entry { shown, place: Place::Step { layer: Some(layer), records: vec![path] } });
        }
    }
    scan.orphans.extend(left.into_values().filter(|k| !k.leased).map(|k| k.layer));
    Ok(())
}

fn step(record: &StepRecord, name: &str, metadata: &Metadata, kept: Option<&KeptLayer>) -> CacheEntry {
    let text = if record.text.is_empty() { "result of a build" } else { &record.text };
    // Behind the line there is a byte for each use.
    let line = cache::line_length(record);
    CacheEntry {
        id: id(name),
        parents: record.below.iter().map(|below| id(&below.hex())).collect(),
        kind: CacheKind::Step,
        description: text.to_owned(),
        in_use: kept.is_some_and(|k| k.leased),
        shared: kept.is_some_and(|k| k.named),
        size: kept.map_or(0, |k| k.size),
        created: record.step.created.as_second().min(seconds(metadata)),
        last_used: Some(seconds(metadata)),
        uses: metadata.len().saturating_sub(line) + 1,
    }
}

/// Two steps that made the same layer are one entry.
fn merge(shown: &mut CacheEntry, other: CacheEntry) {
    shown.last_used = shown.last_used.max(other.last_used);
    shown.uses = shown.uses.max(other.uses);
    shown.created = shown.created.min(other.created);
    for parent in other.parents {
        if !shown.parents.contains(&parent) && parent != shown.id {
            shown.parents.push(parent);
        }
    }
}

fn mounts(dir: &Path, scan: &mut Scan) -> Result<(), EngineError> {
    for (path, name) in list(dir)? {
        if Digest::from_hex(&name).is_err() {
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let mark = dir.join(format!("{name}.use"));
        let (mut text, mut used, mut uses, mut in_use) = (String::new(), seconds(&metadata), 1, false);
        if let Ok(mut file) = File::open(&mark) {
            let mut buffer = [0_u8; 2048];
            let n = file.read(&mut buffer).unwrap_or(0);
            let line = buffer.split(|b| *b == b'\n').next().unwrap_or_default();
            text = String::from_utf8_lossy(line.get(..n.min(line.len())).unwrap_or_default()).into_owned();
            if let Ok(metadata) = file.metadata() {
                used = seconds(&metadata);
                uses = metadata.len().saturating_sub(line.len() as u64 + 1) + 1;
            }
            in_use = flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
        }
        let text = format!("cache mount {text}");
        let shown = CacheEntry {
            in_use,
            last_used: Some(used),
            uses,
            ..plain(&name, CacheKind::Mount, text, tree_size(&path), &metadata)
        };
        scan.entries.push(Entry { shown, place: Place::Mount(path) });
    }
    Ok(())
}

/// Bytes on the disk of a tree. What cannot be looked at counts nothing; no link is followed.
pub(super) fn tree_size(path: &Path) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(path, flags, Mode::empty()) else { return 0 };
    let mut seen = HashSet::new();
    add_size(root.as_fd(), 0, &mut seen)
}

fn add_size(directory: BorrowedFd<'_>, depth: usize, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(entries) = Dir::read_from(directory) else { return 0 };
    let mut sum = 0;
    for entry in entries.flatten() {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            // Once for all its names.
            if !seen.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
        }
        sum += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && depth < DEPTH
            && let Ok(inner) = openat(directory, name, flags, Mode::empty())
        {
            sum += add_size(inner.as_fd(), depth + 1, seen);
        }
    }
    sum
}
