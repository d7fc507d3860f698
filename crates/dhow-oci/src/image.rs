//! Image documents (OCI image-spec 1.1: manifest.md, image-index.md, config.md; Docker: manifest schema 2).

use dhow_types::{Digest, Platform};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Largest manifest, index or config that is read, in bytes.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// OCI and Docker media types.
pub mod media {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, uncompressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, uncompressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, zstd (written by some tools).
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Docker manifest, schema 1 (refused).
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    /// Docker manifest, schema 1, signed (refused).
    pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
}

/// How a layer blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip (RFC 1952), possibly several members.
    Gzip,
    /// Zstandard (RFC 8878), possibly several frames.
    Zstd,
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or JSON of another shape.
    #[error("invalid {what}")]
    Json {
        /// Which document.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A document that claims to be both a manifest and an index (CVE-2021-41190).
    #[error("document has both \"layers\" and \"manifests\": it would mean different things to different readers")]
    Ambiguous,
    /// A document of a kind dhow does not run.
    #[error("unsupported document: {0}")]
    Unsupported(String),
    /// Layers and diff IDs do not correspond, or the config has no rootfs.
    #[error("image config lists {diff_ids} diff IDs but the manifest has {layers} layers")]
    LayerCount {
        /// In the config.
        diff_ids: usize,
        /// In the manifest.
        layers: usize,
    },
}

/// Serialises a [`Digest`] as its text.
pub mod digest_text {
    use super::*;

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(digest: &Digest, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(digest)
    }

    /// For `#[serde(with)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// Serialises a list of [`Digest`]s as their texts.
pub mod digest_list {
    use super::*;

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(digests: &[Digest], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(digests.iter().map(ToString::to_string))
    }

    /// For `#[serde(with)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Digest>, D::Error> {
        Vec::<String>::deserialize(d)?.iter().map(|t| t.parse().map_err(D::Error::custom)).collect()
    }
}

/// A descriptor (descriptor.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of what is described.
    pub media_type: String,
    /// Digest of its bytes.
    #[serde(with = "digest_text")]
    pub digest: Digest,
    /// Its length in bytes. Negative sizes do not parse.
    pub size: u64,
    /// Foreign URLs; never fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformDoc>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            extra: Map::new(),
        }
    }

    /// How the layer is compressed, or `None` when it is no layer that dhow knows.
    pub fn layer_compression(&self) -> Option<Compression> {
        match self.media_type.as_str() {
            media::OCI_LAYER | media::DOCKER_LAYER => Some(Compression::None),
            media::OCI_LAYER_GZIP | media::DOCKER_LAYER_GZIP => Some(Compression::Gzip),
            media::OCI_LAYER_ZSTD | media::DOCKER_LAYER_ZSTD => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// A platform as documents write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlatformDoc {
    /// CPU architecture, Go's name.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// CPU variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl PlatformDoc {
    /// As our noun.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

impl From<&Platform> for PlatformDoc {
    fn from(p: &Platform) -> Self {
        Self { architecture: p.architecture.clone(), os: p.os.clone(), variant: p.variant.clone(), extra: Map::new() }
    }
}

/// An image manifest (manifest.md; Docker schema 2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An image index (image-index.md; Docker manifest list).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// One entry per platform.
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a document is read once and taken apart at once")]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

impl Document {
    /// Reads a manifest or index by its body. `media_type` is what the registry or descriptor claims; the body decides,
    /// and a contradiction between the two is refused.
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            #[serde(default)]
            schema_version: u32,
            #[serde(default)]
            media_type: Option<String>,
            layers: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let json = |what| move |source| DocumentError::Json { what, source };
        let probe: Probe = serde_json::from_slice(bytes).map_err(json("image manifest"))?;
        if probe.schema_version != 2 {
            return Err(DocumentError::Unsupported(format!(
                "manifest schema version {} (only version 2 is supported)",
                probe.schema_version
            )));
        }
        let image = probe.layers.is_some() || probe.config.is_some();
        if image && probe.manifests.is_some() {
            return Err(DocumentError::Ambiguous);
        }
        let is_index = |t: &str| matches!(t, media::OCI_INDEX | media::DOCKER_INDEX);
        let is_manifest = |t: &str| matches!(t, media::OCI_MANIFEST | media::DOCKER_MANIFEST);
        let claimed = [probe.media_type.as_deref(), media_type];
        let contradicts = |wrong: &dyn Fn(&str) -> bool| claimed.iter().flatten().any(|t| wrong(t));
        if image {
            if contradicts(&is_index) {
                return Err(DocumentError::Ambiguous);
            }
            Ok(Self::Manifest(serde_json::from_slice(bytes).map_err(json("image manifest"))?))
        } else if probe.manifests.is_some() {
            if contradicts(&is_manifest) {
                return Err(DocumentError::Ambiguous);
            }
            Ok(Self::Index(serde_json::from_slice(bytes).map_err(json("image index"))?))
        } else {
            Err(DocumentError::Unsupported("neither an image manifest nor an image index".to_owned()))
        }
    }
}

impl Index {
    /// The entry to use on `platform`: the first that it accepts, an exact variant preferred.
    pub fn choose(&self, platform: &Platform) -> Option<&Descriptor> {
        let offers = || self.manifests.iter().filter_map(|d| Some((d, d.platform.as_ref()?.platform())));
        offers()
            .find(|(_, p)| p == platform)
            .or_else(|| offers().find(|(_, p)| platform.accepts(p)))
            .map(|(d, _)| d)
            // An index of one image without a platform is that image.
            .or_else(|| match self.manifests.as_slice() {
                [only] if only.platform.is_none() => Some(only),
                _ => None,
            })
    }
}

/// The execution parameters inside an image config (config.md, "config"; Docker adds the last five).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecConfig {
    /// `user[:group]`
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub user: String,
    /// `80/tcp` and the like, each with an empty object.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `KEY=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that become volumes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub volumes: BTreeMap<String, Empty>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Stop signal as written.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub stop_signal: String,
    /// Docker: health probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Docker: triggers of a child build.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub on_build: Vec<String>,
    /// Docker: shell of the shell form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Docker: `Cmd` is one escaped string (set by builds on Linux for the shell form, without effect).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// `{}`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Docker's health probe; durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", text]`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub test: Vec<String>,
    /// Between probes.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Of one probe.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Grace after start.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between probes during the grace.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Consecutive failures before `unhealthy`.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// An image config (config.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339 time of creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// CPU architecture, Go's name.
    pub architecture: String,
    /// CPU variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Operating system.
    pub os: String,
    /// Execution parameters.
    #[serde(default)]
    pub config: ExecConfig,
    /// The layers' diff IDs.
    pub rootfs: RootFs,
    /// One entry per instruction, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Everything else (`docker_version`, `container`, `os.version`, …).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ImageConfig {
    /// An empty image (`FROM scratch`) for a platform.
    pub fn scratch(platform: &Platform) -> Self {
        Self {
            created: None,
            author: None,
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            config: ExecConfig::default(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
            history: Vec::new(),
            extra: Map::new(),
        }
    }

    /// Reads a config and checks what the runtime relies on.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what: "image config", source })
    }

    /// Checks that every layer of the manifest has its diff ID.
    pub fn check_layers(&self, manifest: &Manifest) -> Result<(), DocumentError> {
        let (diff_ids, layers) = (self.rootfs.diff_ids.len(), manifest.layers.len());
        if diff_ids == layers { Ok(()) } else { Err(DocumentError::LayerCount { diff_ids, layers }) }
    }

    /// The platform the image is for.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// The layers of an image by content (config.md, "rootfs").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layer tars, lowest first.
    #[serde(with = "digest_list")]
    pub diff_ids: Vec<Digest>,
}

