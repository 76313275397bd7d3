//! Where requests go: balancing, health, names that change, TLS towards targets.

use crate::harness::{
    Answer, Authority, Client, DEADLINE, DnsMode, DnsServer, Gate, Gateway, H2Answer, H2Upstream, Leaf, Plan,
    Reserved, Upstream, assert_eventually, eventually, share_a_port,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_rustls::rustls::ServerConfig;

/// Everything goes to `app`, of which `said` says the rest.
fn config(said: &str) -> String {
    format!(
        r#"
version: 1
listeners: {{ web: {{ bind: "127.0.0.1:0" }} }}
upstreams: {{ app: {{ {said} }} }}
apis: {{ shop: {{ auth: public, routes: {{ all: {{ match: "/**", to: app }}, item: {{ match: "/items/{{id}}", to: app }} }} }} }}
"#
    )
}

/// The targets `a`, `b`, … as a YAML list, each naming itself in its answers.
struct Targets(Vec<(String, Upstream)>);

impl Targets {
    fn start(count: u8) -> Self {
        let name = |number: u8| char::from(b'a' + number).to_string();
        Targets((0..count).map(|number| (name(number), Upstream::named(&name(number)))).collect())
    }

    fn upstream(&self, name: &str) -> &Upstream {
        &self.0.iter().find(|(known, _)| known == name).unwrap().1
    }

    fn gateway(&self, said: &str) -> Gateway {
        let list: Vec<String> =
            self.0.iter().map(|(_, upstream)| format!("\"{}\"", upstream.addr())).collect();
        Gateway::start(&config(&format!("targets: [{}], {said}", list.join(", "))))
    }
}

/// How often each body came back in `count` requests over one connection; every answer must be 200.
fn tally(client: &mut Client, count: usize) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for _ in 0..count {
        let response = client.get("/");
        assert_eq!(response.status, 200, "{}", response.text());
        *tally.entry(response.text()).or_default() += 1;
    }
    tally
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// Waits until exactly these targets answer.
fn only(gateway: &Gateway, names: &[&str]) {
    let expected: Vec<&str> = names.to_vec();
    assert_eventually(DEADLINE, &format!("only {names:?} answer"), || {
        let mut client = gateway.client();
        let answers: Vec<_> = (0..names.len() * 4).map(|_| client.get("/")).collect();
        let mut seen: Vec<String> = answers.iter().filter(|a| a.status == 200).map(|a| a.text()).collect();
        seen.sort();
        seen.dedup();
        answers.iter().all(|answer| answer.status == 200) && seen == expected
    });
}

#[test]
fn round_robin_is_exact_and_smooth() {
    let targets = Targets::start(3);
    let addr = |name: &str| targets.upstream(name).addr();
    let list = format!(
        "targets: [{{ addr: \"{}\", weight: 5 }}, {{ addr: \"{}\", weight: 1 }}, \"{}\"], health: none",
        addr("a"),
        addr("b"),
        addr("c")
    );
    let gateway = Gateway::start(&config(&list));
    let mut client = gateway.client();
    let order: String = (0..70).map(|_| client.get("/").text()).collect();
    let often = |name| order.chars().filter(|c| *c == name).count();
    assert_eq!((often('a'), often('b'), often('c')), (50, 10, 10), "{order}");
    assert!(!order.contains("aaaaa"), "bursts: {order}");
}

#[test]
fn a_target_of_weight_zero_gets_nothing() {
    let targets = Targets::start(2);
    let list = format!(
        "targets: [{{ addr: \"{}\", weight: 0 }}, \"{}\"], health: none",
        targets.upstream("a").addr(),
        targets.upstream("b").addr()
    );
    assert_eq!(tally(&mut Gateway::start(&config(&list)).client(), 20), counts(&[("b", 20)]));
}

#[test]
fn least_conn_avoids_the_busy_target() {
    let gate = Gate::default();
    let slow = |name: &'static str| {
        let gate = gate.clone();
        Upstream::start(move |request| {
            if request.target == "/slow" {
                gate.wait();
            }
            Answer::ok(name)
        })
    };
    let (a, b) = (slow("a"), slow("b"));
    let list = format!("targets: [\"{}\", \"{}\"], balance: least_conn, health: none", a.addr(), b.addr());
    let gateway = Gateway::start(&config(&list));
    let mut busy = gateway.client();
    busy.request("GET", "/slow").send_only();
    assert_eventually(DEADLINE, "the slow request has arrived", || {
        a.requests().len() + b.requests().len() == 1
    });
    let idle = if a.requests().is_empty() { "a" } else { "b" };
    assert_eq!(tally(&mut gateway.client(), 10), counts(&[(idle, 10)]));
    gate.open();
    assert_eq!(busy.read("GET").status, 200);
}

