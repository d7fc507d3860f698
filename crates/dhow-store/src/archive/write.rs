//! Archives piece by piece, for callers who decide what is in them.

use crate::error::StoreError;
use crate::layer::walk::{Meaning, Node, Visitor, Walk, content};
use crate::tar::write::TarWriter;
use crate::tar::{Entry, Kind};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

/// Size of the buffer for file contents, in bytes.
const BUFFER: usize = 256 << 10;

/// Writes a tar: single files, and whole trees below a folder. The bytes depend on what is written alone.
pub struct ArchiveWriter<W: Write> {
    tar: TarWriter<W>,
    buffer: Vec<u8>,
}

fn output(source: io::Error) -> StoreError {
    StoreError::Output { what: "the archive", source }
}

impl<W: Write> ArchiveWriter<W> {
    /// An archive that goes to `out`.
    pub fn new(out: W) -> Self {
        Self { tar: TarWriter::new(out), buffer: vec![0; BUFFER] }
    }

    /// Adds a directory (0755, root), named without a slash at its end.
    pub fn directory(&mut self, name: &str) -> Result<(), StoreError> {
        let mut entry = Entry::new(Kind::Directory, format!("{name}/").as_bytes());
        entry.mode = 0o755;
        self.tar.entry(&entry).map_err(output)
    }

    /// Adds a file (0644, root) of `size` bytes, which `fill` writes.
    pub fn file(
        &mut self,
        name: &str,
        size: u64,
        fill: &mut dyn FnMut(&mut dyn Write) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut entry = Entry::new(Kind::File, name.as_bytes());
        entry.mode = 0o644;
        entry.size = size;
        self.tar.entry(&entry).map_err(output)?;
        let mut data = Data { tar: &mut self.tar, left: size };
        fill(&mut data)?;
        if data.left != 0 {
            return Err(output(io::Error::other(format!("{name} is {} bytes shorter than announced", data.left))));
        }
        self.tar.end_data(size).map_err(output)
    }

    /// Adds everything below a directory, with owners, modes and attributes as they are, under the names
    /// `prefix` + path. The directory itself gets no entry; `prefix` is empty or ends with a slash.
    pub fn tree(&mut self, prefix: &str, root: BorrowedFd<'_>) -> Result<(), StoreError> {
        let walk = Walk { meaning: Meaning::Plain, skip: &[], clamp: None, strip: false };
        walk.run(root, &mut Prefixed { archive: self, prefix: prefix.as_bytes() })
    }

    /// Stops here, without an end; another writer can go on.
    pub fn into_inner(self) -> W {
        self.tar.into_inner()
    }

    /// Writes the end. Returns the output.
    pub fn finish(self) -> Result<W, StoreError> {
        Ok(self.tar.finish().map_err(output)?.0)
    }
}

struct Data<'a, W: Write> {
    tar: &'a mut TarWriter<W>,
    left: u64,
}

impl<W: Write> Write for Data<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len() as u64;
        if n > self.left {
            return Err(io::Error::other("a file is longer than announced"));
        }
        self.tar.data(bytes)?;
        self.left -= n;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Prefixed<'a, W: Write> {
    archive: &'a mut ArchiveWriter<W>,
    prefix: &'a [u8],
}

impl<W: Write> Visitor for Prefixed<'_, W> {
    fn node(&mut self, node: &Node<'_>) -> Result<(), StoreError> {
        if node.entry.path.is_empty() {
            return Ok(());
        }
        let mut entry = node.entry.clone();
        entry.path = [self.prefix, &entry.path].concat();
        match entry.kind {
            Kind::Directory => entry.path.push(b'/'),
            Kind::HardLink => entry.link = [self.prefix, &entry.link].concat(),
            _ => {}
        }
        let ArchiveWriter { tar, buffer } = &mut *self.archive;
        tar.entry(&entry).map_err(output)?;
        let (Kind::File, Some(fd)) = (entry.kind, node.fd) else { return Ok(()) };
        content(fd, entry.size, buffer, &mut |_, bytes, _| tar.data(bytes).map_err(output))?;
        tar.end_data(entry.size).map_err(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    #[test]
    fn pieces_and_trees() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/a"), "one").unwrap();
        fs::hard_link(dir.path().join("d/a"), dir.path().join("d/b")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let mut archive = ArchiveWriter::new(Vec::new());
        archive.directory("blobs").unwrap();
        archive.file("blobs/x", 3, &mut |w| w.write_all(b"abc").map_err(output)).unwrap();
        assert!(archive.tree("p/", root.as_fd()).is_ok());
        let bytes = archive.finish().unwrap();
        let mut reader = tar::Archive::new(bytes.as_slice());
        let names: Vec<String> = reader
            .entries()
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                let link = e.link_name().unwrap().map(|l| format!("={}", l.display())).unwrap_or_default();
                format!("{}{link}", e.path().unwrap().display())
            })
            .collect();
        assert_eq!(names, ["blobs/", "blobs/x", "p/d/", "p/d/a", "p/d/b=p/d/a"]);
    }

    #[test]
    fn a_file_has_the_length_that_was_announced() {
        for text in ["ab", "abcd"] {
            let mut archive = ArchiveWriter::new(Vec::new());
            assert!(archive.file("x", 3, &mut |w| w.write_all(text.as_bytes()).map_err(output)).is_err());
        }
    }
}
