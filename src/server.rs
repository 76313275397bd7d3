//! The running process: sockets, accept loops, signals, drain.
//!
//! The engine's own `Server` is not used. It cannot tell a listener that a port is taken, keeps one runtime for each
//! service, and stops by sleeping out its whole grace period; its `HttpProxy` is made for custom accept loops like these.

mod accept;
mod connections;
mod http1;
mod privileges;
mod signals;

use crate::admin;
use crate::config::document::AdminBind;
use crate::config::{Loaded, effective};
use crate::gateway::Gateway;
use crate::listen::bind::{bind_tcp, bind_unix};
use crate::observe::access_log::AccessLog;
use crate::snapshot::{ProcessSettings, Shared, Snapshot};
use crate::store::keeper::Keeper;
use crate::tasks::{Supervisor, Task};
use crate::value::Sources;
use accept::{Doors, Listening};
use arc_swap::ArcSwap;
use connections::Connections;
use pingora::apps::HttpServerOptions;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How long the start waits for the first health checks and name look-ups.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long background tasks may take to end when the process does.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Idle connections kept to all upstreams together, on each thread.
const IDLE_CONNECTIONS: usize = 1024;

/// Tries the engine may make; the gateway decides on each.
const ENGINE_TRIES: usize = 4;

/// Everything that is needed to run.
pub struct Start {
    /// The configuration as read.
    pub loaded: Loaded,
    /// The texts it came from.
    pub sources: Sources,
    /// The configuration ready to run.
    pub snapshot: Snapshot,
    /// What outlives it.
    pub shared: Shared,
}

/// Runs until it is told to stop. Gives the number of requests' connections that were cut at the deadline.
///
/// # Errors
/// What keeps the gateway from starting, in a sentence for the operator.
pub fn run(start: Start) -> Result<usize, String> {
    let settings = ProcessSettings::new(&start.loaded.document);
    let listening = bind_all(&start.snapshot)?;
    let admin_socket = bind_admin(&settings.admin)?;
    privileges::raise_file_limit();
    // The admin socket goes to the user too; the log is opened by whom it will be reopened by. Both before any thread.
    privileges::become_user(
        settings.user.as_deref(),
        admin_socket.as_ref().and_then(admin::Socket::path).as_deref(),
    )?;
    let log = settings.access_log.clone().map(AccessLog::open).transpose();
    let log = log.map_err(|error| format!("the access log cannot be opened: {error}"))?;
    let quotas = open_quotas(&settings, &start.shared)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads)
        .thread_name("tollgate")
        .enable_all()
        .build()
        .map_err(|error| format!("threads cannot be started: {error}"))?;
    let socket_file = admin_socket.as_ref().and_then(admin::Socket::path);
    let process = Process { settings, log, quotas, start };
    let cut = process.serve(&runtime, listening, admin_socket);
    if let Some(path) = socket_file
        && let Err(error) = std::fs::remove_file(&path)
    {
        log::debug!("{} stays behind: {error}", path.display());
    }
    runtime.shutdown_timeout(Duration::from_millis(100));
    cut
}

fn bind_all(snapshot: &Snapshot) -> Result<Vec<Listening>, String> {
    let mut listening = Vec::new();
    for (number, listener) in (0..).zip(&snapshot.listeners) {
        for address in &listener.binds {
            let socket =
                bind_tcp(*address).map_err(|error| format!("listener `{}`: {error}", listener.name))?;
            let address = socket.local_addr().unwrap_or(*address);
            listening.push(Listening { number, name: listener.name.clone(), address, socket });
        }
    }
    Ok(listening)
}

fn bind_admin(admin: &AdminBind) -> Result<Option<admin::Socket>, String> {
    let named = |error: io::Error| format!("admin listener: {error}");
    match admin {
        AdminBind::Off => Ok(None),
        AdminBind::Tcp(address) => {
            bind_tcp(*address).map(|socket| Some(admin::Socket::Tcp(socket))).map_err(named)
        }
        AdminBind::Unix(path) => match bind_unix(path) {
            Ok(socket) => Ok(Some(admin::Socket::Unix(socket, path.clone()))),
            // The default place exists where tollgate is installed; nobody asked for it elsewhere.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && path.as_os_str() == crate::snapshot::DEFAULT_ADMIN =>
            {
                log::warn!("no admin listener: {error}");
                Ok(None)
            }
            Err(error) => Err(named(error)),
        },
    }
}

