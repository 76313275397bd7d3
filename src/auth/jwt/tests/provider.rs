//! The whole provider, as the step asks it.

use super::*;
use crate::auth::document;
use crate::auth::jwt::{Current, Jwt, JwtSpec, KeySource, Static};
use crate::auth::{Check, Provider, Refusal, Verdict, Waiting};
use crate::consumer::{Consumer, Consumers};
use crate::exchange::{Exchange, RequestHead};
use crate::reply::Kind;
use crate::value::{HeaderKey, Map, OneOrMany, Secret, Spanned};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn written() -> document::Jwt {
    document::Jwt {
        issuer: Spanned::built_in(ISSUER.to_owned()),
        audience: Spanned::built_in(OneOrMany(vec!["api".to_owned()])),
        jwks: None,
        pem: None,
        secret: Some(Spanned::built_in(Secret::new(SECRET.to_owned()))),
        algorithms: None,
        typ: None,
        skew: None,
        from: document::TokenFrom::default(),
        max_size: None,
        refresh: None,
        cooldown: None,
        stale_max: None,
        timeout: None,
        ca: None,
        require: Map::default(),
        consumer: None,
        forward: Map::default(),
        hide: false,
        cache: None,
    }
}

fn provider(written: &document::Jwt) -> Jwt {
    let keys = Static::read(written, Path::new("/")).unwrap().unwrap();
    with_keys(written, Box::new(keys))
}

fn with_keys(written: &document::Jwt, keys: Box<dyn KeySource>) -> Jwt {
    let ann = Consumer { name: "ann".into(), plan: None, tags: Vec::new() };
    let consumers = Consumers::new([("ann".into(), Arc::new(ann))]);
    Jwt::new("staff".into(), JwtSpec::new(written).unwrap(), Arc::new(consumers), keys)
}

