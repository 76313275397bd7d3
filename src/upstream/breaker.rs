//! The circuit breaker of one upstream: when too many attempts fail it opens, and for a while nobody is let through; then a
//! few probes are, and if they succeed it closes.
//!
//! While it is closed, a request reads one word and counts its answer. A probe that never tells how it ended (the client
//! went away, no target was free) gives its place back when it is dropped, so that a breaker cannot be stuck half open.

use super::spec::BreakerSpec;
use super::window::Window;
use crate::value::{Name, Span};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When to come again while probes are under way: soon, but nobody knows.
const SOON: Duration = Duration::from_secs(1);

/// Whether requests are let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// All are.
    #[default]
    Closed = 0,
    /// None is.
    Open = 1,
    /// A few are, to find out.
    HalfOpen = 2,
}

impl Phase {
    /// For the status: `closed`, `open` or `half_open`.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Closed => "closed",
            Phase::Open => "open",
            Phase::HalfOpen => "half_open",
        }
    }
}

/// A circuit breaker.
pub struct Breaker {
    name: Name,
    spec: BreakerSpec,
    all: Window,
    failed: Window,
    /// The phase again, for those who only look.
    phase: AtomicU8,
    state: Mutex<State>,
    opened: AtomicU64,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Until when it stays open.
    until: Option<Instant>,
    /// Counts the times it was half open: a probe of an earlier time says nothing.
    round: u64,
    /// Probes under way.
    asking: u32,
    /// Probes that succeeded.
    passed: u32,
}

impl Breaker {
    /// A closed one.
    pub(super) fn new(name: Name, spec: BreakerSpec) -> Arc<Self> {
        Arc::new(Breaker {
            name,
            all: Window::new(spec.window),
            failed: Window::new(spec.window),
            spec,
            phase: AtomicU8::new(Phase::Closed as u8),
            state: Mutex::default(),
            opened: AtomicU64::new(0),
        })
    }

    /// What it was made from.
    pub(super) fn spec(&self) -> &BreakerSpec {
        &self.spec
    }

    /// Whether every request is let through.
    pub fn is_closed(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Closed as u8
    }

