//! A request against a snapshot, without sending it: the very table, steps and actions that `run` uses.

use crate::actions::{Proxy, Resort};
use crate::admit;
use crate::consumer::Identity;
use crate::exchange::{Exchange, RequestHead, authority};
use crate::forward;
use crate::grpc::Dialect;
use crate::grpc::web::Web;
use crate::listen::Listener;
use crate::listen::connection::Facts;
use crate::outcome;
use crate::reply::Kind;
use crate::route::{Lookup, Route};
use crate::snapshot::Snapshot;
use crate::value::query::{decoded_text, encode, split_pair};
use crate::value::{At, Sources, host_key};
use http::{HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Method.
    pub method: Method,
    /// An absolute URL, or a path.
    pub url: String,
    /// Header fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The other end of the connection.
    pub from: IpAddr,
    /// Listener the request comes in on; the first one if none is named.
    pub listener: Option<String>,
    /// Consumer that the caller is taken for, whatever the request proves.
    pub consumer: Option<String>,
    /// Bytes of request body.
    pub body: Option<u64>,
    /// Whether to tell every header field that would be sent upstream.
    pub trace: bool,
}

impl Question {
    /// As the query of `GET /explain` on the admin listener.
    pub fn to_query(&self) -> String {
        let mut query = format!("method={}&from={}&url=", self.method, self.from);
        encode(&mut query, &self.url);
        if let Some(listener) = &self.listener {
            query.push_str("&listener=");
            encode(&mut query, listener);
        }
        if let Some(consumer) = &self.consumer {
            query.push_str("&as=");
            encode(&mut query, consumer);
        }
        if let Some(body) = self.body {
            query.push_str(&format!("&body={body}"));
        }
        if self.trace {
            query.push_str("&trace=true");
        }
        for (name, value) in &self.headers {
            query.push_str("&header=");
            encode(&mut query, &format!("{name}: {}", value.to_str().unwrap_or_default()));
        }
        query
    }

    /// From such a query.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn from_query(query: &str) -> Result<Question, String> {
        let mut question = Question {
            method: Method::GET,
            url: String::new(),
            headers: Vec::new(),
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            listener: None,
            consumer: None,
            body: None,
            trace: false,
        };
        for (name, value) in query.split('&').map(split_pair) {
            let value = decoded_text(value.unwrap_or_default());
            let wrong = || format!("`{value}` cannot be the {name}");
            match name {
                "method" => question.method = value.parse().map_err(|_| wrong())?,
                "from" => question.from = value.parse().map_err(|_| wrong())?,
                "listener" => question.listener = Some(value.into_owned()),
                "url" => question.url = value.into_owned(),
                "header" => question.headers.push(header(&value)?),
                "as" => question.consumer = Some(value.into_owned()),
                "body" => question.body = Some(value.parse().map_err(|_| wrong())?),
                "trace" => question.trace = value.parse().map_err(|_| wrong())?,
                _ => {
                    return Err(format!(
                        "`{name}` is not known; known are method, url, header, from, listener, as, body, trace"
                    ));
                }
            }
        }
        Ok(question)
    }
}

/// Reads a header field, written `name: value`.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header field is written `name: value`")?;
    let name = name.trim().parse().map_err(|_| format!("`{name}` is not a header name"))?;
    let value = value.trim().parse();
    let value = value.map_err(|_| "the value has characters that a header cannot carry".to_owned())?;
    Ok((name, value))
}

/// What would happen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// The request in one line.
    pub request: String,
    /// `api.route`.
    pub route: Option<String>,
    /// Where the route is written.
    pub at: Option<String>,
    /// Its pattern.
    pub pattern: Option<String>,
    /// Routes that nearly matched.
    pub near: Vec<NearMiss>,
    /// Steps in order.
    pub steps: Vec<ExplainedStep>,
    /// What would be sent upstream.
    pub sent: Option<Sent>,
    /// What tollgate would answer itself.
    pub answered: Option<Answered>,
}

impl Explanation {
    /// Puts what is shown of values from outside through `mask`: in steps, in what would be sent, in what is answered.
    pub fn mask(&mut self, mask: impl Fn(&str) -> String) {
        self.steps.iter_mut().for_each(|step| step.what = mask(&step.what));
        if let Some(sent) = &mut self.sent {
            sent.url = mask(&sent.url);
            sent.host = mask(&sent.host);
            sent.headers.iter_mut().for_each(|field| *field = mask(field));
        }
        if let Some(location) = self.answered.as_mut().and_then(|answered| answered.location.as_mut()) {
            *location = mask(location);
        }
    }
}

