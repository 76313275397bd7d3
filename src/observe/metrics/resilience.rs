//! What is told of upstreams in trouble.

use super::series::{Declare, Family, Labels};
use super::{Metrics, UpstreamMetrics};
use prometheus::{Error, IntCounter, IntGauge};

/// Retries, ejections and circuit breakers.
pub(super) struct ResilienceFamilies {
    pub(super) retries: Family<IntCounter>,
    ejections: Family<IntCounter>,
    breaker_state: Family<IntGauge>,
    breaker_opened: Family<IntCounter>,
}

impl ResilienceFamilies {
    pub(super) fn declare(to: &Declare<'_>) -> Result<Self, Error> {
        Ok(ResilienceFamilies {
            retries: to.counters(
                "tollgate_upstream_retries_total",
                "Attempts that followed a failed one, by its cause; over_budget counts those that were not made.",
                &["upstream", "cause"],
            )?,
            ejections: to.counters(
                "tollgate_upstream_ejections_total",
                "Times a target was left alone because requests to it failed.",
                &["upstream"],
            )?,
            breaker_state: to.gauges(
                "tollgate_breaker_state",
                "Circuit breaker of an upstream: 0 closed, 1 open, 2 half open.",
                &["upstream"],
            )?,
            breaker_opened: to.counters(
                "tollgate_breaker_opened_total",
                "Times the circuit breaker of an upstream has opened.",
                &["upstream"],
            )?,
        })
    }

    pub(super) fn retain(&self, wanted: impl Fn(&Labels) -> bool) {
        self.retries.retain(&wanted);
        self.ejections.retain(&wanted);
        self.breaker_state.retain(&wanted);
        self.breaker_opened.retain(&wanted);
    }
}

impl UpstreamMetrics {
    /// Counts a retry by its cause.
    pub fn retry(&self, cause: &str) {
        self.0.families.resilience.retries.series(&[&self.0.name, cause]).inc();
    }
}

impl Metrics {
    /// Makes one series of each, for the reference page.
    pub(crate) fn touch_resilience(&self) {
        self.upstream("upstream").retry("connect");
        self.ejections("upstream", 0);
        self.breaker("upstream", Some((0, 0)));
    }

    /// Tells how often targets of an upstream were ejected so far.
    pub fn ejections(&self, upstream: &str, total: u64) {
        catch_up(&self.families.resilience.ejections, upstream, total);
    }

    /// Tells the state of an upstream's breaker, as a number, and how often it has opened so far; `None` when it has none.
    pub fn breaker(&self, upstream: &str, breaker: Option<(u8, u64)>) {
        let families = &self.families.resilience;
        match breaker {
            Some((state, opened)) => {
                families.breaker_state.series(&[upstream]).set(i64::from(state));
                catch_up(&families.breaker_opened, upstream, opened);
            }
            None => {
                families.breaker_state.retain(|labels| labels.first().is_none_or(|name| name != upstream))
            }
        }
    }
}

/// Raises a counter to a total that is kept elsewhere; one that has begun anew changes nothing.
fn catch_up(family: &Family<IntCounter>, upstream: &str, total: u64) {
    let counter = family.series(&[upstream]);
    counter.inc_by(total.saturating_sub(counter.get()));
}
