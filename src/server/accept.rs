//! Accept loops: from a listening socket to the engine.

use super::connections::{Connections, Guard};
use super::http1::Client;
use super::privileges::most_connections;
use super::seats::{Seated, Seats};
use super::succession::Doorkeeper;
use super::watchdog::Probes;
use crate::gateway::Gateway;
use crate::listen::connection::{Connection, Facts, LAST_CHANCE, Socket};
use crate::listen::frames::Excess;
use crate::listen::proxy_protocol::{self, Told};
use crate::listen::{Limits, Listener};
use crate::observe::metrics::{Metrics, ProxyFailure};
use crate::snapshot::Snapshot;
use crate::value::Name;
use arc_swap::ArcSwap;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use prometheus::IntCounter;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

/// How long accepting pauses when the process has no file descriptor left.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// How many connections are accepted before others have their turn.
const AT_ONCE: u32 = 4;

/// A bound socket.
pub(super) struct Listening {
    pub number: u16,
    pub name: Name,
    pub address: SocketAddr,
    pub socket: std::net::TcpListener,
}

/// What all accept loops share.
pub(super) struct Doors {
    pub proxy: Arc<HttpProxy<Gateway>>,
    gateway: Arc<Gateway>,
    current: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Metrics>,
    connections: Connections,
    seats: Seats,
    /// The watchdog's connections.
    pub probes: Probes,
    stopping: ShutdownWatch,
    /// What is behind each listener, by its number; made anew with every configuration.
    apps: ArcSwap<Vec<Arc<App>>>,
    open: watch::Sender<bool>,
}

impl Doors {
    /// Doors of all listeners, through which nobody comes yet.
    pub(super) fn new(
        (gateway, proxy): (Gateway, HttpProxy<Gateway>),
        current: Arc<ArcSwap<Snapshot>>,
        metrics: Arc<Metrics>,
        connections: Connections,
        stopping: ShutdownWatch,
    ) -> Doors {
        let (gateway, proxy) = (Arc::new(gateway), Arc::new(proxy));
        let (apps, open, probes) = (ArcSwap::default(), watch::channel(true).0, Probes::default());
        let seats = Seats::default();
        let doors =
            Doors { proxy, gateway, current, metrics, connections, seats, probes, stopping, apps, open };
        doors.renew();
        doors
    }

    /// Lets new connections have what the current configuration says of their listener.
    pub(super) fn renew(&self) {
        let snapshot = self.current.load();
        self.apps.store(Arc::new(snapshot.listeners.iter().map(|listener| self.app(listener)).collect()));
    }

    /// Starts one accept loop for each socket. Must be called on the runtime.
    pub(super) fn open(self: &Arc<Self>, listening: Vec<Listening>) -> io::Result<()> {
        for one in listening {
            let socket = TcpListener::from_std(one.socket)?;
            let gauge = self.metrics.connections(one.name.as_str());
            let door = Door { number: one.number, gauge, address: one.address, open: self.open.subscribe() };
            tokio::spawn(door.accept(self.clone(), socket));
        }
        Ok(())
    }

    fn app(&self, listener: &Listener) -> Arc<App> {
        let turned_away = |why| self.metrics.refused_connections(listener.name.as_str(), why);
        Arc::new(App {
            limits: within_files(listener.limits),
            turned_away: (turned_away("connections"), turned_away("per_ip")),
            made_room: turned_away("waiting"),
            cut_off: CutOff {
                resets: turned_away(Excess::Resets.limit()),
                frames: turned_away(Excess::Frames.limit()),
                malformed: turned_away("malformed"),
            },
            gateway: self.gateway.clone(),
            proxy: self.proxy.clone(),
            http1: listener.http1,
            h2c: listener.h2c,
        })
    }
}

impl Doorkeeper for Doors {
    fn close(&self) {
        self.open.send_replace(false);
    }

    fn open(&self) {
        self.open.send_replace(true);
    }
}

/// One listening socket.
struct Door {
    number: u16,
    gauge: prometheus::IntGauge,
    address: SocketAddr,
    open: watch::Receiver<bool>,
}

