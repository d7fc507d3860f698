//! `.dockerignore`: ordered patterns, the last match wins, `!` re-includes.
//!
//! The semantics are those of moby's `patternmatcher`: patterns are anchored at the context root, `**` stands for any
//! number of path elements, and whatever lies below an excluded directory is excluded with it.

use crate::error::clip;
use crate::glob::{self, Token};

/// The file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A lone `!`.
    #[error("illegal exclusion pattern: \"!\" (line {0} of the ignore file)")]
    LoneBang(usize),
    /// A pattern that does not parse.
    #[error("syntax error in pattern {pattern:?} (line {line} of the ignore file)")]
    Pattern {
        /// Line, counted from 1.
        line: usize,
        /// As written.
        pattern: String,
    },
}

impl dhow_types::Categorized for IgnoreError {
    fn kind(&self) -> dhow_types::ErrorKind {
        dhow_types::ErrorKind::Invalid
    }
}

/// A parsed ignore file.
#[derive(Debug, Clone, Default)]
pub struct IgnoreList {
    patterns: Vec<Pattern>,
}

/// Which patterns matched a directory; handed down to its entries.
#[derive(Debug, Clone, Default)]
pub struct ParentMatch(Vec<bool>);

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    everything: bool,
    matcher: Matcher,
    /// The literal path before the first wildcard, or `None` when a wildcard stands before the last element.
    literal: Option<String>,
}

#[derive(Debug, Clone)]
enum Matcher {
    Exact(String),
    /// `x**`: anything that starts with x.
    Prefix(String),
    /// `**x`: anything that ends in x; `**/x` also x itself.
    Suffix(String),
    Tokens(Vec<Piece>),
}

#[derive(Debug, Clone)]
enum Piece {
    Token(Token),
    /// `**` before something: nothing, or anything that ends in a slash.
    Deep,
    /// `**` at the end: anything.
    Rest,
}

impl IgnoreList {
    /// Reads an ignore file. Bytes that are not UTF-8 match nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, IgnoreError> {
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let text = String::from_utf8_lossy(bytes);
        let mut patterns = Vec::new();
        for (i, line) in text.lines().enumerate() {
            // A comment starts in the first column: ` #x` is a pattern.
            if line.starts_with('#') {
                continue;
            }
            patterns.extend(pattern(line, i + 1)?);
        }
        Ok(Self { patterns })
    }

    /// Patterns given one by one, as `--exclude` does.
    pub fn from_patterns<'a>(list: impl IntoIterator<Item = &'a str>) -> Result<Self, IgnoreError> {
        let mut patterns = Vec::new();
        for (i, text) in list.into_iter().enumerate() {
            patterns.extend(pattern(text, i + 1)?);
        }
        Ok(Self { patterns })
    }

    /// No pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path (relative to the context, no leading slash) is excluded. Checks every parent: for single
    /// questions; a walk uses [`IgnoreList::excludes_entry`].
    pub fn excludes(&self, path: &str) -> bool {
        let mut parent = ParentMatch::default();
        let mut excluded = false;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            (excluded, parent) = self.excludes_entry(&path[..end], &parent);
        }
        excluded
    }

    /// Whether an entry is excluded, given what matched its directory. The result is handed on to the entry's own
    /// entries.
    pub fn excludes_entry(&self, path: &str, parent: &ParentMatch) -> (bool, ParentMatch) {
        let mut excluded = false;
        let mut chars: Option<Vec<char>> = None;
        let mut matched = Vec::with_capacity(self.patterns.len());
        for (i, pattern) in self.patterns.iter().enumerate() {
            let hit = parent.0.get(i).copied().unwrap_or(false)
                // A pattern that cannot change the outcome is not tried.
                || (pattern.negated == excluded && pattern.matches(path, &mut chars));
            matched.push(hit);
            if hit {
                excluded = !pattern.negated;
            }
        }
        (excluded, ParentMatch(matched))
    }

    /// Whether a pattern re-includes something.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|p| p.negated)
    }

    /// Whether a pattern excludes whatever there is, dot files included: `*`, `**`, `**/*`.
    pub fn excludes_everything(&self) -> bool {
        self.patterns.iter().any(|p| p.everything)
    }

    /// Whether something below an excluded directory may be re-included, so that a walk must look into it.
    pub fn may_include_below(&self, directory: &str) -> bool {
        self.patterns.iter().filter(|p| p.negated).any(|p| match &p.literal {
            None => true,
            Some(literal) => literal.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/')),
        })
    }
}

