//! Targets over HTTP/2 and TLS: what flows, how long it may pause, how it ends, and what is never shared.

use crate::harness::{
    Answer, Authority, Call, DEADLINE, GRANT, Gate, Gateway, H2Client, H2Target, Plan, Request, Reserved,
    Upstream, assert_eventually, grpc_message, handshake, runtime,
};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Response};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const FRONT: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0", protocols: [http/1.1, h2c] } }
upstreams: { app: { targets: ["{{app}}"], health: none, {{said}} } }
apis:
  shop:
    auth: public
    body: { max: 1GiB }
    timeouts: { {{timeouts}} }
    routes: { all: { match: "/**", to: app } }
"#;

const TLS: &str = "tls: { sni: app.internal, ca: ca.pem }";

fn front(app: SocketAddr, said: &str, timeouts: &str, ca: &Authority) -> Gateway {
    let plan = Plan::new(FRONT).with("app", app).with("said", said).with("timeouts", timeouts);
    plan.file("ca.pem", ca.pem.as_str()).start()
}

/// A gateway before a target over HTTP/2 in cleartext.
fn before(target: &H2Target) -> Gateway {
    front(target.addr(), "protocol: h2c", "response: 10s", &Authority::new("unused"))
}

fn ok() -> Response<()> {
    Response::new(())
}

/// Something, a pause, and the rest; after `/stall` nothing.
async fn pausing(call: Call) -> Result<(), h2::Error> {
    let Call { request, mut respond } = call;
    let mut head = ok();
    if request.uri().path() == "/events" {
        head.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    }
    let mut body = respond.send_response(head, false)?;
    body.send_data("first".into(), false)?;
    if request.uri().path() == "/stall" {
        return poll_fn(|cx| body.poll_reset(cx)).await.map(drop);
    }
    // The pause is what is tested.
    tokio::time::sleep(Duration::from_millis(900)).await;
    body.send_data(" last".into(), true)
}

fn pausing_over_http1(tls: Arc<tokio_rustls::rustls::ServerConfig>) -> Upstream {
    Upstream::raw_over(tls, |mut wire| {
        while let Some(head) = Request::read_head(&mut wire)? {
            let kind = if head.target == "/events" { "text/event-stream" } else { "text/plain" };
            wire.write(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 10\r\n\r\nfirst"
            ))?;
            if head.target == "/stall" {
                return wire.read_some().map(drop);
            }
            std::thread::sleep(Duration::from_millis(900));
            wire.write(" last")?;
        }
        Ok(())
    })
}

/// Everything that a pause may happen behind, with what is said of the upstream.
struct Pausing {
    ca: Authority,
    clear: H2Target,
    secure: H2Target,
    http1: Upstream,
}

impl Pausing {
    fn start() -> Pausing {
        let ca = Authority::new("ours");
        let leaf = ca.leaf("app.internal");
        Pausing {
            clear: H2Target::start(None, pausing),
            secure: H2Target::start(Some(leaf.server_speaking(&[b"h2", b"http/1.1"])), pausing),
            http1: pausing_over_http1(leaf.server_speaking(&[b"http/1.1"])),
            ca,
        }
    }

    fn gateways(&self, timeouts: &str) -> Vec<(&'static str, Gateway)> {
        let grpc_over_tls = format!("{TLS}, protocol: grpc");
        [
            ("h2c", self.clear.addr(), "protocol: h2c"),
            ("grpc", self.clear.addr(), "protocol: grpc"),
            ("h2 over TLS", self.secure.addr(), TLS),
            ("grpc over TLS", self.secure.addr(), &grpc_over_tls),
            ("http/1.1 over TLS", self.http1.addr(), TLS),
        ]
        .map(|(name, app, said)| (name, front(app, said, timeouts, &self.ca)))
        .into()
    }
}

#[test]
fn an_answer_may_pause_for_longer_than_it_may_take_to_begin() {
    let all = Pausing::start();
    for (name, gateway) in all.gateways("response: 400ms, idle: 10s") {
        let response = gateway.get("/pause");
        assert_eq!((response.text().as_str(), response.complete), ("first last", true), "{name}");
        assert_eq!(H2Client::connect(gateway.addr("web")).get("http://a.test/pause").body, b"first last");
    }
}

