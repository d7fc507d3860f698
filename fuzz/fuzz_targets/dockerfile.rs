//! Any bytes as a Dockerfile: it parses or it does not, every trigger that the parser stores must parse again, and checks,
//! outlines and lists of targets can be had of whatever parsed.
#![no_main]

use dhow_dockerfile::checks::{self, Stages};
use dhow_dockerfile::{Command, Dockerfile, IgnoreList, Inputs, outline, parse_trigger, targets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (prefix, error) = Dockerfile::parse_prefix(bytes);
    let _ = checks::check_written(&prefix, &[]);
    let parsed = Dockerfile::parse(bytes);
    assert_eq!(parsed.as_ref().err(), error.as_ref());
    let Ok(file) = parsed else { return };
    assert!(!file.stages.is_empty());
    assert_eq!(targets(&file).len(), file.stages.len());
    let build_args = [("A".to_owned(), "$B:x".to_owned())];
    let ignore = IgnoreList::parse(b"*\n").unwrap_or_default();
    let inputs =
        Inputs { build_args: &build_args, target: None, platform: None, ignore: Some(&ignore), base: &|_, _| None };
    for which in [Stages::Needed, Stages::All] {
        if let Ok(checked) = checks::check(&file, &inputs, which) {
            let lines = bytes.split(|b| *b == b'\n').count() as u32;
            assert!(checked.findings.iter().all(|f| f.span.start >= 1 && f.span.start <= lines));
        }
    }
    let _ = outline(&file, &inputs);
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
