//! Any bytes as a manifest or index: one document is one thing, and a second reading agrees with the first.
#![no_main]

use dhow_oci::image::{Document, ImageConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = ImageConfig::parse(bytes);
    let again = match Document::parse(bytes, None) {
        Err(_) => return,
        Ok(Document::Manifest(manifest)) => serde_json::to_vec(&manifest),
        Ok(Document::Index(index)) => {
            let _ = index.choose(&dhow_types::Platform::host());
            serde_json::to_vec(&index)
        }
    };
    let again = again.expect("a document that was read can be written");
    assert!(Document::parse(&again, None).is_ok());
});
