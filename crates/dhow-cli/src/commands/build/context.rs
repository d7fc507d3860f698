//! Where the files and the Dockerfile of a build come from, as typed.

use super::super::invalid;
use crate::error::CliError;
use dhow_engine::{BuildContext, DockerfileSource};
use dhow_types::ErrorKind;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The context and the Dockerfile that `typed` and `--file` name.
pub(super) fn sources(typed: &str, file: Option<&str>) -> Result<(BuildContext, DockerfileSource), CliError> {
    let file = file.filter(|f| !f.is_empty());
    if typed == "-" {
        if file == Some("-") {
            return Err(invalid("invalid argument: can't use stdin for both build context and dockerfile"));
        }
        return from_stdin(file);
    }
    // A directory wins over a URL that looks the same (github.com/x), as in Docker.
    let directory = Path::new(typed);
    if !directory.is_dir() && is_remote(typed) {
        return remote(typed, file);
    }
    let meta = std::fs::metadata(directory).map_err(|e| {
        CliError::failed(ErrorKind::NotFound, format!("unable to prepare context: path {typed:?} not found: {e}"))
    })?;
    if !meta.is_dir() {
        return Err(invalid(format!("unable to prepare context: {typed:?} is not a directory")));
    }
    let dockerfile = match file {
        None => DockerfileSource::Default,
        Some("-") => DockerfileSource::Bytes(read_stdin(MAX_DOCKERFILE)?),
        Some(path) => DockerfileSource::Path(PathBuf::from(path)),
    };
    Ok((BuildContext::Directory(directory.to_owned()), dockerfile))
}

fn remote(typed: &str, file: Option<&str>) -> Result<(BuildContext, DockerfileSource), CliError> {
    let dockerfile = match file {
        None => DockerfileSource::Default,
        Some("-") => DockerfileSource::Bytes(read_stdin(MAX_DOCKERFILE)?),
        Some(path) => DockerfileSource::Path(PathBuf::from(path)),
    };
    Ok((BuildContext::Remote(typed.to_owned()), dockerfile))
}

fn is_http(text: &str) -> bool {
    ["http://", "https://"].iter().any(|p| text.starts_with(p))
}

/// Whether this names something behind a URL: an archive, a text, or a repository. `git@host:path` is scp's form of ssh.
pub(super) fn is_remote(text: &str) -> bool {
    let schemes = ["git://", "git@", "ssh://", "github.com/"];
    is_http(text) || schemes.iter().any(|p| text.starts_with(p))
}

/// Standard input is a Dockerfile or a tar of the context; the first bytes tell. With `--file` it is the tar.
fn from_stdin(file: Option<&str>) -> Result<(BuildContext, DockerfileSource), CliError> {
    if rustix::termios::isatty(rustix::stdio::stdin()) {
        return Err(invalid("the build context shall come from standard input, which is a terminal")
            .with_hint("pipe a Dockerfile or a tar archive into it"));
    }
    if let Some(file) = file {
        return Ok((BuildContext::Archive(stdin()?), DockerfileSource::Path(PathBuf::from(file))));
    }
    let bytes = read_stdin(MAX_STDIN)?;
    if !is_archive(&bytes) {
        return Ok((BuildContext::Empty, DockerfileSource::Bytes(bytes)));
    }
    use std::io::{Seek, SeekFrom, Write};
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let memory = rustix::fs::memfd_create(c"context", flags).map_err(CliError::errno("cannot hold the context"))?;
    let mut archive = File::from(memory);
    archive.write_all(&bytes).map_err(CliError::io("cannot hold the context"))?;
    archive.seek(SeekFrom::Start(0)).map_err(CliError::io("cannot hold the context"))?;
    Ok((BuildContext::Archive(archive), DockerfileSource::Default))
}

/// Most bytes of a context that comes through standard input.
const MAX_STDIN: u64 = 4 << 30;
/// Most bytes of a Dockerfile that comes through standard input; what the builder takes is less.
const MAX_DOCKERFILE: u64 = 64 << 20;

fn stdin() -> Result<File, CliError> {
    let stdin = rustix::stdio::stdin();
    Ok(File::from(stdin.as_fd().try_clone_to_owned().map_err(CliError::io("cannot use standard input"))?))
}

fn read_stdin(limit: u64) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    stdin()?.take(limit + 1).read_to_end(&mut bytes).map_err(CliError::io("cannot read standard input"))?;
    if bytes.len() as u64 > limit {
        return Err(invalid(format!("standard input is larger than {} MiB", limit >> 20)));
    }
    Ok(bytes)
}

/// tar (POSIX.1, "ustar" at 257), gzip, bzip2, xz, zstd by their first bytes.
fn is_archive(bytes: &[u8]) -> bool {
    let magic: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    magic.iter().any(|m| bytes.starts_with(m)) || bytes.get(257..262) == Some(b"ustar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remote() {
        for yes in
            ["http://x/y.tar", "https://x", "git://x/y", "git@h:a/b.git#main:dir", "ssh://git@h/a", "github.com/a/b"]
        {
            assert!(is_remote(yes), "{yes}");
        }
        for no in [".", "dir", "/abs", "-", "file.git", "ftp://x"] {
            assert!(!is_remote(no), "{no}");
        }
    }

    #[test]
    fn archives() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar) && is_archive(b"\x1f\x8b\x08") && !is_archive(b"FROM busybox\n") && !is_archive(b""));
    }
}
