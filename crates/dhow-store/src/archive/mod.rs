//! Images as files: `save`, `load`, `import`; and archives into trees.

pub(crate) mod extract;
pub(crate) mod import;
pub(crate) mod load;
pub(crate) mod oci;
pub(crate) mod save;
pub(crate) mod write;

/// The directory of blobs in an OCI image layout.
pub(crate) const BLOBS: &str = "blobs/sha256/";
/// Docker's list of images.
pub(crate) const MANIFEST: &str = "manifest.json";
/// OCI's list of images.
pub(crate) const INDEX: &str = "index.json";
/// The mark of an OCI image layout.
pub(crate) const LAYOUT: &str = "oci-layout";
/// Annotation: the whole reference (containerd).
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation: the tag, by some tools the whole reference (OCI image-spec, annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One image in `manifest.json` (Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format").
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ManifestItem {
    pub(crate) config: String,
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Vec<String>,
}
