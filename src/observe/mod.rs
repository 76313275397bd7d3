//! What happened: one [`record`] for metrics and access log, once for each request, at its end.

pub mod access_log;
mod json;
pub mod log;
pub mod metrics;
pub mod panics;

use crate::exchange::{Exchange, RequestHead, address_text, authority};
use crate::value::query::{decoded_text, pairs, split_pair};
use crate::value::{Percent, Template};
use access_log::AccessLog;
use http::HeaderName;
use http::header::USER_AGENT;
use metrics::{Metrics, RouteMetrics};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

/// The name of a field and all that stands before its value: one piece to copy instead of three.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// What is told, and what is kept back.
pub struct Telemetry {
    /// What goes into the access log, unless it is off.
    pub log: Option<LogRules>,
    /// Header that carries request ids.
    pub request_id: HeaderName,
    /// Whose request ids are kept.
    pub trust_ids: TrustIds,
}

/// Whose request ids are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustIds {
    /// Those of trusted proxies.
    Proxies,
    /// Everybody's.
    Anyone,
    /// Nobody's.
    Nobody,
}

/// What goes into the access log.
pub struct LogRules {
    /// Share of requests that are logged.
    pub sample: Percent,
    /// Query parameters whose values are kept back.
    pub redact_query: Vec<String>,
    /// Further fields.
    pub add: Vec<(String, Template)>,
}

/// What every line says of a route, written when the route is built.
#[derive(Clone, Debug)]
pub struct RouteFields(Box<[u8]>);

impl RouteFields {
    /// From the names of API and route, and the path pattern.
    pub fn new(api: &str, id: &str, template: &str) -> RouteFields {
        let mut written = Vec::new();
        let mut fields = Fields(&mut written);
        fields.text(name!("api"), api);
        fields.text(name!("route"), id);
        fields.text(name!("template"), template);
        RouteFields(written.into())
    }
}

/// One request at its end.
pub struct Record<'a> {
    /// Facts about it.
    pub exchange: &'a Exchange,
    /// Its head, as the client sent it but for the normal form of the path.
    pub request: &'a RequestHead,
    /// Its route, if it found one.
    pub route: Option<&'a RouteFields>,
    /// Bytes of response body sent.
    pub bytes_out: u64,
    /// Name of the listener.
    pub listener: &'a str,
}

/// Counts the request and writes its line.
pub fn record(
    record: &Record<'_>,
    metrics: &Metrics,
    route: &RouteMetrics,
    rules: Option<&LogRules>,
    log: Option<&AccessLog>,
) {
    let end = Instant::now();
    let x = record.exchange;
    let total = end.saturating_duration_since(x.started);
    let overhead = total.saturating_sub(x.tries.time(end));
    let status = x.problem.unwrap_or(x.status);
    route.record(&record.request.method, status, total, overhead);
    metrics.bytes(x.bytes_in, record.bytes_out);
    if let (Some(rules), Some(log)) = (rules, log)
        && (status >= 500 || sampled(rules.sample))
    {
        log.line(|line| write_line(line, record, rules, total, overhead));
    }
}

fn sampled(share: Percent) -> bool {
    share.0 >= 10_000 || crate::tasks::random() % 10_000 < u64::from(share.0)
}

