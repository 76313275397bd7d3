//! The opening handshake is checked on both sides: nothing that is no WebSocket goes by the steps in a tunnel.

use super::{opened, say_back};
use crate::harness::{Client, GRANT, Request, Upstream, handshake};

const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "sec-websocket-version: 13\r\n";

#[test]
fn what_is_no_handshake_is_refused_and_not_sent_on() {
    let app = Upstream::echo();
    let gateway = opened(&app);
    let mut client = gateway.client();
    let whole = handshake("/", "");
    for asks in [
        whole.replace(KEY, ""),
        whole.replace(KEY, &KEY.repeat(2)),
        whole.replace(KEY, "sec-websocket-key: short\r\n"),
        whole.replace(VERSION, ""),
        whole.replace(VERSION, &VERSION.repeat(2)),
    ] {
        client.send_raw(&asks);
        let refused = client.read("GET");
        let told = (refused.status, refused.problem_code(), refused.kept_alive);
        assert_eq!(told, (400, "bad-handshake".to_owned(), true), "{asks}");
    }
    client.send_raw(whole.replace(VERSION, "sec-websocket-version: 8\r\n"));
    let refused = client.read("GET");
    assert_eq!((refused.status, refused.problem_code().as_str()), (426, "websocket-version"));
    for (name, value) in
        [("sec-websocket-version", "13"), ("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")]
    {
        assert_eq!(refused.header(name), Some(value), "{name}");
    }
    assert_eq!(app.requests().len(), 0);
    assert_eq!(
        (client.get("/").status, gateway.log_line(5)["reason"].as_str()),
        (200, Some("websocket-version"))
    );
}

/// What asks for something else, or not as RFC 6455 says, is a request like any other; so its fields need not be right.
#[test]
fn what_asks_for_no_websocket_is_passed_on_without_the_question() {
    let app = Upstream::echo();
    let gateway = opened(&app);
    let mut client = gateway.client();
    for (asks, method) in [
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: other/1\r\n\r\n", "GET"),
        ("GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n", "GET"),
        ("POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", "POST"),
    ] {
        client.send_raw(asks);
        assert_eq!(client.read(method).status, 200, "{asks}");
    }
    assert!(app.requests().iter().all(|request| request.headers.first("upgrade").is_none()));
}

fn refused_as_invalid(client: &mut Client) {
    let refused = client.read("GET");
    assert_eq!((refused.status, refused.problem_code().as_str()), (502, "upstream-invalid"));
}

#[test]
fn a_protocol_that_was_not_asked_for_is_not_changed_to() {
    let app = Upstream::raw(|mut wire| {
        let Some(request) = Request::read_head(&mut wire)? else { return Ok(()) };
        let upgrade = match request.path() {
            "/other" => "upgrade: chat\r\n",
            "/none" => "",
            _ => "upgrade: websocket\r\n",
        };
        wire.write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{upgrade}\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"
        ))?;
        say_back(wire)
    });
    let gateway = opened(&app);
    for path in ["/other", "/none"] {
        let mut client = gateway.client();
        client.send_raw(handshake(path, ""));
        refused_as_invalid(&mut client);
    }
    for asks in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nhi",
    ] {
        let mut client = gateway.client();
        client.send_raw(asks);
        refused_as_invalid(&mut client);
    }
}

#[test]
fn a_grant_without_the_right_proof_is_the_targets_fault() {
    let app = Upstream::raw(|mut wire| {
        let Some(request) = Request::read_head(&mut wire)? else { return Ok(()) };
        let proof = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        wire.write(match request.path() {
            "/none" => GRANT.replace(proof, ""),
            "/other" => GRANT.replace("s3pP", "S3pP"),
            "/twice" => GRANT.replace(proof, &proof.repeat(2)),
            _ => GRANT.to_owned(),
        })?;
        say_back(wire)
    });
    let gateway = opened(&app);
    for path in ["/none", "/other", "/twice"] {
        let mut client = gateway.client();
        client.send_raw(handshake(path, ""));
        refused_as_invalid(&mut client);
    }
    let mut client = gateway.client();
    client.send_raw(handshake("/right", ""));
    assert_eq!(client.read_head().status, 101);
}
