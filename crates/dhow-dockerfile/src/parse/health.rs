//! `HEALTHCHECK`.

use super::flags::Flags;
use crate::duration::parse_duration;
use crate::error::{Problem, clip};
use crate::instruction::{CommandLine, HealthProbe};
use crate::lines::Statement;
use crate::words::{json_array, split_first};

/// Shortest duration the engine accepts, in nanoseconds.
const SHORTEST: i64 = 1_000_000;

pub(super) fn healthcheck(s: &Statement) -> Result<Option<HealthProbe>, Problem> {
    let mut flags = Flags::new(s);
    let mut time = |name| -> Result<i64, Problem> {
        let Some(value) = flags.text(name)? else { return Ok(0) };
        let bad = || Problem::Duration { flag: name.to_owned(), value: clip(&value, 60) };
        match parse_duration(&value).ok_or_else(bad)? {
            0 => Ok(0),
            ns if ns < SHORTEST => Err(Problem::DurationTooShort(name.to_owned())),
            ns => Ok(ns),
        }
    };
    let (interval, timeout) = (time("interval")?, time("timeout")?);
    let (start_period, start_interval) = (time("start-period")?, time("start-interval")?);
    let retries = match flags.text("retries")? {
        None => 0,
        Some(value) => match value.parse::<i32>() {
            Ok(n) if n >= 0 => n.into(),
            _ => return Err(Problem::Number { flag: "retries".to_owned(), value: clip(&value, 60) }),
        },
    };
    flags.finish()?;
    let (kind, rest) = split_first(&s.args);
    match kind.to_ascii_uppercase().as_str() {
        "" => Err(Problem::NoArgument("HEALTHCHECK")),
        "NONE" if rest.is_empty() => Ok(None),
        "NONE" => Err(Problem::HealthNone),
        "CMD" => {
            let command = match json_array(rest)? {
                Some(argv) if argv.is_empty() => return Err(Problem::HealthCommand),
                Some(argv) => CommandLine::Exec(argv),
                None if rest.is_empty() => return Err(Problem::HealthCommand),
                None => CommandLine::Shell(rest.to_owned()),
            };
            Ok(Some(HealthProbe { command, interval, timeout, start_period, start_interval, retries }))
        }
        _ => Err(Problem::HealthType(clip(kind, 60))),
    }
}
