//! gRPC-Web: gRPC for clients that see no trailers (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>).
//!
//! The messages are the same; the trailers are one more frame behind them, marked by the highest bit of its flag. In the text
//! form all of this is base64, in runs that may each end in padding.

use super::messages::Messages;
use super::{Dialect, MESSAGE, STATUS};
use crate::exchange::{RequestHead, ResponseHead};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

/// Flag of the frame that has the trailers.
const TRAILERS: u8 = 0x80;

/// Characters that stand for three bytes in base64.
const QUANTUM: usize = 4;

/// What is said about how messages are encoded when nothing is: what gRPC takes it for.
const PROTO: &[u8] = b"+proto";

/// What a client has sent is not base64 (RFC 4648 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBase64;

/// The translation of one call.
#[derive(Debug)]
pub struct Web {
    /// Whether the request is base64.
    says_text: bool,
    /// Whether the answer shall be.
    reads_text: bool,
    /// What has come of a group of characters.
    said: BytesMut,
    answer: Option<Answer>,
}

/// The answer's way.
#[derive(Debug, Default)]
struct Answer {
    messages: Messages,
    /// Bytes that are no three yet.
    held: BytesMut,
}

impl Web {
    /// The translation of a call; `None` when it needs none. The answer is of the form that the client accepts, if it says,
    /// and else of that of the request.
    pub fn new(dialect: Dialect, headers: &HeaderMap) -> Option<Web> {
        let says_text = match dialect {
            Dialect::Native => return None,
            Dialect::Web => false,
            Dialect::WebText => true,
        };
        let reads_text = match accepted(headers) {
            Some(Dialect::WebText) => true,
            Some(Dialect::Web) => false,
            _ => says_text,
        };
        Some(Web { says_text, reads_text, said: BytesMut::new(), answer: None })
    }

    /// Makes a request one of gRPC itself, and begins with its body anew. `TE: trailers` is for whoever sends it.
    pub fn ask(&self, head: &mut RequestHead) {
        if let Some(kind) = renamed(&head.headers, Dialect::Native) {
            head.headers.insert(CONTENT_TYPE, kind);
        }
        // A gRPC server would not know what to make of it.
        head.headers.remove(ACCEPT);
        if self.says_text {
            head.headers.remove(CONTENT_LENGTH);
        }
    }

    /// The request is sent once more, from its beginning.
    pub fn restart(&mut self) {
        self.said.clear();
    }

    /// A piece of the request's body as gRPC has it; it may be empty. `ends`: whether it is the last one.
    ///
    /// # Errors
    /// It is not base64, although it should be.
    pub fn decode(&mut self, piece: Bytes, ends: bool) -> Result<Bytes, NotBase64> {
        if !self.says_text {
            return Ok(piece);
        }
        self.said.extend_from_slice(&piece);
        let whole = self.said.split_to(self.said.len() / QUANTUM * QUANTUM);
        if ends && !self.said.is_empty() {
            return Err(NotBase64);
        }
        let mut decoded = Vec::with_capacity(whole.len() / QUANTUM * 3);
        let mut left = whole.as_ref();
        while !left.is_empty() {
            // Each run ends with its padding, if it has one.
            let end =
                memchr::memchr(b'=', left).map_or(left.len(), |padding| (padding / QUANTUM + 1) * QUANTUM);
            let (run, rest) = left.split_at_checked(end).ok_or(NotBase64)?;
            STANDARD.decode_vec(run, &mut decoded).map_err(|_| NotBase64)?;
            left = rest;
        }
        Ok(decoded.into())
    }

    /// Makes the head of an answer one of gRPC-Web, unless it is none of gRPC: such a one stays as it is, and clients make out
    /// of its HTTP status what they can. `ends`: whether there is nothing more, so that the head has the call's status.
    pub fn answer(&mut self, head: &mut ResponseHead, ends: bool) {
        let dialect = if self.reads_text { Dialect::WebText } else { Dialect::Web };
        let kind =
            renamed(&head.headers, dialect).filter(|_| Dialect::of(&head.headers) == Some(Dialect::Native));
        self.answer = kind.is_some().then(Answer::default);
        let Some(kind) = kind else { return };
        head.headers.insert(CONTENT_TYPE, kind);
        head.headers.remove(CONTENT_LENGTH);
        if ends {
            // Else a client over HTTP/1.1 would wait for what follows.
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
    }

    /// Whether the answer is being translated.
    pub fn is_answering(&self) -> bool {
        self.answer.is_some()
    }

    /// Whether trailers may follow now: what has passed of the answer are whole messages.
    pub fn is_between_messages(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.messages.are_whole())
    }

