//! The admin listener: health, metrics, the effective configuration, upstreams; tokens; its unix socket.

use crate::harness::{Answer, Client, DEADLINE, Plan, Response, Upstream, assert_eventually};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

const FRONT: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  app: { targets: ["{{app}}", "{{dead}}"], health: { probe: tcp, every: 100ms, down: 1, up: 1 } }
defaults: { auth: public, timeouts: { connect: 700ms } }
apis:
  shop:
    routes:
      item: { match: "GET /items/{id}", to: app }
      ping: { match: GET /ping, to: { respond: { text: pong } } }
"#;

fn front() -> Plan {
    Plan::new(FRONT).with("dead", "127.0.0.1:9")
}

fn ask_with(addr: std::net::SocketAddr, target: &str, token: &str) -> Response {
    Client::connect(addr).request("GET", target).header("authorization", &format!("Bearer {token}")).send()
}

#[test]
fn health_and_readiness() {
    let gateway = front().with("app", "127.0.0.1:7").start();
    assert_eq!(gateway.ask_admin("/healthz").status, 200);
    assert_eq!(
        gateway.ask_admin("/readyz").status,
        200,
        "an upstream that is down does not make the gateway unready"
    );
    assert_eq!(gateway.ask_admin("/nowhere").status, 404);
    assert_eq!(Client::connect(gateway.admin()).request("POST", "/healthz").send().status, 405);
}

#[test]
fn the_admin_interface_is_not_on_the_listeners() {
    let gateway = front().with("app", "127.0.0.1:7").start();
    for target in ["/healthz", "/metrics", "/config", "/upstreams"] {
        assert_eq!(gateway.get(target).status, 404, "{target}");
    }
}

