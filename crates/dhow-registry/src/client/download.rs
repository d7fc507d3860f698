//! Files behind plain URLs: not a registry's, so without a registry's credentials and documents, over the same transport.
//!
//! Redirects are followed within bounds. One from https to http is refused unless the caller knows the content by its
//! digest: whoever can change an answer on the way could otherwise choose what is downloaded.

use super::{Client, Inner};
use crate::error::{RegistryError, TransportError};
use crate::retry::Retry;
use crate::transport::{Answer, Failure, FailureKind, Payload, RegistryOrFailure, body_failure};
use crate::url::{Scheme, Url};
use dhow_types::{Categorized, ErrorKind};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use ureq::BodyReader;
use ureq::http::Method;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// Failures of one request after which it is given up.
const RETRIES: u32 = 2;
/// Longest validator that is kept, in bytes.
const MAX_VALIDATOR: usize = 1024;

/// What to fetch.
#[derive(Debug, Clone, Copy, Default)]
pub struct DownloadRequest<'a> {
    /// Absolute `http` or `https` URL; a fragment is dropped.
    pub url: &'a str,
    /// `ETag` of what the caller has.
    pub etag: Option<&'a str>,
    /// `Last-Modified` of what the caller has, used where there is no `ETag`.
    pub last_modified: Option<&'a str>,
    /// Value of an `Authorization` header, for the URL's own server only.
    pub authorization: Option<&'a str>,
    /// The caller verifies the content by a digest it knew before.
    pub verified: bool,
    /// Most bytes that are read.
    pub max_size: u64,
}

/// An answer.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one lives at a time, and is taken apart at once")]
pub enum Download {
    /// What the caller has is what there is.
    NotModified,
    /// New content.
    Content(DownloadReader),
}

/// The content of an answer. Errors of reading are [`DownloadError`]s inside [`io::Error`]s.
pub struct DownloadReader {
    /// `ETag` as sent.
    pub etag: Option<String>,
    /// `Last-Modified` as sent.
    pub last_modified: Option<String>,
    /// `Last-Modified` as Unix seconds.
    pub modified: Option<i64>,
    /// The name that `Content-Disposition` gives, unchecked.
    pub name: Option<String>,
    inner: Arc<Inner>,
    url: String,
    body: BodyReader<'static>,
    announced: Option<u64>,
    limit: u64,
    position: u64,
    window: (Instant, u64),
}

impl std::fmt::Debug for DownloadReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DownloadReader({} at {})", self.url, self.position)
    }
}

/// Why a download failed. URLs are shown without their query, which may hold a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// Not a URL that can be fetched.
    #[error("{0:?} is not an http or https URL that can be fetched")]
    Url(String),
    /// No usable connection.
    #[error("cannot fetch {url}")]
    Connection {
        /// The URL.
        url: String,
        /// Whether trying again may help.
        transient: bool,
        /// What the connection said.
        #[source]
        source: TransportError,
    },
    /// An answer that is no content. The beginning of the wording is BuildKit's.
    #[error("invalid response status {status} for {url}")]
    Status {
        /// The URL.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// Too many redirects.
    #[error("{url} redirects more than {MAX_REDIRECTS} times")]
    Redirects {
        /// The first URL.
        url: String,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects to {target}: {reason}")]
    Redirect {
        /// The first URL.
        url: String,
        /// Where to.
        target: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// More than the caller takes.
    #[error("{url} is larger than {limit} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Certificates of this machine cannot be read, a proxy is misconfigured.
    #[error(transparent)]
    Config(#[from] RegistryError),
}

impl Categorized for DownloadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Connection { .. } => ErrorKind::Unavailable,
            Self::Status { status: 401 | 407, .. } => ErrorKind::Unauthorized,
            Self::Status { status: 403, .. } | Self::Redirect { .. } => ErrorKind::Forbidden,
            Self::Status { status: 404 | 410, .. } => ErrorKind::NotFound,
            Self::Status { status: 500.., .. } => ErrorKind::Unavailable,
            Self::Url(_) | Self::Status { .. } | Self::Redirects { .. } => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::Exhausted,
            Self::Config(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Url(text) if text.contains('@') => {
                Some("a URL may hold no user and password: give them as the secret HTTP_AUTH_HEADER_HOST".to_owned())
            }
            Self::Connection { .. } => Some("check the URL, the network, and the proxy if there is one".to_owned()),
            Self::Status { status: 401 | 403, .. } => {
                Some("give a token as the secret HTTP_AUTH_TOKEN_HOST, with the server's name for HOST".to_owned())
            }
            Self::Redirect { .. } => Some("use the target itself, or ADD --checksum".to_owned()),
            Self::Config(e) => e.hint(),
            _ => None,
        }
    }
}

impl DownloadError {
    /// Whether the same download may succeed when it is started again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Connection { transient: true, .. })
    }

    /// Takes the error out of what reading a [`DownloadReader`] returned.
    pub fn from_read(error: io::Error) -> Result<Self, io::Error> {
        match error.downcast::<Self>() {
            Ok(error) => Ok(error),
            Err(error) => Err(error),
        }
    }
}

