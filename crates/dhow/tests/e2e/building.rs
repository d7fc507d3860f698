//! Building, for the tests of it.

use dhow_testkit::Dhow;

/// Builds a context with this Dockerfile as the image `x`; returns the exit code and all text.
pub fn build(d: &Dhow, dockerfile: &str, options: &[&str]) -> (i32, String) {
    d.file("ctx/Dockerfile", dockerfile);
    let out = d.run(&[&["build", "-t", "x"], options, &[d.path("ctx").as_str()]].concat());
    (out.code, out.stdout + &out.stderr)
}

/// The same; it must succeed.
#[track_caller]
pub fn builds(d: &Dhow, dockerfile: &str, options: &[&str]) -> String {
    let (code, text) = build(d, dockerfile, options);
    assert_eq!(code, 0, "{text}");
    text
}

/// The same; it must fail as a build does, and say these words.
#[track_caller]
pub fn refuses(d: &Dhow, dockerfile: &str, options: &[&str], words: &[&str]) {
    let (code, text) = build(d, dockerfile, options);
    assert_eq!(code, 1, "{text}");
    for word in words {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
}
