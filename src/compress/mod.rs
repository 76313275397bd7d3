//! Compression of answers on their way to the client (RFC 9110 section 8.4).
//!
//! Which coding a client gets is negotiated from `Accept-Encoding`; whether an answer is worth one is told by [`Compress`]; the
//! work is done by an [`Encoder`], piece by piece, so that nothing waits for the end of an answer.

mod accept;
mod encoder;
pub mod rules;

pub use encoder::Encoder;

use crate::exchange::{RequestHead, ResponseHead};
use crate::value::At;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rules::{CompressRule, MediaType};

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// Its name, as IANA registers it.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }
}

/// The compression of one route.
#[derive(Debug)]
pub struct Compress {
    /// Where it is written.
    pub at: At,
    codings: Vec<Coding>,
    types: Vec<MediaType>,
    min: u64,
}

impl Compress {
    /// Compiles the rule.
    pub fn new(rule: &CompressRule, at: At) -> Compress {
        Compress {
            at,
            codings: rule.codings(),
            types: rule.types(),
            min: rule.min.map_or(rules::MIN, |min| min.value.0),
        }
    }

    /// What it would do to an answer to this request, in a few words.
    pub fn explain(&self, request: &RequestHead) -> String {
        let coding = accept::choose(&request.headers, &self.codings).map_or("no coding", Coding::name);
        format!("{coding}  of what is worth it, from {} bytes on", self.min)
    }

    /// Prepares an answer for the coding that the client likes best and gives what its body must go through; `None` when it
    /// stays as it is. `ends`: whether there is no body. How the body is told from what follows is for whoever sends it.
    pub fn begin(&self, request: &RequestHead, head: &mut ResponseHead, ends: bool) -> Option<Encoder> {
        match head.status {
            StatusCode::NOT_MODIFIED => self.confirm(request, &mut head.headers),
            StatusCode::PARTIAL_CONTENT if self.is_worth_it(&head.headers) => add_vary(&mut head.headers),
            _ => {}
        }
        // Nothing is no compressed body.
        if !self.is_eligible(head) || ends && request.method != Method::HEAD {
            return None;
        }
        // A cache must know that others get other bytes, also when this client gets them as they are.
        add_vary(&mut head.headers);
        let coding = accept::choose(&request.headers, &self.codings)?;
        let headers = &mut head.headers;
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        headers.remove(ACCEPT_RANGES);
        weaken(headers);
        headers.remove(CONTENT_LENGTH);
        match ends || request.method == Method::HEAD {
            true => None,
            false => Encoder::new(coding),
        }
    }

    /// Has a 304 say what the whole answer would (RFC 9110 section 15.4.5). Whoever asks with a weakened tag has been given a
    /// compressed answer, and would not know the strong one as its own (RFC 9111 section 4.3.4).
    fn confirm(&self, request: &RequestHead, headers: &mut HeaderMap) {
        let is_other = headers.contains_key(CONTENT_TYPE) && !self.is_worth_it(headers);
        if is_other || headers.contains_key(CONTENT_ENCODING) || forbids_change(headers) {
            return;
        }
        add_vary(headers);
        if headers.get(ETAG).is_some_and(|tag| asks_for_weakened(&request.headers, tag)) {
            weaken(headers);
        }
    }

    /// Whether the answer's bytes are of a kind that is compressed, and in nobody's coding yet.
    fn is_worth_it(&self, headers: &HeaderMap) -> bool {
        !headers.contains_key(CONTENT_ENCODING)
            && !forbids_change(headers)
            && headers
                .get(CONTENT_TYPE)
                .is_some_and(|kind| self.types.iter().any(|wanted| wanted.covers(kind.as_bytes())))
    }

    fn is_eligible(&self, head: &ResponseHead) -> bool {
        // Not 204, nor 206: its ranges are of the bytes as they are.
        let whole = head.status.is_success() && !matches!(head.status.as_u16(), 204..=206)
            || head.status.is_client_error()
            || head.status.is_server_error();
        let headers = &head.headers;
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        whole && length.is_none_or(|length: u64| length >= self.min) && self.is_worth_it(headers)
    }
}

/// Whether a condition names this strong tag as a weak one.
fn asks_for_weakened(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let tags =
        headers.get_all(IF_NONE_MATCH).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    tags.map(<[u8]>::trim_ascii).any(|asked| asked.strip_prefix(b"W/") == Some(tag.as_bytes()))
}

