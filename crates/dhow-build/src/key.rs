//! Cache keys: unambiguous hashing of named fields.

use dhow_types::{Digest, Hasher};

/// Hashes fields with their lengths, so that no two lists of fields give the same bytes.
pub(crate) struct KeyBuilder(Hasher);

/// Part of every key: changing what a step does with the same definition changes this.
const VERSION: &[u8] = b"dhow build step 1";

impl KeyBuilder {
    /// A key for one kind of step.
    pub(crate) fn new(kind: &str) -> Self {
        let mut key = Self(Hasher::new());
        key.bytes(VERSION);
        key.text(kind);
        key
    }

    /// Adds bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// Adds a digest.
    pub(crate) fn digest(&mut self, digest: &Digest) {
        self.0.update(digest.as_bytes());
    }

    /// Adds something that may be absent.
    pub(crate) fn option(&mut self, text: Option<&str>) {
        self.number(u64::from(text.is_some()));
        self.text(text.unwrap_or_default());
    }

    /// Adds a list of texts.
    pub(crate) fn list<T: AsRef<str>>(&mut self, list: &[T]) {
        self.number(list.len() as u64);
        list.iter().for_each(|t| self.text(t.as_ref()));
    }

    /// Adds a list of digests.
    pub(crate) fn digests(&mut self, list: &[Digest]) {
        self.number(list.len() as u64);
        list.iter().for_each(|d| self.digest(d));
    }

    /// The key.
    pub(crate) fn finish(self) -> Digest {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_together() {
        let key = |list: &[&str]| {
            let mut k = KeyBuilder::new("x");
            k.list(list);
            k.finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&[]), key(&[""]));
        assert_eq!(key(&["a"]), key(&["a"]));
    }
}
