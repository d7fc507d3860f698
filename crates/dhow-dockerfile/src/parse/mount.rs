//! `RUN --mount=type=…,key=value,…`

use super::files::has_variable;
use crate::error::{Problem, clip};
use crate::instruction::{CacheSharing, MountKind, RunMount};
use crate::suggest::closest;

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

/// Parses one value. Keys are not case-sensitive; unknown ones are refused, since some (propagation) have been ways out of
/// other builders (CVE-2024-9407).
pub(super) fn mount(text: &str) -> Result<RunMount, Problem> {
    let mut mount = RunMount::default();
    let (mut ro, mut rw, mut required, mut share) = (None, None, None, None);
    for field in fields(text)? {
        let field = field.as_str();
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value)),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        let bad = |reason: &'static str| Problem::Mount { field: clip(field, 80), reason };
        let flag = || match value {
            None => Ok(true),
            Some(v) if v.eq_ignore_ascii_case("true") || v == "1" => Ok(true),
            Some(v) if v.eq_ignore_ascii_case("false") || v == "0" => Ok(false),
            Some(_) => Err(bad("expected true or false")),
        };
        let text = || value.map(str::to_owned).ok_or_else(|| bad("must be a key=value pair"));
        match key.as_str() {
            "type" => mount.kind = kind(&text()?).ok_or_else(|| bad("expected bind, cache, tmpfs, secret or ssh"))?,
            "from" => {
                mount.from = Some(text()?);
                if mount.from.as_deref().is_some_and(has_variable) {
                    return Err(Problem::FromVariable("--mount=from"));
                }
            }
            "source" | "src" => mount.source = Some(text()?),
            "target" | "dst" | "destination" => mount.target = Some(text()?),
            "readonly" | "ro" => ro = Some(flag()?),
            "readwrite" | "rw" => rw = Some(flag()?),
            "id" => mount.id = Some(text()?),
            "sharing" => {
                let value = sharing(&text()?).ok_or_else(|| bad("expected shared, private or locked"))?;
                share = Some(value);
                mount.sharing = value;
            }
            "required" => required = Some(flag()?),
            "size" => mount.size = Some(text()?),
            "mode" => mount.mode = Some(text()?),
            "uid" => mount.uid = Some(text()?),
            "gid" => mount.gid = Some(text()?),
            "env" => mount.env = Some(text()?),
            other => {
                let suggestion = closest(other, KEYS).map(str::to_owned);
                return Err(Problem::MountKey { key: clip(other, 60), suggestion });
            }
        }
    }
    // A bind mount is read-only unless it says otherwise, a cache the other way round.
    mount.read_only = match (ro, rw) {
        (Some(ro), _) => ro,
        (None, Some(rw)) => !rw,
        (None, None) => mount.kind == MountKind::Bind,
    };
    mount.required = required.unwrap_or(false);
    fits(&mount, required.is_some(), share.is_some(), text)?;
    let needs_target = matches!(mount.kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs);
    if needs_target && mount.target.as_ref().is_none_or(String::is_empty) {
        return Err(Problem::Mount { field: clip(text, 80), reason: "a target is required" });
    }
    Ok(mount)
}

/// Splits at commas; a field in double quotes may hold some (RFC 4180).
fn fields(text: &str) -> Result<Vec<String>, Problem> {
    let mut list = Vec::new();
    let mut rest = text;
    loop {
        let (field, tail) = match rest.strip_prefix('"') {
            None => match rest.split_once(',') {
                Some((field, tail)) => (field.to_owned(), Some(tail)),
                None => (rest.to_owned(), None),
            },
            Some(quoted) => {
                let bad = || Problem::Mount { field: clip(rest, 80), reason: "the quotes do not enclose a field" };
                let (field, after) = until_quote(quoted).ok_or_else(bad)?;
                match after.strip_prefix(',') {
                    Some(tail) => (field, Some(tail)),
                    None if after.is_empty() => (field, None),
                    None => return Err(bad()),
                }
            }
        };
        list.push(field);
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(list),
        }
    }
}

/// A quoted field without its quotes, and what follows; a doubled quote is one.
fn until_quote(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, after)),
        }
    }
}

