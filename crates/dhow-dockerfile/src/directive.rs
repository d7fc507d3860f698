//! Parser directives: the `# key=value` lines at the very top of a Dockerfile.

use crate::error::Problem;

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
}
