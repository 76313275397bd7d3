//! One timer for a connection, whatever is waited for.
//!
//! A timer of its own for every wait would be registered and taken out again several times a request, which costs more than
//! most of what is waited for. This one stays where it is: it may go off too early, and is set again then.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// As good as never.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// Tells when something takes too long. Costs nothing while nothing is waited for.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

/// Something has taken too long.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLate;

impl Alarm {
    /// Waits for a future, but no longer than `limit`.
    ///
    /// # Errors
    /// It takes longer.
    pub async fn within<T>(
        &mut self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, TooLate> {
        let (mut future, mut until) = (pin!(future), None);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            // What is there at once does not even look at the clock.
            let until = *until.get_or_insert_with(|| Instant::now() + limit.min(NEVER));
            self.poll(cx, until).map(|()| Err(TooLate))
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if until < sleep.deadline() {
            sleep.as_mut().reset(until);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit() {
        let mut alarm = Alarm::default();
        assert_eq!(alarm.within(SECOND, async { 5 }).await, Ok(5));
        assert!(alarm.0.is_none(), "nothing was waited for");
        for limit in [SECOND * 60, SECOND * 5, SECOND, SECOND * 30, Duration::ZERO, SECOND * 2] {
            let began = Instant::now();
            assert_eq!(alarm.within(limit, pending::<()>()).await, Err(TooLate));
            assert_eq!(began.elapsed().as_secs(), limit.as_secs());
        }
        for limit in [SECOND * 60, SECOND * 30, Duration::MAX] {
            let began = Instant::now();
            assert_eq!(alarm.within(limit, sleep(SECOND * 20)).await, Ok(()));
            assert_eq!(began.elapsed().as_secs(), 20);
        }
    }
}
