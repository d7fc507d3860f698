//! Rules about crates and what they depend on.

use crate::sh::{self, Context, Failure, Result};
use serde_json::Value;
use std::path::PathBuf;

/// The shape of the workspace: which of our crates each crate may use. Everything not listed is forbidden.
const EDGES: &[(&str, &[&str])] = &[
    ("dhow-types", &[]),
    ("dhow-sys", &[]),
    ("dhow-dockerfile", &["dhow-types"]),
    ("dhow-oci", &["dhow-types"]),
    ("dhow-store", &["dhow-types", "dhow-oci", "dhow-sys"]),
    ("dhow-registry", &["dhow-types", "dhow-oci"]),
    ("dhow-network", &["dhow-types", "dhow-sys"]),
    ("dhow-runtime", &["dhow-types", "dhow-oci", "dhow-sys"]),
    ("dhow-logs", &["dhow-types", "dhow-sys"]),
    ("dhow-docker", &["dhow-types", "dhow-oci"]),
    ("dhow-build", &["dhow-types", "dhow-oci", "dhow-dockerfile", "dhow-sys"]),
    ("dhow-monitor", &["dhow-types", "dhow-oci", "dhow-sys", "dhow-runtime", "dhow-logs"]),
    (
        "dhow-engine",
        &[
            "dhow-types",
            "dhow-oci",
            "dhow-sys",
            "dhow-dockerfile",
            "dhow-store",
            "dhow-registry",
            "dhow-network",
            "dhow-runtime",
            "dhow-logs",
            "dhow-docker",
            "dhow-build",
            "dhow-monitor",
        ],
    ),
    (
        "dhow-cli",
        &[
            "dhow-types",
            "dhow-oci",
            "dhow-sys",
            "dhow-store",
            "dhow-registry",
            "dhow-runtime",
            "dhow-logs",
            "dhow-docker",
            "dhow-dockerfile",
            "dhow-monitor",
            "dhow-engine",
        ],
    ),
    ("dhow", &["dhow-cli", "dhow-engine", "dhow-monitor", "dhow-sys"]),
    ("dhow-testkit", &["dhow-types", "dhow-oci", "dhow-sys"]),
    ("xtask", &["dhow-testkit"]),
];

/// Licences that may be linked into the binary.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Crates that must not come in, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "TLS is rustls with ring"),
    ("aws-lc-sys", "needs cmake and breaks static builds; use ring"),
    ("libseccomp", "a C library; filters are generated here"),
    ("libseccomp-sys", "a C library; filters are generated here"),
    ("tokio", "no async runtime"),
    ("async-std", "no async runtime"),
    ("tokio-tar", "unmaintained, RUSTSEC-2025-0111"),
];

fn manifests() -> Result<Vec<(String, String)>> {
    let root = sh::root();
    let mut files: Vec<PathBuf> = vec![root.join("xtask/Cargo.toml")];
    for entry in std::fs::read_dir(root.join("crates")).context("crates")? {
        files.push(entry.context("crates")?.path().join("Cargo.toml"));
    }
    files.sort();
    let mut out = Vec::new();
    for file in files.iter().filter(|f| f.is_file()) {
        let text = sh::text(file)?;
        let name = text.lines().find_map(|l| l.strip_prefix("name = ")).map(|n| n.trim_matches('"').to_owned());
        out.push((name.ok_or_else(|| Failure::new(format!("{}: no name", file.display())))?, text));
    }
    Ok(out)
}

/// Names of the keys in `[dependencies]` (and `[dev-dependencies]` when `dev`).
fn dependencies(manifest: &str, dev: bool) -> Vec<&str> {
    let mut section = "";
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]" || (dev && section == "[dev-dependencies]") {
            names.extend(line.split(['.', '=', ' ']).next().filter(|n| !n.is_empty() && !n.starts_with('#')));
        }
    }
    names
}

