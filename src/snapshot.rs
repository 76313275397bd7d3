//! From a configuration as written to one that runs: names resolved, everything compiled, nothing started.

mod access;
mod addresses;
mod counting;
mod deprecation;
mod inherit;
mod listeners;
mod routes;
mod unchanged;
mod upstreams;
mod versions;

pub use inherit::Effective;

use crate::actions::{Shares, SplitStatus};
use crate::auth::Named;
use crate::auth::guard::Guard;
use crate::auth::jwks::Jwks;
use crate::build::{Build, Kept};
use crate::cache::Store;
use crate::config::Loaded;
use crate::config::document::{
    AccessLogTo, AdminBind, ClientProtocol, Document, Listener as Written, ListenerLimits, Threads, TrustFrom,
};
use crate::consumer::Consumers;
use crate::filters::limits::Plans;
use crate::listen::flood::Flood;
use crate::listen::proxy_protocol::ProxyProtocol;
use crate::listen::tls::Tls;
use crate::listen::tls::tickets::Tickets;
use crate::listen::{Limits, Listener};
use crate::observe::access_log;
use crate::observe::metrics::{Held, Metrics, RouteMetrics};
use crate::observe::{LogRules, Telemetry, TrustIds};
use crate::route::retry::Retry;
use crate::route::{Route, Table};
use crate::store::keeper::Sweeper;
use crate::store::memory::Memory;
use crate::store::redis::RedisStore;
use crate::store::redis::fast::Fast;
use crate::tasks::Task;
use crate::upstream::{Client, Resolver, Upstream};
use crate::value::{
    ByteSize, Code, HeaderKey, Issue, Issues, Name, Networks, OrNone, Part, Percent, Positive, Span, counted,
};
use routes::Compiler;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use unchanged::Origin;

/// Headers whose values never reach a log.
const SECRET_HEADERS: &[&str] =
    &["authorization", "cookie", "set-cookie", "proxy-authorization", "x-api-key"];

/// Query parameters whose values never reach a log.
const SECRET_QUERY: &[&str] = &["token", "access_token", "api_key", "key", "password", "secret", "signature"];

/// A configuration that can run. A request takes the current one when it arrives and keeps it to the end.
pub struct Snapshot {
    /// Finds routes.
    pub table: Table,
    /// The routes, by the numbers that the table gives.
    pub routes: Vec<Arc<Route>>,
    /// Stored answers.
    pub cache: Arc<Store>,
    /// Whether any route keeps some.
    pub caches: bool,
    /// The upstreams in the order of the file.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The listeners in the order of the file.
    pub listeners: Vec<Listener>,
    /// What is told and kept back.
    pub telemetry: Telemetry,
    /// Metrics of requests that find no route.
    pub unrouted: RouteMetrics,
    /// Number of APIs.
    pub apis: usize,
    /// Hash of the configuration.
    pub hash: String,
    /// Everybody who is known by name.
    pub consumers: Arc<Consumers>,
    /// Providers of identity.
    pub providers: Vec<Arc<Named>>,
    /// Keys of issuers that are fetched, by the provider's name.
    pub fetched_keys: Vec<(Arc<str>, Arc<Jwks>)>,
    /// What providers were made from, by name, so that a reload knows which ones go on.
    origins: Vec<(Arc<str>, Origin)>,
    /// State of routes that outlives a reload.
    kept: Kept,
    /// What guards each listener against guessing.
    pub guards: Arc<[Option<Arc<Guard>>]>,
    /// The counters of other nodes, and what they are made from.
    pub redis: Option<(String, Arc<RedisStore>)>,
    /// What limits count with when nodes tell each other only now and then.
    pub fast: Option<Arc<Fast>>,
    /// Whether anything has a quota that must outlive the process.
    pub has_quotas: bool,
    /// Counts the snapshots that requests still hold.
    _held: Held,
}

/// What does not change while the process runs, however often the configuration is loaded.
pub struct Shared {
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Resolves the names of targets.
    pub resolver: Arc<Resolver>,
    /// The outgoing HTTP client.
    pub client: Arc<Client>,
    /// Counters of limits and quotas.
    pub memory: Arc<Memory>,
    /// Stored answers.
    pub cache: Arc<Store>,
    /// What keeps counters from growing.
    pub sweeper: Arc<Sweeper>,
    /// What clients' TLS sessions are kept with.
    pub tickets: Arc<Tickets>,
}

