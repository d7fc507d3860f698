//! Progress of pulls and pushes: lines that redraw themselves on a terminal, plain lines elsewhere.

use crate::error::CliError;
use dhow_docker::text::terminal_safe;
use dhow_docker::units::human_size;
use dhow_engine::{Engine, Progress, ProgressEvent, Pulled};
use dhow_types::{Platform, Reference};
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    Stderr,
    Nowhere,
}

/// Shows events. Called from several threads.
pub(crate) struct Lines {
    target: Target,
    terminal: bool,
    width: usize,
    height: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Layers in the order of their first event, with what was last shown.
    layers: Vec<Layer>,
    /// Lines printed since the first layer: how far up a layer's line is.
    drawn: usize,
}

struct Layer {
    id: String,
    status: &'static str,
    line: usize,
    shown: Option<Instant>,
}

/// No layer is redrawn more often for a change of numbers alone.
const REDRAW: Duration = Duration::from_millis(80);

impl Lines {
    pub(crate) fn new(target: Target) -> Self {
        let (terminal, size) = match target {
            Target::Stdout => terminal(rustix::stdio::stdout()),
            Target::Stderr => terminal(rustix::stdio::stderr()),
            Target::Nowhere => (false, None),
        };
        let (height, width) = size.unwrap_or((24, 80));
        let (height, width) = (usize::from(height), usize::from(width).max(20));
        Self { target, terminal, width, height, state: Mutex::new(State::default()) }
    }

    fn write(&self, text: &str) {
        // Progress that cannot be shown must not stop the transfer.
        let _ = match self.target {
            Target::Stdout => std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()),
            Target::Stderr => std::io::stderr().write_all(text.as_bytes()),
            Target::Nowhere => Ok(()),
        };
    }

    fn layer(&self, state: &mut State, id: &str, status: &'static str, current: u64, total: u64) {
        let known = state.layers.iter().position(|l| l.id == id);
        let at = known.unwrap_or_else(|| {
            state.layers.push(Layer { id: id.to_owned(), status: "", line: state.drawn, shown: None });
            state.layers.len() - 1
        });
        let drawn = state.drawn;
        let Some(layer) = state.layers.get_mut(at) else { return };
        // Download and extraction of a layer go on at the same time and tell of themselves in turn.
        let same = layer.status == status || (moves(layer.status) && moves(status));
        let fresh = layer.shown.is_some_and(|t| t.elapsed() < REDRAW);
        if same && (!self.terminal || fresh && current != total) {
            return;
        }
        layer.status = status;
        layer.shown = Some(Instant::now());
        let id = terminal_safe(id);
        if !self.terminal {
            // Numbers are for people who watch.
            if !moves(status) {
                self.write(&format!("{id}: {status}\n"));
            }
            return;
        }
        let bar = if moves(status) { bar(current, total) } else { String::new() };
        let text = format!("{id}: {status} {bar}");
        let text: String = text.trim_end().chars().take(self.width - 1).collect();
        if known.is_none() {
            state.drawn += 1;
            self.write(&format!("\x1b[2K\r{text}\n"));
        } else {
            let up = drawn - layer.line;
            // A line that has left the screen can't be reached any more.
            if up >= self.height {
                return;
            }
            self.write(&format!("\x1b[{up}A\x1b[2K\r{text}\x1b[{up}B\r"));
        }
    }
}

fn terminal(fd: std::os::fd::BorrowedFd<'_>) -> (bool, Option<(u16, u16)>) {
    let size = dhow_sys::tty::size(fd).ok().filter(|(rows, columns)| *rows > 0 && *columns > 0);
    (rustix::termios::isatty(fd), size)
}

/// Whether a status is one with a bar.
pub(crate) fn moves(status: &str) -> bool {
    matches!(status, "Downloading" | "Extracting" | "Pushing")
}

/// `[==>      ]  1.2MB/3.4MB`
pub(crate) fn bar(current: u64, total: u64) -> String {
    const WIDTH: u64 = 50;
    if total == 0 {
        return if current == 0 { String::new() } else { human_size(current, 4) };
    }
    if current == 0 {
        return String::new();
    }
    let done = (current.min(total).saturating_mul(WIDTH) / total) as usize;
    let arrow = if done < WIDTH as usize { ">" } else { "" };
    let rest = (WIDTH as usize).saturating_sub(done + arrow.len());
    format!("[{}{arrow}{}]  {}/{}", "=".repeat(done), " ".repeat(rest), human_size(current, 4), human_size(total, 4))
}

impl Progress for Lines {
    fn event(&self, event: &ProgressEvent) {
        if self.target == Target::Nowhere {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ProgressEvent::Message(text) => {
                let text = if self.terminal { terminal_safe(text) } else { text.into() };
                self.write(&format!("{text}\n"));
                state.drawn += 1;
            }
            ProgressEvent::Layer { id, status, current, total } => self.layer(&mut state, id, status, *current, *total),
        }
    }
}

/// Pulls an image and shows it.
pub(crate) fn pull_image(
    engine: &Engine,
    reference: &Reference,
    platform: Option<&Platform>,
    target: Target,
) -> Result<Pulled, CliError> {
    Ok(engine.pull(reference, platform, &Lines::new(target))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(0, 10), "");
        assert_eq!(bar(5_000_000, 10_000_000), format!("[{}>{}]  5MB/10MB", "=".repeat(25), " ".repeat(24)));
        assert_eq!(bar(10, 10), format!("[{}]  10B/10B", "=".repeat(50)));
        assert_eq!(bar(20, 10), format!("[{}]  20B/10B", "=".repeat(50)));
        assert_eq!(bar(7, 0), "7B");
    }
}
