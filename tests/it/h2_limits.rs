//! What an HTTP/2 client may do, and what becomes of one that does more.

use crate::harness::h2_raw::{
    ACK, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, NO_ERROR, RawH2, frame, kind, request,
};
use crate::harness::{
    Answer, Authority, DEADLINE, Gateway, H2Client, Plan, TlsDial, Upstream, assert_eventually,
};
use std::time::{Duration, Instant};
use tokio_rustls::rustls::version::TLS13;

const INITIAL_WINDOW_SIZE: u16 = 4;

fn front(limits: &str, target: &Upstream) -> Gateway {
    let yaml = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0", protocols: [http/1.1, h2c], LIMITS } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis:
  all:
    auth: public
    routes:
      own: { match: /own, to: { respond: { text: "0123456789" } } }
      all: { match: "/**", to: app }
"#;
    Plan::new(&yaml.replace("LIMITS", limits)).with("app", target.addr()).start()
}

fn raw(gateway: &Gateway) -> RawH2 {
    RawH2::over(gateway.client())
}

fn cut_off(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("tollgate_refused_connections_total{{listener=\"web\",reason=\"{reason}\"}}"))
}

#[test]
fn a_connection_carries_so_many_requests() {
    let target = Upstream::echo();
    let gateway = front("limits: { h2_requests: 3 }", &target);
    let mut client = raw(&gateway);
    for stream in [1, 3, 5] {
        client.get(stream, "/");
    }
    let (mut answered, mut told) = (0, Vec::new());
    while let Some(frame) = client.next() {
        match frame.kind {
            kind::HEADERS => answered += 1,
            kind::GOAWAY => told.push((frame.number(0), frame.number(4))),
            _ => {}
        }
    }
    assert_eq!(answered, 3);
    assert_eq!(told, [(0x7fff_ffff, NO_ERROR), (5, NO_ERROR)], "told in time, and which was the last");
}

#[test]
fn who_resets_what_it_opens_is_left() {
    let target = Upstream::echo();
    let opened = |gateway: &Gateway| {
        let mut client = raw(gateway);
        for number in 0..40 {
            client.get(1 + 2 * number, "/");
            // One at a time, so that each has been accepted.
            let reset = client.round_trip();
            client.send(kind::RST_STREAM, 0, 1 + 2 * number, &8u32.to_be_bytes());
            if !reset || !client.round_trip() {
                return (number, client);
            }
        }
        (40, client)
    };
    let gateway = front("limits: { h2_resets: 20/h }", &target);
    let (number, _client) = opened(&gateway);
    assert_eq!(number, 20);
    assert_eq!(cut_off(&gateway, "h2_resets"), 1.0);
    assert_eq!(H2Client::connect(gateway.addr("web")).get("http://a.test/").status, 200, "others are served");
    let behind_a_proxy = front("trusted_proxies: [127.0.0.1], limits: { h2_resets: 20/h }", &target);
    assert_eq!(opened(&behind_a_proxy).0, 40);
}

#[test]
fn frames_that_ask_for_nothing_are_counted() {
    let target = Upstream::echo();
    let gateway = front("limits: { h2_frames: 100/h }", &target);
    let floods = [
        (kind::PING, 0, 0, &[0; 8][..]),
        (kind::PING, ACK, 0, &[0; 8]),
        (kind::SETTINGS, 0, 0, &[]),
        (kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 0]),
        (kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        (0x77, 0, 0, b"who knows"),
    ];
    for (number, (kind, flags, stream, payload)) in floods.into_iter().enumerate() {
        let mut client = raw(&gateway);
        let _gone = client.0.write(frame(kind, flags, stream, payload).repeat(300));
        assert_eq!(client.ended(), Some(ENHANCE_YOUR_CALM), "type {kind}");
        assert_eq!(cut_off(&gateway, "h2_frames"), (number + 1) as f64);
    }
    assert_eq!(H2Client::connect(gateway.addr("web")).get("http://a.test/").status, 200, "others are served");
}

#[test]
fn who_takes_much_may_open_its_window_often() {
    let target = Upstream::start(|_| Answer::ok(vec![b'x'; 4 << 20]));
    let gateway = front("limits: { h2_frames: 100/h }", &target);
    let mut client = raw(&gateway);
    client.get(1, "/");
    let (mut taken, mut opened) = (0, 0);
    loop {
        let frame = client.expect(kind::DATA);
        taken += frame.payload.len();
        if frame.flags & END_STREAM > 0 {
            break;
        }
        for stream in [0, 1] {
            let length = u32::try_from(frame.payload.len()).unwrap().max(1);
            client.send(kind::WINDOW_UPDATE, 0, stream, &length.to_be_bytes());
            opened += 1;
        }
    }
    assert_eq!(taken, 4 << 20);
    assert!(opened > 200, "{opened}");
}

#[test]
fn what_the_library_knows_of_is_refused_too() {
    let target = Upstream::echo();
    let gateway = front("normalize: strict", &target);
    let mut client = raw(&gateway);
    client.send(kind::HEADERS, END_STREAM, 1, &request("GET", "/"));
    let _gone = client.0.write(frame(kind::CONTINUATION, 0, 1, b"").repeat(1000));
    assert_eq!(client.ended(), Some(ENHANCE_YOUR_CALM), "CONTINUATION without end");
    let mut client = raw(&gateway);
    client.send(kind::HEADERS, END_HEADERS, 1, &request("POST", "/"));
    let _gone = client.0.write(frame(kind::DATA, 0, 1, b"").repeat(1000));
    assert_eq!(client.ended(), Some(ENHANCE_YOUR_CALM), "DATA without data");
    // A field of 4,000 bytes, and then the same one out of the table again and again.
    let mut bomb = request("GET", "/");
    bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend([b'x'; 4000]);
    bomb.extend([0xbe; 8000]);
    let mut client = raw(&gateway);
    client.send(kind::HEADERS, END_STREAM | END_HEADERS, 1, &bomb);
    let answer = client.next_of(&[kind::HEADERS, kind::RST_STREAM, kind::GOAWAY]);
    assert!(answer.is_some(), "refused, not passed over");
    assert_eq!(target.requests().len(), 0);
    assert_eq!(H2Client::connect(gateway.addr("web")).get("http://a.test/").status, 200, "others are served");
}

