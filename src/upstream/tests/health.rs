//! Active checks of every kind.

use super::*;

#[tokio::test]
async fn tcp_checks_follow_a_port_that_closes_and_opens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = make(checked(address, Probe::Tcp));
    assert!(!upstream.first_check_done());
    let supervisor = run(&upstream);
    assert!(upstream.warm(Duration::from_secs(10)).await);
    assert!(upstream.is_healthy());
    drop(listener);
    until("unhealthy", || !upstream.is_healthy()).await;
    assert_eq!(reason(&upstream), "connection refused");
    let _listener = TcpListener::bind(address).await.unwrap();
    until("healthy again", || upstream.is_healthy()).await;
    assert_eq!((reason(&upstream).as_str(), upstream.health_changes()), ("", 2));
    supervisor.stop().await;
}

#[tokio::test]
async fn a_target_that_is_down_at_the_start_is_known_after_the_first_check() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut spec = checked(address, Probe::Tcp);
    spec.health.every = Duration::from_secs(3600);
    let upstream = make(spec);
    let supervisor = run(&upstream);
    assert!(upstream.warm(Duration::from_secs(10)).await);
    assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::NoneHealthy);
    supervisor.stop().await;
}

#[tokio::test]
async fn http_checks_look_at_the_status_and_send_what_was_asked() {
    let good = Arc::new(AtomicBool::new(true));
    let is_good = Arc::clone(&good);
    let (address, served) = http1(move |request| {
        let asked = request.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n")
            && request.to_ascii_lowercase().contains("\r\nhost: check.me\r\n");
        let status = if asked && is_good.load(Ordering::SeqCst) { 204 } else { 503 };
        format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    })
    .await;
    let probe = |expect: &[u16]| Probe::Http {
        method: http::Method::GET,
        path: "/healthz?deep=1".into(),
        host: Some("check.me".into()),
        expect: expect.to_vec(),
    };
    let strict = make(checked(address, probe(&[])));
    let upstream = make(checked(address, probe(&[200, 204])));
    let supervisors = [run(&strict), run(&upstream)];
    assert!(strict.warm(Duration::from_secs(10)).await && upstream.warm(Duration::from_secs(10)).await);
    assert_eq!(
        (upstream.is_healthy(), strict.is_healthy()),
        (true, false),
        "without a list only 200 is good"
    );
    assert_eq!(reason(&strict), "answered 204");

    good.store(false, Ordering::SeqCst);
    let before = served.load(Ordering::SeqCst);
    until("unhealthy", || !upstream.is_healthy()).await;
    assert!(served.load(Ordering::SeqCst) >= before + 3, "three failures in a row are needed");
    good.store(true, Ordering::SeqCst);
    until("healthy", || upstream.is_healthy()).await;
    for supervisor in supervisors {
        supervisor.stop().await;
    }
}

#[tokio::test]
async fn a_probe_that_is_not_answered_fails_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probe = Probe::Http { method: http::Method::GET, path: "/".into(), host: None, expect: vec![] };
    let mut spec = checked(listener.local_addr().unwrap(), probe);
    spec.health.timeout = Duration::from_millis(50);
    let upstream = make(spec);
    let supervisor = run(&upstream);
    assert!(upstream.warm(Duration::from_secs(10)).await);
    assert_eq!(reason(&upstream), "no answer within 50ms");
    supervisor.stop().await;
}

/// A gRPC server in cleartext that says `status` for `service`, and which scheme and authority it was asked with.
async fn grpc_server(service: &'static str, status: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let status = Arc::clone(&status);
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let status = Arc::clone(&status);
                    tokio::spawn(async move {
                        assert_eq!(request.uri().scheme_str(), Some("http"));
                        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                        let mut body = request.into_body();
                        let asked = body.data().await.unwrap().unwrap();
                        let known = &asked[7..] == service.as_bytes();
                        let head = http::Response::builder().header("content-type", "application/grpc");
                        if !known {
                            let only_trailers = head.header("grpc-status", "5").body(()).unwrap();
                            respond.send_response(only_trailers, true).unwrap();
                            return;
                        }
                        let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        let message = [0, 0, 0, 0, 2, 8, status.load(Ordering::SeqCst) as u8];
                        send.send_data(Bytes::copy_from_slice(&message), false).unwrap();
                        send.send_trailers(http::HeaderMap::from_iter([(
                            "grpc-status".parse().unwrap(),
                            "0".parse().unwrap(),
                        )]))
                        .unwrap();
                    });
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn grpc_checks_ask_the_health_service() {
    let status = Arc::new(AtomicUsize::new(1));
    let address = grpc_server("shop", Arc::clone(&status)).await;
    let service = |service: &str| UpstreamSpec {
        protocol: Protocol::Grpc,
        ..checked(address, Probe::Grpc { service: service.into() })
    };
    let (upstream, unknown) = (make(service("shop")), make(service("shup")));
    let supervisors = [run(&upstream), run(&unknown)];
    assert!(upstream.warm(Duration::from_secs(10)).await && unknown.warm(Duration::from_secs(10)).await);
    assert_eq!((upstream.is_healthy(), reason(&upstream).as_str()), (true, ""));
    assert_eq!(reason(&unknown), "gRPC: unknown service");
    status.store(2, Ordering::SeqCst);
    until("not serving", || !upstream.is_healthy()).await;
    assert_eq!(reason(&upstream), "gRPC health: NOT_SERVING");
    for supervisor in supervisors {
        supervisor.stop().await;
    }
}
