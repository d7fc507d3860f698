//! The live picture on a terminal: each step with its time, the last lines of those that are under way.
//!
//! A picture is drawn over the one before by going up as many rows as that one takes now (terminals wrap lines again when
//! they become narrower). The cursor is hidden only while a picture is written, in one write, so that a killed build leaves
//! the terminal as it was. Nothing that a step writes reaches the terminal but its printable text.

use super::View;
use super::steps::{Stand, Step, Steps};
use crate::globals::variable;
use crate::progress::moves;
use dhow_docker::text::{terminal_safe, terminal_safe_lines};
use dhow_docker::units::human_size;
use dhow_engine::{BuildEvent, BuildOutput, Progress, ProgressEvent};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines of output that are shown of a step under way.
const TAIL: usize = 6;
/// Lines that are kept for the case that it fails.
const KEPT: usize = 40;
/// Layers of a pull that are shown.
const LAYERS: usize = 4;
/// Events alone don't draw more often than this.
const REDRAW: Duration = Duration::from_millis(50);

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Done,
    Dim,
    Bad,
}

impl Style {
    /// SGR sequences (ECMA-48, 8.3.117).
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Done => "\x1b[34m",
            Self::Dim => "\x1b[2m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// One line of the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    style: Style,
    text: String,
}

struct Layer {
    id: String,
    status: &'static str,
    current: u64,
    total: u64,
}

/// What is known, and what stands on the terminal.
struct Screen {
    out: Box<dyn Write + Send>,
    /// Rows and columns, asked for each picture.
    size: Box<dyn Fn() -> (usize, usize) + Send>,
    colour: bool,
    begun: Instant,
    steps: Steps,
    layers: Vec<Layer>,
    warnings: Vec<String>,
    /// Columns that each line of the last picture takes.
    drawn: Vec<usize>,
    last: Option<(Instant, Vec<Line>)>,
    over: bool,
}

/// The screen is shared: pulls tell of themselves from threads of their own.
#[derive(Clone)]
struct Tty(Arc<Mutex<Screen>>);

pub(super) fn begin() -> View {
    let size = || match dhow_sys::tty::size(rustix::stdio::stderr()) {
        Ok((rows, columns)) if rows > 0 && columns > 0 => (usize::from(rows), usize::from(columns)),
        _ => (24, 80),
    };
    let colour = variable("NO_COLOR").is_none();
    let screen = Screen::new(Box::new(std::io::stderr()), Box::new(size), colour);
    let tty = Tty(Arc::new(Mutex::new(screen)));
    View { output: Box::new(Closing(tty.clone())), progress: Arc::new(tty) }
}

/// The builder's end: when it goes, the last picture stays.
struct Closing(Tty);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.screen().finish(Instant::now());
    }
}

impl Tty {
    fn screen(&self) -> MutexGuard<'_, Screen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BuildOutput for Closing {
    fn event(&mut self, event: &BuildEvent<'_>) {
        self.0.screen().take(event, Instant::now());
    }

    fn tick(&mut self) {
        self.0.screen().draw(Instant::now());
    }
}

impl Progress for Tty {
    fn event(&self, event: &ProgressEvent) {
        let mut screen = self.screen();
        if let ProgressEvent::Layer { id, status, current, total } = event {
            screen.layer(id, status, *current, *total);
            screen.draw_seldom(Instant::now());
        }
    }
}

impl Screen {
    fn new(out: Box<dyn Write + Send>, size: Box<dyn Fn() -> (usize, usize) + Send>, colour: bool) -> Self {
        Self {
            out,
            size,
            colour,
            begun: Instant::now(),
            steps: Steps::new(KEPT),
            layers: Vec::new(),
            warnings: Vec::new(),
            drawn: Vec::new(),
            last: None,
            over: false,
        }
    }

