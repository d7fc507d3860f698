//! A tree on the host that an attack aims at, and the proof that nothing in it changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A directory with a few files whose content, mode, owner, times, link counts and inodes are remembered.
#[derive(Debug)]
pub struct Victim {
    path: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Victim {
    /// Makes the tree below `parent`.
    pub fn new(parent: &Path) -> Self {
        let path = parent.join("victim");
        std::fs::create_dir_all(path.join("dir")).expect("make the victim tree");
        for (name, content) in
            [("secret", "host secret\n"), ("dir/inner", "inner\n"), ("program", "#!/bin/sh\nexit 0\n")]
        {
            std::fs::write(path.join(name), content).expect("fill the victim tree");
        }
        let before = snapshot(&path);
        Self { path, before }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path as text, for images and commands.
    pub fn text(&self) -> &str {
        self.path.to_str().expect("temporary paths are UTF-8")
    }

    /// Panics if anything differs.
    pub fn assert_unchanged(&self) {
        assert_eq!(snapshot(&self.path), self.before, "the host tree changed");
    }
}

fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut queue = vec![root.to_path_buf()];
    while let Some(path) = queue.pop() {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        let content = if meta.is_dir() {
            queue.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()));
            String::new()
        } else {
            std::fs::read(&path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
        };
        let facts = format!(
            "ino={} mode={:o} owner={}:{} nlink={} mtime={}.{} {content}",
            meta.ino(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        out.insert(path, facts);
    }
    out
}
