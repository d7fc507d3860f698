//! The client: manifests, blobs, tags, login, push.
//!
//! Rules that hold for every request (the reasons are in `docs/design/0002-registry-client.md`):
//! - an `Authorization` header goes only to the origin (scheme, host, port) that asked for it, never along a redirect to
//!   another one, and a redirect from https to http is not followed;
//! - a registry's credential goes to a token server only under `auth`'s realm rule, a mirror's requests carry the
//!   mirror's credential;
//! - documents are capped at [`MAX_DOCUMENT`], verified against their digest as received;
//! - waits are bounded: `Retry-After` is honoured up to a minute, the number of retries without progress is limited.

mod auth;
mod blob;
mod download;
mod push;
mod session;

pub use blob::BlobReader;
pub use download::{Download, DownloadError, DownloadReader, DownloadRequest};

use crate::config::{Credential, Credentials, Options, RegistryConfig};
use crate::endpoint::{self, Endpoint};
use crate::error::RegistryError;
use crate::retry::Retry;
use crate::transport::{Answer, Transport};
use crate::url::Url;
use auth::Auth;
use dhow_oci::image::{Descriptor, MAX_DOCUMENT, media};
use dhow_types::{Digest, Reference};
use serde::Deserialize;
use session::{Ask, Purpose, Scope};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use ureq::http::Method;

/// A client for all registries. Cheap to clone; shared by threads.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// A manifest or an index as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The bytes, exactly as received.
    pub bytes: Vec<u8>,
    /// Their digest, computed here.
    pub digest: Digest,
    /// `Content-Type` of the answer without parameters; may be empty. The body decides what the document is.
    pub media_type: String,
}

/// What a HEAD request told about a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Digest that the registry announces; not verified.
    pub digest: Digest,
    /// `Content-Type` without parameters; may be empty.
    pub media_type: String,
}

/// The result of a login check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginOutcome {
    /// Text for the user, Docker's.
    pub status: String,
    /// What to store in place of the password, if the registry gave one: [`Credential::IdentityToken`].
    pub identity_token: Option<String>,
}

pub(crate) struct Inner {
    config: RegistryConfig,
    options: Options,
    transport: Arc<Transport>,
    auth: Auth,
    /// Base URLs of endpoints whose scheme had to be found out.
    bases: Mutex<HashMap<String, Url>>,
    /// Hosts that have answered at least once.
    answered: Mutex<HashSet<String>>,
    /// Mirrors that failed to connect: not asked again by this client.
    dead: Mutex<HashSet<String>>,
    notices: Mutex<Vec<String>>,
}

