//! Errors of the attach protocol and of the supervisor.

use dhow_types::{Categorized, ErrorKind};
use std::io;
use std::path::PathBuf;

/// What can go wrong between a client and a monitor.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The monitor's socket cannot be reached.
    #[error("cannot reach the monitor of the container at {path}")]
    Connect {
        /// Socket.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Sending to or receiving from the other side failed.
    #[error("the connection between client and monitor failed while {operation}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The other side speaks another protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
}

impl Categorized for MonitorError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } => ErrorKind::Unavailable,
            Self::Io { .. } | Self::Protocol(_) => ErrorKind::Internal,
        }
    }
}
