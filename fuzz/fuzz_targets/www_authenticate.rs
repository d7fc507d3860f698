//! Any text as a `WWW-Authenticate` header: what is read is bounded by what was given.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| {
    for challenge in dhow_registry::challenge::parse(header) {
        assert!(!challenge.scheme.is_empty() && !challenge.scheme.bytes().any(|c| c.is_ascii_uppercase()));
        for (name, value) in &challenge.params {
            assert!(!name.is_empty() && value.chars().count() <= header.len());
        }
    }
});