/// Edges between our crates that the table does not allow; crates that it does not know.
pub fn edges() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, text) in manifests()? {
        let Some((_, allowed)) = EDGES.iter().find(|(n, _)| *n == name) else {
            found.push(format!("{name} has no place in the table of levels"));
            continue;
        };
        for dependency in dependencies(&text, false).iter().filter(|d| d.starts_with("dhow")) {
            if !allowed.contains(dependency) {
                found.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    Ok(found)
}

/// Crates that do not take the workspace's lints (`unsafe_code = "forbid"`); only `dhow-sys` has its own.
pub fn lints() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, text) in manifests()? {
        let inherits = text.contains("[lints]\nworkspace = true");
        if !inherits && name != "dhow-sys" {
            found.push(format!("{name}: no [lints] workspace = true"));
        }
    }
    if !sh::text(&sh::root().join("Cargo.toml"))?.contains("unsafe_code = \"forbid\"") {
        found.push("the workspace does not forbid unsafe code".to_owned());
    }
    Ok(found)
}

/// What is wrong with the licences and names of everything that is linked.
pub fn licences() -> Result<Vec<String>> {
    let text = sh::read(sh::cargo().args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        "x86_64-unknown-linux-musl",
    ]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    let linked = linked_packages(&metadata);
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or("?");
        if !linked.contains(&package["id"].as_str().unwrap_or("")) {
            continue;
        }
        if let Some((_, reason)) = BANNED.iter().find(|(n, _)| *n == name) {
            found.push(format!("{name} is banned: {reason}"));
        }
        let licence = package["license"].as_str().unwrap_or("");
        if !accepted(licence) {
            found.push(format!("{name}: licence '{licence}'"));
        }
    }
    Ok(found)
}

/// Package ids reachable from the binary by normal dependencies.
fn linked_packages(metadata: &Value) -> Vec<&str> {
    let nodes = metadata["resolve"]["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut queue: Vec<&str> =
        packages.iter().filter(|p| p["name"] == "dhow").filter_map(|p| p["id"].as_str()).collect();
    let mut seen = queue.clone();
    while let Some(id) = queue.pop() {
        let Some(node) = nodes.iter().find(|n| n["id"] == id) else { continue };
        for dependency in node["deps"].as_array().into_iter().flatten() {
            let kinds = dependency["dep_kinds"].as_array().map(Vec::as_slice).unwrap_or_default();
            let normal = kinds.iter().any(|k| k["kind"].is_null());
            let id = dependency["pkg"].as_str().unwrap_or("");
            if normal && !seen.contains(&id) {
                seen.push(id);
                queue.push(id);
            }
        }
    }
    seen
}

/// Whether an SPDX expression can be satisfied with accepted licences (`/` is an old way to write OR).
fn accepted(expression: &str) -> bool {
    let plain = expression.replace('/', " OR ").replace(['(', ')'], "");
    // Without brackets AND binds tighter; a bracketed OR inside an AND is satisfied if each word of it could be.
    plain
        .split(" OR ")
        .any(|option| !option.trim().is_empty() && option.split(" AND ").all(|l| LICENCES.contains(&l.trim())))
}

/// Differences between `deny.toml` and the two lists above.
pub fn deny_file() -> Result<Vec<String>> {
    let text = sh::text(&sh::root().join("deny.toml"))?;
    let mut found = Vec::new();
    for licence in LICENCES.iter().filter(|l| !text.contains(&format!("\"{l}\""))) {
        found.push(format!("deny.toml does not allow {licence}"));
    }
    for (name, _) in BANNED.iter().filter(|(n, _)| !text.contains(&format!("\"{n}\""))) {
        found.push(format!("deny.toml does not ban {name}"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions() {
        for yes in ["MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "Apache-2.0 AND ISC", "GPL-2.0 OR MIT"]
        {
            assert!(accepted(yes), "{yes}");
        }
        for no in ["", "GPL-3.0-only", "MIT AND LGPL-2.1", "MPL-2.0"] {
            assert!(!accepted(no), "{no}");
        }
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Every crate comes after all that it may use.
        for (at, (name, allowed)) in EDGES.iter().enumerate() {
            for dependency in *allowed {
                let place = EDGES.iter().position(|(n, _)| n == dependency);
                assert!(place.is_some_and(|p| p < at), "{name} -> {dependency}");
            }
        }
    }
}
