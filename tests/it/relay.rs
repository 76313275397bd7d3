//! Requests to targets of different protocols on the same connections, and when their answers reach the client.

use crate::harness::h2_raw::{END_HEADERS, END_STREAM, RawH2, kind, request};
use crate::harness::{
    Answer, Client, DEADLINE, GRANT, Gate, Gateway, H2Answer, H2Upstream, Plan, Request, Upstream, handshake,
};
use std::time::{Duration, Instant};

/// `/far/**` goes to a target over HTTP/2, everything else to one over HTTP/1.1.
const BOTH: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0", protocols: [http/1.1, h2c] } }
upstreams:
  app: { targets: ["{{app}}"], health: none }
  far: { targets: ["{{far}}"], health: none, protocol: h2c }
apis:
  shop:
    auth: public
    timeouts: { response: 1s, idle: 10s }
    routes:
      all: { match: "/**", to: app }
      far: { match: "/far/**", to: far }
"#;

struct Both {
    gateway: Gateway,
    _far: H2Upstream,
}

fn both(app: &Upstream) -> Both {
    let far = H2Upstream::start(|request| {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        H2Answer::ok(format!("far {} {body}", request.uri().path()))
    });
    Both { gateway: Plan::new(BOTH).with("app", app.addr()).with("far", far.addr()).start(), _far: far }
}

fn near() -> Upstream {
    Upstream::start(|request| {
        Answer::ok(format!("near {} {}", request.target, String::from_utf8_lossy(&request.body)))
    })
}

fn say(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: a.test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_connection_may_need_another_protocol_in_between() {
    let app = near();
    let both = both(&app);
    let mut client = both.gateway.client();
    for (path, answer) in
        [("/a", "near /a x"), ("/far/b", "far /far/b x"), ("/c", "near /c x"), ("/far/d", "far /far/d x")]
    {
        let response = client.request("POST", path).body("x").send();
        assert_eq!((response.status, response.text().as_str(), response.kept_alive), (200, answer, true));
    }
    assert_eq!(app.connections(), 1, "both ways of relaying share the target's connections");
}

#[test]
fn requests_sent_at_once_lose_nothing_on_their_way() {
    let app = near();
    let both = both(&app);
    let mut client = both.gateway.client();
    let all = [say("/a", "one"), say("/far/b", "two"), say("/c", "three"), say("/d", "four")].concat();
    client.send_raw(all);
    for answer in ["near /a one", "far /far/b two", "near /c three", "near /d four"] {
        assert_eq!(client.read("POST").text(), answer);
    }
}

#[test]
fn a_head_may_come_in_pieces() {
    let app = near();
    let both = both(&app);
    for path in ["/a", "/far/b"] {
        let mut client = both.gateway.client();
        for piece in [
            "\r\n",
            "PO",
            "ST ",
            path,
            " HTTP/1.1\r\nho",
            "st: a.test\r\ncontent-le",
            "ngth: 3\r\n",
            "\r",
            "\n",
            "xy",
        ] {
            client.send_raw(piece);
            std::thread::sleep(Duration::from_millis(2));
        }
        client.send_raw("z");
        let response = client.read("POST");
        assert!(response.text().ends_with(&format!("{path} xyz")), "{}", response.text());
    }
}

#[test]
fn what_is_no_request_is_answered_and_recorded() {
    let app = near();
    let both = both(&app);
    for (number, (head, reason)) in [
        ("GET / HTTP/1.1\r\nhost : a.test\r\n\r\n", "space-before-colon"),
        ("nonsense\r\n\r\n", "request-line"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = both.gateway.client();
        client.send_raw(head);
        let response = client.read("GET");
        assert_eq!((response.status, response.problem_code().as_str()), (400, "bad-request"), "{head:?}");
        client.wire.expect_closed();
        let line = both.gateway.log_line(number);
        assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(400), Some(reason)), "{line}");
    }
    assert!(app.requests().is_empty());
}

