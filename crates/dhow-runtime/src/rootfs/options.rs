//! Mount options as mount(8) and the OCI runtime specification (config.md, "Linux mount options") write them.

use dhow_sys::mount::{self, Attributes, Propagation};
use std::io;
use std::os::fd::BorrowedFd;

/// Read options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `bind` (`false`) or `rbind` (`true`).
    pub(super) bind: Option<bool>,
    set: Attributes,
    clear: Attributes,
    /// The same for everything below a bind mount: `rro` and its like.
    recursive_set: Attributes,
    recursive_clear: Attributes,
    propagation: Option<(Propagation, bool)>,
    /// Options of the file system itself.
    pub(super) data: Vec<(String, Option<String>)>,
}

/// Words that change attributes of a mount: set, clear.
const WORDS: [(&str, Attributes, Attributes); 16] = {
    use Attributes as A;
    [
        ("ro", A::READ_ONLY, A::NONE),
        ("rw", A::NONE, A::READ_ONLY),
        ("nosuid", A::NO_SUID, A::NONE),
        ("suid", A::NONE, A::NO_SUID),
        ("nodev", A::NO_DEV, A::NONE),
        ("dev", A::NONE, A::NO_DEV),
        ("noexec", A::NO_EXEC, A::NONE),
        ("exec", A::NONE, A::NO_EXEC),
        ("noatime", A::NO_ATIME, A::ATIME_MASK),
        ("atime", A::NONE, A::ATIME_MASK),
        ("strictatime", A::STRICT_ATIME, A::ATIME_MASK),
        ("nostrictatime", A::NONE, A::ATIME_MASK),
        ("relatime", A::NONE, A::ATIME_MASK),
        ("norelatime", A::STRICT_ATIME, A::ATIME_MASK),
        ("nodiratime", A::NO_DIR_ATIME, A::NONE),
        ("diratime", A::NONE, A::NO_DIR_ATIME),
    ]
};

/// Words that need something this runtime does not do; taking them for file system options would hide that.
const UNSUPPORTED: [&str; 4] = ["remount", "move", "idmap", "ridmap"];

impl Options {
    /// Reads a list; later words win.
    pub(super) fn parse(list: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for word in list.iter().flat_map(|item| item.split(',')).filter(|w| !w.is_empty()) {
            options.add(word)?;
        }
        Ok(options)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        if let Some((_, set, clear)) = WORDS.iter().find(|(w, ..)| *w == word) {
            self.set = self.set.without(*clear).with(*set);
            self.clear = self.clear.without(*set).with(*clear);
        } else if let Some((_, set, clear)) =
            word.strip_prefix('r').and_then(|word| WORDS.iter().find(|(w, ..)| *w == word))
        {
            self.recursive_set = self.recursive_set.without(*clear).with(*set);
            self.recursive_clear = self.recursive_clear.without(*set).with(*clear);
        } else if let Some(propagation) = propagation(word) {
            self.propagation = Some(propagation);
        } else {
            match word {
                "bind" => self.bind = Some(false),
                "rbind" => self.bind = Some(true),
                "defaults" => {}
                word if UNSUPPORTED.contains(&word) => return Err(format!("option {word:?} is not supported")),
                word if word.contains('\0') => return Err("an option with a NUL".into()),
                word => self.data.push(match word.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (word.to_owned(), None),
                }),
            }
        }
        Ok(())
    }

    /// Attributes of a new mount.
    pub(super) fn attributes(&self) -> Attributes {
        self.set.with(self.recursive_set)
    }

    /// Applies the attributes to a clone of an existing mount, whose own attributes stay unless a word changes them.
    pub(super) fn apply_to_clone(&self, clone: BorrowedFd<'_>) -> io::Result<()> {
        if !self.recursive_set.is_empty() || !self.recursive_clear.is_empty() {
            mount::change_attributes(clone, self.recursive_set, self.recursive_clear, true)?;
        }
        if !self.set.is_empty() || !self.clear.is_empty() {
            mount::change_attributes(clone, self.set, self.clear, false)?;
        }
        Ok(())
    }

    /// Applies the propagation. New mounts are private already.
    pub(super) fn apply_propagation(&self, mounted: BorrowedFd<'_>) -> io::Result<()> {
        match self.propagation {
            Some((propagation, recursive)) => mount::set_propagation(mounted, propagation, recursive),
            None => Ok(()),
        }
    }

    /// The propagation of a bind mount: `rprivate` unless it says otherwise.
    pub(super) fn bind_propagation(&self) -> (Propagation, bool) {
        self.propagation.unwrap_or((Propagation::Private, true))
    }
}

/// A propagation word: kind, and whether it is for everything below too.
pub(super) fn propagation(word: &str) -> Option<(Propagation, bool)> {
    let (recursive, kind) = match word.strip_prefix('r') {
        Some(kind) => (true, kind),
        None => (false, word),
    };
    let kind = match kind {
        "shared" => Propagation::Shared,
        "slave" => Propagation::Slave,
        "private" => Propagation::Private,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    };
    Some((kind, recursive))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Attributes as A;

    fn parse(text: &str) -> Options {
        Options::parse(&[text.to_owned()]).unwrap()
    }

    #[test]
    fn words_of_docker() {
        let o = parse("nosuid,strictatime,mode=755,size=65536k");
        assert_eq!(o.attributes(), A::NO_SUID.with(A::STRICT_ATIME));
        assert_eq!(o.data, [("mode".into(), Some("755".into())), ("size".into(), Some("65536k".into()))]);
        let o = parse("rbind,rprivate,rro");
        assert_eq!((o.bind, o.recursive_set, o.set), (Some(true), A::READ_ONLY, A::NONE));
        assert_eq!(o.bind_propagation(), (Propagation::Private, true));
        assert_eq!(parse("bind").bind_propagation(), (Propagation::Private, true));
        assert_eq!(parse("slave").bind_propagation(), (Propagation::Slave, false));
        assert_eq!(parse("newinstance").data, [("newinstance".into(), None)]);
    }

    #[test]
    fn later_words_win() {
        assert_eq!(parse("ro,rw").attributes(), A::NONE);
        assert_eq!(parse("rw,ro").attributes(), A::READ_ONLY);
        let o = parse("ro,rw");
        assert_eq!((o.set, o.clear), (A::NONE, A::READ_ONLY));
        assert_eq!(parse("noatime,relatime").attributes(), A::NONE);
        assert_eq!(parse("noexec,exec,size=1m").attributes(), A::NONE);
        assert_eq!(parse("defaults,,").attributes(), A::NONE);
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for word in UNSUPPORTED {
            assert!(Options::parse(&[word.to_owned()]).is_err());
        }
        assert!(Options::parse(&["size=1\0".to_owned()]).is_err());
    }
}
