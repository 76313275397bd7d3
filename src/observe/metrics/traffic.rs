//! What deprecation, limits of concurrency, faults and fallbacks are counted with.

use super::Metrics;
use super::series::{Declare, Family, Labels};
use parking_lot::RwLock;
use prometheus::{Error, IntCounter};
use std::collections::HashMap;
use std::sync::Arc;

/// Metrics of how traffic is led; the first two labels of each are API and route.
pub(super) struct TrafficFamilies {
    deprecated: Family<IntCounter>,
    concurrency: Family<IntCounter>,
    faults: Family<IntCounter>,
    fallbacks: Family<IntCounter>,
    mirrored: Family<IntCounter>,
}

impl TrafficFamilies {
    pub(super) fn declare(to: &Declare<'_>) -> Result<Self, Error> {
        Ok(TrafficFamilies {
            deprecated: to.counters(
                "tollgate_deprecated_requests_total",
                "Requests to what is deprecated or has a sunset, by consumer: - where nobody has proven who they are, unknown where \
                 they are no consumer of the configuration.",
                &["api", "route", "consumer"],
            )?,
            concurrency: to.counters(
                "tollgate_concurrency_refused_total",
                "Requests refused because so many were being served already: by max or each.",
                &["api", "route", "by"],
            )?,
            faults: to.counters(
                "tollgate_faults_total",
                "Faults made on purpose: delay or abort.",
                &["api", "route", "fault"],
            )?,
            fallbacks: to.counters(
                "tollgate_fallback_total",
                "Answers that stood in for the upstream's: stale, upstream or respond.",
                &["api", "route", "kind"],
            )?,
            mirrored: to.counters(
                "tollgate_mirrored_requests_total",
                "Requests drawn for a mirror, by what became of the copy: ok, server_error, failed, timeout; or not sent: \
                 too_large, busy, unfinished.",
                &["api", "route", "result"],
            )?,
        })
    }

    /// Removes the series of routes that are gone.
    pub(super) fn retain(&self, live: &impl Fn(&Labels) -> bool) {
        [&self.deprecated, &self.concurrency, &self.faults, &self.fallbacks, &self.mirrored]
            .into_iter()
            .for_each(|family| family.retain(live));
    }
}

/// What a deprecated route counts its callers with.
pub struct DeprecationMetrics {
    family: Family<IntCounter>,
    api: Box<str>,
    route: Box<str>,
    /// By consumer, so that a series is looked up by its name once.
    known: RwLock<HashMap<Arc<str>, IntCounter>>,
}

impl DeprecationMetrics {
    /// Counts a request of this consumer: the name of one in the configuration, or a word. Names that callers can choose
    /// would make series without end.
    pub fn called(&self, consumer: &Arc<str>) {
        if let Some(counter) = self.known.read().get(consumer) {
            return counter.inc();
        }
        let counter = self.family.series(&[&self.api, &self.route, consumer]);
        counter.inc();
        self.known.write().insert(consumer.clone(), counter);
    }
}

/// What a route counts its faults with.
#[derive(Clone)]
pub struct FaultMetrics {
    /// Delays.
    pub delay: IntCounter,
    /// Aborts.
    pub abort: IntCounter,
}

/// What became of a copy of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirrored {
    /// An answer below 500 came.
    Ok,
    /// An answer of 500 or above came.
    ServerError,
    /// No answer came.
    Failed,
    /// None came in time.
    Timeout,
    /// The body was larger than what is copied.
    TooLarge,
    /// So many copies were under way already.
    Busy,
    /// The request ended before its body did.
    Unfinished,
}

impl Mirrored {
    /// The values of the label `result`, in the order of the variants.
    const LABELS: [&str; 7] = ["ok", "server_error", "failed", "timeout", "too_large", "busy", "unfinished"];
}

/// What a route counts the copies of its requests with.
#[derive(Clone)]
pub struct MirrorMetrics([IntCounter; Mirrored::LABELS.len()]);

impl MirrorMetrics {
    /// Counts a copy.
    pub fn count(&self, result: Mirrored) {
        if let Some(counter) = self.0.get(result as usize) {
            counter.inc();
        }
    }
}

impl Metrics {
    /// Makes one series of each, for the reference page.
    pub(crate) fn touch_traffic(&self) {
        self.deprecation("shop", "read").called(&"consumer".into());
        self.concurrency_refused("shop", "read").iter().for_each(IntCounter::inc);
        self.faults("shop", "read").delay.inc();
        self.fell_back("shop", "read", "respond");
        self.mirror("shop", "read").count(Mirrored::Ok);
    }

    /// The metrics of a deprecated route; the same names give the same series.
    pub fn deprecation(&self, api: &str, route: &str) -> DeprecationMetrics {
        let family = self.families.traffic.deprecated.clone();
        DeprecationMetrics { family, api: api.into(), route: route.into(), known: RwLock::default() }
    }

    /// Counts the requests of a route that are refused by `concurrency.max`, and by `concurrency.each`.
    pub fn concurrency_refused(&self, api: &str, route: &str) -> [IntCounter; 2] {
        ["max", "each"].map(|by| self.families.traffic.concurrency.series(&[api, route, by]))
    }

    /// Counts an answer that stood in for the upstream's. Looked up each time: few requests come here.
    pub fn fell_back(&self, api: &str, route: &str, kind: &str) {
        self.families.traffic.fallbacks.series(&[api, route, kind]).inc();
    }

    /// The metrics of a mirrored route; the same names give the same series.
    pub fn mirror(&self, api: &str, route: &str) -> MirrorMetrics {
        MirrorMetrics(
            Mirrored::LABELS.map(|result| self.families.traffic.mirrored.series(&[api, route, result])),
        )
    }

    /// The metrics of a route with faults; the same names give the same series.
    pub fn faults(&self, api: &str, route: &str) -> FaultMetrics {
        let series = |fault| self.families.traffic.faults.series(&[api, route, fault]);
        FaultMetrics { delay: series("delay"), abort: series("abort") }
    }
}
