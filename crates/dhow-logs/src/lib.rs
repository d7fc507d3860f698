//! Container logs in Docker's `json-file` format: one JSON object per line, readable by every tool that reads Docker's.
//!
//! The writer never blocks its caller on anything but the one `write(2)` per batch and never fails: what the disk does
//! not take is dropped and counted. The reader finds its place without reading everything, follows through rotation, and
//! skips what a crash or a full disk has torn. `docs/formats/logs.md` describes the files.
//!
//! Deliberately absent: threads, timers, other log drivers, and any knowledge of containers.

mod error;
mod follow;
mod reader;
mod record;
mod source;
mod writer;

pub use error::LogError;
pub use reader::{LogReader, ReadOptions};
pub use record::{MAX_TEXT, Record, Stream, encode_record, parse_record};
pub use writer::{LogWriter, RotateOptions};
