//! Every metric tollgate exports, in the text format of Prometheus. This file is the list: nothing else declares one.
//!
//! A request records itself through handles that its route and upstream hold ([`RouteMetrics`], [`UpstreamMetrics`]). A
//! handle finds its series by name once, the first time a method and status occur; from then on recording is a few
//! atomic additions, without a lock and without an allocation.
//!
//! The number of series is bounded. What would exceed the bound is counted under the label value `other`.

mod access;
mod cache;
mod handles;
mod process;
mod resilience;
mod series;
mod tls;
mod traffic;

pub use access::{AuthMetrics, AuthResult, KeyFacts, LimitMetrics};
pub use cache::{CacheMetrics, TierFacts};
pub use handles::{Attempt, Counted, Held, RouteMetrics, UpstreamMetrics};
pub use tls::{ProxyFailure, ProxyMetrics, TlsFailure, TlsMetrics};
pub use traffic::{DeprecationMetrics, FaultMetrics, MirrorMetrics, Mirrored};

use access::AccessFamilies;
use cache::CacheFamilies;
use handles::{RouteSeries, UpstreamSeries};
use parking_lot::Mutex;
use process::Process;
use prometheus::{Encoder, Error, Gauge, Histogram, IntCounter, IntGauge, Opts, Registry, TextEncoder};
use resilience::ResilienceFamilies;
use series::{Budget, Declare, Family, Labels};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tls::TlsFamilies;
use traffic::TrafficFamilies;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Label value for what no series of its own is made for.
pub const OTHER: &str = "other";

/// Upper bounds in seconds, those of OpenTelemetry's `http.server.request.duration`.
const DURATION_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Upper bounds in seconds for what the gateway itself adds, from 25 µs.
const OVERHEAD_BUCKETS: [f64; 15] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0,
];

/// An API and a route of it.
type RouteName = (Box<str>, Box<str>);

/// All metrics. Made once; outlives every reload, so that counters never go back.
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    routes: Mutex<HashMap<RouteName, Arc<RouteSeries>>>,
    upstreams: Mutex<HashMap<Box<str>, Arc<UpstreamSeries>>>,
    /// One scrape at a time, since what is read from elsewhere is copied in at a scrape.
    scrape: Mutex<()>,
    process: Process,
    active_requests: IntGauge,
    bytes_received: IntCounter,
    bytes_sent: IntCounter,
    log_dropped: IntCounter,
    panics: IntCounter,
    streams: Counted,
    snapshots: IntGauge,
    reload_success: IntGauge,
    reload_time: Gauge,
}

/// The metrics that the handles of routes and upstreams use.
struct Families {
    requests: Family<IntCounter>,
    request_duration: Family<Histogram>,
    gateway_overhead: Histogram,
    upstream_duration: Family<Histogram>,
    upstream_attempts: Family<IntCounter>,
    upstream_target_up: Family<IntGauge>,
    dns_failures: Family<IntCounter>,
    active_connections: Family<IntGauge>,
    refused_requests: Family<IntCounter>,
    refused_connections: Family<IntCounter>,
    config_info: Family<IntGauge>,
    access: AccessFamilies,
    cache: CacheFamilies,
    resilience: ResilienceFamilies,
    tls: TlsFamilies,
    traffic: TrafficFamilies,
    budget: Arc<Budget>,
}

