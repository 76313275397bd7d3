//! One request on a shared connection, and its answer.

use super::connection::Seat;
use crate::exchange::{RequestHead, ResponseHead};
use crate::upstream::conversation::{Event, Fault, Framing, Outgoing, Part};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

/// A stream of a connection. Dropping it before both sides have ended cancels it (`RST_STREAM`).
pub struct Stream {
    /// To begin a request with; `None` from then on.
    sender: Option<SendRequest<Bytes>>,
    output: Output,
    answer: Answer,
    /// Bytes of the answer that were handed out: the target may send as many more once they are taken.
    handed_out: usize,
    /// Bytes of the answer's body that are to come, if it says.
    left: Option<u64>,
    /// Whether an answer has no body whatever its head says.
    bodiless: bool,
    /// Why the request could not be begun.
    stillborn: Option<Fault>,
    secure: bool,
    used: bool,
    heard: bool,
    untouched: bool,
    left_behind: bool,
    reset: Option<Reason>,
    // Last, so that the stream is closed when its place is free.
    seat: Seat,
}

/// The way of the request's body.
#[derive(Default)]
struct Output {
    stream: Option<SendStream<Bytes>>,
    /// Bytes that are to be sent.
    piece: Bytes,
    /// Whether nothing is to be sent after them.
    end: bool,
    /// Bytes of body that are still to come.
    framing: Option<Framing>,
}

/// How far the answer is.
enum Answer {
    Unasked,
    Head(ResponseFuture),
    Body(RecvStream),
    Over,
}

impl Stream {
    pub(super) fn new(sender: SendRequest<Bytes>, seat: Seat, used: bool, secure: bool) -> Stream {
        Stream {
            sender: Some(sender),
            output: Output::default(),
            answer: Answer::Unasked,
            handed_out: 0,
            left: None,
            bodiless: false,
            stillborn: None,
            secure,
            used,
            heard: false,
            untouched: false,
            left_behind: false,
            reset: None,
            seat,
        }
    }

    /// Whether the connection carried a request before the present one.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Whether anything of the answer has come: then the target has seen the request.
    pub fn is_heard(&self) -> bool {
        self.heard
    }

    /// Whether the target has said that it has not looked at the request (RFC 9113 section 8.7), or it was not even sent.
    pub fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Whether it was not looked at because the connection was given up meanwhile.
    pub fn is_left_behind(&self) -> bool {
        self.left_behind
    }

    /// Why the target has reset it, if it has.
    pub fn reset(&self) -> Option<Reason> {
        self.reset
    }

    /// Whether there is something to be sent.
    pub fn is_sending(&self) -> bool {
        self.output.is_sending()
    }

    /// Whether the answer has ended.
    pub fn is_answered(&self) -> bool {
        matches!(self.answer, Answer::Over)
    }

    /// The same: who has answered waits for no more of the request (RFC 9113 section 8.1).
    pub fn is_over(&self) -> bool {
        self.is_answered()
    }

    /// Has the connection looked into, before others are sent over it.
    pub fn doubt(&self) {
        self.seat.doubt();
    }

    /// Begins a request. Whatever is wrong with that is told by [`Stream::poll`].
    pub fn begin(&mut self, request: Outgoing) {
        let Outgoing { head, framing, trailers } = request;
        self.bodiless = head.method == Method::HEAD;
        self.output.framing = Some(framing);
        let Some(mut sender) = self.sender.take() else { return };
        let Some(request) = compose(head, trailers, self.secure) else {
            self.stillborn = Some(Fault::Unsayable);
            return;
        };
        match sender.send_request(request, framing == Framing::Ended) {
            Ok((response, body)) => {
                self.answer = Answer::Head(response);
                self.output.stream = (framing != Framing::Ended).then_some(body);
            }
            Err(error) => {
                let unsayable = error.reason().is_none() && !error.is_io();
                (self.untouched, self.left_behind) = (!unsayable, !unsayable);
                self.stillborn = Some(if unsayable { Fault::Unsayable } else { Fault::Closed });
            }
        }
    }

    /// Adds a piece of the request's body, the last one if `end`. What was added before must have been sent.
    ///
    /// # Errors
    /// The body is longer or shorter than was declared.
    pub fn send(&mut self, piece: Bytes, end: bool) -> Result<(), Fault> {
        self.output.add(piece, end)
    }

