//! HTTP/2 connections of clients, stream by stream. The frames are the engine's; who is let in, and for how long, is said here.
//!
//! The engine's own loop would wait for ever for the preface, and counts neither requests nor what a client takes back.

use super::accept::App;
use super::seats::Seat;
use crate::head::take_request;
use crate::listen::Limits;
use crate::listen::connection::Connection;
use crate::listen::frames::{Excess, Watch};
use crate::listen::turn::Turn;
use bytes::Bytes;
use h2::Reason;
use pingora::apps::HttpServerApp;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora::protocols::{Digest, GetProxyDigest, GetSocketDigest, Stream};
use pingora::server::ShutdownWatch;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Most streams of a connection that are no requests.
const MOST_MALFORMED: u32 = 32;

/// More fields than these no configuration allows.
const MOST_FIELDS: usize = 256;

/// Most bytes of answers that wait in a stream for the client to take them.
const SEND_BUFFER: usize = 64 << 10;

/// So many requests of a connection begin at once, since what they have to say goes out together; only who has more in flight lets
/// others come between.
const FEW: usize = 8;

/// Requests that a client may still send before it says that it has heard of the end: it has a round trip for that.
const LATE_REQUESTS: u64 = 10_000;

/// How long a client may take to hear the last words.
const PARTING: Duration = Duration::from_secs(1);

type Frames = h2::server::Connection<Stream, Bytes>;

/// Serves a connection to its end.
pub(super) async fn serve(
    app: Arc<App>,
    mut connection: Box<Connection>,
    stopping: ShutdownWatch,
    seat: Arc<Seat>,
) {
    let watch = connection.watch_frames(&app.limits);
    let digest = Arc::new(Digest {
        ssl_digest: None,
        timing_digest: Vec::new(),
        proxy_digest: connection.get_proxy_digest(),
        socket_digest: connection.get_socket_digest(),
    });
    let begun = handshake(connection, Some(options(&app.limits)));
    // Who speaks HTTP/2 begins to at once; the head of its first request may come later.
    match timeout(app.limits.header_time, begun).await {
        Ok(Ok(frames)) => {
            let active = Arc::new(Active::new(seat));
            Client { app, watch, digest, stopping, active }.listen(frames).await;
        }
        Ok(Err(error)) => log::debug!("a client does not speak HTTP/2: {error}"),
        Err(_) => log::debug!("a client does not begin to speak HTTP/2"),
    }
}

fn options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    options.initial_window_size(limits.h2_window).initial_connection_window_size(limits.h2_window);
    options.max_concurrent_streams(limits.h2_streams).max_header_list_size(header_list(limits));
    options.max_send_buffer_size(SEND_BUFFER);
    options
}

