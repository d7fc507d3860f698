//! What a step is made of: named parts, which give its cache key and, when it missed the cache, the reason why.

use crate::key::KeyBuilder;
use dhow_types::Digest;
use serde::{Deserialize, Serialize};

/// A step's parts, in a fixed order for each kind of step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    kind: String,
    /// Names and values. A name may come several times, as `file` does.
    parts: Vec<(String, String)>,
}

/// Name of the part that stands for what lies below.
const PARENT: &str = "parent";
/// Name of the part that stands for files of the context or of another stage.
const FILES: &str = "files";

impl Recipe {
    /// A recipe for one kind of step.
    pub(crate) fn new(kind: &str) -> Self {
        Self { kind: kind.to_owned(), parts: Vec::new() }
    }

    /// Adds a part.
    pub(crate) fn part(&mut self, name: &str, value: impl Into<String>) {
        self.parts.push((name.to_owned(), value.into()));
    }

    /// Adds a part that may be absent.
    pub(crate) fn option(&mut self, name: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.part(name, value);
        }
    }

    /// Adds a part whose value is too long to be shown.
    pub(crate) fn content(&mut self, name: &str, bytes: &[u8]) {
        self.part(name, Digest::of(bytes).to_string());
    }

    /// Adds `KEY=VALUE` pairs.
    pub(crate) fn pairs(&mut self, name: &str, pairs: &[String]) {
        for pair in pairs {
            self.part(name, pair.clone());
        }
    }

    /// Adds the layers that the step lies on.
    pub(crate) fn parent(&mut self, layers: &[Digest]) {
        let mut key = KeyBuilder::new(PARENT);
        key.digests(layers);
        self.part(PARENT, key.finish().to_string());
    }

    /// Adds the digest of files.
    pub(crate) fn files(&mut self, digest: &Digest) {
        self.part(FILES, digest.to_string());
    }

    /// The cache key.
    pub(crate) fn key(&self) -> Digest {
        let mut key = KeyBuilder::new(&self.kind);
        key.number(self.parts.len() as u64);
        for (name, value) in &self.parts {
            key.text(name);
            key.text(value);
        }
        key.finish()
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.parts.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// What differs from an earlier recipe, as texts; the parent and the files are for the caller to explain.
    pub(crate) fn differences(&self, old: &Self) -> Differences {
        let mut found = Differences::default();
        if self.kind != old.kind {
            found.texts.push("the instruction is another one".to_owned());
            return found;
        }
        let mut names: Vec<&str> = self.parts.iter().chain(&old.parts).map(|(n, _)| n.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let (now, before): (Vec<&str>, Vec<&str>) = (self.values(name).collect(), old.values(name).collect());
            if now == before {
                continue;
            }
            match name {
                PARENT => found.parent = true,
                FILES => found.files = true,
                "env" => environment(&before, &now, &mut found.texts),
                _ => found.texts.push(changed(name, &before.join(" "), &now.join(" "))),
            }
        }
        found
    }
}

/// What differs between two recipes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// What lies below.
    pub(crate) parent: bool,
    /// Files.
    pub(crate) files: bool,
    /// Everything else, ready to show.
    pub(crate) texts: Vec<String>,
}

/// Longest value that is shown.
const SHOWN: usize = 60;

fn shown(value: &str) -> String {
    let mut text: String = value.chars().take(SHOWN).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    format!("{text:?}")
}

fn changed(name: &str, before: &str, now: &str) -> String {
    match (before.is_empty(), now.is_empty()) {
        (true, _) => format!("{name} is new: {}", shown(now)),
        (_, true) => format!("{name} is gone: it was {}", shown(before)),
        _ if before.starts_with("sha256:") && now.starts_with("sha256:") => format!("{name} changed"),
        _ => format!("{name} changed: {} became {}", shown(before), shown(now)),
    }
}

/// Variables by name: both `ARG`s and `ENV`s are among them.
fn environment(before: &[&str], now: &[&str], texts: &mut Vec<String>) {
    let split = |pair: &&str| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    let (before, now): (Vec<_>, Vec<_>) =
        (before.iter().filter_map(split).collect(), now.iter().filter_map(split).collect());
    let value = |list: &[(String, String)], name: &str| list.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    for (name, new) in &now {
        match value(&before, name) {
            Some(old) if old == *new => {}
            Some(old) => texts.push(format!("variable {name} changed: {} became {}", shown(&old), shown(new))),
            None => texts.push(format!("variable {name} is new: {}", shown(new))),
        }
    }
    for (name, _) in before.iter().filter(|(n, _)| value(&now, n).is_none()) {
        texts.push(format!("variable {name} is gone"));
    }
    if texts.is_empty() {
        texts.push("variables changed their order".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(parent: &str, command: &str, env: &[&str]) -> Recipe {
        let mut recipe = Recipe::new("run");
        recipe.parent(&[Digest::of(parent.as_bytes())]);
        recipe.part("command", command);
        recipe.pairs("env", &env.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>());
        recipe
    }

    #[test]
    fn keys_follow_every_part() {
        let one = recipe("p", "x", &["A=1"]);
        assert_eq!(one.key(), recipe("p", "x", &["A=1"]).key());
        for other in [recipe("q", "x", &["A=1"]), recipe("p", "y", &["A=1"]), recipe("p", "x", &["A=2"])] {
            assert_ne!(one.key(), other.key());
        }
    }

    #[test]
    fn differences_are_named() {
        let old = recipe("p", "make", &["A=1", "B=2", "C=3"]);
        let new = recipe("q", "make all", &["A=1", "B=3", "D=4"]);
        let found = new.differences(&old);
        assert!(found.parent && !found.files);
        assert_eq!(
            found.texts,
            [
                "command changed: \"make\" became \"make all\"",
                "variable B changed: \"2\" became \"3\"",
                "variable D is new: \"4\"",
                "variable C is gone",
            ]
        );
        assert_eq!(new.differences(&new), Differences::default());
        assert_eq!(new.differences(&Recipe::new("copy")).texts, ["the instruction is another one"]);
    }
}