    /// Goes on: sends what is to be sent and reads the answer, whichever is possible first.
    ///
    /// # Errors
    /// See [`Fault`]; the stream is of no more use.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Fault>> {
        if let Some(fault) = self.stillborn {
            return Poll::Ready(Err(fault));
        }
        if self.is_sending() && self.output.poll(cx).is_ready() {
            return Poll::Ready(Ok(Event::Sent));
        }
        self.release();
        if self.is_answered() {
            return Poll::Pending;
        }
        self.poll_part(cx).map_ok(Event::Part)
    }

    /// The next piece of the answer, if it has come already.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn buffered(&mut self) -> Result<Option<Part>, Fault> {
        if !matches!(self.answer, Answer::Body(_)) {
            return Ok(None);
        }
        // Whoever asks will poll before waiting.
        match self.poll_part(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(part) => part.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    /// Lets the target send as much as was taken.
    fn release(&mut self) {
        let taken = std::mem::take(&mut self.handed_out);
        if let (1.., Answer::Body(body)) = (taken, &mut self.answer)
            && let Err(error) = body.flow_control().release_capacity(taken)
        {
            log::debug!("a window could not be opened: {error}");
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Fault>> {
        let part = match &mut self.answer {
            Answer::Head(response) => {
                // Interim answers first: whoever asks for the final one is given no more of them.
                match ready!(response.poll_informational(cx)) {
                    Some(interim) => interim.map(|head| self.interim(head)),
                    None => ready!(Pin::new(response).poll(cx)).map(|head| Ok(self.begun(head))),
                }
            }
            Answer::Body(body) => match ready!(body.poll_data(cx)) {
                Some(Ok(piece)) => Ok(self.piece(piece)),
                Some(Err(error)) => Err(error),
                None => ready!(body.poll_trailers(cx)).map(|trailers| {
                    self.answer = Answer::Over;
                    Ok(trailers.map_or_else(|| Part::Body(Bytes::new(), true), Part::Trailers))
                }),
            },
            Answer::Unasked | Answer::Over => return Poll::Pending,
        };
        Poll::Ready(match part {
            Ok(part) => part,
            Err(error) => self.broken(&error),
        })
    }

    fn interim(&mut self, head: http::Response<()>) -> Result<Part, Fault> {
        self.heard = true;
        let (head, ()) = head.into_parts();
        match head.status {
            // There is no such thing here (RFC 9113 section 8.6).
            StatusCode::SWITCHING_PROTOCOLS => Err(Fault::Invalid("the answer changes the protocol")),
            _ => Ok(Part::Head(head, false)),
        }
    }

    fn begun(&mut self, response: http::Response<RecvStream>) -> Part {
        self.heard = true;
        let (head, body): (ResponseHead, _) = response.into_parts();
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        self.left = length.and_then(|length| length.parse().ok());
        let bodiless =
            self.bodiless || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let end = bodiless || body.is_end_stream();
        self.answer = if end { Answer::Over } else { Answer::Body(body) };
        Part::Head(head, end)
    }

    fn piece(&mut self, piece: Bytes) -> Result<Part, Fault> {
        self.handed_out += piece.len();
        self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
        let end = matches!(&self.answer, Answer::Body(body) if body.is_end_stream());
        if end {
            self.answer = Answer::Over;
        }
        Ok(Part::Body(piece, end))
    }

    /// The answer has broken off, unless the target only wants no more of the request and has said all it had to say.
    fn broken(&mut self, error: &h2::Error) -> Result<Part, Fault> {
        let reset = error.reason().filter(|_| error.is_remote() && error.is_reset());
        if reset == Some(Reason::NO_ERROR)
            && matches!(self.answer, Answer::Body(_))
            && self.left.is_none_or(|left| left == 0)
        {
            self.answer = Answer::Over;
            return Ok(Part::Body(Bytes::new(), true));
        }
        self.reset = reset;
        // A connection that ends says which streams it has not looked at; only those fail with its last word.
        self.left_behind = !self.heard && error.is_remote() && error.is_go_away();
        self.untouched = self.left_behind || !self.heard && reset == Some(Reason::REFUSED_STREAM);
        Err(match error.is_library() {
            true => Fault::Invalid("the answer is not HTTP/2"),
            false => Fault::Closed,
        })
    }
}

impl Output {
    fn is_sending(&self) -> bool {
        self.stream.is_some() && (self.end || !self.piece.is_empty())
    }

    fn add(&mut self, piece: Bytes, end: bool) -> Result<(), Fault> {
        match &mut self.framing {
            Some(Framing::Length(left)) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(Fault::Length)?;
                if end && *left > 0 {
                    return Err(Fault::Length);
                }
            }
            Some(Framing::Ended) if !piece.is_empty() => return Err(Fault::Length),
            _ => {}
        }
        (self.piece, self.end) = (piece, end);
        Ok(())
    }

    /// Sends what there is, no more than the target allows. Ready when nothing is left, or the target takes no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(stream) = self.stream.as_mut() {
            if self.piece.is_empty() && !self.end {
                break;
            }
            stream.reserve_capacity(self.piece.len());
            if !self.piece.is_empty() && stream.capacity() == 0 {
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    _ => self.stream = None,
                }
                continue;
            }
            let now = self.piece.split_to(stream.capacity().min(self.piece.len()));
            let last = self.end && self.piece.is_empty();
            if stream.send_data(now, last).is_err() || last {
                (self.stream, self.end) = (None, false);
            }
        }
        self.piece = Bytes::new();
        Poll::Ready(())
    }
}

/// The request as HTTP/2 says it (RFC 9113 section 8.3.1): scheme and authority stand beside the path, nothing is about the
/// connection. `None` when its host cannot be an authority.
pub(super) fn compose(mut head: RequestHead, trailers: bool, secure: bool) -> Option<Request<()>> {
    head.headers.remove(TRANSFER_ENCODING);
    if trailers {
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let host = head.headers.remove(HOST)?;
    let mut parts = head.uri.into_parts();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority =
        Some(Authority::from_maybe_shared(bytes::Bytes::copy_from_slice(host.as_bytes())).ok()?);
    parts.path_and_query = parts.path_and_query.or(Some(PathAndQuery::from_static("/")));
    head.uri = Uri::from_parts(parts).ok()?;
    head.version = Version::HTTP_2;
    Some(Request::from_parts(head, ()))
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("seat", &self.seat).finish_non_exhaustive()
    }
}
