//! Git repositories, by the host's `git`.
//!
//! Nothing is ever checked out: a commit's files come out of `git archive` and are unpacked like any other hostile archive,
//! confined to their directory. So there is no work tree in which links, filters or hooks of a repository could do harm;
//! submodules are fetched the same way, one by one, each with a URL that was looked at before. Configuration of the host and
//! of users is not read, and only protocols that talk to another machine are allowed.

mod program;
mod submodules;

use super::{RemoteError, Secrets, authority, text_secret};
use crate::{Engine, EngineError};
use dhow_build::remote::GitSource;
use dhow_build::{BackendError, Pending, RemoteTree};
use dhow_store::{ExtractOptions, ScratchDir};
use program::{Git, Reply};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A commit of a repository.
pub(crate) struct GitTree<'a> {
    engine: &'a Engine,
    source: GitSource,
    token: Option<String>,
    commit: String,
    /// Full name of the reference that was asked for, if it has one.
    reference: Option<String>,
    checkout: RefCell<Option<Checkout>>,
}

/// The files of a commit.
pub(crate) struct Checkout {
    /// Holds them.
    _scratch: ScratchDir,
    /// The directory that was asked for.
    pub(crate) directory: OwnedFd,
    /// When the commit was made, in Unix seconds.
    pub(crate) time: Option<i64>,
}

impl<'a> GitTree<'a> {
    /// Finds out which commit is meant. A complete commit id needs no request.
    pub(crate) async fn find(
        engine: &'a Engine,
        source: GitSource,
        secrets: &Secrets<'_>,
    ) -> Result<Self, EngineError> {
        let token = auth_header(secrets, &source.remote);
        let given = source.reference.as_deref().filter(|r| is_commit(r));
        let (commit, reference) = match given {
            Some(commit) => (commit.to_owned(), None),
            None => {
                let scratch = engine.store().new_upper()?;
                let git = Git::new(&scratch, &source.remote, token.clone());
                let wanted = source.reference.as_deref().unwrap_or("HEAD");
                let (commit, name) = ask(&git, wanted).await?;
                (commit, Some(name))
            }
        };
        if let Some(expected) = source.checksum.as_deref().filter(|c| !commit.starts_with(c)) {
            return Err(RemoteError::Commit { expected: expected.to_owned(), found: commit }.into());
        }
        Ok(Self { engine, source, token, commit, reference, checkout: RefCell::default() })
    }

    fn keeps_git_dir(&self) -> bool {
        self.source.keep_git_dir == Some(true) && self.source.subdir.is_none()
    }

    /// Fetches the commit's files.
    pub(crate) async fn check_out(&self) -> Result<Checkout, EngineError> {
        let scratch = self.engine.store().new_upper()?;
        let git = Git::new(&scratch, &self.source.remote, self.token.clone());
        let git_dir = scratch.work().join("git");
        fetch(&git, &git_dir, &self.commit, self.reference.as_deref()).await?;
        let time = commit_time(&git, &git_dir, &self.commit).await?;
        let root = scratch.upper();
        let root_fd: OwnedFd = File::open(&root).map_err(EngineError::state("open", &root))?.into();
        let subdir = self.source.subdir.as_deref();
        unpack(&git, &git_dir, &self.commit, subdir, &root_fd, Path::new("")).await?;
        if self.source.submodules != Some(false) {
            submodules::unpack_all(&git, &git_dir, &self.commit, subdir, &root_fd).await?;
        }
        if statat(&root_fd, ".git", AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            // The file system's rules are git's own; only a crafted repository has such an entry (CVE-2014-9390).
            return Err(git.refused("it has a file named .git".to_owned()).into());
        }
        if self.keeps_git_dir() {
            self.move_git_dir(&git, &git_dir, &root).await?;
        }
        let directory = match subdir {
            None => root_fd,
            Some(subdir) => self.enter(&root_fd, subdir)?,
        };
        Ok(Checkout { _scratch: scratch, directory, time })
    }