#[test]
fn p2c_ewma_uses_every_target() {
    let targets = Targets::start(3);
    let gateway = targets.gateway("balance: p2c_ewma, health: none");
    let tally = tally(&mut gateway.client(), 300);
    assert!(tally.len() == 3 && tally.values().all(|count| *count > 0), "{tally:?}");
}

/// Which target each of sixty keys goes to.
fn placement(gateway: &Gateway) -> BTreeMap<usize, String> {
    let mut client = gateway.client();
    (0..60)
        .map(|key| (key, client.request("GET", "/").header("x-user", &format!("u{key}")).send().text()))
        .collect()
}

#[test]
fn a_hash_moves_only_the_keys_of_the_target_that_fails() {
    let targets = Targets::start(3);
    let gateway = targets.gateway(
        "balance: { hash: \"header:x-user\" }, health: { probe: tcp, every: 100ms, up: 1, down: 1 }",
    );
    let before = placement(&gateway);
    assert_eq!(before, placement(&gateway), "the same key, the same target");
    for name in ["a", "b", "c"] {
        assert!(before.values().any(|target| target == name), "no key for {name}: {before:?}");
    }
    targets.upstream("b").down();
    let during = eventually(DEADLINE, "b is out", || {
        Some(placement(&gateway)).filter(|p| p.values().all(|t| t == "a" || t == "c"))
    });
    for (key, target) in before.iter().filter(|(_, target)| *target != "b") {
        assert_eq!(during[key], *target, "key {key} had nothing to do with b");
    }
    targets.upstream("b").up();
    assert_eventually(DEADLINE, "every key is back", || placement(&gateway) == before);
}

#[test]
fn a_hash_by_path_parameter_and_by_cookie() {
    for (key, ask) in [("param:id", "path"), ("cookie:sid", "cookie"), ("query:q", "query"), ("path", "path")]
    {
        let targets = Targets::start(3);
        let gateway = targets.gateway(&format!("balance: {{ hash: \"{key}\" }}, health: none"));
        let mut client = gateway.client();
        let mut ask = |value: usize| match ask {
            "path" => client.get(&format!("/items/{value}")).text(),
            "query" => client.get(&format!("/?q={value}")).text(),
            _ => client.request("GET", "/").header("cookie", &format!("x=1; sid={value}")).send().text(),
        };
        let first: Vec<String> = (0..30).map(&mut ask).collect();
        let second: Vec<String> = (0..30).map(&mut ask).collect();
        assert_eq!(first, second, "{key}");
        let mut used = first;
        used.sort();
        used.dedup();
        assert_eq!(used.len(), 3, "{key} spreads over all targets");
    }
}

#[test]
fn a_full_upstream_answers_503() {
    for limit in ["max: 1", "per_target: 1"] {
        let gate = Gate::default();
        let held = gate.clone();
        let upstream = Upstream::start(move |_| {
            held.wait();
            Answer::ok("x")
        });
        let said = format!("targets: [\"{}\"], health: none, pool: {{ {limit} }}", upstream.addr());
        let gateway = Gateway::start(&config(&said));
        let before = upstream.requests().len();
        let mut first = gateway.client();
        first.request("GET", "/").send_only();
        upstream.wait_for_requests(before + 1);
        let second = gateway.get("/");
        assert_eq!((second.status, second.problem_code().as_str()), (503, "upstream-saturated"), "{limit}");
        gate.open();
        assert_eq!(first.read("GET").status, 200);
        assert_eventually(DEADLINE, "there is room again", || gateway.get("/").status == 200);
    }
}

