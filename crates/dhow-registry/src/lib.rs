//! The client side of the OCI distribution protocol (distribution-spec 1.1; Docker Registry HTTP API v2), blocking.
//!
//! It finds the endpoint for a registry (mirrors first), authenticates (anonymous, Basic, Bearer tokens, identity
//! tokens), fetches and uploads manifests and blobs, retries what is worth retrying and resumes cut downloads. The other
//! half, [`auth_file`], reads and writes `~/.docker/config.json` with credential helpers.
//!
//! Everything a registry sends is hostile input: sizes are capped, digests verified, redirects and token servers are
//! held to the rules of [`client`] and `docs/design/0002-registry-client.md`.
//!
//! Deliberately absent: storage (blobs are handed out as a [`std::io::Read`]), progress display, environment variables
//! (proxies are part of the configuration), running credential helpers (a trait that the front end implements), an async runtime,
//! fetching of foreign layer URLs.

pub mod auth_file;
pub mod challenge;
pub mod client;
mod config;
mod endpoint;
mod error;
mod retry;
mod transport;
mod url;

pub use client::{
    BlobReader, Client, Download, DownloadError, DownloadReader, DownloadRequest, Fetched, LoginOutcome, Probed,
};
pub use config::{Credential, Credentials, NoCredentials, Options, Proxies, RegistryConfig};
pub use endpoint::{DOCKER_HUB_SERVER, credential_key, is_loopback_host};
pub use error::{RegistryError, TransportError};
pub use retry::{Clock, SystemClock};
