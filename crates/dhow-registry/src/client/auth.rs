//! Authentication: which header a request carries, and who may see a credential.
//!
//! The realm rule. A registry answers 401 with the URL of a token server ("realm"). A credential is sent there only if
//! one of these holds:
//! 1. the realm is on the registry's own host (any port);
//! 2. the realm is https and on a host of the registry's own domain: a sub-domain of the registry's host, or of its
//!    parent, or the parent itself (`registry.gitlab.com` and `gitlab.com`, `registry-1.docker.io` and `auth.docker.io`).
//!    A parent that looks like a public suffix (`com`, `co.uk`) does not count;
//! 3. the user listed the realm's host as trusted.
//!
//! And in every case the realm must be https, unless the registry itself is spoken to over plain http (loopback or listed
//! as insecure) and the realm is loopback, listed, or the registry's host. Everything else is an error that names the
//! realm; the credential is not sent, and no anonymous token is asked for in its place, for that would only hide it.

use super::session::{Ask, Content, Purpose, Scope, broken, explain};
use super::{Inner, lock};
use crate::challenge::Challenge;
use crate::config::{Credential, Credentials};
use crate::endpoint::{Endpoint, is_loopback_host};
use crate::error::RegistryError;
use crate::retry::Retry;
use crate::transport::RegistryOrFailure;
use crate::url::{Origin, Scheme, Url, encode};
use base64::Engine as _;
use dhow_oci::image::MAX_DOCUMENT;
use serde::Deserialize;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use ureq::http::Method;

/// A source that has one credential, for whoever asks: a login names its server already.
pub(crate) struct Only(pub(crate) Credential);

impl Credentials for Only {
    fn get(&self, _server: &str) -> Result<Option<Credential>, RegistryError> {
        Ok(Some(self.0.clone()))
    }
}

/// How a registry wants to be authenticated to, learnt from its challenge.
#[derive(Debug, Clone)]
enum Way {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

struct Token {
    value: String,
    expires: Instant,
    personal: bool,
}

/// A value for the `Authorization` header.
pub(crate) struct Header {
    pub(crate) header: String,
    /// Made from a credential of the user's (not an anonymous token).
    pub(crate) personal: bool,
}

/// What is known about all registries.
pub(crate) struct Auth {
    credentials: Arc<dyn Credentials + Send + Sync>,
    found: Mutex<HashMap<String, Option<Credential>>>,
    methods: Mutex<HashMap<Origin, Way>>,
    tokens: Mutex<HashMap<(Origin, String), Token>>,
    wants_identity_token: bool,
    identity_token: Mutex<Option<String>>,
}

impl Auth {
    pub(crate) fn new(credentials: Arc<dyn Credentials + Send + Sync>) -> Self {
        Self {
            credentials,
            found: Mutex::default(),
            methods: Mutex::default(),
            tokens: Mutex::default(),
            wants_identity_token: false,
            identity_token: Mutex::default(),
        }
    }

    pub(crate) fn wanting_identity_token(self) -> Self {
        Self { wants_identity_token: true, ..self }
    }

    pub(crate) fn take_identity_token(&self) -> Option<String> {
        lock(&self.identity_token).take()
    }

    pub(crate) fn is_basic(&self, home: &Url) -> bool {
        matches!(lock(&self.methods).get(home.origin()), Some(Way::Basic))
    }

    /// The credential for an endpoint; asked for once, since a helper may be behind it.
    fn credential(&self, ep: &Endpoint) -> Result<Option<Credential>, RegistryError> {
        if let Some(known) = lock(&self.found).get(&ep.server) {
            return Ok(known.clone());
        }
        let credential = self.credentials.get(&ep.server)?;
        lock(&self.found).insert(ep.server.clone(), credential.clone());
        Ok(credential)
    }

    /// The header for a request to `home`, as far as known: nothing before the first challenge.
    pub(crate) fn header(
        &self,
        inner: &Inner,
        ep: &Endpoint,
        home: &Url,
        scopes: &[Scope],
        retry: &mut Retry<'_>,
    ) -> Result<Option<Header>, RegistryError> {
        let Some(method) = lock(&self.methods).get(home.origin()).cloned() else { return Ok(None) };
        let credential = self.credential(ep)?;
        let (realm, service) = match (method, &credential) {
            (_, Some(Credential::RegistryToken(token))) => {
                return Ok(Some(Header { header: format!("Bearer {token}"), personal: true }));
            }
            (Way::Basic, Some(Credential::Basic { user, password })) => {
                return Ok(Some(Header { header: basic(user, password), personal: true }));
            }
            (Way::Basic, _) => return Ok(None),
            (Way::Bearer { realm, service }, _) => (realm, service),
        };
        let key = (home.origin().clone(), scope_key(scopes));
        if let Some(token) = lock(&self.tokens).get(&key)
            && token.expires > inner.options.clock.now()
        {
            return Ok(Some(Header { header: format!("Bearer {}", token.value), personal: token.personal }));
        }
        let ask = TokenAsk { ep, realm: &realm, service: service.as_deref(), scopes, credential };
        let token = self.fetch_token(inner, &ask, retry)?;
        let header = Header { header: format!("Bearer {}", token.value), personal: token.personal };
        lock(&self.tokens).insert(key, token);
        Ok(Some(header))
    }

