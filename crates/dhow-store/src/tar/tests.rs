use super::read::TarReader;
use super::write::TarWriter;
use super::{BLOCK, Entry, Kind};
use crate::error::StoreError;
use proptest::prelude::*;
use std::io::Read;

fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, StoreError> {
    // A tiny buffer, so that every structure is split across fills.
    let mut reader = TarReader::new(std::io::BufReader::with_capacity(7, bytes), "test");
    let mut all = Vec::new();
    while let Some(entry) = reader.next()? {
        let data = reader.read_all(&entry, 1 << 20)?;
        all.push((entry, data));
    }
    Ok(all)
}

fn write_all(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (entry, data) in entries {
        if entry.kind == Kind::File {
            writer.file(entry, data).unwrap();
        } else {
            writer.entry(entry).unwrap();
        }
    }
    let (bytes, n) = writer.finish().unwrap();
    assert_eq!(bytes.len() as u64, n);
    bytes
}

/// A header block with a right checksum.
fn raw(name: &[u8], flag: u8, size: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut h = vec![0u8; BLOCK];
    h[..name.len()].copy_from_slice(name);
    for range in [100..107, 108..115, 116..123] {
        h[range].copy_from_slice(b"0000000");
    }
    h[124..124 + size.len()].copy_from_slice(size);
    h[136..147].copy_from_slice(b"00000000000");
    h[156] = flag;
    h[257..265].copy_from_slice(b"ustar\x0000");
    change(&mut h);
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    h
}

fn padded(mut data: Vec<u8>) -> Vec<u8> {
    data.resize(data.len().div_ceil(BLOCK) * BLOCK, 0);
    data
}

fn with_pax(records: &[(&str, &[u8])], header: Vec<u8>) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        super::pax::push(&mut body, key.as_bytes(), value);
    }
    let size = format!("{:011o}", body.len());
    [raw(b"x", b'x', size.as_bytes(), |_| {}), padded(body), header].concat()
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    let error = read_all(bytes).expect_err(why).to_string();
    assert!(error.contains(why), "{error:?} does not say {why:?}");
}

#[test]
fn baseline_the_tar_crate_writes_we_read() {
    let long = format!("{}file", "directory-with-a-long-name/".repeat(8));
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in [("a", &b"hello"[..]), (long.as_str(), &[7u8; 1000])] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_mtime(99);
        builder.append_data(&mut header, name, data).unwrap();
    }
    let all = read_all(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].0.path.as_slice(), all[0].1.as_slice()), (&b"a"[..], &b"hello"[..]));
    assert_eq!((all[0].0.mode, all[0].0.uid, all[0].0.mtime), (0o4755, 7, (99, 0)));
    assert_eq!(all[1].0.path, long.as_bytes());
    assert_eq!(all[1].1, [7u8; 1000]);
}

#[test]
fn what_we_write_the_tar_crate_reads() {
    let mut entry = Entry::new(Kind::File, "ü/".repeat(90).trim_end_matches('/').as_bytes());
    entry.size = 3;
    entry.uid = 3_000_000;
    entry.xattrs.push((b"user.x".to_vec(), b"1=2\0".to_vec()));
    let bytes = write_all(&[(entry.clone(), b"abc".to_vec())]);
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut entries = archive.entries().unwrap();
    let mut found = entries.next().unwrap().unwrap();
    assert_eq!(*found.path_bytes(), *entry.path);
    assert_eq!(found.header().uid().unwrap(), 3_000_000);
    let mut data = String::new();
    found.read_to_string(&mut data).unwrap();
    assert_eq!(data, "abc");
    assert!(entries.next().is_none());
}

#[test]
fn ustar_prefix_is_used_where_it_fits() {
    let path = format!("{}/{}", "d".repeat(120), "n".repeat(90));
    let bytes = write_all(&[(Entry::new(Kind::Symlink, path.as_bytes()), Vec::new())].map(|(mut e, d)| {
        e.link = b"t".to_vec();
        (e, d)
    }));
    assert_eq!(bytes.len(), 3 * BLOCK, "no PAX header");
    assert_eq!(read_all(&bytes).unwrap()[0].0.path, path.as_bytes());
}

