//! A small identity provider: discovery, a set of keys, token introspection. It counts what it is asked, signs tokens,
//! and goes wrong in the way it is told.

use super::answer::Answer;
use super::message::Request;
use super::tokens::{SigningKey, basic, now, with};
use super::upstream::Upstream;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/keys";
const INTROSPECTION: &str = "/introspect";
/// Who may ask the introspection endpoint, and with what secret. Both need encoding (RFC 6749 section 2.3.1).
pub const CLIENT: (&str, &str) = ("gate way", "s:cret+1");

/// What it does with questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// As it should.
    Right,
    /// As it should, after this time.
    Slow(Duration),
    /// Something that is not JSON.
    Garbage,
    /// 500.
    Error,
    /// A right answer that is larger than any sensible one.
    Huge,
    /// Discovery of another issuer.
    WrongIssuer,
    /// No keys.
    Empty,
}

/// A running identity provider.
pub struct Idp {
    server: Upstream,
    state: Arc<State>,
}

struct State {
    says: Mutex<Says>,
    /// What is published, and who signs: the last one.
    keys: Mutex<Vec<Arc<SigningKey>>>,
    made: Mutex<usize>,
    /// What is known of opaque tokens.
    granted: Mutex<BTreeMap<String, Value>>,
}

impl Idp {
    /// Starts with one key, `key-1`, of ES256.
    pub fn start() -> Self {
        let state = Arc::new(State {
            says: Mutex::new(Says::Right),
            keys: Mutex::default(),
            made: Mutex::default(),
            granted: Mutex::default(),
        });
        let told = Arc::clone(&state);
        let idp = Idp { server: Upstream::start(move |request| told.answer(request)), state };
        idp.rotate();
        idp
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// `iss` of its tokens.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// From now on it answers so.
    pub fn says(&self, says: Says) {
        *self.state.says.lock().unwrap() = says;
    }

    /// Stops listening and cuts its connections; the address stays its own.
    pub fn down(&self) {
        self.server.down();
    }

    /// Listens again where it did before.
    pub fn up(&self) {
        self.server.up();
    }

    /// Publishes a new key in the place of all others, and signs with it.
    pub fn rotate(&self) {
        let key = self.unpublished();
        self.publish(vec![key]);
    }

    /// A new key that is published nowhere.
    pub fn unpublished(&self) -> SigningKey {
        let mut made = self.state.made.lock().unwrap();
        *made += 1;
        SigningKey::es256(&format!("key-{made}"))
    }

    /// Publishes these keys and signs with the last.
    pub fn publish(&self, keys: Vec<SigningKey>) {
        *self.state.keys.lock().unwrap() = keys.into_iter().map(Arc::new).collect();
    }

    /// The key it signs with.
    pub fn key(&self) -> Arc<SigningKey> {
        Arc::clone(self.state.keys.lock().unwrap().last().unwrap())
    }

    /// The claims of a good token, and over them these; a null removes.
    pub fn claims(&self, over: Value) -> Value {
        let good = json!({ "iss": self.issuer(), "aud": "api", "sub": "ann", "exp": now() + 600 });
        with(good, over)
    }

    /// A good token with these claims over those of every good token.
    pub fn token(&self, over: Value) -> String {
        self.key().token(&self.claims(over))
    }

    /// Says this of an opaque token when it is asked; of unknown ones it says that they are not active.
    pub fn grant(&self, token: &str, answer: Value) {
        self.state.granted.lock().unwrap().insert(token.to_owned(), answer);
    }

    /// How often discovery was asked for.
    pub fn discoveries(&self) -> usize {
        self.asked(DISCOVERY)
    }

    /// How often keys were asked for.
    pub fn key_fetches(&self) -> usize {
        self.asked(KEYS)
    }

    /// How often it was asked about an opaque token.
    pub fn introspections(&self) -> usize {
        self.asked(INTROSPECTION)
    }

    fn asked(&self, path: &str) -> usize {
        self.server.requests().iter().filter(|request| request.path() == path).count()
    }

    /// Everything it was asked.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// URL of its introspection endpoint.
    pub fn introspection_url(&self) -> String {
        format!("{}{INTROSPECTION}", self.issuer())
    }
}

impl State {
    fn answer(&self, request: &Request) -> Answer {
        let says = *self.says.lock().unwrap();
        match says {
            Says::Garbage => return json_answer("{ this is: not JSON".to_owned()),
            Says::Error => return Answer::new(500, "{}").header("content-type", "application/json"),
            _ => {}
        }
        let issuer = format!("http://{}", request.headers.first("host").unwrap_or_default());
        let answer = match request.path() {
            DISCOVERY => discovery(&issuer, says),
            KEYS => self.published(says),
            INTROSPECTION => return self.introspect(request),
            _ => return Answer::new(404, "there is nothing here"),
        };
        let answer = json_answer(answer.to_string());
        if let Says::Slow(delay) = says { answer.delay(delay) } else { answer }
    }

    fn published(&self, says: Says) -> Value {
        let mut keys: Vec<Value> = self.keys.lock().unwrap().iter().map(|key| key.jwk()).collect();
        match says {
            Says::Empty => keys.clear(),
            Says::Huge => {
                let other = SigningKey::es256("other").jwk();
                let numbered =
                    |number: usize| with(other.clone(), json!({ "kid": format!("other-{number}") }));
                keys.extend((0..5_000).map(numbered));
            }
            _ => {}
        }
        json!({ "keys": keys })
    }

    /// RFC 7662 section 2: only for a client that proves itself, and only by POST.
    fn introspect(&self, request: &Request) -> Answer {
        let says = *self.says.lock().unwrap();
        let known = basic("gate+way:s%3Acret%2B1");
        if request.method != "POST" || request.headers.first("authorization") != Some(known.as_str()) {
            return Answer::new(401, "{\"error\":\"invalid_client\"}").header("www-authenticate", "Basic");
        }
        let body = request.text();
        let token = body.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default();
        let granted = self.granted.lock().unwrap().get(token).cloned();
        let mut answer = granted.unwrap_or_else(|| json!({ "active": false }));
        if says == Says::Huge {
            answer["padding"] = "x".repeat(1 << 20).into();
        }
        let answer = json_answer(answer.to_string());
        if let Says::Slow(delay) = says { answer.delay(delay) } else { answer }
    }
}

fn discovery(issuer: &str, says: Says) -> Value {
    let named = if says == Says::WrongIssuer { "http://127.0.0.1:1" } else { issuer };
    json!({
        "issuer": named,
        "jwks_uri": format!("{issuer}{KEYS}"),
        "introspection_endpoint": format!("{issuer}{INTROSPECTION}"),
        "response_types_supported": ["code"],
    })
}

fn json_answer(text: String) -> Answer {
    Answer::new(200, text).header("content-type", "application/json")
}
