//! Counts over a sliding window, kept in a few slots: counting is one atomic addition, without a lock.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Into how many slots a window is cut: what is older than the window is forgotten a slot at a time.
const SLOTS: usize = 10;

/// Bits of a slot that count; those above tell which stretch of time it counts.
const COUNT: u64 = u32::MAX as u64;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Events within the last stretch of time.
pub(super) struct Window {
    /// Length of a slot in milliseconds.
    slot: u64,
    slots: [AtomicU64; SLOTS],
}

/// When an event was counted, so that it can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick(u64);

impl Window {
    /// Over this length, to a tenth of it. Lengths below 10 ms count as 10 ms.
    pub(super) fn new(length: Duration) -> Self {
        let slot = length.as_millis().div_ceil(SLOTS as u128);
        Window { slot: u64::try_from(slot).unwrap_or(u64::MAX).max(1), slots: Default::default() }
    }

    /// Counts one event.
    pub(super) fn add(&self, now: Instant) -> Tick {
        let tick = self.tick(now);
        let Some(slot) = self.slots.get(tick as usize % SLOTS) else { return Tick(tick) };
        let held = slot.load(Ordering::Relaxed);
        if held >> 32 == tick {
            slot.fetch_add(1, Ordering::Relaxed);
        } else {
            // Whoever comes second finds the slot renewed; an event lost to a third is none too many.
            let renewed = slot.compare_exchange(held, (tick << 32) | 1, Ordering::Relaxed, Ordering::Relaxed);
            if renewed.is_err() {
                slot.fetch_add(1, Ordering::Relaxed);
            }
        }
        Tick(tick)
    }

    /// Takes an event back, unless it is too old to count.
    pub(super) fn take_back(&self, Tick(tick): Tick) {
        let Some(slot) = self.slots.get(tick as usize % SLOTS) else { return };
        let less = |held: u64| (held >> 32 == tick && held & COUNT > 0).then(|| held - 1);
        // Failing means that there is nothing to take back any more.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Events within the window.
    pub(super) fn sum(&self, now: Instant) -> u64 {
        let tick = self.tick(now);
        let counts = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        counts.filter(|held| tick.saturating_sub(held >> 32) < SLOTS as u64).map(|held| held & COUNT).sum()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }

    /// The number of the slot for this moment; slots are numbered for 49 days per millisecond of their length.
    fn tick(&self, now: Instant) -> u64 {
        // Number 0 is what a slot says that was never used.
        (millis(now) / self.slot + 1) & COUNT
    }
}

/// Milliseconds from the first time that anybody asked to a moment.
pub(super) fn millis(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*START).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_events_are_forgotten() {
        let window = Window::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for ms in [0, 0, 0, 0, 0, 5_000, 5_000, 5_000] {
            window.add(at(ms));
        }
        assert_eq!(window.sum(at(5_000)), 8);
        assert_eq!(window.sum(at(8_900)), 8);
        assert_eq!(window.sum(at(11_000)), 3, "the first five are older than ten seconds");
        assert_eq!(window.sum(at(16_000)), 0);
        window.add(at(60_000));
        assert_eq!(window.sum(at(60_000)), 1, "a slot is used again");
    }

    #[test]
    fn events_can_be_taken_back_while_they_count() {
        let window = Window::new(Duration::from_secs(1));
        let start = Instant::now();
        let tick = window.add(start);
        window.take_back(tick);
        window.take_back(tick);
        assert_eq!(window.sum(start), 0, "no more than there were");
        let later = start + Duration::from_secs(1);
        let old = window.add(start);
        window.add(later);
        window.take_back(old);
        assert_eq!(window.sum(later), 1, "what is in its place stays");
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let window = Window::new(Duration::from_secs(3600));
        let now = Instant::now();
        window.add(now);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        window.add(now);
                    }
                });
            }
        });
        assert_eq!(window.sum(now), 40_001);
    }
}
