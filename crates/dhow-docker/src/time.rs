//! Points in time as `--since`, `--until` and the `until` filter take them, and as Docker shows them.

use crate::GrammarError;
use dhow_types::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// `unix[.nanoseconds]`, RFC 3339 with or without zone, seconds or time of day, or a Go duration that counts back
/// from `now`. A time without zone is local.
pub fn point(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, GrammarError> {
    let bad = || GrammarError::new("time", text, "expected a Unix time, RFC 3339, or a duration like 10m");
    if let Some(time) = unix(text) {
        return Ok(time);
    }
    if let Ok(ago) = crate::grammar::duration(text) {
        return now.checked_sub(jiff::SignedDuration::from_nanos(ago)).map_err(|_| bad());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    // Go also takes a time with a zone but without seconds.
    if let Some((head, tail)) = split_zone(text)
        && let Ok(time) = format!("{head}:00{tail}").parse::<Timestamp>()
    {
        return Ok(time);
    }
    let local = text.parse::<DateTime>().or_else(|_| format!("{text}:00").parse());
    let local = local.map_err(|_| bad())?;
    zone.to_timestamp(local).map_err(|_| bad())
}

fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|c| c.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanoseconds).ok()
}

fn split_zone(text: &str) -> Option<(&str, &str)> {
    if let Some(head) = text.strip_suffix('Z') {
        return Some((head, "Z"));
    }
    let at = text.len().checked_sub(6)?;
    let (head, tail) = text.split_at_checked(at)?;
    (tail.starts_with(['+', '-']) && head.contains('T')).then_some((head, tail))
}

/// RFC 3339 with nanoseconds and without trailing zeros, as Go prints times in `inspect`.
pub fn rfc3339_nano(time: Timestamp) -> String {
    time.to_string()
}

/// RFC 3339 with nine digits of a second always, as `logs -t` prints: lines of text begin in one column.
pub fn rfc3339_fixed(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// The time that Docker writes for "never".
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// `2006-01-02 15:04:05 -0700 MST`, as the `CreatedAt` columns show it.
pub fn created_at(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points() {
        let now: Timestamp = "2024-05-06T07:08:09Z".parse().unwrap();
        let at = |t: &str| point(t, now, &TimeZone::fixed(jiff::tz::offset(2))).map(|t| t.to_string());
        assert_eq!(at("10m").unwrap(), "2024-05-06T06:58:09Z");
        assert_eq!(at("1h30m").unwrap(), "2024-05-06T05:38:09Z");
        assert_eq!(at("1714979289").unwrap(), "2024-05-06T07:08:09Z");
        assert_eq!(at("1714979289.5").unwrap(), "2024-05-06T07:08:09.5Z");
        assert_eq!(at("2024-05-06T07:08:09.123456789Z").unwrap(), "2024-05-06T07:08:09.123456789Z");
        assert_eq!(at("2024-05-06T07:08:09+02:00").unwrap(), "2024-05-06T05:08:09Z");
        assert_eq!(at("2024-05-06T07:08Z").unwrap(), "2024-05-06T07:08:00Z");
        assert_eq!(at("2024-05-06T07:08").unwrap(), "2024-05-06T05:08:00Z");
        assert_eq!(at("2024-05-06").unwrap(), "2024-05-05T22:00:00Z");
        for bad in ["", "yesterday", "2024-13-01", "ä"] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert_eq!(rfc3339_fixed(now), "2024-05-06T07:08:09.000000000Z");
        assert_eq!(created_at(now, &TimeZone::UTC), "2024-05-06 07:08:09 +0000 UTC");
    }
}
