//! The cache as a whole: what is kept, what is on its way, and who waits for it.
//!
//! ```text
//! look_up ── Hit ──────────────────────────────► judge it, answer
//!    │
//!    └─ otherwise: join ─ Follow ─ wait ─ Answer ► judge it, answer from a body that may still be coming
//!              │                    │
//!              └─ Ask ◄─────────────┘
//!                  ├─ answered ► Fill: push … finish, kept when all of it has come
//!                  ├─ keep       after a 304: another head for a body that is there
//!                  ├─ declined   not for others
//!                  └─ dropped    the next follower asks
//! ```

use super::disk::{Disk, Settings};
use super::fill::{Budget, Filler};
use super::flight::{self, Flights, Lead};
use super::memory::{Held, Look, Memory};
use super::purge::{How, Purge, Purges, What};
use super::tiers::Tiers;
use super::{Body, Key, Stored, vary};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Share of the memory's size that bodies on their way may hold beside it: a quarter.
pub(super) const COMING: usize = 4;

/// How long a purge may take to reach the disk.
const SETTLE: Duration = Duration::from_secs(10);

/// The time, in milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// All stored answers. One for the process; outlives reloads.
pub struct Store {
    memory: Memory,
    flights: Arc<Flights>,
    purges: Arc<Purges>,
    disk: ArcSwapOption<Disk>,
    /// What the configuration says of it.
    settings: Mutex<Option<Settings>>,
    coming: Arc<Budget>,
    made: [AtomicU64; What::WORDS.len()],
}

/// What a request that has found nothing does.
#[derive(Debug)]
pub enum Joined {
    /// It asks the origin.
    Ask(Ask),
    /// Another one does; it can wait for that.
    Follow(Follow),
}

/// What a follower has waited for.
#[derive(Debug)]
pub enum Followed {
    /// An answer for it; the body may still be coming.
    Answer(Arc<Stored<Body>>),
    /// It asks the origin.
    Ask(Ask),
}

/// What is kept, as the admin listener tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// In memory.
    pub memory: Tier,
    /// On disk, where answers are kept there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<OnDisk>,
    /// Bytes of bodies on their way.
    pub filling_bytes: usize,
    /// Questions to the origin that others may wait for.
    pub asking: usize,
    /// Purges so far, by what was purged.
    pub purges: BTreeMap<String, u64>,
}

/// What the disk holds, and how it does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OnDisk {
    /// What it holds.
    #[serde(flatten)]
    pub tier: Tier,
    /// `ready`; `reading` while what is there is not known yet; `waiting` while another process uses the folder; `failing` after
    /// an error, until something is written again.
    pub state: String,
    /// Answers read so far.
    pub read: u64,
    /// Answers written so far.
    pub written: u64,
    /// Those not written or read because there was too much to do, or the disk was failing.
    pub skipped: u64,
    /// Those that could not be read.
    pub read_errors: u64,
    /// Those that could not be written or removed.
    pub write_errors: u64,
}

impl OnDisk {
    fn of(disk: &Disk) -> OnDisk {
        let counts = disk.counts();
        let so_far = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OnDisk {
            tier: Tier::of(disk.held()),
            state: disk.state().to_owned(),
            read: so_far(&counts.read),
            written: so_far(&counts.written),
            skipped: so_far(&counts.skipped),
            read_errors: so_far(&counts.read_errors),
            write_errors: so_far(&counts.write_errors),
        }
    }
}

impl Tier {
    fn of(held: Held) -> Tier {
        Tier {
            bytes: held.bytes as u64,
            most: held.most as u64,
            objects: held.objects as u64,
            evicted: held.evicted,
            purged: held.purged,
        }
    }
}

/// What one tier holds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Tier {
    /// Bytes.
    pub bytes: u64,
    /// Most bytes.
    pub most: u64,
    /// Stored answers.
    pub objects: u64,
    /// Those that had to leave for others so far.
    pub evicted: u64,
    /// Those that purges have met so far.
    pub purged: u64,
}

