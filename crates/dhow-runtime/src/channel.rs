//! How the new process and its maker talk until the program runs.
//!
//! One `SOCK_SEQPACKET` pair, close-on-exec on both sides. The maker sends one word, *go*. The new process sends the
//! terminal's master side, at most one failure, and *ready* right before execve(2). After *ready*, the end of the stream
//! means that the program runs: the kernel closed our side. Without *ready* it means that the process died. If the
//! maker dies, the new process reads the end of the stream and goes too.

use crate::error::{Failure, OrFail, Stage};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest message. Sentences are cut to fit.
const LIMIT: usize = 16 * 1024;

/// A message of the new process.
#[derive(Debug)]
pub(crate) enum Message {
    /// The master side of the terminal.
    Terminal(OwnedFd),
    /// It failed and is going to exit.
    Failed(Failure),
    /// The next thing is execve(2).
    Ready,
    /// Our peer's side is closed.
    End,
}

/// One side.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Both sides.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(a), Self(b)))
    }

    /// Makes `stdio` descriptors 0 to 2 and this side number 3, and closes every other descriptor of the process. Values
    /// that own one must not be used any more.
    pub(crate) fn keep_only(&mut self, stdio: [OwnedFd; 3]) -> Result<(), Failure> {
        let what = || "cannot arrange descriptors";
        let own = self.0.try_clone().or_fail(Stage::Stdio, what)?;
        let kept = dhow_sys::process::replace_descriptors(stdio, vec![own]).or_fail(Stage::Stdio, what)?;
        if let Some(own) = kept.into_iter().next() {
            // The old number is closed already.
            std::mem::forget(std::mem::replace(&mut self.0, own));
        }
        Ok(())
    }

    /// Lets the new process go on.
    pub(crate) fn send_go(&self) -> io::Result<()> {
        self.send(b"g")
    }

    /// Waits for *go*. `false` when the maker is gone.
    pub(crate) fn wait_go(&self) -> io::Result<bool> {
        let mut byte = [0];
        loop {
            match rustix::net::recv(&self.0, &mut byte, RecvFlags::empty()) {
                Ok((_, n)) => return Ok(n == 1),
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Whether the maker has closed its side, without waiting.
    pub(crate) fn maker_is_gone(&self) -> bool {
        let mut byte = [0];
        !matches!(rustix::net::recv(&self.0, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(Errno::AGAIN))
    }

    /// Announces execve(2).
    pub(crate) fn send_ready(&self) -> io::Result<()> {
        self.send(b"R")
    }

    /// Reports a failure. There is nobody to tell if that fails.
    pub(crate) fn send_failure(&self, failure: &Failure) {
        let mut bytes = vec![b'F', failure.stage as u8];
        bytes.extend(failure.errno.unwrap_or(0).to_le_bytes());
        bytes.extend(failure.what.as_bytes());
        bytes.truncate(LIMIT);
        let _ = self.send(&bytes);
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL)).map(drop)?)
    }

    /// Hands over the terminal.
    pub(crate) fn send_terminal(&self, master: BorrowedFd<'_>) -> io::Result<()> {
        let fds = [master];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        rustix::net::sendmsg(&self.0, &[IoSlice::new(b"T")], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message.
    pub(crate) fn receive(&self) -> io::Result<Message> {
        let mut bytes = vec![0; LIMIT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received.bytes,
                // The peer died with our *go* unread. That is said once, and before its last words, which are still there.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(e) => return Err(e.into()),
            }
        };
        let fd = control.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        parse(&bytes[..received], fd).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "odd message"))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn parse(bytes: &[u8], fd: Option<OwnedFd>) -> Option<Message> {
    match (bytes, fd) {
        ([], _) => Some(Message::End),
        (b"R", _) => Some(Message::Ready),
        (b"T", Some(fd)) => Some(Message::Terminal(fd)),
        ([b'F', stage, rest @ ..], _) => {
            let (errno, what) = rest.split_first_chunk::<4>()?;
            let errno = i32::from_le_bytes(*errno);
            Some(Message::Failed(Failure {
                stage: Stage::from_number(*stage)?,
                what: String::from_utf8_lossy(what).into_owned(),
                errno: (errno != 0).then_some(errno),
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive() {
        let (maker, made) = Channel::pair().unwrap();
        let failure = Failure { stage: Stage::Mount, what: "cannot mount /x".into(), errno: Some(13) };
        made.send_failure(&failure);
        made.send_ready().unwrap();
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        made.send_terminal(pipe.as_fd()).unwrap();
        assert!(matches!(maker.receive().unwrap(), Message::Failed(f) if f == failure));
        assert!(matches!(maker.receive().unwrap(), Message::Ready));
        assert!(matches!(maker.receive().unwrap(), Message::Terminal(_)));
        assert!(!made.maker_is_gone());
        maker.send_go().unwrap();
        assert!(made.wait_go().unwrap());
        drop(made);
        assert!(matches!(maker.receive().unwrap(), Message::End));
    }

    #[test]
    fn an_end_is_noticed() {
        let (maker, made) = Channel::pair().unwrap();
        drop(maker);
        assert!(made.maker_is_gone());
        assert!(!made.wait_go().unwrap());
    }

    #[test]
    fn last_words_survive_an_unread_go() {
        let (maker, made) = Channel::pair().unwrap();
        made.send_failure(&Failure::new(Stage::User, "x"));
        maker.send_go().unwrap();
        drop(made);
        assert!(matches!(maker.receive().unwrap(), Message::Failed(_)));
        assert!(matches!(maker.receive().unwrap(), Message::End));
    }

    #[test]
    fn long_sentences_are_cut() {
        let (maker, made) = Channel::pair().unwrap();
        made.send_failure(&Failure::new(Stage::User, "x".repeat(100_000)));
        assert!(matches!(maker.receive().unwrap(), Message::Failed(f) if f.what.len() > 16_000));
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]

        #[test]
        fn failures_come_back(stage in 0..16_u8, errno in proptest::option::of(1..4096_i32), what in ".{0,200}") {
            let (maker, made) = Channel::pair().unwrap();
            let failure = Failure { stage: Stage::from_number(stage).unwrap(), what, errno };
            made.send_failure(&failure);
            let received = maker.receive().unwrap();
            proptest::prop_assert!(matches!(received, Message::Failed(f) if f == failure));
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let _ = parse(&bytes, None);
        }
    }

    #[test]
    fn rubbish_is_refused() {
        for bytes in [&b"F"[..], b"F\xff\0\0\0\0", b"T", b"Q", b"RR", b"F\0\0"] {
            assert!(parse(bytes, None).is_none(), "{bytes:?}");
        }
    }
}