impl Shared {
    /// For a configuration: what of it holds as long as the process runs.
    ///
    /// # Errors
    /// What the process itself lacks.
    pub fn new(document: &Document, metrics: Arc<Metrics>) -> Result<Shared, String> {
        let most = document.stores.local.max_keys.map_or(DEFAULT_KEYS, |keys| *keys) as usize;
        let memory = Arc::new(Memory::new(most));
        let servers: Vec<_> = document.process.resolver.iter().map(|server| server.0).collect();
        Ok(Shared {
            metrics,
            resolver: Arc::new(Resolver::new(&servers)?),
            client: Arc::new(Client::new(None)),
            cache: Store::new(document.cache.memory()),
            sweeper: Arc::new(Sweeper(memory.clone())),
            tickets: Arc::new(Tickets::new()?),
            memory,
        })
    }
}

/// Most counters in memory when nobody says.
pub const DEFAULT_KEYS: u32 = 1_000_000;

/// What the process takes from the configuration when it starts.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// Worker threads.
    pub threads: usize,
    /// User to become.
    pub user: Option<String>,
    /// How long leaving may take.
    pub drain: DrainTimes,
    /// Where the admin listener is, and its tokens.
    pub admin: AdminBind,
    /// Tokens that let into the admin listener.
    pub tokens: Vec<String>,
    /// Where the access log goes, unless it is off.
    pub access_log: Option<access_log::Target>,
    /// Where quotas are kept over a restart, and how often they are written.
    pub quotas: Option<(PathBuf, Duration)>,
}

/// How long a process that leaves may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainTimes {
    /// For requests in flight.
    pub requests: Duration,
    /// For WebSockets, server-sent events and gRPC.
    pub streams: Duration,
    /// How long it goes on taking requests while it says that it is not ready.
    pub lame_duck: Duration,
}

impl DrainTimes {
    fn new(written: &crate::config::document::Drain) -> DrainTimes {
        let time = |span: Option<Span>, default| span.map_or(Duration::from_secs(default), |span| span.0);
        DrainTimes {
            requests: time(written.requests, 30),
            streams: time(written.streams, 600),
            lame_duck: time(written.lame_duck, 0),
        }
    }
}

/// Where quotas are kept when nobody says.
const DEFAULT_QUOTAS: &str = "/var/lib/tollgate/quotas";

/// Where the admin listener is when nobody says.
pub const DEFAULT_ADMIN: &str = "/run/tollgate/admin.sock";

impl ProcessSettings {
    /// Reads them.
    pub fn new(document: &Document) -> ProcessSettings {
        let threads = match document.process.threads {
            Threads::Auto => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            Threads::Count(count) => usize::from(count),
        };
        let admin = document
            .admin
            .bind
            .as_ref()
            .map_or_else(|| AdminBind::Unix(PathBuf::from(DEFAULT_ADMIN)), |bind| bind.value.clone());
        ProcessSettings {
            threads,
            user: document.process.user.as_ref().map(|user| user.value.clone()),
            drain: DrainTimes::new(&document.process.drain),
            admin,
            tokens: document.admin.tokens.iter().map(|(_, token)| token.expose().to_owned()).collect(),
            access_log: log_target(document),
            quotas: quota_file(document),
        }
    }
}

/// Only a configuration that has quotas of its own to keep has a file for them.
fn quota_file(document: &Document) -> Option<(PathBuf, Duration)> {
    let local = &document.stores.local;
    let has_quotas = document.plans.iter().any(|(_, plan)| plan.quota.is_some());
    let path = local.quotas.as_ref().map_or_else(|| PathBuf::from(DEFAULT_QUOTAS), |path| path.value.clone());
    let wanted = has_quotas && path.as_os_str() != "none";
    wanted.then(|| (path, local.flush.map_or(Duration::from_secs(1), |span| span.0)))
}

fn log_target(document: &Document) -> Option<access_log::Target> {
    let to = match &document.telemetry.access_log {
        Some(OrNone::Off) => return None,
        Some(OrNone::On(log)) => log.to.clone().unwrap_or_default(),
        None => AccessLogTo::default(),
    };
    match to {
        AccessLogTo::None => None,
        AccessLogTo::Stdout => Some(access_log::Target::Stdout),
        AccessLogTo::Stderr => Some(access_log::Target::Stderr),
        AccessLogTo::File(path) => Some(access_log::Target::File(path)),
    }
}

