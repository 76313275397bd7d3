//! One fault after the other, with real sockets. The table that comes out stands in `tests/faults.md`; what must hold of it is
//! asserted here, so it cannot become untrue unnoticed but for the times.

use super::{config, raw, start};
use crate::harness::{
    Answer, DnsMode, DnsServer, Fault, Gateway, H2Answer, H2Client, H2Upstream, Plan, Reserved, Response,
    Upstream,
};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What came of a number of requests, one after the other.
struct Outcome {
    requests: usize,
    /// `200`, `502 upstream-closed`, `200 cut`, and how often.
    seen: BTreeMap<String, usize>,
    /// Attempts, by what the gateway counts.
    attempts: f64,
    /// What `Proxy-Status` said last.
    proxy_status: String,
    /// The longest that a request took.
    longest: Duration,
}

impl Outcome {
    /// Asks `requests` times.
    fn of(gateway: &Gateway, requests: usize) -> Outcome {
        let mut outcome = Outcome {
            requests,
            seen: BTreeMap::new(),
            attempts: 0.0,
            proxy_status: String::new(),
            longest: Duration::ZERO,
        };
        let (lines, attempts) = (gateway.access_log().len(), attempts(gateway));
        for _ in 0..requests {
            let began = Instant::now();
            let response = gateway.get("/");
            outcome.longest = outcome.longest.max(began.elapsed());
            if let Some(said) = response.header("proxy-status") {
                said.clone_into(&mut outcome.proxy_status);
            }
            *outcome.seen.entry(told(&response)).or_default() += 1;
        }
        gateway.log_line(lines + requests - 1);
        outcome.attempts = self::attempts(gateway) - attempts;
        outcome
    }

    /// Both together.
    fn and(mut self, next: Outcome) -> Outcome {
        self.requests += next.requests;
        self.attempts += next.attempts;
        self.longest = self.longest.max(next.longest);
        for (what, count) in next.seen {
            *self.seen.entry(what).or_default() += count;
        }
        self
    }

    fn amplification(&self) -> f64 {
        self.attempts / self.requests as f64
    }

    fn often(&self, what: &str) -> usize {
        self.seen.get(what).copied().unwrap_or(0)
    }

    /// Every request ended so.
    fn all(&self, what: &str) {
        assert_eq!(self.often(what), self.requests, "{:?}", self.seen);
    }

    /// No more than a fifth of the requests were tried again.
    fn within_budget(&self) {
        assert!(self.amplification() <= 1.2, "{} attempts for {} requests", self.attempts, self.requests);
    }

    fn says(&self, error: &str) {
        assert_eq!(self.proxy_status, format!("tollgate; error={error}"));
    }

    /// The line of the table.
    fn show(self, fault: &str) {
        let seen: Vec<String> = self.seen.iter().map(|(what, count)| format!("{what} × {count}")).collect();
        let error = self.proxy_status.split_once("error=").map_or("", |(_, error)| error);
        println!(
            "| {fault} | {} | {} | {} | {:.2} | {error} | {} ms |",
            self.requests,
            seen.join(", "),
            self.attempts,
            self.amplification(),
            self.longest.as_millis()
        );
    }
}

