//! One connection that requests share, and the task that moves its frames.

use super::stream::Stream;
use super::{Pool, STREAMS};
use crate::listen::connection::Socket;
use crate::listen::turn::Turn;
use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// How often a connection with streams is asked whether it still lives. No oftener: servers that speak gRPC take it ill
/// below five minutes. A host that has vanished is found earlier, by TCP.
const PING_EVERY: Duration = Duration::from_secs(310);

/// How long the answer to that may take.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Bounds of the time between two looks at whether a connection is needed.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// A connection that can be given more streams.
#[derive(Debug)]
pub(super) struct Shared {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
}

/// What a connection, its streams and its task know of each other.
#[derive(Debug)]
pub(super) struct State {
    /// Streams that are held.
    streams: AtomicUsize,
    /// Whether there was one before.
    used: AtomicBool,
    /// Since when there has been none.
    idle_since: Mutex<Instant>,
    /// Whether it takes no more streams: it has ended, or is about to.
    closed: AtomicBool,
    /// Whether it was silent for too long, and has not answered since.
    doubted: AtomicBool,
    doubt: Notify,
}

/// A hold on a connection.
#[derive(Debug)]
pub(super) struct Seat(Arc<State>);

impl Shared {
    pub(super) fn new(sender: SendRequest<Bytes>) -> Shared {
        let state = State {
            streams: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            closed: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            doubt: Notify::new(),
        };
        Shared { sender, state: Arc::new(state) }
    }

    pub(super) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Another stream, if there is room and the target has not said that it is leaving.
    pub(super) fn stream(&mut self, secure: bool) -> Option<Stream> {
        let state = &self.state;
        let most = self.sender.current_max_send_streams().min(STREAMS);
        if state.doubted.load(Ordering::Relaxed) || state.streams.load(Ordering::Relaxed) >= most {
            return None;
        }
        // Nothing is ever sent by this sender itself, so it has nothing to wait for.
        let mut nobody = Context::from_waker(Waker::noop());
        if !matches!(self.sender.poll_ready(&mut nobody), Poll::Ready(Ok(()))) {
            state.closed.store(true, Ordering::Relaxed);
            return None;
        }
        let used = state.used.swap(true, Ordering::Relaxed);
        Some(Stream::new(self.sender.clone(), state.seat(), used, secure))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Relaxed)
    }

    /// Whether it has carried no stream for so long.
    pub(super) fn is_idle(&self, keep: Duration) -> bool {
        self.state.is_free() && self.state.idle_since.lock().elapsed() >= keep
    }
}

impl State {
    fn seat(self: &Arc<State>) -> Seat {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(self))
    }

    fn is_free(&self) -> bool {
        self.streams.load(Ordering::Relaxed) == 0
    }
}

impl Seat {
    /// Has the connection asked whether it still lives; until it says so, it gets no more streams.
    pub(super) fn doubt(&self) {
        self.0.doubted.store(true, Ordering::Relaxed);
        self.0.doubt.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.0.idle_since.lock() = Instant::now();
        }
    }
}

/// Moves the frames of a connection until it ends: by itself when neither its pool nor a stream holds it any more.
pub(super) async fn drive(mut connection: Connection<Socket, Bytes>, state: Arc<State>, pool: Weak<Pool>) {
    let keep = pool.upgrade().map_or(Duration::ZERO, |pool| pool.keep);
    let look = keep.clamp(LOOK.0, LOOK.1);
    let (mut ping, mut asked, mut turn) = (connection.ping_pong(), Instant::now(), Turn::default());
    loop {
        tokio::select! {
            ended = in_turn(&mut connection, &mut turn) => {
                if let Err(error) = ended {
                    log::debug!("an HTTP/2 connection has ended: {error}");
                }
                break;
            }
            () = state.doubt.notified() => {}
            () = tokio::time::sleep(look) => {
                if let Some(pool) = pool.upgrade() {
                    pool.retire();
                }
                if state.is_free() || asked.elapsed() < PING_EVERY {
                    continue;
                }
            }
        }
        asked = Instant::now();
        if !lives(&mut connection, ping.as_mut()).await {
            log::debug!("an HTTP/2 connection is given up: it is silent or has ended");
            break;
        }
        state.doubted.store(false, Ordering::Relaxed);
    }
    state.closed.store(true, Ordering::Relaxed);
    // Streams that are left fail with it.
    drop(connection);
    if let Some(pool) = pool.upgrade() {
        pool.retire();
    }
}

/// A connection that takes what all requests have to say before it sends anything.
fn in_turn(
    connection: &mut Connection<Socket, Bytes>,
    turn: &mut Turn,
) -> impl Future<Output = Result<(), h2::Error>> {
    poll_fn(|cx| {
        ready!(turn.poll(cx));
        let ended = Pin::new(&mut *connection).poll(cx);
        if ended.is_pending() {
            turn.end();
        }
        ended
    })
}

/// Whether a connection answers a ping.
async fn lives(connection: &mut Connection<Socket, Bytes>, ping: Option<&mut PingPong>) -> bool {
    let Some(ping) = ping else { return true };
    tokio::select! {
        _ = connection => false,
        pong = timeout(PONG_WITHIN, ping.ping(Ping::opaque())) => matches!(pong, Ok(Ok(_))),
    }
}
