//! Brings targets back: those that were ejected when their time is up, and those that are new or healthy again little by
//! little, if the upstream starts slowly.

use super::Upstream;
use crate::tasks::{Running, Stop, Task};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// In how many steps a target gets its whole share.
const STEPS: u32 = 20;

/// The shortest time between two steps.
const SHORTEST: Duration = Duration::from_millis(50);

/// Where a slow start begins, in percent of the share.
const FIRST: u32 = 10;

/// Looks after the targets of one upstream that are not all there yet.
pub(super) struct Revival {
    name: String,
    upstream: Weak<Upstream>,
    wake: Arc<Notify>,
}

impl Revival {
    /// `wake` tells that there is something to look after.
    pub(super) fn new(upstream: &Weak<Upstream>, name: &str, wake: &Arc<Notify>) -> Self {
        let (upstream, wake) = (Weak::clone(upstream), Arc::clone(wake));
        Revival { name: format!("revival of {name}"), upstream, wake }
    }

    async fn look_after(self: Arc<Self>, mut stop: Stop) {
        loop {
            let Some(upstream) = self.upstream.upgrade() else { return stop.told().await };
            let next = upstream.revive(Instant::now());
            drop(upstream);
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.told() => return,
                () = self.wake.notified() => {}
                () = due => {}
            }
        }
    }
}

impl Task for Revival {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Arc<Self>, stop: Stop) -> Running {
        Box::pin(self.look_after(stop))
    }
}

/// How much of its share a target gets that has been back for so long, in percent; `None` when it gets all.
pub(super) fn share(back: Duration, slow_start: Duration) -> Option<u32> {
    if back >= slow_start {
        return None;
    }
    let done = back.as_millis() * 100 / slow_start.as_millis().max(1);
    Some(u32::try_from(done).unwrap_or(100).clamp(FIRST, 100))
}

/// How long a step takes.
pub(super) fn step(slow_start: Duration) -> Duration {
    (slow_start / STEPS).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_from_a_tenth_to_all() {
        let slow_start = Duration::from_secs(30);
        let at = |seconds| share(Duration::from_secs(seconds), slow_start);
        assert_eq!(
            [at(0), at(3), at(15), at(29), at(30), at(100)],
            [Some(10), Some(10), Some(50), Some(96), None, None]
        );
        assert_eq!(share(Duration::ZERO, Duration::ZERO), None);
        assert_eq!(step(slow_start), Duration::from_millis(1500));
    }
}
