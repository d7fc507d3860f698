//! Why a step was not taken from the cache: a comparison with what the step was made of in the last build of the same
//! Dockerfile and context.
//!
//! The record of a build is a list of recipes; files of copies are listed beside it, because there may be many. Records are
//! written by every build, so that any build can be explained, and cost nothing while all steps come from the cache.

use crate::backend::Backend;
use crate::key::KeyBuilder;
use crate::options::BuildOptions;
use crate::recipe::{Differences, Recipe};
use dhow_types::Digest;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Most files that an explanation names.
const NAMED: usize = 5;

/// A file of a copy: its path and the digest of all that the copy depends on.
pub(crate) type Listed = (Vec<u8>, Digest);

/// Where a step stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Name or number of the stage.
    pub(crate) stage: String,
    /// Position in the stage; 0 is the `FROM`.
    pub(crate) index: usize,
    /// The instruction as written.
    pub(crate) text: String,
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StepRecord {
    place: Place,
    recipe: Recipe,
    /// Name of the list of its files.
    files: Option<String>,
}

/// The last build and this one.
pub(crate) struct Explainer<'a> {
    backend: &'a dyn Backend,
    name: Digest,
    old: Vec<StepRecord>,
    new: RefCell<Vec<StepRecord>>,
    /// Places of steps that ran, with their numbers.
    ran: RefCell<Vec<(String, usize)>>,
}

impl<'a> Explainer<'a> {
    /// Loads what is remembered of the last build of the same thing. `context` tells contexts apart.
    pub(crate) fn new(backend: &'a dyn Backend, context: &[u8], options: &BuildOptions) -> Self {
        let mut key = KeyBuilder::new("build");
        key.bytes(context);
        key.option(options.target.as_deref());
        key.option(options.platform.as_ref().map(ToString::to_string).as_deref());
        let name = key.finish();
        let old = backend.recall(&name).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { backend, name, old, new: RefCell::default(), ran: RefCell::default() }
    }

    /// The same step in the last build: the same instruction in the same stage, or what stood in its place.
    fn before(&self, place: &Place) -> Option<&StepRecord> {
        let in_stage = || self.old.iter().filter(|r| r.place.stage == place.stage);
        let exactly = in_stage().find(|r| r.place == *place);
        exactly
            .or_else(|| in_stage().find(|r| r.place.text == place.text))
            .or_else(|| in_stage().find(|r| r.place.index == place.index))
    }

    /// A step came from the cache.
    pub(crate) fn hit(&self, place: &Place, recipe: Recipe) {
        let files = self.before(place).filter(|r| r.recipe == recipe).and_then(|r| r.files.clone());
        self.new.borrow_mut().push(StepRecord { place: place.clone(), recipe, files });
    }

    /// A step runs. Says why; `files` are those that it copies.
    pub(crate) fn miss(&self, place: &Place, step: usize, recipe: Recipe, files: Option<Vec<Listed>>) -> String {
        let reason = self.reason(place, &recipe, files.as_deref());
        let files = files.map(|list| {
            let mut name = KeyBuilder::new("listing");
            name.digest(&recipe.key());
            let name = name.finish();
            self.backend.remember(&name, encode(&list));
            name.to_string()
        });
        self.ran.borrow_mut().push((place.stage.clone(), step));
        self.new.borrow_mut().push(StepRecord { place: place.clone(), recipe, files });
        reason
    }

    fn reason(&self, place: &Place, recipe: &Recipe, files: Option<&[Listed]>) -> String {
        let Some(before) = self.before(place) else {
            return if self.old.is_empty() {
                "there is no earlier build to compare with".to_owned()
            } else {
                "the earlier build had no such step".to_owned()
            };
        };
        let Differences { parent, files: files_changed, mut texts } = recipe.differences(&before.recipe);
        if before.place.text != place.text && texts.is_empty() && !parent && !files_changed {
            texts.push("the instruction is written differently".to_owned());
        }
        if files_changed {
            let name = before.files.as_ref().and_then(|name| name.parse().ok());
            let old = name.and_then(|name| self.backend.recall(&name)).and_then(|bytes| decode(&bytes));
            match (old, files) {
                (Some(old), Some(new)) => texts.extend(changed_files(&old, new)),
                _ => texts.push("files changed".to_owned()),
            }
        }
        if parent {
            let ran = self.ran.borrow();
            let earlier = ran.iter().filter(|(stage, _)| *stage == place.stage).map(|(_, step)| *step).next_back();
            texts.push(match earlier {
                Some(step) => format!("step {step} made another layer below it"),
                None => "what the stage starts from changed".to_owned(),
            });
        }
        if texts.is_empty() {
            return "nothing changed, but its result is no longer in the cache".to_owned();
        }
        texts.join("; ")
    }

