//! An exported image: its config, and the file system that its layers make together.

use crate::sh::{self, Context, Failure, Result};
use dhow_testkit::image::{SavedImage, sha256_hex};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

/// Config and files of an image.
#[derive(Debug)]
pub struct Image {
    /// The config document.
    pub config: Value,
    /// The merged file system.
    pub files: Tree,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// `file`, `directory`, `symlink`, `character`, `block`, `fifo`.
    pub kind: &'static str,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// User and group.
    pub owner: (u64, u64),
    /// Digest of a file's content and its size, target of a link, numbers of a device.
    pub content: String,
    /// Extended attributes, values in hex.
    pub xattrs: BTreeMap<String, String>,
}

/// Paths without a leading slash; hard links share an inode.
#[derive(Debug, Default)]
pub struct Tree {
    inodes: Vec<Inode>,
    paths: BTreeMap<String, usize>,
}

impl Image {
    /// Reads what `save` or `push docker-archive:` wrote, and removes the archive.
    pub fn take(archive: &Path) -> Result<Self> {
        let saved = SavedImage::read(archive).context(archive.display())?;
        let mut files = Tree::default();
        saved.layers.iter().try_for_each(|layer| files.apply(layer)).context(archive.display())?;
        sh::remove(archive)?;
        Ok(Self { config: saved.config, files })
    }
}

/// A path without `./` in front and slashes at the ends.
fn clean(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.trim_start_matches("./").trim_matches('/').to_owned()
}

impl Tree {
    /// Puts a layer on top. Its whiteouts hide what is below, never what it brings itself.
    pub fn apply(&mut self, layer: &[u8]) -> Result {
        self.apply_whiteouts(layer)?;
        let mut archive = tar::Archive::new(layer);
        for entry in archive.entries().context("layer")? {
            let mut entry = entry.context("layer")?;
            let path = clean(&entry.path_bytes());
            let name = path.rsplit('/').next().unwrap_or_default();
            if path.is_empty() || path == "." || name.starts_with(".wh.") {
                continue;
            }
            if entry.header().entry_type() == tar::EntryType::Link {
                let target = clean(&entry.link_name_bytes().unwrap_or_default());
                let inode = *self.paths.get(&target).ok_or_else(|| Failure::new(format!("{path}: no {target}")))?;
                self.remove(&path);
                self.paths.insert(path, inode);
                continue;
            }
            let inode = inode(&mut entry).context(&path)?;
            let both_directories = inode.kind == "directory" && self.get(&path).is_some_and(|i| i.kind == "directory");
            if !both_directories {
                self.remove(&path);
            }
            self.paths.insert(path, self.inodes.len());
            self.inodes.push(inode);
        }
        Ok(())
    }

    fn apply_whiteouts(&mut self, layer: &[u8]) -> Result {
        let mut archive = tar::Archive::new(layer);
        for entry in archive.entries().context("layer")? {
            let path = clean(&entry.context("layer")?.path_bytes());
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                self.remove_below(parent);
            } else if let Some(hidden) = name.strip_prefix(".wh.").filter(|n| !n.starts_with(".wh.")) {
                let slash = if parent.is_empty() { "" } else { "/" };
                self.remove(&format!("{parent}{slash}{hidden}"));
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) {
        self.paths.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, path: &str) {
        let prefix = format!("{path}/");
        self.paths.retain(|p, _| !p.starts_with(&prefix));
    }

    /// What is at a path.
    pub fn get(&self, path: &str) -> Option<&Inode> {
        self.paths.get(path).and_then(|i| self.inodes.get(*i))
    }

    /// All paths in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.keys().map(String::as_str)
    }

    /// The first path of every path's inode, by path: equal for hard links.
    pub fn first_links(&self) -> HashMap<&str, &str> {
        let mut first = HashMap::new();
        self.paths.iter().map(|(path, inode)| (path.as_str(), *first.entry(*inode).or_insert(path.as_str()))).collect()
    }
}

fn inode(entry: &mut tar::Entry<'_, &[u8]>) -> Result<Inode> {
    use tar::EntryType::{Block, Char, Directory, Fifo, Symlink};
    let mut xattrs = BTreeMap::new();
    if let Some(records) = entry.pax_extensions().context("pax records")? {
        for record in records {
            let record = record.context("pax record")?;
            if let Some(name) = record.key().ok().and_then(|k| k.strip_prefix("SCHILY.xattr.")) {
                let hex: String = record.value_bytes().iter().map(|b| format!("{b:02x}")).collect();
                xattrs.insert(name.to_owned(), hex);
            }
        }
    }
    let header = entry.header();
    let (mode, kind) = (header.mode().context("mode")? & 0o7777, header.entry_type());
    let owner = (header.uid().context("owner")?, header.gid().context("owner")?);
    let device = (header.device_major().ok().flatten(), header.device_minor().ok().flatten());
    let device = format!("{}:{}", device.0.unwrap_or(0), device.1.unwrap_or(0));
    let target = String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned();
    let (kind, mode, content) = match kind {
        Directory => ("directory", mode, String::new()),
        // The mode of a symbolic link means nothing (symlink(7)) and is written differently by different programs.
        Symlink => ("symlink", 0o777, target),
        Char => ("character", mode, device),
        Block => ("block", mode, device),
        Fifo => ("fifo", mode, String::new()),
        _ => {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).context("content")?;
            ("file", mode, format!("{} bytes {}", content.len(), &sha256_hex(&content)[..12]))
        }
    };
    Ok(Inode { kind, mode, owner, content, xattrs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_testkit::{Entry, Tar};

    #[test]
    fn layers_merge() {
        let mut tree = Tree::default();
        let lower = [
            Entry::dir("d/", 0o755),
            Entry::file("d/a", 0o644, "a"),
            Entry::link("d/b", "d/a"),
            Entry::dir("e/", 0o700),
            Entry::file("e/x", 0o600, "x"),
            Entry::file("gone", 0o644, ""),
        ];
        tree.apply(&Tar::of(lower)).unwrap();
        assert_eq!(tree.first_links()["d/b"], "d/a");
        let upper = [
            Entry::file(".wh.gone", 0, ""),
            Entry::dir("e/", 0o711),
            Entry::file("e/y", 0o600, "y").pax("SCHILY.xattr.user.k", b"\x01v"),
            Entry::file("e/.wh..wh..opq", 0, ""),
            Entry::file("d", 0o644, "no directory any more"),
        ];
        tree.apply(&Tar::of(upper)).unwrap();
        assert_eq!(tree.paths().collect::<Vec<_>>(), ["d", "e", "e/y"]);
        assert_eq!(tree.get("e").unwrap().mode, 0o711);
        assert_eq!(tree.get("e/y").unwrap().xattrs["user.k"], "0176");
    }
}
