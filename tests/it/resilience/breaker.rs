//! The circuit breaker, by its clients.

use super::start;
use crate::harness::{Answer, DEADLINE, Gateway, Upstream, assert_eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An upstream that answers 500 while `bad`.
fn upstream(bad: &Arc<AtomicBool>) -> Upstream {
    let bad = Arc::clone(bad);
    Upstream::start(move |_| match bad.load(Ordering::SeqCst) {
        true => Answer::new(500, "no"),
        false => Answer::ok("yes"),
    })
}

fn state(gateway: &Gateway) -> f64 {
    gateway.metric(r#"tollgate_breaker_state{upstream="app"}"#)
}

#[test]
fn it_opens_half_opens_closes_and_opens_again() {
    let bad = Arc::new(AtomicBool::new(true));
    let upstream = upstream(&bad);
    let rules = "breaker: { min_requests: 10, open: 300ms, probes: 2 }";
    let gateway = start(&format!("targets: [\"{}\"], health: none, {rules}", upstream.addr()), "");
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 500);
    }
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.problem_code().as_str()), (503, "breaker-open"));
    assert_eq!(
        (refused.header("retry-after"), refused.header("proxy-status")),
        (Some("1"), Some("tollgate; error=destination_unavailable"))
    );
    assert_eq!(gateway.log_of(&refused)["reason"], "breaker-open");
    assert_eq!((upstream.requests().len(), state(&gateway)), (10, 1.0), "it was not asked");

    std::thread::sleep(Duration::from_millis(310));
    assert_eq!(gateway.get("/").status, 500, "a probe");
    assert_eq!((gateway.get("/").status, upstream.requests().len()), (503, 11), "which opens it again");

    bad.store(false, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(310));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(state(&gateway), 2.0, "one of two probes has succeeded");
    for _ in 0..20 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(state(&gateway), 0.0);

    bad.store(true, Ordering::SeqCst);
    assert_eventually(DEADLINE, "it opens once more", || gateway.get("/").status == 503);
    assert_eq!(gateway.metric(r#"tollgate_breaker_opened_total{upstream="app"}"#), 3.0);
    let log = gateway.stderr();
    for line in [
        "breaker open for 300ms: 10 of 10 attempts failed within 10s",
        "breaker half open: 2 probes",
        "a probe failed",
        "breaker closed: 2 probes succeeded",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn a_dead_upstream_is_hardly_asked() {
    let bad = Arc::new(AtomicBool::new(true));
    let upstream = upstream(&bad);
    let gateway = start(
        &format!("targets: [\"{}\"], health: none, breaker: {{}}", upstream.addr()),
        "retry: { on: 5xx, budget: 100%, backoff: { base: 0s } }",
    );
    let answers: Vec<u16> = (0..200).map(|_| gateway.get("/").status).collect();
    assert_eq!(upstream.requests().len(), 20, "then it opens, and no retry comes behind");
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), 190, "{answers:?}");
}

#[test]
fn probes_that_a_client_leaves_do_not_keep_it_half_open() {
    let bad = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&bad);
    let upstream =
        Upstream::start(move |request| match (request.target.as_str(), failing.load(Ordering::SeqCst)) {
            ("/slow", _) => Answer::ok("late").delay(Duration::from_secs(5)),
            (_, true) => Answer::new(500, "no"),
            _ => Answer::ok("yes"),
        });
    let rules = "breaker: { min_requests: 2, open: 100ms, probes: 1 }";
    let gateway = start(
        &format!("targets: [\"{}\"], health: none, {rules}", upstream.addr()),
        "timeouts: { response: 30s }",
    );
    assert_eq!([gateway.get("/").status, gateway.get("/").status, gateway.get("/").status], [500, 500, 503]);
    bad.store(false, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(110));
    let mut leaver = gateway.client();
    leaver.request("GET", "/slow").send_only();
    upstream.wait_for_requests(3);
    assert_eq!(gateway.get("/").status, 503, "the only probe is under way");
    drop(leaver);
    assert_eventually(DEADLINE, "its place is free again", || gateway.get("/").status == 200);
    assert_eventually(DEADLINE, "and it closes", || state(&gateway) == 0.0);
}
