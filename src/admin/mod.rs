//! The admin listener: health, metrics, the effective configuration, upstreams, status.

use crate::config::Loaded;
use crate::explain::{Question, explain};
use crate::listen::connection::{Connection, Facts};
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::KeyFacts;
use crate::observe::metrics::{CONTENT_TYPE as METRICS_TYPE, Metrics};
use crate::snapshot::Snapshot;
use crate::store::memory::Memory;
use crate::store::redis::StoreError;
use crate::tasks::Supervisor;
use crate::upstream::UpstreamStatus;
use crate::value::Sources;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode};
use pingora::apps::ServerApp;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// For [`Connection::new`]; nothing is peeked at here.
const PATIENCE: Duration = Duration::from_secs(10);

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
    pub current: Arc<ArcSwap<Snapshot>>,
    /// The configuration as read.
    pub loaded: Loaded,
    /// The texts it came from.
    pub sources: Sources,
    /// The configuration as shown to people, secrets redacted.
    pub config: serde_json::Value,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub log: Option<Arc<AccessLog>>,
    /// The background tasks.
    pub supervisor: Arc<Supervisor>,
    /// Whether the process is stopping.
    pub draining: AtomicBool,
    /// Whether it serves.
    pub ready: AtomicBool,
    /// Counters of limits and quotas.
    pub memory: Arc<Memory>,
    /// When it started.
    pub started: Instant,
    /// Tokens that let in; none lets everybody in.
    pub tokens: Vec<String>,
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
    /// Background tasks that run.
    pub tasks: usize,
    /// Times a background task failed and was started again.
    pub task_failures: u64,
    /// Access log lines that were dropped.
    pub log_dropped: u64,
    /// The upstreams and their targets.
    pub upstreams: Vec<UpstreamStatus>,
}

/// Serves the socket until the process ends. Must be called on the runtime.
///
/// # Errors
/// The socket cannot be used.
pub fn serve(socket: Socket, state: Arc<State>) -> io::Result<()> {
    let app = Arc::new(App { state, shown: parking_lot::Mutex::new(Gauges::default()) });
    match socket {
        Socket::Tcp(socket) => {
            let socket = TcpListener::from_std(socket)?;
            tokio::spawn(async move {
                loop {
                    match socket.accept().await {
                        Ok((stream, peer)) => enter(&app, stream, Some(peer)),
                        Err(error) => pause(&error).await,
                    }
                }
            });
        }
        Socket::Unix(socket, _) => {
            let socket = UnixListener::from_std(socket)?;
            tokio::spawn(async move {
                loop {
                    match socket.accept().await {
                        Ok((stream, _)) => enter(&app, stream, None),
                        Err(error) => pause(&error).await,
                    }
                }
            });
        }
    }
    Ok(())
}

async fn pause(error: &io::Error) {
    log::error!("admin listener: accepting a connection failed: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn enter(
    app: &Arc<App>,
    stream: impl Into<crate::listen::connection::Socket>,
    peer: Option<std::net::SocketAddr>,
) {
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
}

/// What the last scrape showed, so that targets that are gone disappear.
#[derive(Default)]
struct Gauges {
    targets: HashMap<String, Vec<String>>,
    dns_failures: HashMap<String, u64>,
}

#[async_trait]
impl ServeHttp for App {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let query = head.uri.query().unwrap_or_default().to_owned();
        let token =
            head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let admitted = self.state.tokens.is_empty() || token.is_some_and(|token| self.knows(token));
        let open = matches!(path.as_str(), "/healthz" | "/readyz");
        if !open && !admitted {
            return unauthorized();
        }
        let response = match path.as_str() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            "/config" => json(&self.state.config),
            "/upstreams" => json(&self.upstreams()),
            "/status" => json(&self.status()),
            "/explain" => self.explain(&query).await,
            _ => {
                return text(
                    StatusCode::NOT_FOUND,
                    "not found; try /healthz /readyz /metrics /config /upstreams /status /explain\n",
                );
            }
        };
        match method {
            Method::GET => response,
            Method::HEAD => without_body(response),
            _ => not_allowed(),
        }
    }
}

impl App {
    /// Compares with every token in the same time, whichever it is and wherever they differ.
    fn knows(&self, token: &str) -> bool {
        self.state.tokens.iter().fold(false, |known, other| known | same(token.as_bytes(), other.as_bytes()))
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
        self.state.current.load().upstreams.iter().map(|upstream| upstream.status()).collect()
    }

    /// What `tollgate explain` says, of the configuration that runs and with the health of its upstreams.
    async fn explain(&self, query: &str) -> Response<Vec<u8>> {
        let snapshot = self.state.current.load_full();
        let told = match Question::from_query(query) {
            Ok(question) => explain(&snapshot, &self.state.sources, &question).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(mut told) => {
                told.mask(|text| self.state.loaded.mask(text));
                json(&told)
            }
            Err(error) => text(StatusCode::BAD_REQUEST, &format!("{error}\n")),
        }
    }

    fn status(&self) -> Status {
        let state = &self.state;
        let snapshot = state.current.load();
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
            tasks: state.supervisor.tasks(),
            task_failures: state.supervisor.failures(),
            log_dropped: state.log.as_ref().map_or(0, |log| log.dropped()),
            upstreams: self.upstreams(),
        }
    }

    fn metrics(&self) -> Response<Vec<u8>> {
        let mut shown = self.shown.lock();
        for upstream in &self.state.current.load().upstreams {
            self.show_upstream(upstream, &mut shown);
        }
        drop(shown);
        let body = self.state.metrics.render(|metrics| {
            metrics.log_dropped(self.state.log.as_ref().map_or(0, |log| log.dropped()));
            self.show_access(metrics);
        });
        typed(StatusCode::OK, METRICS_TYPE, body)
    }

    /// Copies in what identity and limits know of themselves.
    fn show_access(&self, metrics: &crate::observe::metrics::Metrics) {
        let snapshot = self.state.current.load();
        metrics.limit_keys(self.state.memory.keys() as u64, self.state.memory.evicted());
        metrics.certificates(&certificates(&snapshot.listeners));
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
        let metrics = self.state.metrics.upstream(name);
        let targets = upstream.targets();
        let labels: Vec<String> = targets.iter().map(|target| target.label().to_string()).collect();
        for (target, label) in targets.iter().zip(&labels) {
            metrics.target_up(label).set(i64::from(target.is_healthy()));
        }
        let before = shown.targets.insert(name.to_owned(), labels.clone()).unwrap_or_default();
        before.iter().filter(|label| !labels.contains(label)).for_each(|gone| metrics.forget_target(gone));
        let failures = shown.dns_failures.entry(name.to_owned()).or_default();
        (*failures..upstream.dns_failures()).for_each(|_| metrics.dns_failure());
        *failures = upstream.dns_failures();
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

fn not_allowed() -> Response<Vec<u8>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
    response
}
