//! `--verify`: whether a build came to a wanted image, and if not, where the two part.

use crate::{Engine, EngineError};
use dhow_store::ImageRecord;
use dhow_sys::xattr;
use dhow_types::{Categorized, Digest, ErrorKind, Hasher};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

impl Engine {
    /// Fails unless `built` is the wanted image, given by its id or by the digest of its manifest (`digest`, where the build
    /// made one). Names the first layer and path that differ when the wanted image is here.
    pub(super) fn verify(&self, built: &Digest, digest: Option<&Digest>, wanted: &Digest) -> Result<(), EngineError> {
        if built == wanted || digest == Some(wanted) {
            return Ok(());
        }
        let mine = self.store().image(built)?;
        let theirs = match self.local_image(&wanted.to_string()) {
            Ok(image) => image,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(EngineError::Differs {
                    built: *built,
                    wanted: *wanted,
                    how: "the wanted image is not here, so there is nothing to compare with".to_owned(),
                });
            }
            Err(e) => return Err(e),
        };
        if theirs.id == *built {
            return Ok(());
        }
        let how = self.difference(&mine, &theirs)?;
        Err(EngineError::Differs { built: *built, wanted: *wanted, how })
    }

    fn difference(&self, mine: &ImageRecord, theirs: &ImageRecord) -> Result<String, EngineError> {
        let (ours, wanted) = (&mine.config.rootfs.diff_ids, &theirs.config.rootfs.diff_ids);
        for (number, (a, b)) in (1..).zip(ours.iter().zip(wanted)) {
            if a == b {
                continue;
            }
            let layer = format!("layer {number} of {} differs ({} instead of {})", wanted.len(), a.short(), b.short());
            let (left, right) = (self.store().layer_dir(a), self.store().layer_dir(b));
            return Ok(match first_difference(&left, &right, Path::new("/"))? {
                Some((path, what)) => format!("{layer}, first in {:?}: {what}", path.display().to_string()),
                None => format!("{layer}, only in its order or in what is no file"),
            });
        }
        if ours.len() != wanted.len() {
            return Ok(format!("it has {} layers instead of {}", ours.len(), wanted.len()));
        }
        let json = |image: &ImageRecord| serde_json::to_value(&image.config).unwrap_or_default();
        Ok(match field(&json(mine), &json(theirs), "") {
            Some(name) => format!("all layers are the same; the config differs in {name}"),
            None => "all layers and settings are the same; the configs are written differently".to_owned(),
        })
    }
}

/// The first place where two documents differ.
fn field(a: &Value, b: &Value, at: &str) -> Option<String> {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            names.into_iter().find_map(|name| {
                let inner = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                field(left.get(name).unwrap_or(&Value::Null), right.get(name).unwrap_or(&Value::Null), &inner)
            })
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let pairs = left.iter().zip(right).enumerate();
            pairs.into_iter().find_map(|(n, (l, r))| field(l, r, &format!("{at}[{n}]")))
        }
        _ if a == b => None,
        _ => Some(format!("{at} ({a} instead of {b})")),
    }
}

type Difference = Option<(PathBuf, String)>;

fn fail(path: &Path) -> impl FnOnce(rustix::io::Errno) -> EngineError + '_ {
    EngineError::errno("compare", path)
}

