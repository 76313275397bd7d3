//! Another configuration in the place of the running one: whole or not at all, and what has not changed lives on.

use crate::harness::{
    Client, DEADLINE, GRANT, Gateway, Plan, Response, StopAtEnd, Upstream, assert_eventually, handshake,
};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const ONE: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { targets: ["{{app}}"] } }
apis:
  shop:
    auth: public
    routes:
      text: { match: /text, response: { headers: { set: { x-version: one } } }, to: { respond: { text: one } } }
      limited: { match: /limited, limits: 3/h per client_ip, to: { respond: { text: ok } } }
      app: { match: "/app/**", to: app }
"#;

fn started() -> (Gateway, Upstream) {
    let app = Upstream::echo();
    (Plan::new(ONE).with("app", app.addr()).start(), app)
}

fn metric(gateway: &Gateway, name: &str) -> f64 {
    let text = gateway.admin_socket().get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default().to_owned();
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}

fn hash(gateway: &Gateway) -> String {
    gateway.admin_socket().get("/config").json()["hash"].as_str().unwrap().to_owned()
}

fn to_two(gateway: &Gateway) {
    gateway.edit("x-version: one", "x-version: two");
    gateway.edit("text: one", "text: two");
}

#[test]
fn a_signal_and_the_command_read_the_file_again() {
    let (gateway, _app) = started();
    let mut kept = gateway.client();
    assert_eq!(kept.get("/text").text(), "one");
    to_two(&gateway);
    let dry = gateway.ask(&["reload", "--dry-run"]);
    assert!(dry.code == 0 && dry.stdout.starts_with("would reload "), "{dry:#?}");
    assert_eq!(kept.get("/text").text(), "one", "looking changes nothing");
    let ran = gateway.ask(&["reload"]);
    assert!(ran.code == 0 && ran.stdout.starts_with("reloaded "), "{ran:#?}");
    assert_eq!(kept.get("/text").text(), "two", "over a connection from before");
    gateway.edit("text: two", "text: three");
    gateway.signal(Signal::SIGHUP);
    assert_eventually(DEADLINE, "HUP reloads", || kept.get("/text").text() == "three");
    assert_eventually(DEADLINE, "it is said", || gateway.stderr().matches("info: reloaded: ").count() == 2);
    assert_eq!(metric(&gateway, "tollgate_config_last_reload_success") as u32, 1);
}

