//! `RUN --mount=type=…,key=value,…`

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
    let (mut ro, mut rw) = (None, None);
    for field in text.split(',') {
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
            "from" => mount.from = Some(text()?),
            "source" | "src" => mount.source = Some(text()?),
            "target" | "dst" | "destination" => mount.target = Some(text()?),
            "readonly" | "ro" => ro = Some(flag()?),
            "readwrite" | "rw" => rw = Some(flag()?),
            "id" => mount.id = Some(text()?),
            "sharing" => mount.sharing = sharing(&text()?).ok_or_else(|| bad("expected shared, private or locked"))?,
            "required" => mount.required = flag()?,
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
    let needs_target = matches!(mount.kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs);
    if needs_target && mount.target.as_ref().is_none_or(String::is_empty) {
        return Err(Problem::Mount { field: clip(text, 80), reason: "a target is required" });
    }
    Ok(mount)
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
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
        let e = mount("type=cache,tarjet=/x").unwrap_err().to_string();
        assert_eq!(e, "unexpected key \"tarjet\" in --mount (did you mean target?)");
    }
}
