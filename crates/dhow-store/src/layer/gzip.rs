//! gzip on several threads, with output that depends on the input alone.
//!
//! The input is cut into fixed blocks; each is deflated by itself and ends at a byte boundary (a sync flush), so that the
//! pieces in a row are one deflate stream (RFC 1951) in one gzip member (RFC 1952). The 32 KiB window starts empty in each
//! block, which costs about one per cent of size.

use flate2::{Compress, Crc, FlushCompress, Status};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{JoinHandle, available_parallelism};

/// Size of an uncompressed block, in bytes. Part of the format of our output: another value gives other digests.
const BLOCK: usize = 512 << 10;
/// Deflate level unless asked otherwise. Part of the format of our output.
const LEVEL: u32 = 6;
/// Most threads.
const THREADS: usize = 8;

/// No name, no time, no flags, unknown system: nothing that could differ.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

type Packed = io::Result<Vec<u8>>;

/// A writer that compresses what it is given.
pub(crate) struct GzipWriter<W: Write> {
    out: W,
    block: Vec<u8>,
    workers: Vec<Worker>,
    /// Blocks handed out, and blocks written.
    sent: usize,
    received: usize,
    crc: Crc,
    header_written: bool,
}

struct Worker {
    /// `None` once no more blocks come, which ends the thread.
    work: Option<SyncSender<(Vec<u8>, bool)>>,
    done: Receiver<Packed>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Write> GzipWriter<W> {
    /// A writer with as many threads as there are processors.
    pub(crate) fn new(out: W) -> io::Result<Self> {
        Self::with_level(out, None)
    }

    /// The same with a level of the caller's (0 to 9).
    pub(crate) fn with_level(out: W, level: Option<u32>) -> io::Result<Self> {
        let threads = available_parallelism().map_or(2, usize::from).clamp(1, THREADS);
        Self::with_threads(out, threads, level.unwrap_or(LEVEL).min(9))
    }

    fn with_threads(out: W, threads: usize, level: u32) -> io::Result<Self> {
        let workers = (0..threads).map(|_| Worker::start(level)).collect::<io::Result<_>>()?;
        let block = Vec::with_capacity(BLOCK);
        Ok(Self { out, block, workers, sent: 0, received: 0, crc: Crc::new(), header_written: false })
    }

    /// Compresses what is left and writes the end. Returns the output.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.hand_out(true)?;
        while self.received < self.sent {
            self.take_one()?;
        }
        let mut trailer = self.crc.sum().to_le_bytes().to_vec();
        trailer.extend_from_slice(&self.crc.amount().to_le_bytes());
        self.out.write_all(&trailer)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn hand_out(&mut self, last: bool) -> io::Result<()> {
        if !self.header_written {
            self.out.write_all(&HEADER)?;
            self.header_written = true;
        }
        let count = self.workers.len();
        // Each worker holds at most two blocks: one in work, one waiting.
        while self.sent - self.received >= 2 * count {
            self.take_one()?;
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.crc.update(&block);
        let worker = self.workers.get_mut(self.sent % count).ok_or_else(gone)?;
        worker.work.as_ref().ok_or_else(gone)?.send((block, last)).map_err(|_| gone())?;
        self.sent += 1;
        Ok(())
    }

    fn take_one(&mut self) -> io::Result<()> {
        let count = self.workers.len();
        let worker = self.workers.get(self.received % count).ok_or_else(gone)?;
        let packed = worker.done.recv().map_err(|_| gone())??;
        self.received += 1;
        self.out.write_all(&packed)
    }
}

fn gone() -> io::Error {
    io::Error::other("a compression thread ended")
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK - self.block.len();
        let n = bytes.len().min(room);
        self.block.extend_from_slice(bytes.get(..n).unwrap_or_default());
        if self.block.len() == BLOCK {
            self.hand_out(false)?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Worker {
    fn start(level: u32) -> io::Result<Self> {
        let (work, blocks) = sync_channel::<(Vec<u8>, bool)>(1);
        let (results, done) = sync_channel(2);
        let thread = std::thread::Builder::new().name("gzip".to_owned()).spawn(move || {
            let mut state = Compress::new(flate2::Compression::new(level), false);
            for (block, last) in blocks {
                if results.send(deflate(&mut state, &block, last)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { work: Some(work), done, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.work = None;
        // Let a blocked send go through, then wait, so that no thread outlives the writer.
        while self.done.try_recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn deflate(state: &mut Compress, block: &[u8], last: bool) -> Packed {
    state.reset();
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut packed = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let used = usize::try_from(state.total_in()).unwrap_or(usize::MAX);
        let status = state.compress_vec(block.get(used..).unwrap_or_default(), &mut packed, flush)?;
        let room = packed.capacity() > packed.len();
        let all = state.total_in() == block.len() as u64;
        match status {
            Status::StreamEnd => return Ok(packed),
            // A sync flush is complete when it leaves room in the output (zlib.h, deflate()).
            Status::Ok | Status::BufError if all && room && !last => return Ok(packed),
            _ => packed.reserve(64 << 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn compress(data: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let mut writer = GzipWriter::with_threads(Vec::new(), threads, LEVEL).unwrap();
        for chunk in data.chunks(piece.max(1)) {
            writer.write_all(chunk).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn one_input_one_output_whatever_the_threads() {
        let mut state = 12345u32;
        let data: Vec<u8> = (0..3 * BLOCK + 777)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if i % 1000 < 500 { (state >> 24) as u8 } else { b'a' }
            })
            .collect();
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, data.len()] {
            let data = &data[..len];
            let one = compress(data, 1, 4096);
            assert!(one == compress(data, 2, 100_000) && one == compress(data, 5, len), "length {len}");
            let mut back = Vec::new();
            // A single-member reader: it is one member.
            flate2::read::GzDecoder::new(one.as_slice()).read_to_end(&mut back).unwrap();
            assert!(back == data, "length {len}");
        }
    }

    #[test]
    fn incompressible_data_fits_too() {
        let mut data = vec![0u8; BLOCK + 10];
        rustix::rand::getrandom(&mut data[..200_000], rustix::rand::GetRandomFlags::empty()).unwrap();
        let packed = compress(&data, 2, BLOCK);
        let mut back = Vec::new();
        flate2::bufread::MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut back).unwrap();
        assert!(back == data);
    }

    #[test]
    fn an_abandoned_writer_ends_its_threads() {
        let mut writer = GzipWriter::with_threads(Vec::new(), 3, LEVEL).unwrap();
        writer.write_all(&vec![1; 4 * BLOCK]).unwrap();
        drop(writer);
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_reported() {
        let mut writer = GzipWriter::with_threads(Full, 2, LEVEL).unwrap();
        assert!(writer.write_all(&vec![1; 4 * BLOCK]).is_err());
    }
}