#[test]
fn a_hundred_heads_with_too_many_fields_are_refused_one_by_one() {
    let target = Upstream::echo();
    let gateway = front("limits: { h2_streams: 100 }", &target);
    let mut client = raw(&gateway);
    let mut block = request("GET", "/");
    for number in 0..1000 {
        block.extend([0, 4]);
        block.extend(format!("x{number:03}").as_bytes());
        block.extend([1, b'y']);
    }
    for number in 0..100 {
        client.send(kind::HEADERS, END_STREAM | END_HEADERS, 1 + 2 * number, &block);
    }
    for _ in 0..100 {
        client.expect(kind::HEADERS);
    }
    client.get(201, "/own");
    assert_eq!(client.next_of(&[kind::HEADERS]).map(|it| it.stream), Some(201), "the connection goes on");
    let refused = |line: &serde_json::Value| line["status"] == 431 && line["reason"] == "headers-too-large";
    assert_eventually(DEADLINE, "a hundred lines", || {
        gateway.access_log().iter().filter(|line| refused(line)).count() == 100
    });
}

#[test]
fn who_opens_no_window_is_left() {
    let target = Upstream::start(|_| Answer::ok(vec![b'x'; 1 << 20]));
    let gateway = front("limits: { send_idle: 1s }", &target);
    let mut client = RawH2::with_settings(gateway.client(), &[(INITIAL_WINDOW_SIZE, 0)]);
    // Of a target, of our own, and of nobody.
    for (stream, path) in [(1, "/"), (3, "/own"), (5, "/../")] {
        client.get(stream, path);
    }
    let mut reset: Vec<u32> = (0..3).map(|_| client.expect(kind::RST_STREAM).stream).collect();
    reset.sort_unstable();
    assert_eq!(reset, [1, 3, 5]);
    assert_eventually(DEADLINE, "nothing to be in flight", || {
        gateway.metric("tollgate_active_requests") < 1.0
    });
    client.get(7, "/own");
    client.send(kind::WINDOW_UPDATE, 0, 7, &[0, 0, 0, 100]);
    assert_eq!(client.expect(kind::DATA).payload, b"0123456789", "the connection is as good as before");
}

#[test]
fn a_body_has_a_least_rate_over_http2_too() {
    let target = Upstream::echo();
    let gateway = front("limits: { body_rate: 1KiB }", &target);
    let mut client = raw(&gateway);
    let began = Instant::now();
    client.send(kind::HEADERS, END_HEADERS, 1, &request("POST", "/a"));
    loop {
        if client.0.has_more() && client.next().is_none_or(|it| it.kind == kind::HEADERS) {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "no answer");
        client.send(kind::DATA, 0, 1, b"some bytes");
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(12), "{took:?}");
    let line = gateway.log_line(0);
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(408), Some("client-timeout")));
}

#[test]
fn an_idle_connection_is_told_goodbye() {
    let target = Upstream::echo();
    let gateway = front("limits: { keepalive: 1s }", &target);
    let mut idle = raw(&gateway);
    idle.get(1, "/own");
    idle.expect(kind::DATA);
    let began = Instant::now();
    assert_eq!(idle.ended(), Some(NO_ERROR));
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    let mut half = raw(&gateway);
    assert!(half.round_trip());
    half.send(kind::HEADERS, END_STREAM, 1, &request("GET", "/"));
    assert_eq!(half.ended(), Some(NO_ERROR), "half a head is nothing");
    let mut pinging = raw(&gateway);
    let began = Instant::now();
    while pinging.round_trip() {
        assert!(began.elapsed() < DEADLINE, "PING keeps it");
        std::thread::sleep(Duration::from_millis(50));
    }
    // A connection with something to do is not idle.
    let slow = Upstream::start(|_| {
        std::thread::sleep(Duration::from_millis(2500));
        Answer::ok("late")
    });
    let gateway = front("limits: { keepalive: 1s }", &slow);
    assert_eq!(H2Client::connect(gateway.addr("web")).get("http://a.test/").body, b"late");
}

#[test]
fn who_only_shakes_hands_is_left() {
    let authority = Authority::new("authority");
    let leaf = authority.leaf("one.test");
    let gateway = Plan::new(
        r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0", limits: { header_timeout: 1s }, tls: { certs: [{ cert: a.pem, key: a.key }] } } }
apis: { all: { auth: public, routes: { all: { match: "/**", to: { respond: { text: ok } } } } } }
"#,
    )
    .file("a.pem", leaf.cert.clone())
    .file("a.key", leaf.key.clone())
    .start();
    let dial = TlsDial::with(&authority, None, &[&TLS13], &[b"h2"]);
    let mut client = dial.connect(gateway.addr("web"), "one.test").client;
    let mut settings = Vec::new();
    client.wire.read_to_end(&mut settings).unwrap();
    assert_eq!(settings.get(3), Some(&kind::SETTINGS), "{settings:?}");
    assert_eventually(DEADLINE, "no connection", || {
        gateway.metric("tollgate_active_connections{listener=\"web\"}") < 1.0
    });
}
