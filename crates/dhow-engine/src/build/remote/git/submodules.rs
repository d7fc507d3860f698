//! Submodules: other repositories at paths of a commit, fetched one by one. `git submodule` would run a shell script on files
//! of a repository; what it does is little enough to do it here.

use super::program::Git;
use super::{fetch, unpack};
use crate::EngineError;
use dhow_build::Pending;
use dhow_build::remote::RemoteSource;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Submodules in submodules that are followed.
const MAX_DEPTH: usize = 8;
/// Submodules of one repository, all levels together.
const MAX_COUNT: usize = 200;

/// A repository whose submodules are wanted.
struct Level<'g> {
    git: &'g Git<'g>,
    git_dir: &'g Path,
    commit: &'g str,
    /// Where its files are, below the root.
    prefix: String,
    depth: usize,
}

/// Unpacks the submodules of a commit, those of submodules included; with `subdir`, those that lie in it.
pub(super) async fn unpack_all(
    git: &Git<'_>,
    git_dir: &Path,
    commit: &str,
    subdir: Option<&str>,
    root: &OwnedFd,
) -> Result<(), EngineError> {
    let mut count = 0;
    let level = Level { git, git_dir, commit, prefix: String::new(), depth: 0 };
    level.unpack(subdir, root, &mut count).await
}

impl Level<'_> {
    fn unpack<'f>(
        &'f self,
        subdir: Option<&'f str>,
        root: &'f OwnedFd,
        count: &'f mut usize,
    ) -> Pending<'f, Result<(), EngineError>> {
        Box::pin(async move {
            for (path, commit, url) in self.list().await? {
                if subdir.is_some_and(|s| path != s && !path.starts_with(&format!("{s}/"))) {
                    continue;
                }
                *count += 1;
                if *count > MAX_COUNT || self.depth >= MAX_DEPTH {
                    return Err(self.git.refused("it has too many submodules".to_owned()).into());
                }
                let fetchable =
                    |url: &String| !url.contains(['#', '?']) && matches!(RemoteSource::parse(url, false), Ok(Some(_)));
                let Some(url) = join(self.git.remote(), &url).filter(fetchable) else {
                    let reason = format!("the submodule {path:?} has a URL that is not fetched");
                    return Err(self.git.refused(reason).into());
                };
                let git = self.git.other(&url);
                let git_dir = git.place(&format!("git-{count}"));
                fetch(&git, &git_dir, &commit, None).await?;
                let place = if self.prefix.is_empty() { path } else { format!("{}/{path}", self.prefix) };
                unpack(&git, &git_dir, &commit, None, root, Path::new(&place)).await?;
                let below =
                    Level { git: &git, git_dir: &git_dir, commit: &commit, prefix: place, depth: self.depth + 1 };
                below.unpack(None, root, count).await?;
                crate::files::remove_tree(&git_dir)?;
            }
            Ok(())
        })
    }

    /// Path, commit and URL of each submodule. One that `.gitmodules` does not know is none.
    async fn list(&self) -> Result<Vec<(String, String, String)>, EngineError> {
        let blob = format!("{}:.gitmodules", self.commit);
        let command = |words: &[&str]| self.git.command(Some(self.git_dir), words);
        if !self.git.run("cat-file", command(&["cat-file", "-e", &blob])).await?.success {
            return Ok(Vec::new());
        }
        let read = command(&[
            "config",
            "--no-includes",
            "--blob",
            &blob,
            "-z",
            "--get-regexp",
            r"^submodule\..*\.(path|url)$",
        ]);
        let config = self.git.run("config", read).await?;
        let urls = urls(&config.output);
        let list = command(&["ls-tree", "-r", "-z", "--full-tree", self.commit]);
        let tree = self.git.run("ls-tree", list).await?.checked()?;
        let mut found = Vec::new();
        for entry in tree.split('\0').filter(|e| e.starts_with("160000 ")) {
            let Some((object, path)) = entry.split_once('\t') else { continue };
            let commit = object.rsplit(' ').next().unwrap_or_default();
            if let Some(url) = urls.get(path).filter(|_| super::is_commit(commit)) {
                found.push((path.to_owned(), commit.to_owned(), url.clone()));
            }
        }
        Ok(found)
    }
}

/// URLs by path, from `NAME.path` and `NAME.url`.
fn urls(config: &str) -> BTreeMap<String, String> {
    let mut modules: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for (key, value) in config.split('\0').filter_map(|e| e.split_once('\n')) {
        let Some((name, field)) = key.rsplit_once('.') else { continue };
        let module = modules.entry(name).or_default();
        match field {
            "path" => module.0 = Some(value.trim_end_matches('/')),
            "url" => module.1 = Some(value),
            _ => {}
        }
    }
    let complete = |(path, url): (Option<&str>, Option<&str>)| Some((path?.to_owned(), url?.to_owned()));
    modules.into_values().filter_map(complete).collect()
}

/// A submodule's URL; `./x` and `../x` are relative to the repository's own (gitmodules(5)).
fn join(base: &str, url: &str) -> Option<String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Some(url.to_owned()).filter(|u| !u.starts_with('-'));
    }
    // Only what stands after the host can be climbed.
    let fixed = match base.split_once("://") {
        Some((scheme, rest)) => scheme.len() + 3 + rest.find('/')? + 1,
        None => base.find(':')? + 1,
    };
    let (server, path) = base.split_at_checked(fixed)?;
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    for part in url.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(format!("{server}{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_urls() {
        let joined = |base: &str, url: &str| join(base, url).unwrap_or_default();
        assert_eq!(joined("https://h/a/b.git", "../c.git"), "https://h/a/c.git");
        assert_eq!(joined("https://h/a/b.git", "./c"), "https://h/a/b.git/c");
        assert_eq!(joined("git@h:a/b.git", "../c.git"), "git@h:a/c.git");
        assert_eq!(joined("https://h/a.git", "git://x/y"), "git://x/y");
        assert_eq!(join("https://h/a.git", "../../../etc"), None);
        assert_eq!(join("https://h/a.git", "--upload-pack=x"), None);
    }

    #[test]
    fn modules() {
        let config = "submodule.a.b.path\nlib/a\0submodule.a.b.url\n../a.git\0submodule.c.path\nc\0";
        assert_eq!(urls(config), BTreeMap::from([("lib/a".to_owned(), "../a.git".to_owned())]));
    }
}
