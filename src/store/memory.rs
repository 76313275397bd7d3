//! The store in memory: all demands of a request decided together, under the locks of the shards they fall on.

use super::cycle::Window;
use super::gcra::Tat;
use super::prepared::{CounterId, Counting, Kind};
use super::quotas::{Entry, Quotas};
use super::rates::{Counter, Rates};
use super::{Demand, Limit, Outcome, Outcomes};
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Shards of a large store: enough that two requests seldom want the same.
const SHARDS: usize = 64;
/// Most counters of a shard, unless the store is small: what fits into 4,096 places, so that growing and sweeping hold the
/// lock for microseconds only.
const SHARD_SIZE: usize = 3_584;
/// Fewest counters of a shard, so that chance does not fill one of a small store long before the others.
const SHARD_LEAST: usize = 64;

/// The time, in whole microseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Counters of limits and quotas. Outlives reloads: limits come and go with the demands, counters are found by name.
#[derive(Debug)]
pub struct Memory {
    shards: Box<[Shard]>,
    /// Most counters of a shard, of either kind.
    most: AtomicUsize,
    evicted: AtomicU64,
    told: AtomicBool,
}

/// On cache lines of its own, so that neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Counters>);

#[derive(Debug, Default)]
struct Counters {
    rates: Rates,
    quotas: Quotas,
}

impl Memory {
    /// A store of at most `max_keys` counters of rates and as many of quotas.
    ///
    /// The bound is kept in each shard, so that the first counter in use may be dropped when the store is full to 90 %.
    pub fn new(max_keys: usize) -> Self {
        let max_keys = max_keys.max(1);
        let shards = match max_keys.div_ceil(SHARD_SIZE) {
            few if few < SHARDS => (max_keys / SHARD_LEAST).clamp(1, SHARDS),
            many => many,
        };
        let most = AtomicUsize::new(max_keys / shards);
        let shards = std::iter::repeat_with(Shard::default).take(shards).collect();
        Memory { shards, most, evicted: AtomicU64::new(0), told: AtomicBool::new(false) }
    }

    /// Changes the bound. A lower one is reached as new keys come, each taking the place of two.
    pub fn set_max_keys(&self, max_keys: usize) {
        self.most.store((max_keys / self.shards.len()).max(1), Ordering::Relaxed);
    }

