//! What becomes of an answer of the upstream: it validates what is stored, is kept, or is passed on.

use super::caching::Caching;
use super::serves_stale;
use crate::cache::policy::{self, Answered, HeadEffect, Merged, Times, head_effect, merge};
use crate::cache::status::CacheStatus;
use crate::cache::store::now;
use crate::cache::{Ask, Body, Stored, Why};
use crate::exchange::{CacheResult, RequestHead, ResponseHead};
use crate::gateway::Context;
use crate::gateway::client::Client;
use crate::gateway::filling::{self, Filling};
use crate::gateway::give::Told;
use crate::gateway::relay::Held;
use http::header::{CONTENT_LENGTH, RANGE};
use http::{Method, StatusCode};
use std::sync::Arc;

impl Context {
    /// What becomes of an answer whose head has come; `None` when the upstream must be asked once more.
    pub(super) async fn consider(
        &mut self,
        client: &mut Client<'_>,
        mut caching: Box<Caching>,
        held: Box<Held>,
    ) -> Option<pingora::Result<()>> {
        let times = Times { asked: caching.asked, received: now() };
        let status = held.head.status;
        if let Some(stored) = caching.validated().filter(|_| status == StatusCode::NOT_MODIFIED) {
            return self.validated(client, caching, held, &stored, times).await;
        }
        if let Some(stored) = caching.instead().filter(|_| serves_stale(status.as_u16())) {
            caching.release();
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
        let Ok(merged) = merged else {
            // It is about something else that we do not have: only the whole will do.
            stored.invalidate();
            caching.old = None;
            self.caching = Some(caching);
            return None;
        };
        self.exchange.cache = Some(CacheResult::Revalidated);
        let is_kept = merged.again.is_ok();
        let fresh = renewed(merged, stored, caching.ask.take());
        let status = CacheStatus { upstream_status: Some(304), stored: is_kept, ..caching.status() };
        Some(self.give(client, &fresh, Told::with_ttl(&fresh, now(), status)).await)
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
        let status = CacheStatus { stored: true, ..caching.status() };
        let told = Told::with_ttl(&stored, now(), status);
        self.give(client, &stored, Told { original: Some(Box::new(head)), reader, ..told }).await
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
}

/// What is stored as its validation leaves it, which takes its place if it may be kept again.
fn renewed(merged: Merged, stored: &Stored<Body>, ask: Option<Ask>) -> Arc<Stored<Body>> {
    let Merged { kept, again } = merged;
    let fresh = kept.stored(stored.body.clone());
    match (again, ask) {
        (Ok(()), Some(ask)) => ask.keep(fresh),
        (Err(_), Some(ask)) => {
            stored.invalidate();
            ask.declined();
            Arc::new(fresh)
        }
        (_, None) => Arc::new(fresh),
    }
}

/// Whether an answer says that its body is longer than this.
fn is_too_long(head: &ResponseHead, most: u64) -> bool {
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_some_and(|length: u64| length > most)
}
