//! What is known of a file without reading it.

use crate::cache::purge::How;
use crate::cache::table::Object;
use crate::cache::{Body, Stored, vary};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that files take more or less of.
const UNIT: u64 = 4096;

/// An answer on disk.
#[derive(Debug)]
pub(super) struct Entry {
    pub id: u64,
    /// Bytes of the file.
    len: u64,
    received: u64,
    useful_until: u64,
    url: Box<str>,
    tags: Box<[Box<str>]>,
    vary: Box<[(HeaderName, Option<HeaderValue>)]>,
    expired: AtomicBool,
    invalid: AtomicBool,
    /// As long as somebody has it, nobody reads it again. Held while it is read.
    pub loaded: tokio::sync::Mutex<Weak<Stored<Body>>>,
}

impl Entry {
    pub fn of<B>(id: u64, len: u64, stored: &Stored<B>) -> Entry {
        Entry {
            id,
            len,
            received: stored.facts.received,
            useful_until: stored.useful_until(),
            url: stored.url.clone(),
            tags: stored.tags.clone(),
            vary: stored.vary.clone(),
            expired: AtomicBool::new(stored.is_expired()),
            invalid: AtomicBool::new(stored.is_invalid()),
            loaded: tokio::sync::Mutex::default(),
        }
    }

    /// Bytes that it takes on disk.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.len.next_multiple_of(UNIT)).unwrap_or(usize::MAX)
    }

    /// What was done to it that does not take it away.
    pub fn marked(&self) -> Option<How> {
        match (self.invalid.load(Ordering::Acquire), self.expired.load(Ordering::Acquire)) {
            (true, _) => Some(How::Invalidate),
            (_, true) => Some(How::Expire),
            _ => None,
        }
    }
}

impl Object for Arc<Entry> {
    fn is_selected_by(&self, headers: &HeaderMap) -> bool {
        vary::matches(&self.vary, headers)
    }
    fn replaces(&self, other: &Self) -> bool {
        self.vary == other.vary
    }
    fn received(&self) -> u64 {
        self.received
    }
    fn url(&self) -> &str {
        &self.url
    }
    fn tags(&self) -> &[Box<str>] {
        &self.tags
    }
    fn is_useless(&self, now: u64) -> bool {
        now > self.useful_until
    }
    fn mark(&self, how: How) {
        match how {
            How::Expire => self.expired.store(true, Ordering::Release),
            How::Invalidate | How::Remove => self.invalid.store(true, Ordering::Release),
        }
    }
}
