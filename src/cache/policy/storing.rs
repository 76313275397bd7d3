//! Whether an answer is kept, and what of it (RFC 9111 section 3).

use super::freshness::{Said, Times, date_value, initial_age, lifetime, said};
use crate::cache::control::named_fields;
use crate::cache::document::SetCookie;
use crate::cache::rules::Rules;
use crate::cache::vary::{self, Selected};
use crate::cache::{Facts, Stored, Why, date};
use crate::exchange::{Exchange, RequestHead, ResponseHead};
use http::header::{
    AGE, CONNECTION, CONTENT_LENGTH, DATE, ETAG, LAST_MODIFIED, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// A request and what came of it.
pub struct Answered<'a> {
    /// As the client has sent it.
    pub request: &'a RequestHead,
    /// The fields that the upstream has seen.
    pub sent: &'a HeaderMap,
    /// What is known of it.
    pub x: &'a Exchange,
    /// The head of the answer as it came, before any step has changed it.
    pub answer: &'a ResponseHead,
    /// When.
    pub times: Times,
}

/// What is kept of an answer, besides its body.
#[derive(Debug)]
pub struct Kept {
    /// Its head: what may be given again.
    pub head: ResponseHead,
    /// When it may be used.
    pub facts: Facts,
    /// What it varies by.
    pub vary: Selected,
    /// What it can be purged by.
    pub tags: Box<[Box<str>]>,
    /// The address it is kept under.
    pub url: String,
}

impl Kept {
    /// With its body.
    pub fn stored<Body>(self, body: Body) -> Stored<Body> {
        let mut stored = Stored::new(self.head, body, self.facts, &self.url);
        stored.vary = self.vary;
        stored.tags = self.tags;
        stored
    }
}

/// What is kept of an answer.
///
/// # Errors
/// Why nothing is.
pub fn keep(rules: &Rules, answered: &Answered<'_>) -> Result<Kept, Why> {
    let facts = storable(rules, answered)?;
    kept(rules, answered, facts, clean(rules, answered.answer, answered.times.received))
}

/// The rest of what is kept, once the head is known.
pub(super) fn kept(
    rules: &Rules,
    answered: &Answered<'_>,
    facts: Facts,
    head: ResponseHead,
) -> Result<Kept, Why> {
    let Answered { request, sent, x, .. } = *answered;
    let vary = vary::of_answer(&request.headers, sent, &head.headers)?;
    let tags = rules.tags(request, x, &head);
    Ok(Kept { head, facts, vary, tags, url: rules.url(request, x) })
}

/// When an answer may be used, if it may be stored (section 3).
///
/// # Errors
/// Why it may not.
pub fn storable(rules: &Rules, answered: &Answered<'_>) -> Result<Facts, Why> {
    let Answered { request, x, answer, times, .. } = *answered;
    if request.method != Method::GET {
        return Err(if request.method == Method::HEAD { Why::Head } else { Why::Method });
    }
    final_and_whole(answer.status)?;
    let said = said(rules, &answer.headers);
    let control = &said.control;
    if control.must_understand && !is_understood(answer.status) {
        return Err(Why::Status);
    }
    if control.no_store && !control.must_understand {
        return Err(Why::NoStore);
    }
    if control.private {
        return Err(Why::Private);
    }
    let is_said_to_be_shared = control.public || control.s_maxage.is_some() || control.must_revalidate;
    if rules.is_private_to(request, x) && !is_said_to_be_shared {
        return Err(Why::Authorization);
    }
    let answer_headers = &answer.headers;
    if rules.set_cookie == SetCookie::Refuse && sets_cookie(&said, answer_headers) {
        return Err(Why::SetCookie);
    }
    if declared_length(answer_headers).is_some_and(|length| length > rules.max_object) {
        return Err(Why::TooLarge);
    }
    useful(facts(rules, &said, answer, times)?, answer_headers)
}

