//! The reading end.

use crate::LogError;
use crate::follow::Watch;
use crate::record::{Record, parse_record};
use crate::source::{self, Source};
use dhow_types::Timestamp;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much is read at once.
const BLOCK: usize = 64 << 10;
/// A line longer than this is no record (the longest is about 100 KB).
const MAX_LINE: usize = 1 << 20;

/// What to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Records from this time on.
    pub since: Option<Timestamp>,
    /// Records up to this time.
    pub until: Option<Timestamp>,
    /// The last so many records only, chosen before `since` and `until` are applied.
    pub tail: Option<u64>,
    /// Go on when the end is reached.
    pub follow: bool,
}

/// Reads a container's log, rotated files included, oldest record first.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    options: ReadOptions,
    /// Files that are still to be read, the current one last.
    sources: VecDeque<Source>,
    /// Where in the first of them.
    offset: u64,
    /// Bytes read and not yet given out; they end at `offset`.
    buffer: Vec<u8>,
    start: usize,
    /// Bytes of the buffer known to hold no line end.
    scanned: usize,
    /// Inside of a line that is too long.
    skipping: bool,
    watch: Option<Watch>,
    skipped: u64,
    ended: bool,
}

impl LogReader {
    /// Opens a log and finds the place to start.
    pub fn open(path: &Path, options: ReadOptions) -> Result<Self, LogError> {
        // Watch first: what is written between opening and watching would be missed otherwise.
        let watch = options.follow.then(|| Watch::new(path));
        let sources = source::open_all(path)?;
        let mut reader = Self {
            path: path.to_owned(),
            options,
            sources: sources.into(),
            offset: 0,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            skipping: false,
            watch,
            skipped: 0,
            ended: false,
        };
        reader.seek().map_err(LogError::io("read", path))?;
        Ok(reader)
    }

    fn seek(&mut self) -> std::io::Result<()> {
        if let Some(count) = self.options.tail {
            let mut left = count;
            let mut keep = 0;
            for source in self.sources.iter().rev() {
                keep += 1;
                let (offset, found) = source::tail_offset(source, left)?;
                self.offset = offset;
                left -= found;
                if left == 0 {
                    break;
                }
            }
            self.sources.drain(..self.sources.len() - keep);
            return Ok(());
        }
        if let Some(since) = self.options.since {
            let before = |line: &[u8]| parse_record(line).map(|r| r.time < since);
            // A file can be left out when the next one already begins too early.
            while let Some(next) = self.sources.get(1)
                && first_time(next)?.is_some_and(|t| t < since)
            {
                self.sources.pop_front();
            }
            if let Some(first) = self.sources.front() {
                self.offset = source::search(first, &before)?;
            }
        }
        Ok(())
    }

    /// The next record. `None` is the end; with `follow` it is the end of what is there now: [`wait`](Self::wait), then
    /// ask again.
    #[allow(clippy::should_implement_trait, reason = "an iterator would have to end at the first None")]
    pub fn next(&mut self) -> Result<Option<Record>, LogError> {
        while !self.ended {
            let Some(line) = self.next_line().map_err(LogError::io("read", &self.path.clone()))? else {
                return Ok(None);
            };
            let Some(record) = parse_record(&line) else {
                self.skipped += u64::from(!line.iter().all(|b| matches!(b, b'\n' | 0)));
                continue;
            };
            if self.options.since.is_some_and(|t| record.time < t) {
                continue;
            }
            if self.options.until.is_some_and(|t| record.time > t) {
                self.ended = true;
                return Ok(None);
            }
            return Ok(Some(record));
        }
        Ok(None)
    }

    /// Whether a record beyond `until` was met: nothing more will come, even with `follow`.
    pub fn is_past_end(&self) -> bool {
        self.ended
    }

    /// Lines that were no records: cut off by a crash or a full disk.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Waits until the log may have grown, or for `timeout`. Only with `follow`.
    pub fn wait(&self, timeout: Duration) {
        if let Some(watch) = &self.watch {
            watch.wait(timeout);
        }
    }