    /// Learns from a 401. Returns whether the request is worth repeating.
    pub(crate) fn learn(
        &self,
        inner: &Inner,
        ep: &Endpoint,
        home: &Url,
        challenges: &[Challenge],
        scopes: &[Scope],
    ) -> Result<bool, RegistryError> {
        lock(&self.tokens).remove(&(home.origin().clone(), scope_key(scopes)));
        // The stronger scheme first: Basic would hand the password itself to the registry.
        for challenge in challenges.iter().filter(|c| c.scheme == "bearer") {
            let Some(realm) = challenge.param("realm") else { continue };
            let realm = home.join(realm).map_err(|_| RegistryError::Protocol {
                host: ep.host.clone(),
                detail: "its WWW-Authenticate header names an unusable realm".to_owned(),
            })?;
            let credential = self.credential(ep)?;
            check_realm(inner, ep, home, &realm, credential.is_some())?;
            let service = challenge.param("service").map(str::to_owned);
            lock(&self.methods).insert(home.origin().clone(), Way::Bearer { realm, service });
            return Ok(true);
        }
        if challenges.iter().any(|c| c.scheme == "basic") {
            lock(&self.methods).insert(home.origin().clone(), Way::Basic);
            return Ok(self.credential(ep)?.is_some());
        }
        Ok(false)
    }

    fn fetch_token(&self, inner: &Inner, ask: &TokenAsk<'_>, retry: &mut Retry<'_>) -> Result<Token, RegistryError> {
        loop {
            let realm_host = ask.realm.origin().authority();
            let failure = match self.ask_token(inner, ask) {
                Err(RegistryOrFailure::Final(error)) => return Err(error),
                Err(RegistryOrFailure::Failure(failure)) => failure,
                Ok(answer) if answer.status == 200 => match answer.bytes(MAX_DOCUMENT) {
                    Ok(bytes) => return self.accept_token(inner, ask, bytes.unwrap_or_default()),
                    Err(failure) => failure,
                },
                Ok(answer) => {
                    let retry_after = answer.header("retry-after").map(str::to_owned);
                    if retry.after_status(&realm_host, answer.status, retry_after.as_deref()) {
                        continue;
                    }
                    return Err(ask.refusal(answer));
                }
            };
            if !retry.after_failure(&realm_host, &failure, false) {
                return Err(broken(&realm_host, "GET token", failure));
            }
        }
    }

    fn ask_token(&self, inner: &Inner, ask: &TokenAsk<'_>) -> Result<crate::transport::Answer, RegistryOrFailure> {
        let scopes: Vec<String> = ask.scopes.iter().map(Scope::text).collect();
        let mut fields: Vec<(&str, &str)> = Vec::new();
        if let Some(service) = ask.service {
            fields.push(("service", service));
        }
        fields.push(("client_id", "dhow"));
        let (answer, _, _) = if let Some(Credential::IdentityToken(refresh)) = &ask.credential {
            let joined = scopes.join(" ");
            fields.extend([("grant_type", "refresh_token"), ("refresh_token", refresh), ("scope", &joined)]);
            let form: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
            let form = form.join("&");
            let mut request = Ask::get(ask.realm.clone(), "POST token", Purpose::Login, &[200]);
            request.method = Method::POST;
            request.content = Content::Bytes(form.as_bytes());
            request.headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
            inner.follow(&mut request, None)?
        } else {
            fields.extend(scopes.iter().map(|s| ("scope", s.as_str())));
            let mut header = None;
            if let Some(Credential::Basic { user, password }) = &ask.credential {
                fields.push(("account", user));
                header = Some(basic(user, password));
                if self.wants_identity_token {
                    fields.push(("offline_token", "true"));
                }
            }
            let url = ask.realm.with_query(&fields);
            inner.follow(&mut Ask::get(url, "GET token", Purpose::Login, &[200]), header.as_deref())?
        };
        Ok(answer)
    }

    fn accept_token(&self, inner: &Inner, ask: &TokenAsk<'_>, bytes: Vec<u8>) -> Result<Token, RegistryError> {
        #[derive(Deserialize)]
        struct Reply {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
            #[serde(default)]
            refresh_token: String,
            #[serde(default)]
            expires_in: u64,
        }
        let protocol =
            |detail: &str| RegistryError::Protocol { host: ask.realm.origin().authority(), detail: detail.to_owned() };
        let reply: Reply =
            serde_json::from_slice(&bytes).map_err(|_| protocol("its token answer is not the expected JSON"))?;
        let value = if reply.token.is_empty() { reply.access_token } else { reply.token };
        if value.is_empty() || !value.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(protocol("its token answer has no usable token"));
        }
        if self.wants_identity_token && !reply.refresh_token.is_empty() {
            *lock(&self.identity_token) = Some(reply.refresh_token);
        }
        // 60 s is the specification's default and minimum. Monotonic time, and renewed a little early.
        let life = Duration::from_secs(reply.expires_in.clamp(60, 24 * 3600)).mul_f64(0.9);
        Ok(Token { value, expires: inner.options.clock.now() + life, personal: ask.credential.is_some() })
    }
}

