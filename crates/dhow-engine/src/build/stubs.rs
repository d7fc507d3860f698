//! What mounting leaves behind.
//!
//! Where an image lacks a path that something is mounted on, an empty file or directory is made there first. In the upper
//! directory it would look like a change of the command's, so it is taken out again. Nothing in an upper directory is
//! trusted: paths are walked one name at a time from its descriptor, and no link is followed (CVE-2024-23652).

use crate::EngineError;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat, unlinkat};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Mounted into every command.
const ALWAYS: [&str; 6] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys"];

/// The directories below an upper one, topmost first.
type Lower<'a> = dyn Fn() -> Result<Vec<PathBuf>, EngineError> + 'a;

/// Removes the stubs of what is always mounted, and of these paths.
pub(super) fn remove(upper: &Path, lower: &Lower<'_>, mounted: &[&str]) -> Result<(), EngineError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &PathBuf| rustix::fs::open(path, flags, Mode::empty()).map_err(EngineError::errno("open", path));
    let root = open(&upper.to_owned())?;
    let mut lowers: Option<Vec<OwnedFd>> = None;
    for path in mounted.iter().copied().chain(ALWAYS) {
        let names: Vec<&str> = path.split('/').filter(|n| !n.is_empty()).collect();
        // Most commands leave nothing at most of these paths; the layers are opened only when one does.
        if names.first().is_none_or(|n| statat(&root, *n, AtFlags::SYMLINK_NOFOLLOW).is_err()) {
            continue;
        }
        if lowers.is_none() {
            lowers = Some(lower()?.iter().map(open).collect::<Result<_, _>>()?);
        }
        remove_one(&root, lowers.as_deref().unwrap_or_default(), &names).map_err(EngineError::errno("clean", upper))?;
    }
    Ok(())
}

fn remove_one(root: &OwnedFd, lowers: &[OwnedFd], names: &[&str]) -> Result<(), Errno> {
    let Some((last, parents)) = names.split_last() else { return Ok(()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut chain = vec![root.try_clone().map_err(|_| Errno::MFILE)?];
    for name in parents {
        let Some(directory) = chain.last() else { return Ok(()) };
        match openat(directory, *name, flags, Mode::empty()) {
            Ok(next) => chain.push(next),
            // The path leads elsewhere, or the command made it so.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    let Some(directory) = chain.pop() else { return Ok(()) };
    if in_lower(lowers, names).is_some() {
        return Ok(());
    }
    let Ok(stat) = statat(&directory, *last, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
    let how = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => AtFlags::REMOVEDIR,
        FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
        _ => return Ok(()),
    };
    if !gone(unlinkat(&directory, *last, how))? {
        return Ok(());
    }
    // Directories that came with the stub: empty now, and not different from what lies below.
    let mut below = directory;
    for depth in (1..=parents.len()).rev() {
        let (Some(parent), Some(path), Some(name)) = (chain.pop(), names.get(..depth), parents.get(depth - 1)) else {
            break;
        };
        let look = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid);
        let now = fstat(&below)?;
        let same = in_lower(lowers, path).is_none_or(|before| look(&before) == look(&now));
        if !same || !gone(unlinkat(&parent, *name, AtFlags::REMOVEDIR))? {
            break;
        }
        below = parent;
    }
    Ok(())
}

/// Whether a removal worked; a directory that is not empty is no error.
fn gone(result: Result<(), Errno>) -> Result<bool, Errno> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// What the topmost layer that has a path says about it.
fn in_lower(lowers: &[OwnedFd], names: &[&str]) -> Option<Stat> {
    let path = names.join("/");
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = lowers.iter().find_map(|l| openat2(l.as_fd(), &*path, flags, Mode::empty(), resolve).ok())?;
    let stat = fstat(found).ok()?;
    // A whiteout says that there is nothing.
    let whiteout = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0;
    (!whiteout).then_some(stat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn stubs_go_and_changes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("u"), dir.path().join("l"));
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::create_dir_all(upper.join("dev")).unwrap();
        fs::create_dir_all(upper.join("new/deep/cache")).unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        let lowers = || Ok(vec![lower.clone()]);
        remove(&upper, &lowers, &["/new/deep/cache"]).unwrap();
        assert_eq!(fs::read_dir(&upper).unwrap().count(), 0);

        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::write(upper.join("etc/hostname"), "kept: not empty").unwrap();
        fs::write(upper.join("etc/passwd"), "").unwrap();
        remove(&upper, &lowers, &[]).unwrap();
        assert!(!upper.join("etc/hosts").exists());
        assert!(upper.join("etc/hostname").exists() && upper.join("etc/passwd").exists());

        fs::remove_dir_all(upper.join("etc")).unwrap();
        fs::create_dir(upper.join("etc")).unwrap();
        fs::set_permissions(upper.join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        remove(&upper, &lowers, &[]).unwrap();
        assert!(upper.join("etc").exists(), "a changed mode is a change");
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, host) = (dir.path().join("u"), dir.path().join("host"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&host).unwrap();
        fs::write(host.join("hosts"), "").unwrap();
        fs::create_dir(host.join("stub")).unwrap();
        symlink(&host, upper.join("etc")).unwrap();
        symlink(&host, upper.join("x")).unwrap();
        remove(&upper, &|| Ok(Vec::new()), &["/x/stub", "/x/../host/stub"]).unwrap();
        assert!(host.join("hosts").exists() && host.join("stub").exists());
    }
}
