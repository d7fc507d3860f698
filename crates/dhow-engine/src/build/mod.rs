//! Building images: the builder's surroundings over store, runtime and network.

mod backend;
mod cache;
mod layers;
mod mounts;
mod run;
mod source;
mod stubs;

pub use dhow_build::{BuildEvent, BuildOptions, BuildOutput};

use crate::image::Progress;
use crate::{Engine, EngineError};
use backend::EngineBackend;
use cache::{ContentMemory, StepCache};
use dhow_types::Digest;
use layers::Staged;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use source::extract;

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

/// Pin of layers that only the cache knows: of other stages, and of builds that failed later.
const PIN: &str = "build";

impl Engine {
    /// Builds an image and returns its id. It is on the disk for good when this returns. The caller must have one thread and
    /// run from a sealed binary, as for every verb that starts containers.
    pub fn build(&self, spec: BuildSpec, out: &mut dyn BuildOutput) -> Result<Digest, EngineError> {
        let source = source::open(self, spec.context, spec.dockerfile)?;
        let progress = spec.progress.as_deref().map(|p| p as &dyn Progress);
        let backend = EngineBackend {
            engine: self,
            staged: Staged::default(),
            steps: StepCache::new(self),
            contents: source.identity.map(|(device, inode)| ContentMemory::new(self, device, inode)),
            progress,
            scratches: Default::default(),
        };
        let result = dhow_build::build(&source.dockerfile, source.context.as_ref(), &spec.options, &backend, out);
        let kept = self.keep_cache(&backend, result.as_ref().ok().map(|b| &b.image));
        let built = result?;
        // The image is complete; a cache that could not be written costs time only.
        let _ = kept;
        if !built.all_cached {
            // Leftovers of killed builds, which no container's end would meet.
            let _ = self.heal_in_background();
        }
        Ok(built.image)
    }

    /// Publishes what a failed build had made, and writes down what there is to remember.
    fn keep_cache(&self, backend: &EngineBackend<'_>, image: Option<&Digest>) -> Result<(), EngineError> {
        let mut unnamed = backend.staged.made();
        backend.staged.publish(self)?;
        if let Some(image) = image.filter(|_| !unnamed.is_empty()) {
            let named = self.store().image(image)?.config.rootfs.diff_ids;
            unnamed.retain(|layer| !named.contains(layer));
        }
        if !unnamed.is_empty() {
            // One pin per build that leaves something: a name that says when, and cannot meet another.
            let name = format!("{PIN}-{}", Digest::of(format!("{unnamed:?}").as_bytes()).hex());
            self.store().pin(&name, &unnamed, &[])?;
        }
        backend.steps.flush(self)?;
        backend.contents.as_ref().map_or(Ok(()), |c| c.flush(self))
    }

    /// Forgets everything that builds remember and frees what only they kept.
    pub fn prune_build_cache(&self) -> Result<(), EngineError> {
        crate::files::remove_tree(&self.paths.root().join("cache"))?;
        for name in self.store().pins()? {
            if name.starts_with(&format!("{PIN}-")) {
                self.store().unpin(&name)?;
            }
        }
        Ok(())
    }
}
