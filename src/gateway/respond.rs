//! The one writer of answers that tollgate makes itself, and what every answer gets.

use super::Context;
use super::client::Client;
use super::framing::frame;
use crate::exchange::{ResponseHead, declared_body};
use crate::forward;
use crate::grpc::Dialect;
use crate::head::reply_head;
use crate::listen::http1::DRAIN_TIME;
use crate::reply::Reply;
use http::header::{CONTENT_TYPE, EXPECT, SET_COOKIE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use std::sync::atomic::Ordering;

/// A request body no larger than this is read to its end after an early answer, so that the connection can be kept.
const DRAIN_BYTES: usize = 64 << 10;

/// Tells that an answer stands in for another, and what it is.
const FALLBACK: HeaderName = HeaderName::from_static("tollgate-fallback");

impl Context {
    /// The head of a target's final answer is there and goes to the client.
    pub(super) fn answered(&mut self, client: &mut Client<'_>, head: &mut ResponseHead, ends: bool) {
        self.attempts.answered(&mut self.exchange);
        if is_stream(head) {
            self.stream = Some(self.streams.hold());
        }
        self.passed_cache(client, head);
        self.send_head(client, head, ends);
        let sticky = self.route.as_ref().and_then(|route| self.attempts.sticky_field(route, &self.exchange));
        if let Some(field) = sticky {
            head.headers.append(SET_COOKIE, field.clone());
        }
    }

    /// Makes the head of somebody else's answer one for this client.
    pub(super) fn send_head(&mut self, client: &mut Client<'_>, head: &mut ResponseHead, ends: bool) {
        forward::strip_hop_by_hop(head);
        self.decorate(client, head);
        self.begin_encoding(client, head, ends);
        frame(client, head, ends);
    }

    /// What every answer gets, whoever made it.
    pub(super) fn decorate(&mut self, client: &mut Client<'_>, head: &mut ResponseHead) {
        if self.leaving.load(Ordering::Relaxed) {
            client.close();
        }
        self.exchange.status = head.status.as_u16();
        if let Some(resort) = self.exchange.fallback {
            head.headers.insert(FALLBACK, HeaderValue::from_static(resort));
        }
        head.headers.insert(&self.snapshot.telemetry.request_id, self.exchange.request_id.clone());
        let Some(route) = &self.route else { return };
        if let (Some(proxy), Some(arm)) = (route.action.proxy(), self.attempts.arm(route))
            && let Some(name) = &proxy.expose
        {
            head.headers.insert(name, arm.value.clone());
        }
        route.chain.on_response(head, client.request(), &self.exchange);
    }

    /// The one writer of answers that tollgate makes itself.
    pub(super) async fn respond(&mut self, client: &mut Client<'_>, reply: Reply) -> pingora::Result<()> {
        let bodiless = matches!(reply.status, 204 | 304);
        let mut head = reply_head(&reply, bodiless);
        self.exchange.reason = reply.reason.or(self.exchange.reason);
        self.exchange.problem = reply.problem;
        self.decorate(client, &mut head);
        let without_body = bodiless || reply.body.is_empty() || client.request().method == Method::HEAD;
        let body = self.encode_whole(client, &mut head, reply.body, without_body);
        // A client that waits for 100 may send its next request instead of the body: then nobody can tell the two apart.
        let waits = client.request().headers.contains_key(EXPECT);
        let small = declared_body(client.request()).is_some_and(|declared| declared <= DRAIN_BYTES as u64);
        if small && !waits {
            client.drain();
        }
        // The stream must end with the head itself: an empty frame behind it is an error to gRPC clients, which then do not look
        // at the status.
        client.answer(head, without_body);
        if !without_body {
            client.push(body, true)?;
        }
        client.send().await?;
        if !waits && !client.is_body_done() {
            drain(client).await;
        }
        Ok(())
    }
}

/// Whether an answer may go on for long without being slow: WebSocket and the like, server-sent events, gRPC.
fn is_stream(head: &ResponseHead) -> bool {
    let is_events = |kind: &HeaderValue| {
        let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    head.status == StatusCode::SWITCHING_PROTOCOLS
        || Dialect::of(&head.headers).is_some()
        || head.headers.get(CONTENT_TYPE).is_some_and(is_events)
}

/// Reads what a client is still sending after its answer. Without this the connection or stream would be reset, and clients
/// that are still writing lose the answer (RFC 9112 section 9.6; RFC 9113 section 8.1 lets us do so, but they do).
async fn drain(client: &mut Client<'_>) {
    let read = async {
        let mut left = DRAIN_BYTES;
        while !client.is_body_done()
            && let Ok(Some(piece)) = client.read(true).await
        {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Whoever takes longer gets the reset.
    drop(tokio::time::timeout(DRAIN_TIME, read).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_told_by_its_type_however_that_is_written() {
        for (kind, expected) in [
            ("text/event-stream", true),
            ("TEXT/Event-Stream ; charset=utf-8", true),
            ("text/event-streams", false),
            ("application/grpc+proto", true),
            ("Application/gRPC-Web", true),
            ("application/grpcs", false),
            ("text/html", false),
        ] {
            let (head, ()) =
                http::Response::builder().header("content-type", kind).body(()).unwrap().into_parts();
            assert_eq!(is_stream(&head), expected, "{kind}");
        }
        let (head, ()) = http::Response::builder().status(101).body(()).unwrap().into_parts();
        assert!(is_stream(&head));
    }
}
