//! How many client connections are open, and a way to wait until none is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Counts open connections.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Default)]
struct Inner {
    open: AtomicUsize,
    none: Notify,
}

impl Connections {
    /// Counts one more until the guard is dropped.
    pub(super) fn open(&self, gauge: prometheus::IntGauge) -> Guard {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        gauge.inc();
        Guard { inner: self.0.clone(), gauge }
    }

    /// Number of open connections.
    pub(super) fn count(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// Waits until none is open.
    pub(super) async fn none(&self) {
        loop {
            let notified = self.0.none.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One open connection.
pub(super) struct Guard {
    inner: Arc<Inner>,
    gauge: prometheus::IntGauge,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.gauge.dec();
        if self.inner.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.inner.none.notify_waiters();
        }
    }
}
