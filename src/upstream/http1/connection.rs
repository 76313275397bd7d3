//! One connection to a target: a request out, its answer in, both at once.

use super::super::conversation::{Event, Fault, Framing, Part};
use super::super::offer::Offer;
use super::body::Decoder;
use super::head;
use crate::exchange::{RequestHead, ResponseHead};
use crate::listen::connection::Socket;
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What is read at once before more is known: the head and the body of most answers.
const READ: usize = 8 << 10;

/// What is read at once of a long body.
const READ_LONG: usize = 64 << 10;

/// Most interim answers before the final one: they could go on for ever, and each is passed on.
const MOST_INTERIM: u8 = 16;

/// A connection to a target.
pub struct Connection {
    socket: Socket,
    input: BytesMut,
    output: Output,
    answer: Answer,
    /// Bytes of request body that are still to be sent.
    sending: Framing,
    method: Method,
    /// The protocol that the target may change to.
    offered: Option<Arc<Offer>>,
    /// Whether it carried a request before.
    used: bool,
    /// Whether anything of the present answer has come.
    heard: bool,
    /// Interim answers that came before the present one.
    interim: u8,
    /// Whether another request can follow.
    keep: bool,
    /// Whether the target takes no more of the request.
    refused: bool,
    /// Whether the buffer has grown for a long body: then it is not kept.
    long: bool,
}

/// How far the answer is.
#[derive(Debug)]
enum Answer {
    Head,
    Body(Decoder),
    /// It was 101.
    Switched(Box<ResponseHead>),
}

/// A connection whose protocol has changed (RFC 9110 section 7.8).
#[derive(Debug)]
pub struct Switched {
    /// The head of the 101.
    pub head: ResponseHead,
    /// The connection.
    pub socket: Socket,
    /// What the target has said in the other protocol already.
    pub read: BytesMut,
}

impl Connection {
    /// A connection on which nothing has been said.
    pub fn new(socket: Socket) -> Connection {
        Connection {
            socket,
            input: BytesMut::new(),
            output: Output::default(),
            answer: Answer::Body(Decoder::Done),
            sending: Framing::Ended,
            method: Method::GET,
            offered: None,
            used: false,
            heard: false,
            interim: 0,
            keep: true,
            refused: false,
            long: false,
        }
    }

    /// Whether it carried a request before the present one.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Whether anything of the present answer has come: then the target has seen the request.
    pub fn is_heard(&self) -> bool {
        self.heard
    }

