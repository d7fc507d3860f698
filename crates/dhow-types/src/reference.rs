//! Image references: `[domain[:port]/]path[:tag][@digest]` with Docker's defaults.
//!
//! The grammar is that of the distribution project's `reference` package; `docker.io` and `library/` are implied.

use crate::{Digest, DigestError};
use std::fmt;
use std::str::FromStr;

/// A normalised image reference: domain and path are always present.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference. The wording is Docker's where Docker has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The grammar does not match.
    #[error("invalid reference format: {0:?}")]
    Format(String),
    /// The repository name has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// 64 hexadecimal digits are an image id, not a name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The name is longer than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// The part after `@` is not a digest.
    #[error("invalid reference format")]
    Digest(#[source] DigestError),
}

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";

impl Reference {
    /// Registry host, with port if one was given; `docker.io` by default.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository path below the domain, `library/busybox` for Docker's official images.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same with tag `latest` when neither tag nor digest was given.
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The same repository with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format(clip(tag)));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// `domain/path`, without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as users write it: without `docker.io/` and `library/`.
    pub fn familiar_repository(&self) -> String {
        if self.domain == DEFAULT_DOMAIN {
            self.path.strip_prefix(OFFICIAL).filter(|p| !p.contains('/')).unwrap_or(&self.path).to_owned()
        } else {
            self.repository()
        }
    }

    /// The whole reference as users write it.
    pub fn familiar(&self) -> String {
        self.render(self.familiar_repository())
    }

    fn render(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    /// The canonical form, with domain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(self.repository()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let format = || ReferenceError::Format(clip(text));
        if text.len() == 64 && Digest::from_hex(text).is_ok() {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(ReferenceError::Digest)?)),
            None => (text, None),
        };
        // A colon belongs to the tag only after the last slash; before it, it is a port.
        let name_start = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[name_start..].find(':') {
            Some(i) => (&rest[..name_start + i], Some(&rest[name_start + i + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(format());
        }
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if is_explicit_domain(first) => (first, path.to_owned()),
            _ if name.contains('/') => (DEFAULT_DOMAIN, name.to_owned()),
            _ => (DEFAULT_DOMAIN, format!("{OFFICIAL}{name}")),
        };
        let (domain, path) = match domain {
            "index.docker.io" | DEFAULT_DOMAIN if !path.contains('/') => (DEFAULT_DOMAIN, format!("{OFFICIAL}{path}")),
            "index.docker.io" => (DEFAULT_DOMAIN, path),
            other => (other, path),
        };
        if path.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase(clip(&path)));
        }
        if !is_domain(domain) || path.is_empty() || !path.split('/').all(is_path_component) {
            return Err(format());
        }
        if domain.len() + 1 + path.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
    }
}

fn clip(text: &str) -> String {
    text.chars().take(120).collect()
}

/// The first component is a domain only if it cannot be a Docker Hub user name.
fn is_explicit_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|c| c.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let label = |l: &str| {
        let b = l.as_bytes();
        !b.is_empty()
            && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
            && b[0] != b'-'
            && b[b.len() - 1] != b'-'
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let b = component.as_bytes();
    if b.is_empty() || !alnum(b[0]) || !alnum(b[b.len() - 1]) {
        return false;
    }
    let mut i = 0;
    while i < b.len() {
        let start = i;
        while i < b.len() && !alnum(b[i]) {
            i += 1;
        }
        let separator = &component[start..i];
        let allowed = matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|c| c == b'-');
        if !allowed {
            return false;
        }
        i += 1;
    }
    component.is_ascii()
}

/// `[\w][\w.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let b = tag.as_bytes();
    let word = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    (1..=128).contains(&b.len()) && word(&b[0]) && b[1..].iter().all(|c| word(c) || b".-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, canonical: &str, familiar: &str) {
        let r: Reference = text.parse().unwrap();
        assert_eq!((r.to_string().as_str(), r.familiar().as_str()), (canonical, familiar));
    }

    #[test]
    fn normal_forms() {
        check("busybox", "docker.io/library/busybox", "busybox");
        check("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36");
        check("ayou/helloworld:v2", "docker.io/ayou/helloworld:v2", "ayou/helloworld:v2");
        check("localhost:5000/python:2.7-slim", "localhost:5000/python:2.7-slim", "localhost:5000/python:2.7-slim");
        check("localhost/a", "localhost/a", "localhost/a");
        check("index.docker.io/busybox", "docker.io/library/busybox", "busybox");
        check("docker.io/busybox", "docker.io/library/busybox", "busybox");
        check("[::1]:5000/a/b__c-d.e", "[::1]:5000/a/b__c-d.e", "[::1]:5000/a/b__c-d.e");
        let d = Digest::of(b"x");
        check(&format!("a@{d}"), &format!("docker.io/library/a@{d}"), &format!("a@{d}"));
        check(&format!("a:t@{d}"), &format!("docker.io/library/a:t@{d}"), &format!("a:t@{d}"));
    }

    #[test]
    fn bad_references() {
        let long = format!("a/{}", "b".repeat(260));
        let hex = "a".repeat(64);
        for bad in [
            "",
            ":",
            "a:",
            "a:-x",
            "A",
            "a/B",
            "a//b",
            "a/",
            "/a",
            "a_-b",
            "a...b",
            "a@sha256:xyz",
            "-h/a",
            "a b",
            "ä",
            "host:99999/a",
            "../x",
            &long,
            &hex,
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn default_tag() {
        assert_eq!("a".parse::<Reference>().unwrap().with_default_tag().familiar(), "a:latest");
        assert_eq!("a:b".parse::<Reference>().unwrap().with_default_tag().familiar(), "a:b");
    }
}
