//! One HTTP request and its answer: TLS roots, time-outs, connection reuse. No redirects, no credentials of its own, no
//! retries: those are decisions, and made elsewhere.

use crate::config::{Options, Proxies, RegistryConfig};
use crate::error::{RegistryError, clean};
use crate::url::{Scheme, Url};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use ureq::http::{HeaderMap, Method, Request};
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy, SendBody};

/// How a request failed, as far as retrying is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// No connection.
    Connect,
    /// A connection that cannot be trusted or does not speak TLS.
    Tls,
    /// Nothing came for too long.
    Timeout,
    /// Cut, or not HTTP.
    Broken,
    /// Our own side: the content to upload could not be read.
    Local,
}

/// A failed request.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// In words, free of secrets.
    pub(crate) text: String,
}

/// The content of a request.
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    Stream { length: u64, reader: &'a mut dyn Read },
}

/// An answer; its body is read by whoever wants it.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

impl Answer {
    /// A header as text, if it is visible ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Content-Length as announced.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// Reads the body to its end, but never more than `limit` bytes; `Ok(None)` when there is more.
    pub(crate) fn bytes(self, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        let mut bytes = Vec::new();
        let read = self.body.into_reader().take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|e| body_failure(&e))?;
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }
}

/// Classifies an error while a body is read.
pub(crate) fn body_failure(error: &io::Error) -> Failure {
    let timeout = error.kind() == io::ErrorKind::TimedOut
        || error
            .get_ref()
            .and_then(|e| e.downcast_ref::<ureq::Error>())
            .is_some_and(|e| matches!(e, ureq::Error::Timeout(_)));
    let kind = if timeout { FailureKind::Timeout } else { FailureKind::Broken };
    let text = if timeout { "no data for too long".to_owned() } else { clean(&error.to_string()) };
    Failure { kind, text }
}

/// Connections to all hosts.
pub(crate) struct Transport {
    options: Options,
    insecure: Vec<String>,
    ca_dirs: Vec<PathBuf>,
    proxies: Proxies,
    agents: Mutex<HashMap<String, Agent>>,
    system_roots: OnceLock<Vec<Certificate<'static>>>,
}

impl Transport {
    pub(crate) fn new(config: &RegistryConfig, options: Options) -> Self {
        Self {
            options,
            insecure: config.insecure.clone(),
            ca_dirs: config.ca_dirs.clone(),
            proxies: config.proxies.clone(),
            agents: Mutex::default(),
            system_roots: OnceLock::new(),
        }
    }

    /// Sends one request and reads the head of its answer, whatever its status.
    pub(crate) fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &[(&str, String)],
        payload: Payload<'_>,
    ) -> Result<Answer, RegistryOrFailure> {
        let agent = self.agent(url)?;
        let mut request = Request::builder().method(method.clone()).uri(url.wire());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let broken = |what: &str| Failure { kind: FailureKind::Local, text: what.to_owned() };
        let result = match payload {
            Payload::None if *method == Method::POST || *method == Method::PUT => {
                let request = request.body(&[] as &[u8]).map_err(|_| broken("request cannot be built"))?;
                agent.run(request)
            }
            Payload::None => agent.run(request.body(()).map_err(|_| broken("request cannot be built"))?),
            Payload::Bytes(bytes) => agent.run(request.body(bytes).map_err(|_| broken("request cannot be built"))?),
            Payload::Stream { length, reader } => {
                let failed = RefCell::new(None);
                let mut watched = Watched { inner: reader, failed: &failed };
                let request = request
                    .header("content-length", length.to_string())
                    .body(SendBody::from_reader(&mut watched))
                    .map_err(|_| broken("request cannot be built"))?;
                let result = agent.run(request);
                if let Some(text) = failed.take() {
                    return Err(Failure { kind: FailureKind::Local, text }.into());
                }
                result
            }
        };
        let (parts, body) = result.map_err(|e| classify(&e))?.into_parts();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    fn agent(&self, url: &Url) -> Result<Agent, RegistryError> {
        let authority = url.origin().authority();
        let proxy = self.proxies.choose(url.scheme(), url.host(), url.origin().port);
        let plain = url.scheme() == Scheme::Http && proxy.is_none();
        let key = if plain { String::new() } else { url.origin().authority() };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let tls = if plain { RootCerts::Specific(Arc::default()).into() } else { self.tls(&authority)? };
        let bad = |_| RegistryError::Config("the proxy's URL is not one that can be used".to_owned());
        let proxy = proxy.map(Proxy::new).transpose().map_err(bad)?;
        let agent = self.new_agent(tls, proxy);
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn new_agent(&self, tls: Tls, proxy: Option<Proxy>) -> Agent {
        let mut builder =
            TlsConfig::builder().root_certs(tls.roots).client_cert(tls.client).disable_verification(tls.unverified);
        // Named outright: the process-wide default is nobody's business here, and ring is the only provider linked.
        builder = builder.unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        // No overall or resolve time-out: ureq would resolve names on a thread of its own, and the process has to be
        // single-threaded again when we are done.
        Agent::config_builder()
            .tls_config(builder.build())
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("dhow/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(self.options.connect_timeout))
            .timeout_per_read(Some(self.options.progress_timeout))
            .timeout_per_write(Some(self.options.progress_timeout))
            .max_idle_connections_per_host(8)
            .build()
            .new_agent()
    }

    /// Roots and client certificate for one host.
    fn tls(&self, authority: &str) -> Result<Tls, RegistryError> {
        let system = self.system_roots.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
        });
        let mut roots = system.clone();
        let mut client = None;
        for dir in &self.ca_dirs {
            let dir = dir.join(authority);
            for file in pem_files(&dir, "crt")? {
                roots.extend(read_certificates(&file)?);
            }
            for file in pem_files(&dir, "cert")? {
                client = Some(read_client(&file)?);
            }
        }
        let unverified = self.is_insecure(authority);
        Ok(Tls { roots: RootCerts::Specific(Arc::new(roots)), client, unverified })
    }

    pub(crate) fn is_insecure(&self, authority: &str) -> bool {
        self.insecure.iter().any(|listed| listed.eq_ignore_ascii_case(authority))
    }
}