/// A route that nearly matched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NearMiss {
    /// `api.route`.
    pub route: String,
    /// Why it did not.
    pub reason: String,
}

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainedStep {
    /// Its name.
    pub name: String,
    /// What it does with this request.
    pub what: String,
    /// Where it is configured.
    pub at: Option<String>,
}

/// A request to an upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// The upstream.
    pub upstream: String,
    /// The target that would be taken; another one may be the next time.
    pub target: String,
    /// Method.
    pub method: String,
    /// URL with the target's address.
    pub url: String,
    /// `Host`.
    pub host: String,
    /// Every header field, when that was asked for; credentials are kept back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

/// An answer made here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// Status.
    pub status: u16,
    /// The problem's code, for errors.
    pub reason: Option<String>,
    /// `Location`, for redirects.
    pub location: Option<String>,
}

/// Explains a request.
///
/// # Errors
/// The question cannot be a request: a sentence for the person who asked.
pub async fn explain(
    snapshot: &Snapshot,
    sources: &Sources,
    question: &Question,
) -> Result<Explanation, String> {
    let (number, listener) = listener(snapshot, question.listener.as_deref())?;
    let (mut head, secure) = head(question)?;
    let facts = Facts {
        listener: number,
        peer: Some(SocketAddr::new(question.from, 0)),
        local: None,
        secure,
        tls: None,
        trusted: listener.trusted.contains(question.from),
    };
    let mut x = Exchange { explaining: true, ..Exchange::default() };
    x.identity = question.consumer.as_deref().map(|name| assumed(snapshot, name)).transpose()?;
    admit::identify(&mut x, &head, &facts, listener, &snapshot.telemetry);
    let mut explaining =
        Explaining { snapshot, sources, trace: question.trace, told: Explanation::default() };
    explaining.told.request = format!("{} {}", question.method, question.url);
    explaining.client(&x, &facts);
    if admit::is_redirected(&x, listener) {
        explaining.redirected(&head, listener);
        return Ok(explaining.told);
    }
    let found = admit::find(&mut head, listener, number, snapshot);
    explaining.near(&head, number);
    match found {
        Err(problem) => explaining.answered(problem.kind.status, Some(problem.kind.code), None),
        Ok((route, params)) => {
            x.params = params;
            if let Some(route) = snapshot.routes.get(route as usize) {
                explaining.route(route, &head, &mut x).await;
            }
        }
    }
    Ok(explaining.told)
}

/// Somebody who has proven to be this consumer.
fn assumed(snapshot: &Snapshot, name: &str) -> Result<Arc<Identity>, String> {
    let name = name.strip_prefix("consumer=").unwrap_or(name);
    let consumer = snapshot.consumers.named(name).ok_or_else(|| {
        let mut known: Vec<&str> = snapshot.consumers.names().collect();
        known.sort_unstable();
        format!("there is no consumer `{name}`; defined are: {}", known.join(", "))
    })?;
    Ok(Arc::new(Identity::of_consumer(consumer, "explain")))
}

fn listener<'s>(snapshot: &'s Snapshot, name: Option<&str>) -> Result<(u16, &'s Listener), String> {
    let mut listeners = (0..).zip(&snapshot.listeners);
    match name {
        None => listeners.next().ok_or_else(|| "no listener is defined".to_owned()),
        Some(name) => listeners
            .find(|(_, listener)| listener.name.as_str() == name)
            .ok_or_else(|| format!("there is no listener `{name}`")),
    }
}

/// The head as a client would send it: origin-form and `Host`.
fn head(question: &Question) -> Result<(RequestHead, bool), String> {
    let url = &question.url;
    let (secure, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (false, Some(rest)),
        (_, Some(rest)) => (true, Some(rest)),
        _ => (false, None),
    };
    let (host, target) = match rest {
        Some(rest) => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
        None if url.starts_with('/') => ("localhost", url.as_str()),
        None => return Err(format!("`{url}` is neither a URL nor a path")),
    };
    let target = match target {
        "" => "/".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        target => target.to_owned(),
    };
    // Spaces and the like are escaped as the engine does it when they come over the wire.
    let target: Uri = target.replace(' ', "%20").parse().map_err(|_| format!("`{target}` is not a path"))?;
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = question.method.clone();
    head.uri = target;
    let host = HeaderValue::from_str(host).map_err(|_| format!("`{host}` is not a host"))?;
    head.headers.insert(http::header::HOST, host);
    if let Some(body) = question.body {
        head.headers.insert(http::header::CONTENT_LENGTH, body.into());
    }
    for (name, value) in &question.headers {
        if *name == http::header::HOST {
            head.headers.insert(name, value.clone());
        } else {
            head.headers.append(name, value.clone());
        }
    }
    Ok((head, secure))
}

struct Explaining<'a> {
    snapshot: &'a Snapshot,
    sources: &'a Sources,
    trace: bool,
    told: Explanation,
}