impl Snapshot {
    /// Builds the snapshot of a configuration. What is found goes to `issues`; with an error among them there is no
    /// snapshot. `running` lends its upstreams' state.
    pub fn build(
        loaded: &Loaded,
        shared: &Shared,
        running: Option<&Snapshot>,
        issues: &mut Issues,
    ) -> Option<Snapshot> {
        let document = &loaded.document;
        let counting = counting::build(loaded, shared, running, issues);
        let identity = access::build(loaded, shared, running, counting.counters.clone(), issues);
        let (guards, consumers) = (identity.access.guards.clone(), identity.access.consumers.clone());
        let providers = identity.access.providers.iter().filter_map(|(_, named)| named.clone()).collect();
        let kept = running.map(|running| &running.kept);
        let mut build = Build::new(&loaded.base, &shared.metrics, identity.access, kept);
        let upstreams = build_upstreams(document, shared, running, &mut build, issues);
        addresses::check(document, issues);
        document.cache.check(issues);
        check_levels(document, issues);
        let tls = listeners::tls(loaded, shared, running, issues);
        let telemetry = telemetry(document, issues);
        let plans = Plans::new(document.plans.iter(), &build, issues);
        counting::tell_bound(document, &plans, issues);
        let mut compiler = Compiler {
            document,
            build: &build,
            plans: &plans,
            issues,
            rules: Vec::new(),
            labels: Vec::new(),
            routes: Vec::new(),
        };
        compiler.run();
        let (rules, routes) = (compiler.rules, compiler.routes);
        if issues.errors() > 0 {
            return None;
        }
        report_unused(document, &build, issues);
        let caches = routes.iter().any(|route| route.cache.is_some());
        if !caches {
            document.cache.check_unused(issues);
        }
        Some(Snapshot {
            table: Table::new(rules),
            cache: shared.cache.clone(),
            caches,
            routes,
            upstreams,
            listeners: document
                .listeners
                .iter()
                .zip(tls)
                .map(|((name, written), tls)| listener(&name.value, written, tls, &shared.metrics, running))
                .collect(),
            telemetry,
            unrouted: shared.metrics.route("-", "-"),
            apis: document.apis.len(),
            hash: loaded.hash.clone(),
            consumers,
            providers,
            fetched_keys: identity.fetched,
            origins: identity.origins,
            kept: build.kept(),
            guards,
            redis: counting.redis,
            fast: counting.fast,
            has_quotas: document.plans.iter().any(|(_, plan)| plan.quota.is_some()),
            _held: shared.metrics.snapshot_held(),
        })
    }

    /// How much there is of everything, for people.
    pub fn describe(&self) -> String {
        let healthy = self.upstreams.iter().filter(|upstream| upstream.is_healthy()).count();
        format!(
            "{}, {}, {}, {} ({healthy} healthy), config {}",
            counted(self.listeners.len(), "listener"),
            counted(self.apis, "API"),
            counted(self.routes.len(), "route"),
            counted(self.upstreams.len(), "upstream"),
            self.hash.get(..6).unwrap_or(&self.hash),
        )
    }

    /// The splits with the names of their routes.
    pub fn splits(&self) -> impl Iterator<Item = (&Arc<str>, &Shares)> {
        self.routes.iter().filter_map(|route| Some((&route.id, route.action.proxy()?.shares()?)))
    }

    /// Takes over the shares that splits have in the process before, where the splits are the same.
    pub fn take_over_splits(&self, before: &[SplitStatus]) {
        for (route, shares) in self.splits() {
            if let Some(status) = before.iter().find(|status| status.changed && status.route == **route) {
                shares.take_over(status);
            }
        }
    }

    /// What must run in the background.
    pub fn tasks(&self) -> Vec<Arc<dyn Task>> {
        let upstreams = self.upstreams.iter().flat_map(|upstream| upstream.tasks().iter().cloned());
        let providers = self.providers.iter().flat_map(|named| named.provider.tasks());
        let redis = self.redis.iter().flat_map(|(_, redis)| redis.tasks().iter().cloned());
        let fast = self.fast.iter().map(|fast| fast.clone() as Arc<dyn Task>);
        let tls = self.listeners.iter().filter_map(|listener| Some(listener.tls.clone()? as Arc<dyn Task>));
        upstreams.chain(providers).chain(redis).chain(fast).chain(tls).collect()
    }
}

