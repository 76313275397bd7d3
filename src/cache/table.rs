//! Objects by key, and which of them leaves first: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction",
//! SOSP 2023), by bytes.
//!
//! What is new stands in a small queue; what is asked for there moves on to the main queue, the rest leaves soon, so that
//! what is asked for only once does not drive out what is asked for often. A hit changes nothing but a number of the object.

use super::purge::{How, Purge, What};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use http::HeaderMap;
use slab::Slab;
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU8, Ordering};

/// Most answers of one key. Whoever can vary a request at will must not fill the cache with it.
const VARIANTS: usize = 16;
/// Uses that count, between two times that an object is looked at for leaving.
const USES: u8 = 3;
/// What is looked at before one has to leave, however much it is used.
const LOOKS: usize = 64;
/// Share of the small queue: one tenth of the bytes.
const SMALL: usize = 10;
/// Fewest objects gone that are remembered.
const GHOSTS: usize = 64;

const NONE: u32 = u32::MAX;

/// What a table must know of an object.
pub(super) trait Object {
    /// Whether it is the answer for a request with these fields.
    fn is_selected_by(&self, headers: &HeaderMap) -> bool;
    /// Whether it is selected by the same requests as another.
    fn replaces(&self, other: &Self) -> bool;
    /// When it was received; of two that a request selects, the newer one is given.
    fn received(&self) -> u64;
    /// What it was asked for under.
    fn url(&self) -> &str;
    /// What it can be purged by.
    fn tags(&self) -> &[Box<str>];
    /// Whether it can be of no use any more at `now`, in milliseconds since 1970.
    fn is_useless(&self, now: u64) -> bool;
    /// Does what a purge does that leaves it there.
    fn mark(&self, how: How);
}

/// What leaves a table; to be dropped where no lock is held.
pub(super) type Gone<T> = SmallVec<[(T, usize); 2]>;

/// What a look-up has found.
pub(super) enum Found<T> {
    /// This one.
    Object(T),
    /// Only what is for requests with other fields.
    OtherVariant,
    /// Nothing.
    Nothing,
}

impl<T> Found<T> {
    pub fn map<R>(self, map: impl FnOnce(T) -> R) -> Found<R> {
        match self {
            Found::Object(object) => Found::Object(map(object)),
            Found::OtherVariant => Found::OtherVariant,
            Found::Nothing => Found::Nothing,
        }
    }
}

/// One shard.
pub(super) struct Table<T> {
    nodes: Slab<Node<T>>,
    /// The first variant of each key.
    keys: HashTable<u32>,
    urls: HashTable<u32>,
    tags: HashMap<Box<str>, HashSet<u32, RandomState>, RandomState>,
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
    hasher: RandomState,
}

struct Node<T> {
    key: Box<[u8]>,
    hash: u64,
    url_hash: u64,
    object: T,
    bytes: usize,
    uses: AtomicU8,
    is_main: bool,
    newer: u32,
    older: u32,
    /// The next variant of the same key.
    sibling: u32,
}

struct Queue {
    newest: u32,
    oldest: u32,
    bytes: usize,
    len: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { newest: NONE, oldest: NONE, bytes: 0, len: 0 }
    }
}

/// Hashes of what has left the small queue not long ago: what comes back soon is worth more.
#[derive(Default)]
struct Ghosts {
    order: VecDeque<u64>,
    known: HashSet<u64, RandomState>,
}

impl Ghosts {
    fn add(&mut self, hash: u64, most: usize) {
        while self.order.len() >= most.max(GHOSTS) {
            if let Some(old) = self.order.pop_front() {
                self.known.remove(&old);
            }
        }
        self.order.push_back(hash);
        self.known.insert(hash);
    }
}

