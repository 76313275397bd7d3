//! The life of a request: one short method for each phase of the engine. Only this file touches its `Session`.

use crate::actions::Arm;
use crate::admit;
use crate::exchange::Exchange;
use crate::filters::{Step, too_large};
use crate::forward;
use crate::listen::connection::facts;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::{ActiveRequest, Attempt, Metrics};
use crate::observe::{Record, RouteFacts, record};
use crate::outcome;
use crate::reply::{Kind, Problem, Reply};
use crate::route::Route;
use crate::snapshot::Snapshot;
use crate::upstream::{Lease, TargetId};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::Version;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a request is tried at most: the first attempt, and one more where nothing can have happened yet.
const ATTEMPTS: u32 = 2;

/// How long the rest of a request body may take that nobody wants any more.
const DRAIN_BODY: Duration = Duration::from_secs(2);

/// A request body that is declared and no larger than this is read to its end after an early answer, so that the
/// connection can be kept.
const DRAIN_BYTES: u64 = 64 << 10;

/// The proxy's hooks.
pub struct Gateway {
    /// The configuration that new requests get.
    pub current: Arc<ArcSwap<Snapshot>>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The access log, unless it is off.
    pub log: Option<Arc<AccessLog>>,
}

/// What a request carries through the phases.
pub struct Context {
    snapshot: Arc<Snapshot>,
    route: Option<Arc<Route>>,
    exchange: Exchange,
    lease: Option<Lease>,
    arm: Option<usize>,
    key: Option<[u8; 8]>,
    tried: SmallVec<[TargetId; 2]>,
    refusal: Option<Problem>,
    bytes_left: u64,
    _active: ActiveRequest,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context {
            snapshot: self.current.load_full(),
            route: None,
            exchange: Exchange::default(),
            lease: None,
            arm: None,
            key: None,
            tried: SmallVec::new(),
            refusal: None,
            bytes_left: u64::MAX,
            _active: self.metrics.request_begins(),
        }
    }

    /// No modules: what they do is done by steps, and each would cost every request an allocation.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let reply = match ctx.admit(session) {
            Ok(None) => return Ok(false),
            Ok(Some(reply)) => reply,
            Err(problem) => problem.reply(session.req_header(), &ctx.exchange),
        };
        ctx.respond(session, reply).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        ctx.begin_attempt()
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _: Option<&Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        let tries = &mut ctx.exchange.tries;
        tries.connect = if reused { Some(Duration::ZERO) } else { tries.began.map(|began| began.elapsed()) };
        Ok(())
    }

    async fn upstream_request_filter(&self, session: &mut Session, head: &mut RequestHeader, ctx: &mut Context) -> Result<()> {
        ctx.prepare(session.req_header(), head)
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        let length = body.as_ref().map_or(0, Bytes::len) as u64;
        ctx.exchange.bytes_in += length;
        match ctx.bytes_left.checked_sub(length) {
            Some(left) => ctx.bytes_left = left,
            None => return Err(ctx.refuse_body()),
        }
        // The engine would end a chunked body twice and so spoil the upstream's connection (cloudflare/pingora#935).
        if end_of_stream && length == 0 {
            *body = None;
        }
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, head: &mut ResponseHeader, ctx: &mut Context) -> Result<()> {
        ctx.answered(session.req_header(), head);
        Ok(())
    }

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
        ctx.attempt_failed(&error);
        // Nothing was sent, so every method may try another target.
        error.set_retry(ctx.exchange.tries.count < ATTEMPTS && ctx.has_another_target());
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("Peer: {peer}"));
        let idempotent = session.req_header().method.is_idempotent();
        if !idempotent || session.as_ref().retry_buffer_truncated() || ctx.exchange.tries.count >= ATTEMPTS {
            error.set_retry(false);
        } else {
            // A connection that was kept may have been closed while the request was on its way (RFC 9112 section 9.3.1).
            error.retry.decide_reuse(client_reused);
        }
        ctx.attempt_failed(&error);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let problem = ctx.refusal.take().unwrap_or_else(|| outcome::problem(error));
        ctx.exchange.reason = Some(problem.kind.code);
        let status = problem.kind.status;
        if session.response_written().is_some() || problem.kind == Kind::CLIENT_GONE {
            ctx.exchange.status = if session.response_written().is_some() { ctx.exchange.status } else { status };
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let reply = problem.reply(session.req_header(), &ctx.exchange);
        let sent = ctx.respond(session, reply).await;
        let upstream_only = *error.esource() != pingora::ErrorSource::Downstream;
        FailToProxy { error_code: status, can_reuse_downstream: sent.is_ok() && upstream_only }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Context) {
        let listener = ctx.snapshot.listeners.get(usize::from(ctx.exchange.listener));
        let route = ctx.route.as_deref();
        let request = session.req_header();
        let line = Record {
            exchange: &ctx.exchange,
            request,
            route: route.map(|route| RouteFacts { api: &route.api, id: &route.id, template: &route.template }),
            bytes_out: session.body_bytes_sent() as u64,
            protocol: protocol(request.version),
            listener: listener.map_or("", |listener| listener.name.as_str()),
        };
        let metrics = route.map_or(&ctx.snapshot.unrouted, |route| &route.metrics);
        record(&line, &self.metrics, metrics, ctx.snapshot.telemetry.log.as_ref(), self.log.as_deref());
        ctx.finish_attempt();
    }

    /// The access log has a line for every failure; the engine's own would be a second one.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn request_summary(&self, session: &Session, ctx: &Context) -> String {
        format!("{} {} id={}", session.req_header().method, session.req_header().uri.path(), ctx.exchange.id())
    }
}

