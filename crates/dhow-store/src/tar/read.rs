//! Reading archives: hostile, streamed, with bounded memory.
//!
//! Where tar dialects disagree the reading is that of Go's `archive/tar`, which every other engine uses: links,
//! directories, devices and FIFOs have no data whatever size they claim; PAX records win over the header, an empty PAX value
//! removes one; a GNU long name wins over a PAX path; global PAX headers say nothing about files.

use super::{BLOCK, Entry, Kind, MAX_PATH, pax};
use crate::error::StoreError;
use std::io::{self, BufRead};

/// Largest extended header or GNU long name, in bytes (Go's limit as well). Room for 64 KiB attributes.
const MAX_EXTENSION: u64 = 1 << 20;
/// Most pieces of a sparse file (CVE-2025-58183: a map of 10^6 entries is a memory bomb).
const MAX_SPARSE: usize = 1 << 16;
/// Largest file: sizes are signed 64-bit in every file system call.
const MAX_SIZE: u64 = i64::MAX as u64;

/// A streaming reader. Call [`next`](Self::next), then drain the data with [`chunk`](Self::chunk) and
/// [`consume`](Self::consume); what is not drained is skipped.
pub(crate) struct TarReader<R> {
    input: R,
    /// Bytes of data of the current entry that have not been consumed.
    remaining: u64,
    /// Zero bytes after them up to the block boundary.
    padding: u64,
    /// What is read, for messages.
    what: String,
}

/// Header fields and extensions collected before an entry.
#[derive(Default)]
struct Extensions {
    pax: Vec<(Vec<u8>, Vec<u8>)>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.pax.is_empty() && self.long_name.is_none() && self.long_link.is_none()
    }

    /// The last value of a record; an empty value counts as absent.
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.pax.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_slice()).filter(|v| !v.is_empty())
    }
}

impl<R: BufRead> TarReader<R> {
    pub(crate) fn new(input: R, what: &str) -> Self {
        Self { input, remaining: 0, padding: 0, what: what.to_owned() }
    }