/// A panicking thread leaves these maps usable, so a poisoned lock is taken over.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// A client with the usual limits.
    pub fn new(config: RegistryConfig, credentials: Arc<dyn Credentials + Send + Sync>) -> Self {
        Self::with_options(config, credentials, Options::default())
    }

    /// A client with limits of one's own.
    pub fn with_options(
        config: RegistryConfig,
        credentials: Arc<dyn Credentials + Send + Sync>,
        options: Options,
    ) -> Self {
        let transport = Arc::new(Transport::new(&config, options.clone()));
        Self { inner: Arc::new(Inner::new(config, options, transport, credentials)) }
    }

    /// Things worth telling the user that were no errors, such as mirrors that were passed over. Empties the list.
    pub fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.inner.notices))
    }

    /// Checks a credential as `docker login` does. A registry that lets everybody in accepts any.
    pub fn ping_login(&self, server: &str, credential: &Credential) -> Result<LoginOutcome, RegistryError> {
        let key = endpoint::credential_key(server);
        let domain = if key == crate::DOCKER_HUB_SERVER { "docker.io".to_owned() } else { endpoint::hostname(server) };
        let insecure = self.inner.transport.is_insecure(&domain);
        let ep = Endpoint::origin(&domain, insecure)?;
        let session = Inner::for_login(&self.inner, credential.clone());
        let mut retry = session.retry();
        let url = session.url(&ep, "v2/", &mut retry)?;
        let shown = url.to_string();
        let ask = Ask::get(url, "GET /v2/", Purpose::Login, &[200]);
        session.exchange(&ep, ask, &mut retry).map_err(|e| match e {
            RegistryError::Unauthorized { detail, .. } if detail.is_empty() => {
                RegistryError::LoginFailed { url: shown }
            }
            other => other,
        })?;
        Ok(LoginOutcome { status: "Login Succeeded".to_owned(), identity_token: session.auth.take_identity_token() })
    }

    /// Asks what a tag points to without counting as a pull (HEAD). `None` when the registry does not say.
    pub fn probe(&self, reference: &Reference) -> Result<Option<Probed>, RegistryError> {
        self.inner.on_endpoints(reference, |ep| {
            let mut retry = self.inner.retry();
            let ask = self.inner.manifest_ask(ep, reference, Method::HEAD, &mut retry)?;
            let (answer, _) = self.inner.exchange(ep, ask, &mut retry)?;
            let digest = answer.header("docker-content-digest").and_then(|d| d.parse().ok());
            Ok(digest.map(|digest| Probed { digest, media_type: media_type(&answer) }))
        })
    }

    /// Fetches the manifest or index that a reference names (tag `latest` by default), verified against its digest if it
    /// has one.
    pub fn resolve(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        let reference = reference.clone().with_default_tag();
        self.inner.on_endpoints(&reference, |ep| self.inner.fetch_manifest(ep, &reference))
    }

    /// Fetches a manifest or index by descriptor: size and digest verified.
    pub fn manifest(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let reference = reference.with_digest(descriptor.digest);
        let fetched = self.inner.on_endpoints(&reference, |ep| {
            let fetched = self.inner.fetch_manifest(ep, &reference)?;
            check_size(&format!("manifest {}", descriptor.digest), descriptor.size, fetched.bytes.len() as u64)?;
            Ok(fetched)
        })?;
        Ok(fetched.bytes)
    }

    /// Opens a blob for reading from `offset` (bytes). The reader resumes by itself when the connection is cut, and never
    /// yields a byte beyond the descriptor's size; whoever reads verifies the digest.
    pub fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<BlobReader, RegistryError> {
        BlobReader::open(&self.inner, reference, descriptor, offset)
    }

    /// Reads a small blob (an image config) whole: capped, size and digest verified.
    pub fn document(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let what = format!("blob {}", descriptor.digest);
        if descriptor.size > MAX_DOCUMENT {
            return Err(RegistryError::TooLarge { host: reference.domain().to_owned(), what, limit: MAX_DOCUMENT });
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut self.blob(reference, descriptor, 0)?, &mut bytes)
            .map_err(|e| RegistryError::from_read(e, &what))?;
        check_size(&what, descriptor.size, bytes.len() as u64)?;
        check_digest(&what, &descriptor.digest, &bytes)?;
        Ok(bytes)
    }

    /// All tags of a repository, in the registry's order.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>, RegistryError> {
        self.inner.on_endpoints(reference, |ep| self.inner.tags(ep, reference))
    }
}

impl Inner {
    fn new(
        config: RegistryConfig,
        options: Options,
        transport: Arc<Transport>,
        credentials: Arc<dyn Credentials + Send + Sync>,
    ) -> Self {
        Self {
            config,
            options,
            transport,
            auth: Auth::new(credentials),
            bases: Mutex::default(),
            answered: Mutex::default(),
            dead: Mutex::default(),
            notices: Mutex::default(),
        }
    }

    /// A session that knows one credential only and asks the token server for an identity token.
    fn for_login(parent: &Inner, credential: Credential) -> Self {
        let fresh = Self::new(
            parent.config.clone(),
            parent.options.clone(),
            Arc::clone(&parent.transport),
            Arc::new(auth::Only(credential)),
        );
        Self { auth: fresh.auth.wanting_identity_token(), ..fresh }
    }

