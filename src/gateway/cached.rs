//! The cache in a request's way: what is stored is given, what comes from the upstream may be kept.
//!
//! ```text
//! look up ─ fresh ───────────────────────────────────────────► give
//!    ├───── stale, may be given meanwhile ── renew behind ───► give
//!    └───── else: one asks the upstream, others follow it
//!              ├─ 304 ─────────────────── merge ─────────────► give
//!              ├─ may be kept ─── the body comes on its own ──► give, while it comes
//!              ├─ failed, and what is stored will do ────────► give it, stale
//!              └─ anything else ──────────────────────────────► pass it on
//! ```
//!
//! The body of an answer that is kept comes into the cache by a task of its own ([`super::filling`]): no client that leaves
//! takes it from the others.

mod answer;
mod caching;

use super::Context;
use super::client::Client;
use super::give::Told;
use crate::cache::control::Directives;
use crate::cache::policy::{self, Verdict, judge};
use crate::cache::purge::{How, Purge, What};
use crate::cache::rules::{Asks, Rules};
use crate::cache::status::{CacheStatus, Forwarded};
use crate::cache::store::now;
use crate::cache::{Body, Key, Look, Stored, Why};
use crate::exchange::{CacheResult, ResponseHead};
use crate::reply::{Kind, Problem};
pub(super) use caching::Caching;
use caching::{Old, Turn};
use http::Method;
use std::sync::Arc;

/// How a request goes on for which something is stored.
enum Found {
    /// It was given, or nothing else may be.
    Over(pingora::Result<()>),
    /// The upstream must be asked; why, and what is stored already.
    Ask(Option<Old>, Forwarded),
}

impl Context {
    /// Answers from what is stored, or has the upstream answer and keeps what may be kept.
    ///
    /// # Errors
    /// As from the engine; an error of the target carries a refusal.
    pub(super) async fn answer_cached(
        &mut self,
        client: &mut Client<'_>,
        rules: Arc<Rules>,
    ) -> pingora::Result<()> {
        let directives = match rules.asks(client.request()) {
            // Over HTTP/2 no field says whether there is a body, which the key does not have.
            Asks::LookUp(_) if !client.is_body_empty() => {
                return self.pass_by(client, Why::Body).await;
            }
            Asks::LookUp(directives) => directives,
            Asks::Bypass(why) => return self.pass_by(client, why).await,
        };
        let key = rules.key(client.request(), &self.exchange);
        let (old, why) = match self.look_up(client, &rules, &key, &directives).await {
            Found::Over(given) => return given,
            Found::Ask(old, why) => (old, why),
        };
        if directives.only_if_cached {
            return Err(self.not_stored());
        }
        self.ask_for(client, Box::new(Caching::new((rules, directives, key), old, why))).await
    }

    /// Looks for what is stored, in memory and then on disk, and gives it if it may be given now.
    async fn look_up(
        &mut self,
        client: &mut Client<'_>,
        rules: &Arc<Rules>,
        key: &Key,
        directives: &Directives,
    ) -> Found {
        let headers = &client.request().headers;
        let mut look = self.snapshot.cache.look_up(key, headers);
        if !matches!(look, Look::Hit(_))
            && let Some(stored) = self.snapshot.cache.load(key, headers).await
        {
            look = Look::Hit(stored);
        }
        match look {
            Look::Hit(stored) => self.use_stored(client, rules, key, stored, directives).await,
            Look::OtherVariant => Found::Ask(None, Forwarded::VaryMiss),
            Look::Nothing => Found::Ask(None, Forwarded::UriMiss),
        }
    }

    /// Gives what is stored if it may be given now.
    async fn use_stored(
        &mut self,
        client: &mut Client<'_>,
        rules: &Arc<Rules>,
        key: &Key,
        stored: Arc<Stored<Body>>,
        directives: &Directives,
    ) -> Found {
        let now = now();
        let result = match judge(&stored, directives, now) {
            Verdict::Fresh { .. } => CacheResult::Hit,
            Verdict::Accepted { .. } => CacheResult::Stale,
            Verdict::Stale { while_revalidating: true, .. } => {
                self.renew(client, rules, key, &stored);
                CacheResult::Stale
            }
            Verdict::Stale { age, on_error, .. } => {
                let fresh = age < stored.facts.lifetime && !stored.is_invalid() && !stored.is_expired();
                let why = if fresh { Forwarded::Request } else { Forwarded::Stale };
                return Found::Ask(Some(Old { stored, on_error }), why);
            }
            Verdict::OnlyIfCached => return Found::Over(Err(self.not_stored())),
        };
        self.exchange.cache = Some(result);
        let told = Told::with_ttl(&stored, now, CacheStatus::default());
        Found::Over(self.give(client, &stored, told).await)
    }

