//! `created_by` texts of history entries, in BuildKit's form.

use dhow_oci::image::HealthConfig;
use std::fmt::Write;

/// Comment of every entry.
pub(crate) const COMMENT: &str = "buildkit.dockerfile.v0";
/// Mark of entries that made a layer by a command or a copy.
pub(crate) const MARK: &str = " # buildkit";

/// Go's `%q` of a list of strings: `["a" "b"]`.
pub(crate) fn quoted_list(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|s| quoted(s)).collect();
    format!("[{}]", items.join(" "))
}

/// Go's `%v` of a list of strings: `[a b]`.
pub(crate) fn plain_list(list: &[String]) -> String {
    format!("[{}]", list.join(" "))
}

/// Go's `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        let _ = match c {
            '"' => write!(out, "\\\""),
            '\\' => write!(out, "\\\\"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            '\u{7}' => write!(out, "\\a"),
            '\u{8}' => write!(out, "\\b"),
            '\u{b}' => write!(out, "\\v"),
            '\u{c}' => write!(out, "\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(out, "\\x{:02x}", c as u32),
            c if c.is_control() => write!(out, "\\u{:04x}", c as u32),
            c => write!(out, "{c}"),
        };
    }
    out.push('"');
    out
}

/// `RUN`: the arguments in scope, then the command.
pub(crate) fn run(args: &[(String, String)], argv: &[String]) -> String {
    let mut words = Vec::new();
    if !args.is_empty() {
        words.push(format!("|{}", args.len()));
        words.extend(args.iter().map(|(k, v)| format!("{k}={v}")));
    }
    words.extend(argv.iter().cloned());
    format!("RUN {}{MARK}", words.join(" "))
}

/// `HEALTHCHECK`: Go's `%+v` of the configuration.
pub(crate) fn healthcheck(h: &HealthConfig) -> String {
    format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain_list(&h.test),
        duration(h.interval),
        duration(h.timeout),
        duration(h.start_period),
        duration(h.start_interval),
        h.retries
    )
}

/// Go's `time.Duration.String`.
fn duration(ns: i64) -> String {
    let total = ns.unsigned_abs();
    let sign = if ns < 0 { "-" } else { "" };
    let decimal = |unit: u64, suffix: &str| {
        let fraction = format!("{:0width$}", total % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{}{dot}{fraction}{suffix}", total / unit)
    };
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let seconds = total / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let fraction = format!("{:09}", total % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() { "" } else { "." };
            let rest = format!("{}{dot}{fraction}s", seconds % 60);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{rest}"),
                (0, m) => format!("{sign}{m}m{rest}"),
                (h, m) => format!("{sign}{h}h{m}m{rest}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let list = ["/bin/sh".to_owned(), "-c".to_owned(), "echo \"a\"\n".to_owned()];
        assert_eq!(quoted_list(&list), r#"["/bin/sh" "-c" "echo \"a\"\n"]"#);
        assert_eq!(plain_list(&["/data".to_owned()]), "[/data]");
    }

    #[test]
    fn runs() {
        let argv = ["/bin/sh".to_owned(), "-c".to_owned(), "make".to_owned()];
        assert_eq!(run(&[], &argv), "RUN /bin/sh -c make # buildkit");
        let args = [("A".to_owned(), "1".to_owned())];
        assert_eq!(run(&args, &argv), "RUN |1 A=1 /bin/sh -c make # buildkit");
    }

    #[test]
    fn durations() {
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_500_000_000, "1.5s"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }
}
