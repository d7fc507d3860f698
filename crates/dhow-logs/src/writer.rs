//! The writing end: lines, batches, rotation.

use crate::LogError;
use crate::record::{MAX_TEXT, Stream, encode_record};
use dhow_types::Timestamp;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A batch that reaches this many bytes is written without waiting for the end of the wake-up.
const MAX_BATCH: usize = 256 << 10;

/// When a file is full and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotateOptions {
    /// Largest size of one file in bytes; `None` is unlimited.
    pub max_size: Option<u64>,
    /// Number of files, the current one included; at least 1.
    pub max_file: u32,
    /// Compress files that are no longer written with gzip.
    pub compress: bool,
}

impl Default for RotateOptions {
    /// Three files of 10 MB: a container that talks for ever fills 30 MB, not the disk.
    fn default() -> Self {
        Self { max_size: Some(10_000_000), max_file: 3, compress: false }
    }
}

/// Writes a container's log. One writer per log.
///
/// [`write`](Self::write) collects, [`flush`](Self::flush) makes one `write(2)` of what was collected; call it once per
/// wake-up of the poll loop, so that many small lines cost one system call. Nothing here returns an error after `open`:
/// records that the file system does not take are counted, and named in the log as soon as it takes records again.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    options: RotateOptions,
    file: Option<File>,
    /// Bytes in the current file.
    size: u64,
    batch: Vec<u8>,
    batch_records: u64,
    /// Text of the unfinished line of each stream.
    pending: [Vec<u8>; 2],
    dropped: u64,
    /// Dropped and not yet named in the log.
    unreported: u64,
    /// The file ends in the middle of a record that could not be cut off.
    torn: bool,
}

impl LogWriter {
    /// Opens or creates the log at `path` (mode 0640) and appends to it.
    pub fn open(path: &Path, options: RotateOptions) -> Result<Self, LogError> {
        let options = RotateOptions { max_file: options.max_file.max(1), ..options };
        let file = open_append(path).map_err(LogError::io("open", path))?;
        let size = file.metadata().map_err(LogError::io("examine", path))?.len();
        let torn = size > 0 && !ends_in_newline(path, size);
        Ok(Self {
            path: path.to_owned(),
            options,
            file: Some(file),
            size,
            batch: Vec::new(),
            batch_records: 0,
            pending: [Vec::new(), Vec::new()],
            dropped: 0,
            unreported: 0,
            torn,
        })
    }

