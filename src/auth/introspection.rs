//! Opaque tokens, which the authorization server is asked about (RFC 7662): once for each token and a while, however many
//! requests carry it. When it cannot be asked, nothing is known (503).

use super::claims::{Forwarding, Require};
use super::credential::{Found, TokenSource};
use super::document;
use super::flight::{Digest, Failed, Flights, REMEMBERED, digest};
use super::{Check, Provider, Refusal, Verdict};
use crate::consumer::{Claims, Consumers, Identity, claim};
use crate::exchange::{Exchange, RequestHead};
use crate::reply::Kind;
use crate::upstream::endpoint::{Call, Endpoint};
use crate::upstream::{Answer, ClientError, Limits};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Longest token, bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// Largest answer, bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest name of a bearer, bytes.
const MAX_SUBJECT: usize = 256;
/// How far the server's clock may be ahead, seconds. Only for `nbf`: what has run out by our clock is not used.
const AHEAD: u64 = 30;

/// Proves opaque tokens.
pub struct Introspection {
    asker: Arc<Asker>,
    answers: Arc<Flights<Outcome>>,
    from: TokenSource,
    hide: bool,
}

/// Asks the server and judges its answers.
struct Asker {
    provider: Arc<str>,
    endpoint: Endpoint,
    /// Who tollgate is there.
    client: HeaderValue,
    limits: Limits,
    positive: Duration,
    negative: Duration,
    issuer: Option<String>,
    audience: Option<Vec<String>>,
    require: Require,
    forward: Forwarding,
    consumer: Option<String>,
    consumers: Arc<Consumers>,
    failing: AtomicBool,
}

/// What is known of a token.
#[derive(Clone, Debug)]
enum Outcome {
    Good(Arc<Identity>),
    Bad(Arc<Refusal>),
    Unknown(&'static str),
}

impl Introspection {
    /// Makes the provider `name` from what is written; `endpoint` is made from its `url` and `ca`.
    ///
    /// # Errors
    /// The client's name or secret cannot be sent; in words for the operator.
    pub fn new(
        name: &Arc<str>,
        written: &document::Introspection,
        endpoint: Endpoint,
        consumers: &Arc<Consumers>,
    ) -> Result<Self, String> {
        let span = |written: Option<crate::value::Span>, or: u64| {
            written.map_or(Duration::from_secs(or), |span| span.0)
        };
        let asker = Asker {
            provider: Arc::clone(name),
            endpoint,
            client: client(&written.client_id, written.client_secret.expose())?,
            limits: Limits { total: span(written.timeout.map(|timeout| *timeout), 2), max_body: MAX_ANSWER },
            positive: span(written.cache, 60),
            negative: span(written.negative, 5),
            issuer: written.issuer.clone(),
            audience: written.audience.as_ref().map(|audience| audience.0.clone()),
            require: Require::from(&written.require),
            forward: Forwarding::from(&written.forward),
            consumer: written.consumer.clone(),
            consumers: Arc::clone(consumers),
            failing: AtomicBool::new(false),
        };
        Ok(Introspection {
            asker: Arc::new(asker),
            answers: Flights::new(REMEMBERED),
            from: TokenSource::from(&written.from),
            hide: written.hide,
        })
    }

    /// Whether tokens are sent where others can read them: `http` to a host that is not this one.
    pub fn is_clear_text(&self) -> bool {
        self.asker.endpoint.is_clear_text()
    }

    async fn ask(&self, key: Digest, token: &str) -> Verdict {
        let (asker, token) = (Arc::clone(&self.asker), Zeroizing::new(token.to_owned()));
        match self.answers.ask(key, move || async move { asker.ask(&token, &key).await }).await {
            Ok(outcome) => outcome.verdict(),
            Err(Failed::TooMany) => Verdict::Unavailable("too many tokens are being asked about"),
            Err(Failed::Broken) => Verdict::Unavailable("the introspection broke down"),
        }
    }
}

impl Provider for Introspection {
    fn check<'a>(&'a self, request: &'a RequestHead, _: &Exchange) -> Check<'a> {
        let token = match self.from.find(request) {
            Found::Absent => return Check::Now(Verdict::Absent),
            Found::Malformed(detail) => return Check::Now(Verdict::Refused(malformed(detail))),
            Found::Token(token) => token,
        };
        if token.len() > MAX_TOKEN {
            return Check::Now(Verdict::Refused(invalid("too-large", "The token is too large.")));
        }
        let key = digest([token.as_bytes()]);
        match self.answers.known(&key) {
            Some(outcome) => Check::Now(outcome.verdict()),
            None => Check::Later(Box::pin(async move { self.ask(key, &token).await })),
        }
    }

