//! The admin listener: health, metrics, the effective configuration, upstreams, status; reloads and upgrades; the cache.

mod cache;
mod change;
mod splits;
mod targets;

pub use cache::Purged;

use crate::actions::SplitStatus;
use crate::explain::{Question, explain};
use crate::listen::connection::{Connection, Facts, Socket as Stream};
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::CONTENT_TYPE as METRICS_TYPE;
use crate::observe::metrics::KeyFacts;
use crate::observe::panics;
use crate::reload::{Running, Waning};
use crate::store::redis::StoreError;
use crate::upstream::UpstreamStatus;
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{RwLock, watch};

/// For [`Connection::new`]; nothing is peeked at here.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may wait for its next request.
const IDLE_SECONDS: u64 = 60;

/// A bound admin socket.
pub enum Socket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket and its path.
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

impl Socket {
    /// The file of a Unix socket.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Socket::Tcp(_) => None,
            Socket::Unix(_, path) => Some(path.clone()),
        }
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Socket::Tcp(socket) => match socket.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("(unknown)"),
            },
            Socket::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What the admin listener tells of.
pub struct State {
    /// The running configuration.
    pub running: Arc<Running>,
    /// The access log.
    pub log: Option<Arc<AccessLog>>,
    /// Whether the process is stopping.
    pub draining: AtomicBool,
    /// Whether it serves.
    pub ready: AtomicBool,
    /// The process before this one, while it finishes what it has begun.
    pub waning: ArcSwapOption<Waning>,
    /// When it started.
    pub started: Instant,
    /// Read-locked by every request until its answer is sent, so that the process does not end before.
    pub answering: RwLock<()>,
}

/// What `tollgate status` shows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the binary.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Hash of the configuration.
    pub config: String,
    /// Whether requests are served.
    pub ready: bool,
    /// Whether it is stopping.
    pub draining: bool,
    /// Number of listeners.
    pub listeners: usize,
    /// Number of APIs.
    pub apis: usize,
    /// Number of routes.
    pub routes: usize,
    /// The process before this one, while it finishes what it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<Predecessor>,
    /// Background tasks that run.
    pub tasks: usize,
    /// Times a background task failed and was started again.
    pub task_failures: u64,
    /// Access log lines that were dropped.
    pub log_dropped: u64,
    /// The splits whose shares were changed while it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<SplitStatus>,
    /// The upstreams and their targets.
    pub upstreams: Vec<UpstreamStatus>,
}

/// A process that was succeeded and has not ended yet.
#[derive(Debug, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its process id.
    pub pid: u32,
    /// Connections it has left.
    pub connections: usize,
}

/// Serves the socket until the process ends, or another one serves it (`succeeded`). Must be called on the runtime.
///
/// # Errors
/// The socket cannot be used.
pub fn serve(socket: Socket, state: Arc<State>, mut succeeded: watch::Receiver<bool>) -> io::Result<()> {
    let app =
        Arc::new(App { state, shown: parking_lot::Mutex::default(), putting: tokio::sync::Mutex::default() });
    let socket = match socket {
        Socket::Tcp(socket) => Accepting::Tcp(TcpListener::from_std(socket)?),
        Socket::Unix(socket, _) => Accepting::Unix(UnixListener::from_std(socket)?),
    };
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                Ok(_) = succeeded.wait_for(|succeeded| *succeeded) => return,
            };
            match accepted {
                Ok((stream, peer)) => enter(&app, stream, peer),
                Err(error) => pause(&error).await,
            }
        }
    });
    Ok(())
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepting {
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        Ok(match self {
            Accepting::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                (stream.into(), Some(peer))
            }
            Accepting::Unix(socket) => (socket.accept().await?.0.into(), None),
        })
    }
}

async fn pause(error: &io::Error) {
    log::error!("admin listener: accepting a connection failed: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn enter(app: &Arc<App>, stream: Stream, peer: Option<SocketAddr>) {
    let facts = Facts { listener: 0, peer, local: None, secure: false, tls: None, trusted: false };
    let connection = Connection::new(stream, facts, PATIENCE, None);
    let app = app.clone();
    tokio::spawn(async move {
        // The admin listener serves to the very end: whoever drains wants to see it.
        let (_running, never) = watch::channel(false);
        app.process_new(Box::new(connection), &never).await;
    });
}

struct App {
    state: Arc<State>,
    shown: parking_lot::Mutex<Gauges>,
    /// Held while a configuration is put in place of another.
    putting: tokio::sync::Mutex<()>,
}

/// What the last scrape showed, so that targets that are gone disappear.
#[derive(Default)]
struct Gauges {
    targets: HashMap<String, Vec<String>>,
    dns_failures: HashMap<String, u64>,
}

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        mut http: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // Whoever has asked nothing yet needs no answer.
        if !matches!(http.read_request().await, Ok(true)) {
            return None;
        }
        // To the last byte of the answer.
        let _answering = self.state.answering.read().await;
        http.set_keepalive(Some(IDLE_SECONDS));
        let (head, body) = self.response(&mut http).await.into_parts();
        http.write_response_header(Box::new(head.into())).await.ok()?;
        if !body.is_empty() {
            http.write_response_body(body.into(), true).await.ok()?;
        }
        let settings = HttpPersistentSettings::for_session(&http);
        let kept = http.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(kept, settings))
    }
}