#[test]
fn a_tcp_check_takes_a_target_out_and_back_in() {
    let targets = Targets::start(2);
    let gateway = targets.gateway("health: { probe: tcp, every: 100ms, timeout: 500ms, up: 2, down: 2 }");
    only(&gateway, &["a", "b"]);
    targets.upstream("a").down();
    only(&gateway, &["b"]);
    targets.upstream("b").down();
    assert_eventually(DEADLINE, "nobody is left", || {
        let response = gateway.get("/");
        response.status == 503 && response.problem_code() == "no-healthy-target"
    });
    targets.upstream("a").up();
    only(&gateway, &["a"]);
    targets.upstream("b").up();
    only(&gateway, &["a", "b"]);
}

/// Answers `/health` with 204 while `healthy`, else 500; anything else with its name.
fn checked(name: &'static str, healthy: &Arc<AtomicBool>) -> Upstream {
    let healthy = Arc::clone(healthy);
    Upstream::start(move |request| match request.target.as_str() {
        "/health?deep=1" => Answer::new(if healthy.load(Ordering::SeqCst) { 204 } else { 500 }, ""),
        _ => Answer::ok(name),
    })
}

#[test]
fn an_http_check_looks_at_the_status() {
    let healthy: [Arc<AtomicBool>; 2] = [Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false))];
    let (a, b) = (checked("a", &healthy[0]), checked("b", &healthy[1]));
    let said = format!(
        "targets: [\"{}\", \"{}\"], health: {{ probe: \"GET /health?deep=1\", every: 100ms, up: 2, down: 2, expect: [204], host: check.test }}",
        a.addr(),
        b.addr()
    );
    let gateway = Gateway::start(&config(&said));
    only(&gateway, &["a"]);
    healthy[1].store(true, Ordering::SeqCst);
    only(&gateway, &["a", "b"]);
    healthy[0].store(false, Ordering::SeqCst);
    only(&gateway, &["b"]);
    let probe = b.requests().into_iter().find(|request| request.target == "/health?deep=1").unwrap();
    assert_eq!((probe.method.as_str(), probe.headers.first("host")), ("GET", Some("check.test")));
    assert!(
        gateway.access_log().iter().all(|line| line["path"] != "/health?deep=1"),
        "probes are no requests"
    );
}

#[test]
fn a_check_that_hangs_is_a_failure() {
    let gate = Gate::default();
    let held = gate.clone();
    let a = Upstream::start(move |request| {
        if request.target == "/health" {
            held.wait();
        }
        Answer::ok("a")
    });
    let b = Upstream::start(|_| Answer::ok("b"));
    let said = format!(
        "targets: [\"{}\", \"{}\"], health: {{ probe: GET /health, every: 100ms, timeout: 200ms, down: 1 }}",
        a.addr(),
        b.addr()
    );
    let gateway = Gateway::start(&config(&said));
    only(&gateway, &["b"]);
    gate.open();
}

#[test]
fn a_grpc_check_asks_the_health_service() {
    let upstreams =
        [("a", "a"), ("b", "b")].map(|(name, body)| (name, H2Upstream::start(move |_| H2Answer::ok(body))));
    let [a, b] = [&upstreams[0].1, &upstreams[1].1];
    b.serving(false);
    let said = format!(
        "targets: [\"{}\", \"{}\"], protocol: grpc, health: {{ probe: grpc shop.Orders, every: 100ms, up: 1, down: 1 }}",
        a.addr(),
        b.addr()
    );
    let gateway = Gateway::start(&config(&said));
    only(&gateway, &["a"]);
    b.serving(true);
    only(&gateway, &["a", "b"]);
    a.serving(false);
    only(&gateway, &["b"]);
    assert!(a.health_checks() > 0 && b.health_checks() > 0);
}

