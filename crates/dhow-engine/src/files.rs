//! Atomic files: what a reader sees is the old or the new content, never a part.

use crate::EngineError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Longest record that is read, in bytes.
const MAX_RECORD: u64 = 16 << 20;

/// Replaces a file atomically (rename(2)). A power cut may undo it, but not leave a part: what must survive one is synced
/// afterwards, by [`Engine::sync_container`](crate::Engine::sync_container), when nobody waits.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let write = || -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        // The process id keeps two writers of one file apart where no lock does.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = dir.join(format!(".{name}.{}", std::process::id()));
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        if let Err(e) = file.write_all(bytes).and_then(|()| fs::rename(&temporary, path)) {
            let _ = fs::remove_file(&temporary);
            return Err(e);
        }
        Ok(())
    };
    write().map_err(EngineError::state("write", path))
}

/// Replaces a file by a record.
pub(crate) fn write_record<T: Serialize>(path: &Path, record: &T) -> Result<(), EngineError> {
    let bytes =
        serde_json::to_vec(record).map_err(|e| EngineError::Record { path: path.to_owned(), reason: e.to_string() })?;
    replace(path, &bytes)
}

/// Reads a record; `None` when there is none.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(EngineError::state("read", path)(e)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| EngineError::Record { path: path.to_owned(), reason: e.to_string() })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_RECORD).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes a private directory and its parents, unless they exist.
pub(crate) fn make_dir(path: &Path) -> Result<(), EngineError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(EngineError::state("create the directory", path)),
        Err(e) => Err(EngineError::state("create the directory", path)(e)),
    }
}

/// Removes a file; a missing one is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), EngineError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(EngineError::state("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Removes a tree; a missing one is fine. Never follows symbolic links (std's implementation works by descriptor).
pub(crate) fn remove_tree(path: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(EngineError::state("remove", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_replace() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        assert!(read_record::<Vec<u32>>(&path).unwrap().is_none());
        write_record(&path, &vec![1, 2]).unwrap();
        write_record(&path, &vec![3]).unwrap();
        assert_eq!(read_record::<Vec<u32>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "temporary files are left");
    }

    #[test]
    fn a_torn_record_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        fs::write(&path, b"").unwrap();
        let error = read_record::<Vec<u32>>(&path).unwrap_err();
        assert!(error.to_string().contains("r.json"), "{error}");
    }
}
