//! Peak EWMA: a latency that jumps up at once and comes down slowly.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After this long without news, a measured latency has decayed to 1/e.
const DECAY_MS: f64 = 10_000.0;
/// What a failed attempt counts as, microseconds.
const FAILURE_MICROS: u32 = 1_000_000;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the process first asked; wraps after 49 days, which differences do not mind.
pub(super) fn clock() -> u32 {
    clock_at(Instant::now())
}

/// The same, for somebody who has looked at the clock already.
pub(super) fn clock_at(now: Instant) -> u32 {
    now.saturating_duration_since(*START).as_millis() as u32
}

/// A latency that peaks at once and decays exponentially, in one word: microseconds above, time of writing below.
#[derive(Default)]
pub(super) struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// Takes one measurement in: a higher one replaces the average, a lower one pulls it down by how long ago it was.
    pub(super) fn observe(&self, latency: Duration, now: u32) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX).max(1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let next = match unpack(word) {
                None => micros,
                Some((old, _)) if micros >= old => micros,
                // No time has passed, and nobody else need fetch the word again.
                Some((_, written)) if written == now => return None,
                Some((old, written)) => {
                    let kept = kept(written, now);
                    (f64::from(old) * kept + f64::from(micros) * (1.0 - kept)) as u32
                }
            };
            Some(pack(next, now))
        });
    }

    /// Takes a failed attempt in.
    pub(super) fn observe_failure(&self, now: u32) {
        self.observe(Duration::from_micros(u64::from(FAILURE_MICROS)), now);
    }

    /// The present average in microseconds, or `None` before the first measurement. It decays while nothing is
    /// measured, so a target that was slow once gets another chance.
    pub(super) fn micros(&self, now: u32) -> Option<f64> {
        unpack(self.0.load(Ordering::Relaxed)).map(|(micros, written)| f64::from(micros) * kept(written, now))
    }

    /// What sending one more request costs with `in_flight` under way. Without a measurement the first request is
    /// free and every further one costs a second: a new target is tried, not flooded.
    pub(super) fn cost(&self, in_flight: u32, weight: u32, now: u32) -> f64 {
        let load = f64::from(in_flight) / f64::from(weight.max(1));
        match self.micros(now) {
            Some(micros) => micros * (load + 1.0),
            None => f64::from(FAILURE_MICROS) * load,
        }
    }
}

fn kept(written: u32, now: u32) -> f64 {
    (-f64::from(now.wrapping_sub(written)) / DECAY_MS).exp()
}

fn pack(micros: u32, now: u32) -> u64 {
    (u64::from(micros.max(1)) << 32) | u64::from(now)
}

fn unpack(word: u64) -> Option<(u32, u32)> {
    let micros = (word >> 32) as u32;
    (micros != 0).then_some((micros, word as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_at_once_and_decays() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.micros(5), None);
        ewma.observe(Duration::from_millis(10), 0);
        ewma.observe(Duration::from_millis(80), 1);
        assert_eq!(ewma.micros(1), Some(80_000.0), "a peak replaces the average");
        ewma.observe(Duration::from_millis(10), 1_001);
        let after = ewma.micros(1_001).unwrap();
        assert!(
            (72_000.0..75_000.0).contains(&after),
            "a tenth of the decay time moves a tenth of the way: {after}"
        );
        assert!(ewma.micros(60_000).unwrap() < 500.0, "silence forgives");
    }

    #[test]
    fn the_clock_may_wrap() {
        let ewma = PeakEwma::default();
        ewma.observe(Duration::from_millis(10), u32::MAX);
        assert!(ewma.micros(10).unwrap() > 9_900.0);
    }

    #[test]
    fn a_new_target_is_tried_but_not_flooded() {
        let (new, known) = (PeakEwma::default(), PeakEwma::default());
        known.observe(Duration::from_millis(20), 0);
        assert!(new.cost(0, 1, 0) < known.cost(0, 1, 0));
        assert!(new.cost(1, 1, 0) > known.cost(1, 1, 0));
    }
}
