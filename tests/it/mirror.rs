//! Copies of requests for another upstream: what they are, and that they can neither delay a request nor make it fail.

use crate::harness::{
    Answer, Authority, Client, DEADLINE, Fault, Gate, Gateway, H2Answer, H2Upstream, Plan, Reserved,
    Upstream, assert_eventually,
};
use std::time::{Duration, Instant};

const CONFIG: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners: { web: { bind: "127.0.0.1:0", trusted_proxies: [127.0.0.1] } }
upstreams:
  app: { targets: ["{{app}}"], health: none }
  shadow: { targets: ["{{shadow}}"], health: none, host: shadow.internal }
defaults: { timeouts: { connect: 5s } }
apis:
  shop:
    auth: public
    to: app
    request: { headers: { set: { x-edge: "${header.x-in}" }, remove: [x-in] }, query: { set: { v: "2" } }, path: { strip: /shop } }
    mirror: { to: shadow, MORE }
    routes: { all: { match: "/shop/**" } }
"#;

fn plan(app: &Upstream, shadow: impl ToString, more: &str) -> Plan {
    Plan::new(&CONFIG.replace("MORE", more)).with("app", app.addr()).with("shadow", shadow)
}

/// How many copies came to this.
fn counted(gateway: &Gateway, result: &str) -> u64 {
    let series =
        format!("tollgate_mirrored_requests_total{{api=\"shop\",result=\"{result}\",route=\"all\"}} ");
    let text = gateway.admin_socket().get("/metrics").text();
    text.lines().find_map(|line| line.strip_prefix(series.as_str())).unwrap_or("0").parse().unwrap()
}

fn assert_counted(gateway: &Gateway, result: &str, times: u64) {
    assert_eventually(DEADLINE, &format!("{times} copies: {result}"), || counted(gateway, result) == times);
}

#[test]
fn a_copy_is_what_the_upstream_got_but_for_its_mark_and_host() {
    let (app, shadow) = (Upstream::echo(), Upstream::named("nobody sees this"));
    let gateway = plan(&app, shadow.addr(), "timeout: 20s").start();
    let mut client = gateway.client();
    for body in ["", "a body", &"x".repeat(60_000)] {
        let ask =
            client.request("POST", "/shop/a?b=c").header("x-in", "7").header("x-forwarded-for", "192.0.2.1");
        let answer = if body.is_empty() { ask.send() } else { ask.body(body).send() };
        assert_eq!((answer.status, answer.text().contains("nobody")), (200, false));
    }
    let chunks = client.request("PUT", "/shop/chunks").chunks(["one", "two", "three"]).send();
    assert_eq!(chunks.status, 200);
    shadow.wait_for_requests(4);
    let mut copies = shadow.requests();
    for seen in app.requests() {
        let place = copies.iter().position(|copy| copy.target == seen.target && copy.body == seen.body);
        let copy = copies.remove(place.expect("each request was copied"));
        assert_eq!(copy.method, seen.method);
        assert_eq!((copy.headers.first("x-shadow"), seen.headers.first("x-shadow")), (Some("1"), None));
        assert_eq!(
            (copy.headers.first("host"), seen.headers.first("host")),
            (Some("shadow.internal"), Some("test.example"))
        );
        for name in ["x-edge", "x-in", "x-forwarded-for", "x-request-id", "x-forwarded-proto"] {
            assert_eq!(copy.headers.all(name), seen.headers.all(name), "{name}");
        }
    }
    assert_counted(&gateway, "ok", 4);
}

#[test]
fn a_share_of_requests_is_copied() {
    let (app, shadow) = (Upstream::echo(), Upstream::named("shadow"));
    let gateway = plan(&app, shadow.addr(), "percent: 25%").start();
    let mut client = gateway.client();
    for _ in 0..1000 {
        assert_eq!(client.get("/shop/x").status, 200);
    }
    // 13.7 is the standard deviation: six of them.
    let copies = || counted(&gateway, "ok") as usize;
    assert_eventually(DEADLINE, "every copy was answered", || {
        copies() == shadow.requests().len() && copies() > 0
    });
    assert!((168..=332).contains(&copies()), "{} of 1000 at 25%", copies());
}

