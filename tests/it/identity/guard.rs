//! Against guessing (AU-18), as far as it takes time; who is counted and who is not is in `tests/cases/auth_guard.yaml`.

use crate::harness::{DEADLINE, Gateway, Plan, Response, Upstream, assert_eventually};
use std::time::{Duration, Instant};

const CONFIG: &str = r#"
version: 1
listeners:
  web:
    bind: "127.0.0.1:0"
    trusted_proxies: [127.0.0.0/8]
    limits: { guard: { failures: 2, within: 1m, block: 1s, max_block: 1m } }
auth: { staff: { basic: { users: { bob: "$2b$04$abcdefghijklmnopqrstuuMjP8rcRP9jDBaf.MqHtqTjAN61Q1x0." } } } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis: { shop: { auth: staff, routes: { all: { match: "/**", to: app } } } }
"#;

fn ask(gateway: &Gateway, from: &str, password: &str) -> Response {
    let mut client = gateway.client();
    let credentials = crate::harness::basic(format!("bob:{password}"));
    client.request("GET", "/").header("x-forwarded-for", from).header("authorization", &credentials).send()
}

/// How long an address is told to wait.
fn wait(response: &Response) -> u64 {
    assert_eq!((response.status, response.problem_code().as_str()), (429, "too-many-failures"));
    response.header("retry-after").unwrap().parse().unwrap()
}

#[test]
fn a_block_ends_and_the_next_one_is_longer() {
    let app = Upstream::echo();
    let gateway = Plan::new(CONFIG).with("app", app.addr()).start();
    let fail = |times| (0..times).for_each(|_| assert_eq!(ask(&gateway, "203.0.113.1", "x").status, 401));
    fail(2);
    let begin = Instant::now();
    assert_eq!(wait(&ask(&gateway, "203.0.113.1", "p:w")), 1, "the right password does not help");
    assert_eq!(ask(&gateway, "203.0.113.2", "p:w").status, 200);
    assert_eventually(DEADLINE, "the block ends", || ask(&gateway, "203.0.113.1", "y").status == 401);
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    fail(1);
    assert_eq!(wait(&ask(&gateway, "203.0.113.1", "p:w")), 2, "twice as long");
    assert_eventually(DEADLINE, "the right password counts again", || {
        ask(&gateway, "203.0.113.1", "p:w").status == 200
    });
    assert_eq!(app.requests().len(), 2);
}

#[test]
fn an_ipv6_network_is_one_address() {
    let app = Upstream::echo();
    let gateway = Plan::new(CONFIG).with("app", app.addr()).start();
    assert_eq!(ask(&gateway, "2001:db8:0:1::1", "x").status, 401);
    assert_eq!(ask(&gateway, "2001:db8:0:1::2", "x").status, 401);
    wait(&ask(&gateway, "2001:db8:0:1:ffff::3", "p:w"));
    assert_eq!(ask(&gateway, "2001:db8:0:2::1", "p:w").status, 200);
}
