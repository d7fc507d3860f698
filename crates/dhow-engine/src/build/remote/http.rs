//! Files by HTTP, remembered with their validators.
//!
//! ```text
//! ROOT/cache/http/<hash of the URL>/record.json     validators, digest, name
//! ROOT/cache/http/<hash of the URL>/<hex of digest>  the content
//! ```
//! Nothing here is synchronised: what does not fit together is fetched again.

use super::{RemoteError, Secrets, authority, check_space, text_secret};
use crate::build::cache;
use crate::{Engine, EngineError, files};
use dhow_build::remote::{file_name, url_name};
use dhow_build::{BackendError, Pending, REMOTE_FILE, RemoteTree};
use dhow_registry::{Download, DownloadError, DownloadReader, DownloadRequest};
use dhow_store::ScratchDir;
use dhow_types::{Digest, Hasher};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Largest file, in bytes.
const MAX_SIZE: u64 = 64 << 30;
/// Longest download.
const MAX_TIME: Duration = Duration::from_secs(4 * 3600);
/// Bytes between two looks at the free space.
const SPACE_CHECK: u64 = 64 << 20;
/// How often a download that was cut is started.
const ATTEMPTS: usize = 3;
/// Name of a file whose URL and server give none (BuildKit's).
const UNNAMED: &str = "__unnamed__";
const VERSION: u32 = 1;

/// What is known of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    etag: Option<String>,
    last_modified: Option<String>,
    /// Unix seconds of `Last-Modified`.
    modified: Option<i64>,
    /// From `Content-Disposition`.
    name: Option<String>,
    digest: String,
    size: u64,
}

/// A file behind a URL.
pub(crate) struct HttpTree<'a> {
    engine: &'a Engine,
    url: String,
    authorization: Option<String>,
    /// Directory of the cache.
    place: PathBuf,
    record: Record,
    digest: Digest,
    /// The directory with the file, once it is needed.
    content: RefCell<Option<ScratchDir>>,
}

impl<'a> HttpTree<'a> {
    /// Asks the server for what is there now. With a checksum nobody is asked if the content is here.
    pub(crate) fn find(
        engine: &'a Engine,
        url: &str,
        checksum: Option<Digest>,
        secrets: &Secrets<'_>,
    ) -> Result<Self, EngineError> {
        let place = cache::folder(engine, "http")?.join(Digest::of(url.as_bytes()).hex());
        let authorization = text_secret(secrets, &format!("HTTP_AUTH_HEADER_{}", authority(url))).or_else(|| {
            let token = text_secret(secrets, &format!("HTTP_AUTH_TOKEN_{}", authority(url)));
            token.map(|t| format!("Bearer {t}"))
        });
        let known = known(&place);
        if let (Some((record, digest)), Some(wanted)) = (&known, checksum)
            && *digest == wanted
        {
            return Ok(Self::new(engine, url, authorization, place, record.clone(), *digest, None));
        }
        let request = DownloadRequest {
            url,
            etag: known.as_ref().and_then(|(r, _)| r.etag.as_deref()),
            last_modified: known.as_ref().and_then(|(r, _)| r.last_modified.as_deref()),
            authorization: authorization.as_deref(),
            verified: checksum.is_some(),
            max_size: MAX_SIZE,
        };
        let (record, digest, content) = match (fetch(engine, &request)?, known) {
            (Some((record, digest, content)), _) => {
                remember(&place, &record, &content);
                (record, digest, Some(content))
            }
            (None, Some((record, digest))) => (record, digest, None),
            // Not asked for, so no server says it; and `fetch` says so.
            (None, None) => return Err(RemoteError::Download(DownloadError::Url(url.to_owned())).into()),
        };
        if let Some(expected) = checksum.filter(|c| *c != digest) {
            return Err(RemoteError::Digest { found: digest, expected }.into());
        }
        Ok(Self::new(engine, url, authorization, place, record, digest, content))
    }

    fn new(
        engine: &'a Engine,
        url: &str,
        authorization: Option<String>,
        place: PathBuf,
        record: Record,
        digest: Digest,
        content: Option<ScratchDir>,
    ) -> Self {
        let (url, content) = (url.to_owned(), RefCell::new(content));
        Self { engine, url, authorization, place, record, digest, content }
    }

    /// Gives the file away: in the upper directory, as [`REMOTE_FILE`].
    pub(crate) fn into_content(self) -> Result<ScratchDir, EngineError> {
        match self.content.take() {
            Some(content) => Ok(content),
            None => self.provide(),
        }
    }

    /// The file out of the cache, verified; or from the server once more.
    fn provide(&self) -> Result<ScratchDir, EngineError> {
        let scratch = self.engine.store().new_upper()?;
        let target = scratch.upper().join(REMOTE_FILE);
        let cached = self.place.join(self.digest.hex());
        if fs::hard_link(&cached, &target).is_ok() && digest_of(&target)? == self.digest {
            return Ok(scratch);
        }
        let _ = fs::remove_file(&cached);
        let request = DownloadRequest {
            url: &self.url,
            authorization: self.authorization.as_deref(),
            max_size: MAX_SIZE,
            ..DownloadRequest::default()
        };
        match fetch(self.engine, &request)? {
            Some((record, digest, content)) if digest == self.digest => {
                remember(&self.place, &record, &content);
                Ok(content)
            }
            Some((_, found, _)) => Err(RemoteError::Digest { found, expected: self.digest }.into()),
            None => Err(RemoteError::Download(DownloadError::Url(self.url.clone())).into()),
        }
    }
}

