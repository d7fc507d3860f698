//! Building test programs and finding them.

use crate::sh::{self, Context, Failure, Result};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;

/// A program full of tests.
#[derive(Debug)]
pub struct Program {
    /// Cargo's name of the target: a crate or an integration test.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Directory of its package, in which it runs.
    pub directory: PathBuf,
}

/// Builds the tests of the packages that `selection` (arguments of `cargo test`) names.
pub fn test_programs(selection: &[&str]) -> Result<Vec<Program>> {
    let mut cargo = sh::cargo();
    cargo.args(["test", "--no-run", "--quiet", "--locked", "--message-format=json-render-diagnostics"]).args(selection);
    let output = cargo.stderr(Stdio::inherit()).stdin(Stdio::null()).output().context("cargo test")?;
    if !output.status.success() {
        return Err(Failure::new("the tests do not compile"));
    }
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
        if let (true, Some(path)) = (test, message["executable"].as_str()) {
            let manifest = PathBuf::from(message["manifest_path"].as_str().unwrap_or("."));
            programs.push(Program {
                name: message["target"]["name"].as_str().unwrap_or("?").to_owned(),
                path: path.into(),
                directory: manifest.parent().map(PathBuf::from).unwrap_or_default(),
            });
        }
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}
