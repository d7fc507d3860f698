//! `--name=value` words before an instruction's arguments.

use crate::error::{Problem, clip};
use crate::lines::Statement;
use crate::suggest::closest;

/// The flags of one statement. Each is asked for by name; [`Flags::finish`] then refuses what nobody asked for.
pub(super) struct Flags {
    given: Vec<(String, Option<String>)>,
    known: Vec<&'static str>,
}

impl Flags {
    pub(super) fn new(s: &Statement) -> Self {
        let split = |flag: &String| {
            let body = flag.strip_prefix("--").unwrap_or(flag);
            match body.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (body.to_owned(), None),
            }
        };
        Self { given: s.flags.iter().map(split).collect(), known: Vec::new() }
    }

    /// A flag that may be given several times.
    pub(super) fn list(&mut self, name: &'static str) -> Result<Vec<String>, Problem> {
        self.known.push(name);
        let missing = || Problem::FlagValue(name.to_owned());
        let (mine, rest) = std::mem::take(&mut self.given).into_iter().partition(|(n, _)| n == name);
        self.given = rest;
        let mine: Vec<(String, Option<String>)> = mine;
        mine.into_iter().map(|(_, value)| value.ok_or_else(missing)).collect()
    }

    /// A flag with a value, at most once.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut values = self.list(name)?;
        if values.len() > 1 {
            return Err(Problem::DuplicateFlag(name.to_owned()));
        }
        Ok(values.pop())
    }

    /// A boolean flag, at most once; without a value it is true.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<Option<bool>, Problem> {
        for (given, value) in self.given.iter_mut().filter(|(n, _)| n == name) {
            match value {
                None => *value = Some("true".to_owned()),
                Some(v) if v.is_empty() => return Err(Problem::FlagValue(given.clone())),
                Some(_) => {}
            }
        }
        self.text(name)?
            .map(|value| match value.to_ascii_lowercase().as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Problem::FlagBool { flag: name.to_owned(), value: clip(&value, 60) }),
            })
            .transpose()
    }

    /// Refuses every flag that was not asked for.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let Some((name, _)) = self.given.first() else { return Ok(()) };
        let suggestion = closest(name, self.known.iter().copied()).map(|s| format!("--{s}"));
        Err(Problem::UnknownFlag { name: clip(name, 60), suggestion })
    }
}
