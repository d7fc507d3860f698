//! Images: the store and the registry meet here.

pub(crate) mod login;
pub(crate) mod pull;
pub(crate) mod push;

use crate::{Container, Engine, EngineError};
use dhow_oci::image::ImageConfig;
use dhow_registry::{Credential, LoginOutcome};
use dhow_store::{ImageRecord, ImageUse, LoadEvent, Loaded, Removal};
use dhow_types::{Digest, Platform, Reference};
use std::io::{Read, Write};

/// Something happened during a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgressEvent {
    /// A line.
    Message(String),
    /// A layer has come so far.
    Layer {
        /// Twelve digits that stand for it.
        id: String,
        /// Docker's words: `Downloading`, `Pull complete`, …
        status: &'static str,
        /// Bytes done.
        current: u64,
        /// Bytes in all; 0 when that is not known or does not matter.
        total: u64,
    },
}

/// Who wants to know of progress. Called from several threads.
pub trait Progress: Sync {
    /// Takes one event.
    fn event(&self, event: &ProgressEvent);
}

/// A finished pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Image id.
    pub image: Digest,
    /// Digest of the manifest or index that the reference names.
    pub digest: Digest,
    /// Docker's last line: `Status: …`.
    pub status: String,
}

/// A finished push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest in the registry.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Engine {
    /// Pulls an image. It is on the disk for good when this returns.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Pulled, EngineError> {
        if reference.repository() == "docker.io/library/scratch" {
            return Err(EngineError::Forbidden("'scratch' is a reserved name".to_owned()));
        }
        pull::pull(self.store(), self.registry(), reference, platform, progress)
    }

    /// Pushes an image.
    pub fn push(&self, reference: &Reference, progress: &dyn Progress) -> Result<Pushed, EngineError> {
        push::push(self.store(), self.registry(), reference, progress)
    }

    /// Checks credentials with a registry.
    pub fn login(&self, server: &str, credential: &Credential) -> Result<LoginOutcome, EngineError> {
        login::login(self.registry(), server, credential)
    }

    /// All images, newest first.
    pub fn images(&self) -> Result<Vec<ImageRecord>, EngineError> {
        let mut images = self.store().images()?;
        images.sort_by(|a, b| b.config.created.cmp(&a.config.created));
        Ok(images)
    }

    /// One image by reference, id or id prefix.
    pub fn image(&self, text: &str) -> Result<ImageRecord, EngineError> {
        self.local_image(text)
    }

    /// Gives an image another name.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<(), EngineError> {
        if target.digest().is_some() {
            return Err(EngineError::Invalid("refusing to create a tag with a digest reference".to_owned()));
        }
        let image = self.local_image(source)?;
        Ok(self.store().set_ref(&target.clone().with_default_tag(), &image.id)?)
    }

    /// Removes a name of an image, and the image with its last name.
    pub fn remove_image(&self, text: &str, force: bool) -> Result<Vec<Removal>, EngineError> {
        Ok(self.store().remove(text, force, &|image| self.image_uses(image))?)
    }

    /// Containers that keep an image. Looked up anew each time: the store asks while it keeps new containers out.
    pub(crate) fn image_uses(&self, image: &Digest) -> Vec<ImageUse> {
        uses(&self.containers().map(|(list, _)| list).unwrap_or_default(), image)
    }

    /// Writes images as a tar.
    pub fn save(&self, names: &[String], out: &mut dyn Write) -> Result<(), EngineError> {
        for name in names {
            self.local_image(name)?;
        }
        Ok(self.store().save(names, out)?)
    }

    /// Reads images from a tar.
    pub fn load(&self, input: &mut dyn Read, on: &mut dyn FnMut(LoadEvent)) -> Result<Vec<Loaded>, EngineError> {
        Ok(self.store().load(input, on)?)
    }

    /// Makes an image of a root file system's tar. `changes` are Dockerfile instructions.
    pub fn import(
        &self,
        input: &mut dyn Read,
        reference: Option<&Reference>,
        changes: &[String],
        message: &str,
        platform: Option<&Platform>,
    ) -> Result<Digest, EngineError> {
        let mut edit = |config: &mut ImageConfig| -> Result<(), String> {
            if let Some(platform) = platform {
                config.os.clone_from(&platform.os);
                config.architecture.clone_from(&platform.architecture);
                config.variant.clone_from(&platform.variant);
            }
            changes
                .iter()
                .try_for_each(|c| dhow_build::apply_change(&mut config.config, c).map_err(|e| dhow_types::report(&e)))
        };
        let id = self.store().import(input, &mut edit, message)?;
        if let Some(reference) = reference {
            self.store().set_ref(&reference.clone().with_default_tag(), &id)?;
        }
        Ok(id)
    }
}

/// Containers that keep an image.
fn uses(containers: &[Container], image: &Digest) -> Vec<ImageUse> {
    containers
        .iter()
        .filter(|c| c.record.image.id == *image)
        .map(|c| ImageUse { container: c.id.short().to_owned(), name: c.record.name.clone(), running: c.is_alive() })
        .collect()
}
