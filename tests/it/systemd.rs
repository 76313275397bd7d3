//! What a service manager hears: an ear in its place. `systemd/test-in-guest` has the real one.

use crate::harness::{Authority, DEADLINE, Gateway, Plan, assert_eventually, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

const SERVED: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners:
  web: { bind: "127.0.0.1:0" }
  other: { bind: "127.0.0.1:0", protocols: [h2c] }
  secure: { bind: "127.0.0.1:0", tls: { cert: one.pem, key: one.key } }
  proxied: { bind: "127.0.0.1:0", proxy_protocol: { from: 127.0.0.0/8 } }
apis: { app: { auth: public, routes: { all: { match: /**, to: { respond: { text: ok } } } } } }
"#;

struct Ear(UnixDatagram, tempfile::TempDir);

impl Ear {
    fn open() -> Ear {
        let folder = tempfile::tempdir().unwrap();
        let ear = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        ear.set_read_timeout(Some(DEADLINE)).unwrap();
        Ear(ear, folder)
    }

    fn gateway(&self, watchdog: &str) -> Gateway {
        let socket = self.1.path().join("notify");
        let leaf = Authority::new("root").leaf("one.test");
        Plan::new(SERVED)
            .file("one.pem", leaf.cert)
            .file("one.key", leaf.key)
            .env("NOTIFY_SOCKET", socket.to_str().unwrap())
            .env("WATCHDOG_USEC", watchdog)
            .start()
    }

    /// The next message that begins so; others are passed over.
    fn hear(&self, begin: &str) -> String {
        let until = Instant::now() + DEADLINE;
        let mut buffer = [0; 4096];
        while Instant::now() < until {
            let length = self.0.recv(&mut buffer).unwrap();
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.starts_with(begin) {
                return message;
            }
        }
        panic!("{begin} was not heard");
    }
}

#[test]
fn systemd_hears_of_readiness_reload_upgrade_and_end() {
    let ear = Ear::open();
    let gateway = ear.gateway("0");
    assert_eq!(ear.hear("READY"), "READY=1");
    assert_eq!(gateway.get("/").status, 200, "ready is when listeners accept");
    assert!(ear.hear("STATUS").contains(" ready: 4 listeners, 1 API"));
    gateway.signal(Signal::SIGHUP);
    assert!(ear.hear("RELOADING=1").contains("\nMONOTONIC_USEC="));
    assert_eq!(ear.hear("READY"), "READY=1");
    gateway.signal(Signal::SIGUSR2);
    let said = ear.hear("READY=1\nMAINPID=");
    let successor =
        *eventually(DEADLINE, "a successor", || Some(gateway.successors()).filter(|all| !all.is_empty()))
            .last()
            .unwrap();
    assert!(said.starts_with(&format!("READY=1\nMAINPID={successor}\nWATCHDOG=1\nSTATUS=")), "{said}");
    gateway.wait_exit(DEADLINE);
    kill(Pid::from_raw(successor), Signal::SIGTERM).unwrap();
    assert_eq!(ear.hear("STOPPING"), "STOPPING=1", "from the successor: the process before was silent");
    assert!(ear.hear("EXTEND_TIMEOUT_USEC=").len() > "EXTEND_TIMEOUT_USEC=1000000".len());
}

#[test]
fn the_watchdog_is_fed_by_probes_that_leave_no_trace_and_by_a_successor() {
    let ear = Ear::open();
    let gateway = ear.gateway("200000");
    ear.hear("READY");
    for _ in 0..5 {
        assert_eq!(ear.hear("WATCHDOG"), "WATCHDOG=1");
    }
    assert!(gateway.access_log().is_empty(), "{:?}", gateway.access_log());
    let metrics = gateway.admin_socket().get("/metrics").text();
    let counted = metrics.lines().find(|line| line.starts_with("tollgate_http_requests_total{"));
    assert_eq!(counted, None);
    gateway.signal(Signal::SIGUSR2);
    ear.hear("READY=1\nMAINPID=");
    gateway.wait_exit(DEADLINE);
    for _ in 0..3 {
        ear.hear("WATCHDOG");
    }
}

#[test]
fn a_process_that_stands_still_does_not_feed_the_watchdog() {
    let ear = Ear::open();
    let gateway = ear.gateway("200000");
    ear.hear("WATCHDOG");
    gateway.signal(Signal::SIGSTOP);
    ear.0.set_nonblocking(true).unwrap();
    // What was on its way has come by then: whole periods pass in silence.
    let mut quiet_since = Instant::now();
    assert_eventually(DEADLINE, "silence", || {
        if ear.0.recv(&mut [0; 64]).is_ok() {
            quiet_since = Instant::now();
        }
        quiet_since.elapsed() > Duration::from_millis(600)
    });
    gateway.signal(Signal::SIGCONT);
    ear.0.set_nonblocking(false).unwrap();
    ear.hear("WATCHDOG");
}