    /// Decides on all demands together, `now` being in microseconds since 1970, and counts them if none is refused but
    /// those that are only watched.
    ///
    /// If one is refused, nothing is counted, and the outcomes of the others say what there is without it.
    pub fn take(&self, now: u64, demands: &[Demand<'_>]) -> Outcomes {
        if let [demand] = demands {
            return self.take_one(now, demand);
        }
        let mut wants = self.wants(demands);
        let mut locked = self.lock(&wants);
        decide(&mut wants, &locked, now);
        if wants.iter().all(Want::passes) {
            for want in &wants {
                if let Some(counters) = locked.counters_mut(want.shard) {
                    self.count(want, counters, now);
                }
            }
        } else {
            wants.iter_mut().for_each(|want| want.state = want.found);
        }
        drop(locked);
        wants.iter().map(|want| want.outcome(now)).collect()
    }

    /// What [`take`](Self::take) would say of each demand, of `remaining` and `used` as they are now. Nothing is counted.
    pub fn peek(&self, now: u64, demands: &[Demand<'_>]) -> Outcomes {
        let mut wants = self.wants(demands);
        let locked = self.lock(&wants);
        decide(&mut wants, &locked, now);
        drop(locked);
        wants.iter_mut().for_each(|want| want.state = want.found);
        wants.iter().map(|want| want.outcome(now)).collect()
    }

    /// Sets the counter of `key` to unused.
    pub fn reset(&self, limit: &Limit, key: &[u8]) {
        let id = limit.prepared().counter(key);
        if let Some(shard) = self.shards.get(self.shard(id)) {
            let mut counters = shard.0.lock();
            counters.rates.remove(id);
            counters.quotas.clear(id);
        }
    }

    /// Forgets counters that have nothing to tell any more and gives memory back; holds one shard at a time.
    pub fn sweep(&self, now: u64) {
        for shard in &self.shards {
            let mut counters = shard.0.lock();
            counters.rates.sweep(now);
            counters.quotas.sweep(now);
        }
    }

    /// How many counters there are, of both kinds.
    pub fn keys(&self) -> usize {
        let keys = |counters: &Counters| counters.rates.len() + counters.quotas.len();
        self.shards.iter().map(|shard| keys(&shard.0.lock())).sum()
    }

    /// How many counters were dropped while in use, because there were too many.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// What quotas have counted since the last time this was asked, or all of it.
    pub(super) fn write<E>(
        &self,
        now: u64,
        whole: bool,
        encode: impl Fn(&Entry<'_>, &mut Vec<u8>),
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut encoded = Vec::new();
        for shard in &self.shards {
            encoded.clear();
            let mut counters = shard.0.lock();
            match whole {
                true => counters.quotas.all(now, |entry| encode(entry, &mut encoded)),
                false => counters.quotas.changes(|entry| encode(entry, &mut encoded)),
            }
            // The shard must not be locked while the disk works.
            drop(counters);
            if !encoded.is_empty() {
                write(&encoded)?;
            }
        }
        Ok(())
    }

    /// Tells of every counter of a rate that is not idle.
    pub(super) fn each_rate(&self, now: u64, mut tell: impl FnMut(&Counter)) {
        for shard in &self.shards {
            shard.0.lock().rates.each(now, &mut tell);
        }
    }

    /// Takes over a counter of a rate.
    pub(super) fn put_rate(&self, counter: Counter, now: u64) {
        if let Some(shard) = self.shards.get(self.shard(counter.id())) {
            let dropped = shard.0.lock().rates.set(counter.id(), counter.tat(), now, self.most());
            self.count_dropped(dropped, false);
        }
    }

    /// Tells of everything that quotas have counted and that still counts.
    pub(super) fn each_quota(&self, now: u64, mut tell: impl FnMut(&Entry<'_>)) {
        for shard in &self.shards {
            shard.0.lock().quotas.entries(now, &mut tell);
        }
    }

    /// Takes over what was written down under `name`, the one of the entry.
    pub(super) fn restore(&self, name: &Arc<str>, entry: &Entry<'_>, now: u64) {
        let id = CounterId::of(Kind::Quota, name, entry.key);
        if let Some(shard) = self.shards.get(self.shard(id)) {
            let dropped = shard.0.lock().quotas.restore(id, name, entry, (now, self.most()));
            self.count_dropped(dropped, true);
        }
    }

    /// What [`take`](Self::take) does, where there is nothing to be decided together: as for most requests, with half
    /// the instructions.
    fn take_one(&self, now: u64, demand: &Demand<'_>) -> Outcomes {
        let mut want = self.want(demand);
        if let Some(shard) = self.shards.get(want.shard) {
            let mut counters = shard.0.lock();
            want.find(&counters, now);
            want.decide(&counters, now);
            self.count(&want, &mut counters, now);
        }
        let mut outcomes = Outcomes::new();
        outcomes.push(want.outcome(now));
        outcomes
    }

    fn want<'d>(&self, demand: &'d Demand<'d>) -> Want<'d> {
        let id = demand.limit.prepared().counter(demand.key);
        let nothing = State::Rate(Tat::default());
        Want { demand, id, shard: self.shard(id), found: nothing, state: nothing, refused: None }
    }

    fn wants<'d>(&self, demands: &'d [Demand<'d>]) -> Wants<'d> {
        demands.iter().map(|demand| self.want(demand)).collect()
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Which shard: bits of the identity that the tables in the shards do not go by, scaled.
    fn shard(&self, id: CounterId) -> usize {
        let bits = (id.high >> 20) & u64::from(u32::MAX);
        ((bits * self.shards.len() as u64) >> 32) as usize
    }

    /// Locks the shards wanted, each once and in order, so that no two requests wait for each other.
    fn lock(&self, wants: &Wants<'_>) -> Locked<'_> {
        let mut order: SmallVec<[usize; 4]> = wants.iter().map(|want| want.shard).collect();
        order.sort_unstable();
        order.dedup();
        let lock = |at: usize| self.shards.get(at).map(|shard| (at, shard.0.lock()));
        Locked(order.into_iter().filter_map(lock).collect())
    }

    fn count(&self, want: &Want<'_>, counters: &mut Counters, now: u64) {
        if want.refused.is_some() {
            return;
        }
        let Demand { limit, key, cost, .. } = want.demand;
        match want.state {
            State::Rate(tat) => {
                let dropped = counters.rates.set(want.id, tat, now, self.most());
                self.count_dropped(dropped, false);
            }
            State::Quota { window, .. } => {
                let (amount, whose) = (u64::from(*cost), (&limit.name, *key));
                let dropped = counters.quotas.add(want.id, whose, window, amount, (now, self.most()));
                self.count_dropped(dropped, true);
            }
        }
    }

    fn count_dropped(&self, dropped: u64, quota: bool) {
        if dropped == 0 {
            return;
        }
        self.evicted.fetch_add(dropped, Ordering::Relaxed);
        if quota && !self.told.swap(true, Ordering::Relaxed) {
            log::warn!(
                "limits: more keys of quotas than `max_keys` allows; those whose cycle ends first are forgotten"
            );
        }
    }
}

type Wants<'d> = SmallVec<[Want<'d>; 4]>;

/// A demand on its way to an outcome.
struct Want<'d> {
    demand: &'d Demand<'d>,
    id: CounterId,
    shard: usize,
    /// The counter as it was.
    found: State,
    /// The counter with all that was granted so far; the same in all wants of one counter.
    state: State,
    /// When refused: until it could be granted.
    refused: Option<Duration>,
}

#[derive(Clone, Copy)]
enum State {
    Rate(Tat),
    Quota { window: Window, used: u64 },
}

/// Locked shards with their numbers, in order.
struct Locked<'a>(SmallVec<[(usize, MutexGuard<'a, Counters>); 4]>);

impl Locked<'_> {
    fn counters(&self, shard: usize) -> Option<&Counters> {
        self.0.iter().find(|(at, _)| *at == shard).map(|(_, counters)| &**counters)
    }

    fn counters_mut(&mut self, shard: usize) -> Option<&mut Counters> {
        self.0.iter_mut().find(|(at, _)| *at == shard).map(|(_, counters)| &mut **counters)
    }
}

/// First what can refuse the request, then what is only watched, so that the latter takes no room from the former where
/// both ask the same counter.
fn decide(wants: &mut Wants<'_>, locked: &Locked<'_>, now: u64) {
    for want in wants.iter_mut() {
        if let Some(counters) = locked.counters(want.shard) {
            want.find(counters, now);
        }
    }
    for shadow in [false, true] {
        for at in 0..wants.len() {
            let Some(want) = wants.get_mut(at).filter(|want| want.demand.shadow == shadow) else { continue };
            if let Some(counters) = locked.counters(want.shard) {
                want.decide(counters, now);
            }
            let (id, state) = (want.id, want.state);
            wants.iter_mut().filter(|want| want.id == id).for_each(|want| want.state = state);
        }
    }
}

impl Want<'_> {
    fn find(&mut self, counters: &Counters, now: u64) {
        self.found = match self.demand.limit.prepared().counting() {
            Counting::Rate(_) => State::Rate(counters.rates.tat(self.id)),
            Counting::Quota(quota) => {
                let window = quota.window(now);
                let used = counters.quotas.usage(self.id).map_or(0, |usage| usage.used(window));
                State::Quota { window, used }
            }
        };
        self.state = self.found;
    }

