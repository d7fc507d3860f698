//! The values of the flags of `build`: lists of `key=value`, secrets, keys, named contexts, limits.

use dhow_docker::{GrammarError, grammar};
use dhow_engine::{NamedContext, RunLimits, SecretSource, SecretSpec, SshSpec};
use std::path::PathBuf;

fn worded(text: impl Into<String>) -> GrammarError {
    GrammarError::Worded(text.into())
}

/// `key=value,…` with keys in lower case.
fn pairs(what: &'static str, text: &str) -> Result<Vec<(String, String)>, GrammarError> {
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_ascii_lowercase(), value.to_owned())),
        None => Err(worded(format!("invalid field '{field}' must be a key=value pair"))),
    };
    grammar::split_csv(what, text)?.into_iter().map(pair).collect()
}

/// `id=ID[,src=FILE|env=VAR][,type=file|env]`. Without a source it is the variable of that name, if it is set, or the file.
pub(super) fn secret(text: &str, is_set: &dyn Fn(&str) -> bool) -> Result<SecretSpec, GrammarError> {
    let (mut id, mut kind, mut source, mut env) = (None, None, None, None);
    for (key, value) in pairs("secret", text)? {
        match key.as_str() {
            "type" if matches!(value.as_str(), "file" | "env") => kind = Some(value),
            "type" => return Err(worded(format!("unsupported secret type {value:?}"))),
            "id" => id = Some(value),
            "source" | "src" => source = Some(value),
            "env" => env = Some(value),
            other => return Err(worded(format!("unexpected key '{other}' in '{text}'"))),
        }
    }
    let id = id.filter(|i| !i.is_empty()).ok_or_else(|| worded(format!("secret {text:?} has no id")))?;
    // `type=env,src=VAR` is an older spelling of `env=VAR`.
    if kind.as_deref() == Some("env") && env.is_none() {
        env = source.take();
    }
    let source = match (env, source) {
        (Some(env), None) => SecretSource::Env(env),
        (None, Some(path)) => SecretSource::File(PathBuf::from(path)),
        (Some(_), Some(_)) => return Err(worded(format!("secret {id:?}: src and env can't be used together"))),
        (None, None) if kind.as_deref() == Some("env") || (kind.is_none() && is_set(&id)) => {
            SecretSource::Env(id.clone())
        }
        (None, None) => SecretSource::File(PathBuf::from(&id)),
    };
    Ok(SecretSpec { id, source })
}

/// `default`, `ID`, `ID=SOCKET`, `ID=KEY,KEY`. `agent` is the socket of the caller's agent.
pub(super) fn ssh(text: &str, agent: Option<String>) -> Result<SshSpec, GrammarError> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    if id.is_empty() {
        return Err(worded(format!("invalid ssh specification {text:?}: it has no id")));
    }
    let mut paths: Vec<PathBuf> = paths.split(',').filter(|p| !p.is_empty()).map(PathBuf::from).collect();
    if paths.is_empty() {
        let agent = agent.ok_or_else(|| worded("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set"))?;
        paths.push(PathBuf::from(agent));
    }
    Ok(SshSpec { id: id.to_owned(), paths })
}

/// `NAME=SOURCE`. Names are compared as references: `alpine` stands for `alpine:latest` as well, which the builder knows.
pub(super) fn named_context(text: &str, is_url: &dyn Fn(&str) -> bool) -> Result<(String, NamedContext), GrammarError> {
    let Some((name, source)) = text.split_once('=').filter(|(n, s)| !n.is_empty() && !s.is_empty()) else {
        return Err(worded(format!("invalid context value: {text}, expected key=value")));
    };
    let after = |scheme: &str| source.strip_prefix(scheme).map(str::to_owned);
    let context = if let Some(image) = after("docker-image://") {
        NamedContext::Image(image)
    } else if let Some(layout) = after("oci-layout://") {
        NamedContext::Layout(layout)
    } else if let Some(stage) = after("target:") {
        NamedContext::Stage(stage)
    } else if is_url(source) {
        NamedContext::Remote(source.to_owned())
    } else {
        let path = PathBuf::from(source);
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => NamedContext::Directory(path),
            Ok(_) => return Err(worded(format!("failed to get build context {name}: {source} is not a directory"))),
            Err(source) => {
                let path = format!("the build context {name:?}, {}", path.display());
                return Err(GrammarError::File { path, source });
            }
        }
    };
    Ok((name.to_owned(), context))
}

/// A size where 0 asks for nothing.
pub(super) fn size(text: &str) -> Result<Option<u64>, GrammarError> {
    Ok(Some(grammar::bytes(text)?).filter(|n| *n > 0))
}

