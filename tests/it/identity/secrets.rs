//! What proves who somebody is, is told to nobody: not by the configuration, the explanation, logs or error answers.

use crate::harness::{Gateway, Idp, Plan, Upstream, basic, tollgate};
use serde_json::json;

const CONFIG: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
auth:
  id: { jwt: { issuer: "https://id.example", audience: api, secret: "geheim-jwt-geheim-jwt-geheim-jwt" } }
  hidden: { jwt: { issuer: "https://id.example", audience: api, secret: "${env:JWT_SECRET}" } }
  as: { introspection: { url: "{{introspection}}", client_id: gate way, client_secret: "s:cret+1" } }
  staff: { basic: { users: { bob: "$2b$04$abcdefghijklmnopqrstuuMjP8rcRP9jDBaf.MqHtqTjAN61Q1x0." } } }
  keys: { api_key: { header: x-partner-key, query: partner_key, cookie: partner } }
consumers: { acme: { keys: "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed" } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis:
  shop:
    auth: [keys, staff, as]
    request: { headers: { set: { x-inner: "${env:INNER}" } }, query: { set: { inner: "${env:INNER}" } } }
    routes: { all: { match: "/**", to: app }, jwt: { match: /jwt, auth: [id, hidden], to: app } }
"#;

/// What must be told nowhere.
const SECRETS: [&str; 8] = [
    "geheim",
    "s:cret",
    "s%3Acret",
    "Gr8Password",
    "opaque-token",
    "abcdefghijklmnopqrstuu",
    "tg_partner",
    "eyJhbGciOi",
];

#[track_caller]
fn assert_silent(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "`{secret}` in {what}:\n{text}");
    }
}

fn plan(idp: &Idp, app: &Upstream) -> Plan {
    let plan = Plan::new(CONFIG).with("app", app.addr()).with("introspection", idp.introspection_url());
    plan.env("JWT_SECRET", "geheim-env-geheim-env-geheim-env").env("INNER", "geheim-inner")
}

#[test]
fn secrets_are_told_nowhere() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    idp.grant("opaque-token-1", json!({ "active": true, "sub": "ann" }));
    let gateway = plan(&idp, &app).start();
    for path in [
        "/config",
        "/status",
        "/metrics",
        "/upstreams",
        "/explain?url=/a&trace=true",
        "/explain?url=/jwt&trace=true",
    ] {
        let answer = gateway.ask_admin(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_silent(path, &answer.text());
    }
    for args in [
        &["config", "show"][..],
        &["routes"],
        &["check"],
        &["explain", "--trace", "--as", "acme", "/a"],
        &["explain", "--trace", "-o", "json", "--as", "acme", "/a"],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["-c", "tollgate.yaml"]).collect();
        let ran = gateway.plan().run(&args);
        assert!(ran.code == 0 && !ran.stdout.is_empty() | !ran.stderr.is_empty(), "{ran:#?}");
        assert_silent(&args.join(" "), &(ran.stdout + &ran.stderr));
    }
    refuse_all(&gateway);
    // A failing issuer makes the log talk, too.
    idp.down();
    let response = ask(&gateway, "/a", &[("authorization", "Bearer opaque-token-2")]);
    assert_eq!(response.0, 503);
    assert_silent("a 503", &response.1);
    let expected = REQUESTS.len() + 1;
    gateway.log_line(expected - 1);
    assert_silent("the access log", &gateway.stdout_lines().join("\n"));
    assert_silent("the log", &gateway.stderr());
}

/// Path, a header field and the status.
const REQUESTS: [(&str, &str, &str, u16); 7] = [
    ("/a", "x-partner-key", "tg_partner_1", 401),
    ("/a?partner_key=tg_partner_1&a=b", "x-a", "b", 401),
    ("/a", "cookie", "partner=tg_partner_1", 401),
    ("/a", "authorization", "Bearer opaque-token-1", 200),
    ("/a", "authorization", "Bearer opaque-token-3", 401),
    ("/jwt", "authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA", 401),
    ("/a", "authorization", "(basic)", 401),
];

fn refuse_all(gateway: &Gateway) {
    for (path, name, value, status) in REQUESTS {
        let credentials = basic("bob:Gr8Password");
        let value = if value == "(basic)" { credentials.as_str() } else { value };
        let (told, text) = ask(gateway, path, &[(name, value)]);
        assert_eq!(told, status, "{path} {name}: {text}");
        if status != 200 {
            assert_silent(path, &text);
        }
    }
}

fn ask(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let mut client = gateway.client();
    let ask = fields.iter().fold(client.request("GET", path), |ask, (name, value)| ask.header(name, value));
    let response = ask.send();
    (response.status, format!("{:?} {}", response.headers, response.text()))
}

#[test]
fn findings_do_not_repeat_secrets() {
    let bad = CONFIG
        .replace("geheim-jwt-geheim-jwt-geheim-jwt", "geheim-short")
        .replace("sha256:7692", "geheim-7692")
        .replace("$2b$04$", "geheim-2b");
    let plan = Plan::new(&bad).with("app", "127.0.0.1:1").with("introspection", "http://127.0.0.1:1/");
    let ran = plan.env("JWT_SECRET", "geheim-env").env("INNER", "geheim-inner").run(&[
        "check",
        "-c",
        "tollgate.yaml",
        "-o",
        "json",
    ]);
    assert_eq!(ran.code, 3, "{ran:#?}");
    // The JSON has no excerpts of the file, so that what stands there literally is in nothing that machines collect.
    assert!(!ran.stdout.contains("geheim") && !ran.stderr.contains("geheim"), "{ran:#?}");
}

#[test]
fn a_key_that_is_made_opens_the_door() {
    let app = Upstream::echo();
    let made = tollgate(&["key", "create", "acme", "--name", "ci", "--expires", "2999-01-31"]);
    assert_eq!(made.code, 0, "{made:#?}");
    let (key, line) = made.stdout.trim_end().split_once('\n').unwrap();
    let entry = line.strip_prefix("- ").unwrap();
    assert!(!line.contains(key) && !made.stderr.contains(key), "{made:#?}");
    let yaml = CONFIG.replace(
        "\"sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed\"",
        &format!("[{entry}]"),
    );
    let plan = Plan::new(&yaml).with("app", app.addr()).with("introspection", "http://127.0.0.1:1/");
    let gateway = plan.env("JWT_SECRET", "geheim-env-geheim-env-geheim-env").env("INNER", "x").start();
    let response = gateway.client().request("GET", "/").header("x-partner-key", key).send();
    assert_eq!((response.status, gateway.log_of(&response)["credential"].as_str()), (200, Some("ci")));
    let bad = tollgate(&["key", "create", "acme", "--expires", "2999-02-31"]);
    assert!(bad.code != 0 && bad.stdout.is_empty(), "{bad:#?}");
}
