//! What a process and its successor say to each other: frames over a private pair of sockets, and the listening sockets
//! themselves (`SCM_RIGHTS`, unix(7)).
//!
//! A frame is one byte for its kind, four for the length of what follows (little endian), and that. All of it blocks, each
//! time up to a deadline.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Version of what is said here. Processes that do not speak the same do not succeed each other.
pub(super) const PROTOCOL: u32 = 2;

/// Longest word.
const LONGEST_WORD: usize = 1 << 20;
/// Largest state: a hundred million counters of quotas do not fit, a million do many times over.
const LARGEST_STATE: usize = 1 << 30;
/// Sockets in one message; the kernel takes 253.
const AT_ONCE: usize = 64;

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// The first: from the process that runs.
    Welcome(Welcome),
    /// The successor could serve.
    Ready { pid: u32, version: String, config: String },
    /// It cannot, and why.
    Failed(String),
    /// It serves.
    Serving,
    /// What is left to finish in the process that was succeeded.
    Draining { connections: usize },
}

/// What a successor begins with.
#[derive(Serialize, Deserialize)]
pub(super) struct Welcome {
    pub protocol: u32,
    pub pid: u32,
    pub version: String,
    /// What the identities of counters are hashed with.
    pub seed: [u8; 16],
    /// The sockets that follow, in order.
    pub sockets: Vec<Place>,
}

/// Has secrets in it.
impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Welcome(…)")
    }
}

/// Where a socket listens, as the configuration says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    /// An address of a listener. With port 0, only the listener of that name may have it.
    Listener { name: String, bind: SocketAddr },
    /// The admin listener over TCP.
    AdminTcp(SocketAddr),
    /// The admin listener on a path.
    AdminUnix(PathBuf),
}

/// One end.
#[derive(Debug)]
pub(super) struct Wire(UnixStream);

impl Wire {
    /// Both ends.
    pub(super) fn pair() -> io::Result<(Wire, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Wire(ours), theirs.into()))
    }

    /// The end that this process was given as its standard input.
    pub(super) fn from_stdin() -> io::Result<Wire> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Fails on anything that is no Unix socket.
        stream.peer_addr()?;
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(nothing)?;
        Ok(Wire(stream))
    }

    pub(super) fn try_clone(&self) -> io::Result<Wire> {
        self.0.try_clone().map(Wire)
    }

    pub(super) fn say(&mut self, word: &Word, within: Duration) -> io::Result<()> {
        let text = serde_json::to_vec(word)?;
        self.send(b'w', &text, Instant::now() + within)
    }

    /// The next word, which must come within the time.
    pub(super) fn hear(&mut self, within: Duration) -> io::Result<Word> {
        let text = self.receive(b'w', LONGEST_WORD, Instant::now() + within)?;
        Ok(serde_json::from_slice(&text)?)
    }

    pub(super) fn send_state(&mut self, state: &[u8], within: Duration) -> io::Result<()> {
        self.send(b's', state, Instant::now() + within)
    }

    pub(super) fn receive_state(&mut self, within: Duration) -> io::Result<Vec<u8>> {
        self.receive(b's', LARGEST_STATE, Instant::now() + within)
    }

    pub(super) fn send_sockets(&mut self, sockets: &[BorrowedFd<'_>], within: Duration) -> io::Result<()> {
        self.0.set_write_timeout(Some(within))?;
        for some in sockets.chunks(AT_ONCE) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !ancillary.push(SendAncillaryMessage::ScmRights(some)) {
                return Err(ErrorKind::InvalidInput.into());
            }
            sendmsg(&self.0, &[IoSlice::new(b"f")], &mut ancillary, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    pub(super) fn receive_sockets(&mut self, count: usize, within: Duration) -> io::Result<Vec<OwnedFd>> {
        let by = Instant::now() + within;
        let mut sockets = Vec::new();
        while sockets.len() < count {
            self.0.set_read_timeout(Some(left(by)?))?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
            let before = sockets.len();
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = message {
                    sockets.extend(some);
                }
            }
            if received.bytes == 0 || sockets.len() == before {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(sockets)
    }

    fn send(&mut self, kind: u8, bytes: &[u8], by: Instant) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let mut frame = vec![kind];
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(bytes);
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            self.0.set_write_timeout(Some(left(by)?))?;
            match self.0.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(error) if again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, kind: u8, longest: usize, by: Instant) -> io::Result<Vec<u8>> {
        let [said, length @ ..] = self.exactly::<5>(by)?;
        let length = u32::from_le_bytes(length) as usize;
        if said != kind || length > longest {
            return Err(io::Error::new(ErrorKind::InvalidData, "what was said is not understood"));
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes, by)?;
        Ok(bytes)
    }

    fn exactly<const N: usize>(&mut self, by: Instant) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, by)?;
        Ok(bytes)
    }

    fn fill(&mut self, mut rest: &mut [u8], by: Instant) -> io::Result<()> {
        while !rest.is_empty() {
            self.0.set_read_timeout(Some(left(by)?))?;
            match self.0.read(rest) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => rest = rest.get_mut(read..).unwrap_or_default(),
                Err(error) if again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether trying again may go better, if there is time left.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The time left; a socket takes no time-out of zero.
fn left(by: Instant) -> io::Result<Duration> {
    let left = by.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const SOON: Duration = Duration::from_secs(5);

    fn pair() -> (Wire, Wire) {
        let (ours, theirs) = Wire::pair().unwrap();
        (ours, Wire(theirs.into()))
    }

    #[test]
    fn words_state_and_sockets_arrive_in_order() {
        let (mut ours, mut theirs) = pair();
        let listeners: Vec<TcpListener> =
            (0..150).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let sockets: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        ours.say(&Word::Draining { connections: 7 }, SOON).unwrap();
        ours.send_sockets(&sockets, SOON).unwrap();
        let state = vec![1; 100_000];
        let sender = std::thread::spawn(move || ours.send_state(&state, SOON).map(|()| ours));
        assert!(matches!(theirs.hear(SOON).unwrap(), Word::Draining { connections: 7 }));
        let received = theirs.receive_sockets(150, SOON).unwrap();
        assert_eq!(theirs.receive_state(SOON).unwrap(), vec![1; 100_000]);
        sender.join().unwrap().unwrap();
        for (before, after) in listeners.iter().zip(received) {
            assert_eq!(TcpListener::from(after).local_addr().unwrap(), before.local_addr().unwrap());
        }
    }

    #[test]
    fn silence_an_end_and_nonsense_are_errors() {
        let (mut ours, theirs) = pair();
        let silence = ours.hear(Duration::from_millis(20)).unwrap_err();
        assert_eq!(silence.kind(), ErrorKind::TimedOut);
        drop(theirs);
        assert_eq!(ours.hear(SOON).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        for nonsense in [&b"hello world"[..], b"w\xff\xff\xff\xff", b"w\x02\0\0\0{}", b"s\0\0\0\0"] {
            let (mut ours, theirs) = pair();
            (&theirs.0).write_all(nonsense).unwrap();
            assert_eq!(ours.hear(SOON).unwrap_err().kind(), ErrorKind::InvalidData, "{nonsense:?}");
        }
        let (mut ours, theirs) = pair();
        (&theirs.0).write_all(b"no sockets").unwrap();
        assert_eq!(ours.receive_sockets(1, SOON).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
