//! Helpers of the unit tests.

use crate::Store;
use crate::tar::write::TarWriter;
use crate::tar::{Entry, Kind};
use dhow_oci::image::{Compression, ImageConfig};
use dhow_types::{Digest, Platform};
use std::path::{Path, PathBuf};

/// A store in a directory of its own.
pub(crate) struct Temp {
    pub(crate) store: Store,
    dir: tempfile::TempDir,
}

impl Temp {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::open(&dir.path().join("root")).unwrap(), dir }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A directory beside the store, for things that attacks must not reach.
    pub(crate) fn outside(&self) -> &Path {
        self.dir.path()
    }

    /// Another process's view.
    pub(crate) fn reopen(&self) -> Store {
        Store::open(&self.root()).unwrap()
    }

    /// Unpacks and publishes a layer.
    pub(crate) fn layer(&self, tar: &[u8]) -> Digest {
        let diff = Digest::of(tar);
        self.store.publish(vec![self.store.unpack(tar, Compression::None, &diff).unwrap()]).unwrap();
        diff
    }

    /// Makes an image of published layers.
    pub(crate) fn image(&self, diff_ids: &[Digest], mark: &str) -> Digest {
        self.store.put_image(&config(diff_ids, mark), None).unwrap()
    }
}

pub(crate) fn config(diff_ids: &[Digest], mark: &str) -> Vec<u8> {
    let mut config = ImageConfig::scratch(&Platform::host());
    config.rootfs.diff_ids = diff_ids.to_vec();
    config.author = Some(mark.to_owned());
    serde_json::to_vec(&config).unwrap()
}

/// A tar under construction. Owners are those of the test process, so that most tests need no rights.
pub(crate) struct Tar(TarWriter<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(TarWriter::new(Vec::new()))
    }

    pub(crate) fn entry(kind: Kind, path: &str, mode: u32) -> Entry {
        let mut entry = Entry::new(kind, path.as_bytes());
        entry.mode = mode;
        entry.uid = rustix::process::geteuid().as_raw();
        entry.gid = rustix::process::getegid().as_raw();
        entry.mtime = (1_500_000_000, 0);
        entry
    }

    pub(crate) fn put(mut self, entry: &Entry) -> Self {
        self.0.entry(entry).unwrap();
        self
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.put(&Self::entry(Kind::Directory, path, mode))
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Self {
        self.file_with(path, data, 0o644, |_| {})
    }

    pub(crate) fn file_with(mut self, path: &str, data: &[u8], mode: u32, change: impl FnOnce(&mut Entry)) -> Self {
        let mut entry = Self::entry(Kind::File, path, mode);
        entry.size = data.len() as u64;
        change(&mut entry);
        self.0.file(&entry, data).unwrap();
        self
    }

    pub(crate) fn link(self, kind: Kind, path: &str, target: &str) -> Self {
        let mut entry = Self::entry(kind, path, 0o777);
        entry.link = target.as_bytes().to_vec();
        self.put(&entry)
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.link(Kind::Symlink, path, target)
    }

    pub(crate) fn hardlink(self, path: &str, target: &str) -> Self {
        self.link(Kind::HardLink, path, target)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.finish().unwrap().0
    }
}