impl<T: Object> Table<T> {
    pub fn new(hasher: RandomState) -> Table<T> {
        Table {
            nodes: Slab::new(),
            keys: HashTable::new(),
            urls: HashTable::new(),
            tags: HashMap::default(),
            small: Queue::default(),
            main: Queue::default(),
            ghosts: Ghosts::default(),
            hasher,
        }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn bytes(&self) -> usize {
        self.small.bytes + self.main.bytes
    }

    /// The newest answer that a request with these fields selects.
    pub fn get(&self, hash: u64, key: &[u8], headers: &HeaderMap) -> Found<&T> {
        let mut found: Option<&Node<T>> = None;
        let mut any = false;
        for (_, node) in self.variants(self.first(hash, key)) {
            any = true;
            let newer = found.is_none_or(|found| found.object.received() <= node.object.received());
            if newer && node.object.is_selected_by(headers) {
                found = Some(node);
            }
        }
        match found {
            Some(node) => {
                // A line of memory that is shared by all cores is only written to when that says something.
                let uses = node.uses.load(Ordering::Relaxed);
                if uses < USES {
                    node.uses.store(uses + 1, Ordering::Relaxed);
                }
                Found::Object(&node.object)
            }
            None if any => Found::OtherVariant,
            None => Found::Nothing,
        }
    }

    /// Puts in an object of so many bytes, in place of what it replaces.
    pub fn put(&mut self, hash: u64, key: &[u8], object: T, bytes: usize) -> Gone<T> {
        let mut gone = Gone::new();
        let first = self.first(hash, key);
        let replaced = self.variant(hash, key, &object);
        let replaced = replaced.map(|(index, node)| (index, node.is_main, node.uses.load(Ordering::Relaxed)));
        let (was_main, uses) = replaced.map_or((false, 0), |(_, is_main, uses)| (is_main, uses));
        if let Some((index, ..)) = replaced {
            gone.extend(self.remove(index));
        } else if self.variants(first).count() >= VARIANTS {
            let oldest = self.variants(first).min_by_key(|(_, node)| node.object.received());
            let oldest = oldest.map(|(index, _)| index);
            gone.extend(oldest.and_then(|index| self.remove(index)));
        }
        let is_main = was_main || self.ghosts.known.remove(&hash);
        self.insert(Node {
            url_hash: self.hasher.hash_one(object.url()),
            key: key.into(),
            hash,
            object,
            bytes,
            uses: AtomicU8::new(uses),
            is_main,
            newer: NONE,
            older: NONE,
            sibling: NONE,
        });
        gone
    }

    /// Takes out what `object` would replace.
    pub fn take(&mut self, hash: u64, key: &[u8], object: &T) -> Option<(T, usize)> {
        let index = self.variant(hash, key, object)?.0;
        self.remove(index)
    }

    /// What `object` would replace.
    pub fn same(&self, hash: u64, key: &[u8], object: &T) -> Option<&T> {
        self.variant(hash, key, object).map(|(_, node)| &node.object)
    }

    fn variant(&self, hash: u64, key: &[u8], object: &T) -> Option<(u32, &Node<T>)> {
        self.variants(self.first(hash, key)).find(|(_, node)| object.replaces(&node.object))
    }

    fn insert(&mut self, mut node: Node<T>) {
        let (hash, url_hash, is_main) = (node.hash, node.url_hash, node.is_main);
        let first = self.first(hash, &node.key);
        node.sibling = first;
        let tags: SmallVec<[Box<str>; 4]> = node.object.tags().iter().cloned().collect();
        let slot = self.nodes.insert(node);
        let Ok(index) = u32::try_from(slot) else {
            // Four thousand million objects do not fit into memory.
            self.nodes.remove(slot);
            return;
        };
        let nodes = &self.nodes;
        let of = |index: &u32, what: fn(&Node<T>) -> u64| nodes.get(*index as usize).map_or(0, what);
        match self.keys.find_mut(hash, |other| *other == first) {
            Some(entry) => *entry = index,
            None => {
                self.keys.insert_unique(hash, index, |index| of(index, |node| node.hash));
            }
        }
        self.urls.insert_unique(url_hash, index, |index| of(index, |node| node.url_hash));
        for tag in tags {
            self.tags.entry(tag).or_default().insert(index);
        }
        self.link(index, is_main);
    }

    /// Takes an object out.
    fn remove(&mut self, index: u32) -> Option<(T, usize)> {
        self.unlink(index);
        let node = self.nodes.try_remove(index as usize)?;
        let first = self.first_of(&node, index);
        if first == index {
            match self.keys.find_entry(node.hash, |other| *other == index) {
                Ok(mut entry) if node.sibling != NONE => *entry.get_mut() = node.sibling,
                Ok(entry) => drop(entry.remove()),
                Err(_) => {}
            }
        } else {
            self.skip(first, index, node.sibling);
        }
        if let Ok(entry) = self.urls.find_entry(node.url_hash, |other| *other == index) {
            entry.remove();
        }
        for tag in node.object.tags() {
            if let Some(tagged) = self.tags.get_mut(tag) {
                tagged.remove(&index);
                if tagged.is_empty() {
                    self.tags.remove(tag);
                }
            }
        }
        Some((node.object, node.bytes))
    }

    /// The first variant of a node that has just been taken out of its place.
    fn first_of(&self, node: &Node<T>, index: u32) -> u32 {
        let is_first = |other: &u32| {
            *other == index
                || self
                    .nodes
                    .get(*other as usize)
                    .is_some_and(|other| other.hash == node.hash && other.key == node.key)
        };
        self.keys.find(node.hash, is_first).copied().unwrap_or(NONE)
    }

    /// Takes `gone` out of the variants that begin with `first`.
    fn skip(&mut self, first: u32, gone: u32, next: u32) {
        let mut at = first;
        while let Some(node) = self.nodes.get_mut(at as usize) {
            if node.sibling == gone {
                node.sibling = next;
                return;
            }
            at = node.sibling;
        }
    }

    /// Lets one object go, if there is one: the one that is worth least.
    pub fn evict(&mut self, now: u64) -> Option<(T, usize)> {
        for _ in 0..LOOKS {
            let small = self.main.len == 0 || self.small.bytes * SMALL > self.bytes();
            let small = small && self.small.len > 0;
            let index = if small { self.small.oldest } else { self.main.oldest };
            let node = self.nodes.get_mut(index as usize)?;
            let uses = *node.uses.get_mut();
            if uses == 0 || node.object.is_useless(now) {
                return self.let_go(index);
            }
            // It stays, in the main queue from now on.
            *node.uses.get_mut() = if small { 0 } else { uses - 1 };
            self.unlink(index);
            self.link(index, true);
        }
        let index = if self.main.len > 0 { self.main.oldest } else { self.small.oldest };
        self.let_go(index)
    }

    fn let_go(&mut self, index: u32) -> Option<(T, usize)> {
        let node = self.nodes.get(index as usize)?;
        if !node.is_main {
            self.ghosts.add(node.hash, self.nodes.len());
        }
        self.remove(index)
    }

    /// Applies a purge. Gives what is gone, and how many objects it has met.
    pub fn purge(
        &mut self,
        purge: &Purge,
        hash: impl Fn(&[u8]) -> u64,
        marked: &mut impl FnMut(&T),
    ) -> (Gone<T>, usize) {
        let met = self.met(purge, hash);
        let mut gone = Gone::new();
        for index in &met {
            match self.nodes.get(*index as usize) {
                Some(node) if purge.how != How::Remove => {
                    node.object.mark(purge.how);
                    marked(&node.object);
                }
                _ => gone.extend(self.remove(*index)),
            }
        }
        (gone, met.len())
    }

    fn met(&self, purge: &Purge, hash: impl Fn(&[u8]) -> u64) -> Vec<u32> {
        let all = |matches: &dyn Fn(&Node<T>) -> bool| {
            let met = self.nodes.iter().filter(|(_, node)| matches(node));
            met.map(|(index, _)| index as u32).collect()
        };
        match &purge.what {
            What::All => all(&|_| true),
            What::Prefix(prefix) => all(&|node| node.object.url().starts_with(&**prefix)),
            What::Tag(tag) => self.tags.get(tag).into_iter().flatten().copied().collect(),
            What::Key(key) => self.variants(self.first(hash(key), key)).map(|(index, _)| index).collect(),
            What::Url(url) => {
                let same = |index: &u32| {
                    self.nodes.get(*index as usize).is_some_and(|node| node.object.url() == &**url)
                };
                self.urls.iter_hash(self.hasher.hash_one(&**url)).copied().filter(same).collect()
            }
        }
    }

    /// The first variant of a key, or [`NONE`].
    fn first(&self, hash: u64, key: &[u8]) -> u32 {
        let is_key = |index: &u32| {
            self.nodes.get(*index as usize).is_some_and(|node| node.hash == hash && *node.key == *key)
        };
        self.keys.find(hash, is_key).copied().unwrap_or(NONE)
    }

    fn variants(&self, first: u32) -> impl Iterator<Item = (u32, &Node<T>)> {
        let with = |index: u32| self.nodes.get(index as usize).map(|node| (index, node));
        std::iter::successors(with(first), move |(_, node)| with(node.sibling))
    }

    fn queue(&mut self, is_main: bool) -> &mut Queue {
        if is_main { &mut self.main } else { &mut self.small }
    }

    /// Makes it the newest of a queue.
    fn link(&mut self, index: u32, is_main: bool) {
        let newest = self.queue(is_main).newest;
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        (node.is_main, node.older, node.newer) = (is_main, newest, NONE);
        let bytes = node.bytes;
        if let Some(older) = self.nodes.get_mut(newest as usize) {
            older.newer = index;
        }
        let queue = self.queue(is_main);
        queue.newest = index;
        if newest == NONE {
            queue.oldest = index;
        }
        queue.bytes += bytes;
        queue.len += 1;
    }

    fn unlink(&mut self, index: u32) {
        let Some(node) = self.nodes.get(index as usize) else { return };
        let (is_main, newer, older, bytes) = (node.is_main, node.newer, node.older, node.bytes);
        if let Some(node) = self.nodes.get_mut(newer as usize) {
            node.older = older;
        }
        if let Some(node) = self.nodes.get_mut(older as usize) {
            node.newer = newer;
        }
        let queue = self.queue(is_main);
        if newer == NONE {
            queue.newest = older;
        }
        if older == NONE {
            queue.oldest = newer;
        }
        queue.bytes -= bytes;
        queue.len -= 1;
    }
}

#[cfg(test)]
mod tests;
