//! Against guessing: an address whose credentials fail again and again is turned away for a while, each time longer.

use super::document;
use super::generations::Generations;
use crate::value::Span;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Addresses remembered at most; those heard of the longest time ago are forgotten first.
const ADDRESSES: usize = 100_000;
/// Parts with a lock of their own.
const SHARDS: usize = 16;
/// A block can double this often.
const DOUBLINGS: u32 = 20;

/// Counts failures for each client address, all of an IPv6 /64 as one, and says who is turned away.
pub struct Guard {
    rules: Rules,
    born: Instant,
    /// When the last block ends, in milliseconds after `born`; 0 when there is none.
    blocked_until: AtomicU64,
    /// Until when any count means something; 0 when there is none.
    counted_until: AtomicU64,
    hasher: foldhash::quality::RandomState,
    shards: [Mutex<Generations<Source, Record>>; SHARDS],
    blocks: AtomicU64,
}

#[derive(PartialEq, Eq)]
struct Rules {
    failures: u32,
    within: u64,
    block: u64,
    max_block: u64,
}

/// What counts as one client: an IPv4 address, or the /64 that one customer usually has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6(u64),
}

/// What is known of a client. Times are milliseconds after the guard's birth.
#[derive(Clone, Copy, Default)]
struct Record {
    failures: u32,
    /// When these failures began.
    since: u64,
    /// When its last block ends.
    until: u64,
    /// How often it was blocked in a row.
    blocks: u32,
}

impl From<&document::Guard> for Guard {
    fn from(written: &document::Guard) -> Self {
        let millis = |span: Span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX / 4);
        Guard::new(Rules {
            failures: written.failures.map_or(10, |failures| *failures),
            within: millis(written.within.map_or(Span::secs(60), |within| *within)),
            block: millis(written.first_block()),
            max_block: millis(written.longest_block()),
        })
    }
}

impl Guard {
    fn new(rules: Rules) -> Self {
        Guard {
            rules,
            born: Instant::now(),
            blocked_until: AtomicU64::new(0),
            counted_until: AtomicU64::new(0),
            hasher: foldhash::quality::RandomState::default(),
            shards: std::array::from_fn(|_| Mutex::new(Generations::new(ADDRESSES / SHARDS))),
            blocks: AtomicU64::new(0),
        }
    }

    /// Whether another guard is as strict.
    pub fn has_rules_of(&self, other: &Guard) -> bool {
        self.rules == other.rules
    }

    /// How much longer this client is turned away. One relaxed load while nobody is.
    pub fn is_blocked(&self, ip: IpAddr) -> Option<Duration> {
        let source = self.look_at(&self.blocked_until, ip)?;
        let (until, now) = (self.shard(&source)?.lock().get(&source)?.until, self.now());
        until.checked_sub(now).filter(|left| *left > 0).map(Duration::from_millis)
    }

    /// A credential from this client was not good.
    pub fn failed(&self, ip: IpAddr) {
        let (source, now) = (Source::from(ip), self.now());
        let Some(shard) = self.shard(&source) else { return };
        let mut shard = shard.lock();
        let mut record = shard.get(&source).copied().unwrap_or_default();
        if now < record.until {
            // Requests that were under way when the block began.
            return;
        }
        let blocked = record.fail(now, &self.rules);
        shard.put(source, record);
        drop(shard);
        if blocked {
            self.blocks.fetch_add(1, Ordering::Relaxed);
            self.blocked_until.fetch_max(record.until, Ordering::Relaxed);
        }
        self.counted_until.fetch_max(record.forgotten_at(&self.rules), Ordering::Relaxed);
    }

    /// A credential from this client was good: its failures are forgiven. How long its next block is stays, else a guesser
    /// with one good credential would never be blocked for longer.
    pub fn succeeded(&self, ip: IpAddr) {
        let Some(source) = self.look_at(&self.counted_until, ip) else { return };
        if let Some(shard) = self.shard(&source)
            && let Some(record) = shard.lock().get(&source)
        {
            record.failures = 0;
        }
    }

    /// Blocks since the start, for metrics.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// The client, unless nothing that lasts until this time can concern it any more.
    fn look_at(&self, until: &AtomicU64, ip: IpAddr) -> Option<Source> {
        let end = until.load(Ordering::Relaxed);
        if end == 0 {
            return None;
        }
        if end <= self.now() {
            // Somebody may have moved the end in the meantime; then it stays.
            let _ = until.compare_exchange(end, 0, Ordering::Relaxed, Ordering::Relaxed);
            return None;
        }
        Some(Source::from(ip))
    }

    fn shard(&self, source: &Source) -> Option<&Mutex<Generations<Source, Record>>> {
        self.shards.get(self.hasher.hash_one(source) as usize % SHARDS)
    }

    /// Never 0, which means never.
    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX / 2).saturating_add(1)
    }
}

