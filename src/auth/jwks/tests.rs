//! An issuer that rotates its keys, fails in every way, and comes back.

use super::super::stand_in::{Says, StandIn, client, ok, resolver, until};
use super::*;
use crate::tasks::Supervisor;
use tokio::runtime::Handle;

const KEYS: &str = "/keys";
const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn key(kid: &str) -> String {
    format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{X}"}}"#)
}

fn set(kids: &[&str]) -> String {
    format!(r#"{{"keys":[{}]}}"#, kids.iter().map(|kid| key(kid)).collect::<Vec<_>>().join(","))
}

fn jwks(place: Place, schedule: Schedule) -> Arc<Jwks> {
    Arc::new(Jwks::new(place, schedule, None, &client(), &resolver()).unwrap())
}

fn at(server: &StandIn, schedule: Schedule) -> Arc<Jwks> {
    jwks(Place::Url(server.url(KEYS)), schedule)
}

/// Fetches only when it is told to, as often as it is told to.
fn by_hand() -> Schedule {
    Schedule { cooldown: Duration::ZERO, timeout: Duration::from_secs(10), ..Schedule::default() }
}

async fn fetch(jwks: &Jwks) {
    jwks.missing("any").unwrap().await;
}

fn known(jwks: &Jwks) -> Option<(u64, usize)> {
    match jwks.current() {
        Current::Keys { set, generation } => Some((generation, set.len())),
        Current::Unavailable(_) => None,
    }
}

fn run(jwks: &Jwks) -> Supervisor {
    let supervisor = Supervisor::new(Handle::current());
    supervisor.adopt(&jwks.tasks());
    supervisor
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn keys_are_there_before_the_first_token_and_never_fetched_for_a_request() {
    let server = StandIn::new().await;
    server.say(KEYS, ok(set(&["a", "b"])));
    let jwks = at(&server, Schedule::default());
    assert_eq!(jwks.generation(), Err("keys have not been fetched yet"));
    assert!(jwks.warm(LONG).await);
    let background = run(&jwks);
    for _ in 0..1000 {
        assert_eq!(jwks.generation(), Ok(1));
        assert_eq!(known(&jwks), Some((1, 2)));
        tokio::task::yield_now().await;
    }
    background.stop().await;
    assert_eq!(server.count(KEYS), 1);
    let counters = jwks.counters();
    assert_eq!((counters.fetches(), counters.failures(), counters.missing(), counters.keys()), (1, 0, 0, 2));
    assert!(counters.age().is_some());
}

#[tokio::test]
async fn a_missing_key_is_fetched_once_for_all_who_wait_and_then_not_for_a_while() {
    let server = StandIn::new().await;
    server.say(KEYS, ok(set(&["a"])));
    let jwks = at(&server, Schedule { cooldown: Duration::from_secs(30), ..by_hand() });
    assert!(jwks.warm(LONG).await);
    server.say(KEYS, ok(set(&["a", "b"])));
    *server.delay.lock() = Duration::from_millis(100);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let jwks = Arc::clone(&jwks);
            tokio::spawn(async move {
                jwks.missing("b").unwrap().await;
                known(&jwks)
            })
        })
        .collect();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), Some((2, 2)));
    }
    assert_eq!(server.count(KEYS), 2);
    for _ in 0..100 {
        assert!(jwks.missing("c").is_none(), "cooling down");
    }
    jwks.0.plan.lock().missed = Instant::now().checked_sub(Duration::from_secs(30));
    jwks.missing("c").unwrap().await;
    assert!(jwks.missing("c").is_none(), "cooling down again");
    assert_eq!((server.count(KEYS), jwks.counters().missing()), (3, 2));
}

#[tokio::test]
async fn those_who_wait_for_a_slow_issuer_give_up_and_the_fetch_ends() {
    let server = StandIn::new().await;
    server.say(KEYS, ok(set(&["a"])));
    let jwks = at(&server, Schedule { timeout: Duration::from_millis(150), ..by_hand() });
    assert!(jwks.warm(LONG).await);
    server.say(KEYS, Says::Nothing);
    let began = Instant::now();
    fetch(&jwks).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    until("the fetch has failed", || jwks.counters().failures() == 1).await;
    assert_eq!(known(&jwks), Some((1, 1)), "kept");
}