    /// A piece of the answer's body for the client. What is no three bytes is held back until [`Web::flush`], or the end.
    pub fn encode(&mut self, piece: Bytes, ends: bool) -> Bytes {
        let Some(answer) = &mut self.answer else { return piece };
        answer.messages.pass(&piece);
        if !self.reads_text {
            return piece;
        }
        answer.held.extend_from_slice(&piece);
        let whole = if ends { answer.held.len() } else { answer.held.len() / 3 * 3 };
        STANDARD.encode(answer.held.split_to(whole)).into()
    }

    /// What is held back, with its padding: nothing follows for now.
    pub fn flush(&mut self) -> Bytes {
        match &mut self.answer {
            Some(answer) if !answer.held.is_empty() => STANDARD.encode(answer.held.split()).into(),
            _ => Bytes::new(),
        }
    }

    /// The last piece of the answer: what is held back, and the trailers as a frame.
    pub fn trailers(&mut self, trailers: &HeaderMap) -> Bytes {
        let frame = frame(trailers);
        match self.reads_text {
            true => self.encode(frame, true),
            false => frame,
        }
    }
}

/// The form of answer that a client asks for.
fn accepted(headers: &HeaderMap) -> Option<Dialect> {
    let lines = headers.get_all(ACCEPT).iter();
    let mut kinds = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    kinds.find_map(|kind| Dialect::split(kind.trim_ascii())).map(|(dialect, _)| dialect)
}

/// The media type of a gRPC message in another dialect.
fn renamed(headers: &HeaderMap, dialect: Dialect) -> Option<HeaderValue> {
    let (_, encoding) = Dialect::split(headers.get(CONTENT_TYPE)?.as_bytes())?;
    let encoding = if encoding.is_empty() { PROTO } else { encoding };
    HeaderValue::from_bytes(&[dialect.media_type().as_bytes(), encoding].concat()).ok()
}

