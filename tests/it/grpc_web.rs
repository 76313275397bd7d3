//! gRPC-Web: clients that see no trailers, before upstreams that speak gRPC.

use crate::harness::{
    Call, DEADLINE, Gate, Gateway, H2Answer, H2Client, H2Target, H2Upstream, Plan, Response,
    assert_eventually, grpc_message,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::Reason;
use http::Request;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const FRONT: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0", protocols: [http/1.1, h2c] } }
upstreams: { app: { targets: ["{{app}}"], protocol: grpc, health: none } }
apis:
  shop:
    auth: public
    grpc_web: true
    compress: true
    cors: { origins: ["https://app.test"], expose: [grpc-status, grpc-message] }
    routes:
      prices: { match: "POST /shop.Prices/{method}", to: app }
      native: { match: "POST /shop.Native/{method}", grpc_web: false, to: app }
"#;

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

fn before(app: SocketAddr) -> Gateway {
    Plan::new(FRONT).with("app", app).start()
}

fn post(gateway: &Gateway, method: &str, kind: &str, body: impl Into<Vec<u8>>) -> Response {
    let mut client = gateway.client();
    client.request("POST", &format!("/shop.Prices/{method}")).header("content-type", kind).body(body).send()
}

fn trailers(text: &str) -> Vec<u8> {
    let mut frame = grpc_message(text.as_bytes());
    frame[0] = 0x80;
    frame
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What base64 in several runs stands for.
fn bytes_of(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|quantum| STANDARD.decode(quantum).unwrap()).collect()
}

#[test]
fn a_call_in_bytes_is_translated_for_clients_over_http1_and_http2() {
    let target = H2Upstream::grpc_echo();
    let gateway = before(target.addr());
    let expected = [grpc_message(b"hello"), trailers("grpc-status: 0\r\n")].concat();
    let response = post(&gateway, "Get", BINARY, grpc_message(b"hello"));
    assert_eq!((response.status, &response.body), (200, &expected));
    assert_eq!(response.header("content-type"), Some(BINARY));
    assert!(response.kept_alive && response.complete);
    let request =
        Request::post("http://a.test/shop.Prices/Get").header("content-type", "application/grpc-web");
    let request = request.header("accept", "*/*").header("accept-encoding", "gzip").body(()).unwrap();
    let answer = H2Client::connect(gateway.addr("web")).send(request, &grpc_message(b"hello"));
    assert_eq!((answer.body, answer.headers["content-type"].as_bytes()), (expected, BINARY.as_bytes()));
    assert!(answer.trailers.is_empty() && !answer.headers.contains_key("content-encoding"));
    for seen in target.requests() {
        let field = |name: &str| seen.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(field("content-type").as_deref(), Some("application/grpc+proto"));
        assert_eq!((field("te").as_deref(), field("accept")), (Some("trailers"), None));
        assert_eq!(seen.body(), &grpc_message(b"hello"));
    }
}

#[test]
fn a_call_in_text_is_translated() {
    let target = H2Upstream::grpc_echo();
    let gateway = before(target.addr());
    for size in [0, 1, 2, 3, 100_000] {
        let message: Vec<u8> = (0..size).map(|number: usize| number as u8).collect();
        let said = base64(&grpc_message(&message));
        let response = post(&gateway, "Get", TEXT, said.clone());
        assert_eq!((response.status, response.header("content-type")), (200, Some(TEXT)), "{size}");
        let expected = [grpc_message(&message), trailers("grpc-status: 0\r\n")].concat();
        assert!(bytes_of(&response.body) == expected, "{size}");
        // In pieces that end within a group of characters.
        let mut client = gateway.client();
        let ask = client.request("POST", "/shop.Prices/Get").header("content-type", TEXT);
        let response =
            ask.header("accept", "application/grpc-web").chunks(said.as_bytes().chunks(4095)).send();
        assert_eq!(response.header("content-type"), Some(BINARY), "what is accepted");
        assert!(response.body == expected, "{size}");
    }
    assert!(target.requests().iter().all(|seen| !seen.headers().contains_key("content-length")));
}

#[test]
fn a_stream_in_text_is_not_held_back() {
    let gate = Gate::default();
    let held = gate.clone();
    let target = H2Target::start(None, move |mut call: Call| {
        let held = held.clone();
        async move {
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut body = call.respond.send_response(head, false)?;
            // Six bytes and one more.
            body.send_data(grpc_message(b"ab").into(), false)?;
            tokio::task::block_in_place(|| held.wait());
            body.send_data(grpc_message(b"c").into(), false)?;
            body.send_trailers([("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect())
        }
    });
    let gateway = before(target.addr());
    let mut client = gateway.client();
    let ask = client.request("POST", "/shop.Prices/Watch").header("content-type", TEXT);
    ask.body(base64(&grpc_message(b"x"))).send_only();
    assert_eq!(client.read_head().status, 200);
    let mut text = Vec::new();
    while bytes_of(&text).len() < grpc_message(b"ab").len() {
        assert!(client.wire.read_chunk(&mut text).unwrap());
    }
    assert_eq!(bytes_of(&text), grpc_message(b"ab"), "before the next message is there");
    gate.open();
    while client.wire.read_chunk(&mut text).unwrap() {}
    let all = [grpc_message(b"ab"), grpc_message(b"c"), trailers("grpc-status: 0\r\n")].concat();
    assert_eq!(bytes_of(&text), all);
}

#[test]
fn metadata_and_a_status_with_details_are_in_the_last_frame() {
    let target = H2Upstream::start(|_| {
        H2Answer::grpc(b"part", 9)
            .header("x-head-bin", "AAE")
            .trailer("grpc-message", "no%20more")
            .trailer("x-details-bin", "AAEC")
    });
    let gateway = before(target.addr());
    let response = post(&gateway, "Get", BINARY, grpc_message(b""));
    let last = trailers("grpc-status: 9\r\ngrpc-message: no%20more\r\nx-details-bin: AAEC\r\n");
    assert_eq!(response.body, [grpc_message(b"part"), last].concat());
    assert_eq!(response.header("x-head-bin"), Some("AAE"));
}

#[test]
fn an_answer_of_nothing_but_trailers_has_them_in_its_head() {
    let target = H2Target::start(None, |mut call: Call| async move {
        let head =
            http::Response::builder().header("content-type", "application/grpc").header("grpc-status", "5");
        call.respond.send_response(head.body(()).unwrap(), true).map(drop)
    });
    let gateway = before(target.addr());
    for (kind, body) in [(BINARY, grpc_message(b"")), (TEXT, base64(&grpc_message(b"")).into_bytes())] {
        let response = post(&gateway, "Get", kind, body);
        assert_eq!((response.status, response.header("grpc-status")), (200, Some("5")));
        assert_eq!(
            (response.header("content-type"), response.header("content-length")),
            (Some(kind), Some("0"))
        );
        assert!(response.kept_alive && response.body.is_empty());
    }
}

#[test]
fn pages_of_other_origins_can_call_and_read_the_status() {
    let target = H2Upstream::grpc_echo();
    let gateway = before(target.addr());
    let mut client = gateway.client();
    let preflight = client
        .request("OPTIONS", "/shop.Prices/Get")
        .header("origin", "https://app.test")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,grpc-timeout,x-grpc-web,x-user-agent")
        .send();
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-origin")),
        (204, Some("https://app.test"))
    );
    let ask = client.request("POST", "/shop.Prices/Get").header("content-type", BINARY);
    let response = ask.header("origin", "https://app.test").body(grpc_message(b"x")).send();
    assert_eq!(response.header("access-control-allow-origin"), Some("https://app.test"));
    assert_eq!(response.header("access-control-expose-headers"), Some("grpc-status, grpc-message"));
}

#[test]
fn what_is_no_base64_is_refused() {
    let target = H2Upstream::grpc_echo();
    let gateway = before(target.addr());
    for wrong in ["no base64 at all", "AAA", "AAAA="] {
        let response = post(&gateway, "Get", TEXT, wrong);
        assert_eq!((response.status, response.header("grpc-status")), (200, Some("3")), "{wrong}");
        assert_eq!(response.header("content-type"), Some("application/grpc-web-text"));
    }
    assert!(target.requests().is_empty());
    assert_eq!(gateway.log_line(0)["reason"], "bad-request");
}

#[test]
fn a_call_that_fails_midway_ends_with_a_frame_where_one_can_stand() {
    let target = H2Target::start(None, |mut call: Call| async move {
        let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut body = call.respond.send_response(head, false)?;
        let mut message = grpc_message(b"one");
        if call.request.uri().path().ends_with("Part") {
            message.truncate(6);
        }
        body.send_data(message.into(), false)?;
        // It must be on its way before the end is.
        tokio::time::sleep(Duration::from_millis(200)).await;
        body.send_reset(Reason::INTERNAL_ERROR);
        Ok(())
    });
    let gateway = before(target.addr());
    let why = "grpc-status: 13\r\ngrpc-message: The server behind the gateway closed the connection\r\n";
    let whole = [grpc_message(b"one"), trailers(why)].concat();
    let mut client = gateway.client();
    for _ in 0..2 {
        let ask = client.request("POST", "/shop.Prices/Whole").header("content-type", BINARY);
        let response = ask.body(grpc_message(b"")).send();
        assert_eq!((&response.body, response.complete, response.kept_alive), (&whole, true, true));
    }
    let response = post(&gateway, "Whole", TEXT, base64(&grpc_message(b"")));
    assert_eq!((bytes_of(&response.body), response.complete), (whole, true));
    let response = post(&gateway, "Part", BINARY, grpc_message(b""));
    assert_eq!(
        (response.body.len(), response.complete),
        (6, false),
        "within a message there is no place for it"
    );
    let line = gateway.log_line(3);
    assert_eq!((&line["reason"], &line["status"]), (&"upstream-closed".into(), &200.into()));
}

#[test]
fn the_time_of_a_call_is_kept() {
    let target = H2Target::start(None, |mut call: Call| async move {
        std::future::poll_fn(|cx| call.respond.poll_reset(cx)).await.map(drop)
    });
    let gateway = before(target.addr());
    let mut client = gateway.client();
    let ask = client.request("POST", "/shop.Prices/Wait").header("content-type", TEXT);
    let response = ask.header("grpc-timeout", "300m").body(base64(&grpc_message(b""))).send();
    assert_eq!(
        (response.header("grpc-status"), response.header("content-type")),
        (Some("4"), Some("application/grpc-web-text"))
    );
    assert_eq!(gateway.log_line(0)["reason"], "deadline-exceeded");
}

#[test]
fn text_that_is_sent_again_is_translated_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let target = H2Target::start(None, move |mut call: Call| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let mut said = call.request.into_body();
            let mut message = Vec::new();
            while let Some(piece) = said.data().await {
                let piece = piece?;
                said.flow_control().release_capacity(piece.len())?;
                message.extend_from_slice(&piece);
            }
            if first {
                call.respond.send_reset(Reason::REFUSED_STREAM);
                return Ok(());
            }
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            call.respond.send_response(head, false)?.send_data(message.into(), true)
        }
    });
    let gateway = before(target.addr());
    let response = post(&gateway, "Get", TEXT, base64(&grpc_message(b"once more")));
    assert_eq!((bytes_of(&response.body), seen.load(Ordering::SeqCst)), (grpc_message(b"once more"), 2));
}

