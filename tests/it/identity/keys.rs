//! The life of an issuer's keys (AU-02, AU-07): when they are fetched, and how often; what an issuer that goes wrong does
//! to callers. No request is ever a reason to fetch, except for a key that is not known, and then only once.

use super::{assert_logged, assert_refused, get, get_over, with_tokens_of};
use crate::harness::{DEADLINE, Gateway, Idp, Says, Upstream, assert_eventually, eventually};
use serde_json::json;
use std::time::{Duration, Instant};

/// A token that no cache knows.
fn fresh(idp: &Idp, number: usize) -> String {
    idp.token(json!({ "jti": number }))
}

fn status(gateway: &Gateway, token: &str) -> u16 {
    get(gateway, "/", token).status
}

/// Discoveries and fetches of keys so far.
fn fetched(idp: &Idp) -> (usize, usize) {
    (idp.discoveries(), idp.key_fetches())
}

#[test]
fn keys_are_there_before_the_first_request_and_no_request_fetches_them() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(&idp, &app, "");
    assert_eq!(fetched(&idp), (1, 1), "ready means that keys are known");
    let mut client = gateway.client();
    for number in 0..50 {
        assert_eq!(get_over(&mut client, "/", &fresh(&idp, number)).status, 200);
        assert_eq!(get_over(&mut client, "/", "no-token").status, 401);
    }
    assert_eq!(fetched(&idp), (1, 1));
    assert_eq!(gateway.metric("tollgate_jwks_fetches_total{result=\"ok\"}"), 1.0);
    assert_logged(&gateway, &idp.issuer());
}

#[test]
fn keys_are_refreshed_in_the_background() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(&idp, &app, ", refresh: 200ms, cooldown: 1h");
    let old = fresh(&idp, 0);
    assert_eq!(status(&gateway, &old), 200);
    idp.rotate();
    let before = idp.key_fetches();
    // The first of the two may have begun before the rotation; when the third has begun the second has been taken in.
    assert_eventually(DEADLINE, "keys are fetched without any request", || idp.key_fetches() >= before + 3);
    let refused = get(&gateway, "/", &old);
    assert_refused(&refused, 401, "invalid-token");
    assert_eq!(gateway.log_of(&refused)["auth_error"], "unknown-key", "also for a token that was remembered");
    assert_eq!(status(&gateway, &fresh(&idp, 1)), 200);
    let (discoveries, keys) = fetched(&idp);
    assert!(discoveries.abs_diff(keys) <= 1, "each refresh discovers anew: {discoveries} and {keys}");
}

#[test]
fn an_unknown_key_is_fetched_once_for_all_who_wait_and_then_not_for_a_while() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(&idp, &app, ", refresh: 1h, cooldown: 1h");
    idp.rotate();
    idp.says(Says::Slow(Duration::from_millis(300)));
    let at_once = |tokens: Vec<String>| -> Vec<u16> {
        std::thread::scope(|scope| {
            let ask = |token: String| {
                scope.spawn({
                    let gateway = &gateway;
                    move || status(gateway, &token)
                })
            };
            let asking: Vec<_> = tokens.into_iter().map(ask).collect();
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        })
    };
    assert_eq!(at_once((0..20).map(|number| fresh(&idp, number)).collect()), [200; 20]);
    assert_eq!(fetched(&idp), (1, 2), "one fetch for all, and none to discover");
    let never = idp.unpublished();
    let forged = |number| never.token(&idp.claims(json!({ "jti": number })));
    assert_eq!(at_once((0..20).map(forged).collect()), [401; 20]);
    assert_eq!(fetched(&idp), (1, 2), "the cool-down holds");
    assert_eq!(status(&gateway, &fresh(&idp, 20)), 200);
}

#[test]
fn after_the_cool_down_an_unknown_key_is_looked_for_again() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(&idp, &app, ", refresh: 1h, cooldown: 700ms");
    let never = idp.unpublished();
    let token = never.token(&idp.claims(json!({})));
    let begin = Instant::now();
    assert_eq!((status(&gateway, &token), fetched(&idp)), (401, (1, 2)));
    let mut asked = 0;
    assert_eventually(DEADLINE, "the key is looked for again", || {
        asked += 1;
        assert_eq!(status(&gateway, &token), 401);
        idp.key_fetches() == 3
    });
    assert!(
        begin.elapsed() >= Duration::from_millis(700),
        "after {:?} and {asked} requests",
        begin.elapsed()
    );
}

