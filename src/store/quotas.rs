//! The counters of quotas in one shard: what was used, by whom and when, and what of it has yet to be written down.

use super::cycle::Window;
use super::prepared::CounterId;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::sync::Arc;

/// Accounts compared for the one to be dropped when the table is full, and looked at whenever one is added.
const SAMPLED: usize = 8;

/// What one counter used, by slot: nearly always one, or up to 65 slices of a rolling time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    slots: SmallVec<[(u64, u64); 1]>,
    /// When all of it counts no more.
    end: u64,
}

impl Usage {
    /// How much counts in `window`.
    pub fn used(&self, window: Window) -> u64 {
        let counting = self.slots.iter().filter(|(slot, _)| window.counts(*slot));
        counting.fold(0, |sum, (_, used)| sum.saturating_add(*used))
    }

    /// When at least `enough` of it will count no more.
    pub fn forgotten(&self, window: Window, enough: u64) -> u64 {
        let mut sum: u64 = 0;
        for (slot, used) in self.slots.iter().filter(|(slot, _)| window.counts(*slot)) {
            sum = sum.saturating_add(*used);
            if sum >= enough {
                return window.forgotten(*slot);
            }
        }
        window.end
    }

    fn add(&mut self, window: Window, amount: u64) {
        self.slots.retain(|(slot, _)| window.counts(*slot));
        self.slot(window.slot, |used| used.saturating_add(amount));
        self.end = window.end;
    }

    /// Changes what was used in a slot. Slots stay in order.
    fn slot(&mut self, slot: u64, change: impl FnOnce(u64) -> u64) {
        match self.slots.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(at) => {
                if let Some((_, used)) = self.slots.get_mut(at) {
                    *used = change(*used);
                }
            }
            Err(at) => self.slots.insert(at, (slot, change(0))),
        }
    }
}

/// One line of the journal: what a counter has used in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub name: &'a str,
    pub key: &'a [u8],
    pub slot: u64,
    pub used: u64,
    /// When all that the counter used counts no more.
    pub end: u64,
}

#[derive(Debug)]
struct Account {
    id: CounterId,
    name: Arc<str>,
    key: Box<[u8]>,
    usage: Usage,
    /// The first slot that is not written down as it is; [`u64::MAX`] when all are.
    changed: u64,
}

/// Counters of quotas, with a list of those that have changed.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    table: HashTable<Account>,
    changed: Vec<CounterId>,
    next: usize,
}

impl Quotas {
    /// What a counter has used.
    pub fn usage(&self, id: CounterId) -> Option<&Usage> {
        self.table.find(id.high, |account| account.id == id).map(|account| &account.usage)
    }

    /// Adds to what a counter has used. Of more than `most` some are dropped; gives how many of these still counted.
    pub fn add(
        &mut self,
        id: CounterId,
        (name, key): (&Arc<str>, &[u8]),
        window: Window,
        amount: u64,
        (now, most): (u64, usize),
    ) -> u64 {
        let dropped = self.open(id, (name, key), now, most);
        self.change(id, window.slot, |usage| usage.add(window, amount));
        dropped
    }

    /// Takes over what was written down. Of one slot the last counts.
    pub fn restore(
        &mut self,
        id: CounterId,
        name: &Arc<str>,
        entry: &Entry<'_>,
        (now, most): (u64, usize),
    ) -> u64 {
        let dropped = self.open(id, (name, entry.key), now, most);
        if let Some(account) = self.table.find_mut(id.high, |account| account.id == id) {
            account.usage.slot(entry.slot, |_| entry.used);
            account.usage.end = account.usage.end.max(entry.end);
        }
        dropped
    }

    /// Sets what a counter has used to nothing.
    pub fn clear(&mut self, id: CounterId) {
        self.change(id, 0, |usage| usage.slots.iter_mut().for_each(|(_, used)| *used = 0));
    }