#[test]
fn t19_one_meaning_or_an_error() {
    let file = |size: &[u8]| raw(b"f", b'0', size, |_| {});
    // Control: the same header with an honest size is read.
    assert_eq!(read_all(&[file(b"00000000001"), padded(vec![b'z'])].concat()).unwrap()[0].1, b"z");
    refused(&file(b"-0000000001"), "invalid size");
    refused(&file(&[0xff; 12]), "invalid size");
    refused(&file(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), "invalid size");
    refused(&with_pax(&[("size", b"-1")], file(b"00000000000")), "invalid size");
    refused(&with_pax(&[("size", b"9223372036854775808")], file(b"00000000000")), "size out of range");
    refused(&with_pax(&[("path", b"a\0b")], file(b"00000000000")), "malformed PAX");
    refused(&with_pax(&[("uid", b"4294967296")], file(b"00000000000")), "invalid uid");
    refused(&with_pax(&[("uid", b"4294967295")], file(b"00000000000")), "invalid uid");
    refused(&with_pax(&[("mtime", b"yesterday")], file(b"00000000000")), "invalid mtime");
    refused(&file(b"00000000777"), "unexpected end");
    refused(&raw(b"f", b'Z', b"00000000000", |_| {}), "unknown entry type");
    refused(&raw(b"f", b'2', b"00000000000", |_| {}), "link without a target");
    let mut broken = file(b"00000000000");
    broken[0] = b'g';
    refused(&broken, "checksum");
    refused(&with_pax(&[("path", b"a")], Vec::new()), "extended header without an entry");
}

#[test]
fn t19_pax_wins_over_the_header_and_an_empty_value_removes() {
    let header = || raw(b"short", b'0', b"00000000001", |_| {});
    let bytes = [with_pax(&[("path", b"from-pax"), ("size", b"2")], header()), padded(b"ab".to_vec())].concat();
    let all = read_all(&bytes).unwrap();
    assert_eq!((all[0].0.path.as_slice(), all[0].1.as_slice()), (&b"from-pax"[..], &b"ab"[..]));
    let bytes = [with_pax(&[("path", b"x"), ("path", b"")], header()), padded(b"a".to_vec())].concat();
    assert_eq!(read_all(&bytes).unwrap()[0].0.path, b"short");
    // Extreme times are data, not errors.
    let bytes = [with_pax(&[("mtime", b"-62135596800.5")], header()), padded(b"a".to_vec())].concat();
    assert_eq!(read_all(&bytes).unwrap()[0].0.mtime, (-62_135_596_801, 500_000_000));
}

#[test]
fn t19_links_and_directories_have_no_data() {
    let link = raw(b"l", b'1', b"00000001000", |h| h[157] = b't');
    let file = raw(b"f", b'0', b"00000000000", |_| {});
    let all = read_all(&[link, file].concat()).unwrap();
    assert_eq!(all.iter().map(|(e, _)| e.kind).collect::<Vec<_>>(), [Kind::HardLink, Kind::File]);
}

#[test]
fn t20_extended_headers_are_bounded() {
    let huge = raw(b"x", b'x', b"00777777777", |_| {});
    refused(&[huge, vec![b'1'; 4096]].concat(), "larger than 1 MiB");
    let huge = raw(b"x", b'L', b"00777777777", |_| {});
    refused(&[huge, vec![b'1'; 4096]].concat(), "larger than 1 MiB");
    let name = vec![b'n'; 5000];
    refused(&with_pax(&[("path", &name)], raw(b"f", b'0', b"00000000000", |_| {})), "longer than 4095");
}

