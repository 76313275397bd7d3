//! Rates: the generic cell rate algorithm (ITU-T I.371, annex A, in its virtual scheduling form), without rounding.
//!
//! Time is whole microseconds since 1970. A limit of `count` in `period` has an emission interval of `period / count`,
//! which is seldom whole; so a point in time is kept as microseconds and a [`part`](Tat::part) of the next one in
//! `1 / denominator`, and sums are exact. Every integer is below 2^53 where it leaves this file (until the year 2112),
//! so that a Lua script, whose numbers are doubles, can add and compare them with the same result.
//!
//! The law: in any time `t` at most `count / period × t + burst` are granted. The other way round nothing is lost either:
//! whoever asks no more than that is never refused.

use std::time::Duration;

/// Longest time a full bucket may take to refill, in microseconds: 2^52, some 142 years. With it a point in time stays
/// below 2^53.
pub const LONGEST: u64 = 1 << 52;

/// The theoretical arrival time: when the bucket of a counter is full again. All there is to know of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tat {
    /// Whole microseconds since 1970. One in the past says as much as no counter at all.
    pub micros: u64,
    /// Added to it, in `1 / denominator` of a microsecond; less than [`Pace::denominator`].
    pub part: u32,
}

/// A rate, made ready to be counted. One *unit* is `1 / denominator` of a microsecond; intervals are whole units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Units between two requests.
    interval: u64,
    denominator: u32,
    /// Units until an empty bucket is full: `burst` intervals.
    capacity: u128,
}

/// What came of a demand on a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether there is room.
    pub granted: bool,
    /// What to keep: when refused as it was, but for what [`Pace::decide`] says of clamping.
    pub tat: Tat,
}

impl Pace {
    /// `count` in `period`, of which `burst` may come at once. Nothing is refused: zeros count as ones, a period is
    /// rounded up to microseconds, and a burst that would take longer than [`LONGEST`] to refill is cut to it.
    pub fn new(count: u32, period: Duration, burst: u32) -> Self {
        let count = u64::from(count.max(1));
        let micros = u64::try_from(period.as_nanos().div_ceil(1_000)).unwrap_or(LONGEST).clamp(1, LONGEST);
        let common = common_divisor(micros, count);
        let interval = micros / common;
        let denominator = u32::try_from(count / common).unwrap_or(u32::MAX);
        let longest = u128::from(LONGEST) * u128::from(denominator) / u128::from(interval);
        let burst = u128::from(burst.max(1)).min(longest.max(1));
        Pace { interval, denominator, capacity: burst * u128::from(interval) }
    }

    /// Decides on `cost` requests at `now`.
    ///
    /// A `tat` in the past becomes `now`, and one further ahead than an empty bucket becomes that: so a limit that was
    /// raised by a reload, or a clock that was set back, keeps nobody out longer than the bucket takes to refill.
    pub fn decide(&self, tat: Tat, now: u64, cost: u32) -> Decision {
        let debt = self.debt(tat, now);
        let after = debt + self.units(cost);
        let granted = after <= self.capacity;
        Decision { granted, tat: self.tat(now, if granted { after } else { debt }) }
    }

    /// How many could come at once.
    pub fn remaining(&self, tat: Tat, now: u64) -> u64 {
        let room = self.capacity - self.debt(tat, now);
        u64::try_from(divide(room, self.interval).0).unwrap_or(u64::MAX)
    }

    /// Until the bucket is full, in whole microseconds.
    pub fn reset(&self, tat: Tat, now: u64) -> Duration {
        self.duration(self.debt(tat, now))
    }

    /// The shortest whole number of microseconds after which `cost` would be granted, if nothing else is granted
    /// meanwhile: zero if at once, [`Duration::MAX`] if never.
    pub fn retry_after(&self, tat: Tat, now: u64, cost: u32) -> Duration {
        if !self.possible(cost) {
            return Duration::MAX;
        }
        let after = self.debt(tat, now) + self.units(cost);
        self.duration(after.saturating_sub(self.capacity))
    }

    /// Whether `cost` could ever be granted: it is no more than the burst.
    pub fn possible(&self, cost: u32) -> bool {
        self.units(cost) <= self.capacity
    }

    /// How much later `cost` requests make the bucket full, as microseconds and part. Below 2^53 when
    /// [`possible`](Self::possible).
    pub fn step(&self, cost: u32) -> Tat {
        self.tat(0, self.units(cost))
    }

    /// How far an empty bucket's [`Tat`] is ahead of now, as microseconds and part.
    pub fn capacity(&self) -> Tat {
        self.tat(0, self.capacity)
    }

    /// The parts of a microsecond.
    pub fn denominator(&self) -> u32 {
        self.denominator
    }