    /// Remembers this build, unless nothing is new.
    pub(crate) fn finish(&self) {
        let new = self.new.borrow();
        let same = new.len() == self.old.len() && new.iter().all(|n| self.old.contains(n));
        if let (false, Ok(bytes)) = (same, serde_json::to_vec(&*new)) {
            self.backend.remember(&self.name, bytes);
        }
    }
}

fn changed_files(old: &BTreeMap<Vec<u8>, u64>, new: &[Listed]) -> Vec<String> {
    let new: BTreeMap<&[u8], u64> = new.iter().map(|(path, digest)| (path.as_slice(), short(digest))).collect();
    let mut texts = Vec::new();
    let mut total = 0;
    let mut tell = |what: &str, path: &[u8]| {
        total += 1;
        if total <= NAMED {
            texts.push(format!("{what} {:?}", String::from_utf8_lossy(path)));
        }
    };
    for (path, digest) in &new {
        match old.get(*path) {
            Some(before) if before == digest => {}
            Some(_) => tell("changed file", path),
            None => tell("new file", path),
        }
    }
    for path in old.keys().filter(|p| !new.contains_key(p.as_slice())) {
        tell("removed file", path);
    }
    if total > NAMED {
        texts.push(format!("and {} more", total - NAMED));
    }
    if texts.is_empty() {
        texts.push("the order of files changed".to_owned());
    }
    texts
}

/// 64 bits tell versions of one file apart; nothing depends on it but a text.
fn short(digest: &Digest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Per file: eight bytes of digest, the length of the path in four, the path.
fn encode(list: &[Listed]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(list.iter().map(|(p, _)| p.len() + 12).sum());
    for (path, digest) in list {
        bytes.extend(short(digest).to_le_bytes());
        bytes.extend(u32::try_from(path.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(path);
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, u64>> {
    let mut list = BTreeMap::new();
    while !bytes.is_empty() {
        let (digest, rest) = bytes.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (path, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        list.insert(path.to_vec(), u64::from_le_bytes(*digest));
        bytes = rest;
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(list: &[(&str, &str)]) -> Vec<Listed> {
        list.iter().map(|(p, c)| (p.as_bytes().to_vec(), Digest::of(c.as_bytes()))).collect()
    }

    #[test]
    fn listings_round_trip() {
        let list = listed(&[("a", "1"), ("b/c", "2")]);
        let decoded = decode(&encode(&list)).unwrap();
        assert_eq!(decoded.get(&b"b/c"[..]), Some(&short(&Digest::of(b"2"))));
        assert_eq!(decode(b"12345678\x05\0\0\0abcd"), None);
        assert_eq!(decode(b"123"), None);
    }

    #[test]
    fn files_are_named() {
        let old = decode(&encode(&listed(&[("a", "1"), ("b", "2"), ("c", "3")]))).unwrap();
        let new = listed(&[("a", "1"), ("b", "x"), ("d", "4")]);
        assert_eq!(changed_files(&old, &new), ["changed file \"b\"", "new file \"d\"", "removed file \"c\""]);
        let many: Vec<(String, &str)> = (0..20).map(|n| (format!("n{n}"), "")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(p, c)| (p.as_str(), *c)).collect();
        let texts = changed_files(&BTreeMap::new(), &listed(&many));
        assert_eq!((texts.len(), texts.last().unwrap().as_str()), (NAMED + 1, "and 15 more"));
    }
}
