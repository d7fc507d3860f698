//! One record: `{"log":"text\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}`.

use dhow_types::Timestamp;
use std::borrow::Cow;

/// Longest text of one record, in bytes; longer lines are several records, only the last of which ends in a line end.
pub const MAX_TEXT: usize = 16 << 10;

/// Where a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output; with a terminal everything.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Docker's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it was written to.
    pub stream: Stream,
    /// When it was read from the container.
    pub time: Timestamp,
    /// The text, with its line end unless the line goes on in the next record.
    pub text: String,
}

#[derive(serde::Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Reads one line of a log, without or with its line end. `None` when nothing of it can be read.
///
/// A line may hold the start of a record that a crash cut off, followed by a whole one, and blocks that a power cut left
/// zeroed: the last whole record is taken.
pub fn parse_record(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if let Some(record) = parse_exact(line) {
        return Some(record);
    }
    const START: &[u8] = b"{\"log\":";
    let last = line.windows(START.len()).rposition(|w| w == START)?;
    if last == 0 { None } else { parse_exact(&line[last..]) }
}

fn parse_exact(line: &[u8]) -> Option<Record> {
    if line.first() != Some(&b'{') {
        return None;
    }
    let wire: Wire = serde_json::from_slice(line).ok()?;
    let stream = match &*wire.stream {
        "stdout" | "" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    Some(Record { stream, time: wire.time.parse().ok()?, text: wire.log.into_owned() })
}

/// Appends a record in the file's form, with its line end. Bytes that are not UTF-8 become U+FFFD, as in Docker's files.
pub fn encode_record(out: &mut Vec<u8>, stream: Stream, time: &str, text: &[u8]) {
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in text.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            // Go replaces each byte, not each sequence.
            (0..chunk.invalid().len()).for_each(|_| out.extend_from_slice(b"\\ufffd"));
        }
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Escapes as Go's encoder does, HTML's special characters included: files compare equal byte by byte.
fn escape(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut start = 0;
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        let width = match b {
            b'"' | b'\\' | b'<' | b'>' | b'&' | 0..=0x1f => 1,
            // U+2028 and U+2029, which JavaScript takes for line ends.
            0xe2 if bytes.get(i + 1) == Some(&0x80) && matches!(bytes.get(i + 2), Some(0xa8 | 0xa9)) => 3,
            _ => {
                i += 1;
                continue;
            }
        };
        out.extend_from_slice(&bytes[start..i]);
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0xe2 => {
                out.extend_from_slice(b"\\u202");
                out.push(if bytes.get(i + 2) == Some(&0xa8) { b'8' } else { b'9' });
            }
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(b >> 4)]);
                out.push(HEX[usize::from(b & 15)]);
            }
        }
        i += width;
        start = i;
    }
    out.extend_from_slice(&bytes[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIME: &str = "2024-05-06T07:08:09.000000001Z";

    fn encode(text: &[u8]) -> String {
        let mut out = Vec::new();
        encode_record(&mut out, Stream::Stderr, TIME, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn as_go_writes() {
        assert_eq!(
            encode(b"a<b>&\"\\\t\x1b\xff\n"),
            format!(
                "{{\"log\":\"a\\u003cb\\u003e\\u0026\\\"\\\\\\t\\u001b\\ufffd\\n\",\"stream\":\"stderr\",\"time\":\"{TIME}\"}}\n"
            )
        );
    }

    #[test]
    fn torn_lines() {
        let whole = encode(b"x\n");
        for cut in 1..whole.len() {
            let joined = format!("{}{whole}", &whole[..cut]);
            assert_eq!(parse_record(joined.as_bytes()).unwrap().text, "x\n", "{joined}");
        }
        assert_eq!(parse_record(format!("\0\0\0{whole}").as_bytes()).unwrap().text, "x\n");
        for bad in [&b""[..], b"\n", b"{}", b"[]", b"{\"log\":\"x", b"\0\0", b"{\"log\":1,\"time\":\"\"}"] {
            assert_eq!(parse_record(bad), None);
        }
    }

    proptest! {
        #[test]
        fn round_trip(text in ".{0,200}", second in 0i64..4_000_000_000) {
            let time = Timestamp::new(second, 17).unwrap();
            let mut out = Vec::new();
            encode_record(&mut out, Stream::Stdout, &time.to_string(), text.as_bytes());
            prop_assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
            prop_assert_eq!(parse_record(&out), Some(Record { stream: Stream::Stdout, time, text }));
        }

        #[test]
        fn any_bytes_make_a_valid_record(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            encode_record(&mut out, Stream::Stdout, TIME, &text);
            prop_assert!(parse_record(&out).is_some());
            let _ = parse_record(&text);
        }
    }
}
