//! Another service decides: it is asked with the facts of the request; 2xx lets it pass, anything below 500 is relayed to
//! the client. When it cannot be asked, nothing is known (503): nobody passes because a service is down.

use super::document;
use super::flight::{Digest, Failed, Flights, REMEMBERED, digest};
use super::{Check, Provider, Verdict};
use crate::consumer::{Consumers, Identity};
use crate::exchange::{Exchange, RequestHead, address_text, authority};
use crate::reply::Reply;
use crate::upstream::endpoint::{Call, Endpoint};
use crate::upstream::{Answer, ClientError, Limits};
use http::header::{self, HeaderMap};
use http::{HeaderName, HeaderValue};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Why an answer is another service's: `reason` of what is relayed.
pub const RELAYED: &str = "forward-auth";
/// Longest name of a consumer, bytes.
const MAX_SUBJECT: usize = 256;

static METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
static FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Asks another service.
pub struct Forward {
    asker: Arc<Asker>,
    send: Vec<HeaderName>,
    cache: Option<Arc<Flights<Outcome>>>,
}

struct Asker {
    provider: Arc<str>,
    endpoint: Endpoint,
    limits: Limits,
    copy: Vec<HeaderName>,
    consumer: Option<HeaderName>,
    consumers: Arc<Consumers>,
    cache: Duration,
    failing: AtomicBool,
}

/// What the service has decided.
#[derive(Clone, Debug)]
enum Outcome {
    /// Let it pass; this is who it is.
    Named(Arc<Identity>),
    /// Let it pass, with these fields for the upstream.
    Unnamed(Arc<[(HeaderName, HeaderValue)]>),
    /// Give this to the client.
    Relay(Arc<Reply>),
    Unknown(&'static str),
}

impl Forward {
    /// Makes the provider `name` from what is written; `endpoint` is made from its `url` and `ca`.
    pub fn new(
        name: &Arc<str>,
        written: &document::Forward,
        endpoint: Endpoint,
        consumers: &Arc<Consumers>,
    ) -> Self {
        let names =
            |keys: &[crate::value::HeaderKey]| keys.iter().map(|key| key.0.clone()).collect::<Vec<_>>();
        let ours = [&METHOD, &PROTO, &HOST, &URI, &FOR, &REQUEST_ID];
        let mut send = match &written.send {
            Some(send) => names(send),
            None => vec![header::AUTHORIZATION, header::COOKIE],
        };
        send.retain(|name| !ours.contains(&name));
        let max_body =
            written.max_body.map_or(64 * 1024, |size| usize::try_from(size.0).unwrap_or(usize::MAX));
        let cache = written.cache.map_or(Duration::ZERO, |span| span.0);
        Forward {
            asker: Arc::new(Asker {
                provider: Arc::clone(name),
                endpoint,
                limits: Limits {
                    total: written.timeout.map_or(Duration::from_secs(2), |span| span.0),
                    max_body,
                },
                copy: names(&written.copy),
                consumer: written.consumer.as_ref().map(|key| key.0.clone()),
                consumers: Arc::clone(consumers),
                cache,
                failing: AtomicBool::new(false),
            }),
            send,
            cache: (!cache.is_zero()).then(|| Flights::new(REMEMBERED)),
        }
    }

    /// Whether credentials are sent where others can read them: `http` to a host that is not this one.
    pub fn is_clear_text(&self) -> bool {
        self.asker.endpoint.is_clear_text()
    }

    async fn ask(&self, cache: &Arc<Flights<Outcome>>, key: Digest, call: Call) -> Outcome {
        let asker = Arc::clone(&self.asker);
        let asked = cache.ask(key, move || async move {
            let (outcome, is_decision) = asker.ask(&call).await;
            (outcome, if is_decision { asker.cache } else { Duration::ZERO })
        });
        asked.await.unwrap_or_else(|failed| match failed {
            Failed::TooMany => Outcome::Unknown("too many requests are being asked about"),
            Failed::Broken => Outcome::Unknown("the question to the auth service broke down"),
        })
    }

    fn call(&self, request: &RequestHead, x: &Exchange) -> Call {
        let mut headers = Vec::with_capacity(self.send.len() + 6);
        let mut add = |name: &HeaderName, text: &[u8]| {
            headers.extend(HeaderValue::from_bytes(text).ok().map(|value| (name.clone(), value)));
        };
        add(&METHOD, request.method.as_str().as_bytes());
        add(&PROTO, x.scheme().as_bytes());
        add(&HOST, authority(request).unwrap_or_default().as_bytes());
        add(&URI, target(request).as_bytes());
        add(&FOR, &address_text(x.client_ip));
        if !x.request_id.is_empty() {
            add(&REQUEST_ID, x.request_id.as_bytes());
        }
        for name in &self.send {
            let values = request.headers.get_all(name).iter();
            headers.extend(values.map(|value| (name.clone(), value.clone())));
        }
        Call::get(headers)
    }

