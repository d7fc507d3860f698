//! The caches of one build, from its beginning to its end: what came from elsewhere, what was used, where it goes.

use super::{CacheFrom, CacheTo, Imports, UsedStep, inline};
use crate::image::Progress;
use crate::{Engine, EngineError};
use dhow_build::CachedStep;
use dhow_oci::image::{ImageConfig, MAX_DOCUMENT};
use dhow_types::Digest;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
pub(crate) struct Session<'a> {
    engine: &'a Engine,
    progress: &'a dyn Progress,
    imports: Imports,
    to: Vec<CacheTo>,
    used: RefCell<BTreeMap<Digest, CachedStep>>,
    mounts: RefCell<BTreeSet<String>>,
    /// Layers that could not be fetched are not tried again.
    failed: RefCell<BTreeSet<Digest>>,
    warnings: RefCell<Vec<String>>,
}

impl<'a> Session<'a> {
    /// Reads what the caches of elsewhere say. Values are those of `--cache-from` and `--cache-to`; a cache that cannot be
    /// read is a warning, a value that cannot be meant an error.
    pub(crate) fn open(
        engine: &'a Engine,
        cache_from: &[String],
        cache_to: &[String],
        progress: &'a dyn Progress,
    ) -> Result<Self, EngineError> {
        let to = cache_to.iter().map(|text| CacheTo::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let from = cache_from.iter().map(|text| CacheFrom::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let mut imports = Imports::open(engine, &from, progress);
        let warnings = RefCell::new(std::mem::take(&mut imports.warnings));
        Ok(Self {
            engine,
            progress,
            imports,
            to,
            used: RefCell::default(),
            mounts: RefCell::default(),
            failed: RefCell::default(),
            warnings,
        })
    }

    /// Remarks since the last call.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// A step: what this machine remembers, else what a cache knows.
    pub(crate) fn get(&self, key: &Digest, local: Option<CachedStep>) -> Option<CachedStep> {
        let found = local.or_else(|| self.imports.lookup(key).map(|remote| remote.step))?;
        self.used(key, &found);
        Some(found)
    }

    /// Notes a step of this build.
    pub(crate) fn used(&self, key: &Digest, step: &CachedStep) {
        if !self.to.is_empty() {
            self.used.borrow_mut().insert(*key, *step);
        }
    }

    /// Fetches a layer that is not here. `false` when no cache has it, or it did not come as it should.
    pub(crate) fn fetch(&self, layer: &Digest) -> bool {
        if !self.imports.knows(layer) || self.failed.borrow().contains(layer) {
            return false;
        }
        match self.imports.fetch(self.engine, &[*layer], self.progress) {
            Ok(()) => true,
            Err(error) => {
                self.failed.borrow_mut().insert(*layer);
                let text = format!("layer {} of the cache is not used: {}", layer.short(), dhow_types::report(&error));
                self.warnings.borrow_mut().push(text);
                false
            }
        }
    }

    /// Notes that a command uses a cache mount, and fills it if it is not here and a cache has it.
    pub(crate) fn mount(&self, id: &str) {
        if !self.to.is_empty() {
            self.mounts.borrow_mut().insert(id.to_owned());
        }
        let restored = super::mount_directory(self.engine, id)
            .and_then(|directory| self.imports.restore_mount(self.engine, id, &directory));
        if let Err(error) = restored {
            let text = format!("cache mount {id} is not restored: {}", dhow_types::report(&error));
            self.warnings.borrow_mut().push(text);
        }
    }

    /// The config of the image, with the cache inside when that is asked for.
    pub(crate) fn config(&self, config: &[u8]) -> Result<Vec<u8>, EngineError> {
        if !self.to.iter().any(CacheTo::is_inline) {
            return Ok(config.to_vec());
        }
        let diff_ids = ImageConfig::parse(config)?.rootfs.diff_ids;
        inline(config, &self.steps(&diff_ids))
    }

    /// Writes the caches. `images` are the ids of what was built, one per platform.
    pub(crate) fn export(&self, images: &[Digest]) -> Result<(), EngineError> {
        if self.to.iter().all(CacheTo::is_inline) {
            return Ok(());
        }
        let mut diff_ids = Vec::new();
        for image in images {
            let config = self.engine.store().read_blob(image, MAX_DOCUMENT)?;
            diff_ids.extend(ImageConfig::parse(&config)?.rootfs.diff_ids);
        }
        let steps = self.steps(&diff_ids);
        if self.to.iter().any(|to| to.mounts) {
            // Commands that came from a cache used no mount, and the next build is to find what they left all the same.
            self.imports.mounts().for_each(|id| self.mount(id));
        }
        let mounts: Vec<String> = self.mounts.borrow().iter().cloned().collect();
        for to in &self.to {
            let remarks = self.engine.export_cache(to, &steps, &mounts, self.progress)?;
            self.warnings.borrow_mut().extend(remarks);
        }
        Ok(())
    }

    /// What was used. A step belongs to the final image if its layer does; those without a layer cost nothing.
    fn steps(&self, diff_ids: &[Digest]) -> Vec<UsedStep> {
        let steps = self.used.borrow();
        let in_final = |step: &CachedStep| step.layer.is_none_or(|layer| diff_ids.contains(&layer));
        steps.iter().map(|(key, step)| UsedStep { key: *key, step: *step, in_final: in_final(step) }).collect()
    }
}
