//! Proxying by ourselves: a request to a target that speaks HTTP/1.1 in cleartext, whatever the client speaks.
//!
//! The engine would do it too, for several times the work (see [`http1`](crate::upstream::http1)), and with one timeout for
//! the head of an answer and the pauses within. Everything else stays with it: TLS, HTTP/2 and gRPC upstreams.

use super::Context;
use crate::exchange::RequestHead;
use crate::forward;
use crate::reply::{Kind, Problem};
use crate::route::Route;
use crate::upstream::http1::{Connection, Event, Fault, Framing, Part, Pool};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Version};
use pingora::Error;
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use pingora::time::timeout;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How many parts of an answer go to the client at once.
const PARTS: usize = 16;

/// How an attempt ended that did not bring an answer.
enum End {
    /// The client went away, or what it sends is not acceptable.
    Client(Box<Error>),
    /// The target failed.
    Target(Kind),
}

/// What has happened.
enum Happened {
    Target(Result<Event, Fault>),
    Client(pingora::Result<Option<Bytes>>),
}

impl Context {
    /// Whether a request that the engine serves is relayed here. It keeps the client's connection, so upgrades are its own.
    pub(super) fn is_relayed(&self, session: &Session) -> bool {
        let pool = self.attempts.lease().and_then(|lease| lease.target().http1());
        pool.is_some() && !session.cache.enabled() && !session.is_upgrade_req()
    }

    /// Has the request answered by a target: by the first one, or by another one where nothing can have happened yet.
    ///
    /// # Errors
    /// As from the engine; an error of the target carries a refusal.
    pub(super) async fn relay(&mut self, session: &mut Session) -> pingora::Result<()> {
        let route = self.route.clone().ok_or_else(|| self.refuse(Kind::INTERNAL))?;
        loop {
            let lease = self.attempts.hold(&route, &mut self.exchange);
            let pool = lease.and_then(|lease| lease.target().http1().cloned().ok_or(Kind::INTERNAL));
            let pool = pool.map_err(|kind| self.refuse(kind))?;
            let request = match self.outgoing(session) {
                Ok(request) => request,
                Err(problem) => return Err(self.give_up(&route, problem)),
            };
            let Some(mut connection) = self.connection(&route, &pool).await? else { continue };
            connection.begin(&request.0, request.1);
            drop(request);
            if self.websocket {
                connection.offer(forward::WEBSOCKET);
            }
            match self.converse(session, &mut connection, &route).await {
                Ok(()) => {
                    match connection.is_switched() {
                        true => self.switched = connection.switched().map(Box::new),
                        false => pool.put(connection),
                    }
                    return Ok(());
                }
                Err(End::Client(error)) => {
                    let kind = self.blame(session, &error);
                    self.attempts.failed(&route, &mut self.exchange, kind);
                    return Err(error);
                }
                Err(End::Target(kind)) => {
                    let again = self.may_repeat(session, &connection, kind);
                    self.attempts.failed(&route, &mut self.exchange, kind);
                    if !again {
                        return Err(self.refuse(kind));
                    }
                }
            }
        }
    }

    /// A connection that was kept, or a new one; `None` when there was none to be had here, but may be elsewhere.
    async fn connection(&mut self, route: &Route, pool: &Arc<Pool>) -> pingora::Result<Option<Connection>> {
        if let Some(connection) = pool.take() {
            self.exchange.tries.connect = Some(Duration::ZERO);
            return Ok(Some(connection));
        }
        let kind = match tokio::time::timeout(route.timeouts.connect, pool.connect()).await {
            Ok(Ok(connection)) => {
                let tries = &mut self.exchange.tries;
                tries.connect = tries.began.map(|began| began.elapsed());
                return Ok(Some(connection));
            }
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::TimedOut => Kind::CONNECT_FAILED,
            _ => Kind::CONNECT_TIMEOUT,
        };
        self.attempts.failed(route, &mut self.exchange, kind);
        // Nothing was sent, so every method may try another target.
        match self.attempts.may_go_on(&self.exchange) && self.attempts.has_another_target(route) {
            true => Ok(None),
            false => Err(self.refuse(kind)),
        }
    }

