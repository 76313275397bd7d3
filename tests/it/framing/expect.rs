//! `Expect: 100-continue`: a 100 is the target's word and comes after every step; our own answers come without one.

use crate::harness::{Plan, Request, Upstream};

const FRONT: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
auth: { keys: { api_key: { header: x-api-key } } }
consumers: { acme: { keys: ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"] } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis:
  all:
    auth: public
    routes:
      all: { match: "/**", to: app }
      small: { match: "/small", body: { max: 4B }, to: app }
      closed: { match: "/closed", auth: keys, to: app }
      fixed: { match: "/fixed", to: { respond: { text: fixed } } }
"#;

fn ask(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\n{fields}\r\n")
}

/// Refuses `/no` at its head; otherwise asks for the body and gives it back.
fn target() -> Upstream {
    Upstream::raw(|mut wire| {
        while let Some(mut request) = Request::read_head(&mut wire)? {
            let expects = request.headers.has_word("expect", "100-continue");
            if request.target == "/no" {
                wire.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")?;
                return wire.read_some().map(drop);
            }
            if expects && request.target != "/silent" {
                wire.write("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            request.read_body(&mut wire)?;
            let body = format!("{expects} {}", request.text());
            wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))?;
        }
        Ok(())
    })
}

#[test]
fn our_own_answers_come_without_100() {
    let target = target();
    let gateway = Plan::new(FRONT).with("app", target.addr()).start();
    for (path, fields, status) in [
        ("/closed", "Content-Length: 5\r\n", 401),
        ("/closed", "Transfer-Encoding: chunked\r\n", 401),
        ("/small", "Content-Length: 5\r\n", 413),
        ("/closed", "X-Api-Key: wrong\r\nContent-Length: 5\r\n", 401),
        ("/fixed", "Content-Length: 5\r\n", 200),
        ("/fixed", "Transfer-Encoding: chunked\r\n", 200),
        ("/a%2fb", "Content-Length: 5\r\n", 400),
        ("/a", "Content-Length: 5\r\nExpect: 100-continue\r\n", 417),
        ("/a", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
    ] {
        let mut client = gateway.client();
        client.send_raw(ask(path, fields));
        let response = client.read("POST");
        assert_eq!((response.status, response.interim.as_slice()), (status, &[][..]), "{path} {fields:?}");
        // The client may go on with the body or with something else; nobody can tell.
        assert!(!response.kept_alive, "{path} {fields:?}");
        client.wire.expect_closed();
    }
}

#[test]
fn a_100_is_the_targets() {
    let target = target();
    let gateway = Plan::new(FRONT).with("app", target.addr()).start();
    for (path, fields, body, answer) in [
        ("/a", "Content-Length: 5\r\n", "hello", "true hello"),
        ("/a", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", "true hello"),
        ("/small", "Content-Length: 4\r\n", "four", "true four"),
        ("/closed", "X-Api-Key: test\r\nContent-Length: 5\r\n", "hello", "true hello"),
    ] {
        let mut client = gateway.client();
        for _ in 0..2 {
            client.send_raw(ask(path, fields));
            assert_eq!(client.wire.read_line().unwrap().as_deref(), Some("HTTP/1.1 100 Continue"), "{path}");
            assert_eq!(client.wire.read_headers().unwrap().0, []);
            client.send_raw(body);
            let response = client.read("POST");
            assert_eq!((response.status, response.text().as_str(), response.kept_alive), (200, answer, true));
        }
    }
    // Too much after all.
    let mut client = gateway.client();
    client.send_raw(ask("/small", "Transfer-Encoding: chunked\r\n"));
    assert_eq!(client.wire.read_line().unwrap().as_deref(), Some("HTTP/1.1 100 Continue"));
    client.wire.read_headers().unwrap();
    client.send_raw("5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.read("POST").status, 413);
}

#[test]
fn a_target_may_refuse_or_say_nothing() {
    let target = target();
    let gateway = Plan::new(FRONT).with("app", target.addr()).start();
    let mut client = gateway.client();
    client.send_raw(ask("/no", "Content-Length: 5\r\n"));
    let response = client.read("POST");
    assert_eq!((response.status, response.interim.as_slice(), response.kept_alive), (403, &[][..], false));
    client.wire.expect_closed();
    // A client that does not wait, or no longer.
    let mut client = gateway.client();
    client.send_raw(ask("/silent", "Content-Length: 5\r\n") + "hello");
    let response = client.read("POST");
    assert_eq!(
        (response.status, response.interim.as_slice(), response.text().as_str()),
        (200, &[][..], "true hello")
    );
    client.send_raw(ask("/a", "Content-Length: 5\r\n") + "hello");
    assert_eq!(client.read("POST").text(), "true hello");
}

#[test]
fn http_1_0_expects_nothing() {
    let target = target();
    let gateway = Plan::new(FRONT).with("app", target.addr()).start();
    let mut client = gateway.client();
    client.send_raw(
        "POST /a HTTP/1.0\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    );
    let response = client.read("POST");
    assert_eq!(
        (response.status, response.interim.as_slice(), response.text().as_str()),
        (200, &[][..], "false hello")
    );
}
