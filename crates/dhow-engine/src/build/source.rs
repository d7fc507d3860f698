//! The Dockerfile and the context of a build.

use super::{BuildContext, DockerfileSource};
use crate::{Engine, EngineError};
use dhow_build::Context;
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
    /// An unpacked archive, removed when the build is over.
    _unpacked: Option<ScratchDir>,
}

/// Finds Dockerfile, context and ignore rules.
pub(super) fn open(
    engine: &Engine,
    context: BuildContext,
    dockerfile: DockerfileSource,
) -> Result<Source, EngineError> {
    match context {
        BuildContext::Empty => {
            let dockerfile = match dockerfile {
                DockerfileSource::Bytes(bytes) => bytes,
                DockerfileSource::Path(path) => read_host(&path)?.ok_or_else(|| missing(&path))?,
                DockerfileSource::Default => return Err(missing(Path::new("Dockerfile"))),
            };
            Ok(Source { dockerfile, context: None, identity: None, _unpacked: None })
        }
        BuildContext::Directory(path) => {
            let meta = std::fs::metadata(&path).map_err(|e| unusable(&path, &e))?;
            let mut context = Context::open(&path).map_err(|e| unusable(&path, &e))?;
            let dockerfile = match dockerfile {
                DockerfileSource::Default => find_default(&mut context, &path)?,
                DockerfileSource::Path(file) => host_dockerfile(&mut context, &path, &file)?,
                DockerfileSource::Bytes(bytes) => {
                    context.load_ignore(None)?;
                    bytes
                }
            };
            let identity = Some((meta.dev(), meta.ino()));
            Ok(Source { dockerfile, context: Some(context), identity, _unpacked: None })
        }
        BuildContext::Archive(file) => {
            let unpacked = engine.store().new_upper()?;
            let root = unpacked.upper();
            let directory = File::open(&root).map_err(EngineError::state("open", &root))?;
            extract(directory.as_fd(), Path::new(""), &file, None)?;
            let mut context = Context::open(&root).map_err(|e| unusable(&root, &e))?;
            let dockerfile = match dockerfile {
                DockerfileSource::Default => find_default(&mut context, Path::new("the archive"))?,
                DockerfileSource::Path(file) => {
                    let name = file.to_string_lossy();
                    context.load_ignore(Some(&name))?;
                    context.read_dockerfile(&name)?.ok_or_else(|| missing(&file))?
                }
                DockerfileSource::Bytes(bytes) => {
                    context.load_ignore(None)?;
                    bytes
                }
            };
            Ok(Source { dockerfile, context: Some(context), identity: None, _unpacked: Some(unpacked) })
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