    fn forwards(&self) -> &[HeaderName] {
        self.asker.forward.names()
    }

    fn remembered(&self) -> usize {
        self.answers.len()
    }

    fn hide(&self, head: &mut RequestHead) {
        self.from.hide(head, self.hide);
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("Bearer"))
    }
}

impl Outcome {
    fn verdict(self) -> Verdict {
        match self {
            Outcome::Good(identity) => Verdict::Accepted(identity),
            Outcome::Bad(refusal) => Verdict::Refused(Refusal::clone(&refusal)),
            Outcome::Unknown(why) => Verdict::Unavailable(why),
        }
    }
}

impl Asker {
    /// What the server says, and for how long that is remembered.
    async fn ask(&self, token: &str, key: &Digest) -> (Outcome, Duration) {
        let answer = self.endpoint.call(&self.call(token), self.limits).await;
        match self.note(read(answer)) {
            Ok(claims) => self.judge(claims, key, now()),
            Err(why) => (Outcome::Unknown(why), Duration::ZERO),
        }
    }

    fn call(&self, token: &str) -> Call {
        let mut body = String::with_capacity(token.len() + 40);
        body.push_str("token=");
        push_form(&mut body, token);
        body.push_str("&token_type_hint=access_token");
        Call {
            method: Method::POST,
            headers: vec![
                (AUTHORIZATION, self.client.clone()),
                (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
                (ACCEPT, HeaderValue::from_static("application/json")),
            ],
            body: Some(body.into()),
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

    fn judge(&self, claims: Claims, key: &Digest, now: u64) -> (Outcome, Duration) {
        let bad = |refusal, good_for| (Outcome::Bad(Arc::new(refusal)), good_for);
        if let Err((why, sentence)) = self.check(&claims, now) {
            return bad(invalid(why, sentence), self.negative);
        }
        let expires = claims.get("exp").and_then(seconds);
        let left = expires.map_or(self.positive, |end| Duration::from_secs(end.saturating_sub(now)));
        let good_for = left.min(self.positive);
        if let Err(refusal) = self.require.check(&claims) {
            return bad(refusal, good_for);
        }
        match self.identity(claims, key, expires) {
            Some(identity) => (Outcome::Good(Arc::new(identity)), good_for),
            None => bad(invalid("subject", "The token does not say whose it is."), self.negative),
        }
    }

    /// # Errors
    /// Why the token is not good: a word for the log and a sentence for the client.
    fn check(&self, claims: &Claims, now: u64) -> Result<(), (&'static str, &'static str)> {
        if claims.get("active") != Some(&Value::Bool(true)) {
            return Err(("inactive", "The token is not active."));
        }
        match claims.get("exp").map(seconds) {
            None => {}
            Some(Some(end)) if now < end => {}
            Some(_) => return Err(("expired", "The token has expired.")),
        }
        match claims.get("nbf").map(seconds) {
            None => {}
            Some(Some(begin)) if begin <= now.saturating_add(AHEAD) => {}
            Some(_) => return Err(("not-yet", "The token is not good yet.")),
        }
        // A token that must be used with a proof is no bearer token (RFC 9449 section 7.1).
        let is_bearer =
            |kind: &str| kind.eq_ignore_ascii_case("bearer") || kind.eq_ignore_ascii_case("access_token");
        if claims.get("token_type").is_some_and(|kind| !kind.as_str().is_some_and(is_bearer)) {
            return Err(("type", "The token is not a bearer token."));
        }
        if let (Some(wanted), Some(issuer)) = (&self.issuer, claims.get("iss"))
            && issuer.as_str() != Some(wanted)
        {
            return Err(("issuer", "The token is of another issuer."));
        }
        match &self.audience {
            Some(wanted) if !is_for(claims.get("aud"), wanted) => {
                Err(("audience", "The token is meant for somebody else."))
            }
            _ => Ok(()),
        }
    }

    fn identity(&self, claims: Claims, key: &Digest, expires: Option<u64>) -> Option<Identity> {
        let called = match &self.consumer {
            Some(path) => subject(claim(&claims, path)?)?,
            None => ["sub", "client_id"].iter().find_map(|member| subject(claims.get(*member)?))?,
        };
        let consumer = self.consumers.named(&called).cloned();
        Some(Identity {
            subject: consumer.as_ref().map_or(called, |consumer| Arc::clone(&consumer.name)),
            consumer,
            provider: Arc::clone(&self.provider),
            credential: fingerprint(key),
            forward: self.forward.fields(&claims),
            claims: Some(claims),
            expires,
        })
    }
}

/// The members of the answer, if it is one (RFC 7662 section 2.2).
fn read(answer: Result<Answer, ClientError>) -> Result<Claims, &'static str> {
    let answer = answer.map_err(|error| match error {
        ClientError::Timeout => "the introspection endpoint did not answer in time",
        ClientError::TooLarge(_) => "the answer of the introspection endpoint is too large",
        ClientError::Connect(_) => "the introspection endpoint cannot be reached",
        ClientError::Unsendable(_) | ClientError::Broken(_) => "the introspection endpoint broke off",
    })?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            return Err("the introspection endpoint refuses client_id or client_secret");
        }
        _ => return Err("the introspection endpoint answered with an error"),
    }
    match serde_json::from_slice(&answer.body) {
        Ok(Value::Object(claims)) if claims.get("active").is_some_and(Value::is_boolean) => Ok(claims),
        _ => Err("the answer of the introspection endpoint is not one of RFC 7662"),
    }
}

