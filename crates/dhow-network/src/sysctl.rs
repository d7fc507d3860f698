//! Kernel parameters of the network namespace (`/proc/sys/net`).
//!
//! `/proc/sys/net` shows the namespace of the thread that opens it.

use crate::error::{NetworkError, PathContext};
use std::io;
use std::path::PathBuf;

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(key)
}

/// Reads a parameter, with its line end.
pub(crate) fn read(key: &str) -> Result<String, NetworkError> {
    std::fs::read_to_string(path(key)).on("read", &path(key))
}

/// Sets a parameter.
pub(crate) fn write(key: &str, value: &str) -> Result<(), NetworkError> {
    std::fs::write(path(key), value).on("write", &path(key))
}

/// Sets a parameter of a part that the kernel may lack.
pub(crate) fn write_if_present(key: &str, value: &str) -> Result<(), NetworkError> {
    match std::fs::write(path(key), value) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.on("write", &path(key)),
    }
}
