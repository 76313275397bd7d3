//! A request to the upstream that the cache has a part in, and what is known of it.

use crate::cache::control::Directives;
use crate::cache::policy::{Verdict, judge, validator, without_conditions};
use crate::cache::rules::Rules;
use crate::cache::status::{CacheStatus, Forwarded};
use crate::cache::store::{Store, now};
use crate::cache::{Ask, Body, Followed, Joined, Key, Stored};
use crate::exchange::RequestHead;
use crate::gateway::give::Told;
use http::{HeaderMap, Method};
use std::sync::Arc;

/// A request to the upstream that the cache has a part in.
pub(in crate::gateway) struct Caching {
    pub(in crate::gateway) rules: Arc<Rules>,
    directives: Directives,
    pub(super) key: Key,
    /// What is stored already, but not fresh enough.
    pub(super) old: Option<Old>,
    /// Whether the answer may be kept.
    pub(super) ask: Option<Ask>,
    /// Why the upstream is asked.
    why: Forwarded,
    /// Whether the client's own conditions and ranges were taken out.
    pub(super) whole: bool,
    /// Whether the request carries conditions that validate `old`.
    validates: bool,
    /// When it was sent, in milliseconds since 1970.
    pub(super) asked: u64,
    /// The fields that were sent.
    pub(super) sent: HeaderMap,
}

/// A stored answer that is not fresh enough.
pub(super) struct Old {
    pub(super) stored: Arc<Stored<Body>>,
    /// Whether it may be given when the upstream fails.
    pub(super) on_error: bool,
}

/// What becomes of a request among those that want the same.
pub(super) enum Turn {
    /// It asks the upstream, for all.
    Asks(Ask),
    /// It gets what another one has asked for.
    Shares(Arc<Stored<Body>>, Told),
}

impl Caching {
    /// Nothing has been asked yet.
    pub(super) fn new(
        (rules, directives, key): (Arc<Rules>, Directives, Key),
        old: Option<Old>,
        why: Forwarded,
    ) -> Caching {
        Caching {
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
        }
    }

    /// Makes the request one whose answer can be kept, or that validates what is.
    pub(in crate::gateway) fn ask(&mut self, head: &mut RequestHead) {
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

    /// What is told of the cache, as far as it is known before the answer.
    pub(super) fn status(&self) -> CacheStatus<'static> {
        CacheStatus { forwarded: Some(self.why), ..CacheStatus::default() }
    }

    /// What the upstream was asked to validate.
    pub(super) fn validated(&self) -> Option<Arc<Stored<Body>>> {
        self.old.as_ref().filter(|_| self.validates).map(|old| old.stored.clone())
    }

    /// What may be given when the upstream fails.
    pub(super) fn instead(&self) -> Option<Arc<Stored<Body>>> {
        self.old.as_ref().filter(|old| old.on_error).map(|old| old.stored.clone())
    }

    /// Lets those who wait ask at once: the upstream has failed, and may not fail them.
    pub(super) fn release(&mut self) {
        if let Some(ask) = self.ask.take() {
            ask.released();
        }
    }

    /// Asks for all who want the same, or waits for whoever does.
    pub(super) async fn turn(&self, store: &Arc<Store>, headers: &HeaderMap) -> Turn {
        let follow = match store.join(&self.key) {
            Joined::Ask(ask) => return Turn::Asks(ask),
            Joined::Follow(follow) => follow,
        };
        let stored = match follow.wait(headers, self.rules.wait).await {
            Followed::Ask(ask) => return Turn::Asks(ask),
            Followed::Answer(stored) => stored,
        };
        match self.shared(&stored) {
            Some(told) => Turn::Shares(stored, told),
            None => Turn::Asks(store.alone(&self.key)),
        }
    }

    /// What is told of an answer that another request has asked for, if it will do for this one.
    fn shared(&self, stored: &Stored<Body>) -> Option<Told> {
        let now = now();
        if !matches!(judge(stored, &self.directives, now), Verdict::Fresh { .. } | Verdict::Accepted { .. }) {
            return None;
        }
        // One that has outgrown what is kept only passes by those who have read it from its beginning.
        let reader = stored.body.reader(0, u64::MAX)?;
        let status = CacheStatus { collapsed: true, ..self.status() };
        Some(Told { reader: Some(reader), ..Told::new(stored, now, status) })
    }
}
