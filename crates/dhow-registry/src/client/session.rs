//! One request of the protocol: redirects, authentication and retries around the bare transport.

use super::{Inner, lock};
use crate::challenge::{self, Challenge};
use crate::endpoint::{Base, Endpoint, is_loopback_host};
use crate::error::{RegistryError, TransportError, clean};
use crate::retry::Retry;
use crate::transport::{Answer, Failure, FailureKind, Payload, RegistryOrFailure};
use crate::url::{Scheme, Url};
use dhow_types::{Digest, Reference};
use serde::Deserialize;
use std::io::{self, Read};
use ureq::http::Method;

/// Redirects followed by one request.
const MAX_REDIRECTS: usize = 5;

/// A permission that is asked of the token server: `repository:PATH:ACTIONS`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope {
    pub(crate) path: String,
    pub(crate) actions: &'static str,
}

impl Scope {
    pub(crate) fn pull(path: &str) -> Self {
        Self { path: path.to_owned(), actions: "pull" }
    }

    pub(crate) fn push(path: &str) -> Self {
        Self { path: path.to_owned(), actions: "pull,push" }
    }

    pub(crate) fn text(&self) -> String {
        format!("repository:{}:{}", self.path, self.actions)
    }
}

/// What a request is for: decides how a refusal is worded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Manifest(&'a Reference),
    Blob(&'a Reference, &'a Digest),
    Tags(&'a Reference),
    Push(&'a Reference),
    Login,
}

/// The content of a request, able to be sent more than once.
pub(crate) enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    Reopen { length: u64, open: &'a mut dyn FnMut() -> io::Result<Box<dyn Read>>, progress: &'a dyn Fn(u64) },
}

/// A request.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) content: Content<'a>,
    pub(crate) purpose: Purpose<'a>,
    /// For messages, for instance `GET blob sha256:…`.
    pub(crate) what: String,
    /// Statuses that are a result; everything else is an error.
    pub(crate) expect: &'static [u16],
}

impl<'a> Ask<'a> {
    pub(crate) fn get(url: Url, what: impl Into<String>, purpose: Purpose<'a>, expect: &'static [u16]) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: Vec::new(),
            scopes: Vec::new(),
            content: Content::None,
            purpose,
            what: what.into(),
            expect,
        }
    }
}

/// Reports how much of an upload has gone out.
struct Counted<'a> {
    inner: Box<dyn Read>,
    sent: u64,
    progress: &'a dyn Fn(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.sent += n as u64;
        (self.progress)(self.sent);
        Ok(n)
    }
}

impl Inner {
    /// Sends a request to an endpoint until it has a result or an error that is final.
    pub(crate) fn exchange(
        &self,
        ep: &Endpoint,
        mut ask: Ask<'_>,
        retry: &mut Retry<'_>,
    ) -> Result<(Answer, Url), RegistryError> {
        let home = self.base(ep, retry)?;
        // A URL that the registry gave us (upload location, next page) may lead elsewhere: without credentials.
        let at_home = ask.url.origin() == home.origin();
        let mut challenged = false;
        loop {
            let auth = if at_home { self.auth.header(self, ep, &home, &ask.scopes, retry)? } else { None };
            let sent = self.follow(&mut ask, auth.as_ref().map(|a| a.header.as_str()));
            let (answer, url, left) = match sent {
                Ok(done) => done,
                Err(RegistryOrFailure::Final(error)) => return Err(error.for_host(&ep.host)),
                Err(RegistryOrFailure::Failure(failure)) => {
                    let before = lock(&self.answered).contains(&ep.host);
                    if retry.after_failure(&ep.host, &failure, before) {
                        continue;
                    }
                    return Err(broken(&ep.host, &ask.what, failure));
                }
            };
            lock(&self.answered).insert(ep.host.clone());
            if ask.expect.contains(&answer.status) {
                return Ok((answer, url));
            }
            if answer.status == 401 && at_home && !left && !challenged {
                challenged = true;
                if self.auth.learn(self, ep, &home, &challenges(&answer), &ask.scopes)? {
                    continue;
                }
            }
            let status = answer.status;
            let retry_after = answer.header("retry-after").map(str::to_owned);
            if retry.after_status(&ep.host, status, retry_after.as_deref()) {
                continue;
            }
            let basic = self.auth.is_basic(&home);
            return Err(refusal(ep, &ask, answer, auth.is_some_and(|a| a.personal), basic));
        }
    }

