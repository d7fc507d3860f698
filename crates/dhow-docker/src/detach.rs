//! Detach keys: the grammar and the matcher that watches what is typed.

use crate::GrammarError;

/// Docker's default, ctrl-p ctrl-q.
pub const DEFAULT: [u8; 2] = [16, 17];

/// A comma list of single characters, `ctrl-` with one of `a-z @ [ \ ] ^ _`, or `DEL`.
pub fn parse(text: &str) -> Result<Vec<u8>, GrammarError> {
    text.split(',')
        .map(|key| {
            let bad = || {
                GrammarError::Worded(format!(
                    "Invalid detach keys (unknown character: '{}') provided",
                    crate::error::clip(key)
                ))
            };
            match (key.as_bytes(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
                ([single], _) => Ok(*single),
                (_, Some([c @ b'a'..=b'z'])) => Ok(c - b'a' + 1),
                (_, Some([c @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')])) => Ok(c - b'@'),
                _ if key == "DEL" => Ok(127),
                _ => Err(bad()),
            }
        })
        .collect()
}

/// Finds the sequence in a stream of typed bytes. Bytes that may still become the sequence are held back.
#[derive(Debug)]
pub struct Matcher {
    keys: Vec<u8>,
    matched: usize,
}

impl Matcher {
    /// A matcher for a sequence; an empty one never matches.
    pub fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes typed bytes. Returns those to pass on, and whether the sequence is complete (what follows it is dropped).
    pub fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(input.len());
        if self.keys.is_empty() {
            out.extend_from_slice(input);
            return (out, false);
        }
        for byte in input {
            // The held-back prefix may end in a shorter start of the sequence: fall back until the byte fits.
            while self.matched > 0 && self.keys.get(self.matched) != Some(byte) {
                let next = self.shorter();
                out.extend_from_slice(&self.keys[..self.matched - next]);
                self.matched = next;
            }
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return (out, true);
                }
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }

    /// Bytes held back when the input ends.
    pub fn flush(&mut self) -> Vec<u8> {
        let held = self.keys[..self.matched].to_vec();
        self.matched = 0;
        held
    }

    /// Length of the longest proper suffix of what is matched that is also a start of the sequence.
    fn shorter(&self) -> usize {
        let matched = &self.keys[..self.matched];
        (1..self.matched).rev().find(|n| matched.ends_with(&self.keys[..*n])).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grammar() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DEFAULT);
        assert_eq!(parse("a,ctrl-@,DEL,ctrl-_").unwrap(), [b'a', 0, 127, 31]);
        for bad in ["", "ctrl-", "ctrl-A", "ab", "a,,b", "ctrl-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn overlapping_starts() {
        let mut m = Matcher::new(b"aab".to_vec());
        assert_eq!(m.feed(b"aaab"), (b"a".to_vec(), true));
        let mut m = Matcher::new(DEFAULT.to_vec());
        assert_eq!(m.feed(&[16]), (vec![], false));
        assert_eq!(m.feed(&[16, 17, 3]), (vec![16], true));
    }

    proptest! {
        /// Without the sequence, what goes in comes out, however it is cut.
        #[test]
        fn nothing_is_lost(input in proptest::collection::vec(0u8..4, 0..40), cut in 0usize..40) {
            let keys = vec![1, 2, 1, 3];
            let mut m = Matcher::new(keys.clone());
            let cut = cut.min(input.len());
            let (mut out, found) = m.feed(&input[..cut]);
            let position = input.windows(4).position(|w| w == keys);
            if found {
                prop_assert_eq!(out, &input[..position.unwrap()]);
                return Ok(());
            }
            let (more, found) = m.feed(&input[cut..]);
            out.extend(more);
            match position {
                Some(at) => { prop_assert!(found); prop_assert_eq!(out, &input[..at]); }
                None => { out.extend(m.flush()); prop_assert!(!found); prop_assert_eq!(out, input); }
            }
        }
    }
}
