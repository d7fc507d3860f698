//! Users and groups by name, from the image's own files. No library of the host and no code of the image is involved.

use super::{Root, TreeError};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::Read;

/// Largest `/etc/passwd` or `/etc/group`, in bytes.
const MAX_ACCOUNTS: u64 = 10 << 20;

/// `user[:group]`, checked but not yet looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    user: String,
    group: Option<String>,
}

impl Owner {
    /// Splits the text.
    pub(crate) fn parse(text: &str) -> Result<Self, TreeError> {
        let (user, group) = match text.split_once(':') {
            // As BuildKit has it: no user is root.
            Some(("", group)) => ("0", Some(group)),
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let bad = |t: &str| t.is_empty() || t.contains([':', '\n', '\0', '/']);
        if bad(user) || group.is_some_and(bad) {
            return Err(TreeError::BadOwner(text.chars().take(80).collect()));
        }
        Ok(Self { user: user.to_owned(), group: group.map(str::to_owned) })
    }
}

/// The numbers of an owner in a root. A user without a group has the group of its account, or the same number.
pub(crate) fn lookup(root: Root<'_>, owner: &Owner) -> Result<(u32, u32), TreeError> {
    let (uid, own_gid) = match number(&owner.user)? {
        Some(uid) => (uid, uid),
        None => {
            let fields = find(root, "/etc/passwd", "user", &owner.user)?;
            let field = |i: usize| fields.get(i).and_then(|f| f.parse().ok());
            let ids = field(2).zip(field(3));
            ids.ok_or_else(|| TreeError::BadOwner(owner.user.clone()))?
        }
    };
    let gid = match &owner.group {
        None => own_gid,
        Some(group) => match number(group)? {
            Some(gid) => gid,
            None => {
                let fields = find(root, "/etc/group", "group", group)?;
                let gid = fields.get(2).and_then(|f| f.parse().ok());
                gid.ok_or_else(|| TreeError::BadOwner(group.clone()))?
            }
        },
    };
    Ok((uid, gid))
}

fn number(text: &str) -> Result<Option<u32>, TreeError> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    // Ids are positive 32-bit numbers, and the last one means "unchanged" to chown(2).
    match text.parse::<u32>() {
        Ok(n) if n < u32::MAX => Ok(Some(n)),
        _ => Err(TreeError::BadOwner(text.to_owned())),
    }
}

fn find(root: Root<'_>, file: &'static str, kind: &'static str, name: &str) -> Result<Vec<String>, TreeError> {
    let missing = || TreeError::NoSuchName { kind, name: name.to_owned(), file };
    // NONBLOCK: opening a FIFO must not wait for a writer (CVE-2024-9676).
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(fd) = root.open(file.as_bytes(), flags) else { return Err(missing()) };
    let accounts = File::from(fd);
    let usable = accounts.metadata().is_ok_and(|m| m.is_file() && m.len() <= MAX_ACCOUNTS);
    let mut bytes = Vec::new();
    if !usable || accounts.take(MAX_ACCOUNTS).read_to_end(&mut bytes).is_err() {
        return Err(TreeError::BadAccounts(file));
    }
    let text = String::from_utf8_lossy(&bytes);
    let fields = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    fields.into_iter().find(|f| f.first().is_some_and(|n| n == name)).ok_or_else(missing)
}
