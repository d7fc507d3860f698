//! What every view knows of the steps of a build.

use dhow_engine::BuildEvent;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    Active,
    Cached,
    Done,
    Failed,
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) number: usize,
    /// `[build 2/4] RUN make`, in one line.
    pub(super) title: String,
    pub(super) started: Instant,
    /// How long it took; absent while it is active.
    pub(super) took: Option<Duration>,
    pub(super) stand: Stand,
    /// What was to be told of it.
    pub(super) notes: Vec<String>,
    /// Lines that have not ended yet, of standard output and standard error.
    partial: [Vec<u8>; 2],
    /// The last lines that it wrote.
    tail: VecDeque<Vec<u8>>,
}

/// A line without an end is cut after so many bytes.
const MAX_LINE: usize = 8 << 10;
/// A title has no more characters than this.
const MAX_TITLE: usize = 2000;

/// The steps in the order in which they began.
#[derive(Debug)]
pub(super) struct Steps {
    all: Vec<Step>,
    /// Number of steps that the build has.
    pub(super) total: usize,
    /// How many lines are kept of each step.
    keep: usize,
    /// The last one that failed.
    failed: Option<usize>,
}

impl Steps {
    /// No steps; `keep` lines of output will be kept of each.
    pub(super) fn new(keep: usize) -> Self {
        Self { all: Vec::new(), total: 0, keep, failed: None }
    }

    /// Notes what an event says of a step, for views that show no line as it comes.
    pub(super) fn take(&mut self, event: &BuildEvent<'_>, now: Instant) {
        match event {
            BuildEvent::StepStarted { step, total, stage, text } => self.start(*step, *total, *stage, text, now),
            BuildEvent::Cached { step } => self.cached(*step),
            BuildEvent::Note { step, text } => self.note(*step, text),
            BuildEvent::Output { step, stderr, bytes } => {
                self.output(*step, *stderr, bytes);
            }
            BuildEvent::StepDone { step, duration, .. } => {
                self.end(*step, Some(*duration), now);
                self.forget(*step);
            }
            BuildEvent::StepFailed { step } => {
                self.end(*step, None, now);
            }
            BuildEvent::Warning { .. } | BuildEvent::Failed { .. } | BuildEvent::Done { .. } => {}
        }
    }

    pub(super) fn start(&mut self, number: usize, total: usize, stage: Option<&str>, text: &str, now: Instant) {
        self.total = total;
        let stage = stage.map(|s| format!("{s} ")).unwrap_or_default();
        let title = format!("[{stage}{number}/{total}] {}", one_line(text));
        self.all.retain(|s| s.number != number);
        let partial = [Vec::new(), Vec::new()];
        let (notes, tail) = (Vec::new(), VecDeque::new());
        let step = Step { number, title, started: now, took: None, stand: Stand::Active, notes, partial, tail };
        self.all.push(step);
    }

    pub(super) fn get(&self, number: usize) -> Option<&Step> {
        self.all.iter().rev().find(|s| s.number == number)
    }

    fn find(&mut self, number: usize) -> Option<&mut Step> {
        self.all.iter_mut().rev().find(|s| s.number == number)
    }

