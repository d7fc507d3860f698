//! Client settings: `~/.docker/config.json`. Credentials in it are the registry crate's business.

use crate::error::CliError;
use dhow_types::ErrorKind;
use serde_json::Value;
use std::path::Path;

/// The settings that the command line looks at.
#[derive(Debug, Default)]
pub(crate) struct ConfigFile(Value);

impl ConfigFile {
    /// Reads the file; a missing one is empty.
    pub(crate) fn load(path: &Path) -> Result<Self, CliError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(CliError::io(format!("cannot read {}", path.display()))(e)),
        };
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| CliError::failed(ErrorKind::Invalid, format!("{} is not valid JSON: {e}", path.display())))?;
        Ok(Self(value))
    }

    /// A setting that is a text, `detachKeys` or `psFormat`.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str().filter(|t| !t.is_empty())
    }

    /// `proxies.default` as environment entries, both cases, for containers and builds.
    pub(crate) fn proxy_env(&self) -> Vec<(String, String)> {
        const KEYS: [(&str, &str); 5] = [
            ("httpProxy", "HTTP_PROXY"),
            ("httpsProxy", "HTTPS_PROXY"),
            ("noProxy", "NO_PROXY"),
            ("ftpProxy", "FTP_PROXY"),
            ("allProxy", "ALL_PROXY"),
        ];
        let Some(proxies) = self.0.get("proxies").and_then(|p| p.get("default")) else { return Vec::new() };
        KEYS.iter()
            .filter_map(|(key, name)| Some((*name, proxies.get(*key)?.as_str().filter(|v| !v.is_empty())?)))
            .flat_map(|(name, value)| {
                [(name.to_owned(), value.to_owned()), (name.to_ascii_lowercase(), value.to_owned())]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let config = ConfigFile(serde_json::json!({
            "detachKeys": "ctrl-e", "psFormat": "", "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": ""}}
        }));
        assert_eq!(config.text("detachKeys"), Some("ctrl-e"));
        assert_eq!(config.text("psFormat"), None);
        let expected = [("HTTP_PROXY", "http://p:1"), ("http_proxy", "http://p:1")];
        assert_eq!(config.proxy_env(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(ConfigFile::default().proxy_env().is_empty());
    }
}
