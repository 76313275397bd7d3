//! The running process: sockets, accept loops, signals, drain.
//!
//! The engine's own `Server` is not used. It cannot tell a listener that a port is taken, keeps one runtime for each
//! service, and stops by sleeping out its whole grace period; its `HttpProxy` is made for custom accept loops like these.

mod accept;
mod connections;
mod drain;
mod http1;
mod http2;
mod predecessor;
mod privileges;
mod seats;
mod signals;
mod sockets;
mod succession;
pub mod systemd;
pub mod watchdog;
mod wire;

pub use predecessor::Predecessor;

use crate::admin;
use crate::cache::Store;
use crate::gateway::Gateway;
use crate::observe::access_log::AccessLog;
use crate::observe::panics;
use crate::prepare::Prepared;
use crate::reload::{FileWatch, Live, Running, SUCCESSOR_TIME, Succession, WARM_UP, Waning, Wanted, warm_up};
use crate::snapshot::{ProcessSettings, Shared};
use crate::store::handover::import;
use crate::store::keeper::Keeper;
use crate::store::memory::now;
use crate::tasks::Supervisor;
use accept::{Doors, Listening};
use connections::Connections;
use drain::Drain;
use pingora::apps::HttpServerOptions;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use signals::{End, Signals, Told};
use sockets::{Legacy, Sockets};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use succession::{Heritage, Successor};
use systemd::{Activated, Notify};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use watchdog::Watchdog;

/// How long background tasks may take to end when the process does.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long the admin listener may take to finish its answers: whoever asked for an upgrade is told how it went.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What systemd waits longer than the drain's deadlines before it kills.
const SPARE: Duration = Duration::from_secs(5);

/// Idle connections kept to all upstreams together, on each thread.
const IDLE_CONNECTIONS: usize = 1024;

/// Tries the engine may make; the gateway decides on each.
const ENGINE_TRIES: usize = 4;

/// Everything that is needed to run.
pub struct Start {
    /// The file of the configuration.
    pub path: PathBuf,
    /// Whether it is read again whenever it changes.
    pub watch: bool,
    /// The configuration, read and built without an error.
    pub prepared: Prepared,
    /// The process to take over from.
    pub predecessor: Option<Predecessor>,
    /// What a successor is started with.
    pub arguments: Vec<std::ffi::OsString>,
}

/// Runs until it is told to stop, or until another process has taken over. Gives the number of requests' connections that
/// were cut at the deadline.
///
/// # Errors
/// What keeps the gateway from starting, in a sentence for the operator.
pub fn run(start: Start) -> Result<usize, String> {
    let predecessor = start.predecessor.as_ref().and_then(Predecessor::second);
    let result = start_and_stay(start);
    if let (Err(why), Some(predecessor)) = (&result, predecessor) {
        predecessor.refuse(why);
    }
    result
}