    /// In the order in which they began.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Step> {
        self.all.iter()
    }

    /// How many have ended well.
    pub(super) fn ended(&self) -> usize {
        self.all.iter().filter(|s| matches!(s.stand, Stand::Cached | Stand::Done)).count()
    }

    pub(super) fn cached(&mut self, number: usize) {
        if let Some(step) = self.find(number) {
            step.stand = Stand::Cached;
        }
    }

    pub(super) fn note(&mut self, number: usize, text: &str) {
        if let Some(step) = self.find(number) {
            step.notes.push(one_line(text));
        }
    }

    /// Takes what a step wrote, and returns the lines that are whole now, without their ends.
    pub(super) fn output(&mut self, number: usize, stderr: bool, bytes: &[u8]) -> Vec<Vec<u8>> {
        let keep = self.keep;
        let Some(step) = self.find(number) else { return Vec::new() };
        let [out, err] = &mut step.partial;
        let partial = if stderr { err } else { out };
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            for part in text.chunks(MAX_LINE) {
                if !partial.is_empty() && partial.len() + part.len() > MAX_LINE {
                    lines.push(std::mem::take(partial));
                }
                partial.extend_from_slice(part);
            }
            if ended {
                lines.push(std::mem::take(partial));
            }
        }
        step.remember(&lines, keep);
        lines
    }

    /// A step ended. Returns lines that it left without an end.
    pub(super) fn end(&mut self, number: usize, took: Option<Duration>, now: Instant) -> Vec<Vec<u8>> {
        let keep = self.keep;
        if took.is_none() {
            self.failed = Some(number);
        }
        let Some(step) = self.find(number) else { return Vec::new() };
        let lines: Vec<Vec<u8>> = step.partial.iter_mut().map(std::mem::take).filter(|l| !l.is_empty()).collect();
        step.remember(&lines, keep);
        step.stand = match (took, step.stand) {
            (None, _) => Stand::Failed,
            (Some(_), Stand::Cached) => Stand::Cached,
            (Some(_), _) => Stand::Done,
        };
        step.took = Some(took.unwrap_or_else(|| now.saturating_duration_since(step.started)));
        lines
    }

    /// Lets the output of a step go that nobody will ask for.
    pub(super) fn forget(&mut self, number: usize) {
        if let Some(step) = self.find(number) {
            step.tail.clear();
        }
    }

    /// The failing step and its last output, as BuildKit shows them: between two rules.
    pub(super) fn failure(&self) -> Vec<u8> {
        let Some(step) = self.failed.and_then(|number| self.get(number)) else { return Vec::new() };
        let mut out = format!("------\n > {}:\n", step.title).into_bytes();
        for line in &step.tail {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.extend_from_slice(b"------\n");
        out
    }
}

impl Step {
    fn remember(&mut self, lines: &[Vec<u8>], keep: usize) {
        for line in lines.iter().skip(lines.len().saturating_sub(keep)) {
            if self.tail.len() >= keep {
                self.tail.pop_front();
            }
            self.tail.push_back(line.clone());
        }
    }

    /// The last lines that it wrote, the one that it writes at the moment included.
    pub(super) fn last_lines(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let partial = self.partial.iter().filter(|p| !p.is_empty());
        self.tail.iter().chain(partial).map(Vec::as_slice)
    }
}

/// A text of several lines as one: continued lines joined, blanks squeezed.
pub(super) fn one_line(text: &str) -> String {
    let text: String = text.chars().take(MAX_TITLE).collect();
    let joined = text.replace("\\\n", " ").replace("\\\r\n", " ");
    joined.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let now = Instant::now();
        let mut steps = Steps::new(2);
        steps.start(1, 2, Some("a"), "RUN x \\\n   && y", now);
        assert_eq!(steps.get(1).unwrap().title, "[a 1/2] RUN x && y");
        assert_eq!(steps.output(1, false, b"one\ntw"), [b"one".to_vec()]);
        assert_eq!(steps.output(1, true, b"err\n"), [b"err".to_vec()]);
        assert_eq!(steps.output(1, false, b"o\n\nrest"), [b"two".to_vec(), b"".to_vec()]);
        assert_eq!(steps.end(1, None, now), [b"rest".to_vec()]);
        assert_eq!(String::from_utf8(steps.failure()).unwrap(), "------\n > [a 1/2] RUN x && y:\n\nrest\n------\n");
        // Unknown steps are nobody's.
        assert!(steps.output(7, false, b"x\n").is_empty() && steps.end(7, None, now).is_empty());
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut steps = Steps::new(3);
        steps.start(1, 1, None, "RUN", Instant::now());
        let cut = steps.output(1, false, &vec![b'x'; 3 * MAX_LINE + 5]);
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_LINE; 3]);
        assert_eq!(steps.output(1, false, b"\n"), [b"xxxxx".to_vec()]);
    }
}
