//! Tokens through a running gateway: every algorithm with keys that were discovered, the worst of the published attacks,
//! and what callers and logs are told of those.

use super::{assert_refused, get, get_over, with_tokens_of};
use crate::harness::{Idp, SigningKey, Upstream, now};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

#[test]
fn every_kind_of_key_is_discovered() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let kinds = || [SigningKey::rs256("r"), SigningKey::es256("e"), SigningKey::eddsa("o")];
    let published = kinds();
    let tokens: Vec<String> = published.iter().map(|key| key.token(&idp.claims(json!({})))).collect();
    idp.publish(published.into());
    let gateway = with_tokens_of(&idp, &app, "");
    for token in &tokens {
        assert_eq!(get(&gateway, "/", token).status, 200, "{token}");
    }
    for stranger in kinds().iter().filter(|key| key.algorithm() != "RS256") {
        let forged = get(&gateway, "/", &stranger.token(&idp.claims(json!({ "jti": "forged" }))));
        assert_refused(&forged, 401, "invalid-token");
        assert_eq!(gateway.log_of(&forged)["auth_error"], "signature", "{}", stranger.algorithm());
    }
    assert_eq!(idp.key_fetches(), 1);
}

/// A token and the word for it in the log.
type Attack = (&'static str, String, &'static str);

fn header(key: &SigningKey, more: Value) -> Value {
    crate::harness::with(json!({ "alg": key.algorithm(), "kid": key.kid, "typ": "JWT" }), more)
}

fn attacks(idp: &Idp, thief: &Idp) -> Vec<Attack> {
    let (key, strange) = (idp.key(), thief.unpublished());
    let good = idp.claims(json!({}));
    let plain = |claims: Value| key.token(&idp.claims(claims));
    let headed = |more: Value| key.token_with(&header(&key, more), &good);
    let stolen = |more: Value| strange.token_with(&header(&key, more), &good);
    let hmac = SigningKey::hs256(&key.kid, &key.public_bytes());
    let parts: Vec<String> = plain(json!({})).split('.').map(str::to_owned).collect();
    let changed = BASE64.encode(idp.claims(json!({ "sub": "root" })).to_string());
    let thief_keys = format!("{}/keys", thief.issuer());
    vec![
        ("alg none", headed(json!({ "alg": "none" })), "algorithm"),
        (
            "alg none and no signature",
            format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), parts[1]),
            "malformed",
        ),
        ("the public key as a secret", hmac.token(&good), "algorithm"),
        ("another algorithm than the key's", headed(json!({ "alg": "RS256" })), "algorithm"),
        ("jku", stolen(json!({ "jku": thief_keys })), "signature"),
        ("a key that comes along", stolen(json!({ "jwk": strange.jwk() })), "signature"),
        ("x5u", stolen(json!({ "x5u": thief_keys })), "signature"),
        ("kid as a path", headed(json!({ "kid": "../../../../dev/null" })), "unknown-key"),
        ("kid as an address", headed(json!({ "kid": thief_keys })), "unknown-key"),
        ("crit", headed(json!({ "crit": ["exp"] })), "critical"),
        ("another type of token", headed(json!({ "typ": "logout+jwt" })), "type"),
        ("changed claims", format!("{}.{changed}.{}", parts[0], parts[2]), "signature"),
        ("cut signature", format!("{}.{}.{}", parts[0], parts[1], &parts[2][..40]), "signature"),
        ("expired", plain(json!({ "exp": now() - 60 })), "expired"),
        ("good for ever", plain(json!({ "exp": null })), "no-expiry"),
        ("not good yet", plain(json!({ "nbf": now() + 3600 })), "not-yet-valid"),
        ("for somebody else", plain(json!({ "aud": "api.example" })), "audience"),
        ("for nobody", plain(json!({ "aud": null })), "audience"),
        ("from somebody else", plain(json!({ "iss": thief.issuer() })), "issuer"),
        ("of nobody", plain(json!({ "sub": null })), "subject"),
        ("very long", plain(json!({ "more": "x".repeat(9_000) })), "too-large"),
    ]
}

