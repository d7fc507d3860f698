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
        let width = size.map_or(80, usize::from).max(20);
        Self { target, terminal, width, state: Mutex::new(State::default()) }
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
        let same = layer.status == status;
        if same && (!self.terminal || layer.shown.is_some_and(|t| t.elapsed() < REDRAW) && current != total) {
            return;
        }
        layer.status = status;
        layer.shown = Some(Instant::now());
        let id = terminal_safe(id);
        if !self.terminal {
            // Numbers are for people who watch.
            if !matches!(status, "Downloading" | "Extracting" | "Pushing") {
                self.write(&format!("{id}: {status}\n"));
            }
            return;
        }
        let text = format!("{id}: {status} {}", bar(current, total));
        let text: String = text.trim_end().chars().take(self.width - 1).collect();
        if known.is_none() {
            state.drawn += 1;
            self.write(&format!("\x1b[2K\r{text}\n"));
        } else {
            let up = drawn - layer.line;
            self.write(&format!("\x1b[{up}A\x1b[2K\r{text}\x1b[{up}B\r"));
        }
    }
}

fn terminal(fd: std::os::fd::BorrowedFd<'_>) -> (bool, Option<u16>) {
    (rustix::termios::isatty(fd), dhow_sys::tty::size(fd).ok().map(|(_, columns)| columns).filter(|c| *c > 0))
}

/// `[==>      ]  1.2MB/3.4MB`
fn bar(current: u64, total: u64) -> String {
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