    /// A descriptor that becomes readable when the log may have grown, for a poll loop of the caller's; call
    /// [`acknowledge`](Self::acknowledge) before reading on. `None` when the kernel gives no notice: poll with a timeout.
    pub fn notice_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().and_then(Watch::fd)
    }

    /// Takes notices off the descriptor.
    pub fn acknowledge(&self) {
        if let Some(watch) = &self.watch {
            watch.clear();
        }
    }

    /// Reads records until `stop` says so at the end of what is there; calls `on` for each. With `follow`, `stop` is asked
    /// whenever the end is reached and at least once a second; whatever was written before it said yes is still given out.
    pub fn run<E: From<LogError>>(
        &mut self,
        stop: &mut dyn FnMut() -> bool,
        on: &mut dyn FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let last_round = !self.options.follow || stop();
            while let Some(record) = self.next()? {
                on(record)?;
            }
            if last_round || self.ended {
                return Ok(());
            }
            self.wait(Duration::from_millis(200));
        }
    }

    /// The next line with its line end. An unfinished line at the end of a file that is no longer written is given out,
    /// one at the end of the current file waits.
    fn next_line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            let from = self.start + self.scanned;
            if let Some(i) = self.buffer[from..].iter().position(|b| *b == b'\n') {
                let line = self.buffer[self.start..=from + i].to_vec();
                self.start = from + i + 1;
                self.scanned = 0;
                if std::mem::take(&mut self.skipping) {
                    self.skipped += 1;
                    continue;
                }
                return Ok(Some(line));
            }
            self.scanned = self.buffer.len() - self.start;
            if self.scanned > MAX_LINE {
                self.skipping = true;
                self.start = self.buffer.len();
                self.scanned = 0;
            }
            if self.fill()? {
                continue;
            }
            match self.leave() {
                Step::Stay => return Ok(None),
                Step::ReadOn => continue,
                Step::Left => {}
            }
            let rest = self.buffer.split_off(self.start);
            self.buffer.clear();
            (self.start, self.scanned) = (0, 0);
            if !rest.is_empty() && !std::mem::take(&mut self.skipping) {
                return Ok(Some(rest));
            }
        }
    }

    /// Reads on in the first file. False at its end.
    fn fill(&mut self) -> std::io::Result<bool> {
        let Some(source) = self.sources.front() else { return Ok(false) };
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let filled = self.buffer.len();
        self.buffer.resize(filled + BLOCK, 0);
        let read = source.read_at(&mut self.buffer[filled..], self.offset);
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        let n = read?;
        self.offset += n as u64;
        if n == 0 && source.len() < self.offset {
            // Truncated under us (a rotation with one file, or somebody's hand): begin again.
            self.offset = 0;
            self.buffer.clear();
            self.scanned = 0;
            return Ok(source.len() > 0);
        }
        Ok(n > 0)
    }

    /// Goes to the next file, if there is one.
    fn leave(&mut self) -> Step {
        if self.sources.len() < 2 {
            if !self.options.follow {
                return Step::Stay;
            }
            let Some(current) = self.sources.front() else { return Step::Stay };
            let Some(next) = source::next_after(&self.path, current.id()) else { return Step::Stay };
            if current.len() > self.offset {
                // Written between our last read and the rotation, after which nobody writes to it.
                return Step::ReadOn;
            }
            self.sources.push_back(next);
        }
        self.sources.pop_front();
        self.offset = 0;
        Step::Left
    }
}

/// What the end of a file means.
enum Step {
    /// Nothing more is there now.
    Stay,
    /// More has come meanwhile.
    ReadOn,
    /// The next file is open.
    Left,
}

fn first_time(source: &Source) -> std::io::Result<Option<Timestamp>> {
    let mut buffer = vec![0u8; 128 << 10];
    let n = source.read_at(&mut buffer, 0)?;
    let mut lines = buffer[..n].split_inclusive(|b| *b == b'\n');
    Ok(lines.find_map(parse_record).map(|r| r.time))
}

#[cfg(test)]
mod tests;