    /// Opens a directory of the commit. A link on the way is refused: it could lead anywhere.
    fn enter(&self, root: &OwnedFd, subdir: &str) -> Result<OwnedFd, EngineError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(root, subdir, flags, Mode::empty(), resolve).map_err(|e| match e {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => {
                let remote = dhow_build::remote::redacted(&self.source.remote);
                RemoteError::NoDirectory { subdir: subdir.to_owned(), remote }.into()
            }
            other => EngineError::errno("open", Path::new(subdir))(other),
        })
    }

    /// Makes the repository's directory the `.git` of its files: one commit, checked out, with its origin.
    async fn move_git_dir(&self, git: &Git<'_>, git_dir: &Path, root: &Path) -> Result<(), EngineError> {
        let read = git.command(Some(git_dir), &["read-tree", &self.commit]);
        git.run("read-tree", read).await?.checked()?;
        let write = |name: &str, text: String| -> Result<(), EngineError> {
            let path = git_dir.join(name);
            let fail = || EngineError::state("write", &path);
            path.parent().map_or(Ok(()), fs::create_dir_all).map_err(fail())?;
            fs::write(&path, text).map_err(fail())
        };
        let branch = self.reference.as_deref().filter(|r| r.starts_with("refs/heads/"));
        let head = branch.map_or_else(|| format!("{}\n", self.commit), |b| format!("ref: {b}\n"));
        write("HEAD", head)?;
        if let Some(name) = self.reference.as_deref().filter(|r| r.starts_with("refs/")) {
            write(name, format!("{}\n", self.commit))?;
        }
        let version = if self.commit.len() > 40 { "1\n[extensions]\n\tobjectFormat = sha256" } else { "0" };
        let url = dhow_build::remote::redacted(&self.source.remote);
        let quoted = url.replace('\\', "\\\\").replace('"', "\\\"");
        write(
            "config",
            format!(
                "[core]\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\trepositoryformatversion = \
                 {version}\n[remote \"origin\"]\n\turl = \"{quoted}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
            ),
        )?;
        for leftover in ["info/attributes", "FETCH_HEAD"] {
            crate::files::remove_file(&git_dir.join(leftover))?;
        }
        crate::files::remove_tree(&git_dir.join(program::REFS))?;
        let target = root.join(".git");
        fs::rename(git_dir, &target).map_err(EngineError::state("rename", &target))
    }
}

impl RemoteTree for GitTree<'_> {
    fn identity(&self) -> String {
        let mut text = format!("git {}", self.commit);
        if let Some(subdir) = &self.source.subdir {
            text.push_str(&format!(" subdir={subdir}"));
        }
        if self.source.submodules == Some(false) {
            text.push_str(" submodules=false");
        }
        if self.keeps_git_dir() {
            // The repository's own directory tells where it came from.
            text.push_str(&format!(" keep={} {}", self.reference.as_deref().unwrap_or_default(), self.source.remote));
        }
        text
    }

    fn file_name(&self) -> Option<String> {
        None
    }

    fn open(&self) -> Pending<'_, Result<OwnedFd, BackendError>> {
        Box::pin(async move {
            let checkout = self.check_out().await.map_err(BackendError::new)?;
            let directory = checkout.directory.try_clone();
            self.checkout.replace(Some(checkout));
            directory.map_err(|e| BackendError::new(EngineError::state("open", Path::new("the repository"))(e)))
        })
    }
}

/// Whether a text is a complete commit id, of SHA-1 or SHA-256.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The `Authorization` header for a server: of the secret `GIT_AUTH_HEADER` or `GIT_AUTH_TOKEN`, with `.HOST` at its end for
/// one host only.
fn auth_header(secrets: &Secrets<'_>, remote: &str) -> Option<String> {
    if !remote.starts_with("https://") && !remote.starts_with("http://") {
        return None;
    }
    let host = authority(remote);
    let find = |name: &str| text_secret(secrets, &format!("{name}.{host}")).or_else(|| text_secret(secrets, name));
    find("GIT_AUTH_HEADER").or_else(|| {
        let token = find("GIT_AUTH_TOKEN")?;
        Some(format!("basic {}", program::base64(format!("x-access-token:{token}").as_bytes())))
    })
}

