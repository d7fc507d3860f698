//! The Dockerfile and the context of a build.

use super::remote::{Checkout, GitTree, HttpTree, RemoteError};
use super::{BuildContext, BuildRequest, DockerfileSource};
use crate::{Engine, EngineError};
use dhow_build::remote::RemoteSource;
use dhow_build::{Context, REMOTE_FILE, drive};
use dhow_store::{ExtractOptions, ScratchDir};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Largest Dockerfile and largest ignore file given by a host path, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// What a build reads.
pub(super) struct Source {
    pub(super) dockerfile: Vec<u8>,
    pub(super) context: Option<Context>,
    /// Device and inode of a context directory that lasts.
    pub(super) identity: Option<(u64, u64)>,
    /// When the commit of a repository that was fetched was made, in Unix seconds.
    pub(super) commit_time: Option<i64>,
    /// Unpacked archives and repositories, removed when the build is over.
    _fetched: Fetched,
}

/// What holds the files of a context.
enum Fetched {
    Nothing,
    Archive { _files: ScratchDir },
    Repository { _files: Checkout },
}

/// Finds Dockerfile, context and ignore rules.
pub(super) fn open(
    engine: &Engine,
    context: BuildContext,
    dockerfile: DockerfileSource,
    request: &BuildRequest,
) -> Result<Source, EngineError> {
    match context {
        BuildContext::Remote(text) => remote(engine, &text, dockerfile, request),
        BuildContext::Empty => {
            let dockerfile = match dockerfile {
                DockerfileSource::Bytes(bytes) => bytes,
                DockerfileSource::Path(path) => match fetched_dockerfile(engine, &path)? {
                    Some(bytes) => bytes,
                    None => read_host(&path)?.ok_or_else(|| missing(&path))?,
                },
                DockerfileSource::Default => return Err(missing(Path::new("Dockerfile"))),
            };
            Ok(alone(dockerfile))
        }
        BuildContext::Directory(path) => {
            let meta = std::fs::metadata(&path).map_err(|e| unusable(&path, &e))?;
            let mut context = Context::open(&path).map_err(|e| unusable(&path, &e))?;
            let dockerfile = match dockerfile {
                DockerfileSource::Default => find_default(&mut context, &path)?,
                DockerfileSource::Path(file) => match fetched_dockerfile(engine, &file)? {
                    Some(bytes) => {
                        context.load_ignore(None)?;
                        bytes
                    }
                    None => host_dockerfile(&mut context, &path, &file)?,
                },
                DockerfileSource::Bytes(bytes) => {
                    context.load_ignore(None)?;
                    bytes
                }
            };
            let identity = Some((meta.dev(), meta.ino()));
            Ok(Source { dockerfile, context: Some(context), identity, commit_time: None, _fetched: Fetched::Nothing })
        }
        BuildContext::Archive(file) => archive(engine, &file, dockerfile),
    }
}

/// A Dockerfile without a context.
fn alone(dockerfile: Vec<u8>) -> Source {
    Source { dockerfile, context: None, identity: None, commit_time: None, _fetched: Fetched::Nothing }
}

fn archive(engine: &Engine, file: &File, dockerfile: DockerfileSource) -> Result<Source, EngineError> {
    let unpacked = engine.store().new_upper()?;
    let root = unpacked.upper();
    let directory = File::open(&root).map_err(EngineError::state("open", &root))?;
    extract(directory.as_fd(), Path::new(""), file, None)?;
    let mut context = Context::open(&root).map_err(|e| unusable(&root, &e))?;
    let dockerfile = inside(engine, &mut context, dockerfile, "the archive")?;
    let fetched = Fetched::Archive { _files: unpacked };
    Ok(Source { dockerfile, context: Some(context), identity: None, commit_time: None, _fetched: fetched })
}

/// The Dockerfile of a context that came from elsewhere, and the context's ignore rules. Its path is one in the context,
/// unless it is a URL, or an absolute path of the host's.
fn inside(
    engine: &Engine,
    context: &mut Context,
    dockerfile: DockerfileSource,
    place: &str,
) -> Result<Vec<u8>, EngineError> {
    match dockerfile {
        DockerfileSource::Default => find_default(context, Path::new(place)),
        DockerfileSource::Path(file) => {
            if let Some(bytes) = fetched_dockerfile(engine, &file)? {
                context.load_ignore(None)?;
                return Ok(bytes);
            }
            let name = file.to_string_lossy();
            if let Some(bytes) = context.read_dockerfile(&name)? {
                context.load_ignore(Some(&name))?;
                return Ok(bytes);
            }
            let bytes = if file.is_absolute() { read_host(&file)? } else { None };
            context.load_ignore(None)?;
            bytes.ok_or_else(|| missing(&file))
        }
        DockerfileSource::Bytes(bytes) => {
            context.load_ignore(None)?;
            Ok(bytes)
        }
    }
}

