//! `tollgate explain` says what the running gateway does: the same route, the same upstream, the same request on the wire.

use crate::harness::{Answer, Plan, Request, Response, Upstream};
use serde_json::Value;

const CONFIG: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  one: { targets: ["{{one}}"], health: none }
  two: { targets: ["{{two}}"], health: none, host: two.internal }
defaults: { auth: public }
apis:
  shop:
    hosts: [api.example.com, "*.shop.example"]
    base: /shop
    request: { headers: { set: { x-edge: tollgate } }, path: { strip: /shop } }
    routes:
      read: { match: "GET /orders/{id}", to: one }
      lines: { match: "GET /orders/{id}/lines", to: two, request: { path: { replace: "/l/${path.id}" }, query: { set: { full: "1" } } } }
      create: { match: { methods: [POST], path: /orders, headers: { content-type: application/json } }, to: one }
      form: { match: { methods: [POST], path: /orders }, to: two }
      dry: { match: { path: /orders, query: { dry: "1" } }, to: two, request: { method: POST } }
      special: { match: /orders/special, to: two }
      files: { match: "/files/{rest...}", to: two, request: { path: { replace: "/f/${path.rest}" } } }
      urgent: { match: "/urgent/**", priority: 10, to: two }
      not_urgent: { match: /urgent/x, to: one, priority: 11 }
  versioned:
    hosts: [v.example]
    versions: { by: { path: "v{n}" }, v1: { to: one }, v2: { to: two, default: true } }
    routes: { item: { match: "/items/{id}" } }
  answers:
    hosts: [local.example]
    routes:
      ping: { match: GET /ping, to: { respond: { text: pong } } }
      old: { match: "/old/{rest...}", to: { redirect: "308 /new/${path.rest}" } }
      inside: { match: "/inside/**", ip: { allow: [10.0.0.0/8] }, to: one }
  down: { hosts: [down.example], maintenance: true, routes: { all: { match: "/**", to: one } } }
  rest: { routes: { all: { match: "/rest/**", to: one } } }
"#;

/// Method, URL and header fields.
type Asked = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Each request that is explained and sent.
const REQUESTS: &[Asked] = &[
    ("GET", "http://api.example.com/shop/orders/7", &[]),
    ("HEAD", "http://api.example.com/shop/orders/7", &[]),
    ("GET", "http://API.example.com:80/shop//orders/./7?a=1&b=%2F", &[]),
    ("DELETE", "http://api.example.com/shop/orders/7", &[]),
    ("GET", "http://eu.shop.example/shop/orders/%61%20b/lines?x=y", &[]),
    ("GET", "http://a.b.shop.example/shop/orders/7", &[]),
    ("POST", "http://api.example.com/shop/orders", &[("content-type", "application/json")]),
    ("POST", "http://api.example.com/shop/orders", &[("content-type", "text/plain")]),
    ("GET", "http://api.example.com/shop/orders?dry=1", &[]),
    ("GET", "http://api.example.com/shop/orders?dry=2", &[]),
    ("GET", "http://api.example.com/shop/orders/special", &[]),
    ("PUT", "http://api.example.com/shop/files/a/b%2Cc/d", &[]),
    ("GET", "http://api.example.com/shop/files", &[]),
    ("GET", "http://api.example.com/shop/urgent/x", &[]),
    ("GET", "http://api.example.com/shop/urgent/y", &[]),
    ("GET", "http://api.example.com/shopping", &[]),
    ("GET", "http://api.example.com/shop/a%2Fb", &[]),
    ("GET", "http://api.example.com/shop/../../x", &[]),
    ("GET", "http://v.example/v1/items/7", &[]),
    ("GET", "http://v.example/v2/items/7?q", &[]),
    ("GET", "http://v.example/items/7", &[]),
    ("GET", "http://v.example/v3/items/7", &[]),
    ("GET", "http://local.example/ping", &[]),
    ("POST", "http://local.example/ping", &[]),
    ("GET", "http://local.example/old/x/y?z=1", &[]),
    ("GET", "http://local.example/inside/x", &[]),
    ("GET", "http://down.example/x", &[]),
    ("GET", "http://other.example/rest/x", &[]),
    ("GET", "http://api.example.com/rest/x", &[]),
    ("GET", "http://other.example/nothing", &[]),
];

