//! The finished image's config.

use super::stage::StageState;
use super::{Builder, TICK};
use crate::backend::CachedStep;
use crate::drive;
use crate::error::BuildError;
use crate::key::KeyBuilder;
use dhow_oci::image::{ImageConfig, MAX_DOCUMENT};
use dhow_types::{Digest, Timestamp};

impl Builder<'_> {
    /// Writes the config and stores the image.
    pub(super) fn finish(&self, state: StageState) -> Result<Digest, BuildError> {
        let StageState { layers, mut config, own_history, .. } = state;
        config.config.labels.extend(self.options.labels.iter().cloned());
        config.rootfs.diff_ids.clone_from(&layers);
        config.rootfs.kind = "layers".to_owned();
        let base_entries = config.history.len();
        let times: Vec<Option<Timestamp>> = own_history.iter().map(|(_, time)| *time).collect();
        config.history.extend(own_history.into_iter().map(|(entry, _)| entry));
        let created = self.image_time(&config)?;
        for (entry, time) in config.history.iter_mut().skip(base_entries).zip(times) {
            entry.created = Some(time.unwrap_or(created).to_string());
        }
        config.created = Some(created.to_string());
        let bytes = serde_json::to_vec(&config).map_err(BuildError::Config)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let size = bytes.len();
            let text = format!("the image config would have {size} bytes, more than the {MAX_DOCUMENT} that are read");
            return Err(BuildError::Invalid(text));
        }
        Ok(self.backend.put_image(&bytes)?)
    }

    /// When the image was made: the same as last time when it is the same image, so that building it again gives the same
    /// id.
    fn image_time(&self, config: &ImageConfig) -> Result<Timestamp, BuildError> {
        if self.options.source_date_epoch.is_some() {
            return Ok(self.stamp());
        }
        let mut key = KeyBuilder::new("image");
        key.bytes(&serde_json::to_vec(config).map_err(BuildError::Config)?);
        let key = key.finish();
        // Only a build that did nothing new is the same as an earlier one.
        let is_same = self.all_cached.get() && !self.options.no_cache;
        let known = || if is_same { self.backend.cache_get(&key) } else { Ok(None) };
        if let Some(known) = known()? {
            return Ok(known.created);
        }
        // The build that did the steps may be about to say when. It waits for nothing any more.
        let claim = self.backend.claim(key);
        let _claim = drive::block_on_with_tick(claim, TICK, &mut || self.backend.tick())?;
        if let Some(known) = known()? {
            return Ok(known.created);
        }
        let created = self.stamp();
        let step = CachedStep { layer: None, created };
        self.backend.cache_put(&key, &step)?;
        Ok(created)
    }
}
