//! The host's device nodes, for privileged containers.

use dhow_oci::runtime::Device;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Directories and files of `/dev` that a container has its own of.
const OWN: [&str; 9] = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "stdin", "stdout", "stderr"];
/// How deep `/dev` is searched: `/dev/bus/usb/001/001` is four levels.
const DEPTH: usize = 5;

/// Every character and block device below `/dev`, except those that a container has its own of.
pub(super) fn host_devices() -> Vec<Device> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), DEPTH, &mut found);
    found
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<Device>) {
    // A device that goes away while we look is not there.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
        if dir == Path::new("/dev") && entry.file_name().to_str().is_some_and(|n| OWN.contains(&n)) {
            continue;
        }
        let kind = meta.file_type();
        if kind.is_dir() && depth > 0 {
            collect(&path, depth - 1, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            let Some(text) = path.to_str() else { continue };
            found.push(Device {
                kind: if kind.is_char_device() { 'c' } else { 'b' },
                path: text.to_owned(),
                major: rustix::fs::major(meta.rdev()),
                minor: rustix::fs::minor(meta.rdev()),
                file_mode: Some(meta.mode() & 0o7777),
                uid: meta.uid(),
                gid: meta.gid(),
            });
        }
    }
}
