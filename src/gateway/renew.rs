//! Validation in the background, while what is stored is given (RFC 5861 section 3).

use super::Context;
use super::client::Client;
use super::detached::{self, Asked, Patience};
use super::filling::{self, Filling};
use crate::attempt::Attempts;
use crate::cache::policy::{self, Answered, Times, merge, validator};
use crate::cache::rules::Rules;
use crate::cache::store::now;
use crate::cache::{Ask, Body, Key, Stored};
use crate::exchange::{Exchange, RequestHead, ResponseHead};
use crate::reply::Kind;
use crate::route::{Route, Timeouts};
use crate::upstream::{Conversation, Framing, Outgoing, Pool};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use std::sync::Arc;

/// A request that nobody waits for.
struct Renewal {
    route: Arc<Route>,
    rules: Arc<Rules>,
    old: Arc<Stored<Body>>,
    ask: Ask,
    /// What the client has asked for, as GET.
    request: RequestHead,
    exchange: Exchange,
    attempts: Attempts,
    pool: Arc<Pool>,
    outgoing: RequestHead,
}

impl Context {
    /// Has a stored answer validated, unless that is under way.
    pub(super) fn renew(
        &mut self,
        client: &mut Client<'_>,
        rules: &Arc<Rules>,
        key: &Key,
        old: &Arc<Stored<Body>>,
    ) {
        let Some(ask) = self.snapshot.cache.renew(key) else { return };
        if let Some(renewal) = self.renewal(client, rules, ask, old) {
            tokio::spawn(renewal.run());
        }
        // The client's own request goes to no upstream.
        self.attempts = Attempts::default();
    }

    fn renewal(
        &mut self,
        client: &mut Client<'_>,
        rules: &Arc<Rules>,
        ask: Ask,
        old: &Arc<Stored<Body>>,
    ) -> Option<Renewal> {
        let route = self.route.clone()?;
        self.begin_attempts(client).inspect_err(|_| self.refusal = None).ok()?;
        let pool = self.attempts.lease()?.target().pool().clone();
        let mut outgoing = self.outgoing(client, false).ok()?.head;
        let mut request = RequestHead::clone(client.request());
        (outgoing.method, request.method) = (Method::GET, Method::GET);
        validator(old, &mut outgoing.headers);
        let mut exchange = self.exchange.clone();
        let lease = self.attempts.lease()?.target().label().clone();
        exchange.tries.begin(self.attempts.arm(&route)?.name.clone(), lease);
        Some(Renewal {
            attempts: std::mem::take(&mut self.attempts),
            old: old.clone(),
            rules: rules.clone(),
            route,
            ask,
            request,
            exchange,
            pool,
            outgoing,
        })
    }
}

impl Renewal {
    async fn run(mut self) {
        let asked = now();
        let sent = self.outgoing.headers.clone();
        match self.answer().await {
            Ok((target, head, ends)) => {
                self.exchange.status = head.status.as_u16();
                self.attempts.heard(&self.route, &mut self.exchange, head.status);
                self.attempts.finished(&self.route, &self.exchange);
                self.settle(target, &head, ends, &sent, Times { asked, received: now() });
            }
            Err(kind) => {
                self.attempts.failed(&self.route, &mut self.exchange, kind);
                log::debug!("a stored answer could not be validated in the background: {}", kind.code);
            }
        }
    }

    /// The head of the upstream's answer, and where the rest comes from.
    async fn answer(&mut self) -> Result<(Conversation, ResponseHead, bool), Kind> {
        let Timeouts { connect, response, .. } = self.route.timeouts;
        let request = Outgoing { head: self.outgoing.clone(), framing: Framing::Ended, trailers: false };
        let asked = detached::ask(&self.pool, request, Bytes::new(), Patience { connect, response }).await;
        asked.map(|Asked { head, ends, target }| (target, head, ends))
    }

    /// What becomes of the answer.
    fn settle(self, target: Conversation, head: &ResponseHead, ends: bool, sent: &HeaderMap, times: Times) {
        let Renewal { route, rules, old, ask, request, exchange, pool, .. } = self;
        let answered = Answered { request: &request, sent, x: &exchange, answer: head, times };
        if head.status == StatusCode::NOT_MODIFIED {
            pool.put(target);
            match merge(&rules, &old, &answered) {
                Ok(merged) if merged.again.is_ok() => drop(ask.keep(merged.kept.stored(old.body.clone()))),
                _ => old.invalidate(),
            }
            return;
        }
        // What is stored goes on being given as long as its window allows.
        if head.status.is_server_error() {
            return;
        }
        match policy::keep(&rules, &answered) {
            Ok(kept) => {
                let (body, filler) = ask.body(rules.max_object);
                let fill = ask.answered(kept.stored(body), filler);
                filling::start(Filling { fill, target, pool, idle: route.timeouts.idle }, ends);
            }
            Err(why) if why.is_of_request() => {}
            Err(_) => {
                old.invalidate();
                ask.declined();
            }
        }
    }
}
