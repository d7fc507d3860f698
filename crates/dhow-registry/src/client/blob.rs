//! Downloads: a reader that survives cut, stalled and lying connections.

use super::session::{Ask, Purpose, Scope, broken};
use super::{Inner, check_size, lock};
use crate::endpoint::{self, Endpoint};
use crate::error::RegistryError;
use crate::retry::Retry;
use crate::transport::{Failure, FailureKind, body_failure};
use dhow_oci::image::Descriptor;
use dhow_types::{Digest, Reference};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;
use ureq::BodyReader;

/// Progress after which earlier failures no longer count, in bytes.
const FORGIVEN_AFTER: u64 = 64 << 10;

/// A blob being downloaded. Yields bytes from the offset that was asked for up to the descriptor's size; resumes with
/// `Range` by itself, over to the next endpoint where a mirror fails. An error that it gives up with is a
/// [`RegistryError`] inside the [`io::Error`] ([`RegistryError::from_read`] takes it out).
pub struct BlobReader {
    inner: Arc<Inner>,
    reference: Reference,
    digest: Digest,
    size: u64,
    start: u64,
    position: u64,
    /// Endpoints yet to be used; the first is in use.
    endpoints: Vec<Endpoint>,
    body: Option<BodyReader<'static>>,
    /// Bytes to throw away because the server sent the blob from its beginning.
    skip: u64,
    /// The server gets ranges wrong: ask for the whole blob.
    no_range: bool,
    finished: bool,
    retries_used: u32,
    since_failure: u64,
    window: (Instant, u64),
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({} at {} of {})", self.digest, self.position, self.size)
    }
}

impl BlobReader {
    pub(super) fn open(
        inner: &Arc<Inner>,
        reference: &Reference,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Self, RegistryError> {
        let endpoints = endpoint::for_pull(&inner.config, reference)?;
        let endpoints = endpoints.into_iter().filter(|e| !e.mirror || !lock(&inner.dead).contains(&e.host)).collect();
        let mut reader = Self {
            inner: Arc::clone(inner),
            reference: reference.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            start: offset.min(descriptor.size),
            position: offset.min(descriptor.size),
            endpoints,
            body: None,
            skip: 0,
            no_range: false,
            finished: false,
            retries_used: 0,
            since_failure: 0,
            window: (inner.options.clock.now(), 0),
        };
        if reader.position < reader.size {
            reader.connect()?;
        }
        Ok(reader)
    }

    /// Where the first byte that this reader yields stands in the blob: always the offset asked for (or the size, if
    /// that is smaller), since bytes before it are skipped here when a server ignores `Range`.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Position of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn what(&self) -> String {
        format!("GET blob {}", self.digest)
    }

    /// Opens a connection at the current position, trying further endpoints after a mirror's failure.
    fn connect(&mut self) -> Result<(), RegistryError> {
        loop {
            let Some(ep) = self.endpoints.first().cloned() else {
                return Err(RegistryError::Config(format!("no endpoint for {}", self.reference.domain())));
            };
            match self.connect_to(&ep) {
                Err(error) if ep.mirror => {
                    self.inner.note_mirror(&ep.host, &error);
                    self.next_endpoint();
                }
                other => return other,
            }
        }
    }

    fn next_endpoint(&mut self) {
        self.endpoints.remove(0);
        self.retries_used = 0;
        self.no_range = false;
    }

    fn connect_to(&mut self, ep: &Endpoint) -> Result<(), RegistryError> {
        let inner = Arc::clone(&self.inner);
        let options = &inner.options;
        let mut retry = Retry::resume(&*options.clock, options.retries, self.retries_used);
        let result = self.request(ep, &mut retry);
        self.retries_used = retry.used();
        self.window = (options.clock.now(), 0);
        result
    }

    fn request(&mut self, ep: &Endpoint, retry: &mut Retry<'_>) -> Result<(), RegistryError> {
        let inner = Arc::clone(&self.inner);
        let reference = self.reference.clone();
        let digest = self.digest;
        let what = self.what();
        loop {
            let url = inner.url(ep, &format!("v2/{}/blobs/{digest}", reference.path()), retry)?;
            let mut ask = Ask::get(url, what.as_str(), Purpose::Blob(&reference, &digest), &[200, 206, 416]);
            ask.scopes = vec![Scope::pull(reference.path())];
            let ranged = self.position > 0 && !self.no_range;
            if ranged {
                ask.headers.push(("range", format!("bytes={}-", self.position)));
            }
            let (answer, _) = inner.exchange(ep, ask, retry)?;
            let length = answer.length();
            match answer.status {
                200 => {
                    if let Some(length) = length {
                        check_size(&what, self.size, length)?;
                    }
                    self.skip = self.position;
                }
                206 if ranged && self.is_our_range(answer.header("content-range"), length) => self.skip = 0,
                // A server that gets ranges wrong is asked for everything; whatever is in hand is not fetched twice
                // into the store, only over the wire.
                _ => {
                    let failure = Failure { kind: FailureKind::Broken, text: "wrong answer to a Range request".into() };
                    if self.no_range || self.position == 0 || !retry.after_failure(&ep.host, &failure, true) {
                        return Err(broken(&ep.host, &what, failure));
                    }
                    self.no_range = true;
                    continue;
                }
            }
            self.body = Some(answer.body.into_reader());
            return Ok(());
        }
    }

