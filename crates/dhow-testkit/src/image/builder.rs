//! Putting layers and documents together as an archive that `load` reads, with hooks to make any part a lie.

use super::entry::{Entry, Tar};
use super::{gzip, hex, sha256_hex};
use serde_json::{Value, json};
use std::io::{self, Read as _, Write};
use std::path::PathBuf;

/// Bytes of a layer as they are stored.
#[derive(Debug, Clone)]
pub enum Blob {
    /// In memory.
    Memory(Vec<u8>),
    /// In a file, with the digest (hex) and length that were counted while it was written.
    File {
        /// The file.
        path: PathBuf,
        /// SHA-256, hex.
        digest: String,
        /// Bytes.
        size: u64,
    },
}

impl Blob {
    fn digest(&self) -> String {
        match self {
            Self::Memory(bytes) => sha256_hex(bytes),
            Self::File { digest, .. } => digest.clone(),
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }
}

/// One layer: what is stored, its media type, and the digest of the uncompressed tar.
#[derive(Debug, Clone)]
struct Layer {
    blob: Blob,
    media_type: &'static str,
    diff_id: String,
}

type Hook = Box<dyn Fn(&mut Value)>;

/// An image in the making.
pub struct ImageBuilder {
    name: String,
    layers: Vec<Layer>,
    config: Value,
    damaged: Vec<(usize, Vec<u8>)>,
    config_hooks: Vec<Hook>,
    manifest_hooks: Vec<Hook>,
}

const OCI: &str = "application/vnd.oci.image";

impl ImageBuilder {
    /// An image without layers whose name is `name:tag`.
    pub fn new(name: &str) -> Self {
        let config = json!({
            "created": "2024-01-02T03:04:05Z",
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": [] },
            "history": [],
        });
        Self {
            name: name.to_owned(),
            layers: Vec::new(),
            config,
            damaged: Vec::new(),
            config_hooks: Vec::new(),
            manifest_hooks: Vec::new(),
        }
    }

    /// Adds a layer from its tar, stored with gzip.
    pub fn layer(self, tar: &[u8]) -> Self {
        let blob = Blob::Memory(gzip(tar));
        self.stored_layer(blob, "application/vnd.oci.image.layer.v1.tar+gzip", sha256_hex(tar))
    }

    /// Adds a layer from its tar, stored as it is.
    pub fn plain_layer(self, tar: &[u8]) -> Self {
        self.stored_layer(Blob::Memory(tar.to_vec()), "application/vnd.oci.image.layer.v1.tar", sha256_hex(tar))
    }

    /// Adds a layer that is already stored somehow.
    pub fn stored_layer(mut self, blob: Blob, media_type: &'static str, diff_id: String) -> Self {
        self.layers.push(Layer { blob, media_type, diff_id });
        self
    }

    /// Sets a field of the config's `config` object, e.g. `("WorkingDir", json!("/x"))`.
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.config["config"][key] = value;
        self
    }

    /// Replaces the stored bytes of a layer after all digests were computed.
    pub fn damage_layer(mut self, index: usize, bytes: Vec<u8>) -> Self {
        self.damaged.push((index, bytes));
        self
    }

    /// The stored bytes of a layer in memory.
    pub fn stored_bytes(&self, index: usize) -> Vec<u8> {
        match &self.layers[index].blob {
            Blob::Memory(bytes) => bytes.clone(),
            Blob::File { path, .. } => std::fs::read(path).expect("layer file"),
        }
    }

    /// Edits the config document before it is hashed.
    pub fn edit_config(mut self, hook: impl Fn(&mut Value) + 'static) -> Self {
        self.config_hooks.push(Box::new(hook));
        self
    }

    /// Edits the manifest before it is hashed.
    pub fn edit_manifest(mut self, hook: impl Fn(&mut Value) + 'static) -> Self {
        self.manifest_hooks.push(Box::new(hook));
        self
    }

    /// Bytes of the config document.
    pub fn config_bytes(&self) -> Vec<u8> {
        let mut config = self.config.clone();
        config["rootfs"]["diff_ids"] = self.layers.iter().map(|l| json!(format!("sha256:{}", l.diff_id))).collect();
        config["history"] = self
            .layers
            .iter()
            .map(|_| json!({ "created": "2024-01-02T03:04:05Z", "created_by": "/bin/sh -c #(nop) ADD layer in / " }))
            .collect();
        self.config_hooks.iter().for_each(|hook| hook(&mut config));
        config.to_string().into_bytes()
    }

