//! What the upstream is told about the client: `X-Forwarded-*`, `Forwarded` (RFC 7239) and the request id.

use crate::exchange::{Exchange, authority};
use crate::filters::rules::Forwarded;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use std::fmt::Write;
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED: HeaderName = http::header::FORWARDED;

/// Sets the headers. What a trusted proxy said is kept and added to; what anybody else said is replaced.
///
/// # Errors
/// The engine refuses a header; it never does for those made here.
pub fn identify_client(
    head: &mut RequestHeader,
    request: &RequestHeader,
    x: &Exchange,
    forwarded: Forwarded,
    request_id: &HeaderName,
) -> pingora::Result<()> {
    head.insert_header(request_id.clone(), x.request_id.clone())?;
    let (x_forwarded, rfc7239) = match forwarded {
        Forwarded::XForwarded => (true, false),
        Forwarded::Forwarded => (false, true),
        Forwarded::Both => (true, true),
        Forwarded::None => (false, false),
    };
    if x_forwarded {
        set_x_forwarded(head, request, x)?;
    } else {
        [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST].iter().for_each(|name| drop(head.remove_header(name)));
    }
    if rfc7239 {
        let value = forwarded_value(request, x);
        head.insert_header(FORWARDED, value)?;
    } else if head.headers.contains_key(FORWARDED) {
        head.remove_header(&FORWARDED);
    }
    Ok(())
}

fn set_x_forwarded(head: &mut RequestHeader, request: &RequestHeader, x: &Exchange) -> pingora::Result<()> {
    let chain = x.trusted.then(|| joined(request, &X_FORWARDED_FOR)).flatten();
    let mut addresses = chain.map_or_else(|| String::with_capacity(16), |chain| chain + ", ");
    let _ = write!(addresses, "{}", x.peer_ip);
    head.insert_header(X_FORWARDED_FOR, value(addresses))?;
    if !(x.trusted && request.headers.contains_key(X_FORWARDED_PROTO)) {
        head.insert_header(X_FORWARDED_PROTO, HeaderValue::from_static(x.scheme()))?;
    }
    if x.trusted && request.headers.contains_key(X_FORWARDED_HOST) {
        return Ok(());
    }
    match request.headers.get(http::header::HOST).filter(|_| request.uri.authority().is_none()) {
        Some(host) => head.insert_header(X_FORWARDED_HOST, host.clone())?,
        None => match authority(request) {
            Some(host) => head.insert_header(X_FORWARDED_HOST, value(host.to_owned()))?,
            None => drop(head.remove_header(&X_FORWARDED_HOST)),
        },
    }
    Ok(())
}

/// `for`, `proto` and `host` of this hop, behind those of trusted ones (RFC 7239 section 4).
fn forwarded_value(request: &RequestHeader, x: &Exchange) -> HeaderValue {
    let chain = x.trusted.then(|| joined(request, &FORWARDED)).flatten();
    let mut text = chain.map_or_else(String::new, |chain| chain + ", ");
    match x.peer_ip {
        IpAddr::V4(v4) => drop(write!(text, "for={v4}")),
        IpAddr::V6(v6) => drop(write!(text, "for=\"[{v6}]\"")),
    }
    let _ = write!(text, ";proto={}", x.scheme());
    if let Some(host) = authority(request) {
        let _ = write!(text, ";host=\"{}\"", host.replace(['"', '\\'], ""));
    }
    value(text)
}

/// All lines of a field as one list (RFC 9110 section 5.2).
fn joined(request: &RequestHeader, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = request.headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

fn value(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}
