//! What a client is configured with.

use crate::error::RegistryError;
use crate::retry::{Clock, SystemClock};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where registries are and whom to trust.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// Registries (`host[:port]`) whose certificate is not verified and that may speak plain HTTP. Loopback hosts may
    /// speak plain HTTP without being listed.
    pub insecure: Vec<String>,
    /// Per registry (`host[:port]`), base URLs of mirrors in the order they are tried before the registry itself.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// Directories like `/etc/docker/certs.d`: `DIR/host[:port]/*.crt` are additional roots for that registry,
    /// `*.cert` with `*.key` of the same stem its client certificate.
    pub ca_dirs: Vec<PathBuf>,
    /// Hosts of token servers (`WWW-Authenticate` realms) that may receive credentials although they do not belong to
    /// the registry's domain.
    pub trusted_realms: Vec<String>,
}

/// A credential for a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User name and password (or personal access token).
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// An OAuth2 refresh token that the registry's token server gave out at login.
    IdentityToken(String),
    /// A bearer token that is sent to the registry as it is.
    RegistryToken(String),
}

/// Never shows the secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => write!(f, "Basic({user:?}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// A source of credentials.
pub trait Credentials: Sync {
    /// The credential for a server (`host[:port]`, or [`crate::DOCKER_HUB_SERVER`] for Docker Hub), if there is one.
    fn get(&self, server: &str) -> Result<Option<Credential>, RegistryError>;
}

/// No credentials for anyone.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCredentials;

impl Credentials for NoCredentials {
    fn get(&self, _server: &str) -> Result<Option<Credential>, RegistryError> {
        Ok(None)
    }
}

/// Limits of a client; the defaults suit everybody but tests.
#[derive(Clone)]
pub struct Options {
    /// Time to resolve nothing but connect and shake hands; default 10 s.
    pub connect_timeout: Duration,
    /// Longest time without a single byte, and the window in which a blob must make [`Options::progress_bytes`] of
    /// progress; default 30 s.
    pub progress_timeout: Duration,
    /// Fewer bytes of a blob than this within [`Options::progress_timeout`] count as a stall; default 16 KiB.
    pub progress_bytes: u64,
    /// Retries of one operation without progress; default 5.
    pub retries: u32,
    /// Time and waiting.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            progress_timeout: Duration::from_secs(30),
            progress_bytes: 16 << 10,
            retries: 5,
            clock: Arc::new(SystemClock),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("connect_timeout", &self.connect_timeout)
            .field("progress_timeout", &self.progress_timeout)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}
