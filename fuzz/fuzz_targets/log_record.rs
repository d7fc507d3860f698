//! A log line of any bytes never panics, and what it yields can be written and read again.
#![no_main]

use dhow_logs::{encode_record, parse_record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(record) = parse_record(data) else { return };
    let mut line = Vec::new();
    encode_record(&mut line, record.stream, &record.time.to_string(), record.text.as_bytes());
    assert_eq!(parse_record(&line), Some(record));
});
