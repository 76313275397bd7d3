//! Tokens that have been verified: a repeated one costs a digest instead of a signature.
//!
//! The memory is bounded; what has not been asked for lately makes room (second chance). A token itself is not kept, only
//! its SHA-256.

use crate::consumer::Identity;
use hashbrown::HashMap;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Most parts with a lock of their own.
const MOST_SHARDS: usize = 16;
/// Fewer entries than this are not worth another part.
const FEWEST_IN_SHARD: usize = 64;
/// How many entries may be given a second chance before one goes all the same: room is made in bounded time.
const MOST_CHANCES: usize = 32;

/// The SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of a token.
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest(&SHA256, token.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
        Digest(bytes)
    }

    /// The first 16 hexadecimal digits: tells tokens apart, and tells nothing of them.
    pub fn short(&self) -> String {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl std::hash::Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// A digest is as good a hash as any. Nobody can choose digests to collide here: only good tokens come in.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// When an entry is good, in seconds since 1970: from the first, until before the second.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The first second.
    pub from: u64,
    /// The second after the last.
    pub until: u64,
}

/// Verified tokens.
pub struct Cache {
    /// None if nothing is remembered.
    shards: Vec<Mutex<Shard>>,
}

struct Shard {
    /// Of the keys that the tokens were verified with.
    generation: u64,
    /// Where the entry of a token is.
    places: HashMap<Digest, usize, BuildHasherDefault<Itself>>,
    entries: Vec<Entry>,
    capacity: usize,
    /// Where the search for room goes on.
    hand: usize,
}

struct Entry {
    token: Digest,
    identity: Arc<Identity>,
    times: Times,
    /// Asked for since the hand last came by.
    used: bool,
}

impl Cache {
    /// A cache for at most so many tokens; 0 remembers none.
    pub fn new(capacity: usize) -> Self {
        let shards = (capacity / FEWEST_IN_SHARD).clamp(capacity.min(1), MOST_SHARDS);
        let shard = || Mutex::new(Shard::new(capacity / shards.max(1)));
        Cache { shards: std::iter::repeat_with(shard).take(shards).collect() }
    }

    /// Whose token this is, if it has been verified with the keys of this generation and is good at the time `now`.
    pub fn get(&self, token: &Digest, generation: u64, now: u64) -> Option<Arc<Identity>> {
        self.shard(token)?.lock().get(token, generation, now)
    }

    /// Remembers a token that has been verified with the keys of this generation.
    pub fn insert(&self, token: Digest, generation: u64, times: Times, identity: Arc<Identity>) {
        let Some(shard) = self.shard(&token) else { return };
        // What goes is dropped after the lock.
        let _gone = shard.lock().insert(generation, Entry { token, identity, times, used: false });
    }

    /// Number of tokens that are remembered, good or not.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().entries.len()).sum()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Another part of the digest than the one hashed.
    fn shard(&self, token: &Digest) -> Option<&Mutex<Shard>> {
        let [.., last] = token.0;
        self.shards.get(usize::from(last).checked_rem(self.shards.len())?)
    }
}

impl Shard {
    fn new(capacity: usize) -> Self {
        Shard { generation: 0, places: HashMap::default(), entries: Vec::new(), capacity, hand: 0 }
    }

    fn get(&mut self, token: &Digest, generation: u64, now: u64) -> Option<Arc<Identity>> {
        if generation != self.generation {
            return None;
        }
        let entry = self.entries.get_mut(*self.places.get(token)?)?;
        let is_good = (entry.times.from..entry.times.until).contains(&now);
        entry.used = is_good;
        is_good.then(|| entry.identity.clone())
    }

    /// What had to make room is given back.
    fn insert(&mut self, generation: u64, entry: Entry) -> Vec<Entry> {
        if generation < self.generation {
            return vec![entry];
        }
        let mut gone = Vec::new();
        if generation > self.generation {
            self.generation = generation;
            self.places.clear();
            gone = std::mem::take(&mut self.entries);
        }
        let token = entry.token;
        let place = self.place(&token);
        match self.entries.get_mut(place) {
            Some(old) => {
                self.places.remove(&old.token);
                gone.push(std::mem::replace(old, entry));
            }
            None => self.entries.push(entry),
        }
        self.places.insert(token, place);
        gone
    }

    /// Where an entry goes: where it is, else to the end, else where one was not asked for lately.
    fn place(&mut self, token: &Digest) -> usize {
        if let Some(place) = self.places.get(token) {
            return *place;
        }
        if self.entries.len() < self.capacity {
            return self.entries.len();
        }
        for _ in 0..MOST_CHANCES {
            match self.entries.get_mut(self.hand) {
                Some(entry) if entry.used => entry.used = false,
                _ => break,
            }
            self.hand = (self.hand + 1) % self.capacity;
        }
        let place = self.hand;
        self.hand = (self.hand + 1) % self.capacity;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Times = Times { from: 100, until: 200 };

    fn identity() -> Arc<Identity> {
        Arc::new(Identity {
            subject: "ann".into(),
            consumer: None,
            provider: "jwt".into(),
            credential: "".into(),
            claims: None,
            forward: Vec::new(),
            expires: None,
        })
    }

    fn token(number: usize) -> Digest {
        Digest::of(&number.to_string())
    }

    #[test]
    fn digests_are_sha_256() {
        assert_eq!(Digest::of("abc").short(), "ba7816bf8f01cfea");
    }

    #[test]
    fn times_are_looked_at_again() {
        let cache = Cache::new(10);
        cache.insert(token(1), 1, GOOD, identity());
        let found = |now| cache.get(&token(1), 1, now).is_some();
        assert_eq!([99, 100, 199, 200].map(found), [false, true, true, false]);
        cache.insert(token(1), 1, Times { from: 0, until: 300 }, identity());
        assert!(found(250) && cache.len() == 1);
    }

    #[test]
    fn other_keys_forget_everything() {
        let cache = Cache::new(10);
        cache.insert(token(1), 1, GOOD, identity());
        cache.insert(token(2), 1, GOOD, identity());
        assert!(cache.get(&token(1), 2, 150).is_none());
        cache.insert(token(3), 2, GOOD, identity());
        assert_eq!(cache.len(), 1);
        // Whoever still verified with the old keys comes too late.
        cache.insert(token(1), 1, GOOD, identity());
        assert!(cache.get(&token(1), 1, 150).is_none() && cache.get(&token(1), 2, 150).is_none());
        assert!(cache.get(&token(3), 2, 150).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        for capacity in [0, 1, 7, 64, 1000, 5000] {
            let cache = Cache::new(capacity);
            for number in 0..2 * capacity + 100 {
                cache.insert(token(number), 1, GOOD, identity());
                assert!(
                    capacity == 0 || cache.get(&token(number), 1, 150).is_some(),
                    "{number} of {capacity}"
                );
            }
            assert!(cache.len() <= capacity && cache.len() * 10 >= capacity * 9, "{capacity}");
            let places: usize = cache.shards.iter().map(|shard| shard.lock().places.len()).sum();
            assert_eq!(places, cache.len());
        }
    }

    #[test]
    fn what_is_asked_for_stays() {
        let cache = Cache::new(50);
        cache.insert(token(0), 1, GOOD, identity());
        for number in 1..500 {
            assert!(cache.get(&token(0), 1, 150).is_some(), "before {number}");
            cache.insert(token(number), 1, GOOD, identity());
        }
    }
}
