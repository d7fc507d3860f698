//! The builder's [`Backend`] over store and runtime.

use super::cache::{ContentMemory, StepCache};
use super::claims::Claims;
use super::layers::{Staged, Workspace};
use super::records::Records;
use super::request::BuildRequest;
use super::run;
use super::transport::Session;
use crate::image::Progress;
use crate::{Engine, EngineError};
use dhow_build::{
    Backend, BackendError, BaseImage, CachedStep, Claim, Edited, FileStat, MountSource, Pending, RemoteRequest,
    RemoteTree, RunOutcome, RunStep, Work, drive,
};
use dhow_runtime::{Helper, Rootfs};
use dhow_store::ScratchDir;
use dhow_types::{Categorized, Digest, ErrorKind, Platform, Reference};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::slice;

/// Everything one build uses.
pub(super) struct EngineBackend<'a> {
    pub(super) engine: &'a Engine,
    pub(super) staged: Staged,
    pub(super) steps: StepCache,
    pub(super) claims: Claims,
    /// Helpers at work.
    pub(super) helpers: Cell<usize>,
    /// A failure to publish that nobody has been told of yet.
    pub(super) unpublished: RefCell<Option<EngineError>>,
    pub(super) records: Records,
    pub(super) contents: Option<ContentMemory>,
    pub(super) progress: &'a dyn Progress,
    pub(super) request: &'a BuildRequest,
    /// Caches of elsewhere.
    pub(super) transport: Session<'a>,
    /// The image is listed when it is done.
    pub(super) keeps_image: bool,
    /// Directories for the mounts of commands, by number.
    pub(super) scratches: RefCell<HashMap<usize, ScratchDir>>,
    pub(super) scratch_count: Cell<usize>,
}

/// Counts a helper for as long as it works.
struct Busy<'a>(&'a Cell<usize>);

impl<'a> Busy<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn wrap(error: impl Into<EngineError>) -> BackendError {
    BackendError::new(error.into())
}

impl EngineBackend<'_> {
    /// Publishes what this build has, if another one waits for a part of it.
    fn serve(&self) {
        if self.helpers.get() > 0 || !self.claims.is_wanted() {
            return;
        }
        let published = self.staged.publish(self.engine).and_then(|()| self.steps.flush(self.engine));
        if let Err(e) = published {
            self.unpublished.borrow_mut().get_or_insert(e);
        }
        self.claims.release_done();
    }

    /// Runs work on a workspace's merged root.
    async fn with_root(&self, workspace: &Workspace, work: &mut Work<'_>) -> Result<Vec<u8>, BackendError> {
        let (upper, work_dir) = (workspace.scratch.upper(), workspace.scratch.work());
        let lower = self.staged.lower(self.engine, workspace).map_err(wrap)?;
        let rootfs = if lower.is_empty() {
            // Nothing below: the upper directory is the root.
            Rootfs::Directory(&upper)
        } else {
            Rootfs::Overlay { lower: &lower, upper: &upper, work: &work_dir, volatile: true }
        };
        // Layers must not move while a helper mounts them.
        let _busy = Busy::new(&self.helpers);
        let mut helper = Helper::start(&rootfs, work).map_err(wrap)?;
        loop {
            drive::readable(slice::from_ref(helper.answer())).await;
            if let Some(answer) = helper.receive() {
                return answer.map_err(wrap);
            }
        }
    }

    /// The directories that a command mounts; they end with it.
    fn take_scratches(&self, step: &RunStep) -> HashMap<usize, ScratchDir> {
        let mut all = self.scratches.borrow_mut();
        let wanted = step.mounts.iter().filter_map(|m| match m.source {
            MountSource::Scratch { id, .. } => Some(id),
            _ => None,
        });
        wanted.filter_map(|id| Some((id, all.remove(&id)?))).collect()
    }

    fn pull(&self, reference: &str, platform: Option<&Platform>) -> Result<Digest, BackendError> {
        let parsed: Reference = reference
            .parse()
            .map_err(|e: dhow_types::ReferenceError| BackendError::text(ErrorKind::Invalid, e.to_string()))?;
        Ok(self.engine.pull(&parsed.with_default_tag(), platform, self.progress).map_err(wrap)?.image)
    }
}