impl Context {
    /// From the head of the request to its route, through the steps; gives the answer when it is made here.
    fn admit(&mut self, session: &mut Session) -> Result<Option<Reply>, Problem> {
        let facts = facts(session.digest()).copied().ok_or(Kind::INTERNAL)?;
        let listener = self.snapshot.listeners.get(usize::from(facts.listener)).ok_or(Kind::INTERNAL)?;
        limit_time(session, listener.limits.keepalive);
        let head = session.req_header_mut();
        admit::identify(&mut self.exchange, head, &facts, listener, &self.snapshot.telemetry);
        let (route, params) = admit::find(head, listener, facts.listener, &self.snapshot.table)?;
        let route = self.snapshot.routes.get(route as usize).cloned().ok_or(Kind::INTERNAL)?;
        self.exchange.params = params;
        self.bytes_left = route.body_max.unwrap_or(u64::MAX);
        let route = self.route.insert(route);
        let head = session.req_header();
        match route.chain.on_request(head, &mut self.exchange) {
            Step::Reply(reply) => return Ok(Some(reply)),
            Step::Continue => {}
        }
        if let Some((number, arm)) = route.action.proxy().and_then(|proxy| proxy.choose(head, &self.exchange)) {
            self.arm = Some(number);
            self.key = arm.key.as_ref().and_then(|key| key.hash(head, &self.exchange)).map(u64::to_le_bytes);
        }
        Ok(route.action.reply(head, &self.exchange))
    }

    fn arm(&self) -> Option<&Arm> {
        self.route.as_ref()?.action.proxy()?.arms().get(self.arm?)
    }

    /// Picks a target for the next attempt.
    fn begin_attempt(&mut self) -> Result<Box<HttpPeer>> {
        let (Some(route), Some(arm)) = (self.route.as_deref(), self.arm()) else {
            return Err(self.refuse(Kind::INTERNAL));
        };
        let lease = match arm.upstream.pick(self.key.as_ref().map(<[u8; 8]>::as_slice), &self.tried) {
            Ok(lease) => lease,
            Err(why) => return Err(self.refuse(outcome::unpicked(why))),
        };
        let mut peer = Box::new(lease.peer());
        peer.options.total_connection_timeout = Some(route.timeouts.connect);
        peer.options.read_timeout = Some(route.timeouts.response);
        peer.options.write_timeout = Some(route.timeouts.idle);
        let (upstream, target) = (arm.name.clone(), lease.target().label().clone());
        self.exchange.tries.begin(upstream, target);
        self.tried.push(lease.target().id());
        self.lease = Some(lease);
        Ok(peer)
    }

    /// Makes the head of one attempt from a fresh copy of the request's.
    fn prepare(&mut self, request: &RequestHeader, head: &mut RequestHeader) -> Result<()> {
        let (Some(route), Some(lease)) = (self.route.clone(), &self.lease) else {
            return Err(self.refuse(Kind::INTERNAL));
        };
        if let Some(host) = lease.target().host() {
            head.insert_header(http::header::HOST, host.clone())?;
        }
        forward::identify_client(head, request, &self.exchange, route.forwarded, &self.snapshot.telemetry.request_id)?;
        let changed = route.chain.on_upstream_request(head, request, &self.exchange);
        changed.map_err(|problem| self.refuse(problem))
    }

