//! Where a credential stands in a request, and how it is kept from the upstream.

use super::document::TokenFrom;
use crate::exchange::{RequestHead, set_target};
use crate::value::query::{decoded, is_named, split_pair};
use http::header::{AUTHORIZATION, COOKIE, Entry};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;

/// Places in a request that may carry a token or key; the first that the request has counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSource {
    header: Option<HeaderName>,
    cookie: Option<String>,
    query: Option<String>,
}

/// What stands at these places.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Nothing.
    Absent,
    /// A credential: visible ASCII, at least one character.
    Token(Cow<'a, str>),
    /// Something that cannot be one, or more than one of them. In words for the client.
    Malformed(&'static str),
}

impl From<&TokenFrom> for TokenSource {
    /// `Authorization: Bearer` where nothing is written.
    fn from(written: &TokenFrom) -> Self {
        let header = written.header.as_ref().map(|key| key.0.clone());
        TokenSource::new(header, written.cookie.clone(), written.query.clone(), AUTHORIZATION)
    }
}

impl TokenSource {
    /// These places, or the header field `otherwise` if there are none. `Authorization` needs the scheme `Bearer` (RFC
    /// 6750 section 2.1), other fields carry the bare credential.
    pub fn new(
        header: Option<HeaderName>,
        cookie: Option<String>,
        query: Option<String>,
        otherwise: HeaderName,
    ) -> Self {
        let header = header.or_else(|| (cookie.is_none() && query.is_none()).then_some(otherwise));
        TokenSource { header, cookie, query }
    }

    /// Whether the credential is a bearer token in the field made for it.
    pub fn is_bearer(&self) -> bool {
        self.header.as_ref() == Some(&AUTHORIZATION)
    }

    /// Looks for the credential.
    pub fn find<'a>(&self, request: &'a RequestHead) -> Found<'a> {
        let header = || self.header.as_ref().map(|name| in_header(&request.headers, name));
        let cookie = || self.cookie.as_ref().map(|name| in_cookies(&request.headers, name));
        let query = || self.query.as_ref().map(|name| in_query(request.uri.query(), name));
        let places: [&dyn Fn() -> Option<Found<'a>>; 3] = [&header, &cookie, &query];
        places.iter().filter_map(|look| look()).find(|found| *found != Found::Absent).unwrap_or(Found::Absent)
    }

    /// Removes the credential from what goes upstream: from header and cookie only when `hide` is set, from the query
    /// always, because addresses end in logs. Everything beside it stays as it was, byte for byte.
    pub fn hide(&self, head: &mut RequestHead, hide: bool) {
        if let Some(name) = &self.query {
            remove_parameter(head, name);
        }
        if !hide {
            return;
        }
        match &self.header {
            Some(name) if *name == AUTHORIZATION => remove_bearer(&mut head.headers),
            Some(name) => drop(head.headers.remove(name)),
            None => {}
        }
        if let Some(name) = &self.cookie {
            remove_cookie(&mut head.headers, name);
        }
    }
}

fn in_header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Found<'a> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Found::Absent };
    if values.next().is_some() {
        return Found::Malformed("There is more than one header field with credentials.");
    }
    if *name != AUTHORIZATION {
        return graphic(value.as_bytes());
    }
    match bearer(value) {
        Some([]) => Found::Malformed("The header field has no token."),
        Some(token) => graphic(token),
        None => Found::Absent,
    }
}

/// What follows the scheme `Bearer` (RFC 9110 section 11.4).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().split_at_checked("bearer".len())?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || rest.first().is_some_and(|next| *next != b' ') {
        return None;
    }
    Some(rest.trim_ascii())
}

/// A credential of visible characters only; it can stand in logs and header fields of others without harm.
fn graphic(bytes: &[u8]) -> Found<'_> {
    if bytes.is_empty() {
        return Found::Absent;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(u8::is_ascii_graphic) => Found::Token(Cow::Borrowed(text)),
        _ => Found::Malformed("The credentials have characters that they cannot have."),
    }
}

fn in_cookies<'a>(headers: &'a HeaderMap, name: &str) -> Found<'a> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| cookie_value(pair, name));
    values.next().map_or(Found::Absent, |value| graphic(value.trim_ascii()))
}

/// The value of one `name=value` of a `Cookie` field (RFC 6265 section 5.4), if it has this name.
fn cookie_value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = pair.split_at_checked(equals)?;
    (key.trim_ascii() == name.as_bytes()).then(|| value.get(1..)).flatten()
}

fn in_query<'a>(query: Option<&'a str>, name: &str) -> Found<'a> {
    let pairs = query.unwrap_or_default().split('&').map(split_pair);
    let mut values = pairs.filter(|(key, _)| is_named(key, name)).map(|(_, value)| value.unwrap_or_default());
    let Some(value) = values.next() else { return Found::Absent };
    if values.next().is_some() {
        // RFC 6750 section 3.1: "repeats the same parameter".
        return Found::Malformed("The query has the parameter with credentials more than once.");
    }
    if !value.contains(['%', '+']) {
        return graphic(value.as_bytes());
    }
    let bytes: Vec<u8> = decoded(value).collect();
    match graphic(&bytes) {
        Found::Token(text) => Found::Token(Cow::Owned(text.into_owned())),
        Found::Malformed(why) => Found::Malformed(why),
        Found::Absent => Found::Absent,
    }
}

