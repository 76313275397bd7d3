//! Limits and quotas of one process: what a file keeps over a restart, the guard against floods, what clients and operators
//! are told. What a single request can show is in `tests/cases/limits*.yaml`; several processes are in `redis.rs`.

use crate::harness::{Client, DEADLINE, Gateway, Plan, Response, assert_eventually};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;

/// The key `daily`, as a consumer has it.
const KEY: (&str, &str) =
    ("daily", "sha256:6f31304cdfd0a3a6362bffbc6dc4f33ecb20221b84f79cf0137b7dc0f5d3a616");

const QUOTA: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
stores: { local: { quotas: "{{quotas}}", flush: {{flush}} } }
auth: { keys: { api_key: {} } }
plans: { free: { quota: { requests: 100/30d, reset: rolling } } }
consumers: { ann: { plan: free, keys: "{{key}}" } }
apis: { shop: { auth: keys, routes: { all: { match: "/**", to: { respond: { text: ok } } } } } }
"#;

fn quota(file: &Path, flush: &str) -> Plan {
    Plan::new(QUOTA).with("quotas", file.display()).with("flush", flush).with("key", KEY.1)
}

/// Sends a request of the consumer and gives how many are left.
fn take(gateway: &Gateway) -> u64 {
    let response = gateway.client().request("GET", "/").header("x-api-key", KEY.0).send();
    assert_eq!(response.status, 200, "{}", response.text());
    remaining(&response)
}

/// What `RateLimit` says of its only limit.
fn remaining(response: &Response) -> u64 {
    let [(_, params)] = items(response.header("ratelimit").unwrap()).try_into().unwrap();
    params.iter().find(|(name, _)| name == "r").unwrap().1
}

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}

#[test]
fn quotas_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("quotas");
    // Written at the end only: what a graceful stop writes is what is tested.
    let gateway = quota(&file, "1h").start();
    for left in [99, 98, 97] {
        assert_eq!(take(&gateway), left);
    }
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit(DEADLINE).success());
    assert_eq!(take(&quota(&file, "1h").start()), 96);
}

#[test]
fn a_kill_loses_what_came_after_the_last_flush_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("quotas");
    let gateway = quota(&file, "10ms").start();
    for left in [99, 98, 97] {
        let before = size(&file);
        assert_eq!(take(&gateway), left);
        assert_eventually(DEADLINE, "the quota is written", || size(&file) > before);
    }
    gateway.signal(Signal::SIGKILL);
    gateway.wait_exit(DEADLINE);
    let gateway = quota(&file, "1h").start();
    assert_eq!((take(&gateway), take(&gateway)), (96, 95));
    gateway.signal(Signal::SIGKILL);
    gateway.wait_exit(DEADLINE);
    assert_eq!(take(&quota(&file, "1h").start()), 96, "the two within an hour of the last flush are lost");
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let strange = dir.path().join("strange");
    std::fs::write(&strange, "somebody's letters\n").unwrap();
    let no_folder = dir.path().join("missing/quotas");
    for (file, why) in [
        (dir.path(), "is not a file"),
        (strange.as_path(), "was not written by tollgate"),
        (no_folder.as_path(), "No such file or directory"),
    ] {
        let ran = quota(file, "1s").try_start().err().expect("it does not start");
        let stderr = &ran.stderr;
        assert!(ran.code > 0 && stderr.contains("quotas cannot be kept"), "{ran:#?}");
        assert!(stderr.contains(why) && stderr.contains(file.to_str().unwrap()), "{ran:#?}");
        assert!(stderr.contains("quotas: /path") && stderr.contains("`none` keeps none"), "{ran:#?}");
    }
    assert_eq!(std::fs::read_to_string(strange).unwrap(), "somebody's letters\n", "it was left alone");
}

#[test]
fn two_processes_do_not_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("quotas");
    let first = quota(&file, "10ms").start();
    take(&first);
    let ran = quota(&file, "10ms").try_start().err().expect("the second does not start");
    assert!(ran.code > 0 && ran.stderr.contains("quotas cannot be kept"), "{ran:#?}");
    assert!(ran.stderr.contains("another process"), "{ran:#?}");
    assert_eq!(take(&first), 98, "the first goes on");
    first.signal(Signal::SIGTERM);
    first.wait_exit(DEADLINE);
    assert_eq!(take(&quota(&file, "10ms").start()), 97, "and leaves the file to the next");
}

