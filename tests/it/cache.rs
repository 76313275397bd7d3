//! The cache in a request's way: one question for all who ask, stale answers while and instead of, and what goes to nobody else.

use crate::harness::{
    Answer, Client, DEADLINE, Gate, Gateway, H2Client, Plan, Upstream, Wire, assert_eventually,
    raise_file_limit,
};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const FRONT: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0", protocols: [http/1.1, h2c] } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis:
  shop:
    auth: public
    retry: none
    cache: { {{cache}} }
    routes: { all: { match: "/**", to: app } }
"#;

fn front(app: &Upstream, cache: &str) -> Gateway {
    Plan::new(FRONT).with("app", app.addr()).with("cache", cache).start()
}

/// Answers with half of a body, and the rest when the gate opens.
fn halves(gate: &Gate, asked: &Arc<AtomicUsize>) -> Upstream {
    let (gate, asked) = (gate.clone(), asked.clone());
    Upstream::raw(move |mut wire: Wire| -> io::Result<()> {
        while let Some(line) = wire.read_line()? {
            if line.is_empty() {
                continue;
            }
            wire.read_headers()?;
            asked.fetch_add(1, Ordering::SeqCst);
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: max-age=60\r\n\r\nfirst")?;
            gate.wait();
            wire.write("after")?;
        }
        Ok(())
    })
}

fn count(gateway: &Gateway, result: &str) -> f64 {
    gateway
        .metric(&format!("tollgate_cache_requests_total{{api=\"shop\",result=\"{result}\",route=\"all\"}}"))
}

#[test]
fn many_who_ask_at_once_ask_once() {
    raise_file_limit();
    let (gate, asked) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let app = halves(&gate, &asked);
    let gateway = front(&app, "");
    let mut clients: Vec<Client> = (0..500).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send_raw("GET /one HTTP/1.1\r\nHost: test.example\r\n\r\n");
    }
    // The first half comes to everybody while the second is still to come.
    for client in &mut clients {
        assert_eq!(client.read_head().status, 200);
        assert_eq!(client.wire.read_exactly(5).unwrap(), b"first");
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.wire.read_exactly(5).unwrap(), b"after");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let again = gateway.get("/one");
    assert_eq!((again.text().as_str(), asked.load(Ordering::SeqCst)), ("firstafter", 1));
    assert_eq!((count(&gateway, "miss"), count(&gateway, "hit")), (1.0, 1.0));
    assert_eq!(count(&gateway, "collapsed"), 499.0);
}

#[test]
fn a_client_that_leaves_takes_the_answer_from_nobody() {
    let (gate, asked) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let app = halves(&gate, &asked);
    let gateway = front(&app, "");
    let mut first = gateway.client();
    first.send_raw("GET /one HTTP/1.1\r\nHost: test.example\r\n\r\n");
    assert_eq!(first.read_head().status, 200);
    let mut second = gateway.client();
    second.send_raw("GET /one HTTP/1.1\r\nHost: test.example\r\n\r\n");
    assert_eq!(second.read_head().status, 200);
    assert_eq!(second.wire.read_exactly(5).unwrap(), b"first");
    first.wire.reset();
    gate.open();
    assert_eq!(second.wire.read_exactly(5).unwrap(), b"after");
    assert_eq!(gateway.get("/one").text(), "firstafter");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn what_breaks_off_is_not_kept_and_told() {
    let app = Upstream::raw(|mut wire: Wire| -> io::Result<()> {
        wire.read_line()?;
        wire.read_headers()?;
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: max-age=60\r\n\r\nfirst")
    });
    let gateway = front(&app, "");
    for _ in 0..2 {
        let broken = gateway.get("/one");
        assert_eq!((broken.status, broken.complete), (200, false));
    }
    assert_eq!(count(&gateway, "miss"), 2.0);
}

#[test]
fn what_is_stale_is_given_at_once_and_renewed_behind() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let app = Upstream::start(move |request| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.headers.first("if-none-match").is_some(), number > 0);
        Answer::ok(format!("{number}"))
            .header("etag", &format!("\"{number}\""))
            .header("cache-control", "max-age=0, stale-while-revalidate=60")
    });
    let gateway = front(&app, "");
    assert_eq!(gateway.get("/one").text(), "0");
    // Each is given what was there, and has the next one fetched.
    assert_eq!(gateway.get("/one").text(), "0");
    assert_eventually(DEADLINE, "it was renewed", || asked.load(Ordering::SeqCst) == 2);
    assert_eventually(DEADLINE, "the new one is given", || gateway.get("/one").text() != "0");
    assert!(count(&gateway, "stale") >= 2.0);
}

#[test]
fn a_stale_answer_stands_in_for_an_upstream_that_fails() {
    let fails = Arc::new(AtomicUsize::new(0));
    let failing = fails.clone();
    let app = Upstream::start(move |_| match failing.load(Ordering::SeqCst) {
        0 => Answer::ok("good").header("cache-control", "max-age=0").header("etag", "\"a\""),
        _ => Answer::new(500, "bad"),
    });
    let gateway = front(&app, "stale: { error: 1h }");
    assert_eq!(gateway.get("/one").text(), "good");
    fails.store(1, Ordering::SeqCst);
    for client in 0..2 {
        let stale = match client {
            0 => gateway.get("/one"),
            _ => {
                app.down();
                gateway.get("/one")
            }
        };
        assert_eq!((stale.status, stale.text().as_str()), (200, "good"));
        let said = stale.headers.all("cache-status").join(", ");
        assert!(said.starts_with("tollgate; fwd=stale"), "{said}");
        assert_eq!(gateway.log_of(&stale)["cache"], "stale");
    }
    assert_eq!(gateway.get("/other").status, 502);
}

