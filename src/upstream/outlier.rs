//! Passive health: a target that fails requests one after the other is left alone for a while, each time for longer.
//!
//! A good answer reads one word. Only the failures that lead to an ejection take a lock, and only an ejection or its end
//! builds a new membership.

use super::spec::PassiveSpec;
use super::window::millis;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::Instant as Moment;

/// An ejection is at most so many times as long as the first one.
const LONGEST: u32 = 10;

/// What the requests of one target have shown.
#[derive(Default)]
pub(super) struct Record {
    /// Failures in a row (below) and the millisecond of the first of them (above); 0 after a good answer.
    run: AtomicU64,
    out: AtomicBool,
    ejection: Mutex<Ejection>,
}

/// When a target is left alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Ejection {
    /// Until when, while it is.
    pub(super) until: Option<Moment>,
    /// Why.
    pub(super) reason: String,
    /// Whether it could not be connected to.
    unreached: bool,
    /// How often in a short time.
    times: u32,
    /// When it was let in again.
    returned: Option<Moment>,
}

impl Record {
    /// Whether it is left alone.
    pub(super) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed)
    }

    pub(super) fn ejection(&self) -> Ejection {
        self.ejection.lock().clone()
    }

    /// Takes a good answer in.
    pub(super) fn good(&self) {
        if self.run.load(Ordering::Relaxed) != 0 {
            self.run.store(0, Ordering::Relaxed);
        }
    }

    /// Takes a failure in; gives whether it is one too many.
    pub(super) fn bad(&self, spec: &PassiveSpec, now: Instant) -> bool {
        // What was under way when it was ejected tells nothing new.
        if self.is_out() {
            return false;
        }
        // The clock wraps after 49 days, which differences do not mind.
        let now = millis(now) as u32;
        let mut count = 0;
        let take_in = |run: u64| {
            let (first, before) = ((run >> 32) as u32, run as u32);
            let recent = before > 0 && u128::from(now.wrapping_sub(first)) <= spec.within.as_millis();
            let (first, failures) = if recent { (first, before.saturating_add(1)) } else { (now, 1) };
            count = failures;
            Some((u64::from(first) << 32) | u64::from(failures))
        };
        // Never refused: the closure always gives a value.
        let _ = self.run.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_in);
        count >= spec.failures
    }

    /// Leaves the target alone and gives for how long; `None` when it is already. `unreached`: whether it could not be
    /// connected to.
    pub(super) fn eject(
        &self,
        spec: &PassiveSpec,
        reason: &str,
        unreached: bool,
        now: Moment,
    ) -> Option<Duration> {
        let mut ejection = self.ejection.lock();
        if ejection.until.is_some() {
            return None;
        }
        ejection.times = ejection.times.saturating_sub(forgiven(&ejection, spec, now)) + 1;
        let time = spec.eject * ejection.times.min(LONGEST);
        ejection.until = now.checked_add(time);
        reason.clone_into(&mut ejection.reason);
        ejection.unreached = unreached;
        self.run.store(0, Ordering::Relaxed);
        self.out.store(true, Ordering::Relaxed);
        Some(time)
    }

    /// Lets it in again when its time is up; gives whether it was.
    pub(super) fn readmit(&self, now: Moment) -> bool {
        let mut ejection = self.ejection.lock();
        if ejection.until.is_none_or(|until| now < until) {
            return false;
        }
        self.let_in(&mut ejection, now);
        true
    }

    /// Lets it in again after a check has reached it, if that is what failed; gives whether it was.
    pub(super) fn reached(&self, now: Moment) -> bool {
        if !self.is_out() {
            return false;
        }
        let mut ejection = self.ejection.lock();
        let disproved = ejection.until.is_some() && ejection.unreached;
        if disproved {
            self.let_in(&mut ejection, now);
        }
        disproved
    }

    /// Forgets what has failed, and lets it in again before its time is up.
    pub(super) fn pardon(&self, now: Moment) {
        self.run.store(0, Ordering::Relaxed);
        let mut ejection = self.ejection.lock();
        if ejection.until.is_some() {
            self.let_in(&mut ejection, now);
        }
    }

    fn let_in(&self, ejection: &mut Ejection, now: Moment) {
        (ejection.until, ejection.returned) = (None, Some(now));
        self.out.store(false, Ordering::Relaxed);
    }
}

/// For each time as long as an ejection that went well, one ejection is forgotten.
fn forgiven(ejection: &Ejection, spec: &PassiveSpec, now: Moment) -> u32 {
    let well = ejection.returned.map_or(Duration::ZERO, |returned| now.saturating_duration_since(returned));
    let times = well.as_millis().checked_div(spec.eject.as_millis()).unwrap_or(0);
    u32::try_from(times).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> PassiveSpec {
        PassiveSpec { failures: 3, within: Duration::from_secs(10), ..PassiveSpec::default() }
    }

    #[test]
    fn failures_count_in_a_row_and_within_a_time() {
        let record = Record::default();
        let start = Instant::now();
        let bad = |seconds| record.bad(&spec(), start + Duration::from_secs(seconds));
        assert!(!bad(0) && !bad(1));
        record.good();
        assert!(!bad(2) && !bad(3), "a good answer begins anew");
        assert!(!bad(20), "the others are too old");
        assert!(!bad(21) && bad(22));
    }

    #[tokio::test(start_paused = true)]
    async fn each_ejection_is_longer_and_good_times_are_remembered() {
        let (record, spec) = (Record::default(), spec());
        let eject = || record.eject(&spec, "test", false, Moment::now()).map(|time| time.as_secs());
        assert_eq!((eject(), eject()), (Some(30), None), "only once at a time");
        assert!(record.is_out() && !record.readmit(Moment::now()));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(record.readmit(Moment::now()) && !record.is_out());
        assert_eq!(eject(), Some(60));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(record.readmit(Moment::now()));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(eject(), Some(60), "half a minute without trouble forgives one");
        for _ in 0..20 {
            tokio::time::advance(Duration::from_secs(300)).await;
            record.readmit(Moment::now());
            eject();
        }
        assert_eq!(record.ejection().times.min(LONGEST), 10, "never more than ten times as long");
    }

    #[test]
    fn a_check_disproves_only_that_it_cannot_be_reached() {
        let (record, spec, now) = (Record::default(), spec(), Moment::now());
        assert!(!record.reached(now), "it was never out");
        record.eject(&spec, "status 500", false, now);
        assert!(!record.reached(now) && record.is_out());
        record.pardon(now);
        record.eject(&spec, "connect", true, now);
        assert!(record.reached(now) && !record.is_out() && !record.reached(now));
    }
}