/// One name on a DNS server, and an upstream on each of the addresses it may have, all on one port.
struct Named {
    dns: DnsServer,
    upstreams: Vec<Upstream>,
    said: String,
}

fn named(count: u8) -> Named {
    let dns = DnsServer::start();
    let shared = share_a_port(count);
    let port = shared[0].addr().port();
    let upstreams = shared.into_iter().map(|at| {
        let ip = at.addr().ip().to_string();
        Upstream::listen(at, None, move |_| Answer::ok(ip.as_str()))
    });
    let said =
        format!("targets: [\"app.test:{port}\"], health: none, discovery: {{ min: 100ms, max: 300ms }}");
    Named { dns, upstreams: upstreams.collect(), said }
}

impl Named {
    fn gateway(&self) -> Gateway {
        Gateway::start(&format!("process: {{ resolver: [\"{}\"] }}\n{}", self.dns.addr(), config(&self.said)))
    }

    /// Waits until the name has been asked for again, several times.
    fn asked_again(&self) {
        let before = self.dns.queries();
        assert_eventually(DEADLINE, "the name is asked for again", || self.dns.queries() >= before + 6);
    }
}

#[test]
fn a_name_that_changes_is_followed() {
    let named = named(3);
    named.dns.set("app.test", &["127.0.0.2"], 0);
    let gateway = named.gateway();
    only(&gateway, &["127.0.0.2"]);
    named.dns.set("app.test", &["127.0.0.3"], 0);
    only(&gateway, &["127.0.0.3"]);
    named.dns.set("app.test", &["127.0.0.2", "127.0.0.4"], 0);
    only(&gateway, &["127.0.0.2", "127.0.0.4"]);
    assert!(named.upstreams.iter().all(|upstream| !upstream.requests().is_empty()));
}

#[test]
fn the_last_good_addresses_are_kept_when_dns_fails() {
    for mode in [DnsMode::ServFail, DnsMode::Silent, DnsMode::NxDomain] {
        let named = named(2);
        named.dns.set("app.test", &["127.0.0.2"], 0);
        let gateway = named.gateway();
        only(&gateway, &["127.0.0.2"]);
        named.dns.mode(mode);
        named.asked_again();
        let response = gateway.get("/");
        assert_eq!((response.status, response.text().as_str()), (200, "127.0.0.2"), "{mode:?}");
        named.dns.set("app.test", &["127.0.0.3"], 0);
        named.dns.mode(DnsMode::Answer);
        only(&gateway, &["127.0.0.3"]);
    }
}

#[test]
fn a_name_that_is_not_known_at_start_is_found_later() {
    let named = named(1);
    named.dns.mode(DnsMode::ServFail);
    let gateway = named.gateway();
    let response = gateway.get("/");
    assert_eq!((response.status, response.problem_code().as_str()), (503, "no-target"));
    named.dns.set("app.test", &["127.0.0.2"], 0);
    named.dns.mode(DnsMode::Answer);
    only(&gateway, &["127.0.0.2"]);
}

/// A TLS upstream that names itself in its answers.
fn tls_upstream(tls: Arc<ServerConfig>) -> Upstream {
    Upstream::listen(Reserved::any(), Some(tls), |_| Answer::ok("over TLS"))
}

/// What becomes of one request to a target with this certificate, when `said` says how it is trusted.
fn over_tls(leaf: &Leaf, ca: &Authority, said: &str) -> (u16, String) {
    let upstream = tls_upstream(leaf.server());
    let plan = Plan::new(&config(&format!("targets: [\"{}\"], health: none, {said}", upstream.addr())));
    let gateway = plan.file("ca.pem", ca.pem.as_str()).start();
    let response = gateway.get("/");
    let reason = gateway.log_of(&response)["reason"].as_str().unwrap_or(&response.text()).to_owned();
    (response.status, reason)
}