    /// The next entry, `None` at the end of the archive. After the end the input may hold more bytes, see
    /// [`drain`](Self::drain).
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, StoreError> {
        self.skip_data()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                if extensions.is_empty() {
                    return Ok(None);
                }
                return Err(self.bad(&[], "extended header without an entry"));
            };
            let flag = header[156];
            let size = number(&header[124..136]).ok_or_else(|| self.bad(&[], "invalid size field"))?;
            match flag {
                b'x' => {
                    let body = self.extension(size)?;
                    let records = pax::parse(&body).ok_or_else(|| self.bad(&[], "malformed PAX header"))?;
                    extensions.pax = records.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
                }
                b'g' => {
                    let body = self.extension(size)?;
                    pax::parse(&body).ok_or_else(|| self.bad(&[], "malformed PAX header"))?;
                }
                b'L' => extensions.long_name = Some(until_nul(self.extension(size)?)),
                b'K' => extensions.long_link = Some(until_nul(self.extension(size)?)),
                _ => return self.entry(&header, flag, size, &extensions).map(Some),
            }
        }
    }

    /// The next piece of the current entry's data as it is in the archive (of a sparse file: only the pieces of its map).
    /// Empty at its end.
    pub(crate) fn chunk(&mut self) -> Result<&[u8], StoreError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let available = fill(&mut self.input, &self.what)?;
        if available.is_empty() {
            return Err(StoreError::archive(&[], "unexpected end in the data of an entry"));
        }
        let n = usize::try_from(self.remaining).map_or(available.len(), |r| r.min(available.len()));
        // Borrowed again because the first borrow ends with the emptiness check.
        Ok(fill(&mut self.input, &self.what)?.get(..n).unwrap_or_default())
    }

    /// Marks bytes of the last [`chunk`](Self::chunk) as used.
    pub(crate) fn consume(&mut self, n: usize) {
        self.remaining = self.remaining.saturating_sub(n as u64);
        self.input.consume(n);
    }

    /// Reads the whole data of the current entry, refusing more than `limit` bytes.
    pub(crate) fn read_all(&mut self, entry: &Entry, limit: u64) -> Result<Vec<u8>, StoreError> {
        if self.remaining > limit {
            return Err(self.bad(&entry.path, "larger than allowed"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.remaining).unwrap_or(0));
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(chunk);
            let n = chunk.len();
            self.consume(n);
        }
    }

    /// Reads to the end of the input and throws it away.
    pub(crate) fn drain(&mut self) -> Result<(), StoreError> {
        loop {
            let n = fill(&mut self.input, &self.what)?.len();
            if n == 0 {
                return Ok(());
            }
            self.input.consume(n);
        }
    }

    fn bad(&self, path: &[u8], reason: &str) -> StoreError {
        StoreError::archive(path, reason)
    }

    fn skip_data(&mut self) -> Result<(), StoreError> {
        let mut left = self.remaining.saturating_add(self.padding);
        (self.remaining, self.padding) = (0, 0);
        while left > 0 {
            let n = fill(&mut self.input, &self.what)?.len();
            if n == 0 {
                return Err(self.bad(&[], "unexpected end in the data of an entry"));
            }
            let n = usize::try_from(left).map_or(n, |l| l.min(n));
            self.input.consume(n);
            left -= n as u64;
        }
        Ok(())
    }

    fn set_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// Reads one block. `None` at the end of the input, which must be at a block boundary.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, StoreError> {
        let mut block = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let available = fill(&mut self.input, &self.what)?;
            if available.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(self.bad(&[], "unexpected end in a header")) };
            }
            let n = available.len().min(BLOCK - filled);
            if let (Some(to), Some(from)) = (block.get_mut(filled..filled + n), available.get(..n)) {
                to.copy_from_slice(from);
            }
            self.input.consume(n);
            filled += n;
        }
        Ok(Some(block))
    }

    /// The next header block with a right checksum; `None` at the end-of-archive mark or the end of the input.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, StoreError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|b| *b == 0) {
            // Two zero blocks end an archive. One alone is tolerated only at the end of the input.
            return match self.block()? {
                None => Ok(None),
                Some(second) if second.iter().all(|b| *b == 0) => Ok(None),
                Some(_) => Err(self.bad(&[], "zero block inside the archive")),
            };
        }
        let stored = number(&block[148..156]);
        let unsigned: u64 = 8 * 32 + block[..148].iter().chain(&block[156..]).map(|b| u64::from(*b)).sum::<u64>();
        // Ancient tars summed signed bytes.
        let signed: i64 = 8 * 32 + block[..148].iter().chain(&block[156..]).map(|b| i64::from(*b as i8)).sum::<i64>();
        if stored != Some(unsigned) && stored != u64::try_from(signed).ok() {
            return Err(self.bad(&[], "header checksum mismatch: this is not a tar archive, or it is damaged"));
        }
        Ok(Some(block))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, StoreError> {
        if size > MAX_EXTENSION {
            return Err(self.bad(&[], "extended header larger than 1 MiB"));
        }
        self.set_data(size);
        let body = self.read_all(&Entry::new(Kind::File, b""), MAX_EXTENSION)?;
        self.skip_data()?;
        Ok(body)
    }

    fn entry(&mut self, h: &[u8; BLOCK], flag: u8, size: u64, ext: &Extensions) -> Result<Entry, StoreError> {
        let header_path = header_path(h);
        let path = ext.long_name.as_deref().or_else(|| ext.get(b"path")).unwrap_or(&header_path).to_vec();
        let fail = |reason: &str| StoreError::archive(&path, reason);
        let kind = match flag {
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(fail(&format!("unknown entry type {:?}", char::from(other)))),
        };
        let mut entry = Entry::new(kind, &path);
        entry.link = ext
            .long_link
            .as_deref()
            .or_else(|| ext.get(b"linkpath"))
            .map_or_else(|| until_nul(h[157..257].to_vec()), <[u8]>::to_vec);
        entry.mode = number(&h[100..108]).map(|m| (m & 0o7777) as u32).ok_or_else(|| fail("invalid mode field"))?;
        entry.uid = owner(ext.get(b"uid"), &h[108..116]).ok_or_else(|| fail("invalid uid"))?;
        entry.gid = owner(ext.get(b"gid"), &h[116..124]).ok_or_else(|| fail("invalid gid"))?;
        entry.mtime = match ext.get(b"mtime") {
            Some(text) => pax::time(text).ok_or_else(|| fail("invalid mtime"))?,
            None => (signed(&h[136..148]).ok_or_else(|| fail("invalid mtime field"))?, 0),
        };
        if matches!(kind, Kind::Char | Kind::Block) {
            let part = |field: &[u8]| number(field).and_then(|n| u32::try_from(n).ok());
            entry.device = part(&h[329..337]).zip(part(&h[337..345])).ok_or_else(|| fail("invalid device number"))?;
        }
        entry.xattrs = xattrs(ext);
        let size = match ext.get(b"size") {
            Some(text) => pax::decimal(text).ok_or_else(|| fail("invalid size"))?,
            None => size,
        };
        if size > MAX_SIZE {
            return Err(fail("size out of range"));
        }
        if kind == Kind::File {
            entry.size = size;
            self.set_data(size);
            self.sparse(&mut entry, h, flag, ext)?;
        }
        check_names(&entry)?;
        Ok(entry)
    }

    /// Reads the map of a sparse file in any of the four formats.
    fn sparse(&mut self, entry: &mut Entry, h: &[u8; BLOCK], flag: u8, ext: &Extensions) -> Result<(), StoreError> {
        let fail = |path: &[u8], reason: &str| StoreError::archive(path, reason);
        let version = (ext.get(b"GNU.sparse.major"), ext.get(b"GNU.sparse.minor"));
        let old_pax = ext.get(b"GNU.sparse.numblocks").is_some() || ext.get(b"GNU.sparse.map").is_some();
        let (map, real) = if flag == b'S' {
            let real = number(&h[483..495]).ok_or_else(|| fail(&entry.path, "invalid sparse size"))?;
            (self.gnu_map(h, &entry.path)?, real)
        } else if matches!(version, (Some(b"1"), Some(b"0"))) || matches!(version, (Some(b"0"), _)) || old_pax {
            let real = ext.get(b"GNU.sparse.realsize").or_else(|| ext.get(b"GNU.sparse.size"));
            let real = real.and_then(pax::decimal).ok_or_else(|| fail(&entry.path, "invalid sparse size"))?;
            if let Some(name) = ext.get(b"GNU.sparse.name") {
                entry.path = name.to_vec();
            }
            let map = if version.0 == Some(b"1") { self.inline_map(&entry.path)? } else { pax_map(ext, &entry.path)? };
            (map, real)
        } else {
            return Ok(());
        };
        let mut end = 0u64;
        let mut stored = 0u64;
        for (offset, length) in &map {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= real);
            end = next.ok_or_else(|| fail(&entry.path, "sparse map out of order or beyond the end"))?;
            stored += length;
        }
        if real > MAX_SIZE || stored != self.remaining {
            return Err(fail(&entry.path, "sparse map does not fit the data"));
        }
        entry.size = real;
        entry.sparse = Some(map);
        Ok(())
    }

    /// Old GNU format: four pieces in the header, more in the blocks that follow it.
    fn gnu_map(&mut self, h: &[u8; BLOCK], path: &[u8]) -> Result<Vec<(u64, u64)>, StoreError> {
        let fail = |reason: &str| StoreError::archive(path, reason);
        let mut map = Vec::new();
        let mut add = |field: &[u8]| -> Result<bool, StoreError> {
            let (offset, length) = field.split_at(12);
            if offset[0] == 0 && length[0] == 0 {
                return Ok(false);
            }
            if map.len() >= MAX_SPARSE {
                return Err(fail("sparse map too large"));
            }
            let piece = number(offset).zip(number(length)).ok_or_else(|| fail("invalid sparse map"))?;
            map.push(piece);
            Ok(true)
        };
        for field in h[386..482].chunks_exact(24) {
            add(field)?;
        }
        let mut more = h[482] == 1;
        let (remaining, padding) = (self.remaining, self.padding);
        while more {
            let block = self.block()?.ok_or_else(|| fail("unexpected end in a sparse map"))?;
            for field in block[..504].chunks_exact(24) {
                add(field)?;
            }
            more = block[504] == 1;
        }
        (self.remaining, self.padding) = (remaining, padding);
        Ok(map)
    }

    /// PAX format 1.0: decimal lines at the start of the data, padded to a block.
    fn inline_map(&mut self, path: &[u8]) -> Result<Vec<(u64, u64)>, StoreError> {
        let fail = |reason: &str| StoreError::archive(path, reason);
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = 1usize;
        let mut digits: Vec<u8> = Vec::new();
        while numbers.len() < wanted {
            let size = self.remaining;
            let block = if size >= BLOCK as u64 { self.block()? } else { None };
            let block = block.ok_or_else(|| fail("unexpected end in a sparse map"))?;
            self.remaining = size - BLOCK as u64;
            for byte in block {
                if numbers.len() == wanted {
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return Err(fail("invalid sparse map"));
                    }
                    continue;
                }
                let n = pax::decimal(&digits).ok_or_else(|| fail("invalid sparse map"))?;
                digits.clear();
                if numbers.is_empty() {
                    let count = usize::try_from(n).ok().filter(|c| *c <= MAX_SPARSE);
                    wanted = 1 + 2 * count.ok_or_else(|| fail("sparse map too large"))?;
                }
                numbers.push(n);
            }
        }
        Ok(pairs(numbers.get(1..).unwrap_or_default()))
    }
}

