//! `--output` in words (docs.docker.com/build/exporters).

use super::attributes::Attributes;
use super::{Annotation, LayerOptions};
use crate::EngineError;
use dhow_docker::grammar::split_csv;
use dhow_types::Reference;
use std::path::PathBuf;

/// Where files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// Standard output, which the front end hands over.
    Stdout,
    /// A path, relative to the current directory.
    Path(PathBuf),
}

/// What becomes of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An image of the local store; `Docker` without a destination is the same.
    Image {
        /// It goes to its registry as well.
        push: bool,
        /// Pushed without its tag.
        by_digest: bool,
        /// It stays here.
        store: bool,
    },
    /// An archive for `docker load`.
    Docker,
    /// An OCI image layout.
    Oci,
    /// The root file system as a tar.
    Tar,
    /// The root file system as files.
    Local,
    /// Nothing but the cache.
    CacheOnly,
}

/// One value of `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSpec {
    pub(super) kind: Kind,
    pub(super) dest: Option<Destination>,
    /// An archive instead of a directory.
    pub(super) tar: bool,
    /// Names that replace those of `--tag`.
    pub(super) names: Vec<Reference>,
    pub(super) layers: LayerOptions,
    /// Media types of OCI, not of Docker.
    pub(super) oci: bool,
    /// One directory per platform; when absent, if there are several.
    pub(super) split: Option<bool>,
    pub(super) annotations: Vec<Annotation>,
}

