//! Capabilities by name (capabilities(7)), Docker's default set, and applying the sets of a process.
//!
//! Deliberately absent: file capabilities and user namespaces. The numbers are the kernel's ABI and never change.

use dhow_oci::runtime::Capabilities;
use dhow_sys::caps as sys;
use dhow_types::{Categorized, ErrorKind};
use std::io;

/// Every capability Linux knows; the index is the number.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Docker's default set, in Docker's order.
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// [`DEFAULT`] as a mask.
pub const DEFAULT_SET: Set = Set(0xa804_25fb);

/// All capabilities this code knows.
pub const ALL: Set = Set((1 << NAMES.len()) - 1);

/// What can go wrong with capabilities.
#[derive(Debug, thiserror::Error)]
pub enum CapsError {
    /// No capability has this name; the text is Docker's.
    #[error("invalid capability: {0:?}")]
    Unknown(String),
    /// The kernel refused.
    #[error("cannot {action}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl Categorized for CapsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_) => ErrorKind::Invalid,
            Self::Kernel { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => ErrorKind::Forbidden,
            Self::Kernel { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        matches!(self, Self::Unknown(_))
            .then(|| "capability names are listed in capabilities(7); ALL names every one".into())
    }
}

/// A set of capabilities: bit *n* is capability number *n*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Set(pub u64);

impl Set {
    /// The set of the named ones. Names as [`number`] takes them.
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Result<Self, CapsError> {
        let mut mask = 0;
        for name in names {
            mask |= 1 << number(name.as_ref())?;
        }
        Ok(Self(mask))
    }

    /// Names in the kernel's order.
    pub fn names(self) -> Vec<&'static str> {
        NAMES.iter().enumerate().filter(|(n, _)| self.contains(*n as u32)).map(|(_, name)| *name).collect()
    }

    /// Whether capability number `n` is in the set.
    pub const fn contains(self, n: u32) -> bool {
        n < 64 && self.0 & (1 << n) != 0
    }
}

/// The number of a capability. Case does not matter and `CAP_` may be left out, as in Docker.
pub fn number(name: &str) -> Result<u32, CapsError> {
    let upper = name.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|n| n.strip_prefix("CAP_") == Some(bare))
        .map(|n| n as u32)
        .ok_or_else(|| CapsError::Unknown(name.to_owned()))
}

/// The name of capability number `n`, with `CAP_`.
pub fn name(n: u32) -> Option<&'static str> {
    NAMES.get(n as usize).copied()
}

/// The capabilities of a container from `--cap-add`, `--cap-drop` and `--privileged`.
///
/// `ALL` may be added or dropped. Docker's rules: dropping ALL leaves only what is added by name; adding ALL gives
/// everything but what is dropped; otherwise the default set, minus drops, plus adds. A privileged container has all,
/// whatever else is asked. `ALL` means those that this kernel and this process's bounding set have, as an `execve`
/// could give no more.
pub fn resolve<A: AsRef<str>, D: AsRef<str>>(
    add: &[A],
    drop: &[D],
    privileged: bool,
) -> Result<Vec<&'static str>, CapsError> {
    resolve_within(add, drop, privileged, available())
}

/// [`resolve`] against a given meaning of `ALL`.
pub fn resolve_within<A: AsRef<str>, D: AsRef<str>>(
    add: &[A],
    drop: &[D],
    privileged: bool,
    all: Set,
) -> Result<Vec<&'static str>, CapsError> {
    let (add_all, added) = parse_list(add)?;
    let (drop_all, dropped) = parse_list(drop)?;
    if privileged {
        return Ok(all.names());
    }
    Ok(match (add_all, drop_all) {
        // Adding ALL wins over dropping ALL in Docker: everything that is not dropped by name.
        (true, _) => Set(all.0 & !dropped.0).names(),
        (false, true) => added.names(),
        (false, false) => {
            // Docker's order: the default set first, then the added ones.
            let mut names: Vec<&'static str> =
                DEFAULT.into_iter().filter(|n| number(n).is_ok_and(|n| !dropped.contains(n))).collect();
            names.extend(Set(added.0 & !DEFAULT_SET.0).names());
            // One that is both dropped and added is added.
            names.extend(Set(added.0 & dropped.0 & DEFAULT_SET.0).names());
            names
        }
    })
}

fn parse_list<S: AsRef<str>>(names: &[S]) -> Result<(bool, Set), CapsError> {
    let mut all = false;
    let mut set = Set::default();
    for name in names {
        let name = name.as_ref();
        let upper = name.trim().to_ascii_uppercase();
        if upper == "ALL" {
            all = true;
        } else {
            set.0 |= 1 << number(name)?;
        }
    }
    Ok((all, set))
}

/// The capabilities of this process's bounding set; all known ones where it cannot be read.
pub fn available() -> Set {
    sys::bounding().map_or(ALL, |mask| Set(mask & ALL.0))
}

/// The five sets of a process, ready to be applied in the order the kernel wants.
///
/// ```text
/// plan.limit_bounding()   while CAP_SETPCAP is there
/// plan.keep()             before setuid
/// setgroups, setgid, setuid
/// plan.apply()            the last thing before seccomp (with no_new_privs) and execve
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// Bounding set.
    pub bounding: Set,
    /// Effective set.
    pub effective: Set,
    /// Permitted set.
    pub permitted: Set,
    /// Inheritable set.
    pub inheritable: Set,
    /// Ambient set.
    pub ambient: Set,
}

