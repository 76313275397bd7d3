//! How old an answer is and how long it is fresh (RFC 9111 section 4.2).

use crate::cache::Facts;
use crate::cache::control::{Control, MOST_SECONDS};
use crate::cache::date;
use crate::cache::rules::Rules;
use crate::exchange::ResponseHead;
use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Fields for caches like this one, the nearest first (RFC 9213 sections 2.2 and 3.1).
static TARGETED: [HeaderName; 2] =
    [HeaderName::from_static("tollgate-cache-control"), HeaderName::from_static("cdn-cache-control")];

/// The most that is guessed from `Last-Modified`: a day.
const MOST_GUESSED: u64 = 86_400_000;

/// When a request went to the upstream and when the head of its answer came: milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// `request_time` (section 4.2.3).
    pub asked: u64,
    /// `response_time`.
    pub received: u64,
}

/// How old a stored answer is at `now`, in milliseconds: `current_age` (section 4.2.3).
pub fn current_age(facts: &Facts, now: u64) -> u64 {
    facts.initial_age.saturating_add(now.saturating_sub(facts.received))
}

/// For how many seconds it is still fresh; negative when it is stale (RFC 9211 section 2.5).
pub fn ttl(facts: &Facts, now: u64) -> i64 {
    let (lifetime, age) = (signed(facts.lifetime), signed(current_age(facts, now)));
    lifetime.saturating_sub(age).div_euclid(1000)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What the origin says that holds here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    pub control: Control,
    /// Whether `Expires` counts.
    expires: bool,
}

/// What the origin says, as far as the route listens to it. A field that is meant for caches like this one goes before
/// `Cache-Control` and `Expires` (RFC 9213 section 2.2).
pub(super) fn said(rules: &Rules, headers: &HeaderMap) -> Said {
    if !rules.respect_origin {
        return Said::default();
    }
    let present = TARGETED.iter().filter(|name| headers.contains_key(*name));
    let targeted = present.filter_map(|name| Control::targeted(headers.get_all(name))).next();
    match targeted {
        Some(control) => Said { control, expires: false },
        None if headers.contains_key(CACHE_CONTROL) => Said { control: Control::of(headers), expires: true },
        None => Said { control: Control::default(), expires: true },
    }
}

/// When the origin says it has made the answer, in seconds: when it came, if it does not say so well (RFC 9110 section 6.6.1).
pub(super) fn date_value(headers: &HeaderMap, received: u64) -> i64 {
    let received = signed(received / 1000);
    only(headers, &DATE).and_then(|date| date::parse(date.as_bytes(), received)).unwrap_or(received)
}

/// How old an answer was when it came: `corrected_initial_age` (section 4.2.3).
pub(super) fn initial_age(headers: &HeaderMap, times: Times) -> u64 {
    let apparent = signed(times.received / 1000).saturating_sub(date_value(headers, times.received));
    let apparent = u64::try_from(apparent).unwrap_or(0).saturating_mul(1000);
    let delay = times.received.saturating_sub(times.asked);
    apparent.max(age_value(headers).saturating_mul(1000).saturating_add(delay))
}

/// `Age` in seconds: the first member if there are several, and nothing if that is no number (section 5.1).
fn age_value(headers: &HeaderMap) -> u64 {
    let first = headers.get(AGE).and_then(|age| age.as_bytes().split(|byte| *byte == b',').next());
    let digits = first.unwrap_or_default().trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    digits.iter().fold(0, |sum, digit| (sum * 10 + u64::from(digit - b'0')).min(MOST_SECONDS))
}

/// How long an answer is fresh in milliseconds (section 4.2.1), with what the route says. `None` when nobody says.
pub(super) fn lifetime(rules: &Rules, said: &Said, answer: &ResponseHead, times: Times) -> Option<u64> {
    let control = &said.control;
    let lifetime = explicit(said, &answer.headers, times)
        .or(control.no_cache.then_some(0))
        .or_else(|| rules.ttl(answer.status.as_u16()))
        .or_else(|| guessed(rules, control, answer, times))?;
    let always_validated =
        control.no_cache || lifetime == 0 && (control.must_revalidate || control.proxy_revalidate);
    let least = if always_validated { 0 } else { rules.min };
    Some(lifetime.max(least).min(rules.max))
}

fn explicit(said: &Said, headers: &HeaderMap, times: Times) -> Option<u64> {
    if let Some(seconds) = said.control.s_maxage.or(said.control.max_age) {
        return Some(seconds.saturating_mul(1000));
    }
    if !said.expires || !headers.contains_key(EXPIRES) {
        return None;
    }
    // One that is no date, such as `0`, is in the past; and so is one that stands there twice (section 5.3).
    let now = signed(times.received / 1000);
    let expires = only(headers, &EXPIRES).and_then(|expires| date::parse(expires.as_bytes(), now));
    let lifetime = expires.map_or(0, |expires| expires - date_value(headers, times.received));
    Some(u64::try_from(lifetime).unwrap_or(0).saturating_mul(1000))
}

/// A tenth of the time since the last change (section 4.2.2), for statuses that allow a guess or if it is called `public`.
fn guessed(rules: &Rules, control: &Control, answer: &ResponseHead, times: Times) -> Option<u64> {
    let may = rules.heuristic && (control.public || allows_a_guess(answer.status));
    let modified = only(&answer.headers, &LAST_MODIFIED).filter(|_| may)?;
    let modified = date::parse(modified.as_bytes(), signed(times.received / 1000))?;
    let since = u64::try_from(date_value(&answer.headers, times.received) - modified).ok()?;
    Some((since * 100).min(MOST_GUESSED))
}

/// Statuses that are cacheable by heuristic (RFC 9110 section 15.1), but 206.
fn allows_a_guess(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// The value of a field that stands there once.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}