    /// The head of an answer is on its way to the client: the upstream's.
    fn answered(&mut self, request: &RequestHeader, head: &mut ResponseHeader) {
        let x = &mut self.exchange;
        if let (Some(began), None) = (x.tries.began, x.tries.first_byte) {
            let first_byte = began.elapsed();
            x.tries.first_byte = Some(first_byte);
            if let Some(lease) = &self.lease {
                lease.observe(first_byte);
            }
        }
        self.decorate(request, head);
    }

    /// What every answer gets, whoever made it.
    fn decorate(&mut self, request: &RequestHeader, head: &mut ResponseHeader) {
        self.exchange.status = head.status.as_u16();
        drop(head.insert_header(self.snapshot.telemetry.request_id.clone(), self.exchange.request_id.clone()));
        let Some(route) = &self.route else { return };
        if let (Some(name), Some(arm)) = (route.action.proxy().and_then(|proxy| proxy.expose.clone()), self.arm()) {
            drop(head.insert_header(name, arm.value.clone()));
        }
        route.chain.on_response(head, request, &self.exchange);
    }

    /// The one writer of answers that tollgate makes itself.
    async fn respond(&mut self, session: &mut Session, reply: Reply) -> Result<()> {
        let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 4))?;
        for (name, value) in reply.headers {
            head.append_header(name, value)?;
        }
        let bodiless = matches!(reply.status, 204 | 304);
        if !bodiless {
            head.set_content_length(reply.body.len())?;
        }
        self.exchange.reason = reply.reason.or(self.exchange.reason);
        self.decorate(session.req_header(), &mut head);
        let without_body = bodiless || reply.body.is_empty() || session.req_header().method == http::Method::HEAD;
        if admit::declared_body(session.req_header()).is_some_and(|declared| declared <= DRAIN_BYTES) {
            session.set_close_on_response_before_downstream_finish(false);
        }
        session.write_response_header(Box::new(head), without_body).await?;
        if !without_body {
            session.write_response_body(Some(reply.body), true).await?;
        }
        Ok(())
    }

    /// Ends the request with a problem of our own; the error only carries it to `fail_to_proxy`.
    fn refuse(&mut self, problem: impl Into<Problem>) -> Box<Error> {
        self.refusal = Some(problem.into());
        let mut error = Error::new(ErrorType::InternalError);
        error.set_retry(false);
        error
    }

    fn refuse_body(&mut self) -> Box<Error> {
        let max = self.route.as_ref().and_then(|route| route.body_max).unwrap_or(u64::MAX);
        let mut error = self.refuse(too_large(max));
        error.as_down();
        error
    }

    fn has_another_target(&self) -> bool {
        self.arm().is_some_and(|arm| arm.upstream.targets().iter().any(|target| !self.tried.contains(&target.id())))
    }

    fn attempt_failed(&mut self, error: &Error) {
        if *error.esource() == pingora::ErrorSource::Downstream {
            return;
        }
        if let Some(lease) = self.lease.take() {
            lease.observe_failure();
        }
        if let (Some(arm), Some(began)) = (self.arm(), self.exchange.tries.began) {
            arm.metrics.attempt(outcome::attempt(error), began.elapsed());
        }
        self.exchange.tries.fail(Instant::now());
    }

    /// Counts the attempt that led to the answer, if one did.
    fn finish_attempt(&mut self) {
        if self.lease.take().is_none() {
            return;
        }
        if let (Some(arm), Some(began)) = (self.arm(), self.exchange.tries.began) {
            let result = if self.exchange.status >= 500 { Attempt::ServerError } else { Attempt::Ok };
            arm.metrics.attempt(result, began.elapsed());
        }
    }
}

/// The engine keeps connections for ever after their first request unless it is told otherwise at each one.
fn limit_time(session: &mut Session, keepalive: Duration) {
    if session.get_keepalive().is_some() {
        session.set_keepalive(Some(keepalive.as_secs().max(1)));
    }
    session.set_total_drain_timeout(Some(DRAIN_BODY));
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