#[test]
fn floods_are_kept_back_whatever_they_ask_for() {
    let gateway = Gateway::start(
        r#"
version: 1
listeners:
  web: { bind: "127.0.0.1:0", protocols: [http/1.1, h2c], trusted_proxies: [127.0.0.1], limits: { flood: 3/h } }
  other: { bind: "127.0.0.1:0" }
apis: { shop: { auth: public, routes: { all: { match: /known, to: { respond: { text: ok } } } } } }
"#,
    );
    let from = |address: &str, path: &str| {
        gateway.client().request("GET", path).header("x-forwarded-for", address).send()
    };
    for path in ["/known", "/nowhere", "/known"] {
        assert_eq!(from("192.0.2.1", path).status, if path == "/known" { 200 } else { 404 });
    }
    for path in ["/known", "/nowhere"] {
        let refused = from("192.0.2.1", path);
        assert_eq!((refused.status, refused.problem_code().as_str()), (429, "flood"));
        assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() <= 3600);
        assert_eq!(gateway.log_of(&refused)["reason"], "flood");
    }
    assert_eq!(from("192.0.2.2", "/known").status, 200, "another address");
    assert_eq!(Client::connect(gateway.addr("other")).get("/known").status, 200, "another listener");
    assert_eq!(gateway.metric("tollgate_flood_refused_total{listener=\"web\"}") as u64, 2);
}

const METERED: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
stores: { local: { quotas: none, max_keys: 500 } }
auth: { keys: { api_key: {} } }
plans: { free: { limits: 3/h per consumer, quota: { requests: 100/month } } }
consumers: { ann: { plan: free, keys: "{{key}}" } }
apis:
  shop:
    auth: public
    routes:
      shadow: { match: /shadow, limits: [1/h per client_ip shadow, 2/d per client_ip], to: { respond: { text: ok } } }
      plan: { match: /plan, auth: keys, limits: 2/h per consumer shared some, to: { respond: { text: ok } } }
      many: { match: /many, limits: 1/h per header:x-key, to: { respond: { text: ok } } }
"#;

#[test]
fn decisions_are_metered() {
    let gateway = Plan::new(METERED).with("key", KEY.1).start();
    let statuses: Vec<u16> = (0..4).map(|_| gateway.get("/shadow").status).collect();
    assert_eq!(statuses, [200, 200, 429, 429]);
    let plan = || gateway.client().request("GET", "/plan").header("x-api-key", KEY.0).send().status;
    assert_eq!([plan(), plan(), plan()], [200, 200, 429]);
    let decisions = |scope: &str, policy: &str| {
        let count = |decision: &str| {
            let labels = format!("scope=\"{scope}\",policy=\"{policy}\",decision=\"{decision}\"");
            gateway.metric(&format!("tollgate_limit_decisions_total{{{labels}}}")) as u64
        };
        (count("granted"), count("refused"))
    };
    assert_eq!(decisions("route shop.shadow", "2/d per client_ip"), (2, 2));
    let (granted, refused) = decisions("route shop.shadow", "1/h per client_ip");
    assert_eq!((granted, granted + refused), (1, 4), "a shadow counts what it would have refused");
    assert_eq!(decisions("shared some", "2/h per consumer"), (2, 1));
    assert_eq!(decisions("plan free", "3/h per consumer"), (3, 0), "it had room when the other refused");
    assert_eq!(decisions("plan free", "100/month"), (3, 0));
}

#[test]
fn more_keys_than_allowed_push_out_the_oldest() {
    let gateway = Plan::new(METERED).with("key", KEY.1).start();
    let mut client = gateway.client();
    let mut ask = |key: usize| client.request("GET", "/many").header("x-key", &key.to_string()).send().status;
    assert!((0..2_000).all(|key| ask(key) == 200));
    assert_eq!(ask(1_999), 429, "the youngest is known");
    assert_eq!(ask(0), 200, "the oldest is not");
    assert!(gateway.metric("tollgate_limit_keys") <= 500.0);
    assert!(gateway.metric("tollgate_limit_keys_evicted_total") >= 1_500.0);
}

