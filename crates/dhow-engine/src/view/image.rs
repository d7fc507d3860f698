//! Images.

use super::{non_empty, set, time_text};
use crate::Engine;
use dhow_docker::inspect as view;
use dhow_docker::rows::{HistoryItem, ImageItem};
use dhow_oci::image::{ExecConfig, HealthConfig};
use dhow_store::ImageRecord;
use dhow_types::{Reference, Timestamp};

/// One item per tag; one for an image that has none.
pub fn image_items(image: &ImageRecord, containers: Option<usize>) -> Vec<ImageItem> {
    let digest = image.repo_digests.first().and_then(Reference::digest).map(ToString::to_string);
    let base = ImageItem {
        id: image.id.to_string(),
        reference: None,
        references: image.references.iter().chain(&image.repo_digests).cloned().collect(),
        repository: None,
        digest: None,
        created: image.created.unwrap_or(Timestamp::UNIX_EPOCH),
        size: image.size,
        labels: image.config.config.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        containers,
    };
    if image.references.is_empty() {
        // Pulled by digest: the repository is known although there is no tag.
        let repository = image.repo_digests.first().map(Reference::familiar_repository);
        return vec![ImageItem { repository, digest, ..base }];
    }
    let item = |reference: &Reference| {
        let own = image.repo_digests.iter().find(|d| d.repository() == reference.repository());
        ImageItem {
            reference: Some(reference.clone()),
            digest: own.and_then(Reference::digest).map(ToString::to_string),
            ..base.clone()
        }
    };
    image.references.iter().map(item).collect()
}

/// The steps that made an image, newest first.
pub fn history_items(engine: &Engine, image: &ImageRecord) -> Vec<HistoryItem> {
    let mut layers = image.config.rootfs.diff_ids.iter();
    let mut items: Vec<HistoryItem> = image
        .config
        .history
        .iter()
        .map(|step| {
            let layer = if step.empty_layer { None } else { layers.next() };
            HistoryItem {
                id: "<missing>".to_owned(),
                created: step.created.as_deref().and_then(|t| t.parse().ok()),
                created_by: step.created_by.clone().unwrap_or_default(),
                size: layer.and_then(|d| engine.store().layer_size(d).ok()).unwrap_or(0),
                comment: step.comment.clone().unwrap_or_default(),
            }
        })
        .collect();
    // An image without history still has itself.
    if items.is_empty() {
        items.push(HistoryItem { created: image.created, size: image.size, ..HistoryItem::default() });
    }
    items.reverse();
    if let Some(newest) = items.first_mut() {
        newest.id = image.id.to_string();
    }
    items
}

/// The `inspect` document of an image.
pub fn inspect_image(engine: &Engine, image: &ImageRecord) -> view::Image {
    let c = &image.config;
    let layers = &c.rootfs.diff_ids;
    let dirs: Vec<String> = layers.iter().rev().map(|d| engine.store().layer_dir(d).display().to_string()).collect();
    let data = [
        ("LowerDir", dirs.get(1..).unwrap_or_default().join(":")),
        ("UpperDir", dirs.first().cloned().unwrap_or_default()),
    ];
    let last = c.history.last();
    view::Image {
        id: image.id.to_string(),
        repo_tags: image.references.iter().map(Reference::familiar).collect(),
        repo_digests: image.repo_digests.iter().map(Reference::familiar).collect(),
        parent: String::new(),
        comment: last.and_then(|h| h.comment.clone()).unwrap_or_default(),
        created: time_text(c.created.as_deref().unwrap_or_default()),
        docker_version: c.extra.get("docker_version").and_then(|v| v.as_str()).unwrap_or_default().to_owned(),
        author: c.author.clone().unwrap_or_default(),
        config: Some(config(&c.config)),
        architecture: c.architecture.clone(),
        variant: c.variant.clone(),
        os: c.os.clone(),
        size: image.size,
        graph_driver: view::GraphDriver {
            data: Some(data.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v)).collect()),
            name: "overlay2".to_owned(),
        },
        root_fs: view::RootFs { kind: "layers".to_owned(), layers: layers.iter().map(ToString::to_string).collect() },
        metadata: view::Metadata { last_tag_time: dhow_docker::time::ZERO.to_owned() },
        descriptor: image.manifest.as_ref().map(|d| view::Descriptor {
            media_type: d.media_type.clone(),
            digest: d.digest.to_string(),
            size: d.size,
        }),
    }
}

fn config(c: &ExecConfig) -> view::ImageConfig {
    view::ImageConfig {
        user: c.user.clone(),
        exposed_ports: set(c.exposed_ports.keys().cloned()),
        env: non_empty(c.env.clone()),
        cmd: c.cmd.clone(),
        healthcheck: c.healthcheck.as_ref().map(health),
        args_escaped: c.args_escaped,
        volumes: set(c.volumes.keys().cloned()),
        working_dir: c.working_dir.clone(),
        entrypoint: c.entrypoint.clone(),
        on_build: non_empty(c.on_build.clone()),
        labels: Some(c.labels.clone()).filter(|l| !l.is_empty()),
        stop_signal: Some(c.stop_signal.clone()).filter(|s| !s.is_empty()),
        shell: c.shell.clone(),
        ..view::ImageConfig::default()
    }
}

pub(super) fn health(h: &HealthConfig) -> view::Healthcheck {
    view::Healthcheck {
        test: h.test.clone(),
        interval: h.interval,
        timeout: h.timeout,
        start_period: h.start_period,
        start_interval: h.start_interval,
        retries: h.retries,
    }
}
