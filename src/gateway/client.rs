//! Whoever has sent a request, whatever is spoken: what the gateway says to a client it says here.

use crate::exchange::{RequestHead, ResponseHead};
use crate::head::take_request;
use crate::listen::alarm::Alarm;
use crate::listen::connection::{Facts, facts};
use crate::listen::http1;
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Version};
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use std::future::poll_fn;
use std::io;
use std::time::Duration;

/// A client and its request. What is added to the answer goes out with [`Client::send`].
pub(super) enum Client<'a> {
    /// On a connection of its own.
    Http1(&'a mut http1::Session),
    /// On a stream of the engine's, with what is to be sent.
    Http2(&'a mut Session, Vec<HttpTask>),
}

impl<'a> Client<'a> {
    /// That of a stream.
    pub(super) fn of_stream(session: &'a mut Session) -> Client<'a> {
        Client::Http2(session, Vec::new())
    }

    /// The head of its request.
    pub(super) fn request(&self) -> &RequestHead {
        match self {
            Client::Http1(session) => session.request(),
            Client::Http2(session, _) => session.req_header(),
        }
    }

    /// Changes the head of its request.
    pub(super) fn change_request<T>(&mut self, change: impl FnOnce(&mut RequestHead) -> T) -> T {
        match self {
            Client::Http1(session) => change(session.request_mut()),
            Client::Http2(session, _) => {
                let head = session.req_header_mut();
                let mut parts = take_request(head);
                let changed = change(&mut parts);
                *head = parts.into();
                changed
            }
        }
    }

    /// What is known of its connection.
    pub(super) fn facts(&self) -> Option<&Facts> {
        match self {
            Client::Http1(session) => Some(session.facts()),
            Client::Http2(session, _) => facts(session.digest()),
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Client::Http2(..))
    }

    /// Whether the request has no body.
    pub(super) fn is_body_empty(&mut self) -> bool {
        match self {
            Client::Http1(session) => session.is_body_empty(),
            Client::Http2(session, _) => session.as_mut().is_body_empty(),
        }
    }

    /// Whether all of the request's body was read.
    pub(super) fn is_body_done(&mut self) -> bool {
        match self {
            Client::Http1(session) => session.is_body_done(),
            Client::Http2(session, _) => session.as_mut().is_body_done(),
        }
    }

    /// The next piece of the request's body; `None` is its end. When no more of it is `wanted`, or to come, it waits for the
    /// client to leave. Cancel safe.
    ///
    /// # Errors
    /// The client has gone, or what it sends is no body.
    pub(super) async fn read(&mut self, wanted: bool) -> pingora::Result<Option<Bytes>> {
        match self {
            Client::Http1(session) => poll_fn(|cx| session.poll_body(cx, wanted)).await.map_err(lost),
            Client::Http2(session, _) => session.downstream_session.read_body_or_idle(!wanted).await,
        }
    }

    /// The timer of its connection, to be given back with [`Client::put_alarm`].
    pub(super) fn take_alarm(&mut self) -> Alarm {
        match self {
            Client::Http1(session) => session.take_alarm(),
            Client::Http2(..) => Alarm::default(),
        }
    }

    /// Takes the timer back.
    pub(super) fn put_alarm(&mut self, alarm: Alarm) {
        if let Client::Http1(session) = self {
            session.put_alarm(alarm);
        }
    }

    /// How long the client may take nothing of what is sent to it.
    pub(super) fn send_idle(&mut self, limit: Duration) {
        match self {
            Client::Http1(session) => session.send_idle(limit),
            Client::Http2(session, _) => {
                session.set_read_timeout(Some(limit));
                session.set_write_timeout(Some(limit));
            }
        }
    }

    /// Lets no other request follow on its connection.
    pub(super) fn close(&mut self) {
        match self {
            Client::Http1(session) => session.close(),
            Client::Http2(session, _) => session.set_keepalive(None),
        }
    }

    /// Has its connection kept although the answer comes before the end of the request. Streams are.
    pub(super) fn drain(&mut self) {
        if let Client::Http1(session) = self {
            session.drain();
        }
    }

    /// The fields of the final answer, once there is one.
    pub(super) fn answered(&self) -> Option<&HeaderMap> {
        match self {
            Client::Http1(session) => session.answered().map(|head| &head.headers),
            Client::Http2(session, _) => session
                .as_ref()
                .response_written()
                .filter(|head| !head.status.is_informational())
                .map(|head| &head.headers),
        }
    }

    /// Whether anything of the final answer has gone to the client; an interim one says nothing of it (RFC 9110 section 15.2).
    pub(super) fn has_begun(&self) -> bool {
        self.answered().is_some()
    }

    /// Sends an interim answer. HTTP/1.0 knows none (RFC 9110 section 15.2).
    ///
    /// # Errors
    /// The client has gone.
    pub(super) async fn interim(&mut self, mut head: ResponseHead) -> pingora::Result<()> {
        match self {
            Client::Http1(session) if session.request().version == Version::HTTP_10 => return Ok(()),
            Client::Http1(session) => session.interim(&head),
            Client::Http2(_, tasks) => {
                head.version = Version::HTTP_11;
                tasks.push(HttpTask::Header(Box::new(head.into()), false));
            }
        }
        self.send().await
    }

    /// Adds the head of the final answer. `ends`: it has no body.
    pub(super) fn answer(&mut self, mut head: ResponseHead, ends: bool) {
        match self {
            Client::Http1(session) => session.answer(head, ends),
            Client::Http2(_, tasks) => {
                head.version = Version::HTTP_11;
                tasks.push(HttpTask::Header(Box::new(head.into()), ends));
            }
        }
    }

    /// Adds a piece of the answer's body, the last one if `ends`.
    ///
    /// # Errors
    /// It is shorter than its head says.
    pub(super) fn push(&mut self, piece: Bytes, ends: bool) -> pingora::Result<()> {
        match self {
            Client::Http1(session) => session.push(piece, ends).map_err(lost),
            Client::Http2(_, tasks) => {
                tasks.push(HttpTask::Body(Some(piece), ends));
                Ok(())
            }
        }
    }

    /// Adds the end of the answer, with trailers. To a client over HTTP/1.1 they are left out, which is allowed (RFC 9110
    /// section 6.5.1).
    ///
    /// # Errors
    /// As for [`Client::push`].
    pub(super) fn push_trailers(&mut self, trailers: HeaderMap) -> pingora::Result<()> {
        match self {
            Client::Http1(session) => session.push(Bytes::new(), true).map_err(lost),
            Client::Http2(_, tasks) => {
                tasks.push(HttpTask::Trailer(Some(Box::new(trailers))));
                Ok(())
            }
        }
    }

    /// Takes back what was added of an answer of which nothing was sent.
    pub(super) fn take_back(&mut self) {
        match self {
            Client::Http1(session) => session.take_back(),
            Client::Http2(_, tasks) => tasks.clear(),
        }
    }

    /// Whether what was added may wait a little for what belongs to it. [`Client::read`] sends it.
    pub(super) fn may_gather(&self) -> bool {
        match self {
            Client::Http1(session) => session.may_gather(),
            Client::Http2(..) => false,
        }
    }

    /// Sends what was added.
    ///
    /// # Errors
    /// The client has gone, or takes nothing of it.
    pub(super) async fn send(&mut self) -> pingora::Result<()> {
        match self {
            Client::Http1(session) => session.send().await.map_err(lost),
            Client::Http2(_, tasks) if tasks.is_empty() => Ok(()),
            Client::Http2(session, tasks) => {
                let tasks = std::mem::take(tasks);
                let sent = session.as_mut().response_duplex_vec(tasks).await;
                sent.map(drop).map_err(|error| error.into_down())
            }
        }
    }

    /// Ends an answer in its middle, so that the client does not take what it has for all of it. HTTP/1.1 says so by the end of
    /// the connection.
    pub(super) async fn break_off(&mut self) {
        match self {
            Client::Http1(session) => session.send_at_once().await,
            Client::Http2(session, _) => session.as_mut().shutdown_with_reason(Reason::INTERNAL_ERROR),
        }
    }
}

/// An error of a client's connection, as the engine would tell it.
fn lost(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::ReadError, "a client's connection", error).into_down()
}
