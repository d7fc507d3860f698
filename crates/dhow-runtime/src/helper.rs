//! A container's root without a container.

use crate::error::{Failure, LaunchError, OrFail, Stage};
use crate::maker;
use crate::request::Rootfs;
use crate::rootfs;
use dhow_sys::mount::{self, Propagation};
use dhow_sys::process as sys;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Most bytes that come back.
const LIMIT: u64 = 64 << 20;

/// First byte of what comes back.
const DONE: u8 = 0;
const REFUSED: u8 = 1;
const FAILED: u8 = 2;

/// Runs a function in a child process that sees a root mounted, in a mount namespace of its own that ends with the child.
/// The descriptor is the root's directory; paths below it are to be opened with [`dhow_sys::fs`]. What the function
/// returns comes back, at most 64 MiB of it.
///
/// The caller must have one thread. Its other descriptors can be used in the function.
pub fn with_rootfs(
    rootfs: &Rootfs<'_>,
    f: impl FnOnce(BorrowedFd<'_>) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, LaunchError> {
    if !maker::single_threaded()? {
        return Err(LaunchError::Threads);
    }
    let failed = |e: rustix::io::Errno| LaunchError::step(Stage::Stdio, "cannot make a pipe")(e.into());
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    // Taken out in both processes: here to use it, there so that a write fails when nobody reads any more.
    let read = Cell::new(Some(read));
    let mut write = File::from(write);
    let child = sys::clone_child(sys::CLONE_NEWNS, None, || {
        drop(read.take());
        i32::from(answer(&mut write, rootfs, f).is_err())
    })
    .map_err(LaunchError::step(Stage::Namespaces, "cannot make a process in a mount namespace"))?;
    drop(write);
    let result = match read.take() {
        Some(read) => receive(read),
        None => Ok(Vec::new()),
    };
    let oversized = result.as_ref().is_ok_and(|bytes| bytes.len() as u64 > LIMIT);
    let exit = match (&result, oversized) {
        (Ok(_), false) => sys::wait(child.pidfd.as_fd()).ok(),
        _ => maker::discard(&child),
    };
    let bytes = result.map_err(LaunchError::step(Stage::Program, "cannot read the answer of the process"))?;
    if oversized {
        return Err(Failure::new(Stage::Program, format!("the answer is larger than {LIMIT} bytes")).into());
    }
    read_answer(&bytes).unwrap_or(Err(LaunchError::Died(exit.unwrap_or(sys::Exit::Code(1)))))
}

/// The child's side.
fn answer(
    write: &mut File,
    rootfs: &Rootfs<'_>,
    f: impl FnOnce(BorrowedFd<'_>) -> Result<Vec<u8>, String>,
) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    match mount(rootfs) {
        Err(failure) => {
            write.write_all(&[FAILED, failure.stage as u8])?;
            write.write_all(&failure.errno.unwrap_or(0).to_le_bytes())?;
            write.write_all(failure.what.as_bytes())
        }
        Ok(root) => match f(root.as_fd()) {
            Ok(bytes) => {
                write.write_all(&[DONE])?;
                write.write_all(&bytes)
            }
            Err(what) => {
                write.write_all(&[REFUSED])?;
                write.write_all(what.as_bytes())
            }
        },
    }
}

fn mount(rootfs: &Rootfs<'_>) -> Result<OwnedFd, Failure> {
    mount::set_propagation_of_all(Propagation::Private).or_fail(Stage::Root, || "cannot make the mounts private")?;
    rootfs::mount_root(rootfs, |_| Ok(()))
}

fn receive(read: OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(read).take(LIMIT + 2).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `None` when there is no answer: the child died.
fn read_answer(bytes: &[u8]) -> Option<Result<Vec<u8>, LaunchError>> {
    let (kind, rest) = bytes.split_first()?;
    Some(match *kind {
        DONE => Ok(rest.to_vec()),
        REFUSED => Err(Failure::new(Stage::Program, String::from_utf8_lossy(rest)).into()),
        _ => {
            let (stage, rest) = rest.split_first()?;
            let (errno, what) = rest.split_first_chunk::<4>()?;
            let errno = i32::from_le_bytes(*errno);
            Err(Failure {
                stage: Stage::from_number(*stage)?,
                what: String::from_utf8_lossy(what).into_owned(),
                errno: (errno != 0).then_some(errno),
            }
            .into())
        }
    })
}
