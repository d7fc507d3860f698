//! Bind mounts: host paths inside the container.

use super::{DIR_MODE, Planned};
use crate::error::{Failure, OrFail, Stage};
use dhow_sys::fs as paths;
use dhow_sys::mount;
use rustix::fs::Mode;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Mode of files that are made to be bound over.
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// Puts a clone of the source at its target, which is made if it is missing.
///
/// Links in the target are followed inside the root: `/var/run/docker.sock` has to work where `/var/run` is a link.
pub(super) fn attach(root: BorrowedFd<'_>, source: OwnedFd, planned: &Planned<'_>) -> Result<(), Failure> {
    let what = || format!("cannot mount {:?} to {:?}", planned.mount.source, planned.target);
    let is_dir = paths::is_dir(&source).or_fail(Stage::Mount, what)?;
    let target = match is_dir {
        true => paths::make_dirs_in_root(root, &planned.target, DIR_MODE),
        false => paths::make_file_in_root(root, &planned.target, FILE_MODE, DIR_MODE),
    }
    .or_fail(Stage::Mount, what)?;
    if paths::is_dir(&target).or_fail(Stage::Mount, what)? != is_dir {
        let what = format!("{}: one is a directory and the other is not", what());
        return Err(Failure { stage: Stage::Mount, what, errno: Some(libc::ENOTDIR) });
    }
    // Attributes and propagation before it can be seen.
    planned.options.apply_to_clone(source.as_fd()).or_fail(Stage::Mount, what)?;
    let (propagation, recursive) = planned.options.bind_propagation();
    mount::set_propagation(source.as_fd(), propagation, recursive).or_fail(Stage::Mount, what)?;
    mount::attach(source.as_fd(), target.as_fd()).or_fail(Stage::Mount, what)
}
