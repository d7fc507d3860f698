//! The contexts: directories below `xtask/compare/contexts`, copied and completed before they are built.

use crate::sh::{self, Context as _, Result};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files of a context's directory that are not part of it.
const OWN: &[&str] = &["prepare.sh", "options", "base"];

/// One context, ready to be built.
#[derive(Debug)]
pub struct Context {
    /// Name.
    pub name: String,
    /// The directory to build.
    pub directory: PathBuf,
    /// Options of the build, one a line in the file `options`.
    pub options: Vec<String>,
    /// A context that is built first, as the image `base`.
    pub base: Option<PathBuf>,
}

/// Names of all contexts, or of this one.
pub fn names(only: Option<&str>) -> Result<Vec<String>> {
    let place = sources();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&place).context(place.display())? {
        names.push(entry.context(place.display())?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    names.retain(|name| only.is_none_or(|only| only == name));
    Ok(names)
}

fn sources() -> PathBuf {
    sh::root().join("xtask/compare/contexts")
}

/// Copies a context below `work` and completes it with its `prepare.sh`.
pub fn prepare(work: &Path, name: &str) -> Result<Context> {
    let (source, directory) = (sources().join(name), work.join("contexts").join(name));
    let base = work.join("bases").join(name);
    sh::remove(&directory)?;
    sh::remove(&base)?;
    copy(&source, &directory, OWN)?;
    let has_base = source.join("base").is_dir();
    if has_base {
        copy(&source.join("base"), &base, &[])?;
    }
    if source.join("prepare.sh").is_file() {
        let mut script = Command::new("sh");
        sh::quiet(
            script.args(["-eu", "-c", "umask 022; . \"$0\""]).arg(source.join("prepare.sh")).current_dir(&directory),
        )?;
    }
    let options = std::fs::read_to_string(source.join("options")).unwrap_or_default();
    let options = options.lines().map(|line| line.replace("@CONTEXT@", &directory.to_string_lossy())).collect();
    Ok(Context { name: name.to_owned(), directory, options, base: has_base.then_some(base) })
}

/// Copies files and directories with plain modes, whatever the umask was when the repository was checked out.
fn copy(from: &Path, to: &Path, without: &[&str]) -> Result {
    sh::make_dir(to)?;
    for entry in std::fs::read_dir(from).context(from.display())? {
        let entry = entry.context(from.display())?;
        if without.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let target = to.join(entry.file_name());
        let is_dir = entry.file_type().context(from.display())?.is_dir();
        if is_dir {
            copy(&entry.path(), &target, &[])?;
        } else {
            std::fs::copy(entry.path(), &target).context(target.display())?;
        }
        let mode = std::fs::Permissions::from_mode(if is_dir { 0o755 } else { 0o644 });
        std::fs::set_permissions(&target, mode).context(target.display())?;
    }
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).context(to.display())
}