/// The file that quotas are kept in over a restart.
fn open_quotas(settings: &ProcessSettings, shared: &Shared) -> Result<Option<Arc<Keeper>>, String> {
    let Some((path, flush)) = &settings.quotas else { return Ok(None) };
    let opened = Keeper::open(path, *flush, shared.memory.clone());
    opened.map(|keeper| Some(Arc::new(keeper))).map_err(|error| {
        format!("quotas cannot be kept: {error}; `stores: {{ local: {{ quotas: /path }} }}` names another file, `none` keeps none")
    })
}

struct Process {
    settings: ProcessSettings,
    log: Option<Arc<AccessLog>>,
    quotas: Option<Arc<Keeper>>,
    start: Start,
}

impl Process {
    fn serve(
        self,
        runtime: &Runtime,
        listening: Vec<Listening>,
        admin_socket: Option<admin::Socket>,
    ) -> Result<usize, String> {
        let Start { loaded, sources, snapshot, shared } = self.start;
        let supervisor = Arc::new(Supervisor::new(runtime.handle().clone()));
        let config = effective::json(&loaded, &sources);
        shared.metrics.config_loaded(&snapshot.hash, env!("CARGO_PKG_VERSION"));
        shared.metrics.limit_series(loaded.document.telemetry.metrics.max_series.unwrap_or(20_000) as usize);
        let current = Arc::new(ArcSwap::from_pointee(snapshot));
        let state = Arc::new(admin::State {
            current: current.clone(),
            loaded,
            sources,
            config,
            metrics: shared.metrics.clone(),
            log: self.log.clone(),
            supervisor: supervisor.clone(),
            draining: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            memory: shared.memory.clone(),
            started: Instant::now(),
            tokens: self.settings.tokens.clone(),
        });
        let gateway = Gateway::new(current.clone(), shared.metrics.clone(), self.log.clone());
        let leaving = gateway.leaving.clone();
        let drain = self.settings.drain;
        let log = self.log.clone();
        runtime.block_on(async move {
            let mut signals =
                signals::Signals::new().map_err(|error| format!("signals cannot be received: {error}"))?;
            let proxy = Arc::new(proxy(gateway.clone(), self.settings.threads));
            let (stop, stopping) = watch::channel(false);
            let connections = Connections::default();
            announce_addresses(&listening, admin_socket.as_ref());
            if let Some(socket) = admin_socket {
                admin::serve(socket, state.clone())
                    .map_err(|error| format!("the admin listener cannot be used: {error}"))?;
            }
            let snapshot = current.load_full();
            supervisor.adopt(&wanted(&snapshot, &shared, self.quotas.as_ref()));
            let told = tokio::select! {
                () = warm_up(&snapshot) => None,
                end = signals.next(log.as_deref()) => Some(end),
            };
            let end = match told {
                Some(end) => end,
                None => {
                    let doors = Doors {
                        gateway: Arc::new(gateway),
                        proxy: proxy.clone(),
                        current: current.clone(),
                        metrics: shared.metrics,
                        connections: connections.clone(),
                        stopping,
                    };
                    doors.open(listening).map_err(|error| format!("a listener cannot be used: {error}"))?;
                    state.ready.store(true, Ordering::Release);
                    announce(&current.load());
                    signals.next(log.as_deref()).await
                }
            };
            state.draining.store(true, Ordering::Release);
            leaving.store(true, Ordering::Relaxed);
            // A receiver that is gone has nothing to stop.
            let _ = stop.send(true);
            pingora::apps::HttpServerApp::http_cleanup(&*proxy).await;
            let cut = match end {
                signals::End::Fast => connections.count(),
                signals::End::Graceful => {
                    drain_until(&connections, drain, &mut signals, log.as_deref()).await
                }
            };
            log::debug!("connections are closed");
            // A look-up or probe that is under way may take its time; nothing of it is needed any more.
            drop(tokio::time::timeout(LAST_WORDS, supervisor.stop()).await);
            log::debug!("tasks have ended");
            write_last(self.quotas, log).await;
            log::debug!("stopped");
            Ok(cut)
        })
    }
}

