//! Another binary in the place of the running one: under load with nothing lost, and not at all when anything is wrong.

use crate::harness::{
    Answer, Authority, Client, DEADLINE, GRANT, Gateway, H2Client, Plan, StopAtEnd, TlsDial, Upstream,
    assert_eventually, handshake, resident_bytes,
};
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio_rustls::rustls::version::TLS13;

const SERVED: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
process: { drain: { requests: 60s, streams: 5m } }
listeners:
  web: { bind: "127.0.0.1:0", protocols: [http/1.1, h2c] }
  tls: { bind: "127.0.0.1:0", tls: { cert: leaf.pem, key: leaf.key } }
upstreams: { app: { targets: ["{{app}}"], pool: { idle: 2s } } }
defaults: { timeouts: { response: 30s, idle: 30s } }
apis:
  shop:
    auth: public
    routes:
      limited: { match: /limited, limits: 6/h per client_ip, to: { respond: { text: ok } } }
      app: { match: "/**", limits: { rate: 1000000/s, per: client_ip }, to: app }
"#;

/// Bytes of the slow bodies.
const SLOW: usize = 256 << 10;

fn served(app: &Upstream) -> Gateway {
    served_with(app, &Authority::new("authority"))
}

fn served_with(app: &Upstream, authority: &Authority) -> Gateway {
    let leaf = authority.leaf("test.example");
    let plan = Plan::new(SERVED).with("app", app.addr());
    plan.file("leaf.pem", leaf.cert.clone()).file("leaf.key", leaf.key.clone()).start()
}

/// Answers at once, slowly on `/slow`, with the length of what it got on `/upload`, and speaks back after an upgrade.
fn app() -> Upstream {
    Upstream::raw(|mut wire| {
        while let Some(line) = wire.read_line()? {
            let mut length = 0;
            while let Some(field) = wire.read_line()?.filter(|field| !field.is_empty()) {
                if let Some(value) = field.to_lowercase().strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
            }
            let body = wire.read_exactly(length)?;
            match line.split(' ').nth(1).unwrap_or_default() {
                "/slow" => {
                    wire.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {SLOW}\r\n\r\n"))?;
                    for piece in bytes().chunks(SLOW / 100) {
                        std::thread::sleep(Duration::from_millis(300));
                        wire.write(piece)?;
                    }
                }
                "/echo" => {
                    wire.write(GRANT)?;
                    while let Ok(byte) = wire.read_exactly(1) {
                        wire.write(byte)?;
                    }
                    return Ok(());
                }
                _ => {
                    let whole = if body == bytes() { "whole" } else { "ok" };
                    wire.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{whole}", whole.len()))?;
                }
            }
        }
        Ok(())
    })
}

fn bytes() -> Vec<u8> {
    (0..SLOW).map(|at| (at * 31 % 251) as u8).collect()
}

/// GETs until told to stop; a connection whose answer says that it is the last one is opened again.
fn keep_asking(gateway: &Gateway, stop: &AtomicBool, done: &AtomicUsize) {
    let mut client = gateway.client();
    while !stop.load(Ordering::Relaxed) {
        let answer = client.get("/x");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        done.fetch_add(1, Ordering::Relaxed);
        if answer.header("connection").is_some_and(|value| value == "close") {
            client = gateway.client();
        }
    }
}

fn ask_anew(gateway: &Gateway, stop: &AtomicBool, done: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(gateway.get("/x").status, 200);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Over HTTP/2, opening another connection when one is told to go away (RFC 9113 section 6.8).
fn ask_http2(connect: impl Fn() -> H2Client, scheme: &str, stop: &AtomicBool, done: &AtomicUsize) {
    let uri = format!("{scheme}://test.example/x");
    let mut client = connect();
    while !stop.load(Ordering::Relaxed) {
        match client.try_send(http::Request::get(&uri).body(()).unwrap(), b"") {
            Ok(answer) => {
                assert_eq!(answer.status, 200);
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                assert!(error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR), "{error}");
                client = connect();
            }
        }
    }
}

fn slow_upload(gateway: &Gateway) {
    let mut client = gateway.client();
    client.send_raw(format!("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {SLOW}\r\n\r\n"));
    for piece in bytes().chunks(SLOW / 100) {
        std::thread::sleep(Duration::from_millis(100));
        client.send_raw(piece);
    }
    assert_eq!(client.read("POST").text(), "whole");
}

fn tunnel(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    client.send_raw(handshake("/echo", ""));
    assert_eq!(client.read_head().status, 101);
    client
}

