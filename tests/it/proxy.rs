//! What passing a request on means beyond its text: streams, aborts, reuse, retries.

use crate::harness::{
    Answer, Client, DEADLINE, Fault, Gate, Gateway, H2Answer, H2Client, H2Upstream, Plan, Request, Reserved,
    Response, Upstream, assert_eventually, eventually, grpc_message,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Everything goes to one upstream.
const FRONT: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis: { shop: { auth: public, body: none, routes: { all: { match: "/**", to: app } } } }
"#;

fn front(app: SocketAddr) -> Gateway {
    Plan::new(FRONT).with("app", app).start()
}

/// The same, with more said of the upstream.
fn front_with(app: SocketAddr, said: &str) -> Gateway {
    Plan::new(&FRONT.replace("health: none", &format!("health: none, {said}"))).with("app", app).start()
}

const CHUNKED_OK: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[test]
fn a_request_body_is_passed_on_as_it_comes() {
    let (arrived, arrivals) = mpsc::channel();
    let upstream = Upstream::raw(move |mut wire| {
        Request::read_head(&mut wire)?;
        let mut body = Vec::new();
        while wire.read_chunk(&mut body)? {
            arrived.send(String::from_utf8_lossy(&body).into_owned()).unwrap();
        }
        wire.read_headers()?;
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    });
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    client.send_raw("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n4\r\none \r\n");
    assert_eq!(arrivals.recv_timeout(DEADLINE).unwrap(), "one ");
    client.send_raw("3\r\ntwo\r\n");
    assert_eq!(arrivals.recv_timeout(DEADLINE).unwrap(), "one two");
    client.send_raw("0\r\n\r\n");
    assert_eq!(client.read("POST").status, 200);
}

#[test]
fn a_response_body_is_passed_on_as_it_comes() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::raw(move |mut wire| {
        Request::read_head(&mut wire)?;
        wire.write(format!("{CHUNKED_OK}5\r\nfirst\r\n"))?;
        held.wait();
        wire.write("6\r\nsecond\r\n0\r\n\r\n")
    });
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    client.request("GET", "/").send_only();
    assert_eq!(client.read_head().status, 200);
    let mut body = Vec::new();
    assert!(client.wire.read_chunk(&mut body).unwrap());
    assert_eq!(body, b"first");
    gate.open();
    while client.wire.read_chunk(&mut body).unwrap() {}
    assert_eq!(body, b"firstsecond");
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let gates: Arc<[Gate; 3]> = Arc::default();
    let held = Arc::clone(&gates);
    let upstream = Upstream::raw(move |mut wire| {
        Request::read_head(&mut wire)?;
        wire.write(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        for (number, gate) in held.iter().enumerate() {
            gate.wait();
            wire.write(format!("9\r\ndata: {number}\n\n\r\n"))?;
        }
        wire.write("0\r\n\r\n")
    });
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    client.request("GET", "/").header("accept", "text/event-stream").send_only();
    assert_eq!(client.read_head().header("content-type"), Some("text/event-stream"));
    for (number, gate) in gates.iter().enumerate() {
        gate.open();
        let mut event = Vec::new();
        assert!(client.wire.read_chunk(&mut event).unwrap());
        assert_eq!(String::from_utf8_lossy(&event), format!("data: {number}\n\n"));
    }
}

#[test]
fn an_answer_may_begin_before_the_request_ends() {
    let upstream = Upstream::raw(|mut wire| {
        Request::read_head(&mut wire)?;
        wire.write(CHUNKED_OK)?;
        let mut chunk = Vec::new();
        while wire.read_chunk(&mut chunk)? {
            wire.write(format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(&chunk)))?;
            chunk.clear();
        }
        wire.read_headers()?;
        wire.write("0\r\n\r\n")
    });
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    client.send_raw("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(client.read_head().status, 200);
    for word in ["ping", "pong", "done"] {
        client.send_raw(format!("4\r\n{word}\r\n"));
        let mut back = Vec::new();
        assert!(client.wire.read_chunk(&mut back).unwrap());
        assert_eq!(back, word.as_bytes());
    }
    client.send_raw("0\r\n\r\n");
    assert!(!client.wire.read_chunk(&mut Vec::new()).unwrap());
}

/// Sends until nobody takes any more, and counts.
fn endless(sent: Arc<AtomicUsize>) -> Upstream {
    Upstream::raw(move |mut wire| {
        Request::read_head(&mut wire)?;
        wire.write(CHUNKED_OK)?;
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        loop {
            wire.write(&chunk)?;
            sent.fetch_add(0x10000, Ordering::SeqCst);
        }
    })
}

#[test]
fn a_client_that_does_not_read_holds_the_upstream_back() {
    let sent = Arc::new(AtomicUsize::new(0));
    let upstream = endless(Arc::clone(&sent));
    let gateway = front(upstream.addr());
    let before = gateway.resident_bytes();
    let mut client = gateway.client();
    client.wire.shrink_receive_buffer();
    client.request("GET", "/").send_only();
    let mut last = 0;
    assert_eventually(DEADLINE, "the upstream is held back", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = sent.load(Ordering::SeqCst);
        std::mem::replace(&mut last, now) == now && now > 0
    });
    // Socket buffers of the machine on both sides; nothing of the size of an answer.
    assert!(last < 32 << 20, "{last} bytes were taken from the upstream");
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "the gateway keeps {grown} bytes");
}

