//! The same for what targets answer: what can be read in two ways is not passed on, and its connection is used no more.

use crate::harness::{Gateway, Plan, Request, Upstream, Wire};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const FRONT: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis: { all: { auth: public, routes: { all: { match: "/**", timeouts: { response: 3s }, to: app } } } }
"#;

/// A target that answers what it is told, on every connection, and goes on reading.
struct Target {
    upstream: Upstream,
    answer: Arc<Mutex<Vec<u8>>>,
    connections: Arc<AtomicUsize>,
}

impl Target {
    fn start() -> Target {
        let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (said, counted) = (Arc::clone(&answer), Arc::clone(&connections));
        let upstream = Upstream::raw(move |wire| answer_all(wire, &said, &counted));
        Target { upstream, answer, connections }
    }

    fn says(&self, answer: impl Into<Vec<u8>>) {
        *self.answer.lock().unwrap() = answer.into();
        self.connections.store(0, Ordering::SeqCst);
    }
}

fn answer_all(mut wire: Wire, answer: &Mutex<Vec<u8>>, connections: &AtomicUsize) -> io::Result<()> {
    let mut first = true;
    while let Some(mut request) = Request::read_head(&mut wire)? {
        request.read_body(&mut wire)?;
        connections.fetch_add(usize::from(std::mem::take(&mut first)), Ordering::SeqCst);
        let said = answer.lock().unwrap().clone();
        wire.write(said)?;
    }
    Ok(())
}

fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")
}

/// What no client may see.
fn hostile() -> Vec<String> {
    let mut all: Vec<String> = [
        ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", "hi"),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", "hi!"),
        ("Content-Length: 2, 2\r\n", "hi"),
        ("Content-Length: +2\r\n", "hi"),
        ("Content-Length: -2\r\n", "hi"),
        ("Content-Length: 0x2\r\n", "hi"),
        ("Content-Length: 2 2\r\n", "hi"),
        ("Content-Length:\r\n", "hi"),
        ("Content-Length: 18446744073709551618\r\n", "hi"),
        ("Content-Length : 2\r\n", "hi"),
        ("Content-Length: 2\n", "hi"),
        ("X: a\nContent-Length: 2\r\n", "hi"),
        ("X: a\r\n b\r\nContent-Length: 2\r\n", "hi"),
        ("X: a\r\n\tb\r\nContent-Length: 2\r\n", "hi"),
        ("X: a\rSet-Cookie: b\r\nContent-Length: 2\r\n", "hi"),
        ("X: \0\r\nContent-Length: 2\r\n", "hi"),
        ("X\r\nContent-Length: 2\r\n", "hi"),
        (": a\r\nContent-Length: 2\r\n", "hi"),
        ("X Y: a\r\nContent-Length: 2\r\n", "hi"),
        ("Transfer-Encoding: gzip, chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        ("Transfer-Encoding: identity\r\n", "hi"),
        ("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding:\r\n", "hi"),
        ("Transfer-Encoding: xchunked\r\n", "hi"),
    ]
    .map(|(fields, body)| ok(fields, body))
    .into();
    for line in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 No",
        "HTTP/1.1 600 No",
        "HTTP/1.1 abc OK",
        "HTTP/1.1",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.2 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "200 OK",
        "<html>",
        "HTTP/1.1 -1 OK",
        "HTTP/1.1 200\0OK",
        "",
        "HTTP/1.1 200 OK\rX: y",
    ] {
        all.push(format!("{line}\r\nContent-Length: 2\r\n\r\nhi"));
    }
    all.push("HTTP/1.1 200 OK\nContent-Length: 2\n\nhi".to_owned());
    all.push(
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
            .to_owned(),
    );
    all.push("HTTP/1.1 103 Early\r\n\r\n".repeat(20) + &ok("Content-Length: 2\r\n", "hi"));
    all.push("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned());
    all.push(ok(&format!("X: {}\r\nContent-Length: 2\r\n", "y".repeat(300_000)), "hi"));
    all.push(ok(&format!("{}Content-Length: 2\r\n", "X: y\r\n".repeat(200)), "hi"));
    all
}

fn start(target: &Target) -> Gateway {
    Plan::new(FRONT).with("app", target.upstream.addr()).start()
}

#[test]
fn an_ambiguous_answer_is_502() {
    let target = Target::start();
    let gateway = start(&target);
    let mut wrong = Vec::new();
    for answer in hostile() {
        target.says(answer.as_str());
        let mut client = gateway.client();
        for _ in 0..2 {
            let response = client.request("POST", "/a").body("x").send();
            let log = gateway.log_of(&response);
            if (response.status, log["reason"].as_str()) != (502, Some("upstream-invalid")) {
                let text: String = answer.chars().take(120).collect();
                wrong.push(format!("{} {} for {text:?}", response.status, log["reason"]));
                break;
            }
            if !response.kept_alive {
                client = gateway.client();
            }
        }
        let used = target.connections.load(Ordering::SeqCst);
        if used != 2 && wrong.is_empty() {
            wrong.push(format!(
                "{used} connections for two requests: {:?}",
                answer.chars().take(120).collect::<String>()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_comes_behind_an_answer_is_nobodys() {
    let target = Target::start();
    let gateway = start(&target);
    let forged = ok("Content-Length: 6\r\nX-Forged: yes\r\n", "forged");
    for answer in [
        ok("Content-Length: 2\r\n", "hi") + &forged,
        ok("Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n") + &forged,
        format!("HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n{forged}"),
        format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n{forged}"),
        format!("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{forged}"),
    ] {
        target.says(answer.as_str());
        let mut client = gateway.client();
        for _ in 0..3 {
            let response = client.get("/a");
            assert!(
                response.status < 400 && response.header("x-forged").is_none(),
                "{answer:?}: {response:?}"
            );
            assert!(
                response.status != 204 || response.header("content-length").is_none(),
                "{answer:?}: {response:?}"
            );
            assert!(response.header("transfer-encoding").is_none() || response.status == 200, "{response:?}");
        }
        assert_eq!(target.connections.load(Ordering::SeqCst), 3, "each connection ends with {answer:?}");
    }
}
