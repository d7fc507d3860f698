//! What a client is configured with.

use crate::endpoint::is_loopback_host;
use crate::error::RegistryError;
use crate::retry::{Clock, SystemClock};
use crate::url::Scheme;
use std::fmt;
use std::net::Ipv4Addr;
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
    /// Proxies between this machine and every server that is not excepted.
    pub proxies: Proxies,
}

/// Proxies, as the usual environment variables describe them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `http_proxy`: for plain HTTP.
    pub http: Option<String>,
    /// `HTTPS_PROXY`: for HTTPS.
    pub https: Option<String>,
    /// `NO_PROXY`: hosts that are reached directly, with what is below them; `*` is all. An entry may have a port.
    pub except: Vec<String>,
}

impl Proxies {
    /// The proxy for a server. Loopback is always reached directly.
    pub(crate) fn choose(&self, scheme: Scheme, host: &str, port: u16) -> Option<&str> {
        let proxy = match scheme {
            Scheme::Http => self.http.as_deref(),
            Scheme::Https => self.https.as_deref(),
        };
        let direct = is_loopback_host(host) || self.except.iter().any(|e| is_excepted(e, host, port));
        proxy.filter(|p| !p.is_empty() && !direct)
    }
}

fn is_excepted(entry: &str, host: &str, port: u16) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    if entry == "*" {
        return true;
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') => match digits.parse::<u16>() {
            Ok(wanted) => (name, Some(wanted)),
            Err(_) => return false,
        },
        _ => (entry.as_str(), None),
    };
    if wanted.is_some_and(|w| w != port) || name.is_empty() {
        return false;
    }
    if let Some((network, bits)) = name.split_once('/') {
        return in_network(network, bits, host).unwrap_or(false);
    }
    let suffix = name.trim_start_matches('*');
    let below = if suffix.starts_with('.') { suffix.to_owned() } else { format!(".{suffix}") };
    host.ends_with(&below) || (host == name)
}

/// Whether an address is in an IPv4 network in CIDR notation.
fn in_network(network: &str, bits: &str, host: &str) -> Option<bool> {
    let (network, host): (Ipv4Addr, Ipv4Addr) = (network.parse().ok()?, host.parse().ok()?);
    let bits: u32 = bits.parse().ok().filter(|b| *b <= 32)?;
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    Some(network.to_bits() & mask == host.to_bits() & mask)
}

/// Never shows the credentials that a proxy's URL may hold.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxies({}, {}, except {:?})", self.http.is_some(), self.https.is_some(), self.except)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_and_exceptions() {
        let except = ["example.com", ".corp", "*.dev", "10.0.0.0/8", "host:8080", "bad:port", ""];
        let proxies = Proxies {
            http: Some("http://p:1".to_owned()),
            https: Some("http://user:secret@p:2".to_owned()),
            except: except.map(str::to_owned).to_vec(),
        };
        for direct in ["example.com", "a.example.com", "x.corp", "x.dev", "10.1.2.3", "localhost", "127.0.0.1"] {
            assert_eq!(proxies.choose(Scheme::Https, direct, 443), None, "{direct}");
        }
        for other in ["example.org", "badexample.com", "11.0.0.1", "host", "corp"] {
            assert_eq!(proxies.choose(Scheme::Http, other, 80), Some("http://p:1"), "{other}");
        }
        assert_eq!(proxies.choose(Scheme::Http, "host", 8080), None);
        assert!(!format!("{proxies:?}").contains("secret"));
        assert_eq!(Proxies::default().choose(Scheme::Https, "a", 443), None);
    }
}
