//! Flag texts of any shape never panic, and a binding never names port 0.
#![no_main]

use dhow_docker::grammar;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    for binding in grammar::port(text).unwrap_or_default() {
        assert_ne!(binding.container.port, 0);
    }
    let _ = grammar::expose(text);
    let _ = grammar::volume(text, Path::new("/"));
    let _ = grammar::mount(text, Path::new("/"));
    let _ = grammar::network(text);
    let _ = grammar::add_host(text);
    let _ = grammar::bytes(text);
    let _ = grammar::duration(text);
    let _ = grammar::env_file("file", text.as_bytes());
    let _ = dhow_docker::filter::path_match(text, text);
});
