//! A panic in a step costs the request in which it happens, and no other.
//!
//! No configuration can make a step panic, so here a route has one more than any configuration gives it.

use super::accept::{Doors, Listening};
use super::connections::Connections;
use super::proxy;
use crate::exchange::{Exchange, RequestHead, ResponseHead};
use crate::filters::{Filter, Step};
use crate::gateway::Gateway;
use crate::observe::metrics::Metrics;
use crate::observe::panics;
use crate::prepare::prepare;
use crate::reply::Problem;
use crate::snapshot::Snapshot;
use arc_swap::ArcSwap;
use http::{HeaderMap, Request, Version};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Panics where a request says that it should.
struct Panics;

fn panic_at(place: &str, headers: &HeaderMap) {
    let wanted = headers.get("x-panic").is_some_and(|value| value == place);
    assert!(!wanted, "{:?} carries {:?}", headers.get("host"), headers.get("authorization"));
}

impl Filter for Panics {
    fn on_request<'a>(&'a self, request: &'a RequestHead, _: &'a mut Exchange) -> Step<'a> {
        panic_at("request", &request.headers);
        Step::Wait(Box::pin(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            panic_at("wait", &request.headers);
            None
        }))
    }

    fn on_upstream_request(
        &self,
        _: &mut RequestHead,
        request: &RequestHead,
        _: &Exchange,
    ) -> Result<(), Problem> {
        panic_at("attempt", &request.headers);
        Ok(())
    }

    fn on_response(&self, _: &mut ResponseHead, request: &RequestHead, _: &Exchange) {
        panic_at("response", &request.headers);
    }

    fn explain(&self, _: &RequestHead, _: &Exchange) -> String {
        String::new()
    }
}

/// A gateway with that step on its one route, which lets through one request at a time.
struct House {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    current: Arc<ArcSwap<Snapshot>>,
    _stop: watch::Sender<bool>,
}

impl House {
    async fn open() -> House {
        panics::watch_as_well();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tollgate.yaml");
        let config = format!(
            r#"
version: 1
listeners: {{ web: {{ bind: "127.0.0.1:0", protocols: [http/1.1, h2c] }} }}
upstreams: {{ app: {{ targets: ["{}"], health: none }} }}
apis: {{ app: {{ auth: public, concurrency: {{ max: 1 }}, routes: {{ all: {{ match: "/**", to: app }} }} }} }}
"#,
            upstream().await
        );
        std::fs::write(&file, config).unwrap();
        let prepared = prepare(&file).unwrap();
        let mut snapshot = prepared.snapshot.unwrap_or_else(|| panic!("{:?}", prepared.issues));
        let route = Arc::get_mut(&mut snapshot.routes[0]).unwrap();
        route.chain.add(Panics);
        // Every configuration bounds it: no clock goes that far, so a tunnel panics when it looks at its own.
        route.timeouts.stream_idle = Duration::MAX;
        let (metrics, name) = (prepared.shared.unwrap().metrics, snapshot.listeners[0].name.clone());
        let current = Arc::new(ArcSwap::from_pointee(snapshot));
        let gateway = Gateway::new(current.clone(), metrics.clone(), None);
        let (stop, stopping) = watch::channel(false);
        let both = (gateway.clone(), proxy(gateway, 1));
        let doors = Doors::new(both, current.clone(), metrics.clone(), Connections::default(), stopping);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        Arc::new(doors).open(vec![Listening { number: 0, name, address, socket }]).unwrap();
        House { address, metrics, current, _stop: stop }
    }

    /// What is answered over HTTP/1.1 until the connection ends.
    async fn ask(&self, panic_at: &str, connection: &str) -> String {
        self.ask_with(panic_at, &format!("connection: {connection}\r\n")).await
    }

    async fn ask_with(&self, panic_at: &str, fields: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nhost: a.test\r\nauthorization: hunter2\r\nx-panic: {panic_at}\r\n{fields}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Waits until nothing is held any more: an answer is there a moment before its request has ended.
    async fn rests(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let held = || {
            let targets = self.current.load().upstreams[0].targets();
            targets.iter().map(|target| target.in_flight()).sum::<u32>()
        };
        while held() > 0 || !self.told("tollgate_active_requests 0") {
            assert!(Instant::now() < deadline, "something is held");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn told(&self, line: &str) -> bool {
        let told = self.metrics.render(|metrics| metrics.panicked(panics::count()));
        String::from_utf8(told).unwrap().lines().any(|told| told == line)
    }
}

/// What asks for a WebSocket, and what grants it (RFC 6455 section 1.3).
const HANDSHAKE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const GRANT: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A target that answers everything with `ok`, unless it is asked for a WebSocket.
async fn upstream() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while stream.read_buf(&mut asked).await.is_ok_and(|count| count > 0) {
                    if asked.ends_with(b"\r\n\r\n") {
                        let answer = match memchr::memmem::find(&asked, b"sec-websocket-key").is_some() {
                            true => GRANT,
                            false => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                        };
                        asked.clear();
                        stream.write_all(answer).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

const PLACES: [&str; 4] = ["request", "wait", "attempt", "response"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_panics_costs_one_request() {
    let (house, before) = (House::open().await, panics::count());
    for place in PLACES {
        let answer = house.ask(place, "keep-alive").await;
        assert!(answer.starts_with("HTTP/1.1 500 "), "{place}: {answer}");
        assert!(answer.contains("\"code\":\"internal\""), "{place}: {answer}");
        let head = answer.to_ascii_lowercase();
        assert!(
            head.contains("connection: close\r\n") && head.contains("\r\nx-request-id: "),
            "{place}: {answer}"
        );
        house.rests().await;
        let answer = house.ask("nowhere", "close").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{place}: {answer}");
        house.rests().await;
    }
    // Over the answer it happens twice: over the target's, and over the one that stands in for it.
    assert!(panics::count() >= before + 5);
    for (status, count) in [(500, 4), (200, 4)] {
        let line = format!(
            "tollgate_http_requests_total{{api=\"app\",method=\"GET\",route=\"all\",status=\"{status}\"}} {count}"
        );
        assert!(house.told(&line), "{line}");
    }
    assert!(!house.told("tollgate_panics_total 0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_panics_costs_one_stream_of_a_connection() {
    let house = House::open().await;
    let stream = TcpStream::connect(house.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for place in PLACES {
        for (place, status) in [(place, 500), ("nowhere", 200)] {
            let request = Request::get("http://a.test/").version(Version::HTTP_2).header("x-panic", place);
            client = client.ready().await.unwrap();
            let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            let mut answer = answer.await.unwrap();
            assert_eq!(answer.status(), status, "{place}");
            while let Some(piece) = answer.body_mut().data().await {
                drop(piece.unwrap());
            }
            house.rests().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_tunnel_ends_the_tunnel_and_is_recorded() {
    let (house, before) = (House::open().await, panics::count());
    let answer = house.ask_with("response", HANDSHAKE).await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("\"code\":\"internal\""), "{answer}");
    house.rests().await;
    assert_eq!(house.ask_with("nowhere", HANDSHAKE).await, "", "it ends before the 101 is written");
    house.rests().await;
    assert!(panics::count() >= before + 3);
    for status in [500, 101] {
        let line = format!(
            "tollgate_http_requests_total{{api=\"app\",method=\"GET\",route=\"all\",status=\"{status}\"}} 1"
        );
        assert!(house.told(&line), "{line}");
    }
    let answer = house.ask("nowhere", "close").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
}
