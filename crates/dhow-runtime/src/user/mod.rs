//! Who the process runs as: `user[:group]` and the container's own `/etc/passwd` and `/etc/group`, by Docker's rules.

mod files;

use crate::error::{Failure, OrFail, Stage};
use dhow_oci::runtime::User;
use dhow_sys::fs as paths;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Largest file that is read.
const LIMIT: u64 = 10 << 20;
/// Largest id: all ones means "no change" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;
/// Most supplementary groups the kernel takes (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65536;

/// Numbers of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups. The primary one is among them: without it a set-group-id program that drops its group
    /// could get around a directory that denies the group (CVE-2022-36109).
    pub(crate) groups: Vec<u32>,
    pub(crate) home: Option<PathBuf>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// `user[:group]`.
    pub(crate) text: &'a str,
    /// Supplementary groups.
    pub(crate) group_add: &'a [String],
    /// Numbers for an empty text.
    pub(crate) numbers: &'a User,
}

impl Wanted<'_> {
    /// Looks the names up inside a root.
    pub(crate) fn resolve_in(&self, root: BorrowedFd<'_>) -> Result<Identity, Failure> {
        let read = |path: &str| {
            let found = paths::read_regular(root, Path::new(path), LIMIT);
            found.or_fail(Stage::User, || format!("cannot read {path} of the container")).map(Option::unwrap_or_default)
        };
        let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
        self.resolve(&passwd, &group).map_err(|what| Failure::new(Stage::User, what))
    }

    fn resolve(&self, passwd: &[u8], group: &[u8]) -> Result<Identity, String> {
        let numbers = self.numbers;
        if self.text.is_empty() && (numbers.uid, numbers.gid) != (0, 0) {
            return self.by_numbers(passwd, group);
        }
        let (user, group_text) = match self.text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
            None => (self.text, None),
        };
        let wanted = match user {
            "" => Key::Id(numbers.uid),
            text => Key::parse(text)?,
        };
        let known = files::users(passwd).find(|u| wanted.matches(u.name, u.uid));
        let uid = match (&known, wanted) {
            (Some(user), _) => user.uid,
            (None, Key::Id(uid)) => uid,
            (None, Key::Name(name)) => {
                return Err(format!("unable to find user {name}: no matching entries in passwd file"));
            }
        };
        let mut groups = Vec::new();
        let gid = match group_text {
            Some(text) => find_group(text, group)?,
            None => {
                if let Some(user) = &known {
                    groups.extend(files::groups(group).filter(|g| g.has(user.name)).map(|g| g.gid));
                }
                known.as_ref().map_or(0, |u| u.gid)
            }
        };
        groups.extend(&numbers.additional_gids);
        self.finish(uid, gid, groups, group, known.map(|u| u.home))
    }

    fn by_numbers(&self, passwd: &[u8], group: &[u8]) -> Result<Identity, String> {
        let User { uid, gid, additional_gids, .. } = self.numbers;
        check_id(i128::from(*uid))?;
        check_id(i128::from(*gid))?;
        let home = files::users(passwd).find(|u| u.uid == *uid).map(|u| u.home);
        self.finish(*uid, *gid, additional_gids.clone(), group, home)
    }

    fn finish(
        &self,
        uid: u32,
        gid: u32,
        listed: Vec<u32>,
        group: &[u8],
        home: Option<&[u8]>,
    ) -> Result<Identity, String> {
        let added = self.group_add.iter().map(|text| find_group(text, group)).collect::<Result<Vec<_>, _>>()?;
        let mut groups = vec![gid];
        for id in listed.into_iter().chain(added) {
            if groups.len() < MAX_GROUPS && !groups.contains(&id) {
                groups.push(id);
            }
        }
        let home = home.map(|h| PathBuf::from(OsStr::from_bytes(h)));
        Ok(Identity { uid, gid, groups, home })
    }
}

/// A name or a number. Text of digits is a number, never a name, whatever the files say (CVE-2024-40635).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key<'a> {
    Id(u32),
    Name(&'a str),
}