/// PAX formats 0.0 (a record per number) and 0.1 (one comma-separated record).
fn pax_map(ext: &Extensions, path: &[u8]) -> Result<Vec<(u64, u64)>, StoreError> {
    let fail = || StoreError::archive(path, "invalid sparse map");
    let numbers: Vec<u64> = match ext.get(b"GNU.sparse.map") {
        Some(text) => text.split(|b| *b == b',').map(pax::decimal).collect::<Option<_>>().ok_or_else(fail)?,
        None => {
            let keys = [&b"GNU.sparse.offset"[..], b"GNU.sparse.numbytes"];
            let records = ext.pax.iter().filter(|(k, _)| keys.contains(&k.as_slice()));
            let mut numbers = Vec::new();
            for (i, (key, value)) in records.enumerate() {
                if key.as_slice() != keys[i % 2] {
                    return Err(fail());
                }
                numbers.push(pax::decimal(value).ok_or_else(fail)?);
            }
            numbers
        }
    };
    let count = ext.get(b"GNU.sparse.numblocks").and_then(pax::decimal);
    let right = numbers.len().is_multiple_of(2) && count.is_none_or(|c| c == (numbers.len() / 2) as u64);
    if !right || numbers.len() / 2 > MAX_SPARSE {
        return Err(fail());
    }
    Ok(pairs(&numbers))
}