/// Writes one JSON object. The order of fields is fixed, so that lines can be read by eye.
fn write_line(
    line: &mut Vec<u8>,
    record: &Record<'_>,
    rules: &LogRules,
    total: Duration,
    overhead: Duration,
) {
    let (x, request) = (record.exchange, record.request);
    line.extend_from_slice(b"{\"ts\":\"");
    json::timestamp(line, SystemTime::now());
    line.push(b'"');
    let mut fields = Fields(line);
    fields.text(name!("request_id"), x.id());
    fields.address(name!("client_ip"), x.client_ip);
    fields.text(name!("listener"), record.listener);
    fields.text(name!("protocol"), protocol(request.version));
    fields.text(name!("scheme"), x.scheme());
    fields.tls(x);
    fields.text(name!("method"), request.method.as_str());
    fields.text(name!("host"), authority(request).unwrap_or_default());
    fields.text(name!("path"), request.uri.path());
    if let Some(query) = request.uri.query() {
        fields.query(query, &rules.redact_query);
    }
    if let Some(route) = record.route {
        fields.0.extend_from_slice(&route.0);
    }
    fields.caller(x);
    if let Some(fault) = x.fault {
        fields.text(name!("fault"), fault);
    }
    fields.number(name!("status"), x.status);
    if let Some(cache) = x.cache {
        fields.text(name!("cache"), cache.word());
    }
    if let Some(fallback) = x.fallback {
        fields.text(name!("fallback"), fallback);
    }
    if let Some(reason) = x.reason {
        fields.text(name!("reason"), reason);
    }
    fields.number(name!("bytes_in"), x.bytes_in);
    fields.number(name!("bytes_out"), record.bytes_out);
    fields.millis(name!("duration_ms"), total);
    fields.millis(name!("overhead_ms"), overhead);
    fields.tries(x);
    if let Some(agent) = request.headers.get(USER_AGENT) {
        fields.name(name!("user_agent"));
        json::bytes(fields.0, agent.as_bytes());
    }
    for (name, template) in &rules.add {
        let mut text = String::new();
        x.render(template, request, &mut text);
        fields.given_name(name);
        json::string(fields.0, &text);
    }
    line.push(b'}');
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "HTTP/2.0",
        http::Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    /// What [`name!`] made.
    fn name(&mut self, name: &'static str) {
        self.0.extend_from_slice(name.as_bytes());
    }

    /// A [`crate::value::Name`], in which nothing needs escaping.
    fn given_name(&mut self, name: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        json::string(self.0, text);
    }

    fn number(&mut self, name: &'static str, number: impl itoa::Integer) {
        self.name(name);
        json::integer(self.0, number);
    }

    fn millis(&mut self, name: &'static str, span: Duration) {
        self.name(name);
        json::millis(self.0, span);
    }

    fn address(&mut self, name: &'static str, address: IpAddr) {
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(&address_text(address));
        self.0.push(b'"');
    }

    /// The TLS connection, if it is one.
    fn tls(&mut self, x: &Exchange) {
        let Some(tls) = &x.tls else { return };
        self.text(name!("tls_version"), tls.version);
        self.text(name!("tls_cipher"), tls.cipher);
        if let Some(sni) = &tls.sni {
            self.text(name!("sni"), sni);
        }
        if let Some(client) = &tls.client {
            self.text(name!("client_cert"), &client.fingerprint);
        }
    }

    /// Who called, and what identity and limits had against it.
    fn caller(&mut self, x: &Exchange) {
        if let Some(identity) = &x.identity {
            self.text(name!("consumer"), &identity.subject);
            self.text(name!("auth"), &identity.provider);
            self.text(name!("credential"), &identity.credential);
        }
        if let Some(why) = x.auth_error {
            self.text(name!("auth_error"), why);
        }
        if let Some(limit) = &x.limit {
            self.text(name!("limit"), limit);
        }
    }

    fn tries(&mut self, x: &Exchange) {
        let tries = &x.tries;
        let Some(upstream) = &tries.upstream else { return };
        self.text(name!("upstream"), upstream);
        if let Some(target) = &tries.target {
            self.text(name!("target"), target);
        }
        self.number(name!("attempts"), tries.count);
        if let Some(connect) = tries.connect {
            self.millis(name!("upstream_connect_ms"), connect);
        }
        if let Some(first_byte) = tries.first_byte {
            self.millis(name!("upstream_first_byte_ms"), first_byte);
        }
    }

    /// The query with the values of some parameters kept back.
    fn query(&mut self, query: &str, redact: &[String]) {
        let secret = |pair: &str| {
            let name = decoded_text(split_pair(pair).0);
            redact.iter().any(|redacted| redacted.eq_ignore_ascii_case(&name))
        };
        if !pairs(query).any(secret) {
            return self.text(name!("query"), query);
        }
        let shown: Vec<String> = pairs(query)
            .map(|pair| match pair.split_once('=') {
                Some((name, _)) if secret(pair) => format!("{name}=[redacted]"),
                _ => pair.to_owned(),
            })
            .collect();
        self.text(name!("query"), &shown.join("&"));
    }
}
