//! HTTP/1.1 with a client (RFC 9112), without the engine.
//!
//! The engine's session makes a head a second time out of what was checked already, with a second map of names, and is made
//! anew for every request with all its buffers. Here a [`Session`] is as long as its connection: heads are read once, by
//! [`framing`], bodies are slices of what was read, and an answer goes out in one system call. While nothing
//! is asked, no buffer is kept.

mod answer;
mod arrival;
mod body;
mod output;
#[cfg(test)]
mod tests;

use super::Limits;
use super::alarm::Alarm;
use super::chunks::Chunks;
use super::connection::{Connection, Facts};
use super::framing::{self, Body, Flaw};
use crate::exchange::{RequestHead, ResponseHead};
use answer::Answer;
use body::Incoming;
use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use output::Output;
use pingora::protocols::Shutdown;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::timeout;

/// What is read at once: the head of most requests.
const READ: usize = 4096;

/// What is read at once of a long body.
const READ_LONG: usize = 64 << 10;

/// How much is read of what comes behind a refused head, and for how long: a client that is still sending loses the answer
/// when its connection is reset.
const LINGER_BYTES: usize = 256 << 10;
const LINGER: Duration = Duration::from_secs(1);

/// How long the rest of a request's body may take that nobody wants any more.
pub const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A client's connection, and the request that it carries.
#[derive(Debug)]
pub struct Session {
    connection: Box<Connection>,
    /// What was read and not taken.
    ahead: Bytes,
    /// Where long bodies are read into.
    space: BytesMut,
    alarm: Alarm,
    request: RequestHead,
    body: Incoming,
    /// Whether the request has no body.
    is_bodiless: bool,
    answer: Answer,
    output: Output,
    /// Whether another request can follow.
    keeps: bool,
    /// Whether the rest of the request's body is read after an answer that came before.
    drains: bool,
}

impl Session {
    /// A connection on which nothing has been said.
    pub fn new(connection: Box<Connection>) -> Session {
        Session {
            connection,
            ahead: Bytes::new(),
            space: BytesMut::new(),
            alarm: Alarm::default(),
            request: nothing(),
            body: Incoming::Over,
            is_bodiless: true,
            answer: Answer::default(),
            output: Output::default(),
            keeps: true,
            drains: false,
        }
    }

    /// What is known of the connection.
    pub fn facts(&self) -> &Facts {
        self.connection.facts()
    }

    /// The connection's timer, to be given back with [`Session::put_alarm`].
    pub fn take_alarm(&mut self) -> Alarm {
        std::mem::take(&mut self.alarm)
    }

    /// Takes the timer back.
    pub fn put_alarm(&mut self, alarm: Alarm) {
        self.alarm = alarm;
    }

    /// What was read and belongs to no request yet.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Passes over one empty line in front of a request; `false` when there is none.
    pub fn skip_empty_line(&mut self) -> bool {
        let is_there = self.ahead.starts_with(b"\r\n");
        if is_there {
            self.ahead.advance(2);
        }
        is_there
    }

    /// Begins the next request, if its head is there; `false` when there is more to come. The first `seen` bytes were looked at
    /// before.
    ///
    /// # Errors
    /// It is not as it should be, or the beginning of its body is not. What was read is left.
    pub fn begin(&mut self, seen: usize, limits: &Limits) -> Result<bool, Flaw> {
        // Most heads come whole; one that comes in pieces is not gone through again for every piece.
        if (seen == 0 || framing::end(&self.ahead, seen).is_some())
            && let Some(head) = framing::parse(&self.ahead, limits)?
        {
            let rest = self.ahead.get(head.length..).unwrap_or_default();
            self.body = match head.body {
                Body::None | Body::Length(0) => Incoming::Over,
                Body::Length(length) => Incoming::Length(length),
                Body::Chunked => {
                    Chunks::new().pass(rest)?;
                    Incoming::Chunked(Box::default())
                }
            };
            self.is_bodiless = self.body.is_over();
            self.ahead.advance(head.length);
            (self.request, self.keeps, self.drains) = (head.request, head.keeps, false);
            return Ok(true);
        }
        framing::check_begun(&self.ahead, limits).map(|()| false)
    }

