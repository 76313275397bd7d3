//! The counters of rates in one shard: a bounded table of 24 bytes a counter.

use super::gcra::Tat;
use super::prepared::CounterId;
use hashbrown::HashTable;

/// Places looked at for idle counters whenever one is added: a table is gone through once in a quarter of its size.
const SWEPT: usize = 4;
/// Counters compared for the one to be dropped when the table is full.
const SAMPLED: usize = 8;

/// Counters of rates. A counter that was never counted on, one that is idle and none at all are the same.
#[derive(Debug, Default)]
pub(super) struct Rates {
    table: HashTable<Counter>,
    next: usize,
}

/// 96 bits of the identity are enough for a table of thousands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter {
    pub high: u64,
    pub micros: u64,
    pub low: u32,
    pub part: u32,
}

impl Counter {
    /// As much of its identity as is kept.
    pub fn id(&self) -> CounterId {
        CounterId { high: self.high, low: u64::from(self.low) }
    }

    /// Its state.
    pub fn tat(&self) -> Tat {
        Tat { micros: self.micros, part: self.part }
    }

    fn is(&self, id: CounterId) -> bool {
        self.high == id.high && self.low == low(id)
    }

    fn is_idle(&self, now: u64) -> bool {
        self.micros < now
    }
}

fn low(id: CounterId) -> u32 {
    (id.low & u64::from(u32::MAX)) as u32
}

impl Rates {
    /// The state of a counter.
    pub fn tat(&self, id: CounterId) -> Tat {
        let found = self.table.find(id.high, |counter| counter.is(id));
        found.map_or_else(Tat::default, Counter::tat)
    }

    /// Sets a counter. Of more than `most` some are dropped; gives how many of these were in use.
    pub fn set(&mut self, id: CounterId, tat: Tat, now: u64, most: usize) -> u64 {
        if let Some(counter) = self.table.find_mut(id.high, |counter| counter.is(id)) {
            (counter.micros, counter.part) = (tat.micros, tat.part);
            return 0;
        }
        self.sweep_some(now);
        // Two, so that a bound that was lowered is reached.
        let dropped = (0..2).filter(|_| self.table.len() >= most && self.drop_one(now)).count() as u64;
        let counter = Counter { high: id.high, micros: tat.micros, low: low(id), part: tat.part };
        self.table.insert_unique(id.high, counter, |counter| counter.high);
        dropped
    }

    /// Tells of every counter that is not idle.
    pub fn each(&self, now: u64, tell: &mut impl FnMut(&Counter)) {
        self.table.iter().filter(|counter| !counter.is_idle(now)).for_each(tell);
    }

    /// Forgets a counter.
    pub fn remove(&mut self, id: CounterId) {
        if let Ok(found) = self.table.find_entry(id.high, |counter| counter.is(id)) {
            found.remove();
        }
    }

    /// Forgets all idle counters, and gives memory back when little of it is used.
    pub fn sweep(&mut self, now: u64) {
        self.table.retain(|counter| !counter.is_idle(now));
        if self.table.len() < self.table.capacity() / 4 {
            self.table.shrink_to(self.table.len() * 2, |counter| counter.high);
        }
    }

    /// How many counters there are, idle ones that have not been met yet included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    fn sweep_some(&mut self, now: u64) {
        for _ in 0..SWEPT {
            let place = self.step();
            if self.table.get_bucket(place).is_some_and(|counter| counter.is_idle(now)) {
                self.drop_at(place);
            }
        }
    }

    /// Drops the one of a few that is nearest to being idle: it has the least to tell.
    fn drop_one(&mut self, now: u64) -> bool {
        let (mut best, mut seen) = (None, 0);
        for _ in 0..self.table.num_buckets() {
            let place = self.step();
            let Some(counter) = self.table.get_bucket(place) else { continue };
            if best.is_none_or(|(micros, _)| counter.micros < micros) {
                best = Some((counter.micros, place));
            }
            seen += 1;
            if seen == SAMPLED {
                break;
            }
        }
        let Some((micros, place)) = best else { return false };
        self.drop_at(place);
        micros >= now
    }

    fn drop_at(&mut self, place: usize) {
        if let Ok(found) = self.table.get_bucket_entry(place) {
            found.remove();
        }
    }

    /// The next place to look at, round and round.
    fn step(&mut self) -> usize {
        let place = if self.next < self.table.num_buckets() { self.next } else { 0 };
        self.next = place + 1;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000_000;

    fn id(number: u64) -> CounterId {
        CounterId { high: number.wrapping_mul(0x9E37_79B9_7F4A_7C15), low: number }
    }

    fn busy(ahead: u64) -> Tat {
        Tat { micros: NOW + ahead, part: 3 }
    }

    #[test]
    fn a_counter_is_found_again_and_can_be_forgotten() {
        let mut rates = Rates::default();
        assert_eq!(rates.tat(id(1)), Tat::default());
        rates.set(id(1), busy(5), NOW, 10);
        rates.set(id(1), busy(7), NOW, 10);
        assert_eq!((rates.tat(id(1)), rates.tat(id(2)), rates.len()), (busy(7), Tat::default(), 1));
        rates.remove(id(1));
        assert_eq!((rates.tat(id(1)), rates.len()), (Tat::default(), 0));
    }

    #[test]
    fn the_bound_holds_and_those_in_use_the_longest_stay() {
        let mut rates = Rates::default();
        let dropped: u64 = (0..10_000).map(|number| rates.set(id(number), busy(number), NOW, 100)).sum();
        assert_eq!((rates.len(), dropped), (100, 9_900));
        let late = (5_000..10_000).filter(|number| rates.tat(id(*number)) != Tat::default()).count();
        assert!(late > 90, "of 100 only {late} are of the later half");
    }

    #[test]
    fn idle_ones_make_room_for_nothing() {
        let mut rates = Rates::default();
        for number in 0..1_000 {
            assert_eq!(rates.set(id(number), busy(0), NOW, 1_000), 0);
        }
        for number in 1_000..100_000 {
            let tat = Tat { micros: NOW + number, part: 0 };
            assert_eq!(rates.set(id(number), tat, NOW + number, 1_000), 0);
        }
        assert!(rates.len() <= 1_000);
    }

    #[test]
    fn memory_shrinks_when_idle() {
        let mut rates = Rates::default();
        for number in 0..10_000 {
            rates.set(id(number), busy(number), NOW, usize::MAX);
        }
        let full = rates.table.allocation_size();
        rates.sweep(NOW + 9_901);
        assert_eq!(rates.len(), 99);
        assert!(rates.table.allocation_size() * 20 < full);
        assert_eq!(rates.tat(id(9_950)), busy(9_950));
        rates.sweep(u64::MAX);
        assert_eq!((rates.len(), rates.table.allocation_size()), (0, 0));
    }
}