#[tokio::test]
async fn the_generation_changes_with_the_keys_only() {
    let server = StandIn::new().await;
    let jwks = at(&server, by_hand());
    for (body, expected) in [
        (set(&["a", "b"]), (1, 2)),
        (set(&["a", "b"]), (1, 2)),
        (format!(r#"{{ "keys": [ {}, {} ], "x": 1 }}"#, key("b"), key("a")), (1, 2)),
        (set(&["b", "c"]), (2, 2)),
        (set(&["c"]), (3, 1)),
        (set(&["a", "b"]), (4, 2)),
    ] {
        server.say(KEYS, ok(body.clone()));
        fetch(&jwks).await;
        assert_eq!(known(&jwks), Some(expected), "{body}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_set_of_keys_changes_nothing() {
    let server = StandIn::new().await;
    server.say(KEYS, ok(set(&["a"])));
    let jwks = at(&server, Schedule { timeout: Duration::from_millis(300), ..by_hand() });
    fetch(&jwks).await;
    let bad = [
        Says::This(500, "", set(&["b"])),
        Says::This(404, "", set(&["b"])),
        Says::This(203, "", set(&["b"])),
        Says::This(302, "location: /other\r\n", set(&["b"])),
        Says::Noise,
        Says::Nothing,
        ok(""),
        ok("<html>"),
        ok("null"),
        ok(r#"{"keys":[]}"#),
        ok(r#"{"keys":{}}"#),
        ok(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#),
        ok(format!(r#"{{"pad":"{}","keys":[{}]}}"#, "x".repeat(MAX_ANSWER), key("b"))),
        ok(format!("{} trailing", set(&["b"]))),
    ];
    for (number, says) in bad.into_iter().enumerate() {
        server.say(KEYS, says.clone());
        fetch(&jwks).await;
        until("it has failed", || jwks.counters().failures() == number as u64 + 1).await;
        assert_eq!(known(&jwks), Some((1, 1)), "{says:?}");
    }
}

#[tokio::test]
async fn keys_are_good_up_to_stale_max_and_everything_heals() {
    let server = StandIn::new().await;
    server.say(KEYS, ok(set(&["a"])));
    let spans = Schedule {
        refresh: Duration::from_millis(40),
        stale_max: Duration::from_millis(600),
        ..Schedule::default()
    };
    let jwks = at(&server, spans);
    let background = run(&jwks);
    assert!(jwks.warm(LONG).await);
    until("it is refreshed", || server.count(KEYS) >= 5).await;
    assert_eq!(jwks.generation(), Ok(1));
    server.say(KEYS, Says::This(500, "", String::new()));
    until("a fetch fails", || jwks.counters().failures() > 0).await;
    assert_eq!(jwks.generation(), Ok(1), "the last good keys");
    until("they are too old", || jwks.generation().is_err()).await;
    assert_eq!(jwks.generation(), Err("keys are older than stale_max"));
    assert_eq!(known(&jwks), None);
    assert!(jwks.counters().age().unwrap() >= Duration::from_millis(600));
    assert!(!jwks.warm(Duration::from_millis(10)).await);
    let failures = jwks.counters().failures();
    assert!(failures <= 3, "{failures}: pauses after failures");
    server.say(KEYS, ok(set(&["a"])));
    until("it has recovered", || jwks.generation() == Ok(1)).await;
    background.stop().await;
}

#[tokio::test]
async fn an_issuer_tells_where_its_keys_are() {
    let server = StandIn::new().await;
    let issuer = server.url("/realm/");
    let document = |issuer: &str, path: &str| {
        ok(format!(r#"{{"issuer":"{issuer}","jwks_uri":"{}"}}"#, server.url(path)))
    };
    let well_known = "/realm/.well-known/openid-configuration";
    server.say(KEYS, ok(set(&["a"])));
    server.say("/new", ok(set(&["b", "c"])));
    let spans = Schedule { timeout: Duration::from_secs(1), ..by_hand() };
    let found = jwks(Place::Issuer(issuer.clone()), spans);
    for wrong in [
        document(&server.url("/realm"), KEYS),
        document("", KEYS),
        ok(format!(r#"{{"issuer":"{issuer}"}}"#)),
        ok(format!(r#"{{"issuer":"{issuer}","jwks_uri":"ftp://x/"}}"#)),
        ok(format!(r#"{{"jwks_uri":"{}"}}"#, server.url(KEYS))),
        ok("{}"),
        Says::This(404, "", String::new()),
    ] {
        server.say(well_known, wrong.clone());
        fetch(&found).await;
        assert_eq!((known(&found), server.count(KEYS)), (None, 0), "{wrong:?}");
    }
    server.say(well_known, document(&issuer, KEYS));
    fetch(&found).await;
    assert_eq!(known(&found), Some((1, 1)));
    let asked = server.count(well_known);
    fetch(&found).await;
    assert_eq!(
        (server.count(well_known), server.count(KEYS)),
        (asked, 2),
        "for a missing key, only the keys"
    );

    // The refresh in the background looks again, and does with what is known when there is no answer.
    let refresh = || {
        found.0.plan.lock().next = Instant::now();
        found.0.next_fetch()
    };
    server.say(well_known, document(&issuer, "/new"));
    refresh().await;
    assert_eq!(known(&found), Some((2, 2)));
    let failures = found.counters().failures();
    for says in [Says::This(503, "", String::new()), Says::Noise] {
        server.say(well_known, says);
        refresh().await;
        assert_eq!(found.counters().failures(), failures, "the keys were there");
    }
    server.say(well_known, document("https://other", KEYS));
    refresh().await;
    assert_eq!((found.counters().failures(), known(&found)), (failures + 1, Some((2, 2))), "another issuer");
}

#[test]
fn keys_come_over_tls_when_the_issuer_does() {
    let document = |url: &str| format!(r#"{{"issuer":"https://i","jwks_uri":"{url}"}}"#).into_bytes();
    assert_eq!(keys_url(&document("https://k/x"), "https://i"), Ok("https://k/x".to_owned()));
    assert!(keys_url(&document("http://k/x"), "https://i").unwrap_err().contains("not https"));
    let plain = br#"{"issuer":"http://i","jwks_uri":"http://k/x"}"#;
    assert_eq!(keys_url(plain, "http://i"), Ok("http://k/x".to_owned()));
}

#[test]
fn places_are_checked() {
    let make = |place| Jwks::new(place, Schedule::default(), None, &client(), &resolver());
    assert_eq!(
        make(Place::Issuer("https://i/realm/".to_owned())).ok().unwrap().url(),
        "https://i/realm/.well-known/openid-configuration"
    );
    for place in [
        Place::Issuer("https://i/?a=b".to_owned()),
        Place::Issuer("i".to_owned()),
        Place::Issuer(String::new()),
        Place::Url("https://u:p@i/".to_owned()),
    ] {
        assert!(make(place.clone()).is_err(), "{place:?}");
    }
    let with_ca = Jwks::new(
        Place::Url("https://i/".to_owned()),
        Schedule::default(),
        Some(Arc::from(&b"no PEM"[..])),
        &client(),
        &resolver(),
    );
    assert!(with_ca.err().unwrap().contains("CA bundle"));
}

#[tokio::test]
async fn a_reload_takes_over_what_is_known() {
    let server = StandIn::new().await;
    server.say(KEYS, ok(set(&["a"])));
    let before = at(&server, by_hand());
    assert!(before.warm(LONG).await);
    let same = at(&server, Schedule { refresh: Duration::from_secs(60), ..by_hand() });
    same.inherit(&before);
    assert_eq!((known(&same), same.counters().keys()), (Some((1, 1)), 1));
    let background = run(&same);
    assert!(same.warm(LONG).await);
    background.stop().await;
    assert_eq!(server.count(KEYS), 1);
    let other = jwks(Place::Url(server.url("/other")), by_hand());
    other.inherit(&before);
    assert_eq!(known(&other), None);
}
