//! Fixed texts, exit codes, and text that is safe on a terminal.

use dhow_types::ErrorKind;
use std::borrow::Cow;

/// Flag or usage error, and every engine error of `run`.
pub const EXIT_USAGE: i32 = 125;
/// The command of `run` or `exec` cannot be executed.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;
/// The command of `run` or `exec` was not found.
pub const EXIT_NOT_FOUND: i32 = 127;
/// A `--format` template of `inspect` does not parse.
pub const EXIT_TEMPLATE: i32 = 64;

/// Exit code of a command that failed. `run` and `create` answer 125 where others answer 1.
pub const fn exit_code(kind: ErrorKind, runs_container: bool) -> i32 {
    match kind {
        ErrorKind::CommandNotFound => EXIT_NOT_FOUND,
        ErrorKind::CommandNotExecutable => EXIT_NOT_EXECUTABLE,
        _ if runs_container => EXIT_USAGE,
        _ => 1,
    }
}

/// The text with everything escaped that could move a terminal's cursor, change its state or reorder its text: control
/// characters (C0, DEL, C1) and bidirectional overrides.
pub fn terminal_safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The same for text of several lines: line ends and tabs stay.
pub fn terminal_safe_lines(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) && c != '\n' && c != '\t') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            c if is_unsafe(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The same for what programs wrote themselves (logs): line ends, returns, tabs and colours (SGR sequences, ECMA-48
/// section 8.3.117) stay, as they change nothing but how text looks.
pub fn terminal_safe_log(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) && !matches!(c, '\n' | '\r' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let width = match c {
            '\x1b' => colour(rest).unwrap_or(0),
            '\n' | '\r' | '\t' => 1,
            c if is_unsafe(c) => 0,
            c => c.len_utf8(),
        };
        if width == 0 {
            out.extend(c.escape_unicode());
            rest = &rest[c.len_utf8()..];
        } else {
            let (keep, after) = rest.split_at(width);
            out.push_str(keep);
            rest = after;
        }
    }
    Cow::Owned(out)
}

/// Length of the SGR sequence that a text starts with.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    (end <= 32 && parameters[end..].starts_with('m')).then_some(end + 3)
}

const fn is_unsafe(c: char) -> bool {
    matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Closest of `known` to a mistyped word, when it is close enough to be meant.
pub fn suggestion<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = typed.chars().count().div_ceil(3).min(3);
    known
        .into_iter()
        .map(|k| (distance(typed, k), k))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Edit distance in which swapping two neighbours counts as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let width = b.len() + 1;
    let mut d = vec![0usize; (a.len() + 1) * width];
    let at = |i: usize, j: usize| i * width + j;
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            d[at(i, j)] = if i == 0 || j == 0 {
                i + j
            } else {
                let cost = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (d[at(i - 1, j)] + 1).min(d[at(i, j - 1)] + 1).min(d[at(i - 1, j - 1)] + cost);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(d[at(i - 2, j - 2)] + 1);
                }
                best
            };
        }
    }
    d[at(a.len(), b.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_never_reach_a_terminal() {
        assert_eq!(terminal_safe("plain ünï"), "plain ünï");
        assert_eq!(terminal_safe("\x1b[31mred\r\n\u{9b}"), "\\u{1b}[31mred\\u{d}\\u{a}\\u{9b}");
        assert_eq!(terminal_safe("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(terminal_safe_lines("a\n\tb\x07"), "a\n\tb\\u{7}");
        assert_eq!(terminal_safe_log("\x1b[1;31mred\x1b[0m\r\n"), "\x1b[1;31mred\x1b[0m\r\n");
        assert_eq!(terminal_safe_log("\x1b[2J\x1b]0;x\x07\x1b[m\x1b["), "\\u{1b}[2J\\u{1b}]0;x\\u{7}\x1b[m\\u{1b}[");
    }

    #[test]
    fn suggestions() {
        let known = ["ps", "pull", "push", "run", "images", "inspect"];
        assert_eq!(suggestion("rnu", known), Some("run"));
        assert_eq!(suggestion("image", known), Some("images"));
        assert_eq!(suggestion("insepct", known), Some("inspect"));
        assert_eq!(suggestion("frobnicate", known), None);
    }
}