/// Asks the remote what a reference is: the commit, and the reference's full name.
async fn ask(git: &Git<'_>, wanted: &str) -> Result<(String, String), EngineError> {
    let peeled = format!("{wanted}^{{}}");
    let command = git.command(None, &["ls-remote", "--symref", "--", git.remote(), wanted, &peeled]);
    let listed = git.run("ls-remote", command).await?.checked()?;
    choose(&listed, wanted).ok_or_else(|| {
        let (reference, remote) = (wanted.to_owned(), git.shown());
        RemoteError::NoReference { reference, remote }.into()
    })
}

/// Picks the reference as `git checkout` does: the name as it is, a branch, a tag. A tag that is an object of its own stands
/// for its commit.
fn choose(listed: &str, wanted: &str) -> Option<(String, String)> {
    let lines: Vec<(&str, &str)> = listed.lines().filter_map(|l| l.split_once('\t')).collect();
    let symbolic = lines.iter().find_map(|(target, name)| (*name == wanted).then_some(target.strip_prefix("ref: ")?));
    let names =
        [wanted.to_owned(), format!("refs/{wanted}"), format!("refs/heads/{wanted}"), format!("refs/tags/{wanted}")];
    names.iter().find_map(|name| {
        let commit = |name: &str| lines.iter().find(|(id, n)| *n == name && is_commit(id)).map(|(id, _)| *id);
        let id = commit(&format!("{name}^{{}}")).or_else(|| commit(name))?;
        let name = symbolic.filter(|_| name == wanted).unwrap_or(name);
        Some((id.to_owned(), name.to_owned()))
    })
}

/// Fetches one commit into a repository of its own: alone if the server can, by its reference's name, or with everything.
async fn fetch(git: &Git<'_>, git_dir: &Path, commit: &str, reference: Option<&str>) -> Result<(), EngineError> {
    let format = if commit.len() > 40 { "--object-format=sha256" } else { "--object-format=sha1" };
    let path = git_dir.to_string_lossy();
    let init = git.command(None, &["init", "-q", "--bare", "--template=", format, "--", &path]);
    git.run("init", init).await?.checked()?;
    let attributes = git_dir.join("info/attributes");
    let fail = || EngineError::state("write", &attributes);
    attributes.parent().map_or(Ok(()), fs::create_dir_all).map_err(fail())?;
    // Archives leave files out, or change them, where attributes say so; a checkout does not.
    fs::write(&attributes, "* -export-ignore -export-subst\n").map_err(fail())?;

    let keep = format!("{}/commit", program::REFS);
    let alone = format!("+{commit}:{keep}");
    let named = reference.map(|r| format!("+{r}:{keep}"));
    let everything =
        [format!("+refs/heads/*:{}/heads/*", program::REFS), format!("+refs/tags/*:{}/tags/*", program::REFS)];
    let mut attempts: Vec<Vec<&str>> = vec![vec!["--depth=1", "--", git.remote(), &alone]];
    attempts.extend(named.as_deref().map(|n| vec!["--depth=1", "--", git.remote(), n]));
    attempts.push(vec!["--", git.remote(), &everything[0], &everything[1]]);
    let mut last: Option<Reply> = None;
    for attempt in attempts {
        let words =
            ["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance", "--no-write-fetch-head"];
        let words: Vec<&str> = words.into_iter().chain(attempt).collect();
        let reply = git.run("fetch", git.command(Some(git_dir), &words)).await?;
        let fetched = reply.success;
        last = Some(reply);
        let object = format!("{commit}^{{commit}}");
        if fetched && git.run("cat-file", git.command(Some(git_dir), &["cat-file", "-e", &object])).await?.success {
            return Ok(());
        }
    }
    // The last attempt tells most: the server as such cannot be used, or the commit is not there.
    last.map_or(Ok(String::new()), Reply::checked)?;
    Err(RemoteError::NoReference { reference: commit.to_owned(), remote: git.shown() }.into())
}

async fn commit_time(git: &Git<'_>, git_dir: &Path, commit: &str) -> Result<Option<i64>, EngineError> {
    let object = git.run("cat-file", git.command(Some(git_dir), &["cat-file", "commit", commit])).await?.checked()?;
    Ok(committer_time(&object))
}