    /// Whether there is something to be sent.
    pub fn is_sending(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether the answer has ended.
    pub fn is_answered(&self) -> bool {
        match &self.answer {
            Answer::Head => false,
            Answer::Body(body) => body.is_done(),
            Answer::Switched(_) => true,
        }
    }

    /// Whether the answer was 101.
    pub fn is_switched(&self) -> bool {
        matches!(self.answer, Answer::Switched(_))
    }

    /// What is left after a 101; `None` after anything else.
    pub fn switched(self) -> Option<Switched> {
        match self.answer {
            Answer::Switched(head) => Some(Switched { head: *head, socket: self.socket, read: self.input }),
            _ => None,
        }
    }

    /// Whether the answer has ended and nobody waits for the rest of the request.
    pub fn is_over(&self) -> bool {
        self.is_answered() && (self.refused || !self.keep)
    }

    /// Begins a request. Nothing is sent before [`Connection::poll`]. `framing` must be what `head` says.
    pub fn begin(&mut self, head: &RequestHead, framing: Framing) {
        head::write_request(head, &mut self.output.front);
        self.method = head.method.clone();
        self.answer = Answer::Head;
        (self.sending, self.heard, self.keep, self.offered) = (framing, false, true, None);
        self.interim = 0;
    }

    /// Lets the target take this offer, which the head that was begun makes. Without this a 101 is a fault.
    pub fn offer(&mut self, offer: Arc<Offer>) {
        self.offered = Some(offer);
    }

    /// Adds a piece of the request's body, the last one if `end`. What was added before must have been sent, or be a head
    /// alone.
    ///
    /// # Errors
    /// The body is longer or shorter than was declared.
    pub fn send(&mut self, piece: Bytes, end: bool) -> Result<(), Fault> {
        if self.refused {
            return Ok(());
        }
        match &mut self.sending {
            Framing::Chunked => self.output.chunk(piece, end),
            Framing::Length(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(Fault::Length)?;
                if end && *left > 0 {
                    return Err(Fault::Length);
                }
                self.output.body = piece;
            }
            Framing::Ended if piece.is_empty() => {}
            Framing::Ended => return Err(Fault::Length),
        }
        if end {
            self.sending = Framing::Ended;
        }
        Ok(())
    }

    /// Goes on: sends what is to be sent and reads the answer, whichever is possible first.
    ///
    /// # Errors
    /// See [`Fault`]; the connection is of no more use.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Fault>> {
        if self.is_sending() {
            match self.output.poll(&mut self.socket, cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(Event::Sent)),
                Poll::Ready(Err(_)) => {
                    self.output.clear();
                    (self.keep, self.refused) = (false, true);
                    return Poll::Ready(Ok(Event::Sent));
                }
                Poll::Pending => {}
            }
        }
        if self.is_answered() {
            return Poll::Pending;
        }
        loop {
            if let Some(part) = self.buffered()? {
                return Poll::Ready(Ok(Event::Part(part)));
            }
            if self.is_switched() {
                return Poll::Ready(Ok(Event::Switched));
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => return Poll::Ready(self.ended().map(Event::Part)),
                Ok(_) => self.heard = true,
                Err(_) => {
                    self.keep = false;
                    return Poll::Ready(Err(Fault::Closed));
                }
            }
        }
    }

    /// The next part of the answer, if it was read already.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn buffered(&mut self) -> Result<Option<Part>, Fault> {
        match &mut self.answer {
            Answer::Head if self.input.is_empty() => Ok(None),
            Answer::Head => self.take_head(),
            Answer::Body(body) if body.is_done() => Ok(None),
            Answer::Body(body) => {
                let piece = body.take(&mut self.input)?;
                if piece.is_none()
                    && let Some(trailers) = body.take_trailers()
                {
                    return Ok(Some(Part::Trailers(trailers)));
                }
                let end = body.is_done();
                Ok((end || piece.is_some()).then(|| Part::Body(piece.unwrap_or_default(), end)))
            }
            Answer::Switched(_) => Ok(None),
        }
    }

    fn take_head(&mut self) -> Result<Option<Part>, Fault> {
        let Some(mut head) = head::take_response(&mut self.input)? else { return Ok(None) };
        let interim = head.status.is_informational();
        if interim && head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(head).map(|()| None);
        }
        let framing = head::framing(&mut head, &self.method)?;
        let end = !interim && framing.body.is_done();
        if interim {
            self.interim += 1;
            if self.interim > MOST_INTERIM {
                return Err(Fault::Invalid("there are too many interim answers"));
            }
        } else {
            self.keep &= framing.keep;
            self.answer = Answer::Body(framing.body);
        }
        Ok(Some(Part::Head(head, end)))
    }

    /// What follows is no HTTP, if that was asked for and the whole request has gone out (RFC 9110 section 7.8).
    fn switch(&mut self, head: ResponseHead) -> Result<(), Fault> {
        let taken = self.offered.as_ref().is_some_and(|offer| offer.is_taken(&head));
        if !taken || self.is_sending() || self.sending != Framing::Ended {
            return Err(Fault::Invalid("the answer changes a protocol that was not to be changed"));
        }
        self.keep = false;
        self.answer = Answer::Switched(Box::new(head));
        Ok(())
    }

    /// The connection has ended.
    fn ended(&mut self) -> Result<Part, Fault> {
        self.keep = false;
        if matches!(self.answer, Answer::Body(Decoder::UntilClose)) {
            self.answer = Answer::Body(Decoder::Done);
            return Ok(Part::Body(Bytes::new(), true));
        }
        Err(Fault::Closed)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted = match &self.answer {
            Answer::Head | Answer::Switched(_) => READ,
            Answer::Body(body) => {
                let wanted = usize::try_from(body.wants()).unwrap_or(READ_LONG);
                wanted.clamp(READ, READ_LONG - 1)
            }
        };
        if self.input.capacity() - self.input.len() < READ / 2 || wanted > READ {
            // With room left over it is known that nothing else is there, and not asked again.
            self.input.reserve(wanted + 1);
            self.long |= wanted > READ || self.input.len() > READ;
        }
        pin!(self.socket.read_buf(&mut self.input)).poll(cx)
    }

    /// Prepares for lying idle; `false` when it cannot carry another request.
    pub(super) fn rest(&mut self) -> bool {
        let done = self.is_answered() && self.sending == Framing::Ended && self.output.is_empty();
        // What came behind the answer belongs to no request of ours.
        if !(self.keep && done && self.input.is_empty()) {
            return false;
        }
        if std::mem::take(&mut self.long) {
            self.input = BytesMut::new();
        }
        (self.used, self.heard) = (true, false);
        true
    }

    /// Whether nothing has come while it lay idle, neither bytes nor the end.
    pub(super) fn is_open(&mut self) -> bool {
        let mut byte = [0];
        let read = match &mut self.socket {
            Socket::Tcp(stream) => stream.try_read(&mut byte),
            Socket::Unix(stream) => stream.try_read(&mut byte),
            // What a session says about itself between two answers, a new ticket for one, goes by here.
            Socket::TlsTo(stream) => {
                let mut buffer = ReadBuf::new(&mut byte);
                let mut nobody = Context::from_waker(Waker::noop());
                return Pin::new(stream).poll_read(&mut nobody, &mut buffer).is_pending();
            }
            // Never made here.
            Socket::Tls(_) => return false,
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &self.socket)
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}

