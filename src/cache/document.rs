//! The cache of a route, as written.

use crate::value::{ByteSize, HeaderKey, Map, Name, Part, Positive, Span, Spanned, Template, text_value};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// Answers to GET and HEAD that are kept and given again (RFC 9111, as a shared cache).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// How long answers are fresh whose origin does not say: those with status 200, 203, 204, 300, 301 and 308. Default: they
    /// are not kept.
    pub ttl: Option<Span>,
    /// Statuses, such as `404` or `5xx`, and how long their answers are fresh where the origin does not say. Goes before `ttl`.
    #[serde(default)]
    pub status: Map<Span, StatusKey>,
    /// Answers are fresh for this long at least, whatever the origin says; those that must not be kept or must always be
    /// validated are not changed by it.
    pub min: Option<Span>,
    /// Answers are fresh for this long at most, whatever the origin says.
    pub max: Option<Span>,
    /// Whether the origin decides by `Cache-Control` (and `Tollgate-Cache-Control` or `CDN-Cache-Control`, which go before it)
    /// and `Expires`. With `false` only `ttl` and `status` do, even for answers that the origin calls private. Default `true`.
    pub respect_origin: Option<bool>,
    /// Whether answers that only say when they were last modified are fresh for a tenth of their age. Default `false`.
    #[serde(default)]
    pub heuristic: bool,
    /// What requests are told apart by, besides host, path and query.
    #[serde(default)]
    pub key: KeyRules,
    /// How long answers may be given that are no longer fresh.
    #[serde(default)]
    pub stale: Stale,
    /// What answers can be purged by, such as `order:${path.id}`, besides what the upstream names in `Cache-Tag` or
    /// `Surrogate-Key`.
    #[serde(default)]
    pub tags: Vec<Spanned<Template>>,
    /// Whether every caller may get the same answer. Without it, answers to requests with `Authorization` or a proven caller
    /// are kept only if the origin says `public`, `s-maxage` or `must-revalidate` (RFC 9111 section 3.5) or the key has the
    /// consumer. Default `false`.
    #[serde(default)]
    pub shared: bool,
    /// What becomes of answers with `Set-Cookie`: `refuse` (not kept), `strip` (kept without it) or `store`. Default `refuse`.
    #[serde(default)]
    pub set_cookie: SetCookie,
    /// Largest body that is kept. Default `1MiB`.
    pub max_object: Option<Spanned<Positive<ByteSize>>>,
    /// How long a request waits for the answer that another one has asked the upstream for, before it asks itself. Default `5s`.
    pub wait: Option<Span>,
    /// Whether clients may ask for fresher answers by `Cache-Control` and `Pragma`: `obey` or `ignore`. Default
    /// `obey`.
    #[serde(default)]
    pub client_directives: ClientDirectives,
    /// Routes with the same zone share their answers. Default: each route has its own.
    pub zone: Option<Name>,
}

/// What requests are told apart by.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRules {
    /// Query parameters that count; all others do not. A name may end in `*`. Default: all count.
    pub query: Option<Vec<String>>,
    /// Query parameters that do not count, such as `utm_*`.
    #[serde(default)]
    pub ignore_query: Vec<String>,
    /// Whether the order of query parameters counts. Default `false`: they are sorted by name.
    #[serde(default)]
    pub query_order: bool,
    /// Request headers that count, besides those that the upstream names in `Vary`.
    #[serde(default)]
    pub headers: Vec<KeyHeader>,
    /// Cookies that count.
    #[serde(default)]
    pub cookies: Vec<String>,
    /// Whether the host counts. Default `true`.
    pub host: Option<bool>,
    /// Whether each caller has answers of its own. Default `false`.
    #[serde(default)]
    pub consumer: bool,
}

impl KeyRules {
    /// Whether requests that differ in what this part of a template reads have other keys.
    pub fn tells_apart(&self, part: &Part) -> bool {
        match part {
            Part::Text(_) | Part::Path(..) | Part::Method | Part::Scheme | Part::Api | Part::Route => true,
            Part::Query(name) => match &self.query {
                Some(counted) => counted.contains(name),
                None => self.ignore_query.is_empty(),
            },
            Part::Header(name) => self.headers.iter().any(|key| key.0.0 == *name),
            Part::Cookie(name) => self.cookies.contains(name),
            Part::Consumer => self.consumer,
            Part::Host => self.host.unwrap_or(true),
            Part::ClientIp | Part::RequestId | Part::Claim(_) => false,
        }
    }
}

/// A header field that can count besides the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHeader(pub HeaderKey);

impl FromStr for KeyHeader {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.eq_ignore_ascii_case("host") {
            true => Err("the host counts already\nhelp: leave `host` out here; `host: false` in `key` makes it not count".to_owned()),
            false => text.parse().map(KeyHeader),
        }
    }
}

impl fmt::Display for KeyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(KeyHeader, "KeyHeader", pattern: r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "a header name");

/// How long answers may be given that are no longer fresh; what the origin says goes before. Never given stale are those that
/// the origin forbids: `must-revalidate`, `proxy-revalidate`, `s-maxage`, `no-cache`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stale {
    /// While a fresh one is fetched in the background (RFC 5861 `stale-while-revalidate`). Default `0s`.
    pub revalidate: Option<Span>,
    /// When the upstream fails or answers 500, 502, 503 or 504 (RFC 5861 `stale-if-error`). Default `0s`.
    pub error: Option<Span>,
}

/// What becomes of answers with `Set-Cookie`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SetCookie {
    /// They are not kept.
    #[default]
    Refuse,
    /// They are kept without it; only who has caused them gets the cookie.
    Strip,
    /// They are kept with it: every client gets the same cookie.
    Store,
}

/// Whether clients may ask for fresher answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientDirectives {
    /// RFC 9111 section 5.2.1 holds.
    #[default]
    Obey,
    /// They are not heard.
    Ignore,
}

/// A status, such as `404`, or all of a class, such as `5xx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusKey {
    /// The first status it is about.
    pub first: u16,
    /// The last one.
    pub last: u16,
    written: String,
}

impl FromStr for StatusKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let range = match text.strip_suffix("xx").filter(|class| class.len() == 1) {
            Some(class) => class.parse().ok().map(|class: u16| (class * 100, class * 100 + 99)),
            None => text.parse().ok().map(|status: u16| (status, status)),
        };
        let range = range.filter(|(first, last)| *first >= 200 && *last <= 599 && text.len() == 3);
        let (first, last) = range.ok_or_else(|| {
            format!("`{text}` is no status that can be kept\nhelp: write one from 200 to 599, such as `404`, or a class such as `5xx`")
        })?;
        Ok(StatusKey { first, last, written: text.to_owned() })
    }
}

impl fmt::Display for StatusKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl AsRef<str> for StatusKey {
    fn as_ref(&self) -> &str {
        &self.written
    }
}

text_value!(StatusKey, "StatusKey", pattern: r"^[2-5]([0-9]{2}|xx)$", "a status such as `404`, or a class such as `5xx`");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_single_or_a_class() {
        let range = |text: &str| text.parse::<StatusKey>().ok().map(|key| (key.first, key.last));
        assert_eq!(range("404"), Some((404, 404)));
        assert_eq!(range("5xx"), Some((500, 599)));
        for wrong in ["1xx", "100", "600", "6xx", "xx", "4x", "404x", "+404", "9999999xx", "", "-1"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }
}
