//! Answers that tollgate makes itself, for JSON, HTML and gRPC clients; and the one table of everything that can go wrong.

use crate::exchange::{Exchange, RequestHead};
use crate::grpc::{self, Dialect};
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue};
use std::sync::Arc;
use std::time::Duration;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header fields, without `Content-Length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body; empty for none.
    pub body: Bytes,
    /// Why, when this is an error: the problem's code.
    pub reason: Option<&'static str>,
    /// Status of the problem, when this is an error.
    pub problem: Option<u16>,
}

/// Longest text that becomes a `grpc-message`: clients bound their heads at 8 KiB.
const MAX_MESSAGE: usize = 1024;

/// A kind of error: the same for every client, whatever form it is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// HTTP status.
    pub status: u16,
    /// Stable code: `type` of the problem, `reason` in the log.
    pub code: &'static str,
    /// One line for people.
    pub title: &'static str,
    /// gRPC status (google.rpc.Code).
    pub grpc: u8,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $status:literal, $grpc:literal, $code:literal, $title:literal;)*) => {
        impl Kind {
            $($(#[doc = $doc])* pub const $name: Kind = Kind { status: $status, code: $code, title: $title, grpc: $grpc };)*
            /// Every kind with what it means, for the reference page.
            pub const ALL: &[(Kind, &str)] = &[$((Kind::$name, concat!($($doc),*))),*];
        }
    };
}

kinds! {
    /// The request is not HTTP as it should be: header fields that contradict each other or are not valid.
    BAD_REQUEST = 400, 3, "bad-request", "The request is not valid";
    /// The path cannot be brought to its normal form.
    BAD_PATH = 400, 3, "bad-path", "The path of the request is not acceptable";
    /// There is no `Host`, or it is not one.
    BAD_HOST = 400, 3, "bad-host", "The host of the request is missing or not valid";
    /// No route matches.
    NO_ROUTE = 404, 12, "no-route", "There is nothing at this address";
    /// Routes match in everything but the method.
    METHOD = 405, 12, "method-not-allowed", "The method is not allowed at this address";
    /// The host belongs to another certificate than the one that the connection was made for (RFC 9110 section 15.5.20).
    MISDIRECTED = 421, 14, "misdirected", "The host is not served on this connection";
    /// The client took too long to send its request.
    CLIENT_TIMEOUT = 408, 4, "client-timeout", "The request took too long to arrive";
    /// The request was sent in TLS early data, says `Early-Data`, and might do harm twice (RFC 8470).
    TOO_EARLY = 425, 14, "too-early", "The request came before the connection was safe";
    /// The request expects something else than `100-continue`.
    EXPECTATION = 417, 3, "expectation-failed", "What the request expects cannot be met";
    /// The request is of a version of HTTP that is not spoken here.
    VERSION = 505, 12, "http-version", "The version of HTTP is not spoken here";
    /// The body is larger than `body.max`.
    BODY_TOO_LARGE = 413, 8, "body-too-large", "The body of the request is too large";
    /// The target is longer than `limits.uri`.
    URI_TOO_LONG = 414, 8, "uri-too-long", "The address of the request is too long";
    /// There are more or longer header fields than `limits` allows.
    HEADERS_TOO_LARGE = 431, 8, "headers-too-large", "The header fields of the request are too large";
    /// The request has none of the credentials that the route asks for.
    NO_CREDENTIALS = 401, 16, "no-credentials", "Credentials are needed for this address";
    /// The credential is not good: expired, forged, revoked or meant for somebody else.
    INVALID_TOKEN = 401, 16, "invalid-token", "The credentials are not valid";
    /// The key is not known, or no longer good.
    INVALID_KEY = 401, 16, "invalid-key", "The key is not valid";
    /// The certificate that the client has shown is not good for this address, or no longer.
    INVALID_CERTIFICATE = 401, 16, "invalid-certificate", "The certificate is not valid";
    /// The credential is good, but its scope does not reach this far.
    INSUFFICIENT_SCOPE = 403, 7, "insufficient-scope", "The credentials do not reach this far";
    /// Who calls is known, and may not.
    FORBIDDEN = 403, 7, "forbidden", "Access is not allowed";
    /// Credentials cannot be checked now: keys, or the server that knows, cannot be reached.
    AUTH_UNAVAILABLE = 503, 14, "auth-unavailable", "Credentials cannot be checked at the moment";
    /// Too many credentials from this address were refused.
    BLOCKED = 429, 8, "too-many-failures", "Too many failed attempts";
    /// A limit or quota is used up.
    QUOTA_EXCEEDED = 429, 8, "quota-exceeded", "Too many requests";
    /// A quota is used up, and what goes beyond must be paid for.
    PAYMENT_REQUIRED = 402, 8, "payment-required", "The quota is used up";
    /// The request has nothing that a limit could count it by.
    LIMIT_KEY_MISSING = 403, 7, "limit-key-missing", "The request lacks what its limit is counted by";
    /// Limits cannot be looked up now, and are set to refuse then.
    LIMITS_UNAVAILABLE = 503, 14, "limits-unavailable", "Limits cannot be checked at the moment";
    /// More requests from this address than `limits.flood` lets through.
    FLOOD = 429, 8, "flood", "Too many requests";
    /// `cors` does not allow the page that asks, by its preflight, to call.
    ORIGIN_DENIED = 403, 7, "origin-denied", "Pages of this origin may not call";
    /// `ip` rules refuse the client's address.
    IP_DENIED = 403, 7, "ip-denied", "Access from this address is not allowed";
    /// The API is in maintenance.
    MAINTENANCE = 503, 14, "maintenance", "The service is being maintained";
    /// The address, or its version, has ended.
    GONE = 410, 12, "gone", "This address is no longer served";
    /// As many requests of this caller are being served as `concurrency.each` lets through.
    TOO_MANY_AT_ONCE = 429, 8, "too-many-at-once", "Too many requests at once";
    /// As many requests of this route are being served as `concurrency.max` lets through.
    ROUTE_SATURATED = 503, 14, "route-saturated", "Too many requests are being served";
    /// `fault.abort` has answered, with whatever status it says.
    FAULT = 503, 14, "fault", "This error was made on purpose";
    /// The upstream has no target with weight, or no address is known.
    NO_TARGET = 503, 14, "no-target", "No server is available for this request";
    /// Health checks found no healthy target.
    NO_HEALTHY_TARGET = 503, 14, "no-healthy-target", "No server is available for this request";
    /// `pool.max` or `pool.per_target` is reached.
    SATURATED = 503, 14, "upstream-saturated", "Too many requests are being served";
    /// The circuit breaker of the upstream is open: too many attempts have failed.
    BREAKER_OPEN = 503, 14, "breaker-open", "The server behind the gateway is in trouble";
    /// No connection to the upstream.
    CONNECT_FAILED = 502, 14, "upstream-connect-failed", "The server behind the gateway cannot be reached";
    /// The TLS handshake with the upstream failed.
    TLS_FAILED = 502, 14, "upstream-tls-failed", "The server behind the gateway cannot be reached securely";
    /// The upstream's connection ended before the whole answer was there.
    UPSTREAM_CLOSED = 502, 14, "upstream-closed", "The server behind the gateway closed the connection";
    /// What the upstream sent is not HTTP.
    UPSTREAM_INVALID = 502, 13, "upstream-invalid", "The server behind the gateway gave an invalid answer";
    /// No connection to the upstream in time.
    CONNECT_TIMEOUT = 504, 4, "upstream-connect-timeout", "The server behind the gateway did not answer in time";
    /// No answer from the upstream in time.
    UPSTREAM_TIMEOUT = 504, 4, "upstream-timeout", "The server behind the gateway did not answer in time";
    /// What a gRPC call may take, by its `grpc-timeout` or by `timeouts.deadline`, is over.
    DEADLINE = 504, 4, "deadline-exceeded", "The call took longer than it may";
    /// The client wants nothing but what is stored (`only-if-cached`), and nothing is that will do.
    NOT_STORED = 504, 5, "not-stored", "Nothing is stored for this request";
    /// The request asks for a WebSocket, but its `Sec-WebSocket-Key` or `Sec-WebSocket-Version` is missing, is there twice or is
    /// not valid (RFC 6455 section 4.2.1).
    BAD_HANDSHAKE = 400, 3, "bad-handshake", "The handshake of the WebSocket is not valid";
    /// The request asks for a WebSocket of another version than 13 (RFC 6455 section 4.2.2).
    WEBSOCKET_VERSION = 426, 12, "websocket-version", "The version of the WebSocket protocol is not spoken here";
    /// Something in tollgate itself.
    INTERNAL = 500, 13, "internal", "The gateway failed";
    /// Nothing was said over a WebSocket for `timeouts.stream_idle`. Never sent; only logged.
    STREAM_IDLE = 408, 4, "stream-idle", "Nothing was said for too long";
    /// A WebSocket lived for `timeouts.websocket_lifetime`, and was closed. Never sent; only logged.
    STREAM_LIFETIME = 408, 4, "stream-lifetime", "It lived for as long as it may";
    /// The process left before a WebSocket had ended, and closed it. Never sent; only logged.
    STOPPING = 503, 14, "stopping", "The gateway is being restarted";
    /// The client went away. Never sent; only logged.
    CLIENT_GONE = 499, 1, "client-gone", "The client closed the connection";
}

impl Kind {
    /// `type` of the problem: the registered one where there is one (draft-ietf-httpapi-ratelimit-headers section 7).
    fn uri(self) -> String {
        const REGISTERED: &str = "https://iana.org/assignments/http-problem-types#";
        match self {
            Kind::QUOTA_EXCEEDED => format!("{REGISTERED}quota-exceeded"),
            Kind::LIMITS_UNAVAILABLE => format!("{REGISTERED}temporary-reduced-capacity"),
            Kind::BLOCKED | Kind::FLOOD => format!("{REGISTERED}abnormal-usage-detected"),
            Kind { code, .. } => format!("urn:tollgate:problem:{code}"),
        }
    }

    /// `Proxy-Status` of an answer that stands for one of the upstream (RFC 9209 section 2.3); `None` where it does not. Which
    /// upstream it was is not said.
    fn proxy_status(self) -> Option<HeaderValue> {
        let error = match self {
            Kind::NO_TARGET | Kind::NO_HEALTHY_TARGET | Kind::BREAKER_OPEN => {
                "tollgate; error=destination_unavailable"
            }
            Kind::SATURATED => "tollgate; error=connection_limit_reached",
            Kind::CONNECT_FAILED => "tollgate; error=connection_refused",
            Kind::TLS_FAILED => "tollgate; error=tls_protocol_error",
            Kind::UPSTREAM_CLOSED => "tollgate; error=connection_terminated",
            Kind::UPSTREAM_INVALID => "tollgate; error=http_protocol_error",
            Kind::CONNECT_TIMEOUT => "tollgate; error=connection_timeout",
            Kind::UPSTREAM_TIMEOUT => "tollgate; error=http_response_timeout",
            _ => return None,
        };
        Some(HeaderValue::from_static(error))
    }
}

/// An error with what is special about this one.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// A sentence about this occurrence; never internals or secrets.
    pub detail: Option<String>,
    /// Further header fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Limits that the request would exceed.
    pub violated: Vec<Arc<str>>,
    /// gRPC status, where that is another one than the kind's.
    pub grpc: Option<u8>,
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Problem { kind, detail: None, headers: Vec::new(), violated: Vec::new(), grpc: None }
    }
}

impl Problem {
    /// Adds a sentence.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds `Retry-After` in whole seconds, rounded up (RFC 9110 section 10.2.3).
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_millis().div_ceil(1000);
        self.header(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)))
    }

    /// Adds `Allow` (RFC 9110 section 10.2.1).
    #[must_use]
    pub fn allow(self, methods: HeaderValue) -> Self {
        self.header(ALLOW, methods)
    }

    /// The answer in the form this client reads: gRPC status, HTML, or problem details (RFC 9457).
    pub fn reply(self, request: &RequestHead, x: &Exchange) -> Reply {
        match Form::of(request) {
            Form::Grpc(dialect) => self.grpc(dialect),
            Form::Html => self.html(x),
            Form::Json => self.json(x),
        }
    }

    fn json(self, x: &Exchange) -> Reply {
        let Kind { status, code, title, .. } = self.kind;
        let mut body = serde_json::json!({
            "type": self.kind.uri(), "title": title, "status": status, "code": code,
            "instance": format!("urn:tollgate:request:{}", x.id()), "request_id": x.id(),
        });
        if let (Some(detail), Some(members)) = (self.detail, body.as_object_mut()) {
            members.insert("detail".to_owned(), detail.into());
        }
        if let (false, Some(members)) = (self.violated.is_empty(), body.as_object_mut()) {
            let names: Vec<&str> = self.violated.iter().map(|name| &**name).collect();
            members.insert("violated-policies".to_owned(), names.into());
        }
        let mut body = body.to_string();
        body.push('\n');
        Reply::new(
            status,
            self.kind,
            self.headers,
            HeaderValue::from_static("application/problem+json"),
            body,
        )
    }

    fn html(self, x: &Exchange) -> Reply {
        let Kind { status, code, title, .. } = self.kind;
        let detail =
            self.detail.map(|detail| format!("<p>{}</p>\n", escape_html(&detail))).unwrap_or_default();
        let body = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>{status} {title}</title>\n<style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1rem}}\
             small{{color:#777}}</style>\n<h1>{status}</h1>\n<p>{title}.</p>\n{detail}<small>{code} · {}</small>\n</html>\n",
            escape_html(x.id())
        );
        Reply::new(
            status,
            self.kind,
            self.headers,
            HeaderValue::from_static("text/html; charset=utf-8"),
            body,
        )
    }

    /// A trailers-only answer: the HTTP status is 200, the truth is in `grpc-status`. In every dialect it stands in the head.
    fn grpc(mut self, dialect: Dialect) -> Reply {
        self.headers.extend(self.status_fields());
        let kind = HeaderValue::from_static(dialect.media_type());
        Reply::new(200, self.kind, self.headers, kind, String::new())
    }

    /// `grpc-status` and `grpc-message`.
    pub fn status_fields(&self) -> [(HeaderName, HeaderValue); 2] {
        grpc::status_fields(
            self.grpc.unwrap_or(self.kind.grpc),
            self.detail.as_deref().unwrap_or(self.kind.title),
        )
    }
}

impl Reply {
    /// The same for a gRPC call, whose client reads nothing but messages and a status (a trailers-only answer). Text is what the
    /// status says; what is in the form of gRPC already stays.
    #[must_use]
    pub fn for_call(mut self, dialect: Dialect) -> Self {
        let kind =
            self.headers.iter().find(|(name, _)| *name == CONTENT_TYPE).map(|(_, kind)| kind.as_bytes());
        if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
            return self;
        }
        let is_text = kind.is_some_and(|kind| kind.starts_with(b"text/plain"));
        let text = std::str::from_utf8(&self.body).ok().filter(|text| is_text && text.len() <= MAX_MESSAGE);
        let fields = grpc::status_fields(grpc::status_of(self.status), text.unwrap_or_default().trim_end());
        self.headers.retain(|(name, _)| *name != CONTENT_TYPE);
        self.headers.push((CONTENT_TYPE, HeaderValue::from_static(dialect.media_type())));
        self.headers.extend(fields);
        self.problem = self.problem.or(Some(self.status).filter(|status| *status >= 400));
        (self.status, self.body) = (200, Bytes::new());
        self
    }

    fn new(
        status: u16,
        kind: Kind,
        mut headers: Vec<(HeaderName, HeaderValue)>,
        content_type: HeaderValue,
        body: String,
    ) -> Self {
        headers.push((CONTENT_TYPE, content_type));
        headers.push((http::header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
        if let Some(proxy_status) = kind.proxy_status() {
            headers.push((PROXY_STATUS, proxy_status));
        }
        Reply { status, headers, body: body.into(), reason: Some(kind.code), problem: Some(kind.status) }
    }
}

enum Form {
    Json,
    Html,
    Grpc(Dialect),
}

impl Form {
    fn of(request: &RequestHead) -> Form {
        if let Some(dialect) = Dialect::of(&request.headers) {
            return Form::Grpc(dialect);
        }
        let accept = request.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if quality(accept, "text", "html")
            > quality(accept, "application", "problem+json").max(quality(accept, "application", "json"))
        {
            Form::Html
        } else {
            Form::Json
        }
    }
}

/// Quality of a media type in an `Accept` value, in thousandths; the most specific range decides (RFC 9110 section 12.5.1).
fn quality(accept: &str, main: &str, sub: &str) -> u16 {
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parameters = range.split(';').map(str::trim);
        let specificity = match parameters.next().and_then(|media| media.split_once('/')) {
            Some((m, s)) if m.eq_ignore_ascii_case(main) && s.eq_ignore_ascii_case(sub) => 3,
            Some((m, "*")) if m.eq_ignore_ascii_case(main) => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let q = parameters
            .find_map(|p| p.strip_prefix("q="))
            .map_or(1000, |q| q.parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16));
        if specificity > best.0 {
            best = (specificity, q);
        }
    }
    best.1
}

/// Makes text safe inside HTML and its quoted attributes.
pub fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&'static str, &str)]) -> &'static str {
        let (mut head, ()) = http::Request::new(()).into_parts();
        for (name, value) in fields {
            head.headers.insert(*name, value.parse().unwrap());
        }
        match Form::of(&head) {
            Form::Json => "json",
            Form::Html => "html",
            Form::Grpc(dialect) => dialect.media_type(),
        }
    }

    #[test]
    fn the_form_follows_the_client() {
        assert_eq!(form(&[]), "json");
        assert_eq!(form(&[("accept", "*/*")]), "json");
        assert_eq!(
            form(&[("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")]),
            "html"
        );
        assert_eq!(form(&[("accept", "application/json, text/html;q=0.5")]), "json");
        assert_eq!(form(&[("accept", "text/html;q=0")]), "json");
        assert_eq!(
            form(&[("content-type", "application/grpc+proto"), ("accept", "text/html")]),
            "application/grpc"
        );
        assert_eq!(form(&[("content-type", "application/grpc-web-text+proto")]), "application/grpc-web-text");
    }

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = Kind::ALL.iter().map(|(kind, _)| kind.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Kind::ALL.len());
    }
}