/// What is compared: told by `explain`, or observed.
#[derive(Debug, PartialEq, Eq)]
struct Fate {
    /// `api.route`.
    route: Option<String>,
    /// Where it goes, and as what: upstream, method, URL with the target's address.
    sent: Option<(String, String, String)>,
    /// Status when tollgate answers itself.
    answered: Option<u64>,
}

/// Reads the JSON of `explain -o json`; the one place that knows its members.
fn told(explained: &Value) -> Fate {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let sent = &explained["sent"];
    Fate {
        route: text(&explained["route"]),
        sent: text(&sent["upstream"])
            .zip(text(&sent["method"]))
            .zip(text(&sent["url"]))
            .map(|((u, m), url)| (u, m, url)),
        answered: explained["answered"]["status"].as_u64(),
    }
}

#[test]
fn explain_and_the_running_gateway_agree() {
    let upstreams = [("one", Upstream::start(Answer::echo)), ("two", Upstream::start(Answer::echo))];
    let plan =
        upstreams.iter().fold(Plan::new(CONFIG), |plan, (name, upstream)| plan.with(name, upstream.addr()));
    let gateway = plan.start();
    let mut disagreements = Vec::new();
    for (method, url, fields) in REQUESTS {
        let mut args = vec!["explain", "-c", "tollgate.yaml", "-o", "json", method, url];
        let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        args.extend(lines.iter().flat_map(|line| ["-H", line.as_str()]));
        let ran = gateway.plan().run(&args);
        let told = told(&ran.json());
        let before: Vec<usize> = upstreams.iter().map(|(_, upstream)| upstream.requests().len()).collect();
        let response = send(&gateway, method, url, fields);
        let arrived = upstreams.iter().zip(before).find_map(|((name, upstream), before)| {
            upstream.requests().get(before).map(|request| arrival(name, upstream, request))
        });
        let line = gateway.log_of(&response);
        let observed = Fate {
            route: line["route"].as_str().map(str::to_owned),
            answered: arrived.is_none().then_some(u64::from(response.status)),
            sent: arrived,
        };
        if told != observed {
            disagreements.push(format!(
                "{method} {url}\n  told     {told:?}\n  observed {observed:?}\n  {}",
                ran.stderr
            ));
        }
    }
    assert!(
        disagreements.is_empty(),
        "{} of {}\n{}",
        disagreements.len(),
        REQUESTS.len(),
        disagreements.join("\n")
    );
}

fn send(gateway: &crate::harness::Gateway, method: &str, url: &str, fields: &[(&str, &str)]) -> Response {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, target) = rest.split_at(rest.find('/').unwrap());
    let mut client = gateway.client();
    let ask = client.request(method, target).host(host);
    fields.iter().fold(ask, |ask, (name, value)| ask.header(name, value)).send()
}

fn arrival(name: &str, upstream: &Upstream, request: &Request) -> (String, String, String) {
    (name.to_owned(), request.method.clone(), format!("http://{}{}", upstream.addr(), request.target))
}

