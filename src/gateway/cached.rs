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

use super::client::Client;
use super::filling::Filling;
use super::give::Told;
use super::relay::Held;
use super::{Context, filling};
use crate::cache::control::Directives;
use crate::cache::policy::{
    self, Answered, HeadEffect, Merged, Times, Verdict, head_effect, judge, merge, validator,
    without_conditions,
};
use crate::cache::purge::{How, Purge, What};
use crate::cache::rules::{Asks, Rules};
use crate::cache::status::{CacheStatus, Forwarded};
use crate::cache::store::now;
use crate::cache::{Ask, Body, Followed, Joined, Key, Look, Stored, Why};
use crate::exchange::{CacheResult, RequestHead, ResponseHead};
use crate::reply::{Kind, Problem};
use http::header::{CONTENT_LENGTH, RANGE};
use http::{HeaderMap, Method, StatusCode};
use std::sync::Arc;

/// A request to the upstream that the cache has a part in.
pub(super) struct Caching {
    pub(super) rules: Arc<Rules>,
    directives: Directives,
    key: Key,
    /// What is stored already, but not fresh enough.
    old: Option<Old>,
    /// Whether the answer may be kept.
    ask: Option<Ask>,
    /// Why the upstream is asked.
    why: Forwarded,
    /// Whether the client's own conditions and ranges were taken out.
    whole: bool,
    /// Whether the request carries conditions that validate `old`.
    validates: bool,
    /// When it was sent, in milliseconds since 1970.
    asked: u64,
    /// The fields that were sent.
    sent: HeaderMap,
}

/// A stored answer that is not fresh enough.
struct Old {
    stored: Arc<Stored<Body>>,
    /// Whether it may be given when the upstream fails.
    on_error: bool,
}

impl Caching {
    /// Makes the request one whose answer can be kept, or that validates what is.
    pub(super) fn ask(&mut self, head: &mut RequestHead) {
        let is_whole = self.ask.as_ref().is_some_and(Ask::leads) || self.old.is_some();
        if is_whole && head.method == Method::GET {
            without_conditions(&mut head.headers);
            self.whole = true;
            if let Some(old) = &self.old {
                self.validates = validator(&old.stored, &mut head.headers);
            }
        }
        self.sent = head.headers.clone();
        self.asked = now();
    }