/// `-f URL`; `None` when the path is none.
fn fetched_dockerfile(engine: &Engine, file: &Path) -> Result<Option<Vec<u8>>, EngineError> {
    let Some(text) = file.to_str() else { return Ok(None) };
    match RemoteSource::parse(text, false) {
        Ok(Some(RemoteSource::Http(url))) => {
            let content = HttpTree::find(engine, &url, None, &|_| None)?.into_content()?;
            read_host(&content.upper().join(REMOTE_FILE))
        }
        Ok(Some(RemoteSource::Git(_))) => Err(RemoteError::Source(
            "a Dockerfile cannot be a git repository; use the repository as context".to_owned(),
        )
        .into()),
        _ => Ok(None),
    }
}

/// A context behind a URL: a repository, an archive, or a Dockerfile alone.
fn remote(
    engine: &Engine,
    text: &str,
    dockerfile: DockerfileSource,
    request: &BuildRequest,
) -> Result<Source, EngineError> {
    let secrets = |id: &str| {
        let secret = request.secrets.iter().find(|s| s.id == id)?;
        request.secret_reader.as_ref()?.read(secret).ok()
    };
    let source = RemoteSource::parse(text, true).map_err(|e| RemoteError::Source(e.to_string()))?;
    let shown = dhow_build::remote::redacted(text);
    match source {
        None => Err(RemoteError::Source(format!("unable to prepare context: {shown:?} is no URL of a context")).into()),
        Some(RemoteSource::Git(git)) => {
            let files = drive::block_on(async {
                let tree = GitTree::find(engine, git, &secrets).await?;
                tree.check_out().await
            })?;
            let directory =
                files.directory.try_clone().map_err(EngineError::state("open", Path::new("the repository")))?;
            let mut context = Context::from_directory(directory);
            let dockerfile = inside(engine, &mut context, dockerfile, &shown)?;
            let commit_time = files.time;
            let fetched = Fetched::Repository { _files: files };
            Ok(Source { dockerfile, context: Some(context), identity: None, commit_time, _fetched: fetched })
        }
        Some(RemoteSource::Http(url)) => {
            let content = HttpTree::find(engine, &url, None, &secrets)?.into_content()?;
            let path = content.upper().join(REMOTE_FILE);
            let file = File::open(&path).map_err(EngineError::state("open", &path))?;
            if super::backend::is_packed(&file) {
                let file = File::open(&path).map_err(EngineError::state("open", &path))?;
                return archive(engine, &file, dockerfile);
            }
            match dockerfile {
                DockerfileSource::Default => Ok(alone(read_host(&path)?.unwrap_or_default())),
                DockerfileSource::Bytes(bytes) => Ok(alone(bytes)),
                DockerfileSource::Path(file) => Err(EngineError::Invalid(format!(
                    "{shown} is a Dockerfile, not an archive: there is no {} in it",
                    file.display()
                ))),
            }
        }
    }
}

/// `Dockerfile`, or `dockerfile`, with its ignore rules.
fn find_default(context: &mut Context, place: &Path) -> Result<Vec<u8>, EngineError> {
    for name in ["Dockerfile", "dockerfile"] {
        if let Some(bytes) = context.read_dockerfile(name)? {
            context.load_ignore(Some(name))?;
            return Ok(bytes);
        }
    }
    Err(missing(&place.join("Dockerfile")))
}

/// `-f PATH`: a file of the user's, which may lie outside of the context. The ignore file beside it wins.
fn host_dockerfile(context: &mut Context, root: &Path, file: &Path) -> Result<Vec<u8>, EngineError> {
    // As Docker does: relative to the current directory, and if it is not there, to the context.
    let (bytes, path) = match read_host(file)? {
        Some(bytes) => (bytes, file.to_owned()),
        None => {
            let inside = root.join(file);
            (read_host(&inside)?.ok_or_else(|| missing(file))?, inside)
        }
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".dockerignore");
    match read_host(&path.with_file_name(name))? {
        Some(ignore) => context.set_ignore(&ignore)?,
        None => context.load_ignore(None)?,
    }
    Ok(bytes)
}

fn read_host(path: &Path) -> Result<Option<Vec<u8>>, EngineError> {
    let fail = || EngineError::state("read", path);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(fail()(e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(EngineError::Invalid(format!("{} is larger than {MAX_FILE} bytes", path.display())));
    }
    Ok(Some(bytes))
}

fn missing(path: &Path) -> EngineError {
    EngineError::Invalid(format!("failed to read dockerfile: open {}: no such file or directory", path.display()))
}

fn unusable(path: &Path, error: &io::Error) -> EngineError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            EngineError::Invalid(format!("unable to prepare context: path {:?} not found", path.display().to_string()))
        }
        io::ErrorKind::NotADirectory => {
            EngineError::Invalid(format!("unable to prepare context: {} is not a directory", path.display()))
        }
        _ => EngineError::Invalid(format!("unable to prepare context: {}: {error}", path.display())),
    }
}

/// Extracts a tar, compressed or not, below a directory that it cannot leave. `owner` overrides the archive's owners.
pub(crate) fn extract(
    root: BorrowedFd<'_>,
    destination: &Path,
    file: &File,
    owner: Option<(u32, u32)>,
) -> Result<(), EngineError> {
    let options = ExtractOptions { owner, ..ExtractOptions::default() };
    Ok(dhow_store::extract_archive(root, destination, file, &options)?)
}