    /// A connection that was kept may have been closed while the request was on its way (RFC 9112 section 9.3.1). Only then,
    /// and only when nothing came back, can the target not have acted on it.
    fn may_repeat(&self, session: &Session, connection: &Connection, kind: Kind) -> bool {
        kind == Kind::UPSTREAM_CLOSED
            && connection.is_used()
            && !connection.is_heard()
            && self.sent_idempotent
            && !session.as_ref().retry_buffer_truncated()
            && self.attempts.may_go_on(&self.exchange)
    }

    /// Ends an attempt that was not made: the request cannot be sent as it is.
    fn give_up(&mut self, route: &Route, problem: Problem) -> Box<Error> {
        self.attempts.failed(route, &mut self.exchange, problem.kind);
        self.refuse(problem)
    }

    /// Sends the request and passes the answer on, both at once.
    async fn converse(
        &mut self,
        session: &mut Session,
        connection: &mut Connection,
        route: &Route,
    ) -> Result<(), End> {
        let mut asked = session.as_mut().is_body_done();
        self.begin_body(session, connection, &mut asked).await?;
        while !(connection.is_over() || asked && connection.is_answered()) {
            let wait = self.limit(connection, asked, session, route);
            let happened = happens(session, connection, asked);
            let happened = match wait {
                Some(limit) => {
                    timeout(limit, happened).await.map_err(|_| End::Target(Kind::UPSTREAM_TIMEOUT))?
                }
                None => happened.await,
            };
            match happened {
                Happened::Target(Ok(Event::Sent | Event::Switched)) => {}
                Happened::Target(Ok(Event::Part(part))) => self.pass_on(session, connection, part).await?,
                Happened::Target(Err(fault)) => return Err(fault.into()),
                Happened::Client(Ok(_)) if asked => {}
                Happened::Client(Ok(piece)) => {
                    asked = self.pass_body(session, connection, piece)?;
                }
                Happened::Client(Err(error)) => return Err(End::Client(error.into_down())),
            }
        }
        Ok(())
    }

    /// How long to wait for what happens next; the client's own silence is told by its session.
    fn limit(
        &self,
        connection: &Connection,
        asked: bool,
        session: &Session,
        route: &Route,
    ) -> Option<Duration> {
        if connection.is_sending() {
            return Some(route.timeouts.idle);
        }
        let began = session.as_ref().response_written().is_some();
        asked.then_some(match (began, &self.stream) {
            (false, _) => route.timeouts.response,
            (true, None) => route.timeouts.idle,
            (true, Some(_)) => route.timeouts.stream_idle,
        })
    }

    /// Makes the head of an attempt.
    fn outgoing(&mut self, session: &mut Session) -> Result<(RequestHead, Framing), Problem> {
        let request: &RequestHead = session.req_header();
        let mut head = request.clone();
        head.version = Version::HTTP_11;
        forward::strip_request(&mut head)?;
        // What was asked for in the target's own authority counts (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
        if let Some(authority) = request.uri.authority() {
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Kind::BAD_HOST)?;
            head.headers.insert(HOST, host);
        }
        self.prepare(request, &mut head)?;
        if self.websocket {
            forward::ask_for_websocket(&mut head);
        }
        self.sent_idempotent = head.method.is_idempotent();
        // A body is sent again from its beginning, and is counted again.
        self.body_left = self.body_max();
        self.exchange.bytes_in = 0;
        let framing = request_framing(&mut head.headers, session.as_mut().is_body_empty())?;
        Ok((head, framing))
    }

    /// What there is of the body already goes out with the head: what an attempt before has read, or what has come by now.
    async fn begin_body(
        &mut self,
        session: &mut Session,
        connection: &mut Connection,
        asked: &mut bool,
    ) -> Result<(), End> {
        if session.as_mut().is_body_empty() {
            return Ok(());
        }
        session.as_mut().enable_retry_buffering();
        let piece = match session.as_mut().get_retry_buffer() {
            Some(read) => Some(Ok(Some(read))),
            None if *asked => Some(Ok(None)),
            None => at_once(session.downstream_session.read_body_or_idle(false)).await,
        };
        match piece {
            Some(Ok(piece)) => *asked = self.pass_body(session, connection, piece)?,
            Some(Err(error)) => return Err(End::Client(error.into_down())),
            None => {}
        }
        Ok(())
    }

    /// Passes a piece of the request's body on; `None` is its end. Gives whether it was the last one.
    fn pass_body(
        &mut self,
        session: &mut Session,
        connection: &mut Connection,
        piece: Option<Bytes>,
    ) -> Result<bool, End> {
        let end = piece.is_none() || session.as_mut().is_body_done();
        self.take_body(piece.as_ref()).map_err(End::Client)?;
        connection.send(piece.unwrap_or_default(), end)?;
        Ok(end)
    }

    /// Passes a part of the answer on, and with it what else is there.
    async fn pass_on(
        &mut self,
        session: &mut Session,
        connection: &mut Connection,
        part: Part,
    ) -> Result<(), End> {
        let mut tasks = Vec::with_capacity(2);
        let (mut next, mut fault) = (Some(part), None);
        while let Some(part) = next.take() {
            match part {
                Part::Head(mut head, end) => {
                    head.version = Version::HTTP_11;
                    let interim = head.status.is_informational();
                    if !interim {
                        frame(&mut head, end);
                        self.answered(session, &mut head);
                    }
                    tasks.push(HttpTask::Header(Box::new(head.into()), end));
                }
                Part::Body(piece, end) => tasks.push(HttpTask::Body(Some(piece), end)),
            }
            if tasks.len() < PARTS {
                match connection.buffered() {
                    Ok(part) => next = part,
                    Err(found) => fault = Some(found),
                }
            }
        }
        let sent = session.as_mut().response_duplex_vec(tasks).await;
        sent.map_err(|error| End::Client(error.into_down()))?;
        fault.map_or(Ok(()), |fault| Err(fault.into()))
    }
}