/// The frame that has the trailers: fields as in HTTP/1, names in lower case.
fn frame(trailers: &HeaderMap) -> Bytes {
    let fields: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut frame = BytesMut::with_capacity(fields + 5);
    frame.extend_from_slice(&[TRAILERS]);
    frame.extend_from_slice(&u32::try_from(fields).unwrap_or(u32::MAX).to_be_bytes());
    // Clients that read no further than the status have it first.
    let first = [STATUS, MESSAGE];
    let leading = first.iter().flat_map(|name| trailers.get_all(name).iter().map(move |value| (name, value)));
    let others = trailers.iter().filter(|(name, _)| !first.contains(name));
    for (name, value) in leading.chain(others) {
        frame.extend_from_slice(name.as_str().as_bytes());
        frame.extend_from_slice(b": ");
        frame.extend_from_slice(value.as_bytes());
        frame.extend_from_slice(b"\r\n");
    }
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One message of three bytes and one of none.
    const MESSAGES: &[u8] = &[0, 0, 0, 0, 3, b'a', b'b', b'c', 0, 0, 0, 0, 0];

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn web(said: &'static [(&'static str, &'static str)]) -> Web {
        let headers = fields(said);
        Web::new(Dialect::of(&headers).unwrap(), &headers).unwrap()
    }

    /// A translation whose answer has begun.
    fn answering(said: &'static [(&'static str, &'static str)]) -> Web {
        let mut web = web(said);
        web.answer(&mut head(&[("content-type", "application/grpc")]), false);
        web
    }

    fn head(said: &[(&'static str, &'static str)]) -> ResponseHead {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.headers = fields(said);
        head
    }

    const TEXT: &[(&str, &str)] = &[("content-type", "application/grpc-web-text+proto")];
    const BINARY: &[(&str, &str)] = &[("content-type", "application/grpc-web")];

    #[test]
    fn a_request_becomes_one_of_grpc() {
        for (said, kind, length) in [
            (BINARY, "application/grpc+proto", Some("8")),
            (TEXT, "application/grpc+proto", None),
            (&[("content-type", "application/grpc-web+json; x=y")], "application/grpc+json", Some("8")),
        ] {
            let (mut request, ()) = http::Request::new(()).into_parts();
            request.headers = fields(said);
            request.headers.extend(fields(&[("content-length", "8"), ("accept", "*/*"), ("x-bin", "AAE")]));
            web(said).ask(&mut request);
            assert_eq!(request.headers[CONTENT_TYPE], kind);
            assert_eq!(
                request.headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes),
                length.map(str::as_bytes)
            );
            assert!(!request.headers.contains_key(ACCEPT) && request.headers.contains_key("x-bin"));
        }
    }

    #[test]
    fn the_answer_has_the_form_that_is_accepted() {
        const BOTH: &[(&str, &str)] =
            &[("content-type", "application/grpc-web"), ("accept", "text/x, application/grpc-web-text;q=1")];
        const NEITHER: &[(&str, &str)] = &[("content-type", "application/grpc-web-text"), ("accept", "*/*")];
        for (said, kind) in [
            (BINARY, "application/grpc-web+proto"),
            (TEXT, "application/grpc-web-text+proto"),
            (BOTH, "application/grpc-web-text+proto"),
            (NEITHER, "application/grpc-web-text+proto"),
        ] {
            let mut answer = head(&[("content-type", "application/grpc"), ("content-length", "9")]);
            let mut web = web(said);
            web.answer(&mut answer, false);
            assert_eq!(answer.headers[CONTENT_TYPE], kind);
            assert!(web.is_answering() && !answer.headers.contains_key(CONTENT_LENGTH));
        }
        assert!(Web::new(Dialect::Native, &HeaderMap::new()).is_none());
    }

    #[test]
    fn what_is_no_grpc_stays_as_it_is() {
        let mut web = web(TEXT);
        let mut page = head(&[("content-type", "text/html"), ("content-length", "5")]);
        web.answer(&mut page, false);
        assert_eq!(page.headers, fields(&[("content-type", "text/html"), ("content-length", "5")]));
        assert_eq!(web.encode("hello".into(), true), "hello");
        assert!(!web.is_answering() && web.flush().is_empty());
    }

    #[test]
    fn base64_may_come_in_any_pieces_and_in_runs() {
        for text in ["AAAAAANhYmM=AAAAAAA=", "AA==AAAAA2FiYwAAAAAA", "AAAAAANhYmMAAAAAAA=="] {
            for size in 1..=text.len() {
                let mut web = web(TEXT);
                let mut decoded = Vec::new();
                for piece in text.as_bytes().chunks(size) {
                    decoded.extend(web.decode(Bytes::copy_from_slice(piece), false).unwrap());
                }
                decoded.extend(web.decode(Bytes::new(), true).unwrap());
                assert_eq!(decoded, MESSAGES, "{text} by {size}");
            }
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in ["A", "AAA", "AA=", "A===", "====", "AA=A", "AA!A", "AAA\n", "AB==", "AAAAA"] {
            assert_eq!(web(TEXT).decode(text.into(), true), Err(NotBase64), "{text}");
        }
        let mut begun = web(TEXT);
        begun.decode("AAA".into(), false).unwrap();
        begun.restart();
        assert_eq!(begun.decode("YWJj".into(), true).unwrap(), "abc");
    }

    #[test]
    fn bytes_pass_as_they_are() {
        let mut web = answering(BINARY);
        assert_eq!(web.decode("any=thing".into(), true).unwrap(), "any=thing");
        let piece = Bytes::from_static(MESSAGES);
        assert_eq!(web.encode(piece.clone(), false).as_ptr(), piece.as_ptr());
        assert!(web.flush().is_empty());
    }

    #[test]
    fn text_is_held_back_until_nothing_follows() {
        for size in 1..=MESSAGES.len() {
            let mut answer = answering(TEXT);
            let mut text = Vec::new();
            for (number, piece) in MESSAGES.chunks(size).enumerate() {
                text.extend(answer.encode(Bytes::from_static(piece), false));
                if number % 2 == 1 {
                    text.extend(answer.flush());
                }
            }
            text.extend(answer.trailers(&fields(&[("grpc-status", "0")])));
            // Whoever can read requests can read answers.
            let decoded = web(TEXT).decode(text.into(), true).unwrap();
            let (messages, trailers) = decoded.split_at(MESSAGES.len());
            assert_eq!((messages, trailers), (MESSAGES, &b"\x80\0\0\0\x10grpc-status: 0\r\n"[..]), "{size}");
        }
    }

    #[test]
    fn trailers_are_a_frame() {
        let trailers = fields(&[("x-details-bin", "AAE"), ("grpc-message", "no"), ("grpc-status", "5")]);
        let frame = answering(BINARY).trailers(&trailers);
        let text = &b"grpc-status: 5\r\ngrpc-message: no\r\nx-details-bin: AAE\r\n"[..];
        let length = u8::try_from(text.len()).unwrap();
        assert_eq!(frame, [&[0x80, 0, 0, 0, length], text].concat());
    }

    #[test]
    fn trailers_only_end_with_their_head() {
        let mut web = web(BINARY);
        let mut answer = head(&[("content-type", "application/grpc"), ("grpc-status", "7")]);
        web.answer(&mut answer, true);
        let kind = ("content-type", "application/grpc-web+proto");
        assert_eq!(answer.headers, fields(&[kind, ("content-length", "0"), ("grpc-status", "7")]));
    }

    #[test]
    fn trailers_follow_whole_messages_only() {
        let mut web = answering(BINARY);
        assert!(web.is_between_messages());
        web.encode(Bytes::from_static(&MESSAGES[..6]), false);
        assert!(!web.is_between_messages());
        web.encode(Bytes::from_static(&MESSAGES[6..]), false);
        assert!(web.is_between_messages());
    }
}
