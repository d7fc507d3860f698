//! A tar writer that writes whatever it is told: names with `..`, absolute links, devices, wrong sizes.

/// What an entry is (POSIX ustar, typeflag).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Hard link.
    Link,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Character,
    /// Block device.
    Block,
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
}

impl Kind {
    fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::Link => b'1',
            Self::Symlink => b'2',
            Self::Character => b'3',
            Self::Block => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }
}

/// One entry of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    kind: Kind,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    mtime: u64,
    device: (u32, u32),
    size: Option<u64>,
    data: Vec<u8>,
    records: Vec<(String, Vec<u8>)>,
}

impl Entry {
    fn new(kind: Kind, name: &str, mode: u32) -> Self {
        Self {
            kind,
            name: name.into(),
            link: Vec::new(),
            mode,
            owner: (0, 0),
            mtime: 1_700_000_000,
            device: (0, 0),
            size: None,
            data: Vec::new(),
            records: Vec::new(),
        }
    }

    /// A regular file.
    pub fn file(name: &str, mode: u32, data: impl AsRef<[u8]>) -> Self {
        Self { data: data.as_ref().to_vec(), ..Self::new(Kind::File, name, mode) }
    }

    /// A directory.
    pub fn dir(name: &str, mode: u32) -> Self {
        Self::new(Kind::Directory, name, mode)
    }

    /// A symbolic link.
    pub fn symlink(name: &str, to: &str) -> Self {
        Self { link: to.into(), ..Self::new(Kind::Symlink, name, 0o777) }
    }

    /// A hard link. Its mode should be the target's: readers apply it to the inode that both share.
    pub fn link(name: &str, to: &str) -> Self {
        Self { link: to.into(), ..Self::new(Kind::Link, name, 0o644) }
    }

    /// A named pipe.
    pub fn fifo(name: &str) -> Self {
        Self::new(Kind::Fifo, name, 0o644)
    }

    /// A character or block device.
    pub fn device(kind: Kind, name: &str, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(kind, name, 0o666) }
    }

    /// Sets the mode.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sets user and group.
    pub fn owned(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Sets the modification time, in seconds since 1970.
    pub fn modified(mut self, mtime: u64) -> Self {
        self.mtime = mtime;
        self
    }

    /// Claims a size, whatever the data's is.
    pub fn claiming(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// Adds a pax record; for an extended attribute the key is `SCHILY.xattr.NAME`.
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.records.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut records = self.records.clone();
        if self.name.len() > 100 {
            records.push(("path".to_owned(), self.name.clone()));
        }
        if self.link.len() > 100 {
            records.push(("linkpath".to_owned(), self.link.clone()));
        }
        if !records.is_empty() {
            let body: Vec<u8> = records.iter().flat_map(|(k, v)| pax_record(k, v)).collect();
            header(out, b'x', b"PaxHeaders/entry", b"", 0o644, (0, 0), self.mtime, (0, 0), body.len() as u64);
            padded(out, &body);
        }
        let size = self.size.unwrap_or(self.data.len() as u64);
        header(out, self.kind.flag(), &self.name, &self.link, self.mode, self.owner, self.mtime, self.device, size);
        padded(out, &self.data);
    }
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let length = (1..).map(|digits| rest + digits).find(|l| l.to_string().len() + rest == *l).unwrap_or(rest);
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

#[expect(clippy::too_many_arguments, reason = "the fields of a ustar header")]
fn header(
    out: &mut Vec<u8>,
    flag: u8,
    name: &[u8],
    link: &[u8],
    mode: u32,
    owner: (u32, u32),
    mtime: u64,
    device: (u32, u32),
    size: u64,
) {
    let mut block = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8], max: usize| {
        let len = bytes.len().min(max);
        block[at..at + len].copy_from_slice(&bytes[..len]);
    };
    put(0, name, 100);
    put(100, format!("{mode:07o}").as_bytes(), 7);
    put(108, format!("{:07o}", owner.0).as_bytes(), 7);
    put(116, format!("{:07o}", owner.1).as_bytes(), 7);
    if size < 1 << 33 {
        put(124, format!("{size:011o}").as_bytes(), 11);
    } else {
        // Base 256: the first bit says so.
        put(124, &[&[0x80, 0, 0, 0], &size.to_be_bytes()[..]].concat(), 12);
    }
    put(136, format!("{mtime:011o}").as_bytes(), 11);
    put(156, &[flag], 1);
    put(157, link, 100);
    put(257, b"ustar\x0000", 8);
    put(329, format!("{:07o}", device.0).as_bytes(), 7);
    put(337, format!("{:07o}", device.1).as_bytes(), 7);
    put(148, b"        ", 8);
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}

fn padded(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// An archive in memory.
#[derive(Debug, Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// An archive of these entries.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
        entries.into_iter().fold(Self::new(), Self::with).finish()
    }

    /// Adds an entry.
    pub fn with(mut self, entry: Entry) -> Self {
        entry.write(&mut self.bytes);
        self
    }

    /// Adds an entry in place.
    pub fn push(&mut self, entry: &Entry) {
        entry.write(&mut self.bytes);
    }

    /// The archive with its end marker.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_reader_reads_it() {
        let long = "d/".repeat(80) + "end";
        let bytes = Tar::of([
            Entry::dir("a/", 0o755),
            Entry::file("a/f", 0o640, b"hello").owned(1, 2),
            Entry::file(&long, 0o600, b"").pax("SCHILY.xattr.user.x", b"1\n2"),
            Entry::symlink("s", "/etc/passwd"),
        ]);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            names.push((entry.path().unwrap().to_string_lossy().into_owned(), entry.header().mode().unwrap()));
        }
        let expected = [("a/", 0o755), ("a/f", 0o640), (long.as_str(), 0o600), ("s", 0o777)];
        assert_eq!(names, expected.map(|(n, m)| (n.to_owned(), m)));
    }

    #[test]
    fn pax_lengths_count_themselves() {
        assert_eq!(pax_record("path", b"a"), b"9 path=a\n");
        for length in [1, 50, 88, 90, 99, 980, 995] {
            let record = pax_record("path", &vec![b'x'; length]);
            assert!(record.starts_with(format!("{} path=x", record.len()).as_bytes()), "{length}");
        }
    }
}
