//! TLS and the PROXY protocol on the side of clients.

use crate::harness::{
    Answer, Authority, Client, DEADLINE, Gateway, Leaf, Plan, Response, TlsDial, Upstream, assert_eventually,
};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;
use tokio_rustls::rustls::ProtocolVersion;
use tokio_rustls::rustls::version::{TLS12, TLS13};

/// Two certificates; every request is answered with what tollgate takes it for.
const TWO: &str = r#"
version: 1
listeners:
  web:
    bind: "127.0.0.1:0"
    limits: { handshake_timeout: 20s }
    tls:
      certs:
        - { cert: one.pem, key: one.key }
        - { cert: two.pem, key: two.key }
apis:
  shop:
    auth: public
    routes: { all: { match: "/**", to: { respond: { text: "${host} ${scheme} ${client_ip}" } } } }
"#;

struct Two {
    gateway: Gateway,
    authority: Authority,
    one: Leaf,
    two: Leaf,
}

/// `one.test`, and `two.test` with what is below it.
fn two(yaml: &str) -> Two {
    let authority = Authority::new("authority");
    let (one, two) = (authority.leaf("one.test"), authority.leaf_of(&["two.test", "*.two.test"]));
    let plan = with_pair(with_pair(Plan::new(yaml), "one", &one), "two", &two);
    let gateway = plan.file("ca.pem", authority.pem.clone()).start();
    Two { gateway, authority, one, two }
}

fn with_pair(plan: Plan, name: &str, leaf: &Leaf) -> Plan {
    plan.file(&format!("{name}.pem"), leaf.cert.clone()).file(&format!("{name}.key"), leaf.key.clone())
}

impl Two {
    fn web(&self) -> SocketAddr {
        self.gateway.addr("web")
    }

    fn dial(&self) -> TlsDial {
        TlsDial::new(&self.authority)
    }

    fn failures(&self, reason: &str) -> f64 {
        self.gateway.metric(&format!("tollgate_tls_handshake_failures_total{{reason=\"{reason}\"}}"))
    }
}

#[test]
fn the_name_asked_for_chooses_the_certificate() {
    let two = two(TWO);
    // openssl goes on whatever it is shown, and tells.
    for (sni, shown) in [
        ("one.test", "one.test"),
        ("two.test", "two.test"),
        ("a.two.test", "two.test"),
        ("a.b.two.test", "one.test"),
        ("unknown.test", "one.test"),
    ] {
        let said = openssl(two.web(), &["-servername", sni], "");
        assert!(said.contains(&format!("CN = {shown}\n")), "{sni}: {said}");
    }
    let said = openssl(two.web(), &["-noservername"], "");
    assert!(said.contains("CN = one.test\n"), "{said}");
    let mut connection = two.dial().connect(two.web(), "a.two.test");
    assert_eq!(connection.shown, two.two.chain()[0]);
    let response = connection.client.request("GET", "/").host("a.two.test").send();
    assert_eq!(response.text(), "a.two.test https 127.0.0.1");
    let line = two.gateway.log_of(&response);
    assert_eq!(
        (&line["scheme"], &line["sni"], &line["tls_version"]),
        (&"https".into(), &"a.two.test".into(), &"1.3".into())
    );
    assert!(line["tls_cipher"].as_str().is_some_and(|cipher| cipher.starts_with("TLS_")), "{line}");
    let cert = "tollgate_tls_cert_not_after_seconds{cert=\"two.pem\",listener=\"web\"}";
    assert!(two.gateway.metric(cert) > 1.7e9);
}

#[test]
fn versions_and_protocols_are_agreed_on() {
    let two = two(TWO);
    let dial = |versions: &[_], alpn: &[&[u8]]| TlsDial::with(&two.authority, None, versions, alpn);
    let connect = |dial: &TlsDial| dial.try_connect(two.web(), "one.test", b"");
    let old = connect(&dial(&[&TLS12], &[b"h2", b"http/1.1"])).unwrap();
    assert_eq!((old.version, old.alpn.as_deref()), (ProtocolVersion::TLSv1_2, Some(&b"h2"[..])));
    let new = connect(&dial(&[&TLS12, &TLS13], &[b"http/1.1", b"h2"])).unwrap();
    assert_eq!((new.version, new.alpn.as_deref()), (ProtocolVersion::TLSv1_3, Some(&b"h2"[..])));
    let silent = connect(&dial(&[&TLS13], &[])).unwrap();
    assert_eq!(silent.alpn, None);
    assert!(connect(&dial(&[&TLS13], &[b"spdy/1"])).is_err());
    assert_eventually(DEADLINE, "it is counted", || two.failures("no_protocol") == 1.0);
    let h2 = dial(&[&TLS13], &[b"h2"]).connect_h2(two.web(), "one.test");
    assert_eq!(h2.get("https://one.test/").body, b"one.test https 127.0.0.1");
    let responses = h2.send_all(
        (0..20).map(|n| http::Request::get(format!("https://one.test/{n}")).body(()).unwrap()).collect(),
    );
    assert!(responses.iter().all(|response| response.status == 200));
}

