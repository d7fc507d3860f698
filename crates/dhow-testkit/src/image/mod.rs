//! Images as archives: well-formed ones made of busybox, and any malformed one that a test wants.

mod builder;
mod busybox;
mod entry;
mod saved;

pub use builder::{Blob, ImageBuilder};
pub use busybox::{busybox_image, busybox_layer};
pub use entry::{Entry, Kind, Tar};
pub use saved::{SavedImage, layer_listing};

/// Lower-case hex of the SHA-256 of `bytes`.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// gzip with a fixed header, so that equal input gives equal output.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory accepts writes");
    encoder.finish().expect("memory accepts writes")
}