impl Store {
    /// Of so many bytes of memory.
    pub fn new(memory: usize) -> Arc<Store> {
        Arc::new(Store {
            memory: Memory::new(memory),
            flights: Arc::default(),
            purges: Arc::default(),
            disk: ArcSwapOption::empty(),
            settings: Mutex::new(None),
            coming: Arc::new(Budget::new(memory / COMING)),
            made: Default::default(),
        })
    }

    /// Keeps answers as another configuration says. Blocks.
    pub fn resize(&self, tiers: &Tiers) {
        self.set_memory(tiers.memory());
        self.set_disk(tiers.disk());
    }

    /// Changes how many bytes of memory there are.
    pub fn set_memory(&self, bytes: usize) {
        self.coming.set_most(bytes / COMING);
        self.memory.set_most(bytes, now());
    }

    /// Keeps answers on disk as well, or elsewhere than before, or no longer. Blocks.
    pub fn set_disk(&self, wanted: Option<Settings>) {
        let mut settings = self.settings.lock();
        if let (Some(wanted), Some(disk)) = (&wanted, &*self.disk.load())
            && wanted.path == disk.path()
        {
            disk.set_size(wanted.size);
        } else if wanted != *settings || self.disk.load().is_none() {
            if let Some(before) = self.disk.swap(None) {
                before.close();
            }
            self.disk.store(wanted.as_ref().and_then(|wanted| self.open(wanted)));
        }
        *settings = wanted;
    }

    fn open(&self, settings: &Settings) -> Option<Arc<Disk>> {
        let opened = Disk::open(settings, self.purges.clone(), self.coming.clone());
        opened.map(Arc::new).map_err(|error| log::error!("cache: no thread for the disk: {error}")).ok()
    }

    /// Lets another process use the disk. Blocks.
    pub fn release_disk(&self) {
        let _settings = self.settings.lock();
        if let Some(disk) = self.disk.swap(None) {
            disk.close();
        }
    }

    /// Uses the disk again after it was released. Blocks.
    pub fn take_back_disk(&self) {
        let settings = self.settings.lock().clone();
        self.set_disk(settings);
    }

    /// The newest answer on disk for a request of this key with these fields, whether it may be used or not; from then on it is
    /// in memory. To be asked when a look-up has found nothing; without a disk it gives nothing at once. A long body is still
    /// coming.
    pub async fn load(&self, key: &Key, headers: &HeaderMap) -> Option<Arc<Stored<Body>>> {
        let disk = self.disk.load_full()?;
        let made = self.purges.made();
        let stored = disk.get(&key.text, headers).await?;
        self.remember(&key.text, &stored, made);
        Some(stored)
    }

    /// The newest answer in memory for a request of this key with these fields, whether it may be used or not.
    pub fn look_up(&self, key: &Key, headers: &HeaderMap) -> Look {
        self.memory.get(&key.text, headers)
    }

    /// Asks the origin, or waits for whoever does.
    pub fn join(self: &Arc<Self>, key: &Key) -> Joined {
        // Purges from here on concern the answer.
        let made = self.purges.made();
        match self.flights.join(&key.text) {
            flight::Joined::Lead(lead) => Joined::Ask(self.ask(&key.text, Some(lead), made)),
            flight::Joined::Follow(follow) => {
                Joined::Follow(Follow { store: self.clone(), key: key.text.as_slice().into(), follow })
            }
            flight::Joined::Alone => Joined::Ask(self.ask(&key.text, None, made)),
        }
    }

    /// Asks the origin whoever else does: where a request must not wait for another's answer.
    pub fn alone(self: &Arc<Self>, key: &Key) -> Ask {
        self.ask(&key.text, None, self.purges.made())
    }

    /// Asks the origin unless somebody does: to validate in the background.
    pub fn renew(self: &Arc<Self>, key: &Key) -> Option<Ask> {
        let made = self.purges.made();
        self.flights.lead(&key.text).map(|lead| self.ask(&key.text, Some(lead), made))
    }

    fn ask(self: &Arc<Self>, key: &[u8], lead: Option<Lead>, made: u64) -> Ask {
        Ask { store: self.clone(), key: key.into(), lead, made }
    }