#[test]
fn a_pause_within_an_answer_is_cut_by_its_own_limit() {
    let all = Pausing::start();
    for (name, gateway) in all.gateways("response: 20s, idle: 300ms") {
        let began = Instant::now();
        let response = gateway.get("/stall");
        assert_eq!((response.text().as_str(), response.complete), ("first", false), "{name}");
        assert_eq!(gateway.log_line(0)["reason"], "upstream-timeout", "{name}");
        let client = H2Client::connect(gateway.addr("web"));
        let cut = client.try_send(http::Request::get("http://a.test/stall").body(()).unwrap(), b"");
        assert!(cut.is_err_and(|error| error.is_reset()), "{name}");
        assert!(began.elapsed() < Duration::from_secs(10), "{name}: {:?}", began.elapsed());
    }
}

#[test]
fn a_stream_pauses_for_as_long_as_streams_may() {
    let all = Pausing::start();
    for (name, gateway) in all.gateways("response: 300ms, idle: 300ms, stream_idle: 10s") {
        assert_eq!(gateway.get("/events").text(), "first last", "{name}");
    }
    for (name, gateway) in all.gateways("response: 10s, idle: 10s, stream_idle: 300ms") {
        assert!(!gateway.get("/events").complete, "{name}");
    }
}

#[test]
fn trailers_of_every_target_reach_clients_over_http2() {
    let ca = Authority::new("ours");
    let app = |_: &Request| {
        Answer::ok("hello").chunked(2).trailer("x-sum", "7").trailer("set-cookie", "a=1").trailer("te", "x")
    };
    let clear = Upstream::start(app);
    let secure = Upstream::listen(Reserved::any(), Some(ca.leaf("app.internal").server()), app);
    for (addr, said) in [(clear.addr(), "protocol: http1"), (secure.addr(), TLS)] {
        let gateway = front(addr, said, "response: 10s", &ca);
        for _ in 0..2 {
            let answer = H2Client::connect(gateway.addr("web")).get("http://a.test/");
            assert_eq!(
                (answer.body.as_slice(), answer.trailers["x-sum"].as_bytes()),
                (&b"hello"[..], &b"7"[..])
            );
            assert_eq!(answer.trailers.len(), 1, "{:?}", answer.trailers);
            let response = gateway.get("/");
            assert_eq!((response.text().as_str(), response.complete), ("hello", true));
        }
    }
    // A request may come before the connection of the one before it is back.
    assert!(clear.connections() < 4 && secure.connections() < 4, "trailers do not spoil a connection");
}

#[test]
fn an_answer_of_nothing_but_trailers_stays_one() {
    let target = H2Target::start(None, |mut call: Call| async move {
        let mut head = ok();
        head.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        head.headers_mut().insert("grpc-status", "7".parse().unwrap());
        call.respond.send_response(head, true).map(drop)
    });
    let gateway = before(&target);
    let request = http::Request::post("http://a.test/x.Y/Z").header("content-type", "application/grpc");
    let answer = H2Client::connect(gateway.addr("web")).send(request.body(()).unwrap(), &grpc_message(b"hi"));
    assert_eq!((answer.status, answer.headers["grpc-status"].as_bytes()), (200, &b"7"[..]));
    assert!(answer.body.is_empty() && answer.trailers.is_empty());
}

/// A client that sends and reads as the test likes.
struct Talk {
    sender: SendRequest<Bytes>,
}

impl Talk {
    async fn with(gateway: &Gateway) -> Talk {
        let stream = TcpStream::connect(gateway.addr("web")).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Talk { sender }
    }

