//! A decision on who calls, by each provider, on credentials it has not seen and on ones it has.
//!
//! Valgrind has no SHA instructions: hashing counts for more instructions here than it takes time.

use super::case::{Case, Work, text};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use http::HeaderName;
use http::header::AUTHORIZATION;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair};
use ring::{hmac, rsa};
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Builder;
use tollgate::auth::api_key::{self, ApiKeys, Key};
use tollgate::auth::basic::Basic;
use tollgate::auth::claims::{Forwarding, Require};
use tollgate::auth::credential::TokenSource;
use tollgate::auth::document::{self, Algorithm, TokenFrom};
use tollgate::auth::jwt::keys::KeySet;
use tollgate::auth::jwt::verify::{Spec, Verifier};
use tollgate::auth::jwt::{Jwt, JwtSpec, Static};
use tollgate::auth::{Check, Provider, Verdict};
use tollgate::consumer::{Consumer, Consumers};
use tollgate::exchange::{Exchange, RequestHead};
use tollgate::value::{HeaderKey, Map, Secret, Span, Spanned};

/// They call in turn.
const CONSUMERS: usize = 256;
/// Verified tokens that are remembered: fewer than there are, so that each is new again when its turn comes, or all.
const TOO_FEW: usize = 16;
const ENOUGH: usize = 10_000;
const JWT: [(&str, Algorithm); 5] = [
    ("hs256", Algorithm::HS256),
    ("rs256", Algorithm::RS256),
    ("ps256", Algorithm::PS256),
    ("es256", Algorithm::ES256),
    ("eddsa", Algorithm::EdDSA),
];
const ISSUER: &str = "https://id.example";
const SECRET: &[u8] = b"a-secret-of-32-bytes-for-the-test";
const PASSWORD: &str = "correct horse battery staple";
/// A key of 2048 bits in PKCS #8, made for tests and nothing else: *ring* makes none.
const RSA: &[u8] = include_bytes!("../../src/auth/jwt/tests/rsa.pk8");

type Sign = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, String>>;

/// Every provider.
pub fn cases() -> Vec<Case> {
    let case = |name: &'static str, how, remembered| {
        Case::new(format!("auth/{name}/{how}"), CONSUMERS, move || decide(name, remembered))
    };
    let jwt = JWT.into_iter().flat_map(|(name, _)| [case(name, "new", TOO_FEW), case(name, "seen", ENOUGH)]);
    jwt.chain(["api-key", "basic"].map(|name| case(name, "seen", ENOUGH))).collect()
}

fn decide(what: &str, remembered: usize) -> Result<Work, String> {
    let (provider, requests) = subject(what, remembered)?;
    let x = Exchange::default();
    let runtime = Builder::new_current_thread().build().map_err(text)?;
    for request in &requests {
        // A password is hashed elsewhere when it is new.
        let verdict = match provider.check(request, &x) {
            Check::Now(verdict) => verdict,
            Check::Later(waiting) => runtime.block_on(waiting),
        };
        let Verdict::Accepted(_) = verdict else { return Err(format!("not accepted: {verdict:?}")) };
    }
    Ok(Work::new(move |at| {
        let Some(request) = requests.get(at % CONSUMERS) else { return };
        let check = black_box(provider.check(black_box(request), &x));
        assert!(matches!(check, Check::Now(Verdict::Accepted(_))));
    }))
}

/// A provider, and a request of each consumer.
fn subject(what: &str, remembered: usize) -> Result<(Box<dyn Provider>, Vec<RequestHead>), String> {
    let bearer = |token: String| request(AUTHORIZATION, &format!("Bearer {token}"));
    if let Some((_, algorithm)) = JWT.iter().find(|(name, _)| *name == what) {
        let (keys, sign) = keys(*algorithm)?;
        let requests =
            names().map(|name| bearer(token(*algorithm, &name, &sign)?)).collect::<Result<_, _>>()?;
        return Ok((Box::new(jwt(*algorithm, keys, remembered)), requests));
    }
    match what {
        "api-key" => {
            let header = HeaderName::from_static("x-api-key");
            let requests =
                names().map(|name| request(header.clone(), &key(&name))).collect::<Result<_, _>>()?;
            Ok((Box::new(api_keys()), requests))
        }
        "basic" => {
            let field = |name| format!("Basic {}", STANDARD.encode(format!("{name}:{PASSWORD}")));
            let requests =
                names().map(|name| request(AUTHORIZATION, &field(name))).collect::<Result<_, _>>()?;
            Ok((Box::new(basic()?), requests))
        }
        _ => Err(format!("there is no `{what}`")),
    }
}

fn names() -> impl Iterator<Item = String> {
    (0..CONSUMERS).map(|number| format!("user-{number}"))
}

fn consumer(name: &str) -> Arc<Consumer> {
    Arc::new(Consumer { name: name.into(), plan: None, tags: Vec::new() })
}

fn consumers() -> Consumers {
    Consumers::new(names().map(|name| (name.as_str().into(), consumer(&name))))
}

