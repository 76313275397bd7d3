//! Every kind of request passes through `auth`: none reaches the upstream without a credential, whatever its form, and a
//! refusal costs the client neither its connection nor a body sent for nothing.

use crate::harness::{
    Client, DEADLINE, Gateway, H2Client, Plan, Upstream, assert_eventually, grpc_message, handshake,
};
use std::io::ErrorKind;
use std::time::Duration;

/// `one` is the key of `acme`.
const CONFIG: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
auth: { keys: { api_key: {} } }
consumers: { acme: { keys: "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed" } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis: { shop: { auth: keys, body: { max: 64MiB }, routes: { all: { match: "/**", to: app } } } }
"#;

fn gateway(app: &Upstream) -> Gateway {
    Plan::new(CONFIG).with("app", app.addr()).start()
}

/// Sends these bytes and reads an answer; then a good request over the same connection.
#[track_caller]
fn refused_and_kept(gateway: &Gateway, app: &Upstream, bytes: &str) {
    let mut client = gateway.client();
    client.send_raw(bytes);
    let response = client.read(bytes.split(' ').next().unwrap());
    assert_eq!((response.status, response.kept_alive), (401, true), "{bytes:?}");
    assert!(response.header("www-authenticate").is_some(), "{bytes:?}");
    assert!(app.requests().is_empty(), "{bytes:?}");
    assert_eq!(client.request("GET", "/unknown").header("x-api-key", "two").send().status, 401, "{bytes:?}");
}

#[test]
fn no_form_of_request_goes_round() {
    let app = Upstream::echo();
    let gateway = gateway(&app);
    for bytes in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n",
        "OPTIONS /a HTTP/1.1\r\nhost: a\r\n\r\n",
        "OPTIONS /a HTTP/1.1\r\nhost: a\r\norigin: https://b.example\r\naccess-control-request-method: PUT\r\n\r\n",
        "PURGE / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://a/b?c HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET //a/../b HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody",
        "GET / HTTP/1.1\r\nhost: a\r\nx-api-key: two\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx-api-key: one\r\nconnection: x-api-key\r\nx-api-key: two\r\n\r\n",
    ] {
        refused_and_kept(&gateway, &app, bytes);
    }
}

#[test]
fn a_handshake_for_another_protocol_is_asked_for_a_credential_too() {
    let app = Upstream::echo();
    let gateway = gateway(&app);
    let ask = |key: &str| {
        let mut client = gateway.client();
        client.send_raw(handshake("/ws", key));
        client.read("GET")
    };
    let refused = ask("");
    assert_eq!((refused.status, app.requests().len()), (401, 0), "{refused:?}");
    assert!(refused.header("www-authenticate").is_some());
    assert_eq!((ask("x-api-key: one\r\n").status, app.requests().len()), (200, 1));
}

#[test]
fn a_body_is_not_asked_for_in_vain() {
    let app = Upstream::echo();
    let gateway = gateway(&app);
    let head = |key: &str| {
        format!("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 50000000\r\n{key}\r\n")
    };
    let mut client = gateway.client();
    client.send_raw(head(""));
    let refused = client.read("POST");
    assert_eq!((refused.status, refused.interim.len()), (401, 0), "{refused:?}");
    let mut client = gateway.client();
    let small = head("x-api-key: one\r\n").replace("50000000", "4");
    client.send_raw(small);
    assert_eq!(client.wire.read_line().unwrap().unwrap(), "HTTP/1.1 100 Continue");
    client.wire.read_headers().unwrap();
    client.send_raw("body");
    let passed = client.read("POST");
    assert_eq!((passed.status, passed.json()["body"].as_str()), (200, Some("body")));
}

#[test]
fn a_body_of_unknown_length_does_not_get_through() {
    let app = Upstream::echo();
    let gateway = gateway(&app);
    let response = gateway.client().request("POST", "/").chunks(["some", "body"]).send();
    assert_eq!((response.status, response.problem_code().as_str()), (401, "no-credentials"));
    assert!(app.requests().is_empty());
}

