//! Providers that ask somebody else for each credential: token introspection (AU-06) and forward auth (AU-11). How often
//! they ask is counted; what they do not get told is 503, never 401 and never a pass.

use super::{assert_logged, assert_refused, get, get_over, one_provider};
use crate::harness::{
    Answer, CLIENT, DEADLINE, Fault, Gateway, Idp, Plan, Request, Says, Upstream, assert_eventually, basic,
    eventually, now,
};
use serde_json::json;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn introspecting(idp: &Idp, app: &Upstream, said: &str) -> Gateway {
    let (id, secret) = CLIENT;
    let provider = format!(
        "{{ introspection: {{ url: \"{}\", client_id: \"{id}\", client_secret: \"{secret}\"{said} }} }}",
        idp.introspection_url()
    );
    Plan::new(&one_provider(&provider)).with("app", app.addr()).start()
}

#[test]
fn a_token_is_asked_about_once_in_a_while() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    idp.grant(
        "good",
        json!({ "active": true, "sub": "acme-at-the-issuer", "scope": "read", "exp": now() + 600 }),
    );
    idp.grant("by-client", json!({ "active": true, "client_id": "batch" }));
    let gateway =
        introspecting(&idp, &app, ", forward: { x-user: sub, x-scope: scope }, cache: 1h, negative: 1h");
    let mut client = gateway.client();
    for _ in 0..20 {
        assert_eq!(get_over(&mut client, "/", "good").status, 200);
        let refused = get_over(&mut client, "/", "unknown");
        assert_refused(&refused, 401, "invalid-token");
        assert!(refused.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
    }
    assert_eq!(idp.introspections(), 2, "one for each token");
    let seen = &app.requests()[0].headers;
    assert_eq!((seen.all("x-user"), seen.all("x-scope")), (vec!["acme-at-the-issuer"], vec!["read"]));
    let named = get_over(&mut client, "/", "by-client");
    assert_eq!((named.status, gateway.log_of(&named)["consumer"].as_str()), (200, Some("batch")));
    let known = get_over(&mut client, "/", "good");
    assert_eq!(gateway.log_of(&known)["consumer"], "acme");
    assert_refused(&client.get("/"), 401, "no-credentials");
    assert_eq!(idp.introspections(), 3);
    let asked = &idp.requests()[0];
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.headers.first("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked.text(), "token=good&token_type_hint=access_token");
}

#[test]
fn twenty_requests_with_one_new_token_ask_once() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    idp.grant("good", json!({ "active": true, "sub": "ann" }));
    idp.says(Says::Slow(Duration::from_millis(300)));
    let gateway = introspecting(&idp, &app, "");
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(get(&gateway, "/", "good").status, 200));
        }
    });
    assert_eq!(idp.introspections(), 1);
}

#[test]
fn an_answer_is_not_remembered_beyond_the_token() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = introspecting(&idp, &app, ", cache: 1h, negative: 300ms");
    idp.grant("short", json!({ "active": true, "sub": "ann", "exp": now() + 2 }));
    assert_eq!(get(&gateway, "/", "short").status, 200);
    let refused = eventually(DEADLINE, "the token has run out", || {
        let response = get(&gateway, "/", "short");
        (response.status != 200).then_some(response)
    });
    assert_refused(&refused, 401, "invalid-token");
    assert_eq!(idp.introspections(), 2, "asked again when it ran out");
    assert_eq!(get(&gateway, "/", "later").status, 401);
    idp.grant("later", json!({ "active": true, "sub": "ann" }));
    assert_eventually(DEADLINE, "a refusal is forgotten soon", || get(&gateway, "/", "later").status == 200);
}

