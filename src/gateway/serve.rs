//! A request of an HTTP/1.1 client from its head to the end of its answer, in the phases of the engine but without its loop.
//!
//! The engine's loop moves a future of 13 KiB to the heap for each request and asks hooks that we do not have.

use super::call::Call;
use super::client::Client;
use super::{Context, Gateway};
use crate::admit;
use crate::exchange::RequestHead;
use crate::forward::websocket;
use crate::head::reply_head;
use crate::listen::framing::{Flaw, glimpse};
use crate::listen::http1::Session;
use crate::observe::panics::guarded;
use crate::observe::{Record, record};
use crate::outcome;
use crate::reply::{Kind, Problem, Reply};
use bytes::Bytes;
use http::{Method, Uri};
use pingora::Error;
use pingora::proxy::ProxyHttp;
use std::pin::pin;
use std::sync::Arc;

impl Gateway {
    /// Serves the request whose head an HTTP/1.1 `session` has read. Gives the session back if it may carry another one.
    pub async fn serve(&self, mut session: Box<Session>) -> Option<Box<Session>> {
        let mut ctx = self.new_ctx();
        let client = &mut Client::Http1(&mut session);
        let answered = guarded(pin!(ctx.work(client))).await;
        let answered = ctx.rescue(answered);
        if let Err(error) = &answered {
            self.fail(client, error, &mut ctx).await;
        }
        if answered.is_ok()
            && let Some(switched) = ctx.switched.take()
        {
            // Boxed: few requests come here, and what a tunnel needs would be in the way of all others.
            Box::pin(self.tunnel(session, switched, ctx)).await;
            return None;
        }
        self.record(session.request(), session.body_sent(), &mut ctx);
        (answered.is_ok() && session.finish().await).then_some(session)
    }

    /// Answers the watchdog, which asks whether requests find their route: with 204, whichever it is. Not recorded.
    pub async fn answer_probe(&self, mut session: Box<Session>) {
        let mut ctx = self.new_ctx();
        let client = &mut Client::Http1(&mut session);
        // Whether there is a route does not matter: the table was asked.
        let _ = ctx.locate(client);
        // No step has seen the request, so none shall see its answer.
        ctx.route = None;
        client.close();
        let reply =
            Reply { status: 204, headers: Vec::new(), body: Bytes::new(), reason: None, problem: None };
        match ctx.respond(client, reply).await {
            Ok(()) => drop(session.finish().await),
            Err(error) => log::debug!("the watchdog was not answered: {error}"),
        }
    }

    /// Answers what is no request (RFC 9112 section 3), and records it with what can be made out of it: a method and a target.
    pub async fn refuse_head(&self, session: &mut Session, flaw: Flaw) {
        let mut ctx = self.new_ctx();
        let request = made_out(glimpse(session.ahead()));
        if let Some(listener) = ctx.snapshot.listeners.get(usize::from(session.facts().listener)) {
            admit::identify(&mut ctx.exchange, &request, session.facts(), listener, &ctx.snapshot.telemetry);
        }
        let reply = Problem::from(flaw.kind()).detail(flaw.detail()).reply(&request, &ctx.exchange);
        let mut head = reply_head(&reply, false);
        head.headers.insert(&ctx.snapshot.telemetry.request_id, ctx.exchange.request_id.clone());
        (ctx.exchange.status, ctx.exchange.reason) = (reply.status, Some(flaw.code()));
        session.close();
        session.answer(head, false);
        if let Err(error) = session.push(reply.body, true) {
            log::debug!("an answer could not be written: {error}");
        }
        session.shutdown().await;
        self.count_refused(flaw, &ctx);
        self.record(&request, session.body_sent(), &mut ctx);
    }

    /// Notes what was wrong with a request's body, as exactly as what is wrong with a head.
    pub(super) fn note_flaw(&self, error: &Error, ctx: &mut Context) {
        if let Some(flaw) = outcome::flaw(error) {
            ctx.exchange.reason = Some(flaw.code());
            self.count_refused(flaw, ctx);
        }
    }

    /// Counts a request that was not as it should be.
    fn count_refused(&self, flaw: Flaw, ctx: &Context) {
        let listener = ctx.snapshot.listeners.get(usize::from(ctx.exchange.listener));
        self.metrics.refused(listener.map_or("", |listener| listener.name.as_str()), flaw.code()).inc();
    }

    /// The one record of a request.
    pub(super) fn record(&self, request: &RequestHead, bytes_out: u64, ctx: &mut Context) {
        let listener = ctx.snapshot.listeners.get(usize::from(ctx.exchange.listener));
        let route = ctx.route.as_deref();
        let line = Record {
            exchange: &ctx.exchange,
            request,
            route: route.map(|route| &route.fields),
            bytes_out,
            listener: listener.map_or("", |listener| listener.name.as_str()),
        };
        let metrics = route.map_or(&ctx.snapshot.unrouted, |route| &route.metrics);
        record(&line, &self.metrics, metrics, ctx.snapshot.telemetry.log.as_ref(), self.log.as_deref());
        if let (Some(cache), Some(result)) =
            (route.and_then(|route| route.cache_metrics.as_ref()), ctx.exchange.cache)
        {
            cache.answered(result);
        }
        if let (Some(route), Some(resort)) = (route, ctx.exchange.fallback) {
            self.metrics.fell_back(&route.api, &route.name, resort);
        }
        if let Some(route) = route {
            ctx.attempts.finished(route, &ctx.exchange);
        }
    }
}

