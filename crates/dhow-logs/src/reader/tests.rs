//! Writer and reader together.

use super::*;
use crate::{LogWriter, RotateOptions, Stream};
use proptest::prelude::*;
use std::fs::OpenOptions;
use std::io::Write;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn read(path: &Path, options: ReadOptions) -> Vec<Record> {
    let mut reader = LogReader::open(path, options).unwrap();
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

fn texts(path: &Path, options: ReadOptions) -> String {
    read(path, options).into_iter().map(|r| r.text).collect()
}

fn small(max_size: u64, max_file: u32, compress: bool) -> RotateOptions {
    RotateOptions { max_size: Some(max_size), max_file, compress }
}

#[test]
fn lines_streams_and_partials() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut w = LogWriter::open(&path, RotateOptions::default()).unwrap();
    w.write(Stream::Stdout, b"one\ntw", at(0));
    w.write(Stream::Stderr, b"err\n", at(1));
    w.write(Stream::Stdout, b"o\nrest", at(2));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "nothing is written before the flush");
    w.flush();
    let found: Vec<_> = read(&path, ReadOptions::default()).into_iter().map(|r| (r.stream.name(), r.text)).collect();
    let expected = [("stdout", "one\n"), ("stderr", "err\n"), ("stdout", "two\n")];
    assert_eq!(found, expected.map(|(s, t)| (s, t.to_owned())));
    w.finish(at(3));
    assert!(texts(&path, ReadOptions::default()).ends_with("two\nrest"));
    let long = "ä".repeat(20_000) + "\n";
    w.write(Stream::Stdout, long.as_bytes(), at(4));
    w.flush();
    let records = read(&path, ReadOptions::default());
    assert_eq!(
        records.iter().filter(|r| r.text.starts_with('ä')).map(|r| r.text.len()).collect::<Vec<_>>(),
        [16384, 16384, 7233]
    );
    assert!(texts(&path, ReadOptions::default()).ends_with(&long));
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777 & !0o640, 0);
}

#[test]
fn rotation_is_bounded_and_read_in_order() {
    for compress in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut w = LogWriter::open(&path, small(10_000, 3, compress)).unwrap();
        for i in 0..1000 {
            w.write(Stream::Stdout, format!("line {i}\n").as_bytes(), at(i));
            if i % 7 == 0 {
                w.flush();
            }
        }
        w.flush();
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let expected = if compress { ["log", "log.1.gz", "log.2.gz"] } else { ["log", "log.1", "log.2"] };
        assert_eq!(names, expected);
        assert!(std::fs::metadata(&path).unwrap().len() <= 10_000);
        let all = read(&path, ReadOptions::default());
        let first: i64 = 1000 - all.len() as i64;
        assert!(first > 0);
        for (i, record) in all.iter().enumerate() {
            assert_eq!(record.text, format!("line {}\n", first + i as i64));
        }
        let tail = texts(&path, ReadOptions { tail: Some(200), ..Default::default() });
        assert_eq!(tail, (800..1000).map(|i| format!("line {i}\n")).collect::<String>());
        let since = texts(&path, ReadOptions { since: Some(at(950)), until: Some(at(952)), ..Default::default() });
        assert_eq!(since, "line 950\nline 951\nline 952\n");
        assert_eq!(texts(&path, ReadOptions { tail: Some(0), ..Default::default() }), "");
        assert_eq!(read(&path, ReadOptions { tail: Some(99_999), ..Default::default() }).len(), all.len());
    }
}

