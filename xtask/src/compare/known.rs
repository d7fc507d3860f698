//! The checked-in list of known differences, `xtask/compare/known.tsv`.

use super::diff::Difference;
use super::peers::Peer;
use crate::sh::{self, Failure, Result};
use std::cell::Cell;
use std::path::PathBuf;

/// One line: where a difference is expected, and why. `*` stands for any text in every column but the last.
#[derive(Debug)]
pub struct Line {
    number: usize,
    context: String,
    peer: String,
    what: String,
    dhow: String,
    other: String,
    /// Why it is so.
    pub reason: String,
    used: Cell<bool>,
}

/// The list.
#[derive(Debug)]
pub struct Known {
    lines: Vec<Line>,
}

impl Known {
    /// Where the list is.
    pub fn path() -> PathBuf {
        sh::root().join("xtask/compare/known.tsv")
    }

    /// Reads the list.
    pub fn read() -> Result<Self> {
        Self::parse(&sh::text(&Self::path())?)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            let [contexts, peers, what, dhow, other, reason] = columns[..] else {
                let found = columns.len();
                return Err(Failure::new(format!("known.tsv line {}: {found} columns instead of 6", index + 1)));
            };
            for context in contexts.split(',') {
                for peer in peers.split(',') {
                    let [context, peer, what, dhow, other, reason] =
                        [context, peer, what, dhow, other, reason].map(str::to_owned);
                    lines.push(Line {
                        number: index + 1,
                        context,
                        peer,
                        what,
                        dhow,
                        other,
                        reason,
                        used: Cell::new(false),
                    });
                }
            }
        }
        Ok(Self { lines })
    }

    /// The line that explains a difference; more particular lines come first in the file.
    pub fn explain(&self, context: &str, peer: Peer, difference: &Difference) -> Option<&Line> {
        let line = self.lines.iter().find(|l| {
            matches(&l.context, context)
                && l.peer == peer.name()
                && matches(&l.what, &difference.what)
                && matches(&l.dhow, &difference.dhow)
                && matches(&l.other, &difference.peer)
        })?;
        line.used.set(true);
        Some(line)
    }

    /// Lines that explained nothing, among those that had the chance: their peer and context were compared.
    pub fn stale(&self, peers: &[Peer], only: Option<&str>) -> Vec<String> {
        let compared =
            |l: &&Line| peers.iter().any(|p| p.name() == l.peer) && only.is_none_or(|only| l.context == only);
        let unused = self.lines.iter().filter(|l| !l.used.get()).filter(compared);
        unused.map(|l| format!("known.tsv line {}: {} {} {}", l.number, l.context, l.peer, l.what)).collect()
    }
}

/// Whether `text` matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            let ends = std::iter::once(rest.len()).chain(rest.char_indices().map(|(i, _)| i));
            ends.into_iter().any(|i| matches(tail, &rest[i..]))
        }),
    }
}

/// A line for the list, to be completed with a reason.
pub fn proposal(context: &str, peer: Peer, difference: &Difference) -> String {
    let Difference { what, dhow, peer: other } = difference;
    format!("{context}\t{}\t{what}\t{}\t{}\t", peer.name(), cell(dhow), cell(other))
}

/// A value as a column holds it.
fn cell(value: &str) -> String {
    value.replace(['\t', '\n'], "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text) in [("a", "a"), ("*", ""), ("a*c", "abc"), ("*b*", "abc"), ("/d/* mode", "/d/x/y mode")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        assert!(!matches("a*c", "abd") && !matches("a", "ab"));
    }

    #[test]
    fn lines_explain_and_grow_stale() {
        let known = Known::parse("# a comment\n*\tclassic,buildah\t/x mode\t644\t*\tbecause\n").unwrap();
        let difference = Difference { what: "/x mode".to_owned(), dhow: "644".to_owned(), peer: "600".to_owned() };
        assert_eq!(known.explain("any", Peer::Classic, &difference).unwrap().reason, "because");
        assert!(known.explain("any", Peer::BuildKit, &difference).is_none());
        assert_eq!(known.stale(&[Peer::Classic, Peer::Buildah], None).len(), 1);
        assert!(known.stale(&[Peer::Classic], None).is_empty());
        assert!(Known::parse("too few\tcolumns\n").is_err());
    }
}