fn says_back(client: &mut Client, said: &str) {
    client.send_raw(said);
    assert_eq!(client.wire.read_exactly(said.len()).unwrap(), said.as_bytes());
}

/// How many files a process has open.
fn handles(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Requests that are to be answered during the upgrades.
const ENOUGH: usize = 50_000;
const UPGRADES: usize = 20;
const WEB_SOCKETS: usize = 50;

#[test]
fn upgrades_under_load_lose_nothing() {
    let (app, authority) = (app(), Authority::new("authority"));
    let gateway = served_with(&app, &authority);
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let secure = || {
        let dial = TlsDial::with(&authority, None, &[&TLS13], &[b"h2"]);
        dial.connect_h2(gateway.addr("tls"), "test.example")
    };
    let (open, memory) = (handles(gateway.pid()), resident_bytes(gateway.pid()));
    let mut tunnels: Vec<Client> = (0..WEB_SOCKETS).map(|_| tunnel(&gateway)).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| keep_asking(&gateway, &stop, &done));
        }
        scope.spawn(|| ask_http2(|| H2Client::connect(gateway.addr("web")), "http", &stop, &done));
        scope.spawn(|| ask_http2(secure, "https", &stop, &done));
        scope.spawn(|| ask_anew(&gateway, &stop, &done));
        scope.spawn(|| slow_upload(&gateway));
        scope.spawn(|| assert_eq!(gateway.client().get("/slow").body, bytes()));
        let _stop = StopAtEnd(&stop);
        for number in 0..UPGRADES {
            let ran = gateway.ask(&["upgrade"]);
            assert_eq!(ran.code, 0, "{ran:#?}");
            for client in &mut tunnels {
                says_back(client, &format!("after {number}"));
            }
            let share = ENOUGH * (number + 1) / UPGRADES;
            assert_eventually(DEADLINE * 3, "more requests", || done.load(Ordering::Relaxed) >= share);
        }
    });
    drop(tunnels);
    let gone = |pid: &i32| !PathBuf::from(format!("/proc/{pid}/fd/0")).exists();
    let successors = gateway.successors();
    assert_eq!(successors.len(), UPGRADES);
    let (last, before) = successors.split_last().unwrap();
    gateway.wait_exit(DEADLINE);
    assert_eventually(DEADLINE, "the processes between have ended", || before.iter().all(gone));
    assert!(!gone(last));
    let more = || handles(*last).saturating_sub(open);
    assert_eventually(DEADLINE, "no handle stays open", || more() <= 4);
    let grown = resident_bytes(*last).saturating_sub(memory);
    assert!(grown < 32 << 20, "{grown} bytes more than the first process at its start");
    assert_eq!(gateway.get("/x").status, 200);
}

