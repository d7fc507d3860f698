//! Word expansion: `$VAR`, `${VAR}` and its modifiers, quotes and escapes.
//!
//! This is the builder's own small language, not a shell: there is no command substitution and no globbing, and only
//! the instructions that say so are expanded. Unset variables are empty and reported to the caller.

use crate::error::{ExpandError, ExpandProblem, clip};
use crate::pattern::Pattern;

/// Longest text that one expansion may produce, in bytes.
const MAX_TEXT: usize = 4 << 20;
/// Deepest nesting of `${…}`.
const MAX_DEPTH: usize = 64;

/// Expands words against a set of variables.
#[derive(Clone, Copy)]
pub struct Expander<'a> {
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    raw_quotes: bool,
    raw_escapes: bool,
    keep_unset: bool,
    plain_quotes: bool,
}

/// The outcome of an expansion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The whole text.
    pub text: String,
    /// The text split at spaces that are neither quoted nor escaped (spaces out of a variable do split).
    pub words: Vec<String>,
    /// Variables that were used but are not set.
    pub unset: Vec<String>,
    /// Those of them that were used without saying what to do when they are missing (`${x:-…}` says so).
    pub undefined: Vec<String>,
    /// Variables that were used and are set.
    pub used: Vec<String>,
}

impl<'a> Expander<'a> {
    /// An expander with the parser's escape character and the variables in scope.
    pub fn new(escape: char, lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { escape, lookup, raw_quotes: false, raw_escapes: false, keep_unset: false, plain_quotes: false }
    }

    /// Quotes stay in the result.
    pub fn raw_quotes(self) -> Self {
        Self { raw_quotes: true, ..self }
    }

    /// Escape characters stay in the result.
    pub fn raw_escapes(self) -> Self {
        Self { raw_escapes: true, ..self }
    }

    /// Unset variables stay as written.
    pub fn keep_unset(self) -> Self {
        Self { keep_unset: true, ..self }
    }

    /// Quotes are ordinary characters (bodies of here-documents).
    pub fn plain_quotes(self) -> Self {
        Self { plain_quotes: true, ..self }
    }

    /// Expands a text.
    pub fn expand(&self, text: &str) -> Result<Expansion, ExpandError> {
        let mut scan = Scan {
            options: self,
            chars: text.chars().collect(),
            at: 0,
            depth: 0,
            unset: Vec::new(),
            undefined: Vec::new(),
            used: Vec::new(),
            budget: MAX_TEXT,
        };
        match scan.until(None, self.raw_escapes) {
            Ok((text, words)) => {
                Ok(Expansion { text, words, unset: scan.unset, undefined: scan.undefined, used: scan.used })
            }
            Err(problem) => Err(ExpandError { word: clip(text, 200), problem }),
        }
    }
}

struct Scan<'s, 'a> {
    options: &'s Expander<'a>,
    chars: Vec<char>,
    at: usize,
    depth: usize,
    unset: Vec<String>,
    undefined: Vec<String>,
    used: Vec<String>,
    /// Bytes that values may still add, over the whole expansion: nested `${a:-${a:-…}}` cannot multiply it.
    budget: usize,
}

/// Collects words while the text is collected.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if c.is_whitespace() {
            self.end();
        } else {
            self.current.push(c);
        }
    }

    fn end(&mut self) {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }
}

type Outcome<T> = Result<T, ExpandProblem>;

