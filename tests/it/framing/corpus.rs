//! Malformed and ambiguous requests, and what must come of each.

use super::bodies;

/// What must become of a request.
pub enum Expected {
    /// It is answered with this status, logged with this reason, and the connection ends.
    Refused(u16, &'static str),
    /// The origin gets this: method, target, host and body of each request.
    Forwarded(Vec<String>),
}

/// One connection's bytes.
pub struct Row {
    pub name: String,
    pub sent: Vec<u8>,
    pub expected: Expected,
}

impl Row {
    /// How many answers there are to it.
    pub fn answers(&self) -> usize {
        match &self.expected {
            Expected::Refused(..) => 1,
            Expected::Forwarded(wanted) => wanted.len(),
        }
    }
}

/// All of them.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    request_lines(&mut rows);
    targets(&mut rows);
    hosts(&mut rows);
    fields(&mut rows);
    controls(&mut rows);
    bodies::add(&mut rows);
    sizes(&mut rows);
    methods_and_expectations(&mut rows);
    connections(&mut rows);
    unambiguous(&mut rows);
    rows
}

pub fn refuse(rows: &mut Vec<Row>, sent: impl Into<Vec<u8>>, status: u16, reason: &'static str) {
    let name = format!("{} {reason}", rows.len());
    rows.push(Row { name, sent: sent.into(), expected: Expected::Refused(status, reason) });
}

pub fn forward(rows: &mut Vec<Row>, sent: impl Into<Vec<u8>>, wanted: &[&str]) {
    let name = format!("{} forwarded", rows.len());
    let wanted = wanted.iter().map(|one| (*one).to_owned()).collect();
    rows.push(Row { name, sent: sent.into(), expected: Expected::Forwarded(wanted) });
}

/// A request with this first line.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: a.test\r\n\r\n")
}

/// A request with a host and these lines.
fn get(fields: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
}

/// One with a body.
pub fn post(fields: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}")
}

/// One with a body in chunks.
pub fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

pub const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