impl Families {
    fn declare(to: &Declare<'_>) -> Result<Families, Error> {
        Ok(Families {
            requests: to.counters(
                "tollgate_http_requests_total",
                "Requests answered.",
                &["api", "route", "method", "status"],
            )?,
            request_duration: to.histograms(
                "tollgate_http_request_duration_seconds",
                "Time from the first byte of a request to the last byte of its response.",
                &["api", "route"],
            )?,
            gateway_overhead: to.histogram(
                "tollgate_gateway_overhead_seconds",
                "Time of a request that was not spent waiting for an upstream.",
                &OVERHEAD_BUCKETS,
            )?,
            upstream_duration: to.histograms(
                "tollgate_upstream_request_duration_seconds",
                "Time of one attempt, from choosing a target to the end of its response.",
                &["upstream"],
            )?,
            upstream_attempts: to.counters(
                "tollgate_upstream_attempts_total",
                "Attempts to have a request answered by an upstream, retries included.",
                &["upstream", "result"],
            )?,
            upstream_target_up: to.gauges(
                "tollgate_upstream_target_up",
                "Whether a target gets requests: 1 if healthy, else 0.",
                &["upstream", "target"],
            )?,
            dns_failures: to.counters(
                "tollgate_dns_failures_total",
                "Look-ups of an upstream's names that failed; the last good addresses stay in use.",
                &["upstream"],
            )?,
            active_connections: to.gauges(
                "tollgate_active_connections",
                "Open connections of clients.",
                &["listener"],
            )?,
            refused_requests: to.counters(
                "tollgate_refused_requests_total",
                "Requests that are not HTTP/1.1 as it should be: by reason.",
                &["listener", "reason"],
            )?,
            refused_connections: to.counters(
                "tollgate_refused_connections_total",
                "Connections of clients that were closed: at once, because there were `limits.connections` or `limits.per_ip` already, \
                 for `waiting` when there was no room for others, for breaking `limits.h2_resets` or `limits.h2_frames`, or \
                 because too many of its requests were `malformed`.",
                &["listener", "reason"],
            )?,
            config_info: to.gauges(
                "tollgate_config_info",
                "The configuration in use; always 1.",
                &["hash", "version"],
            )?,
            access: AccessFamilies::declare(to)?,
            cache: CacheFamilies::declare(to)?,
            resilience: ResilienceFamilies::declare(to)?,
            tls: TlsFamilies::declare(to)?,
            traffic: TrafficFamilies::declare(to)?,
            budget: Arc::clone(to.budget),
        })
    }
}

impl Metrics {
    /// Declares everything. At most `max_series` time series with labels are made (a histogram counts as many series as
    /// it has buckets, and two).
    ///
    /// # Errors
    /// Two metrics of one name, or a name Prometheus does not allow: a mistake in this file, which its tests find.
    pub fn new(max_series: usize) -> Result<Arc<Metrics>, Error> {
        let registry = Registry::new();
        let plain = Declare { registry: &registry, budget: &Arc::default() };
        let dropped = plain.counter(
            "tollgate_metrics_series_dropped_total",
            "Times a series was not made because there were telemetry.metrics.max_series already.",
        )?;
        let budget = Arc::new(Budget::new(max_series, dropped));
        let to = Declare { registry: &registry, budget: &budget };
        let [bytes_received, bytes_sent] = declare_bytes(&to)?;
        declare_build_info(&to)?;
        Ok(Arc::new(Metrics {
            families: Arc::new(Families::declare(&to)?),
            routes: Mutex::default(),
            upstreams: Mutex::default(),
            scrape: Mutex::default(),
            process: declare_process(&to)?,
            bytes_received,
            bytes_sent,
            active_requests: to.gauge("tollgate_active_requests", "Requests in flight.")?,
            streams: Counted(to.gauge(
                "tollgate_active_streams",
                "WebSockets, server-sent events and gRPC calls in flight.",
            )?),
            snapshots: to.gauge(
                "tollgate_config_snapshots",
                "Configurations in memory: the one in use, and older ones that requests still hold.",
            )?,
            log_dropped: to.counter(
                "tollgate_log_dropped_total",
                "Lines of the access log that were lost: the log was slower than the requests, or failed.",
            )?,
            panics: to.counter(
                "tollgate_panics_total",
                "Panics, which are mistakes in tollgate: each has cost a request (500), a connection or a background task's run.",
            )?,
            reload_success: to.gauge(
                "tollgate_config_last_reload_success",
                "Whether the last attempt to load the configuration succeeded.",
            )?,
            reload_time: to.float_gauge(
                "tollgate_config_last_reload_timestamp_seconds",
                "When the configuration in use was loaded.",
            )?,
            registry,
        }))
    }