    /// How far the bucket is from being full, in units: at most the capacity.
    fn debt(&self, tat: Tat, now: u64) -> u128 {
        let Some(ahead) = tat.micros.checked_sub(now) else { return 0 };
        // A part of another rate that had the same name before a reload may be too large: round up, to be strict.
        let part = tat.part.min(self.denominator);
        (u128::from(ahead) * u128::from(self.denominator) + u128::from(part)).min(self.capacity)
    }

    fn tat(&self, now: u64, units: u128) -> Tat {
        let (micros, part) = divide(units, u64::from(self.denominator));
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        // Less than the denominator, so it always fits.
        Tat { micros: now.saturating_add(micros), part: u32::try_from(part).unwrap_or(u32::MAX) }
    }

    fn units(&self, cost: u32) -> u128 {
        u128::from(self.interval) * u128::from(cost)
    }

    fn duration(&self, units: u128) -> Duration {
        let (micros, part) = divide(units, u64::from(self.denominator));
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX).saturating_add(u64::from(part > 0)))
    }
}

/// Quotient and rest; nearly always in 64 bits, where a division is several times faster.
fn divide(number: u128, by: u64) -> (u128, u64) {
    match u64::try_from(number) {
        Ok(number) if by == 1 => (u128::from(number), 0),
        Ok(number) => (u128::from(number / by), number % by),
        // The rest of a division by a u64 fits into one.
        Err(_) => (number / u128::from(by), u64::try_from(number % u128::from(by)).unwrap_or(u64::MAX)),
    }
}

