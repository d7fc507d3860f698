//! Uploads. Only to the registry itself, never to a mirror.

use super::session::{Ask, Content, Purpose, Scope};
use super::{Client, Inner};
use crate::endpoint::{self, Endpoint};
use crate::error::{RegistryError, TransportError};
use crate::retry::Retry;
use crate::transport::{Failure, FailureKind};
use crate::url::Url;
use dhow_oci::image::Descriptor;
use dhow_types::{Digest, Reference};
use std::io::{self, Read};
use ureq::http::Method;

impl Client {
    /// Whether the repository has a blob.
    pub fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        let inner = &*self.inner;
        let ep = endpoint::for_push(&inner.config, reference)?;
        let mut retry = inner.retry();
        let url = inner.url(&ep, &format!("v2/{}/blobs/{digest}", reference.path()), &mut retry)?;
        let mut ask = Ask::get(url, format!("HEAD blob {digest}"), Purpose::Push(reference), &[200, 404]);
        ask.method = Method::HEAD;
        ask.scopes = vec![Scope::push(reference.path())];
        Ok(inner.exchange(&ep, ask, &mut retry)?.0.status == 200)
    }

    /// Asks the registry to take a blob over from another of its repositories. `false`: it must be uploaded.
    pub fn mount_blob(&self, to: &Reference, from_repo_path: &str, digest: &Digest) -> Result<bool, RegistryError> {
        let inner = &*self.inner;
        let ep = endpoint::for_push(&inner.config, to)?;
        let mut retry = inner.retry();
        let text = digest.to_string();
        let started = inner.start_upload(
            &ep,
            to,
            &[("mount", &text), ("from", from_repo_path)],
            vec![Scope::push(to.path()), Scope::pull(from_repo_path)],
            &mut retry,
        );
        match started {
            Ok(None) => Ok(true),
            Ok(Some(upload)) => {
                // The registry opened an upload in place of a mount. Cancelling is a courtesy: it would expire anyway.
                let mut ask = Ask::get(upload, "DELETE upload", Purpose::Push(to), &[202, 204, 200]);
                ask.method = Method::DELETE;
                ask.scopes = vec![Scope::push(to.path())];
                let _ = inner.exchange(&ep, ask, &mut Retry::new(&*inner.options.clock, 0));
                Ok(false)
            }
            // No right to read the other repository is no reason to fail: the blob is in hand.
            Err(RegistryError::PushDenied { .. } | RegistryError::Unauthorized { .. }) => Ok(false),
            Err(RegistryError::Status { status: 400..=499, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Uploads a blob in one PUT. `body` is opened again for every retry; `progress` gets the bytes sent so far and starts
    /// over with each.
    pub fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        body: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        let inner = &*self.inner;
        let ep = endpoint::for_push(&inner.config, reference)?;
        let mut retry = inner.retry();
        loop {
            let scopes = vec![Scope::push(reference.path())];
            let Some(upload) = inner.start_upload(&ep, reference, &[], scopes, &mut retry)? else { return Ok(()) };
            let error = match inner.put_blob(&ep, reference, &upload, descriptor, body, progress) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // A cut upload's session is in an unknown state, so the next attempt opens a new one.
            let forgotten = matches!(&error, RegistryError::Status { status: 404, .. });
            let failure = Failure { kind: FailureKind::Broken, text: TransportError(error.to_string()).0 };
            if !(error.is_transient() || forgotten) || !retry.after_failure(&ep.host, &failure, true) {
                return Err(error);
            }
        }
    }

    /// Uploads a manifest or index under the reference's tag (or its digest, if it has no tag). Returns its digest.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let inner = &*self.inner;
        let ep = endpoint::for_push(&inner.config, reference)?;
        let mut retry = inner.retry();
        let digest = Digest::of(bytes);
        let name = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let url = inner.url(&ep, &format!("v2/{}/manifests/{name}", reference.path()), &mut retry)?;
        let mut ask = Ask::get(url, format!("PUT manifest {name}"), Purpose::Push(reference), &[200, 201, 202]);
        ask.method = Method::PUT;
        ask.scopes = vec![Scope::push(reference.path())];
        ask.content = Content::Bytes(bytes);
        ask.headers.push(("content-type", media_type.to_owned()));
        let (answer, _) = inner.exchange(&ep, ask, &mut retry)?;
        if let Some(actual) = answer.header("docker-content-digest").and_then(|d| d.parse::<Digest>().ok())
            && actual != digest
        {
            let what = format!("manifest as stored by registry {}", ep.host);
            return Err(RegistryError::DigestMismatch { what, expected: digest, actual });
        }
        Ok(digest)
    }
}

impl Inner {
    /// Opens an upload and returns its location; `None` when the registry says the blob is there already (mounted).
    fn start_upload(
        &self,
        ep: &Endpoint,
        reference: &Reference,
        query: &[(&str, &str)],
        scopes: Vec<Scope>,
        retry: &mut Retry<'_>,
    ) -> Result<Option<Url>, RegistryError> {
        let url = self.url(ep, &format!("v2/{}/blobs/uploads/", reference.path()), retry)?.with_query(query);
        let mut ask = Ask::get(url, "POST upload", Purpose::Push(reference), &[201, 202]);
        ask.method = Method::POST;
        ask.scopes = scopes;
        let (answer, from) = self.exchange(ep, ask, retry)?;
        if answer.status == 201 {
            return Ok(None);
        }
        let Some(location) = answer.header("location") else {
            let detail = "it opened an upload without saying where (no Location header)".to_owned();
            return Err(RegistryError::Protocol { host: ep.host.clone(), detail });
        };
        Ok(Some(self.hop(ep, &from, location)?))
    }

    fn put_blob(
        &self,
        ep: &Endpoint,
        reference: &Reference,
        upload: &Url,
        descriptor: &Descriptor,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        let url = upload.with_query(&[("digest", &descriptor.digest.to_string())]);
        let what = format!("PUT blob {}", descriptor.digest);
        let mut ask = Ask::get(url, what, Purpose::Push(reference), &[200, 201, 202, 204]);
        ask.method = Method::PUT;
        ask.scopes = vec![Scope::push(reference.path())];
        ask.headers.push(("content-type", "application/octet-stream".to_owned()));
        ask.content = Content::Reopen { length: descriptor.size, open, progress };
        // No retries at this level: see `push_blob`.
        self.exchange(ep, ask, &mut Retry::new(&*self.options.clock, 0)).map(drop)
    }
}