fn request_lines(rows: &mut Vec<Row>) {
    for text in [
        "GET /a",
        "GET",
        "GET ",
        " GET /a HTTP/1.1",
        "GET  /a HTTP/1.1",
        "GET /a  HTTP/1.1",
        "GET /a HTTP/1.1 ",
        "GET /a HTTP/1.1\t",
        "GET\t/a HTTP/1.1",
        "GET /a\tHTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a http/1.1",
        "GET /a Http/1.1",
        "GET /a HTTP/1.1.1",
        "GET /a HTTP/1.11",
        "GET /a HTTP/01.1",
        "GET /a HTTP/1",
        "GET /a HTTP/1.",
        "GET /a HTTP/.1",
        "GET /a HTTP/+1.1",
        "GET /a HTTP/1,1",
        "GET /a HTTP 1.1",
        "GET /a HTTPS/1.1",
        "GET /a ICY/1.0",
        "GET /a RTSP/1.0",
        "GET /a HTTP/1.1 HTTP/1.1",
        "GET /a HTTP/1.1 Host: b.test",
        "/a HTTP/1.1",
        "{\"a\":1}",
    ] {
        refuse(rows, line(text), 400, "request-line");
    }
    for version in ["0.9", "0.0", "1.2", "1.9", "2.0", "3.0", "9.9"] {
        refuse(rows, line(&format!("GET /a HTTP/{version}")), 505, "http-version");
    }
    refuse(rows, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http-version");
    for method in [
        "GE(T", "GET/", "G@T", "GET:", "\"GET\"", "G=T", "GET,POST", "<GET>", "HTTP/1.1", "G\u{e9}T", "GET\\",
    ] {
        refuse(rows, line(&format!("{method} /a HTTP/1.1")), 400, "method");
    }
    refuse(rows, line(&format!("{} /a HTTP/1.1", "A".repeat(33))), 400, "method");
    refuse(rows, line("GET\r /a HTTP/1.1"), 400, "method");
    for (begin, reason) in [
        ("\n", "line-end"),
        ("\n\n", "line-end"),
        ("\r", "method"),
        ("\r\r\n", "control-character"),
        (" \r\n", "request-line"),
        ("\0", "method"),
        ("\u{feff}", "method"),
    ] {
        refuse(rows, format!("{begin}{}", get("")), 400, reason);
    }
    refuse(rows, format!("{}{}", "\r\n".repeat(5), get("")), 400, "empty-lines");
    refuse(rows, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello", 400, "request-line");
    refuse(rows, b"\x80\x2e\x01\x00\x02\x00\x15", 400, "request-line");
}

fn targets(rows: &mut Vec<Row>) {
    for target in ["/a#b", "/#", "/a?b#c", "http://a.test/#x"] {
        refuse(rows, line(&format!("GET {target} HTTP/1.1")), 400, "fragment");
    }
    for target in ["/\u{e9}", "/a?\u{fc}=1", "/\u{202e}", "\u{e9}"] {
        refuse(rows, line(&format!("GET {target} HTTP/1.1")), 400, "target");
    }
    for target in ["http://u@a.test/", "http://u:p@a.test/", "http://a.test@b.test/", "https://@a.test/"] {
        refuse(rows, line(&format!("GET {target} HTTP/1.1")), 400, "user-info");
    }
    for target in [
        "http://b.test/",
        "http://a.test:80/",
        "http://A.TEST/",
        "http://a.test./",
        "https://b.test",
        "HTTP://b.test/",
    ] {
        refuse(rows, line(&format!("GET {target} HTTP/1.1")), 400, "other-host");
    }
    for target in [
        "http:///a",
        "http://",
        "http://?a",
        "http://a.test\\@b.test/",
        "http://a.test;b/",
        "http://a%2etest/",
    ] {
        let reason = if target.contains('@') { "user-info" } else { "bad-host" };
        refuse(rows, line(&format!("GET {target} HTTP/1.1")), 400, reason);
    }
    for target in ["a", "?a=b", "a.test/b", "ftp://a.test/", "*", "javascript:x"] {
        refuse(rows, line(&format!("GET {target} HTTP/1.1")), 400, "bad-path");
        if target != "*" {
            refuse(rows, line(&format!("OPTIONS {target} HTTP/1.1")), 400, "bad-path");
        }
    }
    // What the engine does not take for an address.
    for target in ["file:///etc/passwd", "http:/a.test", "http:a.test"] {
        refuse(rows, line(&format!("GET {target} HTTP/1.1")), 400, "malformed");
    }
    for path in [
        "/a%00b",
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/a%",
        "/a%zz",
        "/a%2",
        "/../a",
        "/a/../../b",
        "/%2e%2e/a",
        "/a%0d%0ab",
    ] {
        refuse(rows, line(&format!("GET {path} HTTP/1.1")), 400, "bad-path");
    }
}

fn hosts(rows: &mut Vec<Row>) {
    refuse(rows, "GET /a HTTP/1.1\r\n\r\n", 400, "missing-host");
    refuse(rows, "GET /a HTTP/1.1\r\nX-Host: a.test\r\n\r\n", 400, "missing-host");
    refuse(rows, "GET http://a.test/ HTTP/1.1\r\n\r\n", 400, "missing-host");
    for fields in ["Host: a.test\r\n", "Host: b.test\r\n", "host:\r\n", "HOST: a.test\r\n"] {
        refuse(rows, get(fields), 400, "doubled-host");
    }
    for host in [
        "",
        " ",
        "a b",
        "a,b",
        "a/b",
        "u@a",
        "a.test?",
        "a.test#",
        "\u{e9}.test",
        "a\tb",
        "a;b",
        "<a>",
        "a\\b",
        "a%2e",
        "'a'",
        "a=b",
        "{a}",
    ] {
        refuse(rows, format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400, "bad-host");
    }
    for host in [
        "a:b",
        "a:99999",
        "a:-1",
        "a::1",
        "[::1",
        "::1]",
        "[::g]",
        "[1.2.3.4]x",
        "..",
        "a..b",
        ".a",
        "127.1",
        "0x7f.1:",
        "1.2.3.4.5",
    ] {
        refuse(rows, format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400, "bad-host");
    }
}

fn fields(rows: &mut Vec<Row>) {
    for (fields, reason) in [
        ("X: a\r\n b\r\n", "folded-line"),
        ("X: a\r\n\tb\r\n", "folded-line"),
        ("X:\r\n a\r\n", "folded-line"),
        ("X: a\r\n \r\n", "folded-line"),
        ("Content-Length:\r\n 5\r\n", "content-length"),
        ("Transfer-Encoding:\r\n chunked\r\n", "transfer-encoding"),
        ("X : a\r\n", "space-before-colon"),
        ("X\t: a\r\n", "space-before-colon"),
        ("X  : a\r\n", "space-before-colon"),
        ("Content-Length : 5\r\n", "space-before-colon"),
        ("Transfer-Encoding : chunked\r\n", "space-before-colon"),
        ("Host : b.test\r\n", "space-before-colon"),
        (": a\r\n", "field-name"),
        (":\r\n", "field-name"),
        ("X Y: a\r\n", "field-name"),
        ("X@: a\r\n", "field-name"),
        ("X(a): b\r\n", "field-name"),
        ("X[]: b\r\n", "field-name"),
        ("X/Y: b\r\n", "field-name"),
        ("X;: b\r\n", "field-name"),
        ("X\"Y\": b\r\n", "field-name"),
        ("X\u{e9}: b\r\n", "field-name"),
        ("\u{feff}X: b\r\n", "field-name"),
        ("{x}: b\r\n", "field-name"),
        ("Content_Length: 5\r\n", "field-name"),
        ("content_length: 5\r\n", "field-name"),
        ("Transfer_Encoding: chunked\r\n", "field-name"),
        ("X\r\n", "no-colon"),
        ("X a\r\n", "no-colon"),
        ("GET /smuggled HTTP/1.1\r\n", "no-colon"),
        ("X: a\n", "line-end"),
        ("X: a\nY: b\r\n", "line-end"),
        ("X: a\n\r\n", "line-end"),
        ("X: a\r\n\n", "line-end"),
        ("Content-Length: 5\n", "line-end"),
        ("Transfer-Encoding: chunked\n", "line-end"),
    ] {
        refuse(rows, get(fields), 400, reason);
    }
    refuse(rows, "GET /a HTTP/1.1\r\n Host: a.test\r\n\r\n", 400, "folded-line");
    refuse(rows, "GET /a HTTP/1.1\r\n\tHost: a.test\r\n\r\n", 400, "folded-line");
    refuse(rows, "GET /a HTTP/1.1\nHost: a.test\n\n", 400, "line-end");
    refuse(rows, "GET /a HTTP/1.1\nHost: a.test\r\n\r\n", 400, "line-end");
    refuse(rows, "GET /a HTTP/1.1\r\nHost: a.test\n\n", 400, "line-end");
    refuse(rows, "GET /a HTTP/1.1\r\nHost: a.test\n\r\n", 400, "line-end");
    refuse(rows, "GET /a HTTP/1.1\n", 400, "line-end");
}

fn controls(rows: &mut Vec<Row>) {
    let control = |byte: &u8| !matches!(byte, b'\n' | b'\t');
    for byte in (0..0x20_u8).chain([0x7f]).filter(control) {
        let around = |before: &str, after: &str| [before.as_bytes(), &[byte], after.as_bytes()].concat();
        refuse(
            rows,
            around("GET /a HTTP/1.1\r\nHost: a.test\r\nX: some", "value\r\n\r\n"),
            400,
            "control-character",
        );
        if byte != b'\r' {
            refuse(rows, around("GET /a", "b HTTP/1.1\r\nHost: a.test\r\n\r\n"), 400, "control-character");
        }
    }
    refuse(rows, get("X: a\rTransfer-Encoding: chunked\r\n"), 400, "control-character");
    refuse(rows, get("X: a\r\r\n"), 400, "control-character");
    refuse(rows, get("X: a\0Content-Length: 5\r\n"), 400, "control-character");
    refuse(rows, get("Transfer-Encoding: chunked\x0b\r\n"), 400, "control-character");
    refuse(rows, get("Transfer-Encoding: \x0cchunked\r\n"), 400, "control-character");
    refuse(rows, get("Content-Length: 5\x0b\r\n"), 400, "control-character");
    refuse(rows, get("Content-Length\0: 5\r\n"), 400, "control-character");
    refuse(rows, get("Host\r: b.test\r\n"), 400, "space-before-colon");
}

fn sizes(rows: &mut Vec<Row>) {
    refuse(rows, line(&format!("GET /{} HTTP/1.1", "a".repeat(1024))), 414, "uri-too-long");
    refuse(rows, line(&format!("GET /{} HTTP/1.1", "a".repeat(20_000))), 414, "uri-too-long");
    refuse(rows, format!("GET /{}", "a".repeat(5000)), 414, "uri-too-long");
    refuse(rows, get(&"X: y\r\n".repeat(20)), 431, "headers-too-large");
    refuse(rows, get(&"X: y\r\n".repeat(300)), 431, "headers-too-large");
    refuse(rows, get(&format!("X: {}\r\n", "y".repeat(5000))), 431, "headers-too-large");
    refuse(rows, get(&format!("{}: y\r\n", "x".repeat(5000))), 431, "headers-too-large");
    refuse(rows, get(&format!("X: {}\r\n", "y".repeat(1 << 20))), 431, "headers-too-large");
    refuse(
        rows,
        format!("GET /a HTTP/1.1\r\nHost: a.test\r\nX: {}", "y".repeat(10_000)),
        431,
        "headers-too-large",
    );
    refuse(rows, get(&format!("X:{}y\r\n", " ".repeat(6000))), 431, "headers-too-large");
}

fn methods_and_expectations(rows: &mut Vec<Row>) {
    for text in [
        "TRACE /a HTTP/1.1",
        "CONNECT a.test:443 HTTP/1.1",
        "CONNECT /a HTTP/1.1",
        "CONNECT http://a.test/ HTTP/1.1",
        "TRACE http://a.test/ HTTP/1.1",
    ] {
        refuse(rows, line(text), 405, "method-not-allowed");
    }
    for expectation in [
        "",
        "200-ok",
        "100-continue, x",
        "x, 100-continue",
        "100",
        "100-continue;a=b",
        "\"100-continue\"",
        "continue",
    ] {
        refuse(
            rows,
            post(&format!("Expect: {expectation}\r\nContent-Length: 5\r\n"), "hello"),
            417,
            "expectation",
        );
    }
    refuse(
        rows,
        post("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n", "hello"),
        417,
        "expectation",
    );
}

/// What `Connection` and the like must not do.
fn connections(rows: &mut Vec<Row>) {
    for named in ["host", "x-forwarded-for", "Host", "close, host", "x-forwarded-proto", "client-cert"] {
        refuse(rows, get(&format!("Connection: {named}\r\n")), 400, "bad-request");
    }
    for fields in [
        "Connection: close\r\n",
        "Connection: x-a\r\nX-A: b\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        "Upgrade: websocket\r\n",
        "Upgrade: TLS/1.0\r\nConnection: upgrade\r\n",
        "TE: trailers, chunked\r\n",
        "Keep-Alive: timeout=1000\r\nConnection: keep-alive\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "Trailer: content-length\r\n",
    ] {
        forward(rows, get(fields), &["GET /a a.test "]);
    }
    forward(
        rows,
        post("Connection: content-length\r\nContent-Length: 5\r\n", "hello"),
        &["POST /a a.test hello"],
    );
    forward(
        rows,
        post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        &["POST /a a.test hello"],
    );
}

/// What looks odd and can be read in one way only: it is forwarded in the plainest form.
fn unambiguous(rows: &mut Vec<Row>) {
    forward(rows, get(""), &["GET /a a.test "]);
    forward(rows, format!("\r\n{}", get("")), &["GET /a a.test "]);
    forward(rows, get("X:a\r\nY:\t b \t\r\nZ:\r\n"), &["GET /a a.test "]);
    forward(rows, get("X: \u{e9}\r\n"), &["GET /a a.test "]);
    forward(rows, "GET /a HTTP/1.1\r\nHOST:a.test:8080\r\n\r\n", &["GET /a a.test:8080 "]);
    forward(rows, line("GET http://a.test/b?c HTTP/1.1"), &["GET /b?c a.test "]);
    forward(rows, line("GET http://a.test HTTP/1.1"), &["GET / a.test "]);
    forward(rows, line("GET http://a.test?q HTTP/1.1"), &["GET /?q a.test "]);
    forward(rows, line("GET //b.test/c HTTP/1.1"), &["GET /b.test/c a.test "]);
    forward(rows, line("GET /b/./c//d HTTP/1.1"), &["GET /b/c/d a.test "]);
    forward(rows, line("GET /%61 HTTP/1.1"), &["GET /a a.test "]);
    forward(rows, "GET /a HTTP/1.0\r\nHost: a.test\r\n\r\n", &["GET /a a.test "]);
    forward(rows, post("Content-Length: 0\r\n", ""), &["POST /a a.test "]);
    forward(rows, post("Content-Length:5\r\n", "hello"), &["POST /a a.test hello"]);
    forward(rows, post("content-length: \t5 \r\n", "hello"), &["POST /a a.test hello"]);
    forward(rows, chunked("5\r\nhello\r\n0\r\n\r\n"), &["POST /a a.test hello"]);
    forward(rows, chunked("005\r\nhello\r\n00\r\n\r\n"), &["POST /a a.test hello"]);
    forward(rows, chunked("5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n"), &["POST /a a.test hello"]);
    forward(rows, chunked("2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n"), &["POST /a a.test hello"]);
    forward(
        rows,
        chunked("0\r\nContent-Length: 5\r\nHost: b.test\r\nTransfer-Encoding: x\r\n\r\n"),
        &["POST /a a.test "],
    );
    forward(rows, chunked("2\r\n\r\n\r\n0\r\n\r\n"), &["POST /a a.test \r\n"]);
    forward(
        rows,
        post("tRANSFER-eNCODING: cHUNKED\r\n", "A\r\n0123456789\r\n0\r\n\r\n"),
        &["POST /a a.test 0123456789"],
    );
    forward(
        rows,
        [post("Content-Length: 5\r\n", "hello"), get(""), chunked("1\r\nx\r\n0\r\n\r\n"), get("")].concat(),
        &["POST /a a.test hello", "GET /a a.test ", "POST /a a.test x", "GET /a a.test "],
    );
    forward(rows, get("X: y\r\n").repeat(5), &["GET /a a.test "; 5]);
}