    /// Sends a request, following redirects. Returns the answer, where it came from, and whether that is another origin
    /// than the one asked first.
    pub(crate) fn follow(
        &self,
        ask: &mut Ask<'_>,
        authorization: Option<&str>,
    ) -> Result<(Answer, Url, bool), RegistryOrFailure> {
        let safe = ask.method == Method::GET || ask.method == Method::HEAD;
        let mut url = ask.url.clone();
        let mut left = false;
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = ask.headers.clone();
            // Once another origin was involved the credential stays away, even if the chain leads back.
            if let Some(value) = authorization.filter(|_| !left) {
                headers.push(("authorization", value.to_owned()));
            }
            let answer = self.send(ask, &url, &headers)?;
            let wanted = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            let location = answer.header("location").map(str::to_owned);
            let (true, Some(location)) = (wanted, location) else { return Ok((answer, url, left)) };
            let next = self.permitted(&url, &location)?;
            let moved = next.origin() != url.origin();
            if !safe && (moved || !matches!(answer.status, 307 | 308)) {
                // The content of a request may be a secret (a refresh token) or a private layer.
                return Err(refused(&next, "only requests without content are redirected to another server").into());
            }
            left |= moved;
            url = next;
        }
        Err(refused(&url, "too many redirects").into())
    }

    fn send(&self, ask: &mut Ask<'_>, url: &Url, headers: &[(&str, String)]) -> Result<Answer, RegistryOrFailure> {
        match &mut ask.content {
            Content::None => self.transport.send(&ask.method, url, headers, Payload::None),
            Content::Bytes(bytes) => self.transport.send(&ask.method, url, headers, Payload::Bytes(bytes)),
            Content::Reopen { length, open, progress } => {
                let inner = open().map_err(|source| RegistryError::Local { what: ask.what.clone(), source })?;
                let mut reader = Counted { inner, sent: 0, progress: *progress };
                let payload = Payload::Stream { length: *length, reader: &mut reader };
                self.transport.send(&ask.method, url, headers, payload)
            }
        }
    }

    /// A URL that a registry points to, if it may be followed from `from` at all.
    fn permitted(&self, from: &Url, reference: &str) -> Result<Url, RegistryError> {
        let next = from.join(reference).map_err(|_| RegistryError::Protocol {
            host: from.origin().authority(),
            detail: format!("unusable location {:?}", clean(reference)),
        })?;
        if next.scheme() == Scheme::Http {
            if from.scheme() == Scheme::Https {
                return Err(refused(&next, "it leads from https to plain http"));
            }
            let authority = next.origin().authority();
            let same = next.origin() == from.origin();
            if !same && !is_loopback_host(&authority) && !self.transport.is_insecure(&authority) {
                return Err(refused(&next, "plain http is only for loopback and for registries listed as insecure"));
            }
        }
        Ok(next)
    }

    /// The same for locations in other headers than a redirect's.
    pub(crate) fn hop(&self, ep: &Endpoint, from: &Url, reference: &str) -> Result<Url, RegistryError> {
        self.permitted(from, reference).map_err(|e| e.for_host(&ep.host))
    }

    /// The URL of a path below the endpoint's base.
    pub(crate) fn url(&self, ep: &Endpoint, path: &str, retry: &mut Retry<'_>) -> Result<Url, RegistryError> {
        let base = self.base(ep, retry)?;
        Ok(base.with_target(&format!("{}{path}", base.target())))
    }

    /// The endpoint's base URL; finds out the scheme where that is open.
    pub(crate) fn base(&self, ep: &Endpoint, retry: &mut Retry<'_>) -> Result<Url, RegistryError> {
        let (authority, order) = match &ep.base {
            Base::Fixed(url) => return Ok(url.clone()),
            Base::HttpFirst(authority) => (authority, [Scheme::Http, Scheme::Https]),
            Base::HttpsFirst(authority) => (authority, [Scheme::Https, Scheme::Http]),
        };
        if let Some(url) = lock(&self.bases).get(authority) {
            return Ok(url.clone());
        }
        let mut first_error = None;
        for scheme in order {
            let base = Url::from_authority(scheme, authority)
                .map_err(|_| RegistryError::Config(format!("{authority:?} is not a host name")))?;
            match self.speaks(ep, &base, retry) {
                Ok(true) => {
                    lock(&self.answered).insert(ep.host.clone());
                    lock(&self.bases).insert(authority.clone(), base.clone());
                    return Ok(base);
                }
                Ok(false) => {}
                // A loopback port that refuses to connect does so for both schemes.
                Err(error) if scheme == Scheme::Http => return Err(first_error.unwrap_or(error)),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| RegistryError::Protocol {
            host: ep.host.clone(),
            detail: "it speaks neither http nor https".to_owned(),
        }))
    }

    /// Whether the server speaks HTTP over that scheme, whatever it says. Sends no credential.
    fn speaks(&self, ep: &Endpoint, base: &Url, retry: &mut Retry<'_>) -> Result<bool, RegistryError> {
        let url = base.with_target("/v2/");
        loop {
            let failure = match self.transport.send(&Method::GET, &url, &[], Payload::None) {
                // Go's servers say this to plain HTTP on a TLS port.
                Ok(answer) if answer.status == 400 && base.scheme() == Scheme::Http => {
                    let body = answer.bytes(4096).ok().flatten().unwrap_or_default();
                    return Ok(!String::from_utf8_lossy(&body).contains("HTTPS server"));
                }
                Ok(answer) => {
                    // Read to its end so that the connection can be used again.
                    let _ = answer.bytes(64 << 10);
                    return Ok(true);
                }
                Err(RegistryOrFailure::Final(error)) => return Err(error),
                Err(RegistryOrFailure::Failure(failure)) => failure,
            };
            if failure.kind == FailureKind::Tls {
                return if self.transport.is_insecure(&ep.host) {
                    Ok(false)
                } else {
                    Err(broken(&ep.host, "GET /v2/", failure))
                };
            }
            if failure.kind == FailureKind::Broken && retry.used() > 0 && base.scheme() == Scheme::Https {
                return Ok(false);
            }
            if !retry.after_failure(&ep.host, &failure, false) {
                return match failure.kind {
                    FailureKind::Broken if base.scheme() == Scheme::Http => Ok(false),
                    _ => Err(broken(&ep.host, "GET /v2/", failure)),
                };
            }
        }
    }
}

