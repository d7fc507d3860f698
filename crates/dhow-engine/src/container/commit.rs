//! From a container to an image, and to a tar.

use super::Status;
use crate::{Engine, EngineError};
use dhow_oci::image::{ExecConfig, History, ImageConfig};
use dhow_runtime::Rootfs;
use dhow_types::{ContainerId, Digest, Reference, Timestamp};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// What the new image shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitSpec {
    /// Its name.
    pub reference: Option<Reference>,
    /// Author.
    pub author: Option<String>,
    /// Comment.
    pub message: Option<String>,
    /// Dockerfile instructions that change the config.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile.
    pub pause: bool,
}

/// Files that the engine puts into every container; never part of an image.
const ENGINE_FILES: [&str; 8] =
    ["dev", "proc", "sys", "etc/mtab", "etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv"];

impl Engine {
    /// Makes an image of a container's changes on top of its image. Mounts are not part of it.
    pub fn commit(&self, id: &ContainerId, commit: &CommitSpec) -> Result<Digest, EngineError> {
        let container = self.container(id)?;
        let base = self.store().image(&container.record.image.id)?;
        let mut config = base.config.clone();
        config.config = exec_config(&container.record, &base.config.config);
        for change in &commit.changes {
            dhow_build::apply_change(&mut config.config, change)
                .map_err(|e| EngineError::Invalid(dhow_types::report(&e)))?;
        }
        let frozen = commit.pause && container.state.status == Status::Running;
        if frozen {
            self.pause(id)?;
        }
        let staged = {
            let upper = self.paths.container(id).join("upper");
            let mut skip: Vec<&Path> = ENGINE_FILES.iter().map(Path::new).collect();
            let targets = container.record.host.mounts.iter().map(|m| m.target.trim_start_matches('/'));
            skip.extend(targets.map(Path::new));
            self.store().stage_upper_filtered(&upper, true, &skip)
        };
        if frozen {
            self.unpause(id)?;
        }
        let staged = staged?;
        let diff_id = *staged.diff_id();
        self.store().publish(vec![staged])?;
        let created = Timestamp::now().to_string();
        config.rootfs.diff_ids.push(diff_id);
        config.created = Some(created.clone());
        if let Some(author) = &commit.author {
            config.author = Some(author.clone());
        }
        config.history.push(History {
            created: Some(created),
            created_by: Some(container.record.process.argv().join(" ")),
            author: commit.author.clone(),
            comment: commit.message.clone().filter(|m| !m.is_empty()),
            ..History::default()
        });
        let image = self.put_new_image(&config)?;
        if let Some(reference) = &commit.reference {
            self.store().set_ref(reference, &image)?;
        }
        Ok(image)
    }

    pub(crate) fn put_new_image(&self, config: &ImageConfig) -> Result<Digest, EngineError> {
        let bytes = serde_json::to_vec(config).map_err(|e| EngineError::Invalid(e.to_string()))?;
        Ok(self.store().put_image(&bytes, None)?)
    }

    /// Writes a container's file system as a tar, without its mounts' content. A file, because the writer is a forked
    /// helper in a mount namespace of its own.
    pub fn export(&self, id: &ContainerId, out: &File) -> Result<(), EngineError> {
        let container = self.container(id)?;
        let dir = self.paths.container(id);
        // The upper directory takes part as the topmost read-only layer: a running container has it mounted already.
        let mut lower = vec![dir.join("upper")];
        lower.extend(self.store().lower_dirs(&container.record.image.diff_ids)?);
        let scratch = self.store().new_upper()?;
        let (upper, work) = (scratch.upper(), scratch.work());
        let rootfs = Rootfs::Overlay { lower: &lower, upper: &upper, work: &work, volatile: true };
        dhow_runtime::with_rootfs(&rootfs, |root| {
            let mut buffered = BufWriter::with_capacity(256 * 1024, out);
            dhow_store::write_tree_tar(root, &mut buffered).map_err(|e| dhow_types::report(&e))?;
            buffered.flush().map_err(|e| e.to_string())?;
            Ok(Vec::new())
        })?;
        Ok(())
    }
}

/// The image config that a container's record amounts to.
fn exec_config(record: &super::Record, base: &ExecConfig) -> ExecConfig {
    let p = &record.process;
    ExecConfig {
        user: p.user.clone(),
        exposed_ports: record.exposed.iter().map(|port| (port.clone(), Default::default())).collect(),
        env: p.env.clone(),
        entrypoint: p.entrypoint.clone(),
        cmd: p.cmd.clone(),
        volumes: record.volumes.iter().map(|v| (v.clone(), Default::default())).collect(),
        working_dir: p.workdir.clone(),
        labels: record.labels.clone(),
        stop_signal: record.stop_signal.clone().unwrap_or_default(),
        healthcheck: record.healthcheck.clone(),
        on_build: p.on_build.clone(),
        shell: p.shell.clone(),
        args_escaped: base.args_escaped,
        extra: base.extra.clone(),
    }
}
