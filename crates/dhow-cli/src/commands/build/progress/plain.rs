//! Plain lines, in BuildKit's form: `#5 [build 2/4] RUN make`, `#5 0.123 output`, `#5 DONE 0.3s`.

use super::View;
use super::steps::{Stand, Steps};
use crate::progress::moves;
use dhow_docker::text::terminal_safe_log;
use dhow_engine::{BuildEvent, BuildOutput, Progress, ProgressEvent};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Lines of a failing step that are shown again at the end.
const TAIL: usize = 20;

/// Prints lines.
pub(super) struct Plain<W> {
    out: W,
    /// What others wrote is made safe for a terminal.
    terminal: bool,
    steps: Steps,
    /// The step whose title is the last one printed.
    shown: Option<usize>,
}

pub(super) fn begin(terminal: bool) -> View {
    let output = Box::new(Plain::new(std::io::stderr(), terminal));
    View { output, progress: Arc::new(Pulls { terminal, shown: Mutex::default() }) }
}

impl<W: Write> Plain<W> {
    fn new(out: W, terminal: bool) -> Self {
        Self { out, terminal, steps: Steps::new(TAIL), shown: None }
    }

    /// One line in one write, so that lines of others do not come between.
    fn line(&mut self, bytes: &[u8]) {
        let mut line = match self.terminal {
            true => terminal_safe_log(&String::from_utf8_lossy(bytes)).into_owned().into_bytes(),
            false => bytes.to_vec(),
        };
        line.push(b'\n');
        // If nobody reads the progress, the build goes on.
        let _ = self.out.write_all(&line);
    }

    fn title(&mut self, number: usize) {
        let Some(step) = self.steps.get(number) else { return };
        let title = format!("#{number} {}", step.title);
        if self.shown.replace(number).is_some() {
            self.line(b"");
        }
        self.line(title.as_bytes());
    }

    fn lines(&mut self, number: usize, lines: &[Vec<u8>]) {
        if lines.is_empty() {
            return;
        }
        if self.shown != Some(number) {
            self.title(number);
        }
        let begun = self.steps.get(number).map_or_else(Instant::now, |s| s.started);
        for line in lines {
            let mut text = format!("#{number} {:.3} ", begun.elapsed().as_secs_f64()).into_bytes();
            text.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            self.line(&text);
        }
    }
}

impl<W: Write> BuildOutput for Plain<W> {
    fn event(&mut self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::StepStarted { step, total, stage, text } => {
                self.steps.start(*step, *total, *stage, text, Instant::now());
                self.title(*step);
            }
            BuildEvent::Cached { step } => {
                self.steps.cached(*step);
                self.line(format!("#{step} CACHED").as_bytes());
            }
            BuildEvent::Note { step, text } => self.line(format!("#{step} explain: {text}").as_bytes()),
            BuildEvent::Output { step, stderr, bytes } => {
                let lines = self.steps.output(*step, *stderr, bytes);
                self.lines(*step, &lines);
            }
            BuildEvent::StepDone { step, duration, .. } => {
                let rest = self.steps.end(*step, Some(*duration), Instant::now());
                self.lines(*step, &rest);
                if self.steps.get(*step).is_some_and(|s| s.stand == Stand::Done) {
                    self.line(format!("#{step} DONE {:.1}s", duration.as_secs_f64()).as_bytes());
                }
            }
            BuildEvent::StepFailed { step } => {
                let rest = self.steps.end(*step, None, Instant::now());
                self.lines(*step, &rest);
                self.line(format!("#{step} ERROR").as_bytes());
            }
            // The text names the line.
            BuildEvent::Warning { text, .. } => self.line(format!("[Warning] {text}").as_bytes()),
            BuildEvent::Failed { excerpt } => {
                let mut text = self.steps.failure();
                text.extend_from_slice(excerpt.trim_end().as_bytes());
                self.line(&text);
            }
            BuildEvent::Done { .. } => {}
        }
    }
}