fn build_upstreams(
    document: &Document,
    shared: &Shared,
    running: Option<&Snapshot>,
    build: &mut Build,
    issues: &mut Issues,
) -> Vec<Arc<Upstream>> {
    let before = running.into_iter().flat_map(|running| &running.upstreams);
    let before: HashMap<&Name, &Arc<Upstream>> = before.map(|upstream| (upstream.name(), upstream)).collect();
    let mut upstreams = Vec::new();
    for (name, written) in document.upstreams.iter() {
        let previous = before.get(&name.value).copied();
        let made = upstreams::spec(name, written, build, issues).and_then(|spec| {
            Upstream::new(spec, &shared.resolver, &shared.client, previous).map_err(|message| {
                let at = upstreams::place(name, written, &message);
                crate::build::problem(Code::BAD_TLS, &message, at)
            })
        });
        match made {
            Ok(upstream) => {
                build.add(upstream.clone(), upstreams::key(written));
                upstreams.push(upstream);
            }
            Err(issue) => {
                build.add_failed(&name.value, issue.clone());
                issues.push(issue);
            }
        }
    }
    upstreams
}

fn telemetry(document: &Document, issues: &mut Issues) -> Telemetry {
    let written = &document.telemetry;
    let id = &written.request_id;
    Telemetry {
        log: match &written.access_log {
            Some(OrNone::Off) => None,
            log => Some(log_rules(document, log.as_ref().and_then(OrNone::on), issues)),
        },
        request_id: id
            .header
            .as_ref()
            .map_or(http::HeaderName::from_static("x-request-id"), |header| header.0.clone()),
        trust_ids: match id.trust_from {
            TrustFrom::TrustedProxies => TrustIds::Proxies,
            TrustFrom::Anyone => TrustIds::Anyone,
            TrustFrom::Nobody => TrustIds::Nobody,
        },
    }
}

fn log_rules(
    document: &Document,
    log: Option<&crate::config::document::AccessLog>,
    issues: &mut Issues,
) -> LogRules {
    let redact = &document.telemetry.redact;
    let places: Vec<_> = document.auth.iter().filter_map(|(_, provider)| provider.credential()).collect();
    let is_secret = |header: &http::HeaderName| {
        SECRET_HEADERS.contains(&header.as_str())
            || redact.headers.contains(&HeaderKey(header.clone()))
            || places.iter().any(|place| place.header.as_ref().is_some_and(|key| key.0 == *header))
    };
    let carries_credentials = places.iter().filter_map(|place| place.query.clone());
    let secrets: Vec<String> = SECRET_QUERY
        .iter()
        .map(|name| (*name).to_owned())
        .chain(redact.query.iter().cloned())
        .chain(carries_credentials)
        .collect();
    let is_secret_parameter = |name: &str| secrets.iter().any(|secret| secret.eq_ignore_ascii_case(name));
    let mut add = Vec::new();
    for (name, template) in log.iter().flat_map(|log| log.fields.add.iter()) {
        for part in template.parts() {
            let issue = match part {
                Part::Header(header) if is_secret(header) => {
                    format!("header `{header}` is redacted and cannot be logged")
                }
                Part::Cookie(_) => "cookies are redacted and cannot be logged".to_owned(),
                Part::Query(name) if is_secret_parameter(name) => {
                    format!("parameter `{name}` is redacted and cannot be logged")
                }
                Part::Path(..) | Part::Api | Part::Route => {
                    format!("`{}` is not the same for every route", template.value)
                }
                _ => continue,
            };
            issues.push(Issue::new(Code::BAD_TEMPLATE, issue).at(template.at));
        }
        add.push((name.value.to_string(), template.value.clone()));
    }
    LogRules { sample: log.and_then(|log| log.sample).unwrap_or(Percent(10_000)), redact_query: secrets, add }
}

/// What can be told of inherited settings where they are written, whichever routes they hold for.
fn check_levels(document: &Document, issues: &mut Issues) {
    for level in document.levels() {
        if let Some(retry) = level.retry.and_then(|retry| retry.value.on()) {
            Retry::check(retry, issues);
        }
        if let Some(compress) = level.compress.and_then(|compress| compress.value.on()) {
            compress.check(issues);
        }
        let cache = level.cache.and_then(|cache| cache.value.on());
        if let Some(most) = cache.and_then(|cache| cache.max_object.as_ref()) {
            document.cache.check_object(most, issues);
        }
    }
}

