//! WebSockets from clients over HTTP/1.1 to targets over HTTP/1.1: every step runs before one is opened, nothing that is said
//! over it is lost, and it ends as its sides do or politely when the process leaves.

mod endings;
mod handshake;

use crate::harness::{
    Authority, Client, DEADLINE, GRANT, Gate, Gateway, Plan, Request, Response, StopAtEnd, TlsDial, Upstream,
    Wire, assert_eventually, eventually, handshake,
};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const OPEN: &str = r#"
version: 1
process: { drain: { requests: 100ms, streams: 1s } }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis:
  shop:
    auth: public
    body: { max: 1KiB }
    timeouts: { response: 5s, idle: 400ms, stream_idle: {{quiet}} }
    routes: { all: { match: "/**", to: app } }
"#;

fn opened(app: &Upstream) -> Gateway {
    Plan::new(OPEN).with("app", app.addr()).with("quiet", "1m").start()
}

fn open(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    client.send_raw(handshake("/", ""));
    assert_eq!(client.read_head().status, 101);
    client
}

/// A target that grants a WebSocket to everybody and then goes on as `script` says.
fn granting(script: impl Fn(Wire) -> io::Result<()> + Send + Sync + 'static) -> Upstream {
    Upstream::raw(move |mut wire| {
        let Some(_) = Request::read_head(&mut wire)? else { return Ok(()) };
        wire.write(GRANT)?;
        script(wire)
    })
}

fn echo() -> Upstream {
    granting(say_back)
}

fn say_back(mut wire: Wire) -> io::Result<()> {
    loop {
        let said = wire.read_some()?;
        if said.is_empty() {
            return Ok(());
        }
        wire.write(said)?;
    }
}

fn says_back(client: &mut Client, said: &str) {
    client.send_raw(said);
    assert_eq!(client.wire.read_exactly(said.len()).unwrap(), said.as_bytes());
}

/// The one line of the log that a tunnel leaves.
fn line(gateway: &Gateway) -> serde_json::Value {
    gateway.log_line(0)
}

#[test]
fn what_is_said_arrives_and_is_counted_once() {
    let app = echo();
    let gateway = opened(&app);
    let mut client = open(&gateway);
    for said in ["hello", "a second one", "\u{0}\u{1}\r\n\r\n"] {
        says_back(&mut client, said);
    }
    let streams = || gateway.metric("tollgate_active_streams");
    assert_eq!((streams() as u32, gateway.access_log().len()), (1, 0), "nothing is recorded before its end");
    drop(client);
    let line = line(&gateway);
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(101), None), "{line}");
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(23), Some(23)), "{line}");
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    assert_eventually(DEADLINE, "it is no stream any more", || streams() as u32 == 0);
    assert_eq!(gateway.metric("tollgate_http_requests_total{status=\"101\"}") as u32, 1);
}

#[test]
fn the_handshake_is_passed_on_and_nothing_else_about_the_connection() {
    let app = Upstream::raw(|mut wire| {
        let request = Request::read_head(&mut wire)?.unwrap();
        let fields = &request.headers;
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
            ("x-forwarded-for", "127.0.0.1"),
        ] {
            assert_eq!(fields.all(name), [value], "{name}");
        }
        assert!(fields.first("x-hop").is_none() && fields.first("transfer-encoding").is_none());
        let more = "keep-alive: timeout=5\r\nconnection: x-hop\r\nx-hop: 1\r\ncontent-length: 7\r\n";
        wire.write(GRANT.replacen("\r\n", &format!("\r\n{more}"), 1))?;
        say_back(wire)
    });
    let gateway = opened(&app);
    let mut client = gateway.client();
    client.send_raw(handshake(
        "/",
        "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\nconnection: x-hop\r\nx-hop: 1\r\n",
    ));
    let granted = client.read_head();
    assert_eq!(granted.status, 101);
    for (name, value) in [
        ("connection", Some("Upgrade")),
        ("upgrade", Some("websocket")),
        ("sec-websocket-accept", Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
        ("sec-websocket-protocol", Some("chat")),
        ("keep-alive", None),
        ("x-hop", None),
        ("content-length", None),
    ] {
        assert_eq!(granted.header(name), value, "{name}");
    }
    assert!(granted.header("x-request-id").is_some());
    says_back(&mut client, "hello");
}