#[test]
fn no_answer_is_503_and_is_not_remembered() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    idp.grant("good", json!({ "active": true, "sub": "ann" }));
    idp.grant("known", json!({ "active": true, "sub": "ann" }));
    let gateway = introspecting(&idp, &app, ", timeout: 400ms");
    assert_eq!(get(&gateway, "/", "known").status, 200);
    let unavailable = |why: &str| {
        let response = get(&gateway, "/", "good");
        assert_refused(&response, 503, "auth-unavailable");
        assert_eq!(response.header("www-authenticate"), None);
        assert_eq!(gateway.log_of(&response)["auth_error"], why);
    };
    for (says, why) in [
        (Says::Garbage, "the answer of the introspection endpoint is not one of RFC 7662"),
        (Says::Error, "the introspection endpoint answered with an error"),
        (Says::Huge, "the answer of the introspection endpoint is too large"),
        (Says::Slow(Duration::from_secs(5)), "the introspection endpoint did not answer in time"),
    ] {
        idp.says(says);
        unavailable(why);
    }
    idp.says(Says::Right);
    idp.down();
    unavailable("the introspection endpoint cannot be reached");
    assert_eq!(get(&gateway, "/", "known").status, 200, "what is remembered is good");
    assert_eq!(app.requests().len(), 2, "nothing got through");
    idp.up();
    assert_eventually(DEADLINE, "it heals by itself", || get(&gateway, "/", "good").status == 200);
}

#[test]
fn a_wrong_client_secret_is_our_fault_and_not_the_callers() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    idp.grant("good", json!({ "active": true, "sub": "ann" }));
    let provider = format!(
        "{{ introspection: {{ url: \"{}\", client_id: me, client_secret: wrong }} }}",
        idp.introspection_url()
    );
    let gateway = Plan::new(&one_provider(&provider)).with("app", app.addr()).start();
    assert_refused(&get(&gateway, "/", "good"), 503, "auth-unavailable");
    assert_logged(&gateway, "refuses client_id or client_secret");
    assert!(!gateway.stderr().contains("wrong"), "{}", gateway.stderr());
}

/// A service that decides by the path that it is asked about, and can be told to fail.
struct Decider {
    service: Upstream,
    fails: Arc<AtomicU16>,
}

impl Decider {
    fn start() -> Self {
        let fails = Arc::<AtomicU16>::default();
        let status = Arc::clone(&fails);
        let service = Upstream::start(move |request| match status.load(Ordering::SeqCst) {
            0 => decide(request),
            1 => Answer::fault(Fault::Garbage),
            2 => Answer::ok("").delay(Duration::from_secs(5)),
            status => Answer::new(status, "broken"),
        });
        Decider { service, fails }
    }

    fn gateway(&self, app: &Upstream, said: &str) -> Gateway {
        let provider = format!(
            "{{ forward: {{ url: \"http://{}/check?by=gate\", copy: [x-user, x-roles], consumer: x-user{said} }} }}",
            self.service.addr()
        );
        Plan::new(&one_provider(&provider)).with("app", app.addr()).start()
    }

    fn asked(&self) -> usize {
        self.service.requests().len()
    }
}

fn decide(request: &Request) -> Answer {
    match request.headers.first("x-forwarded-uri").unwrap_or_default() {
        "/login" => {
            Answer::new(302, "").header("location", "https://id.example/?back=1").header("set-cookie", "s=1")
        }
        "/401" => Answer::new(401, "who are you?")
            .header("www-authenticate", "Negotiate")
            .header("content-type", "text/plain")
            .header("x-roles", "told to nobody"),
        "/403" => Answer::new(403, "{\"no\":1}").header("content-type", "application/json"),
        "/nameless" => Answer::ok("the body goes nowhere"),
        _ => Answer::ok("")
            .header("x-user", "acme-at-the-issuer")
            .header("x-roles", "a")
            .header("x-roles", "b"),
    }
}

