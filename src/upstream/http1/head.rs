//! Heads on the wire: a request's is written, a response's is parsed (RFC 9112 sections 3 to 5).

use super::super::conversation::Fault;
use super::body::Decoder;
use crate::exchange::{RequestHead, ResponseHead};
use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use smallvec::SmallVec;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Longest head of a response.
pub(super) const MAX_HEAD: usize = 256 << 10;

/// Most fields in the head of a response.
const MAX_FIELDS: usize = 160;

/// Fields whose places are kept without an allocation.
const USUAL_FIELDS: usize = 24;

/// Writes a request's head. Field names are in lower case; the target is in origin form.
pub(super) fn write_request(head: &RequestHead, out: &mut Vec<u8>) {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    out.reserve(head.method.as_str().len() + target.len() + 16 + fields);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    if !target.starts_with('/') {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &head.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Takes a whole head from the beginning of `input`; `None` when there is more to come.
pub(super) fn take_response(input: &mut BytesMut) -> Result<Option<ResponseHead>, Fault> {
    let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut response, input, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if input.len() <= MAX_HEAD => return Ok(None),
        Ok(_) => return Err(Fault::Invalid("the head of the answer is too long")),
        Err(_) => return Err(Fault::Invalid("the head of the answer is malformed")),
    };
    if !ends_with_crlf(input.get(..length).unwrap_or_default()) {
        return Err(Fault::Invalid("a line of the answer's head does not end with CRLF"));
    }
    // Codes beyond 599 mean nothing (RFC 9110 section 15).
    let status = response.code.filter(|code| *code < 600).and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Fault::Invalid("the answer has no status"))?;
    let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let begin = input.as_ptr() as usize;
    let mut places: SmallVec<[(HeaderName, Range<usize>); USUAL_FIELDS]> = SmallVec::new();
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_| Fault::Invalid("the answer has a malformed field name"))?;
        let at = (field.value.as_ptr() as usize).saturating_sub(begin);
        places.push((name, at..at + field.value.len()));
    }
    let bytes = input.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(places.len() + 4);
    for (name, place) in places {
        // A value without bytes may lie anywhere.
        let value = if place.is_empty() { Ok(HeaderValue::from_static("")) } else { shared(&bytes, place) };
        headers.append(name, value?);
    }
    let (mut head, ()) = http::Response::new(()).into_parts();
    (head.status, head.version, head.headers) = (status, version, headers);
    Ok(Some(head))
}

/// Whether every line does; the parser takes a line feed alone for an end, which others take for a part of the value.
fn ends_with_crlf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head.get(at - 1) == Some(&b'\r'))
}

fn shared(bytes: &bytes::Bytes, place: Range<usize>) -> Result<HeaderValue, Fault> {
    let known = bytes.get(place.clone()).is_some();
    let value = known.then(|| HeaderValue::from_maybe_shared(bytes.slice(place)).ok()).flatten();
    value.ok_or(Fault::Invalid("the answer has a malformed field value"))
}

/// What follows a head, and whether another answer can follow that.
pub(super) struct Framing {
    pub(super) body: Decoder,
    pub(super) keep: bool,
}

/// Decides how long the body is (RFC 9112 section 6.3). What is ambiguous is refused; what an answer without a body says of
/// one is removed, so that nobody behind us waits for it.
pub(super) fn framing(head: &mut ResponseHead, method: &Method) -> Result<Framing, Fault> {
    let coded = is_chunked(head)?;
    let declared = declared_length(&head.headers)?;
    if coded && declared.is_some() {
        return Err(Fault::Invalid("the answer has both a length and a transfer coding"));
    }
    if coded && head.version == Version::HTTP_10 {
        return Err(Fault::Invalid("the answer has a transfer coding that HTTP/1.0 does not know"));
    }
    let never = head.status.is_informational() || head.status == StatusCode::NO_CONTENT;
    if never && declared.is_some() {
        head.headers.remove(CONTENT_LENGTH);
    }
    let bodiless = never || *method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    if bodiless && coded {
        head.headers.remove(TRANSFER_ENCODING);
    }
    let body = match (bodiless, coded, declared) {
        (true, ..) => Decoder::Done,
        (_, true, _) => Decoder::chunked(),
        (_, _, Some(0)) => Decoder::Done,
        (_, _, Some(length)) => Decoder::Length(length),
        (_, _, None) => Decoder::UntilClose,
    };
    let keep = !matches!(body, Decoder::UntilClose) && keeps_open(head);
    Ok(Framing { body, keep })
}

/// Whether the body is in chunks. No other coding was asked for, so there may be none (RFC 9112 section 7).
fn is_chunked(head: &ResponseHead) -> Result<bool, Fault> {
    let mut lines = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(only), None) if only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(Fault::Invalid("the answer has a transfer coding that nobody asked for")),
    }
}

/// The declared length: one number, once. Equal ones may be joined (RFC 9110 section 8.6), but not everybody does.
fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Fault::Invalid("the answer has two lengths")),
        (Some(only), None) => {
            decimal(only.as_bytes()).map(Some).ok_or(Fault::Invalid("the answer's length is not a number"))
        }
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether the connection stays open after this answer (RFC 9112 section 9.3).
fn keeps_open(head: &ResponseHead) -> bool {
    let mut keep = head.version == Version::HTTP_11;
    for line in head.headers.get_all(CONNECTION) {
        for token in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep
}