    fn take(&mut self, event: &BuildEvent<'_>, now: Instant) {
        self.steps.take(event, now);
        match event {
            BuildEvent::Warning { text, .. } => self.warnings.push((*text).to_owned()),
            BuildEvent::Failed { excerpt } => {
                self.finish(now);
                let mut text = String::from_utf8_lossy(&self.steps.failure()).lines().map(clean).collect::<Vec<_>>();
                text.extend(excerpt.lines().map(|l| terminal_safe_lines(l).into_owned()));
                self.write(&(text.join("\n") + "\n"));
                return;
            }
            _ => {}
        }
        self.draw_seldom(now);
    }

    fn layer(&mut self, id: &str, status: &'static str, current: u64, total: u64) {
        match self.layers.iter_mut().find(|l| l.id == id) {
            Some(layer) => (layer.status, layer.current, layer.total) = (status, current, total),
            None => self.layers.push(Layer { id: id.to_owned(), status, current, total }),
        }
    }

    fn draw_seldom(&mut self, now: Instant) {
        if self.last.as_ref().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= REDRAW) {
            self.draw(now);
        }
    }

    fn draw(&mut self, now: Instant) {
        if self.over {
            return;
        }
        let (rows, columns) = (self.size)();
        let lines = self.picture(now, rows, columns);
        self.show(lines, now, columns);
    }

    /// The last picture is whole, however long, and stays.
    fn finish(&mut self, now: Instant) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let (_, columns) = (self.size)();
        self.layers.clear();
        let lines = self.picture(now, usize::MAX, columns);
        self.show(lines, now, columns);
        let warnings: String = self.warnings.iter().map(|w| format!("[Warning] {}\n", terminal_safe(w))).collect();
        self.write(&warnings);
    }

    fn write(&mut self, text: &str) {
        // If nobody reads the progress, the build goes on.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    fn show(&mut self, lines: Vec<Line>, now: Instant, columns: usize) {
        if self.last.as_ref().is_some_and(|(_, before)| *before == lines) {
            return;
        }
        let mut text = String::from("\x1b[?25l\r");
        let up: usize = self.drawn.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        if up > 0 {
            text.push_str(&format!("\x1b[{up}A"));
        }
        for line in &lines {
            let code = if self.colour { line.style.code() } else { "" };
            let end = if code.is_empty() { "" } else { "\x1b[m" };
            text.push_str(&format!("{code}{}{end}\x1b[K\n", line.text));
        }
        text.push_str("\x1b[J\x1b[?25h");
        self.write(&text);
        self.drawn = lines.iter().map(|l| width(&l.text)).collect();
        self.last = Some((now, lines));
    }

    /// The lines for a terminal of this size; one row is left for the cursor.
    fn picture(&self, now: Instant, rows: usize, columns: usize) -> Vec<Line> {
        let room = rows.saturating_sub(2);
        let took = seconds(now.saturating_duration_since(self.begun));
        let finished = if self.over { " FINISHED" } else { "" };
        let counts = format!("({}/{})", self.steps.ended(), self.steps.total);
        let mut lines = vec![fit(&format!("[+] Building {took} {counts}{finished}"), "", columns, Style::Plain)];
        let active: Vec<&Step> = self.steps.iter().filter(|s| s.stand == Stand::Active).collect();
        let layers = if active.is_empty() { Vec::new() } else { self.layer_lines(columns) };
        // What is under way comes first, then its output, then what is over.
        let spare = room.saturating_sub(active.len() + layers.len());
        let tail = if self.over { 0 } else { (spare / active.len().max(1)).min(TAIL) };
        let mut body: Vec<(bool, Vec<Line>)> = Vec::new();
        for step in self.steps.iter() {
            body.push((step.stand == Stand::Active, self.step_lines(step, now, columns, tail)));
        }
        let mut over: usize = (body.iter().map(|(_, l)| l.len()).sum::<usize>() + layers.len()).saturating_sub(room);
        for lines in body.iter_mut().filter(|(active, _)| !active).map(|(_, lines)| lines) {
            let cut = over.min(lines.len());
            lines.drain(..cut);
            over -= cut;
        }
        let mut body: Vec<Line> = body.into_iter().flat_map(|(_, lines)| lines).chain(layers).collect();
        body.drain(..over.min(body.len()));
        lines.append(&mut body);
        lines
    }

    fn step_lines(&self, step: &Step, now: Instant, columns: usize, tail: usize) -> Vec<Line> {
        let (word, style) = match step.stand {
            Stand::Active if self.over => ("CANCELED ", Style::Bad),
            Stand::Active => ("", Style::Plain),
            Stand::Cached => ("CACHED ", Style::Done),
            Stand::Done => ("", Style::Done),
            Stand::Failed => ("ERROR ", Style::Bad),
        };
        let took = step.took.unwrap_or_else(|| now.saturating_duration_since(step.started));
        let mut lines = vec![fit(&format!(" => {word}{}", terminal_safe(&step.title)), &seconds(took), columns, style)];
        for note in &step.notes {
            lines.push(fit(&format!(" => => {}", terminal_safe(note)), "", columns, Style::Dim));
        }
        if step.stand == Stand::Active && tail > 0 {
            let mut last: Vec<Line> = step
                .last_lines()
                .rev()
                .map(|line| clean(&String::from_utf8_lossy(line)))
                .filter(|text| !text.trim().is_empty())
                .take(tail)
                .map(|text| fit(&format!(" => => # {text}"), "", columns, Style::Dim))
                .collect();
            last.reverse();
            lines.append(&mut last);
        }
        lines
    }

    fn layer_lines(&self, columns: usize) -> Vec<Line> {
        let moving = self.layers.iter().filter(|l| moves(l.status)).take(LAYERS);
        let line = |l: &Layer| {
            let numbers = match l.total {
                0 => human_size(l.current, 4),
                total => format!("{} / {}", human_size(l.current, 4), human_size(total, 4)),
            };
            fit(&format!(" => => {} {}", terminal_safe(&l.id), l.status), &numbers, columns, Style::Dim)
        };
        moving.map(line).collect()
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// A line that ends one column before the edge, with `right` at its end. What does not fit is cut on the left side of it.
fn fit(left: &str, right: &str, columns: usize, style: Style) -> Line {
    let room = columns.saturating_sub(1);
    let right = if width(right) + 12 > room { "" } else { right };
    let place = room.saturating_sub(if right.is_empty() { 0 } else { width(right) + 1 });
    let mut text = String::new();
    let mut used = 0;
    for c in left.chars() {
        let wide = char_width(c);
        if used + wide > place {
            break;
        }
        used += wide;
        text.push(c);
    }
    if !right.is_empty() {
        text.extend(std::iter::repeat_n(' ', place - used + 1));
        text.push_str(right);
    }
    Line { style, text }
}

fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Columns that a character takes: East Asian wide ones and emoji two, combining ones none (UAX 11, in coarse blocks).
fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200d | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f | 0xfeff => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f680..=0x1f6ff | 0x1f900..=0x1f9ff => 2,
        0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// What a line of output looks like in the end, as harmless text: a return starts it again, escape sequences (ECMA-48 and
/// xterm's) are left out, tabs are blanks, and other control characters are spelled.
fn clean(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\t' => out.push_str("    "),
            '\x1b' => match chars.next() {
                // Control sequences end at a byte from @ to ~.
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // Strings (title, hyperlink, device control) end at BEL or ESC \.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(c) = chars.next() {
                        if c == '\x07' {
                            break;
                        }
                        if c == '\x1b' {
                            chars.next_if_eq(&'\\');
                            break;
                        }
                    }
                }
                // Two-byte sequences, some with one more byte (character sets).
                Some('(' | ')' | '#' | '%') => {
                    chars.next();
                }
                _ => {}
            },
            c => out.push(c),
        }
    }
    terminal_safe(&out).into_owned()
}

#[cfg(test)]
mod tests;
