//! How many retries an upstream gets: a share of its requests, so that one in trouble is not asked twice as often.

use super::window::{Tick, Window};
use crate::value::Percent;
use std::time::{Duration, Instant};

/// The time over which retries are compared with requests.
const WINDOW: Duration = Duration::from_secs(10);

/// Retries that are always granted within the window: with few requests, a share of them is nothing.
const LEAST: u64 = 10;

/// What one upstream was asked, and how often again.
pub struct Budget {
    requests: Window,
    retries: Window,
}

/// A retry that was granted.
#[derive(Clone, Copy, Debug)]
pub struct Spent(Tick);

impl Default for Budget {
    fn default() -> Self {
        Budget { requests: Window::new(WINDOW), retries: Window::new(WINDOW) }
    }
}

impl Budget {
    /// Counts a request.
    pub fn request(&self, now: Instant) {
        self.requests.add(now);
    }

    /// Grants a retry unless they would exceed this share of the requests. A share of 0 grants none.
    pub fn spend(&self, share: Percent, now: Instant) -> Option<Spent> {
        if share.0 == 0 {
            return None;
        }
        let granted = (self.requests.sum(now) * u64::from(share.0) / 10_000).max(LEAST);
        (self.retries.sum(now) < granted).then(|| Spent(self.retries.add(now)))
    }

    /// Takes a retry off the bill: it cost nobody anything.
    pub fn give_back(&self, Spent(tick): Spent) {
        self.retries.take_back(tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let budget = Budget::default();
        let start = Instant::now();
        let mut retries = 0;
        for request in 0..1000 {
            let now = start + Duration::from_millis(request);
            budget.request(now);
            retries += u32::from(budget.spend(Percent(2000), now).is_some());
        }
        assert!((195..=200).contains(&retries), "{retries}");
        assert!(budget.spend(Percent(0), start).is_none());
    }

    #[test]
    fn a_few_are_always_granted_and_time_brings_more() {
        let budget = Budget::default();
        let start = Instant::now();
        let granted = |at| (0..100).filter(|_| budget.spend(Percent(2000), at).is_some()).count();
        assert_eq!(granted(start), 10);
        assert_eq!(granted(start + Duration::from_secs(5)), 0);
        assert_eq!(granted(start + Duration::from_secs(11)), 10);
    }

    #[test]
    fn what_is_given_back_can_be_spent_again() {
        let budget = Budget::default();
        let now = Instant::now();
        for _ in 0..1000 {
            let spent = budget.spend(Percent(2000), now).unwrap();
            budget.give_back(spent);
        }
    }
}
