//! `ADD`: a copy that also fetches and unpacks.

use super::Builder;
use super::copy::{Job, find_all, fingerprint, listing, reply};
use super::stage::StageState;
use crate::backend::{Backend, REMOTE_FILE, RemoteRequest, RemoteTree};
use crate::context::{Found, SourceTree};
use crate::error::BuildError;
use crate::remote::RemoteSource;
use crate::tree::{Copier, CopySettings, Root, TreeError, lookup};
use dhow_dockerfile::{Add, IgnoreList};
use dhow_types::report;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// One word of the instruction.
enum Source<'a> {
    /// Files of the context.
    Local(Vec<Found>),
    /// Something fetched.
    Remote(Box<dyn RemoteTree + 'a>),
}

/// One word of the instruction, ready to be copied.
struct Ready<'a> {
    root: Directory<'a>,
    found: Vec<Found>,
    /// Archives are extracted.
    unpack: bool,
}

enum Directory<'a> {
    Context(BorrowedFd<'a>),
    Fetched(OwnedFd),
}

impl Builder<'_> {
    pub(super) async fn add(&self, state: &mut StageState, add: &Add) -> Result<(), BuildError> {
        let mut job = self.job(state, "ADD", &add.files)?;
        job.unpack = add.unpack.unwrap_or(true);
        let checksum = add.checksum.as_ref().map(|c| self.expand(state, c)).transpose()?;
        let checksum = checksum.filter(|c| !c.is_empty());
        let mut remotes = Vec::with_capacity(job.words.len());
        for word in &job.words {
            let parsed = RemoteSource::parse(word, false);
            remotes.push(parsed.map_err(|e| BuildError::Invalid(e.to_string()))?);
        }
        if checksum.is_some() && (job.words.len() != 1 || !job.inline.is_empty()) {
            return Err(BuildError::Invalid("checksum can't be specified for multiple sources".to_owned()));
        }
        if checksum.is_some() && remotes.iter().any(Option::is_none) {
            return Err(BuildError::Invalid("checksum requires HTTP(S) or Git sources".to_owned()));
        }
        let has_git = remotes.iter().any(|r| matches!(r, Some(RemoteSource::Git(_))));
        if add.keep_git_dir == Some(true) && !has_git {
            self.warn(0, "ADD --keep-git-dir has no effect: no source is a git repository");
        }
        if remotes.iter().all(Option::is_none) {
            return self.copy_context(state, &job, None).await;
        }
        self.add_remote(state, add, &job, &remotes, checksum.as_deref()).await
    }

    async fn add_remote(
        &self,
        state: &mut StageState,
        add: &Add,
        job: &Job,
        remotes: &[Option<RemoteSource>],
        checksum: Option<&str>,
    ) -> Result<(), BuildError> {
        let mut recipe = self.copy_recipe("add", state, job);
        recipe.part("exclude", format!("{:?}", job.exclude));
        recipe.part("unpack", format!("{:?}", add.unpack));
        let mut sources = Vec::with_capacity(remotes.len());
        let mut local = Vec::new();
        for (word, remote) in job.words.iter().zip(remotes) {
            let Some(source) = remote else {
                let found = self.find_local(job, word)?;
                recipe.files(&fingerprint(&found));
                local.extend(listing(&found));
                sources.push(Source::Local(found));
                continue;
            };
            let (source, checksum) = (source.clone(), checksum.map(str::to_owned));
            let request = RemoteRequest { source, checksum, keep_git_dir: add.keep_git_dir };
            let tree = self.backend.remote(request).await?;
            let name = tree.file_name().unwrap_or_default();
            recipe.part("content", tree.identity());
            // The name matters only where the destination is a directory, which is not known here.
            recipe.part("name", name);
            sources.push(Source::Remote(tree));
        }
        let Some(_claim) = self.take(state, job, &recipe).await? else { return Ok(()) };
        let key = recipe.key();
        self.miss(state, recipe, Some(local));
        let mut ready = Vec::with_capacity(sources.len());
        for source in &mut sources {
            ready.push(self.ready(source, add, job).await?);
        }
        let backend = self.backend;
        let edited = backend
            .edit(job.base(state), self.options.source_date_epoch, &mut |target| {
                add_all(backend, Root(target), job, &ready).map(reply).map_err(|e| report(&e))
            })
            .await?;
        let changed = edited.reply.first() == Some(&1);
        self.keep(state, job, &key, edited.layer, changed)
    }

    fn find_local(&self, job: &Job, word: &str) -> Result<Vec<Found>, BuildError> {
        let context = self.context.ok_or_else(|| BuildError::NoContext(word.to_owned()))?;
        let tree = SourceTree {
            root: context.root(),
            ignore: context.ignore(),
            keep_owner: false,
            memory: Some(self.backend),
        };
        find_all(&tree, job, &[word.to_owned()])
    }

    async fn ready(&self, source: &mut Source<'_>, add: &Add, job: &Job) -> Result<Ready<'_>, BuildError> {
        let tree = match source {
            Source::Local(found) => {
                let context = self.context.ok_or_else(|| BuildError::NoContext(String::new()))?;
                let root = Directory::Context(context.root());
                return Ok(Ready { root, found: std::mem::take(found), unpack: job.unpack });
            }
            Source::Remote(tree) => tree,
        };
        let directory = tree.open().await?;
        let nothing = IgnoreList::default();
        let files = SourceTree { root: directory.as_fd(), ignore: &nothing, keep_owner: false, memory: None };
        let name = tree.file_name();
        let mut found = files.find_literal(if name.is_some() { REMOTE_FILE } else { "/" })?;
        if let (Some(name), Some(file)) = (&name, found.first_mut()) {
            file.name = name.clone().into_bytes();
        }
        if !job.exclude.is_empty() {
            found.retain_mut(|f| f.exclude(&job.exclude));
        }
        // What was fetched is unpacked only when the instruction says so.
        let unpack = name.is_some() && add.unpack == Some(true);
        Ok(Ready { root: Directory::Fetched(directory), found, unpack })
    }
}

