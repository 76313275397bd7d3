//! What a request is looked up by (RFC 9111 section 2, and what the route says of its key).
//!
//! A key is text in lines: zone, address, then what else counts. No line can be mistaken for another: neither addresses nor
//! field values can have a line feed, and what may have one comes with its length.

use super::Key;
use super::document::KeyRules;
use super::vary;
use crate::exchange::{Exchange, RequestHead, authority, cookie};
use crate::value::query::{decoded, is_named, split_pair};
use http::HeaderName;
use smallvec::SmallVec;

/// The text of a key.
pub(super) type Text = SmallVec<[u8; 192]>;

/// What requests are told apart by, compiled.
#[derive(Clone, Debug)]
pub(super) struct KeyMaker {
    zone: Box<str>,
    only: Option<Box<[Parameter]>>,
    without: Box<[Parameter]>,
    keep_order: bool,
    headers: Box<[HeaderName]>,
    cookies: Box<[Box<str>]>,
    host: bool,
    pub(super) consumer: bool,
}

/// Names of query parameters: one, or all that begin so.
#[derive(Clone, Debug)]
enum Parameter {
    Named(Box<str>),
    Begins(Box<str>),
}

impl Parameter {
    fn new(written: &str) -> Parameter {
        match written.strip_suffix('*') {
            Some(beginning) => Parameter::Begins(beginning.into()),
            None => Parameter::Named(written.into()),
        }
    }

    fn is(&self, raw: &str) -> bool {
        match self {
            Parameter::Named(name) => is_named(raw, name),
            Parameter::Begins(beginning) if raw.contains(['%', '+']) => {
                let mut name = decoded(raw);
                beginning.bytes().all(|byte| name.next() == Some(byte))
            }
            Parameter::Begins(beginning) => raw.starts_with(&**beginning),
        }
    }
}

impl KeyMaker {
    pub(super) fn new(rules: &KeyRules, zone: &str) -> KeyMaker {
        let parameters = |names: &[String]| names.iter().map(|name| Parameter::new(name)).collect();
        KeyMaker {
            zone: zone.into(),
            only: rules.query.as_deref().map(parameters),
            without: parameters(&rules.ignore_query),
            keep_order: rules.query_order,
            headers: rules.headers.iter().map(|header| header.0.0.clone()).collect(),
            cookies: rules.cookies.iter().map(|name| name.as_str().into()).collect(),
            host: rules.host.unwrap_or(true),
            consumer: rules.consumer,
        }
    }

    /// The key of a request. Nothing is allocated for one of usual length.
    pub(super) fn key(&self, request: &RequestHead, x: &Exchange) -> Key {
        let mut text = Text::new();
        text.extend_from_slice(self.zone.as_bytes());
        text.push(b'\n');
        if self.host {
            push_origin(&mut text, request, x);
        }
        self.push_target(&mut text, request);
        for name in &self.headers {
            text.extend_from_slice(b"\nh:");
            text.extend_from_slice(name.as_str().as_bytes());
            if let Some(value) = vary::normal(&request.headers, name) {
                text.push(b'=');
                text.extend_from_slice(&value);
            }
        }
        for name in &self.cookies {
            text.extend_from_slice(b"\nc:");
            text.extend_from_slice(name.as_bytes());
            if let Some(value) = cookie(&request.headers, name) {
                text.push(b'=');
                text.extend_from_slice(value.as_bytes());
            }
        }
        if self.consumer {
            push_caller(&mut text, x);
        }
        Key { text }
    }