/// Refuses keys that mean nothing for a kind of mount, as BuildKit does.
fn fits(mount: &RunMount, required: bool, sharing: bool, text: &str) -> Result<(), Problem> {
    let refuse = |reason| Err(Problem::Mount { field: clip(text, 80), reason });
    let kind = mount.kind;
    if required && !matches!(kind, MountKind::Secret | MountKind::Ssh) {
        return refuse("required is for secret and ssh mounts");
    }
    if mount.size.is_some() && kind != MountKind::Tmpfs {
        return refuse("size is for tmpfs mounts");
    }
    if sharing && kind != MountKind::Cache {
        return refuse("sharing is for cache mounts");
    }
    let owned = mount.mode.is_some() || mount.uid.is_some() || mount.gid.is_some();
    if owned && matches!(kind, MountKind::Bind | MountKind::Tmpfs) {
        return refuse("mode, uid and gid are for cache, secret and ssh mounts");
    }
    if mount.env.is_some() && kind != MountKind::Secret {
        return refuse("env is for secret mounts");
    }
    if mount.from.is_some() && matches!(kind, MountKind::Secret | MountKind::Ssh) {
        return refuse("from is for bind and cache mounts");
    }
    if kind == MountKind::Ssh && mount.source.is_some() {
        return refuse("ssh mounts have no source");
    }
    if kind == MountKind::Secret {
        match (&mount.id, &mount.source, &mount.target) {
            (Some(_), Some(_), _) => return refuse("id and source mean the same for a secret"),
            (None, None, None) => return refuse("a secret needs an id, a source or a target"),
            _ => {}
        }
    }
    Ok(())
}

fn kind(text: &str) -> Option<MountKind> {
    Some(match text.to_ascii_lowercase().as_str() {
        "bind" => MountKind::Bind,
        "cache" => MountKind::Cache,
        "tmpfs" => MountKind::Tmpfs,
        "secret" => MountKind::Secret,
        "ssh" => MountKind::Ssh,
        _ => return None,
    })
}

fn sharing(text: &str) -> Option<CacheSharing> {
    Some(match text.to_ascii_lowercase().as_str() {
        "shared" => CacheSharing::Shared,
        "private" => CacheSharing::Private,
        "locked" => CacheSharing::Locked,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let m = mount("type=cache,target=/c,sharing=locked,Mode=0700,uid=5").unwrap();
        assert_eq!((m.kind, m.target.as_deref(), m.sharing), (MountKind::Cache, Some("/c"), CacheSharing::Locked));
        assert_eq!((m.mode.as_deref(), m.uid.as_deref(), m.read_only), (Some("0700"), Some("5"), false));
        let m = mount("dst=/d,src=a").unwrap();
        assert_eq!((m.kind, m.source.as_deref(), m.read_only), (MountKind::Bind, Some("a"), true));
        assert!(!mount("type=bind,target=/x,rw").unwrap().read_only);
        assert!(mount("type=cache,target=/x,ro").unwrap().read_only);
        assert!(mount("type=secret,id=x,required").unwrap().required);
        for bad in [
            "",
            "type=cache",
            "type=nope,target=/x",
            "target",
            "target=/x,bind-propagation=shared",
            "target=/x,ro=maybe",
            "target=/x,required",
            "target=/x,size=1",
            "target=/x,sharing=shared",
            "target=/x,mode=0700",
            "target=/x,env=X",
            "type=tmpfs,target=/x,uid=1",
            "type=secret",
            "type=secret,id=a,source=b",
            "type=secret,id=a,from=b",
            "type=ssh,source=b",
            "target=/x,from=$A",
            "target=/x,\"source=a",
            "target=/x,\"source=a\"b",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
        let m = mount("type=bind,\"source=a,\"\"b\",target=/x").unwrap();
        assert_eq!(m.source.as_deref(), Some("a,\"b"));
        let e = mount("type=cache,tarjet=/x").unwrap_err().to_string();
        assert_eq!(e, "unexpected key \"tarjet\" in --mount (did you mean target?)");
    }
}