    /// Bytes of the OCI manifest.
    pub fn manifest_bytes(&self) -> Vec<u8> {
        let config = self.config_bytes();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": format!("{OCI}.manifest.v1+json"),
            "config": {
                "mediaType": format!("{OCI}.config.v1+json"),
                "digest": format!("sha256:{}", sha256_hex(&config)),
                "size": config.len(),
            },
            "layers": self.layers.iter().map(|l| json!({
                "mediaType": l.media_type,
                "digest": format!("sha256:{}", l.blob.digest()),
                "size": l.blob.size(),
            })).collect::<Vec<_>>(),
        });
        self.manifest_hooks.iter().for_each(|hook| hook(&mut manifest));
        manifest.to_string().into_bytes()
    }

    /// Every blob by hex digest: layers as stored (damaged where asked), config, manifest.
    pub fn blobs(&self) -> Vec<(String, Vec<u8>)> {
        let mut blobs: Vec<(String, Vec<u8>)> =
            (0..self.layers.len()).map(|i| (self.layers[i].blob.digest(), self.stored_bytes(i))).collect();
        for (index, bytes) in &self.damaged {
            blobs[*index].1.clone_from(bytes);
        }
        for document in [self.config_bytes(), self.manifest_bytes()] {
            blobs.push((sha256_hex(&document), document));
        }
        blobs
    }

    /// Full name with tag.
    fn reference(&self) -> String {
        let tagged = self.name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        if tagged { self.name.clone() } else { format!("{}:latest", self.name) }
    }

    /// The small files of an OCI layout that also is a docker-archive.
    fn index_files(&self) -> Vec<(String, Vec<u8>)> {
        let manifest = self.manifest_bytes();
        let tag = self.reference();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": format!("{OCI}.index.v1+json"),
            "manifests": [{
                "mediaType": format!("{OCI}.manifest.v1+json"),
                "digest": format!("sha256:{}", sha256_hex(&manifest)),
                "size": manifest.len(),
                "annotations": {
                    "io.containerd.image.name": canonical(&tag),
                    "org.opencontainers.image.ref.name": tag.rsplit(':').next(),
                },
            }],
        });
        let blob = |digest: &str| format!("blobs/sha256/{digest}");
        let docker = json!([{
            "Config": blob(&sha256_hex(&self.config_bytes())),
            "RepoTags": [tag],
            "Layers": self.layers.iter().map(|l| blob(&l.blob.digest())).collect::<Vec<_>>(),
        }]);
        vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
            ("manifest.json".to_owned(), docker.to_string().into_bytes()),
        ]
    }

    /// An OCI layout with `manifest.json`, as a tar: what `docker save` writes.
    pub fn archive(&self) -> Vec<u8> {
        self.archive_without(&[])
    }

    /// The same without some files, e.g. `["manifest.json"]` for a pure OCI layout.
    pub fn archive_without(&self, left_out: &[&str]) -> Vec<u8> {
        let mut tar = Tar::new();
        for (name, bytes) in self.index_files().iter().filter(|(n, _)| !left_out.contains(&n.as_str())) {
            tar.push(&Entry::file(name, 0o644, bytes));
        }
        tar.push(&Entry::dir("blobs/", 0o755));
        tar.push(&Entry::dir("blobs/sha256/", 0o755));
        for (digest, bytes) in self.blobs() {
            tar.push(&Entry::file(&format!("blobs/sha256/{digest}"), 0o644, bytes));
        }
        tar.finish()
    }

    /// A docker-archive in the old form: `HEX.json`, `HEX/layer.tar`, `manifest.json`.
    pub fn old_archive(&self) -> Vec<u8> {
        let config = self.config_bytes();
        let name = format!("{}.json", sha256_hex(&config));
        let mut tar = Tar::new().with(Entry::file(&name, 0o644, &config));
        let mut layers = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let path = format!("{}/layer.tar", layer.diff_id);
            let stored = self
                .damaged
                .iter()
                .find(|(i, _)| *i == index)
                .map_or_else(|| self.stored_bytes(index), |d| d.1.clone());
            tar.push(&Entry::file(&path, 0o644, inflate(&stored)));
            layers.push(path);
        }
        let manifest = json!([{ "Config": name, "RepoTags": [self.reference()], "Layers": layers }]);
        tar.with(Entry::file("manifest.json", 0o644, manifest.to_string())).finish()
    }

    /// Writes the archive to a stream without holding file-backed layers in memory.
    pub fn write_archive(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        let mut add = |name: &str, size: u64, data: &mut dyn io::Read| {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, data)
        };
        let documents =
            [self.config_bytes(), self.manifest_bytes()].map(|d| (format!("blobs/sha256/{}", sha256_hex(&d)), d));
        for (name, bytes) in self.index_files().into_iter().chain(documents) {
            add(&name, bytes.len() as u64, &mut bytes.as_slice())?;
        }
        for layer in &self.layers {
            let name = format!("blobs/sha256/{}", layer.blob.digest());
            match &layer.blob {
                Blob::Memory(bytes) => add(&name, bytes.len() as u64, &mut bytes.as_slice())?,
                Blob::File { path, size, .. } => add(&name, *size, &mut std::fs::File::open(path)?)?,
            }
        }
        tar.finish()
    }
}

impl Blob {
    /// Writes a tar through gzip into a file; returns the blob and the tar's digest (hex).
    pub fn gzip_file(path: PathBuf, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<(Self, String)> {
        let stored = Counting::new(std::fs::File::create(&path)?);
        let mut tar = Counting::new(flate2::write::GzEncoder::new(stored, flate2::Compression::new(6)));
        fill(&mut tar)?;
        let (encoder, diff_id, _) = tar.done();
        let (file, digest, size) = encoder.finish()?.done();
        file.sync_all()?;
        Ok((Self::File { path, digest, size }, diff_id))
    }
}

/// Counts and hashes what passes.
struct Counting<W> {
    inner: W,
    hash: sha2::Sha256,
    size: u64,
}

impl<W> Counting<W> {
    fn new(inner: W) -> Self {
        use sha2::Digest as _;
        Self { inner, hash: sha2::Sha256::new(), size: 0 }
    }

    fn done(self) -> (W, String, u64) {
        use sha2::Digest as _;
        (self.inner, hex(&self.hash.finalize()), self.size)
    }
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        use sha2::Digest as _;
        let count = self.inner.write(buf)?;
        self.hash.update(&buf[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn inflate(stored: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if stored.starts_with(&[0x1f, 0x8b]) && flate2::read::GzDecoder::new(stored).read_to_end(&mut out).is_ok() {
        return out;
    }
    stored.to_vec()
}

/// `busybox:latest` as containerd writes it: `docker.io/library/busybox:latest`.
fn canonical(name: &str) -> String {
    match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}