#[test]
fn a_listener_may_ask_for_more() {
    let yaml = TWO.replace("    tls:\n", "    protocols: [http/1.1]\n    tls:\n      min: \"1.3\"\n");
    let two = two(&yaml);
    let dial = TlsDial::with(&two.authority, None, &[&TLS12], &[]);
    assert!(dial.try_connect(two.web(), "one.test", b"").is_err());
    assert_eventually(DEADLINE, "it is counted", || two.failures("incompatible") == 1.0);
    let dial = TlsDial::with(&two.authority, None, &[&TLS13], &[b"h2", b"http/1.1"]);
    let mut both = dial.connect(two.web(), "one.test");
    assert_eq!(both.alpn.as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(both.client.request("GET", "/").host("one.test").send().status, 200);
}

#[test]
fn a_host_of_another_certificate_is_misdirected() {
    let two = two(TWO);
    let mut client = two.dial().connect(two.web(), "one.test").client;
    let mut status = |host: &str| client.request("GET", "/").host(host).send();
    assert_eq!(status("one.test").status, 200);
    assert_eq!(status("ONE.test:8443").status, 200);
    assert_eq!(status("unknown.test").status, 200, "nobody's, like the first certificate");
    let misdirected = status("a.two.test");
    assert_eq!(misdirected.status, 421);
    assert_eq!(two.gateway.log_of(&misdirected)["reason"], "misdirected");
    assert_eq!(status("one.test").status, 200, "the connection goes on");
    let dial = TlsDial::with(&two.authority, None, &[&TLS13], &[b"h2"]);
    let h2 = dial.connect_h2(two.web(), "a.two.test");
    assert_eq!(h2.get("https://two.test/").status, 200, "the same certificate");
    assert_eq!(h2.get("https://one.test/").status, 421);
}

#[test]
fn what_is_not_tls_is_told_or_closed_in_time() {
    let two = two(&TWO.replace("20s", "500ms"));
    let response = Client::connect(two.web()).get("/");
    assert_eq!((response.status, response.text().contains("https://")), (400, true));
    let mut junk = Client::connect(two.web());
    junk.send_raw([0x16, 3, 1, 0xff, 0xff, 1, 2, 3]);
    assert!(ends(&mut junk));
    let opened = Instant::now();
    let mut silent = Client::connect(two.web());
    assert!(ends(&mut silent));
    assert!(opened.elapsed().as_millis() >= 400, "not before its time");
    let mut slow = Client::connect(two.web());
    slow.send_raw([0x16, 3]);
    assert!(ends(&mut slow), "a handshake that stands still ends too");
    drop(Client::connect(two.web()));
    for (reason, times) in [("not_tls", 1.0), ("invalid", 1.0), ("timeout", 2.0), ("closed", 1.0)] {
        assert_eventually(DEADLINE, reason, || two.failures(reason) == times);
    }
    assert_eventually(DEADLINE, "all are closed", || {
        two.gateway.metric("tollgate_active_connections{listener=\"web\"}") == 0.0
    });
}

/// Whether the connection ends, whatever is sent before.
fn ends(client: &mut Client) -> bool {
    match client.wire.read_to_end(&mut Vec::new()) {
        Ok(()) => true,
        // A reset is an end, too.
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn a_silent_client_keeps_nobody_waiting() {
    let two = two(TWO);
    let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(two.web()).unwrap()).collect();
    let mut client = two.dial().connect(two.web(), "one.test").client;
    assert_eq!(client.request("GET", "/").host("one.test").send().status, 200);
    drop(silent);
}

#[test]
fn sessions_go_on_with_tickets_of_either_version() {
    let two = two(TWO);
    for version in [&TLS12, &TLS13] {
        let dial = TlsDial::with(&two.authority, None, &[version], &[b"http/1.1"]);
        for expected in [false, true, true] {
            let mut connection = dial.connect(two.web(), "one.test");
            assert_eq!(connection.resumed, expected);
            // Tickets come behind the handshake.
            assert_eq!(connection.client.request("GET", "/").host("one.test").send().status, 200);
        }
        assert!(!dial.connect(two.web(), "two.test").resumed, "another host's session is another");
    }
    assert_eq!(two.gateway.metric("tollgate_tls_handshakes_total{kind=\"resumed\"}"), 4.0);
}

#[test]
fn bodies_pass_whole_in_both_directions() {
    let yaml = TWO.replace("to: { respond: { text: \"${host} ${scheme} ${client_ip}\" } }", "to: app")
        + "upstreams: { app: { targets: [\"{{app}}\"], health: none } }\ndefaults: { body: none }\n";
    let upstream = Upstream::start(|request| Answer::ok(request.body.clone()));
    let authority = Authority::new("authority");
    let leaf = authority.leaf("one.test");
    let plan = with_pair(with_pair(Plan::new(&yaml), "one", &leaf), "two", &leaf);
    let gateway = plan.with("app", upstream.addr()).start();
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = TlsDial::new(&authority).connect(gateway.addr("web"), "one.test").client;
    for _ in 0..2 {
        let response = client.request("POST", "/").host("one.test").body(body.clone()).send();
        assert!(response.body == body, "{} bytes came back", response.body.len());
        assert_eq!(client.request("POST", "/").host("one.test").body("x").send().text(), "x");
    }
    let h2 = TlsDial::with(&authority, None, &[&TLS13], &[b"h2"]).connect_h2(gateway.addr("web"), "one.test");
    assert_eq!(h2.get("https://one.test/").status, 200);
    let request = upstream.requests().pop().unwrap();
    assert_eq!(request.headers.first("x-forwarded-proto"), Some("https"));
}

#[test]
fn changed_certificates_are_taken_and_broken_ones_are_not() {
    let two = two(TWO);
    let shown = || two.dial().connect(two.web(), "one.test").shown;
    let dir = two.gateway.plan().dir().to_owned();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    let newer = two.authority.leaf("one.test");
    // A certificate without its key is no pair.
    write("one.pem", &newer.cert);
    let failed = "tollgate_tls_reloads_total{listener=\"web\",result=\"failed\"}";
    assert_eventually(DEADLINE, "the failure is counted", || two.gateway.metric(failed) == 1.0);
    assert_eq!(shown(), two.one.chain()[0]);
    let said = "one.key`: it is not the key of this certificate";
    assert_eventually(DEADLINE, "it is told", || two.gateway.stderr().contains(said));
    write("one.key", &newer.key);
    assert_eventually(DEADLINE, "the new certificate is shown", || shown() == newer.chain()[0]);
    std::fs::remove_file(dir.join("two.pem")).unwrap();
    assert_eventually(DEADLINE, "a file that is gone is counted", || two.gateway.metric(failed) == 2.0);
    assert_eq!(two.dial().connect(two.web(), "two.test").shown, two.two.chain()[0]);
    let ok = "tollgate_tls_reloads_total{listener=\"web\",result=\"ok\"}";
    assert_eq!(two.gateway.metric(ok), 1.0);
}

#[test]
fn a_folder_of_links_is_swapped_as_kubernetes_does() {
    let authority = Authority::new("authority");
    let (old, new) = (authority.leaf("one.test"), authority.leaf("one.test"));
    let yaml = TWO.replace("{ cert: two.pem, key: two.key }", "{ cert: live/one.pem, key: live/one.key }");
    let yaml = yaml.replace("        - { cert: one.pem, key: one.key }\n", "");
    let plan = with_pair(with_pair(Plan::new(&yaml), "old/one", &old), "new/one", &new);
    let dir = plan.dir().to_owned();
    plan.write();
    let link = |to: &str| {
        std::os::unix::fs::symlink(to, dir.join("next")).unwrap();
        std::fs::rename(dir.join("next"), dir.join("live")).unwrap();
    };
    link("old");
    let gateway = plan.start();
    let dial = TlsDial::new(&authority);
    let shown = || dial.connect(gateway.addr("web"), "one.test").shown;
    assert_eq!(shown(), old.chain()[0]);
    link("new");
    assert_eventually(DEADLINE, "the new certificate is shown", || shown() == new.chain()[0]);
}

#[test]
fn connections_outlive_the_certificate_they_were_made_with() {
    let two = two(TWO);
    let mut client = two.dial().connect(two.web(), "one.test").client;
    let newer = two.authority.leaf("one.test");
    let dir = two.gateway.plan().dir();
    std::fs::write(dir.join("one.key"), &newer.key).unwrap();
    std::fs::write(dir.join("one.pem"), &newer.cert).unwrap();
    let shown = || two.dial().connect(two.web(), "one.test").shown;
    assert_eventually(DEADLINE, "the new certificate is shown", || shown() == newer.chain()[0]);
    assert_eq!(client.request("GET", "/").host("one.test").send().status, 200);
}

/// From load balancers on the loopback network, with and without TLS.
const PROXIED: &str = r#"
version: 1
listeners:
  web:
    bind: "127.0.0.1:0"
    proxy_protocol: { from: 127.0.0.0/8 }
    trusted_proxies: [192.0.2.1]
    limits: { handshake_timeout: 500ms }
  secure:
    bind: "127.0.0.1:0"
    proxy_protocol: { from: [127.0.0.1] }
    tls: { cert: one.pem, key: one.key }
  others: { bind: "127.0.0.1:0", proxy_protocol: { from: 10.0.0.0/8 } }
apis:
  shop:
    auth: public
    routes: { all: { match: "/**", to: { respond: { text: "${client_ip} ${scheme}" } } } }
"#;

fn proxied() -> (Gateway, Authority) {
    let authority = Authority::new("authority");
    let leaf = authority.leaf("one.test");
    (with_pair(Plan::new(PROXIED), "one", &leaf).start(), authority)
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n";

#[test]
fn load_balancers_tell_where_connections_come_from() {
    let (gateway, authority) = proxied();
    let binary = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"[..],
        &[0x20, 1, 0xd, 0xb8],
        &[0; 11],
        &[7],
        &[0; 16],
        &[0, 1, 0, 2],
    ]
    .concat();
    let own = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (header, client) in [
        (LINE, "192.0.2.7"),
        (&binary, "2001:db8::7"),
        (own, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let mut clear = gateway.client();
        clear.send_raw(header);
        for _ in 0..2 {
            assert_eq!(clear.get("/").text(), format!("{client} http"));
        }
        let mut secure =
            TlsDial::new(&authority).try_connect(gateway.addr("secure"), "one.test", header).unwrap().client;
        assert_eq!(secure.request("GET", "/").host("one.test").send().text(), format!("{client} https"));
    }
    // Whether a proxy is trusted is a question of the address that was told.
    for (peer, client) in [("192.0.2.1", "203.0.113.9"), ("192.0.2.7", "192.0.2.7")] {
        let mut clear = gateway.client();
        clear.send_raw(format!("PROXY TCP4 {peer} 198.51.100.1 1 80\r\n"));
        let response = clear.request("GET", "/").header("x-forwarded-for", "203.0.113.9").send();
        assert_eq!(response.text(), format!("{client} http"));
    }
}

#[test]
fn headers_are_required_of_some_and_taken_from_nobody_else() {
    let (gateway, authority) = proxied();
    let failures = |reason: &str| {
        gateway.metric(&format!(
            "tollgate_proxy_protocol_failures_total{{listener=\"web\",reason=\"{reason}\"}}"
        ))
    };
    let mut without = gateway.client();
    without.send_raw("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert!(ends(&mut without));
    let mut broken = gateway.client();
    broken.send_raw("PROXY TCP4 1.2.3 4.5.6.7 1 2\r\nGET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert!(ends(&mut broken));
    let mut silent = gateway.client();
    silent.send_raw("PROXY TCP4");
    assert!(ends(&mut silent));
    for reason in ["missing", "malformed", "timeout"] {
        assert_eventually(DEADLINE, reason, || failures(reason) == 1.0);
    }
    assert!(TlsDial::new(&authority).try_connect(gateway.addr("secure"), "one.test", b"").is_err());
    let mut stranger = Client::connect(gateway.addr("others"));
    assert_eq!(stranger.get("/").text(), "127.0.0.1 http");
    stranger.send_raw(LINE);
    assert_eq!(stranger.get("/").status, 400, "the header is no request");
}

#[test]
fn cleartext_is_sent_to_https() {
    let yaml = r#"
version: 1
listeners:
  web: { bind: "127.0.0.1:0", redirect_https: 308, trusted_proxies: [127.0.0.1] }
  other: { bind: "127.0.0.1:0", redirect_https: 301 to 8443 }
apis: { shop: { auth: public, routes: { all: { match: "/here", to: { respond: { text: here } } } } } }
"#;
    let gateway = Gateway::start(yaml);
    let ask = |listener: &str, target: &str, host: &str| {
        let response = Client::connect(gateway.addr(listener)).request("GET", target).host(host).send();
        (response.status, response.header("location").unwrap_or_default().to_owned())
    };
    for (target, host, location) in [
        ("/a/b?c=d&e=%2F", "Shop.test", "https://shop.test/a/b?c=d&e=%2F"),
        ("/", "shop.test:80", "https://shop.test/"),
        ("//evil.test/%2e%2e", "shop.test", "https://shop.test//evil.test/%2e%2e"),
        ("/", "[::1]:80", "https://[::1]/"),
    ] {
        assert_eq!(ask("web", target, host), (308, location.to_owned()), "{target} {host}");
    }
    assert_eq!(ask("other", "/x", "shop.test"), (301, "https://shop.test:8443/x".to_owned()));
    assert_eq!(ask("web", "/", "a b").0, 400);
    let explained =
        gateway.plan().run(&["explain", "-c", "tollgate.yaml", "GET", "http://shop.test/here?a=b"]);
    assert!(explained.stdout.contains("https://shop.test/here?a=b"), "{explained:#?}");
    let mut client = gateway.client();
    let told = client.request("POST", "/here").body("x").send();
    assert_eq!((told.status, told.header("location")), (308, Some("https://test.example/here")));
    // A proxy in front has done it already.
    let served = client.request("GET", "/here").header("x-forwarded-proto", "https").send();
    assert_eq!((served.status, served.text()), (200, "here".to_owned()));
    assert_eq!(gateway.log_of(&told)["status"], 308);
}

fn openssl(addr: SocketAddr, args: &[&str], input: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &addr.to_string()]).args(args);
    let output = run(command, input);
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a command that ends by itself once it has read what it is given.
fn run(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// curl, with a name that leads to this address.
fn curl(addr: SocketAddr, dir: &Path, args: &[&str], url: &str) -> String {
    let mut command = Command::new("curl");
    command.current_dir(dir).args(["-sS", "--max-time", "20", "--cacert", "ca.pem", "--connect-to"]);
    command.arg(format!("::{addr}")).args(args).arg(url);
    let output = run(command, "");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn curl_and_openssl_agree() {
    let two = two(TWO);
    let (web, dir) = (two.web(), two.gateway.plan().dir());
    let ask =
        |args: &[&str]| curl(web, dir, &[args, &["-w", " %{http_version}"]].concat(), "https://one.test/");
    assert_eq!(ask(&[]), "one.test https 127.0.0.1 2");
    assert_eq!(ask(&["--http1.1"]), "one.test https 127.0.0.1 1.1");
    assert_eq!(ask(&["--http1.1", "--tls-max", "1.2"]), "one.test https 127.0.0.1 1.1");
    assert!(
        curl(web, dir, &["-w", "%{http_code}", "-H", "Host: two.test"], "https://one.test/").ends_with("421")
    );
    let old = openssl(web, &["-servername", "one.test", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "");
    assert!(old.contains("alert"), "{old}");
    let get = "GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let session = dir.join(format!("session{version}"));
        let session = session.to_str().unwrap();
        let args = ["-servername", "one.test", version, "-ign_eof"];
        let first = openssl(web, &[&args[..], &["-sess_out", session]].concat(), get);
        assert!(first.contains("New, TLSv1.") && first.contains("200 OK"), "{first}");
        let again = openssl(web, &[&args[..], &["-sess_in", session]].concat(), get);
        assert!(again.contains("Reused, TLSv1.") && again.contains("200 OK"), "{again}");
        // The end is said, not only done.
        assert!(!again.contains("unexpected eof"), "{again}");
    }
}

#[test]
fn an_idle_connection_is_parted_with_a_word() {
    let two = two(&TWO.replace("limits: { ", "limits: { keepalive: 1s, "));
    let mut client = two.dial().connect(two.web(), "one.test").client;
    assert_eq!(client.request("GET", "/").host("one.test").send().status, 200);
    // Without close_notify rustls calls this an error.
    assert!(client.wire.read_to_end(&mut Vec::new()).is_ok());
}

#[test]
fn a_client_that_just_closes_is_no_trouble() {
    let two = two(TWO);
    let response: Response = {
        let mut client = two.dial().connect(two.web(), "one.test").client;
        // The session ends here without a word of TLS.
        client.request("GET", "/").host("one.test").send()
    };
    two.gateway.log_of(&response);
    assert_eventually(DEADLINE, "it is closed", || {
        two.gateway.metric("tollgate_active_connections{listener=\"web\"}") == 0.0
    });
    assert!(!two.gateway.stderr().to_lowercase().contains("error"), "{}", two.gateway.stderr());
}
