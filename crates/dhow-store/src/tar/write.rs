//! Writing archives: one tree, one byte sequence.
//!
//! Plain ustar headers, and a PAX header only for what ustar cannot say: long or non-ASCII names, large numbers, extended
//! attributes. Field for field as Go's `archive/tar` writes them, so that archives look familiar to other engines.
//! Deliberately absent: user and group names, access and change times, sub-second times.

use super::{BLOCK, Entry, Kind, pax};
use std::io::{self, Write};

/// Largest number in a seven-digit octal field.
const MAX_7: u64 = 0o7_777_777;
/// Largest number in an eleven-digit octal field.
const MAX_11: u64 = 0o77_777_777_777;

/// A streaming writer that counts what it wrote.
pub(crate) struct TarWriter<W> {
    out: W,
    written: u64,
    header: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, written: 0, header: Vec::with_capacity(4 * BLOCK) }
    }

    /// Writes the headers of an entry. For a regular file exactly `entry.size` bytes must follow through
    /// [`data`](Self::data), then [`end_data`](Self::end_data).
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let mut header = std::mem::take(&mut self.header);
        header.clear();
        headers(entry, &mut header);
        let result = self.put(&header);
        self.header = header;
        result
    }

    /// Writes bytes of the current file.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes)
    }

    /// Pads the current file to a block.
    pub(crate) fn end_data(&mut self, size: u64) -> io::Result<()> {
        let rest = (size % BLOCK as u64) as usize;
        if rest != 0 {
            self.put(&[0u8; BLOCK][rest..])?;
        }
        Ok(())
    }

    /// Writes a regular file from memory.
    pub(crate) fn file(&mut self, entry: &Entry, data: &[u8]) -> io::Result<()> {
        debug_assert_eq!(entry.size, data.len() as u64);
        self.entry(entry)?;
        self.data(data)?;
        self.end_data(entry.size)
    }

    /// The output, without an end.
    pub(crate) fn into_inner(self) -> W {
        self.out
    }

    /// Writes the end-of-archive mark. Returns the output and the number of bytes that went to it.
    pub(crate) fn finish(mut self) -> io::Result<(W, u64)> {
        self.put(&[0u8; 2 * BLOCK])?;
        self.out.flush()?;
        Ok((self.out, self.written))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn headers(entry: &Entry, out: &mut Vec<u8>) {
    let data_size = if entry.kind == Kind::File { entry.size } else { 0 };
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut say = |key: &[u8], value: &[u8]| records.push((key.to_vec(), value.to_vec()));
    let split = split_name(&entry.path);
    if split.is_none() {
        say(b"path", &entry.path);
    }
    if entry.link.len() > 100 || !entry.link.is_ascii() {
        say(b"linkpath", &entry.link);
    }
    if data_size > MAX_11 {
        say(b"size", data_size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if u64::from(id) > MAX_7 {
            say(key, id.to_string().as_bytes());
        }
    }
    let seconds = entry.mtime.0;
    if !(0..=MAX_11 as i64).contains(&seconds) {
        say(b"mtime", seconds.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        say(&[pax::XATTR, name].concat(), value);
    }
    if !records.is_empty() {
        records.sort();
        let mut body = Vec::new();
        for (key, value) in &records {
            pax::push(&mut body, key, value);
        }
        pax_header(&entry.path, &body, out);
    }
    let (prefix, name) = split.unwrap_or((&[], &entry.path));
    let mut h = [0u8; BLOCK];
    text(&mut h[..100], name);
    octal(&mut h[100..108], u64::from(entry.mode & 0o7777));
    octal(&mut h[108..116], fit(u64::from(entry.uid), MAX_7));
    octal(&mut h[116..124], fit(u64::from(entry.gid), MAX_7));
    octal(&mut h[124..136], fit(data_size, MAX_11));
    octal(&mut h[136..148], fit(u64::try_from(seconds).unwrap_or(0), MAX_11));
    h[156] = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    text(&mut h[157..257], &entry.link);
    octal(&mut h[329..337], fit(u64::from(entry.device.0), MAX_7));
    octal(&mut h[337..345], fit(u64::from(entry.device.1), MAX_7));
    text(&mut h[345..500], prefix);
    seal(&mut h);
    out.extend_from_slice(&h);
}

fn pax_header(path: &[u8], body: &[u8], out: &mut Vec<u8>) {
    // Readers that do not know PAX see a file of this name.
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let cut = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
    let (directory, base) = path.split_at(cut);
    let ascii: Vec<u8> = [directory, b"PaxHeaders.0/", base].concat().into_iter().filter(u8::is_ascii).collect();
    let mut h = [0u8; BLOCK];
    text(&mut h[..100], &ascii);
    for field in [100..108, 108..116, 116..124] {
        octal(&mut h[field], 0);
    }
    octal(&mut h[124..136], body.len() as u64);
    octal(&mut h[136..148], 0);
    h[156] = b'x';
    octal(&mut h[329..337], 0);
    octal(&mut h[337..345], 0);
    seal(&mut h);
    out.extend_from_slice(&h);
    out.extend_from_slice(body);
    let rest = body.len() % BLOCK;
    if rest != 0 {
        out.extend_from_slice(&[0u8; BLOCK][rest..]);
    }
}

fn seal(h: &mut [u8; BLOCK]) {
    h[257..265].copy_from_slice(b"ustar\x0000");
    h[148..156].fill(b' ');
    let sum: u64 = h.iter().map(|b| u64::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Splits a name into the ustar fields prefix and name at a slash, as far right as the prefix allows. `None` when it does
/// not fit or is not ASCII.
fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((&[], path));
    }
    // A trailing slash belongs to the name.
    let body = path.strip_suffix(b"/").unwrap_or(path);
    let window = body.get(..body.len().min(156))?;
    let slash = window.iter().rposition(|b| *b == b'/')?;
    let (prefix, name) = (path.get(..slash)?, path.get(slash + 1..)?);
    (!prefix.is_empty() && prefix.len() <= 155 && !name.is_empty() && name.len() <= 100).then_some((prefix, name))
}

fn text(field: &mut [u8], value: &[u8]) {
    let n = value.len().min(field.len());
    field[..n].copy_from_slice(&value[..n]);
}

fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    field.copy_from_slice(format!("{value:0width$o}\0").as_bytes());
}

/// The number, or zero when it does not fit and is said in a PAX record.
fn fit(value: u64, max: u64) -> u64 {
    if value > max { 0 } else { value }
}