/// One line, cleaned; `None` when it is blank.
fn pattern(line: &str, number: usize) -> Result<Option<Pattern>, IgnoreError> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(None);
    }
    let (negated, body) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    if body.is_empty() {
        return Err(IgnoreError::LoneBang(number));
    }
    let cleaned = clean(body);
    let cleaned = if cleaned.len() > 1 { cleaned.strip_prefix('/').unwrap_or(&cleaned) } else { &cleaned };
    let bad = || IgnoreError::Pattern { line: number, pattern: clip(body, 100) };
    let matcher = compile(cleaned).ok_or_else(bad)?;
    let literal = literal_part(cleaned);
    let everything = !negated && matches!(cleaned, "*" | "**" | "**/*");
    Ok(Some(Pattern { negated, everything, matcher, literal }))
}

/// Go's `path.Clean`: no empty, `.` or inner `..` elements, no trailing slash.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// The pattern without a trailing wildcard element, when nothing before that has wildcards.
fn literal_part(pattern: &str) -> Option<String> {
    let trimmed = ["/**", "/*"].iter().find_map(|t| pattern.strip_suffix(t)).unwrap_or(pattern);
    (!trimmed.contains(['*', '?', '[', '\\'])).then(|| trimmed.to_owned())
}

fn compile(pattern: &str) -> Option<Matcher> {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        pieces.push(match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                // `**/` is the same as `**`.
                chars.next_if_eq(&'/');
                if chars.peek().is_none() { Piece::Rest } else { Piece::Deep }
            }
            '*' => Piece::Token(Token::Many),
            '?' => Piece::Token(Token::One),
            '[' => Piece::Token(glob::class(&mut chars)?),
            '\\' => Piece::Token(Token::Char(chars.next()?)),
            c => Piece::Token(Token::Char(c)),
        });
    }
    let plain = |pieces: &[Piece]| pieces.iter().all(|p| matches!(p, Piece::Token(Token::Char(_))));
    let special = pattern.contains('\\');
    Some(match pieces.as_slice() {
        all if plain(all) && !special => Matcher::Exact(pattern.to_owned()),
        [start @ .., Piece::Rest] if plain(start) && !special => {
            Matcher::Prefix(pattern.trim_end_matches('*').to_owned())
        }
        [Piece::Deep, rest @ ..] if plain(rest) && !special => Matcher::Suffix(pattern["**".len()..].to_owned()),
        _ => Matcher::Tokens(pieces),
    })
}

impl Pattern {
    fn matches(&self, path: &str, chars: &mut Option<Vec<char>>) -> bool {
        match &self.matcher {
            Matcher::Exact(text) => path == text,
            Matcher::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix.as_str()) || suffix.strip_prefix('/').is_some_and(|name| path == name)
            }
            Matcher::Tokens(pieces) => run(pieces, chars.get_or_insert_with(|| path.chars().collect())),
        }
    }
}