#[test]
fn what_comes_along_with_a_head_is_not_lost() {
    let app = Upstream::raw(|mut wire| {
        let Some(_) = Request::read_head(&mut wire)? else { return Ok(()) };
        wire.write("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_owned() + GRANT + "welcome")?;
        say_back(wire)
    });
    let gateway = opened(&app);
    for (with, later) in [("all at once", ""), ("some", " and the rest"), ("", "later")] {
        let mut client = gateway.client();
        client.send_raw(handshake("/", "") + with);
        client.send_raw(later);
        let head = client.read_head();
        assert_eq!((head.status, head.interim), (101, vec![103]));
        let wanted = format!("welcome{with}{later}");
        assert_eq!(client.wire.read_exactly(wanted.len()).unwrap(), wanted.as_bytes());
    }
}

/// What a client sends while the target still thinks about the handshake.
#[test]
fn what_is_said_too_early_is_kept() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::raw(move |mut wire| {
        let Some(_) = Request::read_head(&mut wire)? else { return Ok(()) };
        held.wait();
        wire.write(GRANT)?;
        say_back(wire)
    });
    let gateway = opened(&app);
    let mut client = gateway.client();
    client.send_raw(handshake("/", "") + "1");
    let mut wanted = vec![b'1'];
    for piece in [&b"2"[..], b"345", &[b'6'; 30_000]] {
        client.send_raw(piece);
        wanted.extend_from_slice(piece);
        std::thread::sleep(Duration::from_millis(20));
    }
    gate.open();
    assert_eq!(client.read_head().status, 101);
    assert!(client.wire.read_exactly(wanted.len()).unwrap() == wanted);
}

/// Bytes without a pattern that a mix-up could hide in.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A connection whose two directions are used by two threads.
fn both_ways(gateway: &Gateway) -> (TcpStream, TcpStream) {
    let mut stream = TcpStream::connect(gateway.addr("web")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(handshake("/", "").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    (stream.try_clone().unwrap(), stream)
}

#[test]
fn large_messages_go_both_ways_at_once() {
    let app = echo();
    let gateway = opened(&app);
    let message = noise(1 << 20, 0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (mut sends, mut reads) = both_ways(&gateway);
            let message = &message;
            scope.spawn(move || {
                for _ in 0..8 {
                    sends.write_all(message).unwrap();
                }
                sends.shutdown(std::net::Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let mut all = Vec::new();
                reads.read_to_end(&mut all).unwrap();
                assert_eq!(all.len(), 8 * message.len());
                assert!(all.chunks(message.len()).all(|chunk| chunk == &message[..]));
            });
        }
    });
    let line = line(&gateway);
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(8 << 20), Some(8 << 20)));
}

#[test]
fn the_last_word_of_one_side_leaves_the_other_its_own() {
    let app = granting(|mut wire| {
        let mut all = Vec::new();
        wire.read_to_end(&mut all)?;
        wire.write(format!("{} bytes", all.len()))
    });
    let gateway = opened(&app);
    let mut client = open(&gateway);
    client.send_raw("some bytes");
    client.wire.half_close();
    assert_eq!(client.wire.read_exactly(8).unwrap(), b"10 bytes");
    client.wire.expect_closed();
    assert_eq!(line(&gateway)["reason"].as_str(), None);

    let (heard, hears) = std::sync::mpsc::channel();
    let app = granting(move |mut wire| {
        wire.write("bye")?;
        wire.half_close();
        let mut all = Vec::new();
        wire.read_to_end(&mut all)?;
        heard.send(all).map_err(io::Error::other)
    });
    let gateway = opened(&app);
    let mut client = open(&gateway);
    assert_eq!(client.wire.read_exactly(3).unwrap(), b"bye");
    client.wire.expect_closed();
    client.send_raw("one more thing");
    drop(client);
    assert_eq!(hears.recv_timeout(DEADLINE).unwrap(), b"one more thing");
}

#[test]
fn a_refusal_is_passed_on_and_the_connection_kept() {
    let app = Upstream::start(|request| match request.path() {
        "/ws" => crate::harness::Answer::new(403, "not here").header("sec-websocket-version", "13"),
        _ => crate::harness::Answer::echo(request),
    });
    let gateway = opened(&app);
    let mut client = gateway.client();
    client.send_raw(handshake("/ws", ""));
    let refused = client.read("GET");
    assert_eq!((refused.status, refused.text().as_str(), refused.kept_alive), (403, "not here", true));
    assert_eq!(refused.header("sec-websocket-version"), Some("13"));
    assert_eq!(client.get("/other").status, 200);
    assert_eq!(app.connections(), 1, "the target's connection is kept as well");
}

