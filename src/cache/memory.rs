//! Stored answers in memory: complete ones, bounded by bytes.
//!
//! A hit takes a lock that hits share, and copies nothing. The bound holds for all shards together: what has to leave is taken
//! from the fuller of two shards, so that a large object does not empty its own.

use super::purge::Purge;
use super::table::{Found, Gone, Object, Table};
use super::{Body, Stored};
use crate::tasks::random;
use foldhash::fast::RandomState;
use http::HeaderMap;
use parking_lot::RwLock;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const SHARDS: usize = 64;
/// An object larger than this share of the whole is not kept: it would drive out too much.
const LARGEST: usize = 8;
/// What an object costs beside its texts and its body: its place in the tables, the allocations, the answer's own fields.
const OVERHEAD: usize = 640;
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

/// What is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes, heads and overhead included.
    pub bytes: usize,
    /// Most bytes.
    pub most: usize,
    /// Answers.
    pub objects: usize,
    /// Answers that had to leave for others so far.
    pub evicted: u64,
    /// Answers that purges have met so far.
    pub purged: u64,
}

/// The answers in memory.
pub struct Memory {
    shards: Box<[Shard]>,
    hasher: RandomState,
    bytes: AtomicUsize,
    most: AtomicUsize,
    evicted: AtomicU64,
    purged: AtomicU64,
}

/// On cache lines of its own, so that neighbours do not slow each other down.
#[repr(align(128))]
struct Shard {
    table: RwLock<Table<Arc<Stored<Body>>>>,
    objects: AtomicUsize,
}

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
    fn invalidate(&self) {
        Stored::invalidate(self);
    }
}

impl Memory {
    /// For at most so many bytes.
    pub fn new(most: usize) -> Memory {
        let hasher = RandomState::default();
        let shard = || Shard { table: RwLock::new(Table::new(hasher.clone())), objects: AtomicUsize::new(0) };
        Memory {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            hasher,
            bytes: AtomicUsize::new(0),
            most: AtomicUsize::new(most),
            evicted: AtomicU64::new(0),
            purged: AtomicU64::new(0),
        }
    }

    /// The newest answer for a request of this key with these fields. Whether it may be used is for others to tell.
    pub fn get(&self, key: &[u8], headers: &HeaderMap) -> Look {
        let hash = self.hash(key);
        let Some(shard) = self.shard(hash) else { return Look::Nothing };
        match shard.table.read().get(hash, key, headers) {
            Found::Object(stored) => Look::Hit(stored.clone()),
            Found::OtherVariant => Look::OtherVariant,
            Found::Nothing => Look::Nothing,
        }
    }

    /// Keeps an answer whose body is whole, in place of the one for the same requests; `now` is in milliseconds since 1970.
    /// `false` when it is not kept: it is not whole or too large.
    pub fn put(&self, key: &[u8], stored: Arc<Stored<Body>>, now: u64) -> bool {
        let (hash, Some(bytes)) = (self.hash(key), weight(key, &stored)) else { return false };
        let Some(shard) = self.shard(hash) else { return false };
        if bytes > self.most.load(Ordering::Relaxed) / LARGEST {
            // What was there before is out of date all the same.
            self.forget(key, &stored);
            return false;
        }
        // Before it can leave again.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut table = shard.table.write();
        let gone = table.put(hash, key, stored, bytes);
        shard.objects.store(table.len(), Ordering::Relaxed);
        drop(table);
        self.release(gone);
        self.shrink(now);
        true
    }

    /// Takes out what this answer replaces.
    pub fn forget(&self, key: &[u8], stored: &Arc<Stored<Body>>) {
        let hash = self.hash(key);
        let Some(shard) = self.shard(hash) else { return };
        let mut table = shard.table.write();
        let gone = table.take(hash, key, stored);
        shard.objects.store(table.len(), Ordering::Relaxed);
        drop(table);
        self.release(gone.into_iter().collect());
    }

    /// Applies a purge. Gives how many answers it has met.
    pub fn purge(&self, purge: &Purge) -> usize {
        let mut met = 0;
        for shard in &self.shards {
            let mut table = shard.table.write();
            let (gone, here) = table.purge(purge, |key| self.hash(key));
            shard.objects.store(table.len(), Ordering::Relaxed);
            drop(table);
            self.release(gone.into());
            met += here;
        }
        self.purged.fetch_add(met as u64, Ordering::Relaxed);
        met
    }

    /// Changes how many bytes there may be. What is too much leaves at once.
    pub fn set_most(&self, most: usize, now: u64) {
        self.most.store(most, Ordering::Relaxed);
        self.shrink(now);
    }

    /// What is there.
    pub fn held(&self) -> Held {
        Held {
            bytes: self.bytes.load(Ordering::Relaxed),
            most: self.most.load(Ordering::Relaxed),
            objects: self.shards.iter().map(|shard| shard.objects.load(Ordering::Relaxed)).sum(),
            evicted: self.evicted.load(Ordering::Relaxed),
            purged: self.purged.load(Ordering::Relaxed),
        }
    }

    fn shrink(&self, now: u64) {
        while self.bytes.load(Ordering::Relaxed) > self.most.load(Ordering::Relaxed) {
            let Some(shard) = self.fuller() else { return };
            let mut table = shard.table.write();
            let gone = table.evict(now);
            shard.objects.store(table.len(), Ordering::Relaxed);
            drop(table);
            if gone.is_some() {
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
            self.release(gone.into_iter().collect());
        }
    }

    /// The one with more objects of two taken by chance; one that is not empty, if there is any.
    fn fuller(&self) -> Option<&Shard> {
        let objects = |shard: &&Shard| shard.objects.load(Ordering::Relaxed);
        let random = random();
        let two = [self.shard(random), self.shard(random >> 8)];
        let fuller = two.into_iter().flatten().max_by_key(objects).filter(|shard| objects(shard) > 0);
        fuller.or_else(|| self.shards.iter().max_by_key(objects).filter(|shard| objects(shard) > 0))
    }

    /// Lets go of what has left a table, where no lock is held.
    fn release(&self, gone: Gone<Arc<Stored<Body>>>) {
        let bytes = gone.iter().map(|(_, bytes)| bytes).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn shard(&self, hash: u64) -> Option<&Shard> {
        // Other bits than those that say where it stands in the shard.
        self.shards.get((hash >> 40) as usize % SHARDS)
    }
}

/// Bytes that a stored answer holds; none when its body is not whole.
fn weight(key: &[u8], stored: &Stored<Body>) -> Option<usize> {
    let fields: usize =
        stored.head.headers.iter().map(|(name, value)| FIELD + name.as_str().len() + value.len()).sum();
    let vary: usize =
        stored.vary.iter().map(|(_, value)| FIELD + value.as_ref().map_or(0, |value| value.len())).sum();
    let tags: usize = stored.tags.iter().map(|tag| 48 + tag.len()).sum();
    let body = usize::try_from(stored.body.complete_len()?).ok()?;
    Some(OVERHEAD + body + fields + vary + tags + key.len() + stored.url.len())
}

#[cfg(test)]
mod tests;
