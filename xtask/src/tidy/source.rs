//! A Rust file without its comments and literals, so that rules can look at code alone.
//!
//! Not a parser: it knows comments, string and character literals and braces, which is all that the rules need.

use crate::sh::{self, Context, Result};
use std::path::{Path, PathBuf};

/// One file under the rules.
pub struct Source {
    /// Path relative to the workspace's root.
    pub path: PathBuf,
    /// The text as written.
    pub text: String,
    /// The text with comments and literals blanked; same length and lines.
    pub code: String,
    /// For each line, whether it belongs to test code.
    pub test_lines: Vec<bool>,
}

impl Source {
    /// Reads and prepares a file.
    pub fn read(root: &Path, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).context(path.display())?;
        let relative = path.strip_prefix(root).unwrap_or(path).to_path_buf();
        Ok(Self::new(relative, text))
    }

    /// Prepares a text.
    pub fn new(path: PathBuf, text: String) -> Self {
        let code = blank(&text);
        let whole_file = is_test_file(&path);
        let mut test_lines = vec![whole_file; code.lines().count()];
        if !whole_file {
            mark_test_items(&code, &mut test_lines);
        }
        Self { path, text, code, test_lines }
    }

    /// Lines of code that are no tests, numbered from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .zip(&self.test_lines)
            .enumerate()
            .filter(|(_, (_, test))| !**test)
            .map(|(n, (line, _))| (n + 1, line))
    }

    /// Name of the workspace member that the file belongs to.
    pub fn member(&self) -> &str {
        let mut parts = self.path.iter().filter_map(|p| p.to_str());
        match parts.next() {
            Some("crates") => parts.next().unwrap_or(""),
            other => other.unwrap_or(""),
        }
    }
}

/// Whether a file holds nothing but tests: below `tests/`, or named `tests.rs` or `…_tests.rs`.
pub fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    name == "tests.rs" || name.ends_with("_tests.rs") || path.components().any(|c| c.as_os_str() == "tests")
}

/// Every Rust file of the workspace.
pub fn all() -> Result<Vec<Source>> {
    let root = sh::root();
    let mut files = Vec::new();
    for dir in ["crates", "xtask"] {
        collect(&root.join(dir), &mut files)?;
    }
    files.sort();
    files.iter().map(|path| Source::read(&root, path)).collect()
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> Result {
    for entry in std::fs::read_dir(dir).context(dir.display())? {
        let path = entry.context(dir.display())?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                collect(&path, into)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

/// Replaces the inside of comments, strings and character literals by spaces.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'/')) => at + bytes[at..].iter().position(|b| *b == b'\n').unwrap_or(bytes.len() - at),
            (b'/', Some(b'*')) => block_comment(bytes, at),
            (b'"', _) => string(bytes, at + 1),
            (b'r', Some(b'"' | b'#')) if !in_word(bytes, at) => match raw_string(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            (b'\'', _) => match character(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn in_word(bytes: &[u8], at: usize) -> bool {
    // `br"` and `cr"` are literals too, a longer word before `r` is a name.
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match at.checked_sub(1).map(|i| bytes[i]) {
        Some(b'b' | b'c') => at >= 2 && word(bytes[at - 2]),
        Some(before) => word(before),
        None => false,
    }
}

fn block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..].iter().take_while(|b| **b == b'#').count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &bytes[open + 1..];
    let length = body.windows(close.len()).position(|w| w == close).map_or(body.len(), |p| p + close.len());
    Some(open + 1 + length)
}

/// End of a character literal, or `None` for a lifetime.
fn character(bytes: &[u8], start: usize) -> Option<usize> {
    if bytes.get(start + 1) == Some(&b'\\') {
        let tail = bytes[start + 3..].iter().take(12).position(|b| *b == b'\'')?;
        return Some(start + 3 + tail + 1);
    }
    // One character of up to four bytes, then the closing quote.
    (start + 2..=start + 5)
        .find(|end| bytes.get(*end) == Some(&b'\''))
        .filter(|end| std::str::from_utf8(&bytes[start + 1..*end]).is_ok_and(|c| c.chars().count() == 1))
        .map(|end| end + 1)
}

/// Marks the lines of items under `#[cfg(test)]` or `#[test]`.
fn mark_test_items(code: &str, marks: &mut [bool]) {
    let lines: Vec<&str> = code.lines().collect();
    let mut number = 0;
    while number < lines.len() {
        let line = lines[number].trim_start();
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test") || line.starts_with("#[test]") {
            let end = item_end(&lines, number);
            marks[number..=end].fill(true);
            number = end;
        }
        number += 1;
    }
}

/// Last line of the item that starts at `start`: where its braces close, or its semicolon.
pub fn item_end(lines: &[&str], start: usize) -> usize {
    let mut depth = 0i32;
    let mut opened = false;
    let mut brackets = 0i32;
    for (number, line) in lines.iter().enumerate().skip(start) {
        for byte in line.bytes() {
            match byte {
                b'(' | b'[' => brackets += 1,
                b')' | b']' => brackets -= 1,
                b'{' => (depth, opened) = (depth + 1, true),
                b'}' => depth -= 1,
                b';' if !opened && brackets == 0 => return number,
                _ => {}
            }
        }
        if opened && depth <= 0 {
            return number;
        }
    }
    lines.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_vanish() {
        let text = "let a = \"un{safe\"; // unsafe\nlet b = 'x'; let c: &'a str = r#\"}\"#; /* { /* } */ */ d('\\'')";
        let code = blank(text);
        assert_eq!(code.len(), text.len());
        assert!(!code.contains("safe") && !code.contains('}') && !code.contains('{'), "{code}");
        assert!(code.contains("let c: &'a str ="), "{code}");
        assert!(code.ends_with("d(    )"), "{code}");
    }

    #[test]
    fn test_modules_are_marked() {
        let text = "fn a() {\n}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod other;\n";
        let source = Source::new("crates/x/src/a.rs".into(), text.to_owned());
        assert_eq!(source.test_lines, [false, false, true, true, true, true, false, true, true]);
        assert_eq!(source.member(), "x");
    }

    #[test]
    fn a_file_of_tests_is_all_test() {
        let source = Source::new("crates/x/src/a/tests.rs".into(), "fn a() {}\n".to_owned());
        assert_eq!(source.test_lines, [true]);
    }
}