#[test]
fn what_clients_are_told_is_structured_fields() {
    let yaml = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
stores: { local: { quotas: none } }
auth: { keys: { api_key: {} } }
plans: { free: { limits: [100/10s burst 7 per consumer, 5000/h per credential], quota: { requests: 100/month } } }
consumers: { ann: { plan: free, keys: "{{key}}" } }
apis:
  shop:
    auth: keys
    routes:
      all:
        match: "/{id}"
        limits:
          - 20/s burst 40 per client_ip
          - 7/2d per header:X-Key+param:id+global
          - { rate: 9/min, per: "query:a\"b\\c", on_missing: skip }
          - { rate: 8/min, per: "cookie:ü,;=", on_missing: ip }
          - { rate: 8/min, per: "claim:https://x.y/z w", on_missing: skip, shadow: true }
        to: { respond: { text: ok } }
"#;
    let gateway = Plan::new(yaml).with("key", KEY.1).start();
    let ask = || gateway.client().request("GET", "/7").header("x-api-key", KEY.0).header("x-key", "a").send();
    let response = ask();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.headers.all("ratelimit-policy").len(), 1);
    let policies = items(response.header("ratelimit-policy").unwrap());
    let param =
        |params: &Params, name: &str| params.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    let told: Vec<_> = policies
        .iter()
        .map(|(name, params)| (name.as_str(), param(params, "q").unwrap(), param(params, "w")))
        .collect();
    let expected = [
        ("20/s per client_ip", 20, Some(1)),
        ("7/2d per header:x-key+param:id+global", 7, Some(172_800)),
        ("9/min per query:abc", 9, Some(60)),
        ("8/min per cookie:,;=", 8, Some(60)),
        ("8/min per claim:https://x.y/z w", 8, Some(60)),
        ("100/10s per consumer", 100, Some(10)),
        ("5000/h per credential", 5_000, Some(3_600)),
        ("100/month", 100, None),
    ];
    assert_eq!(told, expected);
    let states = items(response.header("ratelimit").unwrap());
    let left: Vec<_> =
        states.iter().map(|(name, params)| (name.as_str(), param(params, "r").unwrap())).collect();
    let expected = [
        ("20/s per client_ip", 39),
        ("7/2d per header:x-key+param:id+global", 6),
        ("8/min per cookie:,;=", 7),
        ("100/10s per consumer", 6),
        ("5000/h per credential", 4_999),
        ("100/month", 99),
    ];
    assert_eq!(left, expected, "limits that do not apply are announced and have no state");
    for (name, params) in &states {
        assert!((1..=31 * 86_400).contains(&param(params, "t").unwrap()), "{name} {params:?}");
    }
}

#[test]
fn who_comes_back_when_told_is_let_in() {
    let gateway = Gateway::start(
        r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
apis: { shop: { auth: public, limits: 3/s burst 2 per global cost 2, routes: { all: { match: /, to: { respond: { text: ok } } } } } }
"#,
    );
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    for _ in 0..2 {
        let refused = client.get("/");
        assert_eq!(refused.header("retry-after"), Some("1"), "{}", refused.status);
        // What the answer asked for; the only way to see that it is true.
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(client.get("/").status, 200);
    }
}

type Params = Vec<(String, u64)>;

/// Reads a list of strings with integer parameters (RFC 9651 sections 4.2.1, 4.2.5); panics on anything else.
fn items(text: &str) -> Vec<(String, Params)> {
    let mut rest = text;
    let mut items = Vec::new();
    loop {
        rest = rest
            .strip_prefix('"')
            .unwrap_or_else(|| panic!("a string begins with a quote: {rest:?} of {text:?}"));
        let (name, after) = rest.split_once('"').unwrap_or_else(|| panic!("it ends with one: {text:?}"));
        assert!(name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\'), "{text:?}");
        rest = after;
        let mut params = Params::new();
        while let Some(after) = rest.strip_prefix(';') {
            let (key, after) =
                after.split_once('=').unwrap_or_else(|| panic!("a parameter has a value: {text:?}"));
            assert!(key.starts_with(|c: char| c.is_ascii_lowercase()), "{text:?}");
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            assert!((1..=15).contains(&digits), "an integer has 1 to 15 digits: {text:?}");
            params.push((key.to_owned(), after[..digits].parse().unwrap()));
            rest = &after[digits..];
        }
        items.push((name.to_owned(), params));
        match rest.strip_prefix(", ") {
            Some(after) => rest = after,
            None => break,
        }
    }
    assert_eq!(rest, "", "nothing follows: {text:?}");
    items
}
