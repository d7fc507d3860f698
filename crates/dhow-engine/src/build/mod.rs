//! Building images: the builder's surroundings over store, runtime and network.

mod backend;
mod cache;
mod claims;
mod export;
mod layers;
mod manage;
mod mounts;
mod platforms;
mod records;
mod remote;
mod reproduce;
mod request;
mod run;
mod source;
mod stubs;
mod transport;
mod verify;

pub use dhow_build::{BuildEvent, BuildOptions, BuildOutput};
pub use export::{Annotation, AnnotationTarget, ExportSpec, Exported, Exports};
pub use remote::{RemoteError, git_commit_time};
pub use request::{
    BuildRequest, CacheEntry, CacheKind, CachePrune, Entitlements, MAX_SECRET, NamedContext, RunLimits, SecretReader,
    SecretSource, SecretSpec, SshSpec,
};
pub use transport::{CacheFrom, CacheTo, Imports, RemoteStep, UsedStep};

use crate::image::{Progress, ProgressEvent};
use crate::{Engine, EngineError};
use backend::EngineBackend;
use cache::{ContentMemory, StepCache};
use claims::Claims;
use dhow_dockerfile::IgnoreList;
use dhow_types::{Digest, Platform, Reference};
use layers::Staged;
use platforms::Numbered;
use records::Records;
use source::Source;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use transport::Session;

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
    /// A git repository, or the URL of an archive or a Dockerfile, as typed.
    Remote(String),
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
    /// Where results go, where caches are, what commands may see.
    pub request: BuildRequest,
    /// Who wants to know of pulls of base images.
    pub progress: Option<Arc<dyn Progress + Send + Sync>>,
}

/// What tells builds of one Dockerfile from others of the same context.
fn identity(dockerfile: &DockerfileSource, options: &BuildOptions) -> Vec<u8> {
    let file = match dockerfile {
        DockerfileSource::Path(path) => path.as_path(),
        DockerfileSource::Default | DockerfileSource::Bytes(_) => Path::new(""),
    };
    let tag = options.tags.first().map(Reference::familiar).unwrap_or_default();
    [file.as_os_str().as_bytes(), b"\0", tag.as_bytes(), b"\0"].concat()
}

/// What a build came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildResult {
    /// Id of the image; of the one for this machine when there are several.
    pub image: Digest,
    /// Digest of the manifest or index, if one was made; otherwise the same.
    pub digest: Digest,
}

struct BuiltAll {
    images: Vec<(Platform, Digest)>,
    all_cached: bool,
}

struct Silent;

impl Progress for Silent {
    fn event(&self, _event: &ProgressEvent) {}
}

static SILENT: Silent = Silent;

impl Engine {
    /// Builds an image and does with it what was asked for. What is kept is on the disk for good when this returns. The
    /// caller must have one thread and run from a sealed binary, as for every verb that starts containers.
    pub fn build(&self, spec: BuildSpec, out: &mut dyn BuildOutput) -> Result<BuildResult, EngineError> {
        let BuildSpec { context, dockerfile, mut options, request, progress } = spec;
        let tags: Vec<Reference> = options.tags.iter().cloned().map(Reference::with_default_tag).collect();
        let exports = Exports::parse(&request.outputs, &request.annotations, request.stdout.as_ref())?;
        exports.check(&tags, request.platforms.len().max(1))?;
        options.identity = identity(&dockerfile, &options);
        let directory = if let BuildContext::Directory(path) = &context { Some(path.clone()) } else { None };
        let source = source::open(self, context, dockerfile, &request)?;
        options.identity.extend(format!("{:?}", source.identity).bytes());
        if options.source_date_epoch.is_none() {
            options.source_date_epoch =
                source.commit_time.or_else(|| reproduce::commit_time(self, directory.as_deref()?));
            options.uniform_times = options.source_date_epoch.is_some();
        }
        let progress = progress.as_deref().map_or(&SILENT as &dyn Progress, |p| p as &dyn Progress);
        let mut out = Numbered::new(out);
        let transport = Session::open(self, &request.cache_from, &request.cache_to, progress)?;
        let backend = EngineBackend {
            engine: self,
            staged: Staged::default(),
            steps: StepCache::new(self),
            claims: Claims::new(self),
            helpers: Default::default(),
            unpublished: Default::default(),
            records: Records::new(self),
            contents: source.identity.map(|(device, inode)| ContentMemory::new(self, device, inode)),
            progress,
            request: &request,
            transport,
            keeps_image: exports.keeps_image(),
            scratches: Default::default(),
            scratch_count: Default::default(),
        };
        let built = self.build_all(&source, &options, &backend, &mut out);
        let kept = self.keep_cache(&backend);
        let built = built?;
        // The image is complete; a cache that could not be written costs time only.
        let _ = kept;
        let result = self.hand_out(&exports, &built, &tags, &backend, &mut out)?;
        if !built.all_cached {
            // Leftovers of killed builds, which no container's end would meet.
            let _ = self.heal_in_background();
        }
        Ok(result)
    }

