//! Sizes, durations, CPU counts and resource limits.

use crate::GrammarError;
use dhow_types::{Resources, Ulimit};

/// A size as Docker's memory flags take it: a number with an optional fraction and one of `b k m g t p` (with an
/// optional `b` or `ib`), case-insensitive, powers of 1024. The result is in bytes.
pub fn bytes(text: &str) -> Result<u64, GrammarError> {
    size(text, 1024)
}

/// A size in powers of 1000 (log options `max-size`, `max-buffer-size`).
pub fn decimal_bytes(text: &str) -> Result<u64, GrammarError> {
    size(text, 1000)
}

fn size(text: &str, base: u64) -> Result<u64, GrammarError> {
    let bad = || GrammarError::Worded(format!("invalid size: '{}'", crate::error::clip(text)));
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit == "ib" => return Err(bad()),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let factor = base.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).filter(|n| *n <= i64::MAX as u64).ok_or_else(bad);
    }
    let value = number.parse::<f64>().map_err(|_| bad())? * factor as f64;
    if value.is_finite() && (0.0..9.2e18).contains(&value) { Ok(value as u64) } else { Err(bad()) }
}

/// A duration in Go's grammar (`1h30m`, `1.5s`, `200ms`), in nanoseconds.
pub fn duration(text: &str) -> Result<i64, GrammarError> {
    let bad = || GrammarError::Worded(format!("invalid duration {:?}", crate::error::clip(text)));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| {
            GrammarError::Worded(format!("time: missing unit in duration {:?}", crate::error::clip(text)))
        })?;
        let value: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        total += value * unit;
        rest = &rest[end..];
    }
    if total > i64::MAX as f64 {
        return Err(bad());
    }
    let nanoseconds = total.round() as i64;
    Ok(if negative { -nanoseconds } else { nanoseconds })
}

/// A number of CPUs, in units of 10⁻⁹ CPU.
pub fn cpus(text: &str) -> Result<u64, GrammarError> {
    let bad = || GrammarError::Worded(format!("failed to parse {} as a rational number", crate::error::clip(text)));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(bad());
    }
    if fraction.len() > 9 {
        return Err(GrammarError::Worded("value is too precise".to_owned()));
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
    whole.checked_mul(1_000_000_000).and_then(|w| w.checked_add(fraction)).ok_or_else(bad)
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `NAME=SOFT[:HARD]`, -1 being unlimited.
pub fn ulimit(text: &str) -> Result<Ulimit, GrammarError> {
    let clip = crate::error::clip(text);
    let Some((name, values)) = text.split_once('=').filter(|(_, v)| !v.is_empty()) else {
        return Err(GrammarError::Worded(format!("invalid ulimit argument: {clip}")));
    };
    if !ULIMITS.contains(&name) {
        return Err(GrammarError::Worded(format!("invalid ulimit type: {}", crate::error::clip(name))));
    }
    let value = |t: &str| match t {
        "-1" => Ok(u64::MAX),
        t => t.parse::<u64>().map_err(|_| GrammarError::new("ulimit", text, "limits are numbers, or -1 for unlimited")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    if soft > hard {
        return Err(GrammarError::Worded(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// Docker's rules between limits. `cpus` is the number of CPUs of the machine.
pub fn check_resources(r: &Resources, cpus: u64) -> Result<(), GrammarError> {
    const MIN_MEMORY: u64 = 6 << 20;
    let bad = |message: &str| Err(GrammarError::Worded(message.to_owned()));
    if r.memory.is_some_and(|m| m < MIN_MEMORY) {
        return bad("Minimum memory limit allowed is 6MB");
    }
    if let Some(swap) = r.memory_swap.filter(|s| *s > 0) {
        match r.memory {
            None => return bad("You should always set the Memory limit when using Memoryswap limit"),
            Some(memory) if (swap as u64) < memory => {
                return bad("Minimum memoryswap limit should be larger than memory limit");
            }
            Some(_) => {}
        }
    }
    if let (Some(soft), Some(hard)) = (r.memory_reservation, r.memory)
        && soft > hard
    {
        return bad("Minimum memory limit can not be less than memory reservation limit");
    }
    if let Some(nano) = r.nano_cpus {
        if nano < 10_000_000 || nano > cpus.saturating_mul(1_000_000_000) {
            return Err(GrammarError::Worded(format!(
                "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )));
        }
        if r.cpu_period.is_some() || r.cpu_quota.is_some() {
            return bad("Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set");
        }
    }
    if r.cpu_period.is_some_and(|p| !(1_000..=1_000_000).contains(&p)) {
        return bad("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if r.cpu_quota.is_some_and(|q| q > 0 && q < 1_000) {
        return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if r.blkio_weight.is_some_and(|w| !(10..=1000).contains(&w)) {
        return bad("Range of blkio weight is from 10 to 1000");
    }
    if r.oom_score_adj.is_some_and(|s| !(-1000..=1000).contains(&s)) {
        return bad("Invalid value for oom score adj. The range is [-1000, 1000]");
    }
    Ok(())
}
