//! Volumes of a container: `volumes/<name>/_data` below the persistent root.

use super::record::{MountRecord, Record};
use crate::{Engine, EngineError, files};
use dhow_runtime::Rootfs;
use dhow_store::{ExtractOptions, ImageRecord};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

impl Engine {
    /// Where a volume's content is.
    fn volume_data(&self, name: &str) -> PathBuf {
        self.paths.volumes().join(name).join("_data")
    }

    /// Makes the volumes that do not exist yet, and fills empty ones from the image (run-semantics, "Copy-up").
    pub(super) fn create_volumes(&self, record: &mut Record, image: &ImageRecord) -> Result<(), EngineError> {
        let mut mounts = std::mem::take(&mut record.host.mounts);
        let result =
            mounts.iter_mut().filter(|m| m.kind == "volume").try_for_each(|mount| self.create_volume(mount, image));
        record.host.mounts = mounts;
        result
    }

    fn create_volume(&self, mount: &mut MountRecord, image: &ImageRecord) -> Result<(), EngineError> {
        if mount.name.is_empty() {
            mount.name = super::create::random_id()?.to_string();
        }
        // A volume's name has the grammar of a container's name, so it is safe as a path.
        mount.name.parse::<dhow_types::ContainerName>().map_err(|_| {
            EngineError::Invalid(format!(
                "\"{}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
                mount.name
            ))
        })?;
        let data = self.volume_data(&mount.name);
        files::make_dir(&data)?;
        mount.source = data.display().to_string();
        let empty = fs::read_dir(&data).map_err(EngineError::state("list", &data))?.next().is_none();
        if empty && mount.options != "nocopy" {
            self.copy_up(&data, &mount.target, image)?;
        }
        Ok(())
    }

    /// Copies what the image has at `target` into an empty volume, with the mode and owner of the directory itself.
    fn copy_up(&self, data: &Path, target: &str, image: &ImageRecord) -> Result<(), EngineError> {
        let lower = self.store().lower_dirs(&image.config.rootfs.diff_ids)?;
        let scratch = self.store().new_upper()?;
        let (upper, work) = (scratch.upper(), scratch.work());
        let rootfs = Rootfs::Overlay { lower: &lower, upper: &upper, work: &work, volatile: true };
        let relative = target.trim_start_matches('/').to_owned();
        dhow_runtime::with_rootfs(&rootfs, |root| {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            // Nothing there, or no directory: the volume stays empty.
            let Ok(source) = openat2(root, &relative, flags, Mode::empty(), resolve) else { return Ok(Vec::new()) };
            let text = |e: &dyn std::error::Error| dhow_types::report(e);
            let mut tar = tempfile_in(data).map_err(|e| text(&e))?;
            dhow_store::write_tree_tar(source.as_fd(), &mut tar).map_err(|e| text(&e))?;
            tar.seek(SeekFrom::Start(0)).map_err(|e| text(&e))?;
            let destination = File::open(data).map_err(|e| text(&e))?;
            let options = ExtractOptions { plain: true, ..ExtractOptions::default() };
            dhow_store::extract_archive(destination.as_fd(), Path::new(""), &mut tar, &options)
                .map_err(|e| text(&e))?;
            let meta = File::from(source).metadata().map_err(|e| text(&e))?;
            rustix::fs::fchown(
                &destination,
                Some(rustix::fs::Uid::from_raw(meta.uid())),
                Some(rustix::fs::Gid::from_raw(meta.gid())),
            )
            .and_then(|()| rustix::fs::fchmod(&destination, Mode::from_raw_mode(meta.mode() & 0o7777)))
            .map_err(|e| e.to_string())?;
            Ok(Vec::new())
        })?;
        Ok(())
    }

    /// Removes the anonymous volumes of a container.
    pub(super) fn remove_anonymous_volumes(&self, record: &Record) {
        for mount in record.host.mounts.iter().filter(|m| m.anonymous && !m.name.is_empty()) {
            let _ = files::remove_tree(&self.paths.volumes().join(&mount.name));
        }
    }
}

/// An unnamed file on the same file system as `dir` (open(2), O_TMPFILE).
fn tempfile_in(dir: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}