    /// What the decision may depend on, but for the client's address.
    fn key(&self, request: &RequestHead, x: &Exchange) -> Digest {
        let facts =
            [request.method.as_str(), x.scheme(), authority(request).unwrap_or_default(), target(request)];
        let sent = self.send.iter().flat_map(|name| {
            // The name goes before each of its values, so that values do not wander from one name to another.
            request
                .headers
                .get_all(name)
                .iter()
                .flat_map(move |value| [name.as_str().as_bytes(), value.as_bytes()])
        });
        digest(facts.map(str::as_bytes).into_iter().chain(sent))
    }
}

impl Provider for Forward {
    fn check<'a>(&'a self, request: &'a RequestHead, x: &Exchange) -> Check<'a> {
        let client = x.client_ip;
        let Some(cache) = &self.cache else {
            let call = self.call(request, x);
            return Check::Later(Box::pin(async move {
                let (outcome, _) = self.asker.ask(&call).await;
                self.asker.verdict(outcome, client)
            }));
        };
        let key = self.key(request, x);
        if let Some(outcome) = cache.known(&key) {
            return Check::Now(self.asker.verdict(outcome, client));
        }
        let call = self.call(request, x);
        Check::Later(Box::pin(async move {
            let outcome = self.ask(cache, key, call).await;
            self.asker.verdict(outcome, client)
        }))
    }

    fn forwards(&self) -> &[HeaderName] {
        &self.asker.copy
    }

    fn remembered(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.len())
    }
}

impl Asker {
    /// What the service decides, and whether that may be remembered.
    async fn ask(&self, call: &Call) -> (Outcome, bool) {
        let answer = self.endpoint.call(call, self.limits).await.map_err(|error| match error {
            ClientError::Timeout => "the auth service did not answer in time",
            ClientError::TooLarge(_) => "the answer of the auth service is too large",
            ClientError::Connect(_) => "the auth service cannot be reached",
            ClientError::Unsendable(_) | ClientError::Broken(_) => "the auth service broke off",
        });
        let answer = self.note(answer.and_then(|answer| match answer.status.is_server_error() {
            true => Err("the auth service failed"),
            false => Ok(answer),
        }));
        match answer {
            Err(why) => (Outcome::Unknown(why), false),
            Ok(answer) if answer.status.is_success() => (self.pass(&answer.headers), true),
            Ok(answer) => {
                let is_decision = matches!(answer.status.as_u16(), 401 | 403);
                (Outcome::Relay(Arc::new(relayed(answer))), is_decision)
            }
        }
    }

