//! What a container has used: the numbers behind `stats`, and whether memory ran out.

use super::{Cgroup, layout};
use std::os::fd::BorrowedFd;

/// Resource use of a container. `None` where the host does not count it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in bytes, page cache included.
    pub memory: Option<u64>,
    /// Page cache that can be dropped, in bytes; `docker stats` subtracts it from `memory`.
    pub inactive_file: Option<u64>,
    /// Memory limit in bytes; `None` when unlimited.
    pub memory_limit: Option<u64>,
    /// CPU time in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// CPU time in user mode, nanoseconds.
    pub cpu_user_ns: Option<u64>,
    /// CPU time in the kernel, nanoseconds.
    pub cpu_system_ns: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Limit of those; `None` when unlimited.
    pub pids_limit: Option<u64>,
    /// Bytes read from block devices.
    pub io_read: Option<u64>,
    /// Bytes written to block devices.
    pub io_written: Option<u64>,
    /// How often the kernel killed a process for lack of memory.
    pub oom_kills: Option<u64>,
}

impl Cgroup {
    /// Whether the kernel killed a process of the container for lack of memory. Ask before [`Cgroup::remove`].
    pub fn oom_killed(&self) -> bool {
        self.oom_kills().is_some_and(|n| n > 0)
    }

    fn oom_kills(&self) -> Option<u64> {
        match self.v1_dir("memory") {
            Some(dir) => keyed(dir, "memory.oom_control", "oom_kill"),
            None => keyed(self.v2_dir()?, "memory.events", "oom_kill"),
        }
    }

    /// What the container has used so far.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage { oom_kills: self.oom_kills(), ..Usage::default() };
        match (self.v1_dir("memory"), self.v2_dir()) {
            (Some(dir), _) => {
                usage.memory = number(dir, "memory.usage_in_bytes");
                usage.inactive_file = keyed(dir, "memory.stat", "total_inactive_file");
                // "Unlimited" is the highest multiple of a page.
                usage.memory_limit = number(dir, "memory.limit_in_bytes").filter(|n| *n < i64::MAX as u64 - (1 << 20));
            }
            (None, Some(dir)) => {
                usage.memory = number(dir, "memory.current");
                usage.inactive_file = keyed(dir, "memory.stat", "inactive_file");
                usage.memory_limit = number(dir, "memory.max");
            }
            (None, None) => {}
        }
        match (self.v1_dir("cpuacct"), self.v2_dir()) {
            (Some(dir), _) => {
                usage.cpu_ns = number(dir, "cpuacct.usage");
                usage.cpu_user_ns = number(dir, "cpuacct.usage_user");
                usage.cpu_system_ns = number(dir, "cpuacct.usage_sys");
            }
            (None, Some(dir)) => {
                let nanoseconds = |key| keyed(dir, "cpu.stat", key).map(|us| us.saturating_mul(1000));
                usage.cpu_ns = nanoseconds("usage_usec");
                usage.cpu_user_ns = nanoseconds("user_usec");
                usage.cpu_system_ns = nanoseconds("system_usec");
            }
            (None, None) => {}
        }
        if let Some(dir) = self.v1_dir("pids").or(self.v2_dir()) {
            usage.pids = number(dir, "pids.current");
            usage.pids_limit = number(dir, "pids.max");
        }
        let (read, written) = match (self.v1_dir("blkio"), self.v2_dir()) {
            (Some(dir), _) => {
                let text = layout::read(dir, "blkio.throttle.io_service_bytes_recursive").ok();
                (text.as_deref().map(|t| sum_v1(t, "Read")), text.as_deref().map(|t| sum_v1(t, "Write")))
            }
            (None, Some(dir)) => {
                let text = layout::read(dir, "io.stat").ok();
                (text.as_deref().map(|t| sum_v2(t, "rbytes=")), text.as_deref().map(|t| sum_v2(t, "wbytes=")))
            }
            (None, None) => (None, None),
        };
        usage.io_read = read;
        usage.io_written = written;
        usage
    }
}

/// A file that holds one number. `max` and missing files are `None`.
fn number(dir: BorrowedFd<'_>, file: &str) -> Option<u64> {
    layout::read(dir, file).ok()?.trim().parse().ok()
}

/// The number behind a key, in a file of `key number` lines.
fn keyed(dir: BorrowedFd<'_>, file: &str, key: &str) -> Option<u64> {
    find_key(&layout::read(dir, file).ok()?, key)
}

fn find_key(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Sums `major:minor operation bytes` lines of one operation.
fn sum_v1(text: &str, operation: &str) -> u64 {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            fields.next()?.contains(':').then_some(())?;
            (fields.next()? == operation).then_some(())?;
            fields.next()?.parse::<u64>().ok()
        })
        .fold(0, u64::saturating_add)
}

/// Sums `major:minor rbytes=… wbytes=… …` fields of one name.
fn sum_v2(text: &str, field: &str) -> u64 {
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix(field)?.parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_keys() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(find_key(text, "oom_kill"), Some(3));
        assert_eq!(find_key(text, "oom"), None);
        assert_eq!(find_key("low 0\noom 1\noom_kill 2\n", "oom_kill"), Some(2));
    }

    #[test]
    fn block_io_sums() {
        assert_eq!(sum_v1("254:0 Read 10\n254:0 Write 5\n8:0 Read 7\nTotal 22\n", "Read"), 17);
        assert_eq!(sum_v2("254:0 rbytes=10 wbytes=5 rios=1\n8:0 rbytes=7 wbytes=1\n", "rbytes="), 17);
    }
}
