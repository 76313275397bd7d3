//! HTTP/2 to a target (RFC 9113), in cleartext or over TLS, without the engine.
//!
//! Frames, windows and compression are the `h2` crate's. What is ours: connections are shared by as many requests as the
//! target allows, given up when the target says so or is silent, and closed when nobody needs them. Each has a task that ends
//! with it; a request's [`Stream`] is driven by whoever relays it.

mod connection;
mod stream;
#[cfg(test)]
mod tests;

pub use stream::Stream;

use super::dial::Unreached;
use crate::listen::connection::Socket;
use connection::Shared;
use h2::client::Builder;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::MutexGuard;

/// Streams that share one connection; what most servers allow.
const STREAMS: usize = 100;

/// Receive window of one stream, bytes. It bounds what a slow client makes us hold per request.
const STREAM_WINDOW: u32 = 1 << 20;

/// Receive window of one connection, bytes.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Bytes of a request's body that wait for the connection to send them, whatever the target's window allows.
const SEND_BUFFER: usize = 64 << 10;

/// Most bytes of header fields in an answer, as in HTTP/1.1.
const MAX_HEAD: u32 = 256 << 10;

/// The connections to one target.
#[derive(Debug)]
pub struct Pool {
    /// How long a connection may be idle.
    keep: Duration,
    secure: bool,
    open: Mutex<Vec<Shared>>,
    connecting: tokio::sync::Mutex<()>,
}

impl Pool {
    /// A pool without connections, each of which may be idle for as long as `keep`; `secure` is whether they are encrypted.
    pub fn new(keep: Duration, secure: bool) -> Arc<Pool> {
        Arc::new(Pool { keep, secure, open: Mutex::default(), connecting: tokio::sync::Mutex::default() })
    }

    /// A stream of a connection that is there and has room. The oldest is filled first, so that others can be closed.
    pub fn take(&self) -> Option<Stream> {
        let mut open = self.open.lock();
        open.retain(|connection| !connection.is_closed());
        open.iter_mut().find_map(|connection| connection.stream(self.secure))
    }

    /// Waits for the turn to connect: whoever comes next may find room on what was made before.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.connecting.lock().await
    }

    /// Begins to speak HTTP/2 on a connection, and gives its first stream. Must be called on the runtime.
    ///
    /// # Errors
    /// The connection has ended already.
    pub async fn add(pool: &Arc<Pool>, socket: Socket) -> Result<Stream, Unreached> {
        let begun = builder().handshake(socket).await;
        let (sender, connection) = begun.map_err(|error| {
            log::debug!("an HTTP/2 connection could not be begun: {error}");
            Unreached::Failed
        })?;
        let mut shared = Shared::new(sender);
        let stream = shared.stream(pool.secure).ok_or(Unreached::Failed)?;
        tokio::spawn(connection::drive(connection, shared.state(), Arc::downgrade(pool)));
        pool.open.lock().push(shared);
        Ok(stream)
    }

    /// Lets go of connections that have been idle for too long or have ended. They say goodbye by themselves.
    pub fn retire(&self) {
        let retired: Vec<Shared> = {
            let mut open = self.open.lock();
            open.extract_if(.., |connection| connection.is_closed() || connection.is_idle(self.keep))
                .collect()
        };
        drop(retired);
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD);
    builder
}
