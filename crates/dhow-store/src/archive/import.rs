//! `import`: a tar of a root file system becomes an image of one layer.

use crate::Store;
use crate::disk;
use crate::error::StoreError;
use crate::layer::extract::extract;
use crate::layer::stream::decompressor;
use crate::layer::upper::StageOptions;
use dhow_oci::image::{History, ImageConfig};
use dhow_types::{Digest, Platform, Timestamp};
use std::io::{BufReader, Read};
use std::os::fd::AsFd;

impl Store {
    /// Makes an image of a tar (compressed or not). `edit` may change the config, for instance by `--change`; `message` is
    /// the comment in the history. Durable when it returns.
    pub fn import(
        &self,
        input: impl Read,
        edit: &mut dyn FnMut(&mut ImageConfig) -> Result<(), String>,
        message: &str,
    ) -> Result<Digest, StoreError> {
        let scratch = self.new_upper()?;
        let policy = self.layer_policy()?;
        let root = disk::open_dir(&scratch.upper())?;
        let stream = BufReader::with_capacity(256 << 10, decompressor(input)?);
        extract(root.as_fd(), &policy, stream, "the archive")?;
        let layer = self.stage_scratch(scratch, &StageOptions::default())?;
        let now = Timestamp::now().to_string();
        let mut config = ImageConfig::scratch(&Platform::host());
        config.created = Some(now.clone());
        config.rootfs.diff_ids = vec![*layer.diff_id()];
        config.history = vec![History { created: Some(now), comment: Some(message.to_owned()), ..History::default() }];
        edit(&mut config).map_err(StoreError::Refused)?;
        self.publish(vec![layer])?;
        let text =
            serde_json::to_vec(&config).map_err(|e| StoreError::Refused(format!("cannot write the config: {e}")))?;
        self.put_image(&text, None)
    }
}
