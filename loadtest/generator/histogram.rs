//! Durations, counted in buckets that are never wider than 1/128 of what they hold.

use serde_json::{Value, json};
use std::time::Duration;

/// Each power of two has `1 << PRECISION` buckets; below twice that many nanoseconds every value has its own.
const PRECISION: u32 = 7;
/// More than a minute is counted as a minute and a bit: no exchange is waited for that long.
const LONGEST: u64 = (1 << 36) - 1;
/// The percentiles of a report, dense where a plot on a logarithmic scale needs them.
const PERCENTILES: [f64; 18] = [
    0.0, 10.0, 25.0, 50.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 97.5, 98.5, 99.0, 99.5, 99.8, 99.9, 99.99,
    100.0,
];

/// How often each duration occurred.
#[derive(Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(LONGEST).min(LONGEST);
        self.add(bucket(nanoseconds), 1);
    }

    /// Counts all that another has counted.
    pub fn merge(&mut self, other: &Histogram) {
        for (bucket, &count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.add(bucket, count);
        }
    }

    /// How many durations were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The duration that so many of a hundred do not exceed: the upper end of its bucket; zero if nothing was counted.
    pub fn percentile(&self, percent: f64) -> Duration {
        // Rounded up: the median of three is the second.
        let rank = ((percent / 100.0 * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_end(bucket));
            }
        }
        Duration::ZERO
    }

    /// Pairs of percentile and microseconds.
    pub fn report(&self) -> Value {
        PERCENTILES.iter().map(|&percent| json!([percent, microseconds(self.percentile(percent))])).collect()
    }

    fn add(&mut self, bucket: usize, count: u64) {
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(slot) = self.counts.get_mut(bucket) {
            *slot += count;
            self.total += count;
        }
    }
}

/// To a tenth of a microsecond: below that nothing here is exact.
pub fn microseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e7).round() / 10.0
}

/// The bits below the leading `PRECISION + 1` are dropped; how many they are counts the power of two.
fn bucket(nanoseconds: u64) -> usize {
    let dropped = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(PRECISION + 1);
    usize::try_from((u64::from(dropped) << PRECISION) + (nanoseconds >> dropped)).unwrap_or(usize::MAX)
}

fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let dropped = (bucket >> PRECISION).saturating_sub(1);
    let leading = bucket - (dropped << PRECISION);
    ((leading + 1) << dropped) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        let mut last = 0;
        for nanoseconds in
            (0..70_000).chain((17..36).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]))
        {
            let bucket = bucket(nanoseconds);
            assert!(bucket >= last, "{nanoseconds}");
            assert!(nanoseconds >= 70_000 || bucket <= last + 1, "{nanoseconds}");
            let end = upper_end(bucket);
            assert!(end >= nanoseconds && end - nanoseconds <= nanoseconds / 128, "{nanoseconds}: {end}");
            last = bucket;
        }
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|n| histogram.record(Duration::from_micros(n)));
        for (percent, wanted) in [(0.0, 1.0), (50.0, 500.0), (90.0, 900.0), (99.9, 999.0), (100.0, 1000.0)] {
            let found = microseconds(histogram.percentile(percent));
            assert!(found >= wanted && found <= wanted * 1.01, "p{percent} is {found}");
        }
        assert_eq!(histogram.total(), 1000);
    }

    #[test]
    fn nothing_counted_is_zero_and_a_merge_adds() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        assert_eq!(one.percentile(99.0), Duration::ZERO);
        one.record(Duration::from_millis(1));
        other.record(Duration::from_secs(600));
        one.merge(&other);
        assert_eq!(one.total(), 2);
        assert!(one.percentile(50.0) < Duration::from_micros(1010));
        assert!(one.percentile(100.0) > Duration::from_secs(60), "what is too long is not lost");
    }
}