    /// Its present phase.
    pub fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Lets an attempt through, perhaps as a probe.
    ///
    /// # Errors
    /// It is open; when to come again.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Option<Ticket>, Duration> {
        if self.is_closed() { Ok(None) } else { self.admit_probe(Instant::now()) }
    }

    fn admit_probe(self: &Arc<Self>, now: Instant) -> Result<Option<Ticket>, Duration> {
        let mut state = self.state.lock();
        match (state.phase, state.until) {
            (Phase::Closed, _) => return Ok(None),
            (Phase::Open, Some(until)) if now < until => return Err(until - now),
            (Phase::Open, _) => {
                state.round += 1;
                (state.asking, state.passed) = (0, 0);
                self.turn(&mut state, Phase::HalfOpen);
                log::info!("upstream `{}`: breaker half open: {} probes", self.name, self.spec.probes);
            }
            (Phase::HalfOpen, _) => {}
        }
        if state.asking + state.passed >= self.spec.probes {
            return Err(SOON);
        }
        state.asking += 1;
        Ok(Some(Ticket { breaker: Arc::clone(self), round: state.round, told: false }))
    }

    /// Counts how an attempt ended that was no probe.
    pub(super) fn count(&self, good: bool, now: Instant) {
        if !self.is_closed() {
            return;
        }
        self.all.add(now);
        if good {
            return;
        }
        self.failed.add(now);
        let (all, failed) = (self.all.sum(now), self.failed.sum(now));
        let enough = all >= u64::from(self.spec.min_requests);
        if enough && failed * 10_000 >= all * u64::from(self.spec.error_rate) {
            let why = format!("{failed} of {all} attempts failed within {}", Span(self.spec.window));
            self.open(&mut self.state.lock(), now, &why);
        }
    }

    fn open(&self, state: &mut State, now: Instant, why: &str) {
        // Others may have found the same at the same time.
        if state.phase == Phase::Open {
            return;
        }
        state.until = now.checked_add(self.spec.open);
        self.turn(state, Phase::Open);
        self.opened.fetch_add(1, Ordering::Relaxed);
        log::warn!("upstream `{}`: breaker open for {}: {why}", self.name, Span(self.spec.open));
    }

    fn turn(&self, state: &mut State, phase: Phase) {
        state.phase = phase;
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

/// A probe's leave to ask.
#[derive(Debug)]
pub(super) struct Ticket {
    breaker: Arc<Breaker>,
    round: u64,
    told: bool,
}

impl std::fmt::Debug for Breaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Breaker").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Ticket {
    /// Says how the probe ended.
    pub(super) fn tell(mut self, good: bool, now: Instant) {
        self.told = true;
        let breaker = Arc::clone(&self.breaker);
        let mut state = breaker.state.lock();
        if state.round != self.round || state.phase != Phase::HalfOpen {
            return;
        }
        state.asking = state.asking.saturating_sub(1);
        if !good {
            return breaker.open(&mut state, now, "a probe failed");
        }
        state.passed += 1;
        if state.passed >= breaker.spec.probes {
            breaker.all.clear();
            breaker.failed.clear();
            breaker.turn(&mut state, Phase::Closed);
            log::info!("upstream `{}`: breaker closed: {} probes succeeded", breaker.name, state.passed);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.told {
            let mut state = self.breaker.state.lock();
            if state.round == self.round {
                state.asking = state.asking.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: BreakerSpec = BreakerSpec {
        error_rate: 5_000,
        min_requests: 10,
        window: Duration::from_secs(10),
        open: Duration::from_secs(15),
        probes: 2,
    };

    fn breaker() -> (Arc<Breaker>, Instant) {
        (Breaker::new("app".parse().unwrap(), SPEC), Instant::now())
    }

    fn tripped() -> (Arc<Breaker>, Instant) {
        let (breaker, now) = breaker();
        (0..10).for_each(|_| breaker.count(false, now));
        assert_eq!(breaker.phase(), Phase::Open);
        (breaker, now)
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn it_opens_at_the_rate_and_not_before_there_are_enough() {
        let (breaker, now) = breaker();
        (0..9).for_each(|_| breaker.count(false, now));
        assert!(breaker.is_closed(), "nine are too few");
        let (breaker, now) = self::breaker();
        (0..11).for_each(|_| breaker.count(true, now));
        (0..10).for_each(|_| breaker.count(false, now));
        assert!(breaker.is_closed(), "10 of 21 are less than half");
        breaker.count(false, now);
        assert_eq!((breaker.phase(), breaker.opened()), (Phase::Open, 1));
        let (breaker, now) = self::breaker();
        (0..9).for_each(|_| breaker.count(false, now));
        breaker.count(false, now + seconds(12));
        assert!(breaker.is_closed(), "what is older than the window does not count");
    }

    #[test]
    fn it_half_opens_closes_and_reopens() {
        let (breaker, now) = tripped();
        assert_eq!(breaker.admit_probe(now + seconds(5)).unwrap_err(), seconds(10));
        let later = now + seconds(15);
        let first = breaker.admit_probe(later).unwrap().unwrap();
        let second = breaker.admit_probe(later).unwrap().unwrap();
        assert_eq!(breaker.phase(), Phase::HalfOpen);
        assert_eq!(breaker.admit_probe(later).unwrap_err(), SOON, "two probes and no more");
        first.tell(true, later);
        assert_eq!(breaker.admit_probe(later).unwrap_err(), SOON, "what has passed needs no place again");
        second.tell(true, later);
        assert!(breaker.is_closed() && breaker.admit().unwrap().is_none());
        (0..9).for_each(|_| breaker.count(false, later));
        assert!(breaker.is_closed(), "closing forgets");
        breaker.count(false, later);
        let again = later + seconds(15);
        breaker.admit_probe(again).unwrap().unwrap().tell(false, again);
        assert_eq!((breaker.phase(), breaker.opened()), (Phase::Open, 3), "a failed probe opens it again");
        assert_eq!(breaker.admit_probe(again).unwrap_err(), seconds(15), "for the whole time");
    }

    #[test]
    fn a_probe_that_never_ends_does_not_keep_it_half_open() {
        let (breaker, now) = tripped();
        let later = now + seconds(16);
        for _ in 0..100 {
            drop(breaker.admit_probe(later).unwrap().unwrap());
        }
        let (one, two) = (breaker.admit_probe(later), breaker.admit_probe(later));
        one.unwrap().unwrap().tell(true, later);
        two.unwrap().unwrap().tell(true, later);
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_probe_of_an_earlier_round_says_nothing() {
        let (breaker, now) = tripped();
        let later = now + seconds(15);
        let late = breaker.admit_probe(later).unwrap().unwrap();
        breaker.admit_probe(later).unwrap().unwrap().tell(false, later);
        let again = later + seconds(15);
        let one = breaker.admit_probe(again).unwrap().unwrap();
        late.tell(false, again);
        assert_eq!(breaker.phase(), Phase::HalfOpen, "that was about the time before");
        one.tell(true, again);
        breaker.admit_probe(again).unwrap().unwrap().tell(true, again);
        assert!(breaker.is_closed());
    }
}