fn report_unused(document: &Document, build: &Build, issues: &mut Issues) {
    for (name, _) in document.upstreams.iter().filter(|(name, _)| !build.is_used(&name.value)) {
        issues.push(Issue::new(Code::UNUSED, format!("upstream `{}` is never used", name.value)).at(name.at));
    }
    for (name, _) in document.auth.iter().filter(|(name, _)| !build.is_provider_used(&name.value)) {
        issues.push(Issue::new(Code::UNUSED, format!("provider `{}` is never used", name.value)).at(name.at));
    }
    let has_plan = |plan: &Name| {
        document
            .consumers
            .iter()
            .any(|(_, consumer)| consumer.plan.as_ref().is_some_and(|of| of.value == *plan))
    };
    for (name, _) in document.plans.iter().filter(|(name, _)| !has_plan(&name.value)) {
        issues.push(Issue::new(Code::UNUSED, format!("no consumer has plan `{}`", name.value)).at(name.at));
    }
}

fn listener(
    name: &Name,
    written: &Written,
    tls: Option<Arc<Tls>>,
    metrics: &Metrics,
    running: Option<&Snapshot>,
) -> Listener {
    let flood = written.limits.flood.map(|rate| {
        let before = running.and_then(|running| {
            let listener = running.listeners.iter().find(|listener| listener.name == *name)?;
            listener.flood.as_ref().map(|(flood, _)| flood.clone()).filter(|flood| flood.rate() == rate)
        });
        (before.unwrap_or_else(|| Arc::new(Flood::new(rate))), metrics.flood(name.as_str()))
    });
    let speaks = |protocol| written.protocols.as_ref().is_none_or(|protocols| protocols.contains(&protocol));
    Listener {
        name: name.clone(),
        binds: written.bind.value.0.clone(),
        http1: speaks(ClientProtocol::Http1),
        h2c: tls.is_none() && speaks(ClientProtocol::H2c),
        tls,
        proxy_protocol: written.proxy_protocol.as_ref().map(|proxy| ProxyProtocol {
            from: Networks::new(proxy.value.from.0.iter().map(|cidr| cidr.value.0)),
            metrics: metrics.proxy_protocol(name.as_str()),
        }),
        redirect_https: written.redirect_https.as_ref().map(|redirect| redirect.value),
        trusted: Networks::new(written.trusted_proxies.iter().map(|cidr| cidr.value.0)),
        normalize: written.normalize,
        limits: listener_limits(&written.limits),
        flood,
    }
}

fn listener_limits(written: &ListenerLimits) -> Limits {
    let default = Limits::default();
    let time = |span: Option<Positive<Span>>, default| span.map_or(default, |span| span.0);
    let bytes = |size: Option<Positive<ByteSize>>, default| size.map_or(default, |size| size.0);
    let count = |count: Option<Positive<u32>>, default| count.map_or(default, |count| *count as usize);
    Limits {
        header_bytes: bytes(written.header_bytes, default.header_bytes),
        headers: written.headers.map_or(default.headers, |headers| usize::from(headers.get())),
        uri: bytes(written.uri, default.uri),
        header_time: time(written.header_timeout, default.header_time),
        body_idle: time(written.body_idle, default.body_idle),
        body_rate: written.body_rate.map_or(default.body_rate, |rate| rate.0),
        send_idle: time(written.send_idle, default.send_idle),
        keepalive: written.keepalive.map_or(default.keepalive, |idle| idle.0),
        requests: written.requests.map(|requests| *requests),
        connections: count(written.connections, default.connections),
        per_ip: count(written.per_ip.map(|per_ip| per_ip.value), default.per_ip),
        h2_streams: written.h2_streams.map_or(default.h2_streams, |streams| *streams),
        h2_window: written.h2_window.map_or(default.h2_window, |window| window.0),
        h2_requests: written.h2_requests.map_or(default.h2_requests, |requests| *requests),
        h2_resets: written.h2_resets.unwrap_or(default.h2_resets),
        h2_frames: written.h2_frames.map_or(default.h2_frames, |frames| frames.value),
        handshake: time(written.handshake_timeout, default.handshake),
    }
}
