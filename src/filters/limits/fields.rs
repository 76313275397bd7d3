//! What clients are told of their limits: `RateLimit-Policy` and `RateLimit` of
//! draft-ietf-httpapi-ratelimit-headers-11, and the older `X-RateLimit-*`. All names of that draft stand here.

use super::rules::HeaderStyle;
use crate::exchange::{Exchange, Limited, ResponseHead};
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const LEGACY_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const LEGACY_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const LEGACY_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Which of them.
pub(super) type Style = HeaderStyle;

impl HeaderStyle {
    /// Whether clients are told anything.
    pub fn says_anything(self) -> bool {
        self != HeaderStyle::None
    }
}

/// A policy: its quoted name, how many in how many seconds. A calendar month has no fixed length and so no window.
pub(super) fn policy(quoted: &str, quota: u64, window: Option<u64>) -> String {
    match window {
        Some(window) => format!("{quoted};q={quota};w={window}"),
        None => format!("{quoted};q={quota}"),
    }
}

/// Writes the fields, unless they are there already: what an upstream says of its own limits is replaced.
pub(super) fn write(style: Style, head: &mut ResponseHead, x: &Exchange) {
    if matches!(style, HeaderStyle::Standard | HeaderStyle::Both) {
        write_standard(head, &x.limited);
    }
    if matches!(style, HeaderStyle::Legacy | HeaderStyle::Both) {
        write_legacy(head, &x.limited);
    }
}

/// What is left of each limit, before it is copied into a value of just its length.
type State = SmallVec<[u8; 128]>;

fn write_standard(head: &mut ResponseHead, limited: &[Limited]) {
    let mut state = State::new();
    let mut policies = None;
    for limited in limited {
        match &policies {
            None => policies = Some(limited.policies.header.clone()),
            Some(before) => policies = Some(joined(before, &limited.policies.header)),
        }
        for ((name, _), left) in limited.policies.each.iter().zip(&limited.states) {
            let Some((remaining, reset)) = left else { continue };
            if !state.is_empty() {
                state.extend_from_slice(b", ");
            }
            state.extend_from_slice(name.as_bytes());
            push_number(&mut state, b";r=", *remaining);
            push_number(&mut state, b";t=", *reset);
        }
    }
    if let Some(policies) = policies {
        head.headers.insert(POLICY, policies);
    }
    if let (false, Ok(state)) = (state.is_empty(), HeaderValue::from_bytes(&state)) {
        head.headers.insert(STATE, state);
    }
}

fn joined(one: &HeaderValue, other: &HeaderValue) -> HeaderValue {
    let text = [one.as_bytes(), b", ", other.as_bytes()].concat();
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| one.clone())
}

fn push_number(text: &mut State, name: &[u8], number: u64) {
    text.extend_from_slice(name);
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The old fields know one limit: that which has least left.
fn write_legacy(head: &mut ResponseHead, limited: &[Limited]) {
    let all = limited.iter().flat_map(|limited| limited.policies.each.iter().zip(&limited.states));
    let told = all.filter_map(|((_, limit), left)| left.map(|(remaining, reset)| (remaining, reset, *limit)));
    let Some((remaining, reset, limit)) = told.min_by_key(|(remaining, ..)| *remaining) else { return };
    head.headers.insert(LEGACY_LIMIT, limit.into());
    head.headers.insert(LEGACY_REMAINING, remaining.into());
    head.headers.insert(LEGACY_RESET, reset.into());
}
