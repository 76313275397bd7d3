//! Whether what is stored may be given (RFC 9111 section 4).

use super::freshness::current_age;
use crate::cache::control::Directives;
use crate::cache::{Facts, Stored};

/// What may be done with a stored answer. Ages are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is given.
    Fresh {
        /// How old it is.
        age: u64,
    },
    /// It is stale, and given: the client takes it so (`max-stale`, RFC 9111 section 5.2.1.2).
    Accepted {
        /// How old it is.
        age: u64,
    },
    /// It must be validated.
    Stale {
        /// How old it is.
        age: u64,
        /// Whether it may be given at once, if it is validated in the background (RFC 5861 section 3).
        while_revalidating: bool,
        /// Whether it may be given if the upstream fails (RFC 5861 section 4).
        on_error: bool,
    },
    /// It must be validated, but the client wants that nobody is asked: 504 (RFC 9111 section 5.2.1.7).
    OnlyIfCached,
}

/// Judges a stored answer that the request's key and `Vary` have selected.
pub fn judge<Body>(stored: &Stored<Body>, asks: &Directives, now: u64) -> Verdict {
    let facts = &stored.facts;
    let age = current_age(facts, now);
    let must_validate = facts.no_cache || stored.is_invalid();
    let staleness = staleness(facts, age).max(u64::from(stored.is_expired()));
    let wanted = is_wanted(facts, asks, age) && !must_validate;
    if wanted && staleness == 0 {
        return Verdict::Fresh { age };
    }
    let most = asks.max_stale.map(|seconds| seconds.saturating_mul(1000));
    let is_accepted = most.is_some_and(|most| staleness <= most) && !facts.must_revalidate;
    if wanted && is_accepted && !stored.is_expired() {
        return Verdict::Accepted { age };
    }
    if asks.only_if_cached {
        return Verdict::OnlyIfCached;
    }
    let asked_window =
        asks.stale_if_error.filter(|_| !facts.must_revalidate).unwrap_or(0).saturating_mul(1000);
    Verdict::Stale {
        age,
        while_revalidating: wanted && staleness <= facts.while_revalidating,
        // A client that wants a younger answer still prefers an old one to none, unless it says `no-cache`.
        on_error: !must_validate && !asks.no_cache && staleness <= facts.on_error.max(asked_window),
    }
}

/// How long it has been stale; zero while it is fresh (section 4.2).
fn staleness(facts: &Facts, age: u64) -> u64 {
    if facts.lifetime > age { 0 } else { (age - facts.lifetime).max(1) }
}

/// Whether the client's wishes allow it (section 5.2.1).
fn is_wanted(facts: &Facts, asks: &Directives, age: u64) -> bool {
    let old_enough = |most: u64| age <= most.saturating_mul(1000);
    let fresh_enough = |least: u64| facts.lifetime >= age.saturating_add(least.saturating_mul(1000));
    !asks.no_cache && asks.max_age.is_none_or(old_enough) && asks.min_fresh.is_none_or(fresh_enough)
}