impl Backend for EngineBackend<'_> {
    fn resolve_image(
        &self,
        reference: &str,
        platform: Option<&Platform>,
        pull: bool,
    ) -> Result<BaseImage, BackendError> {
        let local = if pull && reference.parse::<Reference>().is_ok() {
            None
        } else {
            match self.engine.local_image(reference) {
                Ok(image) => Some(image).filter(|i| platform.is_none_or(|p| p.accepts(&i.config.platform()))),
                Err(e) if e.kind() == ErrorKind::NotFound => None,
                Err(e) => return Err(wrap(e)),
            }
        };
        let image = match local {
            Some(image) => image,
            None => {
                let id = self.pull(reference, platform)?;
                self.engine.store().image(&id).map_err(wrap)?
            }
        };
        // Takes a lease on every layer: nobody can remove them while this build goes on.
        for layer in &image.config.rootfs.diff_ids {
            if !self.engine.store().has_layer(layer).map_err(wrap)? {
                return Err(BackendError::text(ErrorKind::NotFound, format!("layer {layer} of {reference} is gone")));
            }
        }
        Ok(BaseImage { id: image.id, config: image.config })
    }

    fn cache_get(&self, key: &Digest) -> Result<Option<CachedStep>, BackendError> {
        let local = self.steps.get(key);
        let found = self.transport.get(key, local);
        if let (None, Some(step)) = (local, &found) {
            // From elsewhere: this machine remembers it, too.
            self.steps.put(key, step);
        }
        Ok(found)
    }

    fn cache_put(&self, key: &Digest, step: &CachedStep) -> Result<(), BackendError> {
        self.steps.put(key, step);
        self.transport.used(key, step);
        self.claims.done(key);
        self.serve();
        self.unpublished.take().map_or(Ok(()), |e| Err(wrap(e)))
    }

    fn describe(&self, key: &Digest, text: &str, below: Option<&Digest>) {
        self.steps.describe(key, text, below);
    }

    fn claim(&self, key: Digest) -> Pending<'_, Result<Box<dyn Claim + '_>, BackendError>> {
        Box::pin(async move { Ok(self.claims.claim(key).await) })
    }

    fn tick(&self) {
        self.serve();
    }

    fn has_layer(&self, layer: &Digest) -> Result<bool, BackendError> {
        Ok(self.staged.has(self.engine, layer).map_err(wrap)? || self.transport.fetch(layer))
    }

    fn edit<'a>(
        &'a self,
        layers: &'a [Digest],
        clamp: Option<i64>,
        work: &'a mut Work<'a>,
    ) -> Pending<'a, Result<Edited, BackendError>> {
        Box::pin(async move {
            let workspace = self.staged.workspace(self.engine, layers).map_err(wrap)?;
            let reply = self.with_root(&workspace, work).await?;
            let layer = self.staged.keep(self.engine, workspace, clamp, &[]).map_err(wrap)?;
            Ok(Edited { layer, reply })
        })
    }

    fn view<'a>(&'a self, layers: &'a [Digest], work: &'a mut Work<'a>) -> Pending<'a, Result<Vec<u8>, BackendError>> {
        Box::pin(async move {
            let workspace = self.staged.workspace(self.engine, layers).map_err(wrap)?;
            self.with_root(&workspace, work).await
        })
    }

    fn run<'a>(
        &'a self,
        layers: &'a [Digest],
        step: &'a RunStep,
        clamp: Option<i64>,
        output: &'a mut dyn FnMut(bool, &[u8]),
    ) -> Pending<'a, Result<RunOutcome, BackendError>> {
        Box::pin(async move {
            let scratches = self.take_scratches(step);
            for mounted in &step.mounts {
                if let MountSource::Cache { id, .. } = &mounted.source {
                    self.transport.mount(id);
                }
            }
            let workspace = self.staged.workspace(self.engine, layers).map_err(wrap)?;
            let exit_code =
                run::run(self.engine, &self.staged, &workspace, step, &scratches, output).await.map_err(wrap)?;
            if exit_code != 0 {
                return Ok(RunOutcome { exit_code, layer: None });
            }
            let mounted = step.mounts.iter().map(|m| m.target.as_str());
            let stubs: Vec<&str> = mounted.chain(step.files.iter().map(|f| f.path.as_str())).collect();
            let layer = self.staged.keep(self.engine, workspace, clamp, &stubs).map_err(wrap)?;
            Ok(RunOutcome { exit_code, layer })
        })
    }

    fn scratch(&self) -> Result<(usize, OwnedFd), BackendError> {
        let scratch = self.engine.store().new_upper().map_err(wrap)?;
        let path = scratch.upper();
        let directory = File::open(&path).map_err(|e| wrap(EngineError::state("open", &path)(e)))?;
        let number = self.scratch_count.get();
        self.scratch_count.set(number + 1);
        self.scratches.borrow_mut().insert(number, scratch);
        Ok((number, directory.into()))
    }

    fn is_archive(&self, file: &File) -> bool {
        is_packed(file)
    }

    fn extract_archive(
        &self,
        root: BorrowedFd<'_>,
        destination: &Path,
        file: &File,
        owner: Option<(u32, u32)>,
    ) -> Result<(), BackendError> {
        super::extract(root, destination, file, owner).map_err(wrap)
    }

    fn known_content(&self, stat: &FileStat) -> Option<Digest> {
        self.contents.as_ref()?.get(stat)
    }

    fn remember_content(&self, stat: &FileStat, content: &Digest) {
        if let Some(contents) = &self.contents {
            contents.put(stat, content);
        }
    }

    fn recall(&self, name: &Digest) -> Option<Vec<u8>> {
        self.records.get(name)
    }

    fn remember(&self, name: &Digest, bytes: Vec<u8>) {
        self.records.put(name, bytes);
    }

    fn remote<'a>(&'a self, request: RemoteRequest) -> Pending<'a, Result<Box<dyn RemoteTree + 'a>, BackendError>> {
        Box::pin(async move {
            let secrets = |id: &str| self.secret(id);
            super::remote::find(self.engine, request, &secrets).await.map_err(wrap)
        })
    }

    fn load_layout(&self, layout: &str, platform: Option<&Platform>) -> Result<BaseImage, BackendError> {
        let id = super::remote::load_layout(self.engine, layout, platform).map_err(wrap)?;
        self.resolve_image(&id.to_string(), None, false)
    }

    fn secret(&self, id: &str) -> Option<Vec<u8>> {
        let secret = self.request.secrets.iter().find(|s| s.id == id)?;
        self.request.secret_reader.as_ref()?.read(secret).ok()
    }

    fn put_image(&self, config: &[u8]) -> Result<Digest, BackendError> {
        if let Some(e) = self.unpublished.take() {
            return Err(wrap(e));
        }
        self.staged.publish(self.engine).map_err(wrap)?;
        let config = self.transport.config(config).map_err(wrap)?;
        // Names are given when everything that was asked for is done.
        let put = if self.keeps_image {
            self.engine.store().put_image(&config, None)
        } else {
            self.engine.store().put_blob(&config)
        };
        put.map_err(wrap)
    }
}

/// Whether a file is a tar archive, compressed or not: it begins with a header block whose checksum fits (tar(5)). An empty
/// archive counts as a plain file.
pub(super) fn is_packed(file: &File) -> bool {
    let mut block = [0_u8; 512];
    let read = dhow_store::decompressor(file).is_ok_and(|mut plain| plain.read_exact(&mut block).is_ok());
    read && is_tar_header(&block)
}

/// Whether a block is a tar header: the sum of its bytes, the checksum field counted as blanks, is what the field says.
fn is_tar_header(block: &[u8; 512]) -> bool {
    let field = block.get(148..156).unwrap_or_default();
    let digits: String =
        field.iter().map(|b| char::from(*b)).skip_while(|c| *c == ' ').take_while(char::is_ascii_digit).collect();
    let Ok(expected) = u32::from_str_radix(&digits, 8) else { return false };
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    let own: u32 = field.iter().map(|b| u32::from(*b)).sum();
    sum - own + 8 * u32::from(b' ') == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let mut block = [0_u8; 512];
        assert!(!is_tar_header(&block));
        block[..4].copy_from_slice(b"name");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum::<u32>() + 256;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(is_tar_header(&block));
        block[0] = b'x';
        assert!(!is_tar_header(&block));
    }
}
