//! Active health checks: every target of an upstream is probed on its own clock, whatever traffic it gets.

use super::Upstream;
use super::client::{Answer, Client, Limits, alone};
use super::grpc;
use super::spec::{HealthSpec, HostRewrite, Probe};
use super::target::{Place, Target, TargetId, authority};
use crate::tasks::{Running, Stop, Task, jitter};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderValue, StatusCode};
use pingora::http::RequestHeader;
use pingora::protocols::tls::ALPN;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

/// Probes under way at once in the whole process; more wait. Keeps a thousand dead targets from a thousand sockets.
const AT_ONCE: usize = 64;
/// A target that has never been up is asked at least this often, so that a start in the wrong order heals quickly.
const STARTING: Duration = Duration::from_secs(1);
/// The part of a probe's answer that is read.
const MAX_ANSWER: usize = 256 * 1024;

static ROOM: Semaphore = Semaphore::const_new(AT_ONCE);

/// Checks all targets of one upstream.
pub(super) struct HealthChecks {
    name: String,
    upstream: Weak<Upstream>,
    client: Arc<Client>,
}

impl HealthChecks {
    pub(super) fn new(upstream: &Weak<Upstream>, name: &str, client: &Arc<Client>) -> Self {
        HealthChecks {
            name: format!("health of {name}"),
            upstream: Weak::clone(upstream),
            client: Arc::clone(client),
        }
    }

    /// Keeps one watch per target, whatever discovery does to the membership.
    async fn watch_all(self: Arc<Self>, mut stop: Stop) {
        let Some(upstream) = self.upstream.upgrade() else { return stop.told().await };
        let mut membership = upstream.membership();
        let mut watches = JoinSet::new();
        let mut watched: HashMap<TargetId, AbortHandle> = HashMap::new();
        loop {
            membership.mark_unchanged();
            let targets = upstream.targets();
            watched.retain(|id, watch| {
                let stays = targets.iter().any(|target| target.id() == *id);
                if !stays {
                    watch.abort();
                }
                stays
            });
            for target in targets {
                watched.entry(target.id()).or_insert_with(|| {
                    let (upstream, client) = (Arc::clone(&upstream), Arc::clone(&self.client));
                    watches.spawn(watch(upstream, target, client))
                });
            }
            tokio::select! {
                () = stop.told() => return,
                _ = membership.changed() => {}
                // A watch ends only by being cut off or by a panic; returning lets the supervisor count and restart.
                Some(Err(ended)) = watches.join_next() => if ended.is_panic() { return },
            }
        }
    }
}

impl Task for HealthChecks {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Arc<Self>, stop: Stop) -> Running {
        Box::pin(self.watch_all(stop))
    }
}

async fn watch(upstream: Arc<Upstream>, target: Arc<Target>, client: Arc<Client>) {
    loop {
        let spec = &upstream.spec().health;
        let result = check(&upstream, &target, &client).await;
        let reached = result.is_ok() && target.record.reached(tokio::time::Instant::now());
        if reached {
            log::info!("upstream `{}`: target {} can be reached again", upstream.name(), target.label());
        }
        let judged = target.judge(result, spec);
        if let Some(healthy) = judged {
            announce(&upstream, &target, healthy);
        }
        if reached || judged.is_some() {
            upstream.health_changed();
        }
        upstream.made_progress();
        let starting = !target.is_healthy() && !target.is_proven();
        let pause = if starting { spec.every.min(STARTING) } else { spec.every };
        tokio::time::sleep(jitter(pause)).await;
    }
}

fn announce(upstream: &Upstream, target: &Target, healthy: bool) {
    let (name, label) = (upstream.name(), target.label());
    if healthy {
        log::info!("upstream `{name}`: target {label} is healthy");
    } else {
        log::warn!("upstream `{name}`: target {label} is unhealthy: {}", target.health().reason);
    }
}

