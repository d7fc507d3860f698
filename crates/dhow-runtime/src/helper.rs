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
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

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
    let mut helper = Helper::start(rootfs, f)?;
    loop {
        if let Some(result) = helper.receive() {
            return result;
        }
    }
}

/// A child process at work on a root, for callers who have other things to do meanwhile. Dropping it ends the work.
#[derive(Debug)]
pub struct Helper {
    child: sys::Child,
    answer: Rc<OwnedFd>,
    bytes: Vec<u8>,
    is_done: bool,
}

impl Helper {
    /// Starts the work; see [`with_rootfs`].
    pub fn start(
        rootfs: &Rootfs<'_>,
        f: impl FnOnce(BorrowedFd<'_>) -> Result<Vec<u8>, String>,
    ) -> Result<Self, LaunchError> {
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
        let Some(read) = read.take() else {
            maker::discard(&child);
            return Err(Failure::new(Stage::Stdio, "the pipe is gone").into());
        };
        Ok(Self { child, answer: Rc::new(read), bytes: Vec::new(), is_done: false })
    }

    /// The file that can be read when [`Helper::receive`] has something to do.
    pub fn answer(&self) -> &Rc<OwnedFd> {
        &self.answer
    }

    /// Takes what has come, waiting for it if nothing has; the outcome when that was all. To be called until then.
    pub fn receive(&mut self) -> Option<Result<Vec<u8>, LaunchError>> {
        let mut buffer = [0_u8; 16 << 10];
        let failed = LaunchError::step(Stage::Program, "cannot read the answer of the process");
        match rustix::io::read(&*self.answer, &mut buffer) {
            Ok(0) => {}
            Ok(n) => {
                self.bytes.extend(buffer.get(..n).unwrap_or_default());
                if self.bytes.len() as u64 <= LIMIT {
                    return None;
                }
                let text = format!("the answer is larger than {LIMIT} bytes");
                return Some(Err(Failure::new(Stage::Program, text).into()));
            }
            Err(rustix::io::Errno::INTR) => return None,
            Err(e) => return Some(Err(failed(e.into()))),
        }
        self.is_done = true;
        let exit = sys::wait(self.child.pidfd.as_fd()).ok();
        let answer = read_answer(&self.bytes);
        Some(answer.unwrap_or(Err(LaunchError::Died(exit.unwrap_or(sys::Exit::Code(1))))))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if !self.is_done {
            maker::discard(&self.child);
        }
    }
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