impl Scan<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Reads up to `stop` (consumed), or to the end when there is none.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Outcome<(String, Vec<String>)> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.at += 1;
                words.end();
                return Ok((text, words.done));
            }
            let quotes = !self.options.plain_quotes;
            match c {
                '\'' if quotes => {
                    let piece = self.single_quoted()?;
                    text.push_str(&piece);
                    words.current.push_str(&piece);
                }
                '"' if quotes => {
                    let piece = self.double_quoted(raw_escapes)?;
                    text.push_str(&piece);
                    words.current.push_str(&piece);
                }
                '$' => {
                    let piece = self.dollar()?;
                    text.push_str(&piece);
                    piece.chars().for_each(|c| words.push(c));
                }
                '<' => {
                    // `<< EOF` is one word, so that here-documents can be found among the words of a line.
                    let piece = self.angle();
                    text.push_str(&piece);
                    words.current.push_str(&piece);
                }
                c if c == self.options.escape => {
                    self.at += 1;
                    if raw_escapes {
                        text.push(c);
                        words.current.push(c);
                    }
                    // An escape at the very end stands for nothing.
                    let Some(next) = self.next() else { break };
                    text.push(next);
                    words.current.push(next);
                }
                c => {
                    self.at += 1;
                    text.push(c);
                    words.push(c);
                }
            }
        }
        if stop.is_some() {
            return Err(ExpandProblem::Brace);
        }
        words.end();
        Ok((text, words.done))
    }

    fn single_quoted(&mut self) -> Outcome<String> {
        self.at += 1;
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|c| *c == '\'').ok_or(ExpandProblem::Quote("single"))?;
        let inner: String = rest[..len].iter().collect();
        self.at += len + 1;
        Ok(if self.options.raw_quotes { format!("'{inner}'") } else { inner })
    }

    fn double_quoted(&mut self, raw_escapes: bool) -> Outcome<String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let c = self.peek().ok_or(ExpandProblem::Quote("double"))?;
            if c == '$' {
                text.push_str(&self.dollar()?);
                continue;
            }
            self.at += 1;
            if c == '"' {
                return Ok(if self.options.raw_quotes { format!("\"{text}\"") } else { text });
            }
            if c != self.options.escape {
                text.push(c);
                continue;
            }
            if raw_escapes {
                text.push(c);
            }
            match self.peek() {
                // Only these can be escaped between double quotes; before anything else the escape is itself.
                Some(next) if next == '"' || next == '$' || next == self.options.escape => {
                    self.at += 1;
                    text.push(next);
                }
                Some(_) if !raw_escapes => text.push(c),
                _ => {}
            }
        }
    }

    fn angle(&mut self) -> String {
        self.at += 1;
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.at += 1;
        let mut text = "<<".to_owned();
        while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
            text.push(c);
            self.at += 1;
        }
        text
    }

    fn dollar(&mut self) -> Outcome<String> {
        self.at += 1;
        if self.peek() == Some('{') {
            self.at += 1;
            if self.depth >= MAX_DEPTH {
                return Err(ExpandProblem::TooDeep(MAX_DEPTH));
            }
            self.depth += 1;
            let result = self.braces();
            self.depth -= 1;
            return result;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.value(&name)? {
            None if self.options.keep_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    /// After `${`.
    fn braces(&mut self) -> Outcome<String> {
        match self.peek() {
            None => return Err(ExpandProblem::Brace),
            Some('{' | '}' | ':') => return Err(ExpandProblem::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let modifier = self.next().ok_or(ExpandProblem::Brace)?;
        match modifier {
            '}' => match self.value(&name)? {
                None if self.options.keep_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            ':' => {
                let kind = self.next().ok_or(ExpandProblem::Brace)?;
                if !matches!(kind, '-' | '+' | '?') {
                    return Err(ExpandProblem::Modifier(format!(":{kind}")));
                }
                self.conditional(&name, kind, true)
            }
            '-' | '+' | '?' => self.conditional(&name, modifier, false),
            '#' | '%' => self.trim(&name, modifier),
            '/' => self.replace(&name),
            other => Err(ExpandProblem::Modifier(other.to_string())),
        }
    }

    fn conditional(&mut self, name: &str, kind: char, empty_is_unset: bool) -> Outcome<String> {
        let (word, _) = self.until(Some('}'), false)?;
        let value = self.value_if_any(name)?;
        if value.is_none() && self.options.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{kind}{word}}}"));
        }
        let present = value.as_ref().is_some_and(|v| !(empty_is_unset && v.is_empty()));
        match (kind, present) {
            ('+', true) | ('-', false) => Ok(word),
            ('+', false) => Ok(String::new()),
            ('?', false) => {
                let default = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { default.to_owned() } else { clip(&word, 200) };
                Err(ExpandProblem::Required { name: clip(name, 100), message })
            }
            _ => Ok(value.unwrap_or_default()),
        }
    }

    fn trim(&mut self, name: &str, kind: char) -> Outcome<String> {
        let (word, _) = self.until(Some('}'), true)?;
        let Some(value) = self.value(name)? else {
            return Ok(if self.options.keep_unset { format!("${{{name}{kind}{word}}}") } else { String::new() });
        };
        let (longest, text) = match word.strip_prefix(kind) {
            Some(rest) => (true, rest),
            None => (false, word.as_str()),
        };
        let pattern = self.pattern(text)?;
        let chars: Vec<char> = value.chars().collect();
        let kept = if kind == '#' {
            &chars[pattern.prefix(&chars, longest).unwrap_or(0)..]
        } else {
            &chars[..chars.len() - pattern.suffix(&chars, longest).unwrap_or(0)]
        };
        Ok(kept.iter().collect())
    }

    fn replace(&mut self, name: &str) -> Outcome<String> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let (text, _) = self.until(Some('/'), true).map_err(|p| match p {
            ExpandProblem::Brace => ExpandProblem::Slash,
            other => other,
        })?;
        let (replacement, _) = self.until(Some('}'), true)?;
        let Some(value) = self.value(name)? else {
            let slash = if all { "//" } else { "/" };
            let kept = || format!("${{{name}{slash}{text}/{replacement}}}");
            return Ok(if self.options.keep_unset { kept() } else { String::new() });
        };
        let result = self.pattern(&text)?.replace(&value, &replacement, all, self.budget);
        let result = result.ok_or(ExpandProblem::TooLong(MAX_TEXT))?;
        self.spend(result.len())?;
        Ok(result)
    }

    fn pattern(&self, text: &str) -> Outcome<Pattern> {
        Pattern::parse(text).ok_or_else(|| ExpandProblem::Pattern { pattern: clip(text, 100) })
    }

    /// A name, a run of digits, or one special parameter; possibly nothing.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let first = self.peek();
        let digits = first.is_some_and(|c| c.is_ascii_digit());
        if first.is_some_and(|c| "@*#?-$!".contains(c)) {
            self.at += 1;
            return first.into_iter().collect();
        }
        while let Some(c) = self.peek() {
            if if digits { !c.is_ascii_digit() } else { !c.is_alphanumeric() && c != '_' } {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        name
    }

    fn value(&mut self, name: &str) -> Outcome<Option<String>> {
        let value = self.value_if_any(name)?;
        if value.is_none() {
            self.undefined.push(name.to_owned());
        }
        Ok(value)
    }

    fn value_if_any(&mut self, name: &str) -> Outcome<Option<String>> {
        let value = (self.options.lookup)(name);
        match &value {
            Some(v) => {
                self.used.push(name.to_owned());
                self.spend(v.len())?;
            }
            None => self.unset.push(name.to_owned()),
        }
        Ok(value)
    }

    fn spend(&mut self, bytes: usize) -> Outcome<()> {
        self.budget = self.budget.checked_sub(bytes).ok_or(ExpandProblem::TooLong(MAX_TEXT))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
