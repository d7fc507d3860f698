//! Which servers stand for a registry, and how they may be spoken to.

use crate::config::RegistryConfig;
use crate::error::RegistryError;
use crate::url::{Scheme, Url};
use dhow_types::Reference;
use std::net::{IpAddr, Ipv6Addr};

/// The key under which Docker keeps Docker Hub's credentials.
pub const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";
const DOCKER_HUB_DOMAIN: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// One server that answers for a registry.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `host[:port]`, for messages and for the lists in the configuration.
    pub(crate) host: String,
    /// Key of its credentials.
    pub(crate) server: String,
    /// Base URL, its path ending in `/`; `None` where the scheme must be found out first (loopback, insecure).
    pub(crate) base: Base,
    /// A mirror: any failure moves on to the next endpoint.
    pub(crate) mirror: bool,
}

/// How the base URL is known.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    /// Exactly this.
    Fixed(Url),
    /// Plain HTTP first, https if the server wants it (loopback).
    HttpFirst(String),
    /// https first, plain HTTP if there is no TLS (listed as insecure).
    HttpsFirst(String),
}

/// `localhost`, 127.0.0.0/8 and ::1, with or without a port.
pub fn is_loopback_host(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None if authority.parse::<Ipv6Addr>().is_ok() => authority,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The key of a server's credentials in `config.json`: [`DOCKER_HUB_SERVER`] for every name of Docker Hub, otherwise
/// `host[:port]` without scheme and path.
pub fn credential_key(server: &str) -> String {
    let host = hostname(server);
    match host.as_str() {
        "" | DOCKER_HUB_DOMAIN | "index.docker.io" | DOCKER_HUB_HOST => DOCKER_HUB_SERVER.to_owned(),
        _ => host,
    }
}

/// `host[:port]` of a server given as host or URL.
pub(crate) fn hostname(server: &str) -> String {
    let server = server.trim();
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    rest.split('/').next().unwrap_or_default().to_ascii_lowercase()
}

impl Endpoint {
    /// The registry itself.
    pub(crate) fn origin(domain: &str, insecure: bool) -> Result<Self, RegistryError> {
        let host = if domain == DOCKER_HUB_DOMAIN { DOCKER_HUB_HOST } else { domain };
        let url = |scheme| {
            Url::from_authority(scheme, host)
                .map_err(|_| RegistryError::Config(format!("{host:?} is not a host name with an optional port")))
        };
        let base = if is_loopback_host(host) {
            url(Scheme::Http)?;
            Base::HttpFirst(host.to_owned())
        } else if insecure {
            url(Scheme::Https)?;
            Base::HttpsFirst(host.to_owned())
        } else {
            Base::Fixed(url(Scheme::Https)?)
        };
        Ok(Self { host: host.to_owned(), server: credential_key(domain), base, mirror: false })
    }

    fn mirror(text: &str, insecure: &dyn Fn(&str) -> bool) -> Result<Self, RegistryError> {
        let bad = |why: &str| RegistryError::Config(format!("mirror {:?}: {why}", hostname(text)));
        if !text.contains("://") {
            let host = text.trim_end_matches('/');
            if host.contains('/') {
                return Err(bad("a mirror with a path needs its scheme, http:// or https://"));
            }
            return Ok(Self { mirror: true, ..Self::origin(host, insecure(host))? });
        }
        let url = Url::parse(text).map_err(|_| bad("not an http or https URL"))?;
        let host = url.origin().authority();
        if url.scheme() == Scheme::Http && !is_loopback_host(&host) && !insecure(&host) {
            return Err(bad("plain http is only for loopback and for registries listed as insecure"));
        }
        let path = url.target().split('?').next().unwrap_or("/");
        let base = if path.ends_with('/') { url.with_target(path) } else { url.with_target(&format!("{path}/")) };
        Ok(Self { server: credential_key(&host), host, base: Base::Fixed(base), mirror: true })
    }
}

/// The endpoints for a reference in the order they are tried.
pub(crate) fn for_pull(config: &RegistryConfig, reference: &Reference) -> Result<Vec<Endpoint>, RegistryError> {
    let domain = reference.domain();
    let insecure = |host: &str| config.insecure.iter().any(|listed| listed.eq_ignore_ascii_case(host));
    let mut endpoints = Vec::new();
    for (registry, mirrors) in &config.mirrors {
        if credential_key(registry) == credential_key(domain) {
            for mirror in mirrors {
                endpoints.push(Endpoint::mirror(mirror, &insecure)?);
            }
        }
    }
    endpoints.push(Endpoint::origin(domain, insecure(domain))?);
    Ok(endpoints)
}

/// Mirrors are never pushed to.
pub(crate) fn for_push(config: &RegistryConfig, reference: &Reference) -> Result<Endpoint, RegistryError> {
    let domain = reference.domain();
    Endpoint::origin(domain, config.insecure.iter().any(|listed| listed.eq_ignore_ascii_case(domain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000", "::1", "LOCALHOST:1"] {
            assert!(is_loopback_host(yes), "{yes}");
        }
        for no in ["localhost.evil.com", "127.0.0.1.nip.io", "10.0.0.1", "128.0.0.1", "", "[::2]:1", "0.0.0.0"] {
            assert!(!is_loopback_host(no), "{no}");
        }
    }

    #[test]
    fn credential_keys() {
        for hub in ["docker.io", "", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"] {
            assert_eq!(credential_key(hub), DOCKER_HUB_SERVER, "{hub}");
        }
        assert_eq!(credential_key("https://Reg.Example:5000/v2/"), "reg.example:5000");
        assert_eq!(credential_key("localhost:5000"), "localhost:5000");
    }

    #[test]
    fn mirrors_come_first_and_plain_http_needs_permission() {
        let config = RegistryConfig {
            insecure: vec!["old:80".into()],
            mirrors: vec![("docker.io".into(), vec!["https://m1/cache".into(), "localhost:5001".into()])],
            ..RegistryConfig::default()
        };
        let reference: Reference = "busybox".parse().unwrap();
        let endpoints = for_pull(&config, &reference).unwrap();
        assert_eq!(
            endpoints.iter().map(|e| e.host.as_str()).collect::<Vec<_>>(),
            ["m1", "localhost:5001", DOCKER_HUB_HOST]
        );
        assert!(matches!(&endpoints[0].base, Base::Fixed(u) if u.wire() == "https://m1/cache/"));
        assert_eq!(endpoints[0].server, "m1");
        assert_eq!(endpoints[2].server, DOCKER_HUB_SERVER);
        assert_eq!(for_push(&config, &reference).unwrap().host, DOCKER_HUB_HOST);
        let plain = RegistryConfig { mirrors: vec![("docker.io".into(), vec!["http://m2".into()])], ..config };
        assert!(for_pull(&plain, &reference).is_err());
    }
}