    /// RFC 9111 section 5.2.1.7.
    fn not_stored(&mut self) -> Box<pingora::Error> {
        self.exchange.cache = Some(CacheResult::Miss);
        self.refuse(Problem::from(Kind::NOT_STORED))
    }

    /// The cache has no part in it.
    async fn pass_by(&mut self, client: &mut Client<'_>, why: Why) -> pingora::Result<()> {
        self.exchange.cache = Some(CacheResult::Bypass);
        let forwarded = if why == Why::Method { Forwarded::Method } else { Forwarded::Bypass };
        self.cache_status = Some(CacheStatus {
            forwarded: Some(forwarded),
            detail: Some(why.as_str()),
            ..CacheStatus::default()
        });
        self.pass(client).await
    }

    /// Asks the upstream, or follows whoever does.
    async fn ask_for(&mut self, client: &mut Client<'_>, mut caching: Box<Caching>) -> pingora::Result<()> {
        self.exchange.cache = Some(CacheResult::Miss);
        let store = self.snapshot.cache.clone();
        if client.request().method == Method::GET {
            match caching.turn(&store, &client.request().headers).await {
                Turn::Asks(ask) => caching.ask = Some(ask),
                Turn::Shares(stored, told) => {
                    self.exchange.cache = Some(CacheResult::Collapsed);
                    return self.give(client, &stored, told).await;
                }
            }
        } else if caching.old.is_some() {
            // What the answer to HEAD says of it is kept, unless a purge comes in between.
            caching.ask = Some(store.alone(&caching.key));
        }
        self.caching = Some(caching);
        self.fetch(client).await
    }

    /// Sends the request on and looks at what comes back.
    pub(super) async fn fetch(&mut self, client: &mut Client<'_>) -> pingora::Result<()> {
        loop {
            self.holds = true;
            let relayed = match self.begin_attempts(client) {
                Ok(()) => self.relay(client).await,
                Err(error) => Err(error),
            };
            let Some(caching) = self.caching.take() else { return relayed.map(drop) };
            match relayed {
                Ok(Some(held)) => match self.consider(client, caching, held).await {
                    Some(result) => return result,
                    None => self.finish_attempt(),
                },
                Ok(None) => return Ok(()),
                Err(error) => return self.give_instead(client, caching, error).await,
            }
        }
    }

    /// Gives what is stored instead of an error, if it may be given.
    async fn give_instead(
        &mut self,
        client: &mut Client<'_>,
        mut caching: Box<Caching>,
        error: Box<pingora::Error>,
    ) -> pingora::Result<()> {
        let is_upstreams = self.refusal.as_ref().is_some_and(|problem| serves_stale(problem.kind.status));
        // Nobody waits while the client reads, nor for somebody else to fail in turn.
        if is_upstreams {
            caching.release();
        }
        caching.ask = None;
        if !is_upstreams || client.has_begun() {
            return Err(error);
        }
        if let Some(old) = &caching.old {
            self.old = Some(old.stored.clone());
        }
        let Some(stored) = caching.instead() else { return Err(error) };
        let detail = self.refusal.take().map(|problem| problem.kind.code);
        self.give_old(client, &stored, CacheStatus { detail, ..caching.status() }).await
    }

    /// Gives what is stored although it is stale.
    pub(super) async fn give_old(
        &mut self,
        client: &mut Client<'_>,
        stored: &Stored<Body>,
        status: CacheStatus<'static>,
    ) -> pingora::Result<()> {
        self.exchange.cache = Some(CacheResult::Stale);
        self.give(client, stored, Told::with_ttl(stored, now(), status)).await
    }

    /// An answer passes the cache by: what it changes is noted, and the client is told.
    pub(super) fn passed_cache(&mut self, client: &Client<'_>, head: &mut ResponseHead) {
        if self.snapshot.caches {
            let request = client.request();
            for url in policy::invalidated_by(request, &self.exchange, head) {
                self.snapshot.cache.purge(Purge { what: What::Url(url.into()), how: How::Invalidate });
            }
        }
        if let Some(status) = self.cache_status.take() {
            status.append(&mut head.headers);
        }
    }
}

/// Whether a status tells of a failure that stale answers are given for (RFC 5861 section 4).
fn serves_stale(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}
