//! Any bytes as an HTTP/1.1 request, head and body: whatever passes our check is read alike by two other readers.
//!
//! The one is httparse, which the engine uses and which forgives more; the other splits lines and does nothing else.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tollgate::listen::Limits;
use tollgate::listen::chunks::Chunks;
use tollgate::listen::framing::{Body, Flaw, check_begun, end, glimpse, parse};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let _ = (check_begun(bytes, &limits), glimpse(bytes));
    let found = end(bytes, 0);
    for seen in [1, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        // What was looked at before holds no end.
        if found.is_none_or(|end| end > seen) && seen <= bytes.len() {
            assert_eq!(end(bytes, seen), found);
        }
    }
    check_reading(bytes, &limits);
    let Ok(checked) = check(bytes, &limits) else { return };
    let Some((length, body)) = checked else {
        assert_eq!(found, None, "a head without a flaw ends where it ends");
        return check_body(bytes);
    };
    assert_eq!(found, Some(length));
    let (head, behind) = bytes.split_at(length);
    for cut in 0..length.min(300) {
        assert_eq!(
            check_begun(&head[..cut], &limits),
            Ok(()),
            "a good head is refused when it is cut at {cut}"
        );
        assert_eq!(check(&head[..cut], &limits), Ok(None), "it is none when it is cut at {cut}");
    }
    assert_eq!(by_httparse(bytes), (length, body));
    assert_eq!(by_lines(head), body);
    if body == Body::Chunked {
        check_body(behind);
    }
});

/// However a request comes in pieces, it is the same one, or none.
fn check_reading(bytes: &[u8], limits: &Limits) {
    let whole = read([bytes], limits);
    let check = |found: Result<Option<(usize, Body)>, Flaw>, how: &str| match (&whole, &found) {
        // What is wrong with a head is looked for when it comes, and then when it ends.
        (Err(_), Ok(None) | Err(_)) => {}
        _ => assert_eq!(found, whole, "{how}"),
    };
    let odd = bytes.iter().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    for size in [1, 2, 3, 1 + odd % 61, 1 + odd % 4099] {
        // Byte by byte a long head is gone through for as long as all of it is.
        if bytes.len() / size <= 2000 {
            check(read(bytes.chunks(size), limits), &format!("in pieces of {size}"));
        }
    }
    for cut in 0..bytes.len().min(200) {
        let (begin, rest) = bytes.split_at(cut);
        check(read([begin, rest], limits), &format!("cut at {cut}"));
    }
}

/// Reads as a connection is read: looks at what there is after each piece, at its end for no longer than must be. Gives where
/// the head ends and what it says of the body; `None` when more is waited for.
fn read<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Result<Option<(usize, Body)>, Flaw> {
    let (mut there, mut seen, mut skipped) = (Vec::new(), 0, 0);
    for piece in pieces {
        there.extend_from_slice(piece);
        while seen <= 1 && there.starts_with(b"\r\n") {
            there.drain(..2);
            (seen, skipped) = (0, skipped + 2);
        }
        if (seen == 0 || end(&there, seen).is_some())
            && let Some((length, body)) = check(&there, limits)?
        {
            return Ok(Some((skipped + length, body)));
        }
        check_begun(&there, limits)?;
        seen = there.len();
    }
    assert_eq!(end(&there, 0), None, "what has ended is not waited for");
    Ok(None)
}

/// The length of a head and what it says of the body.
fn check(read: &[u8], limits: &Limits) -> Result<Option<(usize, Body)>, Flaw> {
    let found = parse(&Bytes::copy_from_slice(read), limits)?;
    Ok(found.map(|head| (head.length, head.body)))
}

fn by_httparse(bytes: &[u8]) -> (usize, Body) {
    let mut slots = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut slots);
    let httparse::Status::Complete(length) = request.parse(bytes).expect("it is a request") else {
        panic!("it is whole");
    };
    let fields = request.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec()));
    (length, framed(fields.collect()))
}

fn by_lines(head: &[u8]) -> Body {
    let text = String::from_utf8_lossy(head).into_owned();
    assert!(!text.contains(|c: char| c.is_ascii_control() && !matches!(c, '\r' | '\n' | '\t')));
    let mut lines = text.strip_suffix("\r\n\r\n").expect("it ends").split("\r\n");
    let words: Vec<&str> = lines.next().expect("a request line").split(' ').collect();
    assert!(words.len() == 3 && matches!(words[2], "HTTP/1.1" | "HTTP/1.0"), "{words:?}");
    let fields: Vec<(String, Vec<u8>)> = lines
        .map(|line| {
            assert!(!line.contains(['\r', '\n']) && !line.starts_with([' ', '\t']), "{line:?}");
            let (name, value) = line.split_once(':').expect("a colon");
            assert!(!name.is_empty() && !name.contains([' ', '\t']), "{name:?}");
            (name.to_owned(), value.trim_matches([' ', '\t']).as_bytes().to_vec())
        })
        .collect();
    let hosts = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count();
    assert!(hosts == 1 || hosts == 0 && words[2] == "HTTP/1.0", "{hosts} hosts");
    framed(fields)
}

fn framed(fields: Vec<(String, Vec<u8>)>) -> Body {
    let values = |wanted: &str| -> Vec<String> {
        let named = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    };
    match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Body::None,
        ([length], []) => Body::Length(length.parse().expect("a number")),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Body::Chunked,
        other => panic!("{other:?} passed"),
    }
}

/// A body in chunks ends where another reader says, however it is cut.
fn check_body(bytes: &[u8]) {
    let whole = Chunks::new().pass(bytes);
    for cut in [1, 2, bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let Some((begin, rest)) = bytes.split_at_checked(cut) else { continue };
        let mut chunks = Chunks::new();
        let found = match chunks.pass(begin) {
            Ok(false) => chunks.pass(rest),
            other => other,
        };
        // A flaw behind the end is nobody's.
        assert_eq!(found, whole, "cut at {cut}");
    }
    if whole == Ok(true) {
        unchunk(bytes).expect("another reader finds the end");
    }
}

fn unchunk(mut bytes: &[u8]) -> Option<()> {
    loop {
        let httparse::Status::Complete((at, size)) = httparse::parse_chunk_size(bytes).ok()? else {
            return None;
        };
        bytes = bytes.get(at..)?;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
    let trailers = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    (bytes.starts_with(b"\r\n") || trailers.is_some()).then_some(())
}