#[test]
fn metrics_count_what_happened() {
    let upstream = Upstream::start(|_| Answer::ok("0123456789"));
    let gateway = front().with("app", upstream.addr()).start();
    let mut client = gateway.client();
    for id in 0..5 {
        assert_eq!(client.get(&format!("/items/{id}")).status, 200);
    }
    client.get("/ping");
    client.get("/nowhere/1");
    client.get("/nowhere/2");
    gateway.log_line(7);
    let requests = |labels: &str| gateway.metric(&format!("tollgate_http_requests_total{{{labels}}}"));
    assert_eq!(requests(r#"api="shop",route="item",method="GET",status="200""#), 5.0);
    assert_eq!(requests(r#"route="ping",status="200""#), 1.0);
    assert_eq!(requests(r#"status="404""#), 2.0);
    assert_eq!(gateway.metric(r#"tollgate_http_request_duration_seconds_count{route="item"}"#), 5.0);
    assert_eq!(gateway.metric(r#"tollgate_upstream_request_duration_seconds_count{upstream="app"}"#), 5.0);
    assert!(gateway.metric(r#"tollgate_http_bytes_total{direction="sent"}"#) >= 50.0);
    assert_eq!(gateway.metric("tollgate_config_last_reload_success"), 1.0);
    assert_eq!(gateway.metric("tollgate_build_info"), 1.0);
    assert!(gateway.metric("process_resident_memory_bytes") > 1e6);
    let text = gateway.ask_admin("/metrics");
    assert!(text.header("content-type").unwrap().starts_with("text/plain"), "{:?}", text.headers);
    assert!(!text.text().contains("/items/") && !text.text().contains("/nowhere"), "paths are no labels");
}

#[test]
fn the_number_of_series_is_bounded() {
    let upstream = Upstream::echo();
    let routes: String = (0..200).map(|n| format!("\n      r{n}: {{ match: /r{n}, to: app }}")).collect();
    let yaml = format!("telemetry: {{ metrics: {{ max_series: 50 }} }}\n{}{routes}\n", FRONT.trim_end());
    let gateway = Plan::new(&yaml).with("app", upstream.addr()).with("dead", "127.0.0.1:9").start();
    let mut client = gateway.client();
    for number in 0..200 {
        assert_eq!(client.get(&format!("/r{number}")).status, 200);
    }
    gateway.log_line(199);
    let text = gateway.ask_admin("/metrics").text();
    let series = text.lines().filter(|line| line.starts_with("tollgate_http_requests_total{")).count();
    assert!(series <= 51, "{series} series");
    assert_eq!(gateway.metric("tollgate_http_requests_total"), 200.0, "what goes beyond is counted in one");
    assert!(gateway.metric("tollgate_metrics_series_dropped_total") > 0.0);
}

#[test]
fn an_unusual_method_is_no_label() {
    let gateway = front().with("app", "127.0.0.1:7").start();
    let mut client = gateway.client();
    for number in 0..20 {
        client.request(&format!("X{number}"), "/ping").send();
    }
    gateway.log_line(19);
    assert!(!gateway.ask_admin("/metrics").text().contains("X1"), "a client must not create series");
}

#[test]
fn upstreams_and_their_health_are_visible() {
    let upstream = Upstream::echo();
    let gateway = front().with("app", upstream.addr()).start();
    let up = |addr: &str| {
        gateway.metric(&format!("tollgate_upstream_target_up{{upstream=\"app\",target=\"{addr}\"}}"))
    };
    assert_eventually(DEADLINE, "the dead target is seen", || {
        up("127.0.0.1:9") == 0.0 && up(&upstream.addr().to_string()) == 1.0
    });
    let listed = gateway.ask_admin("/upstreams");
    assert_eq!((listed.status, listed.header("content-type")), (200, Some("application/json")));
    let text = listed.json().to_string();
    for part in ["\"app\"", "127.0.0.1:9", &upstream.addr().to_string()] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert_eventually(DEADLINE, "the change is logged with its reason", || {
        gateway.stderr().lines().any(|line| line.contains("127.0.0.1:9") && line.contains("refused"))
    });
}

#[test]
fn the_effective_configuration_is_shown_without_secrets() {
    let upstream = Upstream::echo();
    let yaml =
        format!("admin: {{ bind: \"127.0.0.1:0\", tokens: {{ ops: \"${{env:OPS_TOKEN}}\" }} }}\n{FRONT}");
    let gateway = Plan::new(&yaml)
        .with("app", upstream.addr())
        .with("dead", "127.0.0.1:9")
        .env("OPS_TOKEN", "geheim-123")
        .start();
    let shown = ask_with(gateway.admin(), "/config", "geheim-123");
    assert_eq!(shown.status, 200, "{}", shown.text());
    let text = shown.text();
    assert!(!text.contains("geheim"), "a token is shown: {text}");
    for part in ["shop", "item", "/items/{id}", "700ms", "tollgate.yaml:"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn a_token_is_needed_where_one_is_set() {
    let yaml = format!("admin: {{ bind: \"127.0.0.1:0\", tokens: {{ ops: geheim-123 }} }}\n{FRONT}");
    let gateway = Plan::new(&yaml).with("app", "127.0.0.1:7").with("dead", "127.0.0.1:9").start();
    for target in ["/config", "/upstreams", "/metrics"] {
        let without = gateway.ask_admin(target);
        assert_eq!((without.status, without.header("www-authenticate").is_some()), (401, true), "{target}");
        assert_eq!(ask_with(gateway.admin(), target, "geheim-12").status, 401, "{target}");
        assert_eq!(ask_with(gateway.admin(), target, "geheim-1234").status, 401, "{target}");
        assert_eq!(ask_with(gateway.admin(), target, "geheim-123").status, 200, "{target}");
    }
    assert_eq!((gateway.ask_admin("/healthz").status, gateway.ask_admin("/readyz").status), (200, 200));
}

#[test]
fn the_unix_socket_serves_and_goes_away() {
    let yaml = format!("admin: {{ bind: \"unix:{{{{dir}}}}/admin.sock\" }}\n{FRONT}");
    let gateway = Plan::new(&yaml).with("app", "127.0.0.1:7").with("dead", "127.0.0.1:9").start();
    let socket = gateway.plan().dir().join("admin.sock");
    assert_eq!(Client::connect_unix(&socket).get("/healthz").status, 200);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660, "{mode:o}");
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(gateway.wait_exit(DEADLINE).success());
    assert!(!socket.exists(), "a socket that nobody serves is removed");
}

#[test]
fn a_socket_left_behind_by_a_crash_is_replaced() {
    let yaml = format!("admin: {{ bind: \"unix:{{{{dir}}}}/admin.sock\" }}\n{FRONT}");
    let plan = Plan::new(&yaml).with("app", "127.0.0.1:7").with("dead", "127.0.0.1:9");
    let socket = plan.dir().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let _gateway = plan.start();
    assert_eq!(Client::connect_unix(&socket).get("/healthz").status, 200);
}

#[test]
fn a_public_address_without_a_token_is_refused() {
    let yaml = format!("admin: {{ bind: \"0.0.0.0:0\" }}\n{FRONT}");
    let ran = Plan::new(&yaml)
        .with("app", "127.0.0.1:7")
        .with("dead", "127.0.0.1:9")
        .try_start()
        .err()
        .expect("it must not start");
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.stderr.contains("TG1309"), "{ran:#?}");
}

#[test]
fn status_tells_of_a_running_gateway_and_of_none() {
    let gateway = front().with("app", "127.0.0.1:7").start();
    let admin = format!("http://{}", gateway.admin());
    let json = gateway.plan().run(&["status", "--admin", &admin, "-o", "json"]);
    assert_eq!(json.code, 0, "{json:#?}");
    let status: Value = json.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"), "{status}");
    assert_eq!(gateway.plan().run(&["status", "--admin", &admin, "--no-color"]).code, 0);
    drop(gateway);
    let none = front().run(&["status", "--admin", &admin]);
    assert_eq!(none.code, 4, "{none:#?}");
}