fn start_and_stay(start: Start) -> Result<usize, String> {
    panics::watch();
    let Start { path, watch, prepared, mut predecessor, arguments } = start;
    let Prepared { loaded: Some(loaded), snapshot: Some(snapshot), shared: Some(shared), sources, .. } =
        prepared
    else {
        return Err("there is no configuration".to_owned());
    };
    // Before anything else can be put in its place.
    let binary = std::env::current_exe().map_err(|error| format!("the own binary is not found: {error}"))?;
    let live = Live::new(loaded, sources);
    let settings = live.settings.clone();
    let inherited = predecessor.as_mut().map(Predecessor::take_sockets).unwrap_or_default();
    let sockets = Sockets::open(&snapshot, &settings.admin, inherited, Activated::from_env())?;
    let socket_file = sockets.admin.as_ref().and_then(admin::Socket::path);
    privileges::raise_file_limit();
    // The admin socket goes to the user too; the log is opened by whom it will be reopened by. Both before any thread.
    privileges::become_user(settings.user.as_deref(), socket_file.as_deref())?;
    let log = settings.access_log.clone().map(AccessLog::open).transpose();
    let log = log.map_err(|error| format!("the access log cannot be opened: {error}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads)
        .thread_name("tollgate")
        .enable_all()
        .build()
        .map_err(|error| format!("threads cannot be started: {error}"))?;
    let (successors, wanted) = mpsc::channel(1);
    let supervisor = Arc::new(Supervisor::new(runtime.handle().clone()));
    let running = Running::new(path, (snapshot, live), shared, supervisor, successors);
    let running = Arc::new(running);
    let process =
        Process { running, log, binary, arguments, watch, predecessor, wanted, notify: Notify::from_env() };
    let left = process.serve(&runtime, sockets);
    if let Ok(Left { succeeded: false, .. }) = &left
        && let Some(path) = socket_file
        && let Err(error) = std::fs::remove_file(&path)
    {
        log::debug!("{} stays behind: {error}", path.display());
    }
    runtime.shutdown_timeout(Duration::from_millis(100));
    left.map(|left| left.cut)
}

/// How a process ended.
struct Left {
    /// Connections cut at the deadline.
    cut: usize,
    /// Whether another process serves now.
    succeeded: bool,
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
    running: Arc<Running>,
    log: Option<Arc<AccessLog>>,
    binary: PathBuf,
    arguments: Vec<std::ffi::OsString>,
    watch: bool,
    predecessor: Option<Predecessor>,
    wanted: mpsc::Receiver<Succession>,
    notify: Notify,
}

/// What ends serving.
enum Leaving {
    Told(End),
    Succeeded(Successor),
}

impl Process {
    fn serve(mut self, runtime: &Runtime, sockets: Sockets) -> Result<Left, String> {
        runtime.block_on(async move {
            let mut signals =
                Signals::new().map_err(|error| format!("signals cannot be received: {error}"))?;
            sockets.announce();
            let Sockets { listening, admin, legacy } = sockets;
            let (running, log) = (self.running.clone(), self.log.clone());
            let state = self.state();
            let snapshot = running.current.load_full();
            // Requests for a successor come over it, so a process that takes over serves it only when it has.
            let (admin, mut early) = if self.predecessor.is_some() { (None, admin) } else { (admin, None) };
            let (succeeded, is_succeeded) = watch::channel(false);
            self.serve_admin(admin, &state, is_succeeded.clone())?;
            running.adopt(&snapshot, None);
            let told = tokio::select! {
                () = warm_up(&snapshot, WARM_UP) => None,
                end = signals.end(log.as_deref()) => Some(end),
            };
            // Held on to, it would live as long as the process.
            drop(snapshot);
            let house = self.house(&running)?;
            let leaving = match told {
                Some(end) => Leaving::Told(end),
                None => {
                    let succeeds = self.predecessor.is_some();
                    let waning = self.begin(&house, listening).await?;
                    self.serve_admin(early.take(), &state, is_succeeded)?;
                    state.waning.store(waning.map(Arc::new));
                    state.ready.store(true, Ordering::Release);
                    let line = announce(&running);
                    // The process before speaks for a successor until it is the main one.
                    if !succeeds {
                        self.notify.ready();
                        self.notify.status(&line);
                    }
                    self.stay(&house, legacy, &mut signals).await
                }
            };
            state.draining.store(true, Ordering::Release);
            let (end, mut successor) = match leaving {
                Leaving::Told(end) => (end, None),
                Leaving::Succeeded(successor) => (End::Graceful, Some(successor)),
            };
            succeeded.send_replace(successor.is_some());
            let times = running.live.load().settings.drain;
            let (streams, closing) = (&house.gateway.streams, &house.gateway.closing);
            let drain = Drain { times, connections: &house.connections, streams, closing };
            if successor.is_none() {
                self.notify.stopping();
                self.notify.extend(times.lame_duck + times.requests.max(times.streams) + SPARE);
            }
            if successor.is_none() && end == End::Graceful {
                drain.lame_duck(&mut signals, log.as_deref()).await;
            }
            house.close().await;
            let cut = match end {
                End::Fast => house.connections.count(),
                End::Graceful => drain.finish(&mut signals, log.as_deref(), successor.as_mut()).await,
            };
            log::debug!("connections are closed");
            // A look-up or probe that is under way may take its time; nothing of it is needed any more.
            drop(tokio::time::timeout(LAST_WORDS, running.supervisor.stop()).await);
            log::debug!("tasks have ended");
            write_last(running.quotas.get().cloned(), running.shared.cache.clone(), log).await;
            drop(tokio::time::timeout(LAST_ANSWERS, state.answering.write()).await);
            log::debug!("stopped");
            Ok(Left { cut, succeeded: successor.is_some() })
        })
    }

    fn state(&self) -> Arc<admin::State> {
        Arc::new(admin::State {
            running: self.running.clone(),
            log: self.log.clone(),
            draining: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            waning: arc_swap::ArcSwapOption::empty(),
            started: Instant::now(),
            answering: tokio::sync::RwLock::default(),
        })
    }

    fn serve_admin(
        &self,
        socket: Option<admin::Socket>,
        state: &Arc<admin::State>,
        succeeded: watch::Receiver<bool>,
    ) -> Result<(), String> {
        let Some(socket) = socket else { return Ok(()) };
        let served = admin::serve(socket, state.clone(), succeeded);
        served.map_err(|error| format!("the admin listener cannot be used: {error}"))
    }

    fn house(&self, running: &Running) -> Result<House, String> {
        let settings = &running.live.load().settings;
        let gateway = Gateway::new(running.current.clone(), running.shared.metrics.clone(), self.log.clone());
        let (stop, stopping) = watch::channel(false);
        let connections = Connections::default();
        let doors = Arc::new(Doors::new(
            (gateway.clone(), proxy(gateway.clone(), settings.threads)),
            running.current.clone(),
            running.shared.metrics.clone(),
            connections.clone(),
            stopping,
        ));
        Ok(House { gateway, doors, connections, stop })
    }

    /// From here on requests are served.
    async fn begin(&mut self, house: &House, listening: Vec<Listening>) -> Result<Option<Waning>, String> {
        let running = &self.running;
        let mut predecessor = self.predecessor.take();
        if let Some(before) = predecessor.take() {
            predecessor = Some(inherit(before, running).await?);
        }
        let settings = running.live.load().settings.clone();
        if let Some(keeper) = open_quotas(&settings, &running.shared)? {
            drop(running.quotas.set(keeper));
        }
        let (cache, disk) = (running.shared.cache.clone(), running.live.load().loaded.document.cache.disk());
        spawn_blocking(move || cache.set_disk(disk)).await.map_err(|error| error.to_string())?;
        running.adopt(&running.current.load(), None);
        let addresses = listening.iter().map(|one| one.address).collect();
        let (probes, stopping) = (house.doors.probes.clone(), house.stop.subscribe());
        let watchdog = Watchdog::new(self.notify.clone(), probes, addresses, stopping);
        house.doors.open(listening).map_err(|error| format!("a listener cannot be used: {error}"))?;
        drop(watchdog.map(|watchdog| tokio::spawn(watchdog.feed())));
        if self.watch {
            running.watch(Arc::new(FileWatch(running.clone())));
        }
        match predecessor {
            Some(before) => {
                let waning = spawn_blocking(move || before.serving()).await;
                waning.map_err(|error| error.to_string())?.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Serves until it is told to stop or somebody else does.
    async fn stay(&mut self, house: &House, legacy: Legacy, signals: &mut Signals) -> Leaving {
        let heritage = Heritage {
            binary: self.binary.clone(),
            arguments: self.arguments.clone(),
            sockets: legacy,
            memory: self.running.shared.memory.clone(),
            tickets: self.running.shared.tickets.clone(),
            current: self.running.current.clone(),
            quotas: self.running.quotas.get().cloned(),
            cache: self.running.shared.cache.clone(),
        };
        let mut renewals = self.running.renewals();
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::End(end) => return Leaving::Told(end),
                    Told::Reopen => if let Some(log) = &self.log { log.reopen() },
                    Told::Reload => drop(tokio::spawn(reload(self.running.clone(), self.notify.clone()))),
                    Told::Upgrade => drop(tokio::spawn(upgrade(self.running.clone()))),
                },
                Ok(()) = renewals.changed() => {
                    house.doors.renew();
                    self.notify.status(&state_line(&self.running));
                }
                Some(Succession { binary, within, ended }) = self.wanted.recv() => {
                    let attempt = heritage.pass_on(binary, within, &*house.doors);
                    let result = tokio::select! {
                        result = attempt => result,
                        end = signals.end(self.log.as_deref()) => return Leaving::Told(end),
                    };
                    match result {
                        Ok(successor) => {
                            log::info!("upgrade: process {} (tollgate {}) serves now", successor.pid, successor.version);
                            let line = format!("tollgate {} serves since an upgrade, pid {}", successor.version, successor.pid);
                            self.notify.main_pid(successor.pid, &line);
                            drop(ended.send(Ok(successor.pid)));
                            return Leaving::Succeeded(successor);
                        }
                        Err(why) => {
                            log::error!("upgrade aborted: {why}; this process goes on");
                            drop(ended.send(Err(why)));
                        }
                    }
                }
            }
        }
    }
}

/// Takes over what the process before has counted, the sessions of its clients and the shares of its splits.
async fn inherit(mut before: Predecessor, running: &Running) -> Result<Predecessor, String> {
    let snapshot = running.current.load_full();
    let (memory, tickets) = (running.shared.memory.clone(), running.shared.tickets.clone());
    let taken = spawn_blocking(move || {
        let estate = before.ready(&snapshot.hash)?;
        if let Err(why) = tickets.import(&estate.tickets) {
            log::warn!("clients cannot go on with their TLS sessions: {why}");
        }
        match import(&memory, &estate.counters, now()) {
            Some(counters) => log::info!("took over {counters} counters"),
            None => log::error!("not all counters of the process before could be read"),
        }
        snapshot.take_over_splits(&estate.splits);
        Ok(before)
    });
    taken.await.map_err(|error| error.to_string())?
}

/// Where connections are let in and served.
struct House {
    gateway: Gateway,
    doors: Arc<Doors>,
    connections: Connections,
    stop: watch::Sender<bool>,
}

impl House {
    /// Lets nobody in any more and makes every answer the last on its connection.
    async fn close(&self) {
        self.gateway.leaving.store(true, Ordering::Relaxed);
        // A receiver that is gone has nothing to stop.
        let _ = self.stop.send(true);
        pingora::apps::HttpServerApp::http_cleanup(&*self.doors.proxy).await;
    }
}

async fn reload(running: Arc<Running>, notify: Notify) {
    notify.reloading();
    // How it ends is told where it ends.
    drop(running.reload(Wanted::default()).await);
    notify.ready();
}

async fn upgrade(running: Arc<Running>) {
    if let Err(why) = running.succeed(None, SUCCESSOR_TIME).await {
        log::debug!("upgrade: {why}");
    }
}

/// Writes down what must not be lost.
async fn write_last(quotas: Option<Arc<Keeper>>, cache: Arc<Store>, log: Option<Arc<AccessLog>>) {
    let written = tokio::task::spawn_blocking(move || {
        if let Some(Err(error)) = quotas.map(|quotas| quotas.release()) {
            log::error!("quotas could not be written: {error}");
        }
        cache.release_disk();
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

/// The one start-up line.
fn announce(running: &Running) -> String {
    let line = state_line(running);
    crate::observe::log::say(format_args!("{line}"));
    line
}

fn state_line(running: &Running) -> String {
    format!(
        "tollgate {} ready: {}, pid {}",
        env!("CARGO_PKG_VERSION"),
        running.current.load().describe(),
        std::process::id(),
    )
}

#[cfg(test)]
mod tests;
