//! One request and its response so far: every fact that a step, an action, the log or a metric may ask for.

use crate::consumer::{Identity, claim};
use crate::value::query::{is_named, pairs, split_pair};
use crate::value::{Params, Part, Template};
use http::header::{CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use smallvec::SmallVec;
use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The head of a request. Header names are lower case, as HTTP/2 has them.
pub type RequestHead = http::request::Parts;

/// The head of a response.
pub type ResponseHead = http::response::Parts;

/// Facts about one request. The request head itself stays with its client and is passed beside it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// When the request head had been read.
    pub started: Instant,
    /// Number of the listener it came in on.
    pub listener: u16,
    /// Address of the client, behind trusted proxies.
    pub client_ip: IpAddr,
    /// Address of the other end of the connection.
    pub peer_ip: IpAddr,
    /// Whether that end is a trusted proxy.
    pub trusted: bool,
    /// Whether the client came over TLS, as far as can be believed.
    pub secure: bool,
    /// What is known of the connection, if it is TLS.
    pub tls: Option<Arc<Secured>>,
    /// The request id.
    pub request_id: HeaderValue,
    /// Where the path parameters stand in the path.
    pub params: Params,
    /// Status of the answer, once there is one.
    pub status: u16,
    /// Status of the problem, where the answer's own status does not tell of it: gRPC.
    pub problem: Option<u16>,
    /// Why tollgate itself made or ended the answer: a problem's code.
    pub reason: Option<&'static str>,
    /// Bytes of request body read so far.
    pub bytes_in: u64,
    /// Who calls, once it has been proven.
    pub identity: Option<Arc<Identity>>,
    /// Why a credential was refused, for the log.
    pub auth_error: Option<&'static str>,
    /// What limits said, for the answer's header fields.
    pub limited: SmallVec<[Limited; 2]>,
    /// The limit that refused the request, or would have if it did more than watch.
    pub limit: Option<Arc<str>>,
    /// The fault that was made on purpose.
    pub fault: Option<&'static str>,
    /// What the request holds until it ends.
    pub holds: Holds,
    /// Whether nothing may be counted, because the request is only explained.
    pub explaining: bool,
    /// What the cache did, where there is one.
    pub cache: Option<CacheResult>,
    /// What stands in for the upstream's answer: `stale`, `upstream` or `respond`.
    pub fallback: Option<&'static str>,
    /// What was tried upstream.
    pub tries: Tries,
}

/// What became of a request to a route with a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// A fresh answer was given.
    Hit,
    /// An answer was given that is no longer fresh.
    Stale,
    /// A stored answer was given after the upstream said that it is still good.
    Revalidated,
    /// The answer to another request was given while it came.
    Collapsed,
    /// The upstream answered.
    Miss,
    /// The cache was not asked.
    Bypass,
}

impl CacheResult {
    /// All of them, in the order of their numbers.
    pub const ALL: [CacheResult; 6] = [
        CacheResult::Hit,
        CacheResult::Stale,
        CacheResult::Revalidated,
        CacheResult::Collapsed,
        CacheResult::Miss,
        CacheResult::Bypass,
    ];

    /// Its name in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            CacheResult::Hit => "hit",
            CacheResult::Stale => "stale",
            CacheResult::Revalidated => "revalidated",
            CacheResult::Collapsed => "collapsed",
            CacheResult::Miss => "miss",
            CacheResult::Bypass => "bypass",
        }
    }
}

/// What is known of a TLS connection once its handshake is done.
#[derive(Debug, PartialEq, Eq)]
pub struct Secured {
    /// The host that the client asked for (RFC 6066 section 3), in lower case.
    pub sni: Option<Box<str>>,
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite, as IANA registers it.
    pub cipher: &'static str,
    /// Whether the client went on with an earlier session.
    pub resumed: bool,
    /// Whether HTTP/2 was agreed on (RFC 7301).
    pub h2: bool,
    /// The certificate that the client has shown, verified.
    pub client: Option<ClientCertificate>,
}

/// A client's certificate.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `sha256:` and the hexadecimal digits of its digest.
    pub fingerprint: Box<str>,
    /// Its subject, as RFC 4514 writes it.
    pub subject: Box<str>,
    /// The common name in the subject.
    pub common_name: Option<Box<str>>,
    /// Alternative names: hosts.
    pub dns: Vec<Box<str>>,
    /// Alternative names: URIs, such as those of SPIFFE.
    pub uris: Vec<Box<str>>,
    /// Alternative names: mail addresses.
    pub emails: Vec<Box<str>>,
    /// When it stops being good, seconds since 1970.
    pub not_after: i64,
    /// `Client-Cert` for the upstream (RFC 9440 section 2.2).
    pub header: Option<HeaderValue>,
    /// `Client-Cert-Chain` for the upstream (RFC 9440 section 2.3).
    pub chain_header: Option<HeaderValue>,
}

