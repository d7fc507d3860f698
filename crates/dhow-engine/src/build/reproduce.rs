//! Builds that give the same image on two machines: the time that everything in the result bears.
//!
//! `SOURCE_DATE_EPOCH` decides it. Without it a context that is a git checkout gives the time of its commit, which is the
//! same on every machine that builds that commit. Git is asked once per commit; after that a look at `.git` says which
//! commit it is.

use crate::{Engine, files};
use dhow_types::Digest;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest file below `.git` that is read here.
const MAX: u64 = 4 << 20;

/// The time of the commit that a directory of the host is a checkout of, if it is the top of one.
pub(super) fn commit_time(engine: &Engine, directory: &Path) -> Option<i64> {
    let commit = head(directory)?;
    // The directory is part of the name, because whom git trusts depends on it.
    let name = Digest::of(&[directory.as_os_str().as_bytes(), b"\0", commit.as_bytes()].concat()).hex();
    let known = engine.paths().root().join("cache/commits").join(&name);
    if let Some(time) = read(&known).and_then(|text| text.trim().parse().ok()) {
        return Some(time);
    }
    let time = super::remote::git_commit_time(directory)?;
    if let Ok(folder) = super::cache::folder(engine, "commits") {
        // Git is asked again if this is lost.
        let _ = files::replace(&folder.join(name), format!("{time}\n").as_bytes());
    }
    Some(time)
}

/// The commit that is checked out, as its id in hexadecimal digits.
fn head(directory: &Path) -> Option<String> {
    let git = git_directory(directory)?;
    let head = read(&git.join("HEAD"))?;
    let head = head.trim();
    let Some(reference) = head.strip_prefix("ref: ") else { return commit_id(head) };
    if reference.split('/').any(|part| part.is_empty() || part == "..") || !reference.starts_with("refs/") {
        return None;
    }
    // A worktree has a HEAD of its own and shares everything else.
    let common = read(&git.join("commondir")).map(|text| git.join(text.trim()));
    for place in [Some(git), common].into_iter().flatten() {
        if let Some(id) = read(&place.join(reference)).and_then(|text| commit_id(text.trim())) {
            return Some(id);
        }
        let packed = read(&place.join("packed-refs")).unwrap_or_default();
        let line = packed.lines().find_map(|l| l.strip_suffix(reference)?.strip_suffix(' ').and_then(commit_id));
        if line.is_some() {
            return line;
        }
    }
    None
}

/// `.git`, or the directory that a file of this name points to.
fn git_directory(directory: &Path) -> Option<PathBuf> {
    let place = directory.join(".git");
    if std::fs::symlink_metadata(&place).ok()?.is_dir() {
        return Some(place);
    }
    let text = read(&place)?;
    Some(directory.join(text.strip_prefix("gitdir: ")?.trim()))
}

fn commit_id(text: &str) -> Option<String> {
    // SHA-1 or SHA-256.
    let good = matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| text.to_owned())
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let dir = tempfile::tempdir().unwrap();
        let git = dir.path().join(".git");
        std::fs::create_dir_all(git.join("refs/heads")).unwrap();
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        assert_eq!(head(dir.path()), None);
        std::fs::write(git.join("HEAD"), format!("{one}\n")).unwrap();
        assert_eq!(head(dir.path()), Some(one.clone()));
        std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(head(dir.path()), None);
        std::fs::write(git.join("packed-refs"), format!("# pack-refs\n{two} refs/heads/main\n")).unwrap();
        assert_eq!(head(dir.path()), Some(two));
        std::fs::write(git.join("refs/heads/main"), format!("{one}\n")).unwrap();
        assert_eq!(head(dir.path()), Some(one));
        std::fs::write(git.join("HEAD"), "ref: refs/../../secret\n").unwrap();
        assert_eq!(head(dir.path()), None);
    }

    #[test]
    fn worktrees() {
        let dir = tempfile::tempdir().unwrap();
        let (main, tree) = (dir.path().join("main/.git"), dir.path().join("tree"));
        std::fs::create_dir_all(main.join("worktrees/tree")).unwrap();
        std::fs::create_dir_all(main.join("refs/heads")).unwrap();
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(tree.join(".git"), "gitdir: ../main/.git/worktrees/tree\n").unwrap();
        std::fs::write(main.join("worktrees/tree/HEAD"), "ref: refs/heads/x\n").unwrap();
        std::fs::write(main.join("worktrees/tree/commondir"), "../..\n").unwrap();
        std::fs::write(main.join("refs/heads/x"), format!("{}\n", "a".repeat(40))).unwrap();
        assert_eq!(head(&tree), Some("a".repeat(40)));
    }
}