    pub(crate) fn retry(&self) -> Retry<'_> {
        Retry::new(&*self.options.clock, self.options.retries)
    }

    /// Tries mirrors, then the registry. A mirror's failure is noted and passed over; the registry's is the result.
    fn on_endpoints<T>(
        &self,
        reference: &Reference,
        mut attempt: impl FnMut(&Endpoint) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let endpoints = endpoint::for_pull(&self.config, reference)?;
        let mut last = None;
        for ep in &endpoints {
            if ep.mirror && lock(&self.dead).contains(&ep.host) {
                continue;
            }
            match attempt(ep) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    if ep.mirror {
                        self.note_mirror(&ep.host, &error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::Config(format!("no endpoint for {}", reference.domain()))))
    }

    /// Records that a mirror was passed over.
    pub(crate) fn note_mirror(&self, host: &str, error: &RegistryError) {
        if matches!(error, RegistryError::Unreachable { .. } | RegistryError::Tls { .. }) {
            lock(&self.dead).insert(host.to_owned());
        }
        lock(&self.notices).push(format!("mirror {host} passed over: {error}"));
    }

    fn manifest_ask<'a>(
        &self,
        ep: &Endpoint,
        reference: &'a Reference,
        method: Method,
        retry: &mut Retry<'_>,
    ) -> Result<Ask<'a>, RegistryError> {
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let url = self.url(ep, &format!("v2/{}/manifests/{name}", reference.path()), retry)?;
        let mut ask = Ask::get(url, format!("{method} manifest {name}"), Purpose::Manifest(reference), &[200]);
        ask.method = method;
        ask.scopes = vec![Scope::pull(reference.path())];
        let accepted =
            [media::OCI_INDEX, media::OCI_MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST, "*/*;q=0.1"];
        ask.headers.push(("accept", accepted.join(", ")));
        Ok(ask)
    }

    fn fetch_manifest(&self, ep: &Endpoint, reference: &Reference) -> Result<Fetched, RegistryError> {
        let mut retry = self.retry();
        loop {
            let ask = self.manifest_ask(ep, reference, Method::GET, &mut retry)?;
            let what = ask.what.clone();
            let (answer, _) = self.exchange(ep, ask, &mut retry)?;
            let announced = answer.header("docker-content-digest").and_then(|d| d.parse::<Digest>().ok());
            let media_type = media_type(&answer);
            let bytes = match answer.bytes(MAX_DOCUMENT) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => {
                    return Err(RegistryError::TooLarge { host: ep.host.clone(), what, limit: MAX_DOCUMENT });
                }
                Err(failure) if retry.after_failure(&ep.host, &failure, true) => continue,
                Err(failure) => return Err(session::broken(&ep.host, &what, failure)),
            };
            // Hashed as received: re-serialised JSON has another digest, whatever it means.
            let digest = Digest::of(&bytes);
            let shown = format!("manifest for {}", reference.familiar());
            if let Some(expected) = reference.digest().or(announced.as_ref()) {
                check_digest(&shown, expected, &bytes)?;
            }
            return Ok(Fetched { bytes, digest, media_type });
        }
    }

    fn tags(&self, ep: &Endpoint, reference: &Reference) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        // Bounds what an endless chain of pages can cost.
        const MAX_PAGES: usize = 1000;
        let mut retry = self.retry();
        let mut url = self.url(ep, &format!("v2/{}/tags/list", reference.path()), &mut retry)?;
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let mut ask = Ask::get(url, "GET tags", Purpose::Tags(reference), &[200]);
            ask.scopes = vec![Scope::pull(reference.path())];
            let (answer, from) = self.exchange(ep, ask, &mut retry)?;
            let next = answer.header("link").and_then(next_link).map(str::to_owned);
            let bytes = self.whole(ep, answer, "GET tags")?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|_| RegistryError::Protocol {
                host: ep.host.clone(),
                detail: "the tag list is not the expected JSON".to_owned(),
            })?;
            let before = tags.len();
            tags.extend(page.tags.unwrap_or_default());
            match next {
                // An empty page with a successor would be a loop.
                Some(link) if tags.len() > before => url = self.hop(ep, &from, &link)?,
                _ => return Ok(tags),
            }
        }
        Ok(tags)
    }

    /// The whole body of a JSON answer, capped.
    fn whole(&self, ep: &Endpoint, answer: Answer, what: &str) -> Result<Vec<u8>, RegistryError> {
        answer.bytes(MAX_DOCUMENT).map_err(|f| session::broken(&ep.host, what, f))?.ok_or_else(|| {
            RegistryError::TooLarge { host: ep.host.clone(), what: what.to_owned(), limit: MAX_DOCUMENT }
        })
    }
}

fn media_type(answer: &Answer) -> String {
    let text = answer.header("content-type").unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().chars().take(200).collect()
}

/// The target of `<…>; rel="next"` (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    let (target, params) = header.trim().strip_prefix('<')?.split_once('>')?;
    params.to_ascii_lowercase().replace(['"', ' '], "").contains("rel=next").then_some(target)
}

pub(crate) fn check_size(what: &str, expected: u64, actual: u64) -> Result<(), RegistryError> {
    if expected == actual {
        Ok(())
    } else {
        Err(RegistryError::SizeMismatch { what: what.to_owned(), expected, actual })
    }
}

pub(crate) fn check_digest(what: &str, expected: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
    let actual = Digest::of(bytes);
    if actual == *expected {
        Ok(())
    } else {
        Err(RegistryError::DigestMismatch { what: what.to_owned(), expected: *expected, actual })
    }
}