#[test]
fn sparse_formats() {
    // Old GNU: two bytes at 512, size 1024.
    let gnu = raw(b"f", b'S', b"00000000002", |h| {
        h[257..265].copy_from_slice(b"ustar  \0");
        h[386..397].copy_from_slice(b"00000001000");
        h[398..409].copy_from_slice(b"00000000002");
        h[483..494].copy_from_slice(b"00000002000");
    });
    let v00 = with_pax(
        &[
            ("GNU.sparse.size", b"1024"),
            ("GNU.sparse.numblocks", b"1"),
            ("GNU.sparse.offset", b"512"),
            ("GNU.sparse.numbytes", b"2"),
        ],
        raw(b"f", b'0', b"00000000002", |_| {}),
    );
    let v01 = with_pax(
        &[
            ("GNU.sparse.size", b"1024"),
            ("GNU.sparse.numblocks", b"1"),
            ("GNU.sparse.name", b"f"),
            ("GNU.sparse.map", b"512,2"),
        ],
        raw(b"other", b'0', b"00000000002", |_| {}),
    );
    for header in [gnu, v00, v01] {
        let all = read_all(&[header, padded(b"ab".to_vec())].concat()).unwrap();
        let (entry, data) = &all[0];
        assert_eq!((entry.path.as_slice(), entry.size, data.as_slice()), (&b"f"[..], 1024, &b"ab"[..]));
        assert_eq!(entry.sparse, Some(vec![(512, 2)]));
    }
    let v10 = |map: &[u8]| {
        let head = with_pax(
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"f"),
                ("GNU.sparse.realsize", b"1024"),
            ],
            raw(b"other", b'0', b"00000001002", |_| {}),
        );
        [head, padded(map.to_vec()), padded(b"ab".to_vec())].concat()
    };
    let all = read_all(&v10(b"1\n512\n2\n")).unwrap();
    assert_eq!((all[0].0.sparse.clone(), all[0].1.as_slice()), (Some(vec![(512, 2)]), &b"ab"[..]));
    refused(&v10(b"1000000\n512\n2\n"), "sparse map too large");
    refused(&v10(b"1\n1023\n2\n"), "beyond the end");
    refused(&v10(b"1\n512\n1\n"), "does not fit");
    refused(&v10(b"1\n99999999999999999999999\n1\n"), "invalid sparse map");
}

#[test]
fn the_end_of_an_archive() {
    assert_eq!(read_all(&[]).unwrap(), []);
    assert_eq!(read_all(&[0; BLOCK]).unwrap(), []);
    assert_eq!(read_all(&[0; 2 * BLOCK]).unwrap(), []);
    refused(&[0; 100], "unexpected end");
    let file = raw(b"f", b'0', b"00000000000", |_| {});
    refused(&[vec![0; BLOCK], file.clone()].concat(), "zero block inside");
    // Without any mark, as some tools leave it.
    assert_eq!(read_all(&file).unwrap().len(), 1);
}

fn entries() -> impl Strategy<Value = Vec<(Entry, Vec<u8>)>> {
    let kind = prop_oneof![
        Just(Kind::File),
        Just(Kind::HardLink),
        Just(Kind::Symlink),
        Just(Kind::Char),
        Just(Kind::Block),
        Just(Kind::Directory),
        Just(Kind::Fifo)
    ];
    let name = prop_oneof![
        "[a-z]{1,8}(/[a-z]{1,8}){0,4}",
        "[a-z]{1,90}(/[a-z]{1,90}){0,3}",
        "[a-zä→]{1,60}",
        proptest::collection::vec(1u8.., 1..200).prop_map(|b| String::from_utf8_lossy(&b).into_owned())
    ];
    let xattr = ("user\\.[a-z]{1,6}", proptest::collection::vec(any::<u8>(), 1..40));
    let one = (
        kind,
        name,
        "[a-z/.ü]{1,150}",
        (0u32..0o10000, 0u32..u32::MAX, 0u32..u32::MAX, -(1i64 << 40)..(1i64 << 40)),
        (0u32..1 << 21, 0u32..1 << 21),
        proptest::collection::btree_map(xattr.0, xattr.1, 0..3),
        proptest::collection::vec(any::<u8>(), 0..1200),
    )
        .prop_map(|(kind, path, link, (mode, uid, gid, mtime), device, xattrs, data)| {
            let mut e = Entry::new(kind, path.as_bytes());
            (e.mode, e.uid, e.gid, e.mtime) = (mode, uid, gid, (mtime, 0));
            if matches!(kind, Kind::HardLink | Kind::Symlink) {
                e.link = link.into_bytes();
            }
            if matches!(kind, Kind::Char | Kind::Block) {
                e.device = device;
            }
            e.xattrs = xattrs.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
            let data = if kind == Kind::File { data } else { Vec::new() };
            e.size = data.len() as u64;
            (e, data)
        });
    proptest::collection::vec(one, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn round_trip(entries in entries()) {
        prop_assert_eq!(read_all(&write_all(&entries)).unwrap(), entries);
    }

    #[test]
    fn damaged_archives_never_panic(entries in entries(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = write_all(&entries);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = read_all(&bytes);
        let _ = read_all(&bytes[..at]);
    }
}
