//! Metrics with labels, within a bound on their number.

use super::{DURATION_BUCKETS, OTHER};
use parking_lot::RwLock;
use prometheus::core::{Collector, Desc, Metric};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Counter, Error, Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Values of the labels of one series, in the order of the family's labels.
pub(super) type Labels = [String];

/// A metric with labels. In place of the crate's `MetricVec`, which finds a series by a hash of its label values run
/// together, so that api `a` with route `bc` and api `ab` with route `c` would be one series.
pub(super) struct Family<M>(Arc<FamilyOf<M>>);

struct FamilyOf<M> {
    desc: Desc,
    kind: MetricType,
    labels: &'static [&'static str],
    /// Time series one set of labels costs.
    cost: usize,
    make: fn(Opts) -> Result<M, Error>,
    series: RwLock<BTreeMap<Vec<String>, M>>,
    /// For everything beyond the budget; shown once it was needed.
    overflow: M,
    overflowed: AtomicBool,
    budget: Arc<Budget>,
}

impl<M> Clone for Family<M> {
    fn clone(&self) -> Self {
        Family(Arc::clone(&self.0))
    }
}

impl<M: Metric> Family<M> {
    /// The series with these labels, made if it is new.
    pub(super) fn series(&self, values: &[&str]) -> M {
        let family = &self.0;
        let key: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        let mut series = family.series.write();
        if let Some(known) = series.get(&key) {
            return known.clone();
        }
        if family.budget.take(family.cost) {
            match (family.make)(options(&family.desc, family.labels, values)) {
                Ok(made) => {
                    series.insert(key, made.clone());
                    return made;
                }
                Err(error) => log::error!("metrics: {error}"),
            }
            family.budget.give_back(family.cost);
        }
        self.overflow()
    }

    /// What counts for series that cannot be made.
    pub(super) fn overflow(&self) -> M {
        self.0.overflowed.store(true, Ordering::Relaxed);
        self.0.overflow.clone()
    }

    /// Removes the series whose labels are not wanted.
    pub(super) fn retain(&self, wanted: impl Fn(&Labels) -> bool) {
        let mut series = self.0.series.write();
        let before = series.len();
        series.retain(|labels, _| wanted(labels));
        self.0.budget.give_back((before - series.len()) * self.0.cost);
    }
}

impl<M: Metric> Collector for Family<M> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metrics: Vec<_> = self.0.series.read().values().map(Metric::metric).collect();
        if self.0.overflowed.load(Ordering::Relaxed) {
            metrics.push(self.0.overflow.metric());
        }
        let mut family = MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(self.0.kind);
        family.set_metric(metrics);
        vec![family]
    }
}

fn options(desc: &Desc, labels: &[&str], values: &[&str]) -> Opts {
    let pairs = labels.iter().zip(values).map(|(&label, &value)| (label.to_owned(), value.to_owned()));
    Opts::new(desc.fq_name.as_str(), desc.help.as_str()).const_labels(pairs.collect())
}

/// How many series there may be, and are.
#[derive(Default)]
pub(super) struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    dropped: Option<IntCounter>,
}

impl Budget {
    pub(super) fn new(limit: usize, dropped: IntCounter) -> Budget {
        Budget { limit: limit.into(), used: AtomicUsize::new(0), dropped: Some(dropped) }
    }

    pub(super) fn limit(&self, series: usize) {
        self.limit.store(series, Ordering::Relaxed);
    }

    fn take(&self, cost: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let within = |used: usize| used.checked_add(cost).filter(|&total| total <= limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok();
        if let Some(dropped) = self.dropped.as_ref().filter(|_| !taken) {
            dropped.inc();
        }
        taken
    }

    fn give_back(&self, cost: usize) {
        self.used.fetch_sub(cost, Ordering::Relaxed);
    }
}

/// Makes metrics and registers them.
pub(super) struct Declare<'a> {
    pub(super) registry: &'a Registry,
    pub(super) budget: &'a Arc<Budget>,
}

type Names = &'static [&'static str];

impl Declare<'_> {
    pub(super) fn register<C: Collector + Clone + 'static>(&self, made: C) -> Result<C, Error> {
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.register(IntCounter::new(name, help)?)
    }

    pub(super) fn float_counter(&self, name: &str, help: &str) -> Result<Counter, Error> {
        self.register(Counter::new(name, help)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.register(IntGauge::new(name, help)?)
    }

    pub(super) fn float_gauge(&self, name: &str, help: &str) -> Result<Gauge, Error> {
        self.register(Gauge::new(name, help)?)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: Names,
    ) -> Result<Family<IntCounter>, Error> {
        self.family(name, help, labels, MetricType::COUNTER, IntCounter::with_opts)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: Names) -> Result<Family<IntGauge>, Error> {
        self.family(name, help, labels, MetricType::GAUGE, IntGauge::with_opts)
    }

    pub(super) fn float_gauges(&self, name: &str, help: &str, labels: Names) -> Result<Family<Gauge>, Error> {
        self.family(name, help, labels, MetricType::GAUGE, Gauge::with_opts)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: Names,
    ) -> Result<Family<Histogram>, Error> {
        self.family(name, help, labels, MetricType::HISTOGRAM, |common_opts| {
            Histogram::with_opts(HistogramOpts { common_opts, buckets: DURATION_BUCKETS.to_vec() })
        })
    }

    fn family<M: Metric + 'static>(
        &self,
        name: &str,
        help: &str,
        labels: Names,
        kind: MetricType,
        make: fn(Opts) -> Result<M, Error>,
    ) -> Result<Family<M>, Error> {
        let variable = labels.iter().map(|&label| label.to_owned()).collect();
        let desc = Desc::new(name.into(), help.into(), variable, HashMap::new())?;
        let family = Arc::new(FamilyOf {
            overflow: make(options(&desc, labels, &vec![OTHER; labels.len()]))?,
            overflowed: AtomicBool::new(false),
            desc,
            kind,
            labels,
            // The bound of infinity, the sum and the count come on top of the buckets.
            cost: if kind == MetricType::HISTOGRAM { DURATION_BUCKETS.len() + 3 } else { 1 },
            make,
            series: RwLock::default(),
            budget: Arc::clone(self.budget),
        });
        self.registry.register(Box::new(Family(Arc::clone(&family))))?;
        Ok(Family(family))
    }
}