async fn check(upstream: &Upstream, target: &Target, client: &Client) -> Result<(), String> {
    // The semaphore is never closed; a failure to get a permit is no failure of the target.
    let _room = ROOM.acquire().await;
    let spec = &upstream.spec().health;
    match &spec.probe {
        Probe::None => Ok(()),
        Probe::Tcp => connect(upstream, target, client, spec.timeout).await,
        Probe::Http { .. } | Probe::Grpc { .. } => request(upstream, target, client, spec).await,
    }
}

async fn connect(
    upstream: &Upstream,
    target: &Target,
    client: &Client,
    within: Duration,
) -> Result<(), String> {
    if upstream.is_tls() {
        return client.connect(target.peer(), within).await.map_err(|error| error.to_string());
    }
    let connected = tokio::time::timeout(within, async {
        match target.place() {
            Place::Inet(address) => TcpStream::connect(address).await.map(drop),
            Place::Unix(path) => UnixStream::connect(path).await.map(drop),
        }
    });
    match connected.await {
        Err(_) => Err(format!("no connection within {within:?}")),
        Ok(result) => result.map_err(|error| reason(&error)),
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::NotFound => "no such socket".to_owned(),
        _ => error.to_string(),
    }
}

async fn request(
    upstream: &Upstream,
    target: &Target,
    client: &Client,
    spec: &HealthSpec,
) -> Result<(), String> {
    // A connection of its own: a pooled one would only prove that the target once accepted it.
    let mut peer = alone(target.peer());
    let limits = Limits { total: spec.timeout, max_body: MAX_ANSWER };
    let (head, body) = match &spec.probe {
        Probe::Grpc { service } => {
            peer.options.alpn = ALPN::H2;
            (grpc_head(&host(upstream, target)), Some(grpc::check_request(service)))
        }
        probe => (http_head(probe, &host(upstream, target)), None),
    };
    let head = head.map_err(|error| format!("the probe cannot be sent: {error}"))?;
    let answer = match client.send(&peer, head, body, limits).await {
        Ok(answer) => answer,
        Err(super::client::ClientError::Timeout) => {
            return Err(format!("no answer within {:?}", spec.timeout));
        }
        Err(error) => return Err(error.to_string()),
    };
    match &spec.probe {
        Probe::Grpc { .. } => grpc::serving(&answer),
        Probe::Http { expect, .. } => expected(&answer, expect),
        Probe::None | Probe::Tcp => Ok(()),
    }
}

fn expected(answer: &Answer, expect: &[u16]) -> Result<(), String> {
    let good = if expect.is_empty() {
        answer.status == StatusCode::OK
    } else {
        expect.contains(&answer.status.as_u16())
    };
    if good { Ok(()) } else { Err(format!("answered {}", answer.status.as_u16())) }
}

/// The probe's own host, else the one requests get, else the target's.
fn host(upstream: &Upstream, target: &Target) -> String {
    match (&upstream.spec().health.probe, &upstream.spec().host) {
        (Probe::Http { host: Some(host), .. }, _) | (_, HostRewrite::Literal(host)) => host.to_string(),
        _ => authority(target.place(), target.name().map(|name| &**name), upstream.is_tls()),
    }
}

fn http_head(probe: &Probe, host: &str) -> pingora::Result<RequestHeader> {
    let Probe::Http { method, path, .. } = probe else { return RequestHeader::build("GET", b"/", None) };
    let mut head = RequestHeader::build(method.clone(), path.as_bytes(), Some(4))?;
    head.insert_header(HOST, host)?;
    head.insert_header(USER_AGENT, HeaderValue::from_static("tollgate-health"))?;
    head.insert_header(ACCEPT, HeaderValue::from_static("*/*"))?;
    Ok(head)
}

fn grpc_head(host: &str) -> pingora::Result<RequestHeader> {
    let mut head = RequestHeader::build("POST", grpc::CHECK_PATH.as_bytes(), Some(5))?;
    head.insert_header(HOST, host)?;
    head.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))?;
    head.insert_header(TE, HeaderValue::from_static("trailers"))?;
    head.insert_header(USER_AGENT, HeaderValue::from_static("tollgate-health"))?;
    Ok(head)
}