    /// `bytes FIRST-LAST/TOTAL` (RFC 9110 section 14.4) must say exactly what was asked for.
    fn is_our_range(&self, header: Option<&str>, length: Option<u64>) -> bool {
        let parse = || {
            let (range, total) = header?.trim().strip_prefix("bytes ")?.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            let total_ok = total.trim() == "*" || total.trim().parse::<u64>().ok()? == self.size;
            let rest = self.size - self.position;
            Some(
                first == self.position
                    && last.checked_add(1)? == self.size
                    && total_ok
                    && length.is_none_or(|l| l == rest),
            )
        };
        parse().unwrap_or(false)
    }

    /// After a failed read: waits and drops the connection, or gives up.
    fn recover(&mut self, failure: Failure) -> Result<(), RegistryError> {
        self.body = None;
        let Some(ep) = self.endpoints.first().cloned() else { return Err(broken("", &self.what(), failure)) };
        if self.since_failure >= FORGIVEN_AFTER {
            self.retries_used = 0;
        }
        self.since_failure = 0;
        let inner = Arc::clone(&self.inner);
        let options = &inner.options;
        let mut retry = Retry::resume(&*options.clock, options.retries, self.retries_used);
        let again = retry.after_failure(&ep.host, &failure, true);
        self.retries_used = retry.used();
        if again {
            return Ok(());
        }
        let error = broken(&ep.host, &self.what(), failure);
        if !ep.mirror {
            return Err(error);
        }
        inner.note_mirror(&ep.host, &error);
        self.next_endpoint();
        Ok(())
    }

    /// A trickle keeps a socket alive but is a stall all the same.
    fn too_slow(&mut self, bytes: u64) -> bool {
        let options = &self.inner.options;
        let now = options.clock.now();
        self.window.1 += bytes;
        if now.saturating_duration_since(self.window.0) < options.progress_timeout {
            return false;
        }
        let slow = self.window.1 < options.progress_bytes;
        self.window = (now, 0);
        slow
    }

    /// Everything is delivered: nothing more may follow. Reading to the end also frees the connection for others.
    fn finish(&mut self) -> Result<(), RegistryError> {
        self.finished = true;
        let Some(mut body) = self.body.take() else { return Ok(()) };
        match body.read(&mut [0u8; 1]) {
            Ok(1) => Err(RegistryError::SizeMismatch { what: self.what(), expected: self.size, actual: self.size + 1 }),
            _ => Ok(()),
        }
    }

    fn next_bytes(&mut self, buf: &mut [u8]) -> Result<usize, RegistryError> {
        loop {
            if self.position == self.size || buf.is_empty() {
                if !self.finished && self.position == self.size {
                    self.finish()?;
                }
                return Ok(0);
            }
            if self.body.is_none() {
                self.connect()?;
            }
            let Some(body) = self.body.as_mut() else { continue };
            let wanted = if self.skip > 0 { self.skip } else { self.size - self.position };
            let room = buf.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
            let Some(target) = buf.get_mut(..room) else { return Ok(0) };
            match body.read(target) {
                Ok(0) => self.recover(Failure { kind: FailureKind::Broken, text: "the blob ended early".into() })?,
                Ok(n) if self.too_slow(n as u64) => {
                    self.took(n as u64);
                    let skipped = self.skip_or_deliver(n as u64);
                    self.recover(Failure { kind: FailureKind::Timeout, text: "almost no data for too long".into() })?;
                    if skipped == 0 {
                        continue;
                    }
                    return Ok(n);
                }
                Ok(n) => {
                    self.took(n as u64);
                    if self.skip_or_deliver(n as u64) > 0 {
                        return Ok(n);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.recover(body_failure(&e))?,
            }
        }
    }

    fn took(&mut self, n: u64) {
        self.since_failure = self.since_failure.saturating_add(n);
    }

    /// Accounts for bytes read; returns how many of them are the caller's.
    fn skip_or_deliver(&mut self, n: u64) -> u64 {
        if self.skip > 0 {
            self.skip -= n;
            return 0;
        }
        self.position += n;
        n
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.next_bytes(buf).map_err(io::Error::other)
    }
}