/// The error for a request that got no usable answer.
pub(crate) fn broken(host: &str, what: &str, failure: Failure) -> RegistryError {
    let (host, what) = (host.to_owned(), what.to_owned());
    let source = TransportError(failure.text);
    match failure.kind {
        FailureKind::Connect => RegistryError::Unreachable { host, source },
        FailureKind::Tls => RegistryError::Tls { host, source },
        FailureKind::Timeout | FailureKind::Broken => RegistryError::Broken { host, what, source },
        FailureKind::Local => RegistryError::Local { what, source: io::Error::other(source) },
    }
}

fn refused(target: &Url, reason: &'static str) -> RegistryError {
    RegistryError::Redirect { host: String::new(), target: target.to_string(), reason }
}

impl RegistryError {
    /// Fills in the registry where it was not at hand.
    fn for_host(self, name: &str) -> Self {
        match self {
            Self::Redirect { target, reason, .. } => Self::Redirect { host: name.to_owned(), target, reason },
            other => other,
        }
    }

    /// Unwraps the error that a [`super::BlobReader`] put into an [`io::Error`].
    pub fn from_read(error: io::Error, what: &str) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(source) => Self::Local { what: what.to_owned(), source },
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => crate::retry::is_transient(*status),
            _ => false,
        }
    }
}

fn challenges(answer: &Answer) -> Vec<Challenge> {
    let values = answer.headers.get_all("www-authenticate").iter();
    values.filter_map(|v| v.to_str().ok()).take(8).flat_map(challenge::parse).collect()
}

/// The `errors` of a distribution error body.
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Code and message of the first error in an answer, cleaned.
pub(crate) fn explain(answer: Answer) -> (String, String) {
    let bytes = answer.bytes(64 << 10).ok().flatten().unwrap_or_default();
    let first = serde_json::from_slice::<ErrorBody>(&bytes).ok().and_then(|b| b.errors.into_iter().next());
    first.map_or_else(Default::default, |e| (clean(&e.code), clean(&e.message)))
}

fn refusal(ep: &Endpoint, ask: &Ask<'_>, answer: Answer, had_credentials: bool, basic: bool) -> RegistryError {
    let status = answer.status;
    let (code, detail) = explain(answer);
    let host = ep.host.clone();
    let reference = match ask.purpose {
        Purpose::Manifest(r) | Purpose::Blob(r, _) | Purpose::Tags(r) | Purpose::Push(r) => Some(r),
        Purpose::Login => None,
    };
    let repository = || reference.map(Reference::familiar_repository).unwrap_or_default();
    match (status, ask.purpose) {
        (401, Purpose::Login) => {
            RegistryError::Unauthorized { server: ep.server.clone(), had_credentials: true, detail: String::new() }
        }
        (401, _) if basic || reference.is_none() => {
            let detail = if had_credentials { String::new() } else { "no basic auth credentials".to_owned() };
            RegistryError::Unauthorized { server: ep.server.clone(), had_credentials, detail }
        }
        (401 | 403, Purpose::Push(_)) => RegistryError::PushDenied { repository: repository(), detail },
        (401 | 403, _) => RegistryError::PullDenied { repository: repository(), detail },
        (404, Purpose::Push(_)) => RegistryError::Status { host, what: ask.what.clone(), status, detail },
        (404, _) if code == "NAME_UNKNOWN" => RegistryError::RepositoryUnknown { repository: repository(), detail },
        (404, Purpose::Manifest(r)) => {
            let detail = if detail == "manifest unknown" { String::new() } else { detail };
            RegistryError::ManifestUnknown { reference: r.familiar(), detail }
        }
        (404, Purpose::Blob(_, digest)) => RegistryError::BlobUnknown { digest: *digest, repository: repository() },
        (429, _) => RegistryError::RateLimited { host, detail },
        _ => RegistryError::Status { host, what: ask.what.clone(), status, detail },
    }
}
