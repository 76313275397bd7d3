//! What the upstream is told about the client: `X-Forwarded-*`, `Forwarded` (RFC 7239) and the request id.

pub mod websocket;

use crate::exchange::{ClientCertificate, Exchange, RequestHead, ResponseHead, address_text, authority};
use crate::filters::rules::Forwarded;
use crate::reply::{Kind, Problem};
use crate::upstream::Target;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, EXPECT, HOST, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use smallvec::SmallVec;
use std::fmt::Write;
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What else proxies say of a client and upstreams believe; from anybody who is no trusted proxy it is a lie.
static SPOOFABLE: [HeaderName; 6] = [
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-forwarded-scheme"),
];
const FORWARDED: HeaderName = http::header::FORWARDED;

/// What only whoever has done the handshake can say (RFC 9440 section 4): taken from nobody.
static CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
static CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Sets the headers. What a trusted proxy said is kept and added to; what anybody else said is replaced.
pub fn identify_client(
    head: &mut RequestHead,
    request: &RequestHead,
    x: &Exchange,
    forwarded: Forwarded,
    request_id: &HeaderName,
) {
    let headers = &mut head.headers;
    headers.reserve(4);
    // One pass over the names that are there is cheaper than a look-up of each that might be.
    let told_before = headers.keys().any(is_told);
    if told_before && !x.trusted {
        for name in &SPOOFABLE {
            headers.remove(name);
        }
    }
    if told_before {
        headers.remove(&CLIENT_CERT);
        headers.remove(&CLIENT_CERT_CHAIN);
    }
    if let Some(client) = x.tls.as_ref().and_then(|tls| tls.client.as_ref()) {
        set_client_certificate(headers, client);
    }
    headers.insert(request_id, x.request_id.clone());
    let (x_forwarded, rfc7239) = match forwarded {
        Forwarded::XForwarded => (true, false),
        Forwarded::Forwarded => (false, true),
        Forwarded::Both => (true, true),
        Forwarded::None => (false, false),
    };
    if x_forwarded {
        set_x_forwarded(headers, request, x);
    } else {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
            headers.remove(name);
        }
    }
    if rfc7239 {
        headers.insert(FORWARDED, forwarded_value(request, x));
    } else if told_before {
        headers.remove(FORWARDED);
    }
}

/// Whether a field tells of a client as proxies do: most that begin with `x-` do not.
fn is_told(name: &HeaderName) -> bool {
    match name.as_str().as_bytes() {
        [b'x', b'-', ..] => SPOOFABLE.contains(name),
        _ => *name == FORWARDED || *name == CLIENT_CERT || *name == CLIENT_CERT_CHAIN,
    }
}

/// The certificate that the client has shown here (RFC 9440).
fn set_client_certificate(headers: &mut HeaderMap, client: &ClientCertificate) {
    for (name, value) in [(&CLIENT_CERT, &client.header), (&CLIENT_CERT_CHAIN, &client.chain_header)] {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
}

fn set_x_forwarded(headers: &mut HeaderMap, request: &RequestHead, x: &Exchange) {
    let chain = x.trusted.then(|| joined(request, &X_FORWARDED_FOR)).flatten();
    let peer = address_text(x.peer_ip);
    let addresses = match chain {
        // Copied, and not taken over: bytes with room behind them would cost a second allocation.
        None => Bytes::copy_from_slice(&peer),
        Some(chain) => Bytes::from([chain.as_bytes(), b", ", &peer].concat()),
    };
    headers.insert(X_FORWARDED_FOR, value(addresses));
    if !(x.trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(x.scheme()));
    }
    if x.trusted && headers.contains_key(X_FORWARDED_HOST) {
        return;
    }
    let host = match request.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => request.headers.get(HOST).cloned(),
    };
    match host {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
}

/// `for`, `proto` and `host` of this hop, behind those of trusted ones (RFC 7239 section 4).
fn forwarded_value(request: &RequestHead, x: &Exchange) -> HeaderValue {
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

/// Gives a head the `Host` that this target is to see, and one `Cookie` field at most.
pub fn address(head: &mut RequestHead, target: &Target) {
    let headers = &mut head.headers;
    if let Some(host) = target.host() {
        headers.insert(HOST, host.clone());
    } else if head.uri.authority().is_none() && !headers.contains_key(HOST) {
        // An HTTP/1.0 client need not say; what goes on is HTTP/1.1 and must (RFC 9112 section 3.2).
        headers.insert(HOST, value(target.label().as_bytes().to_vec()));
    }
    join_cookies(head);
}

/// Makes one `Cookie` field of several, as HTTP/2 allows clients to split it (RFC 9113 section 8.2.3).
fn join_cookies(head: &mut RequestHead) {
    let mut lines = head.headers.get_all(COOKIE).iter();
    if lines.next().is_none() || lines.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..]))) {
        head.headers.insert(COOKIE, joined);
    }
}