impl Door {
    async fn accept(mut self, doors: Arc<Doors>, socket: TcpListener) {
        let (mut stopping, mut turn) = (doors.stopping.clone(), 0);
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stopping.changed() => return,
                accepted = accept(&mut self.open, &socket) => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.enter(&doors, stream, peer),
                Err(error) => refused(&error).await,
            }
            turn += 1;
            if turn == AT_ONCE {
                turn = 0;
                yield_now().await;
            }
        }
    }

    fn enter(&self, doors: &Doors, stream: TcpStream, peer: SocketAddr) {
        let snapshot = doors.current.load();
        let number = usize::from(self.number);
        let Some(listener) = snapshot.listeners.get(number) else { return };
        let Some(app) = doors.apps.load().get(number).cloned() else { return };
        // Known before a byte is read, so that no request is asked what it is.
        let is_probe = doors.probes.holds(peer);
        if !is_probe && !self.has_room(doors, &app) {
            return app.turned_away.0.inc();
        }
        let mut newcomer = Newcomer {
            facts: Facts {
                listener: self.number,
                peer: Some(peer),
                local: Some(self.address).filter(|address| !address.ip().is_unspecified()),
                secure: false,
                tls: None,
                trusted: listener.trusted.contains(peer.ip()),
            },
            guard: doors.connections.open(self.gauge.clone()),
            seated: doors.seats.take(self.number),
            app,
            stopping: doors.stopping.clone(),
            is_probe,
        };
        let proxy = &listener.proxy_protocol;
        let is_proxied = proxy.as_ref().is_some_and(|proxy| proxy.from.contains(peer.ip()));
        if !is_proxied && !newcomer.is_let_in() {
            return newcomer.app.turned_away.1.inc();
        }
        match &listener.tls {
            // What comes before the first request is for strangers.
            _ if newcomer.is_probe => newcomer.serve(stream),
            None if !is_proxied => newcomer.serve(stream),
            _ => {
                let seat = newcomer.seated.seat.clone();
                let task = tokio::spawn(newcomer.introduce(stream, doors.current.load_full(), is_proxied));
                seat.is_served_by(task.abort_handle());
            }
        }
    }

    /// Whether one more may come in, which may cost others their place.
    fn has_room(&self, doors: &Doors, app: &App) -> bool {
        let open = usize::try_from(self.gauge.get()).unwrap_or_default();
        if open.saturating_sub(doors.seats.going()) < app.limits.connections {
            return true;
        }
        let left = doors.seats.make_room(self.number);
        app.made_room.inc_by(left as u64);
        left > 0
    }
}

/// A connection that has been accepted, with everything but its socket.
struct Newcomer {
    facts: Facts,
    guard: Guard,
    seated: Seated,
    app: Arc<App>,
    stopping: ShutdownWatch,
    is_probe: bool,
}

impl Newcomer {
    /// Counts it as its client's; `false` when that client has too many. Proxies and the watchdog may have any number.
    fn is_let_in(&mut self) -> bool {
        match self.facts.peer {
            Some(peer) if !self.facts.trusted && !self.is_probe => {
                self.guard.belongs_to(peer.ip(), self.app.limits.per_ip)
            }
            _ => true,
        }
    }

    /// Serves it after what comes before the first request. That keeps nobody else waiting, and has a deadline of its own.
    async fn introduce(mut self, stream: TcpStream, snapshot: Arc<Snapshot>, is_proxied: bool) {
        let mut stopping = self.stopping.clone();
        let socket = tokio::select! {
            biased;
            socket = self.greet(stream, &snapshot, is_proxied) => socket,
            () = overdue(&mut stopping) => None,
        };
        if let Some(socket) = socket {
            self.serve(socket);
        }
    }

    /// PROXY protocol and TLS, where there are any.
    async fn greet(
        &mut self,
        mut stream: TcpStream,
        snapshot: &Snapshot,
        is_proxied: bool,
    ) -> Option<Socket> {
        let listener = snapshot.listeners.get(usize::from(self.facts.listener))?;
        let deadline = Instant::now() + listener.limits.handshake;
        if is_proxied {
            self.hear_proxy(&mut stream, listener, deadline).await?;
            if !self.is_let_in() {
                self.app.turned_away.1.inc();
                return None;
            }
        }
        let Some(tls) = &listener.tls else { return Some(stream.into()) };
        let handshaken = tls.accept(stream, deadline).await?;
        self.facts.secure = true;
        self.facts.tls = Some(handshaken.secured);
        Some(handshaken.stream.into())
    }