struct Tls {
    roots: RootCerts,
    client: Option<ClientCert>,
    unverified: bool,
}

impl From<RootCerts> for Tls {
    fn from(roots: RootCerts) -> Self {
        Self { roots, client: None, unverified: false }
    }
}

/// Either an error that is final, or a failure that may be retried.
#[derive(Debug)]
pub(crate) enum RegistryOrFailure {
    Final(RegistryError),
    Failure(Failure),
}

impl From<RegistryError> for RegistryOrFailure {
    fn from(error: RegistryError) -> Self {
        Self::Final(error)
    }
}

impl From<Failure> for RegistryOrFailure {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Remembers whether it was the source that failed, and not the network.
struct Watched<'a> {
    inner: &'a mut dyn Read,
    failed: &'a RefCell<Option<String>>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).inspect_err(|e| *self.failed.borrow_mut() = Some(e.to_string()))
    }
}

fn classify(error: &ureq::Error) -> Failure {
    let (kind, text) = match error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            (FailureKind::Connect, "connection timed out".to_owned())
        }
        ureq::Error::Timeout(_) => (FailureKind::Timeout, "no data for too long".to_owned()),
        ureq::Error::HostNotFound => (FailureKind::Connect, "no such host".to_owned()),
        ureq::Error::ConnectProxyFailed(text) => (FailureKind::Connect, clean(&format!("proxy: {text}"))),
        ureq::Error::ConnectionFailed => (FailureKind::Connect, "connection failed".to_owned()),
        ureq::Error::Io(e) => classify_io(e),
        ureq::Error::Rustls(e) => (FailureKind::Tls, clean(&e.to_string())),
        ureq::Error::Tls(text) => (FailureKind::Tls, (*text).to_owned()),
        other => (FailureKind::Broken, clean(&other.to_string())),
    };
    Failure { kind, text }
}

fn classify_io(error: &io::Error) -> (FailureKind, String) {
    use io::ErrorKind as K;
    // rustls reports a refused certificate through its stream as "invalid data".
    if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return (FailureKind::Tls, clean(&tls.to_string()));
    }
    let kind = match error.kind() {
        K::TimedOut | K::WouldBlock => FailureKind::Timeout,
        K::UnexpectedEof | K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::InvalidData => {
            FailureKind::Broken
        }
        // Refused, unreachable, and name resolution (which has no kind of its own).
        _ => FailureKind::Connect,
    };
    (kind, clean(&error.to_string()))
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError::AuthFile { operation: "read", path, source }
}

fn pem_files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, RegistryError> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        other => other.map_err(read_error(dir))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(read_error(dir))?.path();
        if path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn bad_pem(path: &Path) -> RegistryError {
    RegistryError::Config(format!("{} holds no usable PEM certificate or key", path.display()))
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let bytes = std::fs::read(path).map_err(read_error(path))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| bad_pem(path))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() { Err(bad_pem(path)) } else { Ok(certificates) }
}

fn read_client(path: &Path) -> Result<ClientCert, RegistryError> {
    let chain = read_certificates(path)?;
    let key_path = path.with_extension("key");
    let bytes = std::fs::read(&key_path).map_err(read_error(&key_path))?;
    let key = parse_pem(&bytes).find_map(|item| match item {
        Ok(PemItem::PrivateKey(key)) => Some(key),
        _ => None,
    });
    Ok(ClientCert::new_with_certs(&chain, key.ok_or_else(|| bad_pem(&key_path))?))
}
