//! Registries of this machine: `/etc/dhow/registries.json` (or the file that `DHOW_REGISTRIES` names), with the keys of
//! Docker's `daemon.json`: `insecure-registries` (list) and `registry-mirrors` (a list, for Docker Hub, or an object
//! with a list per registry). Proxies come from the environment.

use crate::error::CliError;
use crate::globals::variable;
use dhow_registry::{Proxies, RegistryConfig};
use dhow_types::ErrorKind;
use serde_json::Value;
use std::path::{Path, PathBuf};

const DEFAULT: &str = "/etc/dhow/registries.json";
/// Where Docker keeps certificates of private registries: one directory per registry.
const CERTIFICATES: [&str; 2] = ["/etc/dhow/certs.d", "/etc/docker/certs.d"];

/// Reads the file; a missing default one is empty.
pub(crate) fn load() -> Result<RegistryConfig, CliError> {
    let named = variable("DHOW_REGISTRIES");
    let path = PathBuf::from(named.clone().unwrap_or_else(|| DEFAULT.to_owned()));
    let mut config = match std::fs::read(&path) {
        Ok(bytes) => parse(&path, &bytes)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => RegistryConfig::default(),
        Err(e) => return Err(CliError::io(format!("cannot read {}", path.display()))(e)),
    };
    config.ca_dirs.extend(CERTIFICATES.iter().map(PathBuf::from));
    config.proxies = proxies();
    Ok(config)
}

/// Proxies of the environment, as curl reads them: the names in lower case come first.
fn proxies() -> Proxies {
    let read = |names: &[&str]| names.iter().copied().find_map(variable);
    let except = read(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    Proxies {
        http: read(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
        https: read(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        except: except.split(',').map(str::trim).filter(|e| !e.is_empty()).map(str::to_owned).collect(),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<RegistryConfig, CliError> {
    let bad = |what: &str| CliError::failed(ErrorKind::Invalid, format!("{}: {what}", path.display()));
    let value: Value = serde_json::from_slice(bytes).map_err(|e| bad(&format!("invalid JSON: {e}")))?;
    let texts = |value: &Value, key: &str| -> Result<Vec<String>, CliError> {
        let list = value.as_array().ok_or_else(|| bad(&format!("{key:?} is not a list")))?;
        let text =
            |v: &Value| v.as_str().map(str::to_owned).ok_or_else(|| bad(&format!("{key:?} holds more than texts")));
        list.iter().map(text).collect()
    };
    let mut config = RegistryConfig::default();
    for (key, value) in value.as_object().ok_or_else(|| bad("not an object"))? {
        match key.as_str() {
            "insecure-registries" => config.insecure = texts(value, key)?,
            "trusted-realms" => config.trusted_realms = texts(value, key)?,
            "registry-mirrors" => match value.as_object() {
                Some(map) => {
                    for (registry, urls) in map {
                        config.mirrors.push((registry.clone(), texts(urls, registry)?));
                    }
                }
                None => config.mirrors.push(("docker.io".to_owned(), texts(value, key)?)),
            },
            other => return Err(bad(&format!("unknown key {other:?}"))),
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_mirrors() {
        let read = |text: &str| parse(Path::new("f"), text.as_bytes()).map(|c| (c.insecure, c.mirrors));
        let mirror = |r: &str| vec![(r.to_owned(), vec!["http://m".to_owned()])];
        assert_eq!(read(r#"{"registry-mirrors":["http://m"]}"#).unwrap().1, mirror("docker.io"));
        assert_eq!(read(r#"{"registry-mirrors":{"q.io":["http://m"]}}"#).unwrap().1, mirror("q.io"));
        assert_eq!(read(r#"{"insecure-registries":["a:1"]}"#).unwrap().0, ["a:1"]);
        for bad in ["", "[]", r#"{"x":1}"#, r#"{"insecure-registries":[1]}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
