//! What identity and limits are counted with.

use super::Metrics;
use super::series::{Declare, Family};
use prometheus::{Error, Gauge, IntCounter, IntGauge};

/// Metrics of identity and limits.
pub(super) struct AccessFamilies {
    auth: Family<IntCounter>,
    remembered: Family<IntGauge>,
    limits: Family<IntCounter>,
    backend_errors: Family<IntCounter>,
    redis_up: IntGauge,
    jwks_age: Family<Gauge>,
    jwks_fetches: Family<IntCounter>,
    flood: Family<IntCounter>,
    keys: IntGauge,
    evicted: IntCounter,
}

impl AccessFamilies {
    pub(super) fn declare(to: &Declare<'_>) -> Result<Self, Error> {
        Ok(AccessFamilies {
            auth: to.counters(
                "tollgate_auth_decisions_total",
                "Decisions about who calls: accepted, refused, unavailable, answered, and nobody where there was no credential.",
                &["provider", "result"],
            )?,
            remembered: to.gauges(
                "tollgate_auth_remembered",
                "Credentials that a provider remembers and need not prove again.",
                &["provider"],
            )?,
            limits: to.counters(
                "tollgate_limit_decisions_total",
                "Decisions of limits and quotas: granted or refused; a limit in shadow counts what it would have refused.",
                &["scope", "policy", "decision"],
            )?,
            backend_errors: to.counters(
                "tollgate_limit_backend_errors_total",
                "Decisions that Redis did not give: by reason.",
                &["reason"],
            )?,
            redis_up: to.gauge("tollgate_redis_up", "Whether Redis is asked: 1, or 0 while its breaker is open.")?,
            jwks_age: to.float_gauges(
                "tollgate_jwks_age_seconds",
                "Since the keys of a provider were last fetched.",
                &["provider"],
            )?,
            jwks_fetches: to.counters(
                "tollgate_jwks_fetches_total",
                "Fetches of keys: ok or failed.",
                &["provider", "result"],
            )?,
            flood: to.counters(
                "tollgate_flood_refused_total",
                "Requests refused by `limits.flood`.",
                &["listener"],
            )?,
            keys: to.gauge("tollgate_limit_keys", "Counters of limits and quotas kept in memory.")?,
            evicted: to.counter(
                "tollgate_limit_keys_evicted_total",
                "Counters dropped because there were stores.local.max_keys already.",
            )?,
        })
    }
}

/// What a limit counts its decisions with.
#[derive(Clone)]
pub struct LimitMetrics {
    granted: IntCounter,
    refused: IntCounter,
}

impl LimitMetrics {
    /// Counts a decision.
    pub fn decided(&self, granted: bool) {
        if granted { self.granted.inc() } else { self.refused.inc() }
    }
}

/// What a provider counts its decisions with.
#[derive(Clone)]
pub struct AuthMetrics {
    accepted: IntCounter,
    refused: IntCounter,
    unavailable: IntCounter,
    answered: IntCounter,
    nobody: IntCounter,
}

/// What a provider decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthResult {
    /// The credential is good.
    Accepted,
    /// It is not.
    Refused,
    /// Nobody can say.
    Unavailable,
    /// Somebody else answered.
    Answered,
    /// There was none.
    Nobody,
}

impl AuthMetrics {
    /// Counts a decision.
    pub fn decided(&self, result: AuthResult) {
        match result {
            AuthResult::Accepted => self.accepted.inc(),
            AuthResult::Refused => self.refused.inc(),
            AuthResult::Unavailable => self.unavailable.inc(),
            AuthResult::Answered => self.answered.inc(),
            AuthResult::Nobody => self.nobody.inc(),
        }
    }
}

/// What is known of a provider's keys, for a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyFacts {
    /// Seconds since the last fetch that brought keys, if there was one.
    pub age: Option<f64>,
    /// Fetches that brought keys.
    pub fetched: u64,
    /// Fetches that did not.
    pub failed: u64,
}

impl Metrics {
    /// Makes one series of each, for the reference page.
    pub(crate) fn touch_access(&self) {
        self.limit("scope", "policy").decided(true);
        self.provider("provider").decided(AuthResult::Accepted);
        self.remembered(&[("provider", 1)]);
        self.flood("listener").inc();
        self.keys("provider", KeyFacts { age: Some(0.0), fetched: 1, failed: 0 });
        self.redis(true, [("timeout", 1)]);
    }

    /// The metrics of a limit; the same names give the same series.
    pub fn limit(&self, scope: &str, policy: &str) -> LimitMetrics {
        let series = |decision| self.families.access.limits.series(&[scope, policy, decision]);
        LimitMetrics { granted: series("granted"), refused: series("refused") }
    }

    /// The metrics of a provider; the same name gives the same series.
    pub fn provider(&self, name: &str) -> AuthMetrics {
        let series = |result| self.families.access.auth.series(&[name, result]);
        AuthMetrics {
            accepted: series("accepted"),
            refused: series("refused"),
            unavailable: series("unavailable"),
            answered: series("answered"),
            nobody: series("nobody"),
        }
    }

    /// Tells how many credentials each provider remembers. Other providers are forgotten.
    pub fn remembered(&self, all: &[(&str, usize)]) {
        let remembered = &self.families.access.remembered;
        remembered.retain(|labels| all.iter().any(|(provider, _)| matches!(labels, [of] if of == provider)));
        for (provider, number) in all {
            remembered.series(&[provider]).set(i64::try_from(*number).unwrap_or(i64::MAX));
        }
    }

    /// Counts requests that the flood guard of a listener refuses.
    pub fn flood(&self, listener: &str) -> IntCounter {
        self.families.access.flood.series(&[listener])
    }

    /// Tells whether Redis is asked, and how many decisions it did not give so far, by reason.
    pub fn redis(&self, up: bool, errors: impl IntoIterator<Item = (&'static str, u64)>) {
        self.families.access.redis_up.set(i64::from(up));
        for (reason, total) in errors {
            let counter = self.families.access.backend_errors.series(&[reason]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// Tells how many counters are kept and how many were dropped so far.
    pub fn limit_keys(&self, keys: u64, evicted: u64) {
        let access = &self.families.access;
        access.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        access.evicted.inc_by(evicted.saturating_sub(access.evicted.get()));
    }

    /// Tells what is known of a provider's keys.
    pub fn keys(&self, provider: &str, facts: KeyFacts) {
        let access = &self.families.access;
        if let Some(age) = facts.age {
            access.jwks_age.series(&[provider]).set(age);
        }
        for (result, total) in [("ok", facts.fetched), ("failed", facts.failed)] {
            let counter = access.jwks_fetches.series(&[provider, result]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}
