//! `/etc/passwd` and `/etc/group` (passwd(5), group(5)) of an image: hostile text, read line by line.
//!
//! A line that is not one of the format is skipped. Numbers that are missing or too large make a line such a line; they
//! are never read as 0, which would be root.

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User<'a> {
    pub(super) name: &'a [u8],
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: &'a [u8],
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group<'a> {
    pub(super) name: &'a [u8],
    pub(super) gid: u32,
    members: &'a [u8],
}

impl Group<'_> {
    /// Whether a user is listed.
    pub(super) fn has(&self, user: &[u8]) -> bool {
        self.members.split(|b| *b == b',').any(|member| member.trim_ascii() == user)
    }
}

/// The users of a file, in its order.
pub(super) fn users(text: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (number(fields.next()?)?, number(fields.next()?)?);
        let home = fields.nth(1).unwrap_or_default();
        (!name.is_empty()).then_some(User { name, uid, gid, home })
    })
}

/// The groups of a file, in its order.
pub(super) fn groups(text: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = number(fields.next()?)?;
        let members = fields.next().unwrap_or_default();
        (!name.is_empty()).then_some(Group { name, gid, members })
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && !line.starts_with(b"#"))
}

fn number(field: &[u8]) -> Option<u32> {
    let id = std::str::from_utf8(field).ok()?.parse().ok()?;
    // All ones means "no change" to the kernel (chown(2), setresuid(2)).
    (id != u32::MAX).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_and_bad_lines() {
        let text = b"# comment\nroot:x:0:0:root:/root:/bin/sh\n\nbad\nshort:x:7\n+::::::\nneg:x:-1:0::/:\n\
            huge:x:4294967296:0::/:\nall:x:4294967295:0::/:\nempty:x:::x:/:\n app : x : 1 : 2 ::/:\na:x:5:6\n\xff:x:8:9::/h:\n";
        let found: Vec<_> = users(text).map(|u| (u.name, u.uid, u.gid, u.home)).collect();
        assert_eq!(found, [(&b"root"[..], 0, 0, &b"/root"[..]), (b"a", 5, 6, b""), (b"\xff", 8, 9, b"/h"),]);
    }

    #[test]
    fn members() {
        let text = b"wheel:x:10:root,app\nnone:x:11:\nshort:x:12\nbad:x:x:root\n";
        let has: Vec<_> = groups(text).map(|g| (g.gid, g.has(b"app"), g.has(b""))).collect();
        assert_eq!(has, [(10, true, false), (11, false, true), (12, false, true)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn whatever_is_written_comes_back(name in "[a-z][a-z0-9_-]{0,20}", uid in 0..u32::MAX, gid in 0..u32::MAX, home in "(/[a-z]{1,8}){0,3}") {
            let text = format!("x:x:1:1::/:\n{name}:x:{uid}:{gid}:gecos:{home}:/bin/sh\n");
            let user = users(text.as_bytes()).nth(1).unwrap();
            prop_assert_eq!(user, User { name: name.as_bytes(), uid, gid, home: home.as_bytes() });
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = users(&bytes).count();
            let _ = groups(&bytes).filter(|g| g.has(b"x")).count();
        }
    }
}