    fn decide(&mut self, counters: &Counters, now: u64) {
        let cost = self.demand.cost;
        match (self.demand.limit.prepared().counting(), self.state) {
            (Counting::Rate(pace), State::Rate(tat)) => {
                let decision = pace.decide(tat, now, cost);
                self.state = State::Rate(decision.tat);
                self.refused = (!decision.granted).then(|| pace.retry_after(tat, now, cost));
            }
            (Counting::Quota(quota), State::Quota { window, used }) => {
                let after = used.saturating_add(u64::from(cost));
                if after <= quota.count || quota.soft {
                    self.state = State::Quota { window, used: after };
                } else {
                    let usage = counters.quotas.usage(self.id);
                    let forgotten =
                        usage.map_or(window.end, |usage| usage.forgotten(window, after - quota.count));
                    let possible = u64::from(cost) <= quota.count;
                    self.refused = Some(if possible { until(forgotten, now) } else { Duration::MAX });
                }
            }
            // One identity is never of both kinds.
            (Counting::Rate(_), State::Quota { .. }) | (Counting::Quota(_), State::Rate(_)) => {}
        }
    }

    /// Whether the request may go on, as far as this demand is concerned.
    fn passes(&self) -> bool {
        self.refused.is_none() || self.demand.shadow
    }

