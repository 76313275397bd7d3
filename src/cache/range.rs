//! Ranges of bytes (RFC 9110 section 14): what a client asks for of a body whose length is known, and how several of them are
//! one answer.

use bytes::Bytes;
use http::HeaderValue;
use smallvec::SmallVec;
use std::ops::Range;

/// More ranges than these, or such that overlap, are no honest wish: the whole is cheaper for both (section 14.2).
const MOST_RANGES: usize = 16;

/// What `Range` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What cannot be understood or would cost too much: as if nothing was asked.
    Ignored,
    /// Nothing that there is.
    Unsatisfiable,
    /// These parts, in the order in which they were asked for.
    Parts(SmallVec<[Range<u64>; 2]>),
}

/// Reads `Range` for a body of this many bytes.
pub fn wanted(field: &HeaderValue, length: u64) -> Wanted {
    let text = field.as_bytes().trim_ascii();
    let Some(set) = text.split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes=")) else {
        return Wanted::Ignored;
    };
    let mut parts: SmallVec<[Range<u64>; 2]> = SmallVec::new();
    let mut asked = 0;
    for spec in set.1.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty()) {
        asked += 1;
        match part(spec, length) {
            None => return Wanted::Ignored,
            Some(_) if asked > MOST_RANGES => return Wanted::Ignored,
            Some(part) if part.is_empty() => {}
            Some(part) => parts.push(part),
        }
    }
    match parts.as_slice() {
        [] if asked == 0 => Wanted::Ignored,
        [] => Wanted::Unsatisfiable,
        parts if overlap(parts) => Wanted::Ignored,
        _ => Wanted::Parts(parts),
    }
}

/// One range: `first-last`, `first-` or `-suffix`. Empty when there is nothing of it; `None` when it is none.
fn part(spec: &[u8], length: u64) -> Option<Range<u64>> {
    let dash = spec.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (spec.get(..dash)?, spec.get(dash + 1..)?);
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(length.saturating_sub(suffix)..length);
    }
    let first = number(first)?;
    let end = match last {
        [] => u64::MAX,
        last => number(last)?.saturating_add(1),
    };
    (first < end).then_some(first.min(length)..end.min(length))
}

/// Digits; too many are more than any body has.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
    )
}

fn overlap(parts: &[Range<u64>]) -> bool {
    let mut sorted: SmallVec<[&Range<u64>; 16]> = parts.iter().collect();
    sorted.sort_unstable_by_key(|part| part.start);
    sorted.windows(2).any(|pair| matches!(pair, [one, next] if next.start < one.end))
}

/// `Content-Range` of a part (section 14.4).
pub fn content_range(part: &Range<u64>, length: u64) -> HeaderValue {
    let mut number = itoa::Buffer::new();
    let mut text = Vec::with_capacity(32);
    text.extend_from_slice(b"bytes ");
    text.extend_from_slice(number.format(part.start).as_bytes());
    text.push(b'-');
    text.extend_from_slice(number.format(part.end.saturating_sub(1)).as_bytes());
    text.push(b'/');
    text.extend_from_slice(number.format(length).as_bytes());
    value(text)
}

/// `Content-Range` of an answer that has no part (section 14.4).
pub fn unsatisfied_range(length: u64) -> HeaderValue {
    value([b"bytes */", itoa::Buffer::new().format(length).as_bytes()].concat())
}

fn value(text: Vec<u8>) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

/// Several parts as one body: `multipart/byteranges` (section 14.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    /// What stands before each part, and the part.
    parts: Vec<(Bytes, Range<u64>)>,
    end: Bytes,
    boundary: String,
}

/// A piece of a body in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// What says which part comes, or that none does any more.
    Text(&'a Bytes),
    /// Bytes of the stored body.
    Body(Range<u64>),
}

impl Multipart {
    /// The parts of a body of this type and length. `boundary` must not occur in it; any text that nobody can foresee will do.
    pub(super) fn new(
        parts: impl IntoIterator<Item = Range<u64>>,
        length: u64,
        content_type: Option<&HeaderValue>,
        boundary: String,
    ) -> Multipart {
        let before = |part: &Range<u64>| {
            let mut text = format!("\r\n--{boundary}\r\n").into_bytes();
            if let Some(content_type) = content_type {
                text.extend_from_slice(b"Content-Type: ");
                text.extend_from_slice(content_type.as_bytes());
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"Content-Range: ");
            text.extend_from_slice(content_range(part, length).as_bytes());
            text.extend_from_slice(b"\r\n\r\n");
            Bytes::from(text)
        };
        let parts = parts.into_iter().map(|part| (before(&part), part)).collect();
        let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        Multipart { parts, end, boundary }
    }