/// The seconds in the `committer` line of a commit object.
fn committer_time(object: &str) -> Option<i64> {
    let line = object.lines().take_while(|l| !l.is_empty()).find_map(|l| l.strip_prefix("committer "))?;
    let (_, times) = line.rsplit_once('>')?;
    times.split_whitespace().next()?.parse().ok()
}

/// Unpacks a commit's files below `destination` in `root`.
async fn unpack(
    git: &Git<'_>,
    git_dir: &Path,
    commit: &str,
    subdir: Option<&str>,
    root: &OwnedFd,
    destination: &Path,
) -> Result<(), EngineError> {
    let mut words = vec!["archive", "--format=tar", commit];
    if let Some(subdir) = subdir {
        words.extend(["--", subdir]);
    }
    let options = ExtractOptions { owner: Some((0, 0)), plain: true, reserve: super::RESERVE };
    let mut running = git.start(git.command(Some(git_dir), &words))?;
    let extracted = match running.output() {
        Some(output) => dhow_store::extract_archive(root.as_fd(), destination, io::BufReader::new(output), &options),
        None => Ok(()),
    };
    let reply = running.end("archive")?;
    if !reply.success && subdir.is_some() && reply.detail.contains("did not match") {
        let remote = git.shown();
        return Err(RemoteError::NoDirectory { subdir: subdir.unwrap_or_default().to_owned(), remote }.into());
    }
    if extracted.is_ok() {
        reply.checked()?;
    }
    Ok(extracted?)
}

/// When the commit that a directory of the host is at was made, in Unix seconds; `None` when it is in no repository, or in
/// one that somebody else could have made.
pub fn git_commit_time(directory: &Path) -> Option<i64> {
    let owner = fs::metadata(directory).ok()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if owner != own && owner != 0 {
        return None;
    }
    // Without a repository there is no reason to start a program.
    let above: Vec<PathBuf> = fs::canonicalize(directory).ok()?.ancestors().map(|a| a.join(".git")).collect();
    above.iter().find(|git_dir| git_dir.exists())?;
    committer_time(&program::head_commit(directory)?)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn references_are_chosen_as_checkout_does() {
        let id = |c: char| c.to_string().repeat(40);
        let listed = format!(
            "ref: refs/heads/main\tHEAD\n{a}\tHEAD\n{b}\trefs/heads/x\n{c}\trefs/tags/x\n{d}\trefs/tags/x^{{}}\n\
             {e}\trefs/tags/v1\n{f}\trefs/other/deep/x\nnonsense\trefs/heads/y\n",
            a = id('a'),
            b = id('b'),
            c = id('c'),
            d = id('d'),
            e = id('e'),
            f = id('f')
        );
        let pick = |wanted: &str| choose(&listed, wanted).unwrap_or_default();
        assert_eq!(pick("HEAD"), (id('a'), "refs/heads/main".to_owned()));
        assert_eq!(pick("x"), (id('b'), "refs/heads/x".to_owned()));
        assert_eq!(pick("refs/tags/x"), (id('d'), "refs/tags/x".to_owned()));
        assert_eq!(pick("tags/x"), (id('d'), "refs/tags/x".to_owned()));
        assert_eq!(pick("v1"), (id('e'), "refs/tags/v1".to_owned()));
        assert_eq!(choose(&listed, "y"), None);
        assert_eq!(choose(&listed, "deep/x"), None);
    }

    #[test]
    fn times_of_commits() {
        let object = "tree 1\nauthor A <a@b> 1 +0000\ncommitter C <x> y> 1700000000 +0100\n\ncommitter Z <z> 5 +0\n";
        assert_eq!(committer_time(object), Some(1_700_000_000));
        assert_eq!(committer_time("tree 1\n\ncommitter Z <z> 5 +0\n"), None);
    }

    #[test]
    fn tokens_go_to_web_servers_only() {
        let secrets = |id: &str| (id == "GIT_AUTH_TOKEN.h").then(|| b"t0k\n".to_vec());
        let header = auth_header(&secrets, "https://user@h/r.git").unwrap_or_default();
        assert_eq!(header, "basic eC1hY2Nlc3MtdG9rZW46dDBr");
        assert_eq!(auth_header(&secrets, "https://other/r.git"), None);
        assert_eq!(auth_header(&secrets, "ssh://h/r.git"), None);
    }
}
