//! Nothing, unless the build fails.

use super::View;
use super::steps::Steps;
use dhow_docker::text::terminal_safe_log;
use dhow_engine::{BuildEvent, BuildOutput, Progress, ProgressEvent};
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

/// Lines of a failing step that are shown: there is no other place to read them.
const TAIL: usize = 500;

struct Quiet<W> {
    out: W,
    terminal: bool,
    steps: Steps,
}

struct NoPulls;

pub(super) fn begin(terminal: bool) -> View {
    let output = Box::new(Quiet { out: std::io::stderr(), terminal, steps: Steps::new(TAIL) });
    View { output, progress: Arc::new(NoPulls) }
}

impl<W: Write> BuildOutput for Quiet<W> {
    fn event(&mut self, event: &BuildEvent<'_>) {
        self.steps.take(event, Instant::now());
        if let BuildEvent::Failed { excerpt } = event {
            let mut text = self.steps.failure();
            text.extend_from_slice(excerpt.trim_end().as_bytes());
            text.push(b'\n');
            // If nobody reads it, the exit code still says it.
            let _ = match self.terminal {
                true => self.out.write_all(terminal_safe_log(&String::from_utf8_lossy(&text)).as_bytes()),
                false => self.out.write_all(&text),
            };
        }
    }
}

impl Progress for NoPulls {
    fn event(&self, _event: &ProgressEvent) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_speak() {
        let mut view = Quiet { out: Vec::new(), terminal: true, steps: Steps::new(TAIL) };
        view.event(&BuildEvent::StepStarted { step: 1, total: 1, stage: None, text: "RUN x" });
        view.event(&BuildEvent::Output { step: 1, stderr: true, bytes: b"\x1b[2Jout" });
        view.event(&BuildEvent::Warning { line: 1, text: "w" });
        assert!(view.out.is_empty());
        view.event(&BuildEvent::StepFailed { step: 1 });
        view.event(&BuildEvent::Failed { excerpt: "Dockerfile:1" });
        assert_eq!(
            String::from_utf8(view.out).unwrap(),
            "------\n > [1/1] RUN x:\n\\u{1b}[2Jout\n------\nDockerfile:1\n"
        );
    }
}
