//! References: names and repository digests, each a small file of its own that says which image it means.
//!
//! `refs/<hash>.json` is the truth, named by the SHA-256 of the canonical text, so that finding a name costs one read
//! however many there are. `images/<id>/names/<hash>` are hints for the way back, written first; a hint is believed only
//! when the reference agrees.

use super::{ImageRecord, LIMIT};
use crate::Store;
use crate::disk;
use crate::error::{At, StoreError};
use dhow_types::{Digest, Reference};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `refs/<hash>.json`.
#[derive(Debug, Serialize, Deserialize)]
struct RefFile {
    version: u32,
    reference: String,
    #[serde(with = "dhow_oci::image::digest_text")]
    id: Digest,
}

fn hash(reference: &Reference) -> String {
    Digest::of(reference.to_string().as_bytes()).hex()
}

impl Store {
    fn ref_path(&self, hash: &str) -> PathBuf {
        self.layout.refs().join(format!("{hash}.json"))
    }

    fn read_ref(&self, hash: &str) -> Result<Option<(Reference, Digest)>, StoreError> {
        let path = self.ref_path(hash);
        let Some(text) = disk::read_small(&path, LIMIT)? else { return Ok(None) };
        let file: RefFile = serde_json::from_slice(&text).map_err(|e| StoreError::record(&path, e))?;
        let reference: Reference = file.reference.parse().map_err(|e| StoreError::record(&path, e))?;
        Ok(Some((reference, file.id)))
    }

    /// The image that a reference means, if there is one.
    pub(crate) fn ref_target(&self, reference: &Reference) -> Result<Option<Digest>, StoreError> {
        Ok(self.read_ref(&hash(reference))?.map(|(_, id)| id))
    }

    /// Points a tag at an image, durably, taking it away from another. A reference without a tag means `latest`.
    pub fn set_ref(&self, reference: &Reference, id: &Digest) -> Result<(), StoreError> {
        if reference.digest().is_some() {
            return Err(StoreError::NotATag(reference.familiar()));
        }
        self.point(&reference.clone().with_default_tag(), id)
    }

    /// Records that an image has this manifest digest in a repository, durably.
    pub fn add_repo_digest(&self, reference: &Reference, id: &Digest) -> Result<(), StoreError> {
        let Some(digest) = reference.digest() else {
            return Err(StoreError::Refused(format!("{} has no digest", reference.familiar())));
        };
        self.point(&reference.with_digest(*digest), id)
    }

    fn point(&self, reference: &Reference, id: &Digest) -> Result<(), StoreError> {
        self.writable()?;
        let hash = hash(reference);
        let _graph = self.shared_lock()?;
        let names = self.layout.image(id).join("names");
        if self.record(id)?.is_none() {
            return Err(StoreError::NoSuchImage(id.to_string()));
        }
        let before = self.read_ref(&hash).ok().flatten().map(|(_, id)| id);
        if before == Some(*id) {
            return Ok(());
        }
        let hint = names.join(&hash);
        std::fs::write(&hint, b"").at("write", &hint)?;
        disk::sync_dir(&names)?;
        let path = self.ref_path(&hash);
        let file = RefFile { version: 1, reference: reference.to_string(), id: *id };
        let text = serde_json::to_vec(&file).map_err(|e| StoreError::record(&path, e))?;
        disk::replace(&self.layout.tmp(), &path, &text, 0o600)?;
        if let Some(old) = before {
            // Only a hint: nobody believes it any more.
            disk::remove_file(&self.layout.image(&old).join("names").join(&hash))?;
        }
        Ok(())
    }

    /// Removes a reference. The caller holds the graph lock exclusively.
    pub(crate) fn unpoint(&self, reference: &Reference, id: &Digest) -> Result<(), StoreError> {
        let hash = hash(reference);
        disk::remove_file(&self.ref_path(&hash))?;
        disk::sync_dir(&self.layout.refs())?;
        disk::remove_file(&self.layout.image(id).join("names").join(&hash)).map(drop)
    }

    /// Every reference that means this image, sorted.
    pub(crate) fn names_of(&self, id: &Digest) -> Result<Vec<Reference>, StoreError> {
        let mut names = Vec::new();
        for hint in disk::list(&self.layout.image(id).join("names"))? {
            // A damaged reference names nothing; it must not hide the image.
            if let Ok(Some((reference, target))) = self.read_ref(&hint)
                && target == *id
            {
                names.push(reference);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Finds an image as Docker does: a reference (tag `latest` if none), `repository@digest`, `sha256:` and an id, or the
    /// beginning of an id. A name wins over an id.
    pub fn resolve(&self, text: &str) -> Result<ImageRecord, StoreError> {
        self.image(&self.find(text)?.0).map_err(|e| match e {
            StoreError::NoSuchImage(_) => StoreError::NoSuchImage(text.to_owned()),
            e => e,
        })
    }

    /// Finds the id of an image, and the reference when it was found by one.
    pub(crate) fn find(&self, text: &str) -> Result<(Digest, Option<Reference>), StoreError> {
        let none = || StoreError::NoSuchImage(text.to_owned());
        if let Ok(id) = text.parse::<Digest>() {
            return if self.record(&id)?.is_some() { Ok((id, None)) } else { Err(none()) };
        }
        if let Ok(reference) = text.parse::<Reference>() {
            let reference = match reference.digest() {
                // A tag beside a digest says nothing more.
                Some(digest) => reference.with_digest(*digest),
                None => reference.with_default_tag(),
            };
            if let Some(id) = self.ref_target(&reference)? {
                return Ok((id, Some(reference)));
            }
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(hex) {
            return Err(none());
        }
        let mut matching = self.image_ids()?.into_iter().filter(|id| id.hex().starts_with(prefix));
        match (matching.next(), matching.next()) {
            (None, _) => Err(none()),
            (Some(id), None) => Ok((id, None)),
            (Some(_), Some(_)) => Err(StoreError::AmbiguousId(text.to_owned())),
        }
    }
}
