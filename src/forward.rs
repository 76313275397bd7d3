//! What the upstream is told about the client: `X-Forwarded-*`, `Forwarded` (RFC 7239) and the request id.

use crate::exchange::{Exchange, authority};
use crate::filters::rules::Forwarded;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
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

/// Makes one `Cookie` field of several, as HTTP/2 allows clients to split it (RFC 9113 section 8.2.3).
///
/// # Errors
/// The engine refuses the header; it never does for what came in one.
pub fn join_cookies(head: &mut RequestHeader) -> pingora::Result<()> {
    let mut lines = head.headers.get_all(COOKIE).iter();
    if lines.next().is_none() || lines.next().is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..])));
    match joined {
        Ok(joined) => head.insert_header(COOKIE, joined),
        Err(_) => Ok(()),
    }
}

/// Removes from an answer what is only about the upstream's connection: what `Connection` names, and what is so by itself
/// (RFC 9110 section 7.6.1). The engine does so for requests only.
pub fn strip_hop_by_hop(head: &mut ResponseHeader) {
    if head.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    if head.headers.contains_key(CONNECTION) {
        let named = head.headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
        let named: Vec<HeaderName> = named.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
        named.iter().filter(|name| !FRAMING.contains(name)).for_each(|name| drop(head.remove_header(name)));
    }
    for name in &HOP_BY_HOP {
        if head.headers.contains_key(name) {
            head.remove_header(name);
        }
    }
}

/// Fields that are about one connection whether `Connection` names them or not. `Transfer-Encoding` and `Connection` itself
/// are the engine's.
const HOP_BY_HOP: [HeaderName; 4] =
    [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection"), TE, UPGRADE];

/// Fields that an upstream cannot have removed by naming them.
const FRAMING: [HeaderName; 2] = [TRANSFER_ENCODING, CONTENT_LENGTH];

/// All lines of a field as one list (RFC 9110 section 5.2).
fn joined(request: &RequestHeader, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = request.headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

fn value(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}