impl AsFd for Directory<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Context(fd) => *fd,
            Self::Fetched(fd) => fd.as_fd(),
        }
    }
}

/// Runs in the helper: puts everything in place, word by word. Says whether a file changed since it was scanned.
fn add_all(backend: &dyn Backend, root: Root<'_>, job: &Job, ready: &[Ready<'_>]) -> Result<bool, TreeError> {
    let owner = job.owner.as_ref().map(|o| lookup(root, o)).transpose()?;
    let settings = CopySettings { owner, mode: job.mode.clone(), time: job.time };
    let files = ready.iter().flat_map(|r| &r.found).filter(|f| !f.is_directory()).count() + job.inline.len();
    let mut changed = false;
    let mut inline = &job.inline[..];
    for one in ready {
        let source = one.root.as_fd();
        let mut copier = Copier::new(root, source, settings.clone());
        if files > 1 && !copier.is_directory(&job.destination) {
            return Err(TreeError::SeveralSources(job.name));
        }
        for found in &one.found {
            if one.unpack && !found.is_directory() && extract(backend, root, source, found, job, owner)? {
                continue;
            }
            copier.copy(found, &job.destination)?;
        }
        for file in std::mem::take(&mut inline) {
            copier.write(&file.name, file.content.as_bytes(), &job.destination)?;
        }
        changed |= copier.changed;
    }
    Ok(changed)
}

/// Extracts an archive into the destination; false when the file is none.
pub(super) fn extract(
    backend: &dyn Backend,
    root: Root<'_>,
    source: BorrowedFd<'_>,
    found: &Found,
    job: &Job,
    owner: Option<(u32, u32)>,
) -> Result<bool, TreeError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = String::from_utf8_lossy(&found.path).into_owned();
    let io = |operation, source: std::io::Error| TreeError::Io { operation, path: path.clone(), source };
    let fd = openat2(source, &*found.path, flags, Mode::empty(), resolve).map_err(|e| io("read", e.into()))?;
    let file = File::from(fd);
    if !file.metadata().is_ok_and(|m| m.is_file()) || !backend.is_archive(&file) {
        return Ok(false);
    }
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).map_err(|e| io("read", e.into()))?;
    root.make_directories(job.destination.as_bytes(), owner.unwrap_or((0, 0)))?;
    backend
        .extract_archive(root.0, Path::new(&job.destination), &file, owner)
        .map_err(|e| io("extract", std::io::Error::other(report(&e))))?;
    Ok(true)
}