/// All alternatives at once: the cost is the length of the path times that of the pattern.
fn run(pieces: &[Piece], text: &[char]) -> bool {
    let mut states = vec![false; pieces.len() + 1];
    states[0] = true;
    close(pieces, &mut states);
    // Characters that `Deep` has eaten without having reached its slash yet.
    let mut inside = vec![false; pieces.len()];
    for c in text {
        let mut next = vec![false; states.len()];
        let mut next_inside = vec![false; pieces.len()];
        for (i, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Deep if states[i] || inside[i] => {
                    next_inside[i] = true;
                    next[i + 1] |= *c == '/';
                }
                Piece::Rest if states[i] => next[i] = true,
                Piece::Token(Token::Many) if states[i] && *c != '/' => next[i] = true,
                Piece::Token(token) if states[i] && !matches!(token, Token::Many) && token.takes(*c) => {
                    next[i + 1] = true;
                }
                _ => {}
            }
        }
        close(pieces, &mut next);
        (states, inside) = (next, next_inside);
    }
    states.last() == Some(&true)
}

/// `*` and `**` can match nothing.
fn close(pieces: &[Piece], states: &mut [bool]) {
    for (i, piece) in pieces.iter().enumerate() {
        if states[i] && matches!(piece, Piece::Deep | Piece::Rest | Piece::Token(Token::Many)) {
            states[i + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn excluded(patterns: &str, path: &str) -> bool {
        IgnoreList::parse(patterns.as_bytes()).unwrap().excludes(path)
    }

    #[test]
    fn table() {
        for (patterns, path, expected) in [
            ("foo", "foo", true),
            ("foo", "sub/foo", false),
            ("foo", "foo/bar", true),
            ("foo/", "foo", true),
            ("/foo", "foo", true),
            ("./foo", "foo", true),
            ("a/../b", "b", true),
            ("*.md", "a.md", true),
            ("*.md", "x/a.md", false),
            ("*/a.md", "x/a.md", true),
            ("**/a.md", "a.md", true),
            ("**/a.md", "x/y/a.md", true),
            ("**/*.md", "x/y/a.md", true),
            ("**/*.md", "a.md", true),
            ("**", "anything/at/all", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/bz", false),
            ("?", "a", true),
            ("?", "é", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("{a,b}", "a", false),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "other", true),
            ("*\n!keep/me", "keep/me", false),
            ("a\n!a/b\na/b/c", "a/b/d", false),
            ("a\n!a/b\na/b/c", "a/b/c", true),
            ("!a\na", "a", true),
            ("# no\nfoo", "# no", false),
            (" #x", "#x", true),
            ("\u{feff}foo", "foo", true),
            ("foo\r\nbar\r\n", "foo", true),
            ("! foo", "foo", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            (".git", ".gitignore", false),
        ] {
            assert_eq!(excluded(patterns, path), expected, "{patterns:?} {path:?}");
        }
        assert!(IgnoreList::parse(b"!").is_err());
        assert!(IgnoreList::parse(b"a\n[").is_err());
    }

    #[test]
    fn walks_know_where_to_look() {
        let list = IgnoreList::parse(b"*\n!src/keep/**\n").unwrap();
        assert!(list.may_include_below("src") && !list.may_include_below("doc") && !list.may_include_below("sr"));
        assert!(IgnoreList::parse(b"*\n!**/x\n").unwrap().may_include_below("doc"));
    }

    #[test]
    fn hostile_patterns_stay_cheap() {
        let list = IgnoreList::parse("**/*a".repeat(200).as_bytes()).unwrap();
        assert!(!list.excludes(&"b".repeat(4_000)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn never_panics(patterns in "[a*?\\[\\]!/\\\\.# \n-]{0,30}", path in "[a/.é]{0,20}") {
            if let Ok(list) = IgnoreList::parse(patterns.as_bytes()) {
                let _ = list.excludes(&path);
            }
        }

        #[test]
        fn plain_patterns_match_themselves_and_below(path in "[a-c]{1,3}(/[a-c]{1,3}){0,3}") {
            prop_assert!(excluded(&path, &path));
            let below = format!("{path}/x");
            prop_assert!(excluded(&path, &below));
            let both = format!("{path}\n!{path}");
            prop_assert!(!excluded(&both, &path));
        }
    }
}
