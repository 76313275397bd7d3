//! Validation: what is asked, and what becomes of the stored answer (RFC 9111 section 4.3).

use super::freshness::{Times, only, said};
use super::storing::{Answered, Kept, facts, kept, left_out, set_date, storable};
use crate::cache::rules::Rules;
use crate::cache::vary::Selected;
use crate::cache::{Facts, Stored, Why};
use crate::exchange::{RequestHead, ResponseHead};
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// Takes out of a request that fills the cache what would make its answer one for this client only: conditions and ranges.
pub fn without_conditions(headers: &mut HeaderMap) {
    for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE] {
        headers.remove(name);
    }
}

/// Makes of a request one that validates a stored answer (section 4.3.1); gives whether there is anything to validate by.
/// Only an answer with status 200 can be: what a 304 means for others, nobody says.
pub fn validator<Body>(stored: &Stored<Body>, headers: &mut HeaderMap) -> bool {
    without_conditions(headers);
    let mut has_any = false;
    for (field, condition) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        if let Some(value) =
            only(&stored.head.headers, &field).filter(|_| stored.head.status == StatusCode::OK)
        {
            headers.insert(condition, value.clone());
            has_any = true;
        }
    }
    has_any
}

/// A stored answer that has been validated.
#[derive(Debug)]
pub struct Merged {
    /// What to give, and to keep with the same body.
    pub kept: Kept,
    /// Whether it may be kept; if not, it is given this once, and the stored one must be dropped.
    pub again: Result<(), Why>,
}

/// Updates a stored answer by the 304 that validates it, or by an answer to HEAD that says it has not changed (sections 3.2,
/// 4.3.4 and 4.3.5).
///
/// # Errors
/// [`Why::Mismatch`]: the 304 is about another representation. The stored one must be dropped and the request sent again
/// without conditions.
pub fn merge<Body>(rules: &Rules, stored: &Stored<Body>, answered: &Answered<'_>) -> Result<Merged, Why> {
    if !is_about(&stored.head.headers, &answered.answer.headers) {
        return Err(Why::Mismatch);
    }
    let head = merged_head(rules, &stored.head, answered.answer, answered.times);
    // How old it is, is told by what came now; what else it says, by both.
    let whole = with_age_of(&head, answered.answer);
    let asked = as_get(answered.request);
    let both = Answered { request: &asked, answer: &whole, ..*answered };
    let (facts, again) = match storable(rules, &both) {
        Ok(facts) => (facts, Ok(())),
        Err(why) => (fallback_facts(rules, &whole, answered.times), Err(why)),
    };
    match kept(rules, &both, facts.clone(), head) {
        Ok(kept) => Ok(Merged { kept, again }),
        Err(why) => Ok(Merged { kept: once(stored, &whole, facts), again: Err(why) }),
    }
}

/// Section 4.3.4: the same strong validator if the 304 has one, else the same weak ones; without any it answers the only
/// question that was asked.
fn is_about(stored: &HeaderMap, new: &HeaderMap) -> bool {
    let same = |name: &HeaderName| match (only(stored, name), only(new, name)) {
        (Some(stored), Some(new)) => Some(weakly(stored) == weakly(new)),
        (None, Some(_)) if *name == ETAG => Some(false),
        _ => None,
    };
    same(&ETAG).or_else(|| same(&LAST_MODIFIED)).unwrap_or(true)
}

fn weakly(tag: &HeaderValue) -> &[u8] {
    tag.as_bytes().strip_prefix(b"W/").unwrap_or(tag.as_bytes())
}

/// Section 3.2: each field of the new head replaces the stored one, but those that are never stored, `Content-Length`, and those
/// that say how the stored bytes are to be read.
fn merged_head(rules: &Rules, stored: &ResponseHead, new: &ResponseHead, times: Times) -> ResponseHead {
    let mut head = stored.clone();
    head.headers.remove(DATE);
    let kept_back = left_out(rules, &new.headers);
    let about_bytes = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE];
    for name in new.headers.keys().filter(|name| !kept_back.contains(name) && !about_bytes.contains(name)) {
        head.headers.remove(name);
        for value in new.headers.get_all(name) {
            head.headers.append(name, value.clone());
        }
    }
    set_date(&mut head, times.received);
    head
}

fn with_age_of(head: &ResponseHead, new: &ResponseHead) -> ResponseHead {
    let mut whole = head.clone();
    if let Some(age) = new.headers.get(http::header::AGE) {
        whole.headers.insert(http::header::AGE, age.clone());
    }
    whole
}

fn as_get(request: &RequestHead) -> RequestHead {
    let mut asked = request.clone();
    asked.method = Method::GET;
    asked
}

/// For what is given once only.
fn fallback_facts(rules: &Rules, head: &ResponseHead, times: Times) -> Facts {
    let said = said(rules, &head.headers);
    facts(rules, &said, head, times).unwrap_or(Facts { received: times.received, ..Facts::default() })
}

fn once<Body>(stored: &Stored<Body>, head: &ResponseHead, facts: Facts) -> Kept {
    let mut head = head.clone();
    head.headers.remove(http::header::AGE);
    Kept { head, facts, vary: Selected::default(), tags: stored.tags.clone(), url: stored.url.to_string() }
}

/// What an answer to HEAD says of the stored answer to GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadEffect {
    /// It is as before: [`merge`] brings it up to date.
    Update,
    /// It has changed: it must be validated before it is given.
    Invalidate,
    /// Nothing.
    Nothing,
}

/// Section 4.3.5.
pub fn head_effect<Body>(stored: &Stored<Body>, answer: &ResponseHead) -> HeadEffect {
    if answer.status != StatusCode::OK || stored.head.status != StatusCode::OK {
        return HeadEffect::Nothing;
    }
    let (stored, new) = (&stored.head.headers, &answer.headers);
    let same = |name: &HeaderName| match (stored.get(name), new.get(name)) {
        (Some(stored), Some(new)) => stored == new,
        (None, Some(_)) => *name == CONTENT_LENGTH,
        (_, None) => true,
    };
    match same(&ETAG) && same(&LAST_MODIFIED) && same(&CONTENT_LENGTH) {
        true => HeadEffect::Update,
        false => HeadEffect::Invalidate,
    }
}
