//! How many client connections are open, and a way to wait until none is.

use crate::listen::flood::key;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Parts of the table of addresses, each with a lock of its own.
const PARTS: usize = 16;

/// Counts open connections.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Default)]
struct Inner {
    open: AtomicUsize,
    none: Notify,
    /// Connections of each client that has any.
    clients: [Mutex<HashMap<u64, usize>>; PARTS],
}

impl Inner {
    fn part(&self, client: u64) -> Option<&Mutex<HashMap<u64, usize>>> {
        let part = usize::try_from(client % PARTS as u64).unwrap_or_default();
        self.clients.get(part)
    }
}

impl Connections {
    /// Counts one more until the guard is dropped.
    pub(super) fn open(&self, gauge: prometheus::IntGauge) -> Guard {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        gauge.inc();
        Guard { inner: self.0.clone(), gauge, client: None }
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
    /// Whose it is, if that is counted.
    client: Option<u64>,
}

impl Guard {
    /// Counts it as the client's; `false` when there were `most` of them already.
    pub(super) fn belongs_to(&mut self, address: IpAddr, most: usize) -> bool {
        let client = key(address);
        let Some(part) = self.inner.part(client) else { return true };
        let mut clients = part.lock();
        let open = clients.entry(client).or_default();
        if *open >= most {
            return false;
        }
        *open += 1;
        self.client = Some(client);
        true
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.gauge.dec();
        if let Some(client) = self.client
            && let Some(part) = self.inner.part(client)
        {
            let mut clients = part.lock();
            match clients.get_mut(&client) {
                Some(open @ 2..) => *open -= 1,
                _ => drop(clients.remove(&client)),
            }
        }
        if self.inner.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.inner.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_and_no_more() {
        let connections = Connections::default();
        let gauge = prometheus::IntGauge::new("open", "open").unwrap();
        let open = |address: &str| {
            let mut guard = connections.open(gauge.clone());
            guard.belongs_to(address.parse().unwrap(), 2).then_some(guard)
        };
        let first = open("192.0.2.1");
        let second = open("192.0.2.1");
        assert!(first.is_some() && second.is_some());
        assert!(open("192.0.2.1").is_none() && open("192.0.2.2").is_some());
        drop(first);
        let third = open("192.0.2.1");
        assert!(third.is_some() && open("192.0.2.1").is_none());
        assert_eq!(connections.count(), 2);
        drop((second, third));
        assert!(connections.0.clients.iter().all(|part| part.lock().is_empty()), "nobody is remembered");
        assert_eq!((connections.count(), gauge.get()), (0, 0));
    }
}
