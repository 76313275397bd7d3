//! Objects by key under one bound of bytes, in shards.
//!
//! A look-up takes a lock that look-ups share. What has to leave is taken from the fuller of two shards, so that a large object
//! does not empty its own.

use super::purge::Purge;
use super::table::{Found, Gone, Object, Table};
use crate::tasks::random;
use foldhash::fast::RandomState;
use http::HeaderMap;
use parking_lot::RwLock;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const SHARDS: usize = 64;

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes, overhead included.
    pub bytes: usize,
    /// Most bytes.
    pub most: usize,
    /// Objects.
    pub objects: usize,
    /// Objects that had to leave for others so far.
    pub evicted: u64,
    /// Objects that purges have met so far.
    pub purged: u64,
}

/// The objects.
pub(super) struct Shelves<T> {
    shards: Box<[Shard<T>]>,
    hasher: RandomState,
    bytes: AtomicUsize,
    most: AtomicUsize,
    evicted: AtomicU64,
    purged: AtomicU64,
}

/// On cache lines of its own, so that neighbours do not slow each other down.
#[repr(align(128))]
struct Shard<T> {
    table: RwLock<Table<T>>,
    objects: AtomicUsize,
}

impl<T: Object> Shard<T> {
    fn change<R>(&self, change: impl FnOnce(&mut Table<T>) -> R) -> R {
        let mut table = self.table.write();
        let changed = change(&mut table);
        self.objects.store(table.len(), Ordering::Relaxed);
        changed
    }
}

impl<T: Object + Clone> Shelves<T> {
    pub fn new(most: usize) -> Shelves<T> {
        let hasher = RandomState::default();
        let shard = || Shard { table: RwLock::new(Table::new(hasher.clone())), objects: AtomicUsize::new(0) };
        Shelves {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            hasher,
            bytes: AtomicUsize::new(0),
            most: AtomicUsize::new(most),
            evicted: AtomicU64::new(0),
            purged: AtomicU64::new(0),
        }
    }

    /// The newest object that a request with these fields selects.
    pub fn get(&self, key: &[u8], headers: &HeaderMap) -> Found<T> {
        let hash = self.hash(key);
        match self.shard(hash) {
            Some(shard) => shard.table.read().get(hash, key, headers).map(T::clone),
            None => Found::Nothing,
        }
    }

    /// The object for the same requests as another.
    pub fn same(&self, key: &[u8], object: &T) -> Option<T> {
        let hash = self.hash(key);
        self.shard(hash)?.table.read().same(hash, key, object).cloned()
    }

    /// Puts in an object in place of what it replaces. Gives what is gone.
    pub fn put(&self, key: &[u8], object: T, bytes: usize, now: u64) -> Gone<T> {
        let hash = self.hash(key);
        let Some(shard) = self.shard(hash) else { return Gone::new() };
        // Before it can leave again.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut gone = self.release(shard.change(|table| table.put(hash, key, object, bytes)));
        gone.extend(self.make_room(0, now));
        gone
    }

    /// Takes out what is for the same requests as this.
    pub fn forget(&self, key: &[u8], object: &T) -> Option<T> {
        let hash = self.hash(key);
        let gone = self.shard(hash)?.change(|table| table.take(hash, key, object));
        self.release(gone.into_iter().collect()).pop().map(|(object, _)| object)
    }

    /// Applies a purge. Gives what is gone, and how many it has met; those that stay are given to `marked`.
    pub fn purge(&self, purge: &Purge, mut marked: impl FnMut(&T)) -> (Vec<T>, usize) {
        let (mut all, mut met) = (Vec::new(), 0);
        for shard in &self.shards {
            let (gone, here) = shard.change(|table| table.purge(purge, |key| self.hash(key), &mut marked));
            all.extend(self.release(gone).into_iter().map(|(object, _)| object));
            met += here;
        }
        self.purged.fetch_add(met as u64, Ordering::Relaxed);
        (all, met)
    }

    /// Changes how many bytes there may be. Gives what has left.
    pub fn set_most(&self, most: usize, now: u64) -> Gone<T> {
        self.most.store(most, Ordering::Relaxed);
        self.make_room(0, now)
    }

    /// Most bytes.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    pub fn held(&self) -> Held {
        Held {
            bytes: self.bytes.load(Ordering::Relaxed),
            most: self.most(),
            objects: self.shards.iter().map(|shard| shard.objects.load(Ordering::Relaxed)).sum(),
            evicted: self.evicted.load(Ordering::Relaxed),
            purged: self.purged.load(Ordering::Relaxed),
        }
    }

    /// Lets go until there is room for so many bytes more. Gives what has left.
    pub fn make_room(&self, bytes: usize, now: u64) -> Gone<T> {
        let mut all = Gone::new();
        while self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > self.most() {
            let Some(shard) = self.fuller() else { break };
            let gone = shard.change(|table| table.evict(now));
            if gone.is_some() {
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
            all.extend(self.release(gone.into_iter().collect()));
        }
        all
    }

    /// The one with more objects of two taken by chance; one that is not empty, if there is any.
    fn fuller(&self) -> Option<&Shard<T>> {
        let objects = |shard: &&Shard<T>| shard.objects.load(Ordering::Relaxed);
        let random = random();
        let two = [self.shard(random), self.shard(random >> 8)];
        let fuller = two.into_iter().flatten().max_by_key(objects).filter(|shard| objects(shard) > 0);
        fuller.or_else(|| self.shards.iter().max_by_key(objects).filter(|shard| objects(shard) > 0))
    }

    /// Counts what has left.
    fn release(&self, gone: Gone<T>) -> Gone<T> {
        let bytes = gone.iter().map(|(_, bytes)| bytes).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        gone
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn shard(&self, hash: u64) -> Option<&Shard<T>> {
        // Other bits than those that say where it stands in the shard.
        self.shards.get((hash >> 40) as usize % SHARDS)
    }

    /// What the tables hold is what is said to be held.
    #[cfg(test)]
    pub fn assert_sound(&self) {
        let tables: Vec<_> = self.shards.iter().map(|shard| shard.table.read()).collect();
        let held = self.held();
        assert_eq!(held.bytes, tables.iter().map(|table| table.bytes()).sum::<usize>());
        assert_eq!(held.objects, tables.iter().map(|table| table.len()).sum::<usize>());
        assert!(held.bytes <= held.most);
        tables.iter().for_each(|table| table.assert_sound());
    }
}
