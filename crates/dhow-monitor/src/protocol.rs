//! What client and monitor say to each other on the attach socket.
//!
//! A frame is one byte of type, four bytes of payload length (little endian) and the payload. The first frame of a
//! client is [`Frame::Hello`]; the first answer of a starting monitor is [`Frame::Started`] or [`Frame::Failed`].

/// Longest payload, in bytes. Longer data is split by the sender; a longer frame is a protocol error.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Bytes before the payload.
pub const HEADER: usize = 5;

/// What a client wants of the container's streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hello {
    /// Will send input.
    pub stdin: bool,
    /// Wants standard output.
    pub stdout: bool,
    /// Wants standard error.
    pub stderr: bool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Client: what it wants.
    Hello(Hello),
    /// Client: bytes for standard input.
    Stdin(Vec<u8>),
    /// Client: its input has ended.
    StdinEof,
    /// Client: its terminal has this size.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Client: send this signal to the container's first process.
    Signal(i32),
    /// Monitor: bytes from standard output (or the terminal).
    Stdout(Vec<u8>),
    /// Monitor: bytes from standard error.
    Stderr(Vec<u8>),
    /// Monitor: the container runs.
    Started {
        /// Its first process, in the host's numbering.
        pid: u32,
    },
    /// Monitor: the container could not be started.
    Failed {
        /// Exit code for the record and the command line: 125, 126, 127 or 128.
        code: u8,
        /// What happened, ready to print.
        message: String,
    },
    /// Monitor: the container has exited and this is recorded.
    Exited {
        /// Exit status, 128 + n after signal n.
        code: i32,
        /// The container was removed too.
        removed: bool,
    },
}

impl Frame {
    /// Appends the frame to a buffer. Payloads longer than [`MAX_PAYLOAD`] become several frames of stream data, and
    /// are cut for messages.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(h) => put(out, 0, &[u8::from(h.stdin) | u8::from(h.stdout) << 1 | u8::from(h.stderr) << 2]),
            Self::Stdin(data) => put_stream(out, 1, data),
            Self::StdinEof => put(out, 2, &[]),
            Self::Resize { rows, cols } => {
                let ([a, b], [c, d]) = (rows.to_le_bytes(), cols.to_le_bytes());
                put(out, 3, &[a, b, c, d]);
            }
            Self::Signal(number) => put(out, 4, &number.to_le_bytes()),
            Self::Stdout(data) => put_stream(out, 5, data),
            Self::Stderr(data) => put_stream(out, 6, data),
            Self::Started { pid } => put(out, 7, &pid.to_le_bytes()),
            Self::Failed { code, message } => {
                let text = &message.as_bytes()[..message.len().min(MAX_PAYLOAD - 1)];
                header(out, 8, text.len() + 1);
                out.push(*code);
                out.extend_from_slice(text);
            }
            Self::Exited { code, removed } => {
                let [a, b, c, d] = code.to_le_bytes();
                put(out, 9, &[a, b, c, d, u8::from(*removed)]);
            }
        }
    }

    /// Takes the first complete frame off a buffer; `None` if more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no frame: unknown type, wrong or too long payload.
    pub fn decode(buffer: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let Some((head, rest)) = buffer.split_at_checked(HEADER) else { return Ok(None) };
        let [kind, l0, l1, l2, l3] = *head else { return Ok(None) };
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_PAYLOAD {
            return Err(format!("frame of {length} bytes"));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let wrong = || format!("frame of type {kind} with {length} bytes of payload");
        let frame = match (kind, payload) {
            (0, [flags]) => {
                Self::Hello(Hello { stdin: flags & 1 != 0, stdout: flags & 2 != 0, stderr: flags & 4 != 0 })
            }
            (1, data) => Self::Stdin(data.to_vec()),
            (2, []) => Self::StdinEof,
            (3, [a, b, c, d]) => {
                Self::Resize { rows: u16::from_le_bytes([*a, *b]), cols: u16::from_le_bytes([*c, *d]) }
            }
            (4, data) => Self::Signal(i32::from_le_bytes(data.try_into().map_err(|_| wrong())?)),
            (5, data) => Self::Stdout(data.to_vec()),
            (6, data) => Self::Stderr(data.to_vec()),
            (7, data) => Self::Started { pid: u32::from_le_bytes(data.try_into().map_err(|_| wrong())?) },
            (8, [code, text @ ..]) => Self::Failed { code: *code, message: String::from_utf8_lossy(text).into_owned() },
            (9, [a, b, c, d, removed]) => {
                Self::Exited { code: i32::from_le_bytes([*a, *b, *c, *d]), removed: *removed != 0 }
            }
            _ => return Err(wrong()),
        };
        Ok(Some((frame, HEADER + length)))
    }
}

fn header(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

fn put(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    header(out, kind, payload.len());
    out.extend_from_slice(payload);
}

fn put_stream(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    for chunk in data.chunks(MAX_PAYLOAD) {
        put(out, kind, chunk);
    }
}

/// Appends stream data as frames without an owned [`Frame`].
pub(crate) fn encode_output(out: &mut Vec<u8>, stderr: bool, data: &[u8]) {
    put_stream(out, if stderr { 6 } else { 5 }, data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let data = || prop::collection::vec(any::<u8>(), 1..300);
        prop_oneof![
            any::<[bool; 3]>().prop_map(|[stdin, stdout, stderr]| Frame::Hello(Hello { stdin, stdout, stderr })),
            data().prop_map(Frame::Stdin),
            Just(Frame::StdinEof),
            any::<(u16, u16)>().prop_map(|(rows, cols)| Frame::Resize { rows, cols }),
            any::<i32>().prop_map(Frame::Signal),
            data().prop_map(Frame::Stdout),
            data().prop_map(Frame::Stderr),
            any::<u32>().prop_map(|pid| Frame::Started { pid }),
            (any::<u8>(), ".{0,40}").prop_map(|(code, message)| Frame::Failed { code, message }),
            any::<(i32, bool)>().prop_map(|(code, removed)| Frame::Exited { code, removed }),
        ]
    }

    proptest! {
        #[test]
        fn frames_round_trip(frames in prop::collection::vec(frame(), 0..8)) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|f| f.encode(&mut bytes));
            let (mut rest, mut seen) = (bytes.as_slice(), Vec::new());
            while let Some((frame, used)) = Frame::decode(rest).unwrap() {
                seen.push(frame);
                rest = &rest[used..];
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Frame::decode(&bytes);
        }
    }

    #[test]
    fn long_output_is_split() {
        let mut bytes = Vec::new();
        Frame::Stdout(vec![7; MAX_PAYLOAD + 1]).encode(&mut bytes);
        let (first, used) = Frame::decode(&bytes).unwrap().unwrap();
        assert_eq!(first, Frame::Stdout(vec![7; MAX_PAYLOAD]));
        assert_eq!(Frame::decode(&bytes[used..]).unwrap().unwrap().0, Frame::Stdout(vec![7]));
    }
}
