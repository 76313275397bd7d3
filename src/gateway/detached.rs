//! Requests that no client waits for: copies for a mirror, validations of what is stored.

use crate::exchange::ResponseHead;
use crate::outcome;
use crate::reply::Kind;
use crate::upstream::{Conversation, Event, Outgoing, Part, Pool};
use bytes::Bytes;
use http::StatusCode;
use std::future::poll_fn;
use std::time::Duration;
use tokio::time::timeout;

/// How long to wait for a target.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// To connect.
    pub(super) connect: Duration,
    /// For the head of its answer.
    pub(super) response: Duration,
}

/// The head of a final answer.
pub(super) struct Asked {
    pub(super) head: ResponseHead,
    /// Whether the answer ends with it.
    pub(super) ends: bool,
    /// Where the rest comes from.
    pub(super) target: Conversation,
}

/// Sends a request with its whole body over one connection of the pool and waits for the head of the answer. Nothing is
/// tried twice. Must be called on the runtime.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn ask(
    pool: &Pool,
    request: Outgoing,
    body: Bytes,
    patience: Patience,
) -> Result<Asked, Kind> {
    let mut target = match pool.take(false) {
        Some(target) => target,
        None => match timeout(patience.connect, pool.connect(false)).await {
            Ok(connected) => connected?,
            Err(_) => return Err(Kind::CONNECT_TIMEOUT),
        },
    };
    target.begin(request);
    if !body.is_empty() {
        target.send(body, true).map_err(outcome::fault)?;
    }
    let head = timeout(patience.response, final_head(&mut target)).await;
    match head.unwrap_or(Err(Kind::UPSTREAM_TIMEOUT)) {
        Ok((head, ends)) => Ok(Asked { head, ends, target }),
        Err(kind) => {
            if kind == Kind::UPSTREAM_TIMEOUT {
                target.doubt();
            }
            Err(kind)
        }
    }
}

async fn final_head(target: &mut Conversation) -> Result<(ResponseHead, bool), Kind> {
    loop {
        match poll_fn(|cx| target.poll(cx)).await {
            Ok(Event::Part(Part::Head(head, ends))) if !head.status.is_informational() => {
                return Ok((head, ends));
            }
            // An interim answer; 101 is none, and nobody has asked for it.
            Ok(Event::Part(Part::Head(head, _))) if head.status != StatusCode::SWITCHING_PROTOCOLS => {}
            Ok(Event::Sent) => {}
            Ok(_) => return Err(Kind::UPSTREAM_INVALID),
            Err(fault) => return Err(outcome::fault(fault)),
        }
    }
}

/// Reads the rest of an answer that nobody wants, so that its connection can carry another request; a rest of more than
/// `most` bytes costs more than a connection.
///
/// # Errors
/// It broke off, or is too long.
pub(super) async fn drain(asked: &mut Asked, most: usize) -> Result<(), Kind> {
    let mut left = most;
    let mut ends = asked.ends;
    while !ends {
        match poll_fn(|cx| asked.target.poll(cx)).await {
            Ok(Event::Part(Part::Body(piece, end))) => {
                left = left.checked_sub(piece.len()).ok_or(Kind::UPSTREAM_INVALID)?;
                ends = end;
            }
            Ok(Event::Part(Part::Trailers(_))) => ends = true,
            Ok(Event::Sent) => {}
            Ok(_) => return Err(Kind::UPSTREAM_INVALID),
            Err(fault) => return Err(outcome::fault(fault)),
        }
    }
    Ok(())
}
