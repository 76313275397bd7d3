//! One question to the origin for all who ask it at the same time (collapsed forwarding).
//!
//! The first leads and asks; the others follow and get its answer as it comes. Nobody waits for what cannot be shared: that
//! a key's answers are not kept is remembered for a while. When a leader gives up, the next follower leads.

use super::{Body, Stored};
use foldhash::quality::RandomState;
use http::HeaderMap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout;

const SHARDS: usize = 16;
/// How long it is remembered that the answers of a key cannot be shared.
const DECLINED_FOR: Duration = Duration::from_secs(60);
/// Most such keys of a shard.
const DECLINED: usize = 4_096;

/// All questions under way.
#[derive(Default)]
pub struct Flights {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    flights: HashMap<Box<[u8]>, Arc<Flight>, RandomState>,
    /// Hashes of keys that nobody shall wait for, and until when.
    declined: HashMap<u64, Instant, RandomState>,
}

/// One question.
struct Flight {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    stage: Stage,
    followers: usize,
}

#[derive(Clone)]
enum Stage {
    /// Somebody asks.
    Asked,
    /// Who asked has given up.
    Vacant,
    /// There is an answer, though its body may still be coming.
    Answered(Arc<Stored<Body>>),
    /// The answer is not for others.
    Declined,
}

/// What a request does.
#[derive(Debug)]
pub enum Joined {
    /// It asks, for itself and others.
    Lead(Lead),
    /// Another asks.
    Follow(Follow),
    /// It asks for itself: answers of this key were not to be shared.
    Alone,
}

/// What a follower has waited for.
#[derive(Debug)]
pub enum Followed {
    /// The answer is for it, too.
    Answer(Arc<Stored<Body>>),
    /// It asks, for itself and others.
    Lead(Lead),
    /// The answer is for requests with other fields.
    OtherVariant(Arc<Stored<Body>>),
    /// It asks for itself: the answer is not to be shared, or was too long in coming.
    Alone,
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flights({} under way)", self.under_way())
    }
}

impl Flights {
    /// Joins those who ask for this key.
    pub fn join(self: &Arc<Self>, key: &[u8]) -> Joined {
        self.join_if(key, true).unwrap_or(Joined::Alone)
    }

    /// Leads, unless somebody else does: for what is only done once and that nobody waits for.
    pub fn lead(self: &Arc<Self>, key: &[u8]) -> Option<Lead> {
        match self.join_if(key, false) {
            Some(Joined::Lead(lead)) => Some(lead),
            _ => None,
        }
    }