/// What a set of limits said of a request.
#[derive(Clone, Debug)]
pub struct Limited {
    /// The limits.
    pub policies: Arc<Policies>,
    /// What each has left and when it has all again, in seconds; `None` for one that did not apply.
    pub states: SmallVec<[Option<(u64, u64)>; 4]>,
}

/// A set of limits, as clients are told of it.
#[derive(Debug)]
pub struct Policies {
    /// Value of `RateLimit-Policy`.
    pub header: HeaderValue,
    /// Each limit's name in quotes, and how many it grants.
    pub each: Vec<(Box<str>, u64)>,
}

/// What a request holds, such as its place among those that may be served at once; given back when it is dropped.
#[derive(Default)]
pub struct Holds(SmallVec<[Box<dyn Any + Send + Sync>; 1]>);

impl Holds {
    /// Holds one thing more.
    pub fn add(&mut self, held: impl Any + Send + Sync) {
        self.0.push(Box::new(held));
    }
}

/// A copy holds nothing: what is done behind a request takes nobody's place.
impl Clone for Holds {
    fn clone(&self) -> Holds {
        Holds::default()
    }
}

impl fmt::Debug for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Holds({})", self.0.len())
    }
}

/// What was tried upstream.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    /// Number of attempts.
    pub count: u32,
    /// Upstream of the last attempt.
    pub upstream: Option<Arc<str>>,
    /// Target of the last attempt.
    pub target: Option<Arc<str>>,
    /// When the last attempt began.
    pub began: Option<Instant>,
    /// How long it took to get a connection in the last attempt; zero when one was reused.
    pub connect: Option<Duration>,
    /// From the beginning of the last attempt to the head of the answer.
    pub first_byte: Option<Duration>,
    /// Time spent in attempts that failed.
    pub failed: Duration,
}

impl Tries {
    /// Begins an attempt.
    pub fn begin(&mut self, upstream: Arc<str>, target: Arc<str>) {
        self.count += 1;
        self.upstream = Some(upstream);
        self.target = Some(target);
        self.began = Some(Instant::now());
        (self.connect, self.first_byte) = (None, None);
    }

    /// Time spent upstream when the answer ended at `end`: failed attempts and the last one.
    pub fn time(&self, end: Instant) -> Duration {
        self.failed + self.began.map_or(Duration::ZERO, |began| end.saturating_duration_since(began))
    }

    /// Ends an attempt that failed.
    pub fn fail(&mut self, end: Instant) {
        self.failed = self.time(end);
        self.began = None;
    }
}

impl Default for Exchange {
    fn default() -> Self {
        let nobody = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        Exchange {
            started: Instant::now(),
            listener: 0,
            client_ip: nobody,
            peer_ip: nobody,
            trusted: false,
            secure: false,
            tls: None,
            request_id: HeaderValue::from_static(""),
            params: Params::default(),
            status: 0,
            problem: None,
            reason: None,
            bytes_in: 0,
            identity: None,
            auth_error: None,
            limited: SmallVec::new(),
            limit: None,
            fault: None,
            holds: Holds::default(),
            explaining: false,
            cache: None,
            fallback: None,
            tries: Tries::default(),
        }
    }
}

