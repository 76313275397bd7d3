//! Certificates of clients: asked for, checked, named, and told upstream.

use crate::harness::{
    Answer, Authority, Client, DEADLINE, Gateway, Leaf, Plan, TlsDial, Upstream, assert_eventually,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::SocketAddr;
use tokio_rustls::rustls::version::{TLS12, TLS13};

/// One listener for each way to ask, and one in cleartext.
const FRONT: &str = r#"
version: 1
listeners:
  clear: { bind: "127.0.0.1:0" }
  open: { bind: "127.0.0.1:0", tls: { cert: one.pem, key: one.key } }
  optional:
    bind: "127.0.0.1:0"
    tls: { cert: one.pem, key: one.key, client_cert: { mode: optional, ca: clients.pem, forward: none } }
  required:
    bind: "127.0.0.1:0"
    tls: { cert: one.pem, key: one.key, client_cert: { ca: clients.pem } }
  chain:
    bind: "127.0.0.1:0"
    tls: { cert: one.pem, key: one.key, client_cert: { ca: clients.pem, forward: client-cert-chain } }
auth:
  machines: { client_cert: { forward: x-machine } }
consumers:
  shop: { ids: [shop.clients.test] }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis:
  machines: { base: /machines, auth: machines, routes: { all: { match: "/**", to: app } } }
  all: { auth: public, routes: { all: { match: "/**", to: app } } }
"#;

struct Front {
    gateway: Gateway,
    upstream: Upstream,
    servers: Authority,
    clients: Authority,
}

fn front() -> Front {
    let upstream = Upstream::start(|_| Answer::ok("answer"));
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let leaf = servers.leaf("one.test");
    let plan = Plan::new(FRONT).with("app", upstream.addr());
    let plan =
        plan.file("one.pem", leaf.cert).file("one.key", leaf.key).file("clients.pem", clients.pem.clone());
    Front { gateway: plan.start(), upstream, servers, clients }
}

impl Front {
    fn addr(&self, listener: &str) -> SocketAddr {
        self.gateway.addr(listener)
    }

    fn dial(&self, own: Option<&Leaf>) -> TlsDial {
        TlsDial::with(&self.servers, own, &[&TLS13], &[b"http/1.1"])
    }

    /// The status of an answer; `None` when there is no connection. With TLS 1.3 that comes out only behind the handshake.
    fn status(&self, dial: &TlsDial, listener: &str, target: &str) -> Option<u16> {
        let mut connection = dial.try_connect(self.addr(listener), "one.test", b"").ok()?;
        status_on(&mut connection.client, target)
    }
}

fn status_on(client: &mut Client, target: &str) -> Option<u16> {
    let ask = client.request("GET", target).host("one.test").send_only();
    let response = crate::harness::Response::read(&mut ask.wire, "GET").ok()?;
    Some(response.status)
}

#[test]
fn clients_may_or_must_show_a_certificate() {
    let front = front();
    let (own, strange) = (front.clients.leaf("shop.clients.test"), Authority::new("strangers").leaf("x"));
    let (with, without, wrong) = (front.dial(Some(&own)), front.dial(None), front.dial(Some(&strange)));
    let expired = front.clients.expired("shop.clients.test");
    let expired = front.dial(Some(&expired));
    for (listener, expected) in [
        ("open", [Some(200); 4]),
        ("optional", [Some(200), Some(200), None, None]),
        ("required", [Some(200), None, None, None]),
    ] {
        let got = [&with, &without, &wrong, &expired].map(|dial| front.status(dial, listener, "/"));
        assert_eq!(got, expected, "{listener}");
    }
    let failed = "tollgate_tls_handshake_failures_total{listener=\"required\",reason=\"client_certificate\"}";
    assert_eventually(DEADLINE, "failures are counted", || front.gateway.metric(failed) == 3.0);
}

#[test]
fn a_certificate_names_a_consumer() {
    let front = front();
    let own = front.clients.leaf_of(&["other.test", "shop.clients.test"]);
    let unknown = front.clients.leaf("unknown.test");
    let (with, without, other) = (front.dial(Some(&own)), front.dial(None), front.dial(Some(&unknown)));
    let mut client = with.connect(front.addr("optional"), "one.test").client;
    let response = client.request("GET", "/machines/a").host("one.test").header("x-machine", "admin").send();
    assert_eq!(response.status, 200);
    let line = front.gateway.log_of(&response);
    assert_eq!((&line["consumer"], &line["auth"]), (&"shop".into(), &"machines".into()));
    assert!(line["client_cert"].as_str().is_some_and(|text| text.starts_with("sha256:")), "{line}");
    assert_eq!(line["client_cert"], line["credential"]);
    let request = front.upstream.requests().pop().unwrap();
    assert_eq!(request.headers.all("x-machine"), ["shop"]);
    assert_eq!(front.status(&without, "optional", "/machines/a"), Some(401));
    assert_eq!(front.status(&other, "optional", "/machines/a"), Some(200));
    let request = front.upstream.requests().pop().unwrap();
    assert_eq!(request.headers.all("x-machine"), ["unknown.test"]);
    assert_eq!(Client::connect(front.addr("clear")).get("/machines/a").status, 401);
}

#[test]
fn upstreams_are_told_the_certificate_and_never_what_clients_say() {
    let front = front();
    let own = front.clients.leaf("shop.clients.test");
    let certificate = format!(":{}:", STANDARD.encode(&own.chain()[0]));
    let with = front.dial(Some(&own));
    for (listener, told) in
        [("open", None), ("optional", None), ("required", Some(&certificate)), ("chain", Some(&certificate))]
    {
        let mut client = with.connect(front.addr(listener), "one.test").client;
        let ask = client.request("GET", "/").host("one.test").header("client-cert", ":bGllOg==:");
        assert_eq!(ask.header("Client-Cert-Chain", ":bGllOg==:").send().status, 200);
        let request = front.upstream.requests().pop().unwrap();
        let told: Vec<&str> = told.into_iter().map(String::as_str).collect();
        assert_eq!(request.headers.all("client-cert"), told, "{listener}");
        assert!(request.headers.all("client-cert-chain").is_empty(), "nothing stands behind it");
    }
    let mut clear = Client::connect(front.addr("clear"));
    assert_eq!(clear.request("GET", "/").header("client-cert", "a").send().status, 200);
    assert!(front.upstream.requests().pop().unwrap().headers.all("client-cert").is_empty());
    let named = clear.request("GET", "/").header("connection", "client-cert").send();
    assert_eq!(named.status, 400, "a client cannot have it removed");
}

#[test]
fn a_session_does_not_stand_in_for_a_certificate() {
    let front = front();
    let own = front.clients.leaf("shop.clients.test");
    for version in [&TLS12, &TLS13] {
        let with = TlsDial::with(&front.servers, Some(&own), &[version], &[b"http/1.1"]);
        for resumed in [false, true] {
            let mut connection = with.connect(front.addr("required"), "one.test");
            assert_eq!(connection.resumed, resumed);
            assert_eq!(
                status_on(&mut connection.client, "/machines/a"),
                Some(200),
                "the session knows who it is"
            );
        }
        // A session of a listener that asks for nothing.
        let without = TlsDial::with(&front.servers, None, &[version], &[b"http/1.1"]);
        assert_eq!(front.status(&without, "open", "/"), Some(200));
        assert!(without.connect(front.addr("open"), "one.test").resumed);
        assert_eq!(front.status(&without, "required", "/"), None);
    }
}

#[test]
fn clients_are_refused_once_nobody_vouches_for_them() {
    let front = front();
    let (own, newer) = (front.clients.leaf("shop.clients.test"), Authority::new("newer"));
    let with = front.dial(Some(&own));
    let mut open = with.connect(front.addr("required"), "one.test").client;
    assert_eq!(status_on(&mut open, "/"), Some(200));
    assert!(with.connect(front.addr("required"), "one.test").resumed);
    std::fs::write(front.gateway.plan().dir().join("clients.pem"), &newer.pem).unwrap();
    // Each look uses a session that is there.
    assert_eventually(DEADLINE, "its sessions are over, too", || {
        front.status(&with, "required", "/").is_none()
    });
    let next = newer.leaf("next.test");
    assert_eq!(front.status(&front.dial(Some(&next)), "required", "/"), Some(200));
    assert_eq!(status_on(&mut open, "/"), Some(200), "a connection that is open stays");
}