    /// Takes over what the load balancer in front tells; `None` when that is not as it should be.
    async fn hear_proxy(
        &mut self,
        stream: &mut TcpStream,
        listener: &Listener,
        deadline: Instant,
    ) -> Option<()> {
        let told = timeout_at(deadline, proxy_protocol::read(stream)).await;
        match told.unwrap_or(Err(ProxyFailure::Timeout)) {
            Ok(Told::Nothing) => {}
            Ok(Told::Addresses { source, destination }) => {
                self.facts.peer = Some(source);
                self.facts.local = Some(destination);
                self.facts.trusted = listener.trusted.contains(source.ip());
            }
            Err(failure) => {
                if let Some(proxy) = &listener.proxy_protocol {
                    proxy.metrics.failed(failure);
                }
                return None;
            }
        }
        Some(())
    }

    /// A task of its own, so that what a handshake needs is not kept along with the connection.
    fn serve(self, socket: impl Into<Socket>) {
        let Limits { keepalive, send_idle, .. } = self.app.limits;
        let seat = self.seated.seat.clone();
        let guard = Box::new((self.guard, self.seated));
        let connection = Connection::new(socket, self.facts, keepalive, Some(guard));
        let connection = Box::new(connection.until(self.stopping.clone()).send_idle(send_idle));
        let client = Client::new(self.app, self.stopping, seat.clone());
        let task = match self.is_probe {
            false => tokio::spawn(client.serve(connection)),
            true => tokio::spawn(client.serve_probe(connection)),
        };
        seat.is_served_by(task.abort_handle());
    }
}

/// Accepts the next connection while the door is open. Cancel safe.
async fn accept(
    open: &mut watch::Receiver<bool>,
    socket: &TcpListener,
) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        if !*open.borrow_and_update() {
            // Whoever opens it is gone only when the process ends.
            let _ = open.wait_for(|open| *open).await;
        }
        tokio::select! {
            biased;
            _ = open.changed() => {}
            accepted = socket.accept() => return accepted,
        }
    }
}

/// Completes when the process leaves and whoever was accepted has had time enough to be heard.
async fn overdue(stopping: &mut ShutdownWatch) {
    // Nobody is left to stop us when this fails.
    if stopping.wait_for(|stopping| *stopping).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(LAST_CHANCE).await;
}

/// A client may be gone before it is accepted; without file descriptors there is nothing to do but wait.
async fn refused(error: &io::Error) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    ) {
        return;
    }
    log::error!("accepting a connection failed: {error}");
    tokio::time::sleep(OUT_OF_FILES).await;
}

/// The caps of connections, as far as there are files for them. One client shall not have all of those.
fn within_files(mut limits: Limits) -> Limits {
    let files = most_connections();
    limits.connections = limits.connections.min(files);
    limits.per_ip = limits.per_ip.min(files - files / 4);
    limits
}

/// What is behind one listener.
pub(super) struct App {
    pub(super) gateway: Arc<Gateway>,
    /// The engine's proxy.
    pub(super) proxy: Arc<HttpProxy<Gateway>>,
    pub(super) http1: bool,
    pub(super) h2c: bool,
    pub(super) limits: Limits,
    /// Counts connections beyond `limits.connections` and `limits.per_ip`.
    turned_away: (IntCounter, IntCounter),
    /// Counts connections that waited, and were ended to make room for others.
    made_room: IntCounter,
    pub(super) cut_off: CutOff,
}

/// Counts HTTP/2 connections that were ended for what the client did.
pub(super) struct CutOff {
    resets: IntCounter,
    frames: IntCounter,
    /// Too much that is no request.
    pub(super) malformed: IntCounter,
}

impl CutOff {
    pub(super) fn by(&self, excess: Excess) -> &IntCounter {
        match excess {
            Excess::Resets => &self.resets,
            Excess::Frames => &self.frames,
        }
    }
}
