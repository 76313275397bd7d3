//! Start and stop: signals, draining, addresses that are taken.

use crate::harness::{
    Answer, Client, DEADLINE, Gate, Gateway, Plan, Reserved, Response, Upstream, assert_eventually,
    tollgate_in,
};
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const FRONT: &str = r#"
version: 1
process: { drain: { requests: 30s } }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { targets: ["{{app}}"], health: none } }
apis: { shop: { auth: public, routes: { all: { match: "/**", to: app } } } }
"#;

/// "Promptly": far below the drain deadline, far above what a busy machine needs.
const PROMPTLY: Duration = Duration::from_secs(5);

/// A gateway with one request in flight, whose answer waits at the gate.
struct InFlight {
    gateway: Gateway,
    gate: Gate,
    client: JoinHandle<Result<Response, String>>,
    _upstream: Upstream,
}

fn in_flight(yaml: &str) -> InFlight {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| {
        held.wait();
        Answer::ok("finished")
    });
    let gateway = Plan::new(yaml).with("app", upstream.addr()).start();
    let mut client = gateway.client();
    let client = std::thread::spawn(move || {
        client.request("GET", "/").send_only();
        Response::read(&mut client.wire, "GET").map_err(|error| error.to_string())
    });
    upstream.wait_for_requests(1);
    InFlight { gateway, gate, client, _upstream: upstream }
}

fn refuses(gateway: &Gateway) {
    let addr = gateway.addr("web");
    assert_eventually(DEADLINE, "new connections are refused", || TcpStream::connect(addr).is_err());
}

#[test]
fn term_finishes_what_is_in_flight_and_then_exits_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGQUIT] {
        let InFlight { gateway, gate, client, _upstream } = in_flight(FRONT);
        gateway.signal(signal);
        refuses(&gateway);
        assert!(gateway.is_running(), "a request is still in flight");
        let opened = Instant::now();
        gate.open();
        let response = client.join().unwrap().unwrap();
        assert_eq!((response.status, response.text().as_str(), response.complete), (200, "finished", true));
        assert!(gateway.wait_exit(PROMPTLY).success(), "{signal}");
        assert!(opened.elapsed() < PROMPTLY);
        let line = gateway.log_of(&response);
        assert_eq!(line["status"], 200, "the log is written before the process ends");
    }
}

#[test]
fn the_last_answer_before_a_stop_closes_its_connection() {
    let InFlight { gateway, gate, client, _upstream } = in_flight(FRONT);
    gateway.signal(Signal::SIGTERM);
    refuses(&gateway);
    gate.open();
    let response = client.join().unwrap().unwrap();
    assert_eq!(response.header("connection"), Some("close"));
    assert!(gateway.wait_exit(PROMPTLY).success());
}

#[test]
fn idle_connections_do_not_hold_up_a_stop() {
    let upstream = Upstream::named("a");
    let gateway = Plan::new(FRONT).with("app", upstream.addr()).start();
    let mut idle = gateway.client();
    assert_eq!(idle.get("/").text(), "a");
    let mut untouched = gateway.client();
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit(PROMPTLY).success());
    idle.wire.expect_closed();
    untouched.wire.expect_closed();
}

#[test]
fn readiness_ends_when_draining_begins() {
    let InFlight { gateway, gate, client, _upstream } = in_flight(FRONT);
    assert_eq!(gateway.ask_admin("/readyz").status, 200);
    gateway.signal(Signal::SIGTERM);
    assert_eventually(DEADLINE, "/readyz answers 503", || gateway.ask_admin("/readyz").status == 503);
    assert_eq!(gateway.ask_admin("/healthz").status, 200);
    gate.open();
    assert!(client.join().unwrap().is_ok());
    assert!(gateway.wait_exit(PROMPTLY).success());
}

#[test]
fn draining_ends_at_its_deadline() {
    let yaml = FRONT.replace("requests: 30s", "requests: 500ms");
    let InFlight { gateway, gate, client, _upstream } = in_flight(&yaml);
    gateway.signal(Signal::SIGTERM);
    gateway.wait_exit(PROMPTLY);
    gate.open();
    assert!(client.join().unwrap().map_or(true, |response| !response.complete || response.status >= 500));
}

#[test]
fn int_and_a_second_term_end_it_at_once() {
    for signals in
        [&[Signal::SIGINT][..], &[Signal::SIGTERM, Signal::SIGTERM], &[Signal::SIGTERM, Signal::SIGINT]]
    {
        let InFlight { gateway, gate, client, _upstream } = in_flight(FRONT);
        for (number, signal) in signals.iter().enumerate() {
            if number > 0 {
                refuses(&gateway);
            }
            gateway.signal(*signal);
        }
        gateway.wait_exit(PROMPTLY);
        gate.open();
        assert!(client.join().unwrap().map_or(true, |response| response.status != 200), "{signals:?}");
    }
}

