//! Runs every `tests/cases/*.yaml`: a configuration, scripted upstreams, exchanges and what must be seen at each end.
//!
//! `CASE=name cargo test cases` runs the files whose name contains `name`. A file has these parts:
//!
//! ```yaml
//! config: |               # `{{app}}`: address of upstream `app`; `{{dir}}`: folder of the configuration
//! files: { a.html: … }    # written beside the configuration
//! env: { NAME: value }
//! upstreams:              # `echo: true`: answers with the request as JSON; `refuse: true`: nobody listens;
//!   app: { answers: { default: {…}, "/slow": { delay: 300, fault: close } } }
//! exchanges:              # one after the other; `{{web}}`: address of listener `web`
//!   - name: what it shows
//!     request: { method, path, headers, body | chunks, http: 1 | 2, listener: web, raw, reuse: true }
//!     repeat: 3
//!     response: { status, headers, trailers, body, body_has, json, kept_alive, complete, interim }
//!     upstream: { app: { count, none, method, path, headers, body, json } }
//!     log: { field: value }
//! ```
//!
//! A header is expected as text (exactly that one value), a list (exactly those values), `null` (absent) or
//! `{ matches: regex }`. `json` and `log` are subsets: what they do not name may be anything.

use crate::harness::{
    Answer, Client, Fault, Gateway, H2Client, Headers, Plan, Request, Reserved, Response, Upstream,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Files run side by side; each waits more than it computes.
const AT_ONCE: usize = 4;

#[test]
fn cases() {
    let filter = std::env::var("CASE").unwrap_or_default();
    let named = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().contains(&filter);
    let waiting = Mutex::new(yaml_files("tests/cases").into_iter().filter(named).collect::<Vec<_>>());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(path) = waiting.lock().unwrap().pop() else { return };
                    failures.lock().unwrap().extend(run_file(&path));
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n"));
}

/// The YAML files of a folder of the repository, sorted.
pub fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    config: String,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Read before everything else, as [`Upstreams`].
    #[serde(default, rename = "upstreams")]
    _upstreams: serde::de::IgnoredAny,
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Scripted {
    answers: BTreeMap<String, AnswerSpec>,
    echo: bool,
    refuse: bool,
}

#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields, default)]
struct AnswerSpec {
    status: Option<u16>,
    headers: serde_json::Map<String, Value>,
    body: Option<String>,
    trailers: BTreeMap<String, String>,
    chunked: bool,
    until_close: bool,
    interim: Vec<String>,
    delay: u64,
    close: bool,
    fault: Option<FaultSpec>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum FaultSpec {
    Close,
    Reset,
    Cut,
    Garbage,
    Silence,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Exchange {
    name: Option<String>,
    request: RequestSpec,
    repeat: Option<usize>,
    response: ResponseSpec,
    upstream: BTreeMap<String, SeenSpec>,
    log: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RequestSpec {
    method: Option<String>,
    path: Option<String>,
    headers: serde_json::Map<String, Value>,
    body: Option<String>,
    chunks: Option<Vec<String>>,
    /// 1 or 2 (prior knowledge).
    http: Option<u8>,
    listener: Option<String>,
    /// The whole request, byte for byte.
    raw: Option<String>,
    /// Goes over the connection of the exchange before.
    reuse: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ResponseSpec {
    status: Option<u16>,
    headers: serde_json::Map<String, Value>,
    trailers: serde_json::Map<String, Value>,
    body: Option<String>,
    body_has: Option<String>,
    json: Option<Value>,
    kept_alive: Option<bool>,
    complete: Option<bool>,
    interim: Option<Vec<u16>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SeenSpec {
    none: bool,
    count: Option<usize>,
    method: Option<String>,
    path: Option<String>,
    headers: serde_json::Map<String, Value>,
    trailers: serde_json::Map<String, Value>,
    body: Option<String>,
    json: Option<Value>,
}

/// Only what must exist before the addresses are known.
#[derive(Deserialize)]
struct Upstreams {
    #[serde(default)]
    upstreams: BTreeMap<String, Scripted>,
}

enum Peer {
    Up(Upstream),
    Refusing(Reserved),
}

impl Peer {
    fn addr(&self) -> SocketAddr {
        match self {
            Peer::Up(upstream) => upstream.addr(),
            Peer::Refusing(reserved) => reserved.addr(),
        }
    }

    fn requests(&self) -> Vec<Request> {
        match self {
            Peer::Up(upstream) => upstream.requests(),
            Peer::Refusing(_) => Vec::new(),
        }
    }
}

fn run_file(path: &Path) -> Vec<String> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let run = || try_file(&std::fs::read_to_string(path).unwrap());
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panic_text(&*panic)));
    match outcome {
        Ok(failures) => failures.into_iter().map(|failure| format!("{name}: {failure}")).collect(),
        Err(failure) => vec![format!("{name}: {failure}")],
    }
}

fn try_file(text: &str) -> Result<Vec<String>, String> {
    let upstreams: Upstreams = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let peers: BTreeMap<String, Peer> =
        upstreams.upstreams.into_iter().map(|(n, script)| (n, start(script))).collect();
    let mut text = text.to_owned();
    for (name, peer) in &peers {
        text = text.replace(&format!("{{{{{name}}}}}"), &peer.addr().to_string());
    }
    let case: Case = serde_yaml::from_str(&text).map_err(|error| error.to_string())?;
    let mut plan = Plan::new(&case.config);
    for (name, content) in &case.files {
        plan = plan.file(name, content.as_str());
    }
    for (name, value) in &case.env {
        plan = plan.env(name, value);
    }
    let gateway = plan
        .try_start()
        .map_err(|ran| format!("tollgate did not start, exit {}\n{}", ran.code, ran.stderr))?;
    for (name, addr) in gateway.addresses() {
        text = text.replace(&format!("{{{{{name}}}}}"), &addr.to_string());
    }
    let case: Case = serde_yaml::from_str(&text).map_err(|error| error.to_string())?;
    Ok(Run { gateway, peers, connection: None, answered: 0 }.all(&case.exchanges))
}

fn start(script: Scripted) -> Peer {
    if script.refuse {
        return Peer::Refusing(Reserved::any());
    }
    Peer::Up(Upstream::start(move |request| {
        match script.answers.get(request.path()).or_else(|| script.answers.get("default")) {
            Some(spec) => spec.answer(),
            None if script.echo => Answer::echo(request),
            None => Answer::new(404, "the upstream has no such answer"),
        }
    }))
}

impl AnswerSpec {
    fn answer(&self) -> Answer {
        let mut answer = Answer::new(self.status.unwrap_or(200), self.body.clone().unwrap_or_default());
        for (name, value) in header_lines(&self.headers) {
            answer = answer.header(&name, &value);
        }
        for head in &self.interim {
            answer = answer.interim(head);
        }
        for (name, value) in &self.trailers {
            answer = answer.trailer(name, value);
        }
        answer = if self.chunked { answer.chunked(7) } else { answer };
        answer = if self.until_close { answer.until_close() } else { answer };
        answer = if self.close { answer.close() } else { answer };
        answer = match self.fault {
            None => answer,
            Some(FaultSpec::Close) => answer.but(Fault::Close),
            Some(FaultSpec::Reset) => answer.but(Fault::Reset),
            Some(FaultSpec::Cut) => answer.but(Fault::Cut(3)),
            Some(FaultSpec::Garbage) => answer.but(Fault::Garbage),
            Some(FaultSpec::Silence) => answer.but(Fault::Silence),
        };
        answer.delay(Duration::from_millis(self.delay))
    }
}

/// Header lines of a map whose values are one text or a list of them.
fn header_lines(headers: &serde_json::Map<String, Value>) -> Vec<(String, String)> {
    let values = |value: &Value| match value {
        Value::Array(values) => values.iter().map(text_of).collect(),
        one => vec![text_of(one)],
    };
    headers.iter().flat_map(|(name, value)| values(value).into_iter().map(|v| (name.clone(), v))).collect()
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A started case.
struct Run {
    gateway: Gateway,
    peers: BTreeMap<String, Peer>,
    connection: Option<Client>,
    answered: usize,
}

impl Run {
    fn all(mut self, exchanges: &[Exchange]) -> Vec<String> {
        let mut failures = Vec::new();
        for (number, exchange) in exchanges.iter().enumerate() {
            for _ in 0..exchange.repeat.unwrap_or(1) {
                let run = AssertUnwindSafe(|| self.one(exchange));
                let wrong = catch_unwind(run).unwrap_or_else(|panic| vec![panic_text(&*panic)]);
                if !wrong.is_empty() {
                    let name = exchange.name.as_deref().unwrap_or_default();
                    failures.push(format!("exchange {} {name}\n    {}", number + 1, wrong.join("\n    ")));
                    break;
                }
            }
        }
        if !failures.is_empty() {
            failures.push(format!("gateway stderr:\n{}", self.gateway.stderr()));
        }
        failures
    }

    fn one(&mut self, exchange: &Exchange) -> Vec<String> {
        let before: BTreeMap<String, usize> =
            self.peers.iter().map(|(n, peer)| (n.clone(), peer.requests().len())).collect();
        let response = self.send(&exchange.request);
        let mut wrong = exchange.response.differences(&response);
        for (name, seen) in &exchange.upstream {
            let peer = self.peers.get(name).unwrap_or_else(|| panic!("no upstream `{name}` in this case"));
            let arrived = peer.requests().split_off(before[name]);
            wrong.extend(seen.differences(&arrived).into_iter().map(|w| format!("upstream {name}: {w}")));
        }
        if let Some(expected) = &exchange.log {
            let line = match response.header("x-request-id") {
                Some(_) => self.gateway.log_of(&response),
                None => self.gateway.log_line(self.answered),
            };
            subset(expected, &line, "log", &mut wrong);
        }
        self.answered += 1;
        wrong
    }

    fn send(&mut self, spec: &RequestSpec) -> Response {
        let addr = self.gateway.addr(spec.listener.as_deref().unwrap_or("web"));
        if spec.http == Some(2) {
            return send_h2(addr, spec);
        }
        let open = self.connection.take().filter(|_| spec.reuse);
        assert!(open.is_some() || !spec.reuse, "there is no open connection to reuse");
        let mut client = open.unwrap_or_else(|| Client::connect(addr));
        let method = spec.method.as_deref().unwrap_or("GET");
        let response = if let Some(raw) = &spec.raw {
            client.send_raw(raw);
            client.read(method)
        } else {
            let mut ask = client.request(method, spec.path.as_deref().unwrap_or("/"));
            for (name, value) in header_lines(&spec.headers) {
                ask = ask.header(&name, &value);
            }
            match (&spec.body, &spec.chunks) {
                (Some(body), _) => ask.body(body.as_str()).send(),
                (None, Some(chunks)) => ask.chunks(chunks.iter().map(String::as_str)).send(),
                (None, None) => ask.send(),
            }
        };
        self.connection = response.kept_alive.then_some(client);
        response
    }
}

fn send_h2(addr: SocketAddr, spec: &RequestSpec) -> Response {
    let lines = header_lines(&spec.headers);
    let host =
        lines.iter().find(|(name, _)| name == "host").map_or("test.example", |(_, value)| value.as_str());
    let uri = format!("http://{host}{}", spec.path.as_deref().unwrap_or("/"));
    let mut request = http::Request::builder().method(spec.method.as_deref().unwrap_or("GET")).uri(uri);
    for (name, value) in lines.iter().filter(|(name, _)| name != "host") {
        request = request.header(name, value);
    }
    let body = spec.body.clone().unwrap_or_default();
    let answer = H2Client::connect(addr).send(request.body(()).unwrap(), body.as_bytes());
    let lines = |map: &http::HeaderMap| {
        Headers(
            map.iter()
                .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
                .collect(),
        )
    };
    Response {
        status: answer.status,
        headers: lines(&answer.headers),
        trailers: lines(&answer.trailers),
        body: answer.body,
        complete: true,
        ..Response::default()
    }
}

impl ResponseSpec {
    fn differences(&self, response: &Response) -> Vec<String> {
        let mut wrong = Vec::new();
        same("status", self.status.as_ref(), &response.status, &mut wrong);
        same("kept_alive", self.kept_alive.as_ref(), &response.kept_alive, &mut wrong);
        same("complete", Some(&self.complete.unwrap_or(true)), &response.complete, &mut wrong);
        same("interim", self.interim.as_ref(), &response.interim, &mut wrong);
        headers_differ("header", &self.headers, &response.headers, &mut wrong);
        headers_differ("trailer", &self.trailers, &response.trailers, &mut wrong);
        let body = response.text();
        same("body", self.body.as_ref(), &body, &mut wrong);
        if let Some(part) = self.body_has.as_ref().filter(|part| !body.contains(*part)) {
            wrong.push(format!("body: {part:?} is not in {body:?}"));
        }
        json_differs(self.json.as_ref(), &body, &mut wrong);
        if !wrong.is_empty() {
            wrong.push(format!("(the response was {} {:?} {body:?})", response.status, response.headers.0));
        }
        wrong
    }
}

impl SeenSpec {
    fn differences(&self, arrived: &[Request]) -> Vec<String> {
        let mut wrong = Vec::new();
        let count = if self.none { 0 } else { self.count.unwrap_or(1) };
        same("requests", Some(&count), &arrived.len(), &mut wrong);
        let (Some(request), true) = (arrived.last(), count > 0) else { return wrong };
        same("method", self.method.as_ref(), &request.method, &mut wrong);
        same("path", self.path.as_ref(), &request.target, &mut wrong);
        headers_differ("header", &self.headers, &request.headers, &mut wrong);
        headers_differ("trailer", &self.trailers, &request.trailers, &mut wrong);
        same("body", self.body.as_ref(), &request.text(), &mut wrong);
        json_differs(self.json.as_ref(), &request.text(), &mut wrong);
        wrong
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: Option<&T>, got: &T, wrong: &mut Vec<String>) {
    if let Some(expected) = expected.filter(|expected| *expected != got) {
        wrong.push(format!("{what}: expected {expected:?}, got {got:?}"));
    }
}

fn headers_differ(
    what: &str,
    expected: &serde_json::Map<String, Value>,
    got: &Headers,
    wrong: &mut Vec<String>,
) {
    for (name, expected) in expected {
        let values = got.all(name);
        let fits = match expected {
            Value::Null => values.is_empty(),
            Value::Array(list) => list.iter().map(text_of).eq(values.iter().map(|v| (*v).to_owned())),
            Value::Object(_) => matches!(values.as_slice(), [one] if fits_rule(expected, &Value::from(*one))),
            one => matches!(values.as_slice(), [value] if **value == *text_of(one)),
        };
        if !fits {
            wrong.push(format!("{what} {name}: expected {expected}, got {values:?}"));
        }
    }
}

fn json_differs(expected: Option<&Value>, body: &str, wrong: &mut Vec<String>) {
    let Some(expected) = expected else { return };
    match serde_json::from_str(body) {
        Ok(got) => subset(expected, &got, "json", wrong),
        Err(error) => wrong.push(format!("json: {error} in {body:?}")),
    }
}

/// Whether everything in `expected` is in `got`; `null` stands for null or absent.
fn subset(expected: &Value, got: &Value, at: &str, wrong: &mut Vec<String>) {
    let fits = if is_rule(expected) { fits_rule(expected, got) } else { expected == got };
    match expected {
        Value::Object(members) if !is_rule(expected) => {
            for (name, expected) in members {
                let member = got.get(name).unwrap_or(&Value::Null);
                subset(expected, member, &format!("{at}.{name}"), wrong);
            }
        }
        _ if fits => {}
        _ => wrong.push(format!("{at}: expected {expected}, got {got}")),
    }
}

/// `{ matches: regex }` and `{ above: number }` stand for a value, not for an object.
fn is_rule(expected: &Value) -> bool {
    matches!(expected, Value::Object(members) if members.len() == 1 && (members.contains_key("matches") || members.contains_key("above")))
}

fn fits_rule(rule: &Value, got: &Value) -> bool {
    match (rule["matches"].as_str(), rule["above"].as_f64()) {
        (Some(pattern), _) => regex::Regex::new(pattern).unwrap().is_match(&text_of(got)),
        (None, Some(least)) => got.as_f64().is_some_and(|got| got > least),
        (None, None) => false,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("(no text)"))
}

#[test]
fn every_case_file_can_be_read() {
    for path in yaml_files("tests/cases") {
        let text = std::fs::read_to_string(&path).unwrap();
        let case: Result<Case, _> = serde_yaml::from_str(&text);
        let case = case.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!case.exchanges.is_empty(), "{} shows nothing", path.display());
    }
}

#[test]
fn a_case_that_expects_too_much_fails() {
    let mut wrong = Vec::new();
    let got = serde_json::json!({ "a": 1, "b": { "c": "xyz" } });
    subset(
        &serde_json::json!({ "a": 1, "b": { "c": { "matches": "^x" } }, "d": null }),
        &got,
        "json",
        &mut wrong,
    );
    assert!(wrong.is_empty(), "{wrong:?}");
    subset(&serde_json::json!({ "a": 2, "b": { "e": 1 } }), &got, "json", &mut wrong);
    assert_eq!(wrong, ["json.a: expected 2, got 1", "json.b.e: expected 1, got null"]);
}
