//! Rules about Rust code.

use super::source::{self, Source, item_end};
use crate::sh::Result;

/// Longest function, in lines from `fn` to its closing brace.
const FUNCTION: usize = 100;
/// Longest file, in lines without its tests.
const FILE: usize = 800;

/// Crates that talk to people, the environment and other programs.
const FRONT_ENDS: &[&str] = &["dhow", "dhow-cli", "dhow-testkit", "xtask"];

fn each(mut check: impl FnMut(&Source, &mut Vec<String>)) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for source in source::all()? {
        check(&source, &mut found);
    }
    Ok(found)
}

/// Whether `word` stands in `line` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(name) && !line[at + word.len()..].chars().next().is_some_and(name)
    })
}

/// `unsafe` outside `dhow-sys`, or there without a `SAFETY:` comment right above.
pub fn unsafe_code() -> Result<Vec<String>> {
    each(|source, found| {
        let text: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code.lines().enumerate() {
            if !has_word(line, "unsafe") || line.contains("unsafe_code") {
                continue;
            }
            if source.member() != "dhow-sys" {
                found.push(format!("{}:{}: unsafe", source.path.display(), number + 1));
                continue;
            }
            let block = line.contains("unsafe {") || line.contains("unsafe impl");
            let explained = (number.saturating_sub(8)..=number).any(|n| text[n].contains("SAFETY:"));
            if block && !explained {
                found.push(format!("{}:{}: no SAFETY comment", source.path.display(), number + 1));
            }
        }
    })
}

/// Functions over the budget that carry no `#[expect(clippy::too_many_lines, reason = …)]`.
pub fn function_length() -> Result<Vec<String>> {
    each(|source, found| {
        let lines: Vec<&str> = source.code.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if !is_function(line) || source.test_lines[number] {
                continue;
            }
            let length = item_end(&lines, number) - number + 1;
            let excused =
                (number.saturating_sub(6)..number).any(|n| lines[n].contains("expect(clippy::too_many_lines"));
            if length > FUNCTION && !excused {
                found.push(format!("{}:{}: {length} lines", source.path.display(), number + 1));
            }
        }
    })
}

fn is_function(line: &str) -> bool {
    let line = line.trim_start();
    let mut words = line.split(|c: char| c.is_whitespace() || c == '(' || c == '<').filter(|w| !w.is_empty());
    let qualifiers = ["pub", "const", "unsafe", "async", "extern", "crate)", "super)", "in"];
    words.by_ref().find(|w| !qualifiers.contains(w) && !w.ends_with(')')) == Some("fn")
}

/// Files over the budget.
pub fn file_length() -> Result<Vec<String>> {
    each(|source, found| {
        let length = source.lines().count();
        if length > FILE {
            found.push(format!("{}: {length} lines", source.path.display()));
        }
    })
}

/// Calls that a crate may make in spite of the rule.
const EXCUSED: &[(&str, &str)] = &[
    // To execute the program again from a sealed copy, with the same arguments and environment.
    ("dhow-sys", "env::args_os"),
    ("dhow-sys", "env::vars_os"),
    // Repositories that builds name are fetched by the host's git.
    ("dhow-engine", "process::Command"),
];

/// Printing, environment variables, arguments and other programs below the front ends.
pub fn forbidden_calls() -> Result<Vec<String>> {
    const CALLS: &[(&str, &str)] = &[
        ("println!", "print"),
        ("eprintln!", "print"),
        ("print!", "print"),
        ("eprint!", "print"),
        ("dbg!", "print"),
        ("env::var", "read the environment"),
        ("env::var_os", "read the environment"),
        ("env::vars", "read the environment"),
        ("env::vars_os", "read the environment"),
        ("env::set_var", "change the environment"),
        ("env::args", "read the command line"),
        ("env::args_os", "read the command line"),
        ("process::Command", "run programs"),
        ("tokio::", "use an async runtime"),
    ];
    each(|source, found| {
        if FRONT_ENDS.contains(&source.member()) || source.path.ends_with("build.rs") {
            return;
        }
        for (number, line) in source.lines() {
            let names = |call: &str| has_word(line, call.trim_end_matches([':', '!'])) && line.contains(call);
            let excused = |call: &&str| EXCUSED.contains(&(source.member(), *call));
            if let Some((call, what)) = CALLS.iter().find(|(call, _)| names(call) && !excused(call)) {
                found.push(format!("{}:{number}: {call}: this crate does not {what}", source.path.display()));
            }
        }
    })
}

/// `#[ignore]`: a test runs or does not exist.
pub fn ignored_tests() -> Result<Vec<String>> {
    each(|source, found| {
        for (number, line) in source.code.lines().enumerate() {
            if line.contains("#[ignore") {
                found.push(format!("{}:{}: ignored test", source.path.display(), number + 1));
            }
        }
    })
}

/// Files without a `//!` header.
pub fn module_headers() -> Result<Vec<String>> {
    each(|source, found| {
        let first = source.text.lines().find(|l| !l.trim().is_empty() && !l.starts_with("#!["));
        if !source::is_test_file(&source.path) && !first.is_some_and(|l| l.starts_with("//!")) {
            found.push(format!("{}: no //! header", source.path.display()));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_recognised() {
        for yes in ["fn a() {", "    pub fn b(", "pub(crate) const unsafe fn c<T>(", "pub async fn d()"] {
            assert!(is_function(yes), "{yes}");
        }
        for no in ["let f = |fn_| 1;", "Fn(u8)", "type F = fn(u8);", "// fn a", "pub struct S;"] {
            assert!(!is_function(no), "{no}");
        }
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
        assert!(!has_word("my_print", "print"));
    }
}
