//! One place requests go to, with everything that is known about it, and the [`Lease`] a request holds on it.

use super::breaker::Ticket;
use super::ewma::{PeakEwma, clock, clock_at};
use super::outlier::Record;
use super::pool::Pool;
use super::spec::{HealthSpec, HostRewrite};
use super::sticky::Mark;
use http::HeaderValue;
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Tells targets apart for as long as the process runs. An address that leaves and returns gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetId(u64);

impl TargetId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        TargetId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where a target listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// An IP address with its port.
    Inet(SocketAddr),
    /// A Unix domain socket.
    Unix(Arc<Path>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Inet(address) => write!(f, "{address}"),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One address that answers requests. It outlives changes of its upstream's membership and, when nothing about how it
/// is reached or checked has changed, reloads as well.
pub struct Target {
    id: TargetId,
    place: Place,
    name: Option<Arc<str>>,
    label: Arc<str>,
    peer: HttpPeer,
    host: Option<HeaderValue>,
    pool: Arc<Pool>,
    in_flight: AtomicU32,
    pub(super) ewma: PeakEwma,
    healthy: AtomicBool,
    checked: AtomicBool,
    health: Mutex<Health>,
    pub(super) record: Record,
    /// Since when it is there or there again, while it starts slowly.
    starting: Mutex<Option<Instant>>,
    mark: Option<Mark>,
}

/// What the checks have found so far.
#[derive(Clone, Debug)]
pub(super) struct Health {
    /// Why it is unhealthy, or empty.
    pub(super) reason: String,
    /// When it last changed.
    pub(super) since: SystemTime,
    /// Results in a row that speak against the present state.
    against: u32,
    /// Whether a check has ever succeeded.
    proven: bool,
}

impl Target {
    pub(super) fn new(
        place: Place,
        name: Option<Arc<str>>,
        peer: HttpPeer,
        host: Option<HeaderValue>,
        pool: Arc<Pool>,
        mark: Option<Mark>,
    ) -> Self {
        Target {
            id: TargetId::next(),
            label: place.to_string().into(),
            place,
            name,
            peer,
            host,
            pool,
            in_flight: AtomicU32::new(0),
            ewma: PeakEwma::default(),
            healthy: AtomicBool::new(true),
            checked: AtomicBool::new(false),
            health: Mutex::new(Health {
                reason: String::new(),
                since: SystemTime::now(),
                against: 0,
                proven: false,
            }),
            record: Record::default(),
            starting: Mutex::default(),
            mark,
        }
    }

    /// Its identity, for lists of targets already tried.
    pub fn id(&self) -> TargetId {
        self.id
    }

    /// Where it listens.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The host name it was found under, if it was.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// Its address as text, for logs and metrics: `10.0.0.1:3000` or `unix:/run/app.sock`.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The `Host` to send instead of the client's, if the upstream rewrites it.
    pub fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// The template of its peer for requests of our own: connect timeout, TLS, pool key are set; read and write timeouts are
    /// the caller's.
    pub fn peer(&self) -> &HttpPeer {
        &self.peer
    }

    /// Its connections for requests of clients.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether active checks let requests through. True until a check has found otherwise.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether it has been checked at least once.
    pub fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Relaxed)
    }

    /// Whether it is left alone because requests to it have failed.
    pub fn is_ejected(&self) -> bool {
        self.record.is_out()
    }

    /// `Set-Cookie` that keeps a client with it, where there is such a cookie.
    pub fn sticky_field(&self, tls: bool) -> Option<&HeaderValue> {
        self.mark.as_ref()?.field(tls)
    }

    /// What a cookie says that stands for it.
    pub fn sticky_id(&self) -> Option<u64> {
        self.mark.as_ref().map(|mark| mark.id)
    }

    /// Begins a slow start.
    pub(super) fn start_slowly(&self) {
        *self.starting.lock() = Some(Instant::now());
    }

    /// Since when it starts slowly, if it does.
    pub(super) fn starting(&self) -> Option<Instant> {
        *self.starting.lock()
    }

    /// Ends a slow start.
    pub(super) fn has_started(&self) {
        *self.starting.lock() = None;
    }

    /// Peak EWMA of the time to the first byte in milliseconds, once something has been measured.
    pub fn ewma_ms(&self) -> Option<f64> {
        self.ewma.micros(clock()).map(|micros| micros / 1000.0)
    }

    /// Whether one more request fits under `limit`; 0 is unlimited.
    pub(super) fn has_room(&self, limit: u32) -> bool {
        limit == 0 || self.in_flight() < limit
    }

    pub(super) fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// Takes the result of one check in and returns the new state if it has changed.
    ///
    /// The first check decides alone, and so does the first success ever: there is no record yet that would speak for
    /// the target, and none that it should have to make good.
    pub(super) fn judge(&self, result: Result<(), String>, spec: &HealthSpec) -> Option<bool> {
        let mut health = self.health.lock();
        let first = !self.checked.swap(true, Ordering::Relaxed);
        let (good, was) = (result.is_ok(), self.is_healthy());
        let fresh = if good { !health.proven } else { first };
        health.proven |= good;
        if let Err(reason) = &result {
            health.reason.clone_from(reason);
        }
        if good == was {
            health.against = 0;
            if good {
                health.reason.clear();
            }
            return None;
        }
        health.against += 1;
        if !fresh && health.against < if good { spec.up } else { spec.down } {
            return None;
        }
        health.against = 0;
        health.since = SystemTime::now();
        if good {
            health.reason.clear();
        }
        self.healthy.store(good, Ordering::Relaxed);
        if good {
            // What failed before it was found down says nothing about now.
            self.record.pardon(Instant::now());
            self.start_slowly();
        }
        Some(good)
    }

    /// Whether a check has ever succeeded.
    pub(super) fn is_proven(&self) -> bool {
        self.health.lock().proven
    }

    fn enter(self: &Arc<Self>, limit: u32) -> bool {
        enter(&self.in_flight, limit)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("id", &self.id.0).field("label", &self.label).finish_non_exhaustive()
    }
}