#[test]
fn a_client_that_leaves_while_waiting_ends_the_upstream_request() {
    let (ended, endings) = mpsc::channel();
    let (asked, askings) = mpsc::channel();
    let upstream = Upstream::raw(move |mut wire| {
        Request::read_head(&mut wire)?;
        asked.send(()).unwrap();
        let rest = wire.read_some();
        ended.send(rest.map_or(0, |bytes| bytes.len())).unwrap();
        Ok(())
    });
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    client.request("GET", "/").send_only();
    askings.recv_timeout(DEADLINE).unwrap();
    drop(client);
    assert_eq!(endings.recv_timeout(DEADLINE).unwrap(), 0);
    let line = gateway.log_line(0);
    assert_eq!(
        (line["status"].as_u64(), line["reason"].as_str()),
        (Some(499), Some("client-gone")),
        "{line}"
    );
}

#[test]
fn a_client_that_leaves_within_the_answer_ends_the_upstream_request() {
    let sent = Arc::new(AtomicUsize::new(0));
    let upstream = endless(Arc::clone(&sent));
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    client.request("GET", "/").send_only();
    assert_eq!(client.read_head().status, 200);
    drop(client);
    let line = gateway.log_line(0);
    assert_eq!(
        (line["status"].as_u64(), line["reason"].as_str()),
        (Some(200), Some("client-gone")),
        "{line}"
    );
}

#[test]
fn upstream_connections_are_used_again() {
    let upstream = Upstream::echo();
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.request("POST", "/").body("x").send().status, 200);
    }
    assert_eq!((upstream.requests().len(), upstream.connections()), (5, 1));
}