/// Removes a parameter from the query, however its name is escaped; the others stay as they were.
fn remove_parameter(head: &mut RequestHead, name: &str) {
    let Some(query) = head.uri.query() else { return };
    let is_it = |pair: &&str| is_named(split_pair(pair).0, name);
    if !query.split('&').any(|pair| is_it(&pair)) {
        return;
    }
    let mut target = String::with_capacity(head.uri.path().len() + 1 + query.len());
    target.push_str(head.uri.path());
    for (number, pair) in query.split('&').filter(|pair| !is_it(pair)).enumerate() {
        target.push(if number == 0 { '?' } else { '&' });
        target.push_str(pair);
    }
    // Part of a target is a target: this cannot fail.
    let _ = set_target(head, &target);
}

/// Removes bearer tokens; credentials of another scheme are not ours.
fn remove_bearer(headers: &mut HeaderMap) {
    retain(headers, &AUTHORIZATION, |value| bearer(value).is_none().then(|| value.clone()));
}

fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    retain(headers, &COOKIE, |line| {
        let pairs = || line.as_bytes().split(|byte| *byte == b';');
        if pairs().all(|pair| cookie_value(pair, name).is_none()) {
            return Some(line.clone());
        }
        let kept: Vec<&[u8]> = pairs().filter(|pair| cookie_value(pair, name).is_none()).collect();
        let kept = kept.join(&b';');
        // Part of a field value is a field value.
        HeaderValue::from_bytes(kept.trim_ascii()).ok().filter(|line| !line.is_empty())
    });
}

/// Replaces the values of a field by what `keep` makes of them.
fn retain(headers: &mut HeaderMap, name: &HeaderName, keep: impl Fn(&HeaderValue) -> Option<HeaderValue>) {
    let Entry::Occupied(field) = headers.entry(name) else { return };
    let kept: Vec<HeaderValue> = field.iter().filter_map(keep).collect();
    field.remove_entry_mult();
    for value in kept {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, fields: &[(&'static str, &str)]) -> RequestHead {
        let (mut head, ()) = http::Request::builder().uri(target).body(()).unwrap().into_parts();
        for (name, value) in fields {
            head.headers.append(*name, value.parse().unwrap());
        }
        head
    }

    fn source(header: Option<&'static str>, cookie: Option<&str>, query: Option<&str>) -> TokenSource {
        TokenSource::new(
            header.map(HeaderName::from_static),
            cookie.map(str::to_owned),
            query.map(str::to_owned),
            AUTHORIZATION,
        )
    }

    fn token(text: &str) -> Found<'_> {
        Found::Token(text.into())
    }

    fn is_malformed(found: &Found<'_>) -> bool {
        matches!(found, Found::Malformed(_))
    }

    #[test]
    fn bearer_tokens_are_found() {
        let bearer = TokenSource::from(&TokenFrom::default());
        assert!(bearer.is_bearer());
        for (field, found) in [
            ("Bearer abc", token("abc")),
            ("bEaReR abc", token("abc")),
            ("Bearer   abc", token("abc")),
            ("Basic abc", Found::Absent),
            ("Bearerabc", Found::Absent),
            ("Bear", Found::Absent),
        ] {
            assert_eq!(bearer.find(&head("/", &[("authorization", field)])), found, "{field}");
        }
        for field in ["Bearer", "Bearer ", "Bearer a b", "Bearer a\tb"] {
            assert!(is_malformed(&bearer.find(&head("/", &[("authorization", field)]))), "{field}");
        }
        let two = head("/", &[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        assert!(is_malformed(&bearer.find(&two)));
        assert_eq!(bearer.find(&head("/", &[])), Found::Absent);
    }

    #[test]
    fn the_first_place_that_has_one_counts() {
        let all = source(Some("x-api-key"), Some("sid"), Some("key"));
        assert!(!all.is_bearer());
        let request = head("/?key=q", &[("x-api-key", "h"), ("cookie", "a=1; sid=c")]);
        assert_eq!(all.find(&request), token("h"));
        assert_eq!(all.find(&head("/?key=q", &[("cookie", "a=1; sid=c")])), token("c"));
        assert_eq!(all.find(&head("/?a=1&k%65y=q%3D", &[("x-api-key", "")])), token("q="));
        assert!(is_malformed(&all.find(&head("/?key=a&key=b", &[]))));
        assert!(is_malformed(&all.find(&head("/?key=a%0d%0ab", &[]))));
        assert!(is_malformed(&all.find(&head("/", &[("x-api-key", "a"), ("x-api-key", "a")]))));
        assert_eq!(source(None, Some("sid"), None).find(&head("/", &[("cookie", "xsid=1")])), Found::Absent);
    }

    #[test]
    fn only_the_credential_is_removed() {
        let all = source(Some("authorization"), Some("sid"), Some("key"));
        let request = || {
            head(
                "/p%20q?b=%2f&k%65y=1&&c&key=2",
                &[
                    ("authorization", "Bearer a"),
                    ("cookie", "a=\"1 2\"; sid=s;b=2; sid=t"),
                    ("cookie", "sid=u"),
                ],
            )
        };
        let mut kept = request();
        all.hide(&mut kept, false);
        assert_eq!(kept.uri.to_string(), "/p%20q?b=%2f&&c");
        assert_eq!(kept.headers, request().headers);
        let mut hidden = request();
        all.hide(&mut hidden, true);
        assert_eq!(hidden.headers.get("authorization"), None);
        let cookies: Vec<_> = hidden.headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=\"1 2\";b=2"]);
        let mut basic = head("/?key=1", &[("authorization", "Basic a")]);
        all.hide(&mut basic, true);
        assert_eq!((basic.uri.to_string().as_str(), basic.headers.len()), ("/", 1));
    }
}