#[test]
fn what_is_wrong_is_told_and_changes_nothing() {
    let (gateway, _app) = started();
    let before = hash(&gateway);
    gateway.edit("to: app", "to: nowhere");
    assert_eq!(gateway.ask(&["reload", "--dry-run"]).code, 1);
    assert_eq!(
        metric(&gateway, "tollgate_config_last_reload_success") as u32,
        1,
        "nobody has tried to reload"
    );
    let ran = gateway.ask(&["reload"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(
        ran.stderr.contains("unknown upstream `nowhere`") || ran.stderr.contains("`nowhere`"),
        "{ran:#?}"
    );
    assert!(ran.stderr.contains("reload refused: the configuration has 1 error"), "{ran:#?}");
    let line = format!("reload refused: 1 error, running config {} unchanged", &before[..6]);
    assert_eventually(DEADLINE, "the log says so too", || gateway.stderr().contains(&line));
    assert_eq!(hash(&gateway), before);
    assert_eq!(gateway.get("/app/x").status, 200);
    assert_eq!(metric(&gateway, "tollgate_config_last_reload_success") as u32, 0);
    gateway.edit("to: nowhere", "to: app");
    assert_eq!(gateway.ask(&["reload"]).code, 0);
    assert_eq!(metric(&gateway, "tollgate_config_last_reload_success") as u32, 1);
}

#[test]
fn counters_and_upgraded_connections_live_on() {
    let app = Upstream::raw(|mut wire| {
        while wire.read_line()?.is_some_and(|line| !line.is_empty()) {}
        wire.write(GRANT)?;
        while let Ok(piece) = wire.read_some() {
            if piece.is_empty() {
                break;
            }
            wire.write(piece)?;
        }
        Ok(())
    });
    let gateway = Plan::new(ONE).with("app", app.addr()).start();
    let mut tunnel = gateway.client();
    tunnel.send_raw(handshake("/app/ws", ""));
    assert_eq!(tunnel.read_head().status, 101);
    let limited = || gateway.get("/limited").status;
    assert_eq!([limited(), limited()], [200, 200]);
    for round in 0..3 {
        gateway.edit("text: ok", "text: ok-");
        assert_eq!(gateway.ask(&["reload"]).code, 0);
        let said = format!("round {round}");
        tunnel.send_raw(&said);
        assert_eq!(tunnel.wire.read_exactly(said.len()).unwrap(), said.as_bytes());
    }
    assert_eq!([limited(), limited()], [200, 429], "what was counted before counts");
}

/// 100 reloads between two configurations under load: every answer is whole, no connection is closed.
#[test]
fn a_hundred_reloads_under_load_lose_nothing() {
    let (gateway, _app) = started();
    let (stop, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    let before = std::thread::scope(|scope| {
        for number in 0..4 {
            let (gateway, stop, requests) = (&gateway, &stop, &requests);
            scope.spawn(move || {
                let mut client = gateway.client();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get(if number == 3 { "/app/x" } else { "/text" });
                    assert_eq!(answer.status, 200);
                    assert_ne!(answer.header("connection"), Some("close"), "a reload closes no connection");
                    if number != 3 {
                        assert_eq!(
                            answer.header("x-version").unwrap(),
                            answer.text(),
                            "of one configuration"
                        );
                    }
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop = StopAtEnd(&stop);
        let mut before = 0;
        for round in 0..100 {
            let (from, to) = if round % 2 == 0 { ("one", "two") } else { ("two", "one") };
            gateway.edit(&format!("x-version: {from}"), &format!("x-version: {to}"));
            gateway.edit(&format!("text: {from}"), &format!("text: {to}"));
            let answer = gateway.admin_socket().request("POST", "/reload").send();
            assert_eq!(answer.status, 200, "{}", answer.text());
            if round == 20 {
                before = gateway.resident_bytes();
            }
        }
        before
    });
    assert!(requests.load(Ordering::Relaxed) > 400);
    assert_eventually(DEADLINE, "old configurations are freed", || {
        metric(&gateway, "tollgate_config_snapshots") as u32 == 1
    });
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more after 80 reloads");
}

#[test]
fn a_new_listener_is_opened_by_a_successor() {
    let (gateway, _app) = started();
    assert_eq!(gateway.get("/limited").status, 200);
    gateway.edit(
        "listeners: { web: { bind: \"127.0.0.1:0\" } }",
        "listeners: { web: { bind: \"127.0.0.1:0\" }, more: { bind: \"127.0.0.1:0\" } }",
    );
    let dry = gateway.ask(&["reload", "--dry-run"]);
    assert!(dry.stdout.contains("+ listener more: "), "{dry:#?}");
    let ran = gateway.ask(&["reload"]);
    assert!(ran.code == 0 && ran.stdout.contains("serves now"), "{ran:#?}");
    let more = gateway.stderr().lines().find_map(|line| line.strip_prefix("listening more ")?.parse().ok());
    assert_eq!(Client::connect(more.unwrap()).get("/text").text(), "one");
    assert_eq!(gateway.get("/limited").status, 200);
    assert_eq!(
        [gateway.get("/limited").status, gateway.get("/limited").status],
        [200, 429],
        "counters went along"
    );
    gateway.wait_exit(DEADLINE);
}

fn put(gateway: &Gateway, target: &str, tag: Option<&str>, text: &str) -> Response {
    let mut client = gateway.admin_socket();
    let mut ask = client.request("PUT", target);
    if let Some(tag) = tag {
        ask = ask.header("if-match", &format!("\"{tag}\""));
    }
    ask.body(text.as_bytes()).send()
}

#[test]
fn a_configuration_is_put_in_place_of_the_one_that_was_looked_at() {
    let (gateway, _app) = started();
    let file = gateway.plan().dir().join("tollgate.yaml");
    let before = std::fs::read_to_string(&file).unwrap();
    let two = before.replace("text: one", "text: two");
    assert_eq!(put(&gateway, "/config", None, &two).status, 428);
    assert_eq!(put(&gateway, "/config", Some("000000000000"), &two).status, 412);
    let tag = hash(&gateway);
    let wrong = put(&gateway, "/config", Some(&tag), &two.replace("to: app", "to: nowhere"));
    assert_eq!(wrong.status, 422);
    assert!(wrong.json()["findings"].as_str().unwrap().contains("nowhere"));
    assert_eq!(put(&gateway, "/config?dry_run=1", Some(&tag), &two).json()["applied"], false);
    assert_eq!(
        (gateway.get("/text").text(), std::fs::read_to_string(&file).unwrap()),
        ("one".into(), before.clone())
    );
    let put_it = put(&gateway, "/config", Some(&tag), &two);
    assert_eq!((put_it.status, gateway.get("/text").text()), (200, "two".into()), "{}", put_it.text());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), two, "the file is written");
    let three = two.replace("text: two", "text: three");
    assert_eq!(put(&gateway, "/config?ephemeral=1", Some(&hash(&gateway)), &three).status, 200);
    assert_eq!(gateway.get("/text").text(), "three");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), two, "the file is not");
    gateway.signal(Signal::SIGHUP);
    assert_eventually(DEADLINE, "the file counts again", || gateway.get("/text").text() == "two");
}

const KEYS: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners: { web: { bind: "127.0.0.1:0" } }
auth: { keys: { api_key: { header: x-api-key } } }
plans: { small: { limits: [2/h per consumer] }, large: { limits: [5/h per consumer] } }
consumers:
  # SHA-256 of "first" and of "second".
  ann: { plan: small, keys: "sha256:a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e" }
  bob: { plan: small, keys: "sha256:16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4" }
apis: { shop: { auth: keys, routes: { all: { match: "/**", to: { respond: { text: "${consumer}" } } } } } }
"#;

/// Whoever is taken out of the file is nobody at once, and another plan counts at once.
#[test]
fn consumers_and_plans_change_at_once() {
    let gateway = Plan::new(KEYS).start();
    let mut kept = gateway.client();
    let mut ask = |key: &str| kept.request("GET", "/").header("x-api-key", key).send();
    assert_eq!((ask("first").text(), ask("second").text()), ("ann".into(), "bob".into()));
    gateway.edit("  bob: ", "  eve: ");
    gateway.edit("ann: { plan: small", "ann: { plan: large");
    assert_eq!(gateway.ask(&["reload"]).code, 0);
    assert_eq!(ask("second").text(), "eve");
    let left = |answer: Response| answer.header("ratelimit").unwrap_or_default().to_owned();
    assert!(left(ask("first")).contains("r=4"), "another plan is another count");
    gateway.edit("  eve: ", "  # eve: ");
    assert_eq!(gateway.ask(&["reload"]).code, 0);
    assert_eq!((ask("second").status, ask("first").status), (401, 200));
}

/// A page in a browser can reach loopback: without a token nothing can be changed there.
#[test]
fn changes_over_tcp_want_a_token() {
    let yaml = ONE.replace("bind: \"unix:{{dir}}/admin.sock\"", "bind: \"127.0.0.1:0\"");
    let post = |gateway: &Gateway, target: &str, token: &str| {
        let mut client = Client::connect(gateway.admin());
        let value = format!("Bearer {token}");
        let ask = client.request("POST", target);
        let ask = if token.is_empty() { ask } else { ask.header("authorization", &value) };
        ask.send().status
    };
    let open = Plan::new(&yaml).with("app", "127.0.0.1:1").start();
    for target in ["/reload", "/reload?dry_run=1", "/upgrade"] {
        assert_eq!(post(&open, target, ""), 403);
    }
    assert_eq!(open.ask_admin("/reload").status, 405);
    let yaml = yaml.replace(
        "\"127.0.0.1:0\" }\nlisteners",
        "\"127.0.0.1:0\", tokens: { ops: s3cret-token } }\nlisteners",
    );
    let guarded = Plan::new(&yaml).with("app", "127.0.0.1:1").start();
    assert_eq!(post(&guarded, "/reload", ""), 401);
    assert_eq!(post(&guarded, "/reload", "s3cret-token"), 200);
    assert_eq!(post(&guarded, "/upgrade?binary=/bin/true", "s3cret-token"), 403, "that would run anything");
}

#[test]
fn a_watched_file_is_read_when_it_changes() {
    let app = Upstream::echo();
    let gateway = Plan::new(ONE).with("app", app.addr()).args(&["--watch"]).start();
    to_two(&gateway);
    assert_eventually(DEADLINE, "the change is noticed", || gateway.get("/text").text() == "two");
    gateway.edit("to: app", "to: nowhere");
    assert_eventually(DEADLINE, "what is wrong is told", || {
        gateway.stderr().contains("reload refused: 1 error")
    });
    assert_eq!(gateway.get("/text").text(), "two");
}