impl Context {
    /// From the head of the request to the end of its answer.
    async fn work(&mut self, client: &mut Client<'_>) -> pingora::Result<()> {
        if self.receive(client).await? {
            return Ok(());
        }
        if may_switch(client) {
            match websocket::offer(client.request()) {
                Ok(offer) => self.websocket = Some(Arc::new(offer)),
                Err(problem) => {
                    let reply = problem.reply(client.request(), &self.exchange);
                    return self.respond(client, reply).await;
                }
            }
        }
        self.answer(client).await?;
        self.grant_websocket(client);
        Ok(())
    }

    /// From the head of the request to the answer that is made here; gives whether there is one.
    pub(super) async fn receive(&mut self, client: &mut Client<'_>) -> pingora::Result<bool> {
        let reply = match self.admit(client).await {
            Ok(None) => return Ok(false),
            Ok(Some(reply)) => reply,
            Err(problem) => problem.reply(client.request(), &self.exchange),
        };
        self.respond(client, reply).await.map(|()| true)
    }

    /// From the head of the request through the steps; gives the answer when it is made here.
    async fn admit(&mut self, client: &mut Client<'_>) -> Result<Option<Reply>, Problem> {
        let located = self.locate(client);
        match self.keep_back_floods().and(located)? {
            Some(reply) => Ok(Some(reply)),
            None => self.enter(client.request()).await,
        }
    }

    /// Refuses a client that sends too many requests, whatever they are.
    fn keep_back_floods(&self) -> Result<(), Problem> {
        let client = self.exchange.client_ip;
        let listener = self.snapshot.listeners.get(usize::from(self.exchange.listener));
        // Without an address the head was refused before anybody looked who sent it.
        match listener.filter(|_| !client.is_unspecified()) {
            Some(listener) => admit::keep_back_floods(listener, client),
            None => Ok(()),
        }
    }

    /// From the head of the request to its route; there is none where every request is sent to https. An answer where it asks
    /// for the server as a whole.
    fn locate(&mut self, client: &mut Client<'_>) -> Result<Option<Reply>, Problem> {
        let facts = client.facts().cloned().ok_or(Kind::INTERNAL)?;
        let listener = self.snapshot.listeners.get(usize::from(facts.listener)).ok_or(Kind::INTERNAL)?;
        if let Client::Http2(session, _) = client {
            // A client that opens no window takes nothing, although its connection may.
            session.set_write_timeout(Some(listener.limits.send_idle));
        }
        let (exchange, snapshot) = (&mut self.exchange, &self.snapshot);
        let mut of_server = None;
        let found = client.change_request(|head| {
            of_server = admit::about_server(head);
            let target = if of_server.is_some() { Ok(()) } else { admit::check_target(head) };
            admit::identify(exchange, head, &facts, listener, &snapshot.telemetry);
            target.and_then(|()| match of_server.is_some() || admit::is_redirected(exchange, listener) {
                true => admit::check_redirected(head, listener).map(|()| None),
                false => admit::check_direction(head, &facts, listener)
                    .and_then(|()| admit::find(head, listener, facts.listener, snapshot))
                    .map(Some),
            })
        });
        let Some((route, params)) = found? else { return Ok(of_server) };
        let route = self.snapshot.routes.get(route as usize).cloned().ok_or(Kind::INTERNAL)?;
        self.exchange.params = params;
        client.send_idle(route.timeouts.idle.min(listener.limits.send_idle));
        self.route = Some(route);
        Ok(None)
    }

    /// Through the steps of the route.
    async fn enter(&mut self, head: &RequestHead) -> Result<Option<Reply>, Problem> {
        let Some(route) = &self.route else {
            let listener = self.snapshot.listeners.get(usize::from(self.exchange.listener));
            return listener
                .and_then(|listener| admit::redirect_https(head, listener))
                .map(Some)
                .ok_or(Kind::INTERNAL.into());
        };
        self.call = Call::of(head, route, &self.exchange)?;
        if let Some(reply) = route.chain.on_request(head, &mut self.exchange).await {
            return Ok(Some(reply));
        }
        Ok(route.action.reply(head, &self.exchange))
    }
}

/// A head with what there is of one; the method is `-` when there is none.
fn made_out(told: Option<(&[u8], &[u8])>) -> RequestHead {
    let (mut request, ()) = http::Request::new(()).into_parts();
    let (method, target) = told.unwrap_or((b"-", b"/"));
    request.method = Method::from_bytes(method).unwrap_or_default();
    request.uri = Uri::try_from(target).unwrap_or_default();
    request
}

/// Whether the client asks for a WebSocket. With a body it would have to be sent whole before the protocol changes (RFC 9110
/// section 7.8); nobody does that, so such a request is taken as one that asks for nothing.
fn may_switch(client: &mut Client<'_>) -> bool {
    websocket::is_asked_for(client.request()) && client.is_body_empty()
}