    /// The longest body that can be kept at all, in bytes.
    pub fn longest(&self) -> u64 {
        self.coming.most() as u64
    }

    /// A body for an answer that is coming; it is not kept when it gets longer than `most` bytes.
    pub fn body(&self, most: u64) -> (Body, Filler) {
        Body::coming(most, self.coming.clone())
    }

    /// Applies a purge to what is stored and to what is on its way. Gives how many stored answers it has met.
    pub fn purge(&self, purge: Purge) -> usize {
        let purge = Arc::new(purge);
        self.purges.add(purge.clone());
        self.count(&purge.what);
        let in_memory = self.memory.purge(&purge);
        // Most of what is in memory is on disk, too.
        self.disk.load().as_ref().map_or(0, |disk| disk.purge(&purge)).max(in_memory)
    }

    /// Waits until purges have reached the disk, so that no crash of the process undoes them; but not for long. Blocks.
    pub fn settle(&self) -> bool {
        self.disk.load_full().is_none_or(|disk| disk.settle(SETTLE))
    }

    fn count(&self, what: &What) {
        let number = What::WORDS.iter().position(|word| *word == what.word());
        if let Some(made) = number.and_then(|number| self.made.get(number)) {
            made.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is kept.
    pub fn stats(&self) -> Stats {
        let memory = self.memory.held();
        let made = self.made.iter().map(|made| made.load(Ordering::Relaxed));
        Stats {
            memory: Tier::of(memory),
            disk: self.disk.load().as_ref().map(|disk| OnDisk::of(disk)),
            filling_bytes: self.coming.held(),
            asking: self.flights.under_way(),
            purges: What::WORDS.into_iter().map(str::to_owned).zip(made).collect(),
        }
    }

    /// Keeps an answer that was asked for after `made` purges.
    fn keep(&self, key: &[u8], stored: &Arc<Stored<Body>>, made: u64) -> bool {
        let Some(kept) = self.remember(key, stored, made) else { return false };
        self.flights.accept(key);
        let written = self.disk.load().as_ref().is_some_and(|disk| disk.put(key, stored, made));
        kept || written
    }

    /// Keeps an answer in memory, if there is room for it; nothing when it was purged meanwhile.
    fn remember(&self, key: &[u8], stored: &Arc<Stored<Body>>, made: u64) -> Option<bool> {
        let since = || self.purges.since(made, key, &stored.url, &stored.tags);
        if since() == Some(How::Remove) {
            return None;
        }
        let kept = self.memory.put(key, stored.clone(), now());
        // A purge that came in between has not met it.
        match since() {
            None => {}
            Some(How::Remove) => {
                self.memory.forget(key, stored);
                return None;
            }
            Some(how) => stored.apply(how),
        }
        Some(kept)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({:?}, {:?})", self.memory.held(), self.flights)
    }
}

/// A request to the origin whose answer may be kept. Dropped, the next one who waits for it asks.
#[derive(Debug)]
pub struct Ask {
    store: Arc<Store>,
    key: Box<[u8]>,
    lead: Option<Lead>,
    made: u64,
}

impl Ask {
    /// Whether others may wait for the answer.
    pub fn leads(&self) -> bool {
        self.lead.is_some()
    }

    /// A body for the answer that is coming; see [`Store::body`].
    pub fn body(&self, most: u64) -> (Body, Filler) {
        self.store.body(most)
    }

    /// There is an answer to keep, made with a body of [`Store::body`] that comes through `filler`. Who waits gets it at once.
    pub fn answered(self, stored: Stored<Body>, filler: Filler) -> Fill {
        let stored = Arc::new(owned(stored));
        if let Some(lead) = &self.lead {
            lead.answered(stored.clone());
        }
        Fill { ask: self, stored, filler }
    }

    /// There is another head for a body that is whole (RFC 9111 section 4.3.4). Who waits gets it at once.
    pub fn keep(self, stored: Stored<Body>) -> Arc<Stored<Body>> {
        let stored = Arc::new(owned(stored));
        self.store.keep(&self.key, &stored, self.made);
        if let Some(lead) = &self.lead {
            lead.answered(stored.clone());
        }
        stored
    }

    /// The upstream has failed: those who wait ask for themselves.
    pub fn released(mut self) {
        if let Some(lead) = self.lead.take() {
            lead.released();
        }
    }

    /// The answer is not for others: those who wait ask for themselves, and nobody waits for this key for a while.
    pub fn declined(mut self) {
        if let Some(lead) = self.lead.take() {
            lead.declined();
        }
    }
}

/// An answer whose body is coming. Dropped before its end, it is broken and not kept.
#[derive(Debug)]
pub struct Fill {
    // Before the rest: whoever still waits must not wait for what is broken.
    filler: Filler,
    stored: Arc<Stored<Body>>,
    ask: Ask,
}

impl Fill {
    /// The answer.
    pub fn stored(&self) -> &Arc<Stored<Body>> {
        &self.stored
    }

    /// Appends to the body.
    pub fn push(&mut self, bytes: Bytes) {
        self.filler.push(bytes);
    }

    /// Whether the body is kept so far.
    pub fn is_kept(&self) -> bool {
        self.filler.is_kept()
    }

    /// Waits until somebody wants more; see [`Filler::room`].
    pub async fn room(&self) -> bool {
        self.filler.room().await
    }

    /// That was the whole body. Gives whether the answer is kept.
    pub fn finish(self) -> bool {
        let Fill { filler, stored, ask } = self;
        // Kept before the flight ends, so that who comes between finds one or the other.
        filler.finish(true) && ask.store.keep(&ask.key, &stored, ask.made)
    }
}

/// Waits for what another request asks the origin.
#[derive(Debug)]
pub struct Follow {
    store: Arc<Store>,
    key: Box<[u8]>,
    follow: flight::Follow,
}

impl Follow {
    /// Waits for an answer that these request fields select, but not longer than `limit` each time: those who want another
    /// variant than the one that came ask for it together, too.
    pub async fn wait(self, headers: &HeaderMap, limit: Duration) -> Followed {
        let Follow { store, key, follow } = self;
        let lead = match follow.wait(headers, limit).await {
            flight::Followed::Answer(stored) => return Followed::Answer(stored),
            flight::Followed::Lead(lead) => Some(lead),
            flight::Followed::Alone => None,
            flight::Followed::OtherVariant(other) => {
                match store.flights.join(&variant(&key, &other, headers)) {
                    flight::Joined::Lead(lead) => Some(lead),
                    flight::Joined::Alone => None,
                    flight::Joined::Follow(follow) => match follow.wait(headers, limit).await {
                        flight::Followed::Answer(stored) => return Followed::Answer(stored),
                        flight::Followed::Lead(lead) => Some(lead),
                        flight::Followed::OtherVariant(_) | flight::Followed::Alone => None,
                    },
                }
            }
        };
        // Nothing has been asked yet: only purges from here on concern the answer.
        let made = store.purges.made();
        Followed::Ask(store.ask(&key, lead, made))
    }
}

/// What requests have in common that want the same variant of a key, as far as another variant tells.
fn variant(key: &[u8], other: &Stored<Body>, headers: &HeaderMap) -> Vec<u8> {
    let mut variant = key.to_vec();
    // A key has no line that begins so.
    variant.extend_from_slice(b"\nv");
    for (name, _) in &other.vary {
        let value = vary::normal(headers, name);
        let len = value.as_ref().map_or(u64::MAX, |value| value.len() as u64);
        variant.extend_from_slice(&len.to_le_bytes());
        variant.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    variant
}

/// The same with fields of its own: as received they hold on to the whole buffer that they were read into.
fn owned(mut stored: Stored<Body>) -> Stored<Body> {
    let mut headers = HeaderMap::with_capacity(stored.head.headers.len());
    for (name, value) in &stored.head.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(mut own)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            own.set_sensitive(value.is_sensitive());
            headers.append(name, own);
        }
    }
    stored.head.headers = headers;
    stored.head.extensions = http::Extensions::new();
    stored
}

#[cfg(test)]
mod tests;