impl ExportSpec {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            dest: None,
            tar: true,
            names: Vec::new(),
            layers: LayerOptions::default(),
            oci: true,
            split: None,
            annotations: Vec::new(),
        }
    }

    /// `--load`: the image is in the local store. What a build does by default.
    pub fn load() -> Self {
        Self::new(Kind::Image { push: false, by_digest: false, store: true })
    }

    /// `--push`: the image goes to the registries that its tags name, and is in the local store as well.
    pub fn registry() -> Self {
        Self::new(Kind::Image { push: true, by_digest: false, store: true })
    }

    /// Reads one value of `--output`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let fields = split_csv("output", text).map_err(|e| EngineError::Invalid(e.to_string()))?;
        if text.is_empty() {
            return Err(EngineError::Invalid("empty --output: expected type=… or a directory".to_owned()));
        }
        if let [only] = fields.as_slice()
            && only == text
            && !text.starts_with("type=")
        {
            let (kind, dest) = match text {
                "-" => (Kind::Tar, Destination::Stdout),
                path => (Kind::Local, Destination::Path(path.into())),
            };
            return Ok(Self { dest: Some(dest), ..Self::new(kind) });
        }
        let mut attributes = Attributes::parse("--output", &fields)?;
        let word = attributes.take("type");
        let word = word.ok_or_else(|| EngineError::Invalid("type is required for --output".to_owned()))?;
        let mut spec = match word.as_str() {
            "image" | "registry" => Self::image(&word, &mut attributes)?,
            "docker" | "oci" => Self::archive(&word, &mut attributes)?,
            "tar" | "local" => {
                let kind = if word == "tar" { Kind::Tar } else { Kind::Local };
                let split = attributes.take_bool("platform-split")?;
                Self { split, ..Self::new(kind) }
            }
            "cacheonly" => Self::new(Kind::CacheOnly),
            other => {
                let known = "expected image, registry, docker, oci, tar, local or cacheonly";
                return Err(attributes.bad("type", other, known));
            }
        };
        if !matches!(spec.kind, Kind::Image { .. } | Kind::CacheOnly) || word == "docker" {
            spec.dest = attributes.take("dest").map(|dest| match dest.as_str() {
                "-" => Destination::Stdout,
                path => Destination::Path(path.into()),
            });
        }
        spec.complete(&word)?;
        attributes.finish()?;
        Ok(spec)
    }

    fn image(word: &str, attributes: &mut Attributes) -> Result<Self, EngineError> {
        let push = attributes.take_bool("push")?.unwrap_or(word == "registry");
        let by_digest = attributes.take_bool("push-by-digest")?.unwrap_or(false);
        // An image is named only by its digest when it was pushed without a tag.
        let store = attributes.take_bool("store")?.unwrap_or(true);
        if attributes.take_bool("unpack")? == Some(false) {
            return Err(attributes.unsupported("unpack=false"));
        }
        for key in ["name-canonical", "dangling-name-prefix", "oci-artifact", "prefer-nondist-layers"] {
            if attributes.take(key).is_some() {
                return Err(attributes.unsupported(key));
            }
        }
        if attributes.take_bool("registry.insecure")? == Some(true) {
            return Err(EngineError::Unsupported {
                feature: "registry.insecure=true in --output (list the registry under insecure-registries instead)"
                    .to_owned(),
            });
        }
        let spec = Self::new(Kind::Image { push, by_digest, store });
        spec.image_attributes(attributes, true)
    }

    fn archive(word: &str, attributes: &mut Attributes) -> Result<Self, EngineError> {
        let kind = if word == "docker" { Kind::Docker } else { Kind::Oci };
        if attributes.take("context").is_some() {
            return Err(attributes.unsupported("context"));
        }
        let tar = attributes.take_bool("tar")?.unwrap_or(true);
        Self { tar, ..Self::new(kind) }.image_attributes(attributes, kind == Kind::Oci)
    }

    /// What all kinds of images have in common.
    fn image_attributes(mut self, attributes: &mut Attributes, oci: bool) -> Result<Self, EngineError> {
        for name in attributes.take("name").iter().flat_map(|names| names.split(',')).filter(|n| !n.is_empty()) {
            let reference: Reference = name.trim().parse().map_err(|e: dhow_types::ReferenceError| {
                EngineError::Invalid(format!("invalid name in --output: {e}"))
            })?;
            if reference.digest().is_some() {
                return Err(attributes.bad("name", name, "a name has no digest"));
            }
            self.names.push(reference.with_default_tag());
        }
        self.layers = attributes.take_layer_options()?;
        self.oci = attributes.take_bool("oci-mediatypes")?.unwrap_or(oci);
        // Layers made here never have times after SOURCE_DATE_EPOCH, and those of base images stay as they are.
        attributes.take_bool("rewrite-timestamp")?;
        for (name, value) in attributes.take_prefixed("annotation") {
            self.annotations.push(Annotation::attribute(&name, &value)?);
        }
        Ok(self)
    }

    fn complete(&mut self, word: &str) -> Result<(), EngineError> {
        if self.dest == Some(Destination::Path(PathBuf::new())) {
            return Err(EngineError::Invalid(format!("dest is empty in --output type={word}")));
        }
        match (self.kind, &self.dest) {
            (Kind::Local, None) => Err(EngineError::Invalid("dest is required for --output type=local".to_owned())),
            (Kind::Local, Some(Destination::Stdout)) => {
                Err(EngineError::Invalid("dest cannot be stdout for --output type=local".to_owned()))
            }
            (Kind::Oci | Kind::Docker, None | Some(Destination::Stdout)) if !self.tar => {
                Err(EngineError::Invalid(format!("dest is required for --output type={word},tar=false")))
            }
            // Without a file it goes where `docker load` would bring it.
            (Kind::Docker, None) => {
                self.kind = Self::load().kind;
                self.oci = true;
                Ok(())
            }
            (Kind::Oci | Kind::Tar, None) => {
                self.dest = Some(Destination::Stdout);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether the image has to look other than `dhow push` would make it by itself.
    pub(super) fn is_special(&self) -> bool {
        self.layers.is_special() || !self.oci || !self.annotations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_oci::image::Compression;

    fn path(text: &str) -> Option<Destination> {
        Some(Destination::Path(text.into()))
    }

    #[test]
    fn values() {
        let parse = |text: &str| ExportSpec::parse(text).unwrap();
        let spec = parse("out/dir");
        assert_eq!((spec.kind, spec.dest), (Kind::Local, path("out/dir")));
        // As buildx reads it: a single word without type= is a path.
        assert_eq!(parse("dest=x").dest, path("dest=x"));
        let spec = parse("-");
        assert_eq!((spec.kind, spec.dest), (Kind::Tar, Some(Destination::Stdout)));
        let spec = parse("type=local,dest=x,platform-split=false");
        assert_eq!((spec.kind, spec.split), (Kind::Local, Some(false)));
        assert_eq!(parse("type=tar").dest, Some(Destination::Stdout));
        assert_eq!(parse("TYPE=oci,DEST=a.tar").dest, path("a.tar"));
        let spec = parse("type=oci,dest=a,tar=false,compression=zstd,compression-level=19,force-compression=true");
        assert!(!spec.tar && spec.layers.force);
        assert_eq!(spec.layers.encoding.compression, Compression::Zstd);
        assert_eq!(spec.layers.encoding.level, Some(19));
        let spec = parse(r#"type=image,"name=x,localhost:5000/y:1",push=true,annotation.a.b=c"#);
        assert_eq!(spec.kind, Kind::Image { push: true, by_digest: false, store: true });
        let names: Vec<String> = spec.names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["x:latest", "localhost:5000/y:1"]);
        assert_eq!(spec.annotations[0].key, "a.b");
        assert_eq!(parse("type=registry").kind, ExportSpec::registry().kind);
        assert_eq!(parse("type=docker"), ExportSpec::load());
        let spec = parse("type=docker,dest=f");
        assert_eq!((spec.kind, spec.oci), (Kind::Docker, false));
        assert!(!parse("type=image").is_special() && parse("type=image,oci-mediatypes=false").is_special());
    }

    #[test]
    fn refusals_name_the_attribute() {
        for (text, words) in [
            ("", "empty"),
            ("type=local", "dest is required"),
            ("type=local,dest=-", "stdout"),
            ("type=local,dest=", "dest is empty"),
            ("type=oci,tar=false", "dest is required"),
            ("type=nothing,x=y", "nothing"),
            ("dest=x,foo=y", "type is required"),
            ("type=image,foo=bar", "foo"),
            ("type=tar,name=x", "name"),
            ("type=image,push=maybe", "push"),
            ("type=image,compression=lzma", "lzma"),
            ("type=image,compression=estargz", "estargz"),
            ("type=image,compression-level=10", "0 to 9"),
            ("type=image,name=UPPER", "lowercase"),
            ("type=image,name=x@sha256:0", "invalid name"),
            ("type=image,unpack=false", "unpack"),
            ("type=image,name-canonical=true", "name-canonical"),
            ("type=image,registry.insecure=true", "insecure-registries"),
            ("type=image,annotation-x.k=v", "annotation type"),
            ("type=image,dest=x", "dest"),
            ("type=image,push", "KEY=VALUE"),
            ("type=docker,\"", "quote"),
        ] {
            let error = ExportSpec::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