    /// The metrics of a route. The same names give the same series, so a reload goes on counting.
    pub fn route(&self, api: &str, route: &str) -> RouteMetrics {
        let mut routes = self.routes.lock();
        let series = routes.entry((api.into(), route.into())).or_insert_with_key(|(api, route)| {
            Arc::new(RouteSeries::new(Arc::clone(&self.families), api.clone(), route.clone()))
        });
        RouteMetrics(Arc::clone(series))
    }

    /// The metrics of an upstream. The same name gives the same series.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let mut upstreams = self.upstreams.lock();
        let series = upstreams.entry(name.into()).or_insert_with_key(|name| {
            Arc::new(UpstreamSeries::new(Arc::clone(&self.families), name.clone()))
        });
        UpstreamMetrics(Arc::clone(series))
    }

    /// Counts a request as in flight until the value is dropped.
    pub fn request_begins(&self) -> Held {
        Held::new(self.active_requests.clone())
    }

    /// Streams in flight.
    pub fn streams(&self) -> Counted {
        self.streams.clone()
    }

    /// Counts a snapshot as in use until the value is dropped.
    pub fn snapshot_held(&self) -> Held {
        Held::new(self.snapshots.clone())
    }

    /// Counts bytes received from a client and bytes sent to it.
    pub fn bytes(&self, received: u64, sent: u64) {
        self.bytes_received.inc_by(received);
        self.bytes_sent.inc_by(sent);
    }

    /// How many connections a listener has open: raise it and lower it.
    pub fn connections(&self, listener: &str) -> IntGauge {
        self.families.active_connections.series(&[listener])
    }

    /// Counts requests on a listener that are not HTTP/1.1 as it should be.
    pub fn refused(&self, listener: &str, reason: &str) -> IntCounter {
        self.families.refused_requests.series(&[listener, reason])
    }

    /// Counts connections on a listener that are too many.
    pub fn refused_connections(&self, listener: &str, reason: &str) -> IntCounter {
        self.families.refused_connections.series(&[listener, reason])
    }

    /// Notes that a configuration was loaded and is in use.
    pub fn config_loaded(&self, hash: &str, version: &str) {
        let info = &self.families.config_info;
        info.retain(|_| false);
        info.series(&[hash, version]).set(1);
        self.reload_success.set(1);
        self.reload_time.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }

    /// Notes that a configuration was refused and the one before stays in use.
    pub fn config_refused(&self) {
        self.reload_success.set(0);
    }

    /// Tells how many lines of the access log were lost so far. A smaller number than before changes nothing.
    pub fn log_dropped(&self, total: u64) {
        self.log_dropped.inc_by(total.saturating_sub(self.log_dropped.get()));
    }

    /// Tells how many panics there were so far. A smaller number than before changes nothing.
    pub fn panicked(&self, total: u64) {
        self.panics.inc_by(total.saturating_sub(self.panics.get()));
    }

    /// Changes how many series may be made. Series that exist stay.
    pub fn limit_series(&self, max_series: usize) {
        self.families.budget.limit(max_series);
    }

    /// Removes the series of routes and upstreams that nobody holds any more, and so makes room for others. To be called
    /// some time after a reload, when the requests of the old configuration are done.
    pub fn sweep(&self) {
        let mut routes = self.routes.lock();
        routes.retain(|_, series| Arc::strong_count(series) > 1);
        let live = |labels: &Labels| match labels {
            [api, route, ..] => routes.contains_key(&(api.as_str().into(), route.as_str().into())),
            _ => true,
        };
        self.families.requests.retain(live);
        self.families.request_duration.retain(live);
        self.families.traffic.retain(&live);
        drop(routes);

        let mut upstreams = self.upstreams.lock();
        upstreams.retain(|_, series| Arc::strong_count(series) > 1);
        let live = |labels: &Labels| labels.first().is_none_or(|name| upstreams.contains_key(name.as_str()));
        self.families.upstream_duration.retain(live);
        self.families.upstream_attempts.retain(live);
        self.families.upstream_target_up.retain(live);
        self.families.dns_failures.retain(live);
        self.families.resilience.retain(live);
    }

    /// Writes all metrics down in the text format. `extra` may first copy in what is kept elsewhere, such as
    /// [`Metrics::log_dropped`].
    pub fn render(&self, extra: impl FnOnce(&Metrics)) -> Vec<u8> {
        let _one_at_a_time = self.scrape.lock();
        extra(self);
        self.process.read();
        let mut text = Vec::with_capacity(16 << 10);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            log::error!("metrics: {error}");
        }
        text
    }
}

