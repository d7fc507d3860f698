//! `--volume`, `--mount` and `--tmpfs`.

use super::split_csv;
use crate::GrammarError;
use crate::error::clip;
use dhow_types::{BindMount, MountSpec, Propagation, TmpfsMount, VolumeMount};
use std::path::{Path, PathBuf};

/// `[SRC:]DST[:OPT,…]`. `cwd` completes a source that starts with `.`.
pub fn volume(text: &str, cwd: &Path) -> Result<MountSpec, GrammarError> {
    let bad = || GrammarError::Worded(format!("invalid volume specification: '{}'", clip(text)));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        // `-v /data:ro` is a path named "ro" to Docker, and an error because it is not absolute.
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(bad()),
    };
    if source == Some("") || target.is_empty() || (parts.len() == 3 && options.is_empty()) {
        return Err(bad());
    }
    let target = check_target(text, target)?;
    let options = VolumeOptions::parse(text, options)?;
    match source {
        Some(path) if path.starts_with('/') || path == "." || path == ".." || is_relative(path) => {
            if options.no_copy {
                return Err(bad());
            }
            Ok(MountSpec::Bind(BindMount {
                source: clean(&cwd.join(path)),
                target,
                read_only: options.read_only,
                propagation: options.propagation.unwrap_or_default(),
                create_source: true,
            }))
        }
        name => {
            if options.propagation.is_some() {
                return Err(bad());
            }
            if let Some(name) = name {
                check_volume_name(name)?;
            }
            let name = name.map(str::to_owned);
            Ok(MountSpec::Volume(VolumeMount { name, target, read_only: options.read_only, no_copy: options.no_copy }))
        }
    }
}

fn is_relative(path: &str) -> bool {
    path.starts_with("./") || path.starts_with("../")
}

fn check_volume_name(name: &str) -> Result<(), GrammarError> {
    if name.starts_with('~') {
        let reason = "dhow does not expand '~'; write an absolute path, or let the shell expand it";
        return Err(GrammarError::new("volume name", name, reason));
    }
    let b = name.as_bytes();
    let valid = b.len() >= 2
        && b[0].is_ascii_alphanumeric()
        && b[1..].iter().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(c));
    if valid {
        return Ok(());
    }
    Err(GrammarError::Worded(format!(
        "create {0}: {0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
         allowed. If you intended to pass a host directory, use absolute path",
        clip(name)
    )))
}

fn check_target(text: &str, target: &str) -> Result<String, GrammarError> {
    if !target.starts_with('/') {
        return Err(GrammarError::Worded(format!(
            "invalid volume specification: '{}': invalid mount path: '{}' mount path must be absolute",
            clip(text),
            clip(target)
        )));
    }
    let target = clean(Path::new(target));
    if target == Path::new("/") {
        return Err(GrammarError::Worded(format!(
            "invalid volume specification: '{}': invalid specification: destination can't be '/'",
            clip(text)
        )));
    }
    Ok(target.to_string_lossy().into_owned())
}

/// Resolves `.` and `..` by name alone, as Go's `filepath.Clean` does.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[derive(Default)]
struct VolumeOptions {
    read_only: bool,
    propagation: Option<Propagation>,
    no_copy: bool,
}

impl VolumeOptions {
    fn parse(text: &str, options: &str) -> Result<Self, GrammarError> {
        let mut out = Self::default();
        let mut seen = [false; 5];
        for option in options.split(',').filter(|o| !o.is_empty()) {
            let class = match option {
                "ro" | "rw" => {
                    out.read_only = option == "ro";
                    0
                }
                // Relabelling has an effect only under SELinux, consistency only on macOS.
                "z" | "Z" => 1,
                "consistent" | "cached" | "delegated" => 2,
                "nocopy" => {
                    out.no_copy = true;
                    3
                }
                other => {
                    out.propagation = Some(propagation(text, other)?);
                    4
                }
            };
            if std::mem::replace(&mut seen[class], true) {
                return Err(GrammarError::Worded(format!("invalid mode: {}", clip(options))));
            }
        }
        Ok(out)
    }
}

fn propagation(text: &str, word: &str) -> Result<Propagation, GrammarError> {
    use Propagation::*;
    [RPrivate, Private, RShared, Shared, RSlave, Slave]
        .into_iter()
        .find(|p| p.name() == word)
        .ok_or_else(|| GrammarError::new("volume", text, format!("invalid mode: {}", clip(word))))
}

/// `--tmpfs DST[:OPTS]`.
pub fn tmpfs(text: &str) -> Result<MountSpec, GrammarError> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target = check_target(text, target)?;
    Ok(MountSpec::Tmpfs(TmpfsMount { target, options: options.to_owned() }))
}

