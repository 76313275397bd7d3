//! What is answered when the upstream fails: the resorts of the route, in their order (RS-02).

use super::Context;
use super::client::Client;
use super::relay::Held;
use crate::actions::{Fallback, Resort};
use crate::attempt::Attempts;
use crate::cache::status::{CacheStatus, Forwarded};
use crate::reply::Kind;
use pingora::{Error, ErrorSource};

impl Context {
    /// Has a request answered by whatever its route says: what is stored, an upstream, or what stands in for it.
    ///
    /// # Errors
    /// As from the engine; an error of the target carries a refusal.
    pub(super) async fn answer(&mut self, client: &mut Client<'_>) -> pingora::Result<()> {
        let route = self.route.clone().ok_or_else(|| self.refuse(Kind::INTERNAL))?;
        let answered = match &route.cache {
            Some(rules) => self.answer_cached(client, rules.clone()).await,
            None => self.pass(client).await,
        };
        let answered = match (answered, &route.fallback) {
            (Err(error), Some(fallback)) => self.fall_back(client, fallback, error).await,
            (answered, _) => answered,
        };
        match answered {
            Err(error) => self.tell(client, error).await,
            answered => answered,
        }
    }

    /// Tells the client of an error that is not its own, while nothing else has been told, or by the end of its call: then its
    /// connection goes on.
    async fn tell(&mut self, client: &mut Client<'_>, error: Box<Error>) -> pingora::Result<()> {
        let is_own = error.esource() == &ErrorSource::Downstream
            || self.refusal.as_ref().is_none_or(|problem| is_clients(problem.kind));
        if is_own {
            return Err(error);
        }
        let Some(problem) = self.refusal.take() else { return Err(error) };
        if client.has_begun() {
            if self.end_call(client, &problem).await {
                return Ok(());
            }
            self.refusal = Some(problem);
            return Err(error);
        }
        let reply = problem.reply(client.request(), &self.exchange);
        self.respond(client, reply).await
    }

    /// Has the upstream answer.
    ///
    /// # Errors
    /// As from the engine; an error of the target carries a refusal.
    pub(super) async fn pass(&mut self, client: &mut Client<'_>) -> pingora::Result<()> {
        self.begin_attempts(client)?;
        self.holds = self.route.as_ref().is_some_and(|route| route.fallback.is_some());
        match self.relay(client).await? {
            Some(held) => self.pass_or_fail(client, held).await,
            None => Ok(()),
        }
    }

    /// Counts the attempt that the client will not see.
    pub(super) fn finish_attempt(&mut self) {
        if let Some(route) = &self.route {
            self.attempts.finished(route, &self.exchange);
        }
    }

    /// Chooses an upstream and a target of it.
    ///
    /// # Errors
    /// There is none; the error carries a refusal.
    pub(super) fn begin_attempts(&mut self, client: &Client<'_>) -> pingora::Result<()> {
        let Context { route: Some(route), attempts, exchange, .. } = self else { return Ok(()) };
        let begun = attempts.begin(route, client.request(), exchange);
        begun.map_err(|kind| self.refuse(kind))
    }

    /// Passes an answer on, unless its status calls for the fallback.
    ///
    /// # Errors
    /// As from the engine, and when it does.
    pub(super) async fn pass_or_fail(
        &mut self,
        client: &mut Client<'_>,
        held: Box<Held>,
    ) -> pingora::Result<()> {
        let status = held.head.status.as_u16();
        let fallback = self.route.as_ref().and_then(|route| route.fallback.as_ref());
        if self.exchange.fallback.is_none() && fallback.is_some_and(|fallback| fallback.covers_status(status))
        {
            self.spare = Some(held);
            return Err(self.refuse(Kind::UPSTREAM_INVALID));
        }
        self.pass_held(client, *held).await
    }

    /// Tries what stands in for the answer. If nothing does, the client gets the answer that was not good enough, or the error.
    async fn fall_back(
        &mut self,
        client: &mut Client<'_>,
        fallback: &Fallback,
        error: Box<Error>,
    ) -> pingora::Result<()> {
        let problem = self.refusal.clone();
        let covered = problem.as_ref().is_some_and(|problem| fallback.covers(problem.kind));
        let spare = self.spare.take();
        if !(covered || spare.is_some()) || client.has_begun() {
            return Err(error);
        }
        // Nothing was sent where nobody could be reached.
        let mut unsent = problem.as_ref().is_some_and(|problem| is_unsent(problem.kind));
        for (number, resort) in fallback.resorts.iter().enumerate() {
            self.refusal = None;
            self.exchange.fallback = Some(resort.name());
            if let Some(answered) = self.resort(client, (number, resort), fallback, unsent).await {
                self.exchange.reason = problem.filter(|_| spare.is_none()).map(|problem| problem.kind.code);
                return answered;
            }
            // One that stood in may have acted on it before it failed.
            let failed = self.refusal.as_ref().map(|problem| problem.kind);
            unsent &= !matches!(resort, Resort::Upstream(_)) || failed.is_some_and(is_unsent);
        }
        (self.exchange.fallback, self.refusal) = (None, problem);
        match spare {
            Some(held) => {
                self.refusal = None;
                self.pass_held(client, *held).await
            }
            None => Err(error),
        }
    }

    /// One resort; `None` when it has nothing to give. What may have been acted on goes to no other upstream, unless it may be
    /// sent twice (`retry.methods`).
    async fn resort(
        &mut self,
        client: &mut Client<'_>,
        (number, resort): (usize, &Resort),
        fallback: &Fallback,
        unsent: bool,
    ) -> Option<pingora::Result<()>> {
        match resort {
            Resort::Stale => {
                let stored = self
                    .old
                    .clone()
                    .filter(|old| !old.is_invalid() && !old.facts.must_revalidate && !old.facts.no_cache)?;
                let status = CacheStatus { forwarded: Some(Forwarded::Stale), ..CacheStatus::default() };
                Some(self.give_old(client, &stored, status).await)
            }
            Resort::Respond(respond) => {
                let reply = respond.reply(client.request(), &self.exchange);
                Some(self.respond(client, reply).await)
            }
            // A part of the body has been sent and cannot be again.
            Resort::Upstream(_) if !self.replay.is_whole() => None,
            Resort::Upstream(_) if !unsent && !self.sent_idempotent => None,
            Resort::Upstream(_) => {
                self.finish_attempt();
                self.attempts = Attempts::of_resort(number);
                (self.holds, self.caching) = (true, None);
                let relayed = match self.begin_attempts(client) {
                    Ok(()) => self.relay(client).await,
                    Err(error) => Err(error),
                };
                match relayed {
                    Ok(Some(held)) if fallback.covers_status(held.head.status.as_u16()) => {
                        held.put_back();
                        None
                    }
                    Ok(Some(held)) => Some(self.pass_held(client, *held).await),
                    Ok(None) => Some(Ok(())),
                    Err(_) if !client.has_begun() && self.refusal.is_some() => None,
                    Err(error) => Some(Err(error)),
                }
            }
        }
    }
}

/// Whether the client itself is to blame: nobody knows where its next request would begin.
fn is_clients(kind: Kind) -> bool {
    matches!(kind, Kind::CLIENT_TIMEOUT | Kind::CLIENT_GONE | Kind::BAD_REQUEST)
}

/// Whether a failure means that no target has seen the request.
fn is_unsent(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::CONNECT_FAILED
            | Kind::CONNECT_TIMEOUT
            | Kind::TLS_FAILED
            | Kind::NO_TARGET
            | Kind::NO_HEALTHY_TARGET
            | Kind::SATURATED
            | Kind::BREAKER_OPEN
    )
}
