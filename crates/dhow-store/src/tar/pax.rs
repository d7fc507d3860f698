//! PAX extended header records: `"%d %s=%s\n"` (POSIX.1-2017, pax, "pax Extended Header").

/// One record. The value may hold any byte.
pub(crate) type Record<'a> = (&'a [u8], &'a [u8]);

/// Prefix of extended attributes, by Jörg Schilling's star; what Go and GNU tar use as well.
pub(crate) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Splits the body of an extended header. `None` when it is malformed: a length that does not fit, no `=`, no newline,
/// an empty key, or a NUL where a name is meant. The same faults make Go refuse the archive.
pub(crate) fn parse(mut body: &[u8]) -> Option<Vec<Record<'_>>> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let space = body.iter().take(20).position(|b| *b == b' ')?;
        let length = decimal(body.get(..space)?)?;
        let record = body.get(..usize::try_from(length).ok()?)?;
        let content = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = content.iter().position(|b| *b == b'=')?;
        let (key, value) = (content.get(..equals)?, content.get(equals + 1..)?);
        let is_name = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname" | b"GNU.sparse.name");
        if key.is_empty() || key.contains(&0) || (is_name && value.contains(&0)) {
            return None;
        }
        records.push((key, value));
        body = body.get(record.len()..)?;
    }
    Some(records)
}

/// Appends a record to a body.
pub(crate) fn push(body: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let fixed = key.len() + value.len() + 3;
    let mut length = fixed;
    // The length counts its own digits; it grows at most twice.
    loop {
        let total = fixed + digits(length);
        if total == length {
            break;
        }
        length = total;
    }
    body.extend_from_slice(length.to_string().as_bytes());
    body.push(b' ');
    body.extend_from_slice(key);
    body.push(b'=');
    body.extend_from_slice(value);
    body.push(b'\n');
}

fn digits(n: usize) -> usize {
    n.checked_ilog10().map_or(1, |d| d as usize + 1)
}

/// A decimal number without sign; `None` when it is anything else or overflows.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text.iter().try_fold(0u64, |n, c| n.checked_mul(10)?.checked_add(u64::from(c - b'0')))
}

/// A time: decimal seconds with optional sign and fraction, as seconds and nanoseconds. Digits beyond nanoseconds are cut
/// off (as Go does).
pub(crate) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(i) => (text.get(..i)?, text.get(i + 1..)?),
        None => (text, &[][..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0u32, |n, i| n * 10 + fraction.get(i).map_or(0, |c| u32::from(c - b'0')));
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        // -1.25 is 0.75 after -2.
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_count_themselves() {
        for (value, length) in [(1usize, 8), (90, 98), (91, 99), (92, 101), (989, 998), (990, 999), (991, 1001)] {
            let mut body = Vec::new();
            push(&mut body, b"abc", &vec![b'x'; value]);
            assert_eq!(body.len(), length, "value of {value} bytes");
            assert!(body.starts_with(format!("{length} abc=").as_bytes()));
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for bad in [
            &b"x"[..],
            b"5 a=b",
            b"6 a=b\nx",
            b"99 a=b\n",
            b"4 =b\n",
            b"3 a\n",
            b"-6 a=b\n",
            b" 6 a=b\n",
            b"0 \n",
            b"11 path=a\0b\n",
            b"18446744073709551616 a=b\n",
            b"000000000000000000000006 a=b\n",
        ] {
            assert_eq!(parse(bad), None, "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(b"1"), Some((1, 0)));
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-0.5"), Some((-1, 500_000_000)));
        assert_eq!(time(b"9223372036854775807"), Some((i64::MAX, 0)));
        for bad in [&b""[..], b"-", b"+1", b"1e5", b"9223372036854775808", b"1.-5", b" 1"] {
            assert_eq!(time(bad), None);
        }
    }

    proptest! {
        #[test]
        fn round_trip(records in proptest::collection::vec(("[a-zA-Z.]{1,40}", proptest::collection::vec(1u8.., 0..300)), 0..8)) {
            let mut body = Vec::new();
            for (key, value) in &records {
                push(&mut body, key.as_bytes(), value);
            }
            let parsed = parse(&body).unwrap();
            prop_assert_eq!(parsed.len(), records.len());
            for ((key, value), (k, v)) in records.iter().zip(parsed) {
                prop_assert_eq!((key.as_bytes(), value.as_slice()), (k, v));
            }
        }

        #[test]
        fn parsing_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
            let _ = time(&body);
        }
    }
}
