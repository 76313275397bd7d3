//! What of a stored answer is given: all, a part, or only that the client has it already (RFC 9110 sections 13 and 14).

use super::freshness::{date_value, only};
use crate::cache::range::{Multipart, Wanted, content_range, unsatisfied_range, wanted};
use crate::cache::{Stored, date};
use crate::exchange::{RequestHead, ResponseHead};
use http::header::{
    ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, DATE,
    ETAG, EXPIRES, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    RANGE, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use std::ops::Range;

/// What is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// All of it.
    Whole,
    /// 304: the client has it.
    NotModified,
    /// 206 with one part of the body.
    Part {
        /// Which bytes.
        part: Range<u64>,
        /// Bytes of the whole body.
        of: u64,
    },
    /// 206 with several parts. Boxed: few ask for them.
    Parts(Box<Multipart>),
    /// 416: there is no such part.
    Unsatisfiable {
        /// Bytes of the whole body.
        length: u64,
    },
    /// 412: the client wants another version.
    PreconditionFailed,
}

/// What of a stored answer a request is given; `length` is that of the whole body, where it is known by now. Conditions go
/// before ranges (RFC 9110 section 13.2.2); both are only about GET and HEAD, and about answers that succeeded.
pub fn answer_to<Body>(request: &RequestHead, stored: &Stored<Body>, length: Option<u64>) -> Given {
    let (asked, has) = (&request.headers, &stored.head.headers);
    let is_conditional = |name: &HeaderName| CONDITIONS.contains(name) || *name == RANGE;
    // Nearly all requests end here: one pass over the names is cheaper than a look-up of each.
    if !asked.keys().any(is_conditional) || !stored.head.status.is_success() {
        return Given::Whole;
    }
    if let Some(given) = conditions(asked, has, stored.facts.received) {
        return given;
    }
    let is_ranged = request.method == Method::GET && stored.head.status == StatusCode::OK;
    let range = only(asked, &RANGE).filter(|_| is_ranged && if_range(asked, has, stored.facts.received));
    let Some((range, length)) = range.zip(length) else { return Given::Whole };
    match wanted(range, length) {
        Wanted::Ignored => Given::Whole,
        Wanted::Unsatisfiable => Given::Unsatisfiable { length },
        Wanted::Parts(parts) => match <[Range<u64>; 1]>::try_from(parts.to_vec()) {
            Ok([part]) => Given::Part { part, of: length },
            Err(parts) => {
                let boundary = uuid::Uuid::now_v7().simple().to_string();
                Given::Parts(Box::new(Multipart::new(parts, length, has.get(CONTENT_TYPE), boundary)))
            }
        },
    }
}

const CONDITIONS: [HeaderName; 4] = [IF_MATCH, IF_UNMODIFIED_SINCE, IF_NONE_MATCH, IF_MODIFIED_SINCE];

/// RFC 9110 section 13.2.2 and RFC 9111 section 4.3.2; `None` when all hold.
fn conditions(asked: &HeaderMap, has: &HeaderMap, received: u64) -> Option<Given> {
    if asked.contains_key(IF_MATCH) {
        if !names(asked, &IF_MATCH, has, strongly) {
            return Some(Given::PreconditionFailed);
        }
    } else if seconds(asked, &IF_UNMODIFIED_SINCE, received)
        .is_some_and(|since| changed(has, received) > since)
    {
        return Some(Given::PreconditionFailed);
    }
    let is_known = if asked.contains_key(IF_NONE_MATCH) {
        names(asked, &IF_NONE_MATCH, has, weakly)
    } else {
        seconds(asked, &IF_MODIFIED_SINCE, received).is_some_and(|since| changed(has, received) <= since)
    };
    is_known.then_some(Given::NotModified)
}

/// When the stored answer was made, as far as can be told: `Last-Modified`, else `Date` (RFC 9111 section 4.3.2).
fn changed(has: &HeaderMap, received: u64) -> i64 {
    seconds(has, &LAST_MODIFIED, received).unwrap_or_else(|| date_value(has, received))
}

fn seconds(headers: &HeaderMap, name: &HeaderName, received: u64) -> Option<i64> {
    let now = i64::try_from(received / 1000).unwrap_or(i64::MAX);
    date::parse(only(headers, name)?.as_bytes().trim_ascii(), now)
}