    /// How many questions are under way.
    pub fn under_way(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().flights.len()).sum()
    }

    fn join_if(self: &Arc<Self>, key: &[u8], follow: bool) -> Option<Joined> {
        let hash = self.hash(key);
        let mut shard = self.shard(hash)?.lock();
        if let Some(flight) = shard.flights.get(key).cloned() {
            let mut state = flight.state.lock();
            if matches!(state.stage, Stage::Vacant) {
                state.stage = Stage::Asked;
                drop(state);
                return Some(Joined::Lead(self.leader(key, flight)));
            }
            state.followers += usize::from(follow);
            drop(state);
            return follow.then(|| Joined::Follow(Follow { flights: self.clone(), key: key.into(), flight }));
        }
        if follow && shard.is_declined(hash) {
            return Some(Joined::Alone);
        }
        let state = Mutex::new(State { stage: Stage::Asked, followers: 0 });
        let flight = Arc::new(Flight { state, changed: Notify::new() });
        shard.flights.insert(key.into(), flight.clone());
        Some(Joined::Lead(self.leader(key, flight)))
    }

    fn leader(self: &Arc<Self>, key: &[u8], flight: Arc<Flight>) -> Lead {
        Lead { flights: self.clone(), key: key.into(), flight }
    }

    /// Forgets that answers of this key were not to be shared.
    pub fn accept(&self, key: &[u8]) {
        let hash = self.hash(key);
        if let Some(shard) = self.shard(hash) {
            shard.lock().declined.remove(&hash);
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn shard(&self, hash: u64) -> Option<&Mutex<Shard>> {
        self.shards.get(hash as usize % SHARDS)
    }
}

impl Shard {
    fn is_declined(&mut self, hash: u64) -> bool {
        match self.declined.get(&hash) {
            Some(until) if *until > Instant::now() => true,
            Some(_) => {
                self.declined.remove(&hash);
                false
            }
            None => false,
        }
    }

    fn decline(&mut self, hash: u64) {
        let now = Instant::now();
        if self.declined.len() >= DECLINED {
            self.declined.retain(|_, until| *until > now);
        }
        // Whoever sends ever new keys makes us forget some, which costs no more than a wait.
        if self.declined.len() >= DECLINED {
            self.declined.clear();
        }
        self.declined.insert(hash, now + DECLINED_FOR);
    }

    fn remove(&mut self, key: &[u8], flight: &Arc<Flight>) {
        if self.flights.get(key).is_some_and(|other| Arc::ptr_eq(other, flight)) {
            self.flights.remove(key);
        }
    }
}

/// Asks for itself and others. Dropped without an answer, the next follower leads.
pub struct Lead {
    flights: Arc<Flights>,
    key: Box<[u8]>,
    flight: Arc<Flight>,
}

impl Lead {
    /// There is an answer, whose body may still be coming. Who comes until this is dropped gets it, too.
    pub fn answered(&self, stored: Arc<Stored<Body>>) {
        self.flight.state.lock().stage = Stage::Answered(stored);
        self.flight.changed.notify_waiters();
    }

    /// There is no answer, for a reason that may have passed when others ask: they ask for themselves, all at once, since one
    /// after the other each would wait for those before.
    pub fn released(self) {
        self.flight.state.lock().stage = Stage::Declined;
        // Dropping it ends the flight.
    }

    /// The answer is not for others: they ask for themselves, now and for a while.
    pub fn declined(self) {
        let hash = self.flights.hash(&self.key);
        self.flight.state.lock().stage = Stage::Declined;
        if let Some(shard) = self.flights.shard(hash) {
            shard.lock().decline(hash);
        }
        // Dropping it ends the flight.
    }
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lead({})", String::from_utf8_lossy(&self.key))
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Some(shard) = self.flights.shard(self.flights.hash(&self.key)) else { return };
        let mut shard = shard.lock();
        let mut state = self.flight.state.lock();
        match state.stage {
            Stage::Asked if state.followers > 0 => {
                state.stage = Stage::Vacant;
                self.flight.changed.notify_one();
            }
            Stage::Declined => {
                shard.remove(&self.key, &self.flight);
                self.flight.changed.notify_waiters();
            }
            _ => shard.remove(&self.key, &self.flight),
        }
    }
}

/// Waits for what another has asked.
pub struct Follow {
    flights: Arc<Flights>,
    key: Box<[u8]>,
    flight: Arc<Flight>,
}

impl Follow {
    /// Waits for an answer that these request fields select, but not longer than `limit`.
    pub async fn wait(self, headers: &HeaderMap, limit: Duration) -> Followed {
        match timeout(limit, self.stage()).await {
            Ok(Stage::Answered(stored)) if stored.is_selected_by(headers) => Followed::Answer(stored),
            Ok(Stage::Answered(stored)) => Followed::OtherVariant(stored),
            Ok(Stage::Vacant) => Followed::Lead(self.flights.leader(&self.key, self.flight.clone())),
            _ => Followed::Alone,
        }
    }

    /// What has become of the question; after `Vacant` it is this one's.
    async fn stage(&self) -> Stage {
        loop {
            let changed = self.flight.changed.notified();
            {
                let mut state = self.flight.state.lock();
                match &state.stage {
                    Stage::Asked => {}
                    Stage::Vacant => {
                        state.stage = Stage::Asked;
                        return Stage::Vacant;
                    }
                    stage => return stage.clone(),
                }
            }
            changed.await;
        }
    }
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Follow({})", String::from_utf8_lossy(&self.key))
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let Some(shard) = self.flights.shard(self.flights.hash(&self.key)) else { return };
        let mut shard = shard.lock();
        let mut state = self.flight.state.lock();
        state.followers -= 1;
        match (state.followers, &state.stage) {
            (0, Stage::Vacant) => shard.remove(&self.key, &self.flight),
            // The one that was told may have left at that very moment.
            (_, Stage::Vacant) => self.flight.changed.notify_one(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
