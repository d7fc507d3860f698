//! The netlink wire format (netlink(7)): messages of attributes, in native byte order, padded to four bytes.
//!
//! Pure encoding and decoding. Decoding takes any bytes: lengths are checked, nothing panics.

/// The answer breaks the format, or lacks what its kind must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink answer: {0}")]
pub struct Malformed(pub &'static str);

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// Attribute type without its flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// `NLMSG_ERROR`: an error or, with code 0, an acknowledgement.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const DONE: u16 = 3;

/// `NLM_F_REQUEST`
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: the table changed while it was dumped.
pub const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP`
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`
pub const APPEND: u16 = 0x800;

/// Messages to be sent in one datagram.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    last: Option<usize>,
    awaited: Option<u32>,
}

impl Batch {
    /// An empty batch whose messages are numbered from `first`.
    pub fn new(first: u32) -> Self {
        Self { bytes: Vec::with_capacity(1024), sequence: first, last: None, awaited: None }
    }

    /// Appends a message: its fixed header, and the attributes that `fill` writes.
    pub fn message(&mut self, kind: u16, flags: u16, fixed: &[u8], fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.last = Some(start);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(fixed);
        pad(&mut self.bytes);
        fill(&mut Attributes { bytes: &mut self.bytes });
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// Asks for an acknowledgement of the message added last. Errors are reported unasked, so one is enough.
    pub fn acknowledge_last(&mut self) {
        if let Some(start) = self.last {
            let at = start + 6;
            let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | ACK;
            self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
            self.awaited = Some(self.sequence.wrapping_sub(1));
        }
    }

    /// The number of the message whose acknowledgement was asked for.
    pub fn awaited(&self) -> Option<u32> {
        self.awaited
    }

    /// The datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number the next message gets.
    pub fn next_sequence(&self) -> u32 {
        self.sequence
    }
}

/// Writes the attributes of a message or of a nest.
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    /// An attribute of raw bytes, shorter than 64 KiB.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend(value);
        self.close(start);
    }

    /// A number in native byte order (rtnetlink).
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// A number in network byte order (nfnetlink).
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Text with a closing zero byte.
    pub fn put_text(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// Attributes inside an attribute.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.open(kind | NESTED);
        fill(&mut Attributes { bytes: self.bytes });
        self.close(start);
    }

    /// A nest of attributes that were encoded before.
    pub fn put_nested_bytes(&mut self, kind: u16, value: &[u8]) {
        self.put(kind | NESTED, value);
    }

    /// A nest that starts with a fixed header (`VETH_INFO_PEER`).
    pub fn nest_after(&mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.open(kind | NESTED);
        self.bytes.extend(fixed);
        pad(self.bytes);
        fill(&mut Attributes { bytes: self.bytes });
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = self.bytes.len() - start;
        debug_assert!(length <= usize::from(u16::MAX), "attribute too long");
        self.bytes[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        pad(self.bytes);
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`
    pub kind: u16,
    /// `nlmsg_flags`
    pub flags: u16,
    /// `nlmsg_seq`
    pub sequence: u32,
    /// Everything after the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes after a fixed header of `fixed` bytes.
    pub fn attributes(&self, fixed: usize) -> AttributeIter<'a> {
        let rest = self.payload.get(fixed.next_multiple_of(4)..);
        AttributeIter { rest: rest.unwrap_or_default() }
    }

    /// The fixed header.
    pub fn fixed<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.payload.first_chunk::<N>().copied().ok_or(Malformed("short message"))
    }

    /// Reads an `NLMSG_ERROR`: the error number (0 is an acknowledgement) and the kernel's text.
    pub fn outcome(&self) -> Result<(i32, Option<String>), Malformed> {
        /// `NLM_F_CAPPED`: only the header of the request is repeated.
        const CAPPED: u16 = 0x100;
        /// `NLM_F_ACK_TLVS`: attributes follow.
        const TLVS: u16 = 0x200;
        /// `NLMSGERR_ATTR_MSG`
        const TEXT: u16 = 1;
        let code = i32::from_ne_bytes(self.fixed()?);
        let mut skip = 4 + HEADER;
        if self.flags & CAPPED == 0 {
            let repeated = self.payload.get(4..8).and_then(|b| b.first_chunk()).copied().map(u32::from_ne_bytes);
            skip = 4 + (repeated.unwrap_or(HEADER as u32) as usize).clamp(HEADER, 1 << 20).next_multiple_of(4);
        }
        let mut text = None;
        if self.flags & TLVS != 0 {
            for attribute in self.attributes(skip) {
                let (kind, value) = attribute?;
                if kind == TEXT {
                    text = Some(text_of(value));
                }
            }
        }
        Ok((code.checked_neg().unwrap_or(i32::MAX), text))
    }
}

/// Walks the messages of a datagram. Ends after the first malformed one.
pub struct MessageIter<'a> {
    rest: &'a [u8],
}

/// The messages of a datagram.
pub fn messages(datagram: &[u8]) -> MessageIter<'_> {
    MessageIter { rest: datagram }
}

impl<'a> Iterator for MessageIter<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = split_message(self.rest);
        match parsed {
            Ok((message, rest)) => {
                self.rest = rest;
                Some(Ok(message))
            }
            Err(e) => {
                self.rest = &[];
                Some(Err(e))
            }
        }
    }
}

fn split_message(bytes: &[u8]) -> Result<(Message<'_>, &[u8]), Malformed> {
    let header: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed("short header"))?;
    let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
    let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
    let payload = bytes.get(HEADER..length).ok_or(Malformed("message length"))?;
    let message = Message {
        kind: u16::from_ne_bytes([k0, k1]),
        flags: u16::from_ne_bytes([f0, f1]),
        sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
        payload,
    };
    Ok((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Walks attributes. Ends after the first malformed one.
#[derive(Clone)]
pub struct AttributeIter<'a> {
    rest: &'a [u8],
}

/// The attributes of a nest.
pub fn attributes(nest: &[u8]) -> AttributeIter<'_> {
    AttributeIter { rest: nest }
}

impl<'a> Iterator for AttributeIter<'a> {
    /// Type without flags, value without padding.
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let Some(&[l0, l1, k0, k1]) = rest.first_chunk::<4>() else {
            return Some(Err(Malformed("short attribute")));
        };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = rest.get(4..length) else {
            return Some(Err(Malformed("attribute length")));
        };
        self.rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value)))
    }
}

/// Text up to its zero byte; what is not UTF-8 is replaced.
pub fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// A native `u32`.
pub fn u32_of(value: &[u8]) -> Result<u32, Malformed> {
    value.first_chunk().copied().map(u32::from_ne_bytes).ok_or(Malformed("short number"))
}

/// A big-endian `u32`.
pub fn be32_of(value: &[u8]) -> Result<u32, Malformed> {
    value.first_chunk().copied().map(u32::from_be_bytes).ok_or(Malformed("short number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Node {
        Value(u16, Vec<u8>),
        Nest(u16, Vec<Node>),
    }

    fn write(out: &mut Attributes<'_>, nodes: &[Node]) {
        for node in nodes {
            match node {
                Node::Value(kind, value) => out.put(*kind, value),
                Node::Nest(kind, inner) => out.nest(*kind, |n| write(n, inner)),
            }
        }
    }

    fn read(iter: AttributeIter<'_>, shape: &[Node]) -> Vec<Node> {
        let found: Vec<_> = iter.map(Result::unwrap).collect();
        assert_eq!(found.len(), shape.len());
        found
            .into_iter()
            .zip(shape)
            .map(|((kind, value), node)| match node {
                Node::Value(..) => Node::Value(kind, value.to_vec()),
                Node::Nest(_, inner) => Node::Nest(kind, read(attributes(value), inner)),
            })
            .collect()
    }

    fn nodes() -> impl Strategy<Value = Vec<Node>> {
        let leaf = (0_u16..0x3fff, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(k, v)| Node::Value(k, v));
        let tree = leaf.prop_recursive(3, 24, 5, |inner| {
            (0_u16..0x3fff, proptest::collection::vec(inner, 0..5)).prop_map(|(k, v)| Node::Nest(k, v))
        });
        proptest::collection::vec(tree, 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn what_is_written_is_read(
            sent in proptest::collection::vec((any::<u16>(), any::<[u8; 6]>(), nodes()), 1..4),
            first: u32,
        ) {
            let mut batch = Batch::new(first);
            for (kind, fixed, tree) in &sent {
                batch.message(*kind, CREATE, fixed, |m| write(m, tree));
            }
            batch.acknowledge_last();
            prop_assert_eq!(batch.next_sequence(), first.wrapping_add(sent.len() as u32));
            let got: Vec<_> = messages(batch.bytes()).map(Result::unwrap).collect();
            prop_assert_eq!(got.len(), sent.len());
            for (i, (message, (kind, fixed, tree))) in got.iter().zip(&sent).enumerate() {
                prop_assert_eq!(message.kind, *kind);
                prop_assert_eq!(message.sequence, first.wrapping_add(i as u32));
                let ack = if i + 1 == sent.len() { ACK } else { 0 };
                prop_assert_eq!(message.flags, CREATE | REQUEST | ack);
                prop_assert_eq!(&message.fixed::<6>().unwrap(), fixed);
                prop_assert_eq!(&read(message.attributes(6), tree), tree);
            }
        }

        #[test]
        fn any_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes).flatten() {
                let _ = message.outcome();
                for (_, value) in message.attributes(4).flatten() {
                    let _ = (text_of(value), u32_of(value), be32_of(value));
                    attributes(value).for_each(drop);
                }
            }
        }
    }

    #[test]
    fn errors_carry_the_kernels_words() {
        let mut payload = (-17_i32).to_ne_bytes().to_vec();
        payload.extend([0; 16]);
        let text = b"File exists here\0";
        payload.extend((4 + text.len() as u16).to_ne_bytes());
        payload.extend(1_u16.to_ne_bytes());
        payload.extend(text);
        let message = Message { kind: ERROR, flags: 0x300, sequence: 1, payload: &payload };
        assert_eq!(message.outcome().unwrap(), (17, Some("File exists here".to_owned())));
    }
}