/// Two series that no bound may take away.
fn declare_bytes(to: &Declare<'_>) -> Result<[IntCounter; 2], Error> {
    let one = |direction| {
        let options = Opts::new("tollgate_http_bytes_total", "Bytes of bodies exchanged with clients.");
        to.register(IntCounter::with_opts(options.const_label("direction", direction))?)
    };
    Ok([one("received")?, one("sent")?])
}

fn declare_build_info(to: &Declare<'_>) -> Result<(), Error> {
    let options = Opts::new("tollgate_build_info", "The program that runs; always 1.")
        .const_label("version", env!("CARGO_PKG_VERSION"))
        .const_label("os", std::env::consts::OS)
        .const_label("arch", std::env::consts::ARCH);
    to.register(IntGauge::with_opts(options)?)?.set(1);
    Ok(())
}

/// Under the names every exporter uses.
fn declare_process(to: &Declare<'_>) -> Result<Process, Error> {
    Ok(Process {
        cpu: to.float_counter("process_cpu_seconds_total", "User and system CPU time.")?,
        resident: to.gauge("process_resident_memory_bytes", "Memory in RAM.")?,
        virtual_memory: to.gauge("process_virtual_memory_bytes", "Address space.")?,
        threads: to.gauge("process_threads", "Threads.")?,
        open_fds: to.gauge("process_open_fds", "Open file descriptors.")?,
        max_fds: to.gauge("process_max_fds", "File descriptors that may be open.")?,
        start_time: to.float_gauge("process_start_time_seconds", "When the process started.")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);

    fn metrics(max_series: usize) -> Arc<Metrics> {
        Metrics::new(max_series).unwrap()
    }

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render(|_| {})).unwrap()
    }

    /// The value of one series, written as it is in the output.
    fn value(metrics: &Metrics, series: &str) -> Option<f64> {
        let text = text(metrics);
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    /// One of everything.
    fn touched() -> Arc<Metrics> {
        let metrics = metrics(1000);
        metrics.route("shop", "read").record(&Method::GET, 200, MS, US);
        let upstream = metrics.upstream("app");
        upstream.attempt(Attempt::Ok, MS);
        upstream.target_up("127.0.0.1:3000").set(1);
        upstream.dns_failure();
        metrics.connections("web").inc();
        metrics.refused("web", "line-end").inc();
        metrics.refused_connections("web", "per_ip").inc();
        metrics.touch_access();
        metrics.touch_cache();
        metrics.touch_tls();
        metrics.touch_traffic();
        metrics.config_loaded("9f3c2e", "1");
        metrics
    }

    #[test]
    fn every_metric_is_there_with_its_name_help_and_type() {
        let text = text(&touched());
        let documented = [
            ("tollgate_active_connections", "gauge"),
            ("tollgate_active_requests", "gauge"),
            ("tollgate_active_streams", "gauge"),
            ("tollgate_build_info", "gauge"),
            ("tollgate_config_info", "gauge"),
            ("tollgate_config_last_reload_success", "gauge"),
            ("tollgate_config_last_reload_timestamp_seconds", "gauge"),
            ("tollgate_config_snapshots", "gauge"),
            ("tollgate_dns_failures_total", "counter"),
            ("tollgate_gateway_overhead_seconds", "histogram"),
            ("tollgate_http_bytes_total", "counter"),
            ("tollgate_http_request_duration_seconds", "histogram"),
            ("tollgate_http_requests_total", "counter"),
            ("tollgate_log_dropped_total", "counter"),
            ("tollgate_metrics_series_dropped_total", "counter"),
            ("tollgate_panics_total", "counter"),
            ("tollgate_upstream_attempts_total", "counter"),
            ("tollgate_upstream_request_duration_seconds", "histogram"),
            ("tollgate_upstream_target_up", "gauge"),
            ("tollgate_cache_bytes", "gauge"),
            ("tollgate_cache_disk_errors_total", "counter"),
            ("tollgate_cache_disk_failing", "gauge"),
            ("tollgate_cache_disk_skipped_total", "counter"),
            ("tollgate_cache_evictions_total", "counter"),
            ("tollgate_cache_filling_bytes", "gauge"),
            ("tollgate_cache_objects", "gauge"),
            ("tollgate_cache_purged_objects_total", "counter"),
            ("tollgate_cache_purges_total", "counter"),
            ("tollgate_cache_requests_total", "counter"),
            ("tollgate_auth_decisions_total", "counter"),
            ("tollgate_auth_remembered", "gauge"),
            ("tollgate_concurrency_refused_total", "counter"),
            ("tollgate_deprecated_requests_total", "counter"),
            ("tollgate_fallback_total", "counter"),
            ("tollgate_faults_total", "counter"),
            ("tollgate_flood_refused_total", "counter"),
            ("tollgate_jwks_age_seconds", "gauge"),
            ("tollgate_jwks_fetches_total", "counter"),
            ("tollgate_limit_backend_errors_total", "counter"),
            ("tollgate_mirrored_requests_total", "counter"),
            ("tollgate_limit_decisions_total", "counter"),
            ("tollgate_limit_keys", "gauge"),
            ("tollgate_limit_keys_evicted_total", "counter"),
            ("tollgate_proxy_protocol_failures_total", "counter"),
            ("tollgate_refused_connections_total", "counter"),
            ("tollgate_refused_requests_total", "counter"),
            ("tollgate_redis_up", "gauge"),
            ("tollgate_tls_cert_not_after_seconds", "gauge"),
            ("tollgate_tls_handshake_failures_total", "counter"),
            ("tollgate_tls_handshakes_total", "counter"),
            ("tollgate_tls_reloads_total", "counter"),
            ("process_cpu_seconds_total", "counter"),
            ("process_max_fds", "gauge"),
            ("process_open_fds", "gauge"),
            ("process_resident_memory_bytes", "gauge"),
            ("process_start_time_seconds", "gauge"),
            ("process_threads", "gauge"),
            ("process_virtual_memory_bytes", "gauge"),
        ];
        for (name, kind) in documented {
            assert!(text.contains(&format!("# HELP {name} ")), "{name}\n{text}");
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} {kind}\n{text}");
        }
        assert_eq!(text.matches("# TYPE ").count(), documented.len(), "undocumented metrics:\n{text}");
        assert!(!text.contains("\"other\""), "nothing overflowed:\n{text}");
    }

    #[test]
    fn the_labels_are_as_documented() {
        let metrics = touched();
        for series in [
            r#"tollgate_http_requests_total{api="shop",method="GET",route="read",status="200"}"#,
            r#"tollgate_http_request_duration_seconds_bucket{api="shop",route="read",le="0.005"}"#,
            r#"tollgate_http_request_duration_seconds_bucket{api="shop",route="read",le="+Inf"}"#,
            r#"tollgate_http_request_duration_seconds_count{api="shop",route="read"}"#,
            r#"tollgate_upstream_attempts_total{result="ok",upstream="app"}"#,
            r#"tollgate_upstream_target_up{target="127.0.0.1:3000",upstream="app"}"#,
            r#"tollgate_dns_failures_total{upstream="app"}"#,
            r#"tollgate_active_connections{listener="web"}"#,
            r#"tollgate_config_info{hash="9f3c2e",version="1"}"#,
            "tollgate_config_last_reload_success",
            r#"tollgate_gateway_overhead_seconds_bucket{le="0.000025"}"#,
        ] {
            assert_eq!(value(&metrics, series), Some(1.0), "{series}\n{}", text(&metrics));
        }
        metrics.bytes(3, 4);
        assert_eq!(value(&metrics, r#"tollgate_http_bytes_total{direction="received"}"#), Some(3.0));
        assert_eq!(value(&metrics, r#"tollgate_http_bytes_total{direction="sent"}"#), Some(4.0));
    }

    #[test]
    fn a_reload_goes_on_counting_and_names_do_not_run_together() {
        let metrics = metrics(1000);
        metrics.route("a", "bc").record(&Method::GET, 200, MS, US);
        metrics.route("a", "bc").record(&Method::GET, 200, MS, US);
        metrics.route("ab", "c").record(&Method::GET, 200, MS, US);
        let count = |api, route| {
            let labels = format!(r#"{{api="{api}",method="GET",route="{route}",status="200"}}"#);
            value(&metrics, &format!("tollgate_http_requests_total{labels}"))
        };
        assert_eq!((count("a", "bc"), count("ab", "c")), (Some(2.0), Some(1.0)));
    }

    #[test]
    fn rare_statuses_and_unknown_methods_are_folded() {
        let metrics = metrics(1000);
        let route = metrics.route("a", "r");
        let count = |method, status| {
            let labels = format!(r#"{{api="a",method="{method}",route="r",status="{status}"}}"#);
            value(&metrics, &format!("tollgate_http_requests_total{labels}")).unwrap_or(0.0)
        };
        for (method, status, label_method, label_status) in [
            ("GET", 404, "GET", "404"),
            ("GET", 418, "GET", "4xx"),
            ("POST", 599, "POST", "5xx"),
            ("BREW", 100, "_OTHER", "1xx"),
            ("PATCH", 0, "PATCH", "other"),
            ("TRACE", 99, "TRACE", "other"),
            ("HEAD", 600, "HEAD", "other"),
            ("CONNECT", u16::MAX, "CONNECT", "other"),
        ] {
            let before = count(label_method, label_status);
            route.record(&method.parse().unwrap(), status, MS, US);
            assert_eq!(count(label_method, label_status), before + 1.0, "{method} {status}");
        }
    }

    #[test]
    fn beyond_the_limit_everything_goes_to_other_and_is_counted() {
        let cost = DURATION_BUCKETS.len() + 3 + 1; // a route with one status
        let metrics = metrics(2 * cost);
        let routes: Vec<_> = (0..5).map(|number| metrics.route("a", &format!("r{number}"))).collect();
        for _ in 0..3 {
            routes.iter().for_each(|route| route.record(&Method::GET, 200, MS, US));
        }
        let text = text(&metrics);
        assert_eq!(text.matches("tollgate_http_requests_total{").count(), 3, "{text}");
        let other =
            r#"tollgate_http_requests_total{api="other",method="other",route="other",status="other"}"#;
        assert_eq!(value(&metrics, other), Some(9.0));
        assert_eq!(value(&metrics, "tollgate_metrics_series_dropped_total"), Some(6.0));
    }

    #[test]
    fn what_nobody_holds_is_swept_and_makes_room() {
        let metrics = metrics(DURATION_BUCKETS.len() + 3 + 1);
        let old = metrics.route("a", "old");
        old.record(&Method::GET, 200, MS, US);
        metrics.sweep();
        let series = |route: &str| {
            let labels = format!(r#"{{api="a",method="GET",route="{route}",status="200"}}"#);
            value(&metrics, &format!("tollgate_http_requests_total{labels}"))
        };
        assert_eq!(series("old"), Some(1.0), "still held");
        drop(old);
        metrics.sweep();
        let new = metrics.route("a", "new");
        new.record(&Method::GET, 200, MS, US);
        assert_eq!((series("old"), series("new")), (None, Some(1.0)));
        assert_eq!(value(&metrics, "tollgate_metrics_series_dropped_total"), Some(0.0));
    }

    #[test]
    fn swept_upstreams_and_forgotten_targets_are_gone() {
        let metrics = metrics(1000);
        let app = metrics.upstream("app");
        app.target_up("a:1").set(1);
        app.target_up("b:1").set(0);
        app.forget_target("a:1");
        assert_eq!(value(&metrics, r#"tollgate_upstream_target_up{target="a:1",upstream="app"}"#), None);
        assert_eq!(value(&metrics, r#"tollgate_upstream_target_up{target="b:1",upstream="app"}"#), Some(0.0));
        app.attempt(Attempt::Broken, MS);
        drop(app);
        metrics.sweep();
        assert!(!text(&metrics).contains("upstream=\"app\""));
    }

    #[test]
    fn a_request_is_active_until_it_is_dropped() {
        let metrics = metrics(0);
        let request = metrics.request_begins();
        assert_eq!(value(&metrics, "tollgate_active_requests"), Some(1.0));
        drop(request);
        assert_eq!(value(&metrics, "tollgate_active_requests"), Some(0.0));
    }

    #[test]
    fn a_new_configuration_replaces_the_info_of_the_old() {
        let metrics = metrics(1000);
        metrics.config_loaded("one", "1");
        metrics.config_loaded("two", "1");
        metrics.config_refused();
        assert_eq!(value(&metrics, r#"tollgate_config_info{hash="one",version="1"}"#), None);
        assert_eq!(value(&metrics, r#"tollgate_config_info{hash="two",version="1"}"#), Some(1.0));
        assert_eq!(value(&metrics, "tollgate_config_last_reload_success"), Some(0.0));
        assert!(value(&metrics, "tollgate_config_last_reload_timestamp_seconds").unwrap() > 1.7e9);
    }

    #[test]
    fn the_process_is_described() {
        let metrics = metrics(0);
        let rendered = metrics.render(|metrics| metrics.log_dropped(7));
        assert!(String::from_utf8(rendered).unwrap().contains("\ntollgate_log_dropped_total 7\n"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = value(&metrics, "process_start_time_seconds").unwrap();
        assert!((now - 3600.0..now + 2.0).contains(&started), "{started} {now}");
        assert!(value(&metrics, "process_resident_memory_bytes").unwrap() > 1e6);
        assert!(value(&metrics, "process_open_fds").unwrap() >= 3.0);
        assert!(value(&metrics, "process_max_fds").unwrap() >= 3.0);
        assert!(value(&metrics, "process_threads").unwrap() >= 1.0);
        assert!(value(&metrics, "process_cpu_seconds_total").is_some());
    }

    #[test]
    fn recording_from_many_threads_loses_nothing() {
        let metrics = metrics(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let route = metrics.route("a", "r");
                scope.spawn(move || (0..10_000).for_each(|_| route.record(&Method::GET, 200, MS, US)));
            }
        });
        let count = r#"tollgate_http_request_duration_seconds_count{api="a",route="r"}"#;
        assert_eq!(value(&metrics, count), Some(40_000.0));
    }

    /// Prints what one record costs: `cargo test --release metrics::tests::cost -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_a_record() {
        let metrics = metrics(1000);
        let route = metrics.route("a", "r");
        for threads in [1, 2] {
            const ROUNDS: u32 = 5_000_000;
            let start = std::time::Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        (0..ROUNDS)
                            .for_each(|_| route.record(std::hint::black_box(&Method::GET), 200, MS, US));
                    });
                }
            });
            println!("record, {threads} threads: {:?}", start.elapsed() / ROUNDS);
        }
    }
}
