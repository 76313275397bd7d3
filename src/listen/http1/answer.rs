//! Answers on the wire: heads, and how their bodies are told from what follows (RFC 9112 sections 4 to 7).

use super::output::Output;
use crate::exchange::ResponseHead;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::protocols::http::date::get_cached_date;
use std::io::{self, ErrorKind};

/// How long a date is in the one format that is still written (RFC 9110 section 5.6.7).
const DATE_LENGTH: usize = 29;

/// How far the answer to a request is.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The head of the final answer.
    pub(super) head: Option<ResponseHead>,
    rest: Rest,
    /// Whether nothing of it was sent yet.
    pub(super) is_unsent: bool,
    /// Bytes of its body that were sent, and those that are on their way.
    pub(super) sent: u64,
    on_the_way: u64,
}

/// What of its body is to come.
#[derive(Debug, Default, PartialEq, Eq)]
enum Rest {
    /// It has not begun.
    #[default]
    Unbegun,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks,
    /// Everything up to the end of the connection.
    ToTheEnd,
    /// Nothing.
    Nothing,
}

impl Answer {
    /// Writes the head of a final answer; `keeps` is whether the connection can be kept, which the answer may make impossible.
    pub(super) fn begin(head: ResponseHead, bodiless: bool, keeps: &mut bool, out: &mut Vec<u8>) -> Answer {
        let rest = match bodiless || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            true => Rest::Nothing,
            false if head.headers.contains_key(TRANSFER_ENCODING) => Rest::Chunks,
            false => declared(&head).map_or(Rest::ToTheEnd, Rest::Length),
        };
        *keeps &= rest != Rest::ToTheEnd;
        write_final(&head, *keeps, out);
        let rest = if rest == Rest::Length(0) { Rest::Nothing } else { rest };
        Answer { head: Some(head), rest, is_unsent: true, sent: 0, on_the_way: 0 }
    }

    pub(super) fn push(&mut self, mut piece: Bytes, ends: bool, out: &mut Output) -> io::Result<()> {
        match &mut self.rest {
            Rest::Unbegun | Rest::Nothing => return Ok(()),
            Rest::Length(left) => {
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
                let is_short = ends && *left > 0;
                if *left == 0 {
                    self.rest = Rest::Nothing;
                }
                self.on_the_way += piece.len() as u64;
                out.add(piece);
                if is_short {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            Rest::Chunks => {
                self.on_the_way += piece.len() as u64;
                add_chunk(piece, ends, out);
            }
            Rest::ToTheEnd => {
                self.on_the_way += piece.len() as u64;
                out.add(piece);
            }
        }
        if ends {
            self.rest = Rest::Nothing;
        }
        Ok(())
    }

    /// Everything that was to be sent was.
    pub(super) fn was_sent(&mut self) {
        self.is_unsent = false;
        self.sent += std::mem::take(&mut self.on_the_way);
    }

    /// Whether it was said to its end.
    pub(super) fn is_over(&self) -> bool {
        self.rest == Rest::Nothing
    }

    /// Whether there is a body whose length is known, so that nobody waits for the first piece of it.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.rest, Rest::Length(_))
    }
}

fn declared(head: &ResponseHead) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn add_chunk(piece: Bytes, ends: bool, out: &mut Output) {
    if !piece.is_empty() {
        write_size(piece.len(), out.text());
        out.add(piece);
        out.text().extend_from_slice(b"\r\n");
    }
    if ends {
        out.text().extend_from_slice(b"0\r\n\r\n");
    }
}

/// The line before a chunk: its size in hexadecimal digits.
fn write_size(size: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.extend(DIGITS.get(size >> (place * 4) & 0xf));
    }
    out.extend_from_slice(b"\r\n");
}

/// An interim answer says nothing of the connection, nor when it is.
pub(super) fn write_interim(head: &ResponseHead, out: &mut Vec<u8>) {
    write_status(head.status, out);
    for (name, value) in head.headers.iter().filter(|(name, _)| **name != CONNECTION) {
        write_field(name, value.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The time is now, unless the head tells it: nobody behind could see how old an answer is that was stored
/// (RFC 9110 section 6.6.1). Who names a protocol to change to says so in `Connection` too (section 7.8).
fn write_final(head: &ResponseHead, keeps: bool, out: &mut Vec<u8>) {
    write_status(head.status, out);
    let (mut is_dated, mut upgrades) = (false, false);
    for (name, value) in &head.headers {
        if *name == DATE {
            if is_dated || value.len() != DATE_LENGTH {
                continue;
            }
            is_dated = true;
        } else if *name == CONNECTION {
            continue;
        }
        upgrades |= *name == UPGRADE;
        write_field(name, value.as_bytes(), out);
    }
    if !is_dated {
        write_field(&DATE, now().as_bytes(), out);
    }
    out.extend_from_slice(match (keeps, upgrades) {
        (true, false) => b"Connection: keep-alive\r\n\r\n",
        (false, false) => b"Connection: close\r\n\r\n",
        (true, true) => b"Connection: keep-alive, Upgrade\r\n\r\n",
        (false, true) => b"Connection: close, Upgrade\r\n\r\n",
    });
}

fn now() -> HeaderValue {
    get_cached_date()
}

fn write_status(status: StatusCode, out: &mut Vec<u8>) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn write_field(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    for part in [usual_case(name.as_str()).as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Fields of every answer are written as people write them: not every client compares names as it should.
fn usual_case(name: &str) -> &str {
    match name {
        "accept-ranges" => "Accept-Ranges",
        "age" => "Age",
        "cache-control" => "Cache-Control",
        "content-type" => "Content-Type",
        "content-encoding" => "Content-Encoding",
        "content-length" => "Content-Length",
        "date" => "Date",
        "transfer-encoding" => "Transfer-Encoding",
        "server" => "Server",
        "set-cookie" => "Set-Cookie",
        other => other,
    }
}
