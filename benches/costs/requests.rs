//! What a request passes between its head and its record, each part by itself and all of it: everything but sockets.

use super::case::{Case, Work, at_once, text};
use super::documents::{Built, CHAIN, SECRET, built};
use super::records::{RECORDS, empty, end, log};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::{StatusCode, Version};
use ring::hmac;
use serde_json::json;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tollgate::admit;
use tollgate::attempt::Attempts;
use tollgate::exchange::{Exchange, RequestHead, ResponseHead};
use tollgate::forward;
use tollgate::listen::connection::Facts;
use tollgate::observe::access_log::AccessLog;
use tollgate::route::Route;
use tollgate::upstream::Target;
use tollgate::value::{Normalize, normalize};

const TIMES: usize = 1_000;

const PATHS: [(&str, &str); 4] = [
    ("plain", "/v2/orders/42/lines"),
    (
        "plain-long",
        "/repos/octo-org/hello-world/contents/src/main/java/org/example/orders/OrderController.java",
    ),
    ("dots", "/v2/orders/../orders/./42//lines"),
    ("escapes", "/v2/orders/%7Ejan%20de%20vries/caf%c3%a9"),
];

/// From the path to the whole chain.
pub fn cases() -> Vec<Case> {
    let path = |(name, path): (&str, &'static str)| {
        let run = move |_| assert!(black_box(normalize(black_box(path), Normalize::Strict)).is_ok());
        Case::new(format!("path/{name}"), TIMES, move || Ok(Work::new(run)))
    };
    let one = |name: &str, route, part: Part| Case::new(name, TIMES, move || alone(route, part));
    let whole = |name: &str, route| Case::new(name, RECORDS, move || all_of_it(route));
    let mut cases: Vec<Case> = PATHS.into_iter().map(path).collect();
    cases.extend([
        Case::new("clock/monotonic", TIMES, || Ok(Work::new(|_| _ = black_box(Instant::now())))),
        Case::new("clock/wall", TIMES, || Ok(Work::new(|_| _ = black_box(SystemTime::now())))),
    ]);
    cases.extend([
        one("request/identify", "plain", Scene::identify),
        one("request/find", "plain", Scene::find),
        one("request/steps", "chain", Scene::steps),
        one("request/attempt", "plain", Scene::attempt),
        one("headers/copy", "plain", Scene::copy),
        one("headers/forward", "plain", Scene::forward),
        one("headers/request", "headers", Scene::forward),
        one("headers/rewrite", "rewrite", Scene::forward),
        one("headers/response", "headers", Scene::respond),
        one("cache/ask", "cached", Scene::cache_key),
        whole("chain/none", "plain"),
        whole("chain/full", "chain"),
    ]);
    cases
}

/// One part of a request's way; false when it did not go as it should.
type Part = fn(&mut Scene) -> bool;

fn alone(route: &str, part: Part) -> Result<Work, String> {
    let mut scene = Scene::new(route)?;
    Ok(Work::new(move |_| assert!(part(&mut scene))))
}

fn all_of_it(route: &str) -> Result<Work, String> {
    let (mut scene, log) = (Scene::new(route)?, log()?);
    let emptied = log.clone();
    Ok(Work {
        one: Box::new(move |_| assert!(scene.pass(&log).is_some())),
        settle: Box::new(move || empty(Some(&emptied))),
    })
}

/// A gateway, and a request to it with its answer.
struct Scene {
    built: Built,
    request: RequestHead,
    response: ResponseHead,
    told: Told,
    target: Arc<Target>,
}

/// What has become known of a request.
pub struct Told {
    /// The facts.
    pub exchange: Exchange,
    /// Where it goes.
    pub route: Arc<Route>,
}

impl Scene {
    fn new(route: &str) -> Result<Scene, String> {
        let built = built(CHAIN)?;
        let mut request = request(route)?;
        let told = answered(&built, &mut request).ok_or("the request does not get through")?;
        let upstream = built.snapshot.upstreams.first().ok_or("there is no upstream")?;
        let target = upstream.targets().first().cloned().ok_or("there is no target")?;
        Ok(Scene { request, response: response()?, told, target, built })
    }

    fn identify(&mut self) -> bool {
        let snapshot = &self.built.snapshot;
        let Some(listener) = snapshot.listeners.first() else { return false };
        let x = &mut self.told.exchange;
        admit::identify(x, black_box(&self.request), &facts(), listener, &snapshot.telemetry);
        x.client_ip.is_loopback()
    }

    fn find(&mut self) -> bool {
        let snapshot = &self.built.snapshot;
        let Some(listener) = snapshot.listeners.first() else { return false };
        admit::find(black_box(&mut self.request), listener, 0, snapshot).is_ok()
    }

    fn steps(&mut self) -> bool {
        let x = &mut self.told.exchange;
        x.limited.clear();
        matches!(at_once(self.told.route.chain.on_request(black_box(&self.request), x)), Some(None))
    }

    fn attempt(&mut self) -> bool {
        self.told.exchange.tries = Default::default();
        attempt(&self.told.route, &self.request, &mut self.told.exchange).is_some()
    }