    /// Gives what has changed since the last time.
    pub fn changes(&mut self, mut write: impl FnMut(&Entry<'_>)) {
        for id in std::mem::take(&mut self.changed) {
            if let Some(account) = self.table.find_mut(id.high, |account| account.id == id) {
                account.entries(account.changed, &mut write);
                account.changed = u64::MAX;
            }
        }
    }

    /// Gives all that still counts; nothing counts as changed afterwards.
    pub fn all(&mut self, now: u64, mut write: impl FnMut(&Entry<'_>)) {
        self.entries(now, &mut write);
        self.changed = Vec::new();
        self.table.iter_mut().for_each(|account| account.changed = u64::MAX);
    }

    /// Tells of all that still counts.
    pub fn entries(&self, now: u64, tell: &mut impl FnMut(&Entry<'_>)) {
        for account in self.table.iter().filter(|account| account.usage.end > now) {
            account.entries(0, &mut |entry| {
                if entry.used > 0 {
                    tell(entry)
                }
            });
        }
    }

    /// Forgets the counters whose cycle is over, and gives memory back when little of it is used.
    pub fn sweep(&mut self, now: u64) {
        self.table.retain(|account| account.usage.end > now);
        if self.table.len() < self.table.capacity() / 4 {
            self.table.shrink_to(self.table.len() * 2, |account| account.id.high);
        }
    }

    /// How many counters there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Makes sure that there is an account.
    fn open(&mut self, id: CounterId, (name, key): (&Arc<str>, &[u8]), now: u64, most: usize) -> u64 {
        if self.usage(id).is_some() {
            return 0;
        }
        // Two, so that a bound that was lowered is reached.
        let dropped = (0..2).filter(|_| self.table.len() >= most && self.drop_one(now)).count() as u64;
        let (name, key, usage) = (Arc::clone(name), Box::from(key), Usage::default());
        let account = Account { id, name, key, usage, changed: u64::MAX };
        self.table.insert_unique(id.high, account, |account| account.id.high);
        dropped
    }

    fn change(&mut self, id: CounterId, slot: u64, change: impl FnOnce(&mut Usage)) {
        let Some(account) = self.table.find_mut(id.high, |account| account.id == id) else { return };
        change(&mut account.usage);
        let listed = account.changed != u64::MAX;
        account.changed = account.changed.min(slot);
        if !listed {
            self.changed.push(id);
            self.tidy_changed();
        }
    }

    /// Where nobody asks for changes, the list must not grow with counters that are long gone.
    fn tidy_changed(&mut self) {
        if self.changed.len() > 2 * self.table.len() + 64 {
            let table = &self.table;
            self.changed.retain(|id| table.find(id.high, |account| account.id == *id).is_some());
        }
    }

    /// Drops the one of a few whose cycle ends first.
    fn drop_one(&mut self, now: u64) -> bool {
        let (mut best, mut seen) = (None, 0);
        for _ in 0..self.table.num_buckets() {
            let place = if self.next < self.table.num_buckets() { self.next } else { 0 };
            self.next = place + 1;
            let Some(account) = self.table.get_bucket(place) else { continue };
            if best.is_none_or(|(end, _)| account.usage.end < end) {
                best = Some((account.usage.end, place));
            }
            seen += 1;
            if seen == SAMPLED {
                break;
            }
        }
        let Some((end, place)) = best else { return false };
        if let Ok(found) = self.table.get_bucket_entry(place) {
            found.remove();
        }
        end > now
    }
}

impl Account {
    fn entries(&self, since: u64, write: &mut impl FnMut(&Entry<'_>)) {
        for (slot, used) in self.usage.slots.iter().filter(|(slot, _)| *slot >= since) {
            let (name, key, end) = (&*self.name, &*self.key, self.usage.end);
            write(&Entry { name, key, slot: *slot, used: *used, end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> CounterId {
        CounterId { high: number.wrapping_mul(0x9E37_79B9_7F4A_7C15), low: number }
    }

    fn window(slot: u64) -> Window {
        Window { since: slot.saturating_sub(64), slot, end: slot + 65 }
    }

    fn changes(quotas: &mut Quotas) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        quotas.changes(|entry| found.push((entry.slot, entry.used)));
        found
    }

    #[test]
    fn slots_are_summed_and_forgotten_one_by_one() {
        let mut usage = Usage::default();
        for slot in [100, 100, 110, 120] {
            usage.add(window(slot), 2);
        }
        assert_eq!((usage.used(window(120)), usage.used(window(165)), usage.used(window(175))), (8, 4, 2));
        let forgotten = [1, 4, 5, 8, 9].map(|enough| usage.forgotten(window(120), enough));
        assert_eq!(forgotten, [165, 165, 175, 185, 185]);
        usage.add(window(170), 1);
        assert_eq!((usage.used(window(170)), usage.slots.len()), (5, 3));
    }

    #[test]
    fn only_slots_that_have_changed_are_given_and_only_once() {
        let (mut quotas, name): (_, Arc<str>) = (Quotas::default(), "plan".into());
        for slot in [100, 110, 110] {
            quotas.add(id(1), (&name, b"k"), window(slot), 2, (slot, 10));
        }
        assert_eq!(changes(&mut quotas), [(100, 2), (110, 4)]);
        assert!(changes(&mut quotas).is_empty());
        quotas.add(id(1), (&name, b"k"), window(115), 1, (115, 10));
        assert_eq!(changes(&mut quotas), [(115, 1)]);
        quotas.clear(id(1));
        assert_eq!(changes(&mut quotas), [(100, 0), (110, 0), (115, 0)]);
        quotas.all(116, |_| panic!("nothing is used"));
    }

    #[test]
    fn the_list_of_changes_does_not_outgrow_the_table() {
        let (mut quotas, name): (_, Arc<str>) = (Quotas::default(), "plan".into());
        for number in 0..10_000 {
            quotas.add(id(number), (&name, b"k"), window(number), 1, (number, 20));
        }
        assert!(quotas.len() == 20 && quotas.changed.len() <= 104 && changes(&mut quotas).len() == 20);
        quotas.sweep(20_000);
        assert_eq!(quotas.len(), 0);
    }
}