#[test]
fn another_service_decides_and_its_answers_are_relayed() {
    let (decider, app) = (Decider::start(), Upstream::echo());
    let gateway = decider.gateway(&app, "");
    let mut client = gateway.client();
    let spoofed = client.request("POST", "/a?b=c").header("x-user", "root").header("X-Roles", "root");
    let passed = spoofed.header("authorization", "Custom x").header("x-other", "o").body("body").send();
    assert_eq!((passed.status, gateway.log_of(&passed)["consumer"].as_str()), (200, Some("acme")));
    let seen = app.requests().pop().unwrap();
    assert_eq!(
        (seen.headers.all("x-user"), seen.headers.all("x-roles")),
        (vec!["acme-at-the-issuer"], vec!["a", "b"])
    );
    assert_eq!((seen.text().as_str(), seen.headers.all("x-other")), ("body", vec!["o"]));
    let asked = decider.service.requests().pop().unwrap();
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str(), asked.body.len()),
        ("GET", "/check?by=gate", 0)
    );
    let told = |name: &str| asked.headers.all(name).join("|");
    let facts =
        ["x-forwarded-method", "x-forwarded-uri", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-for"];
    assert_eq!(facts.map(told), ["POST", "/a?b=c", "http", "test.example", "127.0.0.1"]);
    assert_eq!(
        (told("authorization"), told("x-user"), told("x-other")),
        ("Custom x".into(), String::new(), String::new())
    );

    let login = client.get("/login");
    assert_eq!((login.status, login.header("location")), (302, Some("https://id.example/?back=1")));
    assert_eq!((login.header("set-cookie"), login.kept_alive), (Some("s=1"), true));
    let refused = client.get("/401");
    assert_eq!((refused.status, refused.text().as_str()), (401, "who are you?"));
    assert_eq!(
        (refused.header("www-authenticate"), refused.header("content-type")),
        (Some("Negotiate"), Some("text/plain"))
    );
    assert_eq!(gateway.log_of(&refused)["auth_error"], "answered");
    assert_eq!((client.get("/403").status, client.request("HEAD", "/401").send().status), (403, 401));
    assert_eq!(app.requests().len(), 1, "nothing else got through");
    assert_eq!(client.get("/nameless").status, 200);
    assert_eq!(app.requests()[1].headers.all("x-user"), Vec::<&str>::new());
    let public = client.request("GET", "/public").header("x-user", "root").send();
    assert_eq!((public.status, app.requests()[2].headers.all("x-user")), (200, vec![]), "{}", public.text());
    assert_eq!(decider.asked(), 6, "once for each request, never for public ones");
}

#[test]
fn when_the_service_gives_no_decision_nobody_passes() {
    let (decider, app) = (Decider::start(), Upstream::echo());
    let gateway = decider.gateway(&app, ", timeout: 400ms, cache: 1h");
    for (number, why) in [
        (1, "the auth service broke off"),
        (2, "the auth service did not answer in time"),
        (500, "the auth service failed"),
        (503, "the auth service failed"),
    ] {
        decider.fails.store(number, Ordering::SeqCst);
        let response = gateway.get("/");
        assert_refused(&response, 503, "auth-unavailable");
        assert_eq!(gateway.log_of(&response)["auth_error"], why);
    }
    decider.fails.store(0, Ordering::SeqCst);
    decider.service.down();
    let response = gateway.get("/");
    assert_refused(&response, 503, "auth-unavailable");
    assert_eq!(gateway.log_of(&response)["auth_error"], "the auth service cannot be reached");
    assert!(app.requests().is_empty());
    decider.service.up();
    assert_eventually(DEADLINE, "it heals by itself", || gateway.get("/").status == 200);
}

#[test]
fn decisions_are_remembered_for_what_they_depend_on() {
    let (decider, app) = (Decider::start(), Upstream::echo());
    let gateway = decider.gateway(&app, ", cache: 1h");
    let mut client = gateway.client();
    let mut asked = Vec::new();
    let mut ask = |method: &str, target: &str, authorization: &str, other: &str| {
        for _ in 0..3 {
            let ask = client.request(method, target).header("authorization", authorization);
            ask.header("x-other", other).send();
        }
        asked.push(decider.asked());
    };
    ask("GET", "/a", "one", "1");
    ask("GET", "/a", "one", "2");
    ask("GET", "/a", "two", "1");
    ask("GET", "/a?q", "two", "1");
    ask("POST", "/a?q", "two", "1");
    ask("GET", "/401", "two", "1");
    ask("GET", "/login", "two", "1");
    assert_eq!(asked, [1, 1, 2, 3, 4, 5, 8], "a redirect is no decision");
}

#[test]
fn without_a_cache_every_request_is_asked_about() {
    let (decider, app) = (Decider::start(), Upstream::echo());
    let gateway = decider.gateway(&app, "");
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(decider.asked(), 5);
}

#[test]
fn the_identity_provider_of_the_harness_wants_its_client_proven() {
    let idp = Idp::start();
    let seen = Mutex::new(Vec::new());
    for credentials in [basic("gate+way:s%3Acret%2B1"), basic("gate way:s:cret+1"), String::new()] {
        let mut client = crate::harness::Client::connect(idp.addr());
        let ask = client.request("POST", "/introspect").header("authorization", &credentials).body("token=x");
        seen.lock().unwrap().push(ask.send().status);
    }
    assert_eq!(*seen.lock().unwrap(), [200, 401, 401]);
}
