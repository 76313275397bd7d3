//! Any bytes as what is said over a WebSocket, and any order in which its ends speak, listen, fall silent and go, and the process
//! leaves: nothing is lost, invented or told twice, and the process says goodbye between two frames only.
//!
//! The input is a script: a byte says what happens, a byte how much, then come the bytes that are said.

#![no_main]

use bytes::Bytes;
use http::Response;
use libfuzzer_sys::fuzz_target;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tollgate::gateway::tunnel::Tunnel;
use tollgate::reply::Kind;
use tollgate::route::Timeouts;

/// What a connection holds that nobody has read.
const HELD: usize = 48;
/// Turns after which a tunnel whose ends have both gone must have ended.
const MOST_TURNS: usize = 20_000;
/// What the client is told when the process leaves.
const RESTART: &[u8] = &[0x88, 2, 0x03, 0xf4];
const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// Times are asked for, and must not run out.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let _entered = RUNTIME.enter();
    let mut script = Script(bytes);
    let (ahead, read) = (script.bytes(), script.bytes());
    let (client, near_client) = End::new(ahead);
    let (target, near_target) = End::new(read);
    let (head, ()) = Response::new(()).into_parts();
    let mut tunnel =
        Tunnel::new((near_client, Bytes::copy_from_slice(ahead)), (near_target, read.into()), &head);
    let mut play =
        Play { client, target, closing: watch::Sender::new(false), told_in_time: false, left_alone: true };
    let end = play.run(script, &mut tunnel);
    let carried = (tunnel.bytes_in(), tunnel.bytes_out());
    drop(tunnel);
    play.client.hear_all();
    play.target.hear_all();
    play.check(end, carried);
});

struct Play {
    client: End,
    target: End,
    closing: watch::Sender<bool>,
    /// Whether the process left while the target could still say something.
    told_in_time: bool,
    /// Whether both ends stayed to the last word, and the process too.
    left_alone: bool,
}

impl Play {
    fn run(
        &mut self,
        mut script: Script<'_>,
        tunnel: &mut Tunnel<DuplexStream, DuplexStream>,
    ) -> Option<Kind> {
        let day = Duration::from_secs(86_400);
        let times = Timeouts { idle: day, stream_idle: day, ..Timeouts::default() };
        let mut carry = pin!(tunnel.carry(&times, self.closing.subscribe()));
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(act) = script.byte() {
            self.act(act, &mut script, &mut cx);
            if let Poll::Ready(end) = carry.as_mut().poll(&mut cx) {
                return end;
            }
        }
        for _ in 0..MOST_TURNS {
            for end in [&mut self.client, &mut self.target] {
                end.fall_silent(&mut cx);
                end.hear(HELD, &mut cx);
            }
            if let Poll::Ready(end) = carry.as_mut().poll(&mut cx) {
                return end;
            }
        }
        panic!("both ends have nothing to say any more, and nothing ends");
    }

    fn act(&mut self, act: u8, script: &mut Script<'_>, cx: &mut Context<'_>) {
        match act % 9 {
            0 => self.client.say(script.bytes(), cx),
            1 => self.target.say(script.bytes(), cx),
            2 => self.client.hear(script.length(), cx),
            3 => self.target.hear(script.length(), cx),
            4 => self.client.fall_silent(cx),
            5 => self.target.fall_silent(cx),
            6 => self.client.go(),
            7 => self.target.go(),
            _ => {
                let before = self.closing.send_replace(true);
                self.told_in_time |= !before && !self.target.silent;
            }
        }
        self.left_alone &= !(*self.closing.borrow() || self.client.is_gone() || self.target.is_gone());
    }

    fn check(&self, end: Option<Kind>, carried: (u64, u64)) {
        let Play { client, target, .. } = self;
        assert!(client.said.starts_with(&target.heard), "the target hears what the client says");
        let length = client.heard.len().min(HEAD.len());
        assert_eq!(client.heard[..length], HEAD[..length], "the client hears the head first");
        let heard = &client.heard[length..];
        if self.left_alone {
            assert_eq!(end, None);
            assert_eq!((&target.heard[..], heard), (&client.said[..], &target.said[..]), "nothing is lost");
            assert_eq!(
                carried,
                (client.said.len() as u64, target.said.len() as u64),
                "and everything is counted"
            );
        }
        if target.said.starts_with(heard) {
            let owed = end == Some(Kind::STOPPING) && self.told_in_time && !client.is_gone();
            assert!(!owed || !may_end(heard), "between two frames of what goes on, there is a goodbye");
            return;
        }
        assert!(*self.closing.borrow(), "nobody says what the target has not said");
        // A client that has gone may have heard no more than its beginning.
        let least = if client.is_gone() { 1 } else { RESTART.len() };
        let added = |length: &usize| {
            let before = heard.strip_suffix(&RESTART[..*length]);
            before.is_some_and(|before| target.said.starts_with(before) && may_end(before))
        };
        assert!(
            (least..=RESTART.len()).any(|length| added(&length)),
            "nothing but a goodbye, between two frames"
        );
    }
}

/// Whether another frame may follow (RFC 6455 sections 5.2 and 5.5.1).
fn may_end(mut bytes: &[u8]) -> bool {
    while let [first, second, rest @ ..] = bytes {
        let (length, rest) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest)
            }
            (126 | 127, _) => return false,
            (length, rest) => (u64::from(length), rest),
        };
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        let whole = length.saturating_add(mask);
        if whole > rest.len() as u64 {
            return false;
        }
        if first & 0x0f == 8 {
            return false;
        }
        bytes = &rest[whole as usize..];
    }
    bytes.is_empty()
}

/// The far end of one of the two connections.
struct End {
    stream: Option<DuplexStream>,
    /// What it has said, what was read too early included.
    said: Vec<u8>,
    heard: Vec<u8>,
    silent: bool,
}

impl End {
    fn new(said: &[u8]) -> (End, DuplexStream) {
        let (far, near) = duplex(HELD);
        (End { stream: Some(far), said: said.to_vec(), heard: Vec::new(), silent: false }, near)
    }

    fn is_gone(&self) -> bool {
        self.stream.is_none()
    }

    fn say(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.silent) else { return };
        if let Poll::Ready(Ok(count)) = Pin::new(stream).poll_write(cx, bytes) {
            self.said.extend_from_slice(&bytes[..count]);
        }
    }

    fn hear(&mut self, most: usize, cx: &mut Context<'_>) {
        let Some(stream) = &mut self.stream else { return };
        let mut space = [0; HELD];
        let mut piece = ReadBuf::new(&mut space[..most.min(HELD)]);
        if let Poll::Ready(Ok(())) = Pin::new(stream).poll_read(cx, &mut piece) {
            self.heard.extend_from_slice(piece.filled());
        }
    }

    /// What is still on its way when the tunnel has gone.
    fn hear_all(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let before = self.heard.len();
            self.hear(HELD, &mut cx);
            if self.heard.len() == before {
                return;
            }
        }
    }

    fn fall_silent(&mut self, cx: &mut Context<'_>) {
        if let Some(stream) = &mut self.stream {
            drop(Pin::new(stream).poll_shutdown(cx));
        }
        self.silent = true;
    }

    fn go(&mut self) {
        self.stream = None;
        self.silent = true;
    }
}

struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn length(&mut self) -> usize {
        self.byte().unwrap_or_default().into()
    }

    /// A length, and so many bytes.
    fn bytes(&mut self) -> &'a [u8] {
        let length = self.length().min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }
}
