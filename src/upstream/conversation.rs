//! One request to a target and its answer, whichever protocol is spoken. Driven by whoever relays the request: nothing
//! happens but in [`Conversation::poll`].

use super::http1::{self, Switched};
use super::http2;
use super::offer::Offer;
use crate::exchange::{RequestHead, ResponseHead};
use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A request to a target, but for its body.
#[derive(Debug)]
pub struct Outgoing {
    /// Its head, without anything that is about one connection, but for `Transfer-Encoding` as `framing` has it.
    pub head: RequestHead,
    /// How its body is told from what follows.
    pub framing: Framing,
    /// Whether the client takes trailers: `TE: trailers`, the only one that HTTP/2 knows (RFC 9113 section 8.2.2).
    pub trailers: bool,
}

/// How a request's body is told from what follows it (RFC 9112 section 6). HTTP/2 has frames for that, and only sees to it
/// that a length is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By its length; this much is left.
    Length(u64),
    /// By chunks.
    Chunked,
    /// It has ended.
    Ended,
}

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// What was to be sent is sent, or the target takes no more; its answer may still come.
    Sent,
    /// A part of the answer.
    Part(Part),
    /// The answer is 101: from here on another protocol is spoken, see [`Conversation::switched`].
    Switched,
}

/// A part of an answer.
#[derive(Debug)]
pub enum Part {
    /// Its head, or an interim one; whether the answer ends with it.
    Head(ResponseHead, bool),
    /// A piece of its body, which may be empty; whether the answer ends with it.
    Body(Bytes, bool),
    /// Its trailers, with which it ends.
    Trailers(HeaderMap),
}

/// Why an answer cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection or stream ended before the answer did.
    Closed,
    /// What came is not HTTP.
    Invalid(&'static str),
    /// The request's body is not as long as was declared.
    Length,
    /// The request cannot be said in the protocol that is spoken.
    Unsayable,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Closed => "the connection ended before the answer did",
            Fault::Invalid(cause) => cause,
            Fault::Length => "the body of the request is not as long as it says",
            Fault::Unsayable => "the request cannot be sent over this protocol",
        })
    }
}

impl std::error::Error for Fault {}

/// A request and its answer.
#[derive(Debug)]
pub enum Conversation {
    /// On a connection of its own.
    Http1(http1::Connection),
    /// On a stream of a connection that it shares.
    Http2(http2::Stream),
}

/// The same verb of both protocols.
macro_rules! either {
    ($it:expr, $one:ident => $verb:expr) => {
        match $it {
            Conversation::Http1($one) => $verb,
            Conversation::Http2($one) => $verb,
        }
    };
}

impl Conversation {
    /// Begins a request. Nothing is sent before [`Conversation::poll`].
    pub fn begin(&mut self, request: Outgoing) {
        match self {
            Conversation::Http1(connection) => connection.begin(&request.head, request.framing),
            Conversation::Http2(stream) => stream.begin(request),
        }
    }

    /// Lets the target take this offer, which the head that was begun makes. Without this a 101 is a fault, and
    /// in HTTP/2 it always is.
    pub fn offer(&mut self, offer: Arc<Offer>) {
        if let Conversation::Http1(connection) = self {
            connection.offer(offer);
        }
    }

    /// Adds a piece of the request's body, the last one if `end`. What was added before must have been sent, or be a head
    /// alone.
    ///
    /// # Errors
    /// The body is longer or shorter than was declared.
    pub fn send(&mut self, piece: Bytes, end: bool) -> Result<(), Fault> {
        either!(self, it => it.send(piece, end))
    }

    /// Goes on: sends what is to be sent and reads the answer, whichever is possible first.
    ///
    /// # Errors
    /// See [`Fault`]; nothing more can be had here.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Fault>> {
        either!(self, it => it.poll(cx))
    }

    /// The next part of the answer, if it was read already.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn buffered(&mut self) -> Result<Option<Part>, Fault> {
        either!(self, it => it.buffered())
    }

    /// Whether there is something to be sent.
    pub fn is_sending(&self) -> bool {
        either!(self, it => it.is_sending())
    }

    /// Whether the answer has ended.
    pub fn is_answered(&self) -> bool {
        either!(self, it => it.is_answered())
    }

    /// Whether the answer has ended and nobody waits for the rest of the request.
    pub fn is_over(&self) -> bool {
        either!(self, it => it.is_over())
    }

    /// Whether the connection carried a request before the present one.
    pub fn is_used(&self) -> bool {
        either!(self, it => it.is_used())
    }

    /// Whether anything of the present answer has come: then the target has seen the request.
    pub fn is_heard(&self) -> bool {
        either!(self, it => it.is_heard())
    }

    /// Whether the target has said that it has not looked at the request (RFC 9113 section 8.7), which HTTP/1.1 cannot.
    pub fn is_untouched(&self) -> bool {
        match self {
            Conversation::Http1(_) => false,
            Conversation::Http2(stream) => stream.is_untouched(),
        }
    }

    /// Whether it has not because it was giving the connection up, not because of the request: then another connection will
    /// do.
    pub fn is_left_behind(&self) -> bool {
        match self {
            Conversation::Http1(_) => false,
            Conversation::Http2(stream) => stream.is_left_behind(),
        }
    }

    /// Why the target has reset the stream, if it has.
    pub fn reset(&self) -> Option<Reason> {
        match self {
            Conversation::Http1(_) => None,
            Conversation::Http2(stream) => stream.reset(),
        }
    }

    /// Notes that the target was silent for too long: a connection that others share is looked into before it gets more.
    pub fn doubt(&self) {
        if let Conversation::Http2(stream) = self {
            stream.doubt();
        }
    }

    /// Whether the answer was 101.
    pub fn is_switched(&self) -> bool {
        match self {
            Conversation::Http1(connection) => connection.is_switched(),
            Conversation::Http2(_) => false,
        }
    }

    /// What is left after a 101; `None` after anything else.
    pub fn switched(self) -> Option<Switched> {
        match self {
            Conversation::Http1(connection) => connection.switched(),
            Conversation::Http2(_) => None,
        }
    }
}