struct TokenAsk<'a> {
    ep: &'a Endpoint,
    realm: &'a Url,
    service: Option<&'a str>,
    scopes: &'a [Scope],
    credential: Option<Credential>,
}

impl TokenAsk<'_> {
    fn refusal(&self, answer: crate::transport::Answer) -> RegistryError {
        let status = answer.status;
        let (_, detail) = explain(answer);
        let host = self.realm.origin().authority();
        match status {
            // OAuth2 says 400 invalid_grant to a refresh token that is no longer valid (RFC 6749, section 5.2).
            400 if matches!(self.credential, Some(Credential::IdentityToken(_))) => self.unauthorized(detail),
            401 | 403 => self.unauthorized(detail),
            429 => RegistryError::RateLimited { host, detail },
            _ => RegistryError::Status { host, what: "GET token".to_owned(), status, detail },
        }
    }

    fn unauthorized(&self, detail: String) -> RegistryError {
        let detail = if detail == "incorrect username or password" { String::new() } else { detail };
        RegistryError::Unauthorized {
            server: self.ep.server.clone(),
            had_credentials: self.credential.is_some(),
            detail,
        }
    }
}

fn scope_key(scopes: &[Scope]) -> String {
    let mut texts: Vec<String> = scopes.iter().map(Scope::text).collect();
    texts.sort();
    texts.join(" ")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn check_realm(
    inner: &Inner,
    ep: &Endpoint,
    home: &Url,
    realm: &Url,
    has_credential: bool,
) -> Result<(), RegistryError> {
    let realm_authority = realm.origin().authority();
    let same_host =
        realm.host() == home.host() || (is_loopback_host(home.host()) && is_alias(realm.host(), home.host()));
    let listed = |host: &str| inner.config.trusted_realms.iter().any(|t| t.eq_ignore_ascii_case(host));
    let plain_ok = home.scheme() == Scheme::Http
        && (same_host || is_loopback_host(&realm_authority) || inner.transport.is_insecure(&realm_authority));
    let encrypted = realm.scheme() == Scheme::Https;
    let trusted = same_host
        || (encrypted && is_related(home.host(), realm.host()))
        || listed(realm.host())
        || listed(&realm_authority);
    if (encrypted || plain_ok) && (trusted || !has_credential) {
        return Ok(());
    }
    Err(RegistryError::ForeignRealm {
        host: ep.host.clone(),
        realm: realm.to_string(),
        realm_host: realm.host().to_owned(),
    })
}

/// The three usual names of this machine are one host.
fn is_alias(a: &str, b: &str) -> bool {
    let usual = |h: &str| matches!(h, "localhost" | "127.0.0.1" | "::1");
    usual(a) && usual(b)
}

/// Whether `realm` lies in the domain of `registry` (clause 2 of the rule).
fn is_related(registry: &str, realm: &str) -> bool {
    if registry.parse::<IpAddr>().is_ok() || realm.parse::<IpAddr>().is_ok() {
        return false;
    }
    let below = |domain: &str| realm.strip_suffix(domain).is_some_and(|head| head.ends_with('.') && head.len() > 1);
    let whole = is_private_domain(registry) && below(registry);
    let parent = registry.split_once('.').map(|(_, parent)| parent).filter(|p| is_private_domain(p));
    whole || parent.is_some_and(|parent| realm == parent || below(parent))
}

/// Not a top-level domain and not of the form `co.uk`. Without the public suffix list this is a guess, on the safe side
/// for the short ones: such a registry's owner lists the realm.
fn is_private_domain(domain: &str) -> bool {
    let labels: Vec<&str> = domain.split('.').collect();
    match labels.as_slice() {
        [] | [_] => false,
        [second, top] => !(top.len() == 2 && second.len() <= 3),
        _ => labels.iter().all(|l| !l.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn related_domains() {
        for (registry, realm) in [
            ("registry-1.docker.io", "auth.docker.io"),
            ("registry.gitlab.com", "gitlab.com"),
            ("registry.example.com", "auth.example.com"),
            ("example.com", "auth.example.com"),
            ("a.registry.example.co.uk", "b.registry.example.co.uk"),
        ] {
            assert!(is_related(registry, realm), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("registry.example.com", "evil.com"),
            ("registry.example.com", "auth.example.com.evil.com"),
            ("registry.example.com", "evilexample.com"),
            ("example.com", "evil.com"),
            ("example.co.uk", "evil.co.uk"),
            ("registry", "evil"),
            ("localhost", "evil.localhost"),
            ("10.0.0.1", "10.0.0.2"),
            ("a.10.0.0.1", "10.0.0.1"),
        ] {
            assert!(!is_related(registry, realm), "{registry} {realm}");
        }
    }
}