#[test]
fn a_large_body_does_not_get_through() {
    let app = Upstream::echo();
    let gateway = gateway(&app);
    let mut client = gateway.client();
    let response = client.request("POST", "/").body(vec![b'x'; 5_000_000]).send();
    assert_eq!(response.status, 401);
    assert!(app.requests().is_empty());
    assert_eq!(gateway.client().request("GET", "/").header("x-api-key", "one").send().status, 200);
}

#[test]
fn pipelined_requests_are_each_asked_for_their_own_credential() {
    let app = Upstream::echo();
    let gateway = gateway(&app);
    let mut client = gateway.client();
    let with_key = "GET /1 HTTP/1.1\r\nhost: a\r\nx-api-key: one\r\n\r\n";
    let without = "GET /2 HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send_raw(format!("{with_key}{without}{with_key}"));
    let first = client.read("GET").status;
    // Not every server reads ahead; what was sent ahead must then be lost, and never be answered for somebody else.
    let others: Vec<u16> = std::iter::from_fn(|| next(&mut client)).collect();
    assert!(first == 200 && (others == [401, 200] || others.is_empty()), "{first} {others:?}");
    assert!(app.requests().iter().all(|request| request.target == "/1"));
}

/// The status of a further answer, if there is one.
fn next(client: &mut Client) -> Option<u16> {
    match crate::harness::Response::read(&mut client.wire, "GET") {
        Ok(response) => Some(response.status),
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::InvalidData, "{error}");
            None
        }
    }
}

#[test]
fn http_2_streams_are_each_asked_for_their_own_credential() {
    let app = Upstream::echo();
    let gateway = gateway(&app);
    let client = H2Client::connect(gateway.addr("web"));
    let get = |key: Option<&str>| {
        let request = http::Request::get("http://test.example/");
        key.map_or(http::Request::get("http://test.example/"), |key| request.header("x-api-key", key))
            .body(())
            .unwrap()
    };
    let mixed = (0..20).map(|number| get((number % 2 == 0).then_some("one"))).collect();
    let statuses: Vec<u16> = client.send_all(mixed).iter().map(|response| response.status).collect();
    assert_eq!(statuses, [200, 401].repeat(10));
    assert_eq!(app.requests().len(), 10);
    let refused = client.send(get(Some("two")), b"");
    assert_eq!((refused.status, refused.field("www-authenticate")), (401, Some("ApiKey realm=\"tollgate\"")));
    let body = http::Request::post("http://test.example/").body(()).unwrap();
    assert_eq!(client.send(body, b"some body").status, 401);
    assert_eq!(app.requests().len(), 10);
}

#[test]
fn grpc_clients_are_told_in_their_way() {
    let app = Upstream::echo();
    let gateway = gateway(&app);
    let client = H2Client::connect(gateway.addr("web"));
    let call = http::Request::post("http://test.example/x.Y/Z").header("content-type", "application/grpc");
    let refused = client.send(call.body(()).unwrap(), &grpc_message(b"hi"));
    assert_eq!((refused.status, refused.field("grpc-status")), (200, Some("16")), "{refused:?}");
    assert!(
        refused.field("grpc-message").is_some() && refused.field("www-authenticate").is_some(),
        "{refused:?}"
    );
    assert!(app.requests().is_empty());
}

#[test]
fn a_client_that_goes_away_while_it_is_checked_does_no_harm() {
    let (app, checker) = (Upstream::echo(), Upstream::raw(|mut wire| wire.read_some().map(|_| ())));
    let config = CONFIG
        .replace("keys: { api_key: {} }", "keys: { forward: { url: \"http://{{checker}}/\", timeout: 5s } }");
    let gateway = Plan::new(&config).with("app", app.addr()).with("checker", checker.addr()).start();
    for _ in 0..5 {
        gateway.client().request("GET", "/").send_only();
    }
    assert_eventually(DEADLINE + Duration::from_secs(1), "all are answered or gone", || {
        gateway.access_log().len() == 5
    });
    assert!(app.requests().is_empty() && gateway.is_running());
}
