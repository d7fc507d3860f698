//! The working directory, resolved inside the container's root without magic links (CVE-2024-21626).

use crate::error::{Failure, OrFail, Stage};
use dhow_sys::fs as paths;
use rustix::fs::{Mode, OFlags};
use std::os::fd::BorrowedFd;

/// Makes a missing working directory, root's and 0755 like Docker.
pub(crate) fn make(root: BorrowedFd<'_>, cwd: &str) -> Result<(), Failure> {
    paths::make_dirs_in_root(root, &paths::clean_absolute(check(cwd)?), Mode::from_raw_mode(0o755))
        .or_fail(Stage::Workdir, || format!("cannot make the working directory {cwd:?}"))
        .map(drop)
}

/// Enters the working directory of a process whose root is the container's, and asks the kernel where that is.
pub(crate) fn enter(root: BorrowedFd<'_>, cwd: &str) -> Result<(), Failure> {
    let what = || format!("cannot use the working directory {cwd:?}");
    let path = paths::clean_absolute(check(cwd)?);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = paths::open_in_root(root, &path, flags, Mode::empty()).or_fail(Stage::Workdir, what)?;
    rustix::process::fchdir(directory).or_fail(Stage::Workdir, what)?;
    // Outside the root the kernel says "(unreachable)…" or, for a removed directory, ENOENT.
    let found = rustix::process::getcwd(Vec::new()).or_fail(Stage::Workdir, what)?;
    match found.as_bytes().first() {
        Some(b'/') => Ok(()),
        _ => Err(Failure::new(Stage::Workdir, format!("the working directory {cwd:?} is outside the container"))),
    }
}

fn check(cwd: &str) -> Result<&str, Failure> {
    match cwd {
        "" => Ok("/"),
        cwd if cwd.starts_with('/') && !cwd.contains('\0') => Ok(cwd),
        _ => Err(Failure::new(Stage::Workdir, format!("the working directory {cwd:?} is not an absolute path"))),
    }
}
