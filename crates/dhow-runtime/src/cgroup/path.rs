//! Paths of cgroups: what may be joined to a hierarchy's root.
//!
//! A cgroup path reaches the kernel as part of a file name, and may come from a `config.json` or `--cgroup-parent`. What
//! could leave the hierarchy, hit a control file or forge a line of `/proc/PID/cgroup` is refused, never cleaned up.

use super::CgroupError;

/// Longest path in bytes.
const MAX_LENGTH: usize = 1024;
/// Longest component (`NAME_MAX`).
const MAX_COMPONENT: usize = 255;
/// Most components.
const MAX_DEPTH: usize = 16;

/// A checked path, relative to the root of every hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CgroupPath(String);

impl CgroupPath {
    /// Checks a path. One leading slash is allowed, as the OCI runtime specification has it, and means the same.
    pub(super) fn new(text: &str) -> Result<Self, CgroupError> {
        let refuse = |reason| Err(CgroupError::InvalidPath { path: text.chars().take(128).collect(), reason });
        let relative = text.strip_prefix('/').unwrap_or(text);
        if relative.is_empty() {
            return refuse("it is empty");
        }
        if relative.len() > MAX_LENGTH || relative.split('/').count() > MAX_DEPTH {
            return refuse("it is too long");
        }
        for component in relative.split('/') {
            if component.is_empty() || component == "." || component == ".." {
                return refuse("components may not be empty, `.` or `..`");
            }
            if component.len() > MAX_COMPONENT {
                return refuse("a component is too long");
            }
            if !component.bytes().all(|b| b.is_ascii_graphic()) {
                return refuse("only printable ASCII without spaces is allowed");
            }
            if component.starts_with("cgroup.") || component == "tasks" {
                return refuse("a component has the name of a control file");
            }
        }
        Ok(Self(relative.to_owned()))
    }

    /// The whole path.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Every ancestor, outermost first, without the path itself.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_paths() {
        for (text, ancestors) in [
            ("dhow/0123abcd", vec!["dhow"]),
            ("/a/b/c", vec!["a", "a/b"]),
            ("x", vec![]),
            ("system.slice/dhow-1.scope", vec!["system.slice"]),
        ] {
            let path = CgroupPath::new(text).unwrap();
            assert_eq!(path.as_str(), text.trim_start_matches('/'));
            assert_eq!(path.ancestors().collect::<Vec<_>>(), ancestors);
        }
    }

    #[test]
    fn hostile_paths() {
        let long = "a".repeat(256);
        let longer = "a/".repeat(600) + "a";
        for text in [
            "",
            "/",
            "//a",
            "a//b",
            "a/",
            "..",
            "../../../victim",
            "a/../b",
            "./a",
            "a/.",
            "a\0b",
            "a\nb",
            "a b",
            "caf\u{e9}",
            "a/cgroup.procs",
            "a/tasks",
            "\u{7f}",
            &long,
            &longer,
        ] {
            assert!(matches!(CgroupPath::new(text), Err(CgroupError::InvalidPath { .. })), "{text:?}");
        }
    }
}
