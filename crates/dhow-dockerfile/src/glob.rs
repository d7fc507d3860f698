//! Wildcards of `COPY` and `ADD`: Go's `filepath.Match`, which knows `*`, `?`, classes and escapes, none of them across a
//! slash.

/// The pattern does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {0:?}")]
pub struct BadPattern(pub String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Char(char),
    One,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Token {
    /// Whether the token, which is not `Many`, takes this character.
    pub(crate) fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(t) => *t == c,
            Self::One | Self::Many => c != '/',
            Self::Class { negated, ranges } => ranges.iter().any(|(lo, hi)| (*lo..=*hi).contains(&c)) != *negated,
        }
    }
}

/// Whether a text has wildcards at all.
pub fn has_wildcards(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// The text with its escapes resolved.
pub fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

/// Whether `name` as a whole matches `pattern`.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let tokens = parse(pattern)?;
    Ok(run(&tokens, &name.chars().collect::<Vec<_>>()))
}

pub(crate) fn parse(pattern: &str) -> Result<Vec<Token>, BadPattern> {
    let bad = || BadPattern(pattern.chars().take(100).collect());
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Many,
            '?' => Token::One,
            '[' => class(&mut chars).ok_or_else(bad)?,
            '\\' => Token::Char(chars.next().ok_or_else(bad)?),
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

/// After `[`.
pub(crate) fn class(chars: &mut std::iter::Peekable<std::str::Chars>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if chars.peek() == Some(&']') && !ranges.is_empty() {
            chars.next();
            return Some(Token::Class { negated, ranges });
        }
        let lo = class_char(chars)?;
        let hi = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { lo };
        ranges.push((lo, hi));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

/// Greedy matching with one place to come back to: linear for each star.
fn run(tokens: &[Token], text: &[char]) -> bool {
    let (mut t, mut c) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match tokens.get(t) {
            Some(Token::Many) => {
                retry = Some((t + 1, c));
                t += 1;
                continue;
            }
            Some(token) if text.get(c).is_some_and(|ch| token.takes(*ch)) => {
                t += 1;
                c += 1;
                continue;
            }
            None if c == text.len() => return true,
            _ => {}
        }
        // The last star takes one character more, but never a slash.
        let Some((after, from)) = retry else { return false };
        match text.get(from) {
            Some(ch) if *ch != '/' => {
                retry = Some((after, from + 1));
                t = after;
                c = from + 1;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[b-d]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("[^a]", "b", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), Ok(expected), "{pattern} {name}");
        }
        for bad in ["[", "[]a]", "[-]", "[x-]", "[a", "a[", "\\"] {
            assert!(matches(bad, "a").is_err(), "{bad}");
        }
    }

    #[test]
    fn wildcards_are_told_from_escapes() {
        assert!(has_wildcards("a*") && has_wildcards("[a]") && !has_wildcards("a\\*"));
        assert_eq!(unescape("a\\*b\\"), "a*b\\");
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = "*a".repeat(100);
        assert_eq!(matches(&pattern, &"b".repeat(10_000)), Ok(false));
    }
}
