//! What providers remember lives on over a reload that changes nothing they are made from, and over no other: nobody is let
//! in by a configuration that is gone.

use super::{assert_refused, get_over};
use crate::harness::{
    Answer, CLIENT, Client, DEADLINE, Gateway, Idp, Plan, Upstream, assert_eventually, basic, now,
};
use serde_json::json;

fn plan(provider: &str) -> Plan {
    Plan::new(
        &r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners: { web: { bind: "127.0.0.1:0" } }
auth: { id: PROVIDER }
plans: { free: { limits: [10/h per consumer] }, pro: { limits: [1000/h per consumer] } }
consumers: { acme: { plan: pro, ids: acme-at-the-issuer } }
apis: { shop: { auth: id, routes: { all: { match: "/**", to: { respond: { text: "${consumer}" } } } } } }
"#
        .replace("PROVIDER", provider),
    )
}

fn reload(gateway: &Gateway) {
    let ran = gateway.ask(&["reload"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
}

/// How many credentials the provider says that it remembers.
fn remembered(gateway: &Gateway) -> usize {
    let text = gateway.admin_socket().get("/metrics").text();
    let mut values =
        text.lines().filter_map(|line| line.strip_prefix("tollgate_auth_remembered{provider=\"id\"} "));
    values.next().unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[test]
fn answers_about_tokens_live_on_until_something_of_theirs_changes() {
    let idp = Idp::start();
    idp.grant("good", json!({ "active": true, "sub": "acme-at-the-issuer", "exp": now() + 600 }));
    let (id, secret) = CLIENT;
    let provider = format!(
        "{{ introspection: {{ url: \"{}\", client_id: \"{id}\", client_secret: \"${{file:secret}}\", cache: 1h }} }}",
        idp.introspection_url()
    );
    let gateway = plan(&provider).file("secret", secret).start();
    let mut client = gateway.client();
    let mut asked = |times: usize, why: &str| {
        for _ in 0..3 {
            assert_eq!(get_over(&mut client, "/", "good").status, 200, "{why}");
        }
        assert_eq!(idp.introspections(), times, "{why}");
    };
    asked(1, "a new token");
    reload(&gateway);
    asked(1, "nothing has changed");
    for (from, to, times) in [
        ("text: \"${consumer}\"", "text: \"for ${consumer}\"", 1),
        ("version: 1\n", "# The same, one line below.\nversion: 1\n", 1),
        ("cache: 1h", "cache: 2h", 2),
        ("1000/h", "2000/h", 3),
        ("plan: pro, ids", "plan: pro, tags: gold, ids", 4),
        ("apis: {", "upstreams: { more: { targets: [\"127.0.0.1:1\"], health: none } }\napis: {", 4),
    ] {
        gateway.edit(from, to);
        reload(&gateway);
        asked(times, to);
    }
    let secret_file = gateway.plan().dir().join("secret");
    std::fs::write(&secret_file, "another").unwrap();
    reload(&gateway);
    assert_refused(&get_over(&mut gateway.client(), "/", "good"), 503, "auth-unavailable");
    std::fs::write(&secret_file, secret).unwrap();
    reload(&gateway);
    asked(6, "a secret that is good again");
}

#[test]
fn verified_tokens_live_on_until_something_of_theirs_changes() {
    let idp = Idp::start();
    let set = |idp: &Idp| json!({ "keys": [idp.key().jwk()] }).to_string();
    let provider =
        format!("{{ jwt: {{ issuer: \"{}\", audience: [api, more], jwks: keys.json }} }}", idp.issuer());
    let gateway = plan(&provider).file("keys.json", set(&idp)).start();
    let token = idp.token(json!({ "sub": "acme-at-the-issuer" }));
    let mut client = gateway.client();
    let mut ask = || get_over(&mut client, "/", &token);
    assert_eq!((ask().text(), remembered(&gateway)), ("acme".into(), 1));
    for (from, to, left) in [
        ("text: \"${consumer}\"", "text: \"${consumer}.\"", 1),
        ("pro: { limits", "other: {}, pro: { limits", 0),
        ("ids: acme-at-the-issuer", "ids: [acme-at-the-issuer, x]", 0),
        ("audience: [api, more]", "audience: [more, api]", 0),
    ] {
        gateway.edit(from, to);
        reload(&gateway);
        assert_eq!(remembered(&gateway), left, "{to}");
        assert_eq!((ask().text(), remembered(&gateway)), ("acme.".into(), 1), "{to}");
    }
    gateway.edit("consumers: { acme:", "consumers: { other:");
    reload(&gateway);
    assert_eq!(ask().text(), "other.", "who it is changes at once");
    gateway.edit("audience: [more, api]", "audience: more");
    reload(&gateway);
    assert_refused(&ask(), 401, "invalid-token");
    gateway.edit("audience: more", "audience: api");
    reload(&gateway);
    assert_eq!(ask().status, 200);
    idp.rotate();
    std::fs::write(gateway.plan().dir().join("keys.json"), set(&idp)).unwrap();
    reload(&gateway);
    assert_refused(&ask(), 401, "invalid-token");
}

/// A consumer holds its plan by number, and the numbers are others when the plans change their order.
#[test]
fn a_remembered_token_counts_by_the_plan_of_the_new_configuration() {
    let idp = Idp::start();
    let provider = format!("{{ jwt: {{ issuer: \"{}\", audience: api, jwks: discovery }} }}", idp.issuer());
    let gateway = plan(&provider).start();
    let token = idp.token(json!({ "sub": "acme" }));
    let limit =
        || get_over(&mut gateway.client(), "/", &token).header("ratelimit-policy").unwrap().to_owned();
    let before = limit();
    assert!(before.contains("q=1000"), "{before}");
    let (free, pro) = ("free: { limits: [10/h per consumer] }", "pro: { limits: [1000/h per consumer] }");
    gateway.edit(&format!("{free}, {pro}"), &format!("{pro}, {free}"));
    reload(&gateway);
    assert_eq!(limit(), before, "the same plan under another number");
    gateway.edit("plan: pro", "plan: free");
    reload(&gateway);
    assert!(limit().contains("q=10;"), "{}", limit());
}

/// The keys that are fetched go on with their provider: fetched on time, by one task, and not because of a reload.
#[test]
fn fetched_keys_go_on_with_their_provider() {
    let idp = Idp::start();
    let jwt = |more: &str| format!("{{ jwt: {{ issuer: \"{}\", audience: api{more} }} }}", idp.issuer());
    let gateway = plan(&jwt("")).start();
    let token = idp.token(json!({}));
    let ask = || get_over(&mut gateway.client(), "/", &token).status;
    assert_eq!((ask(), idp.key_fetches()), (200, 1));
    for round in 0..3 {
        gateway.edit("text: \"", "text: \"-");
        reload(&gateway);
        assert_eq!((ask(), remembered(&gateway), idp.key_fetches()), (200, 1, 1), "round {round}");
    }
    let tasks = gateway.admin_socket().get("/status").json()["tasks"].clone();
    gateway.edit("audience: api", "audience: api, refresh: 200ms");
    reload(&gateway);
    gateway.edit("text: \"", "text: \"-");
    reload(&gateway);
    assert_eventually(DEADLINE, "the task of a provider that goes on goes on", || idp.key_fetches() >= 3);
    assert_eq!(gateway.admin_socket().get("/status").json()["tasks"], tasks, "one task for the keys");
}

#[test]
fn decisions_and_passwords_live_on_too() {
    let decider = Upstream::start(|_| Answer::ok("").header("x-user", "acme"));
    let forward = format!(
        "{{ forward: {{ url: \"http://{}/\", consumer: x-user, copy: [x-user], cache: 1h }} }}",
        decider.addr()
    );
    let users = "{ basic: { users: { bob: \"$2b$04$abcdefghijklmnopqrstuuMjP8rcRP9jDBaf.MqHtqTjAN61Q1x0.\" }, cache: 1h } }";
    for provider in [forward.as_str(), users] {
        let gateway = plan(provider).start();
        let ask = |client: &mut Client| {
            client.request("GET", "/").header("authorization", &basic("bob:p:w")).send().status
        };
        assert_eq!((ask(&mut gateway.client()), remembered(&gateway)), (200, 1), "{provider}");
        gateway.edit("text: \"", "text: \"-");
        reload(&gateway);
        assert_eq!(remembered(&gateway), 1, "{provider}");
        assert_eq!(ask(&mut gateway.client()), 200);
        gateway.edit("cache: 1h", "cache: 59m");
        reload(&gateway);
        assert_eq!(remembered(&gateway), 0, "{provider}");
        assert_eq!((ask(&mut gateway.client()), remembered(&gateway)), (200, 1), "{provider}");
    }
    assert_eq!(decider.requests().len(), 2, "before and after the change of what it is made from");
}
