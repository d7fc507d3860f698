//! Attribute lists: `KEY=VALUE,…` as `--output`, `--cache-to` and `--cache-from` take them.

use super::LayerOptions;
use crate::EngineError;
use dhow_oci::image::Compression;
use dhow_store::Encoding;

/// The attributes of one value of a flag, taken out one by one; what is left in the end is not known.
pub(crate) struct Attributes {
    flag: &'static str,
    list: Vec<(String, String)>,
}

impl Attributes {
    /// Splits a value. Keys are in lower case afterwards.
    pub(crate) fn parse(flag: &'static str, fields: &[String]) -> Result<Self, EngineError> {
        let mut list = Vec::with_capacity(fields.len());
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                return Err(EngineError::Invalid(format!("invalid {flag} field {field:?}: expected KEY=VALUE")));
            };
            list.push((key.trim().to_ascii_lowercase(), value.to_owned()));
        }
        Ok(Self { flag, list })
    }

    /// Takes a value; the last one wins.
    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        let mut found = None;
        self.list.retain(|(k, v)| {
            if k == key {
                found = Some(v.clone());
            }
            k != key
        });
        found
    }

    /// Takes all keys that begin so, with the whole key.
    pub(crate) fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, left) = std::mem::take(&mut self.list).into_iter().partition(|(k, _)| k.starts_with(prefix));
        self.list = left;
        taken
    }

    /// Takes a truth value, in the spellings that Docker's tools accept.
    pub(crate) fn take_bool(&mut self, key: &str) -> Result<Option<bool>, EngineError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_str() {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(Some(false)),
            _ => Err(self.bad(key, &value, "expected true or false")),
        }
    }

    /// An error about a value.
    pub(crate) fn bad(&self, key: &str, value: &str, reason: &str) -> EngineError {
        EngineError::Invalid(format!("invalid value {value:?} for {key} in {}: {reason}", self.flag))
    }

    /// An attribute that others know and dhow does not.
    pub(crate) fn unsupported(&self, key: &str) -> EngineError {
        EngineError::Unsupported { feature: format!("{key} in {}", self.flag) }
    }

    /// Takes what says how layers are compressed.
    pub(crate) fn take_layer_options(&mut self) -> Result<LayerOptions, EngineError> {
        let word = self.take("compression");
        let compression = match word.as_deref() {
            None | Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("uncompressed") => Compression::None,
            Some("estargz") => return Err(self.unsupported("compression=estargz")),
            Some(other) => return Err(self.bad("compression", other, "expected gzip, zstd or uncompressed")),
        };
        let level = match self.take("compression-level") {
            None => None,
            Some(text) => {
                let most = if compression == Compression::Gzip { 9 } else { 22 };
                let level = text.parse().ok().filter(|l| *l <= most);
                Some(level.ok_or_else(|| self.bad("compression-level", &text, &format!("expected 0 to {most}")))?)
            }
        };
        let force = self.take_bool("force-compression")?.unwrap_or(false);
        Ok(LayerOptions { encoding: Encoding { compression, level }, force, chosen: word.is_some() })
    }

    /// Ends: an attribute that nobody took is an error.
    pub(crate) fn finish(self) -> Result<(), EngineError> {
        match self.list.first() {
            None => Ok(()),
            Some((key, _)) => Err(EngineError::Invalid(format!("unknown attribute {key:?} in {}", self.flag))),
        }
    }
}
