//! One stored answer and what it is found by.

use super::purge::How;
use super::vary;
use crate::exchange::ResponseHead;
use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a request asks for, as far as the cache tells requests apart: the primary key (RFC 9111 section 2).
///
/// The text says it all, so two requests are never taken for one another; the hash only finds it sooner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// `zone`, scheme, host, path and query, and what else the route's key has, in one unambiguous form.
    pub text: SmallVec<[u8; 192]>,
}

/// What must be known of a stored answer to tell whether it may be used. Times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When it was received, since 1970 (`response_time`, RFC 9111 section 4.2.3).
    pub received: u64,
    /// How old it was then (`corrected_initial_age`).
    pub initial_age: u64,
    /// How long it is fresh (`freshness_lifetime`, section 4.2.1).
    pub lifetime: u64,
    /// How long beyond it may be given while it is validated in the background (RFC 5861 section 3).
    pub while_revalidating: u64,
    /// How long beyond it may be given when nothing better is to be had (RFC 5861 section 4).
    pub on_error: u64,
    /// Whether it must never be given stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub must_revalidate: bool,
    /// Whether it must be validated each time (`no-cache` without fields).
    pub no_cache: bool,
}

/// One stored answer.
#[derive(Debug)]
pub struct Stored<Body> {
    /// Status and fields as they go to clients, but for `Age` and what is about one connection.
    pub head: ResponseHead,
    /// The body; shared with the answer that replaces this one after a validation.
    pub body: Body,
    /// When it may be used.
    pub facts: Facts,
    /// The request fields that selected it and what they said, in a normal form (RFC 9111 section 4.1).
    pub vary: Box<[(HeaderName, Option<HeaderValue>)]>,
    /// What it can be purged by.
    pub tags: Box<[Box<str>]>,
    /// What it was asked for under: `https://host/path?query`, for purges by address and prefix.
    pub url: Box<str>,
    invalid: AtomicBool,
    expired: AtomicBool,
}

impl<Body> Stored<Body> {
    /// An answer that may be used as `facts` say.
    pub fn new(head: ResponseHead, body: Body, facts: Facts, url: &str) -> Stored<Body> {
        Stored {
            head,
            body,
            facts,
            vary: Box::default(),
            tags: Box::default(),
            url: url.into(),
            invalid: AtomicBool::new(false),
            expired: AtomicBool::new(false),
        }
    }

    /// Makes it stale from now on: a soft purge. Where its windows allow, it may still be given while a fresh one is fetched, or
    /// when none is to be had.
    pub fn expire(&self) {
        self.expired.store(true, Ordering::Release);
    }

    /// Whether it was made stale before its time.
    pub fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }

    /// Whether it is the answer for a request with these fields (RFC 9111 section 4.1).
    pub fn is_selected_by(&self, headers: &HeaderMap) -> bool {
        vary::matches(&self.vary, headers)
    }

    /// The last moment at which it can be given without asking, or when nothing better is to be had; without limit when it can
    /// be validated. Milliseconds since 1970.
    pub fn useful_until(&self) -> u64 {
        if self.head.headers.contains_key(ETAG) || self.head.headers.contains_key(LAST_MODIFIED) {
            return u64::MAX;
        }
        self.fresh_until()
    }

    /// The last moment at which it can be given without asking, stale or not. Milliseconds since 1970.
    pub fn fresh_until(&self) -> u64 {
        let facts = &self.facts;
        let stale = if facts.must_revalidate { 0 } else { facts.while_revalidating.max(facts.on_error) };
        facts.received.saturating_add(facts.lifetime.saturating_add(stale).saturating_sub(facts.initial_age))
    }

    /// Has it validated before its next use (RFC 9111 section 4.4): it must not be given stale.
    pub fn invalidate(&self) {
        self.invalid.store(true, Ordering::Release);
    }

    /// What a purge does that leaves it there.
    pub(super) fn apply(&self, how: How) {
        match how {
            How::Expire => self.expire(),
            How::Invalidate | How::Remove => self.invalidate(),
        }
    }

    /// Whether it must be validated before its next use, whatever its age.
    pub fn is_invalid(&self) -> bool {
        self.invalid.load(Ordering::Acquire)
    }
}

impl Stored<()> {
    /// The same with a body.
    pub fn with_body<Body>(self, body: Body) -> Stored<Body> {
        let Stored { head, body: (), facts, vary, tags, url, invalid, expired } = self;
        Stored { head, body, facts, vary, tags, url, invalid, expired }
    }
}