impl Explaining<'_> {
    fn step(&mut self, name: &str, what: String, at: At) {
        let at = if at.is_somewhere() { Some(self.sources.line(at)) } else { None };
        self.told.steps.push(ExplainedStep { name: name.to_owned(), what, at });
    }

    fn client(&mut self, x: &Exchange, facts: &Facts) {
        let how = match (facts.trusted, x.client_ip == x.peer_ip) {
            (true, false) => format!("{} (from X-Forwarded-For, behind {})", x.client_ip, x.peer_ip),
            (true, true) => format!("{} (a trusted proxy)", x.client_ip),
            (false, _) => x.client_ip.to_string(),
        };
        self.step("client", how, At::NOWHERE);
    }

    fn near(&mut self, head: &RequestHead, listener: u16) {
        let host = authority(head).and_then(host_key);
        let lookup = Lookup {
            host: host.as_deref(),
            path: head.uri.path(),
            query: head.uri.query(),
            method: &head.method,
            headers: &head.headers,
            listener,
        };
        let name = |route: u32| self.snapshot.routes.get(route as usize).map(|route| route.id.to_string());
        self.told.near = self
            .snapshot
            .table
            .near(&lookup, 3)
            .into_iter()
            .filter_map(|near| Some(NearMiss { route: name(near.rule.route)?, reason: near.reason }))
            .collect();
    }

    async fn route(&mut self, route: &Route, head: &RequestHead, x: &mut Exchange) {
        self.told.route = Some(route.id.to_string());
        self.told.at = Some(self.sources.line(route.at));
        self.told.pattern = Some(route.template.to_string());
        if route.is_public {
            self.step("auth", "pass  public".to_owned(), route.auth_at);
        }
        let told = route.chain.explain(head, x, |name, at, what| self.step(name, what, at)).await;
        if let Some(reply) = told {
            return self.answered(reply.status, reply.reason, None);
        }
        if let Some(cache) = &route.cache {
            self.step("cache", cache.explain(head, x), cache.at);
        }
        self.step("to", route.action.describe(), At::NOWHERE);
        if let Some(reply) = route.action.reply(head, x) {
            let location = reply.headers.iter().find(|(name, _)| *name == http::header::LOCATION);
            let location = location.and_then(|(_, value)| value.to_str().ok()).map(str::to_owned);
            return self.answered(reply.status, reply.reason, location);
        }
        if let Some(proxy) = route.action.proxy() {
            self.send(route, proxy, head, x);
        }
    }

    fn send(&mut self, route: &Route, proxy: &Proxy, head: &RequestHead, x: &Exchange) {
        let Some((number, arm)) = proxy.choose(head, x) else {
            return self.answered(Kind::NO_TARGET.status, Some(Kind::NO_TARGET.code), None);
        };
        let key = arm.target_key(head, x);
        let picked = arm.upstream.pick(key.as_ref().map(<[u8; 8]>::as_slice), &[]);
        let lease = match picked {
            Ok(lease) => Some(lease),
            // Names are resolved only while the gateway runs.
            Err(crate::upstream::PickError::NoTargets) => None,
            Err(why) => {
                let kind = outcome::unpicked(why).kind;
                if let Some(fallback) = route.fallback.as_ref().filter(|fallback| fallback.covers(kind)) {
                    self.step("upstream", format!("{}  {}", arm.name, kind.code), At::NOWHERE);
                    self.step("fallback", fallback.describe(), fallback.at);
                    let made = fallback.resorts.iter().find_map(|resort| match resort {
                        Resort::Respond(respond) => Some(respond.status()),
                        Resort::Stale | Resort::Upstream(_) => None,
                    });
                    return self.answered(made.unwrap_or(kind.status), Some(kind.code), None);
                }
                return self.answered(kind.status, Some(kind.code), None);
            }
        };
        let first = arm.upstream.spec().targets.first().map(|target| target.address.to_string());
        let target =
            lease.as_ref().map_or(first.unwrap_or_default(), |lease| lease.target().label().to_string());
        let mut upstream_head = head.clone();
        if let Some(lease) = &lease {
            forward::address(&mut upstream_head, lease.target());
        }
        let id = &self.snapshot.telemetry.request_id;
        forward::identify_client(&mut upstream_head, head, x, route.forwarded, id);
        if let Err(problem) = route.chain.on_upstream_request(&mut upstream_head, head, x) {
            return self.answered(problem.kind.status, Some(problem.kind.code), None);
        }
        self.translate(route, head, &mut upstream_head);
        let balance = arm.upstream.spec().balance.as_str();
        self.step(
            "upstream",
            format!("{}  target {target}  {balance}", proxy.explain(head, x, number, arm)),
            At::NOWHERE,
        );
        if let Some(mirror) = &route.mirror {
            self.step("mirror", mirror.describe(), mirror.at);
        }
        let timeouts = route.timeouts;
        let mut shown = format!(
            "connect {:?}, response {:?}, idle {:?}, stream idle {:?}",
            timeouts.connect, timeouts.response, timeouts.idle, timeouts.stream_idle
        );
        if let Some(deadline) = timeouts.deadline {
            shown.push_str(&format!(", calls {deadline:?}"));
        }
        if let Some(lifetime) = timeouts.websocket_lifetime {
            shown.push_str(&format!(", WebSockets {lifetime:?}"));
        }
        self.step("timeouts", shown, route.timeouts_at);
        self.step("retry", route.retry.to_string(), route.retry_at);
        if let Some(fallback) = &route.fallback {
            self.step("fallback", fallback.describe(), fallback.at);
        }
        if let Some(compress) = &route.compress {
            self.step("compress", compress.explain(head), compress.at);
        }
        let scheme = if arm.upstream.is_tls() { "https" } else { "http" };
        let path = upstream_head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let headers = if self.trace { fields(&upstream_head) } else { Vec::new() };
        self.told.sent = Some(Sent {
            headers,
            upstream: arm.name.to_string(),
            url: format!("{scheme}://{target}{path}"),
            method: upstream_head.method.to_string(),
            host: authority(&upstream_head).unwrap_or_default().to_owned(),
            target,
        });
    }

    /// A gRPC-Web call becomes one of gRPC.
    fn translate(&mut self, route: &Route, head: &RequestHead, upstream_head: &mut RequestHead) {
        let dialect = Dialect::of_request(&head.method, &head.headers).filter(|_| route.grpc_web);
        if let Some(dialect) = dialect
            && let Some(web) = Web::new(dialect, &head.headers)
        {
            web.ask(upstream_head);
            self.step("grpc_web", format!("translated from {}", dialect.media_type()), At::NOWHERE);
        }
    }

    /// The listener sends everything to https.
    fn redirected(&mut self, head: &RequestHead, listener: &Listener) {
        let checked = admit::check_redirected(head, listener);
        match checked.map(|()| admit::redirect_https(head, listener)) {
            Ok(Some(reply)) => {
                let location = reply.headers.first().and_then(|(_, value)| value.to_str().ok());
                self.answered(reply.status, None, location.map(str::to_owned));
            }
            Ok(None) => self.answered(Kind::INTERNAL.status, Some(Kind::INTERNAL.code), None),
            Err(problem) => self.answered(problem.kind.status, Some(problem.kind.code), None),
        }
    }

    fn answered(&mut self, status: u16, reason: Option<&str>, location: Option<String>) {
        self.told.answered = Some(Answered { status, reason: reason.map(str::to_owned), location });
    }
}

