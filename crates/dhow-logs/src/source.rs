//! The files of one log, oldest first, as sources of bytes at an offset.

use crate::LogError;
use crate::writer::numbered;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Files beyond this number are not looked for.
const MAX_FILES: u32 = 1000;
/// Most bytes that a compressed file may unpack to.
const MAX_UNPACKED: u64 = 256 << 20;

/// One file of a log.
#[derive(Debug)]
pub(crate) enum Source {
    Plain { file: File, id: (u64, u64) },
    Unpacked(Vec<u8>),
}

impl Source {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        Ok(Self::Plain { id: (meta.dev(), meta.ino()), file })
    }

    fn open_gzip(path: &Path) -> std::io::Result<Self> {
        let mut bytes = Vec::new();
        flate2::read::MultiGzDecoder::new(File::open(path)?).take(MAX_UNPACKED).read_to_end(&mut bytes)?;
        Ok(Self::Unpacked(bytes))
    }

    pub(crate) fn id(&self) -> Option<(u64, u64)> {
        match self {
            Self::Plain { id, .. } => Some(*id),
            Self::Unpacked(_) => None,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Plain { file, .. } => file.metadata().map_or(0, |m| m.len()),
            Self::Unpacked(bytes) => bytes.len() as u64,
        }
    }

    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        match self {
            Self::Plain { file, .. } => loop {
                match file.read_at(buffer, offset) {
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            },
            Self::Unpacked(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let n = buffer.len().min(bytes.len() - start);
                buffer[..n].copy_from_slice(&bytes[start..start + n]);
                Ok(n)
            }
        }
    }
}

/// Opens every file of the log, oldest first, the current one last.
///
/// The current file is opened first: a rotation in between then shows one file twice, which is seen by its inode, and
/// never hides one.
pub(crate) fn open_all(path: &Path) -> Result<Vec<Source>, LogError> {
    let current = Source::open(path).map_err(LogError::io("open", path))?;
    let mut out = vec![current];
    let mut gaps = 0;
    for n in 1..MAX_FILES {
        let plain = Source::open(&numbered(path, n, ""));
        let source = plain.or_else(|_| Source::open_gzip(&numbered(path, n, ".gz")));
        match source {
            Ok(source) => {
                gaps = 0;
                if source.id().is_none() || !out.iter().any(|o| o.id() == source.id()) {
                    out.push(source);
                }
            }
            // A crash inside of a rotation leaves one number free.
            Err(_) => {
                gaps += 1;
                if gaps > 1 {
                    break;
                }
            }
        }
    }
    out.reverse();
    Ok(out)
}

/// The file that follows the one with this id, now that the log was rotated; `None` when it is the current one.
pub(crate) fn next_after(path: &Path, id: Option<(u64, u64)>) -> Option<Source> {
    let current = Source::open(path).ok()?;
    if current.id() == id {
        return None;
    }
    let mut newer = current;
    for n in 1..MAX_FILES {
        match Source::open(&numbered(path, n, "")) {
            Ok(source) if source.id() == id => return Some(newer),
            Ok(source) => newer = source,
            Err(_) => return Some(newer),
        }
    }
    Some(newer)
}

/// Offset at which the last `count` lines of a file begin, and how many lines that really are.
pub(crate) fn tail_offset(source: &Source, count: u64) -> std::io::Result<(u64, u64)> {
    const BLOCK: u64 = 64 << 10;
    let length = source.len();
    let mut buffer = vec![0u8; BLOCK as usize];
    let mut end = length;
    let mut found = 0u64;
    // The line end that ends the file ends its last line; an unfinished line at the end counts for nothing.
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let wanted = (end - start) as usize;
        let mut filled = 0;
        while filled < wanted {
            match source.read_at(&mut buffer[filled..wanted], start + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        for i in (0..filled).rev().filter(|i| buffer[*i] == b'\n') {
            if found == count {
                return Ok((start + i as u64 + 1, count));
            }
            found += 1;
        }
        end = start;
    }
    Ok((0, found))
}

/// Offset of the first line whose time, as `time_of` reads it, is not before the wanted one. Times are taken to grow;
/// the caller still looks at each record's own.
pub(crate) fn search(source: &Source, before: &dyn Fn(&[u8]) -> Option<bool>) -> std::io::Result<u64> {
    let (mut low, mut high) = (0u64, source.len());
    // Below a block it is cheaper to read on than to search.
    while high - low > 64 << 10 {
        let middle = low + (high - low) / 2;
        match first_known_line(source, middle, high, before)? {
            Some((start, true)) => low = start.max(low + 1),
            Some((_, false)) | None => high = middle,
        }
    }
    // `low` is the start of a line that is too early, or the start of the file.
    Ok(low)
}

/// The first line that starts after `from` and can be judged.
fn first_known_line(
    source: &Source,
    from: u64,
    end: u64,
    before: &dyn Fn(&[u8]) -> Option<bool>,
) -> std::io::Result<Option<(u64, bool)>> {
    const STEP: usize = 32 << 10;
    const LIMIT: usize = 1 << 20;
    let mut bytes: Vec<u8> = Vec::new();
    let mut line_start: Option<usize> = None;
    let mut scanned = 0;
    loop {
        while let Some(i) = bytes[scanned..].iter().position(|b| *b == b'\n').map(|i| i + scanned) {
            if let Some(start) = line_start
                && let Some(is_before) = before(&bytes[start..i])
            {
                return Ok(Some((from + start as u64, is_before)));
            }
            scanned = i + 1;
            line_start = Some(scanned);
        }
        scanned = bytes.len();
        let offset = from + bytes.len() as u64;
        if offset >= end || bytes.len() > LIMIT {
            return Ok(None);
        }
        let filled = bytes.len();
        bytes.resize(filled + STEP, 0);
        let n = source.read_at(&mut bytes[filled..], offset)?;
        bytes.truncate(filled + n);
        if n == 0 {
            return Ok(None);
        }
    }
}