#[test]
fn steps_run_before_a_websocket_is_opened() {
    let app = echo();
    let gateway = Plan::new(
        r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
auth: { keys: { api_key: {} } }
consumers: { acme: { keys: "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed" } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis: { shop: { auth: keys, limits: 2/h per consumer, routes: { all: { match: "/**", to: app } } } }
"#,
    )
    .with("app", app.addr())
    .start();
    let ask = |fields: &str| -> (Client, Response) {
        let mut client = gateway.client();
        client.send_raw(handshake("/", fields));
        let head = client.read_head();
        (client, head)
    };
    let refused = ask("").1;
    assert_eq!((refused.status, refused.kept_alive), (401, true));
    let (mut one, granted) = ask("x-api-key: one\r\n");
    assert_eq!(granted.status, 101);
    for _ in 0..5 {
        says_back(&mut one, "what is said over it is no request");
    }
    let (mut two, granted) = ask("x-api-key: one\r\n");
    assert_eq!(granted.status, 101);
    says_back(&mut two, "hello");
    assert_eq!(ask("x-api-key: one\r\n").1.status, 429);
}

#[test]
fn a_side_that_is_reset_ends_the_other() {
    let app = granting(|mut wire| {
        wire.write("last")?;
        wire.read_some()?;
        wire.reset();
        Ok(())
    });
    let gateway = opened(&app);
    let mut client = open(&gateway);
    assert_eq!(client.wire.read_exactly(4).unwrap(), b"last");
    client.send_raw("go");
    client.wire.expect_closed();
    let line = gateway.log_line(0);
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(101), Some("upstream-closed")));

    let (ended, ends) = std::sync::mpsc::channel();
    let app = granting(move |mut wire| {
        wire.read_exactly(2)?;
        let end = wire.read_some();
        ended.send(end.map(|rest| rest.len())).map_err(io::Error::other)
    });
    let gateway = opened(&app);
    let client = {
        let mut client = open(&gateway);
        client.send_raw("hi");
        client
    };
    client.wire.reset();
    let end = ends.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    assert_eq!(gateway.log_line(0)["reason"].as_str(), Some("client-gone"));
}

#[test]
fn a_slow_reader_holds_up_the_writer_and_no_memory() {
    const ALL: usize = 64 << 20;
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let app = granting(move |mut wire| {
        for _ in 0..ALL >> 16 {
            wire.write(vec![7; 1 << 16])?;
            counted.fetch_add(1 << 16, Ordering::SeqCst);
        }
        Ok(())
    });
    let gateway = opened(&app);
    let before = gateway.resident_bytes();
    let mut client = open(&gateway);
    let stuck = eventually(DEADLINE, "the writer is held up", || {
        let now = sent.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(150));
        (now > 0 && sent.load(Ordering::SeqCst) == now).then_some(now)
    });
    assert!((stuck as usize) < ALL / 2, "{stuck} bytes were taken that nobody reads");
    let grown = gateway.resident_bytes().saturating_sub(before);
    // Far less than what the target had to say; what a process touches first under load is a few MiB.
    assert!(grown < 16 << 20, "{grown} bytes more");
    let mut all = Vec::new();
    client.wire.read_to_end(&mut all).unwrap();
    assert!(all.len() == ALL && all.iter().all(|byte| *byte == 7));
}

#[test]
fn clients_may_speak_tls() {
    let (app, authority) = (echo(), Authority::new("authority"));
    let leaf = authority.leaf("a.test");
    let yaml = OPEN.replace("0\" }", "0\", tls: { certs: [{ cert: a.pem, key: a.key }] } }");
    let plan = Plan::new(&yaml).with("app", app.addr()).with("quiet", "1m");
    let gateway = plan.file("a.pem", leaf.cert.clone()).file("a.key", leaf.key.clone()).start();
    let mut client = TlsDial::new(&authority).connect(gateway.addr("web"), "a.test").client;
    client.send_raw(handshake("/", "") + "early");
    assert_eq!(client.read_head().status, 101);
    assert_eq!(client.wire.read_exactly(5).unwrap(), b"early");
    for seed in 0..8 {
        let said = noise(1 << 16, seed);
        client.send_raw(&said);
        assert!(client.wire.read_exactly(said.len()).unwrap() == said);
    }
}

/// The engine tears a tunnel down when the 101 comes before it has noted the end of the request (cloudflare/pingora#946).
/// Here it is there before the request.
#[test]
fn a_target_may_be_as_fast_as_it_likes() {
    let app = Upstream::raw(|mut wire| {
        wire.write(GRANT)?;
        Request::read_head(&mut wire)?;
        say_back(wire)
    });
    let gateway = opened(&app);
    for number in 0..50 {
        says_back(&mut open(&gateway), &format!("hello {number}"));
    }
}

/// The same as it happens to people.
#[test]
fn tunnels_opened_under_load_all_live() {
    let app = Upstream::raw(|mut wire| {
        while let Some(request) = Request::read_head(&mut wire)? {
            if request.headers.first("upgrade").is_some() {
                wire.write(GRANT)?;
                return say_back(wire);
            }
            wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        }
        Ok(())
    });
    let gateway = Plan::new(&OPEN.replace("idle: 400ms", "idle: 20s"))
        .with("app", app.addr())
        .with("quiet", "1m")
        .start();
    let (stop, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/x").status, 200);
                }
            });
        }
        let opening: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    let mut tunnels: Vec<Client> = (0..10).map(|_| open(&gateway)).collect();
                    opened.fetch_add(tunnels.len(), Ordering::SeqCst);
                    assert_eventually(DEADLINE, "all are open", || opened.load(Ordering::SeqCst) == 100);
                    for number in 0..3 {
                        for client in &mut tunnels {
                            says_back(client, &format!("still here {number}"));
                        }
                    }
                })
            })
            .collect();
        for one in opening {
            one.join().unwrap();
        }
    });
}