/// Walks two layers in the order of names.
fn first_difference(left: &Path, right: &Path, at: &Path) -> Result<Difference, EngineError> {
    let stats = [left, right].map(rustix::fs::lstat);
    let (a, b) = match stats {
        [Ok(a), Ok(b)] => (a, b),
        [Ok(_), Err(_)] => return Ok(Some((at.to_owned(), "it is only in the built image".to_owned()))),
        [Err(_), Ok(_)] => return Ok(Some((at.to_owned(), "it is only in the wanted image".to_owned()))),
        [Err(e), Err(_)] => return Err(fail(left)(e)),
    };
    if let Some(what) = attributes(&a, &b) {
        return Ok(Some((at.to_owned(), what)));
    }
    let what = match FileType::from_raw_mode(a.st_mode) {
        FileType::RegularFile => content(left, right)?,
        FileType::Symlink => target(left, right)?,
        FileType::Directory => {
            for name in names(left)?.union(&names(right)?) {
                let found = first_difference(&left.join(name), &right.join(name), &at.join(name))?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            None
        }
        _ => None,
    };
    Ok(what.map(|what| (at.to_owned(), what)))
}

fn attributes(a: &Stat, b: &Stat) -> Option<String> {
    if FileType::from_raw_mode(a.st_mode) != FileType::from_raw_mode(b.st_mode) {
        return Some("it is of another type".to_owned());
    }
    if a.st_mode != b.st_mode {
        return Some(format!("mode {:o} instead of {:o}", a.st_mode & 0o7777, b.st_mode & 0o7777));
    }
    if (a.st_uid, a.st_gid) != (b.st_uid, b.st_gid) {
        return Some(format!("owner {}:{} instead of {}:{}", a.st_uid, a.st_gid, b.st_uid, b.st_gid));
    }
    let is_directory = FileType::from_raw_mode(a.st_mode) == FileType::Directory;
    if !is_directory && a.st_size != b.st_size {
        return Some(format!("{} bytes instead of {}", a.st_size, b.st_size));
    }
    if a.st_rdev != b.st_rdev {
        return Some("another device number".to_owned());
    }
    // A layer has whole seconds.
    (a.st_mtime != b.st_mtime).then(|| format!("modified at {} instead of {} (Unix seconds)", a.st_mtime, b.st_mtime))
}

fn names(directory: &Path) -> Result<BTreeSet<std::ffi::OsString>, EngineError> {
    let entries = std::fs::read_dir(directory).map_err(EngineError::state("list", directory))?;
    Ok(entries.flatten().map(|e| e.file_name()).collect())
}

fn target(left: &Path, right: &Path) -> Result<Option<String>, EngineError> {
    let read = |path: &Path| std::fs::read_link(path).map_err(EngineError::state("read", path));
    let (a, b) = (read(left)?, read(right)?);
    Ok((a != b).then(|| format!("a link to {:?} instead of {:?}", a.display(), b.display())))
}

fn content(left: &Path, right: &Path) -> Result<Option<String>, EngineError> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(fail(path))
    };
    let hash = |path: &Path| -> Result<(Digest, Vec<u8>), EngineError> {
        let mut file = open(path)?;
        let attributes = xattr::get(file.as_fd(), b"security.capability").ok().flatten().unwrap_or_default();
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = file.read(&mut buffer).map_err(EngineError::state("read", path))?;
            if n == 0 {
                return Ok((hasher.finish(), attributes));
            }
            hasher.update(buffer.get(..n).unwrap_or_default());
        }
    };
    let ((a, a_attributes), (b, b_attributes)) = (hash(left)?, hash(right)?);
    Ok(match (a == b, a_attributes == b_attributes) {
        (false, _) => Some("other content".to_owned()),
        (true, false) => Some("other capabilities of the file".to_owned()),
        (true, true) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn fields_are_named() {
        let a = json!({"config": {"Env": ["A=1", "B=2"]}, "os": "linux"});
        let b = json!({"config": {"Env": ["A=1", "B=3"]}, "os": "linux"});
        assert_eq!(field(&a, &b, "").unwrap(), "config.Env[1] (\"B=2\" instead of \"B=3\")");
        assert_eq!(field(&a, &a, ""), None);
        assert_eq!(field(&a, &json!({"os": "linux"}), "").unwrap().split(' ').next(), Some("config"));
    }

    #[test]
    fn the_first_path_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (left, right) = (dir.path().join("l"), dir.path().join("r"));
        for root in [&left, &right] {
            std::fs::create_dir_all(root.join("etc")).unwrap();
            for name in ["etc/a", "etc/b", "z"] {
                let file = File::create(root.join(name)).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            }
        }
        for root in [&left, &right] {
            for name in ["etc", ""] {
                File::open(root.join(name)).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            }
        }
        let find =
            || first_difference(&left, &right, Path::new("/")).unwrap().map(|(p, w)| format!("{} {w}", p.display()));
        assert_eq!(find(), None);
        std::fs::set_permissions(right.join("z"), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(find().unwrap(), "/z mode 644 instead of 600");
        std::fs::write(left.join("etc/b"), "x").unwrap();
        assert_eq!(find().unwrap(), "/etc/b 1 bytes instead of 0");
        std::fs::remove_file(left.join("etc/a")).unwrap();
        File::open(left.join("etc")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(find().unwrap(), "/etc/a it is only in the wanted image");
    }
}