#[test]
fn an_upstream_that_says_close_is_not_asked_again_on_that_connection() {
    let upstream = Upstream::start(|_| Answer::ok("bye").close());
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!((response.status, response.kept_alive), (200, true));
    }
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn a_client_waits_for_100_continue() {
    let upstream = Upstream::echo();
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    client.send_raw("POST / HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.wire.read_line().unwrap().unwrap().split(' ').nth(1), Some("100"));
    assert!(client.wire.read_headers().unwrap().0.is_empty());
    client.send_raw("hello");
    let response = client.read("POST");
    assert_eq!(
        (response.status, response.interim.as_slice(), response.json()["body"].as_str()),
        (200, [].as_slice(), Some("hello"))
    );
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let upstream = Upstream::start(|request| Answer::ok(request.target.as_str()));
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    client.send_raw("GET /one HTTP/1.1\r\nhost: a.test\r\n\r\nGET /two HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(client.read("GET").text(), "/one");
    assert_eq!(client.read("GET").text(), "/two");
}

#[test]
fn an_http_1_0_client_gets_what_it_understands() {
    let upstream = Upstream::start(|_| Answer::ok("several chunks").chunked(4));
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    client.send_raw("GET / HTTP/1.0\r\nhost: a.test\r\n\r\n");
    let response = client.read("GET");
    assert_eq!(
        (response.status, response.text().as_str(), response.header("transfer-encoding")),
        (200, "several chunks", None)
    );
    client.wire.expect_closed();
}

#[test]
fn an_idle_client_connection_is_closed() {
    let upstream = Upstream::named("a");
    let yaml = FRONT.replace("bind: \"127.0.0.1:0\"", "bind: \"127.0.0.1:0\", limits: { keepalive: 1s }");
    let gateway = Plan::new(&yaml).with("app", upstream.addr()).start();
    let mut fresh = gateway.client();
    let mut used = gateway.client();
    assert!(used.get("/").kept_alive);
    used.wire.expect_closed();
    fresh.wire.expect_closed();
}

#[test]
fn an_answer_that_stalls_is_cut() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::raw(move |mut wire| {
        Request::read_head(&mut wire)?;
        wire.write(format!("{CHUNKED_OK}5\r\nfirst\r\n"))?;
        held.wait();
        Ok(())
    });
    let yaml = FRONT.replace("body: none", "body: none, timeouts: { response: 10s, idle: 300ms }");
    let gateway = Plan::new(&yaml).with("app", upstream.addr()).start();
    let response = gateway.get("/");
    assert_eq!((response.status, response.text().as_str(), response.complete), (200, "first", false));
    let line = gateway.log_of(&response);
    assert_eq!(line["reason"], "upstream-timeout", "{line}");
    gate.open();
}

#[test]
fn a_unix_socket_is_an_upstream() {
    let plan = Plan::new(FRONT);
    let socket = plan.dir().join("app.sock");
    Upstream::on_unix_socket(&socket, Answer::echo);
    let gateway = plan.with("app", format!("unix:{}", socket.display())).start();
    let response = gateway.client().request("POST", "/x").body("hello").send();
    assert_eq!((response.status, response.json()["body"].as_str()), (200, Some("hello")));
    assert_eq!(gateway.log_of(&response)["upstream"], "app");
}

#[test]
fn an_h2c_upstream_serves_clients_of_both_versions() {
    let upstream = H2Upstream::start(|request| {
        H2Answer::ok(request.body().clone())
            .header("x-path", &request.uri().to_string())
            .trailer("x-sum", "7")
    });
    let gateway = front_with(upstream.addr(), "protocol: h2c");
    let response =
        gateway.client().request("POST", "/one?a=1").host("shop.test").chunks(["hel", "lo"]).send();
    assert_eq!((response.status, response.text().as_str(), response.complete), (200, "hello", true));
    let client = H2Client::connect(gateway.addr("web"));
    let request = http::Request::post("http://shop.test/two").body(()).unwrap();
    let answer = client.send(request, b"hello");
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
    assert_eq!(answer.trailers.get("x-sum").unwrap(), "7");
    let seen = upstream.requests();
    assert_eq!(seen[0].uri().path_and_query().unwrap(), "/one?a=1");
    assert_eq!(seen[0].uri().authority().unwrap(), "shop.test");
    assert!(seen.iter().all(|request| request.headers().get("connection").is_none()));
}

#[test]
fn many_requests_share_an_h2c_connection() {
    let (gate, inside) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let (held, counted) = (gate.clone(), Arc::clone(&inside));
    let upstream = H2Upstream::start(move |_| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return H2Answer::ok("first");
        }
        held.wait();
        H2Answer::ok("x")
    });
    let gateway = front_with(upstream.addr(), "protocol: h2c");
    let client = H2Client::connect(gateway.addr("web"));
    // One request opens the connection that the others find.
    assert_eq!(client.get("http://a.test/").status, 200);
    let answers = std::thread::scope(|scope| {
        let all = scope.spawn(|| {
            client.send_all((0..20).map(|_| http::Request::get("http://a.test/").body(()).unwrap()).collect())
        });
        assert_eventually(DEADLINE, "all twenty are in flight", || inside.load(Ordering::SeqCst) == 21);
        gate.open();
        all.join().unwrap()
    });
    assert!(answers.iter().all(|answer| answer.status == 200));
    // As many as opened before the first was known to take more.
    assert!(upstream.connections() <= 10, "{} connections for 20 requests", upstream.connections());
}

#[test]
fn a_grpc_call_passes_with_its_trailers() {
    let upstream = H2Upstream::start(|request| match request.uri().path() {
        "/shop.Orders/Fail" => H2Answer::grpc(b"", 5).trailer("grpc-message", "not here"),
        _ => H2Answer::grpc(request.body().get(5..).unwrap_or_default(), 0),
    });
    let gateway = front_with(upstream.addr(), "protocol: grpc");
    let client = H2Client::connect(gateway.addr("web"));
    let call = |method: &str| {
        let uri = format!("http://shop.test/shop.Orders/{method}");
        let request =
            http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        client.send(request.body(()).unwrap(), &grpc_message(b"hi"))
    };
    let answer = call("Get");
    assert_eq!(
        (answer.status, answer.body.as_slice(), answer.field("grpc-status")),
        (200, grpc_message(b"hi").as_slice(), Some("0"))
    );
    let failed = call("Fail");
    assert_eq!(
        (failed.status, failed.field("grpc-status"), failed.field("grpc-message")),
        (200, Some("5"), Some("not here"))
    );
    let seen = upstream.requests();
    assert_eq!(
        (seen[0].headers()["te"].to_str().unwrap(), seen[0].headers()["content-type"].to_str().unwrap()),
        ("trailers", "application/grpc")
    );
}