/// What is to be sent: a head or the size of a chunk, a piece of body, the end of a chunk or of all of them.
#[derive(Debug, Default)]
struct Output {
    front: Vec<u8>,
    body: Bytes,
    back: &'static [u8],
    sent: usize,
}

impl Output {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.front.len() + self.body.len() + self.back.len()
    }

    fn chunk(&mut self, piece: Bytes, end: bool) {
        if !piece.is_empty() {
            write_size(piece.len(), &mut self.front);
        }
        self.back = match (piece.is_empty(), end) {
            (false, false) => b"\r\n",
            (false, true) => b"\r\n0\r\n\r\n",
            (true, true) => b"0\r\n\r\n",
            (true, false) => b"",
        };
        self.body = piece;
    }

    /// Sends everything, in one system call if the socket takes it all.
    fn poll(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.len() {
            let mut skip = self.sent;
            let mut slices = [IoSlice::new(&[]); 3];
            let mut count = 0;
            for part in [self.front.as_slice(), &self.body, self.back] {
                let rest = part.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                if let (false, Some(slot)) = (rest.is_empty(), slices.get_mut(count)) {
                    *slot = IoSlice::new(rest);
                    count += 1;
                }
            }
            match ready!(socket.poll_send(cx, slices.get(..count).unwrap_or_default()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        // Only a TLS session keeps back what the socket did not take.
        ready!(Pin::new(socket).poll_flush(cx))?;
        self.clear();
        Poll::Ready(Ok(()))
    }

    fn clear(&mut self) {
        self.front.clear();
        self.body = Bytes::new();
        (self.back, self.sent) = (b"", 0);
    }
}

/// The line before a chunk: its size in hexadecimal digits.
fn write_size(size: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.extend(DIGITS.get(size >> (place * 4) & 0xf));
    }
    out.extend_from_slice(b"\r\n");
}
