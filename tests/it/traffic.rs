//! How traffic is led: what ends and who still calls it, faults on purpose, so many at once.

use crate::harness::{
    Answer, Client, DEADLINE, Gate, Gateway, H2Client, Plan, Response, Upstream, assert_eventually,
};
use std::time::{Duration, Instant};

/// A metric over the admin socket, by its whole name with labels.
fn metric(gateway: &Gateway, series: &str) -> f64 {
    let text = gateway.admin_socket().get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map(str::to_owned);
    line.map_or(0.0, |value| value.parse().unwrap())
}

fn reload(gateway: &Gateway) {
    let ran = gateway.ask(&["reload"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
}

const CALLERS: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners: { web: { bind: "127.0.0.1:0" } }
auth: { keys: { api_key: {} }, id: { jwt: { issuer: me, audience: any, secret: "0123456789abcdef0123456789abcdef" } } }
consumers:
  # SHA-256 of "first" and of "second".
  ann: { keys: "sha256:a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e" }
  bob: { keys: "sha256:16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4" }
apis:
  shop:
    auth: { any: [keys, id], anonymous: ann }
    to: { respond: { text: ok } }
    versions: { by: { path: "v{n}" }, v1: { deprecated: 2024-10-01, sunset: 2025-01-01, gone: true }, v2: {} }
    routes: { all: { match: "/**" }, open: { match: /open, auth: public } }
"#;

/// Owners want to know who still calls; callers that can choose their names must not make series without end.
#[test]
fn calls_of_what_is_deprecated_are_counted_by_consumer() {
    let gateway = Plan::new(CALLERS).start();
    let mut client = gateway.client();
    let mut ask =
        |target: &str, name: &str, value: &str| client.request("GET", target).header(name, value).send();
    for _ in 0..3 {
        assert_eq!(ask("/v1/a", "x-api-key", "first").status, 410);
    }
    assert_eq!(ask("/v1/a", "x-api-key", "second").status, 410);
    assert_eq!(ask("/v2/a", "x-api-key", "second").status, 200);
    assert_eq!(ask("/v1/a", "x-api-key", "wrong").status, 401);
    assert_eq!(ask("/v1/open", "x-none", "1").status, 410);
    let key = crate::harness::SigningKey::hs256("", b"0123456789abcdef0123456789abcdef");
    for sub in ["eve", "mallory"] {
        let claims = serde_json::json!({ "iss": "me", "sub": sub, "exp": crate::harness::now() + 600 });
        assert_eq!(ask("/v1/a", "authorization", &format!("Bearer {}", key.token(&claims))).status, 410);
    }
    let counted = |consumer: &str, route: &str| {
        let labels = format!("{{api=\"shop\",consumer=\"{consumer}\",route=\"{route}\"}}");
        metric(&gateway, &format!("tollgate_deprecated_requests_total{labels}"))
    };
    let all =
        [("ann", "v1.all"), ("bob", "v1.all"), ("unknown", "v1.all"), ("-", "v1.open"), ("eve", "v1.all")];
    assert_eq!(all.map(|(consumer, route)| counted(consumer, route)), [3.0, 1.0, 2.0, 1.0, 0.0]);
    assert_eq!(counted("bob", "v2.all"), 0.0);
}

const FAULTS: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { targets: ["{{app}}"] } }
apis:
  shop:
    auth: public
    to: app
    routes:
      slow: { match: /slow, fault: { delay: { time: 400ms }, header: x-fault } }
      some: { match: /some, fault: { abort: { status: 503, percent: 30% } } }
"#;

#[test]
fn a_delay_takes_its_time_and_the_request_goes_on() {
    let app = Upstream::echo();
    let gateway = Plan::new(FAULTS).with("app", app.addr()).start();
    let ask = |fault: bool| {
        let (mut client, began) = (gateway.client(), Instant::now());
        let ask = client.request("GET", "/slow");
        let response = if fault { ask.header("x-fault", "1") } else { ask }.send();
        assert_eq!(response.status, 200);
        (began.elapsed(), gateway.log_of(&response))
    };
    let (took, log) = ask(true);
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert_eq!(log["fault"], "delay");
    assert!(ask(false).1.get("fault").is_none());
    assert!(app.requests().iter().all(|seen| seen.headers.first("x-fault").is_none()), "that was for us");
    let series = "tollgate_faults_total{api=\"shop\",fault=\"delay\",route=\"slow\"}";
    assert_eq!(metric(&gateway, series), 1.0);
}

#[test]
fn a_share_of_requests_is_aborted() {
    let app = Upstream::echo();
    let gateway = Plan::new(FAULTS).with("app", app.addr()).start();
    let mut client = gateway.client();
    let aborted = (0..1000).filter(|_| client.get("/some").status == 503).count();
    // 14.5 is the standard deviation: six of them.
    assert!((213..=387).contains(&aborted), "{aborted} of 1000 at 30%");
    let series = "tollgate_faults_total{api=\"shop\",fault=\"abort\",route=\"some\"}";
    assert_eq!(metric(&gateway, series), aborted as f64);
    assert_eq!(app.requests().len(), 1000 - aborted);
}

const AT_ONCE: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners: { web: { bind: "127.0.0.1:0", trusted_proxies: [127.0.0.1] } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis:
  shop:
    auth: public
    to: app
    routes:
      three: { match: "/three/**", concurrency: { max: 3, each: 2 } }
      keyed: { match: "/keyed/**", concurrency: { each: 1, per: "header:x-user" } }
"#;

/// An upstream that answers when it is let; the gateway in front of it.
fn held_back() -> (Gateway, Upstream, Gate) {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::start(move |request| {
        if request.path().ends_with("/hold") {
            held.wait();
        }
        Answer::ok("done")
    });
    let gateway = Plan::new(AT_ONCE).with("app", app.addr()).start();
    (gateway, app, gate)
}

/// Sends a request whose answer is read later.
fn begin(gateway: &Gateway, target: &str, header: &str) -> Client {
    let mut client = gateway.client();
    client.send_raw(format!("GET {target} HTTP/1.1\r\nhost: a\r\n{header}\r\n\r\n"));
    client
}

fn ask(gateway: &Gateway, target: &str, header: &str) -> Response {
    begin(gateway, target, header).read("GET")
}

/// How many places of a route are taken, in the words of `explain`.
fn taken(gateway: &Gateway, path: &str) -> String {
    let url = format!("http://a{path}");
    let told = gateway.ask(&["explain", "--live", "-H", "x-user: ann", "GET", &url]).stdout;
    let line = told.lines().find(|line| line.contains(" concurrency ")).unwrap_or_else(|| panic!("{told}"));
    line.split_whitespace().skip(2).take(4).collect::<Vec<_>>().join(" ")
}

#[test]
fn so_many_at_once_and_no_more() {
    let (gateway, app, gate) = held_back();
    let from = |n: u8| format!("x-forwarded-for: 192.0.2.{n}");
    let mut held: Vec<Client> = Vec::new();
    for (count, n) in [(1, 1), (2, 1)] {
        held.push(begin(&gateway, "/three/hold", &from(n)));
        app.wait_for_requests(count);
    }
    let refused = ask(&gateway, "/three/x", &from(1));
    assert_eq!((refused.status, refused.problem_code().as_str()), (429, "too-many-at-once"));
    assert!(refused.kept_alive && refused.header("retry-after") == Some("1"));
    held.push(begin(&gateway, "/three/hold", &from(2)));
    app.wait_for_requests(3);
    let refused = ask(&gateway, "/three/x", &from(3));
    assert_eq!((refused.status, refused.problem_code().as_str()), (503, "route-saturated"));
    let h2 = H2Client::connect(gateway.addr("web"));
    assert_eq!(h2.get("http://a/three/x").status, 503, "streams count as well");
    assert_eq!(ask(&gateway, "/keyed/x", "x-user: a").status, 200, "another route");
    let refused = |by: &str| {
        let labels = format!("{{api=\"shop\",by=\"{by}\",route=\"three\"}}");
        metric(&gateway, &format!("tollgate_concurrency_refused_total{labels}"))
    };
    assert_eq!((refused("max"), refused("each")), (2.0, 1.0));
    gate.open();
    for mut client in held {
        assert_eq!(client.read("GET").status, 200);
    }
    assert_eventually(DEADLINE, "all places are free", || taken(&gateway, "/three/x") == "0 of 3 at");
    assert_eq!(ask(&gateway, "/three/x", &from(1)).status, 200);
}

/// A place is the request's, whatever becomes of its client: it is free when the request has ended.
#[test]
fn whoever_goes_away_gives_its_place_back() {
    let (gateway, app, gate) = held_back();
    for round in 1..=5 {
        let held = begin(&gateway, "/keyed/hold", "x-user: ann");
        app.wait_for_requests(round * 2 - 1);
        assert_eq!(ask(&gateway, "/keyed/x", "x-user: ann").status, 429);
        drop(held);
        assert_eventually(DEADLINE, "the place is free again", || {
            taken(&gateway, "/keyed/x") == "0 of 1 per"
        });
        assert_eq!(ask(&gateway, "/keyed/x", "x-user: ann").status, 200);
        // An answer is there a moment before its request has ended.
        assert_eventually(DEADLINE, "and again", || taken(&gateway, "/keyed/x") == "0 of 1 per");
    }
    gate.open();
}

#[test]
fn a_reload_goes_on_counting() {
    let (gateway, app, gate) = held_back();
    let mut held = begin(&gateway, "/keyed/hold", "x-user: ann");
    app.wait_for_requests(1);
    gateway.edit("max: 3", "max: 4");
    reload(&gateway);
    assert_eq!(ask(&gateway, "/keyed/x", "x-user: ann").status, 429, "one is still being served");
    gateway.edit("concurrency: { each: 1, per: \"header:x-user\" }", "concurrency: { max: 1 }");
    reload(&gateway);
    assert_eq!(ask(&gateway, "/keyed/x", "x-user: bob").status, 503, "it counts for another rule, too");
    gate.open();
    assert_eq!(held.read("GET").status, 200);
    assert_eventually(DEADLINE, "its place is free", || {
        ask(&gateway, "/keyed/x", "x-user: bob").status == 200
    });
}

const CANARY: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { old: { targets: ["{{old}}"] }, new: { targets: ["{{new}}"] } }
apis:
  shop:
    auth: public
    to: { split: { old: 90%, new: 10% }, sticky: "header:x-user", force: { header: x-canary } }
    routes:
      read: { match: "GET /**" }
      write: { match: "POST /**" }
  other: { base: /other, auth: public, to: { split: { old: 50%, new: 50% } }, routes: { all: { match: "/**" } } }
"#;

fn canary() -> (Gateway, Upstream, Upstream) {
    let (old, new) = (Upstream::named("old"), Upstream::named("new"));
    let gateway = Plan::new(CANARY).with("old", old.addr()).with("new", new.addr()).start();
    (gateway, old, new)
}

/// The arms of 400 users.
fn arms(gateway: &Gateway) -> Vec<String> {
    let mut client = gateway.client();
    let arm =
        |user: usize| client.request("GET", "/x").header("x-user", &format!("user-{user}")).send().text();
    (0..400).map(arm).collect()
}

fn on_new(arms: &[String]) -> usize {
    arms.iter().filter(|arm| *arm == "new").count()
}

#[test]
fn a_canary_grows_while_it_runs_and_takes_only_whom_it_must() {
    let (gateway, _old, _new) = canary();
    let before = arms(&gateway);
    assert!((15..=70).contains(&on_new(&before)), "{} of 400 at 10%", on_new(&before));
    assert!(arms(&gateway) == before, "the same client, the same arm");
    let ran = gateway.ask(&["split", "shop.read", "new=40%"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(ran.stdout, "shop.read  old 60% (configured 90%), new 40% (configured 10%)\n");
    let after = arms(&gateway);
    assert!(on_new(&after) > on_new(&before) + 70, "{}", on_new(&after));
    let left = before.iter().zip(&after).filter(|(before, after)| *before == "new" && *after == "old");
    assert_eq!(left.count(), 0, "nobody leaves the canary");
    let forced = gateway.client().request("GET", "/x").header("x-canary", "old").send();
    assert_eq!(forced.text(), "old");
    let status = gateway.ask(&["status"]).stdout;
    assert!(status.contains("split shop.read  old 60% (configured 90%), new 40%"), "{status}");
    assert!(!status.contains("shop.write"), "only what was changed: {status}");
    let explained = gateway.ask(&["explain", "--live", "-H", "x-user: a", "GET", "http://a/x"]).stdout;
    assert!(explained.contains("old 60%, new 40% (changed while running)"), "{explained}");
    assert!(gateway.stderr().contains("split shop.read: old 60% (configured 90%)"), "{}", gateway.stderr());
    assert_eq!(gateway.ask(&["split", "shop.read", "--reset"]).code, 0);
    assert!(arms(&gateway) == before, "and back");
}

#[test]
fn changed_shares_outlive_what_does_not_change_the_split() {
    let (gateway, _old, _new) = canary();
    let before = on_new(&arms(&gateway));
    let ran = gateway.ask(&["split", "shop", "new=100%"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let all = gateway.ask(&["split"]).stdout;
    for line in [
        "shop.read   old 0% (configured 90%), new 100%",
        "shop.write  old 0%",
        "other.all   old 50%, new 50%",
    ] {
        assert!(all.contains(line), "{line} not in {all}");
    }
    gateway.edit("base: /other", "base: /others");
    reload(&gateway);
    assert_eq!(on_new(&arms(&gateway)), 400, "a reload of something else");
    gateway.edit("{ old: 90%, new: 10% }", "{ old: 91%, new: 9% }");
    reload(&gateway);
    assert!(on_new(&arms(&gateway)) <= before, "another split is another split");
    let ran = gateway.ask(&["split", "shop.read", "new=0%"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let ran = gateway.ask(&["upgrade"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(on_new(&arms(&gateway)), 0, "another process took the shares over");
    let split = gateway.ask(&["split", "shop.read", "-o", "json"]).stdout;
    assert!(split.contains("\"changed\": true") && split.contains("\"configured\": \"91%\""), "{split}");
}

#[test]
fn shares_that_cannot_be_are_refused_and_nothing_changes() {
    let (gateway, _old, _new) = canary();
    let before = arms(&gateway);
    for (args, why) in [
        (&["shop.read", "newer=10%"][..], "shop.read: `newer` is no upstream of this split; it has old, new"),
        (&["shop.read", "old=50%", "new=60%"], "add up to 110%"),
        (&["shop.nothing", "new=10%"], "there is no split `shop.nothing`"),
        (&["sho", "new=10%"], "there is no split `sho`"),
    ] {
        let ran = gateway.ask(&[&["split"], args].concat());
        assert!(ran.code == 1 && ran.stderr.contains(why), "{ran:#?}");
    }
    for (name, why) in [
        ("shop.raed", "there is no split `shop.raed`; did you mean `shop.read`?"),
        ("nosuch", "there is no split `nosuch`; there is shop.read, shop.write, other.all"),
    ] {
        let ran = gateway.ask(&["split", name]);
        assert!(ran.code == 1 && ran.stdout.is_empty() && ran.stderr.contains(why), "{ran:#?}");
    }
    assert_eq!(gateway.ask(&["split", "shop.read", "new=110%"]).code, 2, "no share at all");
    let mut admin = gateway.admin_socket();
    assert_eq!(admin.request("PUT", "/splits/shop.read").send().status, 422, "no share is said");
    assert_eq!(admin.request("POST", "/splits/shop.read?new=10%25").send().status, 405);
    assert!(arms(&gateway) == before);
    let open = Plan::new(&CANARY.replace("unix:{{dir}}/admin.sock", "127.0.0.1:0"));
    let open = open.with("old", "127.0.0.1:1").with("new", "127.0.0.1:1").start();
    let mut admin = Client::connect(open.admin());
    assert_eq!(
        admin.request("PUT", "/splits/shop.read?new=50%25").send().status,
        403,
        "a page could ask this"
    );
    assert_eq!(admin.get("/splits").json()[0]["changed"], false);
}