    async fn begin(&self, path: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let request = http::Request::post(format!("http://a.test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let mut sender = self.sender.clone().ready().await.unwrap();
        sender.send_request(request.body(()).unwrap(), false).unwrap()
    }
}

fn within<T>(what: impl Future<Output = T>) -> T {
    runtime().block_on(async { tokio::time::timeout(DEADLINE, what).await.expect("in time") })
}

async fn piece(body: &mut RecvStream) -> Option<Bytes> {
    let piece = body.data().await?.unwrap();
    body.flow_control().release_capacity(piece.len()).unwrap();
    Some(piece)
}

/// Says back what is said, as it is said, and a status when the client has said all.
async fn echo(call: Call) -> Result<(), h2::Error> {
    let Call { request, mut respond } = call;
    let mut said = request.into_body();
    let mut body = None;
    while let Some(piece) = said.data().await {
        let piece = piece?;
        said.flow_control().release_capacity(piece.len())?;
        if body.is_none() {
            body = Some(respond.send_response(ok(), false)?);
        }
        body.as_mut().unwrap().send_data(piece, false)?;
    }
    let trailers: HeaderMap = [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect();
    body.unwrap().send_trailers(trailers)
}

#[test]
fn both_sides_of_a_call_talk_at_once() {
    let target = H2Target::start(None, echo);
    let gateway = before(&target);
    within(async {
        let talk = Talk::with(&gateway).await;
        let (answer, mut up) = talk.begin("/x.Y/Talk").await;
        up.send_data("one".into(), false).unwrap();
        let mut down = answer.await.unwrap().into_body();
        assert_eq!(piece(&mut down).await.unwrap(), "one", "before the request has ended");
        for word in ["two", "three", "four"] {
            up.send_data(word.into(), false).unwrap();
            assert_eq!(piece(&mut down).await.unwrap(), word);
        }
        up.send_data(Bytes::new(), true).unwrap();
        assert!(piece(&mut down).await.is_none());
        assert_eq!(down.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn a_call_that_its_client_gives_up_is_cancelled_at_the_target() {
    let (told, tells) = mpsc::channel();
    let target = H2Target::start(None, move |call: Call| {
        let told = told.clone();
        async move {
            let Call { request, mut respond } = call;
            if request.uri().path().ends_with("Begun") {
                let mut body = respond.send_response(ok(), false)?;
                body.send_data("x".into(), false)?;
                told.send(poll_fn(|cx| body.poll_reset(cx)).await?).unwrap();
            } else {
                told.send(poll_fn(|cx| respond.poll_reset(cx)).await?).unwrap();
            }
            Ok(())
        }
    });
    let gateway = before(&target);
    within(async {
        let talk = Talk::with(&gateway).await;
        let (answer, up) = talk.begin("/x.Y/Begun").await;
        let begun = answer.await.unwrap();
        drop((begun, up));
    });
    assert_eq!(tells.recv_timeout(DEADLINE).unwrap(), Reason::CANCEL);
    let talk = within(async {
        let talk = Talk::with(&gateway).await;
        let (answer, up) = talk.begin("/x.Y/Waiting").await;
        // Long enough to be on its way to the target; if it is not, it is never cancelled there.
        while target.connections() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop((answer, up));
        talk
    });
    assert_eq!(tells.recv_timeout(DEADLINE).unwrap(), Reason::CANCEL);
    drop(talk);
    let mut client = gateway.client();
    client.send_raw("GET /x.Y/Begun HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(client.read_head().status, 200);
    drop(client);
    assert_eq!(tells.recv_timeout(DEADLINE).unwrap(), Reason::CANCEL);
    assert_eq!(target.connections(), 1, "a cancelled stream leaves its connection to others");
}

#[test]
fn an_answer_that_the_target_breaks_off_is_broken_off() {
    let gate = Gate::default();
    let held = gate.clone();
    let target = H2Target::start(None, move |mut call: Call| {
        let held = held.clone();
        async move {
            if call.request.uri().path() == "/never" {
                call.respond.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            let mut body = call.respond.send_response(ok(), false)?;
            body.send_data("first".into(), false)?;
            tokio::task::block_in_place(|| held.wait());
            body.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
    });
    let gateway = before(&target);
    let refused = gateway.get("/never");
    assert_eq!((refused.status, refused.problem_code().as_str()), (502, "upstream-closed"));
    let mut client = gateway.client();
    client.send_raw("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(client.read_head().status, 200);
    within(async {
        let talk = Talk::with(&gateway).await;
        let (answer, _up) = talk.begin("/").await;
        let mut down = answer.await.unwrap().into_body();
        assert_eq!(piece(&mut down).await.unwrap(), "first");
        gate.open();
        assert!(down.data().await.unwrap().unwrap_err().is_reset());
    });
    assert_eq!(client.wire.read_line().unwrap().unwrap(), "5");
    assert_eq!(client.wire.read_line().unwrap().unwrap(), "first");
    client.wire.expect_closed();
    assert_eq!(gateway.log_line(1)["reason"], "upstream-closed");
}

#[test]
fn a_request_that_was_not_looked_at_is_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let target = H2Target::start(None, move |mut call: Call| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                call.respond.send_reset(Reason::REFUSED_STREAM);
                return Ok(());
            }
            let mut said = call.request.into_body();
            let mut body = Vec::new();
            while let Some(piece) = said.data().await {
                let piece = piece?;
                said.flow_control().release_capacity(piece.len())?;
                body.extend_from_slice(&piece);
            }
            call.respond.send_response(ok(), false)?.send_data(body.into(), true)
        }
    });
    let gateway = before(&target);
    let response = gateway.client().request("POST", "/").body("not idempotent").send();
    assert_eq!((response.status, response.text().as_str()), (200, "not idempotent"));
    assert_eq!((seen.load(Ordering::SeqCst), &gateway.log_of(&response)["attempts"]), (2, &2.into()));
}

#[test]
fn connections_that_are_given_up_under_load_lose_nothing() {
    let target = H2Target::leaving(7, None, |mut call: Call| async move {
        call.respond.send_response(ok(), false)?.send_data("x".into(), true)
    });
    let gateway = before(&target);
    let client = H2Client::connect(gateway.addr("web"));
    for round in 0..20 {
        let requests = (0..25).map(|_| http::Request::post("http://a.test/").body(()).unwrap()).collect();
        for answer in client.send_all(requests) {
            assert_eq!((answer.status, answer.body.as_slice()), (200, &b"x"[..]), "round {round}");
        }
    }
    assert!(target.connections() >= 500 / 100, "{}", target.connections());
}

/// Waits until a count does not grow any more, and gives it.
fn settled(count: &AtomicUsize) -> usize {
    assert_eventually(DEADLINE, "something is sent", || count.load(Ordering::SeqCst) > 0);
    let mut before = 0;
    assert_eventually(DEADLINE, "it stops", || {
        let now = count.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut before, now) == count.load(Ordering::SeqCst)
    });
    before
}

/// Sends so many bytes as fast as the other side lets it, and counts them.
async fn pour(body: &mut SendStream<Bytes>, bytes: usize, count: &AtomicUsize) -> Result<(), h2::Error> {
    let mut left = bytes;
    while left > 0 {
        body.reserve_capacity(left.min(64 << 10));
        let room = match poll_fn(|cx| body.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Ok(()),
        };
        let now = room.min(left);
        body.send_data(Bytes::from(vec![b'x'; now]), now == left)?;
        left -= now;
        count.fetch_add(now, Ordering::SeqCst);
    }
    Ok(())
}

const MUCH: usize = 32 << 20;

/// More than windows and buffers on the way may hold together.
const BOUND: usize = 6 << 20;

#[test]
fn a_slow_reader_holds_up_the_target_and_no_memory() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let target = H2Target::start(None, move |mut call: Call| {
        let count = Arc::clone(&count);
        async move { pour(&mut call.respond.send_response(ok(), false)?, MUCH, &count).await }
    });
    let gateway = before(&target);
    let (talk, mut down) = within(async {
        let talk = Talk::with(&gateway).await;
        let (answer, mut up) = talk.begin("/").await;
        up.send_data(Bytes::new(), true).unwrap();
        let down = answer.await.unwrap().into_body();
        (talk, down)
    });
    let held = settled(&sent);
    assert!(held < BOUND, "{held} bytes were sent that nobody reads");
    let whole = within(async {
        let mut whole = 0;
        while let Some(piece) = piece(&mut down).await {
            whole += piece.len();
        }
        whole
    });
    assert_eq!(whole, MUCH);
    drop(talk);
}

#[test]
fn a_slow_target_holds_up_the_upload_and_no_memory() {
    let gate = Gate::default();
    let held = gate.clone();
    let target = H2Target::start(None, move |mut call: Call| {
        let held = held.clone();
        async move {
            tokio::task::block_in_place(|| held.wait());
            let mut said = call.request.into_body();
            let mut whole = 0;
            while let Some(piece) = said.data().await {
                let piece = piece?;
                said.flow_control().release_capacity(piece.len())?;
                whole += piece.len();
            }
            call.respond.send_response(ok(), false)?.send_data(whole.to_string().into(), true)
        }
    });
    let gateway = before(&target);
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let (talk, answer, uploading) = within(async {
        let talk = Talk::with(&gateway).await;
        let (answer, mut up) = talk.begin("/").await;
        let uploading = tokio::spawn(async move { pour(&mut up, MUCH, &count).await });
        (talk, answer, uploading)
    });
    let taken = settled(&sent);
    assert!(taken < BOUND, "{taken} bytes were taken that nobody reads");
    gate.open();
    within(async {
        let mut down = answer.await.unwrap().into_body();
        assert_eq!(piece(&mut down).await.unwrap(), MUCH.to_string());
        uploading.await.unwrap().unwrap();
    });
    drop(talk);
}

#[test]
fn over_tls_the_target_chooses_and_requests_share_what_it_chose() {
    let ca = Authority::new("ours");
    let leaf = ca.leaf("app.internal");
    let target =
        H2Target::start(Some(leaf.server_speaking(&[b"h2", b"http/1.1"])), |mut call: Call| async move {
            let seen = format!("{:?} {}", call.request.version(), call.request.uri());
            call.respond.send_response(ok(), false)?.send_data(seen.into(), true)
        });
    let gateway = front(target.addr(), TLS, "response: 10s, connect: 10s", &ca);
    let answers = std::thread::scope(|scope| {
        let all: Vec<_> = (0..20).map(|_| scope.spawn(|| gateway.get("/a?b=c").text())).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<String>>()
    });
    assert!(answers.iter().all(|text| text.starts_with("HTTP/2.0 https://") && text.ends_with("/a?b=c")));
    assert_eq!(target.connections(), 1, "requests that come at once wait for one connection");
}

#[test]
fn a_target_must_speak_http2_where_nothing_else_is_wanted() {
    let ca = Authority::new("ours");
    let leaf = ca.leaf("app.internal");
    for (tls, code) in
        [(leaf.server_speaking(&[b"http/1.1"]), "upstream-tls-failed"), (leaf.server(), "upstream-invalid")]
    {
        let app = Upstream::listen(Reserved::any(), Some(tls), |_| Answer::ok("x"));
        let response = front(app.addr(), &format!("{TLS}, protocol: h2"), "response: 10s", &ca).get("/");
        assert_eq!((response.status, response.problem_code().as_str()), (502, code));
        assert!(app.requests().is_empty());
    }
    let clear = Upstream::echo();
    let response = front(clear.addr(), "protocol: h2c", "response: 10s", &ca).get("/");
    assert_eq!(response.status, 502);
}

#[test]
fn what_one_upstream_trusts_another_does_not() {
    let (ca, other) = (Authority::new("ours"), Authority::new("theirs"));
    let tls = ca.leaf("app.internal").server_speaking(&[b"h2"]);
    let target = H2Target::start(Some(tls), |mut call: Call| async move {
        call.respond.send_response(ok(), false)?.send_data("x".into(), true)
    });
    let text = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  lax: { targets: ["{{app}}"], health: none, tls: { sni: app.internal, verify: false } }
  ours: { targets: ["{{app}}"], health: none, tls: { sni: app.internal, ca: ours.pem } }
  theirs: { targets: ["{{app}}"], health: none, tls: { sni: app.internal, ca: theirs.pem } }
apis:
  shop:
    auth: public
    routes:
      lax: { match: "/lax", to: lax }
      ours: { match: "/ours", to: ours }
      theirs: { match: "/theirs", to: theirs }
"#;
    let plan = Plan::new(text).with("app", target.addr());
    let gateway = plan.file("ours.pem", ca.pem.as_str()).file("theirs.pem", other.pem.as_str()).start();
    for _ in 0..3 {
        for (path, status) in [("/lax", 200), ("/ours", 200), ("/theirs", 502)] {
            assert_eq!(gateway.get(path).status, status, "{path}");
        }
    }
    assert_eq!(target.connections(), 2, "one for each upstream that trusts it");
}

#[test]
fn a_websocket_to_a_target_over_tls() {
    let ca = Authority::new("ours");
    let tls = ca.leaf("app.internal").server_speaking(&[b"h2", b"http/1.1"]);
    let app = Upstream::raw_over(tls, |mut wire| {
        let Some(head) = Request::read_head(&mut wire)? else { return Ok(()) };
        assert_eq!(head.headers.first("upgrade"), Some("websocket"));
        wire.write(GRANT.to_owned() + "hello")?;
        loop {
            let said = wire.read_some()?;
            if said.is_empty() {
                return Ok(());
            }
            wire.write(said)?;
        }
    });
    let gateway = front(app.addr(), TLS, "response: 10s", &ca);
    let mut client = gateway.client();
    client.send_raw(handshake("/chat", ""));
    assert_eq!(client.read_head().status, 101);
    assert_eq!(client.wire.read_exactly(5).unwrap(), b"hello");
    let much = "x".repeat(300_000);
    client.send_raw(&much);
    assert_eq!(client.wire.read_exactly(much.len()).unwrap(), much.as_bytes());
    drop(client);
    assert_eq!(gateway.log_line(0)["status"], 101);
}
