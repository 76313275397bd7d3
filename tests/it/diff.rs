//! `tollgate diff`: two files, and the running gateway.

use crate::harness::{Answer, Gateway, Plan, Ran, Upstream};
use serde_json::json;

const OLD: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
admin: { bind: "127.0.0.1:0", tokens: { ops: "${env:ADMIN_TOKEN}" } }
auth: { keys: { api_key: { forward: "${env:WHO}" } } }
upstreams: { app: { targets: ["127.0.0.1:3000"], health: none } }
apis:
  shop:
    auth: public
    routes:
      read: { match: GET /orders, to: app, timeouts: { response: 30s } }
      old: { match: GET /old, to: app }
      closed: { match: GET /closed, to: app, auth: keys }
"#;

/// The same in other words.
const SAME: &str = r#"
version: 1
include: [apis.yaml]
# Comments say nothing.
upstreams: { app: { health: { probe: none }, targets: [{ addr: "127.0.0.1:3000" }] } }
auth: { keys: { api_key: { forward: "${env:WHO}" } } }
listeners: { web: { bind: ["127.0.0.1:0"], limits: { keepalive: 75000ms } } }
admin: { bind: "127.0.0.1:0", tokens: { ops: "${env:ADMIN_TOKEN}" } }
"#;

const APIS: &str = r#"
apis:
  shop:
    routes:
      closed: { match: GET /closed, to: { upstream: app }, auth: [keys] }
      old: { match: { path: /old, methods: [GET] }, to: app }
      read: { match: GET /orders, to: app, timeouts: { response: 30s } }
    auth: public
"#;

fn new() -> String {
    OLD.replace("response: 30s", "response: 10s")
        .replace("      old: { match: GET /old, to: app }\n", "")
        .replace("${env:WHO}", "${env:WHO_NEW}")
        .replace("ADMIN_TOKEN", "ADMIN_TOKEN_NEW")
}

const CHANGES: &str = "\
~ admin.tokens.ops: (secret) changed
~ auth provider keys: api_key.forward: (secret) changed
- route shop.old: GET /old → app (requests to GET /old get 404 unless another route matches)
~ route shop.read: timeouts.response: 30s → 10s
";

const SECRETS: [(&str, &str); 4] = [
    ("ADMIN_TOKEN", "s3cret-token-of-the-admin"),
    ("ADMIN_TOKEN_NEW", "s3cret-token-of-tomorrow"),
    ("WHO", "x-s3cret-name"),
    ("WHO_NEW", "x-s3cret-name-of-tomorrow"),
];

fn plan() -> Plan {
    let plan = Plan::new(OLD).file("same.yaml", SAME).file("apis.yaml", APIS).file("new.yaml", new());
    let plan =
        plan.file("broken.yaml", "version: 1\napis: [\n").file("unset.yaml", OLD.replace("WHO", "NOBODY"));
    SECRETS.iter().fold(plan, |plan, (name, value)| plan.env(name, value))
}

fn assert_tells_no_secret(ran: &Ran) {
    assert!(!ran.stdout.contains("s3cret") && !ran.stderr.contains("s3cret"), "{ran:#?}");
}

#[test]
fn two_files_are_compared_by_what_they_mean() {
    let plan = plan();
    let same = plan.run(&["diff", "tollgate.yaml", "same.yaml"]);
    assert_eq!((same.code, same.stdout.as_str(), same.stderr.as_str()), (0, "", ""), "{same:#?}");
    let other = plan.run(&["diff", "tollgate.yaml", "new.yaml"]);
    assert_eq!((other.code, other.stdout.as_str()), (1, CHANGES), "{other:#?}");
    assert_tells_no_secret(&other);
}