#[test]
fn known_keys_serve_while_the_issuer_is_down_and_then_nothing_is_known() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(&idp, &app, ", refresh: 500ms, stale_max: 3s, timeout: 1s");
    let remembered = fresh(&idp, 0);
    assert_eq!(status(&gateway, &remembered), 200);
    idp.down();
    for number in 1..20 {
        assert_eq!(status(&gateway, &fresh(&idp, number)), 200, "the last good keys are good enough");
    }
    let unavailable = eventually(DEADLINE, "keys are too old", || {
        let response = get(&gateway, "/", &fresh(&idp, 20));
        (response.status != 200).then_some(response)
    });
    assert_refused(&unavailable, 503, "auth-unavailable");
    assert_eq!(unavailable.header("www-authenticate"), None, "it is not the caller's fault");
    assert!(unavailable.header("retry-after").is_some());
    let line = gateway.log_of(&unavailable);
    assert_eq!(line["auth_error"], "keys are older than stale_max");
    assert_refused(&get(&gateway, "/", &remembered), 503, "auth-unavailable");
    assert_refused(&gateway.get("/"), 401, "no-credentials");
    assert_eq!(gateway.get("/public").status, 200);
    let seen = app.requests().len();
    idp.up();
    assert_eventually(DEADLINE, "it heals by itself", || status(&gateway, &fresh(&idp, 21)) == 200);
    assert_eq!(app.requests().len(), seen + 1, "nothing got through before");
    assert_eq!(status(&gateway, &remembered), 200);
}

#[test]
fn answers_that_are_no_keys_change_nothing() {
    let wrong = [
        Says::Garbage,
        Says::Error,
        Says::Huge,
        Says::Empty,
        Says::WrongIssuer,
        Says::Slow(Duration::from_secs(2)),
    ];
    std::thread::scope(|scope| {
        for says in wrong {
            scope.spawn(move || changes_nothing(says));
        }
    });
}

fn changes_nothing(says: Says) {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(&idp, &app, ", refresh: 200ms, cooldown: 100ms, timeout: 500ms");
    assert_eq!(status(&gateway, &fresh(&idp, 0)), 200, "{says:?}");
    idp.says(says);
    let failed = || gateway.metric("tollgate_jwks_fetches_total{result=\"failed\"}");
    assert_eventually(DEADLINE, &format!("fetches fail: {says:?}"), || failed() >= 2.0);
    assert_eq!(status(&gateway, &fresh(&idp, 1)), 200, "{says:?}");
    assert_logged(&gateway, "keeping 1 known keys");
    assert!(idp.discoveries() < 20, "{says:?}: failures are not repeated at once: {}", idp.discoveries());
    idp.says(Says::Right);
    idp.rotate();
    let token = fresh(&idp, 2);
    assert_eventually(DEADLINE, &format!("a new key is found: {says:?}"), || status(&gateway, &token) == 200);
}

#[test]
fn an_issuer_that_is_wrong_from_the_beginning_is_waited_for() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    idp.says(Says::WrongIssuer);
    let gateway = with_tokens_of(&idp, &app, ", timeout: 500ms");
    let response = get(&gateway, "/", &fresh(&idp, 0));
    assert_refused(&response, 503, "auth-unavailable");
    assert_eq!(gateway.log_of(&response)["auth_error"], "keys have not been fetched yet");
    assert_eq!(gateway.get("/public").status, 200);
    assert_logged(&gateway, "of another issuer");
    assert_eq!(idp.key_fetches(), 0, "where another issuer says, nothing is fetched");
    idp.says(Says::Right);
    assert_eventually(DEADLINE, "it heals by itself", || status(&gateway, &fresh(&idp, 1)) == 200);
}

#[test]
fn an_issuer_that_is_down_keeps_nobody_from_starting() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    idp.down();
    let gateway = with_tokens_of(&idp, &app, "");
    assert_refused(&get(&gateway, "/", &fresh(&idp, 0)), 503, "auth-unavailable");
    assert_eq!(gateway.get("/public").status, 200);
    idp.up();
    assert_eventually(DEADLINE, "it heals by itself", || status(&gateway, &fresh(&idp, 1)) == 200);
}

#[test]
fn a_url_of_keys_needs_no_discovery() {
    let (idp, app) = (Idp::start(), Upstream::echo());
    let gateway = with_tokens_of(&idp, &app, &format!(", jwks: \"{}/keys\"", idp.issuer()));
    assert_eq!(status(&gateway, &fresh(&idp, 0)), 200);
    assert_eq!(fetched(&idp), (0, 1));
}
