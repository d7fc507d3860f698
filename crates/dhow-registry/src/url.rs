//! The few URLs a registry client meets: absolute `http` and `https` URLs and references relative to one (RFC 3986).
//!
//! Strict on purpose: no user info (it would be a credential from the wire), visible ASCII only, a host that is a DNS
//! name or an address. `Display` leaves the query out, because queries carry signatures and tokens.

use std::fmt;
use std::net::Ipv6Addr;

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What must be equal for two URLs to speak to the same server (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) scheme: Scheme,
    /// Lower case; IPv6 addresses without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// `host[:port]`, the port only where it is not the scheme's default.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

/// An absolute URL.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    origin: Origin,
    /// Path and query; begins with `/`.
    target: String,
}

/// The text is no URL we accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an acceptable URL")]
pub(crate) struct BadUrl;

impl Url {
    /// Parses an absolute URL; a fragment is dropped.
    pub(crate) fn parse(text: &str) -> Result<Self, BadUrl> {
        if text.len() > 16 << 10 || !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(BadUrl);
        }
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(BadUrl),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = target.split('#').next().unwrap_or_default();
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { origin: parse_authority(scheme, authority)?, target })
    }

    /// `scheme://authority` with the path `/`.
    pub(crate) fn from_authority(scheme: Scheme, authority: &str) -> Result<Self, BadUrl> {
        Ok(Self { origin: parse_authority(scheme, authority)?, target: "/".to_owned() })
    }

    /// Resolves a reference (a `Location` or `Link` header) against this URL.
    pub(crate) fn join(&self, reference: &str) -> Result<Self, BadUrl> {
        let reference = reference.trim();
        if let Some(rest) = reference.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.origin.scheme.name()));
        }
        let colon = reference.find(':');
        let delimiter = reference.find(['/', '?', '#']);
        if colon.is_some_and(|c| delimiter.is_none_or(|d| c < d)) {
            return Self::parse(reference);
        }
        if reference.is_empty() || !reference.bytes().all(|c| c.is_ascii_graphic()) || reference.len() > 16 << 10 {
            return Err(BadUrl);
        }
        let reference = reference.split('#').next().unwrap_or_default();
        let path = self.target.split('?').next().unwrap_or("/");
        let target = if reference.starts_with('/') {
            reference.to_owned()
        } else if reference.starts_with('?') || reference.is_empty() {
            format!("{path}{reference}")
        } else {
            let dir = path.rfind('/').map_or("/", |i| path.get(..=i).unwrap_or("/"));
            format!("{dir}{reference}")
        };
        Ok(Self { origin: self.origin.clone(), target })
    }

    /// The same server with another path and query.
    pub(crate) fn with_target(&self, target: &str) -> Self {
        Self { origin: self.origin.clone(), target: target.to_owned() }
    }

    /// This URL with `key=value` pairs (percent-encoded here) added to its query.
    pub(crate) fn with_query(&self, pairs: &[(&str, &str)]) -> Self {
        let mut url = self.clone();
        for (key, value) in pairs {
            url.target.push(if url.target.contains('?') { '&' } else { '?' });
            url.target.push_str(key);
            url.target.push('=');
            url.target.push_str(&encode(value));
        }
        url
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn host(&self) -> &str {
        &self.origin.host
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.origin.scheme
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// The whole URL as it goes on the wire. May hold secrets: never print it.
    pub(crate) fn wire(&self) -> String {
        format!("{}://{}{}", self.origin.scheme.name(), self.origin.authority(), self.target)
    }
}

/// Without the query.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or("/");
        write!(f, "{}://{}{}", self.origin.scheme.name(), self.origin.authority(), path)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn parse_authority(scheme: Scheme, authority: &str) -> Result<Origin, BadUrl> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(BadUrl)?;
            let address: Ipv6Addr = address.parse().map_err(|_| BadUrl)?;
            (address.to_string(), port)
        }
        None => {
            let at = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at(at);
            let ok = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
            if host.is_empty() || host.len() > 255 || !host.bytes().all(ok) {
                return Err(BadUrl);
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => scheme.default_port(),
        Some(digits) if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) => {
            digits.parse().map_err(|_| BadUrl)?
        }
        _ => return Err(BadUrl),
    };
    Ok(Origin { scheme, host, port })
}

/// Percent-encodes everything but RFC 3986's unreserved characters, `/` and `:` (which scopes are full of).
pub(crate) fn encode(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    out
}

/// Percent-decodes; `None` when the result is not UTF-8 or an escape is broken.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: u8| char::from(b).to_digit(16);
        let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn joined(base: &str, reference: &str) -> String {
        Url::parse(base).unwrap().join(reference).unwrap().wire()
    }

    #[test]
    fn references_resolve() {
        assert_eq!(joined("https://a/v2/x?y=1", "/z?q"), "https://a/z?q");
        assert_eq!(joined("https://a/v2/x?y=1", "z"), "https://a/v2/z");
        assert_eq!(joined("https://a/v2/x?y=1", "?n=2"), "https://a/v2/x?n=2");
        assert_eq!(joined("https://a:444/v2/", "//b/c"), "https://b/c");
        assert_eq!(joined("https://a/", "http://B:80/c#f"), "http://b/c");
        assert_eq!(joined("http://[::1]:5000/", "/x:y"), "http://[::1]:5000/x:y");
    }

    #[test]
    fn odd_urls_are_refused() {
        for bad in [
            "",
            "ftp://a/",
            "file:///etc/passwd",
            "http://",
            "http://user:secret@host/",
            "http://a b/",
            "http://a/\r\nX: y",
            "http://a:99999/",
            "http://a:/",
            "http://[::1/",
            "http://ä/",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad:?} was accepted");
        }
        let base = Url::parse("https://a/").unwrap();
        assert!(base.join("javascript:1").is_err());
        assert!(base.join("").is_err());
    }

    #[test]
    fn the_query_is_not_shown() {
        let url = Url::parse("https://a/v2/?token=secret").unwrap();
        assert_eq!(url.to_string(), "https://a/v2/");
        assert_eq!(format!("{url:?}"), "https://a/v2/");
        assert_eq!(url.with_query(&[("a", "b c&d")]).wire(), "https://a/v2/?token=secret&a=b%20c%26d");
    }
}