/// Adds one unless that would exceed `limit`; 0 is unlimited.
pub(super) fn enter(count: &AtomicU32, limit: u32) -> bool {
    if limit == 0 {
        count.fetch_add(1, Ordering::Relaxed);
        return true;
    }
    let admit = |now: u32| (now < limit).then_some(now + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_ok()
}

/// What `host:` makes of a target. `None` keeps the client's.
pub(super) fn host_header(
    rewrite: &HostRewrite,
    place: &Place,
    name: Option<&str>,
    tls: bool,
) -> Result<Option<HeaderValue>, String> {
    let text = match rewrite {
        HostRewrite::Client => return Ok(None),
        HostRewrite::Literal(text) => text.to_string(),
        HostRewrite::Target => authority(place, name, tls),
    };
    let refuse = |_| format!("`{text}` cannot be a Host header");
    HeaderValue::from_str(&text).map(Some).map_err(refuse)
}

/// The target's own name or address, with its port unless that is the scheme's default. A socket is `localhost`.
pub(super) fn authority(place: &Place, name: Option<&str>, tls: bool) -> String {
    let default = if tls { 443 } else { 80 };
    match (place, name) {
        (Place::Unix(_), _) => "localhost".to_owned(),
        (Place::Inet(address), Some(name)) if address.port() == default => name.to_owned(),
        (Place::Inet(address), Some(name)) => format!("{name}:{}", address.port()),
        (Place::Inet(SocketAddr::V6(address)), None) if address.port() == default => {
            format!("[{}]", address.ip())
        }
        (Place::Inet(SocketAddr::V4(address)), None) if address.port() == default => address.ip().to_string(),
        (Place::Inet(address), None) => address.to_string(),
    }
}

/// The requests in flight to a whole upstream, counted only when that is limited.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<AtomicU32>);

impl Gate {
    pub(super) fn new() -> Self {
        Gate(Arc::default())
    }

    /// One more, unless `limit` are in already.
    pub(super) fn enter(&self, limit: u32) -> Option<Pass> {
        enter(&self.0, limit).then(|| Pass(Arc::clone(&self.0)))
    }
}

/// One place behind a [`Gate`].
#[derive(Debug)]
pub(super) struct Pass(Arc<AtomicU32>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's hold on a target. Dropping it gives the place back, also after a panic or a cut connection.
#[derive(Debug)]
#[must_use]
pub struct Lease {
    target: Arc<Target>,
    _pass: Option<Pass>,
    ticket: Option<Ticket>,
}

impl Lease {
    /// Takes a place at `target` unless `limit` are taken; 0 is unlimited.
    pub(super) fn take(target: &Arc<Target>, limit: u32, pass: Option<Pass>) -> Result<Self, Option<Pass>> {
        if target.enter(limit) {
            Ok(Lease { target: Arc::clone(target), _pass: pass, ticket: None })
        } else {
            Err(pass)
        }
    }

    /// Makes it a probe of the circuit breaker.
    pub(super) fn set_ticket(&mut self, ticket: Option<Ticket>) {
        self.ticket = ticket;
    }

    /// What is to be told how the probe ended, if it is one.
    pub(super) fn take_ticket(&mut self) -> Option<Ticket> {
        self.ticket.take()
    }

    /// The target.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// A peer to connect to; the caller adds the timeouts of this request and boxes it.
    pub fn peer(&self) -> HttpPeer {
        self.target.peer.clone()
    }

    /// Reports the time from sending the request to the first byte of the response, which came `at`.
    pub fn observe(&self, first_byte: Duration, at: std::time::Instant) {
        self.target.ewma.observe(first_byte, clock_at(at));
    }

    /// Reports that the target could not be reached or did not answer, so that latency-aware balancing avoids it.
    pub fn observe_failure(&self) {
        self.target.ewma.observe_failure(clock());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.target.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::dial::{Dial, Versions};
    use super::*;

    fn target() -> Target {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let peer = HttpPeer::new(address, false, String::new());
        let dial = Dial::new(Place::Inet(address), None, Versions::Http1);
        Target::new(Place::Inet(address), None, peer, None, Pool::new(dial, Duration::ZERO), None)
    }

    fn run(target: &Target, results: &str) -> Vec<Option<bool>> {
        let spec = HealthSpec { up: 2, down: 3, ..HealthSpec::default() };
        let result = |c| if c == '+' { Ok(()) } else { Err("refused".to_owned()) };
        results.chars().map(|c| target.judge(result(c), &spec)).collect()
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let target = target();
        assert_eq!(run(&target, "+--+--"), [None; 6], "two failures in a row are not three");
        assert_eq!(run(&target, "-"), [Some(false)]);
        assert_eq!((target.is_healthy(), target.health().reason.as_str()), (false, "refused"));
        assert_eq!(run(&target, "+-+"), [None; 3], "one success in a row is not two");
        assert_eq!(run(&target, "+"), [Some(true)]);
        assert_eq!((target.is_healthy(), target.health().reason.as_str()), (true, ""));
    }

    #[test]
    fn the_first_check_and_the_first_success_decide_alone() {
        let target = target();
        assert!(target.is_healthy() && !target.is_checked(), "healthy until proven otherwise");
        assert_eq!(run(&target, "-"), [Some(false)]);
        assert_eq!(run(&target, "--"), [None, None]);
        assert_eq!(run(&target, "+"), [Some(true)], "it has come up for the first time");
        assert_eq!(run(&target, "--"), [None, None]);
        assert_eq!(run(&target, "-"), [Some(false)]);
        assert_eq!(run(&target, "+"), [None], "from now on the threshold counts");
    }

    #[test]
    fn the_own_host_has_no_default_port() {
        let place = |text: &str| Place::Inet(text.parse().unwrap());
        for (at, name, tls, expected) in [
            ("10.0.0.1:80", None, false, "10.0.0.1"),
            ("10.0.0.1:80", None, true, "10.0.0.1:80"),
            ("10.0.0.1:443", Some("app"), true, "app"),
            ("10.0.0.1:3000", Some("app"), false, "app:3000"),
            ("[::1]:80", None, false, "[::1]"),
            ("[::1]:81", None, false, "[::1]:81"),
        ] {
            assert_eq!(authority(&place(at), name, tls), expected);
        }
    }
}
