//! The cache as operators see it: its size over reloads, purges and figures, over the admin listener and the command line.

use crate::harness::{Client, DEADLINE, Gateway, Plan, assert_eventually};
use serde_json::{Value, json};

const FRONT: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners: { web: { bind: "127.0.0.1:0" } }
cache: { memory: 8MiB }
defaults: { auth: public }
apis: { shop: { routes: { ping: { match: GET /ping, to: { respond: { text: pong } } } } } }
"#;

fn stats(gateway: &Gateway) -> Value {
    let ran = gateway.ask(&["cache", "stats", "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    ran.json()
}

#[test]
fn the_size_of_the_cache_is_what_the_configuration_says_and_follows_a_reload() {
    let gateway = Plan::new(FRONT).start();
    assert_eq!(stats(&gateway)["memory"]["most"], 8 << 20);
    gateway.edit("memory: 8MiB", "memory: 1GiB");
    let ran = gateway.ask(&["reload"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.stdout.contains("cache.memory: 8MiB → 1GiB"), "{}", ran.stdout);
    assert_eventually(DEADLINE, "the new size", || stats(&gateway)["memory"]["most"] == 1 << 30);
    gateway.edit("cache: { memory: 1GiB }", "cache: {}");
    assert_eq!(gateway.ask(&["reload"]).code, 0);
    assert_eventually(DEADLINE, "the default", || stats(&gateway)["memory"]["most"] == 256 << 20);
    assert!(
        gateway.ask(&["cache", "stats"]).stdout.starts_with("memory   0 B of 256.0 MiB, 0 stored answers")
    );
}

#[test]
fn purges_are_counted_and_say_what_they_have_met() {
    let gateway = Plan::new(FRONT).start();
    let purge = |args: &[&str]| gateway.ask(&[&["cache", "purge"], args].concat());
    let ran = purge(&[
        "--url",
        "https://A.example/b?c=ä",
        "--tag",
        "x",
        "--tag",
        "y",
        "--prefix",
        "http://a",
        "--soft",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "purged 0 stored answers softly\n"), "{ran:#?}");
    let ran = purge(&["--all", "-o", "json"]);
    assert_eq!((ran.code, ran.json()), (0, json!({ "objects": 0, "soft": false })), "{ran:#?}");
    assert_eq!(stats(&gateway)["purges"], json!({ "all": 1, "key": 0, "prefix": 1, "tag": 2, "url": 1 }));
    let metrics = gateway.admin_socket().get("/metrics").text();
    for series in
        [r#"tollgate_cache_purges_total{what="tag"} 2"#, r#"tollgate_cache_objects{tier="memory"} 0"#]
    {
        assert!(metrics.lines().any(|line| line == series), "no {series} in {metrics}");
    }
    assert!(gateway.stderr().contains("purged https://a.example/b?c=ä"), "{}", gateway.stderr());

    let ran = purge(&["--url", "/orders"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("`/orders` is no address"), "{}", ran.stderr);
    assert_eq!(purge(&[]).code, 2, "nothing is said");
    assert_eq!(purge(&["--soft"]).code, 2);
}

#[test]
fn a_purge_is_asked_for_in_the_query_or_in_json_by_those_who_may() {
    let gateway = Plan::new(FRONT).start();
    let post = |target: &str, body: &str| {
        let answer = gateway.admin_socket().request("POST", target).body(body).send();
        (answer.status, answer.text())
    };
    assert_eq!(post("/cache/purge?tag=x&tag=y&soft", "").0, 200);
    assert_eq!(post("/cache/purge", r#"{ "tag": ["x", "y"], "url": "http://a/", "soft": true }"#).0, 200);
    assert_eq!(stats(&gateway)["purges"]["tag"], 4);
    for (target, body, why) in [
        ("/cache/purge", "", "say what"),
        ("/cache/purge?all=0", "", "say what"),
        ("/cache/purge?tags=x", "", "`tags` is not known"),
        ("/cache/purge?prefix=a.b", "", "`a.b` is no address"),
        ("/cache/purge", r#"{ "tags": "x" }"#, "unknown field `tags`"),
        ("/cache/purge", "{", "EOF"),
    ] {
        let (status, said) = post(target, body);
        assert_eq!(status, 400, "{target} {body}");
        assert!(said.contains(why), "{target} {body}: {said}");
    }
    assert_eq!(gateway.admin_socket().get("/cache/purge").status, 405);
    let over_tcp = Plan::new(&FRONT.replace("unix:{{dir}}/admin.sock", "127.0.0.1:0")).start();
    let asked = Client::connect(over_tcp.admin()).request("POST", "/cache/purge?all").send();
    assert_eq!(asked.status, 403, "without a token any page in a browser could do it");
    assert_eq!(over_tcp.ask_admin("/cache").json()["purges"]["all"], 0);
}
