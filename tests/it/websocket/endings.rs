//! How WebSockets end when it is not one of their sides that ends them: in silence, and when the process leaves.

use super::{OPEN, echo, granting, line, open, opened, says_back};
use crate::harness::{DEADLINE, Gate, Gateway, Plan, assert_eventually};
use nix::sys::signal::Signal;
use std::io;
use std::time::{Duration, Instant};

#[test]
fn a_quiet_websocket_lives_until_its_own_time_is_up() {
    let app = echo();
    let gateway = Plan::new(OPEN).with("app", app.addr()).with("quiet", "1500ms").start();
    let mut client = open(&gateway);
    for _ in 0..2 {
        // Longer than `idle`; both together are longer than `stream_idle`.
        std::thread::sleep(Duration::from_millis(900));
        says_back(&mut client, "still here");
    }
    let quiet = Instant::now();
    client.wire.expect_closed();
    assert!(quiet.elapsed() > Duration::from_millis(1300), "{:?}", quiet.elapsed());
    let line = line(&gateway);
    assert_eq!(
        (line["status"].as_u64(), line["reason"].as_str()),
        (Some(101), Some("stream-idle")),
        "{line}"
    );
}

#[test]
fn a_websocket_that_has_lived_for_as_long_as_it_may_is_told_to_go_away() {
    let app = echo();
    let config = OPEN.replace("stream_idle: {{quiet}}", "stream_idle: 1m, websocket_lifetime: 1500ms");
    let gateway = Plan::new(&config).with("app", app.addr()).start();
    let begun = Instant::now();
    let mut client = open(&gateway);
    // A ping, which comes back as it is.
    client.send_raw([0x89, 0]);
    assert_eq!(client.wire.read_exactly(2).unwrap(), [0x89, 0]);
    // 1001, "going away" (RFC 6455 section 7.4).
    assert_eq!(client.wire.read_exactly(4).unwrap(), [0x88, 2, 0x03, 0xe9]);
    assert!(begun.elapsed() > Duration::from_millis(1400), "{:?}", begun.elapsed());
    client.wire.expect_closed();
    drop(client);
    assert_eq!(line(&gateway)["reason"].as_str(), Some("stream-lifetime"));
}

#[test]
fn a_side_that_stays_after_the_last_word_of_the_other_is_not_waited_for_as_long() {
    let app = granting(|mut wire| {
        wire.half_close();
        wire.read_some().map(drop)
    });
    let gateway = opened(&app);
    let client = open(&gateway);
    let line = line(&gateway);
    assert_eq!(line["reason"].as_str(), Some("stream-idle"), "{line}");
    drop(client);
}

/// What a server sends before it restarts, 1012 (RFC 6455 section 7.4).
const RESTART: [u8; 4] = [0x88, 2, 0x03, 0xf4];

fn stop(gateway: &Gateway) {
    gateway.signal(Signal::SIGTERM);
    assert_eventually(DEADLINE, "streams are told", || gateway.stderr().contains("closing 1 stream"));
}

#[test]
fn a_stop_lets_websockets_go_on_and_then_closes_them_politely() {
    let (heard, hears) = std::sync::mpsc::channel();
    let app = granting(move |mut wire| {
        wire.write([0x82, 3, 1, 2, 3])?;
        let ping = wire.read_exactly(2)?;
        wire.write(ping)?;
        heard.send(wire.read_exactly(8)?).map_err(io::Error::other)
    });
    let gateway = opened(&app);
    let mut client = open(&gateway);
    assert_eq!(client.wire.read_exactly(5).unwrap(), [0x82, 3, 1, 2, 3]);
    gateway.signal(Signal::SIGTERM);
    let told = Instant::now();
    assert_eventually(DEADLINE, "it has heard", || gateway.stderr().contains("stopping: "));
    // A ping, which comes back as it is.
    client.send_raw([0x89, 0]);
    assert_eq!(client.wire.read_exactly(2).unwrap(), [0x89, 0]);
    assert_eq!(client.wire.read_exactly(4).unwrap(), RESTART);
    assert!(told.elapsed() >= Duration::from_secs(1), "streams have their own time");
    client.wire.expect_closed();
    let answer = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4];
    client.send_raw(answer);
    assert_eq!(
        hears.recv_timeout(DEADLINE).unwrap(),
        answer,
        "what the client says to that reaches the target"
    );
    drop(client);
    gateway.wait_exit(DEADLINE);
    let line = line(&gateway);
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(101), Some("stopping")), "{line}");
}

#[test]
fn a_stop_says_goodbye_only_between_frames() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = granting(move |mut wire| {
        wire.write([0x82, 126, 0, 200])?;
        wire.write([1; 50])?;
        held.wait();
        wire.write([2; 100])?;
        wire.write([vec![3; 50], vec![0x81, 4], b"lost".to_vec()].concat())?;
        wire.read_some().map(drop)
    });
    let gateway = opened(&app);
    let mut client = open(&gateway);
    assert_eq!(client.wire.read_exactly(54).unwrap()[..4], [0x82, 126, 0, 200]);
    stop(&gateway);
    gate.open();
    assert!(client.wire.read_exactly(150).unwrap().ends_with(&[3; 50]));
    assert_eq!(client.wire.read_exactly(4).unwrap(), RESTART);
    client.wire.expect_closed();
}

#[test]
fn a_stop_adds_nothing_to_a_frame_that_does_not_end_or_has_closed() {
    for last in [&[0x82, 5, 1][..], &[0x88, 2, 3, 232]] {
        let app = granting(move |mut wire| {
            wire.write(last)?;
            wire.read_some().map(drop)
        });
        let gateway = opened(&app);
        let mut client = open(&gateway);
        assert_eq!(client.wire.read_exactly(last.len()).unwrap(), last);
        stop(&gateway);
        client.wire.expect_closed();
        drop(client);
        gateway.wait_exit(DEADLINE);
    }
}