    /// Takes bytes of a stream. Whole lines, and lines longer than [`MAX_TEXT`] in pieces, become records of time `now`;
    /// the rest waits for its line end.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) {
        let time = now.to_string();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (line, after, complete) = match rest.iter().position(|b| *b == b'\n') {
                Some(end) => (&rest[..=end], &rest[end + 1..], true),
                None => (rest, &rest[rest.len()..], false),
            };
            rest = after;
            let mut pending = std::mem::take(self.pending_of(stream));
            if pending.is_empty() && complete && line.len() <= MAX_TEXT {
                self.record(stream, &time, line);
            } else {
                pending.extend_from_slice(line);
                let mut done = 0;
                while pending.len() - done > MAX_TEXT {
                    let cut = done + split_point(&pending[done..]);
                    self.record(stream, &time, &pending[done..cut]);
                    done = cut;
                }
                if complete {
                    self.record(stream, &time, &pending[done..]);
                    pending.clear();
                } else {
                    pending.drain(..done);
                }
            }
            *self.pending_of(stream) = pending;
        }
    }

    /// Makes records of unfinished lines (the container ended) and flushes.
    pub fn finish(&mut self, now: Timestamp) {
        let time = now.to_string();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = std::mem::take(self.pending_of(stream));
            if !pending.is_empty() {
                self.record(stream, &time, &pending);
            }
        }
        self.flush();
    }

    /// Writes what was collected with one system call.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let records = std::mem::take(&mut self.batch_records);
        self.reopen_if_lost();
        if self.torn {
            batch.insert(0, b'\n');
        }
        let written = self.file.as_mut().map_or(0, |file| write_fully(file, &batch));
        self.size += written as u64;
        if written == batch.len() {
            self.torn = false;
        } else {
            let kept = batch[..written].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
            let lost = batch[kept..].iter().filter(|b| **b == b'\n').count() as u64;
            let lost = lost.min(records.max(1));
            self.dropped += lost;
            self.unreported += lost;
            self.cut_back((written - kept) as u64);
        }
        batch.clear();
        // The buffer is kept for the next batch, unless a burst made it large.
        if batch.capacity() <= MAX_BATCH {
            self.batch = batch;
        }
    }

    /// Records that were lost because the file system did not take them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    #[cfg(test)]
    pub(crate) fn replace_file(&mut self, file: File) {
        self.file = Some(file);
    }

    fn pending_of(&mut self, stream: Stream) -> &mut Vec<u8> {
        let [out, err] = &mut self.pending;
        match stream {
            Stream::Stdout => out,
            Stream::Stderr => err,
        }
    }

    fn record(&mut self, stream: Stream, time: &str, text: &[u8]) {
        if self.unreported > 0 && self.batch.is_empty() {
            let note = format!("dhow: {} log records were lost: the log could not be written\n", self.unreported);
            encode_record(&mut self.batch, Stream::Stderr, time, note.as_bytes());
            self.batch_records += 1;
            self.unreported = 0;
        }
        let before = self.batch.len();
        encode_record(&mut self.batch, stream, time, text);
        self.batch_records += 1;
        if let Some(max) = self.options.max_size
            && self.size + self.batch.len() as u64 > max
            && self.size + before as u64 > 0
        {
            // The record belongs to the next file.
            let record = self.batch.split_off(before);
            self.batch_records -= 1;
            self.flush();
            self.rotate();
            self.batch.extend_from_slice(&record);
            self.batch_records += 1;
        }
        if self.batch.len() >= MAX_BATCH {
            self.flush();
        }
    }

    /// Somebody may have removed the file; what is written to it then can never be read. Truncation needs nothing: the
    /// file is open for appending.
    fn reopen_if_lost(&mut self) {
        match self.file.as_ref().map(File::metadata) {
            Some(Ok(meta)) if meta.nlink() > 0 => self.size = meta.len(),
            _ => {
                self.file = open_append(&self.path).ok();
                self.size = self.file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
                self.torn = false;
            }
        }
    }

    /// Removes the start of a record whose end did not fit.
    fn cut_back(&mut self, tail: u64) {
        if tail == 0 {
            return;
        }
        match self.file.as_ref().map(|f| f.set_len(self.size - tail)) {
            Some(Ok(())) => self.size -= tail,
            _ => self.torn = true,
        }
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`; the oldest is removed. A crash between two renames leaves a gap in
    /// the numbers, which readers pass over and the next rotation closes.
    fn rotate(&mut self) {
        if self.options.max_file == 1 {
            if self.file.as_ref().is_some_and(|f| f.set_len(0).is_ok()) {
                self.size = 0;
                self.torn = false;
            }
            return;
        }
        let oldest = self.options.max_file - 1;
        for suffix in ["", ".gz"] {
            // A file that is not there needs no removal.
            let _ = std::fs::remove_file(numbered(&self.path, oldest, suffix));
        }
        for n in (1..oldest).rev() {
            for suffix in ["", ".gz"] {
                let _ = std::fs::rename(numbered(&self.path, n, suffix), numbered(&self.path, n + 1, suffix));
            }
        }
        let first = numbered(&self.path, 1, "");
        if std::fs::rename(&self.path, &first).is_err() {
            // Without a rename the size must still be bounded.
            if let Some(file) = &self.file {
                let _ = file.set_len(0);
            }
        }
        self.file = open_append(&self.path).ok();
        self.size = self.file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        self.torn = false;
        if self.options.compress {
            compress(&first, &numbered(&self.path, 1, ".gz"));
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.flush();
    }
}

/// `path.N` with a suffix.
pub(crate) fn numbered(path: &Path, n: u32, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}{suffix}"));
    PathBuf::from(name)
}

fn open_append(path: &Path) -> std::io::Result<File> {
    // No link is followed: the directory is dhow's own, but a log path must never become a way to write elsewhere.
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}

fn ends_in_newline(path: &Path, size: u64) -> bool {
    let mut last = [0u8];
    let read = File::open(path).and_then(|f| std::os::unix::fs::FileExt::read_at(&f, &mut last, size - 1));
    matches!(read, Ok(1)) && last == [b'\n']
}

/// Writes as much as the file system takes and tells how much that was.
fn write_fully(file: &mut File, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        match file.write(&bytes[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    done
}

/// Cuts a long line, not inside of a character when there is one.
fn split_point(text: &[u8]) -> usize {
    let end = text.len().min(MAX_TEXT);
    let is_continuation = |b: &u8| b & 0xc0 == 0x80;
    (end.saturating_sub(3)..=end)
        .rev()
        .find(|i| *i > 0 && text.get(*i).is_none_or(|b| !is_continuation(b)))
        .unwrap_or(end)
}

/// Replaces a file by its gzip form, with its permissions; leaves it alone when that fails.
fn compress(from: &Path, to: &Path) {
    let run = || -> std::io::Result<()> {
        let temporary = numbered(to, 0, ".tmp");
        let out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
        let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
        std::io::copy(&mut File::open(from)?, &mut encoder)?;
        encoder.finish()?;
        std::fs::rename(&temporary, to)?;
        std::fs::remove_file(from)
    };
    // The plain file stays readable, so a failure costs only space.
    let _ = run();
}
