//! `# check=skip=A,B;error=true;experimental=C`

use super::rules::Rule;
use crate::error::clip;
use dhow_types::{Categorized, ErrorKind};

/// Build argument that replaces the directive.
pub const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Which rules are done and whether a finding is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckOptions {
    skip: Names,
    experimental: Names,
    /// A finding makes the build fail.
    pub error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Names {
    all: bool,
    list: Vec<String>,
}

impl Names {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self { all: true, list: Vec::new() },
            list => Self { all: false, list: list.split(',').map(|n| n.trim().to_owned()).collect() },
        }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.list.iter().any(|n| n == name)
    }
}

/// The options do not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse check options: {0}")]
pub struct CheckOptionsError(String);

impl Categorized for CheckOptionsError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        Some("write for instance # check=skip=StageNameCasing,JSONArgsRecommended;error=true".to_owned())
    }
}

impl CheckOptions {
    /// Reads a directive's value. What follows a blank is a remark.
    pub fn parse(text: &str) -> Result<Self, CheckOptionsError> {
        let mut options = Self::default();
        let text = text.split_ascii_whitespace().next().unwrap_or_default();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.split(';') {
            let bad = |what: &str| CheckOptionsError(format!("invalid check option {:?}", clip(what, 60)));
            let (key, value) = part.split_once('=').ok_or_else(|| bad(part))?;
            match key {
                "skip" => options.skip = Names::parse(value),
                "experimental" => options.experimental = Names::parse(value),
                // Go's strconv.ParseBool.
                "error" => match value {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => options.error = true,
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => options.error = false,
                    _ => return Err(bad(part)),
                },
                _ => return Err(bad(key)),
            }
        }
        Ok(options)
    }

    /// The options that a comment above an instruction adds for it alone.
    pub(super) fn of_comments(comments: &[String]) -> Option<Self> {
        let value = comments.iter().find_map(|c| {
            let (key, value) = c.split_once('=')?;
            key.trim_end().eq_ignore_ascii_case("check").then(|| value.trim())
        })?;
        Self::parse(value).ok()
    }

    /// Whether a rule is asked for (if experimental) or skipped.
    pub(super) fn names(&self, rule: &Rule) -> bool {
        if rule.experimental { self.experimental.has(rule.name) } else { self.skip.has(rule.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::{INVALID_DEFINITION_DESCRIPTION, STAGE_NAME_CASING};
    use super::*;

    #[test]
    fn grammar() {
        let o = CheckOptions::parse("skip=StageNameCasing,X;error=true // why").unwrap();
        assert!(o.error && o.names(STAGE_NAME_CASING) && !o.names(INVALID_DEFINITION_DESCRIPTION));
        let o = CheckOptions::parse("experimental=all").unwrap();
        assert!(!o.error && !o.names(STAGE_NAME_CASING) && o.names(INVALID_DEFINITION_DESCRIPTION));
        assert!(CheckOptions::parse("skip=all").unwrap().names(STAGE_NAME_CASING));
        assert_eq!(CheckOptions::parse("").unwrap(), CheckOptions::default());
        for (bad, message) in [
            ("skip", "failed to parse check options: invalid check option \"skip\""),
            ("skipp=a", "failed to parse check options: invalid check option \"skipp\""),
            ("error=maybe", "failed to parse check options: invalid check option \"error=maybe\""),
        ] {
            assert_eq!(CheckOptions::parse(bad).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn comments_of_an_instruction() {
        let of = |c: &str| CheckOptions::of_comments(&["text".to_owned(), c.to_owned()]);
        assert!(of("check=skip=StageNameCasing // fine here").unwrap().names(STAGE_NAME_CASING));
        assert_eq!(of("checked=skip=all"), None);
        assert_eq!(of("check=nonsense"), None);
    }
}