#[test]
fn one_file_is_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut w = LogWriter::open(&path, small(500, 1, false)).unwrap();
    for i in 0..100 {
        w.write(Stream::Stdout, format!("{i}\n").as_bytes(), at(i));
    }
    w.flush();
    assert!(texts(&path, ReadOptions::default()).ends_with("99\n"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn since_in_a_large_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut w = LogWriter::open(&path, RotateOptions { max_size: None, ..Default::default() }).unwrap();
    for i in 0..20_000 {
        w.write(Stream::Stdout, format!("{i} {}\n", "x".repeat((i % 97) as usize)).as_bytes(), at(i));
    }
    w.flush();
    for since in [0, 1, 9_999, 19_998, 19_999, 20_000] {
        let found = read(&path, ReadOptions { since: Some(at(since)), ..Default::default() });
        assert_eq!(found.len() as i64, 20_000 - since);
    }
    let reader = LogReader::open(&path, ReadOptions { since: Some(at(19_000)), ..Default::default() }).unwrap();
    assert!(reader.offset > 1_000_000, "found by search, not by reading: {}", reader.offset);
}

#[test]
fn torn_records_are_skipped_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut w = LogWriter::open(&path, RotateOptions::default()).unwrap();
    w.write(Stream::Stdout, b"a\n", at(0));
    w.flush();
    drop(w);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"log\":\"half").unwrap();
    let mut w = LogWriter::open(&path, RotateOptions::default()).unwrap();
    w.write(Stream::Stdout, b"b\n", at(1));
    w.flush();
    let mut reader = LogReader::open(&path, ReadOptions::default()).unwrap();
    let found: Vec<_> = std::iter::from_fn(|| reader.next().unwrap()).map(|r| r.text).collect();
    assert_eq!(found, ["a\n", "b\n"]);
    assert_eq!(reader.skipped(), 1);
    // Zeroed blocks and a line without end do not stop the reader either.
    OpenOptions::new().append(true).open(&path).unwrap().write_all(&vec![0u8; 3 << 20]).unwrap();
    w.write(Stream::Stdout, b"c\n", at(2));
    w.write(Stream::Stdout, b"d\n", at(3));
    w.flush();
    assert!(texts(&path, ReadOptions::default()).ends_with("b\nd\n"));
}

#[test]
fn a_removed_file_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut w = LogWriter::open(&path, RotateOptions::default()).unwrap();
    w.write(Stream::Stdout, b"a\n", at(0));
    w.flush();
    std::fs::remove_file(&path).unwrap();
    w.write(Stream::Stdout, b"b\n", at(1));
    w.flush();
    assert_eq!(texts(&path, ReadOptions::default()), "b\n");
}

#[test]
fn a_full_disk_loses_records_and_says_so() {
    // /dev/full answers ENOSPC to every write.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut w = LogWriter::open(&path, RotateOptions::default()).unwrap();
    w.replace_file(OpenOptions::new().append(true).open("/dev/full").unwrap());
    w.write(Stream::Stdout, b"a\nb\n", at(0));
    w.flush();
    assert_eq!(w.dropped(), 2);
    w.replace_file(OpenOptions::new().append(true).open(&path).unwrap());
    w.write(Stream::Stdout, b"c\n", at(1));
    w.flush();
    assert_eq!(
        texts(&path, ReadOptions::default()),
        "dhow: 2 log records were lost: the log could not be written\nc\n"
    );
}

#[test]
fn follow_goes_through_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut w = LogWriter::open(&path, small(2_000, 4, false)).unwrap();
    w.write(Stream::Stdout, b"0\n", at(0));
    w.flush();
    let mut reader = LogReader::open(&path, ReadOptions { follow: true, ..Default::default() }).unwrap();
    let mut found = Vec::new();
    for i in 1..200 {
        w.write(Stream::Stdout, format!("{i}\n").as_bytes(), at(i));
        w.flush();
        if i % 20 == 0 {
            reader.wait(Duration::from_millis(1));
            found.extend(std::iter::from_fn(|| reader.next().unwrap()).map(|r| r.text));
        }
    }
    let mut rounds = 0;
    let mut stop = || {
        rounds += 1;
        rounds > 1
    };
    reader
        .run::<LogError>(&mut stop, &mut |r| {
            found.push(r.text);
            Ok(())
        })
        .unwrap();
    assert_eq!(found, (0..200).map(|i| format!("{i}\n")).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However output is cut into writes and flushes, each stream reads back whole and in order.
    #[test]
    fn round_trip(
        chunks in proptest::collection::vec((any::<bool>(), "[a-zä\n]{0,40}", any::<bool>()), 0..40),
        tail in 0u64..20,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut w = LogWriter::open(&path, RotateOptions::default()).unwrap();
        let mut expected = [String::new(), String::new()];
        for (i, (stderr, text, flush)) in chunks.iter().enumerate() {
            let stream = if *stderr { Stream::Stderr } else { Stream::Stdout };
            w.write(stream, text.as_bytes(), at(i as i64));
            expected[usize::from(*stderr)].push_str(text);
            if *flush {
                w.flush();
            }
        }
        w.finish(at(1000));
        let all = read(&path, ReadOptions::default());
        for (i, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let got: String = all.iter().filter(|r| r.stream == stream).map(|r| r.text.as_str()).collect();
            prop_assert_eq!(&got, &expected[i]);
        }
        let last = read(&path, ReadOptions { tail: Some(tail), ..Default::default() });
        prop_assert_eq!(&last[..], &all[all.len().saturating_sub(tail as usize)..]);
    }
}