/// Most fields that `Connection` may name.
const MAX_NAMED: usize = 32;

/// Fields that a client cannot have removed by naming them: they decide where a request goes and whose it is.
const PROTECTED: [&str; 6] =
    ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "client-cert", "client-cert-chain"];

/// Removes from a request what is only about the client's connection (RFC 9110 section 7.6.1). How the
/// body is told from what follows is said anew by whoever sends the request.
///
/// # Errors
/// `Connection` names what it must not, too much, or what is no name.
pub fn strip_request(head: &mut RequestHead) -> Result<(), Problem> {
    let headers = &mut head.headers;
    if head.version == Version::HTTP_10 {
        // It does not know what it asks for (RFC 9110 section 10.1.1).
        headers.remove(EXPECT);
    }
    let here: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| ends_here(name)).cloned().collect();
    if here.is_empty() {
        return Ok(());
    }
    let lines = headers.get_all(CONNECTION).iter().filter(|line| !is_usual(line));
    let tokens = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut named: SmallVec<[HeaderName; 4]> = SmallVec::new();
    for token in tokens.filter(|token| !token.is_empty()) {
        let name = HeaderName::from_bytes(token).ok().filter(|_| token.iter().all(is_token));
        let name = name.ok_or_else(|| refused("`Connection` names what is no header field.".to_owned()))?;
        if PROTECTED.contains(&name.as_str()) {
            return Err(refused(format!("`Connection` names `{name}`, which is not about the connection.")));
        }
        if named.len() == MAX_NAMED {
            return Err(refused(format!("`Connection` names more than {MAX_NAMED} header fields.")));
        }
        named.push(name);
    }
    for name in named.iter().filter(|name| **name != CONTENT_LENGTH) {
        headers.remove(name);
    }
    for name in here {
        headers.remove(name);
    }
    Ok(())
}

fn refused(detail: String) -> Problem {
    Problem::from(Kind::BAD_REQUEST).detail(detail)
}

/// Whether a field of a request is about one connection whether `Connection` names it or not. Comparing texts of one length
/// costs a third of comparing names.
fn ends_here(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// What a name is made of (RFC 9110 section 5.6.2).
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Removes from an answer what is only about the upstream's connection: what `Connection` names, and what is so by itself
/// (RFC 9110 section 7.6.1).
pub fn strip_hop_by_hop(head: &mut ResponseHead) {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        strip_answer(&mut head.headers);
    }
}

fn strip_answer(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named = headers
            .get_all(CONNECTION)
            .iter()
            .filter(|line| !is_usual(line))
            .filter_map(|line| line.to_str().ok());
        let named: Vec<HeaderName> =
            named.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
        for name in named.iter().filter(|name| !FRAMING.contains(name)) {
            headers.remove(name);
        }
    }
    if headers.keys().any(is_hop_by_hop) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

/// Removes from trailers what has no business there: fields that say how a message is framed, where it goes or how it is to be
/// read (RFC 9110 section 6.5.1). Whoever merges trailers with the head must not be led astray by them.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    let misplaced: Vec<HeaderName> = trailers.keys().filter(|name| is_misplaced(name)).cloned().collect();
    for name in misplaced {
        trailers.remove(name);
    }
}

fn is_misplaced(name: &HeaderName) -> bool {
    const OF_HEADS: [HeaderName; 10] = [
        HOST,
        TRAILER,
        AUTHORIZATION,
        SET_COOKIE,
        CACHE_CONTROL,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_RANGE,
        CONNECTION,
        WWW_AUTHENTICATE,
    ];
    FRAMING.contains(name) || is_hop_by_hop(name) || OF_HEADS.contains(name)
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == TE || *name == UPGRADE || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// What `Connection` says nearly always; it names no field that is there.
fn is_usual(line: &HeaderValue) -> bool {
    matches!(line.as_bytes(), b"keep-alive" | b"close" | b"Keep-Alive" | b"Close")
}

/// Fields that are about one connection whether `Connection` names them or not. `Transfer-Encoding` and `Connection` itself
/// are said anew by whoever sends the answer.
static HOP_BY_HOP: [HeaderName; 4] =
    [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection"), TE, UPGRADE];

/// Fields that an upstream cannot have removed by naming them.
static FRAMING: [HeaderName; 2] = [TRANSFER_ENCODING, CONTENT_LENGTH];

/// All lines of a field as one list (RFC 9110 section 5.2).
fn joined(request: &RequestHead, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> =
        request.headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

fn value(text: impl Into<Bytes>) -> HeaderValue {
    HeaderValue::from_maybe_shared(text.into()).unwrap_or(HeaderValue::from_static(""))
}
