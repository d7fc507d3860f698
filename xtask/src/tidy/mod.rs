//! The rules of this repository, as ordinary tests: each check returns what breaks it.
//!
//! `cargo xtask tidy` runs them all at once; `cargo test -p xtask` runs each as a test of its own.

mod code;
mod dependencies;
mod documents;
mod source;

use crate::sh::{Args, Failure, Result};

/// A rule: its name, and the function that lists what breaks it.
type Rule = (&'static str, fn() -> Result<Vec<String>>);

const RULES: &[Rule] = &[
    ("crates depend on lower levels only", dependencies::edges),
    ("every crate forbids unsafe by the workspace lints", dependencies::lints),
    ("dependencies have accepted licences and none is banned", dependencies::licences),
    ("deny.toml says the same as these rules", dependencies::deny_file),
    ("unsafe only in dhow-sys, each block explained", code::unsafe_code),
    ("functions are at most 100 lines", code::function_length),
    ("files are at most 800 lines", code::file_length),
    ("printing, environment and processes only in front ends", code::forbidden_calls),
    ("no ignored tests", code::ignored_tests),
    ("every module says what it is", code::module_headers),
    ("ARCHITECTURE.md maps every crate and module folder", documents::code_map),
    ("CHANGELOG.md keeps its form", documents::changelog),
    ("every design document is listed", documents::design_index),
    ("every fuzz target is registered", documents::fuzz_targets),
    ("nothing names a place of one machine", documents::private_words),
];

/// Runs the task.
pub fn main(args: &[String]) -> Result {
    Args::parse(args, &[], &[])?;
    let mut broken = 0;
    for (name, rule) in RULES {
        let found = rule()?;
        for line in &found {
            eprintln!("{name}: {line}");
        }
        broken += found.len();
    }
    if broken > 0 {
        return Err(Failure::new(format!("{broken} breaches of the rules")));
    }
    println!("tidy: {} rules hold", RULES.len());
    Ok(())
}

/// Fails a test with every breach on a line of its own.
#[cfg(test)]
fn holds(rule: fn() -> Result<Vec<String>>) {
    let found = rule().unwrap();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! rules {
        ($($name:ident: $module:ident;)*) => {
            $(#[test] fn $name() { holds($module::$name); })*

            #[test]
            fn every_rule_is_a_test() {
                assert_eq!(RULES.len(), [$(stringify!($name)),*].len());
            }
        };
    }

    rules! {
        edges: dependencies;
        lints: dependencies;
        licences: dependencies;
        deny_file: dependencies;
        unsafe_code: code;
        function_length: code;
        file_length: code;
        forbidden_calls: code;
        ignored_tests: code;
        module_headers: code;
        code_map: documents;
        changelog: documents;
        design_index: documents;
        fuzz_targets: documents;
        private_words: documents;
    }
}
