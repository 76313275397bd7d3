//! The life of a request: one short method for each phase of the engine. Only this module touches its `Session`.
//!
//! HTTP/1.1 clients are served without the engine's loop ([`Gateway::serve`]), and requests to targets over HTTP/1.1 in
//! cleartext are relayed without its proxying, whoever the client is; so are WebSockets of HTTP/1.1 clients to such targets.
//! What is left to the engine is told where that is decided.

mod cached;
mod encode;
mod fallback;
mod filling;
mod give;
mod relay;
mod renew;
mod respond;
mod serve;
mod tunnel;

pub use serve::Served;

use crate::attempt::Attempts;
use crate::cache::status::CacheStatus;
use crate::cache::{Body, Stored};
use crate::compress::Encoder;
use crate::exchange::{Exchange, RequestHead};
use crate::filters::too_large;
use crate::forward;
use crate::head::{take_request, take_response};
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::{Counted, Held, Metrics};
use crate::outcome;
use crate::reply::{Kind, Problem};
use crate::route::Route;
use crate::snapshot::Snapshot;
use crate::upstream::http1::Switched;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use cached::Caching;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
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
    /// Whether what was sent upstream may be sent again.
    sent_idempotent: bool,
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
    /// What the answer's body is compressed by.
    encoder: Option<Box<Encoder>>,
    /// Whether the target may make a WebSocket of the connection.
    websocket: bool,
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
            sent_idempotent: false,
            caching: None,
            cache_status: None,
            old: None,
            holds: false,
            spare: None,
            encoder: None,
            websocket: false,
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
        let reply = match ctx.admit(session).await {
            Ok(None) => return Ok(false),
            Ok(Some(reply)) => reply,
            Err(problem) => problem.reply(session.req_header(), &ctx.exchange),
        };
        ctx.respond(session, reply).await?;
        Ok(true)
    }

    /// Requests that need nothing of the engine's proxying are relayed here, before it begins.
    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<bool> {
        ctx.answer(session).await.map(|()| false)
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Box<Context>) -> pingora::Result<Box<HttpPeer>> {
        let Context { route, attempts, exchange, .. } = &mut **ctx;
        let next = route.as_ref().ok_or(Kind::INTERNAL).and_then(|route| attempts.next(route, exchange));
        next.map_err(|kind| ctx.refuse(kind))
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _: Option<&Digest>,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        let tries = &mut ctx.exchange.tries;
        tries.connect = if reused { Some(Duration::ZERO) } else { tries.began.map(|began| began.elapsed()) };
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        let mut parts = take_request(head);
        let prepared = ctx.prepare(session.req_header(), &mut parts);
        *head = parts.into();
        ctx.sent_idempotent = head.method.is_idempotent();
        // The engine sends a body again from its beginning, and through our filter.
        ctx.body_left = ctx.body_max();
        ctx.exchange.bytes_in = 0;
        prepared.map_err(|problem| ctx.refuse(problem))
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        ctx.take_body(body.as_ref())?;
        // The engine would end a chunked body twice and so spoil the upstream's connection (cloudflare/pingora#935).
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        // An interim answer goes by as it is (RFC 9110 section 15.2); only 101 is final.
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(route)) = (head.status, &ctx.route) {
            session.set_read_timeout(Some(route.timeouts.stream_idle));
        }
        let mut parts = take_response(head);
        ctx.answered(session, &mut parts, false);
        *head = parts.into();
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Box<Context>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let Context { route: Some(route), attempts, exchange, .. } = &mut **ctx else { return error };
        attempts.failed(route, exchange, outcome::kind(&error, true));
        // Nothing was sent, so every method may try another target.
        error.set_retry(attempts.may_go_on(exchange) && attempts.has_another_target(route));
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Box<Context>,
        client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("Peer: {peer}"));
        let kind = ctx.blame(session, &error);
        let sent_idempotent = ctx.sent_idempotent;
        let Context { route: Some(route), attempts, exchange, .. } = &mut **ctx else { return error };
        let repeatable = sent_idempotent && !session.as_ref().retry_buffer_truncated();
        if repeatable && outcome::attempt(kind).is_some() && attempts.may_go_on(exchange) {
            // A connection that was kept may have been closed while the request was on its way (RFC 9112 section 9.3.1).
            error.retry.decide_reuse(client_reused);
        } else {
            error.set_retry(false);
        }
        attempts.failed(route, exchange, kind);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Box<Context>,
    ) -> FailToProxy {
        let kind = ctx.blame(session, error);
        let problem = ctx.refusal.take().unwrap_or_else(|| kind.into());
        ctx.exchange.reason = Some(problem.kind.code);
        let over = FailToProxy { error_code: problem.kind.status, can_reuse_downstream: false };
        if session.response_written().is_some() {
            return over;
        }
        ctx.exchange.status = problem.kind.status;
        if problem.kind == Kind::CLIENT_GONE {
            return over;
        }
        // The engine closes the connection after an error that came this late; the client had better know.
        session.set_keepalive(None);
        let reply = problem.reply(session.req_header(), &ctx.exchange);
        if let Err(error) = ctx.respond(session, reply).await {
            log::debug!("an answer could not be written: {error}");
        }
        over
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Box<Context>) {
        self.record(session.req_header(), session.body_bytes_sent(), ctx);
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

impl Context {
    /// Makes the head of one attempt from a fresh copy of the request's.
    fn prepare(&self, request: &RequestHead, head: &mut RequestHead) -> Result<(), Problem> {
        let (Some(route), Some(lease)) = (&self.route, self.attempts.lease()) else {
            return Err(Kind::INTERNAL.into());
        };
        forward::address(head, lease.target());
        let id = &self.snapshot.telemetry.request_id;
        forward::identify_client(head, request, &self.exchange, route.forwarded, id);
        route.chain.on_upstream_request(head, request, &self.exchange)
    }

    /// Ends the request with a problem of our own; the error only carries it to `fail_to_proxy`.
    fn refuse(&mut self, problem: impl Into<Problem>) -> Box<Error> {
        self.refusal = Some(problem.into());
        let mut error = Error::new(ErrorType::InternalError);
        error.set_retry(false);
        error
    }

    /// What an error of the engine is about, unless it carries a problem of our own.
    fn blame(&self, session: &mut Session, error: &Error) -> Kind {
        match &self.refusal {
            Some(problem) => problem.kind,
            None => outcome::kind(error, session.as_mut().is_body_done()),
        }
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