#[derive(Default)]
struct LongMount {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: bool,
    propagation: Option<Propagation>,
    create_source: bool,
    no_copy: bool,
    tmpfs: Vec<String>,
    of_kind: Vec<(&'static str, String)>,
}

/// `--mount type=…,source=…,target=…`.
pub fn mount(text: &str, cwd: &Path) -> Result<MountSpec, GrammarError> {
    let mut m = LongMount::default();
    for field in split_csv("mount", text)? {
        m.field(text, &field)?;
    }
    let kind = m.kind.as_deref().unwrap_or("volume");
    if let Some((other, key)) = m.of_kind.iter().find(|(of, _)| *of != kind) {
        return Err(GrammarError::Worded(format!("cannot mix '{key}' ({other}) with mount type '{kind}'")));
    }
    let target = m.target.as_deref().filter(|t| !t.is_empty());
    let target = target.ok_or_else(|| GrammarError::new("mount", text, "target is required"))?;
    let target = check_target(text, target)?;
    match kind {
        "bind" => {
            let source = m.source.filter(|s| !s.is_empty());
            let source = source.ok_or_else(|| GrammarError::new("mount", text, "type=bind needs a source"))?;
            Ok(MountSpec::Bind(BindMount {
                source: clean(&cwd.join(source)),
                target,
                read_only: m.read_only,
                propagation: m.propagation.unwrap_or_default(),
                create_source: m.create_source,
            }))
        }
        "volume" => {
            let name = m.source.filter(|s| !s.is_empty());
            if let Some(name) = &name {
                check_volume_name(name)?;
            }
            Ok(MountSpec::Volume(VolumeMount { name, target, read_only: m.read_only, no_copy: m.no_copy }))
        }
        "tmpfs" => {
            if m.source.is_some() {
                return Err(GrammarError::new("mount", text, "type=tmpfs takes no source"));
            }
            if m.read_only {
                m.tmpfs.push("ro".to_owned());
            }
            Ok(MountSpec::Tmpfs(TmpfsMount { target, options: m.tmpfs.join(",") }))
        }
        "image" | "npipe" | "cluster" => Err(GrammarError::Unsupported(format!("mount type {kind}"))),
        other => Err(GrammarError::new("mount", text, format!("unknown mount type {:?}", clip(other)))),
    }
}

impl LongMount {
    fn field(&mut self, text: &str, field: &str) -> Result<(), GrammarError> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let lower = key.to_ascii_lowercase();
        let flag = |value: Option<&str>| match value.unwrap_or("true") {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(GrammarError::Worded(format!("invalid value for {lower}: {}", clip(other)))),
        };
        let needed = || {
            value.ok_or_else(|| {
                GrammarError::Worded(format!("invalid field '{}' must be a key=value pair", clip(field)))
            })
        };
        match lower.as_str() {
            "type" => self.kind = Some(needed()?.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(needed()?.to_owned()),
            "target" | "dst" | "destination" => self.target = Some(needed()?.to_owned()),
            "readonly" | "ro" => self.read_only = flag(value)?,
            "consistency" => {}
            "bind-propagation" => {
                self.propagation = Some(propagation(text, needed()?)?);
                self.of_kind.push(("bind", lower));
            }
            "bind-create-src" => {
                self.create_source = flag(value)?;
                self.of_kind.push(("bind", lower));
            }
            // "readonly" insists on what dhow does anyway: read-only binds are read-only with all submounts.
            "bind-recursive" => match needed()? {
                "enabled" | "readonly" => self.of_kind.push(("bind", lower)),
                other => return Err(GrammarError::Unsupported(format!("bind-recursive={}", clip(other)))),
            },
            "volume-nocopy" => {
                self.no_copy = flag(value)?;
                self.of_kind.push(("volume", lower));
            }
            "tmpfs-size" => {
                let size = super::bytes(needed()?)?;
                self.tmpfs.push(format!("size={size}"));
                self.of_kind.push(("tmpfs", lower));
            }
            "tmpfs-mode" => {
                let mode = needed()?;
                u32::from_str_radix(mode, 8)
                    .map_err(|_| GrammarError::Worded(format!("invalid value for tmpfs-mode: {}", clip(mode))))?;
                self.tmpfs.push(format!("mode={mode}"));
                self.of_kind.push(("tmpfs", lower));
            }
            "volume-driver" if value == Some("local") => self.of_kind.push(("volume", lower)),
            "volume-driver" | "volume-opt" | "volume-label" | "volume-subpath" | "image-subpath" => {
                return Err(GrammarError::Unsupported(format!("mount option {lower}")));
            }
            _ => {
                return Err(GrammarError::Worded(format!("unexpected key '{}' in '{}'", clip(key), clip(field))));
            }
        }
        Ok(())
    }
}
