//! The processes of a container's cgroups: listing, freezing, killing.

use super::layout::{self, Hierarchy};
use super::{Cgroup, CgroupError, descendants};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long freezing may take: a process in uninterruptible sleep holds it up.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);
/// How long killed processes may take to go away.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

impl Cgroup {
    /// Ids of all processes, in the cgroups and in those that the container made below, sorted. Processes outside the
    /// caller's pid namespace have none and are left out.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        // A privileged container may have moved a process in one hierarchy only; two of different versions are enough
        // to find it.
        for hierarchy in [self.layout.v2.as_ref(), self.listing_v1()].into_iter().flatten() {
            pids.extend(pids_below(hierarchy.root(), self.path.as_str()));
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// The version 1 hierarchy that is asked for processes.
    fn listing_v1(&self) -> Option<&Hierarchy> {
        let index = ["freezer", "pids", "memory"].iter().find_map(|c| self.layout.v1_home(c));
        self.layout.v1.get(index.unwrap_or(0))
    }

    /// Stops all processes and returns when they have stopped. A cgroup that does not stop in 2 s is thawed again.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.set_frozen(true)?;
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !self.frozen()? {
            let waited = started.elapsed();
            if waited > FREEZE_PATIENCE {
                let _ = self.thaw();
                let waited_ms = waited.as_millis() as u64;
                return Err(CgroupError::NotFrozen { path: self.path().to_owned(), waited_ms });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            if self.v1_dir("freezer").is_some() {
                // Version 1 can hang in FREEZING while processes fork; asking again gets them.
                self.set_frozen(true)?;
            }
        }
        Ok(())
    }

    /// Lets the processes go on.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.set_frozen(false)
    }

    /// Whether all processes are stopped.
    pub fn frozen(&self) -> Result<bool, CgroupError> {
        let (dir, file, wanted) = match self.v1_dir("freezer") {
            Some(dir) => (dir, "freezer.state", "FROZEN"),
            None => (self.v2_or_missing()?, "cgroup.events", "frozen 1"),
        };
        let text = layout::read(dir, file).map_err(|e| self.failed("read", file, e))?;
        Ok(text.lines().any(|line| line == wanted))
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        let (dir, file, value) = match self.v1_dir("freezer") {
            Some(dir) => (dir, "freezer.state", if frozen { "FROZEN" } else { "THAWED" }),
            None => (self.v2_or_missing()?, "cgroup.freeze", if frozen { "1" } else { "0" }),
        };
        layout::write(dir, file, value).map_err(|e| self.failed("write", file, e))
    }

    fn v2_or_missing(&self) -> Result<BorrowedFd<'_>, CgroupError> {
        self.v2_dir().ok_or_else(|| CgroupError::NotFound { path: self.path().to_owned() })
    }

    fn failed(&self, action: &'static str, file: &str, e: Errno) -> CgroupError {
        CgroupError::Io { action, path: format!("{}/{file}", self.path()), source: e.into() }
    }

    /// Kills all processes with SIGKILL and returns when they are gone, or after 2 s with the ones that are left.
    ///
    /// `cgroup.kill` (Linux 5.14) gets every process of the version 2 cgroup at once. Where there is none, or processes
    /// are in a version 1 cgroup only, they are frozen so that none forks away, and killed one by one.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        let has_freezer = self.v1_dir("freezer").is_some();
        let at_once = self.v2_dir().is_some_and(|dir| layout::write(dir, "cgroup.kill", "1").is_ok());
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        let mut round = 0;
        loop {
            // What cgroup.kill has killed needs some rounds to go away; what is still there then it did not reach.
            let by_hand = !at_once || round >= 4;
            if by_hand && has_freezer {
                let _ = self.set_frozen(true);
            }
            let pids = self.pids()?;
            if by_hand {
                self.kill_members(&pids)?;
            }
            if has_freezer {
                // A frozen process of a version 1 cgroup dies only when it is thawed.
                let _ = self.thaw();
            }
            if pids.is_empty() {
                return Ok(());
            }
            if started.elapsed() > KILL_PATIENCE {
                return Err(CgroupError::StillRunning { path: self.path().to_owned(), pids });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            round += 1;
        }
    }

    /// Signals processes that are surely ours: a pid that was reused between listing and opening would not be in the
    /// second list, unless it is a member again.
    fn kill_members(&self, pids: &[u32]) -> Result<(), CgroupError> {
        let opened: Vec<(u32, OwnedFd)> = pids
            .iter()
            .filter_map(|pid| {
                let raw = Pid::from_raw(i32::try_from(*pid).ok()?)?;
                Some((*pid, rustix::process::pidfd_open(raw, PidfdFlags::empty()).ok()?))
            })
            .collect();
        let still = self.pids()?;
        for (pid, fd) in &opened {
            if still.binary_search(pid).is_ok() {
                // Gone already is as good as killed.
                let _ = rustix::process::pidfd_send_signal(fd.as_fd(), Signal::KILL);
            }
        }
        Ok(())
    }
}

/// Processes of a cgroup of one hierarchy and of those below it, unsorted. What vanishes meanwhile has none.
pub(super) fn pids_below(root: BorrowedFd<'_>, path: &str) -> Vec<u32> {
    let mut dirs = vec![path.to_owned()];
    descendants(root, path, &mut dirs);
    let mut pids = Vec::new();
    for dir in dirs {
        let text = match layout::read(root, &format!("{dir}/cgroup.procs")) {
            // A threaded cgroup lists threads only.
            Err(Errno::OPNOTSUPP) => layout::read(root, &format!("{dir}/cgroup.threads")),
            other => other,
        };
        pids.extend(text.unwrap_or_default().lines().filter_map(|l| l.parse::<u32>().ok()).filter(|pid| *pid != 0));
    }
    pids
}