fn request(token: &str) -> RequestHead {
    let request = http::Request::builder().uri("/").header("authorization", format!("Bearer {token}"));
    request.body(()).unwrap().into_parts().0
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn token(mut claims: Value) -> String {
    claims.as_object_mut().unwrap().entry("exp").or_insert(json!(now() + 600));
    Signer::Secret(SECRET.into()).token(json!({"alg": "HS256"}), claims)
}

fn at_once(provider: &Jwt, token: &str) -> Verdict {
    match provider.check(&request(token), &Exchange::default()) {
        Check::Now(verdict) => verdict,
        Check::Later(_) => panic!("it must be known at once"),
    }
}

fn refusal(verdict: Verdict) -> Refusal {
    match verdict {
        Verdict::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_it_is() {
    let mut written = written();
    let key = |name| Spanned::built_in(HeaderKey(http::HeaderName::from_static(name)));
    written.forward =
        Map(vec![(key("x-tenant"), "app.tenant".to_owned()), (key("x-missing"), "missing".to_owned())]);
    let provider = provider(&written);
    let token = token(json!({"app": {"tenant": "t1"}}));
    let Verdict::Accepted(first) = at_once(&provider, &token) else { panic!() };
    assert_eq!((&*first.subject, &*first.provider, first.credential.len()), ("ann", "staff", 16));
    assert_eq!(first.consumer.as_ref().map(|consumer| &*consumer.name), Some("ann"));
    let tenant = (http::HeaderName::from_static("x-tenant"), http::HeaderValue::from_static("t1"));
    assert_eq!(first.forward, [tenant]);
    assert_eq!(provider.forwards().len(), 2);
    assert!(first.expires.unwrap() >= now() + 500);
    let Verdict::Accepted(second) = at_once(&provider, &token) else { panic!() };
    assert!(Arc::ptr_eq(&first, &second), "the second time it is remembered");
    assert_eq!(provider.cache().len(), 1);
}

#[test]
fn what_is_refused_is_not_remembered() {
    let mut written = written();
    written.require = Map(vec![(
        Spanned::built_in("scope".to_owned()),
        document::ClaimRule { any: Vec::new(), all: vec!["write".to_owned()] },
    )]);
    let provider = provider(&written);
    let refused = refusal(at_once(&provider, &token(json!({"scope": "read"}))));
    assert_eq!((refused.kind, refused.scope.as_deref()), (Kind::INSUFFICIENT_SCOPE, Some("write")));
    for (claims, why) in [
        (json!({"exp": now() - 31}), "expired"),
        (json!({"aud": "x"}), "audience"),
        (json!({"sub": null}), "subject"),
        (json!({"sub": ""}), "subject"),
        (json!({"sub": "a\nb"}), "subject"),
        (json!({"sub": "a".repeat(257)}), "subject"),
        (json!({"sub": {}}), "subject"),
    ] {
        let refused = refusal(at_once(&provider, &token(claims)));
        assert_eq!(
            (refused.kind, refused.why, refused.error),
            (Kind::INVALID_TOKEN, why, Some("invalid_token"))
        );
    }
    assert!(provider.cache().is_empty());
    let twice =
        http::Request::builder().header("authorization", "Bearer a").header("authorization", "Bearer b");
    let twice = twice.body(()).unwrap().into_parts().0;
    let Check::Now(verdict) = provider.check(&twice, &Exchange::default()) else { panic!() };
    assert_eq!(refusal(verdict).error, Some("invalid_request"));
    let none = http::Request::new(()).into_parts().0;
    assert!(matches!(provider.check(&none, &Exchange::default()), Check::Now(Verdict::Absent)));
    assert_eq!(provider.challenge().unwrap(), "Bearer");
}

#[test]
fn another_claim_may_name_the_consumer() {
    let mut written = written();
    written.consumer = Some("app.client".to_owned());
    let provider = provider(&written);
    let Verdict::Accepted(identity) = at_once(&provider, &token(json!({"app": {"client": 7}}))) else {
        panic!()
    };
    assert_eq!((&*identity.subject, identity.consumer.is_none()), ("7", true));
    assert_eq!(refusal(at_once(&provider, &token(json!({})))).why, "subject");
}

#[test]
fn nothing_is_remembered_where_that_is_off() {
    let mut written = written();
    written.cache = Some(0);
    let provider = provider(&written);
    let token = token(json!({}));
    let Verdict::Accepted(first) = at_once(&provider, &token) else { panic!() };
    let Verdict::Accepted(second) = at_once(&provider, &token) else { panic!() };
    assert!(!Arc::ptr_eq(&first, &second) && provider.cache().is_empty());
}

#[test]
fn keys_and_algorithms_must_go_together() {
    let algorithms = |list: &[Algorithm]| {
        Some(Spanned::built_in(list.iter().copied().map(Spanned::built_in).collect::<Vec<_>>()))
    };
    let with_secret = |list| document::Jwt { algorithms: algorithms(list), ..written() };
    for list in [&[Algorithm::RS256][..], &[Algorithm::HS256, Algorithm::ES256], &[]] {
        assert!(JwtSpec::new(&with_secret(list)).is_err());
    }
    let too_short = with_secret(&[Algorithm::HS256, Algorithm::HS512]);
    assert!(Static::read(&too_short, Path::new("/")).unwrap_err().message.contains("at least 64 bytes"));
    let without = document::Jwt { secret: None, algorithms: algorithms(&[Algorithm::HS256]), ..written() };
    assert!(JwtSpec::new(&without).unwrap_err().message.contains("needs a secret"));
    let fetched = document::Jwt { secret: None, ..written() };
    assert!(Static::read(&fetched, Path::new("/")).unwrap().is_none());
    let directory = tempfile::tempdir().unwrap();
    let from_file = |text: &str| {
        std::fs::write(directory.path().join("keys.json"), text).unwrap();
        let jwks = document::Jwks::File("keys.json".into());
        let written = document::Jwt { secret: None, jwks: Some(Spanned::built_in(jwks)), ..written() };
        Static::read(&written, directory.path())
    };
    assert!(from_file(&p256().jwk("k").to_string()).unwrap().is_some());
    assert!(from_file(&p384().jwk("k").to_string()).is_err(), "no key for the default algorithms");
    assert!(from_file(r#"{"keys":[]}"#).is_err());
    assert!(from_file("").is_err());
}

/// Keys that come later: none, then one set, then another.
struct Later {
    sets: Vec<Arc<KeySet>>,
    generation: AtomicU64,
    fetches: AtomicU64,
}

impl KeySource for &'static Later {
    fn generation(&self) -> Result<u64, &'static str> {
        match self.generation.load(Ordering::SeqCst) {
            0 => Err("never fetched"),
            generation => Ok(generation),
        }
    }
    fn current(&self) -> Current {
        match self.generation() {
            Ok(generation) => Current::Keys { set: self.sets[generation as usize - 1].clone(), generation },
            Err(why) => Current::Unavailable(why),
        }
    }
    fn missing(&self, _kid: &str) -> Option<Waiting<'_, ()>> {
        (self.fetches.fetch_add(1, Ordering::SeqCst) == 0)
            .then(|| -> Waiting<'_, ()> { Box::pin(async { self.generation.store(2, Ordering::SeqCst) }) })
    }
}

#[tokio::test]
async fn keys_change() {
    let (old, new) = (p256(), p256());
    let later: &'static Later = Box::leak(Box::new(Later {
        sets: vec![Arc::new(set(&[old.jwk("old")])), Arc::new(set(&[new.jwk("new")]))],
        generation: AtomicU64::new(0),
        fetches: AtomicU64::new(0),
    }));
    let written = document::Jwt { secret: None, ..written() };
    let provider = with_keys(&written, Box::new(later));
    let token = |signer: &Signer, kid: &str| {
        request(&signer.token(json!({"alg": "ES256", "kid": kid}), json!({"exp": now() + 600})))
    };
    let (of_old, of_new, x) = (token(&old, "old"), token(&new, "new"), Exchange::default());
    let verdict = async |request| match provider.check(request, &x) {
        Check::Now(verdict) => verdict,
        Check::Later(verdict) => verdict.await,
    };
    assert!(matches!(verdict(&of_old).await, Verdict::Unavailable("never fetched")));
    later.generation.store(1, Ordering::SeqCst);
    assert!(matches!(verdict(&of_old).await, Verdict::Accepted(_)));
    assert!(matches!(verdict(&of_new).await, Verdict::Accepted(_)), "after a fetch");
    // What was verified with keys that are gone is verified again; no fetch is allowed now.
    assert_eq!(refusal(verdict(&of_old).await).why, "unknown-key");
    assert_eq!(later.fetches.load(Ordering::SeqCst), 2);
    later.generation.store(0, Ordering::SeqCst);
    assert!(matches!(verdict(&of_new).await, Verdict::Unavailable(_)), "503, though it is remembered");
}