    fn status(&self) -> CacheStatus<'static> {
        CacheStatus { forwarded: Some(self.why), ..CacheStatus::default() }
    }
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
        let request = client.request();
        let key = rules.key(request, &self.exchange);
        let mut look = self.snapshot.cache.look_up(&key, &request.headers);
        if !matches!(look, Look::Hit(_))
            && let Some(stored) = self.snapshot.cache.load(&key, &request.headers).await
        {
            look = Look::Hit(stored);
        }
        let (old, why) = match look {
            Look::Hit(stored) => match self.use_stored(client, &rules, &key, &stored, &directives).await {
                Ok(given) => return given,
                Err(stale) => stale,
            },
            Look::OtherVariant => (None, Forwarded::VaryMiss),
            Look::Nothing => (None, Forwarded::UriMiss),
        };
        if directives.only_if_cached {
            return Err(self.not_stored());
        }
        let caching = Caching {
            rules,
            directives,
            key,
            old,
            ask: None,
            why,
            whole: false,
            validates: false,
            asked: 0,
            sent: HeaderMap::new(),
        };
        self.ask_for(client, Box::new(caching)).await
    }

    /// Gives what is stored if it may be given now; else what there is, and why the upstream must be asked.
    async fn use_stored(
        &mut self,
        client: &mut Client<'_>,
        rules: &Arc<Rules>,
        key: &Key,
        stored: &Arc<Stored<Body>>,
        directives: &Directives,
    ) -> Result<pingora::Result<()>, (Option<Old>, Forwarded)> {
        let told = |age, now| {
            let ttl = Some(policy::ttl(&stored.facts, now));
            Told { age, status: CacheStatus { ttl, ..CacheStatus::default() }, original: None, reader: None }
        };
        let now = now();
        match judge(stored, directives, now) {
            Verdict::Fresh { age } => {
                self.exchange.cache = Some(CacheResult::Hit);
                Ok(self.give(client, stored, told(age, now)).await)
            }
            Verdict::Accepted { age } => {
                self.exchange.cache = Some(CacheResult::Stale);
                Ok(self.give(client, stored, told(age, now)).await)
            }
            Verdict::Stale { age, while_revalidating: true, .. } => {
                self.exchange.cache = Some(CacheResult::Stale);
                self.renew(client, rules, key, stored);
                Ok(self.give(client, stored, told(age, now)).await)
            }
            Verdict::Stale { age, on_error, .. } => {
                let fresh = age < stored.facts.lifetime && !stored.is_invalid() && !stored.is_expired();
                let why = if fresh { Forwarded::Request } else { Forwarded::Stale };
                Err((Some(Old { stored: stored.clone(), on_error }), why))
            }
            Verdict::OnlyIfCached => Ok(Err(self.not_stored())),
        }
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
        if client.request().method == Method::GET {
            let store = self.snapshot.cache.clone();
            let ask = match store.join(&caching.key) {
                Joined::Ask(ask) => ask,
                Joined::Follow(follow) => {
                    match follow.wait(&client.request().headers, caching.rules.wait).await {
                        Followed::Ask(ask) => ask,
                        Followed::Answer(stored) => match judge(&stored, &caching.directives, now()) {
                            Verdict::Fresh { age } | Verdict::Accepted { age } => {
                                // One that has outgrown what is kept only passes by those who have read it from its beginning.
                                if let Some(reader) = stored.body.reader(0, u64::MAX) {
                                    self.exchange.cache = Some(CacheResult::Collapsed);
                                    let status = CacheStatus { collapsed: true, ..caching.status() };
                                    let told = Told { age, status, original: None, reader: Some(reader) };
                                    return self.give(client, &stored, told).await;
                                }
                                store.alone(&caching.key)
                            }
                            _ => store.alone(&caching.key),
                        },
                    }
                }
            };
            caching.ask = Some(ask);
        } else if caching.old.is_some() {
            // What the answer to HEAD says of it is kept, unless a purge comes in between.
            caching.ask = Some(self.snapshot.cache.alone(&caching.key));
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
        // Nobody waits while the client reads, nor for somebody else to fail in turn.
        let ask = caching.ask.take();
        let is_upstreams = self.refusal.as_ref().is_some_and(|problem| is_failure(problem.kind));
        match ask {
            Some(ask) if is_upstreams => ask.released(),
            ask => drop(ask),
        }
        let usable = is_upstreams && !client.has_begun();
        let Some(old) = caching.old.as_ref().filter(|_| usable) else { return Err(error) };
        self.old = Some(old.stored.clone());
        if !old.on_error {
            return Err(error);
        }
        let detail = self.refusal.take().map(|problem| problem.kind.code);
        self.give_old(client, &old.stored.clone(), CacheStatus { detail, ..caching.status() }).await
    }

    /// Gives what is stored although it is stale.
    pub(super) async fn give_old(
        &mut self,
        client: &mut Client<'_>,
        stored: &Stored<Body>,
        status: CacheStatus<'static>,
    ) -> pingora::Result<()> {
        self.exchange.cache = Some(CacheResult::Stale);
        let now = now();
        let (age, ttl) = (policy::current_age(&stored.facts, now), Some(policy::ttl(&stored.facts, now)));
        self.give(
            client,
            stored,
            Told { age, status: CacheStatus { ttl, ..status }, original: None, reader: None },
        )
        .await
    }

    /// What becomes of an answer whose head has come; `None` when the upstream must be asked once more.
    async fn consider(
        &mut self,
        client: &mut Client<'_>,
        mut caching: Box<Caching>,
        held: Box<Held>,
    ) -> Option<pingora::Result<()>> {
        let times = Times { asked: caching.asked, received: now() };
        let status = held.head.status;
        if let Some(old) =
            caching.old.as_ref().filter(|_| caching.validates && status == StatusCode::NOT_MODIFIED)
        {
            let stored = old.stored.clone();
            return self.validated(client, caching, held, &stored, times).await;
        }
        if let Some(old) = caching.old.as_ref().filter(|old| old.on_error && is_server_error(status)) {
            let stored = old.stored.clone();
            if let Some(ask) = caching.ask.take() {
                ask.released();
            }
            held.put_back();
            let told = CacheStatus { upstream_status: Some(status.as_u16()), ..caching.status() };
            return Some(self.give_old(client, &stored, told).await);
        }
        self.old = caching.old.as_ref().map(|old| old.stored.clone());
        let request = client.request();
        if request.method == Method::HEAD {
            self.learn_from_head(request, &mut caching, &held.head, times);
        }
        let answered = self.as_answered(request, &caching, &held.head, times);
        let kept = match is_too_long(&held.head, self.snapshot.cache.longest()) {
            true => Err(Why::TooLarge),
            false => policy::keep(&caching.rules, &answered),
        };
        match (kept, caching.ask.take()) {
            (Ok(kept), Some(ask)) => Some(self.keep(client, &caching, ask, kept, held).await),
            (Err(why), ask) => self.decline(client, caching, ask, why, held).await,
            (Ok(_), None) => {
                self.cache_status = Some(caching.status());
                Some(self.pass_or_fail(client, held).await)
            }
        }
    }

    fn as_answered<'a>(
        &'a self,
        request: &'a RequestHead,
        caching: &'a Caching,
        answer: &'a ResponseHead,
        times: Times,
    ) -> Answered<'a> {
        Answered { request, sent: &caching.sent, x: &self.exchange, answer, times }
    }

    /// What is stored is still good (RFC 9111 section 4.3.4).
    async fn validated(
        &mut self,
        client: &mut Client<'_>,
        mut caching: Box<Caching>,
        held: Box<Held>,
        stored: &Arc<Stored<Body>>,
        times: Times,
    ) -> Option<pingora::Result<()>> {
        let answered = self.as_answered(client.request(), &caching, &held.head, times);
        let merged = merge(&caching.rules, stored, &answered);
        let Held { target, pool, ends, .. } = *held;
        if ends {
            pool.put(target);
        }
        let Ok(Merged { kept, again }) = merged else {
            // It is about something else that we do not have: only the whole will do.
            stored.invalidate();
            caching.old = None;
            self.caching = Some(caching);
            return None;
        };
        let fresh = kept.stored(stored.body.clone());
        let fresh = match (again, caching.ask.take()) {
            (Ok(()), Some(ask)) => ask.keep(fresh),
            (Err(_), Some(ask)) => {
                stored.invalidate();
                ask.declined();
                Arc::new(fresh)
            }
            (_, None) => Arc::new(fresh),
        };
        self.exchange.cache = Some(CacheResult::Revalidated);
        let now = now();
        let status = CacheStatus {
            upstream_status: Some(304),
            stored: again.is_ok(),
            ttl: Some(policy::ttl(&fresh.facts, now)),
            ..caching.status()
        };
        let age = policy::current_age(&fresh.facts, now);
        Some(self.give(client, &fresh, Told { age, status, original: None, reader: None }).await)
    }

    /// Keeps an answer, and gives it while it comes.
    async fn keep(
        &mut self,
        client: &mut Client<'_>,
        caching: &Caching,
        ask: Ask,
        kept: policy::Kept,
        held: Box<Held>,
    ) -> pingora::Result<()> {
        let (body, filler) = self.snapshot.cache.body(caching.rules.max_object);
        let fill = ask.answered(kept.stored(body), filler);
        let stored = fill.stored().clone();
        // Before anything comes: what is not kept is only there for those who read it.
        let reader = stored.body.reader(0, u64::MAX);
        let Held { head, ends, target, pool } = *held;
        let timeouts = self.route.as_ref().map(|route| route.timeouts).unwrap_or_default();
        filling::start(Filling { fill, target, pool, idle: timeouts.idle }, ends);
        let now = now();
        let status =
            CacheStatus { stored: true, ttl: Some(policy::ttl(&stored.facts, now)), ..caching.status() };
        let age = policy::current_age(&stored.facts, now);
        self.give(client, &stored, Told { age, status, original: Some(Box::new(head)), reader }).await
    }

    /// Keeps nothing of an answer; `None` when it was asked for as a whole that was not wanted.
    async fn decline(
        &mut self,
        client: &mut Client<'_>,
        mut caching: Box<Caching>,
        ask: Option<Ask>,
        why: Why,
        held: Box<Held>,
    ) -> Option<pingora::Result<()>> {
        // When this request is the reason, the next one who waits asks. Of anything else but errors it is known now that it is
        // for one only, and that what is stored is no more.
        let failed = held.head.status.is_server_error();
        let lasting = !failed && !why.is_of_request();
        match ask {
            Some(ask) if lasting => ask.declined(),
            Some(ask) if failed => ask.released(),
            ask => drop(ask),
        }
        if let Some(old) = caching.old.as_ref().filter(|_| lasting) {
            old.stored.invalidate();
        }
        let wants_part = client.request().headers.contains_key(RANGE);
        if caching.whole && wants_part && why == Why::TooLarge {
            (caching.whole, caching.old) = (false, None);
            self.caching = Some(caching);
            return None;
        }
        self.cache_status = Some(CacheStatus { detail: Some(why.as_str()), ..caching.status() });
        // A client whose conditions were taken out gets the whole answer, which it may always get (RFC 9110 section 13.1).
        Some(self.pass_or_fail(client, held).await)
    }

    /// An answer to HEAD tells of what is stored for GET (RFC 9111 section 4.3.5).
    fn learn_from_head(
        &self,
        request: &RequestHead,
        caching: &mut Caching,
        answer: &ResponseHead,
        times: Times,
    ) {
        let Some(old) = &caching.old else { return };
        match head_effect(&old.stored, answer) {
            HeadEffect::Nothing => {}
            HeadEffect::Invalidate => old.stored.invalidate(),
            HeadEffect::Update => {
                let body = old.stored.body.clone();
                let merged =
                    merge(&caching.rules, &old.stored, &self.as_answered(request, caching, answer, times));
                if let (Ok(Merged { kept, again: Ok(()) }), Some(ask)) = (merged, caching.ask.take()) {
                    ask.keep(kept.stored(body));
                }
            }
        }
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

/// Whether an answer says that its body is longer than this.
fn is_too_long(head: &ResponseHead, most: u64) -> bool {
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_some_and(|length: u64| length > most)
}

/// Whether a failure is one that stale answers are given for (RFC 5861 section 4).
fn is_failure(kind: Kind) -> bool {
    matches!(kind.status, 500 | 502 | 503 | 504)
}

fn is_server_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
