//! The one error type of this crate, and the cleaning of texts that come from the network.

use dhow_types::{Categorized, Digest, ErrorKind};
use std::io;
use std::path::PathBuf;

/// What a connection failed with, already in words and free of secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// Why an operation on a registry or on the credentials file failed. Texts follow Docker's where scripts match them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No connection: name resolution, refusal, time-out.
    #[error("cannot connect to registry {host}")]
    Unreachable {
        /// `host[:port]`
        host: String,
        /// What the connection said.
        #[source]
        source: TransportError,
    },
    /// The TLS handshake failed.
    #[error("cannot establish a trusted connection to registry {host}")]
    Tls {
        /// `host[:port]`
        host: String,
        /// What TLS said.
        #[source]
        source: TransportError,
    },
    /// The connection was cut or stalled and the retry budget is used up.
    #[error("registry {host}: the connection broke during {what}")]
    Broken {
        /// `host[:port]`
        host: String,
        /// The request, for instance `GET blob sha256:…`.
        what: String,
        /// What the connection said.
        #[source]
        source: TransportError,
    },
    /// An answer that has no error of its own here.
    #[error("registry {host} answered {what} with status {status}{}", with_colon(detail))]
    Status {
        /// `host[:port]`
        host: String,
        /// The request.
        what: String,
        /// HTTP status.
        status: u16,
        /// The registry's own words, cleaned; may be empty.
        detail: String,
    },
    /// Status 429 after all retries.
    #[error("toomanyrequests: registry {host} limits requests{}", with_colon(detail))]
    RateLimited {
        /// `host[:port]`
        host: String,
        /// The registry's own words.
        detail: String,
    },
    /// The registry wants credentials and there are none, or refuses those there are.
    #[error("unauthorized: {}{}", if *had_credentials { "incorrect username or password" } else { "authentication required" }, with_colon(detail))]
    Unauthorized {
        /// The server to log in to, as `dhow login` takes it.
        server: String,
        /// Whether credentials were sent.
        had_credentials: bool,
        /// The registry's own words.
        detail: String,
    },
    /// The check of `login` failed.
    #[error("login attempt to {url} failed with status: 401 Unauthorized: incorrect username or password")]
    LoginFailed {
        /// The URL that was asked.
        url: String,
    },
    /// Pull access is denied, or the repository does not exist (registries do not tell).
    #[error(
        "pull access denied for {repository}, repository does not exist or may require authorization{}",
        with_colon(detail)
    )]
    PullDenied {
        /// Repository as users write it.
        repository: String,
        /// The registry's own words.
        detail: String,
    },
    /// Push access is denied.
    #[error("denied: requested access to the resource {repository} is denied{}", with_colon(detail))]
    PushDenied {
        /// Repository as users write it.
        repository: String,
        /// The registry's own words.
        detail: String,
    },
    /// No such tag or digest.
    #[error("manifest for {reference} not found: manifest unknown{}", with_colon(detail))]
    ManifestUnknown {
        /// Reference as users write it.
        reference: String,
        /// The registry's own words.
        detail: String,
    },
    /// No such repository.
    #[error("repository {repository} not found: name unknown{}", with_colon(detail))]
    RepositoryUnknown {
        /// Repository as users write it.
        repository: String,
        /// The registry's own words.
        detail: String,
    },
    /// A blob that a manifest names is not there.
    #[error("blob {digest} not found in {repository}: blob unknown to registry")]
    BlobUnknown {
        /// The blob.
        digest: Digest,
        /// Repository as users write it.
        repository: String,
    },
    /// The registry names a token server that must not get its credentials.
    #[error(
        "registry {host} asks for its credentials to be sent to the token server {realm}, which does not belong to it"
    )]
    ForeignRealm {
        /// `host[:port]` of the registry.
        host: String,
        /// URL of the token server, without query.
        realm: String,
        /// Host of the token server.
        realm_host: String,
    },
    /// The registry's answer breaks the protocol.
    #[error("registry {host} broke the protocol: {detail}")]
    Protocol {
        /// `host[:port]`
        host: String,
        /// What is wrong.
        detail: String,
    },
    /// A redirect or an upload location that is not followed.
    #[error("registry {host} redirects to {target}, which is not followed: {reason}")]
    Redirect {
        /// `host[:port]`
        host: String,
        /// Where to, without query.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// A document above the limit.
    #[error("registry {host} sent more than {limit} bytes for {what}")]
    TooLarge {
        /// `host[:port]`
        host: String,
        /// The request.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The bytes are not what their digest says.
    #[error("{what} has the wrong content: expected digest {expected}, got {actual}")]
    DigestMismatch {
        /// The document or blob.
        what: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The length is not what the descriptor says.
    #[error("{what} has the wrong size: expected {expected} bytes, got {actual}")]
    SizeMismatch {
        /// The document or blob.
        what: String,
        /// In the descriptor.
        expected: u64,
        /// What came or was announced.
        actual: u64,
    },
    /// The local content of an upload could not be read.
    #[error("cannot read the content of {what}")]
    Local {
        /// The blob.
        what: String,
        /// The read error.
        #[source]
        source: io::Error,
    },
    /// A configured name or URL is unusable.
    #[error("invalid registry configuration: {0}")]
    Config(String),
    /// The credentials file cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    AuthFile {
        /// `read`, `write`, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The credentials file is not what it should be.
    #[error("{} is not a valid configuration file: {detail}", path.display())]
    AuthFileSyntax {
        /// The file.
        path: PathBuf,
        /// What is wrong; never quotes the file.
        detail: String,
    },
    /// A credential helper's name is not a plain name.
    #[error("refusing credential helper {0:?}: its name may hold only letters, digits, '-', '_' and '.'")]
    HelperName(String),
    /// A credential helper cannot be run.
    #[error("cannot run credential helper docker-credential-{helper}")]
    HelperRun {
        /// Name after `docker-credential-`.
        helper: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A credential helper failed or answered nonsense. Its output is never shown: it may hold a secret.
    #[error("credential helper docker-credential-{helper} failed to {verb}: {detail}")]
    Helper {
        /// Name after `docker-credential-`.
        helper: String,
        /// `get`, `store`, `erase`.
        verb: &'static str,
        /// What went wrong, in our words.
        detail: &'static str,
    },
}

impl Categorized for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::Tls { .. } | Self::Broken { .. } | Self::RateLimited { .. } => {
                ErrorKind::Unavailable
            }
            Self::Status { status, .. } => match status {
                400..=499 => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            },
            Self::Unauthorized { .. } | Self::LoginFailed { .. } => ErrorKind::Unauthorized,
            Self::PullDenied { .. }
            | Self::ManifestUnknown { .. }
            | Self::RepositoryUnknown { .. }
            | Self::BlobUnknown { .. } => ErrorKind::NotFound,
            Self::PushDenied { .. } | Self::ForeignRealm { .. } | Self::Redirect { .. } => ErrorKind::Forbidden,
            Self::Protocol { .. }
            | Self::TooLarge { .. }
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::AuthFileSyntax { .. } => ErrorKind::Corrupt,
            Self::Config(_) | Self::HelperName(_) => ErrorKind::Invalid,
            Self::Local { .. } | Self::AuthFile { .. } | Self::HelperRun { .. } | Self::Helper { .. } => {
                ErrorKind::Internal
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { host, .. } => {
                Some(format!("check the name {host} and the network, or whether the registry is running"))
            }
            Self::Tls { host, source } => Some(if source.0.contains("xpired") || source.0.contains("NotValidYet") {
                format!("check this machine's clock, then the certificate of {host}")
            } else {
                format!("put the registry's CA into a certs.d directory as {host}/ca.crt, or mark {host} as insecure")
            }),
            Self::Unauthorized { server, .. } => Some(format!("log in with: dhow login {}", shown_server(server))),
            Self::PullDenied { repository, .. } => {
                Some(format!("check the name {repository}; if it is private, log in to its registry first"))
            }
            Self::PushDenied { .. } => Some("log in as a user who may push there".to_owned()),
            Self::RateLimited { .. } => Some("wait, log in, or configure a mirror".to_owned()),
            Self::ForeignRealm { realm_host, .. } => Some(format!(
                "if that token server is yours, add {realm_host} to \"trusted-realms\" in the registry configuration"
            )),
            _ => None,
        }
    }
}

/// Docker Hub's key is not something people type.
fn shown_server(server: &str) -> &str {
    if server == crate::DOCKER_HUB_SERVER { "" } else { server }
}

fn with_colon(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

/// Makes a text from the network fit to be shown: one line, at most 300 characters, no control characters, no query
/// strings (signed URLs), nothing that follows the word `Bearer` or `Basic`.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::new();
    let mut hide_next = false;
    for (words, word) in text.split_whitespace().enumerate() {
        if out.len() > 300 {
            out.push('…');
            break;
        }
        if words > 0 {
            out.push(' ');
        }
        if hide_next {
            out.push('…');
            hide_next = false;
            continue;
        }
        let plain = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        hide_next = plain.eq_ignore_ascii_case("bearer") || plain.eq_ignore_ascii_case("basic");
        let shown: String = match word.split_once('?') {
            Some((head, tail)) if !tail.is_empty() => format!("{head}?…"),
            _ => word.to_owned(),
        };
        out.extend(shown.chars().filter(|c| !c.is_control()).take(200));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_pass() {
        let text =
            "GET https://cdn/x?X-Amz-Signature=abc failed\r\nAuthorization: Bearer eyJhbGci.x and Basic dTpw\x1b[31m";
        let shown = clean(text);
        for secret in ["abc", "eyJ", "dTpw", "\r", "\n", "\x1b"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("https://cdn/x?…"), "{shown}");
        assert!(clean(&"x ".repeat(5000)).len() < 400);
        assert!(clean(&"x".repeat(5000)).len() < 400);
    }
}
