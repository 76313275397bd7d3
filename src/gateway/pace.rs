//! How fast the body of a request must come: a client that sends a byte now and then holds a connection, a target and a place
//! in every limit for nothing. The engine knows pauses only, and over HTTP/2 not even those.

use super::Context;
use crate::listen::Limits;
use crate::route::Route;
use std::time::{Duration, Instant};

/// For so long a body may come as slowly as it likes.
const GRACE: Duration = Duration::from_secs(5);

impl Context {
    /// How fast the rest of a request must come.
    pub(super) fn pace(&self, route: &Route) -> Pace {
        let listener = self.snapshot.listeners.get(usize::from(self.exchange.listener));
        // Both sides of a call may have nothing to say for long.
        match listener.filter(|_| self.call.is_none()) {
            Some(listener) => Pace::of(&listener.limits),
            None => Pace::of_stream(route.timeouts.stream_idle),
        }
    }
}

/// What a client has left of its time.
pub(super) struct Pace {
    idle: Duration,
    /// Bytes a second; 0 for any rate.
    rate: u64,
    /// Time that was spent waiting for the client, and for nobody else.
    waited: Duration,
}

impl Pace {
    fn of(limits: &Limits) -> Pace {
        Pace { idle: limits.body_idle, rate: limits.body_rate, waited: Duration::ZERO }
    }

    /// That of a stream, which says something when there is something to be said.
    fn of_stream(idle: Duration) -> Pace {
        Pace { idle, rate: 0, waited: Duration::ZERO }
    }

    /// How long the next piece may take when so many bytes have come.
    pub(super) fn left(&self, received: u64) -> Duration {
        if self.rate == 0 {
            return self.idle;
        }
        let earned = Duration::from_millis(received.saturating_mul(1000) / self.rate);
        self.idle.min((GRACE + earned).saturating_sub(self.waited))
    }

    /// Notes that the client was waited for.
    pub(super) fn waited_since(&mut self, since: Instant) {
        self.waited += since.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_comes_earns_time() {
        let limits = Limits { body_idle: SECOND * 30, body_rate: 100, ..Limits::default() };
        let mut pace = Pace::of(&limits);
        assert_eq!(pace.left(0), GRACE);
        pace.waited = SECOND * 4;
        assert_eq!((pace.left(0), pace.left(200), pace.left(10_000)), (SECOND, SECOND * 3, SECOND * 30));
        pace.waited = SECOND * 7;
        assert_eq!((pace.left(199), pace.left(300)), (Duration::ZERO, SECOND));
        assert_eq!(pace.left(u64::MAX), SECOND * 30, "no overflow");
        let endless = Pace { waited: SECOND * 10_000, ..Pace::of(&Limits { body_rate: 0, ..limits }) };
        assert_eq!(endless.left(0), SECOND * 30);
    }
}
