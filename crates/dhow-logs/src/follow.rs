//! Waiting for more.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How often a log is looked at when the kernel gives no notice (no inotify instance left).
const FALLBACK: Duration = Duration::from_millis(50);

/// Notice of changes in the directory of a log.
#[derive(Debug)]
pub(crate) struct Watch(Option<OwnedFd>);

impl Watch {
    pub(crate) fn new(path: &Path) -> Self {
        let open = || {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
            let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            use inotify::WatchFlags as W;
            let events = W::MODIFY | W::CREATE | W::MOVED_TO | W::DELETE | W::DELETE_SELF | W::ONLYDIR;
            inotify::add_watch(&fd, directory, events).ok()?;
            Some(fd)
        };
        Self(open())
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|fd| fd.as_fd())
    }

    /// Waits until something changed or the time is over. The notices are taken off before the caller reads, so nothing
    /// that happens afterwards is missed.
    pub(crate) fn wait(&self, timeout: Duration) {
        let Some(fd) = &self.0 else {
            std::thread::sleep(timeout.min(FALLBACK));
            return;
        };
        let time = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        // An interrupted wait is a wait that ended early, which the caller expects.
        let _ = poll(&mut fds, Some(&time));
        self.clear();
    }

    pub(crate) fn clear(&self) {
        let mut buffer = [0u8; 4096];
        if let Some(fd) = &self.0 {
            while matches!(rustix::io::read(fd, &mut buffer), Ok(n) if n > 0) {}
        }
    }
}
