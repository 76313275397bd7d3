//! From a request head to its route: who sent it, is it acceptable, where does it belong.

use crate::exchange::{self, Exchange, RequestHead, authority, set_target};
use crate::filters::cors;
use crate::listen::connection::Facts;
use crate::listen::document::RedirectHttps;
use crate::listen::{Listener, client_address};
use crate::observe::{Telemetry, TrustIds};
use crate::reply::{Kind, Problem, Reply};
use crate::route::{Found, Lookup};
use crate::snapshot::Snapshot;
use crate::value::{Params, PathError, host_key, normalize};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, LOCATION};
use http::{HeaderName, HeaderValue, Method, Version};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use uuid::timestamp::context::ThreadLocalContext;
use uuid::{ContextV7, Timestamp, Uuid};

const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

/// Longest request id that is taken over.
const MAX_ID: usize = 128;

/// Notes who sent the request: connection, client behind trusted proxies, request id.
pub fn identify(
    x: &mut Exchange,
    head: &RequestHead,
    facts: &Facts,
    listener: &Listener,
    telemetry: &Telemetry,
) {
    let peer = facts.peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip().to_canonical());
    x.listener = facts.listener;
    x.peer_ip = peer;
    x.trusted = facts.trusted;
    x.client_ip = if facts.trusted { client_address(peer, &head.headers, &listener.trusted) } else { peer };
    let forwarded_https =
        || head.headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
    x.secure = facts.secure || (facts.trusted && forwarded_https());
    x.tls.clone_from(&facts.tls);
    x.request_id = request_id(head, facts.trusted, telemetry);
}

/// Refuses a client that sends too many requests, before anything else is looked at.
///
/// # Errors
/// It does.
pub fn keep_back_floods(listener: &Listener, client: IpAddr) -> Result<(), Problem> {
    let Some((flood, refused)) = &listener.flood else { return Ok(()) };
    match flood.count(client) {
        None => Ok(()),
        Some(wait) => {
            refused.inc();
            Err(Problem::from(Kind::FLOOD).retry_after(wait))
        }
    }
}

fn request_id(head: &RequestHead, trusted: bool, telemetry: &Telemetry) -> HeaderValue {
    let believed = match telemetry.trust_ids {
        TrustIds::Proxies => trusted,
        TrustIds::Anyone => true,
        TrustIds::Nobody => false,
    };
    let sent = believed.then(|| head.headers.get(&telemetry.request_id)).flatten();
    match sent.filter(|id| is_id(id.as_bytes())) {
        Some(id) => id.clone(),
        None => new_id(),
    }
}

/// What an id may be made of, so that it can be put anywhere unquoted.
fn is_id(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=MAX_ID).contains(&id.len()) && id.iter().all(plain)
}

/// A UUIDv7 (RFC 9562 section 5.7). Those of one thread are in order; the crate's own order of all threads is a lock that every
/// request would take.
fn new_id() -> HeaderValue {
    thread_local! {
        static ORDER: ContextV7 = const { ContextV7::new() };
    }
    let now = Timestamp::now(ThreadLocalContext::new(&ORDER));
    let mut text = [0; 36];
    Uuid::new_v7(now).hyphenated().encode_lower(&mut text);
    // It is shared by two heads and the log: bytes with an owner can be from the beginning, others are allocated once more then.
    let id = HeaderValue::from_maybe_shared(Bytes::from_owner(text));
    let mut id = id.unwrap_or(HeaderValue::from_static("-"));
    // No secret, but never said again: HTTP/2 need not keep it in its table, from where it would drive out what is.
    id.set_sensitive(true);
    id
}

/// What is allowed where a method is not, whatever the address.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Refuses a target that is neither a path nor an absolute address (RFC 9112 section 3.2);
/// and methods that nobody behind a gateway answers: tunnels, and echoes of what a client may not see (RFC 9110 section 9.3.8).
///
/// # Errors
/// The problem that the client is told.
pub fn check_target(head: &RequestHead) -> Result<(), Problem> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Problem::from(Kind::METHOD).allow(HeaderValue::from_static(METHODS)));
    }
    match head.uri.path().starts_with('/') {
        true => Ok(()),
        false => Err(Problem::from(Kind::BAD_PATH).detail("The target is neither a path nor an address.")),
    }
}

/// The answer to `OPTIONS *`, which asks for no address but for the server as a whole (RFC 9110 section 9.3.7).
pub fn about_server(head: &RequestHead) -> Option<Reply> {
    (head.method == Method::OPTIONS && head.uri.path() == "*").then(|| Reply {
        status: 204,
        headers: vec![(ALLOW, HeaderValue::from_static(METHODS))],
        body: Bytes::new(),
        reason: None,
        problem: None,
    })
}

/// Refuses a request on a TLS connection that was made for another host, if the two have different certificates: a proxy in
/// between, or a client that joins connections, has taken a wrong one (RFC 9110 section 15.5.20). Without SNI there is
/// nothing to compare.
///
/// # Errors
/// It is misdirected.
pub fn check_direction(head: &RequestHead, facts: &Facts, listener: &Listener) -> Result<(), Problem> {
    let Some(sni) = facts.tls.as_ref().and_then(|tls| tls.sni.as_deref()) else { return Ok(()) };
    let (Some(tls), Some(authority)) = (&listener.tls, authority(head)) else { return Ok(()) };
    if exchange::host(authority).eq_ignore_ascii_case(sni) {
        return Ok(());
    }
    match host_key(authority) {
        Some(host) if tls.is_misdirected(sni, &host) => Err(Kind::MISDIRECTED.into()),
        _ => Ok(()),
    }
}

