//! `--env`, `--env-file`, `--label` and `--label-file`.

use crate::GrammarError;
use crate::error::clip;

/// Longest line of an env or label file, in bytes (Go's `bufio.Scanner`).
const MAX_LINE: usize = 64 << 10;

/// One environment entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvEntry {
    /// `KEY=VALUE`.
    Set(String, String),
    /// `KEY` alone: the caller's own value decides.
    Inherit(String),
}

impl EnvEntry {
    /// Completes the entry with the caller's environment; `None` when an inherited variable is not set.
    pub fn resolve(self, lookup: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        match self {
            Self::Set(key, value) => Some(format!("{key}={value}")),
            Self::Inherit(key) => lookup(&key).map(|value| format!("{key}={value}")),
        }
    }
}

/// `-e KEY[=VALUE]`.
pub fn env_flag(text: &str) -> Result<EnvEntry, GrammarError> {
    match text.split_once('=') {
        Some(("", _)) => Err(GrammarError::Worded(format!("invalid environment variable: {}", clip(text)))),
        Some((key, value)) => Ok(EnvEntry::Set(key.to_owned(), value.to_owned())),
        None if text.is_empty() => Err(GrammarError::Worded("invalid environment variable: ".to_owned())),
        None => Ok(EnvEntry::Inherit(text.to_owned())),
    }
}

/// The content of an `--env-file`. `name` is for messages. Values are literal: quotes and trailing blanks stay.
pub fn env_file(name: &str, content: &[u8]) -> Result<Vec<EnvEntry>, GrammarError> {
    lines(name, content)?
        .map(|(number, line)| {
            let (key, value) = match line.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (line.trim_end(), None),
            };
            let problem = |reason: &str| GrammarError::Worded(format!("{name}:{number}: {reason}"));
            if key.is_empty() {
                return Err(problem(&format!("no variable name on line '{}'", clip(line))));
            }
            if key.contains([' ', '\t']) {
                return Err(problem(&format!("variable '{}' contains whitespaces", clip(key))));
            }
            Ok(match value {
                Some(value) => EnvEntry::Set(key.to_owned(), value.to_owned()),
                None => EnvEntry::Inherit(key.to_owned()),
            })
        })
        .collect()
}

/// `--label KEY[=VALUE]`.
pub fn label(text: &str) -> Result<(String, String), GrammarError> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(GrammarError::Worded(format!("invalid label format: {:?}", clip(text))));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// The content of a `--label-file`.
pub fn label_file(name: &str, content: &[u8]) -> Result<Vec<(String, String)>, GrammarError> {
    let entries = env_file(name, content)?;
    Ok(entries
        .into_iter()
        .map(|entry| match entry {
            EnvEntry::Set(key, value) => (key, value),
            EnvEntry::Inherit(key) => (key, String::new()),
        })
        .collect())
}

fn lines<'a>(name: &str, content: &'a [u8]) -> Result<impl Iterator<Item = (usize, &'a str)> + use<'a>, GrammarError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let text = std::str::from_utf8(content).map_err(|e| {
        GrammarError::Worded(format!("{name}: env file contains invalid utf8 bytes at byte {}", e.valid_up_to()))
    })?;
    if let Some(i) = text.split('\n').position(|line| line.len() > MAX_LINE) {
        return Err(GrammarError::Worded(format!("{name}:{}: line is longer than 64 KiB", i + 1)));
    }
    Ok(text
        .split('\n')
        .enumerate()
        .map(|(i, line)| (i + 1, line.strip_suffix('\r').unwrap_or(line).trim_start()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#')))
}
