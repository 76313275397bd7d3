//! Configurations that are measured with.

use super::case::text;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use tollgate::config::{Loaded, load_text};
use tollgate::observe::metrics::Metrics;
use tollgate::snapshot::{Shared, Snapshot};
use tollgate::value::{Issues, Sources};

/// The secret that tokens of [`CHAIN`] are signed with.
pub const SECRET: &str = "a-secret-of-32-bytes-for-the-test";

/// One route with nothing on it, one with header rules only, and one with everything an API behind tokens has, as in the load
/// tests: a token, a limit, headers both ways.
pub const CHAIN: &str = r#"
version: 1
admin: { bind: none }
listeners: { web: { bind: "127.0.0.1:18080" } }
upstreams:
  app: { targets: ["127.0.0.1:18081", "127.0.0.1:18082"], health: { probe: none } }
auth:
  users:
    jwt:
      issuer: https://id.example
      audience: api
      algorithms: [HS256]
      secret: a-secret-of-32-bytes-for-the-test
      forward: { x-user: sub }
consumers: { user-7: {} }
defaults: { auth: public }
apis:
  app:
    routes:
      plain: { match: "GET /plain/{id}", to: app }
      headers:
        match: GET /headers/{id}
        to: app
        request:
          headers:
            remove: [x-debug, x-trace]
            rename: { x-tenant: x-customer }
            default: { accept-language: en }
            set: { x-edge: tollgate, x-order: "${path.id}", x-client: "${client_ip}" }
            add: { via: tollgate }
        response:
          headers:
            preset: secure
            set: { x-served: tollgate, x-id: "${request_id}" }
      rewrite:
        match: GET /rewrite/{id}
        to: app
        request:
          path: { replace: "/orders/${path.id}" }
          query: { remove: [utm_source], set: { view: short } }
      chain:
        match: GET /chain/{id}
        to: app
        auth: users
        limits: ["1000000/s per consumer"]
        request: { headers: { set: { x-edge: tollgate }, remove: [x-debug] } }
        response: { headers: { set: { x-served: tollgate }, remove: [server] } }
      cached: { match: "GET /cached/{id}", to: app, cache: { ttl: 1m } }
"#;

/// A document of so many routes: an upstream for every hundred, an API for each upstream, and settings that are inherited.
pub fn of_routes(count: usize) -> Result<String, String> {
    let mut text = String::from(
        "version: 1\nadmin: { bind: none }\nlisteners: { web: { bind: \"127.0.0.1:18080\" } }\n\
         defaults:\n  auth: public\n  request: { headers: { set: { x-edge: tollgate } } }\n  \
         response: { headers: { remove: [server] } }\n",
    );
    write_upstreams(&mut text, count)
        .and_then(|()| write_apis(&mut text, count))
        .map_err(super::case::text)?;
    Ok(text)
}

/// Routes of each API.
const TOGETHER: usize = 100;

fn write_upstreams(text: &mut String, routes: usize) -> std::fmt::Result {
    text.push_str("upstreams:\n");
    for number in 0..routes.div_ceil(TOGETHER) {
        let (one, two) = (20_000 + 2 * number, 20_001 + 2 * number);
        writeln!(
            text,
            "  u{number}: {{ targets: [\"127.0.0.1:{one}\", \"127.0.0.1:{two}\"], health: {{ probe: none }} }}"
        )?;
    }
    Ok(())
}

fn write_apis(text: &mut String, routes: usize) -> std::fmt::Result {
    text.push_str("apis:\n");
    for number in 0..routes {
        let api = number / TOGETHER;
        if number % TOGETHER == 0 {
            writeln!(
                text,
                "  a{api}:\n    hosts: [a{api}.example.com]\n    base: /v1\n    to: u{api}\n    routes:"
            )?;
        }
        let method = if number % 2 == 0 { "GET" } else { "POST" };
        writeln!(text, "      r{number}: {{ match: \"{method} /things-{number}/{{id}}/parts\" }}")?;
    }
    Ok(())
}

/// A configuration, read and built.
pub struct Built {
    /// As read.
    pub loaded: Loaded,
    /// What outlives it.
    pub shared: Shared,
    /// Ready to run.
    pub snapshot: Arc<Snapshot>,
}

/// Reads a document.
pub fn read(document: &str) -> Result<Loaded, String> {
    let (mut sources, mut issues) = (Sources::default(), Issues::default());
    let loaded = load_text(Path::new("bench.yaml"), document, &mut sources, &mut issues);
    loaded.filter(|_| issues.errors() == 0).ok_or_else(|| format!("the document is refused: {issues:?}"))
}

/// Builds what was read.
pub fn build(loaded: &Loaded, shared: &Shared, running: Option<&Snapshot>) -> Result<Snapshot, String> {
    let mut issues = Issues::default();
    let snapshot = Snapshot::build(loaded, shared, running, &mut issues);
    snapshot.ok_or_else(|| format!("the document is refused: {issues:?}"))
}

/// Reads and builds, as a process does when it starts.
pub fn built(document: &str) -> Result<Built, String> {
    pingora::tls::install_default_crypto_provider();
    let loaded = read(document)?;
    let metrics = Metrics::new(usize::MAX).map_err(text)?;
    let shared = Shared::new(&loaded.document, metrics)?;
    let snapshot = Arc::new(build(&loaded, &shared, None)?);
    Ok(Built { loaded, shared, snapshot })
}