    fn copy(&mut self) -> bool {
        !black_box(self.request.clone()).headers.is_empty()
    }

    fn forward(&mut self) -> bool {
        black_box(forwarded(&self.built, &self.told, &self.request, &self.target)).is_some()
    }

    fn respond(&mut self) -> bool {
        !black_box(given(&self.told, &self.request, &self.response)).headers.is_empty()
    }

    fn cache_key(&mut self) -> bool {
        let Some(rules) = &self.told.route.cache else { return false };
        black_box(rules.asks(&self.request));
        !black_box(rules.key(black_box(&self.request), &self.told.exchange)).text.is_empty()
    }

    /// All the way of a request that a target answers.
    fn pass(&mut self, log: &AccessLog) -> Option<()> {
        let mut told = admitted(&self.built, &mut self.request)?;
        let mut attempts = attempt(&told.route, &self.request, &mut told.exchange)?;
        let target = attempts.lease()?.target().clone();
        black_box(forwarded(&self.built, &told, &self.request, &target)?);
        attempts.heard(&told.route, &mut told.exchange, StatusCode::OK);
        black_box(given(&told, &self.request, &self.response));
        told.exchange.status = 200;
        end(&self.built, &self.request, &told, Some(log));
        attempts.finished(&told.route, &told.exchange);
        Some(())
    }
}

/// From the head to the end of the steps.
fn admitted(built: &Built, request: &mut RequestHead) -> Option<Told> {
    let snapshot = &built.snapshot;
    let listener = snapshot.listeners.first()?;
    let mut exchange = Exchange::default();
    admit::identify(&mut exchange, request, &facts(), listener, &snapshot.telemetry);
    let (number, params) = admit::find(request, listener, 0, snapshot).ok()?;
    let route = snapshot.routes.get(number as usize)?.clone();
    exchange.params = params;
    let reply = at_once(route.chain.on_request(request, &mut exchange))?;
    reply.is_none().then_some(Told { exchange, route })
}

/// Takes a target and begins.
fn attempt(route: &Route, request: &RequestHead, x: &mut Exchange) -> Option<Attempts> {
    let mut attempts = Attempts::default();
    attempts.begin(route, request, x).ok()?;
    attempts.hold(route, x).ok()?;
    Some(attempts)
}

/// The head that goes to the target.
fn forwarded(built: &Built, told: &Told, request: &RequestHead, target: &Target) -> Option<RequestHead> {
    let mut head = request.clone();
    forward::strip_request(&mut head).ok()?;
    head.version = Version::HTTP_11;
    forward::address(&mut head, target);
    let (route, x) = (&told.route, &told.exchange);
    forward::identify_client(&mut head, request, x, route.forwarded, &built.snapshot.telemetry.request_id);
    route.chain.on_upstream_request(&mut head, request, x).ok()?;
    Some(head)
}

/// The head that goes to the client.
fn given(told: &Told, request: &RequestHead, response: &ResponseHead) -> ResponseHead {
    let mut head = response.clone();
    forward::strip_hop_by_hop(&mut head);
    told.route.chain.on_response(&mut head, request, &told.exchange);
    head
}

/// What is known of a request at its end.
pub fn answered(built: &Built, request: &mut RequestHead) -> Option<Told> {
    let mut told = admitted(built, request)?;
    let mut attempts = attempt(&told.route, request, &mut told.exchange)?;
    attempts.heard(&told.route, &mut told.exchange, StatusCode::OK);
    attempts.finished(&told.route, &told.exchange);
    told.exchange.status = 200;
    Some(told)
}

fn facts() -> Facts {
    let peer = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)));
    Facts { listener: 0, peer, local: None, secure: false, tls: None, trusted: false }
}

/// What a client sends.
pub fn request(route: &str) -> Result<RequestHead, String> {
    let request = http::Request::get(format!("/{route}/42?expand=lines&utm_source=mail"))
        .header("host", "api.example.com")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip, br")
        .header("connection", "keep-alive")
        .header("x-tenant", "acme")
        .header("x-debug", "1")
        .header("authorization", format!("Bearer {}", token()?));
    Ok(request.body(()).map_err(text)?.into_parts().0)
}

/// What a target answers.
fn response() -> Result<ResponseHead, String> {
    let response = http::Response::builder()
        .header("server", "nginx/1.22.1")
        .header("date", "Sat, 21 Nov 2026 21:30:00 GMT")
        .header("content-type", "application/json")
        .header("content-length", "1024")
        .header("connection", "keep-alive")
        .header("x-powered-by", "php");
    Ok(response.body(()).map_err(text)?.into_parts().0)
}

fn token() -> Result<String, String> {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_err(text)?.as_secs();
    let claims = json!({ "iss": "https://id.example", "aud": "api", "sub": "user-7", "exp": now + 86_400 });
    let parts = [json!({ "alg": "HS256", "typ": "JWT" }), claims].map(|part| BASE64.encode(part.to_string()));
    let signed = parts.join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    Ok(format!("{signed}.{}", BASE64.encode(hmac::sign(&key, signed.as_bytes()))))
}