#[test]
fn counters_go_along_and_both_processes_are_seen() {
    let app = app();
    let gateway = served(&app);
    let limited = || gateway.get("/limited").status;
    assert_eq!([limited(), limited()], [200, 200]);
    let mut kept = tunnel(&gateway);
    assert_eq!(gateway.ask(&["upgrade"]).code, 0);
    assert_eq!([limited(), limited()], [200, 200]);
    let left = format!("process {} before it is draining, 1 connection left", gateway.pid());
    assert_eventually(DEADLINE, "status shows both", || gateway.ask(&["status"]).stdout.contains(&left));
    gateway.signal(Signal::SIGUSR2);
    assert!(gateway.is_running(), "whoever drains is not upgraded");
    says_back(&mut kept, "still here");
    drop(kept);
    gateway.wait_exit(DEADLINE);
    assert_eventually(DEADLINE, "status shows one", || {
        !gateway.ask(&["status"]).stdout.contains("before it")
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(gateway.successors()[0]), Signal::SIGUSR2).unwrap();
    assert_eventually(DEADLINE, "USR2 upgrades, too", || gateway.successors().len() == 2);
    assert_eq!([limited(), limited(), limited()], [200, 200, 429]);
}

/// A script in the place of the binary that says it is a tollgate, and then does something else.
fn impostor(gateway: &Gateway, name: &str, does: &str) -> String {
    let path = gateway.plan().dir().join(name);
    let version = r#"[ "$1" = version ] && { echo '{"name":"tollgate","version":"9"}'; exit 0; }"#;
    std::fs::write(&path, format!("#!/bin/sh\n{version}\n{does}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Whatever is wrong with the new binary or its configuration, the old process goes on and says why.
#[test]
fn bad_upgrades_change_nothing() {
    let app = app();
    let gateway = served(&app);
    let real = env!("CARGO_BIN_EXE_tollgate");
    let plain = gateway.plan().dir().join("plain");
    std::fs::write(&plain, "not a program").unwrap();
    let plain = plain.to_str().unwrap().to_owned();
    let script = |name: &str, does: &str| impostor(&gateway, name, does);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("127.0.0.1:{}", taken.local_addr().unwrap().port());
    let bad: Vec<(String, &str)> = vec![
        ("/nowhere/tollgate".to_owned(), "cannot be started: No such file"),
        (plain, "cannot be started: Permission denied"),
        ("/bin/true".to_owned(), "is no tollgate (it ended with exit code 0)"),
        ("/bin/false".to_owned(), "is no tollgate (it ended with exit code 1)"),
        (script("ends", "exit 7"), "it ended with exit code 7"),
        (script("crashes", "kill -SEGV $$"), "signal: 11"),
        (script("takes-and-crashes", "head -c 200 >/dev/null; kill -KILL $$"), "signal: 9"),
        (script("is-silent", "exec sleep 60"), "it does not get ready"),
        (script("talks-nonsense", "echo hello >&0; exec sleep 60"), "is not understood"),
    ];
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| keep_asking(&gateway, &stop, &done));
        let _stop = StopAtEnd(&stop);
        for (binary, why) in &bad {
            let ran = gateway.ask(&["upgrade", "--timeout", "1", "--binary", binary]);
            assert_eq!(ran.code, 6, "{binary}: {ran:#?}");
            assert!(
                ran.stderr.contains("upgrade aborted: ") && ran.stderr.contains(why),
                "{binary}: {ran:#?}"
            );
        }
        gateway.edit("version: 1", "version: 1\nnonsense: 1");
        let ran = gateway.ask(&["upgrade", "--binary", real]);
        assert!(ran.code == 6 && ran.stderr.contains("the configuration is invalid"), "{ran:#?}");
        assert!(
            gateway.stderr().contains("unknown key `nonsense`"),
            "and what is wrong with it is in the log"
        );
        gateway.edit("nonsense: 1\n", "");
        let more = format!("listeners:\n  more: {{ bind: \"{elsewhere}\" }}");
        gateway.edit("listeners:", &more);
        let ran = gateway.ask(&["upgrade", "--binary", real]);
        assert!(ran.code == 6 && ran.stderr.contains("another process listens there"), "{ran:#?}");
        let reload = gateway.ask(&["reload"]);
        assert!(reload.code == 1 && reload.stderr.contains("another process listens there"), "{reload:#?}");
    });
    assert!(done.load(Ordering::Relaxed) > 20);
    assert!(gateway.successors().is_empty() && gateway.is_running());
    assert_eq!(gateway.get("/x").status, 200);
    drop(taken);
    assert_eq!(gateway.ask(&["reload"]).code, 0, "and when nothing is wrong any more it works");
}

#[test]
fn the_second_of_two_upgrades_is_refused() {
    let app = app();
    let gateway = served(&app);
    let slow = impostor(&gateway, "slow", "exec sleep 60");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.ask(&["upgrade", "--timeout", "3", "--binary", &slow]));
        assert_eventually(DEADLINE, "the first has begun", || gateway.stderr().contains("upgrade: starting"));
        let second = gateway.ask(&["upgrade"]);
        assert!(second.code == 6 && second.stderr.contains("another upgrade is under way"), "{second:#?}");
        assert_eq!(first.join().unwrap().code, 6);
    });
    assert_eq!(gateway.ask(&["upgrade"]).code, 0);
}

/// A stop is not held up by an upgrade that is under way.
#[test]
fn a_stop_during_an_upgrade_ends_both() {
    let app = Upstream::start(|_| Answer::ok("x"));
    let gateway = served(&app);
    let slow = impostor(&gateway, "slow", "echo $$ > pid; exec sleep 60");
    std::thread::scope(|scope| {
        scope.spawn(|| gateway.ask(&["upgrade", "--timeout", "50", "--binary", &slow]));
        let pid = gateway.plan().dir().join("pid");
        assert_eventually(DEADLINE, "it has begun", || pid.exists());
        gateway.signal(Signal::SIGTERM);
        gateway.wait_exit(DEADLINE);
        let pid = std::fs::read_to_string(pid).unwrap();
        let gone = || !PathBuf::from(format!("/proc/{}/exe", pid.trim())).exists();
        assert_eventually(DEADLINE, "the candidate is gone", gone);
    });
}