    fn outcome(&self, now: u64) -> Outcome {
        let (granted, retry_after) = (self.refused.is_none(), self.refused.unwrap_or_default());
        match (self.demand.limit.prepared().counting(), self.state) {
            (Counting::Rate(pace), State::Rate(tat)) => {
                let (remaining, reset) = (pace.remaining(tat, now), pace.reset(tat, now));
                Outcome { granted, remaining, reset, retry_after, used: 0 }
            }
            (Counting::Quota(quota), State::Quota { window, used }) => {
                let (remaining, reset) = (quota.count.saturating_sub(used), until(window.end, now));
                Outcome { granted, remaining, reset, retry_after, used }
            }
            (Counting::Rate(_), State::Quota { .. }) | (Counting::Quota(_), State::Rate(_)) => {
                Outcome { granted, remaining: 0, reset: Duration::ZERO, retry_after, used: 0 }
            }
        }
    }
}

fn until(then: u64, now: u64) -> Duration {
    Duration::from_micros(then.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Cycle, Rule, TimeZone, Unit};
    use proptest::prelude::*;

    const NOW: u64 = 1_790_000_000_000_000;
    const SECOND: u64 = 1_000_000;
    const DAY: u64 = 86_400 * SECOND;

    fn rate(name: &str, count: u32, seconds: u64, burst: u32) -> Limit {
        Limit::new(name.into(), Rule::Rate { count, period: Duration::from_secs(seconds), burst })
    }

    fn quota(name: &str, count: u64, cycle: Cycle, soft: bool) -> Limit {
        Limit::new(name.into(), Rule::Quota { count, cycle, soft })
    }

    fn daily() -> Cycle {
        Cycle::Calendar(Unit::Day, TimeZone("UTC".into()))
    }

    fn demand<'a>(limit: &'a Limit, key: &'a [u8], cost: u32) -> Demand<'a> {
        Demand { limit, key, cost, shadow: false }
    }

    fn shadow<'a>(limit: &'a Limit, key: &'a [u8], cost: u32) -> Demand<'a> {
        Demand { limit, key, cost, shadow: true }
    }

    fn granted(outcomes: &Outcomes) -> Vec<bool> {
        outcomes.iter().map(|outcome| outcome.granted).collect()
    }

    #[test]
    fn burst_and_count_pass_and_the_next_is_told_when_to_come_back() {
        let (memory, limit) = (Memory::new(1_000), rate("a", 20, 1, 40));
        for left in (0..40).rev() {
            let outcome = memory.take(NOW, &[demand(&limit, b"me", 1)])[0];
            assert!(outcome.granted && outcome.remaining == left && outcome.retry_after.is_zero());
        }
        let refused = memory.take(NOW, &[demand(&limit, b"me", 2)])[0];
        let expected = Outcome {
            granted: false,
            remaining: 0,
            reset: Duration::from_secs(2),
            retry_after: Duration::from_millis(100),
            used: 0,
        };
        assert_eq!(refused, expected);
        assert!(
            memory.take(NOW, &[demand(&limit, b"you", 1)])[0].granted,
            "others have counters of their own"
        );
        assert!(!memory.take(NOW + 99_999, &[demand(&limit, b"me", 2)])[0].granted);
        assert!(memory.take(NOW + 100_000, &[demand(&limit, b"me", 2)])[0].granted);
        assert_eq!(memory.take(NOW, &[demand(&limit, b"me", 41)])[0].retry_after, Duration::MAX);
    }

    #[test]
    fn what_one_window_refuses_consumes_nothing_of_the_others() {
        let memory = Memory::new(1_000);
        let (second, hour) = (rate("second", 10, 1, 10), rate("hour", 5, 3_600, 5));
        let month = quota("month", 100, daily(), false);
        let ask =
            |key| memory.take(NOW, &[demand(&second, key, 1), demand(&hour, key, 1), demand(&month, key, 1)]);
        for _ in 0..5 {
            assert_eq!(granted(&ask(b"me")), [true, true, true]);
        }
        for _ in 0..20 {
            let outcomes = ask(b"me");
            assert_eq!(granted(&outcomes), [true, false, true]);
            assert_eq!((outcomes[0].remaining, outcomes[2].remaining, outcomes[2].used), (5, 95, 5));
        }
        assert_eq!(granted(&ask(b"you")), [true, true, true]);
    }

    #[test]
    fn what_is_watched_neither_blocks_nor_is_counted_when_the_request_is_refused() {
        let memory = Memory::new(1_000);
        let (hard, watched) = (rate("hard", 10, 1, 10), rate("watched", 3, 1, 3));
        let ask = |cost| memory.take(NOW, &[shadow(&watched, b"", 1), demand(&hard, b"", cost)]);
        assert_eq!(granted(&ask(11)), [true, false]);
        assert_eq!(memory.peek(NOW, &[shadow(&watched, b"", 1)])[0].remaining, 3);
        for number in 0..10 {
            assert_eq!(granted(&ask(1)), [number < 3, true]);
        }
        assert_eq!(granted(&ask(1)), [false, false]);
    }

    #[test]
    fn the_same_counter_twice_in_a_request_is_counted_twice_and_what_is_watched_comes_last() {
        let (memory, limit) = (Memory::new(1_000), rate("a", 10, 1, 3));
        let twice = [shadow(&limit, b"k", 1), demand(&limit, b"k", 2), demand(&limit, b"k", 1)];
        let outcomes = memory.take(NOW, &twice);
        assert_eq!(granted(&outcomes), [false, true, true]);
        assert!(outcomes.iter().all(|outcome| outcome.remaining == 0));
        assert_eq!(granted(&memory.take(NOW + 200_000, &twice[1..])), [true, false]);
        assert_eq!(memory.peek(NOW + 200_000, &twice[..1])[0].remaining, 2);

        let quota = quota("q", 3, daily(), false);
        let outcomes = memory.take(NOW, &[demand(&quota, b"k", 1), demand(&quota, b"k", 2)]);
        assert_eq!((granted(&outcomes), outcomes[0].used, outcomes[1].used), (vec![true, true], 3, 3));
    }

    #[test]
    fn peeking_and_resetting() {
        let memory = Memory::new(1_000);
        let (limit, quota) = (rate("a", 1, 60, 2), quota("q", 5, daily(), false));
        let both = [demand(&limit, b"k", 2), demand(&quota, b"k", 2)];
        for _ in 0..3 {
            let outcomes = memory.peek(NOW, &both);
            assert_eq!((outcomes[0].remaining, outcomes[1].remaining, outcomes[1].used), (2, 5, 0));
        }
        assert_eq!(memory.keys(), 0);
        assert_eq!(granted(&memory.take(NOW, &both)), [true, true]);
        assert_eq!(granted(&memory.peek(NOW, &both)), [false, true]);
        memory.reset(&limit, b"k");
        memory.reset(&quota, b"k");
        let outcomes = memory.peek(NOW, &both);
        assert_eq!((outcomes[0].remaining, outcomes[1].remaining), (2, 5));
    }

    #[test]
    fn a_quota_is_refused_when_used_up_and_begins_anew_with_the_day() {
        let (memory, limit) = (Memory::new(1_000), quota("q", 3, daily(), false));
        let noon = NOW - NOW % DAY + DAY / 2;
        assert_eq!(memory.take(noon, &[demand(&limit, b"k", 2)])[0].remaining, 1);
        let refused = memory.take(noon, &[demand(&limit, b"k", 2)])[0];
        let half_a_day = Duration::from_secs(43_200);
        let expected =
            Outcome { granted: false, remaining: 1, reset: half_a_day, retry_after: half_a_day, used: 2 };
        assert_eq!(refused, expected);
        assert_eq!(memory.take(noon, &[demand(&limit, b"k", 4)])[0].retry_after, Duration::MAX);
        assert!(!memory.take(noon + DAY / 2 - 1, &[demand(&limit, b"k", 2)])[0].granted);
        assert_eq!(memory.take(noon + DAY / 2, &[demand(&limit, b"k", 2)])[0].used, 2);
        let raised = quota("q", 4, daily(), false);
        assert_eq!(
            memory.take(noon + DAY / 2, &[demand(&raised, b"k", 2)])[0].used,
            4,
            "takes effect at once"
        );
    }

    #[test]
    fn a_soft_quota_grants_and_counts_beyond() {
        let (memory, limit) = (Memory::new(1_000), quota("q", 3, daily(), true));
        for used in [2, 4, 6] {
            let outcome = memory.take(NOW, &[demand(&limit, b"k", 2)])[0];
            assert!(
                outcome.granted && outcome.used == used && outcome.remaining == 3_u64.saturating_sub(used)
            );
        }
        assert!(memory.take(NOW, &[demand(&limit, b"k", u32::MAX)])[0].granted);
    }

    #[test]
    fn the_bound_holds_and_what_is_dropped_in_use_is_counted() {
        for most in [1, 10, 1_000, 300_000] {
            let (memory, limit) = (Memory::new(most), rate("a", 1, 86_400, 2));
            for key in 0..(most as u64) * 2 {
                memory.take(NOW, &[demand(&limit, &key.to_le_bytes(), 1)]);
            }
            assert!(memory.keys() <= most && memory.keys() * 10 >= most * 9, "{} of {most}", memory.keys());
            assert_eq!(memory.evicted(), (most * 2 - memory.keys()) as u64);
            memory.sweep(NOW + 2 * DAY);
            assert_eq!(memory.keys(), 0);
        }
        let (memory, limit) = (Memory::new(100), quota("q", 1, daily(), false));
        for key in 0..1_000_u64 {
            memory.take(NOW, &[demand(&limit, &key.to_le_bytes(), 1)]);
        }
        assert!(memory.keys() <= 100 && memory.evicted() >= 900);
    }

    #[test]
    fn the_bound_can_be_changed() {
        let (memory, limit) = (Memory::new(10_000), rate("a", 1, 86_400, 2));
        let fill = |keys: std::ops::Range<u64>| {
            for key in keys {
                memory.take(NOW, &[demand(&limit, &key.to_le_bytes(), 1)]);
            }
        };
        fill(0..20_000);
        memory.set_max_keys(1_000);
        fill(20_000..40_000);
        assert!(memory.keys() <= 1_000);
        memory.set_max_keys(100_000);
        fill(40_000..80_000);
        assert!(memory.keys() >= 40_000);
    }

    /// Several threads want overlapping sets of shards in all orders; together they get no more than the law allows.
    #[test]
    fn threads_together_get_no_more_than_the_law_and_never_wait_for_each_other() {
        const BURST: u32 = 500;
        const STEPS: u64 = 20_000;
        let memory = Memory::new(100_000);
        let limits: Vec<Limit> = (0..4).map(|at| rate(&format!("limit {at}"), 1_000, 1, BURST)).collect();
        let total = quota("total", 100_000, daily(), false);
        let granted: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let (memory, limits, total, granted) = (&memory, &limits, &total, &granted);
                scope.spawn(move || {
                    for step in 0..STEPS {
                        let which = (step as usize + thread) % 3;
                        let key = [which as u8];
                        let mut demands: Vec<_> = limits.iter().map(|limit| demand(limit, &key, 1)).collect();
                        demands.push(demand(total, &key, 1));
                        demands.rotate_left((step as usize * 3 + thread) % 5);
                        // 100 µs a step: two seconds in all, each thread at a time of its own.
                        if memory.take(NOW + step * 100, &demands).iter().all(|outcome| outcome.granted) {
                            granted[which].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        for (which, granted) in granted.iter().enumerate() {
            let granted = granted.load(Ordering::Relaxed);
            assert!(granted <= 1_000 * 2 + u64::from(BURST), "{granted}");
            assert!(granted >= u64::from(BURST), "{granted}");
            let counted = memory.peek(NOW, &[demand(&total, &[which as u8], 1)])[0].used;
            assert_eq!(counted, granted, "the quota has counted just what passed");
        }
    }

    /// After how long, and of which limits how much, watched or not.
    type Ask = (u64, Vec<(usize, u32, bool)>);

    fn asks() -> impl Strategy<Value = Vec<Ask>> {
        let demand = (0_usize..5, 1_u32..4, prop::bool::weighted(0.3));
        let after = prop_oneof![Just(0_u64), 0_u64..400_000, 0_u64..3_000_000_000];
        prop::collection::vec((after, prop::collection::vec(demand, 1..5)), 1..60)
    }

    proptest! {
        /// Against a model that knows nothing but single counters: all or nothing, shadows apart, whatever the mix.
        #[test]
        fn all_or_nothing(asks in asks()) {
            let limits = [
                rate("a", 3, 1, 4),
                rate("b", 7, 60, 5),
                quota("c", 9, daily(), false),
                quota("d", 6, Cycle::Rolling(Duration::from_secs(600)), false),
                quota("e", 2, daily(), true),
            ];
            let (memory, model) = (Memory::new(1_000), Memory::new(1_000));
            let mut now = NOW;
            for (after, wanted) in asks {
                now += after;
                let mut seen = Vec::new();
                let wanted: Vec<_> = wanted.into_iter().filter(|(at, ..)| !seen.contains(at) && { seen.push(*at); true }).collect();
                let demands: Vec<_> = wanted.iter()
                    .map(|(at, cost, shadow)| Demand { limit: &limits[*at], key: b"k", cost: *cost, shadow: *shadow })
                    .collect();
                let outcomes = memory.take(now, &demands);
                let alone: Vec<_> = demands.iter().map(|demand| model.peek(now, std::slice::from_ref(demand))[0]).collect();
                let passes = demands.iter().zip(&alone).all(|(demand, outcome)| outcome.granted || demand.shadow);
                for ((demand, alone), outcome) in demands.iter().zip(&alone).zip(&outcomes) {
                    prop_assert_eq!(alone.granted, outcome.granted);
                    prop_assert_eq!(alone.retry_after, outcome.retry_after);
                    let expected = match passes && alone.granted {
                        true => model.take(now, std::slice::from_ref(demand))[0],
                        false => *alone,
                    };
                    prop_assert_eq!(expected, *outcome);
                }
            }
        }

        /// Checked for every pair of grants: within the time never more than the quota; and `retry_after` is exact.
        #[test]
        fn a_rolling_quota_is_never_exceeded(
            asks in prop::collection::vec((prop_oneof![0_u64..1_000, 0_u64..400_000], 1_u32..6), 1..150),
            count in 1_u64..30,
        ) {
            const TIME: u64 = 1_000_000;
            let memory = Memory::new(1_000);
            let limit = quota("r", count, Cycle::Rolling(Duration::from_micros(TIME)), false);
            let (mut now, mut grants) = (NOW, Vec::new());
            for (after, cost) in asks {
                now += after;
                let one = [demand(&limit, b"k", cost)];
                let outcome = memory.take(now, &one)[0];
                if outcome.granted {
                    grants.push((now, u64::from(cost)));
                } else if outcome.retry_after != Duration::MAX {
                    let then = now + outcome.retry_after.as_micros() as u64;
                    prop_assert!(memory.peek(then, &one)[0].granted);
                    prop_assert!(!memory.peek(then - 1, &one)[0].granted);
                    prop_assert!(then <= now + TIME + TIME / 64 + 1);
                }
            }
            for (at, (first, _)) in grants.iter().enumerate() {
                let within = grants[at..].iter().take_while(|(time, _)| time - first <= TIME);
                prop_assert!(within.map(|(_, cost)| cost).sum::<u64>() <= count);
            }
        }
    }
}