#[test]
fn attacks_are_refused_and_told_apart_only_in_the_log() {
    let (idp, thief, app) = (Idp::start(), Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(&idp, &app, "");
    let mut client = gateway.client();
    assert_eq!(get_over(&mut client, "/", &idp.token(json!({}))).status, 200);
    for (name, token, why) in attacks(&idp, &thief) {
        println!("{name}");
        let response = get_over(&mut client, "/", &token);
        assert_refused(&response, 401, "invalid-token");
        let challenge = response.header("www-authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer ") && challenge.contains("error=\"invalid_token\""),
            "{challenge}"
        );
        assert!(!response.text().contains(&token[..20]), "{}", response.text());
        let line = gateway.log_of(&response);
        assert_eq!((&line["auth_error"], &line["consumer"]), (&json!(why), &Value::Null), "{name}");
    }
    assert_eq!(app.requests().len(), 1, "nothing got through");
    assert_eq!(thief.requests().len(), 0, "an address in a token is never called");
    assert_eq!(idp.key_fetches(), 2, "two unknown keys, one fetch: the cool-down");
}

#[test]
fn a_token_in_two_places_at_once_is_ambiguous() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(&idp, &app, "");
    let field = format!("Bearer {}", idp.token(json!({})));
    let mut client = gateway.client();
    let ask = client.request("GET", "/").header("authorization", &field).header("Authorization", &field);
    let response = ask.send();
    assert_refused(&response, 400, "bad-request");
    assert!(response.header("www-authenticate").unwrap().contains("error=\"invalid_request\""));
}

#[test]
fn a_token_ends_when_it_expires_also_one_that_is_remembered() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(&idp, &app, ", skew: 0s");
    let token = idp.token(json!({ "exp": now() + 2 }));
    let first = get(&gateway, "/", &token);
    assert_eq!(first.status, 200, "{}", first.text());
    let refused = crate::harness::eventually(crate::harness::DEADLINE, "the token has expired", || {
        let response = get(&gateway, "/", &token);
        (response.status != 200).then_some(response)
    });
    assert_refused(&refused, 401, "invalid-token");
    assert_eq!(gateway.log_of(&refused)["auth_error"], "expired");
}

#[test]
fn claims_travel_as_told_and_nothing_else_does() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(
        &idp,
        &app,
        ", forward: { x-user: sub, x-tenant: app.tenant, x-roles: roles, x-name: name }, hide: true",
    );
    let token = idp.token(json!({
        "sub": "acme-at-the-issuer", "app": { "tenant": 7 }, "roles": ["a", "b"], "name": "x\r\nx-user: root",
    }));
    let mut client = gateway.client();
    let field = format!("Bearer {token}");
    let spoofed = |ask: crate::harness::Ask<'_>| {
        ask.header("X-USER", "root").header("x-user", "root").header("x-name", "root").send()
    };
    let response = spoofed(client.request("GET", "/").header("authorization", &field));
    assert_eq!(response.status, 200);
    assert_eq!(gateway.log_of(&response)["consumer"], "acme");
    let seen = app.requests().pop().unwrap().headers;
    assert_eq!(seen.all("x-user"), ["acme-at-the-issuer"]);
    assert_eq!((seen.all("x-tenant"), seen.all("x-roles")), (vec!["7"], vec!["a,b"]));
    assert_eq!((seen.all("x-name"), seen.all("authorization")), (vec![], vec![]));
    assert_eq!(spoofed(client.request("GET", "/public")).status, 200);
    let seen = app.requests().pop().unwrap().headers;
    assert_eq!((seen.all("x-user"), seen.all("x-name")), (vec![], vec![]), "public routes strip them too");
}
