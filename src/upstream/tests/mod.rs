//! Upstreams as their callers see them, against real local servers.

mod client;
mod discovery;
mod health;
mod picks;
mod states;
mod tls;

use super::spec::{Balance, ClientCert, DiscoverySpec, HealthSpec, PoolSpec, Protocol, TargetSpec, TlsSpec};
use super::*;
use crate::tasks::Supervisor;
use bytes::Bytes;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::{HttpPeer, Peer};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;

fn client() -> Arc<Client> {
    static CLIENT: std::sync::OnceLock<Arc<Client>> = std::sync::OnceLock::new();
    Arc::clone(CLIENT.get_or_init(|| Arc::new(Client::new(None))))
}

fn resolver(servers: &[SocketAddr]) -> Arc<Resolver> {
    Arc::new(Resolver::new(servers).unwrap())
}

fn spec(balance: Balance, targets: &[(&str, u32)]) -> UpstreamSpec {
    let target = |(address, weight): &(&str, u32)| TargetSpec {
        address: address.parse().unwrap(),
        weight: *weight,
        backup: false,
    };
    let targets = targets.iter().map(target).collect();
    UpstreamSpec { balance, ..UpstreamSpec::new("app".parse().unwrap(), targets) }
}

fn make(spec: UpstreamSpec) -> Arc<Upstream> {
    Upstream::new(spec, &resolver(&["127.0.0.1:9".parse().unwrap()]), &client(), None).unwrap()
}

fn label(lease: &Lease) -> String {
    lease.target().label().to_string()
}

/// The last digit of the address of each of `n` picks, each request finished before the next.
fn picks(upstream: &Upstream, n: usize) -> String {
    (0..n).map(|_| label(&upstream.pick(None, &[]).unwrap()).chars().last().unwrap()).collect()
}

fn set_health(upstream: &Upstream, label: &str, healthy: bool) {
    let target = upstream.targets().into_iter().find(|target| &**target.label() == label).unwrap();
    let spec = HealthSpec { up: 1, down: 1, ..HealthSpec::default() };
    let result = if healthy { Ok(()) } else { Err("test".to_owned()) };
    assert_eq!(target.judge(result, &spec), Some(healthy));
    upstream.health_changed();
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const THREE: [(&str, u32); 3] = [("10.0.0.1:1", 1), ("10.0.0.1:2", 1), ("10.0.0.1:3", 1)];

/// An HTTP/1.1 server that answers every connection once with what `answer` makes of the request.
async fn http1(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        let answer = Arc::new(answer);
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
                let text = answer(&String::from_utf8_lossy(&request));
                let _ = stream.write_all(text.as_bytes()).await;
            });
        }
    });
    (address, served)
}

fn checked(address: SocketAddr, probe: Probe) -> UpstreamSpec {
    let mut spec = spec(Balance::RoundRobin, &[(&address.to_string(), 1)]);
    let every = Duration::from_millis(20);
    spec.health = HealthSpec { probe, every, timeout: Duration::from_secs(5), up: 2, down: 3, passive: None };
    spec
}

fn run(upstream: &Arc<Upstream>) -> Supervisor {
    let supervisor = Supervisor::new(Handle::current());
    supervisor.adopt(upstream.tasks());
    supervisor
}

fn reason(upstream: &Upstream) -> String {
    upstream.status().targets[0].reason.clone()
}

fn get(host: &str) -> RequestHeader {
    let mut head = RequestHeader::build("GET", b"/", None).unwrap();
    head.insert_header("host", host).unwrap();
    head
}

const LIMITS: Limits = Limits { total: Duration::from_secs(5), max_body: 1024 };

fn named(target: &str) -> UpstreamSpec {
    let mut spec = spec(Balance::RoundRobin, &[(target, 2)]);
    (spec.health.probe, spec.health.passive) = (Probe::None, None);
    spec.discovery =
        DiscoverySpec { min: Duration::from_millis(100), max: Duration::from_secs(60), ..spec.discovery };
    spec
}
