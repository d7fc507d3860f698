//! `--cache-to` and `--cache-from` in words (docs.docker.com/build/cache/backends).

use super::super::export::{Attributes, LayerOptions};
use crate::EngineError;
use dhow_docker::grammar::split_csv;
use dhow_types::{Digest, Reference};
use std::path::PathBuf;

/// The name of a cache in a directory unless another is given.
const TAG: &str = "latest";

/// One value of `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTo {
    pub(super) place: To,
    /// Steps of stages beside those of the final image, too (`mode=max`).
    pub(super) all: bool,
    /// Contents of cache mounts, too.
    pub(super) mounts: bool,
    pub(super) layers: LayerOptions,
    /// A failure is a warning.
    pub(super) ignore_error: bool,
}

/// Where a cache goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    Directory {
        path: PathBuf,
        tag: String,
    },
    Registry(Reference),
    /// Into the image's config.
    Inline,
}

/// One value of `--cache-from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFrom {
    pub(super) place: From,
}

/// Where a cache comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    Directory {
        path: PathBuf,
        tag: String,
        digest: Option<Digest>,
    },
    /// A cache, or an image with one inside.
    Registry(Reference),
}

fn fields(flag: &'static str, text: &str) -> Result<Attributes, EngineError> {
    let fields = split_csv(flag, text).map_err(|e| EngineError::Invalid(e.to_string()))?;
    Attributes::parse(flag, &fields)
}

fn reference(flag: &str, text: &str) -> Result<Reference, EngineError> {
    let parsed: Result<Reference, _> = text.parse();
    parsed.map(Reference::with_default_tag).map_err(|e| EngineError::Invalid(format!("invalid ref in {flag}: {e}")))
}

/// Whether a value is a reference alone.
fn is_bare(text: &str) -> bool {
    !text.contains(['=', ','])
}

fn other(attributes: &Attributes, kind: &str) -> EngineError {
    match kind {
        "gha" | "s3" | "azblob" => attributes.unsupported(&format!("type={kind}")),
        _ => attributes.bad("type", kind, "expected registry, local or inline"),
    }
}

fn required(attributes: &mut Attributes, flag: &str, key: &str) -> Result<String, EngineError> {
    let value = attributes.take(key).filter(|v| !v.is_empty());
    value.ok_or_else(|| EngineError::Invalid(format!("{key} is required in {flag}")))
}

impl CacheTo {
    /// Reads one value of `--cache-to`. A reference alone is a registry's.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        const FLAG: &str = "--cache-to";
        let new =
            |place| Self { place, all: false, mounts: false, layers: LayerOptions::default(), ignore_error: false };
        if text == "inline" {
            return Ok(new(To::Inline));
        }
        if is_bare(text) {
            return Ok(new(To::Registry(reference(FLAG, text)?)));
        }
        let mut attributes = fields(FLAG, text)?;
        let kind = required(&mut attributes, FLAG, "type")?;
        let place = match kind.as_str() {
            "inline" => To::Inline,
            "registry" => To::Registry(reference(FLAG, &required(&mut attributes, FLAG, "ref")?)?),
            "local" => To::Directory {
                path: required(&mut attributes, FLAG, "dest")?.into(),
                tag: attributes.take("tag").unwrap_or_else(|| TAG.to_owned()),
            },
            kind => return Err(other(&attributes, kind)),
        };
        if matches!(&place, To::Registry(reference) if reference.digest().is_some()) {
            return Err(EngineError::Invalid("ref in --cache-to cannot have a digest".to_owned()));
        }
        let inline = place == To::Inline;
        let mut to = new(place);
        to.all = match attributes.take("mode").as_deref() {
            None | Some("min") => false,
            Some("max") if inline => {
                let text = "mode=max in --cache-to type=inline: an image holds its own steps only, use type=registry";
                return Err(EngineError::Invalid(text.to_owned()));
            }
            Some("max") => true,
            Some(mode) => return Err(attributes.bad("mode", mode, "expected min or max")),
        };
        if !inline {
            to.mounts = attributes.take_bool("mounts")?.unwrap_or(false);
            to.layers = attributes.take_layer_options()?;
            to.ignore_error = attributes.take_bool("ignore-error")?.unwrap_or(false);
            // What is written is an OCI image manifest, always.
            for key in ["image-manifest", "oci-mediatypes"] {
                if attributes.take_bool(key)? == Some(false) {
                    return Err(attributes.unsupported(&format!("{key}=false")));
                }
            }
        }
        attributes.finish()?;
        Ok(to)
    }

    /// Whether the cache goes into the image itself.
    pub fn is_inline(&self) -> bool {
        self.place == To::Inline
    }
}