/// `--memory-swap`: a size, or -1 for no limit.
pub(super) fn swap(text: &str) -> Result<Option<i64>, GrammarError> {
    match text {
        "-1" => Ok(Some(-1)),
        text => Ok(size(text)?.and_then(|n| i64::try_from(n).ok())),
    }
}

/// A number where 0 asks for nothing.
pub(super) fn number<T: std::str::FromStr + Default + PartialEq>(text: &str) -> Result<Option<T>, GrammarError> {
    let bad = |_| worded(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    Ok(Some(text.parse::<T>().map_err(bad)?).filter(|n| *n != T::default()))
}

/// `--resource memory=…,cpu-quota=…`: the flags of the same names in one.
pub(super) fn resource(text: &str, limits: &mut RunLimits) -> Result<(), GrammarError> {
    for (key, value) in pairs("resource", text)? {
        match key.as_str() {
            "memory" => limits.memory = size(&value)?,
            "memory-swap" => limits.memory_swap = swap(&value)?,
            "cpu-shares" => limits.cpu_shares = number(&value)?,
            "cpu-period" => limits.cpu_period = number(&value)?,
            "cpu-quota" => limits.cpu_quota = number(&value)?,
            "cpuset-cpus" => limits.cpuset_cpus = Some(value),
            "cpuset-mems" => limits.cpuset_mems = Some(value),
            other => return Err(worded(format!("unknown resource {other:?}"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets() {
        let get = |text| secret(text, &|name| name == "SET").map(|s| (s.id, s.source)).map_err(|e| e.to_string());
        let file = |id: &str, path: &str| Ok((id.to_owned(), SecretSource::File(PathBuf::from(path))));
        let env = |id: &str, name: &str| Ok((id.to_owned(), SecretSource::Env(name.to_owned())));
        assert_eq!(get("id=a,src=/b"), file("a", "/b"));
        assert_eq!(get("id=a,source=/b,type=file"), file("a", "/b"));
        assert_eq!(get("id=a"), file("a", "a"));
        assert_eq!(get("id=SET"), env("SET", "SET"));
        assert_eq!(get("id=SET,type=file"), file("SET", "SET"));
        assert_eq!(get("id=a,env=B"), env("a", "B"));
        assert_eq!(get("type=env,id=a,src=B"), env("a", "B"));
        assert_eq!(get("id=a,x=y").unwrap_err(), "unexpected key 'x' in 'id=a,x=y'");
        for bad in ["src=/b", "id=", "id=a,env=B,src=/c", "id=a,type=vault", "a"] {
            assert!(get(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys() {
        let agent = || Some("/run/agent".to_owned());
        assert_eq!(ssh("default", agent()).unwrap().paths, [PathBuf::from("/run/agent")]);
        let two = ssh("git=/a,/b", None).unwrap();
        assert_eq!((two.id.as_str(), two.paths), ("git", vec![PathBuf::from("/a"), PathBuf::from("/b")]));
        assert!(ssh("default", None).is_err() && ssh("=x", agent()).is_err());
    }

    #[test]
    fn named_contexts() {
        let get = |text| named_context(text, &|s| s.starts_with("https://")).map(|(_, c)| c);
        assert_eq!(get("a=docker-image://alpine:3").unwrap(), NamedContext::Image("alpine:3".to_owned()));
        assert_eq!(get("a=oci-layout://d@x").unwrap(), NamedContext::Layout("d@x".to_owned()));
        assert_eq!(get("a=target:base").unwrap(), NamedContext::Stage("base".to_owned()));
        assert_eq!(get("a=https://x/y").unwrap(), NamedContext::Remote("https://x/y".to_owned()));
        assert_eq!(get("a=/").unwrap(), NamedContext::Directory(PathBuf::from("/")));
        for bad in ["a", "a=", "=b", "a=/no/such/directory", "a=/etc/passwd"] {
            assert!(get(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits() {
        let mut limits = RunLimits::default();
        resource("memory=64m,cpu-quota=5000,memory-swap=-1,cpuset-cpus=0,cpu-shares=0", &mut limits).unwrap();
        let expected = RunLimits {
            memory: Some(64 << 20),
            cpu_quota: Some(5000),
            memory_swap: Some(-1),
            cpuset_cpus: Some("0".to_owned()),
            ..RunLimits::default()
        };
        assert_eq!(limits, expected);
        assert!(resource("gpus=1", &mut limits).is_err() && resource("memory=x", &mut limits).is_err());
    }
}