impl Exchange {
    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// The request id as text.
    pub fn id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// What the caller is called; empty when nobody has proven anything.
    pub fn subject(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.subject)
    }

    /// A claim as text: lists are joined by commas, what has no text of its own is written as JSON.
    pub fn claim(&self, path: &str) -> Option<Cow<'_, str>> {
        Some(match claim(self.identity.as_ref()?.claims.as_ref()?, path)? {
            Value::Null => return None,
            Value::String(text) => Cow::Borrowed(text),
            Value::Array(items) => {
                let text = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                Cow::Owned(items.iter().map(text).collect::<Vec<_>>().join(","))
            }
            other => Cow::Owned(other.to_string()),
        })
    }

    /// Value of a path parameter by its number.
    pub fn param<'a>(&self, head: &'a RequestHead, number: usize) -> &'a str {
        self.params.value(head.uri.path(), number).unwrap_or_default()
    }

    /// Fills in a template. What the request does not have becomes nothing.
    pub fn render(&self, template: &Template, head: &RequestHead, out: &mut String) {
        template.parts().iter().for_each(|part| out.push_str(&self.text(part, head)));
    }

    /// Fills in a template; what comes from the request, and not from the template, goes through `escape`.
    pub fn render_escaped(
        &self,
        template: &Template,
        head: &RequestHead,
        out: &mut String,
        escape: impl Fn(&Part, &str, &mut String),
    ) {
        for part in template.parts() {
            match part {
                Part::Text(text) => out.push_str(text),
                part => escape(part, &self.text(part, head), out),
            }
        }
    }

    fn text<'a>(&'a self, part: &'a Part, head: &'a RequestHead) -> Cow<'a, str> {
        Cow::Borrowed(match part {
            Part::Text(text) => text,
            Part::Path(_, number) => self.param(head, usize::from(*number)),
            Part::Query(name) => query_value(head.uri.query(), name).unwrap_or_default(),
            Part::Header(name) => header_text(&head.headers, name).unwrap_or_default(),
            Part::Cookie(name) => cookie(&head.headers, name).unwrap_or_default(),
            Part::ClientIp => return Cow::Owned(self.client_ip.to_string()),
            Part::RequestId => self.id(),
            Part::Consumer => self.subject(),
            Part::Claim(path) => return self.claim(path).unwrap_or_default(),
            Part::Host => host(authority(head).unwrap_or_default()),
            Part::Method => head.method.as_str(),
            Part::Scheme => self.scheme(),
            // Bound to text when the snapshot was built.
            Part::Api | Part::Route => "",
        })
    }

    /// A filled-in template as a field value; `None` when the result cannot be one (RFC 9110 section 5.5).
    pub fn render_value(&self, template: &Template, head: &RequestHead) -> Option<HeaderValue> {
        match template.parts() {
            [Part::RequestId] => return Some(self.request_id.clone()),
            // Copied once, into a value of just its length.
            [part] => return HeaderValue::from_str(&self.text(part, head)).ok(),
            _ => {}
        }
        let mut text = String::with_capacity(64);
        self.render(template, head, &mut text);
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
    }
}

/// An address as text, without an allocation and, for IPv4, without the machinery of formatting: it is done for every request.
pub fn address_text(address: IpAddr) -> SmallVec<[u8; 48]> {
    let mut text = SmallVec::new();
    let IpAddr::V4(v4) = address else {
        text.extend_from_slice(address.to_string().as_bytes());
        return text;
    };
    for (number, octet) in v4.octets().into_iter().enumerate() {
        if number > 0 {
            text.push(b'.');
        }
        text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
    text
}

/// Host and port the client asked for: `:authority`, or `Host`.
pub fn authority(head: &RequestHead) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(HOST)?.to_str().ok(),
    }
}

/// An authority without its port; brackets of an IPv6 address stay.
pub fn host(authority: &str) -> &str {
    let port =
        authority.rfind(':').filter(|colon| !authority.get(*colon..).unwrap_or_default().contains(']'));
    port.and_then(|colon| authority.get(..colon)).unwrap_or(authority)
}

/// A header's first value, when it is text.
pub fn header_text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// The first value of a query parameter, as sent.
pub fn query_value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    pairs(query?).find_map(|pair| {
        let (key, value) = split_pair(pair);
        is_named(key, name).then_some(value.unwrap_or_default())
    })
}

/// A cookie's value (RFC 6265 section 4.2).
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim_start().strip_prefix(name)?.strip_prefix('='))
}

/// Whether a field that is a list of tokens has this one, in whatever case (RFC 9110 section 5.6.1).
pub fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter();
    let mut tokens = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    tokens.any(|found| found.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Bytes of body that the head declares: `None` when it is chunked, or cannot be known.
pub fn declared_body(head: &RequestHead) -> Option<u64> {
    if head.headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    head.headers.get(CONTENT_LENGTH).map_or(Some(0), |length| length.to_str().ok()?.trim().parse().ok())
}

/// Gives the request another target; a `Host` field takes over what an absolute target said.
///
/// # Errors
/// The new target is not a URI.
pub fn set_target(head: &mut RequestHead, path_and_query: &str) -> Result<(), http::uri::InvalidUri> {
    let uri: http::Uri = path_and_query.parse()?;
    if let Some(authority) = head.uri.authority()
        && let Ok(value) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, value);
    }
    head.uri = uri;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_their_port() {
        for (authority, name) in
            [("a.b:80", "a.b"), ("a.b", "a.b"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(host(authority), name);
        }
    }

    #[test]
    fn queries_and_cookies_are_found() {
        assert_eq!(query_value(Some("a=1&b&c=&a=2"), "a"), Some("1"));
        assert_eq!(query_value(Some("a=1&b&c="), "b"), Some(""));
        assert_eq!(query_value(Some("aa=1"), "a"), None);
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("x=1; sid=abc"));
        headers.append(COOKIE, HeaderValue::from_static("late=2"));
        assert_eq!(
            (cookie(&headers, "sid"), cookie(&headers, "late"), cookie(&headers, "id")),
            (Some("abc"), Some("2"), None)
        );
    }
}