#[test]
fn programs_get_json() {
    let plan = plan();
    let ran = plan.run(&["diff", "-o", "json", "tollgate.yaml", "new.yaml"]);
    assert_eq!(ran.code, 1);
    assert_tells_no_secret(&ran);
    let told = ran.json();
    assert_eq!(told["summary"], "-1 ~1 routes, ~1 auth provider, ~1 setting");
    assert_eq!(told["needs_upgrade"], json!([]));
    assert_eq!(
        told["changes"][0],
        json!({ "kind": "changed", "thing": "setting", "path": "admin.tokens.ops", "key": "tokens.ops", "secret": true })
    );
    assert_eq!(told["changes"][3]["old"], "30s");
    let same = plan.run(&["diff", "-o", "json", "tollgate.yaml", "same.yaml"]);
    assert_eq!((same.code, same.json()["changes"].clone()), (0, json!([])));
}

#[test]
fn what_cannot_be_compared_is_no_difference() {
    let plan = plan();
    for (file, word) in
        [("broken.yaml", "broken.yaml"), ("missing.yaml", "cannot be read"), ("unset.yaml", "NOBODY")]
    {
        let ran = plan.run(&["diff", "tollgate.yaml", file]);
        assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{ran:#?}");
        assert!(ran.stderr.contains(word), "{ran:#?}");
    }
    for args in [&["diff"] as &[&str], &["diff", "tollgate.yaml"], &["diff", "--live", "a", "b"]] {
        assert_eq!(plan.run(args).code, 2, "{args:?}");
    }
    assert_eq!(plan.run(&["diff", "--live", "--admin", "unix:/nowhere/admin.sock"]).code, 4);
}

fn live(gateway: &Gateway, args: &[&str]) -> Ran {
    let admin = format!("http://{}", gateway.admin());
    let all = [&["diff", "--live", "--admin", &admin, "--admin-token", SECRETS[0].1], args].concat();
    gateway.plan().run(&all)
}

#[test]
fn a_file_is_compared_with_what_runs() {
    let gateway = plan().start();
    let same = live(&gateway, &["same.yaml"]);
    assert_eq!((same.code, same.stdout.as_str()), (0, ""), "{same:#?}");
    assert!(same.stderr.contains("secrets") && !same.stderr.contains("s3cret"), "{same:#?}");
    let other = live(&gateway, &["new.yaml"]);
    let expected: String =
        CHANGES.lines().filter(|line| !line.contains("(secret)")).map(|line| format!("{line}\n")).collect();
    assert_eq!((other.code, other.stdout), (1, expected));
}

/// A gateway that has been asked for a reload which is only tried, and answers so.
fn answering(status: u16, body: &'static str) -> Ran {
    let admin = Upstream::start(move |_| Answer::new(status, body));
    let address = format!("http://{}", admin.addr());
    let ran = plan().run(&["diff", "--live", "--admin", &address]);
    let requests = admin.requests();
    assert_eq!((requests[0].method.as_str(), requests[0].target.as_str()), ("POST", "/reload?dry_run=1"));
    ran
}

#[test]
fn the_gateway_is_asked_what_a_reload_would_change() {
    let other = answering(
        200,
        r#"{"from":"a","to":"b","needs_upgrade":["x"],"changes":[{"kind":"changed"}],"summary":"~1 route","human":"~ route a.b: c\n"}"#,
    );
    assert_eq!((other.code, other.stdout.as_str()), (1, "~ route a.b: c\n"), "{other:#?}");
    let same = answering(200, r#"{"changes":[],"summary":"nothing","human":""}"#);
    assert_eq!((same.code, same.stdout.as_str()), (0, ""), "{same:#?}");
    let invalid = answering(422, r#"{"error":"the configuration has 1 error","findings":"error: it is\n"}"#);
    assert_eq!((invalid.code, invalid.stdout.as_str()), (3, ""), "{invalid:#?}");
    assert!(invalid.stderr.contains("error: it is"), "{invalid:#?}");
    assert_eq!(answering(404, "not found\n").code, 2);
    assert_eq!(answering(409, r#"{"error":"busy"}"#).code, 2);
    assert_eq!(answering(401, "").code, 5);
}
