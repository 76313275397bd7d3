//! The harness itself: a client and an upstream that misjudge would make every other test worthless.

use super::*;
use std::net::{SocketAddr, TcpStream, UdpSocket};

#[test]
fn a_client_and_an_upstream_understand_each_other() {
    let upstream = Upstream::start(|request| match request.path() {
        "/chunked" => Answer::ok("hello world").chunked(4).trailer("x-sum", "7"),
        "/close" => Answer::ok("until the end").until_close(),
        "/cut" => Answer::fault(Fault::Cut(3)),
        "/hints" => Answer::ok("").interim("103 Early Hints\r\nlink: </a>"),
        _ => Answer::echo(request),
    });
    let mut client = Client::connect(upstream.addr());
    let echo =
        client.request("POST", "/e?q=1").header("X-A", "1").header("x-a", "2").chunks(["ab", "cde"]).send();
    assert_eq!((echo.json()["body"].as_str(), echo.complete, echo.kept_alive), (Some("abcde"), true, true));
    let chunked = client.get("/chunked");
    assert_eq!((chunked.text().as_str(), chunked.trailers.first("x-sum")), ("hello world", Some("7")));
    assert_eq!(client.get("/hints").interim, [103]);
    assert_eq!(client.request("HEAD", "/e").send().text(), "");
    let closed = client.get("/close");
    assert_eq!((closed.text().as_str(), closed.complete, closed.kept_alive), ("until the end", true, false));
    let cut = Client::connect(upstream.addr()).get("/cut");
    assert_eq!((cut.body.len(), cut.complete), (3, false));
    assert_eq!(upstream.requests()[0].headers.all("x-A"), ["1", "2"]);
    assert_eq!((upstream.requests().len(), upstream.connections()), (6, 2));
}

#[test]
fn an_upstream_ends_a_connection_in_the_way_it_is_told() {
    let upstream = Upstream::start(|request| match request.path() {
        "/close" => Answer::fault(Fault::Close),
        _ => Answer::fault(Fault::Reset),
    });
    let ends = |path: &str| {
        let mut client = Client::connect(upstream.addr());
        client.request("GET", path).send_only().wire.read_some()
    };
    assert_eq!(ends("/close").unwrap(), b"");
    assert_eq!(ends("/reset").unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn an_upstream_goes_down_and_comes_up_where_it_was() {
    let upstream = Upstream::named("a");
    let mut client = Client::connect(upstream.addr());
    assert_eq!(client.get("/").text(), "a");
    upstream.down();
    client.wire.expect_closed();
    assert!(TcpStream::connect(upstream.addr()).is_err());
    upstream.up();
    assert_eq!(Client::connect(upstream.addr()).get("/").text(), "a");
}

#[test]
fn http_2_peers_understand_each_other() {
    let upstream = H2Upstream::grpc_echo();
    let client = H2Client::connect(upstream.addr());
    let request = || http::Request::post("http://a.test/x.Y/Z").body(()).unwrap();
    let answer = client.send(request(), &grpc_message(b"hi"));
    assert_eq!(
        (answer.status, answer.body, answer.trailers["grpc-status"].to_str().unwrap()),
        (200, grpc_message(b"hi"), "0")
    );
    assert_eq!((upstream.requests().len(), upstream.connections()), (1, 1));
}

#[test]
fn a_dns_server_answers_as_told() {
    let server = DnsServer::start();
    server.set("app.test", &["127.0.0.2", "127.0.0.3", "::1"], 5);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let ask = |kind: u8| {
        let query =
            [b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03app\x04test\0\0".as_slice(), &[kind, 0, 1]].concat();
        socket.send_to(&query, server.addr()).unwrap();
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply).unwrap();
        (reply[3] & 15, reply[7], reply[..length].to_vec())
    };
    let (code, answers, reply) = ask(1);
    assert_eq!((code, answers), (0, 2));
    assert!(reply.windows(4).any(|bytes| bytes == [127, 0, 0, 3]));
    assert_eq!((ask(28).0, ask(28).1), (0, 1));
    server.mode(DnsMode::ServFail);
    assert_eq!((ask(1).0, ask(1).1), (2, 0));
}

#[test]
fn a_port_is_shared_by_several_addresses() {
    let shared: Vec<SocketAddr> = share_a_port(3).iter().map(Reserved::addr).collect();
    assert_eq!(shared.len(), 3);
    assert!(shared.iter().all(|addr| addr.port() == shared[0].port()));
}