impl Plan {
    /// From the specification's names.
    pub fn new(c: &Capabilities) -> Result<Self, CapsError> {
        Ok(Self {
            bounding: Set::from_names(&c.bounding)?,
            effective: Set::from_names(&c.effective)?,
            permitted: Set::from_names(&c.permitted)?,
            inheritable: Set::from_names(&c.inheritable)?,
            ambient: Set::from_names(&c.ambient)?,
        })
    }

    /// Shrinks the bounding set.
    pub fn limit_bounding(&self) -> Result<(), CapsError> {
        sys::limit_bounding(self.bounding.0).map_err(kernel("drop capabilities from the bounding set"))
    }

    /// Makes the permitted set survive the change of user.
    pub fn keep(&self) -> Result<(), CapsError> {
        sys::set_keep(true).map_err(kernel("keep capabilities over a change of user"))
    }

    /// Sets permitted, effective, inheritable and ambient; a set that asks for more than is held is refused (EPERM).
    pub fn apply(&self) -> Result<(), CapsError> {
        sys::clear_ambient().map_err(kernel("clear the ambient capabilities"))?;
        let sets =
            sys::Sets { effective: self.effective.0, permitted: self.permitted.0, inheritable: self.inheritable.0 };
        sys::set(sets).map_err(kernel("set capabilities"))?;
        sys::raise_ambient(self.ambient.0).map_err(kernel("raise ambient capabilities"))?;
        sys::set_keep(false).map_err(kernel("stop keeping capabilities"))
    }
}

fn kernel(action: &'static str) -> impl FnOnce(io::Error) -> CapsError {
    move |source| CapsError::Kernel { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [&str; 0] = [];

    #[test]
    fn docker_mask() {
        assert_eq!(Set::from_names(&DEFAULT).unwrap(), DEFAULT_SET);
        assert_eq!(resolve(&NONE, &NONE, false).unwrap(), DEFAULT);
        assert_eq!(NAMES.len() as u32, sys::LAST_KNOWN + 1);
    }

    #[test]
    fn names_and_numbers() {
        for (n, text) in NAMES.iter().enumerate() {
            assert_eq!(number(text).unwrap(), n as u32);
            assert_eq!(number(&text["CAP_".len()..].to_lowercase()).unwrap(), n as u32);
            assert_eq!(name(n as u32), Some(*text));
        }
        assert_eq!(name(41), None);
        for bad in ["", "CAP_", "CAP_CAP_CHOWN", "NET_ADMINN", "ALL"] {
            assert_eq!(number(bad).unwrap_err().to_string(), format!("invalid capability: {bad:?}"));
        }
    }

    #[track_caller]
    fn check(add: &[&str], drop: &[&str], expect: &[&str]) {
        let mut found = resolve_within(add, drop, false, ALL).unwrap();
        let mut expect: Vec<String> = expect.iter().map(|n| format!("CAP_{n}")).collect();
        found.sort_unstable();
        expect.sort_unstable();
        assert_eq!(found, expect);
    }

    #[test]
    fn dockers_rules() {
        check(&["NET_ADMIN"], &["ALL"], &["NET_ADMIN"]);
        check(&["cap_net_admin", "SYS_TIME"], &["all"], &["NET_ADMIN", "SYS_TIME"]);
        check(&[], &["ALL"], &[]);
        let except: Vec<&str> = NAMES.iter().map(|n| &n[4..]).filter(|n| *n != "SYS_ADMIN").collect();
        check(&["ALL"], &["SYS_ADMIN"], &except);
        let default: Vec<&str> =
            DEFAULT.iter().map(|n| &n[4..]).filter(|n| !["MKNOD", "NET_RAW"].contains(n)).collect();
        check(&[], &["MKNOD", "net_raw"], &default);
        let all: Vec<&str> = DEFAULT.iter().map(|n| &n[4..]).collect();
        check(&["MKNOD"], &["MKNOD"], &all);
    }

    #[test]
    fn privileged_is_everything_but_names_are_still_checked() {
        assert_eq!(resolve_within(&NONE, &["CHOWN"], true, ALL).unwrap().len(), 41);
        assert!(resolve(&["NOPE"], &NONE, true).is_err());
    }

    #[test]
    fn root_plan_drops_for_good() {
        let (bounding, sets) = std::thread::spawn(|| {
            let names: Vec<String> = ["CAP_CHOWN", "CAP_KILL"].map(str::to_owned).to_vec();
            let plan = Plan::new(&Capabilities {
                bounding: names.clone(),
                effective: names[..1].to_vec(),
                permitted: names,
                ..Capabilities::default()
            })
            .unwrap();
            plan.limit_bounding().unwrap();
            plan.apply().unwrap();
            assert!(sys::set(sys::Sets { permitted: ALL.0, ..sys::Sets::default() }).is_err(), "no way back");
            (sys::bounding().unwrap(), sys::get().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(bounding, 0b10_0001);
        assert_eq!(sets, sys::Sets { effective: 1, permitted: 0b10_0001, inheritable: 0 });
    }
}