impl<'a> Key<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self::Name(text));
        }
        // More digits than any integer has are out of range too.
        check_id(text.parse().unwrap_or(i128::MAX)).map(Self::Id)
    }

    fn matches(self, name: &[u8], id: u32) -> bool {
        match self {
            Self::Id(wanted) => wanted == id,
            Self::Name(wanted) => wanted.as_bytes() == name,
        }
    }
}

fn check_id(id: i128) -> Result<u32, String> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id <= MAX_ID)
        .ok_or_else(|| format!("uids and gids must be in range 0-{MAX_ID}"))
}

fn find_group(text: &str, group: &[u8]) -> Result<u32, String> {
    let wanted = Key::parse(text)?;
    match (files::groups(group).find(|g| wanted.matches(g.name, g.gid)), wanted) {
        (Some(group), _) => Ok(group.gid),
        (None, Key::Id(gid)) => Ok(gid),
        (None, Key::Name(name)) => Err(format!("unable to find group {name}: no matching entries in group file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n\
        4294967296:x:0:0::/:/bin/sh\n77:x:0:0::/:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nextra:x:20:app\n88:x:0:\n";

    fn resolve(text: &str, group_add: &[&str]) -> Result<Identity, String> {
        let group_add: Vec<String> = group_add.iter().map(|g| (*g).to_owned()).collect();
        Wanted { text, group_add: &group_add, numbers: &User::default() }.resolve(PASSWD, GROUP)
    }

    #[track_caller]
    fn check(text: &str, uid: u32, gid: u32, groups: &[u32], home: Option<&str>) {
        let home = home.map(PathBuf::from);
        assert_eq!(resolve(text, &[]), Ok(Identity { uid, gid, groups: groups.to_vec(), home }), "{text}");
    }

    #[test]
    fn dockers_grammar() {
        check("", 0, 0, &[0, 10], Some("/root"));
        check("root", 0, 0, &[0, 10], Some("/root"));
        check("0", 0, 0, &[0, 10], Some("/root"));
        check("app", 1000, 1001, &[1001, 10, 20], Some("/home/app"));
        check("1000", 1000, 1001, &[1001, 10, 20], Some("/home/app"));
        check("app:", 1000, 1001, &[1001, 10, 20], Some("/home/app"));
        check("app:wheel", 1000, 10, &[10], Some("/home/app"));
        check("app:5", 1000, 5, &[5], Some("/home/app"));
        check(":wheel", 0, 10, &[10], Some("/root"));
        check("5", 5, 0, &[0], None);
        check("5:6", 5, 6, &[6], None);
        check("4294967294", 4_294_967_294, 0, &[0], None);
    }

    #[test]
    fn digits_are_never_names() {
        check("77", 77, 0, &[0], None);
        check("app:88", 1000, 88, &[88], Some("/home/app"));
        for text in
            ["4294967296", "4294967295", "-1", "1:-1", "1:4294967295", "99999999999999999999999999999999999999999999"]
        {
            assert!(resolve(text, &[]).unwrap_err().contains("must be in range"), "{text}");
        }
    }

    #[test]
    fn unknown_names() {
        let error = |text| resolve(text, &[]).unwrap_err();
        assert_eq!(error("nobody"), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(error("app:nogroup"), "unable to find group nogroup: no matching entries in group file");
        assert!(resolve("app", &["nogroup"]).is_err());
    }

    #[test]
    fn groups_are_added() {
        assert_eq!(resolve("app", &["20", "77", "wheel"]).unwrap().groups, [1001, 10, 20, 77]);
    }

    #[test]
    fn numbers_of_the_specification() {
        let numbers = User { uid: 1000, gid: 5, additional_gids: vec![7], ..User::default() };
        let wanted = Wanted { text: "", group_add: &[], numbers: &numbers };
        let found = wanted.resolve(PASSWD, GROUP).unwrap();
        assert_eq!((found.uid, found.gid, found.groups), (1000, 5, vec![5, 7]));
        let wanted = Wanted { text: "app", ..wanted };
        assert_eq!(wanted.resolve(PASSWD, GROUP).unwrap().gid, 1001);
        let numbers = User { uid: u32::MAX, ..User::default() };
        assert!(Wanted { text: "", group_add: &[], numbers: &numbers }.resolve(PASSWD, GROUP).is_err());
    }
}