/// RFC 9111 section 4.3.5
#[test]
fn an_answer_to_head_brings_what_is_stored_up_to_date() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let app = Upstream::start(move |request| {
        let number = counted.fetch_add(1, Ordering::SeqCst).to_string();
        let changed = request.path() == "/changed" && request.method == "HEAD";
        Answer::ok("hello")
            .header("x-number", &number)
            .header("etag", if changed { "\"b\"" } else { "\"a\"" })
            .header("cache-control", "max-age=60")
    });
    let gateway = front(&app, "");
    let number = |answer: crate::harness::Response| answer.headers.first("x-number").unwrap().to_owned();
    let head = |path: &str| gateway.client().request("HEAD", path).header("cache-control", "no-cache").send();
    assert_eq!(number(gateway.get("/same")), "0");
    assert_eq!(number(head("/same")), "1");
    let same = gateway.get("/same");
    assert_eq!((same.text().as_str(), asked.load(Ordering::SeqCst)), ("hello", 2), "nobody was asked");
    assert_eq!(number(same), "1", "but the head is the new one");
    assert_eq!(number(gateway.get("/changed")), "2");
    assert_eq!(number(head("/changed")), "3");
    assert_eq!(number(gateway.get("/changed")), "4", "what has changed is asked for");
}

#[test]
fn answers_of_callers_are_kept_apart() {
    let app = Upstream::start(|request| {
        let who = request.headers.all("x-consumer").join(", ");
        Answer::ok(who).header("cache-control", "max-age=60")
    });
    let yaml = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
auth: { keys: { api_key: { header: x-key } } }
consumers:
  ann: { keys: [{ hash: "sha256:{{ann}}" }] }
  bob: { keys: [{ hash: "sha256:{{bob}}" }] }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis:
  shop:
    auth: keys
    request: { headers: { set: { x-consumer: "${consumer}" } } }
    cache: { key: { consumer: true } }
    routes: { all: { match: "/**", to: app } }
"#;
    let digest = |key: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let plan = Plan::new(yaml).with("app", app.addr());
    let gateway = plan.with("ann", digest("a-key")).with("bob", digest("b-key")).start();
    let ask = |key: &str| gateway.client().request("GET", "/one").header("x-key", key).send().text();
    for _ in 0..2 {
        assert_eq!((ask("a-key"), ask("b-key")), ("ann".to_owned(), "bob".to_owned()));
    }
    assert_eq!(app.requests().len(), 2);
    assert_eq!(gateway.get("/one").status, 401, "what is kept is behind the lock, too");
}

#[test]
fn clients_over_http2_share_what_is_kept() {
    let app = Upstream::start(|_| Answer::ok("kept").header("cache-control", "max-age=60"));
    let gateway = front(&app, "");
    let client = H2Client::connect(gateway.addr("web"));
    assert_eq!(client.get("http://test.example/one").body, b"kept");
    assert_eq!(client.get("http://test.example/one").body, b"kept");
    let response = gateway.client().request("GET", "/one").send();
    assert_eq!(response.text(), "kept");
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn what_outgrows_its_bound_reaches_everybody_whole() {
    let app = Upstream::start(|_| {
        Answer::ok("x".repeat(300_000)).chunked(10_000).header("cache-control", "max-age=60")
    });
    let gateway = front(&app, "max_object: 4KiB");
    for _ in 0..2 {
        let long = gateway.get("/long");
        assert_eq!((long.status, long.complete, long.body.len()), (200, true, 300_000));
    }
    assert_eq!(app.requests().len(), 2);
}

#[test]
fn a_reader_that_stops_keeps_nobody_else_waiting() {
    let app = Upstream::start(|_| {
        Answer::ok("x".repeat(8 << 20)).chunked(64_000).header("cache-control", "max-age=60")
    });
    let gateway = front(&app, "");
    let mut slow = gateway.client();
    slow.wire.shrink_receive_buffer();
    slow.send_raw("GET /long HTTP/1.1\r\nHost: test.example\r\n\r\n");
    assert_eq!(slow.read_head().status, 200);
    for _ in 0..2 {
        let other = gateway.get("/long");
        assert_eq!((other.status, other.complete, other.body.len()), (200, true, 8 << 20));
    }
}

#[test]
fn a_request_changes_nothing_for_others_by_what_it_is_itself() {
    let app =
        Upstream::start(|_| Answer::ok("good").header("cache-control", "max-age=60").header("etag", "\"a\""));
    let gateway = front(&app, "");
    assert_eq!(gateway.get("/one").text(), "good");
    let ask = |method: &str, name: &str, value: &str| {
        gateway.client().request(method, "/one").header(name, value).send()
    };
    assert_eq!(ask("HEAD", "cache-control", "no-cache").status, 200);
    assert_eq!(ask("GET", "authorization", "Basic eDp5").status, 200);
    let said = gateway.get("/one").headers.all("cache-status").join(", ");
    assert!(said.starts_with("tollgate; hit"), "{said}");
}

#[test]
fn an_interim_answer_does_not_switch_the_fallback_off() {
    let app = Upstream::raw(|mut wire: Wire| -> io::Result<()> {
        wire.read_line()?;
        wire.read_headers()?;
        wire.write(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy",
        )
    });
    let yaml =
        FRONT.replace("cache: { {{cache}} }", "fallback: { on: 5xx, try: { respond: { text: spare } } }");
    let gateway = Plan::new(&yaml).with("app", app.addr()).start();
    let answer = gateway.get("/one");
    assert_eq!((answer.status, answer.text().as_str()), (200, "spare"));
    assert_eq!(answer.header("tollgate-fallback"), Some("respond"));
}