impl CacheFrom {
    /// Reads one value of `--cache-from`. A reference alone is a registry's.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        const FLAG: &str = "--cache-from";
        if is_bare(text) {
            return Ok(Self { place: From::Registry(reference(FLAG, text)?) });
        }
        let mut attributes = fields(FLAG, text)?;
        let kind = required(&mut attributes, FLAG, "type")?;
        let place = match kind.as_str() {
            "registry" => From::Registry(reference(FLAG, &required(&mut attributes, FLAG, "ref")?)?),
            "local" => From::Directory {
                path: required(&mut attributes, FLAG, "src")?.into(),
                tag: attributes.take("tag").unwrap_or_else(|| TAG.to_owned()),
                digest: match attributes.take("digest") {
                    None => None,
                    Some(text) => {
                        Some(text.parse().map_err(|_| attributes.bad("digest", &text, "expected sha256:HEX"))?)
                    }
                },
            },
            kind => return Err(other(&attributes, kind)),
        };
        attributes.finish()?;
        Ok(Self { place })
    }
}

impl std::fmt::Display for CacheFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            From::Directory { path, .. } => write!(f, "{}", path.display()),
            From::Registry(reference) => f.write_str(&reference.familiar()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let to = CacheTo::parse("type=registry,ref=localhost:5000/c,mode=max,mounts=true,compression=zstd").unwrap();
        assert!(to.all && to.mounts && !to.is_inline());
        assert!(matches!(&to.place, To::Registry(r) if r.familiar() == "localhost:5000/c:latest"));
        let to =
            CacheTo::parse("type=local,dest=/x,image-manifest=true,oci-mediatypes=true,ignore-error=true").unwrap();
        assert!(to.ignore_error && !to.all);
        assert_eq!(to.place, To::Directory { path: "/x".into(), tag: "latest".to_owned() });
        assert!(CacheTo::parse("type=inline").unwrap().is_inline());
        assert!(CacheTo::parse("user/app:cache").is_ok());
        let from = CacheFrom::parse("user/app").unwrap();
        assert_eq!(from.to_string(), "user/app:latest");
        let from = CacheFrom::parse("type=local,src=d,tag=main").unwrap();
        assert_eq!(from.place, From::Directory { path: "d".into(), tag: "main".to_owned(), digest: None });
    }

    #[test]
    fn refusals() {
        for (text, words) in [
            ("type=gha", "not supported"),
            ("type=s3,bucket=x", "not supported"),
            ("type=azblob,name=x", "not supported"),
            ("type=local", "dest is required"),
            ("type=registry", "ref is required"),
            ("type=registry,ref=UP", "lowercase"),
            ("type=local,dest=x,mode=most", "min or max"),
            ("type=inline,mode=max", "type=registry"),
            ("type=local,dest=x,image-manifest=false", "image-manifest"),
            ("type=local,dest=x,what=ever", "what"),
            ("type=disk,dest=x", "disk"),
            ("dest=x", "type is required"),
        ] {
            let error = CacheTo::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        for (text, words) in [
            ("type=local,dest=x", "src is required"),
            ("type=gha", "not supported"),
            ("type=local,src=x,digest=md5:1", "sha256"),
            ("type=registry,ref=x,mode=max", "mode"),
        ] {
            let error = CacheFrom::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
