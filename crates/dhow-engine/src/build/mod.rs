//! Building images: the builder's surroundings over store, runtime and network.

pub use dhow_build::{BuildEvent, BuildOptions, BuildOutput};

use crate::image::Progress;
use crate::{Engine, EngineError};
use dhow_types::Digest;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the files of a build come from.
#[derive(Debug)]
pub enum BuildContext {
    /// A directory.
    Directory(PathBuf),
    /// A tar archive, possibly compressed; it may be a pipe.
    Archive(std::fs::File),
    /// Nothing: the Dockerfile stands alone.
    Empty,
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context, or `dockerfile`.
    Default,
    /// This path on the host (`-f` with a directory context), or in the archive (`-f` with an archive).
    Path(PathBuf),
    /// These bytes (`-f -`, or standard input as the whole build).
    Bytes(Vec<u8>),
}

/// A build.
pub struct BuildSpec {
    /// Files.
    pub context: BuildContext,
    /// Instructions.
    pub dockerfile: DockerfileSource,
    /// Everything else. Tags without a tag get `latest`.
    pub options: BuildOptions,
    /// Who wants to know of pulls of base images.
    pub progress: Option<Arc<dyn Progress + Send + Sync>>,
}

impl Engine {
    /// Builds an image and returns its id. It is on the disk for good when this returns. The caller must have one thread and
    /// run from a sealed binary, as for every verb that starts containers.
    pub fn build(&self, spec: BuildSpec, out: &mut dyn BuildOutput) -> Result<Digest, EngineError> {
        let _ = (spec, out);
        Err(EngineError::Unsupported { feature: "build".to_owned() })
    }
}