impl From<DownloadError> for io::Error {
    fn from(error: DownloadError) -> Self {
        Self::other(error)
    }
}

impl Client {
    /// Fetches a file. Blocks until the head of the answer is there; everything is done on this thread.
    pub fn download(&self, request: &DownloadRequest<'_>) -> Result<Download, DownloadError> {
        let first = Url::parse(request.url).map_err(|_| DownloadError::Url(shortened(request.url)))?;
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.inner.ask(&url, request, url.origin() == first.origin())?;
            match answer.status {
                301 | 302 | 303 | 307 | 308 => url = next(&first, &url, &answer, request.verified)?,
                304 if request.etag.is_some() || request.last_modified.is_some() => return Ok(Download::NotModified),
                200 => return self.content(&url, answer, request.max_size).map(Download::Content),
                status => return Err(DownloadError::Status { url: url.to_string(), status }),
            }
        }
        Err(DownloadError::Redirects { url: first.to_string() })
    }

    fn content(&self, url: &Url, answer: Answer, limit: u64) -> Result<DownloadReader, DownloadError> {
        let short = |text: &&str| text.len() <= MAX_VALIDATOR;
        let header = |name| answer.header(name).filter(short).map(str::to_owned);
        let announced = answer.length();
        if announced.is_some_and(|a| a > limit) {
            return Err(DownloadError::TooLarge { url: url.to_string(), limit });
        }
        let last_modified = header("last-modified");
        let modified = last_modified.as_deref().and_then(|text| httpdate::parse_http_date(text).ok());
        let modified = modified.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        Ok(DownloadReader {
            etag: header("etag"),
            modified: modified.and_then(|d| i64::try_from(d.as_secs()).ok()),
            last_modified,
            name: header("content-disposition").and_then(|text| disposition_name(&text)),
            inner: Arc::clone(&self.inner),
            url: url.to_string(),
            body: answer.body.into_reader(),
            announced,
            limit,
            position: 0,
            window: (self.inner.options.clock.now(), 0),
        })
    }
}

impl Inner {
    /// One request, tried again when the connection or the server has a bad moment.
    fn ask(&self, url: &Url, request: &DownloadRequest<'_>, own_server: bool) -> Result<Answer, DownloadError> {
        let mut headers: Vec<(&str, String)> = vec![("accept", "*/*".to_owned())];
        if let Some(etag) = request.etag {
            headers.push(("if-none-match", etag.to_owned()));
        } else if let Some(date) = request.last_modified {
            headers.push(("if-modified-since", date.to_owned()));
        }
        if let Some(value) = request.authorization.filter(|_| own_server) {
            headers.push(("authorization", value.to_owned()));
        }
        let host = url.origin().authority();
        let mut retry = Retry::new(&*self.options.clock, self.options.retries.min(RETRIES));
        loop {
            match self.transport.send(&Method::GET, url, &headers, Payload::None) {
                Ok(answer) => {
                    if !retry.after_status(&host, answer.status, answer.header("retry-after")) {
                        return Ok(answer);
                    }
                }
                Err(RegistryOrFailure::Final(error)) => return Err(error.into()),
                Err(RegistryOrFailure::Failure(failure)) => {
                    if !retry.after_failure(&host, &failure, false) {
                        return Err(connection(&url.to_string(), failure));
                    }
                }
            }
        }
    }
}

