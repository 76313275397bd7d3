//! Between the engine's heads and plain ones.

use crate::exchange::{RequestHead, ResponseHead};
use crate::reply::Reply;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use pingora::http::RequestHeader;

/// Takes a head out of the engine's wrapper, which keeps a second map for the case of names: without it every later change,
/// copy and write of the head costs about half.
pub fn take_request(head: &mut RequestHeader) -> RequestHead {
    let (nothing, ()) = http::Request::new(()).into_parts();
    std::mem::replace(head, nothing.into()).into()
}

/// The head of an answer of our own.
pub fn reply_head(reply: &Reply, bodiless: bool) -> ResponseHead {
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &reply.headers {
        head.headers.append(name, value.clone());
    }
    if !bodiless {
        head.headers.insert(CONTENT_LENGTH, reply.body.len().into());
    }
    head
}