/// What `limits` mean in HTTP/2's way of counting: 32 bytes more for each field (RFC 9113 section 6.5.2).
fn header_list(limits: &Limits) -> u32 {
    let bytes = limits.header_bytes.saturating_add(limits.uri).saturating_add(32 * limits.headers as u64);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A client that speaks HTTP/2.
struct Client {
    app: Arc<App>,
    watch: Arc<Watch>,
    digest: Arc<Digest>,
    stopping: ShutdownWatch,
    active: Arc<Active>,
}

/// What happens next on a connection.
#[allow(clippy::large_enum_variant, reason = "there is one for each connection, and not for long")]
enum Next {
    /// A request, or what should have been one; `None` is the end.
    Accepted(pingora::Result<Option<H2Accept>>),
    /// The client has gone too far.
    Excess(Excess),
    /// The process leaves.
    Stopping,
    /// It may be that nothing has been asked for long.
    Idle,
}

impl Client {
    async fn listen(self, mut frames: Frames) {
        let Limits { keepalive, h2_requests, .. } = self.app.limits;
        let (mut requests, mut malformed) = (0, 0);
        let mut stopping = Some(Box::pin(stopped(self.stopping.clone())));
        let (mut idle, mut turn) = (pin!(sleep(keepalive)), Turn::default());
        loop {
            match self.next(&mut frames, &mut turn, &mut stopping, idle.as_mut()).await {
                Next::Accepted(Ok(Some(H2Accept::Session(session)))) => {
                    self.answer(session);
                    requests += 1;
                    if requests == h2_requests {
                        frames.graceful_shutdown();
                    } else if requests == h2_requests.saturating_add(LATE_REQUESTS) {
                        return part(frames, Reason::ENHANCE_YOUR_CALM).await;
                    }
                }
                Next::Accepted(Ok(Some(H2Accept::Rejected))) => {
                    malformed += 1;
                    if malformed == MOST_MALFORMED {
                        self.app.cut_off.malformed.inc();
                        return part(frames, Reason::ENHANCE_YOUR_CALM).await;
                    }
                }
                Next::Accepted(Ok(None)) => return,
                Next::Accepted(Err(error)) => return log::debug!("an HTTP/2 connection has ended: {error}"),
                Next::Excess(excess) => {
                    self.app.cut_off.by(excess).inc();
                    log::debug!("an HTTP/2 connection has broken `limits.{}`", excess.limit());
                    return part(frames, Reason::ENHANCE_YOUR_CALM).await;
                }
                Next::Stopping => frames.graceful_shutdown(),
                Next::Idle => match self.active.quiet() {
                    Some(quiet) if quiet >= keepalive => return part(frames, Reason::NO_ERROR).await,
                    quiet => idle.as_mut().reset(Instant::now() + keepalive - quiet.unwrap_or_default()),
                },
            }
        }
    }

    async fn next(
        &self,
        frames: &mut Frames,
        turn: &mut Turn,
        stopping: &mut Option<Pin<Box<impl Future<Output = ()>>>>,
        mut idle: Pin<&mut Sleep>,
    ) -> Next {
        let mut accepted = pin!(HttpSession::from_h2_conn(frames, self.digest.clone()));
        poll_fn(|cx| {
            ready!(turn.poll(cx));
            // All reading is done in here. What was read is accepted before more is, and then it is others' turn: the heads of a
            // hundred requests take megabytes.
            if let Poll::Ready(accepted) = accepted.as_mut().poll(cx) {
                self.watch.hold();
                if self.active.are_many() {
                    turn.begin();
                }
                return Poll::Ready(Next::Accepted(accepted));
            }
            if let Some(excess) = self.watch.excess() {
                return Poll::Ready(Next::Excess(excess));
            }
            match self.watch.release() {
                true => cx.waker().wake_by_ref(),
                false => turn.end(),
            }
            if stopping.as_mut().is_some_and(|stopping| stopping.as_mut().poll(cx).is_ready()) {
                *stopping = None;
                return Poll::Ready(Next::Stopping);
            }
            idle.as_mut().poll(cx).map(|()| Next::Idle)
        })
        .await
    }

    /// Has a request answered by a task of its own.
    fn answer(&self, mut session: HttpSession) {
        shorten(session.req_header_mut());
        let (app, stopping, active) = (self.app.clone(), self.stopping.clone(), Active::begin(&self.active));
        tokio::spawn(async move {
            app.proxy.process_new_http(ServerSession::new_http2(session), &stopping).await;
            drop(active);
        });
    }
}

/// Leaves of far too many fields too many: enough to refuse them, and not hundreds of KiB until that is done.
fn shorten(head: &mut RequestHeader) {
    if head.headers.len() <= MOST_FIELDS + 1 {
        return;
    }
    let mut parts = take_request(head);
    let all = std::mem::take(&mut parts.headers);
    for (name, value) in all.iter().take(MOST_FIELDS + 1) {
        parts.headers.append(name, value.clone());
    }
    *head = parts.into();
}

/// Ends a connection with a reason. What is still being answered on it ends too.
async fn part(mut frames: Frames, reason: Reason) {
    frames.abrupt_shutdown(reason);
    let ended = async { while let Some(Ok(_)) = frames.accept().await {} };
    // Whoever does not listen does not hear it.
    drop(timeout(PARTING, ended).await);
}

/// Completes when the process leaves.
async fn stopped(mut stopping: ShutdownWatch) {
    if stopping.wait_for(|stopping| *stopping).await.is_err() {
        // Nobody is left to stop us.
        std::future::pending::<()>().await;
    }
}

/// The requests of a connection that are being answered.
struct Active {
    count: AtomicUsize,
    since: Instant,
    /// When the last one ended, in milliseconds since the beginning.
    ended: AtomicU64,
    seat: Arc<Seat>,
}

/// One of them.
struct Running(Arc<Active>);

impl Active {
    fn new(seat: Arc<Seat>) -> Active {
        Active { count: AtomicUsize::new(0), since: Instant::now(), ended: AtomicU64::new(0), seat }
    }

    fn begin(this: &Arc<Active>) -> Running {
        this.count.fetch_add(1, Ordering::Relaxed);
        // One that has been asked to go is about to end.
        this.seat.be_busy();
        Running(this.clone())
    }

    fn are_many(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= FEW
    }

    /// For how long there has been none; `None` when there are some.
    fn quiet(&self) -> Option<Duration> {
        if self.count.load(Ordering::Acquire) > 0 {
            return None;
        }
        let ended = Duration::from_millis(self.ended.load(Ordering::Relaxed));
        Some(self.since.elapsed().saturating_sub(ended))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended.fetch_max(now, Ordering::Relaxed);
        if self.0.count.fetch_sub(1, Ordering::Release) == 1 {
            self.0.seat.wait();
            // Another one may have begun meanwhile.
            if self.0.count.load(Ordering::Acquire) > 0 {
                self.0.seat.be_busy();
            }
        }
    }
}