/// Whether a list of entity tags has that of the stored answer, or is `*`.
fn names(asked: &HeaderMap, name: &HeaderName, has: &HeaderMap, same: fn(&[u8], &[u8]) -> bool) -> bool {
    let mut lines = asked.get_all(name).iter().map(HeaderValue::as_bytes);
    let tag = only(has, &ETAG).map(HeaderValue::as_bytes);
    lines.any(|line| {
        line.trim_ascii() == b"*" || tag.is_some_and(|tag| tags(line).any(|asked| same(asked, tag)))
    })
}

/// The members of a list of entity tags, which may have commas in their quotes (RFC 9110 section 8.8.3).
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let members = line.split(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    });
    members.map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty())
}

/// RFC 9110 section 8.8.3.2.
fn weakly(one: &[u8], other: &[u8]) -> bool {
    let opaque = |tag| <[u8]>::strip_prefix(tag, b"W/").unwrap_or(tag);
    opaque(one) == opaque(other)
}

fn strongly(one: &[u8], other: &[u8]) -> bool {
    one == other && !one.starts_with(b"W/")
}

/// Whether ranges are wanted of this version (RFC 9110 section 13.1.5): the same strong tag, or exactly the date of a version
/// that had stood for a second when it was sent.
fn if_range(asked: &HeaderMap, has: &HeaderMap, received: u64) -> bool {
    if !asked.contains_key(IF_RANGE) {
        return true;
    }
    let Some(condition) = only(asked, &IF_RANGE).map(|value| value.as_bytes().trim_ascii()) else {
        return false;
    };
    if condition.starts_with(b"\"") || condition.starts_with(b"W/") {
        return only(has, &ETAG).is_some_and(|tag| strongly(condition, tag.as_bytes()));
    }
    let modified = seconds(has, &LAST_MODIFIED, received);
    let is_strong = modified.is_some_and(|modified| date_value(has, received) > modified);
    is_strong && modified == seconds(asked, &IF_RANGE, received)
}

/// What a 304 says besides `Age` (RFC 9110 section 15.4.5), and cookies that were to be stored.
const IN_NOT_MODIFIED: [HeaderName; 8] =
    [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, LAST_MODIFIED, VARY, SET_COOKIE];

impl Given {
    /// The head that is given when the stored answer is `age` milliseconds old; `length` as for [`answer_to`].
    pub fn head<Body>(&self, stored: &Stored<Body>, age: u64, length: Option<u64>) -> ResponseHead {
        let mut head = match self {
            Given::NotModified => only_about(&stored.head, StatusCode::NOT_MODIFIED, &IN_NOT_MODIFIED),
            Given::PreconditionFailed => {
                only_about(&stored.head, StatusCode::PRECONDITION_FAILED, &[DATE, ETAG])
            }
            Given::Unsatisfiable { .. } => {
                only_about(&stored.head, StatusCode::RANGE_NOT_SATISFIABLE, &[DATE, ETAG])
            }
            Given::Whole | Given::Part { .. } | Given::Parts(_) => stored.head.clone(),
        };
        let headers = &mut head.headers;
        match self {
            Given::Whole => {
                if let Some(length) = length.filter(|_| may_have_length(stored.head.status)) {
                    headers.insert(CONTENT_LENGTH, length.into());
                }
            }
            Given::NotModified => {}
            Given::PreconditionFailed => drop(headers.insert(CONTENT_LENGTH, 0.into())),
            Given::Unsatisfiable { length } => {
                headers.insert(CONTENT_RANGE, unsatisfied_range(*length));
                headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
                headers.insert(CONTENT_LENGTH, 0.into());
            }
            Given::Part { part, of } => {
                headers.insert(CONTENT_RANGE, content_range(part, *of));
                headers.insert(CONTENT_LENGTH, (part.end - part.start).into());
                head.status = StatusCode::PARTIAL_CONTENT;
            }
            Given::Parts(parts) => {
                headers.insert(CONTENT_TYPE, parts.content_type());
                headers.insert(CONTENT_LENGTH, parts.length().into());
                headers.remove(CONTENT_RANGE);
                head.status = StatusCode::PARTIAL_CONTENT;
            }
        }
        head.headers.insert(AGE, (age / 1000).into());
        head
    }
}

fn may_have_length(status: StatusCode) -> bool {
    status != StatusCode::NO_CONTENT
}

fn only_about(stored: &ResponseHead, status: StatusCode, names: &[HeaderName]) -> ResponseHead {
    let (mut head, ()) = http::Response::new(()).into_parts();
    (head.status, head.version) = (status, stored.version);
    for name in names {
        for value in stored.headers.get_all(name) {
            head.headers.append(name, value.clone());
        }
    }
    head
}
