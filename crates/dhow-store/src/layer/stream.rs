//! Decompression ahead of its consumer: one thread inflates and hashes, another extracts, blocks travel between them.

use crate::error::StoreError;
use dhow_oci::image::Compression;
use dhow_types::{Digest, Hasher};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Size of a block, in bytes. Large enough that handing one over costs nothing beside filling it.
const BLOCK: usize = 512 << 10;
/// Blocks in flight.
const AHEAD: usize = 6;
/// Read buffer in front of a decoder, in bytes.
const INPUT: usize = 256 << 10;
/// Largest zstd window, as log2 of bytes: 128 MiB, what the command line tool accepts without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Most memory the xz decoder may use, in bytes (`xz -9` needs 65 MiB).
const XZ_MEMORY: u64 = 128 << 20;

/// A decoder for a known compression. Several members or frames in a row are one stream; anything else after one is an
/// error.
pub(crate) fn decoder<'a>(reader: impl Read + 'a, compression: Compression) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => gzip(BufReader::with_capacity(INPUT, reader)),
        Compression::Zstd => zstd(BufReader::with_capacity(INPUT, reader))?,
    })
}

fn gzip<'a>(reader: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    Box::new(flate2::bufread::MultiGzDecoder::new(reader))
}

fn zstd<'a>(reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(Box::new(decoder))
}

/// Finds out how a stream is compressed by its first bytes (gzip, zstd, bzip2, xz) and decodes it; anything else passes
/// unchanged. Memory is bounded for each format.
pub fn decompressor<'a>(reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>, StoreError> {
    let mut reader = reader;
    let mut magic = [0u8; 6];
    let mut n = 0;
    while n < magic.len() {
        match reader.read(magic.get_mut(n..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(k) => n += k,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(StoreError::input("archive")(e)),
        }
    }
    let head = magic.get(..n).unwrap_or_default();
    let format = Format::of(head);
    let whole = io::Cursor::new(head.to_vec()).chain(reader);
    let broken = |format| move |source| StoreError::Compression { what: "archive".to_owned(), format, source };
    let buffered = |r| BufReader::with_capacity(INPUT, r);
    Ok(match format {
        Format::Plain => Box::new(whole),
        Format::Gzip => gzip(buffered(whole)),
        Format::Zstd => zstd(buffered(whole)).map_err(broken("zstd"))?,
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(whole))),
        Format::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                .map_err(|e| broken("xz")(io::Error::other(e)))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered(whole), stream))
        }
    })
}

/// How a layer that begins like this is compressed; `None` for formats that layers do not have.
pub(crate) fn layer_compression(head: &[u8]) -> Option<Compression> {
    match Format::of(head) {
        Format::Plain => Some(Compression::None),
        Format::Gzip => Some(Compression::Gzip),
        Format::Zstd => Some(Compression::Zstd),
        Format::Bzip2 | Format::Xz => None,
    }
}

enum Format {
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Format {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame (RFC 8878, 3.1.2).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }
}

