//! What `tollgate explain` says of identity is what the running gateway does with the same request.

use crate::harness::{Gateway, Idp, Plan, Upstream};
use serde_json::{Value, json};

const CONFIG: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0", limits: { guard: { failures: 1, block: 1h } } } }
auth:
  id: { jwt: { issuer: "{{issuer}}", audience: api, forward: { x-user: sub }, hide: true } }
  keys: { api_key: { forward: x-consumer } }
  as: { introspection: { url: "{{issuer}}/introspect", client_id: gate way, client_secret: "s:cret+1", from: { header: x-opaque }, forward: { x-user: sub } } }
consumers:
  acme: { tags: gold, ids: acme-at-the-issuer, keys: "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed" }
  bolt: {}
  guest: {}
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis:
  shop:
    auth: [id, keys, as]
    body: { max: 10B }
    routes:
      any: { match: /any, to: app }
      gold: { match: /gold, auth: { any: [id, keys, as], allow: { tags: gold } }, to: app }
      guests: { match: /guests, auth: { any: id, anonymous: guest, deny: { consumers: bolt } }, to: app }
      public: { match: /public, auth: public, to: app }
"#;

struct Pair {
    idp: Idp,
    app: Upstream,
    gateway: Gateway,
}

impl Pair {
    fn start() -> Self {
        let (idp, app) = (Idp::start(), Upstream::echo());
        idp.grant("known", json!({ "active": true, "sub": "ann" }));
        // A guard would turn away whoever is refused on purpose; the explanation must not count as a guess.
        let yaml = CONFIG.replace(", limits: { guard: { failures: 1, block: 1h } }", "");
        let gateway = Plan::new(&yaml).with("issuer", idp.issuer()).with("app", app.addr()).start();
        Pair { idp, app, gateway }
    }

    fn explained(&self, args: &[&str]) -> Value {
        let args: Vec<&str> =
            ["explain", "-c", "tollgate.yaml", "-o", "json"].iter().chain(args).copied().collect();
        let ran = self.gateway.plan().run(&args);
        assert_eq!(ran.code, 0, "{ran:#?}");
        ran.json()
    }

    fn explained_live(&self, args: &[&str]) -> Value {
        let admin = format!("http://{}", self.gateway.admin());
        let front = ["explain", "--live", "--admin", &admin, "-o", "json"];
        let args: Vec<&str> = front.iter().chain(args).copied().collect();
        let ran = self.gateway.plan().run(&args);
        assert_eq!(ran.code, 0, "{ran:#?}");
        ran.json()
    }
}

/// The status that is told, if tollgate answers itself.
fn answered(told: &Value) -> Option<u64> {
    assert!(told["answered"].is_null() != told["sent"].is_null(), "{told:#}");
    told["answered"]["status"].as_u64()
}

/// What the step `auth` is said to do.
fn step(told: &Value) -> String {
    let steps = told["steps"].as_array().unwrap().iter();
    steps.filter(|step| step["name"] == "auth").filter_map(|step| step["what"].as_str()).collect()
}

