//! Stored answers in memory: complete ones, bounded by bytes. A hit copies nothing.

use super::purge::{How, Purge};
pub use super::shelves::Held;
use super::shelves::Shelves;
use super::table::{Found, Object};
use super::{Body, Stored};
use http::HeaderMap;
use std::sync::Arc;

/// An object larger than this share of the whole is not kept: it would drive out too much.
pub(super) const LARGEST: usize = 8;
/// What an object costs beside its texts and its body: its place in the tables, the allocations, the answer's own fields.
const OVERHEAD: usize = 1200;
/// What a field costs beside its name and value.
const FIELD: usize = 112;

/// What a look-up has found.
#[derive(Clone, Debug)]
pub enum Look {
    /// An answer for this request.
    Hit(Arc<Stored<Body>>),
    /// Answers for requests with other fields.
    OtherVariant,
    /// Nothing.
    Nothing,
}

/// The answers in memory.
pub struct Memory(Shelves<Arc<Stored<Body>>>);

impl Object for Arc<Stored<Body>> {
    fn is_selected_by(&self, headers: &HeaderMap) -> bool {
        Stored::is_selected_by(self, headers)
    }
    fn replaces(&self, other: &Self) -> bool {
        self.vary == other.vary
    }
    fn received(&self) -> u64 {
        self.facts.received
    }
    fn url(&self) -> &str {
        &self.url
    }
    fn tags(&self) -> &[Box<str>] {
        &self.tags
    }
    fn is_useless(&self, now: u64) -> bool {
        now > self.useful_until()
    }
    fn mark(&self, how: How) {
        self.apply(how);
    }
}

impl Memory {
    /// For at most so many bytes.
    pub fn new(most: usize) -> Memory {
        Memory(Shelves::new(most))
    }

    /// The newest answer for a request of this key with these fields. Whether it may be used is for others to tell.
    pub fn get(&self, key: &[u8], headers: &HeaderMap) -> Look {
        match self.0.get(key, headers) {
            Found::Object(stored) => Look::Hit(stored),
            Found::OtherVariant => Look::OtherVariant,
            Found::Nothing => Look::Nothing,
        }
    }

    /// Keeps an answer whose body is whole, in place of the one for the same requests; `now` is in milliseconds since 1970.
    /// `false` when it is not kept: it is not whole or too large.
    pub fn put(&self, key: &[u8], stored: Arc<Stored<Body>>, now: u64) -> bool {
        let Some(bytes) = weight(key, &stored) else { return false };
        if !self.has_room_for(bytes) {
            // What was there before is out of date all the same.
            self.forget(key, &stored);
            return false;
        }
        // What is gone is dropped here, where no lock is held.
        drop(self.0.put(key, stored, bytes, now));
        true
    }

    /// Whether something of so many bytes would be kept.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        bytes <= self.0.most() / LARGEST
    }

    /// Takes out what this answer replaces.
    pub fn forget(&self, key: &[u8], stored: &Arc<Stored<Body>>) {
        drop(self.0.forget(key, stored));
    }

    /// Applies a purge. Gives how many answers it has met.
    pub fn purge(&self, purge: &Purge) -> usize {
        self.0.purge(purge, |_| {}).1
    }

    /// Changes how many bytes there may be. What is too much leaves at once.
    pub fn set_most(&self, most: usize, now: u64) {
        drop(self.0.set_most(most, now));
    }

    /// What is there.
    pub fn held(&self) -> Held {
        self.0.held()
    }
}

/// Bytes that a stored answer holds; none when its body is not whole.
fn weight(key: &[u8], stored: &Stored<Body>) -> Option<usize> {
    let fields: usize =
        stored.head.headers.iter().map(|(name, value)| FIELD + name.as_str().len() + value.len()).sum();
    let vary: usize =
        stored.vary.iter().map(|(_, value)| FIELD + value.as_ref().map_or(0, |value| value.len())).sum();
    let tags: usize = stored.tags.iter().map(|tag| 48 + tag.len()).sum();
    let body = usize::try_from(stored.body.whole_len()?).ok()?;
    Some(OVERHEAD + body + fields + vary + tags + key.len() + stored.url.len())
}

#[cfg(test)]
mod tests;