    /// What is sent, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let parts = self.parts.iter().flat_map(|(text, part)| [Piece::Text(text), Piece::Body(part.clone())]);
        parts.chain([Piece::Text(&self.end)])
    }

    /// Bytes of all of it.
    pub fn length(&self) -> u64 {
        self.pieces()
            .map(|piece| match piece {
                Piece::Text(text) => text.len() as u64,
                Piece::Body(part) => part.end - part.start,
            })
            .sum()
    }

    /// Its `Content-Type`.
    pub fn content_type(&self) -> HeaderValue {
        value(format!("multipart/byteranges; boundary={}", self.boundary).into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Wanted {
        wanted(&HeaderValue::from_bytes(text.as_bytes()).unwrap(), 10)
    }

    fn part(start: u64, end: u64) -> Wanted {
        Wanted::Parts(std::iter::once(start..end).collect())
    }

    /// RFC 9110 section 14.1.2.
    #[test]
    fn ranges_are_read() {
        for (text, expected) in [
            ("bytes=0-1", part(0, 2)),
            ("Bytes=0-0", part(0, 1)),
            ("bytes=1-", part(1, 10)),
            ("bytes=-1", part(9, 10)),
            ("bytes=-100", part(0, 10)),
            ("bytes=5-100", part(5, 10)),
            ("bytes=0-99999999999999999999999", part(0, 10)),
            ("bytes=5-6, 0-1", Wanted::Parts([5..7, 0..2].into_iter().collect())),
            ("bytes= 0-1 , ,20-30", part(0, 2)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=10-20, 30-40", Wanted::Unsatisfiable),
            ("bytes=2-1", Wanted::Ignored),
            ("bytes=0-5, 3-7", Wanted::Ignored),
            ("bytes=0-, 0-", Wanted::Ignored),
            ("bytes=a-b", Wanted::Ignored),
            ("bytes=0", Wanted::Ignored),
            ("bytes=-", Wanted::Ignored),
            ("bytes=", Wanted::Ignored),
            ("bytes=0-1;x", Wanted::Ignored),
            ("lines=0-1", Wanted::Ignored),
            ("", Wanted::Ignored),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        let many: Vec<String> = (0..=MOST_RANGES).map(|number| format!("{number}-{number}")).collect();
        assert_eq!(wanted(&format!("bytes={}", many.join(",")).parse().unwrap(), 1000), Wanted::Ignored);
    }

    #[test]
    fn nothing_is_satisfied_by_an_empty_body() {
        for text in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(wanted(&text.parse().unwrap(), 0), Wanted::Unsatisfiable, "{text}");
        }
    }

    /// RFC 9110 section 14.6.
    #[test]
    fn several_parts_are_one_body() {
        let body =
            Multipart::new([0..2, 5..10], 10, Some(&HeaderValue::from_static("text/plain")), "B".into());
        let mut text = String::new();
        for piece in body.pieces() {
            match piece {
                Piece::Text(bytes) => text.push_str(std::str::from_utf8(bytes).unwrap()),
                Piece::Body(part) => text.push_str(&"0123456789"[part.start as usize..part.end as usize]),
            }
        }
        assert_eq!(
            text,
            "\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-9/10\r\n\r\n56789\r\n--B--\r\n"
        );
        assert_eq!(body.length(), text.len() as u64);
        assert_eq!(body.content_type(), "multipart/byteranges; boundary=B");
        assert_eq!(unsatisfied_range(10), "bytes */10");
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_body(text in "bytes=[0-9, -]{0,30}", length in 0_u64..50) {
            if let Wanted::Parts(parts) = wanted(&HeaderValue::from_str(&text).unwrap(), length) {
                prop_assert!(!parts.is_empty() && parts.len() <= MOST_RANGES);
                for part in parts {
                    prop_assert!(part.start < part.end && part.end <= length);
                }
            }
        }
    }
}