impl Record {
    /// Counts a failure; `true` when it begins a block.
    fn fail(&mut self, now: u64, rules: &Rules) -> bool {
        if now >= self.until.saturating_add(rules.max_block) {
            self.blocks = 0;
        }
        if now >= self.since.saturating_add(rules.within) {
            (self.failures, self.since) = (0, now);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < rules.failures {
            return false;
        }
        let length = rules.block.saturating_mul(1 << self.blocks.min(DOUBLINGS)).min(rules.max_block);
        self.failures = 0;
        self.blocks = self.blocks.saturating_add(1);
        self.until = now.saturating_add(length);
        true
    }

    fn forgotten_at(&self, rules: &Rules) -> u64 {
        self.since.saturating_add(rules.within)
    }
}

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Source::V4(ip.octets()),
            IpAddr::V6(ip) => Source::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Positive, Spanned};

    fn guard(failures: u32) -> Guard {
        let written = document::Guard { failures: Positive::new(failures), ..document::Guard::default() };
        Guard::from(&written)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn fail(guard: &Guard, from: &str, times: u32) {
        (0..times).for_each(|_| guard.failed(ip(from)));
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn blocks_double_up_to_a_cap_and_are_forgotten() {
        let guard = guard(3);
        fail(&guard, "10.0.0.1", 2);
        assert_eq!(guard.is_blocked(ip("10.0.0.1")), None);
        for seconds in [60, 120, 240, 480, 900, 900] {
            fail(&guard, "10.0.0.1", 3);
            assert_eq!(guard.is_blocked(ip("10.0.0.1")), Some(Duration::from_secs(seconds)));
            assert_eq!(guard.is_blocked(ip("10.0.0.2")), None);
            fail(&guard, "10.0.0.1", 30);
            pass(seconds - 1).await;
            assert_eq!(guard.is_blocked(ip("10.0.0.1")), Some(Duration::from_secs(1)), "not made longer");
            pass(1).await;
            assert_eq!(guard.is_blocked(ip("10.0.0.1")), None);
        }
        assert_eq!(guard.blocks(), 6);
        pass(900).await;
        fail(&guard, "10.0.0.1", 3);
        assert_eq!(guard.is_blocked(ip("10.0.0.1")), Some(Duration::from_secs(60)), "a new beginning");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_count_within_a_window_and_until_a_success() {
        let guard = guard(3);
        fail(&guard, "10.0.0.1", 2);
        pass(60).await;
        fail(&guard, "10.0.0.1", 2);
        guard.succeeded(ip("10.0.0.2"));
        guard.succeeded(ip("10.0.0.1"));
        fail(&guard, "10.0.0.1", 2);
        assert_eq!(guard.is_blocked(ip("10.0.0.1")), None);
        fail(&guard, "10.0.0.1", 1);
        assert_eq!(guard.is_blocked(ip("10.0.0.1")), Some(Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn when_nothing_is_left_nothing_is_looked_up() {
        let guard = guard(1);
        fail(&guard, "10.0.0.1", 1);
        assert_ne!(guard.blocked_until.load(Ordering::Relaxed), 0);
        pass(60).await;
        guard.succeeded(ip("10.0.0.1"));
        assert_eq!(guard.is_blocked(ip("10.0.0.9")), None);
        let ends = [&guard.blocked_until, &guard.counted_until].map(|end| end.load(Ordering::Relaxed));
        assert_eq!(ends, [0, 0]);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_mapped_address_is_ipv4() {
        let guard = guard(2);
        fail(&guard, "2001:db8:0:1::1", 1);
        fail(&guard, "2001:db8:0:1:ffff::2", 1);
        assert!(guard.is_blocked(ip("2001:db8:0:1::3")).is_some());
        assert_eq!(guard.is_blocked(ip("2001:db8:0:2::1")), None);
        fail(&guard, "10.0.0.1", 1);
        fail(&guard, "::ffff:10.0.0.1", 1);
        assert!(guard.is_blocked(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let guard = guard(1);
        for number in 0..300_000_u32 {
            guard.failed(IpAddr::from(number.to_be_bytes()));
        }
        let held: usize = guard.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(held <= ADDRESSES, "{held}");
        assert!(guard.is_blocked(IpAddr::from(299_999_u32.to_be_bytes())).is_some());
        assert_eq!(guard.is_blocked(ip("0.0.0.0")), None, "the oldest is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_counts() {
        let written = document::Guard {
            failures: Positive::new(1),
            block: Positive::new(Span::secs(5)),
            max_block: Positive::new(Span::secs(5)).map(Spanned::built_in),
            ..document::Guard::default()
        };
        let guard = Guard::from(&written);
        for _ in 0..3 {
            fail(&guard, "10.0.0.1", 1);
            assert_eq!(
                guard.is_blocked(ip("10.0.0.1")),
                Some(Duration::from_secs(5)),
                "never above `max_block`"
            );
            pass(5).await;
        }
    }
}