fn attempts(gateway: &Gateway) -> f64 {
    gateway.metric(r#"tollgate_upstream_attempts_total{upstream="app"}"#)
}

fn told(response: &Response) -> String {
    match response.status {
        status if !response.complete => format!("{status} cut"),
        status if response.header("content-type") == Some("application/problem+json") => {
            format!("{status} {}", response.problem_code())
        }
        status => status.to_string(),
    }
}

fn one(addr: impl std::fmt::Display) -> String {
    format!("targets: [\"{addr}\"], health: none")
}

fn two(a: impl std::fmt::Display, b: impl std::fmt::Display) -> String {
    format!("targets: [\"{a}\", \"{b}\"], health: none")
}

#[test]
fn targets_that_refuse() {
    let (dead, other) = (Reserved::any(), Reserved::any());
    let outcome = Outcome::of(&start(&one(dead.addr()), ""), 100);
    outcome.all("502 upstream-connect-failed");
    outcome.says("connection_refused");
    assert_eq!(outcome.attempts, 100.0, "there is nobody else to ask");
    outcome.show("the only target refuses");

    let outcome = Outcome::of(&start(&two(dead.addr(), other.addr()), ""), 100);
    outcome.all("502 upstream-connect-failed");
    outcome.within_budget();
    assert!(outcome.attempts > 100.0, "the first ones were tried elsewhere");
    outcome.show("both targets refuse");

    let alive = Upstream::named("alive");
    let outcome = Outcome::of(&start(&two(dead.addr(), alive.addr()), ""), 100);
    outcome.all("200");
    assert_eq!(outcome.attempts, 150.0, "a retry that finds a target costs no budget");
    outcome.show("one of two refuses, no health checks");

    let passive = format!(
        "targets: [\"{}\", \"{}\"], health: {{ probe: none, passive: {{}} }}",
        dead.addr(),
        alive.addr()
    );
    let gateway = start(&passive, "");
    let outcome = Outcome::of(&gateway, 100);
    outcome.all("200");
    assert_eq!(outcome.attempts, 105.0, "after five failures it is left alone");
    assert_eq!(gateway.metric(r#"tollgate_upstream_ejections_total{upstream="app"}"#), 1.0);
    assert_eq!(gateway.metric(&format!("tollgate_upstream_target_up{{target=\"{}\"}}", dead.addr())), 0.0);
    assert!(gateway.stderr().contains("is ejected for 30s: 5 failures in a row, the last one connect"));
    outcome.show("one of two refuses, passive checks");
}

#[test]
fn targets_that_break_the_connection() {
    let resets = Upstream::start(|_| Answer::fault(Fault::Reset));
    let outcome = Outcome::of(&start(&one(resets.addr()), ""), 100);
    outcome.all("502 upstream-closed");
    outcome.says("connection_terminated");
    outcome.within_budget();
    assert_eq!(resets.requests().len() as f64, outcome.attempts);
    outcome.show("resets before the answer");

    let (mid_head, asked) = raw(|wire| {
        wire.write("HTTP/1.1 200 OK\r\ncontent-le")?;
        Err(io::ErrorKind::ConnectionReset.into())
    });
    let outcome = Outcome::of(&start(&one(mid_head.addr()), ""), 100);
    outcome.all("502 upstream-closed");
    outcome.within_budget();
    assert_eq!(asked.load(Ordering::SeqCst) as f64, outcome.attempts);
    outcome.show("closes within the head");

    let mid_body = Upstream::start(|_| Answer::fault(Fault::Cut(10)));
    let outcome = Outcome::of(&start(&one(mid_body.addr()), ""), 100);
    outcome.all("200 cut");
    assert_eq!(outcome.attempts, 100.0, "what has begun cannot be taken back");
    outcome.show("closes within the body");

    let garbage = Upstream::start(|_| Answer::fault(Fault::Garbage));
    let outcome = Outcome::of(&start(&one(garbage.addr()), ""), 100);
    outcome.all("502 upstream-invalid");
    outcome.says("http_protocol_error");
    outcome.within_budget();
    outcome.show("answers garbage");
}

#[test]
fn targets_that_hang() {
    let hangs = Upstream::start(|_| Answer::fault(Fault::Silence));
    let outcome = Outcome::of(&start(&one(hangs.addr()), "timeouts: { response: 100ms }"), 20);
    outcome.all("504 upstream-timeout");
    outcome.says("http_response_timeout");
    assert_eq!(outcome.attempts, 20.0, "time-outs are not retried unless it is said");
    outcome.show("hangs, answer within 100 ms");

    let outcome = Outcome::of(
        &start(
            &one(hangs.addr()),
            "timeouts: { response: 100ms }, retry: { on: timeout, per_try_timeout: 20ms }",
        ),
        60,
    );
    outcome.all("504 upstream-timeout");
    outcome.within_budget();
    assert!(outcome.attempts > 60.0);
    outcome.show("hangs, `on: timeout`, 20 ms for each attempt");

    let alive = Upstream::named("alive");
    let retry = "retry: { on: timeout, per_try_timeout: 500ms, backoff: { base: 0s } }";
    let passive = format!(
        "targets: [\"{}\", \"{}\"], health: {{ probe: none, passive: {{}} }}",
        hangs.addr(),
        alive.addr()
    );
    let outcome = Outcome::of(&start(&passive, retry), 40);
    outcome.all("200");
    assert_eq!(outcome.attempts, 45.0);
    outcome.show("one of two hangs, `on: timeout`, passive checks");
}

#[test]
fn targets_that_answer_500_half_of_the_time() {
    let half = |seen: &Arc<AtomicUsize>| {
        let seen = Arc::clone(seen);
        Upstream::start(move |_| match seen.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => Answer::new(500, "no"),
            _ => Answer::ok("yes"),
        })
    };
    let seen = Arc::default();
    let upstream = half(&seen);
    let outcome = Outcome::of(&start(&one(upstream.addr()), ""), 100);
    assert_eq!(
        (outcome.often("500"), outcome.often("200"), outcome.attempts),
        (50, 50, 100.0),
        "{:?}",
        outcome.seen
    );
    outcome.show("500 half of the time");

    let seen = Arc::default();
    let upstream = half(&seen);
    let retry = "retry: { on: [connect, reset, 5xx], backoff: { base: 1ms } }";
    let outcome = Outcome::of(&start(&one(upstream.addr()), retry), 100);
    outcome.within_budget();
    assert!(
        outcome.often("200") > 55 && outcome.often("200") + outcome.often("500") == 100,
        "{:?}",
        outcome.seen
    );
    outcome.show("500 half of the time, `on: 5xx`, budget 20%");

    let seen = Arc::default();
    let upstream = half(&seen);
    let retry = "retry: { on: 5xx, budget: 100%, backoff: { base: 1ms } }";
    let outcome = Outcome::of(&start(&one(upstream.addr()), retry), 100);
    outcome.all("200");
    assert_eq!(outcome.attempts, 200.0);
    outcome.show("500 half of the time, `on: 5xx`, budget 100%");
}

#[test]
fn a_target_that_flaps() {
    let (flapping, steady) = (Upstream::named("flapping"), Upstream::named("steady"));
    let gateway = start(&two(flapping.addr(), steady.addr()), "");
    let mut outcome: Option<Outcome> = None;
    for round in 0..10 {
        match round % 2 {
            0 => flapping.down(),
            _ => flapping.up(),
        }
        let next = Outcome::of(&gateway, 10);
        next.all("200");
        outcome = Some(match outcome {
            None => next,
            Some(before) => before.and(next),
        });
    }
    let outcome = outcome.unwrap();
    outcome.all("200");
    outcome.show("one of two goes up and down");
}

#[test]
fn names_that_are_gone() {
    let upstream = Upstream::named("alive");
    let dns = DnsServer::start();
    dns.set("app.test", &["127.0.0.1"], 1);
    let yaml = |port: u16| {
        let upstream = format!(
            "targets: [\"app.test:{port}\"], health: none, discovery: {{ refresh: 100ms, min: 100ms }}"
        );
        format!("process: {{ resolver: [\"{}\"] }}\n{}", dns.addr(), config(&upstream, ""))
    };
    let gateway = Plan::new(&yaml(upstream.addr().port())).start();
    dns.mode(DnsMode::ServFail);
    crate::harness::assert_eventually(crate::harness::DEADLINE, "look-ups fail", || {
        gateway.metric(r#"tollgate_dns_failures_total{upstream="app"}"#) >= 2.0
    });
    let outcome = Outcome::of(&gateway, 50);
    outcome.all("200");
    outcome.show("DNS fails after it has answered: the last addresses stay");

    let gateway = Plan::new(&yaml(upstream.addr().port())).start();
    let outcome = Outcome::of(&gateway, 50);
    outcome.all("503 no-target");
    outcome.says("destination_unavailable");
    outcome.show("DNS has never answered");
}

#[test]
fn only_what_may_be_sent_twice_is() {
    let first = || {
        let seen = AtomicUsize::new(0);
        Upstream::start(move |request| match seen.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::fault(Fault::Reset),
            _ => Answer::ok(request.text()),
        })
    };
    for (method, key, route, status, asked) in [
        ("PUT", false, "", 200, 2),
        ("POST", false, "", 502, 1),
        ("POST", true, "", 200, 2),
        ("POST", false, "retry: { methods: all }", 200, 2),
        ("POST", false, "retry: { methods: [POST] }", 200, 2),
        ("PUT", false, "retry: { methods: [POST] }", 502, 1),
        ("PUT", false, "retry: none", 502, 1),
        ("PUT", false, "retry: { attempts: 1 }", 502, 1),
        ("PUT", false, "retry: { on: [connect] }", 502, 1),
        ("PUT", false, "retry: { budget: 0% }", 502, 1),
    ] {
        let upstream = first();
        let gateway = start(&one(upstream.addr()), route);
        let mut client = gateway.client();
        let mut ask = client.request(method, "/").body("hello");
        if key {
            ask = ask.header("idempotency-key", "1");
        }
        let response = ask.send();
        let case = format!("{method} {key} {route}: {}", response.text());
        assert_eq!((response.status, upstream.requests().len()), (status, asked), "{case}");
        if status == 200 {
            assert_eq!(response.text(), "hello", "the body is sent again");
            assert_eq!(gateway.log_of(&response)["attempts"], 2);
        }
    }
}

#[test]
fn a_large_body_is_sent_again_if_it_was_kept() {
    let body: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    for (route, chunked, status) in [
        ("", false, 502),
        ("retry: { body: 1MiB }", false, 200),
        ("retry: { body: 1MiB }", true, 200),
        ("retry: { body: 299999B }", false, 502),
    ] {
        let seen = AtomicUsize::new(0);
        let upstream = Upstream::start(move |_| match seen.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::fault(Fault::Reset),
            _ => Answer::ok("got it"),
        });
        let gateway = start(&one(upstream.addr()), route);
        let mut client = gateway.client();
        let ask = client.request("PUT", "/");
        let response = match chunked {
            true => ask.chunks(body.chunks(7_000)).send(),
            false => ask.body(body.clone()).send(),
        };
        assert_eq!(response.status, status, "{route}: {}", response.text());
        let requests = upstream.requests();
        assert_eq!(requests.len(), if status == 200 { 2 } else { 1 });
        assert!(requests.iter().all(|request| request.body == body), "whole each time");
    }
}

#[test]
fn http2_makes_no_difference() {
    let seen = AtomicUsize::new(0);
    let upstream = H2Upstream::start(move |request| match seen.fetch_add(1, Ordering::SeqCst) {
        0 => H2Answer { status: 503, ..H2Answer::ok(vec![b'x'; 100_000]) },
        _ => H2Answer::ok(request.body().clone()),
    });
    let said = format!("{}, protocol: h2c", one(upstream.addr()));
    let gateway = start(&said, "retry: { on: [503], body: 1MiB }");
    let body = vec![b'y'; 200_000];
    let request = http::Request::put("http://a.test/").body(()).unwrap();
    let response = H2Client::connect(gateway.addr("web")).send(request, &body);
    assert_eq!((response.status, response.body == body), (200, true));
    assert_eq!((upstream.requests().len(), gateway.log_line(0)["attempts"].as_u64()), (2, Some(2)));
}

#[test]
fn an_answer_that_is_retried_is_never_seen() {
    let busy = Upstream::start(|_| Answer::new(503, "x".repeat(100_000)).header("retry-after", "7"));
    let alive = Upstream::named("alive");
    let retry = "retry: { on: [503], backoff: { base: 0s } }";
    let gateway = start(&two(busy.addr(), alive.addr()), retry);
    let mut client = gateway.client();
    for _ in 0..10 {
        let response = client.get("/");
        assert_eq!(
            (response.status, response.text().as_str(), response.header("retry-after")),
            (200, "alive", None)
        );
    }
    assert_eq!(busy.requests().len(), 5);
    assert_eq!(gateway.metric(r#"tollgate_upstream_retries_total{cause="status"}"#), 5.0);
    let gateway = start(&one(busy.addr()), retry);
    let response = gateway.get("/");
    assert_eq!(
        (response.status, response.header("retry-after"), response.body.len()),
        (503, Some("7"), 100_000)
    );
    assert_eq!(busy.requests().len(), 7, "the last answer is the client's");
}
