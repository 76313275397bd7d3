//! A WebSocket between a client and a target: bytes in both directions until both have ended (RFC 6455).
//!
//! The engine's own tunnel ends right behind the 101 when that comes before the engine has noted the end of the request
//! (cloudflare/pingora#946), which under load it does; and no tunnel of its can be told to end. Here both connections are
//! taken out of everything that speaks HTTP, with all that was read of them too early.

mod frames;
mod lane;

use super::client::Client;
use super::{Context, Gateway};
use crate::exchange::ResponseHead;
use crate::forward::websocket;
use crate::listen::http1::Session;
use crate::observe::panics::guarded;
use crate::reply::Kind;
use crate::route::Timeouts;
use crate::upstream::http1::Switched;
use bytes::{Bytes, BytesMut};
use frames::Frames;
use lane::{Failed, Lane};
use std::future::{pending, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

/// A frame that says goodbye to the client (RFC 6455 section 7.4).
type Goodbye = [u8; 4];

/// When the process leaves: 1012, "service restart".
const RESTART: Goodbye = [0x88, 2, 0x03, 0xf4];

/// When it has lived for as long as it may: 1001, "going away". Clients come again after that.
const GOING_AWAY: Goodbye = [0x88, 2, 0x03, 0xe9];

/// How long saying so may take, the client's goodbye included. The server waits a little longer.
const FAREWELL: Duration = Duration::from_millis(900);

impl Gateway {
    /// Carries what is said from the 101 on, and records the request when all is said. A panic ends this tunnel and no other.
    pub(super) async fn tunnel(
        &self,
        mut session: Box<Session>,
        switched: Box<Switched>,
        mut ctx: Box<Context>,
    ) {
        let Switched { head, socket, read } = *switched;
        let request = session.take_request();
        let timeouts = ctx.route.as_ref().map(|route| route.timeouts).unwrap_or_default();
        let mut tunnel = Tunnel::new(session.into_parts(), (socket, read), &head);
        let carried = guarded(pin!(tunnel.carry(&timeouts, self.closing.subscribe()))).await;
        ctx.exchange.reason = ctx.mourn(carried).map(|kind| kind.code);
        ctx.exchange.bytes_in = tunnel.bytes_in();
        self.record(&request, tunnel.bytes_out(), &mut ctx);
    }
}

impl Context {
    /// Makes the head of a target's 101 one for the client, as the head of any other answer.
    pub(super) fn grant_websocket(&mut self, client: &mut Client<'_>) {
        let Some(mut switched) = self.switched.take() else { return };
        websocket::grant(&mut switched.head);
        self.answered(client, &mut switched.head, true);
        self.switched = Some(switched);
    }
}

/// Waits until the time for streams is up.
async fn told(closing: &mut watch::Receiver<bool>) {
    // Whoever could say so is gone only when the process ends.
    drop(closing.wait_for(|closing| *closing).await);
}

/// The head of a 101 on the wire.
fn write_head(head: &ResponseHead) -> Vec<u8> {
    let mut out = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Two connections that have become one.
pub struct Tunnel<C, T> {
    client: C,
    target: T,
    /// From the client to the target.
    up: Lane,
    /// From the target to the client, with the head of the 101 before it.
    down: Lane,
    /// Bytes of that head.
    head: u64,
    /// When anything moved last.
    active: Instant,
}

impl<C, T> Tunnel<C, T>
where
    C: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    /// Two connections, what was read of them too early, and the head of the 101 that the client still has to get.
    pub fn new((client, ahead): (C, Bytes), (target, read): (T, BytesMut), head: &ResponseHead) -> Self {
        let mut begin = write_head(head);
        let (head, mut frames) = (begin.len() as u64, Frames::default());
        frames.follow(&read);
        begin.extend_from_slice(&read);
        let (up, down) = (Lane::new(ahead.to_vec(), None), Lane::new(begin, Some(frames)));
        Tunnel { client, target, up, down, head, active: Instant::now() }
    }

    /// Bytes that have gone to the target.
    pub fn bytes_in(&self) -> u64 {
        self.up.carried()
    }

    /// Bytes that have gone to the client behind the head.
    pub fn bytes_out(&self) -> u64 {
        self.down.carried().saturating_sub(self.head)
    }

    /// Carries everything there is; gives why it ended, unless both sides have said their last word.
    pub async fn carry(&mut self, timeouts: &Timeouts, mut closing: watch::Receiver<bool>) -> Option<Kind> {
        let lifetime = timeouts.websocket_lifetime;
        let mut lived = pin!(async {
            match lifetime {
                Some(lifetime) => tokio::time::sleep(lifetime).await,
                None => pending().await,
            }
        });
        while !(self.up.is_over() && self.down.is_over()) {
            // Whoever has heard the last word of the other side is not waited for as long.
            let limit = match self.up.is_open() && self.down.is_open() {
                true => timeouts.stream_idle,
                false => timeouts.stream_idle.min(timeouts.idle),
            };
            let quiet = tokio::time::Instant::from_std(self.active + limit);
            tokio::select! {
                // What comes after we were told to close is not carried any more.
                biased;
                () = told(&mut closing) => {
                    self.part(RESTART).await;
                    return Some(Kind::STOPPING);
                }
                () = &mut lived => {
                    self.part(GOING_AWAY).await;
                    return Some(Kind::STREAM_LIFETIME);
                }
                () = self.progress() => {}
                () = tokio::time::sleep_until(quiet) => if self.active.elapsed() >= limit {
                    return Some(Kind::STREAM_IDLE);
                }
            }
        }
        self.failure()
    }

    /// Carries until a side has said its last word.
    async fn progress(&mut self) {
        let open = |up: &Lane, down: &Lane| (up.is_open(), up.is_over(), down.is_open(), down.is_over());
        let before = open(&self.up, &self.down);
        poll_fn(|cx| {
            let Tunnel { client, target, up, down, .. } = &mut *self;
            // Who is waited for is told by the state.
            let _ = (up.poll(cx, client, target), down.poll(cx, target, client));
            if up.has_moved() | down.has_moved() {
                self.active = Instant::now();
            }
            // Nothing more can be said to a side that has failed.
            if self.up.failed() == Some(Failed::Source) {
                self.down.abandon();
            }
            if self.down.failed() == Some(Failed::Source) {
                self.up.abandon();
            }
            match before == open(&self.up, &self.down) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Whose fault the end is. A target that has closed may well be sent something more, so that counts for nothing.
    fn failure(&self) -> Option<Kind> {
        match (self.up.failed(), self.down.failed()) {
            (Some(Failed::Source), _) | (_, Some(Failed::Sink)) => Some(Kind::CLIENT_GONE),
            (_, Some(Failed::Source)) => Some(Kind::UPSTREAM_CLOSED),
            _ => None,
        }
    }

    /// Says goodbye. A client that takes longer does not get it.
    async fn part(&mut self, goodbye: Goodbye) {
        drop(tokio::time::timeout(FAREWELL, self.farewell(goodbye)).await);
    }

    /// Tells the client, between two frames, that this is the end, and waits for it to go. What it says to that is passed on,
    /// so that the target knows too.
    async fn farewell(&mut self, goodbye: Goodbye) -> io::Result<()> {
        if !self.down.is_over() {
            self.last_words(goodbye).await?;
        }
        // Bytes that nobody has read would make a reset of the end of the connection, and undo what was said.
        let mut heard = self.target.write_all(&self.up.take_kept()).await.is_ok();
        let mut piece = [0; 4096];
        loop {
            let read = self.client.read(&mut piece).await?;
            let read = piece.get(..read).unwrap_or_default();
            if read.is_empty() {
                return Ok(());
            }
            // A target that takes no more changes nothing for the client.
            heard = heard && self.target.write_all(read).await.is_ok();
        }
    }

    async fn last_words(&mut self, goodbye: Goodbye) -> io::Result<()> {
        let kept = self.down.take_kept();
        self.client.write_all(&kept).await?;
        let mut frames = self.down.frames.take().unwrap_or_default();
        let mut piece = [0; 4096];
        while !frames.is_between() && self.down.is_open() {
            let read = self.target.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            let read = piece.get(..read).unwrap_or_default();
            let whole = frames.finish(read);
            self.client.write_all(read.get(..whole).unwrap_or_default()).await?;
        }
        if frames.is_between() && !frames.is_closed() {
            self.client.write_all(&goodbye).await?;
        }
        self.client.flush().await?;
        AsyncWriteExt::shutdown(&mut self.client).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::ResponseHead;

    #[test]
    fn a_head_is_written_as_it_is() {
        let (mut head, ()): (ResponseHead, ()) = http::Response::builder()
            .status(101)
            .header("connection", "keep-alive, upgrade")
            .header("upgrade", "WebSocket")
            .header("content-length", "5")
            .header("keep-alive", "timeout=5")
            .header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            .body(())
            .unwrap()
            .into_parts();
        websocket::grant(&mut head);
        let text = String::from_utf8(write_head(&head)).unwrap();
        let (line, fields) = text.strip_suffix("\r\n\r\n").unwrap().split_once("\r\n").unwrap();
        let mut fields: Vec<&str> = fields.split("\r\n").collect();
        fields.sort_unstable();
        assert_eq!(line, "HTTP/1.1 101 Switching Protocols");
        let wanted = [
            "connection: Upgrade",
            "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "upgrade: websocket",
        ];
        assert_eq!(fields, wanted);
    }
}