    /// The Dockerfile of a build, and the ignore rules of its context if there are any. Nothing is built.
    pub fn read_dockerfile(
        &self,
        context: BuildContext,
        dockerfile: DockerfileSource,
        request: &BuildRequest,
    ) -> Result<(Vec<u8>, Option<IgnoreList>), EngineError> {
        let source = source::open(self, context, dockerfile, request)?;
        let ignore = source.context.as_ref().map(|c| c.ignore().clone()).filter(|i| !i.is_empty());
        Ok((source.dockerfile, ignore))
    }

    /// What a Dockerfile's checks want to know of a base image that is here: its environment, and whether it names a shell.
    pub fn image_facts(&self, name: &str) -> Option<(Vec<String>, bool)> {
        let config = self.local_image(name).ok()?.config.config;
        Some((config.env, config.shell.is_some_and(|s| !s.is_empty())))
    }

    /// One build per platform.
    fn build_all(
        &self,
        source: &Source,
        options: &BuildOptions,
        backend: &EngineBackend<'_>,
        out: &mut Numbered<'_>,
    ) -> Result<BuiltAll, EngineError> {
        let mut all = BuiltAll { images: Vec::new(), all_cached: true };
        let platforms = match backend.request.platforms.as_slice() {
            [] => vec![options.platform.clone()],
            list => list.iter().cloned().map(Some).collect(),
        };
        let several = platforms.len() > 1;
        for platform in platforms {
            backend.transport.take_warnings().iter().for_each(|text| out.warn(text));
            out.next(platform.as_ref().filter(|_| several));
            let options = BuildOptions { platform: platform.clone(), ..options.clone() };
            let built = dhow_build::build(&source.dockerfile, source.context.as_ref(), &options, backend, out)?;
            all.all_cached &= built.all_cached;
            all.images.push((platform.unwrap_or_else(Platform::host), built.image));
        }
        Ok(all)
    }

    /// Outputs, caches for elsewhere, the check of the result.
    fn hand_out(
        &self,
        exports: &Exports,
        built: &BuiltAll,
        tags: &[Reference],
        backend: &EngineBackend<'_>,
        out: &mut Numbered<'_>,
    ) -> Result<BuildResult, EngineError> {
        let exported = self.export_build(exports, &built.images, tags, backend.progress)?;
        let ids: Vec<Digest> = built.images.iter().map(|(_, id)| *id).collect();
        backend.transport.export(&ids)?;
        exported.warnings.iter().chain(&backend.transport.take_warnings()).for_each(|text| out.warn(text));
        if let Some(path) = &backend.request.metadata_file {
            std::fs::write(path, exported.metadata()).map_err(EngineError::state("write", path))?;
        }
        if let Some(wanted) = &backend.request.verify {
            self.verify(&exported.image, Some(&exported.digest), wanted)?;
        }
        out.done(exported.image);
        Ok(BuildResult { image: exported.image, digest: exported.digest })
    }

    /// Publishes what a failed build had made, writes down what there is to remember, and keeps the cache in its bounds.
    fn keep_cache(&self, backend: &EngineBackend<'_>) -> Result<(), EngineError> {
        backend.staged.publish(self)?;
        backend.steps.flush(self)?;
        backend.records.flush(self)?;
        backend.contents.as_ref().map_or(Ok(()), |c| c.flush(self))?;
        // Others go on while this build exports.
        backend.claims.release_done();
        let made = backend.staged.made();
        if made.is_empty() {
            return Ok(());
        }
        backend.claims.sweep();
        let bytes = made.iter().filter_map(|layer| self.store().layer_size(layer).ok()).sum();
        manage::after_build(self, bytes)
    }
}
