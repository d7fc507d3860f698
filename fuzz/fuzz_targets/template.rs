//! A `--format` text never panics and never runs for ever.
#![no_main]

use dhow_docker::table::Format;
use dhow_docker::template::Template;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Format::parse(text);
    if let Ok(template) = Template::parse(text) {
        let data = serde_json::json!({"Name": "/web", "State": {"Pid": 1}, "Args": ["a", "b"], "Nothing": null});
        let _ = template.render(&data, &[]);
    }
});