#[test]
fn usr1_reopens_the_access_log() {
    let upstream = Upstream::named("a");
    let yaml = format!("telemetry: {{ access_log: {{ to: \"{{{{dir}}}}/access.log\" }} }}\n{FRONT}");
    let gateway = Plan::new(&yaml).with("app", upstream.addr()).start();
    let (log, rotated) = (gateway.plan().dir().join("access.log"), gateway.plan().dir().join("access.log.1"));
    let has = |path: &std::path::Path, text: &str| {
        std::fs::read_to_string(path).is_ok_and(|log| log.contains(text))
    };
    let mut client = gateway.client();
    client.get("/before");
    assert_eventually(DEADLINE, "the first line", || has(&log, "/before"));
    std::fs::rename(&log, &rotated).unwrap();
    client.get("/between");
    assert_eventually(DEADLINE, "the renamed file goes on", || has(&rotated, "/between"));
    gateway.signal(Signal::SIGUSR1);
    assert_eventually(DEADLINE, "a new file", || log.exists());
    client.get("/after");
    assert_eventually(DEADLINE, "the new file goes on", || has(&log, "/after"));
    assert!(!has(&rotated, "/after") && gateway.is_running());
    assert!(
        gateway.stdout_lines().iter().all(|line| !line.starts_with('{')),
        "standard output is not the log"
    );
}

#[test]
fn an_address_that_is_taken_is_an_error_at_start() {
    let taken = Reserved::any();
    let addr = taken.addr();
    let _listening = taken.listen();
    let upstream = Upstream::named("a");
    let yaml = FRONT.replace(
        "web: { bind: \"127.0.0.1:0\" }",
        &format!("web: {{ bind: \"{addr}\" }}, other: {{ bind: \"127.0.0.1:0\" }}"),
    );
    let ran = Plan::new(&yaml).with("app", upstream.addr()).try_start().err().expect("it must not start");
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.stderr.contains(&addr.to_string()) && ran.stderr.contains("web"), "{ran:#?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:#?}");
}

#[test]
fn an_admin_address_that_is_taken_is_an_error_at_start() {
    let taken = Reserved::any();
    let yaml = format!("admin: {{ bind: \"{}\" }}\n{FRONT}", taken.addr());
    let _listening = taken.listen();
    let ran = Plan::new(&yaml).with("app", "127.0.0.1:9").try_start().err().expect("it must not start");
    assert_eq!(ran.code, 1, "{ran:#?}");
}

#[test]
fn a_wrong_configuration_does_not_start() {
    let ran = Plan::new(&FRONT.replace("to: app", "to: ap"))
        .with("app", "127.0.0.1:9")
        .try_start()
        .err()
        .expect("it must not start");
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.stderr.contains("TG1301") && ran.stderr.contains("did you mean `app`"), "{ran:#?}");
}

#[test]
fn the_start_up_line_says_what_runs() {
    let gateway = Plan::new(FRONT).with("app", "127.0.0.1:9").start();
    let line = gateway.ready_line();
    let shape = r"^tollgate \d+\.\d+\.\d+ ready: 1 listener, 1 API, 1 route, 1 upstream \(\d healthy\), config [0-9a-f]{6,}, pid \d+$";
    assert!(regex::Regex::new(shape).unwrap().is_match(&line), "{line}");
    assert!(line.ends_with(&format!("pid {}", gateway.pid())), "{line}");
    assert_eq!(gateway.stderr().lines().filter(|line| line.contains(" ready: ")).count(), 1);
}

#[test]
fn every_listener_says_its_address() {
    let yaml = r#"
version: 1
listeners: { one: { bind: "127.0.0.1:0" }, two: { bind: "[::1]:0" } }
apis: { shop: { auth: public, routes: { ping: { match: GET /ping, to: { respond: { text: pong } } } } } }
"#;
    let gateway = Gateway::start(yaml);
    for listener in ["one", "two"] {
        assert_eq!(Client::connect(gateway.addr(listener)).get("/ping").text(), "pong");
    }
}

#[test]
fn an_unknown_command_line_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["run", "--nonsense"][..], &["nonsense"], &["explain"], &["check", "-c"]] {
        assert_eq!(tollgate_in(dir.path(), &[], args).code, 2, "{args:?}");
    }
}