    /// Logs the first failure of a row, and its end.
    fn note<T>(&self, answer: Result<T, &'static str>) -> Result<T, &'static str> {
        let was = self.failing.swap(answer.is_err(), Ordering::Relaxed);
        match &answer {
            Err(why) if !was => log::warn!("provider `{}`: {}: {why}", self.provider, self.endpoint.url()),
            Ok(_) if was => log::info!("provider `{}`: {} answers again", self.provider, self.endpoint.url()),
            _ => {}
        }
        answer
    }

    fn pass(&self, headers: &HeaderMap) -> Outcome {
        let of =
            |name| headers.get_all(name).iter().map(move |value| (HeaderName::clone(name), value.clone()));
        let forward: Vec<_> = self.copy.iter().flat_map(of).collect();
        let named = self.consumer.as_ref().and_then(|name| headers.get(name)).and_then(subject);
        match named {
            Some(subject) => Outcome::Named(Arc::new(self.identity(subject, forward))),
            None => Outcome::Unnamed(forward.into()),
        }
    }

    fn identity(&self, called: Arc<str>, forward: Vec<(HeaderName, HeaderValue)>) -> Identity {
        let consumer = self.consumers.named(&called).cloned();
        Identity {
            subject: consumer
                .as_ref()
                .map_or_else(|| Arc::clone(&called), |consumer| Arc::clone(&consumer.name)),
            consumer,
            provider: Arc::clone(&self.provider),
            credential: called,
            claims: None,
            forward,
            expires: None,
        }
    }

    /// A caller that the service does not name is known by its address, so that limits can tell callers apart.
    fn verdict(&self, outcome: Outcome, client: IpAddr) -> Verdict {
        match outcome {
            Outcome::Named(identity) => Verdict::Accepted(identity),
            Outcome::Unnamed(fields) => {
                let subject: Arc<str> = format!("{}/{client}", self.provider).into();
                Verdict::Accepted(Arc::new(Identity {
                    subject: Arc::clone(&subject),
                    consumer: None,
                    provider: Arc::clone(&self.provider),
                    credential: subject,
                    claims: None,
                    forward: fields.to_vec(),
                    expires: None,
                }))
            }
            Outcome::Relay(reply) => Verdict::Answered(Box::new(Reply::clone(&reply))),
            Outcome::Unknown(why) => Verdict::Unavailable(why),
        }
    }
}

fn target(request: &RequestHead) -> &str {
    request.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// The name of a consumer; it ends in logs and keys of limits.
fn subject(value: &HeaderValue) -> Option<Arc<str>> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?.trim();
    let is_usable = !text.is_empty() && text.len() <= MAX_SUBJECT && !text.chars().any(char::is_control);
    is_usable.then(|| text.into())
}

/// The answer for the client: what concerns only the connection it came on stays here (RFC 9110 section 7.6.1).
fn relayed(answer: Answer) -> Reply {
    let nominated: Vec<HeaderName> = answer
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let stays = |name: &HeaderName| is_of_connection(name) || nominated.contains(name);
    let headers = answer.headers.iter().filter(|(name, _)| !stays(name));
    Reply {
        status: answer.status.as_u16(),
        headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
        body: answer.body,
        reason: Some(RELAYED),
        problem: None,
    }
}

fn is_of_connection(name: &HeaderName) -> bool {
    const FRAMING: [HeaderName; 9] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::DATE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    FRAMING.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::{Says, StandIn, judged, ok, request, word};
    use super::*;
    use crate::value::{ByteSize, HeaderKey, Positive, Span, Spanned};

    const PATH: &str = "/check?by=gateway";

    fn keys(names: &[&str]) -> Vec<HeaderKey> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn written() -> document::Forward {
        document::Forward {
            url: Spanned::built_in(String::new()),
            send: None,
            copy: keys(&["x-user", "x-roles"]),
            consumer: Some("x-user".parse().unwrap()),
            timeout: Positive::new(Span::secs(10)),
            cache: None,
            max_body: Positive::new(ByteSize(100)),
            ca: None,
        }
    }

    fn provider(server: &StandIn, written: &document::Forward) -> Forward {
        Forward::new(&"sso".into(), written, server.endpoint(PATH), &Arc::default())
    }

    fn exchange() -> Exchange {
        Exchange {
            client_ip: "192.0.2.7".parse().unwrap(),
            request_id: HeaderValue::from_static("id-1"),
            secure: true,
            ..Exchange::default()
        }
    }

    async fn ask(provider: &Forward, head: &RequestHead) -> (Verdict, bool) {
        judged(provider, head, &exchange()).await
    }

    #[tokio::test]
    async fn the_service_learns_the_facts_and_names_the_caller() {
        let server = StandIn::new().await;
        let fields = "x-user: ann\r\nx-roles: a\r\nx-roles: b\r\nx-other: no\r\n";
        server.say(PATH, Says::This(204, fields, String::new()));
        let provider = provider(&server, &written());
        let sent = [
            ("host", "shop.test:81"),
            ("authorization", "Custom abc"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-user", "root"),
            ("x-forwarded-for", "10.0.0.1"),
            ("content-length", "5"),
        ];
        let (verdict, _) = ask(&provider, &request("POST", "/a%20b/c?d=e%2F", &sent)).await;
        let Verdict::Accepted(identity) = verdict else { panic!("{verdict:?}") };
        assert_eq!((&*identity.subject, &*identity.provider), ("ann", "sso"));
        let forward: Vec<_> =
            identity.forward.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(forward, [("x-user", "ann"), ("x-roles", "a"), ("x-roles", "b")]);
        assert_eq!(provider.forwards(), ["x-user", "x-roles"]);
        let asked = server.asked().remove(0).to_lowercase();
        assert!(asked.starts_with("get /check?by=gateway http/1.1\r\n"), "{asked}");
        for line in [
            "x-forwarded-method: post",
            "x-forwarded-proto: https",
            "x-forwarded-host: shop.test:81",
            "x-forwarded-uri: /a%20b/c?d=e%2f",
            "x-forwarded-for: 192.0.2.7",
            "x-request-id: id-1",
            "authorization: custom abc",
            "cookie: a=1",
            "cookie: b=2",
            &format!("host: {}", server.address),
        ] {
            assert_eq!(asked.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {asked}");
        }
        assert!(
            !asked.contains("root") && !asked.contains("10.0.0.1") && !asked.contains("content-length"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn a_caller_without_a_name_is_known_by_its_address() {
        let server = StandIn::new().await;
        server.say(PATH, ok("ignored"));
        let cached = document::Forward { cache: Some(Span::secs(60)), ..written() };
        for provider in [provider(&server, &written()), provider(&server, &cached)] {
            let head = request("GET", "/", &[]);
            assert_eq!(word(&ask(&provider, &head).await.0), "accepted sso/192.0.2.7");
            let other = Exchange { client_ip: "192.0.2.8".parse().unwrap(), ..exchange() };
            assert_eq!(word(&judged(&provider, &head, &other).await.0), "accepted sso/192.0.2.8");
        }
        assert_eq!(server.count(PATH), 3, "two without a cache, one with");
    }

    #[tokio::test]
    async fn what_is_below_500_is_relayed() {
        let server = StandIn::new().await;
        let provider = provider(&server, &written());
        let fields = "location: https://login/?a=b\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nwww-authenticate: X\r\n\
                      content-type: text/x\r\nconnection: keep-alive, x-hop\r\nkeep-alive: timeout=5\r\nx-hop: 1\r\n";
        for status in [302, 400, 401, 403, 404, 429] {
            server.say(PATH, Says::This(status, fields, "sorry".to_owned()));
            let (verdict, _) = ask(&provider, &request("GET", "/", &[])).await;
            let Verdict::Answered(reply) = verdict else { panic!("{verdict:?}") };
            let names: Vec<_> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["location", "set-cookie", "set-cookie", "www-authenticate", "content-type"]);
            assert_eq!((reply.status, &*reply.body, reply.reason), (status, &b"sorry"[..], Some(RELAYED)));
        }
    }

    #[tokio::test]
    async fn when_the_service_cannot_say_nobody_passes() {
        let server = StandIn::new().await;
        let short = document::Forward {
            timeout: Positive::new(Span::millis(300)),
            cache: Some(Span::secs(60)),
            ..written()
        };
        let provider = provider(&server, &short);
        let head = request("GET", "/", &[]);
        for says in [
            Says::This(500, "", String::new()),
            Says::This(503, "", String::new()),
            Says::Noise,
            Says::Nothing,
            Says::This(401, "", "x".repeat(101)),
        ] {
            server.say(PATH, says.clone());
            assert_eq!(word(&ask(&provider, &head).await.0), "unavailable", "{says:?}");
        }
        server.say(PATH, ok(""));
        assert_eq!(
            word(&ask(&provider, &head).await.0),
            "accepted sso/192.0.2.7",
            "a failure is not remembered"
        );
    }

    #[tokio::test]
    async fn decisions_are_remembered_by_all_they_may_depend_on() {
        let server = StandIn::new().await;
        let cached =
            document::Forward { cache: Some(Span::secs(60)), send: Some(keys(&["x-a", "x-b"])), ..written() };
        let provider = provider(&server, &cached);
        let heads = [
            request("GET", "/a", &[("host", "one")]),
            request("POST", "/a", &[("host", "one")]),
            request("GET", "/a?", &[("host", "one")]),
            request("GET", "/b", &[("host", "one")]),
            request("GET", "/a", &[("host", "two")]),
            request("GET", "/a", &[("host", "one"), ("x-a", "1")]),
            request("GET", "/a", &[("host", "one"), ("x-b", "1")]),
            request("GET", "/a", &[("host", "one"), ("x-a", "1"), ("x-a", "2")]),
        ];
        for (says, is_remembered) in [
            (Says::This(200, "x-user: u\r\n", String::new()), true),
            (Says::This(403, "", "no".to_owned()), true),
            (Says::This(429, "", String::new()), false),
            (Says::This(302, "location: /\r\n", String::new()), false),
        ] {
            server.say(PATH, says.clone());
            provider.cache.as_ref().unwrap().forget();
            let before = server.count(PATH);
            for _ in 0..2 {
                for head in &heads {
                    ask(&provider, head).await;
                }
            }
            let asked = server.count(PATH) - before;
            assert_eq!(asked, if is_remembered { heads.len() } else { 2 * heads.len() }, "{says:?}");
        }
    }
}
