//! Leaving without cutting anybody off: readiness fails first, then connections end as their requests do, at most up to a
//! deadline.

use super::connections::Connections;
use super::signals::Signals;
use super::succession::Successor;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Counted;
use crate::snapshot::DrainTimes;
use crate::value::counted;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a successor is told how it goes.
const TELL: Duration = Duration::from_secs(1);

/// How long streams get to say that they end, beyond their deadline.
const PARTING: Duration = Duration::from_secs(1);

/// How to leave.
pub(super) struct Drain<'a> {
    pub times: DrainTimes,
    pub connections: &'a Connections,
    pub streams: &'a Counted,
    /// Tells streams that their time is up.
    pub closing: &'a watch::Sender<bool>,
}

impl Drain<'_> {
    /// Goes on serving while readiness already fails, so that load balancers send nobody here any more. A second signal
    /// ends it.
    pub(super) async fn lame_duck(&self, signals: &mut Signals, log: Option<&AccessLog>) {
        if self.times.lame_duck.is_zero() {
            return;
        }
        log::info!("not ready any more; requests are taken for {:?}", self.times.lame_duck);
        tokio::select! {
            () = tokio::time::sleep(self.times.lame_duck) => {}
            _ = signals.end(log) => {}
        }
    }

    /// Waits until everything in flight has ended. Requests may take `requests`; while there are streams (WebSocket, events,
    /// gRPC), `streams`. A second signal ends it. Gives how many connections are left.
    pub(super) async fn finish(
        &self,
        signals: &mut Signals,
        log: Option<&AccessLog>,
        mut successor: Option<&mut Successor>,
    ) -> usize {
        let DrainTimes { requests, streams, .. } = self.times;
        let open = counted(self.connections.count(), "connection");
        log::info!("stopping: {open} open, at most {requests:?} for requests, {streams:?} for streams");
        let began = Instant::now();
        loop {
            let count = self.connections.count();
            if let Some(successor) = &mut successor {
                successor.tell(count);
            }
            let most = if self.streams.count() > 0 { streams.max(requests) } else { requests };
            let left = most.saturating_sub(began.elapsed());
            if count == 0 {
                return 0;
            }
            if left.is_zero() {
                return self.part(signals, log).await;
            }
            tokio::select! {
                () = self.connections.none() => {}
                () = tokio::time::sleep(left.min(TELL)) => {}
                _ = signals.end(log) => return self.connections.count(),
            }
        }
    }

    /// Time is up. Streams that can tell their clients so do; gives how many connections are left.
    async fn part(&self, signals: &mut Signals, log: Option<&AccessLog>) -> usize {
        let streams = self.streams.count();
        if streams > 0 {
            log::info!("closing {}", counted(usize::try_from(streams).unwrap_or_default(), "stream"));
            self.closing.send_replace(true);
            tokio::select! {
                () = self.connections.none() => {}
                () = tokio::time::sleep(PARTING) => {}
                _ = signals.end(log) => {}
            }
        }
        self.connections.count()
    }
}