impl RemoteTree for HttpTree<'_> {
    fn identity(&self) -> String {
        self.digest.to_string()
    }

    fn file_name(&self) -> Option<String> {
        let name = url_name(&self.url).or_else(|| self.record.name.as_deref().and_then(file_name));
        Some(name.unwrap_or_else(|| UNNAMED.to_owned()))
    }

    fn open(&self) -> Pending<'_, Result<OwnedFd, BackendError>> {
        let open = || -> Result<OwnedFd, EngineError> {
            if self.content.borrow().is_none() {
                let provided = self.provide()?;
                self.content.replace(Some(provided));
            }
            let path = self.content.borrow().as_ref().map(ScratchDir::upper).unwrap_or_default();
            Ok(File::open(&path).map_err(EngineError::state("open", &path))?.into())
        };
        let result = open().map_err(BackendError::new);
        Box::pin(async move { result })
    }
}

/// The record of a URL whose content is here.
fn known(place: &Path) -> Option<(Record, Digest)> {
    let record: Record = files::read_record(&place.join("record.json")).ok()??;
    let digest: Digest = record.digest.parse().ok()?;
    let size = fs::metadata(place.join(digest.hex())).ok()?.len();
    (record.version == VERSION && size == record.size).then_some((record, digest))
}

/// Keeps content and record. What cannot be kept is fetched again another time.
fn remember(place: &Path, record: &Record, content: &ScratchDir) {
    let Ok(digest) = record.digest.parse::<Digest>() else { return };
    let hex = digest.hex();
    let keep = || -> Result<(), EngineError> {
        files::make_dir(place)?;
        let (target, source) = (place.join(&hex), content.upper().join(REMOTE_FILE));
        files::remove_file(&target)?;
        fs::hard_link(&source, &target).map_err(EngineError::state("link", &target))?;
        files::write_record(&place.join("record.json"), record)?;
        // What the URL had before is of no use any more.
        let entries = fs::read_dir(place).map_err(EngineError::state("read", place))?;
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            if name != "record.json" && name != hex.as_str() && !name.as_encoded_bytes().starts_with(b".") {
                files::remove_file(&entry.path())?;
            }
        }
        Ok(())
    };
    let _ = keep();
}

/// Downloads into a staging directory; `None` when the server says that what the caller has is still right.
fn fetch(engine: &Engine, request: &DownloadRequest<'_>) -> Result<Option<(Record, Digest, ScratchDir)>, EngineError> {
    let begun = Instant::now();
    let mut attempt = 1;
    loop {
        let result = match engine.registry().download(request).map_err(RemoteError::from)? {
            Download::NotModified => return Ok(None),
            Download::Content(reader) => receive(engine, reader, begun),
        };
        match result {
            Err(EngineError::Remote(RemoteError::Download(e))) if e.is_transient() && attempt < ATTEMPTS => {
                attempt += 1
            }
            other => return other.map(Some),
        }
    }
}

fn receive(
    engine: &Engine,
    mut reader: DownloadReader,
    begun: Instant,
) -> Result<(Record, Digest, ScratchDir), EngineError> {
    let scratch = engine.store().new_upper()?;
    let path = scratch.upper().join(REMOTE_FILE);
    let write = || EngineError::state("write", &path);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(write())?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0_u8; 256 << 10];
    let (mut size, mut checked) = (0_u64, 0_u64);
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => {
                return Err(match DownloadError::from_read(e) {
                    Ok(error) => RemoteError::from(error).into(),
                    Err(error) => EngineError::state("receive", &path)(error),
                });
            }
        };
        let bytes = buffer.get(..n).unwrap_or_default();
        hasher.update(bytes);
        file.write_all(bytes).map_err(write())?;
        size += n as u64;
        if size >= checked {
            check_space(scratch.path())?;
            checked = size + SPACE_CHECK;
        }
        if begun.elapsed() > MAX_TIME {
            let limit = MAX_TIME.as_secs();
            return Err(RemoteError::Source(format!("{} takes longer than {limit} s", reader.url())).into());
        }
    }
    let seconds = reader.modified.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
    let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    file.set_modified(modified.unwrap_or(SystemTime::UNIX_EPOCH)).map_err(write())?;
    let digest = hasher.finish();
    let record = Record {
        version: VERSION,
        etag: reader.etag.clone(),
        last_modified: reader.last_modified.clone(),
        modified: reader.modified,
        name: reader.name.clone(),
        digest: digest.to_string(),
        size,
    };
    Ok((record, digest, scratch))
}

fn digest_of(path: &Path) -> Result<Digest, EngineError> {
    let mut hasher = Hasher::new();
    let mut file = File::open(path).map_err(EngineError::state("open", path))?;
    std::io::copy(&mut file, &mut hasher).map_err(EngineError::state("read", path))?;
    Ok(hasher.finish())
}
