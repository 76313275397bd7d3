//! `Cache-Status`: what this cache did with a request (RFC 9211).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What was done with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// Why it went on to the upstream; `None`: it was answered from what is stored.
    pub forwarded: Option<Forwarded>,
    /// The status that came back, where it is another than the client gets: 304.
    pub upstream_status: Option<u16>,
    /// Whether what came back is stored.
    pub stored: bool,
    /// Whether it waited for what another request fetched.
    pub collapsed: bool,
    /// For how many seconds what is given is still fresh; negative when it is stale.
    pub ttl: Option<i64>,
    /// The key, for those who may see it.
    pub key: Option<&'a [u8]>,
    /// More, in one token.
    pub detail: Option<&'a str>,
}

/// Why a request went on (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The cache had no part in it.
    Bypass,
    /// Its method is never answered from a cache.
    Method,
    /// Nothing is stored for its address.
    UriMiss,
    /// What is stored was not selected by its fields.
    VaryMiss,
    /// What is stored is stale.
    Stale,
    /// Its client wants something fresher.
    Request,
    /// Nothing that is stored will do.
    Miss,
}

impl Forwarded {
    /// Its token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Forwarded::Bypass => "bypass",
            Forwarded::Method => "method",
            Forwarded::UriMiss => "uri-miss",
            Forwarded::VaryMiss => "vary-miss",
            Forwarded::Stale => "stale",
            Forwarded::Request => "request",
            Forwarded::Miss => "miss",
        }
    }
}

impl CacheStatus<'_> {
    /// Adds the field behind those of caches that are nearer to the origin (section 2).
    pub fn append(&self, headers: &mut HeaderMap) {
        headers.append(CACHE_STATUS, self.value());
    }

    /// The value, such as `tollgate; hit; ttl=37`.
    pub fn value(&self) -> HeaderValue {
        let mut text = Vec::with_capacity(48);
        text.extend_from_slice(b"tollgate");
        match self.forwarded {
            None => text.extend_from_slice(b"; hit"),
            Some(why) => push(&mut text, b"; fwd=", why.as_str().as_bytes()),
        }
        if let Some(status) = self.upstream_status {
            push(&mut text, b"; fwd-status=", itoa::Buffer::new().format(status).as_bytes());
        }
        if self.stored {
            text.extend_from_slice(b"; stored");
        }
        if self.collapsed {
            text.extend_from_slice(b"; collapsed");
        }
        if let Some(ttl) = self.ttl {
            push(&mut text, b"; ttl=", itoa::Buffer::new().format(ttl).as_bytes());
        }
        if let Some(key) = self.key {
            push_string(&mut text, b"; key=", key);
        }
        if let Some(detail) = self.detail {
            push(&mut text, b"; detail=", detail.as_bytes());
        }
        HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("tollgate"))
    }
}

fn push(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    text.extend_from_slice(name);
    text.extend_from_slice(value);
}

/// A string of structured fields (RFC 9651 section 3.3.3), lines parted by `|`. It is ASCII; other bytes become `?`.
fn push_string(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    text.extend_from_slice(name);
    text.push(b'"');
    for byte in value {
        match byte {
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', *byte]),
            b'\n' => text.push(b'|'),
            b' '..=b'~' => text.push(*byte),
            _ => text.push(b'?'),
        }
    }
    text.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use sfv::Parser;

    /// RFC 9211 section 3 has such examples.
    #[test]
    fn values_are_as_in_the_standard() {
        let none = CacheStatus::default();
        for (status, expected) in [
            (CacheStatus { ttl: Some(37), ..none }, "tollgate; hit; ttl=37"),
            (CacheStatus { ttl: Some(-412), ..none }, "tollgate; hit; ttl=-412"),
            (
                CacheStatus { forwarded: Some(Forwarded::UriMiss), stored: true, ..none },
                "tollgate; fwd=uri-miss; stored",
            ),
            (
                CacheStatus { forwarded: Some(Forwarded::UriMiss), collapsed: true, ..none },
                "tollgate; fwd=uri-miss; collapsed",
            ),
            (
                CacheStatus { forwarded: Some(Forwarded::Stale), upstream_status: Some(304), ..none },
                "tollgate; fwd=stale; fwd-status=304",
            ),
            (
                CacheStatus { forwarded: Some(Forwarded::Bypass), detail: Some("no_store"), ..none },
                "tollgate; fwd=bypass; detail=no_store",
            ),
            (CacheStatus { key: Some(b"z\n/\"a\"\xff"), ..none }, "tollgate; hit; key=\"z|/\\\"a\\\"?\""),
        ] {
            assert_eq!(status.value(), expected);
            assert!(Parser::parse_list(status.value().as_bytes()).is_ok(), "{expected}");
        }
    }

    #[test]
    fn what_inner_caches_say_stays_in_front() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_STATUS, HeaderValue::from_static("origin; hit"));
        CacheStatus::default().append(&mut headers);
        let all: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
        assert_eq!(all, ["origin; hit", "tollgate; hit"]);
    }
}
