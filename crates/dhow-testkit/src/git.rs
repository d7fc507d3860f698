//! Git repositories for tests, with commits that are the same every time.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Repositories below one directory.
#[derive(Debug)]
pub struct Repositories {
    base: PathBuf,
}

impl Repositories {
    /// In this directory, which is made if it is missing.
    pub fn new(base: &Path) -> Self {
        fs::create_dir_all(base).unwrap();
        Self { base: base.to_owned() }
    }

    /// Where they are.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Runs git in a repository and returns what it prints.
    #[track_caller]
    pub fn git(&self, name: &str, args: &[&str]) -> String {
        let out = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"])
            .args(["-c", "protocol.file.allow=always"])
            .args(args)
            .current_dir(self.base.join(name))
            .env("GIT_COMMITTER_DATE", "1700000000 +0000")
            .env("GIT_AUTHOR_DATE", "1700000000 +0000")
            .output()
            .unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Commits these files, `-> TARGET` being a link, in a repository that is made if it is missing. Returns the commit.
    #[track_caller]
    pub fn repository(&self, name: &str, files: &[(&str, &str)]) -> String {
        let path = self.base.join(name);
        if !path.exists() {
            fs::create_dir_all(&path).unwrap();
            self.git(name, &["init", "-q"]);
        }
        for (file, content) in files {
            let file = path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            match content.strip_prefix("-> ") {
                Some(target) => symlink(target, file).unwrap(),
                None => fs::write(file, content).unwrap(),
            }
        }
        self.git(name, &["add", "-A"]);
        self.git(name, &["commit", "-q", "-m", "x"]);
        self.git(name, &["rev-parse", "HEAD"])
    }
}