#[test]
fn explained_and_done_are_the_same() {
    let pair = Pair::start();
    let good = pair.idp.token(json!({ "sub": "acme-at-the-issuer" }));
    let other = pair.idp.token(json!({ "sub": "bolt" }));
    let expired = pair.idp.token(json!({ "exp": 1_700_000_000 }));
    let strange = pair.idp.unpublished().token(&pair.idp.claims(json!({})));
    let bearer = |token: &str| format!("authorization: Bearer {token}");
    let cases: Vec<(&str, Vec<String>)> = ["/any", "/gold", "/guests", "/public"]
        .into_iter()
        .flat_map(|path| {
            let fields = [
                vec![],
                vec![bearer(&good)],
                vec![bearer(&other)],
                vec![bearer(&expired)],
                vec![bearer(&strange)],
                vec![bearer("x")],
                vec!["x-api-key: one".to_owned()],
                vec!["x-api-key: two".to_owned()],
                vec!["x-opaque: known".to_owned()],
                vec!["x-opaque: unknown".to_owned()],
                vec![bearer(&expired), "x-api-key: one".to_owned()],
            ];
            fields.map(|fields| (path, fields))
        })
        .collect();
    let mut wrong = Vec::new();
    for (path, fields) in &cases {
        let mut args = vec![*path];
        args.extend(fields.iter().flat_map(|field| ["-H", field.as_str()]));
        let (told, live) = (pair.explained(&args), pair.explained_live(&args));
        let mut client = pair.gateway.client();
        let pairs = fields.iter().filter_map(|field| field.split_once(": "));
        let before = pair.app.requests().len();
        let response =
            pairs.fold(client.request("GET", path), |ask, (name, value)| ask.header(name, value)).send();
        let done = (pair.app.requests().len() == before).then_some(u64::from(response.status));
        if (answered(&told), answered(&live)) != (done, done) {
            wrong.push(format!("{path} {fields:?}\n  done {done:?}\n  told {told}\n  live {live}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn somebody_is_taken_for_a_consumer() {
    let pair = Pair::start();
    let asked = pair.idp.requests().len();
    let told = pair.explained(&["--as", "acme", "/gold"]);
    assert_eq!((answered(&told), told["route"].as_str()), (None, Some("shop.gold")));
    assert!(step(&told).contains("acme"), "{told:#}");
    assert_eq!(
        answered(&pair.explained(&["--as", "acme-at-the-issuer", "/any"])),
        None,
        "also by what tokens call it"
    );
    assert_eq!(pair.idp.requests().len(), asked, "nobody is asked about it");
    let bolt = pair.explained(&["--as", "bolt", "/gold"]);
    assert_eq!(answered(&bolt), Some(403), "the lists of the route hold all the same: {bolt:#}");
    assert_eq!(answered(&pair.explained(&["--as", "bolt", "/guests"])), Some(403));
    let ran = pair.gateway.plan().run(&["explain", "-c", "tollgate.yaml", "--as", "nobody", "/any"]);
    assert!(
        ran.code != 0 && ran.stderr.contains("no consumer `nobody`") && ran.stderr.contains("bolt"),
        "{ran:#?}"
    );
}

#[test]
fn a_token_a_body_and_a_trace_are_as_on_the_wire() {
    let pair = Pair::start();
    let token = pair.idp.token(json!({ "sub": "acme-at-the-issuer" }));
    let told = pair.explained(&["--trace", "--token", &token, "-H", "x-user: root", "-H", "x-a: b", "/any"]);
    let headers: Vec<&str> =
        told["sent"]["headers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let mut client = pair.gateway.client();
    let ask = client.request("GET", "/any").header("authorization", &format!("Bearer {token}"));
    assert_eq!(ask.header("x-user", "root").header("x-a", "b").send().status, 200);
    let seen = pair.app.requests().pop().unwrap().headers;
    for (name, value) in
        seen.0.iter().filter(|(name, _)| !matches!(&**name, "host" | "x-request-id" | "x-forwarded-host"))
    {
        let line = format!("{}: {value}", name.to_ascii_lowercase());
        assert!(headers.contains(&line.as_str()), "`{line}` is not in {headers:#?}");
    }
    assert!(
        headers.contains(&"x-user: acme-at-the-issuer") && !told.to_string().contains(&token),
        "{told:#}"
    );

    let sent = |body: &str| pair.gateway.client().request("POST", "/public").body(body).send().status;
    let said = |body: &str| answered(&pair.explained(&["--body", body, "POST", "/public"]));
    assert_eq!((said("0123456789"), sent("0123456789")), (None, 200));
    assert_eq!((said("0123456789a"), sent("0123456789a")), (Some(413), 413));
}

#[test]
fn an_explanation_is_no_guess() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = Plan::new(CONFIG).with("issuer", idp.issuer()).with("app", app.addr()).start();
    for _ in 0..3 {
        let told = gateway.ask_admin("/explain?url=/any&header=x-api-key:two").json();
        assert_eq!(answered(&told), Some(401), "{told:#}");
    }
    let ask = |key: &str| gateway.client().request("GET", "/any").header("x-api-key", key).send().status;
    assert_eq!((ask("one"), ask("two"), ask("one")), (200, 401, 429));
    let blocked = gateway.ask_admin("/explain?url=/any&header=x-api-key:one").json();
    assert_eq!(answered(&blocked), Some(429), "but it tells of blocks: {blocked:#}");
}