fn connection(url: &str, failure: Failure) -> DownloadError {
    let transient = matches!(failure.kind, FailureKind::Broken);
    DownloadError::Connection { url: url.to_owned(), transient, source: TransportError(failure.text) }
}

fn shortened(text: &str) -> String {
    // What stands before an @ may be a password.
    let text = match text.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            match authority.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://…@{host}{path}"),
                None => text.to_owned(),
            }
        }
        None => text.to_owned(),
    };
    text.split(['?', '#']).next().unwrap_or_default().chars().take(200).collect()
}

fn next(first: &Url, from: &Url, answer: &Answer, verified: bool) -> Result<Url, DownloadError> {
    let refused = |target: String, reason| DownloadError::Redirect { url: first.to_string(), target, reason };
    let location = answer.header("location").unwrap_or_default();
    let to = from.join(location).map_err(|_| refused(shortened(location), "not an http or https URL"))?;
    if from.scheme() == Scheme::Https && to.scheme() == Scheme::Http && !verified {
        return Err(refused(to.to_string(), "https does not lead to http"));
    }
    Ok(to)
}

/// `filename="x"` or `filename*=UTF-8''x` of RFC 6266.
fn disposition_name(header: &str) -> Option<String> {
    let mut plain = None;
    for part in header.split(';').skip(1) {
        let Some((key, value)) = part.split_once('=') else { continue };
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "filename*" => {
                let rest = value.split_once("''").filter(|(set, _)| set.eq_ignore_ascii_case("utf-8"));
                if let Some(name) = rest.and_then(|(_, encoded)| crate::url::decode(encoded)) {
                    return Some(name);
                }
            }
            "filename" => plain = Some(value.trim_matches('"').to_owned()),
            _ => {}
        }
    }
    plain
}

impl DownloadReader {
    /// Where the content came from in the end, without the query.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A server that sends a byte now and then must not hold a build for ever.
    fn watch(&mut self) -> Result<(), DownloadError> {
        let options = &self.inner.options;
        let now = options.clock.now();
        let (begun, from) = self.window;
        if now.saturating_duration_since(begun) < options.progress_timeout {
            return Ok(());
        }
        if self.position - from < options.progress_bytes {
            let text =
                format!("less than {} bytes in {} s", options.progress_bytes, options.progress_timeout.as_secs());
            let failure = Failure { kind: FailureKind::Timeout, text };
            return Err(connection(&self.url, failure));
        }
        self.window = (now, self.position);
        Ok(())
    }
}

impl Read for DownloadReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match self.body.read(buf) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Err(e),
            Err(e) => return Err(connection(&self.url, body_failure(&e)).into()),
        };
        self.position = self.position.saturating_add(n as u64);
        if self.position > self.limit {
            return Err(DownloadError::TooLarge { url: self.url.clone(), limit: self.limit }.into());
        }
        if n == 0 && !buf.is_empty() && self.announced.is_some_and(|a| a != self.position) {
            let failure = Failure { kind: FailureKind::Broken, text: "the connection ended too early".to_owned() };
            return Err(connection(&self.url, failure).into());
        }
        self.watch()?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_headers() {
        for (header, name) in [
            ("attachment; filename=\"a.tar\"", Some("a.tar")),
            ("attachment; filename=a.tar", Some("a.tar")),
            ("attachment; filename=x; filename*=UTF-8''%e2%82%ac.txt", Some("€.txt")),
            ("attachment; filename*=UTF-8''%2e%2e%2fx", Some("../x")),
            ("attachment", None),
            ("filename=x", None),
        ] {
            assert_eq!(disposition_name(header).as_deref(), name, "{header}");
        }
    }

    #[test]
    fn secrets_in_urls_are_not_shown() {
        let shown = shortened("https://user:hunter2@host/file?token=abc");
        assert_eq!(shown, "https://…@host/file");
        assert_eq!(shortened("ftp://host/x@y"), "ftp://host/x@y");
    }
}