#[test]
fn explain_tells_people_the_route_its_place_and_what_came_near() {
    let plan = Plan::new(CONFIG).with("one", "127.0.0.1:3001").with("two", "127.0.0.1:3002");
    let ran = plan.run(&[
        "explain",
        "-c",
        "tollgate.yaml",
        "--no-color",
        "GET",
        "http://api.example.com/shop/orders/7",
    ]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    for part in [
        "route",
        "shop.read",
        "tollgate.yaml:",
        "near",
        "steps",
        "result",
        "GET http://127.0.0.1:3001/orders/7",
    ] {
        assert!(ran.stdout.contains(part), "`{part}` is missing in\n{}", ran.stdout);
    }
    let nothing = plan.run(&["explain", "-c", "tollgate.yaml", "--no-color", "http://other.example/nothing"]);
    assert!(nothing.stdout.contains("404"), "{nothing:#?}");
}

#[test]
fn explain_of_a_wrong_configuration_is_exit_3() {
    let ran = Plan::new("version: 1\nx: 1\n").run(&["explain", "-c", "tollgate.yaml", "http://a.example/"]);
    assert_eq!(ran.code, 3, "{ran:#?}");
}

#[test]
fn routes_are_listed_in_precedence_order() {
    let plan = Plan::new(CONFIG).with("one", "127.0.0.1:3001").with("two", "127.0.0.1:3002");
    let ran = plan.run(&["routes", "-c", "tollgate.yaml", "--no-color", "--api", "shop"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let at = |name: &str| {
        ran.stdout.find(name).unwrap_or_else(|| panic!("`{name}` is missing in\n{}", ran.stdout))
    };
    let order = ["shop.not_urgent", "shop.urgent", "shop.special", "shop.read", "shop.files"];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{}", ran.stdout);
    assert!(!ran.stdout.contains("answers.ping"), "{}", ran.stdout);
}

#[test]
fn explain_and_routes_do_not_tell_secrets() {
    let yaml = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { targets: ["127.0.0.1:3000"] } }
apis:
  shop:
    auth: public
    request: { headers: { set: { authorization: "Bearer ${env:SECRET}" } } }
    routes:
      all: { match: "/**", to: app }
      old: { match: /old, to: { redirect: "302 https://x.example/${env:SECRET}" } }
"#;
    let plan = Plan::new(yaml).env("SECRET", "geheim-12345");
    for args in [&["routes"][..], &["explain", "http://a.example/x"], &["explain", "http://a.example/old"]] {
        let args: Vec<&str> = args.iter().copied().chain(["-c", "tollgate.yaml"]).collect();
        let ran = plan.run(&args);
        assert!(ran.code == 0 && !ran.stdout.contains("geheim"), "{ran:#?}");
    }
}

#[test]
fn the_running_gateway_explains_too() {
    let upstream = Upstream::start(Answer::echo);
    let gateway = Plan::new(CONFIG).with("one", upstream.addr()).with("two", "127.0.0.1:3002").start();
    let admin = format!("http://{}", gateway.admin());
    let request = ["-o", "json", "-H", "x-a: b c&d", "GET", "http://api.example.com/shop/orders/7?a=b%20c"];
    let live: Vec<&str> = ["explain", "--live", "--admin", &admin].into_iter().chain(request).collect();
    let file: Vec<&str> = ["explain", "-c", "tollgate.yaml"].into_iter().chain(request).collect();
    let (live, file) = (gateway.plan().run(&live), gateway.plan().run(&file));
    assert_eq!(live.code, 0, "{live:#?}");
    assert_eq!(told(&live.json()), told(&file.json()));
    let nobody = gateway.plan().run(&["explain", "--live", "--admin", "http://127.0.0.1:9", "http://a/"]);
    assert_eq!(nobody.code, 4, "{nobody:#?}");
}

#[test]
fn an_online_check_reports_what_cannot_be_reached() {
    let upstream = Upstream::start(Answer::echo);
    let yaml = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { targets: ["{{up}}", "127.0.0.1:9"] } }
apis: { shop: { auth: public, routes: { all: { match: "/**", to: app } } } }
"#;
    let plan = Plan::new(yaml).with("up", upstream.addr());
    let ran = plan.run(&["check", "--online", "-c", "tollgate.yaml", "--no-color"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.stderr.contains("TG2010") && ran.stderr.contains("127.0.0.1:9"), "{ran:#?}");
    assert!(!ran.stderr.contains(&upstream.addr().to_string()), "{ran:#?}");
    assert_eq!(plan.run(&["check", "--online", "--strict", "-c", "tollgate.yaml"]).code, 3);
}
