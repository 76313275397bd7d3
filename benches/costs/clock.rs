//! Nanoseconds: the time that this thread has run, which leaves out who else runs here.

use super::case::{Case, text};
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// How long each case is measured, and how often at least.
const LENGTH: Duration = Duration::from_millis(100);
const LEAST: usize = 3;

/// Nanoseconds of one, in the fastest of many measurements: whatever else there is only adds to it.
pub fn measure(case: &Case) -> Result<f64, String> {
    let mut work = case.warm()?;
    let (mut best, mut all, mut done) = (Duration::MAX, Duration::ZERO, 0);
    while all < LENGTH || done < LEAST {
        done += 1;
        let start = thread_time()?;
        work.repeat(done * case.times, case.times);
        let took = thread_time()?.saturating_sub(start);
        (work.settle)();
        best = best.min(took);
        all += took;
    }
    #[expect(clippy::cast_precision_loss, reason = "a report")]
    Ok(best.as_nanos() as f64 / case.times.max(1) as f64)
}

fn thread_time() -> Result<Duration, String> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).map_err(text)
}