fn common_divisor(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_790_000_000_000_000;
    const SECOND: u64 = 1_000_000;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    /// Grants as much as there is at `now`, one by one.
    fn drain(pace: &Pace, tat: &mut Tat, now: u64) -> u64 {
        let mut granted = 0;
        loop {
            let decision = pace.decide(*tat, now, 1);
            if !decision.granted {
                return granted;
            }
            *tat = decision.tat;
            granted += 1;
        }
    }

    #[test]
    fn a_burst_passes_and_the_next_is_refused() {
        let pace = Pace::new(20, seconds(1), 40);
        let mut tat = Tat::default();
        assert_eq!(pace.remaining(tat, NOW), 40);
        assert_eq!(drain(&pace, &mut tat, NOW), 40);
        assert_eq!(pace.remaining(tat, NOW), 0);
        assert_eq!(pace.reset(tat, NOW), seconds(2));
        assert_eq!(pace.retry_after(tat, NOW, 1), Duration::from_millis(50));
        assert_eq!(pace.retry_after(tat, NOW, 40), seconds(2));
        assert_eq!(pace.retry_after(tat, NOW, 41), Duration::MAX);
        assert_eq!(drain(&pace, &mut tat, NOW + 49_999), 0);
        assert_eq!(drain(&pace, &mut tat, NOW + 50_000), 1);
    }

    /// Also where the interval is no whole number of microseconds.
    #[test]
    fn from_a_full_bucket_exactly_burst_and_count_are_granted_in_a_period() {
        for (count, period, burst) in [
            (20, 1, 40),
            (7, 1, 3),
            (999_983, 1, 2),
            (300_000, 1, 5),
            (1_000_000, 1, 1),
            (1, 86_400, 1),
            (1009, 60, 17),
        ] {
            let pace = Pace::new(count, seconds(period), burst);
            let (mut tat, mut granted) = (Tat::default(), 0);
            let micros = period * SECOND;
            let steps = u64::from(count.max(10));
            // Asked at every point where a further one may have become free.
            for step in 0..=steps {
                let now = NOW + (u128::from(micros) * u128::from(step)).div_ceil(u128::from(steps)) as u64;
                granted += drain(&pace, &mut tat, now);
            }
            assert_eq!(granted, u64::from(count) + u64::from(burst), "{count}/{period}s burst {burst}");
        }
    }

    #[test]
    fn a_raised_limit_or_a_clock_set_back_keeps_nobody_out() {
        let mut tat = Tat::default();
        drain(&Pace::new(1, seconds(86_400), 10), &mut tat, NOW);
        let raised = Pace::new(10, seconds(1), 10);
        assert_eq!(raised.retry_after(tat, NOW, 1), Duration::from_millis(100));
        assert_eq!(raised.reset(tat, NOW - 3600 * SECOND), seconds(1));
        assert!(raised.decide(tat, NOW + 1_000_000, 1).granted || tat.micros > NOW + 1_000_000);
    }

    #[test]
    fn extremes_neither_overflow_nor_pass_what_a_double_can_hold() {
        for (count, period, burst) in [
            (1, Duration::MAX, u32::MAX),
            (u32::MAX, seconds(366 * 86_400), u32::MAX),
            (0, Duration::ZERO, 0),
        ] {
            let pace = Pace::new(count, period, burst);
            let mut tat = Tat::default();
            for cost in [1, u32::MAX, 1] {
                tat = pace.decide(tat, NOW, cost).tat;
                assert!(tat.micros < 1 << 53 && tat.part < pace.denominator());
            }
            assert!(pace.capacity().micros <= LONGEST);
            pace.retry_after(Tat { micros: u64::MAX, part: u32::MAX }, 0, u32::MAX);
            pace.remaining(Tat { micros: u64::MAX, part: u32::MAX }, 0);
        }
    }

    #[derive(Clone, Copy, Debug)]
    struct Ask {
        after: u64,
        cost: u32,
    }

    fn rates() -> impl Strategy<Value = (u32, u64, u32)> {
        let count = prop_oneof![1_u32..50, 1_u32..=1_000_000];
        let period = prop_oneof![Just(1_u64), Just(60), Just(3_600), Just(86_400), 1_u64..=86_400];
        (count, period, prop_oneof![1_u32..10, 1_u32..50_000])
    }

    fn schedule() -> impl Strategy<Value = Vec<Ask>> {
        let after = prop_oneof![Just(0_u64), 0_u64..10, 0_u64..100_000, 0_u64..100_000_000_000];
        prop::collection::vec((after, prop_oneof![1_u32..5, 1_u32..100_000]), 1..120)
            .prop_map(|asks| asks.into_iter().map(|(after, cost)| Ask { after, cost }).collect())
    }

    proptest! {
        /// Checked for every pair of grants, in exact arithmetic, against the definition and not against the code.
        #[test]
        fn no_time_sees_more_than_rate_times_time_plus_burst((count, period, burst) in rates(), asks in schedule()) {
            let pace = Pace::new(count, seconds(period), burst);
            let (mut tat, mut now) = (Tat::default(), NOW);
            let mut grants: Vec<(u64, u128)> = Vec::new();
            for ask in asks {
                now += ask.after;
                let decision = pace.decide(tat, now, ask.cost);
                if decision.granted {
                    tat = decision.tat;
                    grants.push((now, u128::from(ask.cost)));
                }
            }
            for (at, (first, _)) in grants.iter().enumerate() {
                let mut sum = 0;
                for (last, cost) in &grants[at..] {
                    sum += cost;
                    // sum ≤ count / period × time + burst, multiplied by the period.
                    let period = u128::from(period * SECOND);
                    let allowed = u128::from(count) * u128::from(last - first) + u128::from(burst) * period;
                    prop_assert!(sum * period <= allowed, "{sum} in {} µs", last - first);
                }
            }
        }

        /// The same against a token bucket in rational numbers: nothing is refused that the law allows.
        #[test]
        fn it_grants_exactly_what_a_token_bucket_grants((count, period, burst) in rates(), asks in schedule()) {
            let pace = Pace::new(count, seconds(period), burst);
            let (mut tat, mut now) = (Tat::default(), NOW);
            let period = u128::from(period * SECOND);
            let full = u128::from(burst) * period;
            let mut tokens = full; // in 1 / period of a token
            for ask in asks {
                now += ask.after;
                tokens = full.min(tokens + u128::from(ask.after) * u128::from(count));
                let room = u128::from(ask.cost) * period <= tokens;
                let decision = pace.decide(tat, now, ask.cost);
                prop_assert_eq!(decision.granted, room);
                if room {
                    tokens -= u128::from(ask.cost) * period;
                }
                tat = decision.tat;
                prop_assert_eq!(u128::from(pace.remaining(tat, now)), tokens / period);
                let refill = (full - tokens).div_ceil(u128::from(count));
                prop_assert_eq!(pace.reset(tat, now).as_micros(), refill);
            }
        }

        #[test]
        fn retry_after_is_exact((count, period, burst) in rates(), asks in schedule()) {
            let pace = Pace::new(count, seconds(period), burst);
            let (mut tat, mut now) = (Tat::default(), NOW);
            for ask in asks {
                now += ask.after;
                let decision = pace.decide(tat, now, ask.cost);
                let wait = pace.retry_after(tat, now, ask.cost);
                prop_assert_eq!(decision.granted, wait.is_zero());
                prop_assert_eq!(ask.cost > burst, wait == Duration::MAX);
                if wait != Duration::MAX && !wait.is_zero() {
                    let then = now + wait.as_micros() as u64;
                    prop_assert!(pace.decide(tat, then, ask.cost).granted);
                    prop_assert!(!pace.decide(tat, then - 1, ask.cost).granted);
                }
                tat = decision.tat;
            }
        }
    }
}
