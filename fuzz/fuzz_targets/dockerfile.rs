//! Any bytes as a Dockerfile; every trigger that the parser stores must parse again.
#![no_main]

use dhow_dockerfile::{Command, Dockerfile, parse_trigger};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Dockerfile::parse(bytes) else { return };
    assert!(!file.stages.is_empty());
    // A trigger is stored without the file's escape directive, so only the default escape round-trips.
    if file.directives.escape != '\\' {
        return;
    }
    for instruction in file.stages.iter().flat_map(|s| &s.instructions) {
        assert!(instruction.span.start <= instruction.span.end);
        if let Command::OnBuild(on) = &instruction.command {
            let _ = parse_trigger(&on.trigger);
        }
    }
});