#[test]
fn a_protocol_may_be_changed() {
    let app = Upstream::raw(|mut wire| {
        let request = Request::read_head(&mut wire)?.unwrap();
        assert_eq!(request.target, "/");
        wire.write(GRANT)?;
        let said = wire.read_some()?;
        wire.write(said)?;
        wire.read_some().map(drop)
    });
    let both = both(&app);
    let mut client: Client = both.gateway.client();
    client.send_raw(handshake("/", ""));
    assert_eq!(client.wire.read_line().unwrap().unwrap().split(' ').nth(1), Some("101"));
    client.wire.read_headers().unwrap();
    client.send_raw("hello");
    assert_eq!(client.wire.read_some().unwrap(), b"hello");
}

#[test]
fn an_answer_may_pause_for_longer_than_it_may_take_to_begin() {
    let app = Upstream::raw(|mut wire| {
        let head = Request::read_head(&mut wire)?.unwrap();
        if head.target == "/late" {
            return wire.read_some().map(drop);
        }
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")?;
        std::thread::sleep(Duration::from_millis(1300));
        wire.write(" last")
    });
    let both = both(&app);
    let response = both.gateway.get("/paused");
    assert_eq!((response.text().as_str(), response.complete), ("first last", true));
    let began = Instant::now();
    let response = both.gateway.get("/late");
    assert_eq!((response.status, response.problem_code().as_str()), (504, "upstream-timeout"));
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[test]
fn an_upload_that_is_refused_early_gets_its_answer() {
    let app = Upstream::raw(|mut wire| {
        Request::read_head(&mut wire)?;
        wire.write("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
    });
    let both = both(&app);
    let mut client = both.gateway.client();
    client.send_raw("POST /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1000000\r\n\r\nbegin");
    let response = client.read("POST");
    assert_eq!((response.status, response.text().as_str(), response.kept_alive), (403, "no", false));
}

#[test]
fn a_body_sent_again_is_sent_whole() {
    let seen: std::sync::Arc<std::sync::Mutex<Vec<usize>>> = std::sync::Arc::default();
    let app = Upstream::start(move |request| {
        let mut seen = seen.lock().unwrap();
        let again = seen.contains(&request.connection);
        seen.push(request.connection);
        match again {
            true => Answer::fault(crate::harness::Fault::Close),
            false => Answer::ok(request.body.clone()),
        }
    });
    let both = both(&app);
    let mut client = both.gateway.client();
    for _ in 0..3 {
        let response = client.request("PUT", "/a").body("idempotent").send();
        assert_eq!((response.status, response.text().as_str()), (200, "idempotent"));
    }
    assert_eq!(app.requests().len(), 5);
}

#[test]
fn what_has_come_of_an_answer_is_not_held_back() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::raw(move |mut wire| {
        wire.read_line()?;
        wire.read_headers()?;
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")?;
        held.wait();
        wire.write("after")
    });
    let both = both(&app);
    let mut client = both.gateway.client();
    let began = Instant::now();
    client.send_raw("GET / HTTP/1.1\r\nHost: test.example\r\n\r\n");
    assert_eq!(client.read_head().status, 200);
    assert_eq!(client.wire.read_exactly(5).unwrap(), b"first");
    assert!(began.elapsed() < DEADLINE / 2, "the engine flushes only at the end");
    gate.open();
    assert_eq!(client.wire.read_exactly(5).unwrap(), b"after");
}

/// `OPTIONS *` asks for the server as a whole, in either version (RFC 9110 section 9.3.7); nothing else does.
#[test]
fn a_question_about_the_server_is_answered_by_it() {
    let app = Upstream::echo();
    let both = both(&app);
    let mut client = both.gateway.client();
    client.send_raw("OPTIONS * HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(client.read("OPTIONS").status, 204);
    client.send_raw("OPTIONS a HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let refused = client.read("OPTIONS");
    assert_eq!((refused.status, refused.problem_code().as_str()), (400, "bad-path"));

    let mut client = RawH2::over(both.gateway.client());
    client.send(kind::HEADERS, END_STREAM | END_HEADERS, 1, &request("OPTIONS", "*"));
    let answer = client.expect(kind::HEADERS);
    // `:status: 204` as it stands in HPACK's table.
    assert_eq!((answer.stream, answer.payload[0]), (1, 0x89));
    client.send(kind::HEADERS, END_STREAM | END_HEADERS, 3, &request("OPTIONS", "a"));
    assert_eq!(client.expect(kind::RST_STREAM).stream, 3, "a path that is none is no request");
    assert_eq!(app.requests().len(), 0);
}
