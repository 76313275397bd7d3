//! What HTTP must know of gRPC: how a call is told from other requests, how its status is said, how long it may take
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>), and its form for browsers ([`web`]).

mod messages;
pub mod timeout;
pub mod web;

use h2::Reason;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Tells how a call went; in trailers, or in the head of an answer that has nothing else.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Tells why, percent-encoded.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How long a call may take.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The form in which a message says that it is one of a gRPC call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// gRPC itself, which needs HTTP/2 and its trailers.
    Native,
    /// gRPC-Web: trailers are the last frame of the body.
    Web,
    /// The same as base64, for clients that cannot read bytes.
    WebText,
}

impl Dialect {
    /// That of a message, by its `Content-Type`; `None` for what is no gRPC.
    pub fn of(headers: &HeaderMap) -> Option<Dialect> {
        Dialect::split(headers.get(CONTENT_TYPE)?.as_bytes()).map(|(dialect, _)| dialect)
    }

    /// That of a request; `None` for what is no call. Calls are always POST.
    pub fn of_request(method: &Method, headers: &HeaderMap) -> Option<Dialect> {
        if *method == Method::POST { Dialect::of(headers) } else { None }
    }

    /// Takes a media type apart: the dialect, and how messages are encoded, with its `+`, or nothing.
    fn split(kind: &[u8]) -> Option<(Dialect, &[u8])> {
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        // The longest name first: the others are its beginning.
        [Dialect::WebText, Dialect::Web, Dialect::Native].into_iter().find_map(|dialect| {
            let name = dialect.media_type().as_bytes();
            let (begin, rest) = kind.split_at_checked(name.len())?;
            let fits = begin.eq_ignore_ascii_case(name) && matches!(rest, [] | [b'+', ..]);
            fits.then_some((dialect, rest))
        })
    }

    /// Its media type, without what tells how messages are encoded.
    pub fn media_type(self) -> &'static str {
        match self {
            Dialect::Native => "application/grpc",
            Dialect::Web => "application/grpc-web",
            Dialect::WebText => "application/grpc-web-text",
        }
    }
}

/// The fields that tell a client how its call went. The message is encoded here.
pub fn status_fields(status: u8, message: &str) -> [(HeaderName, HeaderValue); 2] {
    let message = HeaderValue::from_str(&percent_encode(message)).unwrap_or(HeaderValue::from_static(""));
    [(STATUS, HeaderValue::from(u16::from(status))), (MESSAGE, message)]
}

/// The status of a call that is answered by HTTP alone (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
/// What is no error has no message of the call either: whoever answers so stands in for a service that is not there.
pub fn status_of(http: u16) -> u8 {
    match http {
        ..400 => 14,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The status of a call whose stream was reset ("HTTP2 Transport Mapping", "Errors" in the protocol).
pub fn status_of_reset(reason: Reason) -> u8 {
    match reason {
        Reason::REFUSED_STREAM => 14,
        Reason::CANCEL => 1,
        Reason::ENHANCE_YOUR_CALM => 8,
        Reason::INADEQUATE_SECURITY => 7,
        _ => 13,
    }
}

/// Percent-encoding of `grpc-message` ("Responses" in the protocol): everything but space to `~`, and the sign itself.
fn percent_encode(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            plain => encoded.push(char::from(plain)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_tell_dialects_apart() {
        for (kind, expected) in [
            ("application/grpc", Some((Dialect::Native, ""))),
            ("Application/GRPC+proto; charset=utf-8", Some((Dialect::Native, "+proto"))),
            ("application/grpc-web", Some((Dialect::Web, ""))),
            ("application/grpc-web+json ;x", Some((Dialect::Web, "+json"))),
            ("application/grpc-web-text", Some((Dialect::WebText, ""))),
            ("application/grpc-web-text+proto", Some((Dialect::WebText, "+proto"))),
            ("application/grpcx", None),
            ("application/grpc-webx", None),
            ("application/grp", None),
            ("", None),
        ] {
            let expected = expected.map(|(dialect, rest)| (dialect, rest.as_bytes()));
            assert_eq!(Dialect::split(kind.as_bytes()), expected, "{kind}");
        }
    }

    #[test]
    fn only_what_is_posted_is_a_call() {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))].into_iter().collect();
        assert_eq!(Dialect::of_request(&Method::POST, &headers), Some(Dialect::Native));
        assert_eq!(Dialect::of_request(&Method::GET, &headers), None);
    }

    #[test]
    fn messages_are_encoded() {
        assert_eq!(percent_encode("50% of ä\n"), "50%25 of %C3%A4%0A");
        let [(_, status), (_, message)] = status_fields(14, "a\u{7f}b c");
        assert_eq!((status.as_bytes(), message.as_bytes()), (&b"14"[..], &b"a%7Fb c"[..]));
    }
}
