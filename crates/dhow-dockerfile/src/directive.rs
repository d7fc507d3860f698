//! Parser directives: the `# key=value` lines at the very top of a Dockerfile.

use crate::error::{Problem, clip};

/// Recognises directives line by line until the first line that is none.
#[derive(Debug, Default)]
pub(crate) struct DirectiveScanner {
    done: bool,
    seen: Vec<&'static str>,
}

/// One directive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    pub(crate) key: &'static str,
    pub(crate) value: String,
}

const KEYS: [&str; 3] = ["syntax", "escape", "check"];

impl DirectiveScanner {
    /// Looks at the next physical line of the file (without its end).
    pub(crate) fn line(&mut self, line: &str) -> Result<Option<Directive>, Problem> {
        if self.done {
            return Ok(None);
        }
        let Some(found) = split(line) else {
            // Anything else, even an empty line or an ordinary comment, ends the directives.
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&found.key) {
            return Err(Problem::DuplicateDirective(found.key.to_owned()));
        }
        self.seen.push(found.key);
        Ok(Some(found))
    }
}

fn split(line: &str) -> Option<Directive> {
    let body = line.trim_start().strip_prefix('#')?.trim_start();
    let (key, value) = body.split_once('=')?;
    let (key, value) = (key.trim_end().to_ascii_lowercase(), value.trim());
    let key = KEYS.into_iter().find(|k| *k == key)?;
    (!value.is_empty()).then(|| Directive { key, value: value.to_owned() })
}

/// Names of the registry that `docker/…` is short for.
const HUB: [&str; 3] = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"];

/// Whether a frontend image (`# syntax=`, build argument `BUILDKIT_SYNTAX`) is one that this parser stands in for: Docker's
/// own Dockerfile frontend, version 1. Any other is a program that would have to be run, and means another language.
pub fn check_syntax(value: &str) -> Result<(), Problem> {
    // What follows a blank is handed to the frontend.
    let image = value.split_ascii_whitespace().next().unwrap_or_default();
    let short = HUB.iter().find_map(|hub| image.strip_prefix(hub)).unwrap_or(image);
    let short = short.split_once('@').map_or(short, |(name, _)| name);
    let (name, tag) = short.split_once(':').unwrap_or((short, "latest"));
    let ours = matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream");
    let one = tag.strip_prefix('1').is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']));
    let moving = ["latest", "labs", "experimental", "master", "master-labs", "master-experimental"].contains(&tag);
    if image.is_empty() || (ours && (one || moving)) {
        return Ok(());
    }
    Err(Problem::Frontend(clip(image, 100)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_keys_at_the_top() {
        let mut s = DirectiveScanner::default();
        assert_eq!(s.line("#syntax = a/b:1"), Ok(Some(Directive { key: "syntax", value: "a/b:1".into() })));
        assert_eq!(s.line("# Escape=`"), Ok(Some(Directive { key: "escape", value: "`".into() })));
        assert!(s.line("# escape=\\").is_err());
        let mut s = DirectiveScanner::default();
        assert_eq!(s.line("# just a comment"), Ok(None));
        assert_eq!(s.line("# escape=`"), Ok(None));
        for none in ["# escape", "# escape=", "", "FROM a=b", "# other=x"] {
            assert_eq!(DirectiveScanner::default().line(none), Ok(None), "{none}");
        }
    }

    #[test]
    fn only_docker_s_own_frontend_is_stood_in_for() {
        for good in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs",
            "docker/dockerfile:1-labs",
            "docker.io/docker/dockerfile:1",
            "docker/dockerfile:1@sha256:aa",
            "docker/dockerfile-upstream:1.4.0-rc1",
            "docker/dockerfile-upstream:master",
            "docker/dockerfile:experimental",
            "docker/dockerfile:1 mode=x",
        ] {
            assert_eq!(check_syntax(good), Ok(()), "{good}");
        }
        for bad in [
            "docker/dockerfile:2",
            "docker/dockerfile:10",
            "docker/dockerfile:0.9",
            "example.com/docker/dockerfile:1",
            "me/dockerfile:1",
            "dockerfile",
            "docker/dockerfilex:1",
            "https://x",
        ] {
            assert!(check_syntax(bad).is_err(), "{bad}");
        }
    }
}
