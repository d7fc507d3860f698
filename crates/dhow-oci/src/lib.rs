//! OCI and Docker documents.
//!
//! [`image`] holds manifests, indexes and image configs (OCI image-spec 1.1 and Docker's schema 2, which share their
//! JSON). [`runtime`] holds the part of the OCI runtime-spec 1.2 that dhow's runtime obeys. Unknown fields of image
//! documents survive a round trip; the *bytes* of a pulled document are what its digest names and are kept as they came.

pub mod image;
pub mod runtime;