/// `no-transform` (RFC 9111 section 5.2.2.6).
fn forbids_change(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|line| {
        line.as_bytes()
            .split(|byte| *byte == b',')
            .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    })
}

/// Other bytes are another representation: its entity tag can be like the old one only weakly (RFC 9110 section 8.8.1). What is
/// no tag, or are two, says nothing.
fn weaken(headers: &mut HeaderMap) {
    let mut tags = headers.get_all(ETAG).iter();
    let weak = match (tags.next().map(HeaderValue::as_bytes), tags.next()) {
        (None, _) | (Some([b'W', b'/', ..]), None) => return,
        (Some(tag @ [b'"', ..]), None) => HeaderValue::from_bytes(&[b"W/", tag].concat()).ok(),
        _ => None,
    };
    match weak {
        Some(weak) => headers.insert(ETAG, weak),
        None => headers.remove(ETAG),
    };
}

fn add_vary(headers: &mut HeaderMap) {
    let names = ACCEPT_ENCODING.as_str().as_bytes();
    let said = headers.get_all(VARY).iter().any(|line| {
        let mut words = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        words.any(|word| word == b"*" || word.eq_ignore_ascii_case(names))
    });
    if !said {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::RANGE;
    use std::io::Read;

    fn request(fields: &[(&'static str, &str)]) -> RequestHead {
        let mut request = http::Request::get("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn answer(status: u16, fields: &[(&'static str, &str)]) -> ResponseHead {
        let mut answer = http::Response::builder().status(status);
        for (name, value) in fields {
            answer = answer.header(*name, *value);
        }
        answer.body(()).unwrap().into_parts().0
    }

    fn text(head: &ResponseHead, name: &str) -> String {
        let lines: Vec<_> = head.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        lines.join(", ")
    }

    #[test]
    fn what_is_compressed_says_so() {
        let compress = Compress::new(&CompressRule::default(), At::NOWHERE);
        let mut head = answer(
            200,
            &[
                ("content-type", "application/json; charset=utf-8"),
                ("content-length", "5000"),
                ("etag", "\"a\""),
                ("accept-ranges", "bytes"),
                ("vary", "origin"),
            ],
        );
        assert!(compress.begin(&request(&[("accept-encoding", "gzip")]), &mut head, false).is_some());
        assert_eq!(text(&head, "content-encoding"), "gzip");
        assert_eq!(text(&head, "etag"), "W/\"a\"");
        assert_eq!(text(&head, "vary"), "origin, accept-encoding");
        assert!(!head.headers.contains_key("content-length") && !head.headers.contains_key("accept-ranges"));
    }

    #[test]
    fn what_is_no_single_entity_tag_is_left_out() {
        let compress = Compress::new(&CompressRule::default(), At::NOWHERE);
        for (tags, left) in [
            (&["\"a\""][..], "W/\"a\""),
            (&["W/\"a\""], "W/\"a\""),
            (&["W/\"a\"", "\"b\""], ""),
            (&[""], ""),
            (&["a"], ""),
        ] {
            let fields: Vec<_> =
                tags.iter().map(|tag| ("etag", *tag)).chain([("content-type", "text/html")]).collect();
            let mut head = answer(200, &fields);
            assert!(compress.begin(&request(&[("accept-encoding", "gzip")]), &mut head, false).is_some());
            assert_eq!(text(&head, "etag"), left, "{tags:?}");
        }
    }

    #[test]
    fn a_client_that_wants_none_is_told_that_others_get_one() {
        let compress = Compress::new(&CompressRule::default(), At::NOWHERE);
        let mut head = answer(200, &[("content-type", "text/html"), ("etag", "\"a\"")]);
        assert!(compress.begin(&request(&[]), &mut head, false).is_none());
        assert_eq!((text(&head, "vary"), text(&head, "etag")), ("accept-encoding".into(), "\"a\"".into()));
    }

    #[test]
    fn what_cannot_be_or_is_not_worth_it_stays() {
        let compress = Compress::new(&CompressRule::default(), At::NOWHERE);
        let json = ("content-type", "application/json");
        for (status, fields) in [
            (206, &[("content-type", "image/png")][..]),
            (204, &[json]),
            (304, &[("content-type", "image/png"), ("etag", "\"a\"")]),
            (304, &[("cache-control", "no-transform")]),
            (200, &[json, ("content-length", "100")]),
            (200, &[json, ("content-encoding", "br")]),
            (200, &[json, ("cache-control", "max-age=5, No-Transform")]),
            (200, &[("content-type", "text/event-stream")]),
            (200, &[("content-type", "application/grpc+json")]),
            (200, &[("content-type", "image/png")]),
            (200, &[]),
        ] {
            let (mut head, before) = (answer(status, fields), answer(status, fields));
            let request = request(&[("accept-encoding", "gzip, br, zstd"), (RANGE.as_str(), "bytes=0-")]);
            assert!(compress.begin(&request, &mut head, false).is_none(), "{status} {fields:?}");
            assert_eq!(head.headers, before.headers, "{status} {fields:?}");
        }
    }

    /// RFC 9110 section 15.4.5, RFC 9111 section 4.3.4
    #[test]
    fn a_304_says_what_the_whole_answer_would() {
        let compress = Compress::new(&CompressRule::default(), At::NOWHERE);
        for (asked, tag, expected) in [
            ("W/\"a\"", "\"a\"", "W/\"a\""),
            ("\"b\", W/\"a\"", "\"a\"", "W/\"a\""),
            ("\"a\"", "\"a\"", "\"a\""),
            ("*", "\"a\"", "\"a\""),
            ("W/\"a\"", "W/\"a\"", "W/\"a\""),
        ] {
            let request = request(&[("accept-encoding", "gzip"), ("if-none-match", asked)]);
            let mut head = answer(304, &[("etag", tag)]);
            assert!(compress.begin(&request, &mut head, true).is_none());
            assert_eq!(
                (text(&head, "etag"), text(&head, "vary")),
                (expected.into(), "accept-encoding".into())
            );
        }
    }

    /// Its bytes are those of the answer as it is, and so is its tag.
    #[test]
    fn a_part_is_told_apart_by_coding_and_keeps_its_tag() {
        let compress = Compress::new(&CompressRule::default(), At::NOWHERE);
        let request = request(&[("accept-encoding", "gzip"), (RANGE.as_str(), "bytes=0-9")]);
        let mut head =
            answer(206, &[("content-type", "text/html"), ("content-length", "10"), ("etag", "\"a\"")]);
        assert!(compress.begin(&request, &mut head, false).is_none());
        assert_eq!((text(&head, "etag"), text(&head, "vary")), ("\"a\"".into(), "accept-encoding".into()));
        assert_eq!(
            (text(&head, "content-length"), text(&head, "content-encoding")),
            ("10".into(), String::new())
        );
    }

    #[test]
    fn an_answer_to_head_says_what_get_would() {
        let compress = Compress::new(&CompressRule::default(), At::NOWHERE);
        let mut request = request(&[("accept-encoding", "br")]);
        request.method = Method::HEAD;
        let mut head = answer(200, &[("content-type", "text/css"), ("content-length", "9000")]);
        assert!(compress.begin(&request, &mut head, true).is_none());
        assert_eq!(text(&head, "content-encoding"), "br");
        assert!(!head.headers.contains_key("content-length"));
    }

    #[test]
    fn every_coding_gives_back_what_went_in_and_can_be_read_up_to_a_flush() {
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let mut encoder = Encoder::new(coding).unwrap();
            let (first, second) = ("one line of text\n".repeat(500), "another one\n".repeat(900));
            let mut wire = encoder.push(first.as_bytes(), true).unwrap().to_vec();
            assert!(wire.len() < 500, "{coding:?} {}", wire.len());
            assert_eq!(decoded(coding, &wire, first.len()), first.as_bytes(), "{coding:?}");
            wire.extend_from_slice(&encoder.push(second.as_bytes(), false).unwrap());
            wire.extend_from_slice(&encoder.finish().unwrap());
            let whole = decoded(coding, &wire, first.len() + second.len());
            assert_eq!(whole, [first, second].concat().as_bytes(), "{coding:?}");
        }
    }

    /// The first `length` bytes.
    fn decoded(coding: Coding, wire: &[u8], length: usize) -> Vec<u8> {
        let mut plain = vec![0; length];
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(wire).read_exact(&mut plain).unwrap(),
            Coding::Brotli => brotli::Decompressor::new(wire, 4096).read_exact(&mut plain).unwrap(),
            Coding::Zstd => zstd::stream::read::Decoder::new(wire).unwrap().read_exact(&mut plain).unwrap(),
        }
        plain
    }
}
