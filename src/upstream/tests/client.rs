//! The outgoing client.

use super::*;

fn peer(address: SocketAddr) -> HttpPeer {
    make(spec(Balance::RoundRobin, &[(&address.to_string(), 1)])).pick(None, &[]).unwrap().peer()
}

#[tokio::test]
async fn the_client_skips_interim_answers_and_frames_bodies() {
    let (address, _) = http1(|request| {
        let length = request.to_ascii_lowercase().contains("\r\ncontent-length: 5\r\n");
        assert!(length && !request.to_ascii_lowercase().contains("transfer-encoding"), "{request}");
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 201 Made\r\ntransfer-encoding: chunked\r\nx-a: b\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n".to_owned()
    })
    .await;
    let mut head = RequestHeader::build("POST", b"/", None).unwrap();
    head.insert_header("host", "a").unwrap();
    head.insert_header("transfer-encoding", "chunked").unwrap();
    let answer =
        client().send(&peer(address), head, Some(Bytes::from_static(b"12345")), LIMITS).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..], answer.headers["x-a"].as_bytes()),
        (201, &b"hello"[..], &b"b"[..])
    );
}

#[tokio::test]
async fn the_client_keeps_its_limits() {
    let (address, _) =
        http1(|_| format!("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{}", "x".repeat(2000))).await;
    assert_eq!(
        client().send(&peer(address), get("a"), None, LIMITS).await.unwrap_err(),
        ClientError::TooLarge(1024)
    );
    let (drip, _) = http1(|_| "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nx".to_owned()).await;
    assert!(matches!(client().send(&peer(drip), get("a"), None, LIMITS).await, Err(ClientError::Broken(_))));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let short = Limits { total: Duration::from_millis(50), ..LIMITS };
    let outcome = client().send(&peer(silent.local_addr().unwrap()), get("a"), None, short).await;
    assert_eq!(outcome.unwrap_err(), ClientError::Timeout);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = client().send(&peer(closed), get("a"), None, LIMITS).await.unwrap_err();
    assert_eq!(refused, ClientError::Connect("connection refused".to_owned()));
}

/// Answers the first request on each connection and resets on the second, as a server does that has just timed out.
async fn forgetful() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                    let _ = stream.read(&mut buffer).await;
                }
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn a_dead_pooled_connection_is_replaced_for_idempotent_requests_only() {
    let (address, connections) = forgetful().await;
    let peer = peer(address);
    for expected in [1, 2] {
        assert_eq!(client().send(&peer, get("a"), None, LIMITS).await.unwrap().body, "ok");
        assert_eq!(connections.load(Ordering::SeqCst), expected);
    }
    let post = || {
        let mut head = RequestHeader::build("POST", b"/", None).unwrap();
        head.insert_header("host", "a").unwrap();
        head
    };
    assert!(client().send(&peer, post(), None, LIMITS).await.is_ok(), "a fresh connection");
    assert!(
        matches!(client().send(&peer, post(), None, LIMITS).await, Err(ClientError::Broken(_))),
        "perhaps it was done"
    );
}

#[tokio::test]
async fn http2_requests_share_a_connection_also_after_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut unanswered = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(
                        (request.uri().scheme_str(), request.headers().get("host")),
                        (Some("http"), None)
                    );
                    assert_eq!(request.uri().authority().unwrap(), "a:1");
                    if request.uri().path() == "/hang" {
                        unanswered.push(respond);
                        continue;
                    }
                    let head = http::Response::builder().status(200).body(()).unwrap();
                    respond.send_response(head, false).unwrap().send_data("ok".into(), true).unwrap();
                }
            });
        }
    });
    let mut spec = spec(Balance::RoundRobin, &[(&address.to_string(), 1)]);
    spec.protocol = Protocol::H2c;
    let peer = make(spec).pick(None, &[]).unwrap().peer();
    for _ in 0..3 {
        assert_eq!(client().send(&peer, get("a:1"), None, LIMITS).await.unwrap().body, "ok");
        let mut hang = RequestHeader::build("GET", b"/hang", None).unwrap();
        hang.insert_header("host", "a:1").unwrap();
        let short = Limits { total: Duration::from_millis(50), ..LIMITS };
        assert_eq!(client().send(&peer, hang, None, short).await.unwrap_err(), ClientError::Timeout);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}