    /// Reads more; gives how much. Without anything to be read, nothing is kept but the connection.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [const { MaybeUninit::uninit() }; READ];
        let mut fresh = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *self.connection).poll_read(cx, &mut fresh))?;
        let fresh = fresh.filled();
        self.ahead = match self.ahead.is_empty() {
            true => Bytes::copy_from_slice(fresh),
            false => {
                let mut all = BytesMut::from(std::mem::take(&mut self.ahead));
                all.extend_from_slice(fresh);
                all.freeze()
            }
        };
        Poll::Ready(Ok(fresh.len()))
    }

    /// The head of the request.
    pub fn request(&self) -> &RequestHead {
        &self.request
    }

    /// The same, to be changed.
    pub fn request_mut(&mut self) -> &mut RequestHead {
        &mut self.request
    }

    /// Takes the head of the request, which ends here.
    pub fn take_request(&mut self) -> RequestHead {
        std::mem::replace(&mut self.request, nothing())
    }

    /// Whether the request has no body.
    pub fn is_body_empty(&self) -> bool {
        self.is_bodiless
    }

    /// Whether all of the request's body was read.
    pub fn is_body_done(&self) -> bool {
        self.body.is_over()
    }

    /// The next piece of the request's body; `None` is its end. With no body left to come, or none that is `wanted`, it waits
    /// for the client to leave; what comes then is the next request's.
    ///
    /// # Errors
    /// The client has gone. One that has sent what is no body is told by a [`Flaw`] within.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, wanted: bool) -> Poll<io::Result<Option<Bytes>>> {
        // Whoever waits for the client has nothing more to say for now.
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        if !wanted || self.body.is_over() {
            return self.poll_idle(cx);
        }
        self.poll_piece(cx)
    }

    /// The next piece of the request's body; `None` is its end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            let piece = self.body.take(&mut self.ahead);
            if let Some(piece) = piece.map_err(|flaw| io::Error::new(ErrorKind::InvalidData, flaw))? {
                return Poll::Ready(Ok(Some(piece)));
            }
            if self.body.is_over() {
                return Poll::Ready(Ok(None));
            }
            if ready!(self.poll_long(cx))? == 0 {
                self.keeps = false;
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads more of a body; nothing is ahead.
    fn poll_long(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted = usize::try_from(self.body.wants()).unwrap_or(READ_LONG).min(READ_LONG - 1);
        if wanted <= READ {
            return self.poll_fill(cx);
        }
        // With room left over it is known that nothing else is there, and not asked again.
        self.space.reserve(wanted + 1);
        let count = ready!(pin!(self.connection.read_buf(&mut self.space)).poll(cx))?;
        self.ahead = self.space.split().freeze();
        Poll::Ready(Ok(count))
    }

    /// Waits for the client to leave.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        // One that asks on is there; it is heard when its turn comes.
        if !self.ahead.is_empty() {
            return Poll::Pending;
        }
        let gone = match ready!(self.poll_fill(cx)) {
            Ok(1..) => return Poll::Pending,
            Ok(0) => ErrorKind::UnexpectedEof.into(),
            Err(error) => error,
        };
        self.keeps = false;
        Poll::Ready(Err(gone))
    }

    /// Lets no other request follow.
    pub fn close(&mut self) {
        self.keeps = false;
    }

    /// Has the connection kept although the answer comes before the end of the request, whose rest is read then.
    pub fn drain(&mut self) {
        self.drains = true;
    }

    /// How long the client may take nothing of what is sent to it.
    pub fn send_idle(&mut self, limit: Duration) {
        self.connection.be_patient(limit);
    }

    /// Adds an interim answer to what is to be sent.
    pub fn interim(&mut self, head: &ResponseHead) {
        answer::write_interim(head, self.output.text());
    }

    /// Adds the head of the final answer to what is to be sent. `ends`: it has no body.
    pub fn answer(&mut self, head: ResponseHead, ends: bool) {
        if !self.body.is_over() && !self.drains {
            self.keeps = false;
        }
        let bodiless = ends || self.request.method == Method::HEAD;
        self.answer = Answer::begin(head, bodiless, &mut self.keeps, self.output.text());
    }

    /// Adds a piece of the answer's body, the last one if `ends`. What an answer without a body has of one is left out.
    ///
    /// # Errors
    /// It is shorter than its head says.
    pub fn push(&mut self, piece: Bytes, ends: bool) -> io::Result<()> {
        let pushed = self.answer.push(piece, ends, &mut self.output);
        self.keeps &= pushed.is_ok();
        pushed
    }

    /// The head of the final answer, when it has one.
    pub fn answered(&self) -> Option<&ResponseHead> {
        self.answer.head.as_ref()
    }

    /// Takes back an answer, if nothing of it was sent.
    pub fn take_back(&mut self) {
        if self.answer.is_unsent {
            self.output.clear();
            self.answer = Answer::default();
        }
    }

    /// Bytes of the answer's body that were sent.
    pub fn body_sent(&self) -> u64 {
        self.answer.sent
    }

    /// Whether what is to be sent may wait a little for what belongs to it. [`Session::poll_body`] sends it.
    pub fn may_gather(&self) -> bool {
        self.answer.is_known() && self.output.is_small()
    }

    /// Sends what is to be sent.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.output.poll(&mut self.connection, cx))?;
        self.answer.was_sent();
        Poll::Ready(Ok(()))
    }

    /// The same, in a future. Cancel safe.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn send(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// Sends what can be sent without waiting, before the connection ends in the middle of an answer.
    pub async fn send_at_once(&mut self) {
        // Whatever becomes of it, nothing follows.
        let _ = poll_fn(|cx| Poll::Ready(self.poll_send(cx).is_ready())).await;
    }

    /// Ends a request that was answered; `false` when no other can follow, and the connection has ended.
    pub async fn finish(&mut self) -> bool {
        if self.keeps && self.answer.is_over() && self.send().await.is_ok() && self.drained().await {
            self.request = nothing();
            self.answer = Answer::default();
            self.space = BytesMut::new();
            if self.ahead.is_empty() {
                // A slice without bytes keeps what it was cut from.
                self.ahead = Bytes::new();
            }
            return true;
        }
        self.shutdown().await;
        false
    }

    /// Reads the rest of the request's body.
    async fn drained(&mut self) -> bool {
        if self.body.is_over() {
            return true;
        }
        let read = async {
            while let Ok(Some(_)) = poll_fn(|cx| self.poll_piece(cx)).await {}
            self.body.is_over()
        };
        timeout(DRAIN_TIME, read).await.unwrap_or(false)
    }

    /// Sends what is to be sent, and says that nothing follows.
    pub async fn shutdown(&mut self) {
        if self.send().await.is_ok() {
            self.connection.shutdown().await;
        }
    }

    /// Says goodbye to a client that nothing more will be sent to; see [`Connection::part`].
    pub fn part(&mut self) {
        self.connection.part();
    }

    /// Reads on for a while, and drops what comes.
    pub async fn linger(&mut self) {
        let read = async {
            let (mut left, mut sink) = (LINGER_BYTES, [0; READ]);
            while let Ok(count @ 1..) = self.connection.read(&mut sink).await {
                match left.checked_sub(count) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // Whoever sends for longer gets the reset.
        drop(timeout(LINGER, read).await);
    }

    /// The connection, to be spoken over in another protocol, and what was read of that.
    pub fn into_parts(self) -> (Box<Connection>, Bytes) {
        (self.connection, self.ahead)
    }
}

/// A head that nobody has sent.
fn nothing() -> RequestHead {
    http::Request::new(()).into_parts().0
}