fn final_and_whole(status: StatusCode) -> Result<(), Why> {
    match status {
        StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED => {
            Err(Why::Partial)
        }
        StatusCode::RANGE_NOT_SATISFIABLE => Err(Why::Partial),
        status if status.is_informational() => Err(Why::Status),
        _ => Ok(()),
    }
}

/// Statuses that are registered (RFC 9110 section 15); of all others this cache cannot say what they ask of it.
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=205 | 300..=303 | 305 | 307 | 308 | 400..=411 | 413..=415 | 417 | 421 | 422 | 426 | 500..=505)
}

/// Whether the answer sets a cookie that caches may not leave out by the origin's own word.
fn sets_cookie(said: &Said, headers: &HeaderMap) -> bool {
    let left_out = || said.control.names_fields && named_fields(headers).any(|name| name == SET_COOKIE);
    headers.contains_key(SET_COOKIE) && !left_out()
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// What must be known of an answer to use it.
pub(super) fn facts(rules: &Rules, said: &Said, answer: &ResponseHead, times: Times) -> Result<Facts, Why> {
    let control = &said.control;
    let lifetime = lifetime(rules, said, answer, times).ok_or(Why::NoFreshness)?;
    let forbidden = control.must_revalidate || control.proxy_revalidate || control.no_cache;
    // `s-maxage` forbids it, too (section 5.2.2.10), unless the origin allows it in the same breath: then it means both.
    let by_default = |window: u64| if control.s_maxage.is_some() { 0 } else { window };
    let window = |stated: Option<u64>, default: u64| match stated {
        _ if forbidden => 0,
        Some(seconds) => seconds.saturating_mul(1000),
        None => by_default(default),
    };
    Ok(Facts {
        received: times.received,
        initial_age: initial_age(&answer.headers, times),
        lifetime,
        while_revalidating: window(control.stale_while_revalidate, rules.while_revalidating),
        on_error: window(control.stale_if_error, rules.on_error),
        must_revalidate: forbidden || control.s_maxage.is_some(),
        no_cache: control.no_cache,
    })
}

/// Refuses what could never be given.
fn useful(facts: Facts, headers: &HeaderMap) -> Result<Facts, Why> {
    let is_validatable = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    let is_usable =
        facts.lifetime > 0 && !facts.no_cache || facts.while_revalidating > 0 || facts.on_error > 0;
    if is_validatable || is_usable { Ok(facts) } else { Err(Why::Stale) }
}

/// Fields that are about one connection, or one client and one proxy (section 3.1), and `Age`, which is told anew.
pub(super) const NOT_STORED: [HeaderName; 11] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    AGE,
];

const SET_COOKIE_2: HeaderName = HeaderName::from_static("set-cookie2");

/// The fields that are left out of what is kept: those of the connection and those that the origin says caches must not give.
pub(super) fn left_out(rules: &Rules, headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let named = lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok());
    let mut out: Vec<HeaderName> = named.filter(|name| *name != CONTENT_LENGTH).collect();
    out.extend(NOT_STORED);
    if rules.respect_origin {
        out.extend(named_fields(headers));
    }
    if rules.set_cookie != SetCookie::Store {
        out.extend([SET_COOKIE, SET_COOKIE_2]);
    }
    out
}

/// The head of an answer as it is kept. It has a `Date` (RFC 9110 section 6.6.1).
pub fn clean(rules: &Rules, answer: &ResponseHead, received: u64) -> ResponseHead {
    let mut head = answer.clone();
    head.extensions.clear();
    for name in left_out(rules, &answer.headers) {
        head.headers.remove(name);
    }
    set_date(&mut head, received);
    head
}

/// Gives a head the date that its age is counted from, if it has none.
pub(super) fn set_date(head: &mut ResponseHead, received: u64) {
    if !head.headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::from_str(&date::format(date_value(&head.headers, received)))
    {
        head.headers.insert(DATE, date);
    }
}