/// Whether a request is sent to https whatever it asks for.
pub fn is_redirected(x: &Exchange, listener: &Listener) -> bool {
    listener.redirect_https.is_some() && !x.secure
}

/// Refuses what cannot be sent elsewhere, or should not be a request at all.
///
/// # Errors
/// It is too large, or without a host.
pub fn check_redirected(head: &RequestHead, listener: &Listener) -> Result<(), Problem> {
    check_size(head, listener)?;
    check_length(head)?;
    host(head)?.map(drop).ok_or(Kind::BAD_HOST.into())
}

/// The same address over https.
pub fn redirect_https(head: &RequestHead, listener: &Listener) -> Option<Reply> {
    let RedirectHttps { status, port } = listener.redirect_https?;
    let host = host(head).ok()??;
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let location = HeaderValue::from_str(&format!("https://{host}{port}{target}")).ok()?;
    Some(Reply {
        status,
        headers: vec![(LOCATION, location)],
        body: Bytes::new(),
        reason: None,
        problem: None,
    })
}

/// Finds the route. The path is brought to its normal form once, here; what is matched is what is sent on.
///
/// # Errors
/// The problem that the client is told.
pub fn find(
    head: &mut RequestHead,
    listener: &Listener,
    number: u16,
    snapshot: &Snapshot,
) -> Result<(u32, Params), Problem> {
    check_size(head, listener)?;
    check_length(head)?;
    check_early(head)?;
    normalize_target(head, listener)?;
    let host = host(head)?;
    let host = host.as_deref();
    let look_up = |method: &Method| {
        let (path, query, headers) = (head.uri.path(), head.uri.query(), &head.headers);
        snapshot.table.find(&Lookup { host, path, query, method, headers, listener: number })
    };
    // A preflight is for the route of the request that it announces, whose method is another one.
    if let Some(method) = cors::requested_method(head)
        && let Found::Route { route, params } = look_up(&method)
        && snapshot.routes.get(route as usize).is_some_and(|route| route.answers_preflights)
    {
        return Ok((route, params));
    }
    match look_up(&head.method) {
        Found::Route { route, params } => Ok((route, params)),
        Found::Nothing => Err(Kind::NO_ROUTE.into()),
        Found::MethodNotAllowed(methods) => {
            let allow = HeaderValue::from_str(&methods.allow()).map_err(|_| Kind::INTERNAL)?;
            Err(Problem::from(Kind::METHOD).allow(allow))
        }
    }
}

fn check_size(head: &RequestHead, listener: &Listener) -> Result<(), Problem> {
    let limits = &listener.limits;
    if head.uri.path_and_query().map_or(0, |target| target.as_str().len()) as u64 > limits.uri {
        return Err(Kind::URI_TOO_LONG.into());
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if head.headers.len() > limits.headers || bytes as u64 > limits.header_bytes {
        return Err(Kind::HEADERS_TOO_LARGE.into());
    }
    Ok(())
}

/// A length is one number (RFC 9110 section 8.6). The engine lets lists of equal numbers pass, which others read differently.
fn check_length(head: &RequestHead) -> Result<(), Problem> {
    let digits = |value: &HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    match head.headers.get(CONTENT_LENGTH) {
        Some(length) if !digits(length) => {
            Err(Problem::from(Kind::BAD_REQUEST).detail("Content-Length is not a number."))
        }
        _ => Ok(()),
    }
}

/// Whoever terminates TLS in front of us may take requests before the handshake ends, which anybody can then send again. It says
/// so, and what is not safe to do twice is not done (RFC 8470 section 5.2). Here early data is never taken.
fn check_early(head: &RequestHead) -> Result<(), Problem> {
    let is_early = || head.headers.get(EARLY_DATA).is_some_and(|said| said.as_bytes() == b"1");
    match head.method.is_safe() || !is_early() {
        true => Ok(()),
        false => Err(Kind::TOO_EARLY.into()),
    }
}

/// The host the request is for, as routes are looked up by. HTTP/1.1 requires one (RFC 9112 section 3.2).
fn host(head: &RequestHead) -> Result<Option<Cow<'_, str>>, Problem> {
    match authority(head) {
        Some(authority) => host_key(authority).map(Some).ok_or(Kind::BAD_HOST.into()),
        None if head.version == Version::HTTP_10 && !head.headers.contains_key(http::header::HOST) => {
            Ok(None)
        }
        None => Err(Kind::BAD_HOST.into()),
    }
}

fn normalize_target(head: &mut RequestHead, listener: &Listener) -> Result<(), Problem> {
    let path = head.uri.path();
    let normal = normalize(path, listener.normalize)
        .map_err(|error: PathError| Problem::from(Kind::BAD_PATH).detail(error.to_string()))?;
    if matches!(normal, Cow::Borrowed(same) if same.len() == path.len()) {
        return Ok(());
    }
    let target = match head.uri.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    set_target(head, &target).map_err(|_| Kind::BAD_PATH.into())
}
