//! HTTP/1.1 to a target (RFC 9112), without the engine.
//!
//! The engine's own proxying costs most of what a plain request costs: two channels between the halves of a request, a
//! copy of the peer, a pool that starts a task for every connection given back, a second map of header names. Here a
//! [`Connection`] is driven by whoever relays a request: nothing is spawned, and a connection keeps its buffers.

mod body;
mod connection;
mod head;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Switched};

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Idle connections kept to one target; the oldest goes first.
const IDLE: usize = 1024;

/// How often idle connections are looked through, at least.
const SWEEP: Duration = Duration::from_secs(5);

/// The idle connections to one target. The last one given back is the first one taken.
#[derive(Debug)]
pub struct Pool {
    /// How long a connection may be idle.
    keep: Duration,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    connections: VecDeque<(Instant, Connection)>,
    /// Whether a sweeper runs.
    swept: bool,
}

impl Pool {
    /// A pool without connections, each of which may be idle for as long as `keep`.
    pub fn new(keep: Duration) -> Arc<Pool> {
        Arc::new(Pool { keep, idle: Mutex::default() })
    }

    /// A connection that was used before and is still open, as far as can be told without asking the other end.
    pub fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.idle.lock().connections.pop_back()?;
            if since.elapsed() < self.keep && connection.is_open() {
                return Some(connection);
            }
        }
    }

    /// Takes a connection back, unless it cannot carry another request. Must be called on the runtime.
    pub fn put(self: &Arc<Self>, mut connection: Connection) {
        if self.keep.is_zero() || !connection.rest() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.connections.len() >= IDLE {
            idle.connections.pop_front();
        }
        idle.connections.push_back((Instant::now(), connection));
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.keep.min(SWEEP)));
        }
    }

    /// Number of idle connections.
    pub fn idle(&self) -> usize {
        self.idle.lock().connections.len()
    }

    /// Closes what is too old or was closed by the target; `false` when nothing is left to look after.
    fn sweep(&self) -> bool {
        let mut idle = self.idle.lock();
        idle.connections
            .retain_mut(|(since, connection)| since.elapsed() < self.keep && connection.is_open());
        idle.swept = !idle.connections.is_empty();
        idle.swept
    }
}

/// Runs as long as there are idle connections, and no longer than the pool.
async fn sweep(pool: Weak<Pool>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match pool.upgrade() {
            Some(pool) if pool.sweep() => {}
            _ => return,
        }
    }
}
