//! Rules about documents.

use super::source;
use crate::sh::{self, Context, Result};
use std::path::Path;

/// Names in a directory, sorted; none when it is not there.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut out = Vec::new();
    if dir.is_dir() {
        for entry in std::fs::read_dir(dir).context(dir.display())? {
            out.push(entry.context(dir.display())?.file_name().to_string_lossy().into_owned());
        }
    }
    out.sort();
    Ok(out)
}

/// Crates and module folders that the code map in ARCHITECTURE.md does not name.
pub fn code_map() -> Result<Vec<String>> {
    let root = sh::root();
    let text = sh::text(&root.join("ARCHITECTURE.md"))?;
    let mut places = vec!["xtask".to_owned()];
    places.extend(names(&root.join("crates"))?.into_iter().map(|n| format!("crates/{n}")));
    let mut found = Vec::new();
    for place in places {
        let mut wanted = vec![place.clone()];
        for name in names(&root.join(&place).join("src"))? {
            if root.join(&place).join("src").join(&name).is_dir() {
                wanted.push(format!("{place}/src/{name}"));
            }
        }
        found.extend(wanted.into_iter().filter(|w| !text.contains(&format!("`{w}`"))).map(|w| format!("no `{w}`")));
    }
    let mentioned = text.split('`').skip(1).step_by(2).filter(|t| t.starts_with("crates/") || t.starts_with("xtask/"));
    found.extend(mentioned.filter(|m| !root.join(m).exists()).map(|m| format!("`{m}` is gone")));
    Ok(found)
}

/// Lines of CHANGELOG.md that are neither a heading of a known form, a bullet, its continuation nor empty.
pub fn changelog() -> Result<Vec<String>> {
    let text = sh::text(&sh::root().join("CHANGELOG.md"))?;
    let mut found = Vec::new();
    if !text.starts_with("# Changelog\n") {
        found.push("does not start with '# Changelog'".to_owned());
    }
    let mut in_release = false;
    for (number, line) in text.lines().enumerate().skip(1) {
        let good = match line {
            "" => true,
            _ if line.starts_with("## ") => {
                in_release = true;
                line == "## Unreleased" || line[3..].starts_with(|c: char| c.is_ascii_digit())
            }
            _ if line.starts_with("### ") => ["Added", "Changed", "Fixed", "Removed", "Security"].contains(&&line[4..]),
            _ if in_release => line.starts_with("- ") || line.starts_with("  "),
            _ => true,
        };
        if !good {
            found.push(format!("line {}: {line}", number + 1));
        }
    }
    Ok(found)
}

/// Files in docs/design that its README does not list.
pub fn design_index() -> Result<Vec<String>> {
    let dir = sh::root().join("docs/design");
    let index = sh::text(&dir.join("README.md"))?;
    let files = names(&dir)?;
    Ok(files
        .into_iter()
        .filter(|n| n.ends_with(".md") && n != "README.md" && !index.contains(&format!("({n})")))
        .map(|n| format!("docs/design/{n} is not listed in docs/design/README.md"))
        .collect())
}

/// Fuzz targets that fuzz/Cargo.toml or fuzz/README.md does not know.
pub fn fuzz_targets() -> Result<Vec<String>> {
    let dir = sh::root().join("fuzz");
    let targets = names(&dir.join("fuzz_targets"))?;
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let manifest = sh::text(&dir.join("Cargo.toml"))?;
    Ok(targets
        .iter()
        .filter_map(|n| n.strip_suffix(".rs"))
        .filter(|n| !manifest.contains(&format!("name = \"{n}\"")))
        .map(|n| format!("fuzz target {n} is not in fuzz/Cargo.toml"))
        .collect())
}

/// Files that speak of the place where they were written instead of the project.
pub fn private_words() -> Result<Vec<String>> {
    // Put together here, so that this file does not contain them itself.
    let words = [["/wo", "rk/"].concat(), ["/tmp/", "plan"].concat(), ["fire", "cracker-init"].concat()];
    let root = sh::root();
    let mut found = Vec::new();
    let mut check = |path: &Path, text: &str| {
        for word in words.iter().filter(|w| text.contains(w.as_str())) {
            found.push(format!("{}: '{word}'", path.display()));
        }
    };
    for source in source::all()? {
        check(&source.path, &source.text);
    }
    let mut queue = vec![root.join("docs"), root.join("demo"), root.join(".ci")];
    queue.extend(names(&root)?.iter().filter(|n| n.ends_with(".md") || n.ends_with(".toml")).map(|n| root.join(n)));
    while let Some(path) = queue.pop() {
        if path.is_dir() {
            queue.extend(names(&path)?.iter().map(|n| path.join(n)));
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            check(&path, &text);
        }
    }
    Ok(found)
}