    /// The address a request is kept under, for purges: `https://host/path?query`, the query as the key has it.
    pub(super) fn url(&self, request: &RequestHead, x: &Exchange) -> String {
        let mut text = Text::new();
        push_origin(&mut text, request, x);
        self.push_target(&mut text, request);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn push_target(&self, text: &mut Text, request: &RequestHead) {
        text.extend_from_slice(request.uri.path().as_bytes());
        let Some(query) = request.uri.query() else { return };
        if self.keep_order && self.only.is_none() && self.without.is_empty() {
            text.push(b'?');
            text.extend_from_slice(query.as_bytes());
            return;
        }
        push_query(text, query, !self.keep_order, |name| self.counts(name));
    }

    fn counts(&self, name: &str) -> bool {
        match &self.only {
            Some(only) => only.iter().any(|known| known.is(name)),
            None => !self.without.iter().any(|known| known.is(name)),
        }
    }
}

/// The address of a request as every route writes it that has no rules of its own for the query: what an unsafe request
/// invalidates.
pub(super) fn url(request: &RequestHead, x: &Exchange) -> String {
    let mut text = Text::new();
    push_origin(&mut text, request, x);
    text.extend_from_slice(request.uri.path().as_bytes());
    if let Some(query) = request.uri.query() {
        push_query(&mut text, query, true, |_| true);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// An address as an operator writes it, in the form that stored answers have: scheme and host in lower case, no default port,
/// parameters sorted by name.
pub fn canonical_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let scheme = scheme.to_ascii_lowercase();
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let mut text = Text::new();
    text.extend_from_slice(scheme.as_bytes());
    text.extend_from_slice(b"://");
    push_authority(&mut text, authority, scheme == "https");
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    text.extend_from_slice(if path.is_empty() { b"/" } else { path.as_bytes() });
    if let Some(query) = query {
        push_query(&mut text, query, true, |_| true);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// `https://host`.
fn push_origin(text: &mut Text, request: &RequestHead, x: &Exchange) {
    text.extend_from_slice(x.scheme().as_bytes());
    text.extend_from_slice(b"://");
    push_authority(text, authority(request).unwrap_or_default(), x.secure);
}

fn push_authority(text: &mut Text, authority: &str, secure: bool) {
    let default_port = if secure { ":443" } else { ":80" };
    let host = authority.strip_suffix(default_port).unwrap_or(authority);
    let before = text.len();
    text.extend_from_slice(host.as_bytes());
    if let Some(host) = text.get_mut(before..) {
        host.make_ascii_lowercase();
    }
}

/// The parameters that count; several of one name stay in their order, which may mean something.
fn push_query(text: &mut Text, query: &str, sorted: bool, counts: impl Fn(&str) -> bool) {
    let mut pairs: SmallVec<[(&str, usize, &str); 16]> = SmallVec::new();
    let mut in_order = true;
    for (number, pair) in query.split('&').enumerate() {
        let (name, _) = split_pair(pair);
        if !counts(name) {
            continue;
        }
        in_order &= pairs.last().is_none_or(|(before, ..)| *before <= name);
        pairs.push((name, number, pair));
    }
    if sorted && !in_order {
        pairs.sort_unstable_by_key(|(name, number, _)| (*name, *number));
    }
    for (position, (_, _, pair)) in pairs.iter().enumerate() {
        text.push(if position == 0 { b'?' } else { b'&' });
        text.extend_from_slice(pair.as_bytes());
    }
}

/// Who calls, or that nobody has proven anything. A subject may be any text, so its length goes first; and what a consumer is
/// called cannot be taken for what a token calls its bearer.
fn push_caller(text: &mut Text, x: &Exchange) {
    let Some(identity) = &x.identity else { return text.extend_from_slice(b"\nu") };
    let (kind, parts): (u8, [&str; 2]) = match &identity.consumer {
        Some(consumer) => (b'c', ["", &consumer.name]),
        None => (b's', [&identity.provider, &identity.subject]),
    };
    text.extend_from_slice(b"\nu:");
    text.push(kind);
    for part in parts {
        text.push(b':');
        text.extend_from_slice(itoa::Buffer::new().format(part.len()).as_bytes());
        text.push(b':');
        text.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::{Consumer, Identity};
    use http::HeaderValue;
    use http::header::HOST;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn request(uri: &str, fields: &[(&'static str, &str)]) -> RequestHead {
        let (mut head, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
        head.headers.insert(HOST, HeaderValue::from_static("Example.COM"));
        for (name, value) in fields {
            head.headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        head
    }

    fn key(rules: &KeyRules, request: &RequestHead) -> String {
        let key = KeyMaker::new(rules, "z").key(request, &Exchange::default());
        String::from_utf8(key.text.to_vec()).unwrap()
    }

    fn of(uri: &str) -> String {
        key(&KeyRules::default(), &request(uri, &[]))
    }

    #[test]
    fn a_key_is_zone_address_and_what_else_counts() {
        assert_eq!(of("/a/B?x=1"), "z\nhttp://example.com/a/B?x=1");
        let rules = KeyRules {
            headers: vec!["accept-language".parse().unwrap(), "x-none".parse().unwrap()],
            cookies: vec!["sid".to_owned(), "no".to_owned()],
            host: Some(false),
            consumer: true,
            ..KeyRules::default()
        };
        let asked = request("/a", &[("accept-language", "EN, de"), ("cookie", "sid=7; x=1")]);
        assert_eq!(key(&rules, &asked), "z\n/a\nh:accept-language=en,de\nh:x-none\nc:sid=7\nc:no\nu");
    }

    #[test]
    fn parameters_are_sorted_but_not_those_of_one_name() {
        assert_eq!(of("/a?b=2&a=2&a=1"), of("/a?a=2&b=2&a=1"));
        assert_ne!(of("/a?a=1&a=2"), of("/a?a=2&a=1"));
        assert_ne!(of("/a?a"), of("/a?a="));
        assert_ne!(of("/a?test=1"), of("/a?test=2"));
        let in_order = KeyRules { query_order: true, ..KeyRules::default() };
        assert_ne!(key(&in_order, &request("/a?b&a", &[])), key(&in_order, &request("/a?a&b", &[])));
    }

    #[test]
    fn only_what_counts_is_in_the_key() {
        let only = KeyRules { query: Some(vec!["expand".into()]), ..KeyRules::default() };
        for uri in ["/a?expand=x&y=1", "/a?y&expand=x"] {
            assert_eq!(key(&only, &request(uri, &[])), "z\nhttp://example.com/a?expand=x", "{uri}");
        }
        assert!(key(&only, &request("/a?exp%61nd=1", &[])).ends_with("/a?exp%61nd=1"));
        let without = KeyRules { ignore_query: vec!["utm_*".into(), "ref".into()], ..KeyRules::default() };
        for uri in ["/a?utm_source=1&ref=2", "/a?utm%5Fx=1", "/a"] {
            assert_eq!(key(&without, &request(uri, &[])), "z\nhttp://example.com/a", "{uri}");
        }
        assert!(key(&without, &request("/a?xref=2", &[])).ends_with("?xref=2"));
    }

    #[test]
    fn callers_are_told_apart() {
        let rules = KeyRules { consumer: true, ..KeyRules::default() };
        let of = |identity: Option<Identity>| {
            let x = Exchange { identity: identity.map(Arc::new), ..Exchange::default() };
            KeyMaker::new(&rules, "z").key(&request("/a", &[]), &x)
        };
        let consumer = Arc::new(Consumer { name: "acme".into(), plan: None, tags: Vec::new() });
        let known = || Identity::of_consumer(&consumer, "keys");
        let bearer = |subject: &str, provider: &str| Identity {
            subject: subject.into(),
            provider: provider.into(),
            consumer: None,
            ..known()
        };
        let all = [
            of(None),
            of(Some(known())),
            of(Some(bearer("acme", "keys"))),
            of(Some(bearer("acme", "jwt"))),
            of(Some(bearer("acme\nu", "jwt"))),
            of(Some(bearer("", "jwt"))),
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(all.iter().skip(number + 1).all(|other| other != one), "{one:?}");
        }
        assert_eq!(of(Some(known())), of(Some(known())));
    }

    #[test]
    fn the_same_address_is_written_the_same() {
        let asked = request("/a?b=1&a=2", &[]);
        let x = Exchange { secure: true, ..Exchange::default() };
        let stored = KeyMaker::new(&KeyRules::default(), "z").url(&asked, &x);
        assert_eq!(stored, "https://example.com/a?a=2&b=1");
        assert_eq!(url(&asked, &x), stored);
        assert_eq!(canonical_url("HTTPS://Example.com:443/a?b=1&a=2"), stored);
        assert_eq!(canonical_url("http://h"), "http://h/");
    }

    #[test]
    fn a_key_of_usual_length_allocates_nothing() {
        let key = KeyMaker::new(&KeyRules::default(), "shop.read")
            .key(&request("/v2/orders/7?expand=1", &[]), &Exchange::default());
        assert!(!key.text.spilled());
    }

    proptest! {
        /// Fields cannot be made to look like other fields.
        #[test]
        fn different_values_have_different_keys(a in "[ -~]{0,12}", b in "[ -~]{0,12}", c in "[ -~]{0,12}", d in "[ -~]{0,12}") {
            let rules = KeyRules { headers: vec!["x-a".parse().unwrap(), "x-b".parse().unwrap()], ..KeyRules::default() };
            let plain = |text: &str| text.replace([',', '"'], "").trim().to_owned();
            let (a, b, c, d) = (plain(&a), plain(&b), plain(&c), plain(&d));
            let one = key(&rules, &request("/", &[("x-a", &a), ("x-b", &b)]));
            let other = key(&rules, &request("/", &[("x-a", &c), ("x-b", &d)]));
            prop_assert_eq!(one == other, (a, b) == (c, d));
        }

        #[test]
        fn the_order_of_parameters_never_counts(pairs in proptest::collection::btree_map("[a-z%]{1,3}", "[a-z]{0,3}", 0..30)) {
            let query = |pairs: &mut dyn Iterator<Item = (&String, &String)>| {
                pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
            };
            let (forth, back) = (query(&mut pairs.iter()), query(&mut pairs.iter().rev()));
            prop_assert_eq!(of(&format!("/?{forth}")), of(&format!("/?{back}")));
        }
    }
}