/// Says how a request's body is told from what follows: by its length if that is known, else by chunks; and nothing about one
/// that is not there (RFC 9112 section 6).
fn request_framing(headers: &mut HeaderMap, empty: bool) -> Result<Framing, Kind> {
    let Some(length) = headers.get(CONTENT_LENGTH) else {
        if empty {
            return Ok(Framing::Ended);
        }
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        return Ok(Framing::Chunked);
    };
    if empty {
        if length != "0" {
            headers.remove(CONTENT_LENGTH);
        }
        return Ok(Framing::Ended);
    }
    let length = length.to_str().ok().and_then(|length| length.parse().ok()).ok_or(Kind::BAD_REQUEST)?;
    headers.remove(TRANSFER_ENCODING);
    Ok(Framing::Length(length))
}

/// Says how the body is told from what follows, when the target said so by closing the connection.
fn frame(head: &mut crate::exchange::ResponseHead, end: bool) {
    if !end && !head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::Target(match fault {
            Fault::Closed => Kind::UPSTREAM_CLOSED,
            Fault::Invalid(_) => Kind::UPSTREAM_INVALID,
            Fault::Length => Kind::BAD_REQUEST,
        })
    }
}

/// Waits for what happens next, at the target or at the client.
async fn happens(session: &mut Session, connection: &mut Connection, asked: bool) -> Happened {
    let sending = connection.is_sending();
    let mut client = pin!(session.downstream_session.read_body_or_idle(asked));
    poll_fn(|cx| {
        if let Poll::Ready(event) = connection.poll(cx) {
            return Poll::Ready(Happened::Target(event));
        }
        // A client is not asked for more before what it sent is on its way.
        match sending && !asked {
            true => Poll::Pending,
            false => client.as_mut().poll(cx).map(Happened::Client),
        }
    })
    .await
}

/// What a future gives without waiting.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_one_thing_about_its_length() {
        let (length, coding) = ("content-length", "transfer-encoding");
        for (fields, empty, framing, left) in [
            (&[][..], true, Some(Framing::Ended), &[][..]),
            (&[], false, Some(Framing::Chunked), &[(coding, "chunked")]),
            (&[(length, "5")], false, Some(Framing::Length(5)), &[(length, "5")]),
            (&[(length, "5"), (coding, "chunked")], false, Some(Framing::Length(5)), &[(length, "5")]),
            (&[(length, "0")], true, Some(Framing::Ended), &[(length, "0")]),
            (&[(length, "5")], true, Some(Framing::Ended), &[]),
            (&[(length, "5, 5")], false, None, &[(length, "5, 5")]),
        ] {
            let map = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
                let field = |(name, value): &(&'static str, &'static str)| {
                    (http::HeaderName::from_static(name), HeaderValue::from_static(value))
                };
                fields.iter().map(field).collect()
            };
            let mut headers = map(fields);
            assert_eq!(request_framing(&mut headers, empty).ok(), framing, "{fields:?}");
            assert_eq!(headers, map(left), "{fields:?}");
        }
    }
}