/// Header fields for people: what proves who somebody is stays secret.
fn fields(head: &RequestHead) -> Vec<String> {
    const SECRET: &[&str] = &["authorization", "cookie", "proxy-authorization", "x-api-key"];
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let field = |(name, value): (&HeaderName, &HeaderValue)| match SECRET.contains(&name.as_str()) {
        true => format!("{name}: [redacted]"),
        false => format!("{name}: {}", text(value)),
    };
    head.headers.iter().map(field).collect()
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.request)?;
        match (&self.route, &self.at, &self.pattern) {
            (Some(route), Some(at), Some(pattern)) => {
                writeln!(f, "route     {route:<28} {pattern:<28} {at}")?
            }
            _ => writeln!(f, "route     none matches")?,
        }
        for near in &self.near {
            writeln!(f, "  near    {:<28} {}", near.route, near.reason)?;
        }
        writeln!(f, "steps")?;
        for (number, step) in self.steps.iter().enumerate() {
            let line = format!(
                "  {:>2} {:<17} {:<45} {}",
                number + 1,
                step.name,
                step.what,
                step.at.as_deref().unwrap_or_default()
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        match (&self.sent, &self.answered) {
            (Some(Sent { method, url, host, headers, .. }), _) => {
                writeln!(f, "result  would be sent upstream as  {method} {url}  with Host {host}")?;
                headers.iter().try_for_each(|header| writeln!(f, "        {header}"))
            }
            (None, Some(Answered { status, reason, location })) => {
                let reason = reason.as_ref().map(|reason| format!("  {reason}")).unwrap_or_default();
                let location = location.as_ref().map(|location| format!("  {location}")).unwrap_or_default();
                writeln!(f, "result  would be answered here with  {status}{reason}{location}")
            }
            (None, None) => writeln!(f, "result  nothing"),
        }
    }
}
