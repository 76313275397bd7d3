//! The life of a request: one short method for each phase of the engine. Only this module touches its `Session`.
//!
//! HTTP/1.1 clients are served without the engine ([`Gateway::serve`]); HTTP/2 clients are served in its loop, up to where it
//! would begin to proxy. Which of them it is, only `client` knows. Requests are relayed to their targets by ourselves, whoever the client is, and WebSockets are carried.

mod cached;
mod call;
mod client;
mod detached;
mod encode;
mod fallback;
mod filling;
mod framing;
mod give;
mod mirror;
mod pace;
mod relay;
mod renew;
mod replay;
mod rescue;
mod respond;
mod serve;
pub mod tunnel;

use crate::attempt::Attempts;
use crate::cache::status::CacheStatus;
use crate::cache::{Body, Stored};
use crate::compress::Encoder;
use crate::exchange::{Exchange, RequestHead};
use crate::filters::too_large;
use crate::forward;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::{Counted, Held, Metrics};
use crate::observe::panics::guarded;
use crate::outcome;
use crate::reply::{Kind, Problem};
use crate::route::Route;
use crate::snapshot::Snapshot;
use crate::upstream::http1::Switched;
use crate::upstream::{Offer, Target};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use cached::Caching;
use call::Call;
use client::Client;
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use replay::Replay;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::watch;

/// The proxy's hooks.
#[derive(Clone)]
pub struct Gateway {
    /// The configuration that new requests get.
    pub current: Arc<ArcSwap<Snapshot>>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The access log, unless it is off.
    pub log: Option<Arc<AccessLog>>,
    /// Whether the process is about to stop: then every answer is the last one on its connection.
    pub leaving: Arc<AtomicBool>,
    /// Streams in flight: they may take longer than requests when the process leaves.
    pub streams: Counted,
    /// Turns true when the time for streams is up: then those end that can say so.
    pub closing: watch::Sender<bool>,
}

impl Gateway {
    /// A gateway whose requests get what `current` holds when they arrive.
    pub fn new(
        current: Arc<ArcSwap<Snapshot>>,
        metrics: Arc<Metrics>,
        log: Option<Arc<AccessLog>>,
    ) -> Gateway {
        let (streams, closing) = (metrics.streams(), watch::Sender::new(false));
        Gateway { current, metrics, log, leaving: Arc::default(), streams, closing }
    }
}

/// What a request carries through the phases.
pub struct Context {
    snapshot: Arc<Snapshot>,
    route: Option<Arc<Route>>,
    exchange: Exchange,
    attempts: Attempts,
    /// The answer that an error of ours carries to `fail_to_proxy`.
    refusal: Option<Problem>,
    /// Bytes of request body that may still come.
    body_left: u64,
    /// What is known of a gRPC call.
    call: Option<Box<Call>>,
    /// Whether what was sent upstream may be sent again.
    sent_idempotent: bool,
    /// What of the request's body can be.
    replay: Replay,
    /// What the cache has to do with the answer that is waited for.
    caching: Option<Box<Caching>>,
    /// What the cache did with a request that it only lets pass.
    cache_status: Option<CacheStatus<'static>>,
    /// What is stored, should nothing better be had.
    old: Option<Arc<Stored<Body>>>,
    /// Whether a final answer is looked at before anything of it goes to the client.
    holds: bool,
    /// An answer that is not good enough, should nothing better be had.
    spare: Option<Box<relay::Held>>,
    /// Whether it was decided if the request is mirrored.
    mirrored: bool,
    /// The copy of the request that is being taken.
    copied: Option<Box<mirror::Copied>>,
    /// What the answer's body is compressed by.
    encoder: Option<Box<Encoder>>,
    /// What the target may make of the connection: a WebSocket.
    websocket: Option<Arc<Offer>>,
    /// When it has.
    switched: Option<Box<Switched>>,
    leaving: Arc<AtomicBool>,
    streams: Counted,
    /// When it is one.
    stream: Option<Held>,
    _active: Held,
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed: what stands in the engine's futures is copied with them, several times a request.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        Box::new(Context {
            snapshot: self.current.load_full(),
            route: None,
            exchange: Exchange::default(),
            attempts: Attempts::default(),
            refusal: None,
            body_left: u64::MAX,
            call: None,
            sent_idempotent: false,
            replay: Replay::default(),
            caching: None,
            cache_status: None,
            old: None,
            holds: false,
            spare: None,
            mirrored: false,
            copied: None,
            encoder: None,
            websocket: None,
            switched: None,
            leaving: self.leaving.clone(),
            streams: self.streams.clone(),
            stream: None,
            _active: self.metrics.request_begins(),
        })
    }

    /// No modules: what they do is done by steps, and each would cost every request an allocation.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Context>) -> pingora::Result<bool> {
        let received = guarded(pin!(ctx.receive(&mut Client::of_stream(session)))).await;
        ctx.rescue(received)
    }

    /// Requests are relayed here, before the engine's own proxying begins.
    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<bool> {
        let answered = guarded(pin!(ctx.answer(&mut Client::of_stream(session)))).await;
        ctx.rescue(answered).map(|()| false)
    }

    /// Never asked: the engine proxies nothing.
    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Box<Context>) -> pingora::Result<Box<HttpPeer>> {
        Err(ctx.refuse(Kind::INTERNAL))
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Box<Context>,
    ) -> FailToProxy {
        self.fail(&mut Client::of_stream(session), error, ctx).await
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Box<Context>) {
        self.record(session.req_header(), session.body_bytes_sent() as u64, ctx);
    }

    /// The access log has a line for every failure; the engine's own would be a second one.
    fn suppress_error_log(&self, _: &Session, _: &Box<Context>, _: &Error) -> bool {
        true
    }

    fn request_summary(&self, session: &Session, ctx: &Box<Context>) -> String {
        format!(
            "{} {} id={}",
            session.req_header().method,
            session.req_header().uri.path(),
            ctx.exchange.id()
        )
    }
}