#[test]
fn an_upstream_certificate_is_verified() {
    let (ca, other) = (Authority::new("ours"), Authority::new("theirs"));
    let refused = (502, "upstream-tls-failed".to_owned());
    let accepted = (200, "over TLS".to_owned());
    let good = ca.leaf("app.internal");
    let trusted = "tls: { sni: app.internal, ca: ca.pem }";
    assert_eq!(over_tls(&good, &ca, trusted), accepted);
    assert_eq!(over_tls(&good, &other, trusted), refused, "signed by somebody else");
    assert_eq!(over_tls(&ca.leaf("other.internal"), &ca, trusted), refused, "another name");
    assert_eq!(over_tls(&ca.expired("app.internal"), &ca, trusted), refused, "expired");
    assert_eq!(over_tls(&good, &ca, "tls: { sni: app.internal }"), refused, "not known to the system");
    assert_eq!(
        over_tls(&ca.leaf("other.internal"), &ca, "tls: { sni: app.internal, verify: false }"),
        accepted,
        "as it was asked for"
    );
}

#[test]
fn a_client_certificate_is_shown() {
    let (ca, other) = (Authority::new("ours"), Authority::new("theirs"));
    let upstream = tls_upstream(ca.server_for_its_clients(&ca.leaf("app.internal")));
    let ask = |shown: Option<Leaf>| {
        let cert = shown.as_ref().map_or("", |_| ", client_cert: { cert: c.pem, key: k.pem }");
        let said = format!(
            "targets: [\"{}\"], health: none, tls: {{ sni: app.internal, ca: ca.pem{cert} }}",
            upstream.addr()
        );
        let leaf = shown.unwrap_or(Leaf { cert: String::new(), key: String::new() });
        let plan = Plan::new(&config(&said))
            .file("ca.pem", ca.pem.as_str())
            .file("c.pem", leaf.cert)
            .file("k.pem", leaf.key);
        plan.start().get("/").status
    };
    assert_eq!(ask(Some(ca.leaf("gateway"))), 200);
    assert_eq!(ask(None), 502);
    assert_eq!(ask(Some(other.leaf("gateway"))), 502);
    assert!(upstream.failed_handshakes() > 0);
}

#[test]
fn a_connection_is_not_shared_between_upstreams_that_trust_differently() {
    let (ca, other) = (Authority::new("ours"), Authority::new("theirs"));
    let upstream = tls_upstream(ca.leaf("app.internal").server());
    let yaml = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  lax: { targets: ["{{app}}"], health: none, tls: { sni: app.internal, verify: false } }
  ours: { targets: ["{{app}}"], health: none, tls: { sni: app.internal, ca: ours.pem } }
  theirs: { targets: ["{{app}}"], health: none, tls: { sni: app.internal, ca: theirs.pem } }
apis:
  shop:
    auth: public
    routes: { lax: { match: /lax, to: lax }, ours: { match: /ours, to: ours }, theirs: { match: /theirs, to: theirs } }
"#;
    let plan =
        Plan::new(yaml).with("app", upstream.addr()).file("ours.pem", ca.pem).file("theirs.pem", other.pem);
    let gateway = plan.start();
    for (target, status) in
        [("/lax", 200), ("/theirs", 502), ("/ours", 200), ("/theirs", 502), ("/lax", 200), ("/ours", 200)]
    {
        assert_eq!(gateway.get(target).status, status, "{target}");
    }
    assert_eq!(upstream.connections(), 2, "each of the two that trust has its own, and keeps it");
}

#[test]
fn a_tls_check_finds_a_certificate_that_is_not_trusted() {
    let (ca, other) = (Authority::new("ours"), Authority::new("theirs"));
    let (good, bad) =
        (tls_upstream(ca.leaf("app.internal").server()), tls_upstream(other.leaf("app.internal").server()));
    let said = format!(
        "targets: [\"{}\", \"{}\"], tls: {{ sni: app.internal, ca: ca.pem }}, health: {{ probe: tcp, every: 100ms, down: 1 }}",
        good.addr(),
        bad.addr()
    );
    let gateway = Plan::new(&config(&said)).file("ca.pem", ca.pem).start();
    only(&gateway, &["over TLS"]);
    assert_eq!(bad.requests().len(), 0);
}