/// Writes down what must not be lost.
async fn write_last(quotas: Option<Arc<Keeper>>, log: Option<Arc<AccessLog>>) {
    let written = tokio::task::spawn_blocking(move || {
        if let Some(Err(error)) = quotas.map(|quotas| quotas.release()) {
            log::error!("quotas could not be written: {error}");
        }
        if log.is_some_and(|log| !log.flush(Duration::from_secs(2))) {
            log::warn!("not all of the access log could be written");
        }
    });
    if let Err(error) = written.await {
        log::error!("the last words were lost: {error}");
    }
}

fn proxy(gateway: Gateway, threads: usize) -> HttpProxy<Gateway> {
    let conf = ServerConf {
        threads,
        max_retries: ENGINE_TRIES,
        upstream_keepalive_pool_size: IDLE_CONNECTIONS,
        ..ServerConf::default()
    };
    let mut proxy = HttpProxy::new(gateway, Arc::new(conf));
    // CONNECT is refused by ourselves, so that it gets an answer and a line in the log like everything else.
    let mut options = HttpServerOptions::default();
    options.allow_connect_method_proxying = true;
    proxy.server_options = Some(options);
    proxy.handle_init_modules();
    proxy
}

/// Everything that runs in the background: what the snapshot wants, and what outlives it.
fn wanted(snapshot: &Snapshot, shared: &Shared, quotas: Option<&Arc<Keeper>>) -> Vec<Arc<dyn Task>> {
    let mut tasks = snapshot.tasks();
    tasks.push(shared.sweeper.clone());
    tasks.extend(quotas.map(|keeper| keeper.clone() as Arc<dyn Task>));
    tasks
}

/// Waits for the first health checks and name look-ups of all upstreams and the keys of all issuers, but not for long.
pub async fn warm_up(snapshot: &Snapshot) {
    let deadline = Instant::now() + WARM_UP;
    for upstream in &snapshot.upstreams {
        upstream.warm(deadline.saturating_duration_since(Instant::now())).await;
    }
    for named in &snapshot.providers {
        if !named.provider.warm(deadline.saturating_duration_since(Instant::now())).await {
            log::warn!("provider `{}` cannot check credentials yet", named.name);
        }
    }
    if let Some((_, redis)) = &snapshot.redis
        && !redis.ready(deadline.saturating_duration_since(Instant::now())).await
    {
        log::warn!("Redis does not answer yet; limits are decided as `on_failure` says");
    }
}

async fn drain_until(
    connections: &Connections,
    drain: Duration,
    signals: &mut signals::Signals,
    log: Option<&AccessLog>,
) -> usize {
    log::info!("stopping: {} connections open, at most {drain:?} to finish", connections.count());
    tokio::select! {
        () = connections.none() => {}
        () = tokio::time::sleep(drain) => {}
        _ = signals.next(log) => {}
    }
    connections.count()
}

/// The ports that were free where port 0 was asked for, so that whoever started us can find them.
fn announce_addresses(listening: &[Listening], admin: Option<&admin::Socket>) {
    for Listening { name, address, .. } in listening {
        crate::observe::log::say(format_args!("listening {name} {address}"));
    }
    if let Some(admin) = admin {
        crate::observe::log::say(format_args!("listening admin {admin}"));
    }
}

/// The one start-up line.
fn announce(snapshot: &Snapshot) {
    let healthy = snapshot.upstreams.iter().filter(|upstream| upstream.is_healthy()).count();
    let Snapshot { listeners, apis, routes, upstreams, hash, .. } = snapshot;
    crate::observe::log::say(format_args!(
        "tollgate {} ready: {}, {}, {}, {} ({healthy} healthy), config {}, pid {}",
        env!("CARGO_PKG_VERSION"),
        counted(listeners.len(), "listener"),
        counted(*apis, "API"),
        counted(routes.len(), "route"),
        counted(upstreams.len(), "upstream"),
        hash.get(..6).unwrap_or(hash),
        std::process::id(),
    ));
}

/// A number with its thing: `1 route`, `2 routes`.
pub fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