impl App {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let query = head.uri.query().unwrap_or_default().to_owned();
        let token =
            head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let admitted = self.admits(token);
        let open = matches!(path.as_str(), "/healthz" | "/readyz");
        if !open && !admitted {
            return unauthorized();
        }
        if let Some(change) = change::Change::of(&path) {
            return self.change(change, session, &query).await;
        }
        if let Some(route) = path.strip_prefix("/splits/") {
            return self.change_split(session, &method, route, &query);
        }
        if let Some(order) = targets::Order::of(&path) {
            return self.order(order, session, &query);
        }
        let response = match path.as_str() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            "/config" if method == Method::PUT => return self.put_config(session, &query).await,
            "/config" => self.config(),
            "/cache" => json(&self.cache()),
            "/cache/purge" => return self.purge(session, &query).await,
            "/upstreams" => json(&self.upstreams()),
            "/status" => json(&self.status()),
            "/explain" => self.explain(&query).await,
            "/splits" => json(&self.splits()),
            _ => return text(StatusCode::NOT_FOUND, NOT_FOUND),
        };
        match method {
            Method::GET => response,
            Method::HEAD => without_body(response),
            _ => not_allowed("GET, HEAD"),
        }
    }
}

const NOT_FOUND: &str = "not found; try GET /healthz /readyz /metrics /config /upstreams /status /explain /splits /cache, PUT /config /splits/ROUTE, POST /reload /upgrade /cache/purge /upstreams/NAME/drain /undrain /weight\n";

impl App {
    /// Whether the configuration wants no token, or this one. Compares with every token in the same time, whichever it is
    /// and wherever they differ.
    fn admits(&self, token: Option<&str>) -> bool {
        let live = self.state.running.live.load();
        let tokens = &live.settings.tokens;
        let knows = |token: &str| {
            tokens.iter().fold(false, |known, other| known | same(token.as_bytes(), other.as_bytes()))
        };
        tokens.is_empty() || token.is_some_and(knows)
    }

