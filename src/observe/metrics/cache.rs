//! What the cache is counted with.

use super::Metrics;
use super::series::{Declare, Family};
use crate::exchange::CacheResult;
use prometheus::{Error, IntCounter, IntGauge};

/// Metrics of the cache.
pub(super) struct CacheFamilies {
    requests: Family<IntCounter>,
    bytes: Family<IntGauge>,
    objects: Family<IntGauge>,
    evictions: Family<IntCounter>,
    coming: IntGauge,
    disk_failing: IntGauge,
    disk_skipped: IntCounter,
    disk_errors: Family<IntCounter>,
    purges: Family<IntCounter>,
    purged: Family<IntCounter>,
}

impl CacheFamilies {
    pub(super) fn declare(to: &Declare<'_>) -> Result<Self, Error> {
        Ok(CacheFamilies {
            requests: to.counters(
                "tollgate_cache_requests_total",
                "Requests to routes with a cache: hit, stale, revalidated, collapsed, miss, bypass.",
                &["api", "route", "result"],
            )?,
            bytes: to.gauges(
                "tollgate_cache_bytes",
                "Bytes of stored answers, heads and overhead included.",
                &["tier"],
            )?,
            objects: to.gauges("tollgate_cache_objects", "Stored answers.", &["tier"])?,
            evictions: to.counters(
                "tollgate_cache_evictions_total",
                "Stored answers that had to leave for others.",
                &["tier"],
            )?,
            coming: to
                .gauge("tollgate_cache_filling_bytes", "Bytes of answers that are on their way to the cache.")?,
            disk_failing: to.gauge(
                "tollgate_cache_disk_failing",
                "Whether answers are not written because the disk fails or is full: 1, else 0.",
            )?,
            disk_skipped: to.counter(
                "tollgate_cache_disk_skipped_total",
                "Answers not written to disk, or not read from it, because there was too much to do or it was failing.",
            )?,
            disk_errors: to.counters(
                "tollgate_cache_disk_errors_total",
                "Files of answers that could not be read, or written or removed.",
                &["operation"],
            )?,
            purges: to.counters(
                "tollgate_cache_purges_total",
                "Purges, those that unsafe requests caused included: by what was purged, all, key, url, prefix or tag.",
                &["what"],
            )?,
            purged: to.counters(
                "tollgate_cache_purged_objects_total",
                "Stored answers that purges have met.",
                &["tier"],
            )?,
        })
    }
}

/// What a route with a cache counts with.
#[derive(Clone)]
pub struct CacheMetrics([IntCounter; CacheResult::ALL.len()]);

impl CacheMetrics {
    /// Counts a request.
    pub fn answered(&self, result: CacheResult) {
        if let Some(counter) = self.0.get(result as usize) {
            counter.inc();
        }
    }
}

/// What is known of a tier, for a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierFacts {
    /// Bytes of stored answers.
    pub bytes: u64,
    /// How many.
    pub objects: u64,
    /// How many had to leave for others so far.
    pub evicted: u64,
    /// How many purges have met so far.
    pub purged: u64,
}

impl Metrics {
    /// Makes one series of each, for the reference page.
    pub(crate) fn touch_cache(&self) {
        self.cache_route("api", "route").answered(CacheResult::Hit);
        self.cache_tier("memory", TierFacts::default());
        self.cache_purges([("url", 1)]);
        self.cache_disk(false, 0, [("read", 1)]);
    }

    /// The metrics of a route with a cache; the same names give the same series.
    pub fn cache_route(&self, api: &str, route: &str) -> CacheMetrics {
        let requests = &self.families.cache.requests;
        CacheMetrics(CacheResult::ALL.map(|result| requests.series(&[api, route, result.word()])))
    }

    /// What a tier holds.
    pub fn cache_tier(&self, tier: &str, facts: TierFacts) {
        let families = &self.families.cache;
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        families.bytes.series(&[tier]).set(signed(facts.bytes));
        families.objects.series(&[tier]).set(signed(facts.objects));
        raise(&families.evictions.series(&[tier]), facts.evicted);
        raise(&families.purged.series(&[tier]), facts.purged);
    }

    /// How the disk does: whether it fails, what was skipped so far, and errors by operation.
    pub fn cache_disk<'a>(
        &self,
        failing: bool,
        skipped: u64,
        errors: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        let families = &self.families.cache;
        families.disk_failing.set(i64::from(failing));
        raise(&families.disk_skipped, skipped);
        errors
            .into_iter()
            .for_each(|(operation, errors)| raise(&families.disk_errors.series(&[operation]), errors));
    }

    /// Bytes of answers on their way.
    pub fn cache_filling(&self, bytes: usize) {
        self.families.cache.coming.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How many purges there have been, by what was purged.
    pub fn cache_purges<'a>(&self, all: impl IntoIterator<Item = (&'a str, u64)>) {
        all.into_iter().for_each(|(what, made)| raise(&self.families.cache.purges.series(&[what]), made));
    }
}

fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