/// One history entry (config.md, "history").
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339 time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// No layer belongs to this entry.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The chain ID of a stack of layers (config.md, "Layer ChainID"); `None` for no layers.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(*first, |chain, diff| Digest::of(format!("{chain} {diff}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(extra: &str) -> String {
        let d = Digest::of(b"{}");
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{d}","size":2}},"layers":[]{extra}}}"#,
            media::OCI_CONFIG
        )
    }

    #[test]
    fn a_document_is_one_thing() {
        assert!(matches!(Document::parse(manifest("").as_bytes(), None), Ok(Document::Manifest(_))));
        let both = manifest(r#","manifests":[]"#);
        assert!(matches!(Document::parse(both.as_bytes(), None), Err(DocumentError::Ambiguous)));
        let lied = Document::parse(manifest("").as_bytes(), Some(media::OCI_INDEX));
        assert!(matches!(lied, Err(DocumentError::Ambiguous)));
        assert!(Document::parse(br#"{"schemaVersion":1,"layers":[]}"#, None).is_err());
        assert!(Document::parse(b"[]", None).is_err());
    }

    #[test]
    fn duplicate_keys_and_negative_sizes_are_refused() {
        let twice = manifest(r#","layers":[]"#);
        assert!(Document::parse(twice.as_bytes(), None).is_err());
        assert!(Document::parse(manifest("").replace("\"size\":2", "\"size\":-2").as_bytes(), None).is_err());
    }

    #[test]
    fn unknown_fields_survive() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":["a"],"Tail":1},"rootfs":{"type":"layers","diff_ids":[]},"docker_version":"1"}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        let again = serde_json::to_string(&config).unwrap();
        assert!(again.contains("\"Tail\":1") && again.contains("\"docker_version\":\"1\""), "{again}");
        let null = text.replace(r#""Tail":1"#, r#""Env":null,"Volumes":null,"OnBuild":null"#);
        assert!(ImageConfig::parse(null.as_bytes()).is_ok());
    }

    #[test]
    fn config_without_rootfs_is_refused() {
        assert!(ImageConfig::parse(br#"{"architecture":"amd64","os":"linux"}"#).is_err());
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(&[a]), Some(a));
        assert_eq!(chain_id(&[a, b]), Some(Digest::of(format!("{a} {b}").as_bytes())));
    }
}