#[test]
fn where_it_is_off_and_where_nobody_asks_for_it_nothing_is_changed() {
    let target = H2Upstream::grpc_echo();
    let gateway = before(target.addr());
    let client = H2Client::connect(gateway.addr("web"));
    for (path, kind) in [("/shop.Native/Get", BINARY), ("/shop.Prices/Get", "application/grpc")] {
        let request = Request::post(format!("http://a.test{path}")).header("content-type", kind);
        let answer = client.send(request.header("accept", "x/y").body(()).unwrap(), &grpc_message(b"hi"));
        assert_eq!(
            (answer.body, answer.headers["content-type"].as_bytes()),
            (grpc_message(b"hi"), &b"application/grpc"[..])
        );
        assert_eq!(answer.trailers["grpc-status"], "0");
        let seen = target.requests().pop().unwrap();
        assert_eq!(
            (seen.headers()["content-type"].as_bytes(), seen.headers()["accept"].as_bytes()),
            (kind.as_bytes(), &b"x/y"[..])
        );
    }
}

#[test]
fn a_mirror_gets_the_call_as_the_upstream_does() {
    let (app, shadow) = (H2Upstream::grpc_echo(), H2Upstream::grpc_echo());
    let yaml = FRONT
        .replace("none } }", "none }, shadow: { targets: [\"{{shadow}}\"], protocol: grpc, health: none } }")
        .replace("grpc_web: true", "grpc_web: true\n    mirror: { to: shadow }");
    let gateway = Plan::new(&yaml).with("app", app.addr()).with("shadow", shadow.addr()).start();
    let response = post(&gateway, "Get", TEXT, base64(&grpc_message(b"hello")));
    assert_eq!(response.status, 200);
    assert_eventually(DEADLINE, "the copy arrives", || !shadow.requests().is_empty());
    let (sent, copy) = (app.requests().remove(0), shadow.requests().remove(0));
    assert_eq!((copy.body(), &copy.headers()["te"]), (sent.body(), &sent.headers()["te"]));
    assert_eq!(copy.headers()["content-type"], "application/grpc+proto");
}

#[test]
fn explain_tells_of_the_translation() {
    let plan = Plan::new(FRONT).with("app", "127.0.0.1:3001");
    let args = ["explain", "-c", "tollgate.yaml", "--no-color", "--trace", "-H"];
    let of = |kind: &str| {
        let field = format!("content-type: {kind}");
        let ran = plan.run(&[&args[..], &[&field, "POST", "http://a.test/shop.Prices/Get"]].concat());
        assert_eq!(ran.code, 0, "{ran:#?}");
        ran.stdout
    };
    let web = of(TEXT);
    assert!(web.contains("translated from application/grpc-web-text"), "{web}");
    assert!(web.contains("content-type: application/grpc+proto"), "{web}");
    assert!(!of("application/grpc").contains("translated"));
}
