//! Pulling: a registry's image becomes a local one.
//!
//! Up to three layers come at once. Each is unpacked from the growing file while it downloads, so that the slower of
//! network and processor sets the pace. Nothing is visible before everything is there: the layers are published together
//! (one flush of the file system for all), then the image, then its name. Whatever is downloaded but not used stays as a
//! blob or a partial one, and the next pull goes on from it.
//!
//! Every line of `docker pull`'s output is an event, the last (`Status: …`) included; [`Pulled::status`] repeats it.
//! All threads are joined when [`pull`] returns.

use super::{Progress, ProgressEvent, Pulled};
use crate::EngineError;
use dhow_oci::image::{Compression, Descriptor, Document, DocumentError, ImageConfig, Manifest, media};
use dhow_registry::{Client, RegistryError};
use dhow_store::{ImageRecord, Ingest, StagedLayer, Store, StoreError};
use dhow_types::{Digest, Platform, Reference};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Layers that are transferred at the same time (Docker's default as well).
pub(crate) const PARALLEL: usize = 3;
/// Indexes inside indexes that are followed.
const MAX_INDEX_DEPTH: usize = 4;
/// Time between two progress events of one layer.
const TICK: Duration = Duration::from_millis(100);
/// Bytes moved at once.
const CHUNK: usize = 256 << 10;

/// Pulls `reference` (tag `latest` by default) for a platform (this machine's by default).
pub(crate) fn pull(
    store: &Store,
    client: &Client,
    reference: &Reference,
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<Pulled, EngineError> {
    let reference = reference.clone().with_default_tag();
    let result = pull_image(store, client, &reference, platform, progress);
    for notice in client.take_notices() {
        say(progress, notice);
    }
    let pulled = result?;
    say(progress, format!("Digest: {}", pulled.digest));
    say(progress, pulled.status.clone());
    Ok(pulled)
}

fn pull_image(
    store: &Store,
    client: &Client,
    reference: &Reference,
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<Pulled, EngineError> {
    let before = store.resolve(&reference.familiar()).ok();
    let name =
        reference.tag().map_or_else(|| reference.digest().map(ToString::to_string).unwrap_or_default(), str::to_owned);
    say(progress, format!("{name}: Pulling from {}", reference.path()));
    if let Some(known) = &before
        && let Some(digest) = unchanged(client, reference, known, platform)?
    {
        return Ok(Pulled { image: known.id, digest, status: status(reference, "Image is up to date") });
    }
    let fetched = client.resolve(reference)?;
    let chosen = choose(client, reference, fetched.bytes, fetched.digest, &fetched.media_type, platform)?;
    let (config_bytes, config) = fetch_config(client, reference, &chosen.manifest)?;
    config.check_layers(&chosen.manifest)?;
    check_platform(&config, platform)?;

    fetch_layers(store, client, reference, &wanted(&config, &chosen.manifest)?, progress)?;
    let manifest = store.put_blob(&chosen.bytes)?;
    let image = store.put_image(&config_bytes, Some((&manifest, &chosen.media_type)))?;
    // The digest first: a name must not point to an image whose origin got lost on the way.
    store.add_repo_digest(&reference.with_digest(fetched.digest), &image)?;
    if reference.digest().is_none() {
        store.set_ref(reference, &image)?;
    }
    let same = before.is_some_and(|known| known.id == image);
    let news = if same { "Image is up to date" } else { "Downloaded newer image" };
    Ok(Pulled { image, digest: fetched.digest, status: status(reference, news) })
}

fn status(reference: &Reference, news: &str) -> String {
    format!("Status: {news} for {}", reference.familiar())
}

/// Whether a tag still means the image that it means here: then its digest. A HEAD request tells, which registries that
/// limit pulls do not count.
fn unchanged(
    client: &Client,
    reference: &Reference,
    known: &ImageRecord,
    platform: Option<&Platform>,
) -> Result<Option<Digest>, EngineError> {
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    if reference.digest().is_some() || known.repo_digests.is_empty() || !wanted.accepts(&known.config.platform()) {
        return Ok(None);
    }
    match client.probe(reference) {
        Ok(Some(probed)) if known.repo_digests.contains(&reference.with_digest(probed.digest)) => {
            Ok(Some(probed.digest))
        }
        Ok(_) => Ok(None),
        // Not every server knows HEAD.
        Err(RegistryError::Status { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn say(progress: &dyn Progress, text: String) {
    progress.event(&ProgressEvent::Message(text));
}

/// The image manifest to use.
struct Chosen {
    bytes: Vec<u8>,
    media_type: String,
    manifest: Manifest,
}

/// Goes from what the reference names to the manifest for the platform.
fn choose(
    client: &Client,
    reference: &Reference,
    mut bytes: Vec<u8>,
    mut digest: Digest,
    claimed: &str,
    platform: Option<&Platform>,
) -> Result<Chosen, EngineError> {
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    // Registries behind simple file servers say "text/plain" or nothing: only a claim that means something counts.
    let mut claim = Some(claimed.to_owned()).filter(|c| c.starts_with("application/vnd."));
    for _ in 0..MAX_INDEX_DEPTH {
        match Document::parse(&bytes, claim.as_deref())? {
            Document::Manifest(manifest) => {
                let media_type = manifest.media_type.clone().or(claim);
                let media_type = media_type.unwrap_or_else(|| media::OCI_MANIFEST.to_owned());
                return Ok(Chosen { bytes, media_type, manifest });
            }
            Document::Index(index) => {
                let next = index.choose(&wanted).ok_or_else(|| {
                    let mut offered: Vec<String> = index
                        .manifests
                        .iter()
                        .filter_map(|d| d.platform.as_ref())
                        // Attestations are listed under "unknown".
                        .filter(|p| p.os != "unknown")
                        .map(|p| p.platform().to_string())
                        .collect();
                    offered.dedup();
                    EngineError::NoMatchingPlatform { wanted: wanted.to_string(), offered: offered.join(", ") }
                })?;
                if next.digest == digest {
                    break;
                }
                bytes = client.manifest(reference, next)?;
                digest = next.digest;
                claim = Some(next.media_type.clone());
            }
        }
    }
    Err(DocumentError::Unsupported("an image index that leads to image indexes only".to_owned()).into())
}

fn fetch_config(
    client: &Client,
    reference: &Reference,
    manifest: &Manifest,
) -> Result<(Vec<u8>, ImageConfig), EngineError> {
    let kind = manifest.config.media_type.as_str();
    if !matches!(kind, media::OCI_CONFIG | media::DOCKER_CONFIG) {
        let what = format!("{kind:?} in place of an image config: this is not a container image");
        return Err(DocumentError::Unsupported(what).into());
    }
    let bytes = client.document(reference, &manifest.config)?;
    let config = ImageConfig::parse(&bytes)?;
    Ok((bytes, config))
}

/// An explicit wish is binding. Without one an image for another architecture is taken, as Docker does: the kernel may know
/// how to run it.
fn check_platform(config: &ImageConfig, platform: Option<&Platform>) -> Result<(), EngineError> {
    let have = config.platform();
    match platform {
        Some(wanted) if !wanted.accepts(&have) => {
            Err(EngineError::NoMatchingPlatform { wanted: wanted.to_string(), offered: have.to_string() })
        }
        None if have.os != "linux" => {
            Err(EngineError::NoMatchingPlatform { wanted: Platform::host().to_string(), offered: have.to_string() })
        }
        _ => Ok(()),
    }
}

/// A layer to have.
#[derive(Debug)]
struct Wanted {
    descriptor: Descriptor,
    compression: Compression,
    diff_id: Digest,
}

impl Wanted {
    fn event(&self, progress: &dyn Progress, status: &'static str, current: u64) {
        let id = self.descriptor.digest.short();
        progress.event(&ProgressEvent::Layer { id, status, current, total: self.descriptor.size });
    }
}

/// The layers in order, each content once.
fn wanted(config: &ImageConfig, manifest: &Manifest) -> Result<Vec<Wanted>, EngineError> {
    let mut layers: Vec<Wanted> = Vec::new();
    for (descriptor, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        if layers.iter().any(|l| l.diff_id == *diff_id) {
            continue;
        }
        let compression = descriptor.layer_compression().ok_or_else(|| {
            DocumentError::Unsupported(format!("layer {} of type {:?}", descriptor.digest, descriptor.media_type))
        })?;
        layers.push(Wanted { descriptor: descriptor.clone(), compression, diff_id: *diff_id });
    }
    Ok(layers)
}

/// Downloads, unpacks and publishes those of these layers (descriptor and diff ID) that are missing.
pub(crate) fn fetch_described(
    store: &Store,
    client: &Client,
    reference: &Reference,
    layers: &[(Descriptor, Digest)],
    progress: &dyn Progress,
) -> Result<(), EngineError> {
    let mut list = Vec::with_capacity(layers.len());
    for (descriptor, diff_id) in layers {
        let compression = descriptor.layer_compression().ok_or_else(|| {
            DocumentError::Unsupported(format!("layer {} of type {:?}", descriptor.digest, descriptor.media_type))
        })?;
        list.push(Wanted { descriptor: descriptor.clone(), compression, diff_id: *diff_id });
    }
    fetch_layers(store, client, reference, &list, progress)
}

/// Downloads, unpacks and publishes what is missing.
fn fetch_layers(
    store: &Store,
    client: &Client,
    reference: &Reference,
    layers: &[Wanted],
    progress: &dyn Progress,
) -> Result<(), EngineError> {
    let mut missing = VecDeque::new();
    for layer in layers {
        if store.has_layer(&layer.diff_id)? {
            layer.event(progress, "Already exists", 0);
        } else {
            layer.event(progress, "Pulling fs layer", 0);
            missing.push_back(layer);
        }
    }
    for layer in missing.iter().skip(PARALLEL) {
        layer.event(progress, "Waiting", 0);
    }
    let done: Vec<&Wanted> = missing.iter().copied().collect();
    let workers = missing.len().min(PARALLEL);
    let flusher = Flusher::new(store)?;
    let job = Job {
        flusher: &flusher,
        store,
        client,
        reference,
        progress,
        queue: Mutex::new(missing),
        staged: Mutex::default(),
        failure: Mutex::default(),
        stop: AtomicBool::new(false),
    };
    let flushed = thread::scope(|scope| {
        let flushing = scope.spawn(|| flusher.run());
        let working: Vec<_> = (0..workers).map(|_| scope.spawn(|| job.work())).collect();
        let results: Vec<_> = working.into_iter().map(thread::ScopedJoinHandle::join).collect();
        flusher.end();
        let panic = results.into_iter().find_map(Result::err);
        panic.map_or_else(|| flushing.join(), Err).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if let Some(error) = take(job.failure) {
        return Err(error);
    }
    flushed?;
    store.publish(take(job.staged))?;
    for layer in done {
        layer.event(progress, "Pull complete", layer.descriptor.size);
    }
    Ok(())
}

fn take<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What the workers share.
struct Job<'a> {
    flusher: &'a Flusher,
    store: &'a Store,
    client: &'a Client,
    reference: &'a Reference,
    progress: &'a dyn Progress,
    queue: Mutex<VecDeque<&'a Wanted>>,
    staged: Mutex<Vec<StagedLayer>>,
    failure: Mutex<Option<EngineError>>,
    /// A layer has failed: the others need not go on.
    stop: AtomicBool,
}

/// Bytes of files that are worth a flush of their own.
const FLUSH_AT: u64 = 64 << 20;

/// Sends finished layers to the disk while others are still unpacked, so that publishing, which has to wait for all of it,
/// waits for the last only. Purely a head start: publishing does its own flush.
struct Flusher {
    root: File,
    path: PathBuf,
    state: Mutex<Flush>,
    changed: Condvar,
}

#[derive(Default)]
struct Flush {
    unflushed: u64,
    ended: bool,
}

impl Flusher {
    fn new(store: &Store) -> Result<Self, EngineError> {
        let path = store.root().to_owned();
        let root = File::open(&path).map_err(EngineError::state("open", &path))?;
        Ok(Self { root, path, state: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Flush> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bytes: u64) {
        self.lock().unflushed += bytes;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// A failure here has to count: the kernel reports a lost write only once (syncfs(2)), and publishing would not see it.
    fn run(&self) -> Result<(), EngineError> {
        loop {
            let mut state = self.lock();
            while !state.ended && state.unflushed < FLUSH_AT {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.ended {
                return Ok(());
            }
            state.unflushed = 0;
            drop(state);
            rustix::fs::syncfs(&self.root).map_err(EngineError::errno("sync", &self.path))?;
        }
    }
}

/// Why a layer did not come.
enum Trouble {
    /// Another layer failed; that one tells.
    Stopped,
    Failed(EngineError),
}

impl<E: Into<EngineError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Job<'_> {
    fn work(&self) {
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(layer) = next else { return };
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match self.fetch(layer) {
                Ok(staged) => {
                    self.flusher.add(staged.size());
                    self.staged.lock().unwrap_or_else(PoisonError::into_inner).push(staged);
                }
                Err(Trouble::Stopped) => return,
                Err(Trouble::Failed(error)) => {
                    self.stop.store(true, Ordering::Relaxed);
                    self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        }
    }

    /// One layer, staged. Bytes that turn out wrong are fetched once more from the start: the damage may be of the
    /// transfer, or of an earlier attempt's leftovers.
    fn fetch(&self, layer: &Wanted) -> Result<StagedLayer, Trouble> {
        match self.fetch_once(layer) {
            Err(Trouble::Failed(EngineError::Store(StoreError::Mismatch { what: "blob", .. }))) => {
                self.fetch_once(layer)
            }
            other => other,
        }
    }

    fn fetch_once(&self, layer: &Wanted) -> Result<StagedLayer, Trouble> {
        let mut ingest = self.store.ingest(&layer.descriptor.digest, layer.descriptor.size)?;
        let source = Source {
            inner: ingest.follow()?,
            stop: &self.stop,
            seen: 0,
            ticker: Ticker::new(self.progress, layer, "Extracting"),
        };
        // Set when unpacking fails for a reason that more bytes of the same blob cannot change.
        let hopeless = AtomicBool::new(false);
        thread::scope(|scope| {
            let unpacking = scope.spawn(|| {
                let result = self.store.unpack(source, layer.compression, &layer.diff_id);
                if let Err(StoreError::Io { .. } | StoreError::NoSpace { .. }) = &result {
                    hopeless.store(true, Ordering::Relaxed);
                }
                result
            });
            let downloaded = self.download(layer, &mut ingest, &hopeless);
            // Ends the follower, should the download have failed.
            drop(ingest);
            let unpacked = match unpacking.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            match (downloaded, unpacked) {
                // Wrong bytes explain whatever unpacking says about them.
                (Err(Trouble::Failed(error)), _) => Err(Trouble::Failed(error)),
                (_, Err(_)) if self.stop.load(Ordering::Relaxed) => Err(Trouble::Stopped),
                (_, Err(error)) => Err(error.into()),
                (Err(Trouble::Stopped), Ok(_)) => Err(Trouble::Stopped),
                (Ok(()), Ok(staged)) => Ok(staged),
            }
        })
    }

    fn download(&self, layer: &Wanted, ingest: &mut Ingest, hopeless: &AtomicBool) -> Result<(), Trouble> {
        if ingest.is_complete() {
            layer.event(self.progress, "Download complete", layer.descriptor.size);
            return Ok(());
        }
        let mut reader = self.client.blob(self.reference, &layer.descriptor, ingest.offset())?;
        let mut ticker = Ticker::new(self.progress, layer, "Downloading");
        let mut buffer = vec![0u8; CHUNK];
        loop {
            if self.stop.load(Ordering::Relaxed) || hopeless.load(Ordering::Relaxed) {
                return Err(Trouble::Stopped);
            }
            let n = reader.read(&mut buffer).map_err(|e| RegistryError::from_read(e, "the registry's answer"))?;
            if n == 0 {
                break;
            }
            ingest.write(buffer.get(..n).unwrap_or_default())?;
            ticker.at(ingest.offset());
        }
        layer.event(self.progress, "Verifying Checksum", layer.descriptor.size);
        ingest.finish()?;
        layer.event(self.progress, "Download complete", layer.descriptor.size);
        Ok(())
    }
}

/// Reports a layer's progress, not too often.
pub(crate) struct Ticker<'a> {
    progress: &'a dyn Progress,
    id: String,
    status: &'static str,
    total: u64,
    next: Instant,
}

impl<'a> Ticker<'a> {
    fn new(progress: &'a dyn Progress, layer: &Wanted, status: &'static str) -> Self {
        Self::named(progress, layer.descriptor.digest.short(), status, layer.descriptor.size)
    }

    pub(crate) fn named(progress: &'a dyn Progress, id: String, status: &'static str, total: u64) -> Self {
        Self { progress, id, status, total, next: Instant::now() }
    }

    pub(crate) fn at(&mut self, current: u64) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + TICK;
            let (id, status, total) = (self.id.clone(), self.status, self.total);
            self.progress.event(&ProgressEvent::Layer { id, status, current, total });
        }
    }
}

/// The blob as the unpacker reads it: stops when another layer failed, and reports.
struct Source<'a, R> {
    inner: R,
    stop: &'a AtomicBool,
    seen: u64,
    ticker: Ticker<'a>,
}

impl<R: Read> Read for Source<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer failed"));
        }
        let n = self.inner.read(buf)?;
        self.seen += n as u64;
        // Until the download is over, how far that is tells more.
        if self.seen < self.ticker.total || n == 0 {
            self.ticker.at(self.seen);
        }
        Ok(n)
    }
}

#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
