//! Who is slow, or too many.

use crate::harness::{Answer, Client, Gate, Gateway, H2Client, Plan, Request, Upstream, assert_eventually};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

fn front(limits: &str, target: &Upstream) -> Gateway {
    let yaml = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0", limits: { LIMITS } } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis: { all: { auth: public, routes: { all: { match: "/**", to: app } } } }
"#;
    Plan::new(&yaml.replace("LIMITS", limits)).with("app", target.addr()).start()
}

/// Sends `piece` again and again until the other end answers or hangs up.
fn drip(client: &mut Client, piece: &str, every: Duration) {
    for _ in 0..200 {
        if client.wire.write(piece).is_err() {
            return;
        }
        std::thread::sleep(every);
        if client.wire.has_more() {
            return;
        }
    }
}

#[test]
fn a_head_has_a_deadline_however_it_is_dripped() {
    let target = Upstream::echo();
    let gateway = front("header_timeout: 1s", &target);
    for begin in ["GET / HTTP/1.1\r\n", "GET /", "GET / HTTP/1.1\r\nHost: a.test\r\nX: "] {
        let mut client = gateway.client();
        let began = Instant::now();
        client.send_raw(begin);
        drip(&mut client, if begin.ends_with('\n') { "X: y\r\n" } else { "x" }, Duration::from_millis(100));
        let response = client.read("GET");
        let took = began.elapsed();
        assert_eq!((response.status, response.kept_alive), (408, false), "{begin:?}");
        assert_eq!(gateway.log_of(&response)["reason"], "header-timeout");
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(8), "{begin:?}: {took:?}");
    }
    // A second head has its own time, and being idle before it is something else.
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    std::thread::sleep(Duration::from_millis(1300));
    client.send_raw("GET / HT");
    std::thread::sleep(Duration::from_millis(300));
    client.send_raw("TP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read("GET").status, 200);
    assert!(gateway.metric("tollgate_refused_requests_total{reason=\"header-timeout\"}") >= 3.0);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let target = Upstream::echo();
    let gateway = front("header_timeout: 20s", &target);
    let mut client = gateway.client();
    // Empty lines in front are what old clients send behind a body (RFC 9112 section 2.2).
    for begin in ["", "\r\n", "\r\n\r\n"] {
        for byte in format!("{begin}GET / HTTP/1.1\r\nHost: a\r\n\r\n").chars() {
            client.send_raw(byte.to_string());
            std::thread::sleep(Duration::from_millis(3));
        }
        assert_eq!(client.read("GET").status, 200, "behind {begin:?}");
    }
}

#[test]
fn a_body_may_not_pause_for_long() {
    let target = Upstream::echo();
    let gateway = front("body_idle: 1s", &target);
    for (fields, begin) in [
        ("Content-Length: 10", "hello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
        ("Content-Length: 10", ""),
    ] {
        let mut client = gateway.client();
        let began = Instant::now();
        client.send_raw(format!("POST /a HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n{begin}"));
        let response = client.read("POST");
        assert_eq!((response.status, response.problem_code().as_str()), (408, "client-timeout"), "{fields}");
        assert!(!response.kept_alive && began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
}

#[test]
fn a_body_may_not_pause_over_http2_either() {
    let target = Upstream::echo();
    let gateway = front("body_idle: 1s", &target);
    let client = H2Client::connect(gateway.addr("web"));
    let request = http::Request::post("http://a.test/a").body(()).unwrap();
    let response = client.begin(request, b"hello");
    assert_eq!(response.status, 408);
}

#[test]
fn a_body_has_a_least_rate() {
    let target = Upstream::echo();
    let gateway = front("body_rate: 1KiB", &target);
    let mut client = gateway.client();
    let began = Instant::now();
    client.send_raw("POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n");
    drip(&mut client, "some bytes", Duration::from_millis(100));
    let response = client.read("POST");
    let took = began.elapsed();
    assert_eq!((response.status, response.problem_code().as_str()), (408, "client-timeout"));
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(12), "{took:?}");
}

#[test]
fn who_reads_nothing_is_left() {
    let target = Upstream::start(|_| Answer::ok(vec![b'x'; 32 << 20]));
    let gateway = front("send_idle: 1s", &target);
    let mut client = gateway.client();
    client.wire.shrink_receive_buffer();
    client.send_raw("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let open = "tollgate_active_connections{listener=\"web\"}";
    assert_eventually(DEADLINE, "an open connection", || gateway.metric(open) >= 1.0);
    assert_eventually(DEADLINE, "the connection to be closed", || gateway.metric(open) < 1.0);
    assert_eventually(DEADLINE, "nothing to be in flight", || {
        gateway.metric("tollgate_active_requests") < 1.0
    });
}

#[test]
fn connections_are_counted() {
    let gate = Gate::default();
    let target = Upstream::start({
        let gate = gate.clone();
        move |_| {
            gate.wait();
            Answer::ok("late")
        }
    });
    for (limits, reason) in [("per_ip: 3", "per_ip"), ("connections: 3", "connections")] {
        let gateway = front(limits, &target);
        let mut busy: Vec<Client> = (0..3).map(|_| gateway.client()).collect();
        for client in &mut busy {
            client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        assert_eventually(DEADLINE, "three requests", || gateway.metric("tollgate_active_requests") >= 3.0);
        gateway.client().wire.expect_closed();
        assert_eq!(refused(&gateway, reason), 1.0);
        drop(busy.pop());
        assert_eventually(DEADLINE, "a place to be free", || {
            let mut client = gateway.client();
            client.send_raw("GET / HT");
            std::thread::sleep(Duration::from_millis(50));
            !client.wire.has_more()
        });
        drop(busy);
    }
    gate.open();
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("tollgate_refused_connections_total{{listener=\"web\",reason=\"{reason}\"}}"))
}

#[test]
fn who_only_waits_makes_room() {
    let target = Upstream::echo();
    let gateway = front("connections: 3", &target);
    let mut known = gateway.client();
    assert_eq!(known.get("/").status, 200);
    let (mut silent, mut half) = (gateway.client(), gateway.client());
    half.send_raw("GET / HTTP/1.1\r\nHo");
    let mut fourth = None;
    assert_eventually(DEADLINE, "room to be made", || {
        let mut client = gateway.client();
        let asked = client.wire.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answered = asked.is_ok()
            && client.wire.read_line().is_ok_and(|line| line.is_some_and(|line| line.contains("200")));
        fourth = answered.then_some(client);
        answered
    });
    silent.wire.expect_closed();
    assert!(refused(&gateway, "waiting") >= 1.0);
    assert_eq!(known.get("/").status, 200, "who has asked before goes last");
}

#[test]
fn a_connection_carries_so_many_requests() {
    let target = Upstream::echo();
    let gateway = front("requests: 3", &target);
    let mut client = gateway.client();
    let kept: Vec<bool> = (0..3).map(|_| client.get("/").kept_alive).collect();
    assert_eq!(kept, [true, true, false]);
    client.wire.expect_closed();
}

#[test]
fn a_hundred_requests_at_once_are_answered_in_order() {
    let target = Upstream::start(|request: &Request| {
        // The first ones take the longest.
        let number: u64 = request.target.trim_start_matches('/').parse().unwrap_or_default();
        std::thread::sleep(Duration::from_millis(10u64.saturating_sub(number / 10)));
        Answer::ok(format!("{} {}", request.target, request.text()))
    });
    let gateway = front("", &target);
    let mut client = gateway.client();
    let one = |number: usize| match number % 4 {
        0 => format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"),
        1 => format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"),
        2 => format!(
            "POST /{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx: y\r\n\r\n"
        ),
        _ => format!("GET /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
    };
    client.send_raw((0..100).map(one).collect::<String>());
    for number in 0..100 {
        let body = if matches!(number % 4, 1 | 2) { "body" } else { "" };
        assert_eq!(client.read("GET").text(), format!("/{number} {body}"));
    }
    // A refusal ends them.
    client.send_raw(one(0) + "GET / HTTP/1.1\r\n\r\n" + &one(4));
    assert_eq!(client.read("GET").status, 200);
    assert_eq!(client.read("GET").status, 400);
    let rest = client.wire.read_some();
    assert!(
        rest.as_ref().is_ok_and(Vec::is_empty)
            || rest.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    );
}