    /// The effective configuration, with its hash as entity tag for `PUT`.
    fn config(&self) -> Response<Vec<u8>> {
        let live = self.state.running.live.load();
        let mut response = json(&live.config);
        if let Ok(tag) = format!("\"{}\"", live.loaded.hash).parse() {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }

    fn readiness(&self) -> Response<Vec<u8>> {
        if self.state.draining.load(Ordering::Acquire) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        match self.state.ready.load(Ordering::Acquire) {
            true => text(StatusCode::OK, "ready\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        }
    }

    fn upstreams(&self) -> Vec<UpstreamStatus> {
        self.state.running.current.load().upstreams.iter().map(|upstream| upstream.status()).collect()
    }

    /// What `tollgate explain` says, of the configuration that runs and with the health of its upstreams.
    async fn explain(&self, query: &str) -> Response<Vec<u8>> {
        let snapshot = self.state.running.current.load_full();
        let live = self.state.running.live.load_full();
        let told = match Question::from_query(query) {
            Ok(question) => explain(&snapshot, &live.sources, &question).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(mut told) => {
                told.mask(|text| live.loaded.mask(text));
                json(&told)
            }
            Err(error) => text(StatusCode::BAD_REQUEST, &format!("{error}\n")),
        }
    }

    fn status(&self) -> Status {
        let state = &self.state;
        let snapshot = state.running.current.load();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: state.started.elapsed().as_secs(),
            config: snapshot.hash.clone(),
            ready: state.ready.load(Ordering::Acquire),
            draining: state.draining.load(Ordering::Acquire),
            listeners: snapshot.listeners.len(),
            apis: snapshot.apis,
            routes: snapshot.routes.len(),
            predecessor: state.waning.load().as_ref().and_then(|waning| {
                let connections = waning.connections()?;
                Some(Predecessor { pid: waning.pid, connections })
            }),
            tasks: state.running.supervisor.tasks(),
            task_failures: state.running.supervisor.failures(),
            log_dropped: state.log.as_ref().map_or(0, |log| log.dropped()),
            splits: self.splits().into_iter().filter(|split| split.changed).collect(),
            upstreams: self.upstreams(),
        }
    }

    fn metrics(&self) -> Response<Vec<u8>> {
        let mut shown = self.shown.lock();
        for upstream in &self.state.running.current.load().upstreams {
            self.show_upstream(upstream, &mut shown);
        }
        drop(shown);
        let body = self.state.running.shared.metrics.render(|metrics| {
            metrics.log_dropped(self.state.log.as_ref().map_or(0, |log| log.dropped()));
            metrics.panicked(panics::count());
            self.show_access(metrics);
            self.show_cache(metrics);
        });
        typed(StatusCode::OK, METRICS_TYPE, body)
    }

    /// Copies in what identity and limits know of themselves.
    fn show_access(&self, metrics: &crate::observe::metrics::Metrics) {
        let snapshot = self.state.running.current.load();
        metrics.limit_keys(
            self.state.running.shared.memory.keys() as u64,
            self.state.running.shared.memory.evicted(),
        );
        metrics.certificates(&certificates(&snapshot.listeners));
        let providers = snapshot.providers.iter();
        let remembered: Vec<_> = providers.map(|named| (&*named.name, named.provider.remembered())).collect();
        metrics.remembered(&remembered);
        for (provider, keys) in &snapshot.fetched_keys {
            let counters = keys.counters();
            let failed = counters.failures();
            let age = counters.age().map(|age| age.as_secs_f64());
            let fetched = counters.fetches().saturating_sub(failed);
            metrics.keys(provider, KeyFacts { age, fetched, failed });
        }
        if let Some((_, redis)) = &snapshot.redis {
            metrics.redis(
                redis.up() > 0,
                StoreError::ALL.map(|error| (error.word(), redis.counters().errors(error))),
            );
        }
    }

    fn show_upstream(&self, upstream: &crate::upstream::Upstream, shown: &mut Gauges) {
        let name = upstream.name().as_str();
        let metrics = self.state.running.shared.metrics.upstream(name);
        let targets = upstream.targets();
        let labels: Vec<String> = targets.iter().map(|target| target.label().to_string()).collect();
        for (target, label) in targets.iter().zip(&labels) {
            metrics.target_up(label).set(i64::from(target.is_healthy() && !target.is_ejected()));
        }
        let before = shown.targets.insert(name.to_owned(), labels.clone()).unwrap_or_default();
        before.iter().filter(|label| !labels.contains(label)).for_each(|gone| metrics.forget_target(gone));
        let failures = shown.dns_failures.entry(name.to_owned()).or_default();
        (*failures..upstream.dns_failures()).for_each(|_| metrics.dns_failure());
        *failures = upstream.dns_failures();
        let metrics = &self.state.running.shared.metrics;
        metrics.ejections(name, upstream.ejections());
        let breaker = upstream.breaker().map(|breaker| (breaker.phase() as u8, breaker.opened()));
        metrics.breaker(name, breaker);
    }
}

/// Every certificate in use: listener, certificate, when it stops being good.
fn certificates(listeners: &[crate::listen::Listener]) -> Vec<(String, String, i64)> {
    let mut all = Vec::new();
    for listener in listeners {
        let Some(tls) = &listener.tls else { continue };
        let of_pair = |pair: &crate::listen::tls::pair::Pair| {
            (listener.name.to_string(), pair.label.to_string(), pair.not_after)
        };
        all.extend(tls.certificates().all().iter().map(of_pair));
    }
    all
}

fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b));
    a.len() == b.len() && differing == 0
}

fn typed(status: StatusCode, content_type: &str, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Ok(content_type) = content_type.parse() {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    let length = http::HeaderValue::from(response.body().len());
    response.headers_mut().insert(http::header::CONTENT_LENGTH, length);
    response
}

fn text(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    typed(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

fn json(value: &impl Serialize) -> Response<Vec<u8>> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            typed(StatusCode::OK, "application/json", body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn without_body(mut response: Response<Vec<u8>>) -> Response<Vec<u8>> {
    response.body_mut().clear();
    response
}

fn unauthorized() -> Response<Vec<u8>> {
    let mut response = text(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer …\n");
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer realm=\"tollgate admin\""));
    response
}

fn not_allowed(allowed: &'static str) -> Response<Vec<u8>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allowed}\n"));
    response.headers_mut().insert(ALLOW, http::HeaderValue::from_static(allowed));
    response
}