#[test]
fn a_target_that_refuses_is_passed_over() {
    let (dead, upstream) = (Reserved::any(), Upstream::echo());
    let both = format!("{}\", \"{}", dead.addr(), upstream.addr());
    let gateway = Plan::new(FRONT).with("app", both).start();
    let mut client = gateway.client();
    for method in ["GET", "POST", "GET", "POST"] {
        let response = client.request(method, "/").body("hello").send();
        assert_eq!(
            (response.status, response.json()["body"].as_str()),
            (200, Some("hello")),
            "{}",
            response.text()
        );
        assert!(matches!(gateway.log_of(&response)["attempts"].as_u64(), Some(1 | 2)));
    }
    assert_eq!(upstream.requests().len(), 4);
    let attempts: u64 = gateway.access_log().iter().filter_map(|line| line["attempts"].as_u64()).sum();
    assert_eq!(attempts, 6, "every other request began at the target that refuses");
}

/// Answers the first request of each connection and closes it at the second.
fn forgets_connections() -> Upstream {
    let seen: Arc<std::sync::Mutex<Vec<usize>>> = Arc::default();
    Upstream::start(move |request| {
        let mut seen = seen.lock().unwrap();
        let again = seen.contains(&request.connection);
        seen.push(request.connection);
        if again { Answer::fault(Fault::Close) } else { Answer::ok("served") }
    })
}

#[test]
fn a_get_on_a_connection_that_was_just_closed_is_sent_again() {
    let upstream = forgets_connections();
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!((response.status, response.text().as_str()), (200, "served"));
    }
    assert_eq!(upstream.requests().len(), 5, "two of three came back from a closed connection");
}

#[test]
fn a_post_on_a_connection_that_was_just_closed_is_not_sent_again() {
    let upstream = forgets_connections();
    let gateway = front(upstream.addr());
    let mut client = gateway.client();
    assert_eq!(client.request("POST", "/").body("pay").send().status, 200);
    let second = client.request("POST", "/").body("pay").send();
    assert_eq!((second.status, second.problem_code().as_str()), (502, "upstream-closed"));
    assert_eq!(upstream.requests().len(), 2, "a payment must not be made twice");
}

#[test]
fn a_get_that_was_reset_is_sent_to_another_connection_only_when_nothing_came_back() {
    let upstream = Upstream::start(|_| Answer::ok("0123456789").but(Fault::Cut(4)));
    let gateway = front(upstream.addr());
    let response = gateway.get("/");
    assert_eq!((response.status, response.text().as_str(), response.complete), (200, "0123", false));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn large_bodies_do_not_stay_in_memory() {
    const SIZE: usize = 64 << 20;
    let upstream = Upstream::raw(|mut wire| {
        while let Some(request) = Request::read_head(&mut wire)? {
            let mut left =
                request.headers.first("content-length").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
            while left > 0 {
                left = left.saturating_sub(wire.read_some()?.len());
            }
            wire.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n"))?;
            let block = vec![b'x'; 1 << 20];
            for _ in 0..SIZE >> 20 {
                wire.write(&block)?;
            }
        }
        Ok(())
    });
    let gateway = front(upstream.addr());
    assert_eq!(download(gateway.client()), SIZE);
    let warm = gateway.resident_bytes();
    let mut client = gateway.client();
    client.send_raw(format!("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {SIZE}\r\n\r\n"));
    let block = vec![b'y'; 1 << 20];
    for _ in 0..SIZE >> 20 {
        client.send_raw(&block);
    }
    assert_eq!(drain(&mut client), SIZE);
    let grown = gateway.resident_bytes().saturating_sub(warm);
    assert!(grown < 16 << 20, "128 MiB left {grown} bytes behind");
}

fn download(mut client: Client) -> usize {
    client.request("GET", "/").send_only();
    drain(&mut client)
}

/// Reads an answer by its length without keeping it.
fn drain(client: &mut Client) -> usize {
    let head: Response = client.read_head();
    assert_eq!(head.status, 200);
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    let mut read = 0;
    while read < length {
        let bytes = client.wire.read_some().unwrap();
        assert!(!bytes.is_empty(), "the answer ended at {read} of {length} bytes");
        read += bytes.len();
    }
    read
}

#[test]
fn a_hundred_clients_at_once_get_their_own_answers() {
    let upstream = Upstream::start(|request| Answer::ok(request.target.as_str()).chunked(3));
    let gateway = front(upstream.addr());
    std::thread::scope(|scope| {
        for number in 0..100 {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut client = gateway.client();
                for round in 0..5 {
                    let target = format!("/{number}/{round}?x={}", "y".repeat(number * 10));
                    assert_eq!(client.get(&target).text(), target);
                }
            });
        }
    });
    let lines = eventually(DEADLINE, "500 access log lines", || {
        Some(gateway.access_log()).filter(|lines| lines.len() == 500)
    });
    assert!(lines.iter().all(|line| line["status"] == 200));
}