/// Whatever the shadow does, the request is answered as fast as without it.
#[test]
fn nothing_a_shadow_does_is_felt() {
    let app = Upstream::echo();
    let silent = Upstream::start(|_| Answer::ok("late").delay(Duration::from_secs(600)));
    let faulty = |fault: Fault| Upstream::start(move |_| Answer::fault(fault));
    let garbage = faulty(Fault::Garbage);
    let closed = faulty(Fault::Close);
    let broken = Upstream::start(|_| Answer::new(503, "broken"));
    let endless = Upstream::start(|_| Answer::ok("x".repeat(4 << 20)));
    let gone = Reserved::any();
    for (shadow, result) in [
        (silent.addr(), "timeout"),
        (garbage.addr(), "failed"),
        (closed.addr(), "failed"),
        (broken.addr(), "server_error"),
        (endless.addr(), "ok"),
        (gone.addr(), "failed"),
    ] {
        let gateway = plan(&app, shadow, "timeout: 2s").start();
        let (mut client, began) = (gateway.client(), Instant::now());
        for _ in 0..10 {
            let answer = client.request("POST", "/shop/x").body("a body").send();
            assert_eq!((answer.status, answer.kept_alive), (200, true), "{result}");
        }
        // Ten requests with a shadow that were waited for would take 20 seconds.
        assert!(began.elapsed() < Duration::from_secs(2), "{:?} with a shadow: {result}", began.elapsed());
        assert_counted(&gateway, result, 10);
    }
}

#[test]
fn copies_are_bounded_in_number_and_size() {
    let (app, gate) = (Upstream::echo(), Gate::default());
    let held = gate.clone();
    let shadow = Upstream::start(move |_| {
        held.wait();
        Answer::ok("done")
    });
    let gateway = plan(&app, shadow.addr(), "at_once: 3, max_body: 1KiB, timeout: 20s").start();
    let mut client = gateway.client();
    for _ in 0..10 {
        assert_eq!(client.get("/shop/x").status, 200);
    }
    assert_counted(&gateway, "busy", 7);
    shadow.wait_for_requests(3);
    gate.open();
    assert_counted(&gateway, "ok", 3);
    let large = "x".repeat(1025);
    assert_eq!(client.request("POST", "/shop/x").body(large.as_str()).send().status, 200);
    let pieces = ["x".repeat(600), "y".repeat(600)];
    assert_eq!(
        client.request("POST", "/shop/x").chunks(pieces.iter().map(String::as_str)).send().status,
        200
    );
    assert_counted(&gateway, "too_large", 2);
    assert_eq!(client.request("POST", "/shop/x").body(&large[..1024]).send().status, 200);
    assert_counted(&gateway, "ok", 4);
    assert_eq!(shadow.requests().len(), 4);
}

#[test]
fn a_request_that_breaks_off_is_not_copied_and_holds_no_place() {
    let (app, shadow) = (Upstream::echo(), Upstream::named("shadow"));
    let gateway = plan(&app, shadow.addr(), "at_once: 1").start();
    for broken in 1..=3 {
        let mut client = gateway.client();
        client.send_raw("POST /shop/x HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf");
        drop(client);
        assert_counted(&gateway, "unfinished", broken);
    }
    assert_eq!(Client::connect(gateway.addr("web")).get("/shop/x").status, 200);
    assert_counted(&gateway, "ok", 1);
    assert_eq!(shadow.requests().len(), 1);
}

/// The shadow is spoken to as its upstream says.
#[test]
fn a_shadow_over_http2_and_one_over_tls() {
    let (app, authority) = (Upstream::echo(), Authority::new("shadow"));
    let config = |shadow: &str| {
        let plain = "shadow: { targets: [\"{{shadow}}\"],";
        CONFIG.replace("MORE", "timeout: 20s").replace(plain, &format!("{plain} {shadow},"))
    };
    let post = |gateway: &Gateway| gateway.client().request("POST", "/shop/x").body("a body").send().status;

    let h2c = H2Upstream::start(|_| H2Answer::ok("shadow"));
    let gateway =
        Plan::new(&config("protocol: h2c")).with("app", app.addr()).with("shadow", h2c.addr()).start();
    assert_eq!([post(&gateway), post(&gateway)], [200, 200]);
    assert_counted(&gateway, "ok", 2);
    let seen = h2c.requests();
    assert!(
        seen.iter().all(|copy| copy.body() == b"a body" && copy.headers()["x-shadow"] == "1"),
        "{seen:?}"
    );
    assert_eq!(h2c.connections(), 1, "the connection is shared");

    let server = authority.leaf("shadow.internal").server();
    let tls = Upstream::listen(Reserved::any(), Some(server), |_| Answer::ok("shadow"));
    let config = config("tls: { sni: shadow.internal, ca: ca.pem }");
    let plan = Plan::new(&config).with("app", app.addr()).with("shadow", tls.addr());
    let gateway = plan.file("ca.pem", authority.pem.clone()).start();
    assert_eq!(post(&gateway), 200);
    assert_counted(&gateway, "ok", 1);
    assert_eq!(tls.requests()[0].text(), "a body");
}

#[test]
fn it_is_explained() {
    let app = Upstream::echo();
    let gateway = plan(&app, "127.0.0.1:1", "percent: 5%").start();
    let told = gateway.ask(&["explain", "--live", "GET", "http://a/shop/x"]).stdout;
    assert!(told.contains("mirror            5% of requests to shadow  bodies up to 64KiB"), "{told}");
    assert_eq!(counted(&gateway, "failed"), 0, "nothing was sent");
}
