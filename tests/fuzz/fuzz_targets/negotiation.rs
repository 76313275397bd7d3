//! Any bytes as what a client accepts, what an upstream answers and what we offer: the coding is the one that another reader of
//! RFC 9110 section 12.5.3 finds, the head says what was done, and the body comes back as it went in.
//!
//! The input is `[CODING…] [+]`, with `+` if the body is compressed, then fields of the request and fields of the answer, an empty line behind each, then the body, of
//! which every line is a piece.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use libfuzzer_sys::fuzz_target;
use std::io::Read;
use tollgate::compress::rules::{CompressRule, Encoding};
use tollgate::compress::{Coding, Compress, Encoder};
use tollgate::value::{At, OneOrMany};

/// More body than this shows nothing new.
const MOST_BODY: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let offered = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let encodings: Vec<Encoding> = offered.split(' ').filter_map(|name| name.parse().ok()).take(4).collect();
    let (asked, answered) = (fields(&mut lines), fields(&mut lines));
    let (mut request, ()) = Request::new(()).into_parts();
    request.headers = asked;
    // What an encoder needs makes a run a hundred times as long.
    if !offered.ends_with('+') {
        request.method = Method::HEAD;
    }
    let (mut head, ()) = Response::new(()).into_parts();
    head.headers = answered;
    let offered = match encodings.is_empty() {
        true => vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
        false => encodings.iter().map(|encoding| encoding.0).collect(),
    };
    let rule = CompressRule { encodings: OneOrMany(encodings), ..CompressRule::default() };
    let compress = Compress::new(&rule, At::NOWHERE);
    let wanted = by_another_reader(&request.headers, &offered);
    let told = compress.explain(&request);
    assert_eq!(
        told.split("  ").next(),
        Some(wanted.map_or("no coding", Coding::name)),
        "{:?}",
        request.headers
    );
    let before = head.clone();
    let encoder = compress.begin(&request, &mut head, false);
    check_head(&before.headers, &head.headers, wanted);
    if let (Some(coding), Some(encoder)) = (wanted, encoder) {
        check_body(coding, encoder, lines);
    }
});

fn fields<'a>(lines: &mut impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// A member of the field: its name in lower case and its weight in thousandths.
fn members(headers: &HeaderMap) -> Vec<(String, u32)> {
    let lines = headers.get_all("accept-encoding").iter();
    let text: Vec<String> = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect();
    let member = |member: &str| {
        let mut parts = member.split(';').map(|part| part.trim_matches([' ', '\t']));
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weights: Vec<&str> =
            parts.filter(|part| part.starts_with("q=") || part.starts_with("Q=")).collect();
        let weight = weights.first().map_or(1000, |weight| weight_of(&weight[2..]));
        (if name == "x-gzip" { "gzip".to_owned() } else { name }, weight)
    };
    text.join(",").split(',').map(member).collect()
}

/// What is no weight refuses.
fn weight_of(text: &str) -> u32 {
    let digits = text.chars().filter(|c| *c != '.').all(|c| c.is_ascii_digit());
    let shaped = matches!(text.as_bytes(), [b'0' | b'1'] | [b'0' | b'1', b'.', ..]) && text.len() <= 5;
    let once = text.matches('.').count() <= 1;
    match text.trim_end_matches('.').parse::<f64>() {
        Ok(weight) if digits && shaped && once && weight <= 1.0 => (weight * 1000.0).round() as u32,
        _ => 0,
    }
}

fn by_another_reader(headers: &HeaderMap, offered: &[Coding]) -> Option<Coding> {
    let members = members(headers);
    let named =
        |name: &str| members.iter().filter(|(known, _)| known == name).map(|(_, weight)| *weight).min();
    let weigh = |coding: &Coding| named(coding.name()).or_else(|| named("*")).unwrap_or(0);
    let best = offered.iter().map(weigh).max()?;
    let worth_it = best > 0 && best >= named("identity").unwrap_or(0);
    offered.iter().copied().find(|coding| worth_it && weigh(coding) == best)
}

fn check_head(before: &HeaderMap, after: &HeaderMap, wanted: Option<Coding>) {
    let words = |headers: &HeaderMap, name: &str| -> Vec<String> {
        let lines =
            headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
        let text: Vec<String> = lines.collect();
        text.join(",").split(',').map(|word| word.trim().to_ascii_lowercase()).collect()
    };
    let kind = words(before, "content-type").join(",");
    if before.contains_key("content-encoding")
        || kind.starts_with("text/event-stream")
        || kind.starts_with("application/grpc")
    {
        return assert_eq!(before, after);
    }
    if after == before {
        return;
    }
    let vary = words(after, "vary");
    assert!(vary.iter().any(|word| word == "accept-encoding" || word == "*"), "{after:?}");
    let Some(coding) = wanted else {
        return assert!(!after.contains_key("content-encoding"));
    };
    // What differs only in `Vary` is not changed: it had said so already.
    if after.contains_key("content-encoding") {
        assert_eq!(words(after, "content-encoding"), [coding.name()]);
        assert!(!after.contains_key("content-length") && !after.contains_key("accept-ranges"));
        let tags = after.get_all("etag").iter();
        assert!(tags.into_iter().all(|tag| tag.as_bytes().starts_with(b"W/")), "{after:?}");
    }
}

fn check_body<'a>(coding: Coding, mut encoder: Encoder, pieces: impl Iterator<Item = &'a [u8]>) {
    let (mut plain, mut wire) = (Vec::new(), Vec::new());
    for piece in pieces {
        if plain.len() + piece.len() > MOST_BODY {
            break;
        }
        plain.extend_from_slice(piece);
        let flush = piece.len() % 3 == 1;
        wire.extend_from_slice(&encoder.push(piece, flush).unwrap());
        if flush {
            assert_eq!(decoded(coding, &wire, Some(plain.len())), plain, "{coding:?} up to a flush");
        }
    }
    wire.extend_from_slice(&encoder.finish().unwrap());
    assert_eq!(decoded(coding, &wire, None), plain, "{coding:?}");
}

/// What is in `wire`: so many bytes, or all.
fn decoded(coding: Coding, wire: &[u8], length: Option<usize>) -> Vec<u8> {
    let mut reader: Box<dyn Read + '_> = match coding {
        Coding::Gzip => Box::new(flate2::read::GzDecoder::new(wire)),
        Coding::Brotli => Box::new(brotli::Decompressor::new(wire, 4096)),
        Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(wire).unwrap()),
    };
    let mut plain = vec![0; length.unwrap_or_default()];
    match length {
        Some(_) => reader.read_exact(&mut plain).unwrap(),
        None => drop(reader.read_to_end(&mut plain).unwrap()),
    }
    plain
}
