//! A build's progress as plain lines on standard error.

use crate::error::say;
use dhow_docker::text::terminal_safe_log;
use dhow_engine::{BuildEvent, BuildOutput};
use rustix::stdio::stderr;
use std::io::Write;

/// Prints steps, the output of commands, and warnings.
pub(super) struct Plain {
    quiet: bool,
    terminal: bool,
    /// Output of the running step, kept when quiet to be shown if it fails.
    kept: Vec<u8>,
    /// The last output ended inside of a line.
    in_line: bool,
}

/// Most output that is kept for the case of failure.
const MAX_KEPT: usize = 64 << 10;

impl Plain {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, terminal: rustix::termios::isatty(stderr()), kept: Vec::new(), in_line: false }
    }

    fn line(&mut self, text: &str) {
        if std::mem::take(&mut self.in_line) {
            say("\n");
        }
        say(&format!("{text}\n"));
    }

    fn output(&mut self, bytes: &[u8]) {
        self.in_line = !bytes.ends_with(b"\n");
        // If nobody reads the progress, the build goes on.
        let mut target = std::io::stderr().lock();
        let _ = match self.terminal {
            true => target.write_all(terminal_safe_log(&String::from_utf8_lossy(bytes)).as_bytes()),
            false => target.write_all(bytes),
        };
    }
}

impl BuildOutput for Plain {
    fn event(&mut self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::Failed { excerpt } => {
                let kept = std::mem::take(&mut self.kept);
                if !kept.is_empty() {
                    self.output(&kept);
                }
                self.line(excerpt.trim_end());
            }
            // The text names the line.
            BuildEvent::Warning { text, .. } if !self.quiet => self.line(&format!("[Warning] {text}")),
            BuildEvent::Output { bytes, .. } if self.quiet => {
                let room = MAX_KEPT.saturating_sub(self.kept.len());
                self.kept.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
            }
            BuildEvent::StepStarted { .. } if self.quiet => self.kept.clear(),
            _ if self.quiet => {}
            BuildEvent::StepStarted { index, total, stage, text } => {
                let stage = stage.map(|s| format!(" [{s}]")).unwrap_or_default();
                self.line(&format!("Step {index}/{total}{stage} : {text}"));
            }
            BuildEvent::Cached => self.line(" ---> Using cache"),
            BuildEvent::Output { bytes, .. } => self.output(bytes),
            BuildEvent::StepDone { duration, layer } => {
                if let Some(layer) = layer {
                    self.line(&format!(" ---> {} ({:.2}s)", layer.short(), duration.as_secs_f64()));
                }
            }
            BuildEvent::Done { .. } | BuildEvent::Warning { .. } => {}
        }
    }
}