impl Gateway {
    /// Answers a request that an error has ended, or breaks its answer off.
    async fn fail(&self, client: &mut Client<'_>, error: &Error, ctx: &mut Context) -> FailToProxy {
        let kind = ctx.blame(error);
        let problem = ctx.refusal.take().unwrap_or_else(|| kind.into());
        ctx.exchange.reason = Some(problem.kind.code);
        self.note_flaw(error, ctx);
        let over = FailToProxy { error_code: problem.kind.status, can_reuse_downstream: false };
        if client.has_begun() {
            // The client must not take what it has for the whole answer.
            if !ctx.end_call(client, &problem).await {
                client.break_off().await;
            }
            return over;
        }
        ctx.exchange.status = problem.kind.status;
        if problem.kind == Kind::CLIENT_GONE {
            return over;
        }
        // The connection is closed after an error that came this late; the client had better know.
        client.close();
        let reply = problem.reply(client.request(), &ctx.exchange);
        let reason = ctx.exchange.reason;
        if let Err(error) = ctx.respond_anyhow(client, reply).await {
            log::debug!("an answer could not be written: {error}");
        }
        ctx.exchange.reason = reason;
        over
    }
}

impl Context {
    /// Makes the head of one attempt from a fresh copy of the request's.
    fn prepare(&self, request: &RequestHead, head: &mut RequestHead, target: &Target) -> Result<(), Problem> {
        let route = self.route.as_ref().ok_or(Kind::INTERNAL)?;
        forward::address(head, target);
        let id = &self.snapshot.telemetry.request_id;
        forward::identify_client(head, request, &self.exchange, route.forwarded, id);
        route.chain.on_upstream_request(head, request, &self.exchange)
    }

    /// Ends the request with a problem of our own; the error only carries it to `fail_to_proxy`.
    fn refuse(&mut self, problem: impl Into<Problem>) -> Box<Error> {
        let problem = problem.into();
        let mut error = Error::new(ErrorType::InternalError);
        if problem.kind == Kind::CLIENT_TIMEOUT {
            error.esource = ErrorSource::Downstream;
        }
        self.refusal = Some(problem);
        error
    }

    /// What an error of the engine is about, unless it carries a problem of our own.
    fn blame(&self, error: &Error) -> Kind {
        self.refusal.as_ref().map_or_else(|| outcome::kind(error), |problem| problem.kind)
    }

    /// Most bytes of request body.
    fn body_max(&self) -> u64 {
        self.route.as_ref().and_then(|route| route.body_max).unwrap_or(u64::MAX)
    }

    /// Counts a piece of the request's body.
    fn take_body(&mut self, piece: Option<&Bytes>) -> pingora::Result<()> {
        let length = piece.map_or(0, Bytes::len) as u64;
        self.exchange.bytes_in += length;
        self.body_left = self.body_left.checked_sub(length).ok_or_else(|| self.refuse_body())?;
        Ok(())
    }

    fn refuse_body(&mut self) -> Box<Error> {
        let mut error = self.refuse(too_large(self.body_max()));
        error.esource = ErrorSource::Downstream;
        error
    }
}