/// Reads everything from `reader`, decompressed, on this thread, while `consume` works through it on another. Returns what
/// the consumer returned, with digest and length of the uncompressed bytes.
///
/// The consumer must read to the end.
pub(crate) fn pump<T: Send>(
    reader: impl Read,
    compression: Compression,
    what: &str,
    consume: impl FnOnce(&mut Blocks) -> Result<T, StoreError> + Send,
) -> Result<(T, Digest, u64), StoreError> {
    let (full, filled) = sync_channel(AHEAD);
    let (empty, emptied) = sync_channel(AHEAD + 2);
    std::thread::scope(|scope| {
        let consumer = std::thread::Builder::new()
            .name("unpack".to_owned())
            .spawn_scoped(scope, move || {
                let mut blocks = Blocks { filled, empty, block: Vec::new(), used: 0, complete: false };
                consume(&mut blocks)
            })
            .map_err(|source| StoreError::Io { op: "start a thread for", path: what.into(), source })?;
        let produced = produce(reader, compression, what, full, &emptied);
        let consumed = match consumer.join() {
            Ok(consumed) => consumed,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match produced {
            // The consumer gave up first: its error is the cause.
            Ok(None) => Err(consumed.err().unwrap_or(StoreError::archive(&[], "not read to the end"))),
            Ok(Some((digest, length))) => consumed.map(|value| (value, digest, length)),
            Err(error) => Err(error),
        }
    })
}

/// `None` when the consumer went away.
fn produce(
    reader: impl Read,
    compression: Compression,
    what: &str,
    full: SyncSender<Option<Vec<u8>>>,
    emptied: &Receiver<Vec<u8>>,
) -> Result<Option<(Digest, u64)>, StoreError> {
    let format = match compression {
        Compression::None => "tar",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    };
    let failed = |source: io::Error| match compression {
        Compression::None => StoreError::input(what)(source),
        _ => decode_error(what, format, source),
    };
    let mut decoder = decoder(reader, compression).map_err(failed)?;
    let mut hasher = Hasher::new();
    let mut length = 0u64;
    loop {
        let mut block = emptied.try_recv().unwrap_or_default();
        block.resize(BLOCK, 0);
        let n = fill(&mut decoder, &mut block).map_err(failed)?;
        block.truncate(n);
        hasher.update(&block);
        length += n as u64;
        let last = n < BLOCK;
        if n > 0 && full.send(Some(block)).is_err() {
            return Ok(None);
        }
        if last {
            // Only this mark is an end; a channel that just closes is a failure.
            return Ok(full.send(None).ok().map(|()| (hasher.finish(), length)));
        }
    }
}

/// The decoder's own complaint, or the complaint of the reader below it, which passes through the decoder.
fn decode_error(what: &str, format: &'static str, source: io::Error) -> StoreError {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    let decoding =
        matches!(source.kind(), InvalidInput | InvalidData | UnexpectedEof | Other) && source.raw_os_error().is_none();
    match StoreError::input(what)(source) {
        StoreError::Input { what, source } if decoding => StoreError::Compression { what, format, source },
        other => other,
    }
}

/// Reads until the buffer is full or the input ends.
pub(crate) fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = buffer.get_mut(n..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(k) => n += k,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

/// The consumer's end: a reader without copies.
pub(crate) struct Blocks {
    filled: Receiver<Option<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    block: Vec<u8>,
    used: usize,
    complete: bool,
}

impl BufRead for Blocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used >= self.block.len() && !self.complete {
            match self.filled.recv() {
                Ok(Some(block)) => {
                    let old = std::mem::replace(&mut self.block, block);
                    self.used = 0;
                    match self.empty.try_send(old) {
                        // The pool is full, or the producer is done: let it go.
                        Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
                    }
                }
                Ok(None) => self.complete = true,
                Err(_) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream broke off")),
            }
        }
        Ok(self.block.get(self.used..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.used = (self.used + n).min(self.block.len());
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), available.get(..n)) {
            to.copy_from_slice(from);
        }
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn sample() -> Vec<u8> {
        (0..3_000_000u32).map(|i| (i / 7 % 251) as u8).collect()
    }

    fn gz(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn through(input: &[u8], compression: Compression) -> Result<(Vec<u8>, Digest, u64), StoreError> {
        pump(input, compression, "test", |blocks| {
            let mut all = Vec::new();
            blocks.read_to_end(&mut all).map_err(StoreError::input("test"))?;
            Ok(all)
        })
    }

    #[test]
    fn every_format_comes_out_whole_and_hashed() {
        let data = sample();
        for (input, compression) in [
            (data.clone(), Compression::None),
            (gz(&data), Compression::Gzip),
            ([gz(&data[..1000]), gz(&data[1000..])].concat(), Compression::Gzip),
            (zstd::encode_all(data.as_slice(), 1).unwrap(), Compression::Zstd),
            (
                [zstd::encode_all(&data[..1000], 1).unwrap(), zstd::encode_all(&data[1000..], 1).unwrap()].concat(),
                Compression::Zstd,
            ),
        ] {
            let (all, digest, length) = through(&input, compression).unwrap();
            assert!(all == data && digest == Digest::of(&data) && length == data.len() as u64);
        }
        let (all, ..) = through(&[], Compression::None).unwrap();
        assert!(all.is_empty());
    }

    #[test]
    fn truncation_garbage_and_bit_flips_are_errors() {
        let data = sample();
        let zst = zstd::encode_all(data.as_slice(), 1).unwrap();
        for (good, compression) in [(gz(&data), Compression::Gzip), (zst, Compression::Zstd)] {
            // Control: the undamaged stream passes.
            through(&good, compression).unwrap();
            let mut flipped = good.clone();
            let middle = good.len() / 2;
            flipped[middle] ^= 0x10;
            let garbage = [good.as_slice(), b"garbage"].concat();
            let zeros = [good.as_slice(), &[0; 512]].concat();
            for bad in [&good[..good.len() - 1], &good[..middle], &garbage, &zeros, b"plain text"] {
                let error = through(bad, compression).unwrap_err();
                assert!(matches!(error, StoreError::Compression { .. }), "{error:?}");
            }
            // zstd frames need not carry a checksum; the diff ID catches what slips through.
            let slipped = through(&flipped, compression);
            assert!(slipped.is_err() || slipped.unwrap().1 != Digest::of(&data));
        }
    }

    #[test]
    fn t20_a_huge_zstd_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&sample()).unwrap();
        assert!(through(&encoder.finish().unwrap(), Compression::Zstd).is_err());
    }

    #[test]
    fn a_consumer_that_gives_up_is_the_cause() {
        let error = pump(sample().as_slice(), Compression::None, "test", |_| -> Result<(), _> {
            Err(StoreError::archive(b"x", "enough"))
        });
        assert!(error.unwrap_err().to_string().contains("enough"));
    }

    #[test]
    fn formats_are_recognised() {
        let data = sample();
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&data).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&data).unwrap();
        for input in [
            data.clone(),
            gz(&data),
            zstd::encode_all(data.as_slice(), 1).unwrap(),
            bz.finish().unwrap(),
            xz.finish().unwrap(),
        ] {
            let mut all = Vec::new();
            decompressor(input.as_slice()).unwrap().read_to_end(&mut all).unwrap();
            assert!(all == data);
        }
        let mut all = Vec::new();
        decompressor(&b"ab"[..]).unwrap().read_to_end(&mut all).unwrap();
        assert_eq!(all, b"ab");
    }
}
