//! TLS while everything around it changes: reloads, upgrades, files, and a load of connections meanwhile.

use crate::harness::{
    Authority, DEADLINE, Gateway, Leaf, Plan, Response, StopAtEnd, TlsDial, assert_eventually,
};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::version::{TLS12, TLS13};

const FRONT: &str = r#"
version: 1
admin: { bind: "unix:{{dir}}/admin.sock" }
listeners: { web: { bind: "127.0.0.1:0", tls: { cert: one.pem, key: one.key } } }
apis: { shop: { auth: public, routes: { all: { match: "/**", to: { respond: { text: before } } } } } }
"#;

struct Front {
    gateway: Gateway,
    authority: Authority,
    leaf: Leaf,
}

fn front() -> Front {
    let authority = Authority::new("authority");
    let leaf = authority.leaf("one.test");
    let plan = Plan::new(FRONT).file("one.pem", leaf.cert.clone()).file("one.key", leaf.key.clone());
    Front { gateway: plan.start(), authority, leaf }
}

impl Front {
    /// A text and whether the session went on.
    fn ask(&self, dial: &TlsDial) -> (String, bool) {
        let mut connection = dial.connect(self.gateway.addr("web"), "one.test");
        (connection.client.request("GET", "/").host("one.test").send().text(), connection.resumed)
    }

    fn shown(&self) -> CertificateDer<'static> {
        TlsDial::new(&self.authority).connect(self.gateway.addr("web"), "one.test").shown
    }

    fn renew(&self) -> Leaf {
        let newer = self.authority.leaf("one.test");
        let dir = self.gateway.plan().dir();
        std::fs::write(dir.join("one.pem"), &newer.cert).unwrap();
        std::fs::write(dir.join("one.key"), &newer.key).unwrap();
        newer
    }

    fn both(&self) -> [TlsDial; 2] {
        [&TLS12, &TLS13].map(|version| TlsDial::with(&self.authority, None, &[version], &[b"http/1.1"]))
    }
}

#[test]
fn sessions_go_on_after_a_reload() {
    let front = front();
    let dials = front.both();
    dials.iter().for_each(|dial| assert_eq!(front.ask(dial), ("before".to_owned(), false)));
    front.gateway.edit("text: before", "text: after");
    let ran = front.gateway.ask(&["reload"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    dials.iter().for_each(|dial| assert_eq!(front.ask(dial), ("after".to_owned(), true)));
    // Also when TLS itself was made anew.
    front.gateway.edit("key: one.key }", "key: one.key, min: \"1.3\" }");
    assert_eq!(front.gateway.ask(&["reload"]).code, 0);
    assert_eq!(front.ask(&dials[1]), ("after".to_owned(), true));
    assert!(
        dials[0].try_connect(front.gateway.addr("web"), "one.test", b"").is_err(),
        "1.2 is not spoken any more"
    );
}

#[test]
fn sessions_go_on_after_an_upgrade() {
    let front = front();
    let dials = front.both();
    dials.iter().for_each(|dial| assert_eq!(front.ask(dial), ("before".to_owned(), false)));
    let ran = front.gateway.ask(&["upgrade"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    dials.iter().for_each(|dial| assert_eq!(front.ask(dial), ("before".to_owned(), true)));
    assert_eq!(front.gateway.successors().len(), 1);
}

#[test]
fn a_reload_reads_certificates_anew_and_refuses_broken_ones() {
    let front = front();
    let newer = front.renew();
    assert_eq!(front.gateway.ask(&["reload"]).code, 0);
    assert_eq!(front.shown(), newer.chain()[0]);
    std::fs::write(front.gateway.plan().dir().join("one.key"), &front.leaf.key).unwrap();
    let ran = front.gateway.ask(&["reload"]);
    assert!(ran.code == 1 && ran.stderr.contains("it is not the key of this certificate"), "{ran:#?}");
    assert_eq!(front.shown(), newer.chain()[0]);
    // The watch goes on after a reload.
    let newest = front.renew();
    assert_eventually(DEADLINE, "the newest is shown", || front.shown() == newest.chain()[0]);
}

#[test]
fn a_listener_changes_to_tls_and_back() {
    let front = front();
    front.gateway.edit(", tls: { cert: one.pem, key: one.key }", "");
    assert_eq!(front.gateway.ask(&["reload"]).code, 0);
    assert_eq!(front.gateway.get("/").text(), "before");
    front
        .gateway
        .edit("bind: \"127.0.0.1:0\"", "bind: \"127.0.0.1:0\", tls: { cert: one.pem, key: one.key }");
    assert_eq!(front.gateway.ask(&["reload"]).code, 0);
    let dial = TlsDial::with(&front.authority, None, &[&TLS13], &[b"h2"]);
    assert_eq!(
        dial.connect_h2(front.gateway.addr("web"), "one.test").get("https://one.test/").body,
        b"before"
    );
}

#[test]
fn nothing_is_lost_while_certificates_and_processes_change() {
    let front = front();
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let dial = TlsDial::new(&front.authority);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(front.ask(&dial).0, "before");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let dial = TlsDial::with(&front.authority, None, &[&TLS13], &[b"h2"]);
            while !stop.load(Ordering::Relaxed) {
                let connection = dial.connect_h2(front.gateway.addr("web"), "one.test");
                assert_eq!(connection.get("https://one.test/").status, 200);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stopped = StopAtEnd(&stop);
        for round in 1..=3 {
            let newer = front.renew();
            assert_eq!(front.gateway.ask(&["reload"]).code, 0);
            assert_eq!(front.shown(), newer.chain()[0]);
            let ran = front.gateway.ask(&["upgrade"]);
            assert_eq!(ran.code, 0, "{ran:#?}");
            let before = done.load(Ordering::Relaxed);
            assert_eventually(DEADLINE, "requests go on", || {
                done.load(Ordering::Relaxed) > before + 20 * round
            });
        }
    });
    front.gateway.wait_exit(DEADLINE);
}

#[test]
fn silent_handshakes_do_not_hold_up_a_stop() {
    let front = front();
    let silent = std::net::TcpStream::connect(front.gateway.addr("web")).unwrap();
    let mut client = TlsDial::new(&front.authority).connect(front.gateway.addr("web"), "one.test").client;
    client.request("GET", "/").host("one.test").send_only();
    let response = Response::read(&mut client.wire, "GET").unwrap();
    assert_eq!(response.status, 200);
    front.gateway.signal(Signal::SIGTERM);
    // Far less than a handshake may take.
    front.gateway.wait_exit(std::time::Duration::from_secs(6));
    drop(silent);
}