fn pairs(numbers: &[u64]) -> Vec<(u64, u64)> {
    numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect()
}

fn xattrs(ext: &Extensions) -> Vec<(Vec<u8>, Vec<u8>)> {
    let named = ext.pax.iter().filter_map(|(k, v)| Some((k.strip_prefix(pax::XATTR)?, v)));
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (name, value) in named {
        all.retain(|(n, _)| n != name);
        all.push((name.to_vec(), value.clone()));
    }
    all.sort();
    all
}

fn check_names(entry: &Entry) -> Result<(), StoreError> {
    for name in [&entry.path, &entry.link] {
        if name.len() > MAX_PATH {
            return Err(StoreError::archive(&entry.path, "name longer than 4095 bytes"));
        }
        if name.contains(&0) {
            return Err(StoreError::archive(&entry.path, "name with a NUL byte"));
        }
    }
    if matches!(entry.kind, Kind::HardLink | Kind::Symlink) && entry.link.is_empty() {
        return Err(StoreError::archive(&entry.path, "link without a target"));
    }
    Ok(())
}

/// `name`, with `prefix` where the header's dialect has one.
fn header_path(h: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(h[..100].to_vec());
    if &h[257..263] != b"ustar\0" {
        return name;
    }
    // star cuts the prefix short for its own time stamps.
    let prefix = if &h[508..512] == b"tar\0" { &h[345..476] } else { &h[345..500] };
    let mut path = until_nul(prefix.to_vec());
    if path.is_empty() {
        return name;
    }
    path.push(b'/');
    path.extend_from_slice(&name);
    path
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// A uid or gid. 2^32 - 1 is the kernel's "no id" and is refused with everything larger.
fn owner(text: Option<&[u8]>, field: &[u8]) -> Option<u32> {
    let n = match text {
        Some(text) => pax::decimal(text)?,
        None => number(field)?,
    };
    u32::try_from(n).ok().filter(|id| *id != u32::MAX)
}

/// A numeric field that must not be negative.
fn number(field: &[u8]) -> Option<u64> {
    u64::try_from(signed(field)?).ok()
}

/// A numeric field: octal digits between spaces and NULs, or GNU base-256 (first bit set, two's complement).
fn signed(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let fill: i128 = if negative { -1 } else { 0 };
        let mut value = fill;
        for (i, byte) in field.iter().enumerate() {
            let byte = if i == 0 && !negative { byte & 0x7f } else { *byte };
            value = value.checked_mul(256)?.checked_add(i128::from(byte))?;
            if value > i128::from(u64::MAX) * 256 || value < i128::from(i64::MIN) * 256 {
                return None;
            }
        }
        return i64::try_from(value).ok();
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = field.get(start..)?;
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(blank) || !digits.iter().all(|c| (b'0'..=b'7').contains(c)) {
        return None;
    }
    digits.iter().try_fold(0i64, |n, c| n.checked_mul(8)?.checked_add(i64::from(c - b'0')))
}

/// `fill_buf` that survives signals and names what was read.
fn fill<'a, R: BufRead>(input: &'a mut R, what: &str) -> Result<&'a [u8], StoreError> {
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(StoreError::input(what)(e)),
        }
    }
    input.fill_buf().map_err(StoreError::input(what))
}
