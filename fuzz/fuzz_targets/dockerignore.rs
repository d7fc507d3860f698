//! The first line is a path, the rest an ignore file: asking for the path at once and step by step must agree.
#![no_main]

use dhow_dockerfile::{IgnoreList, ParentMatch, glob};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (path, patterns) = text.split_once('\n').unwrap_or((text, ""));
    let _ = glob::matches(patterns, path);
    let Ok(list) = IgnoreList::parse(patterns.as_bytes()) else { return };
    let mut parent = ParentMatch::default();
    let mut last = false;
    for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
        (last, parent) = list.excludes_entry(&path[..end], &parent);
    }
    assert_eq!(last, list.excludes(path));
    let _ = list.may_include_below(path);
});