/// Says what becomes of pulls and pushes, without numbers.
struct Pulls {
    terminal: bool,
    shown: Mutex<BTreeMap<String, &'static str>>,
}

impl Progress for Pulls {
    fn event(&self, event: &ProgressEvent) {
        let text = match event {
            ProgressEvent::Message(text) => format!("#0 {text}\n"),
            ProgressEvent::Layer { id, status, .. } => {
                let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
                // Numbers are for people who watch.
                if moves(status) || shown.insert(id.clone(), status) == Some(*status) {
                    return;
                }
                format!("#0 {id}: {status}\n")
            }
        };
        let text = if self.terminal { terminal_safe_log(&text).into_owned() } else { text };
        // Progress that cannot be shown must not stop the transfer.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn started<'a>(step: usize, stage: Option<&'a str>, text: &'a str) -> BuildEvent<'a> {
        BuildEvent::StepStarted { step, total: 3, stage, text }
    }

    fn output(step: usize, bytes: &[u8]) -> BuildEvent<'_> {
        BuildEvent::Output { step, stderr: false, bytes }
    }

    fn show(terminal: bool, events: &[BuildEvent<'_>]) -> String {
        let mut view = Plain::new(Vec::new(), terminal);
        for event in events {
            view.event(event);
        }
        let text = String::from_utf8_lossy(&view.out).into_owned();
        // Times of lines depend on the machine.
        let time = |word: &str| word.len() == 5 && word.starts_with("0.0");
        text.lines()
            .map(|l| l.split(' ').map(|w| if time(w) { "TIME" } else { w }).collect::<Vec<_>>().join(" ") + "\n")
            .collect()
    }

    #[test]
    fn several_at_once() {
        let done = |step, ms| BuildEvent::StepDone { step, duration: Duration::from_millis(ms), layer: None };
        let text = show(
            false,
            &[
                started(1, Some("a"), "FROM busybox"),
                BuildEvent::Cached { step: 1 },
                done(1, 0),
                started(2, Some("a"), "RUN make \\\n  all"),
                started(3, None, "RUN test"),
                BuildEvent::Note { step: 3, text: "file x changed" },
                output(2, b"half"),
                output(3, b"three\r\n"),
                output(2, b" line\nrest"),
                done(2, 1250),
                BuildEvent::Warning { line: 3, text: "line 3: careful" },
                done(3, 40),
            ],
        );
        insta::assert_snapshot!(text, @r"
        #1 [a 1/3] FROM busybox
        #1 CACHED

        #2 [a 2/3] RUN make all

        #3 [3/3] RUN test
        #3 explain: file x changed
        #3 TIME three

        #2 [a 2/3] RUN make all
        #2 TIME half line
        #2 TIME rest
        #2 DONE 1.2s
        [Warning] line 3: careful
        #3 DONE 0.0s
        ");
    }

    #[test]
    fn failures() {
        let events = [
            started(2, None, "RUN false"),
            output(2, b"why\n"),
            BuildEvent::StepFailed { step: 2 },
            BuildEvent::Failed { excerpt: "Dockerfile:2\n   2 | >>> RUN false\n" },
        ];
        insta::assert_snapshot!(show(false, &events), @r"
        #2 [2/3] RUN false
        #2 TIME why
        #2 ERROR
        ------
         > [2/3] RUN false:
        why
        ------
        Dockerfile:2
           2 | >>> RUN false
        ");
    }

    #[test]
    fn bytes_pass_but_not_to_a_terminal() {
        let events = [started(1, None, "RUN x"), output(1, b"\x1b]0;title\x07\x1b[2J\x1b[31mred\n")];
        assert!(show(false, &events).contains("\x1b]0;title\x07\x1b[2J\x1b[31mred\n"));
        let safe = show(true, &events);
        assert!(safe.contains("\\u{1b}]0;title\\u{7}\\u{1b}[2J\x1b[31mred"), "{safe}");
    }
}
