//! Shell patterns inside `${name#pattern}`: `*`, `?` and escapes, no classes.
//!
//! Matching runs all alternatives at once, so its cost is the length of the text times the length of the pattern,
//! whatever the pattern.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
}

/// A parsed pattern.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(Vec<Token>);

impl Pattern {
    /// `None` when an escape stands before something that needs none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => match chars.next()? {
                    // `}` and `/` are escaped for the sake of the surrounding `${…}`.
                    c @ ('*' | '?' | '\\' | '}' | '/') => Token::Char(c),
                    _ => return None,
                },
                c => Token::Char(c),
            });
        }
        Some(Self(tokens))
    }

    fn reversed(&self) -> Self {
        Self(self.0.iter().rev().copied().collect())
    }

    /// Length of the shortest or longest prefix that matches.
    pub(crate) fn prefix(&self, text: &[char], longest: bool) -> Option<usize> {
        let mut states = self.start();
        let mut best = self.accepts(&states).then_some(0);
        for (i, c) in text.iter().enumerate() {
            if best.is_some() && !longest {
                break;
            }
            states = self.step(&states, *c);
            if !states.contains(&true) {
                break;
            }
            if self.accepts(&states) {
                best = Some(i + 1);
            }
        }
        best
    }

    /// Length of the shortest or longest suffix that matches.
    pub(crate) fn suffix(&self, text: &[char], longest: bool) -> Option<usize> {
        let backwards: Vec<char> = text.iter().rev().copied().collect();
        self.reversed().prefix(&backwards, longest)
    }

    /// Replaces the first match or all of them, the longest at each place; `None` when the result exceeds `limit` bytes.
    pub(crate) fn replace(&self, value: &str, with: &str, all: bool, limit: usize) -> Option<String> {
        let text: Vec<char> = value.chars().collect();
        let starts = self.match_starts(&text);
        let mut out = String::new();
        let mut at = 0;
        let mut replaced = false;
        while at <= text.len() {
            let found = (all || !replaced) && starts[at];
            let len = if found { self.prefix(&text[at..], true) } else { None };
            if let Some(len) = len {
                out.push_str(with);
                replaced = true;
                at += len;
            }
            if len.is_none_or(|l| l == 0) {
                out.extend(text.get(at));
                at += 1;
            }
            if out.len() > limit {
                return None;
            }
        }
        Some(out)
    }

    /// For each position, whether a match starts there: one pass from the right with the reversed pattern.
    fn match_starts(&self, text: &[char]) -> Vec<bool> {
        let backwards = self.reversed();
        let fresh = backwards.start();
        let mut states = fresh.clone();
        let mut starts = vec![false; text.len() + 1];
        starts[text.len()] = backwards.accepts(&states);
        for i in (0..text.len()).rev() {
            states = backwards.step(&states, text[i]);
            starts[i] = backwards.accepts(&states);
            for (state, start) in states.iter_mut().zip(&fresh) {
                *state |= *start;
            }
            starts[i] |= backwards.accepts(&states);
        }
        starts
    }

    fn start(&self) -> Vec<bool> {
        let mut states = vec![false; self.0.len() + 1];
        states[0] = true;
        self.close(&mut states);
        states
    }

    /// `Many` can match nothing.
    fn close(&self, states: &mut [bool]) {
        for (i, token) in self.0.iter().enumerate() {
            if states[i] && *token == Token::Many {
                states[i + 1] = true;
            }
        }
    }

    fn step(&self, states: &[bool], c: char) -> Vec<bool> {
        let mut next = vec![false; states.len()];
        for (i, token) in self.0.iter().enumerate().filter(|(i, _)| states[*i]) {
            match token {
                Token::Many => next[i] = true,
                Token::One => next[i + 1] = true,
                Token::Char(t) if *t == c => next[i + 1] = true,
                Token::Char(_) => {}
            }
        }
        self.close(&mut next);
        next
    }

    fn accepts(&self, states: &[bool]) -> bool {
        states.last() == Some(&true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_suffixes() {
        let p = |t: &str| Pattern::parse(t).unwrap();
        let chars: Vec<char> = "abcabc".chars().collect();
        assert_eq!(p("*c").prefix(&chars, false), Some(3));
        assert_eq!(p("*c").prefix(&chars, true), Some(6));
        assert_eq!(p("a*").suffix(&chars, false), Some(3));
        assert_eq!(p("a*").suffix(&chars, true), Some(6));
        assert_eq!(p("x").prefix(&chars, true), None);
        assert_eq!(p("").prefix(&chars, true), Some(0));
        assert!(Pattern::parse("\\").is_none());
    }

    #[test]
    fn replacing_hostile_input_is_linear() {
        let value = "a".repeat(50_000);
        let p = Pattern::parse("a*a*a*b").unwrap();
        assert_eq!(p.replace(&value, "x", true, usize::MAX), Some(value));
    }
}