/// `client_secret_basic`: both parts are encoded as in a form before they are joined (RFC 6749 section 2.3.1).
fn client(id: &str, secret: &str) -> Result<HeaderValue, String> {
    let mut joined = Zeroizing::new(String::new());
    push_form(&mut joined, id);
    joined.push(':');
    push_form(&mut joined, secret);
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(&*joined)))
        .map_err(|_| "`client_id` and `client_secret` cannot be sent".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// `application/x-www-form-urlencoded` (WHATWG URL section 5.2).
fn push_form(out: &mut String, text: &str) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |value: u8| HEX.get(usize::from(value)).copied().unwrap_or('0');
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => out.extend(['%', digit(other >> 4), digit(other & 15)]),
        }
    }
}

/// A time in seconds since 1970; some servers write fractions.
fn seconds(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_f64().filter(|time| *time >= 0.0 && time.is_finite()).map(|time| time as u64))
}

fn is_for(audience: Option<&Value>, wanted: &[String]) -> bool {
    let is_wanted = |value: &Value| value.as_str().is_some_and(|text| wanted.iter().any(|one| one == text));
    match audience {
        Some(Value::Array(values)) => values.iter().any(is_wanted),
        Some(value) => is_wanted(value),
        None => false,
    }
}

/// The name of a bearer; it ends in logs and keys of limits.
fn subject(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::String(text) => {
            let is_usable =
                !text.is_empty() && text.len() <= MAX_SUBJECT && !text.chars().any(char::is_control);
            is_usable.then(|| text.as_str().into())
        }
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// Enough of the digest to tell tokens apart in a log.
fn fingerprint(key: &Digest) -> Arc<str> {
    let [a, b, c, d, e, f, ..] = *key;
    format!("{:012x}", u64::from_be_bytes([0, 0, a, b, c, d, e, f])).into()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn invalid(why: &'static str, sentence: &'static str) -> Refusal {
    Refusal {
        kind: Kind::INVALID_TOKEN,
        why,
        error: Some("invalid_token"),
        detail: sentence.into(),
        scope: None,
    }
}

/// `invalid_request` of RFC 6750 section 3.1.
fn malformed(detail: &'static str) -> Refusal {
    Refusal {
        kind: Kind::BAD_REQUEST,
        why: "malformed",
        error: Some("invalid_request"),
        detail: detail.into(),
        scope: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::{Says, StandIn, judged, ok, request, until, word};
    use super::*;
    use crate::consumer::Consumer;
    use crate::value::{OneOrMany, Positive, Secret, Span, Spanned};

    const PATH: &str = "/introspect";

    fn written(server: &StandIn) -> document::Introspection {
        document::Introspection {
            url: Spanned::built_in(server.url(PATH)),
            client_id: "gate way".to_owned(),
            client_secret: Secret::new("s:é".to_owned()),
            from: document::TokenFrom::default(),
            cache: None,
            negative: None,
            timeout: Positive::new(Span::secs(10)),
            ca: None,
            issuer: None,
            audience: None,
            require: crate::value::Map::default(),
            consumer: None,
            forward: crate::value::Map::default(),
            hide: false,
        }
    }

    fn provider(server: &StandIn, written: &document::Introspection) -> Introspection {
        let known = Consumer { name: "acme".into(), plan: None, tags: Vec::new() };
        let consumers = Arc::new(Consumers::new([("acme-id".into(), Arc::new(known))]));
        Introspection::new(&"opaque".into(), written, server.endpoint(PATH), &consumers).unwrap()
    }

    async fn ask(provider: &Introspection, token: &str) -> (String, bool) {
        let head = request("GET", "/", &[("authorization", &format!("Bearer {token}"))]);
        let (verdict, at_once) = judged(provider, &head, &Exchange::default()).await;
        (word(&verdict), at_once)
    }

    #[tokio::test]
    async fn a_token_is_asked_about_once_and_the_question_is_as_it_should_be() {
        let server = StandIn::new().await;
        server.say(PATH, ok(r#"{"active":true,"sub":"acme-id","scope":"read"}"#));
        *server.delay.lock() = Duration::from_millis(50);
        let provider = Arc::new(provider(&server, &written(&server)));
        let asking: Vec<_> = (0..20)
            .map(|_| {
                let provider = provider.clone();
                tokio::spawn(async move { ask(&provider, "a+b/c=").await.0 })
            })
            .collect();
        for asking in asking {
            assert_eq!(asking.await.unwrap(), "accepted acme", "the consumer that is called so");
        }
        assert_eq!(ask(&provider, "a+b/c=").await, ("accepted acme".to_owned(), true));
        assert_eq!(server.count(PATH), 1);
        let asked = server.asked().remove(0).to_lowercase();
        assert!(asked.starts_with("post /introspect http/1.1\r\n"), "{asked}");
        assert!(asked.ends_with("\r\n\r\ntoken=a%2bb%2fc%3d&token_type_hint=access_token"), "{asked}");
        let credential = STANDARD.encode("gate+way:s%3A%C3%A9").to_lowercase();
        assert!(asked.contains(&format!("authorization: basic {credential}\r\n")), "{asked}");
    }

    #[tokio::test]
    async fn answers_are_remembered_as_long_as_they_are_good() {
        let server = StandIn::new().await;
        let spans = document::Introspection {
            cache: Some(Span::secs(60)),
            negative: Some(Span::millis(30)),
            ..written(&server)
        };
        let provider = provider(&server, &spans);
        server.say(PATH, ok(r#"{"active":false}"#));
        assert_eq!(ask(&provider, "x").await.0, "refused 401 inactive");
        assert_eq!(ask(&provider, "x").await, ("refused 401 inactive".to_owned(), true));
        let key = digest([&b"x"[..]]);
        until("the answer ran out", || provider.answers.known(&key).is_none()).await;
        server.say(PATH, ok(format!(r#"{{"active":true,"client_id":"c","exp":{}}}"#, now() + 1)));
        assert_eq!(ask(&provider, "x").await, ("accepted c".to_owned(), false));
        until("the token has expired", || provider.answers.known(&key).is_none()).await;
        assert_eq!(ask(&provider, "x").await, ("refused 401 expired".to_owned(), false));
        assert_eq!(server.count(PATH), 3);
    }

    #[tokio::test]
    async fn when_the_server_cannot_say_nothing_is_known_and_nothing_remembered() {
        let server = StandIn::new().await;
        let short = document::Introspection { timeout: Positive::new(Span::millis(300)), ..written(&server) };
        let provider = provider(&server, &short);
        let huge = format!(r#"{{"active":true,"sub":"{}"}}"#, "x".repeat(MAX_ANSWER));
        for says in [
            Says::This(500, "", String::new()),
            Says::This(401, "", r#"{"active":true,"sub":"x"}"#.to_owned()),
            Says::This(302, "location: /ok\r\n", String::new()),
            Says::Noise,
            Says::Nothing,
            ok(huge),
            ok("[]"),
            ok(r#"{"active":"true","sub":"x"}"#),
            ok(r#"{"sub":"x"}"#),
            ok(""),
        ] {
            server.say(PATH, says.clone());
            assert_eq!(ask(&provider, "x").await, ("unavailable".to_owned(), false), "{says:?}");
        }
        server.say(PATH, ok(r#"{"active":true,"sub":"x"}"#));
        assert_eq!(ask(&provider, "x").await.0, "accepted x");
    }

    #[tokio::test]
    async fn what_the_server_says_is_checked() {
        let server = StandIn::new().await;
        let mut strict = written(&server);
        strict.issuer = Some("https://i".to_owned());
        strict.audience = Some(OneOrMany(vec!["api".to_owned(), "other".to_owned()]));
        let rule = document::ClaimRule { any: Vec::new(), all: vec!["read".to_owned()] };
        strict.require = crate::value::Map(vec![(Spanned::built_in("scope".to_owned()), rule)]);
        let provider = provider(&server, &strict);
        let (past, soon) = (now() - 1, now() + 300);
        for (number, (members, expected)) in [
            (r#""aud":"api","scope":"read""#.to_owned(), "accepted s"),
            (
                r#""aud":["x","other"],"iss":"https://i","scope":"a read","token_type":"bearer""#.to_owned(),
                "accepted s",
            ),
            (format!(r#""aud":"api","scope":"read","exp":{soon}.5,"nbf":{past}"#), "accepted s"),
            (r#""scope":"read""#.to_owned(), "refused 401 audience"),
            (r#""aud":"apis","scope":"read""#.to_owned(), "refused 401 audience"),
            (r#""aud":"api","iss":"https://i/","scope":"read""#.to_owned(), "refused 401 issuer"),
            (r#""aud":"api","scope":"write""#.to_owned(), "refused 403 scope"),
            (format!(r#""aud":"api","scope":"read","exp":{past}"#), "refused 401 expired"),
            (r#""aud":"api","scope":"read","exp":"never""#.to_owned(), "refused 401 expired"),
            (r#""aud":"api","scope":"read","exp":-1"#.to_owned(), "refused 401 expired"),
            (format!(r#""aud":"api","scope":"read","nbf":{soon}"#), "refused 401 not-yet"),
            (r#""aud":"api","scope":"read","token_type":"DPoP""#.to_owned(), "refused 401 type"),
            (r#""aud":"api","scope":"read","sub":"""#.to_owned(), "refused 401 subject"),
        ]
        .into_iter()
        .enumerate()
        {
            server.say(PATH, ok(format!(r#"{{"active":true,"sub":"s",{members}}}"#)));
            assert_eq!(ask(&provider, &format!("t{number}")).await.0, expected, "{members}");
        }
        assert_eq!(
            ask(&provider, &"x".repeat(MAX_TOKEN + 1)).await,
            ("refused 401 too-large".to_owned(), true)
        );
        let none = judged(&provider, &request("GET", "/", &[]), &Exchange::default()).await;
        assert_eq!(word(&none.0), "absent");
    }
}
