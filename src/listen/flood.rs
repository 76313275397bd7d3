//! The coarse guard in front of everything: how many requests one address sends.
//!
//! Counted by a count-min sketch (pingora-limits' `Estimator`): a fixed 64 KiB whatever the number of addresses. It never
//! counts too little; under many thousands of active addresses it may count a little too much, so this is a guard against
//! floods and no limit to sell by. The sketch's own `Rate` is not used: two threads that race over the end of its window
//! can make it panic.

use parking_lot::Mutex;
use pingora_limits::estimator::Estimator;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::value::Rate;

const HASHES: usize = 4;
const SLOTS: usize = 1024;

/// Counts requests by address, over the window before and the one that runs.
pub struct Flood {
    rate: Rate,
    /// Window `n` counts in the estimator `n % 2`.
    windows: [Estimator; 2],
    /// Number of the window that runs.
    window: AtomicU64,
    turning: Mutex<()>,
    began: Instant,
}

impl Flood {
    /// Lets through as many as the rate says in any window of its time, give or take the spread within the window before.
    pub fn new(rate: Rate) -> Self {
        let estimator = || Estimator::new(HASHES, SLOTS);
        Flood {
            rate,
            windows: [estimator(), estimator()],
            window: AtomicU64::new(0),
            turning: Mutex::new(()),
            began: Instant::now(),
        }
    }

    /// How many in how long.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Counts a request; the time to wait when there were too many.
    pub fn count(&self, address: IpAddr) -> Option<Duration> {
        self.count_at(address, self.began.elapsed())
    }

    fn count_at(&self, address: IpAddr, now: Duration) -> Option<Duration> {
        let period = self.rate.period.as_nanos().max(1);
        let window = u64::try_from(now.as_nanos() / period).unwrap_or(u64::MAX);
        self.turn_to(window);
        let key = key(address);
        let [even, odd] = &self.windows;
        let (current, previous) = if window.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        let counted = u128::try_from(current.incr(key, 1)).unwrap_or(0);
        let past = now.as_nanos() % period;
        // What the window before counted weighs as much as it still reaches into the last period.
        let before = u128::try_from(previous.get(key)).unwrap_or(0) * (period - past) / period;
        if counted + before <= u128::from(self.rate.count) {
            return None;
        }
        let left = u64::try_from(period - past).unwrap_or(u64::MAX);
        Some(Duration::from_nanos(left))
    }

    /// Begins the window of this number, if it has not begun.
    fn turn_to(&self, window: u64) {
        if self.window.load(Ordering::Acquire) >= window {
            return;
        }
        let _turning = self.turning.lock();
        let last = self.window.load(Ordering::Acquire);
        if last >= window {
            return;
        }
        let [even, odd] = &self.windows;
        let (current, previous) = if window.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        current.reset();
        if last + 1 < window {
            previous.reset();
        }
        self.window.store(window, Ordering::Release);
    }
}

/// What stands for an address where clients are counted; of IPv6 the first 64 bits, because a client has all the others to
/// choose from.
pub fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn flood(rate: &str) -> Flood {
        Flood::new(rate.parse().unwrap())
    }

    fn passed(flood: &Flood, address: &str, at: Duration, times: usize) -> usize {
        let address = address.parse().unwrap();
        (0..times).filter(|_| flood.count_at(address, at).is_none()).count()
    }

    #[test]
    fn an_address_gets_what_the_rate_says() {
        let flood = flood("10/s");
        assert_eq!(passed(&flood, "192.0.2.1", Duration::ZERO, 30), 10);
        assert_eq!(passed(&flood, "192.0.2.2", Duration::ZERO, 30), 10, "another address has its own");
        assert_eq!(flood.count_at("192.0.2.1".parse().unwrap(), SECOND / 4), Some(SECOND * 3 / 4));
    }

    #[test]
    fn what_was_just_counted_still_weighs() {
        let flood = flood("10/s");
        assert_eq!(passed(&flood, "192.0.2.1", SECOND * 9 / 10, 10), 10);
        assert_eq!(passed(&flood, "192.0.2.1", SECOND * 11 / 10, 10), 1, "nine tenths of ten still weigh");
        assert_eq!(passed(&flood, "192.0.2.1", SECOND * 5, 30), 10, "a pause clears it");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let flood = flood("4/s");
        assert_eq!(passed(&flood, "2001:db8::1", Duration::ZERO, 2), 2);
        assert_eq!(passed(&flood, "2001:db8::2", Duration::ZERO, 4), 2);
        assert_eq!(passed(&flood, "2001:db8:0:1::1", Duration::ZERO, 4), 4);
    }
}