/// What a client sends.
fn request(name: HeaderName, value: &str) -> Result<RequestHead, String> {
    let request = http::Request::get("/orders/42").header("host", "api.example.com").header("accept", "*/*");
    let request = request.header("user-agent", "bench").header(name, value).body(()).map_err(text)?;
    Ok(request.into_parts().0)
}

fn jwt(algorithm: Algorithm, keys: KeySet, remembered: usize) -> Jwt {
    let forwarded = Spanned::built_in(HeaderKey(HeaderName::from_static("x-user")));
    let spec = JwtSpec {
        verifier: Verifier::new(Spec {
            issuer: ISSUER.to_owned(),
            audience: Some(vec!["api".to_owned()]),
            algorithms: vec![algorithm],
            typ: Some(vec!["JWT".to_owned()]),
            skew: 30,
            max_size: 8192,
        }),
        from: TokenSource::from(&TokenFrom::default()),
        require: Require::from(&Map::default()),
        consumer: "sub".to_owned(),
        forward: Forwarding::from(&Map(vec![(forwarded, "sub".to_owned())])),
        hide: false,
        cache: remembered,
    };
    Jwt::new("users".into(), spec, Arc::new(consumers()), Box::new(Static::new(keys)))
}

fn token(algorithm: Algorithm, subject: &str, sign: &Sign) -> Result<String, String> {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_err(text)?.as_secs();
    let header = json!({ "alg": format!("{algorithm:?}"), "typ": "JWT" });
    let claims =
        json!({ "iss": ISSUER, "aud": "api", "sub": subject, "exp": now + 86_400, "scope": "read write" });
    let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", BASE64.encode(signature)))
}

/// The keys of a provider, and what signs with them.
fn keys(algorithm: Algorithm) -> Result<(KeySet, Sign), String> {
    match algorithm {
        Algorithm::HS256 => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
            Ok((
                KeySet::from_secret(SECRET)?,
                Box::new(move |message| Ok(hmac::sign(&key, message).as_ref().to_vec())),
            ))
        }
        Algorithm::RS256 => rsa_keys(&signature::RSA_PKCS1_SHA256),
        Algorithm::PS256 => rsa_keys(&signature::RSA_PSS_SHA256),
        Algorithm::ES256 => p256_keys(),
        Algorithm::EdDSA => ed25519_keys(),
        other => Err(format!("no keys for {other:?}")),
    }
}

fn rsa_keys(padding: &'static dyn RsaEncoding) -> Result<(KeySet, Sign), String> {
    let pair = RsaKeyPair::from_pkcs8(RSA).map_err(text)?;
    let rsa::PublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
    let keys = public(json!({ "kty": "RSA", "n": BASE64.encode(n), "e": BASE64.encode(e) }))?;
    let sign = move |message: &[u8]| {
        let mut made = vec![0; pair.public().modulus_len()];
        pair.sign(padding, &SystemRandom::new(), message, &mut made).map_err(text)?;
        Ok(made)
    };
    Ok((keys, Box::new(sign)))
}

fn p256_keys() -> Result<(KeySet, Sign), String> {
    let (random, algorithm) = (SystemRandom::new(), &signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(text)?;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).map_err(text)?;
    // Uncompressed: one byte that says so, then the coordinates.
    let point = pair.public_key().as_ref().get(1..).and_then(|point| point.split_at_checked(32));
    let (x, y) = point.ok_or("an odd public key")?;
    let keys = public(json!({ "kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y) }))?;
    let sign = move |message: &[u8]| Ok(pair.sign(&random, message).map_err(text)?.as_ref().to_vec());
    Ok((keys, Box::new(sign)))
}

fn ed25519_keys() -> Result<(KeySet, Sign), String> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(text)?;
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(text)?;
    let keys = public(json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(pair.public_key()) }))?;
    Ok((keys, Box::new(move |message| Ok(pair.sign(message).as_ref().to_vec()))))
}

fn public(jwk: Value) -> Result<KeySet, String> {
    KeySet::from_jwks(jwk.to_string().as_bytes())
}

fn api_keys() -> ApiKeys {
    let known = |name: String| Key {
        hash: api_key::hash(&key(&name)).0,
        consumer: consumer(&name),
        name: "main".into(),
        expires: None,
    };
    ApiKeys::new("partners", &document::ApiKey::default(), names().map(known).collect::<Vec<_>>().iter())
}

/// A key as long as those that tollgate makes.
fn key(name: &str) -> String {
    format!("tg_{name:0>43}")
}

/// The cheapest hash there is: a password that is remembered is not hashed again.
fn basic() -> Result<Basic, String> {
    let hash = bcrypt::hash(PASSWORD, 4).map_err(text)?;
    let users = names().map(|name| (Spanned::built_in(name), Spanned::built_in(Secret::new(hash.clone()))));
    let users = Spanned::built_in(Map(users.collect()));
    let cache = Some(Span(Duration::from_secs(3600)));
    let written = document::Basic { users, realm: None, forward: None, hide: None, cache };
    Basic::new(&"staff".into(), &written, &consumers())
}
